"""Commands that make again what ships with the package."""

import sys
from pathlib import Path

from vergence.commands.given import use


def seedling(out: Path, seed: int = 0, threads: int | None = None) -> None:
    """Raise the seedling again from its seed: a few minutes on two cores.

    Example: vergence seedling --out my-seedling

    Args:
        out: Where to write it, in Hugging Face layout.
        seed: Of its weights and of what it is shown. The shipped one has seed 0.
        threads: CPU threads. The same bits need the same number; the shipped one was raised with 2.
    """
    from vergence.train.warm_start import WarmStart, raise_and_save

    use(threads)
    settings = WarmStart(seed=seed)

    def watch(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"step {step:>5}  loss {loss:.3f}", file=sys.stderr)

    raise_and_save(settings, out, watch=watch)
    print(out)


def reasoners(out: Path, seed: int = 0, threads: int | None = None) -> None:
    """Raise the tiny reasoners, weak and strong, again from a seed: minutes on two cores.

    Example: vergence reasoners --out my-reasoners

    Args:
        out: Where to write them, in Hugging Face layout: OUT/weak and OUT/strong. It must be new or empty.
        seed: Of their weights and of what they are shown. The shipped ones have seed 0.
        threads: CPU threads. The same bits need the same number.
    """
    from vergence.train.reasoners import raise_reasoners

    use(threads)

    def watch(name: str, step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"{name}: step {step:>5}  loss {loss:.3f}", file=sys.stderr)

    raise_reasoners(out, seed=seed, watch=watch)
    print(out)
