"""Each way of failing, planted in a healthy log, raises its warning and no other; a healthy log raises none."""

import pickle
import random
import re
from dataclasses import replace
from itertools import pairwise
from statistics import median

import pytest

from vergence.guards.catalogue import GUARDS, Watchman, raised
from vergence.guards.past import FOLLOWED, JUMPS, NOW, START, TAUGHT, Past
from vergence.train.config import Config
from vergence.train.forewarned import COMPARED, OF_ROUNDS, OF_WATCHED, forewarned, unraised
from vergence.train.loop import is_finite

STEPS, FROM = 120, 60
"""Steps of a planted log, and the first at which something goes wrong in it."""


def healthy(seed: int = 0, rollouts: int = 256, steps: int = STEPS) -> list[dict]:
    """A run that learns to look: the numbers of the demo's runs, with a batch's noise."""
    chance, lines, apart = random.Random(seed), [], random.Random(f"gap {seed}")

    def share(p: float) -> float:
        return sum(chance.random() < p for _ in range(rollouts)) / rollouts

    for step in range(1, steps + 1):
        done = step / steps
        line = {
            "step": step,
            "frac_reward_zero_std": 0.2 + 0.35 * done + chance.gauss(0, 0.06),
            "rewards/accuracy": share(0.4 + 0.2 * done),
            "rewards/unparsed": share(0.01),
            "rewards/timed_out": 0.0,
            "entropy": (0.31 - 0.15 * done) * chance.lognormvariate(0, 0.05),
            "completions/mean_length": 29 * chance.lognormvariate(0, 0.06),
            "completions/clipped_ratio": share(0.004),
            "clip_ratio/high": 0.0005 * chance.lognormvariate(0, 0.5),
            "grad_norm": 0.15 * (1 + 0.5 * done) * chance.lognormvariate(0, 0.2),
            "loss/perception": -0.025 * (1 + 0.6 * done) * chance.lognormvariate(0, 0.15),
            "perception/caption_leak": share(0.02),
            "sampler/gap_mean": 0.006 * apart.lognormvariate(0, 0.2),
            "sampler/gap_of_most": 0.06 * apart.lognormvariate(0, 0.2),
            "completions/disavowal": sum(apart.random() < 0.01 for _ in range(rollouts)) / rollouts,
            "completions/repetition": sum(apart.random() < 0.02 for _ in range(rollouts)) / rollouts,
        }
        if step % 5 == 1:
            more = (1 + 0.5 * done) * chance.lognormvariate(0, 0.1)
            masked = {"kl": 0.25, "k3": 0.2, "k3_p99": 5.0, "k3_variance": 0.9}
            line |= {f"perception/{name}_masked": value * more for name, value in masked.items()}
            line["perception/gradient_ratio"] = chance.lognormvariate(-1.5, 0.5)
            less = (1 - 0.15 * done) * apart.lognormvariate(0, 0.03)
            entropies = {"entropy_masked": 0.37, "removed/entropy": 0.36, "kept/entropy": 0.33}
            line |= {f"perception/{name}": value * less for name, value in entropies.items()}
            line |= {"perception/removed/kl": 0.18 * apart.lognormvariate(0, 0.1), "perception/kept/kl": 0.0004}
        lines.append(line)
    return lines


def planted(**changes) -> list[dict]:
    """The healthy log, from `FROM` on with numbers multiplied (a float) or replaced (a function of old and step)."""
    lines = healthy()
    for line in lines[FROM - 1 :]:
        for name, change in changes.items():
            if name in line:
                line[name] = change(line[name], line["step"]) if callable(change) else line[name] * change
    return lines


def at(value: float):
    return lambda old, step: value


def falling(old: float, step: int) -> float:
    return old * max(0.72, 1 - 0.01 * (step - FROM))


