"""What `vergence data check` costs on a large data set: CPU seconds, and memory beside that of the imports.

    OMP_NUM_THREADS=1 python -m benchmarks.data_check --rows 40000

The data set is generated in a temporary folder and deleted: parquet shards with images inside, then JSON lines with
files beside. Images are drawn from a few hundred pictures (charts as PNG, noise as JPEG) and differ in
their bytes, so that none is looked at once for many rows. Each check runs in a process of its own, which says the most
memory that it held (VmHWM), and how much after its imports.

What `datasets` with the image processor takes to see as many images is extrapolated from `--naive` rows. The last line
is what `--against` takes once images are decoded: 2,000 pictures of noise looked for among as many as there are rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from vergence.scenes.overlap import Looks, Place, look_at, overlap

CHECK = """
import sys, time
from pathlib import Path
import datasets, pyarrow.parquet, transformers  # what reading may import lazily is not the check's cost
import vergence.scenes.census, vergence.scenes.sheet, vergence.scenes.source
from vergence.cli import main

def most():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

imports, start = most(), time.process_time()
main(sys.argv[1:])
print(f'{{"seconds": {time.process_time() - start}, "most": {most()}, "imports": {imports}}}', file=sys.stderr)
"""
NAIVE = """
import sys, time
from pathlib import Path
import datasets, transformers
datasets.disable_progress_bars()
rows = datasets.load_dataset("parquet", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
rows = rows.cast_column("images", datasets.List(datasets.Image()))
processor, start = transformers.Qwen2VLImageProcessorPil(), time.process_time()
number = int(sys.argv[3])
for row in rows.select(range(number)):
    processor(images=[image.convert("RGB") for image in row["images"]], return_tensors="pt")
print(f'{{"seconds": {time.process_time() - start}}}', file=sys.stderr)
"""


def pictures(number: int, seed: int) -> list[tuple[str, bytes]]:
    """(ending, bytes) of different pictures of 10 to 110 KB: charts, and noise with the spectrum of a photograph."""
    die, found = Random(seed), []
    while len(found) < number:
        width, height = die.randint(300, 900), die.randint(250, 700)
        chart = len(found) % 2 == 0
        image = _chart(die, width, height) if chart else _photo(die, width, height)
        file = BytesIO()
        image.save(file, "PNG" if chart else "JPEG", quality=80)
        found.append(("png" if chart else "jpg", file.getvalue()))
    return found


def _chart(die: Random, width: int, height: int) -> Image.Image:
    """Bars of uneven ink, which PNG compresses to some tens of KB."""
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for column in range(0, width, 60):
        colour = tuple(die.randint(0, 255) for _ in range(3))
        pen.rectangle([column + 8, die.randint(10, height - 10), column + 50, height], fill=colour)
    pixels = np.asarray(image).copy()
    rows = np.random.default_rng(die.randint(0, 2**31)).integers(0, 6, (height // 4, width // 2, 1), np.uint8)
    pixels[: height // 4, : width // 2] -= np.minimum(pixels[: height // 4, : width // 2], rows)
    return Image.fromarray(pixels)


def _photo(die: Random, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(die.randint(0, 2**31))
    coarse = Image.fromarray(rng.integers(0, 255, (height // 24, width // 24, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray((smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8))


def marked(ending: str, picture: bytes, number: int) -> bytes:
    """The same picture with a comment in it: other bytes, the same pixels."""
    note = f"row {number}".encode()
    if ending == "png":  # a text chunk before the last, which has 12 bytes
        body = b"tEXtComment\0" + note
        chunk = len(body[4:]).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        return picture[:-12] + chunk + picture[-12:]
    return picture[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + picture[2:]


def rows(number: int, pool: list[tuple[str, bytes]]) -> Iterator[tuple[dict[str, Any], str, bytes]]:
    """Question and answer, and the picture's ending and bytes."""
    for at in range(number):
        ending, picture = pool[at % len(pool)]
        words = " ".join(f"word{(at * 7 + place) % 997}" for place in range(20 + at % 60))
        answer = str(at % 200) if at % 3 else f"\\frac{{{at % 50 + 1}}}{{7}}"
        row = {"problem": f"<image>In figure {at}, {words}: what is x?", "answer": answer, "id": at}
        yield row, ending, marked(ending, picture, at)


def write_parquet(folder: Path, number: int, pool: list[tuple[str, bytes]], shard: int = 4000) -> int:
    """Shards with images inside, row groups of 1000; how many bytes they have."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("problem", pa.string()), ("answer", pa.string()), ("id", pa.int64()), ("images", pa.list_(kind))]
    )
    held: list[dict[str, Any]] = []
    writer: pq.ParquetWriter | None = None
    for at, (row, _, picture) in enumerate(rows(number, pool)):
        if at % shard == 0:
            if writer:
                writer.close()
            writer = pq.ParquetWriter(folder / f"train-{at // shard:05d}.parquet", schema)
        held.append({**row, "images": [{"bytes": picture, "path": None}]})
        if len(held) == 1000 or at == number - 1 or (at + 1) % shard == 0:
            writer.write_table(pa.Table.from_pylist(held, schema=schema))
            held.clear()
    writer.close()
    return sum(path.stat().st_size for path in folder.iterdir())


def write_lines(folder: Path, number: int, pool: list[tuple[str, bytes]]) -> int:
    """One file of JSON lines, and a folder of pictures; how many bytes they have."""
    (folder / "images").mkdir()
    total = 0
    with (folder / "train.jsonl").open("w") as lines:
        for row, ending, picture in rows(number, pool):
            name = f"images/{row['id']:06d}.{ending}"
            (folder / name).write_bytes(picture)
            total += lines.write(json.dumps({**row, "images": [name]}) + "\n") + len(picture)
    return total


def compared(mine: int, theirs: int, seed: int) -> float:
    """CPU seconds in which so many different images are looked for among others."""
    rng, sides = np.random.default_rng(seed), (Looks(), Looks())
    for looks, number in zip(sides, (mine, theirs), strict=True):
        for at in range(number):
            look = look_at(Image.fromarray(rng.integers(0, 256, (20, 20 + at % 5, 3), np.uint8)))
            looks.numbers[look.pixels] = len(looks.looks)
            looks.looks.append(look)
            looks.places.append(Place("noise", at, b"", (at,)))
    started = time.process_time()
    if any(overlap(*sides)):
        raise SystemExit("noise was found in other noise")
    return time.process_time() - started


def run(code: str, *arguments: str) -> dict[str, Any]:
    """What a process says in the last line of its errors."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return {**json.loads(done.stderr.strip().splitlines()[-1]), "out": done.stdout}


def main(given: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--pool", type=int, default=300, help="different pictures")
    parser.add_argument("--naive", type=int, default=400, help="rows that datasets and the processor see; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-decode", action="store_true", help="heads alone")
    arguments = parser.parse_args(given)
    pool = pictures(arguments.pool, arguments.seed)
    print("| data | check | CPU s | most memory, MB | above imports, MB |\n|---|---|---|---|---|")
    hashes = set()
    for name, write in (("parquet", write_parquet), ("JSON lines", write_lines)):
        with tempfile.TemporaryDirectory() as folder:
            size = write(Path(folder), arguments.rows, pool)
            for option in ([], *([] if arguments.no_decode else [["--decode"]])):
                found = run(CHECK, "data", "check", folder, "--json", *option)
                report = json.loads(found["out"].splitlines()[-1])
                if report["sound"] != arguments.rows:
                    raise SystemExit(f"{report['refused']} were refused")
                hashes.add(report["hash"])
                most, above = found["most"] / 1e6, (found["most"] - found["imports"]) / 1e6
                how = "--decode" if option else "heads"
                print(
                    f"| {name}, {size / 1e9:.2f} GB | {how} | {found['seconds']:.1f} | {most:.0f} | {above:.0f} |",
                    flush=True,
                )
            if name == "parquet" and arguments.naive:
                with tempfile.TemporaryDirectory() as cache:
                    seconds = run(NAIVE, f"{folder}/*.parquet", cache, str(arguments.naive))["seconds"]
                whole = seconds / arguments.naive * arguments.rows
                print(
                    f"| parquet | `datasets` and the image processor, from {arguments.naive} rows | {whole:.0f} | | |",
                    flush=True,
                )
    seconds = compared(2000, arguments.rows, arguments.seed)
    print(f"| 2,000 images | looked for among {arguments.rows:,} | {seconds:.1f} | | |")
    print(f"The hash of both: {'the same' if len(hashes) == 1 else hashes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
