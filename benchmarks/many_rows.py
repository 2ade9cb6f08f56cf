"""What `vergence data check`, and opening for training, take of 10,000, 100,000 and 1,000,000 rows of JSON lines.

    OMP_NUM_THREADS=1 python -m benchmarks.many_rows --out rows --rows 10000 100000 1000000

Each row has a question of 100 to 2,000 characters, one of a thousand pictures, and an answer: a number in most, one of
its own in one of ten. `bad` is a file in which every row is refused. Each command runs in a process of its own; its
seconds, its peak of memory, and how much of this is beside that of one row are told.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from PIL import Image

from benchmarks.load import LAUNCH, take

PICTURES = 1000
WORDS = ("the", "of", "red", "blue", "triangle", "angle", "sum", "circles", "left", "right", "height", "table", "chart")
OPEN = f"""{LAUNCH}
from vergence.scenes.source import open_source
from vergence.train.data import describe, told
from vergence.types import UserError
try:
    source = open_source(arguments[0], (), skip_refused=True, tell=print)
    print(told(describe(source, arguments[0])).splitlines()[0])
    for step in range(20):
        scenes = source.train(8 * step, 8, seed=0)
except UserError as error:
    print("error:", error)
"""
CHECK = f"{LAUNCH}\nfrom vergence.cli import main\nmain(['data', 'check', *arguments])"


def rows(number: int, *, bad: bool) -> Iterator[dict[str, str]]:
    """Rows; every second of the bad ones has no answer, the others no picture."""
    die = Random(number)
    for at in range(number):
        longest = 2000 if at % 20 == 0 else 300
        question = " ".join(die.choices(WORDS, k=die.randint(20, longest // 6)))
        answer = f"{at} and {die.random():.6f}" if at % 10 == 0 else str(die.randint(0, 99))
        row = {"image": f"pictures/{die.randrange(PICTURES)}.png", "question": f"{question} {at}?", "answer": answer}
        if bad:
            row |= {"answer": ""} if at % 2 else {"image": f"pictures/none-{at}.png"}
        yield row


def make(folder: Path, number: int, *, bad: bool) -> Path:
    """The file, if it is not there yet."""
    path = folder / f"{'bad' if bad else 'rows'}-{number}.jsonl"
    if not path.is_file():
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(number, bad=bad))
    return path


def measure(folder: Path, number: int) -> None:
    """Three lines of the table."""
    good, bad = make(folder, number, bad=False), make(folder, number, bad=True)
    listed = folder / "refused.jsonl"
    tasks = {
        "check": (CHECK, [str(good)]),
        "check, all refused": (CHECK, [str(bad), "--refused", str(listed)]),
        "open for training": (OPEN, [str(good)]),
        "open, all refused": (OPEN, [str(bad)]),
    }
    for name, (code, arguments) in tasks.items():
        listed.unlink(missing_ok=True)
        taken = take(arguments, folder / "log.txt", code)
        each = 1e6 * taken.cpu / number
        cost = f"{taken.seconds:>8.1f} s {taken.cpu:>8.1f} CPU s {each:>6.0f} us a row {taken.mib:>7,.0f} MiB"
        print(f"{number:>9,} {name:<20}{cost}  {taken.said}", flush=True)


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 10_000, 100_000, 1_000_000])
    given = parser.parse_args()
    (given.out / "pictures").mkdir(parents=True, exist_ok=True)
    for at in range(PICTURES):
        path = given.out / "pictures" / f"{at}.png"
        if not path.is_file():
            Image.new("RGB", (64 + at % 8, 48), (at % 256, at // 4, 99)).save(path)
    for number in given.rows:
        measure(given.out, number)


if __name__ == "__main__":
    main()
