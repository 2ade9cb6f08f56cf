"""What is done about what a guard raises: exact to the bit, and at whatever instant the run is killed."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train.follower import fingerprint, followed_by, no_thread_is_left

import vergence.commands.training as training
import vergence.train.guarded as guarded
import vergence.train.loop as loop
import vergence.train.rollback as undone
from vergence.guards import catalogue, updates
from vergence.guards.catalogue import Raised
from vergence.guards.past import Seen
from vergence.models.policy import load
from vergence.train.config import Config
from vergence.train.config_file import from_yaml, to_yaml
from vergence.train.forewarned import forewarned
from vergence.train.interventions import (
    Intervention,
    Stopped,
    action_of,
    decided,
    due,
    effective,
    good,
    interventions,
    is_abandoned,
    lowered,
    needed,
    refuse_unknown,
)
from vergence.train.loop import train
from vergence.train.run import LOGS, RunFolder, read_lines
from vergence.types import UserError

TINY = Config(
    method="papo",
    options={"gamma": "0.2", "beta": "0", "cell": "8"},
    guards={"gradient": "back"},
    steps=7,
    scenes_per_batch=2,
    siblings=2,
    parts=2,
    token_budget=1600,
    max_tokens=8,
    watch_every=3,
    save_every=3,
    warmup=0,
    lr=1e-3,
)
TRIPS, SINCE, TO = 5, 4, 3
"""The step at which the guard is raised, that of the first value it is about, and the checkpoint that is good: in the
midst of a round of two steps."""


def trips_while(holds):
    """A guard that is raised at step `TRIPS` while something holds of the last line's numbers."""

    def guard(past):
        if past.step != TRIPS or not holds(past):
            return None
        return Seen(SINCE, "it trips")

    return guard


def gamma_is_high(past):
    """loss/perception is -gamma KL, and the run's weights are hardly changed: twice gamma is twice the number."""
    return abs(past.last("loss/perception", 1)[0]) > 0.013


@pytest.fixture(autouse=True)
def tripping(monkeypatch, request):
    if "command_line" in request.node.name:
        return  # the guards as they are
    monkeypatch.setattr(catalogue, "GUARDS", {"not finite": updates.not_finite, "gradient": trips_while(gamma_is_high)})


@pytest.fixture(scope="module")
def backed(tmp_path_factory) -> Path:
    """A run that went back, killed by nobody; nobody writes to it."""
    out = tmp_path_factory.mktemp("acting") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "GUARDS", {"gradient": trips_while(gamma_is_high)})
        train(TINY, out)
    return out


@pytest.fixture(scope="module")
def nearly(tmp_path_factory) -> Path:
    """The same a step before it goes back."""
    out = tmp_path_factory.mktemp("acting") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards, "GUARDS", {})
        train(TINY, out, until=TRIPS - 1)
    return out


def files(run: Path) -> dict[str, bytes]:
    """All that a run has written, but what holds a clock, and leftovers of what was ended."""
    found = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if "timings" not in name and "/.re" not in name}


def assert_same_run(one: Path, other: Path) -> None:
    first, second = files(one), files(other)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


# ---------------------------------------------------------------------------------------------------- deciding

RAISED = Raised(68, "KL hacking", "it surges", 64)
BACK = Config(method="papo", guards={"KL hacking": "back"})


def test_all_guards_warn_but_one_that_stops():
    assert {name for name in catalogue.GUARDS if action_of(Config(), name) != "warn"} == {"not finite"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"KL hackng": "back"}, "'KL hacking'"),
        ({"collapse": "bakc"}, "'back'"),
        ({"kl hacking": "stop"}, "'KL hacking'"),
    ],
)
def test_what_is_not_known_is_told_with_the_nearest(given, told):
    with pytest.raises(UserError, match="did you mean " + told):
        refuse_unknown(given)


