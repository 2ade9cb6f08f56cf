"""What a run shows while it runs: the five numbers one acts on, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from vergence.harmless import harmless
from vergence.types import Metrics

SHOWN = {
    "accuracy": "rewards/accuracy",
    "no signal": "frac_reward_zero_std",
    "entropy": "entropy",
    "KL masked": "perception/kl_masked",
    "grad": "grad_norm",
}
"""Is it learning; how many groups teach nothing; is it collapsing; does it look; is it stable."""

GONE = (OSError, ValueError)
"""What writing raises where there is nothing to write to any more, or not in these characters."""


class Display:
    """A progress bar in a terminal, a line every ten steps anywhere else. Writes to standard error.

    It never ends a run: where nothing can be written any more (the terminal is gone), it falls silent.
    """

    def __init__(self, steps: int, *, quiet: bool = False, console: Console | None = None) -> None:
        self.steps = steps
        self.console = console or Console(stderr=True, quiet=quiet)
        self.latest: dict[str, float] = {}
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TimeRemainingColumn(),
            TextColumn("{task.fields[seconds]}"),
        )
        self.numbers = Text(overflow="ellipsis", no_wrap=True)
        self.bar: Progress | None = None
        self.live: Live | None = None
        if self.console.is_terminal and not quiet:
            self.bar = Progress(*columns, console=self.console)
            self.live = Live(Group(self.bar, self.numbers), console=self.console, refresh_per_second=4)

    def __enter__(self) -> Display:
        """Start the bar."""
        if self.live:
            self.task = self.bar.add_task("", total=self.steps, seconds="")
            with suppress(*GONE):
                self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        if self.live:
            with suppress(*GONE):
                self.live.stop()

    def __call__(self, step: int, metrics: Metrics, seconds: float) -> None:
        """Show a step."""
        self.latest |= {name: metrics[key] for name, key in SHOWN.items() if key in metrics}
        told = "  ".join(f"{name} {value:.3f}" for name, value in self.latest.items())
        if self.bar:
            self.numbers.plain = told
            self.bar.update(self.task, completed=step, seconds=f"{seconds:.1f} s")
        elif step == 1 or step % 10 == 0 or step == self.steps:
            self.tell(f"step {step:>4}/{self.steps}  {told}  {seconds:.1f} s")
        if "eval/accuracy" in metrics:
            self.tell(f"step {step:>4}: tune accuracy {metrics['eval/accuracy']:.3f}")

    def tell(self, line: str) -> None:
        """Show a line, above the bar where there is one; a warning in another colour."""
        with suppress(*GONE):
            style = "yellow" if line.startswith("warning") else ""
            self.console.print(Text(harmless(line), style=style), soft_wrap=True)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, of); nothing where standard error is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(what), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
