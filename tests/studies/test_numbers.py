"""From planted records to the table, the sentences and the figure: by hand."""

import json
from dataclasses import replace
from math import sqrt
from statistics import fmean, stdev

import pytest
from studies.planted import COST, answers, plant, plant_start
from synced import noted

from vergence.cli import main
from vergence.evaluate.interval import Estimate
from vergence.recipes import recipe
from vergence.studies import record
from vergence.studies.arms import Arm, Plan, cross
from vergence.studies.compare import Compared, Found, found
from vergence.studies.plans import tiny
from vergence.studies.record import counted, place, read
from vergence.studies.running import missing
from vergence.studies.sentences import WORDS, sentence, sentences, signed, verdict
from vergence.studies.study import numbers, study
from vergence.studies.table import markdown
from vergence.types import UserError

ARMS = tuple(arm for arm in tiny().arms if arm.name in ("grpo", "papo", "papo+shuffled"))
GRPO, PAPO, SHUFFLED = ARMS
PLAN = Plan(arms=ARMS, seeds=(0, 1, 2), questions=4, elsewhere=0)
T2 = 4.302652729749462
"""Student's t, 97.5 %, two degrees of freedom: sqrt(2 * 0.95^2 / (1 - 0.95^2))."""


def planted(tmp_path, papo, shuffled, grpo=(8, 8, 8)):
    """Right answers of 16, by seed, to four questions each."""
    for seed in PLAN.seeds:
        plant_start(tmp_path, GRPO, seed, [1, 1, 1, 1])
        for arm, right in ((GRPO, grpo), (PAPO, papo), (SHUFFLED, shuffled)):
            rest = right[seed]
            spread = [min(4, max(0, rest - 4 * question)) for question in range(4)]
            plant(tmp_path, arm, seed, spread)
    return found(PLAN, tmp_path)


def test_differences_are_students_over_the_seeds(tmp_path):
    assert pytest.approx(sqrt(2 * 0.95**2 / (1 - 0.95**2))) == T2
    study = planted(tmp_path, papo=(10, 11, 12), shuffled=(8, 9, 9))
    (gain,) = study.of("base", "papo")
    each = [2 / 16, 3 / 16, 4 / 16]
    half = T2 * stdev(each) / sqrt(3)
    assert tuple(gain.difference) == pytest.approx((3 / 16, 3 / 16 - half, 3 / 16 + half, 3))
    assert [one.mean for one in gain.by_seed.values()] == pytest.approx(each)
    t = fmean(each) / (stdev(each) / sqrt(3))
    assert gain.p == pytest.approx(1 - t / sqrt(2 + t * t))  # Student's distribution with two degrees of freedom
    assert gain.holm == gain.p  # one comparison with a base
    assert gain.of == 1
    assert gain.flip is None
    (lost,) = study.of("control", "papo")
    assert lost.difference.mean == pytest.approx(fmean([2, 2, 3]) / 16)


def test_p_is_corrected_within_its_family(tmp_path):
    """Holm by hand: the smallest of three counts three times, and none falls below one that was smaller."""
    study = planted(tmp_path, papo=(10, 11, 12), shuffled=(8, 9, 9), grpo=(8, 9, 10))
    starts = sorted((one for one in study.compared if one.family == "start"), key=lambda one: one.p)
    assert [one.against for one in starts] == ["start"] * 3
    first, second, third = (one.p for one in starts)
    assert 0 < first < third < 0.05
    expected = [3 * first, max(3 * first, 2 * second), max(3 * first, 2 * second, third)]
    assert [one.holm for one in starts] == pytest.approx(expected)