PLANTED = {
    "KL hacking": {
        **{f"perception/{name}_masked": 5.0 for name in ("kl", "k3")},
        "perception/k3_variance_masked": 8.4,
        "clip_ratio/high": 14.0,
        "rewards/accuracy": falling,
    },
    "collapse": {"rewards/accuracy": 0.5},
    "entropy explosion": {"entropy": at(8.0)},
    "entropy collapse": {"entropy": 0.05},
    "no signal": {"frac_reward_zero_std": at(0.9)},
    "truncation": {"completions/clipped_ratio": at(0.3)},
    "unparsed": {"rewards/unparsed": at(0.3)},
    "length": {"completions/mean_length": 2.6, "rewards/accuracy": at(0.38)},
    "gradient": {"grad_norm": lambda old, step: 40 * old if step == 80 else old},
    "not finite": {"grad_norm": lambda old, step: float("nan") if step == 80 else old},
    "metric not finite": {"entropy": lambda old, step: float("inf") if step == 80 else old},
    "caption leak": {"perception/caption_leak": at(0.25)},
    "drowned reward": {"perception/gradient_ratio": at(8.6)},
    "looks less": {"perception/kl_masked": 0.2},
    "timed out": {"rewards/timed_out": at(0.1)},
    "sampler gap": {"sampler/gap_mean": 7.0},
    "view entropy explosion": {"perception/removed/entropy": at(1.3)},
    "view entropy collapse": {"perception/entropy_masked": 0.05},
    "view without effect": {"perception/removed/kl": at(0.0003)},
    "repetition": {"completions/repetition": at(0.2)},
    "disavowal": {"completions/disavowal": at(0.3)},
}
ALWAYS = {
    "all unparsed": ("rewards/unparsed", 1.0, 3),
    "no signal": ("frac_reward_zero_std", 0.97, 5),
    "view without effect": ("perception/removed/kl", 0.008, 6),
    "caption leak": ("perception/caption_leak", 0.7, 3),
    "disavowal": ("completions/disavowal", 0.8, 3),
    "truncation": ("completions/clipped_ratio", 0.6, 3),
    "repetition": ("completions/repetition", 0.7, 3),
    "timed out": ("rewards/timed_out", 0.08, 5),
}
"""What is seen from the first steps on: guard -> the number, what it is from the first line on, the step at which it is
raised (the sixth is the second watched round)."""


def test_every_guard_is_tried():
    assert PLANTED.keys() | ALWAYS.keys() == GUARDS.keys()


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_raised_and_nothing_else(name):
    found = raised(planted(**PLANTED[name]))
    assert [one.name for one in found] == [name]
    assert FROM <= found[0].step <= FROM + 25
    assert FROM - 4 <= found[0].since <= found[0].step
    assert "\n" not in found[0].said
    assert found[0].said[-1] != "."


@pytest.mark.parametrize("name", ALWAYS)
def test_what_is_wrong_from_the_first_step_is_told_within_a_few(name):
    number, value, step = ALWAYS[name]
    lines = [{**line, number: value} if number in line else line for line in healthy(steps=40)]
    assert [(one.step, one.name, one.since) for one in raised(lines)] == [(step, name, 1)]


@pytest.mark.parametrize("name", ALWAYS)
def test_a_bad_first_step_alone_is_no_reason(name):
    number, value, _ = ALWAYS[name]
    lines = healthy(steps=40)
    lines[0] |= {number: value}
    assert raised(lines) == []


def test_what_is_high_before_there_is_a_start_is_told_since_when():
    lines = [{**line, "completions/clipped_ratio": 0.6 * (line["step"] >= 5)} for line in healthy(steps=40)]
    (found,) = raised(lines)
    assert found[:2] + found[3:] == (7, "truncation", 5)
    assert found.said.startswith("the share of responses that are cut off is 60%, high since step 5: ")
    (later,) = raised(planted(**PLANTED["truncation"]))
    assert later[:2] + later[3:] == (62, "truncation", 58)


def test_a_view_that_keeps_the_image_may_be_as_near_as_it_likes():
    lines = [{**line, **{key: 0.0 for key in line if key == "perception/kept/kl"}} for line in healthy(steps=40)]
    assert raised(lines) == []


def test_a_perception_term_that_is_fed_is_seen_in_entropies_and_in_the_clip_alone():
    """arXiv:2507.06448 section 5.3: both entropies rise, the upper clip climbs; where no such term is maximised, an
    entropy that doubles is none."""
    heated = {"perception/entropy_masked": 2.3, "rewards/accuracy": falling}
    assert [one.name for one in raised(planted(**heated))] == ["KL hacking"]
    clipped = {"clip_ratio/high": 14.0, "rewards/accuracy": falling}
    assert [one.name for one in raised(planted(**clipped))] == ["KL hacking"]
    assert raised(planted(**{"clip_ratio/high": 14.0})) == []
    for changes in (heated, clipped):
        without = [{key: value for key, value in line.items() if "loss" not in key} for line in planted(**changes)]
        assert raised(without) == []


