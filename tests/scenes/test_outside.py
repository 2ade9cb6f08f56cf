"""What data may reach besides its own folder (nothing, but what the user names), and what it may cost to open."""

import json
import os
import resource
import struct
import zlib
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from vergence.cli import main
from vergence.commands.given import Data
from vergence.scenes import folders, hub, picture
from vergence.scenes import parquet as shards
from vergence.scenes.files import read, survey
from vergence.scenes.picture import examine, open_picture
from vergence.train.config import Config
from vergence.train.parts import open_data
from vergence.types import UserError

ROW = {"image": "red.png", "question": "Which colour is it?", "answer": "red"}


@pytest.fixture
def data(tmp_path):
    """A data set whose one picture lies in another folder, and a link to it."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "set").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "pictures" / "red.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "pictures" / "red.png")
    return tmp_path / "set" / "rows.jsonl"


def write(path, **fields):
    path.write_text(json.dumps(ROW | fields) + "\n")
    return path


# ------------------------------------------------------------------------------------------- other folders

OUTSIDE = ["../pictures/red.png", "{}/pictures/red.png", "file://{}/pictures/red.png", "link.png"]


@pytest.mark.parametrize("image", [*OUTSIDE, "red.png"])
def test_a_picture_elsewhere_is_read_from_the_folder_that_is_named_and_from_no_other(data, image):
    root = data.parents[1]
    write(data, image=image.format(root))
    (refused,) = read(data).refused
    assert "red.png" in refused.reason or "link.png" in refused.reason
    if image != "red.png":
        assert "--pictures" in refused.remedy
    (row,) = survey(data, pictures=root / "pictures")
    assert row.pictures == (root / "pictures" / "red.png",)
    (root / "other").mkdir()
    assert len(read(data, pictures=root / "other").refused) == 1


def test_the_folder_that_is_named_is_held_to_as_well(data, tmp_path):
    (tmp_path / "secret.png").write_bytes((tmp_path / "pictures" / "red.png").read_bytes())
    for image in ("../secret.png", f"{tmp_path}/secret.png", "out.png"):
        write(data, image=image)
        (tmp_path / "pictures" / "out.png").unlink(missing_ok=True)
        (tmp_path / "pictures" / "out.png").symlink_to(tmp_path / "secret.png")
        assert len(read(data, pictures=tmp_path / "pictures").refused) == 1, image
    with pytest.raises(UserError, match=r"there is no folder .*--pictures takes one"):
        read(data, pictures=tmp_path / "nowhere")


def test_every_command_that_opens_data_has_the_flag(data, capsys):
    root = data.parents[1]
    write(data, image="../pictures/red.png")
    config = Config(scenes=f"{data}#train", worlds=("digits",))
    with pytest.raises(UserError, match="--pictures"):
        open_data(config)
    (scene,) = open_data(Config(scenes=f"{data}#train", pictures=str(root / "pictures"))).train(0, 1, seed=0)
    assert scene.images[0].size == (40, 30)
    opened = Data(scenes=f"{data}#report", pictures=str(root / "pictures")).open()
    assert len(opened.held_out("report", 1, seed=0)) == 1
    main(["data", "check", str(data), "--json"])
    assert json.loads(capsys.readouterr().out)["refused"]["number"] == 1
    main(["data", "check", str(data), "--pictures", str(root / "pictures"), "--json"])
    assert json.loads(capsys.readouterr().out)["refused"]["number"] == 0


@pytest.mark.parametrize("image", ["../pictures/red.png", "../pictures/none.png", "link.png"])
def test_nobody_is_told_whether_there_is_a_file_elsewhere(data, image, monkeypatch):
    asked, is_file = [], Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: asked.append(path) or is_file(path))
    write(data, image=image)
    (refused,) = read(data).refused
    assert "leads out of the file's folder" in refused.reason
    assert [path for path in asked if not path.is_relative_to(data.parent)] == []


@pytest.mark.parametrize("named", ["", "/*.jsonl", "/*/*.jsonl"])
def test_a_table_of_a_folder_that_is_a_link_to_another_is_not_read(data, named):
    write(data)
    (data.parent / "deep").mkdir()
    write(data.parents[1] / "mine.jsonl")
    for link in (data.parent / "link.jsonl", data.parent / "deep" / "link.jsonl"):
        link.symlink_to(data.parents[1] / "mine.jsonl")
        if named in ("", "/*.jsonl" if link.parent == data.parent else "/*/*.jsonl"):
            with pytest.raises(UserError, match=r"link.jsonl is a link that leads out of .*or name one alone"):
                survey(f"{data.parent}{named}")
        assert len(survey(link).files) == 1
        link.unlink()
        link.symlink_to(data)
        assert len(survey(data.parent).files) == 2
        link.unlink()


def test_the_hubs_cache_is_made_of_links(data):
    snapshot = data.parents[1] / "datasets--owner--name" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "blobs").mkdir()
    write(snapshot.parents[1] / "blobs" / "4567")
    (snapshot / "rows.jsonl").symlink_to("../../blobs/4567")
    assert len(survey(snapshot).files) == 1
    (snapshot / "more.jsonl").symlink_to(write(data))
    with pytest.raises(UserError, match=r"more.jsonl is a link that leads out of"):
        survey(snapshot)


def test_a_folder_that_a_config_alone_names_is_not_searched_without_end(data, monkeypatch):
    monkeypatch.setattr(folders, "MOST_ENTRIES", 30)
    write(data)
    for number in range(20):
        (data.parent / f"{number}" / "a").mkdir(parents=True)
    (data.parent / "elsewhere").symlink_to("/usr")
    for named in (data, f"{data.parent}/*.jsonl", f"{data.parents[1]}/*/*.jsonl", data.parent):
        assert len(survey(named).files) == 1
    for named in (data, f"{data.parent}/*.jsonl"):
        assert len(survey(named, fetch=False).files) == 1
    with pytest.raises(UserError, match="holds 30 files or more, and nobody but a config says to search it"):
        survey(data.parent, fetch=False)
    with pytest.raises(UserError, match="a pattern of a config alone searches no folders"):
        survey(f"{data.parents[1]}/*/*.jsonl", fetch=False)
    monkeypatch.setattr(folders, "MOST_ENTRIES", 60)
    assert len(survey(data.parent, fetch=False).files) == 1


def test_a_pattern_of_all_folders_is_refused_and_a_folder_is_not(data):
    (data.parent / "elsewhere").symlink_to("/")
    assert len(survey(write(data).parent).files) == 1
    with pytest.raises(UserError, match=r"\*\* is no pattern; name the folder"):
        survey(f"{data.parent}/**/*.jsonl")


def test_folders_may_be_deeper_than_python_calls(data):
    deep = [f"{write(data).parent}{'/d' * number}" for number in range(1, 1100)]
    for folder in deep:
        os.mkdir(folder)
    try:
        assert len(survey(data.parent).files) == 1
    finally:  # which pytest could not do
        for folder in reversed(deep):
            os.rmdir(folder)


def test_what_a_models_config_says_may_be_read_is_not_read(data):
    write(data, image="../pictures/red.png")
    trained = Config(scenes=f"{data}#report", pictures=str(data.parents[1] / "pictures"))
    with pytest.raises(UserError, match="leads out of the file's folder"):
        Data(scenes=trained.scenes).open(trained)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("https://example.org/red.png", "is on the network"),
        ("ftp://example.org/red.png", "is on the network"),
        ("//server/share/red.png", "is on the network"),
        ("\\\\server\\share\\red.png", "is on the network"),
        ("file://server/share/red.png", "is on another machine"),
        ("file:////server/share/red.png", "is on another machine"),
        ("file://[broken/red.png", "is no url"),
        ("/dev/zero", "there is no file"),
        ("/proc/self/environ", "is not a picture"),
        ("pipe.png", "there is no file"),
    ],
)
def test_what_is_no_file_of_this_machine_is_refused_without_being_read(data, image, said):
    os.mkfifo(data.parent / "pipe.png")
    write(data, image=image)
    (refused,) = read(data, pictures="/").refused
    assert said in refused.reason


def test_a_pipe_or_a_device_is_no_picture_and_no_table(tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for name in ("rows.jsonl", "zero.csv"):
        with pytest.raises(UserError, match="a device or a pipe"):
            survey(tmp_path / name)
    for path in (tmp_path / "rows.jsonl", Path("/dev/zero")):
        with pytest.raises(UserError, match="is a device, a pipe or a folder"):
            examine(path)


def test_a_file_that_does_not_say_its_size_is_read_no_further_than_any(monkeypatch):
    monkeypatch.setattr(picture, "MOST_BYTES", 4096)
    endless = Path("/proc/self/maps")
    assert endless.stat().st_size == 0
    with pytest.raises(UserError, match=r"maps has 4,097 bytes, more than the 4,096 that are read"):
        examine(endless)


def test_a_folder_that_datasets_saved_names_no_table_elsewhere(tmp_path):
    datasets.Dataset.from_list([ROW | {"image": None}]).save_to_disk(tmp_path / "saved")
    assert len(hub.load_saved(tmp_path / "saved")[0].items) == 1
    state = tmp_path / "saved" / "state.json"
    said = json.loads(state.read_text())
    (tmp_path / "saved" / said["_data_files"][0]["filename"]).rename(tmp_path / "away.arrow")
    for filename in ("../away.arrow", str(tmp_path / "away.arrow")):
        said["_data_files"] = [{"filename": filename}]
        state.write_text(json.dumps(said))
        with pytest.raises(UserError, match="names a table outside of its folder"):
            hub.load_saved(tmp_path / "saved")


@pytest.mark.parametrize("split", ["../away", "{}/away", "link", "a/b"])
def test_a_folder_that_datasets_saved_names_no_split_elsewhere(tmp_path, split):
    saved, away = tmp_path / "saved", tmp_path / "away"
    for folder in (saved / "train", saved / "a/b", away):
        datasets.Dataset.from_list([ROW | {"image": None}]).save_to_disk(folder)
    (saved / "link").symlink_to(away)
    (table,) = (saved / "a/b").glob("*.arrow")
    table.unlink()
    table.symlink_to(next(away.glob("*.arrow")))
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    assert len(hub.load_saved(saved)[0].items) == 1
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["train", split.format(tmp_path)]}))
    with pytest.raises(UserError, match="names a table outside of its folder"):
        hub.load_saved(saved)


OF_THE_HUB = [
    "/etc/hostname.csv",
    "../other/a.csv",
    "a/../../other/a.csv",
    "https://example.org/a.csv",
    "file:///etc/a.csv",
]
OF_THE_HUB += ["zip://a.csv::https://example.org/a.zip", "hf://datasets/other/private/a.csv"]


def like_the_hub(folder, configs):
    """A folder that is laid out like a data set of the Hub, with a table of its own; beside it another data set."""
    for name in ("mine", "other"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "a.csv").write_text("question,answer\nWhat is it?,red\n")
    (folder / "mine" / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return str(folder / "mine")


@pytest.mark.parametrize("elsewhere", OF_THE_HUB)
def test_a_data_set_of_the_hub_names_no_file_but_its_own(tmp_path, monkeypatch, elsewhere):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *given, **_: asked.append(given) or [])
    said = {"config_name": "default", "data_files": elsewhere}
    for configs in ([said], [{"config_name": "default", "data_files": "a.csv"}, said | {"config_name": "second"}]):
        with pytest.raises(UserError, match="none of its own files"):
            hub.load_hub(like_the_hub(tmp_path, configs), configs[-1]["config_name"])
    assert asked == []


def test_a_data_set_of_the_hub_in_a_format_that_leads_on_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.h5").write_bytes(b"")  # which may link to other files
    with pytest.raises(UserError, match="is of the format hdf5, which is not read"):
        hub.load_hub(str(tmp_path / "mine"))


def test_a_data_set_that_is_not_to_be_fetched_is_asked_of_nobody(monkeypatch):
    import socket

    called = []
    monkeypatch.setattr(socket.socket, "connect", lambda *given: called.append(given))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **_: called.append(given))
    with pytest.raises(UserError, match="nobody is asked for it here"):
        read("nobody/never", fetch=False)
    assert called == []


# ---------------------------------------------------------------------------------------------------- bombs


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *more):
    """A grey PNG of one bit a pixel, which packs to nothing."""
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


PACKED = zlib.compress(bytes(2**27), 9)
BOMBS = {
    "text": png(8, 8, chunk(b"zTXt", b"k\0\0" + PACKED)),
    "profile": png(8, 8, chunk(b"iCCP", b"k\0\0" + PACKED)),
    "texts": png(8, 8, *(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000))) for _ in range(100))),
    "pixels": png(9500, 9500),
}


def most_memory(do):
    """Bytes by which a process grew that did this."""
    ends = os.pipe()
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        status = 1
        try:
            do()
            status = 0
        finally:
            os.write(ends[1], str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
            os._exit(status)
    os.close(ends[1])
    with os.fdopen(ends[0]) as told:
        grown = int(told.read())
    assert os.waitpid(child, 0)[1] == 0
    return 1024 * grown


@pytest.mark.parametrize("name", BOMBS)
def test_a_picture_that_unpacks_to_too_much_is_refused_in_little_memory(name):
    def refused():
        with pytest.raises(UserError):
            open_picture(BOMBS[name])

    assert len(BOMBS[name]) < 2**18
    assert most_memory(refused) < 80 * 2**20  # Pillow lets texts have 64 MiB in all


def test_a_row_of_large_pictures_is_refused_before_one_is_decoded(data):
    (data.parent / "large.png").write_bytes(png(9000, 9000))
    write(data, image=["large.png"] * 4)
    assert read(data).refused == ()
    write(data, image=["large.png"] * 5)
    (refused,) = read(data).refused
    assert refused.reason == "its pictures have 405,000,000 pixels in all, more than the 357,913,941 that go"


def test_a_parquet_file_that_repeats_a_large_value_takes_little_memory(tmp_path, monkeypatch):
    """One text of 4 MiB in 300 rows: more than a GiB of rows, in a file of some kilobytes."""
    monkeypatch.setattr(shards, "MOST_AT_ONCE", 2**24)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["a" * 2**22]))
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pa.table({"question": text}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2**14
    batches = shards.read_parquet(path)._batches(0)
    assert [next(batches).num_rows for _ in range(2)] == [3, 3]  # of 12 MiB, where it would have been 64 rows