def test_an_unknown_guard_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="there is no guard"):
        train(replace(TINY, guards={"nonsense": "stop"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [{"back_factor": 1.0}, {"back_factor": 0.0}, {"most_backs": -1}])
def test_what_could_not_be_done_is_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Config(**wrong)


def test_guards_are_named_on_the_command_line(tmp_path, monkeypatch):
    seen, asked = [], ["demo", "--out", str(tmp_path / "run"), "--guard", "KL hacking=back"]
    monkeypatch.setattr(training, "_train", lambda config, out, **more: seen.append(config))
    training.train([*asked, "--guard", "collapse=stop", "--most-backs", "1"])
    assert seen[0].guards == {"KL hacking": "back", "collapse": "stop"}
    with pytest.raises(UserError, match="did you mean 'collapse'"):
        training.train([*asked, "--guard", "colapse=stop"])


def test_guards_are_written_with_the_config():
    assert from_yaml(to_yaml(BACK)) == BACK


def test_a_stop_that_was_written_down_stops_no_second_time_and_what_comes_later_does():
    config, stop = Config(guards={"collapse": "stop"}), Intervention(40, 36, "collapse", "", "stop")
    assert due([Raised(40, "collapse", "", 36)], config, [stop]) == []
    assert due([Raised(50, "collapse", "", 46)], config, [stop]) != []
    back = Intervention(45, 41, "KL hacking", "", "back", 20, "gamma", 0.2, 0.1)
    assert due([Raised(40, "collapse", "", 36)], config, [stop, back]) != []  # of another course of the same run


def test_a_checkpoint_is_good_from_before_the_first_value_and_from_before_anything_else_was_raised():
    assert good([0, 20, 40, 53, 54, 63, 64, 68], RAISED, [RAISED], BACK) == [53, 40, 20, 0]
    earlier = Raised(30, "collapse", "", 26)
    assert good([0, 20, 40], RAISED, [earlier, RAISED], BACK) == [40, 20, 0]  # which only warned
    both = replace(BACK, guards={"KL hacking": "back", "collapse": "stop"})
    assert good([0, 20, 30, 40], RAISED, [earlier, RAISED], both) == [20, 0]
    acute = Raised(64, "not finite", "", 64)
    assert good([0, 20, 40, 63, 64], acute, [acute], replace(BACK, guards={"not finite": "back"})) == [63, 40, 20, 0]


def test_a_stop_that_was_gone_on_from_spoils_no_checkpoint_after_it():
    overflow, hacked = Raised(15, "not finite", "", 15), Raised(90, "KL hacking", "", 86)
    stopped = Intervention(15, 15, "not finite", "", "stop")
    config = replace(BACK, guards={"KL hacking": "back"})
    assert good([0, 20, 40, 60, 80], hacked, [overflow, hacked], config, [stopped])[0] >= 60
    assert good([0, 20, 40, 60, 80], hacked, [overflow, hacked], config) == [0]
    back = Intervention(90, 86, "KL hacking", "", "back", 60, "gamma", 0.2, 0.1)
    assert due([overflow], config, [stopped, back]) == []  # it is not stopped for a second time


def test_each_time_it_goes_back_further_and_to_no_checkpoint_twice():
    """gamma = 0.5 on the seedling: what grows for ten steps before it is seen is in the checkpoint before, too."""
    steps, done, found = list(range(0, 80, 10)), [], []
    for raised_at in (57, 74, 74):
        about = Raised(raised_at, "KL hacking", "", raised_at - 4)
        to = good(steps, about, [about], BACK, done)[0]
        found.append(to)
        done.append(Intervention(raised_at, raised_at - 4, "KL hacking", "", "back", to, "gamma", 0.5, 0.25))
    assert found == [40, 30, 20]


def test_where_no_checkpoint_is_early_enough_it_is_the_first():
    about = Raised(8, "KL hacking", "", 4)
    assert good([0, 3, 6], about, [about], BACK) == [0]
    assert good([5, 6], about, [about], BACK) == []


def test_what_is_kept_to_go_back_to_is_good_whenever_a_guard_is_raised():
    config = replace(BACK, watch_every=5, parts=2)
    for step in range(60, 200, 10):
        keep = needed(range(0, step + 1, 10), step, config)
        for raised_at in range(step + 1, step + 11):
            about = Raised(raised_at, "KL hacking", "", raised_at - 2 * 5 * 2 + 1)  # two watched rounds of two steps
            assert keep in good([keep, step], about, [about], config)
            assert keep < about.since - 20


def test_backs_are_counted_and_then_it_stops():
    done = [Intervention(68, 64, "KL hacking", "", "back", 50, "gamma", 0.2, 0.1)] * 3
    assert decided(RAISED, 50, BACK, done[:2]).action == "back"
    assert decided(RAISED, 50, BACK, done).action == "stop"
    assert "most_backs=3" in decided(RAISED, 50, BACK, done).said
    nowhere = decided(RAISED, None, BACK, [])
    assert nowhere.action == "stop"
    assert "no checkpoint from before step 64" in nowhere.said


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("papo", {"gamma": "0.2"}, ("gamma", 0.2)),
        ("papo-dapo", {}, ("gamma", 0.01)),
        ("papo@full", {}, ("gamma", 0.02)),
        ("cppo", {}, ("coefficient", 0.01)),
        ("cppo@release-areal", {"coefficient": "0.1"}, ("coefficient", 0.1)),
        ("cappo", {}, ("coefficient", 0.05)),
        ("papo+shuffled", {"gamma": "0.04"}, ("gamma", 0.04)),
        ("papo+blind", {"gamma": "0.04"}, ("lr", 1.5e-4)),
        ("papo", {"gamma": "0", "eta": "0.03"}, ("lr", 1.5e-4)),
        ("vppo", {}, ("lr", 1.5e-4)),
        ("grpo", {}, ("lr", 1.5e-4)),
    ],
)
def test_the_coefficient_of_the_methods_own_term_is_lowered_or_else_the_learning_rate(method, options, expected):
    config = Config(method=method, options=options)
    option, value, less = lowered(config)
    assert ((option, value), less) == (expected, value / 2)
    after = effective(config, [Intervention(9, 5, "x", "", "back", 4, option, value, less)])
    assert lowered(after)[:2] == (option, less)
    assert replace(after, options=config.options, lr=config.lr) == config


