"""A tiny run, trained, ended and gone on with; and what it has in its folder."""

from pathlib import Path

from vergence.train.config import Config
from vergence.train.loop import train

TINY = Config(
    method="papo",
    options={"gamma": "0.05", "cell": "8"},
    steps=4,
    scenes_per_batch=2,
    siblings=2,
    parts=2,
    max_tokens=6,
    watch_every=1,
    save_every=2,
    eval_every=3,
)
"""Two optimizer steps to a batch: 1 and 3 are in the middle of one."""
CLOCK = {"timings.jsonl"}


def evaluate(policy) -> dict[str, float]:
    """Depends on the weights."""
    return {"accuracy": float(next(policy.model.parameters()).detach().abs().mean())}


def go(out: Path, *, config: Config = TINY, resume: bool = False, **more) -> Path:
    """Train."""
    return train(config, out, resume=resume, evaluate=more.pop("evaluate", evaluate), **more)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the clock's."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in CLOCK
    }


def assert_the_same(whole: Path, other: Path, *, extra: tuple[str, ...] = ()) -> None:
    """All files of the one are those of the other; checkpoints of a stop may be there besides."""
    one, two = contents(whole), contents(other)
    more = {name.split("/")[1] for name in two.keys() - one.keys() if name.startswith("checkpoints/")}
    assert more == set(extra)
    assert one.keys() == {name for name in two if not name.startswith(tuple(f"checkpoints/{one}/" for one in extra))}
    assert [name for name in one if one[name] != two[name]] == []
