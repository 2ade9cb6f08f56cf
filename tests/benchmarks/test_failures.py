"""The runs that are driven into failures: every guard has one, and what drives them does what it says."""

import json
from math import isinf

import pytest
import torch

from benchmarks import failures, spoilt
from benchmarks.failures import FAILURES, HEALTHY, Drive
from benchmarks.guards import ENDED, place, table
from vergence import objectives
from vergence.guards.catalogue import GUARDS
from vergence.scenes.embedded import TRAINED
from vergence.scenes.source import open_source

TEXTS = ["<think>I see 3. I see 3. I see 3.</think>\\boxed{3}", "I see no picture.", "\\boxed{9}"]
SAID = [[{"role": "assistant", "content": text}] for text in TEXTS]


def test_every_guard_is_driven_and_every_drive_is_about_guards():
    driven = {guard for drive in FAILURES for guard in drive.guards}
    assert driven == set(GUARDS)
    assert all(drive.guards for drive in FAILURES)
    assert not any(drive.guards for drive in HEALTHY)
    assert sum(len(drive.seeds) for drive in HEALTHY if drive.config.method == "papo") >= 10


@pytest.mark.parametrize("drive", [*HEALTHY, *FAILURES], ids=lambda drive: drive.name)
def test_each_is_a_config_of_a_method_that_exists(drive):
    objectives.method(drive.config.method, **drive.config.options)
    assert len(set(drive.seeds)) == len(drive.seeds)


def test_rewards_pay_for_what_they_are_said_to():
    assert failures.pays_all_alike(SAID) == [1.0, 1.0, 1.0]
    assert failures.pays_for_length(SAID) == [-paid for paid in failures.pays_for_brevity(SAID)]
    repeated = failures.pays_for_repetition(SAID)
    assert repeated[0] > repeated[1] == repeated[2] == 0
    assert failures.pays_for_disavowal(SAID) == [0.2, 1.0, 0.0]
    assert failures.pays_for_the_answer(SAID, answer=["3", "4", "4"]) == [1.0, 0.0, 0.0]
    paid = failures.overflows(SAID, key=["bars/train/0/90", "bars/train/0/90", "bars/train/0/90"])
    assert [isinf(torch.tensor(one).item()) for one in paid] == [False, False, True]


@pytest.mark.parametrize("data", [spoilt.blank_pictures, spoilt.telling_captions, spoilt.long_comparisons])
def test_data_that_is_written_is_data_that_is_read(data, tmp_path, monkeypatch):
    rows = spoilt._rows
    monkeypatch.setattr(spoilt, "_rows", lambda *given: rows(*given, number=8))
    data(tmp_path, 0)
    scenes = open_source(f"{tmp_path / 'rows.jsonl'}#train", TRAINED).train(0, 8, seed=0)
    assert len({scene.key for scene in scenes}) == 8


def test_the_table_counts_runs_that_have_ended(tmp_path):
    def wrote(drive: Drive, seed: int, gradient: list[float], ended: bool = True) -> None:
        run = place(tmp_path, drive, seed)
        run.mkdir()
        lines = [{"step": step, "grad_norm": one} for step, one in enumerate(gradient, 1)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if ended:
            (run / ENDED).write_text('{"said": "", "seconds": 1}\n')

    fast = next(drive for drive in FAILURES if "gradient" in drive.guards)
    wrote(fast, 0, [0.1] * 20 + [9.0] * 9)
    wrote(fast, 1, [0.1] * 30)
    wrote(HEALTHY[0], 0, [0.1] * 30)
    wrote(HEALTHY[0], 1, [0.1] * 20 + [9.0] * 9)
    wrote(HEALTHY[0], 2, [0.1] * 20 + [9.0] * 9, ended=False)
    row = next(line for line in table(tmp_path).splitlines() if line.startswith("| gradient"))
    assert row.startswith(f"| gradient | {fast.how} | 1 of 2 | 21 |")
    assert row.endswith("| 1 of 2 |")
