"""The runs that are driven into failures: every guard has one, and what drives them does what it says."""

import json
from math import isinf, isnan

import pytest
import torch

from benchmarks import failures, spoilt
from benchmarks.drives import HEALTHY, Drive
from benchmarks.failures import FAILURES
from benchmarks.guards import ENDED, place, table
from vergence import objectives
from vergence.guards.catalogue import GUARDS
from vergence.models.policy import load
from vergence.models.reader import Reader
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


def test_what_is_broken_is_broken_while_the_run_is_carried_out_and_no_longer():
    own = Reader.eos_id
    with spoilt.deaf_reader():
        assert load("seedling").reader.eos_id == -1
    assert Reader.eos_id is own
    assert all(isnan(value) for value in spoilt.means_of_nothing(None).values())


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
    rows = table(tmp_path).splitlines()
    (row,) = [row for row in rows if row.startswith(f"| gradient | {fast.how} |")]
    assert row == f"| gradient | {fast.how} | 1 of 2 | 21, – | 29, 30 | nothing |"
    assert f"| {HEALTHY[0].how} | 2 | 59 | gradient at step 21 of seed 1 |" in rows
    assert f"| {HEALTHY[1].how} | 0 | 0 | nothing |" in rows
    assert "False alarms in 1 of 2 runs: in at most 97% (95 %)." in rows
    assert sum("not carried out" in row for row in rows) == len([one for one in FAILURES for _ in one.guards]) - len(
        fast.guards
    )