def test_perception_errors_are_compared_on_the_same_questions(tmp_path):
    for seed in (0, 1):
        plant(tmp_path, GRPO, seed, [2] * 4, image=answers([2] * 4, error="perception"))
        plant(tmp_path, PAPO, seed, [3] * 4, image=answers([3, 3, 3, 3 - seed], error="perception"))
    (gain,) = found(PLAN, tmp_path).of("base", "papo")
    assert gain.misread.mean == pytest.approx(-(4 / 16 + 3 / 16) / 2)
    plant(tmp_path, PAPO, 0, [3] * 4, header={"errors_known": False})
    (gain,) = found(PLAN, tmp_path).of("base", "papo")
    assert gain.misread is None


def test_rows_are_means_over_seeds(tmp_path):
    study = planted(tmp_path, papo=(10, 11, 12), shuffled=(8, 9, 9))
    row = study.rows[1]
    assert (row.arm, row.seeds) == ("papo", (0, 1, 2))
    assert row.accuracy.mean == pytest.approx(11 / 16)
    assert row.by_seed == pytest.approx((10 / 16, 11 / 16, 12 / 16))
    assert row.best == row.accuracy
    assert row.blind.mean == 0
    assert row.misread.mean == 0
    assert row.away is None
    assert row.cost["seconds_per_step"] == 2.0


def test_what_could_be_told_is_told_four_times_in_five(tmp_path):
    """By simulation: differences of that size, spread as the seeds', are told in 80 % of studies."""
    import numpy as np
    from scipy import stats

    study = planted(tmp_path, papo=(6, 12, 9), shuffled=(8, 9, 9))
    (gain,) = study.of("base", "papo")
    drawn = np.random.default_rng(0).normal(gain.detectable, stdev([-2 / 16, 4 / 16, 1 / 16]), (20_000, 3))
    assert np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)


def test_the_sentence_says_what_a_control_leaves(tmp_path):
    told = sentences(planted(tmp_path, papo=(12, 12, 13), shuffled=(10, 10, 10)))
    assert set(told) == {"grpo", "papo"}  # a control has none of its own
    # 13/3 of 16 over grpo, and 7/3 of 16 over its control: 2 of 13/3 are left
    assert "papo: +0.271 [" in told["papo"]
    assert (
        "more, told from zero; its control papo+shuffled leaves 46% of that: without what it replaces" in told["papo"]
    )


def test_the_sentence_says_that_a_control_keeps_all(tmp_path):
    told = sentences(planted(tmp_path, papo=(12, 12, 13), shuffled=(12, 13, 12)))["papo"]
    assert "its control papo+shuffled leaves 100% of that, and the method against it is +0.000 [" in told
    assert told.endswith("not told from zero.")


def test_the_sentence_says_that_there_is_no_gain(tmp_path):
    told = sentences(planted(tmp_path, papo=(6, 12, 9), shuffled=(8, 8, 8)))["papo"]
    assert "not told from zero (" in told
    assert "; there is no gain told from zero that a control could leave; against its control papo+shuffled it" in told