def test_a_checkpoint_of_an_abandoned_future_is_known_by_what_it_was_written_under():
    first = Intervention(68, 64, "a", "", "back", 50, "gamma", 0.2, 0.1)
    stop, second = Intervention(70, 69, "b", "", "stop"), Intervention(90, 88, "a", "", "back", 30, "gamma", 0.1, 0.05)
    done = [first, stop, second]
    assert [is_abandoned(step, 0, done) for step in (20, 30, 40, 60)] == [False, False, True, True]
    assert [is_abandoned(step, 2, done) for step in (30, 40, 80)] == [False, True, True]
    assert not is_abandoned(80, 3, done)


# ---------------------------------------------------------------------------------------------------- going back


def test_a_run_that_goes_back_is_the_run_with_half_of_gamma_from_there(backed, tmp_path):
    """The definition: another run folder, left at the good checkpoint and gone on with by hand with gamma halved."""
    (one,) = interventions(backed)
    assert one == Intervention(TRIPS, SINCE, "gradient", "it trips", "back", TO, "gamma", 0.2, 0.1)
    by_hand = tmp_path / "run"
    plain = replace(TINY, guards={})
    train(plain, by_hand, until=TO)
    lower = replace(plain, options={**TINY.options, "gamma": "0.1"})
    (by_hand / "config.yaml").write_text(to_yaml(lower))
    train(lower, by_hand, resume=True)
    for name in (*LOGS, "checkpoints/step-000007/model.safetensors"):
        assert (backed / name).read_bytes() == (by_hand / name).read_bytes(), name
    moments = [run / "checkpoints/step-000006/trainer/optimizer.safetensors" for run in (backed, by_hand)]
    assert moments[0].read_bytes() == moments[1].read_bytes()
    assert [line["step"] for line in read_lines(backed / "metrics.jsonl")] == list(range(1, 8))
    assert {path.name for path in (backed / "checkpoints").iterdir()} == {f"step-00000{n}" for n in (0, 3, 6, 7)}