def test_dynamic_sampling_that_hardly_finds_a_group_is_told_before_it_gives_up():
    lines = [{**line, "sampling/draws": 2 if line["step"] < 30 else 12} for line in healthy(steps=40)]
    (found,) = raised(lines)
    assert (found.step, found.name, found.since) == (31, "no signal", 30)


def test_the_step_of_a_spike_is_the_step_it_is_about():
    (found,) = raised(planted(grad_norm=lambda old, step: 40 * old if step == 80 else old))
    assert (found.step, found.since) == (80, 80)


def test_a_metric_that_is_no_number_neither_stops_a_run_nor_says_that_a_step_was_not_taken():
    lines = healthy(steps=30)
    for line in lines[20:]:
        line |= {"eval/of_charts": float("nan"), "mine": float("-inf")}
    (found,) = raised(lines)
    assert (found.step, found.name) == (21, "metric not finite")
    assert "eval/of_charts, mine are not finite at step 21" in found.said
    assert "as they were" not in found.said


@pytest.mark.parametrize("name", ["loss", "grad_norm", "entropy", "loss/surrogate", "eval/overall"])
def test_what_stops_a_run_is_what_no_step_is_taken_on(name):
    line = {"step": 1, "loss": 0.1, "grad_norm": 0.1, "entropy": 0.1} | {name: float("nan")}
    (found,) = raised([line])
    assert found.name == ("metric not finite" if is_finite(line) else "not finite")
    assert found.said.startswith(f"{name} is not finite at step 1. ")


@pytest.mark.parametrize(("names", "told"), [("abc", "a, b, c are"), ("abcd", "a, b, c and 1 more are"), ("a", "a is")])
def test_of_numbers_that_are_none_three_are_named(names, told):
    (found,) = raised([{"step": 1, **dict.fromkeys(names, float("nan"))}])
    assert found.said.startswith(f"{told} not finite at step 1. ")


def test_loss_and_gradient_are_named_where_neither_is_finite_and_what_follows_from_them_is_not():
    line = {"step": 7, "loss": float("nan"), "loss/surrogate": float("nan"), "grad_norm": float("inf")}
    (found,) = raised([line])
    assert found.said.startswith("loss and grad_norm are not finite at step 7. ")


def sparse(seed: int, low: float = 0.005, share: float = 0.3) -> list[dict]:
    """A healthy run most of whose steps teach nothing: their gradient is a reference KL's."""
    chance, lines = random.Random(f"sparse {seed}"), healthy(seed, rollouts=16)
    for line in lines:
        teaches = chance.random() < share
        line["frac_reward_zero_std"] = chance.choice([0.75, 0.875]) if teaches else 1.0
        line["grad_norm"] = (0.15 if teaches else low) * chance.lognormvariate(0, 0.4)
    return lines


@pytest.mark.parametrize(("low", "share"), [(0.0, 0.2), (0.001, 0.05), (0.001, 0.2), (0.001, 0.5), (0.01, 0.3)])
def test_a_step_with_signal_among_many_without_is_no_spike_and_no_growth(low, share):
    for seed in range(2):
        assert "gradient" not in [one.name for one in raised(sparse(seed, low, share))]


@pytest.mark.parametrize(("times", "until"), [(60.0, 81), (8.0, STEPS)], ids=["spike", "growth"])
def test_a_gradient_that_is_too_long_is_raised_where_signal_is_sparse_too(times, until):
    lines = sparse(0)
    for line in lines[79 : until - 1]:
        line["grad_norm"] = 0.15 * times
    assert 80 <= next(one.step for one in raised(lines) if one.name == "gradient") <= 85


@pytest.mark.parametrize("name", ["entropy", "perception/kl_masked", "perception/removed/entropy"])
def test_what_was_nothing_at_the_start_cannot_have_fallen(name):
    lines = [{**line, **({name: 0.0} if name in line else {})} for line in healthy(steps=60)]
    falls = ("looks less", "entropy collapse", "view entropy collapse")
    assert [one for one in raised(lines) if one.name in falls] == []


