"""`vergence scale`: its rows, what it refuses, and that the tables of docs/scaling.md are what it says."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from vergence.cli import main
from vergence.commands.scaling import COLUMNS, cells
from vergence.models.published import config_of
from vergence.recipes import recipe
from vergence.train.config_file import to_yaml

DOCS = Path(__file__).parents[2] / "docs" / "scaling.md"


def rows(capsys, *arguments: str) -> list[dict]:
    main(["scale", *arguments, "--json"])
    return json.loads(capsys.readouterr().out)["rows"]


def small(folder: Path) -> Path:
    """The folder, with the config of 3B of two layers."""
    found = config_of("Qwen/Qwen2.5-VL-3B-Instruct")
    found.text_config.num_hidden_layers = found.vision_config.depth = 2
    found.text_config.layer_types = found.text_config.layer_types[:2]
    found.vision_config.fullatt_block_indexes = [1]
    found.save_pretrained(folder)
    return folder


def test_a_row_for_each_model_adapter_and_number_of_devices(capsys, tmp_path):
    found = rows(capsys, "--models", "3b", str(small(tmp_path)), "--devices", "8", "16")
    assert [(row["model"], row["adapter"], row["devices"]) for row in found] == [
        (model, adapter, number)
        for model in ("Qwen/Qwen2.5-VL-3B-Instruct", str(tmp_path))
        for adapter in ("none", "lora")
        for number in (8, 16)
    ]
    for row in found:
        assert row["fits"] == (row["plan"]["total"] <= 0.9 * 80 * 2**30)
        assert row["plan"]["total"] == max(row["phases"].values())
        assert row["seconds"]["total"] == pytest.approx(sum(row["seconds"].values()) / 2)
        assert row["sent"]["inside"] > 0


def test_what_does_not_fit_has_no_time_and_a_way_out(capsys):
    (row,) = rows(capsys, "--models", "7b", "--devices", "8", "--adapter", "none", "--memory", "60GiB")
    assert not row["fits"]
    assert "--offload" in row["remedy"]
    assert cells(row)[7:] == ["no", "", "", "", "", ""]
    (offloaded,) = rows(
        capsys, "--models", "7b", "--devices", "8", "--adapter", "none", "--offload", "--memory", "100GiB"
    )
    assert offloaded["fits"]
    assert len(cells(offloaded)) == len(COLUMNS)


def test_an_engine_that_does_not_hold_the_weights_does_not_fit(capsys, tmp_path):
    given = ("--models", str(small(tmp_path)), "--devices", "1", "--adapter", "lora", "--sampler", "vllm")
    assert rows(capsys, *given, "--memory", "5GiB")[0]["fits"]
    config = replace(recipe("qwen2.5-vl-7b"), sampler_memory=0.2)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    (row,) = rows(capsys, *given, "--config", str(tmp_path / "config.yaml"), "--memory", "5GiB")
    assert row["plan"]["total"] <= 0.9 * 5 * 2**30  # all else would
    assert not row["fits"]
    assert "--sampler-memory 0.2" in row["remedy"]


def test_options_are_those_of_a_run(capsys, tmp_path):
    given = ("--models", str(small(tmp_path)), "--devices", "4", "--adapter", "lora")
    one, wide, many = (
        rows(capsys, *given, *more)[0] for more in ((), ("--token-budget", "16384"), ("--siblings", "10"))
    )
    assert wide["plan"]["responses"] > 1.5 * one["plan"]["responses"]
    assert many["seconds"]["updating"] > 1.5 * one["seconds"]["updating"]
    (slow,) = rows(capsys, *given, "--tflops", "200")
    assert slow["seconds"]["reading"] == pytest.approx(2 * one["seconds"]["reading"])


def test_a_folder_with_a_config_is_a_model_too(capsys, tmp_path):
    config_of("Qwen/Qwen2.5-VL-3B-Instruct").save_pretrained(tmp_path)
    (row,) = rows(capsys, "--models", str(tmp_path), "--devices", "8", "--adapter", "none")
    (same,) = rows(capsys, "--models", "3b", "--devices", "8", "--adapter", "none")
    assert row["plan"] == same["plan"]
    assert row["model"] == str(tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--devices", "0"], "--devices are at least 1 each, got 0"),
        (["--devices"], "got none"),
        (["--tflops", "0"], "--tflops must be above 0 and finite, got 0.0"),
        (["--host", "inf"], "--host must be above 0"),
        (["--wires", "nan"], "--wires must be above 0"),
        (["--spare", "1"], "--spare is a share of the memory"),
        (
            ["--models", "9b"],
            "the sizes of '9b' are not known here; give a folder with its config.json, or one of: qwen2",
        ),
        (["--memory", "much"], "a size of memory is a number with a unit"),
        (["--sampler", "vllm"], "--sampler vllm is beside one process that trains"),  # as the run itself is refused
        (["--shards", "3", "--devices", "8"], "--shards 3: 8 processes cannot be divided"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_makes_no_sense_is_told(capsys, given, told):
    with pytest.raises(SystemExit):
        main(["scale", *given])
    assert told in capsys.readouterr().err


def tables() -> list[tuple[str, list[list[str]]]]:
    """Of the page: each `vergence scale` that stands above a table, and the table's rows."""
    found = re.findall(r"```\n(vergence scale [^`]*)```\n\n((?:\|[^\n]*\n)+)", DOCS.read_text())
    return [
        (
            command.replace("\\\n", " "),
            [[cell.strip() for cell in row.strip("|\n").split("|")] for row in rows.splitlines()],
        )
        for command, rows in found
    ]


def is_slow(command: str) -> bool:
    """Adapters are laid beside every layer of every model that the command names."""
    return "--adapter none" not in command


@pytest.mark.parametrize(
    ("command", "table"),
    [pytest.param(*one, marks=pytest.mark.slow if is_slow(one[0]) else (), id=one[0][15:55]) for one in tables()],
)
def test_the_tables_of_the_page_are_what_the_command_says(capsys, command, table):
    head, _, *body = table
    assert tuple(head) == COLUMNS
    assert body == [cells(row) for row in rows(capsys, *shlex.split(command)[2:])]


def test_there_are_such_tables():
    assert len(tables()) >= 2