def test_what_was_abandoned_is_kept_line_by_line(backed, tmp_path):
    alone = tmp_path / "run"
    train(replace(TINY, guards={}), alone, until=TRIPS)
    for name in LOGS:
        lines = [line for line in read_lines(alone / name) if line["step"] > TO]
        assert list(read_lines(backed / "abandoned" / "1" / name)) == lines, name
    assert [line["step"] for line in read_lines(backed / "abandoned" / "1" / "timings.jsonl")] == [4, 5]


class Killed(BaseException):
    """The end of the process, as far as anything in it can tell."""


SLOW = pytest.mark.slow
POINTS = [
    pytest.param(guarded, "put_aside", "before", marks=SLOW),
    pytest.param(undone, "put_in_place", "before"),
    pytest.param(guarded, "put_aside", "after", marks=SLOW),
    pytest.param(undone, "write_whole", "before", marks=SLOW),
    pytest.param(guarded, "record", "after"),
    pytest.param(undone, "remove", "before", marks=SLOW),
    pytest.param(undone, "remove", "after", marks=SLOW),
    pytest.param(RunFolder, "_cut", "before", marks=SLOW),
    pytest.param(RunFolder, "_cut", "after"),
    pytest.param(guarded, "left_at", "after", marks=SLOW),
]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "name", "when"), POINTS, ids=lambda part: getattr(part, "__name__", part))
def test_a_run_that_is_killed_while_it_goes_back_is_resumed_as_the_same(
    where, name, when, backed, nearly, tmp_path, monkeypatch
):
    own, going, run = getattr(where, name), [], shutil.copytree(nearly, tmp_path / "run")

    def killing(*given, **named):
        if name == "_cut" and not going:  # the run's own start cuts its logs too
            return own(*given, **named)
        if when == "after":
            own(*given, **named)
        raise Killed

    own_back = guarded.Guarded._go_back
    monkeypatch.setattr(guarded.Guarded, "_go_back", lambda self, doing: going.append(1) or own_back(self, doing))
    with monkeypatch.context() as patch:
        patch.setattr(where, name, killing)
        with pytest.raises(Killed):
            train(TINY, run, resume=True)
    train(TINY, run, resume=True)
    assert_same_run(backed, run)


@pytest.mark.parametrize("until", [pytest.param(TRIPS - 1, marks=SLOW), TRIPS, pytest.param(TRIPS + 1, marks=SLOW)])
def test_a_run_that_is_stopped_around_it_is_resumed_as_the_same(until, backed, tmp_path):
    """`until` = the step at which it trips: it goes back first, and then comes to that step again."""
    run = tmp_path / "run"
    train(TINY, run, until=until)
    train(TINY, run, resume=True)
    extra = run / "checkpoints" / f"step-00000{until}"
    if until != 6:
        shutil.rmtree(extra, ignore_errors=True)  # that of step 4 is gone already: it was of what is abandoned
    assert_same_run(backed, run)


def test_a_run_that_was_saved_and_not_yet_sent_back_goes_back_when_it_is_resumed(backed, tmp_path, monkeypatch):
    """As Ctrl-C at the end of the very step does; so does a guard that is told only then to send it back."""
    told = []
    train(replace(TINY, guards={}), tmp_path / "run", until=TRIPS)
    shutil.copytree(backed / "checkpoints" / "step-000000", tmp_path / "run" / "checkpoints" / "step-000000")
    train(TINY, tmp_path / "run", resume=True, tell=told.append)
    assert [line for line in told if "back from step 5 to step 3 with gamma=0.1 instead of 0.2" in line]
    for name in LOGS:
        assert (backed / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


@SLOW
def test_a_guard_that_goes_on_sends_the_run_back_so_many_times_and_then_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "GUARDS", {"gradient": trips_while(lambda past: True)})
    with pytest.raises(Stopped, match="most_backs=2"):
        train(replace(TINY, most_backs=2, steps=6), tmp_path / "run")
    done = interventions(tmp_path / "run")
    assert [(one.action, one.from_value, one.to_value) for one in done] == [
        ("back", 0.2, 0.1),
        ("back", 0.1, 0.05),
        ("stop", None, None),
    ]
    assert {path.name for path in (tmp_path / "run" / "abandoned").iterdir()} == {"1", "2"}
    assert train(replace(TINY, most_backs=2, steps=6), tmp_path / "run", resume=True).name == "step-000006"