def test_of_a_long_run_only_what_comparing_needs_is_kept():
    """And what is kept says the same as the whole log would."""
    chance, past, values, sizes = random.Random(3), Past(), [], []
    for step in range(1, 6001):
        values.append(chance.gauss(1.0, 0.1) + (step > 4000))
        past.add({"step": step, "entropy": values[-1], "perception/kl_masked": values[-1]})
        if step % 1500 == 0:
            sizes.append(len(pickle.dumps(past)))
    assert max(sizes[1:]) - min(sizes[1:]) < 200
    assert sizes[-1] < 60_000
    assert past.start("entropy") == median(values[:START])
    assert past.now("entropy") == median(values[-NOW:])
    assert past.best("entropy") == max(median(values[end - NOW : end]) for end in range(NOW, len(values) + 1))
    jumps = [abs(one - other) for one, other in pairwise(values)][-JUMPS:]
    assert past.noise("entropy") == sorted(jumps)[len(jumps) // 2] / 0.954
    assert past.since("entropy") == 6000 - NOW + 1
    assert past.since("perception/kl_masked") == 6000
    assert past.last("entropy", 21) == values[-21:]


@pytest.mark.parametrize(
    ("name", "kept"), [("mine/{}", 1), ("perception/view{}/kl", 101), ("perception/view{}/entropy", 101)]
)
def test_a_run_that_logs_whatever_it_likes_is_watched_as_any_other(name, kept):
    """Ten thousand names, other ones at each step: few are kept, and what is wrong is seen all the same."""
    watchman = Watchman()
    for step in range(1, 4):
        many = {name.format(f"{step}-{one}"): 1.0 for one in range(10_000)}
        watchman({"step": step, **many, "rewards/unparsed": 1.0})
    assert len(watchman.past.names()) == kept
    watchman({"step": 4, **{name.format(f"4-{one}") + 999 * "x": float("nan") for one in range(10_000)}})
    assert [(one.step, one.name) for one in watchman.raised] == [(3, "all unparsed"), (4, "metric not finite")]
    names = ", ".join((name.format(f"4-{one}") + 99 * "x")[:80] for one in range(3))
    assert watchman.raised[1].said.startswith(f"{names} and 9997 more are not finite at step 4. ")


def test_what_guards_ask_for_is_followed():
    """A name that is spelt in another way would be a guard that is never raised."""

    class Asked(dict):
        def get(self, name):
            asked.add(name)
            return super().get(name)

    asked, watchman = set(), Watchman()
    watchman.past._numbers = Asked()
    for line in healthy(rollouts=16):
        watchman(line)
    of_views = {name for name in asked if re.fullmatch("perception/(removed|kept)/(kl|entropy)", name)}
    assert len(of_views) == 4
    assert asked - of_views <= {*FOLLOWED, TAUGHT}
    assert len(asked - of_views) > len(FOLLOWED) - 3


@pytest.mark.parametrize("seed", range(6))
def test_a_healthy_run_raises_nothing(seed):
    assert raised(healthy(seed)) == []
    assert raised(healthy(seed, rollouts=64)) == []


def test_what_is_raised_stays_raised():
    """Monotone, over a log in which one thing after another goes wrong: the warnings of its beginning come first."""
    lines = healthy(steps=STEPS)[: FROM - 1]
    for changes in PLANTED.values():
        lines += planted(**changes)[FROM - 1 : FROM + 20]
    lines = [{**line, "step": step} for step, line in enumerate(lines, 1)]
    everything = raised(lines)
    assert len(everything) > len(GUARDS) / 2
    for cut in (*range(0, len(lines), 250), everything[0].step - 1, everything[0].step):
        assert raised(lines[:cut]) == [one for one in everything if one.step <= cut]


def test_a_gradient_that_stays_long_is_raised():
    assert [one.name for one in raised(planted(grad_norm=8.0))] == ["gradient"]


@pytest.mark.parametrize(
    ("accuracy", "told"),
    [(1.0, "before you believe the gain"), (lambda old, step: old * 0.8, "the run unlearns to look")],
)
def test_who_looks_less_is_told_whether_answers_get_better_or_worse(accuracy, told):
    (found,) = raised(planted(**{"perception/kl_masked": 0.2, "rewards/accuracy": accuracy}))
    assert found.name == "looks less"
    assert found.said.count(told) == 1


def test_one_high_value_at_the_start_is_no_fall():
    """The start is the median of two watched rounds: rounds of the start themselves are not what has fallen."""
    lines = healthy(steps=80)
    watched = [line for line in lines if "perception/kl_masked" in line]
    for line, value in zip(watched, [2.0, 0.3, 0.3] + [0.6] * 13, strict=True):
        line["perception/kl_masked"] = value
    assert raised(lines) == []


def test_looking_more_without_harm_is_no_hacking():
    assert raised(planted(**{f"perception/{name}_masked": 5.0 for name in ("kl", "k3", "k3_variance")})) == []


@pytest.mark.parametrize(
    ("harm", "also"),
    [
        ({"completions/clipped_ratio": at(0.3)}, "truncation"),
        ({"rewards/unparsed": at(0.3)}, "unparsed"),
        ({"clip_ratio/high": at(0.007)}, None),
        ({"rewards/accuracy": falling}, None),
    ],
)
def test_each_harm_alone_makes_a_surge_hacking(harm, also):
    found = {one.name for one in raised(planted(**{"loss/perception": 4.0}, **harm))}
    assert found == {"KL hacking"} | ({also} if also else set())


def test_the_published_early_sign_is_seen_before_the_reward_falls():
    """arXiv:2507.06448, appendix J: the upper clip from 0.0005 to 0.007 while the KL surges."""
    changes = {"perception/k3_masked": 5.0, "clip_ratio/high": 14.0}
    early = raised(planted(**changes, **{"rewards/accuracy": lambda old, step: old * (0.6 if step > 90 else 1)}))
    assert early[0].name == "KL hacking"
    assert early[0].step < 75
    assert "the upper clip climbs" in early[0].said


def test_a_method_without_some_numbers_is_watched_for_the_others():
    bare = [{"step": line["step"], "entropy": line["entropy"]} for line in planted(entropy=at(5.0))]
    assert [one.name for one in raised(bare)] == ["entropy explosion"]
    assert raised([]) == []
    assert raised([{"step": 1}]) == []
    assert raised([{"step": 1, "grad_norm": "long", "loss": None, "entropy": True}]) == []


def test_a_short_run_has_no_start_yet():
    lines = [{**line, "entropy": 9.0 if line["step"] > 5 else 0.3} for line in healthy(steps=START + NOW - 1)]
    assert raised(lines) == []


def test_the_watchman_says_each_once_and_goes_on_where_a_run_was_left():
    lines = planted(**PLANTED["truncation"])
    fresh = Watchman()
    said = [one for line in lines for one in fresh(line)]
    assert said == raised(lines) == fresh.raised
    resumed = Watchman(lines[:90])
    assert resumed.raised == said
    assert [one for line in lines[90:] for one in resumed(line)] == []


def test_noise_hides_a_fall_that_it_could_have_made():
    """Batches of 8 rollouts: accuracy jumps by more than what would be a collapse in a batch of 256."""
    chance, past = random.Random(0), Past()
    for step in range(1, 60):
        past.add({"step": step, "rewards/accuracy": sum(chance.random() < 0.5 for _ in range(8)) / 8})
    assert past.noise("rewards/accuracy") == pytest.approx((0.25 / 8) ** 0.5, rel=0.5)
    right = past._numbers["rewards/accuracy"]
    right.best = past.now("rewards/accuracy") + 3.5 * past.noise("rewards/accuracy")
    assert not past.fallen("rewards/accuracy", 0.9, 4.0)
    right.best += past.noise("rewards/accuracy")
    assert past.fallen("rewards/accuracy", 0.9, 4.0)


def test_noise_of_a_normal_number():
    chance, past = random.Random(1), Past()
    for step in range(1, 4001):
        past.add({"step": step, "entropy": chance.gauss(step / 1000, 0.3)})
    assert past.noise("entropy") == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Config(method="papo", options={"gamma": "0.1"}), 0),
        (Config(method="papo", options={"gamma": "0.2"}), 1),
        (Config(method="papo-dapo@paper", model="some/folder", options={"gamma": "0.04", "eta": "0.03"}), 1),
        (Config(method="papo", model="some/folder", options={"gamma": "0.02"}), 1),
        (Config(method="papo", model="some/folder", options={"gamma": "0.02", "eta": "0.05"}), 0),
        (Config(method="papo", options={"fraction": "1.0", "gamma": "0.2"}), 2),
        (Config(method="papo", options={"gamma": "much"}), 0),
        (Config(method="papo", model="some/folder", options={"beta": "0", "eta": "0.03"}), 1),
        (Config(method="papo", model="some/folder", options={"gamma": "0.01", "beta": "0", "eta": "0.03"}), 0),
        (Config(method="papo", model="some/folder", options={"gamma": "0.01", "beta": "0"}), 1),
        (Config(method="papo-dapo", model="some/folder"), 0),
        (Config(method="papo-dapo", model="some/folder", options={"eta": "0"}), 1),
        (Config(method="papo+shuffled", options={"gamma": "0.2"}), 1),
        (Config(method="papo+reversed", options={"gamma": "0.2"}), 0),
        (Config(method="dapo", model="some/folder"), 1),
        (Config(method="dapo", model="some/folder", options={"entropy": "0.03"}), 0),
        (Config(method="dapo"), 0),
        (Config(method="vppo", model="some/folder"), 0),
        (Config(method="vppo", model="some/folder", options={"entropy": "0"}), 1),
        (Config(method="nothing like it"), 0),
        (Config(method="grpo", guards={"collapse": "back"}), 1),
        (Config(method="grpo"), 0),
    ],
)
def test_settings_known_to_end_badly_are_told_before(config, expected):
    assert len(forewarned(config)) == expected