@pytest.mark.parametrize(
    ("difference", "p", "corrected", "said"),
    [
        ((0.1, 0.05, 0.15, 5), 0.01, 0.04, "more"),
        ((-0.1, -0.15, -0.05, 5), 0.01, 0.04, "less"),
        ((0.1, 0.01, 0.19, 5), 0.04, 0.16, "uncorrected"),
        ((0.1, -0.01, 0.21, 5), 0.06, 0.06, "not told"),
        ((0.1, float("-inf"), float("inf"), 1), None, None, "one seed"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_corrected_p(difference, p, corrected, said):
    one = Compared("base", "papo", "grpo", Estimate(*difference), {}, p, corrected, 4, None, 0.06)
    assert verdict(one) == said
    told = sentence(Found(rows=(), compared=(one,), missing=()), "papo")
    assert told.startswith(f"papo: {signed(one.difference)} over grpo, ")
    assert WORDS[said] in told
    assert ("(Holm over 4: 0." in told) == (p is not None)
    assert ("0.060 would be, four times in five" in told) == (said in ("uncorrected", "not told"))


def test_a_mean_of_shares_stays_between_0_and_1(tmp_path):
    study = planted(tmp_path, papo=(16, 16, 12), shuffled=(0, 4, 0))
    assert study.rows[1].accuracy.high == 1.0
    assert study.rows[2].accuracy.low == 0.0


def test_one_seed_gives_no_verdict(tmp_path):
    plant(tmp_path, GRPO, 0, [2, 2, 2, 2])
    plant(tmp_path, PAPO, 0, [4, 4, 4, 4])
    study = found(PLAN, tmp_path)
    assert sentences(study)["papo"] == (
        "papo: +0.500 over grpo, 1 seed: one seed, so no verdict; none of its controls was run."
    )
    assert "papo+shuffled seed 0" in study.missing
    # an open end is null, so that the file is JSON for everyone
    said = json.loads(json.dumps(numbers(study, PLAN), allow_nan=False))
    assert said["compared"][0]["difference"]["low"] is None


def test_six_seeds_are_tested_by_their_signs_too(tmp_path):
    """All six up: of the 64 ways to flip their signs two are as far out. Five seeds could never be below 0.06."""
    plan = Plan(arms=(GRPO, PAPO), seeds=tuple(range(6)), questions=4, elsewhere=0)
    for seed in plan.seeds:
        plant(tmp_path, GRPO, seed, [1, 1, 1, 1])
        plant(tmp_path, PAPO, seed, [2, 2, 2, 2 + seed % 2])
    (gain,) = found(plan, tmp_path).of("base", "papo")
    assert gain.flip == 2 / 64
    (gain,) = found(Plan(arms=plan.arms, seeds=(0, 1, 2, 3, 4), questions=4, elsewhere=0), tmp_path).of("base", "papo")
    assert gain.flip is None


def test_seeds_that_all_gain_the_same_leave_nothing_to_chance(tmp_path):
    """Their spread is 0, and so would be p: no division by it."""
    study = planted(tmp_path, papo=(10, 10, 10), shuffled=(10, 10, 10))
    (gain,), (lost,) = study.of("base", "papo"), study.of("control", "papo")
    assert (gain.p, gain.difference.low, gain.difference.high, gain.detectable) == (0.0, 2 / 16, 2 / 16, None)
    assert lost.p == 1.0


def test_what_is_not_right_has_its_own_shares(tmp_path):
    """Of 16 answers 2 are unparsed, 3 cut off and 4 state a false fact; a warning counts once for each seed;
    what it cost is a mean over them."""
    said = answers([0] * 4)
    for number, change in ((2, {"status": "unparsed"}), (3, {"finish": "length"}), (4, {"false_facts": 2})):
        said[:number] = [one | change for one in said[:number]]
    warned = [{"step": step, "name": "collapse"} for step in (9, 20)]
    for seed in (0, 1):
        header = {"errors_known": False, "warnings": warned, "cost": COST | {"seconds": 100.0 + 50 * seed}}
        plant(tmp_path, PAPO, seed, [0] * 4, image=said, header=header)
    (row,) = found(PLAN, tmp_path).rows
    assert (row.unparsed, row.cut_off, row.misread.mean, row.kinds) == (2 / 16, 3 / 16, 4 / 16, False)
    assert row.warnings == {"collapse": 2}
    assert row.cost["seconds"] == 125.0


def test_only_seeds_of_both_sides_are_compared(tmp_path):
    for seed in (0, 1, 2):
        plant(tmp_path, GRPO, seed, [2, 2, 2, 2])
    for seed, right in ((1, 3), (2, 4)):
        plant(tmp_path, PAPO, seed, [right] * 4)
    (gain,) = found(PLAN, tmp_path).of("base", "papo")
    assert list(gain.by_seed) == [1, 2]
    assert gain.difference.mean == pytest.approx(0.375)


def test_the_best_checkpoint_and_other_worlds_have_their_own_numbers(tmp_path):

    away = answers([4, 4], world="mosaic", error="perception")
    seen = [*answers([2, 2, 2, 2], error="perception"), *away]
    header = {"best": 40, "elsewhere": ["mosaic"], "warnings": [{"step": 9, "name": "collapse"}]}
    plant(tmp_path, PAPO, 0, [0] * 4, image=seen, best=answers([3, 3, 3, 3]), header=header)
    (row,) = found(PLAN, tmp_path).rows
    assert (row.accuracy.mean, row.best.mean, row.away.mean) == (0.5, 0.75, 1.0)
    assert (row.misread.mean, row.kinds, row.warnings) == (0.5, True, {"collapse": 1})
    table = markdown(found(PLAN, tmp_path), PLAN)
    assert "collapse (1)" in table
    assert "perception errors" in table


def test_warnings_stand_in_the_order_of_the_runs(tmp_path):
    """Not in that of a set, which is another in every process: study.json is then other bytes."""
    names = ["sampler gap", "collapse", "length", "no signal", "gradient", "unparsed", "KL hacking", "truncation"]
    warned = [{"step": at, "name": name} for at, name in enumerate([*names, *names[::-1]], 1)]
    plant(tmp_path, GRPO, 0, [1, 1], header={"warnings": warned})
    (row,) = (one for one in found(PLAN, tmp_path).rows if one.arm == "grpo")
    assert list(row.warnings) == names


HEADER = {"config": {}, "seconds": 0.0, "elsewhere": [], "last": 60, "best": 60}


def test_a_record_reads_back_as_what_was_counted(tmp_path, monkeypatch):
    given = [
        {"scene": "a", "world": "w", "status": "timed out", "finish": "length", "false_facts": 1, "error": "format"},
        {"scene": "a", "world": "w", "status": "unparsed", "finish": "stop", "false_facts": None, "error": None},
        {"scene": "b", "world": "w", "status": "wrong", "finish": "stop", "false_facts": 0, "error": None},
    ]
    path, done = place(tmp_path, "papo", 0), noted(monkeypatch)
    record.write(path, {**HEADER, "samples": 2}, {"image": given})
    assert ("replace", path.name) in done  # it is there whole, or not at all
    first, second = read(path).questions
    assert first["image"] == {"timed_out": 1, "cut_off": 1, "false_facts": 1, "format": 1, "unparsed": 1}
    assert second["image"] == {} == counted(given)["b"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[0].update(samples="four"),
        lambda lines: lines[0].update(config={"steps": -1}),
        lambda lines: lines[0].update(counted=7),
        lambda lines: lines[0].pop("counted"),
        *(lambda lines, name=name: lines[0].pop(name) for name in ("config", "samples", "elsewhere", "best")),
        lambda lines: lines[0].update(elsewhere=[1]),
        lambda lines: lines[1].pop("scene"),
        lambda lines: lines[1].update(image=[{}]),
        lambda lines: lines[1].update(image=3),
        lambda lines: lines[1].update(image=[10**400]),
        lambda lines: lines[1].update(image=[-1]),
        lambda lines: lines[0].update(samples=10**400),
    ],
)
def test_a_record_whose_content_is_damaged_is_told(tmp_path, damage):
    plant(tmp_path, PAPO, 0, [1, 2])
    path = place(tmp_path, "papo", 0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert read(path).samples == 4
    damage(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="is no whole record of a study's run: take it away"):
        read(path)


def test_a_record_is_small(tmp_path):
    plant(tmp_path, PAPO, 0, [3, 1, 2, 4] * 75, best=answers([3, 2, 1, 4] * 75))
    assert place(tmp_path, "papo", 0).stat().st_size < 40_000


def test_a_record_of_another_run_is_refused(tmp_path):
    other = Arm("papo", recipe("demo", "papo"))
    plant(tmp_path, other, 0, [2] * 4)
    with pytest.raises(UserError, match="is of another run: its options is"):
        missing(PLAN, tmp_path)


@pytest.mark.parametrize(
    ("changed", "told"), [({"samples": 8}, "its samples is 4, not 8"), ({"seconds": 9.0}, "its se")]
)
def test_a_record_of_a_run_asked_otherwise_is_refused(tmp_path, changed, told):
    plant(tmp_path, PAPO, 0, [2] * 4)
    with pytest.raises(UserError, match=told):
        missing(replace(PLAN, **changed), tmp_path)


def test_a_record_is_read_by_what_it_says_of_itself(tmp_path):
    """Its own order of what is counted, its own number of answers; and another format is refused."""
    path = place(tmp_path, "papo", 0)
    path.parent.mkdir(parents=True)
    header = {"format": record.FORMAT, "counted": ["cut_off", "right"], **HEADER, "samples": 10}
    asked = {"scene": "a", "world": "digits", "image": [1, 3]}
    path.write_text(f"{json.dumps(header)}\n{json.dumps(asked)}\n")
    assert (read(path).share(), read(path).share("cut_off")) == ({"a": 0.3}, {"a": 0.1})
    path.write_text(f"{json.dumps(header | {'format': record.FORMAT + 1})}\n{json.dumps(asked)}\n")
    with pytest.raises(UserError, match="no whole record"):
        read(path)


def test_a_damaged_record_is_told(tmp_path):
    path = place(tmp_path, "papo", 0)
    path.parent.mkdir(parents=True)
    path.write_text('{"format":1}\n')
    with pytest.raises(UserError, match="no whole record"):
        found(PLAN, tmp_path)
    with pytest.raises(UserError, match="holds no record"):
        found(PLAN, tmp_path / "empty")


def test_everything_is_made_from_the_records_alone_and_twice_alike(tmp_path):
    planted(tmp_path, papo=(12, 12, 13), shuffled=(10, 10, 10))
    assert missing(PLAN, tmp_path) == []
    outcome = study(PLAN, tmp_path, cores=1)
    assert {path.name for path in outcome.files} == {"study.json", "table.md", "figure.svg", "figure.png"}
    before = {path: path.read_bytes() for path in outcome.files}
    study(PLAN, tmp_path, cores=1)
    assert {path: path.read_bytes() for path in outcome.files} == before
    said = json.loads((tmp_path / "study.json").read_text())
    assert said["sentences"]["papo"] in (tmp_path / "table.md").read_text()
    svg = (tmp_path / "figure.svg").read_text()
    assert "papo − papo+shuffled" in svg  # text stays text
    assert str(tmp_path) not in json.dumps(said) + svg


def test_the_command_prints_a_study_again(tmp_path, capsys):
    arms, _ = cross("demo", methods=["grpo", "papo"], controls=["shuffled"])
    for seed in (0, 1):
        plant_start(tmp_path, arms[0], seed, [1] * 4)
        for arm in arms:
            plant(tmp_path, arm, seed, [2 + seed] * 4)
    told = ["study", "--methods", "grpo", "papo", "--controls", "shuffled", "--seeds", "0", "1", "--out", str(tmp_path)]
    main([*told, "--reprint", "--json"])
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"][1]["accuracy"]["mean"] == 0.625
    assert "grpo+shuffled is left out" in said.err
    main([*told, "--reprint"])
    said = capsys.readouterr().out
    assert "papo: +0.000 [+0.000, +0.000] over grpo (which differs besides: " in said
    assert "2 seeds, p = 1.000: not told from zero" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "say what to compare"),
        (["--tiny", "--methods", "grpo"], "leave out --methods"),
        (["--plan", "full", "--steps", "3"], "leave out --steps"),
        (["--methods", "grpo", "--steps", "3", "--seconds", "3"], "--steps or --seconds, not both"),
        (["--methods", "grpo", "--seconds", "-1"], "seconds and questions of 0 or more"),
        (["--methods", "grpo", "--set", "gamma"], "--set takes NAME=VALUE"),
    ],
)
def test_the_command_says_what_is_wrong(given, said, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["study", "--out", str(tmp_path / "out"), *given])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