@SLOW
def test_a_damaged_checkpoint_is_not_gone_back_to(tmp_path, monkeypatch):
    def spoil(step, metrics, seconds):
        if step == TRIPS and not spoilt:
            spoilt.append(step)
            (tmp_path / "run" / "checkpoints" / "step-000003" / "model.safetensors").write_bytes(b"")

    spoilt, told = [], []
    train(TINY, tmp_path / "run", watch=spoil, tell=told.append)
    assert [one.to for one in interventions(tmp_path / "run")] == [0]


@SLOW
def test_the_checkpoint_that_may_be_needed_outlives_those_that_are_not_kept(tmp_path, monkeypatch):
    """With keep_last=1 the last one is younger than what the guard is about."""
    config = replace(TINY, save_every=1, keep_last=1, steps=6)
    train(config, tmp_path / "run")
    (one,) = interventions(tmp_path / "run")
    assert one.to < SINCE


def test_a_sampler_with_weights_of_its_own_is_given_the_old_ones_again(tmp_path, monkeypatch):
    config = replace(TINY, sampler="vllm", save_every=2, steps=6, watch_every=0)
    (made, run) = followed_by(monkeypatch), tmp_path / "run"
    train(config, run)
    (sampler,) = made
    (one,) = interventions(run)
    assert (one.to, one.to_value) == (2, 0.1)
    after = fingerprint(load(run / "checkpoints" / "step-000002"))
    assert sampler.heard.count(after) == 2
    assert sampler.heard[1] == sampler.heard[3] == after


@SLOW
def test_a_round_that_was_sampled_ahead_is_forgotten(tmp_path, monkeypatch):
    """And the run is what it is when it is killed on its way back, and resumed."""
    config = replace(TINY, sampler="vllm", ahead=1, save_every=2, watch_every=0, steps=6)
    untouched = trips_while(lambda past: not any(tmp_path.glob("*/interventions.jsonl")))
    monkeypatch.setattr(catalogue, "GUARDS", {"gradient": untouched})
    followed_by(monkeypatch)
    train(config, tmp_path / "whole")
    assert [one.to for one in interventions(tmp_path / "whole")] == [2]
    (tmp_path / "whole").rename(tmp_path.with_name(f"{tmp_path.name}-whole"))  # out of the guard's sight
    with monkeypatch.context() as patch:
        patch.setattr(guarded, "left_at", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(config, tmp_path / "killed")
    train(config, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path.with_name(f"{tmp_path.name}-whole"), tmp_path / "killed")
    no_thread_is_left()


# ---------------------------------------------------------------------------------------------------- not finite


def breaking(at: int, monkeypatch) -> None:
    """The gradient of the step `at` has one number that is none; once in a process."""
    own, calls = loop.accumulate, []

    def accumulate(*given, **named):
        metrics = own(*given, **named)
        calls.append(1)
        if len(calls) == at:
            policy = given[3]
            del policy
            weight = next(weight for weight in breaking.model.parameters() if weight.grad is not None)
            weight.grad.view(-1)[0] = float("nan")
        return metrics

    own_update = loop.update

    def update(parts, *more):
        breaking.model = parts.policy.model
        return own_update(parts, *more)

    monkeypatch.setattr(loop, "accumulate", accumulate)
    monkeypatch.setattr(loop, "update", update)


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step-{step:06d}"
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "trainer" / "optimizer.safetensors")}


def test_what_is_not_finite_never_reaches_weights_or_optimizer_and_stops_the_run(tmp_path, monkeypatch):
    config = replace(TINY, guards={}, save_every=1, steps=4)
    with monkeypatch.context() as patch:
        breaking(3, patch)
        with pytest.raises(Stopped, match="grad_norm is not finite at step 3") as ended:
            train(config, tmp_path / "run")
    assert ended.value.status == 3
    before, after = tensors(tmp_path / "run", 2), tensors(tmp_path / "run", 3)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    (one,) = interventions(tmp_path / "run")
    assert (one.step, one.guard, one.action, one.to) == (3, "not finite", "stop", None)
    assert train(config, tmp_path / "run", resume=True).name == "step-000004"
    assert all(torch.isfinite(value).all() for value in tensors(tmp_path / "run", 4).values())


