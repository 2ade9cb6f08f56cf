"""A data set that is broken in every way we know: what is sound is loaded, and every other row says why it is not."""

import json
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vergence.scenes.files import images_of, read, survey
from vergence.scenes.parquet import read_parquet
from vergence.scenes.rows import Row, by_reason
from vergence.scenes.source import open_source
from vergence.scenes.tables import Refused
from vergence.types import UserError

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG whose head says 30,000 x 30,000 pixels."""
    data = bytearray(stored(Image.new("1", (1, 1))))
    data[16:24] = (30_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return stored(NOISE, "JPEG", exif=exif)


def palette() -> bytes:
    image = NOISE.quantize(8)
    return stored(image, transparency=3)


PICTURES = {
    "sound.png": stored(NOISE),
    "cmyk.jpg": stored(NOISE.convert("CMYK"), "JPEG"),
    "palette.png": palette(),
    "moves.gif": stored(NOISE.quantize(8), "GIF", save_all=True, append_images=[Image.new("P", (60, 40))]),
    "turned.jpg": turned(),
    "huge.png": bomb(),
    "text.png": b"not a picture",
}
ROW = {"image": "sound.png", "question": "<image>How many?", "answer": "3"}

SOUND: tuple[dict[str, Any], ...] = (
    {},
    {"image": "cmyk.jpg"},
    {"image": "palette.png"},
    {"image": "moves.gif"},
    {"image": "turned.jpg"},
    {"image": None, "question": "How much is 1 + 2?"},
    {"question": "no placeholder"},
)
BROKEN: tuple[tuple[dict[str, Any], str, str, str], ...] = (
    ({"image": "huge.png"}, "image", "huge.png is too large to be decoded", "shrink it"),
    ({"image": "text.png"}, "image", "text.png is not a picture that Pillow can open", "save it as PNG or JPEG"),
    (
        {"image": "missing.png"},
        "image",
        "there is no file 'missing.png'",
        "copy the picture there, or correct the path",
    ),
    ({"image": "../../secret.png"}, "image", "leads out of the file's folder", "copy the picture there"),
    ({"image": "a\0.png"}, "image", "is not a path", "write the picture's"),
    ({"question": "<image><image>?"}, "question", "2 placeholders for 1 image", "write one '<image>' for each image"),
    ({"image": None}, "question", "1 placeholder for 0 images", "give the image"),
    ({"question": "a\0b"}, "question", "holds a null character", "take it out"),
    ({"question": "<|im_start|>"}, "question", "holds '<|im_start|>'", "take it out"),
    ({"question": None}, "question", "null", "write the question"),
    ({"answer": ""}, "answer", "empty", "write the answer"),
    ({"answer": None}, "answer", "null", "write the answer"),
)
IN_JSON_ALONE: tuple[tuple[Any, str, str, str], ...] = (
    ("{not JSON", "", "not JSON", "write one object to a line"),
    ([1, 2], "", "not an object", 'write {"image": ...'),
    (ROW | {"answer": ["3"]}, "answer", "must be text or a number", "write it so"),
    (ROW | {"question": 3}, "question", "must be text or a list of messages, got 3", "write the question"),
    ({"image": "sound.png", "query": "?", "answer": "3"}, "question", "missing", "--columns question=NAME"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "data"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(stored(NOISE))
    for name, data in PICTURES.items():
        (inside / name).write_bytes(data)
    return inside


def as_jsonl(folder: Path) -> tuple[Path, list[tuple[str, str, str]], int]:
    rows = [ROW | row for row in SOUND] + [ROW | row for row, *_ in BROKEN] + [row for row, *_ in IN_JSON_ALONE]
    path = folder / "broken.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path, [(field, why, what) for _, field, why, what in BROKEN + IN_JSON_ALONE], 1


def as_parquet(folder: Path) -> tuple[Path, list[tuple[str, str, str]], int]:
    """Pictures in the file where there are any, as `datasets` writes them."""

    def cell(name: str | None) -> dict[str, Any] | None:
        return name and {"bytes": PICTURES.get(name), "path": name}

    rows = [ROW | row for row in SOUND] + [ROW | row for row, *_ in BROKEN]
    path = folder / "broken.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"image": cell(row["image"])} for row in rows]), path, row_group_size=5)
    named = dict.fromkeys(PICTURES, "the picture")
    expected = [
        (field, why.replace(why.split()[0], named.get(why.split()[0], why.split()[0])), what)
        for _, field, why, what in BROKEN
    ]
    return path, expected, 0


@pytest.mark.parametrize("write", [as_jsonl, as_parquet])
def test_what_is_sound_is_loaded_and_every_other_row_is_reported(folder, write):
    path, expected, first = write(folder)
    rows = list(survey(path))
    assert [row.row for row in rows] == list(range(first, first + len(rows)))
    sound, broken = rows[: len(SOUND)], rows[len(SOUND) :]
    assert all(isinstance(row, Row) for row in sound), [row for row in sound if not isinstance(row, Row)]
    assert [[image.mode for image in images_of(row)] for row in sound] == [["RGB"]] * 5 + [[], ["RGB"]]
    assert images_of(sound[4])[0].size == (40, 60)
    assert len(broken) == len(expected)
    for refused, (field, why, what) in zip(broken, expected, strict=True):
        assert (refused.file, refused.field) == (str(path), field)
        assert why in refused.reason
        assert what in refused.remedy
    files = read(path)
    assert sum(map(len, files.rows.values())) == len(SOUND)
    assert list(files.refused) == broken
    assert by_reason(broken).total() == len(broken)


def test_training_stops_at_a_broken_row_unless_it_is_told_to_go_on(folder):
    path, expected, _ = as_jsonl(folder)
    with pytest.raises(UserError) as error:
        open_source(str(path), ())
    assert str(error.value).startswith(f"{path}, line 8, field 'image': huge.png is too large")
    assert f"{len(expected)} of {len(expected) + len(SOUND)} rows cannot be used" in str(error.value)
    assert "--refused FILE` lists them. --skip-refused" in str(error.value)
    told: list[str] = []
    source = open_source(str(path), (), skip_refused=True, tell=told.append)
    assert len({scene.key for scene in source.train(0, 100, seed=0)}) == len(source.rows["train"])
    assert told[0].startswith(f"{path}: {len(expected)} of {len(expected) + len(SOUND)} rows are left out (")


def test_nothing_is_left_to_train_on_when_every_row_is_broken(folder):
    path = folder / "all.jsonl"
    path.write_text(json.dumps(ROW | {"answer": ""}))
    with pytest.raises(UserError, match=r"line 1, field 'answer': empty; write the answer\. 1 of 1 rows") as error:
        open_source(str(path), (), skip_refused=True, tell=print)
    assert "--skip-refused" not in str(error.value)


def test_a_picture_without_its_end_hurts_who_looks_at_it(folder):
    (folder / "half.png").write_bytes(PICTURES["sound.png"][:3000])
    path = folder / "half.jsonl"
    path.write_text(json.dumps(ROW | {"image": "half.png"}))
    with pytest.raises(
        UserError, match=r"half\.jsonl, line 1, field 'image': half\.png cannot be decoded .*complete\?"
    ):
        open_source(str(path), ()).scene("half/1")


def test_a_row_group_whose_column_is_not_as_the_footer_says_is_refused():
    """Found by fuzzing: two bytes of the footer. pyarrow ends the process where such a column is asked for."""
    table = read_parquet(Path(__file__).with_name("histogram.parquet"))
    assert [entry.at for entry in table.rows() if isinstance(entry.fields, Refused)] == [8]
    assert "histogram size mismatch" in str(table.row(8))
    assert table.row(1)["answer"] == "1"
