"""What several commands make of the options they are given."""

from pathlib import Path

from vergence.types import UserError


def use(threads: int | None) -> None:
    """Let PyTorch use that many CPU threads; None leaves it as it is.

    Raises:
        UserError: fewer than one.
    """
    if threads is not None:
        import torch

        if threads < 1:
            raise UserError(f"--threads must be at least 1, got {threads}")

        torch.set_num_threads(threads)


def model_of(given: str) -> str | Path:
    """What `models.policy.load` takes: of a run folder its last checkpoint, of anything else itself.

    >>> model_of("seedling")
    'seedling'

    Raises:
        UserError: it is a run folder without a checkpoint.
    """
    checkpoints = Path(given) / "checkpoints"
    if given == "seedling" or not checkpoints.is_dir() or (Path(given) / "config.json").exists():
        return given
    from vergence.train.checkpoint import latest

    last = latest(checkpoints)
    if last is None:
        raise UserError(f"{given} is a run without a checkpoint; train it further (--resume), or name another model")
    return last