@pytest.mark.parametrize(
    ("config", "guards"),
    [
        (Config(method="grpo"), {"KL hacking", "caption leak", "drowned reward", "sampler gap"}),
        (Config(method="papo"), {"caption leak", "sampler gap"}),
        (Config(options={"gamma": "0"}), {"KL hacking", "caption leak", "drowned reward", "sampler gap"}),
        (Config(method="papo+reversed"), {"KL hacking", "caption leak", "sampler gap"}),
        (Config(method="papo", watch_every=0), {"caption leak", "sampler gap", *OF_WATCHED}),
        (Config(method="cppo", watch_every=0), {"KL hacking", "caption leak", "sampler gap", *OF_WATCHED}),
        (Config(method="grpo+blind"), {"KL hacking", "caption leak", "sampler gap", *OF_WATCHED}),
        (Config(method="racro", correction="truncate"), {"KL hacking", "drowned reward"}),
        (Config(method="cappo+swapped", most_gap=0.1), {"KL hacking"}),
        (Config(steps=14), {"caption leak", "sampler gap", *OF_ROUNDS, *COMPARED}),
        (Config(steps=30, parts=3), {"caption leak", "sampler gap", *OF_ROUNDS, *COMPARED}),
        (Config(steps=15), {"caption leak", "sampler gap", *COMPARED}),
        (Config(method="nothing like it"), set()),
    ],
)
def test_a_guard_that_is_asked_for_and_cannot_be_raised_is_told_before(config, guards):
    assert unraised(config).keys() == guards
    asked = replace(config, guards=dict.fromkeys(GUARDS, "stop"))
    told = [line for line in forewarned(asked) if "can never be raised" in line]
    assert sorted(line.split("'")[1] for line in told) == sorted(guards)
    assert [line for line in forewarned(config) if "can never be raised" in line] == []


def test_a_surge_without_a_perception_term_has_another_cause():
    """GRPO whose reward pays for brevity: the KL to the masked view grows while answers get worse."""
    changes = {**{f"perception/{name}_masked": 5.0 for name in ("kl", "k3")}, "rewards/accuracy": falling}
    lines = planted(**changes)
    assert [one.name for one in raised(lines)] == ["KL hacking"]
    assert raised([{key: value for key, value in line.items() if key != "loss/perception"} for line in lines]) == []
    contrast = [{**line, "loss/contrast": 0.006} for line in lines]
    assert [one.name for one in raised(contrast)] == ["KL hacking"]
