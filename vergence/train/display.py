"""What a run shows while it runs: the five numbers one acts on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vergence.types import Metrics

SHOWN = {
    "accuracy": "rewards/accuracy",
    "no signal": "frac_reward_zero_std",
    "entropy": "entropy",
    "KL masked": "perception/kl_masked",
    "grad": "grad_norm",
}
"""Is it learning; how many groups teach nothing; is it collapsing; does it look; is it stable."""


class Display:
    """A progress bar in a terminal, a line every ten steps anywhere else. Writes to standard error."""

    def __init__(self, steps: int, *, quiet: bool = False) -> None:
        self.steps = steps
        self.console = Console(stderr=True, quiet=quiet)
        self.latest: dict[str, float] = {}
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console) if self.console.is_terminal and not quiet else None

    def __enter__(self) -> Display:
        """Start the bar."""
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task("", total=self.steps)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        if self.bar:
            self.bar.stop()

    def __call__(self, step: int, metrics: Metrics, seconds: float) -> None:
        """Show a step."""
        self.latest |= {name: metrics[key] for name, key in SHOWN.items() if key in metrics}
        told = "  ".join(f"{name} {value:.3f}" for name, value in self.latest.items()) + f"  {seconds:.1f} s"
        if self.bar:
            self.bar.update(self.task, completed=step, description=told)
        elif step == 1 or step % 10 == 0 or step == self.steps:
            self.console.print(f"step {step:>4}/{self.steps}  {told}", highlight=False, soft_wrap=True)
        if "eval/accuracy" in metrics:
            self.console.print(f"step {step:>4}: tune accuracy {metrics['eval/accuracy']:.3f}", highlight=False)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, of); nothing where standard error is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(what), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