def test_it_only_warns_where_that_is_wanted_and_goes_on_without_the_step(tmp_path, monkeypatch):
    told, config = [], replace(TINY, guards={"not finite": "warn"}, steps=3)
    breaking(2, monkeypatch)
    train(config, tmp_path / "run", tell=told.append)
    assert sum("grad_norm is not finite at step 2" in line for line in told) == 1
    assert not (tmp_path / "run" / "interventions.jsonl").exists()
    assert torch.isfinite(tensors(tmp_path / "run", 3)["0.exp_avg"]).all()


def test_it_goes_back_where_that_is_wanted(tmp_path, monkeypatch):
    breaking(5, monkeypatch)
    train(replace(TINY, guards={"not finite": "back"}), tmp_path / "run")
    (one,) = interventions(tmp_path / "run")
    assert (one.step, one.since, one.to, one.to_value) == (5, 5, 3, 0.1)
    assert not any("NaN" in line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert "NaN" in (tmp_path / "run" / "abandoned" / "1" / "metrics.jsonl").read_text()


def test_every_step_that_is_not_taken_stops_and_not_the_first_alone(tmp_path, monkeypatch):
    config = replace(TINY, guards={}, steps=4)
    for at in (1, 2):  # of the process: steps 1, and 3
        with monkeypatch.context() as patch:
            breaking(at, patch)
            with pytest.raises(Stopped):
                train(config, tmp_path / "run", resume=(tmp_path / "run").exists())
    assert [one.step for one in interventions(tmp_path / "run")] == [1, 3]


@pytest.mark.parametrize(
    "ends",
    [pytest.param("as it is", marks=SLOW), pytest.param("killed before", marks=SLOW), "killed after", "out of time"],
)
def test_a_stop_is_neither_forgotten_nor_repeated_whenever_the_run_ends(ends, tmp_path, monkeypatch):
    """Before it is written down the run is stopped when it goes on; after that it goes on, and is told what it was."""

    def recording(*given):
        if ends == "killed before":
            raise Killed
        own(*given)
        if ends == "killed after":
            raise Killed
        if ends == "out of time":
            signal.raise_signal(signal.SIGALRM)

    config, run, own, told = replace(TINY, guards={}, steps=2), tmp_path / "run", guarded.record, []
    with monkeypatch.context() as patch:
        breaking(1, patch)
        patch.setattr(guarded, "record", recording)
        with pytest.raises(Killed if "killed" in ends else Stopped):
            train(config, run)
    if ends == "killed before":
        with pytest.raises(Stopped):
            train(config, run, resume=True)
    train(config, run, resume=True, tell=told.append)
    assert [line.split(":")[0] for line in told if "goes on" in line] == [
        "this run was stopped at step 1 by the guard 'not finite'"
    ]
    assert [(one.step, one.action) for one in interventions(run)] == [(1, "stop")]
    told.clear()
    train(config, run, resume=True, tell=told.append)  # at its end, which is another step
    assert [line for line in told if "goes on" in line] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"what": 2}, "is no intervention"),
        ({"step": "1"}, "'step' must be a whole number"),
        ({"to_value": "low"}, "'to_value' must be a number"),
        ({"to": None}, "does not say"),
    ],
)
def test_interventions_that_are_none_are_told(change, told, tmp_path):
    line = Intervention(68, 64, "KL hacking", "", "back", 50, "gamma", 0.2, 0.1)._asdict()
    (tmp_path / "interventions.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line | change) + "\n")
    with pytest.raises(UserError, match=f"line 2:? {told}"):
        interventions(tmp_path)


def test_a_run_that_can_only_go_back_to_its_start_is_told_before():
    assert [line for line in forewarned(replace(TINY, save_every=0)) if "save_every" in line]
    assert not [line for line in forewarned(TINY) if "save_every" in line]
