"""Controls replace one value and nothing else."""

import math
from functools import cache

import pytest
import torch

from laws import laws as law
from laws.cases import make, only, reshaped, step
from vergence.objectives import CONTROLS, METHODS
from vergence.objectives import method as build
from vergence.objectives.controls import perceptual
from vergence.types import Blank, Caption, Original, Reword, Swap, UserError

method = cache(build)
"""A method is a value: one of each is enough."""

SOME = ("papo-grpo@release", "papo-grpo@paper", "papo-dapo@full", "cppo-grpo@release-verl", "cppo-grpo@paper")
SOME += ("cappo-grpo", "vppo-dapo", "racro-grpo", "grpo")


def possible(name: str) -> list[str]:
    found = []
    for control in CONTROLS:
        try:
            method(f"{name}+{control}")
            found.append(control)
        except UserError:
            pass
    return found


CASES = [(name, control) for name in SOME for control in possible(name)]
# finite differences move the other token too, which a push carries as a constant; a sign is turned on purpose
NOT_FOR = {
    "shuffled": {law.gradients_are_those_of_the_values},
    "reversed": {law.each_term_pulls_its_way},
}


def ids(case):
    return "+".join(case)


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("held", law.LAWS, ids=lambda held: held.__name__)
def test_laws_hold_for_controls(case, held):
    name, control = case
    if held not in NOT_FOR.get(control, ()):
        held(method(f"{name}+{control}"))


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_a_control_says_what_it_is(case):
    name, control = case
    about = method(f"{name}+{control}").about
    assert about.variant.endswith(f"+{control}")
    assert about.deviations[0].startswith(f"control `{control}`")
    assert about.deviations[1:] == method(name).about.deviations


def test_what_can_be_controlled():
    assert possible("grpo") == ["blind", "extra-kl"]
    assert set(CONTROLS) - set(possible("papo")) == {"random"}
    assert possible("cppo") == list(CONTROLS)
    for name in METHODS:
        assert {"blind", "extra-kl"} <= set(possible(name))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("papo+shufled", r"no control 'shufled' \(in papo\+shufled\); did you mean 'shuffled'\?"),
        ("pappo+shuffled", "no method 'pappo'; did you mean 'papo'"),
        ("grpo+shuffled", "grpo cannot have the control 'shuffled': it has no statistic of another view"),
        ("papo+random", "papo cannot have the control 'random': it selects no tokens"),
        ("vppo+reversed", "vppo cannot have the control 'reversed': it has no perceptual term"),
    ],
)
def test_bad_names(name, told):
    with pytest.raises(UserError, match=told):
        method(name)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("papo@full+shuffled", {}, "nothing would change"),
        ("papo+shuffled", {"estimator": "k1"}, "nothing would change"),
        ("cappo+shuffled", {"coefficient": 0.0}, "nothing would change"),
        ("vppo+shuffled", {"top": 1.0}, "nothing would change"),
        ("cppo+random", {"select": "all"}, "nothing would change"),
        ("papo+swapped", {"strength": 2.0}, "no coefficient for an option `strength`"),
        ("vppo+reworded", {"strength": 2.0}, "no coefficient for an option `strength`"),
    ],
)
def test_a_control_that_would_change_nothing_is_refused(name, options, told):
    """Two equal runs would read as `the gain survives`."""
    with pytest.raises(UserError, match=told):
        method(name, **options)


def test_what_all_tokens_count_for_is_pushed_elsewhere():
    """CPPO on all tokens has no scores to permute; its push is."""
    own, changed = (method(f"cppo{control}", select="all", gate="none") for control in ("", "+shuffled"))
    case = make(own, 0, T=12)
    first, second = (step(only(one, "contrast"), case).grads["kept", "logp", None] for one in (own, changed))
    torch.testing.assert_close(first.sort(-1).values, second.sort(-1).values)
    assert not torch.equal(first, second)


def test_entropy_only_is_the_base_with_its_entropies():
    control = method("papo-grpo@release+entropy-only", eta=0.05)
    assert list(control.objective) == ["surrogate", "reference_kl", "entropy"]
    assert list(control.views) == ["image", "reference"]
    assert method("vppo+entropy-only").reshape is None


def test_what_is_shown_instead():
    assert method("papo+swapped").views["masked"].show == Swap(Original())
    assert method("cappo+swapped").views["caption"].show == Swap(Caption())
    assert method("papo+reworded").views["masked"].show == Reword()
    cppo = method("cppo+reworded").views
    assert cppo["removed"].show == Reword()
    assert cppo["kept"] == method("cppo").views["kept"]
    assert cppo["removed"].gate is not None
    assert {view.show for view in method("papo+blind").views.values()} == {Blank()}
    assert list(method("cppo+blind").objective) == ["surrogate", "reference_kl"]


@pytest.mark.parametrize("name", ["papo-grpo@release", "papo-grpo@full", "cppo-grpo@release-verl", "cappo-grpo"])
def test_reversed_and_reworded_scale_the_perceptual_terms_alone(name):
    own, case = method(name), make(method(name), 0)
    for control, options, factor in (("reversed", {}, -1.0), ("reworded", {"strength": "2.5"}, 2.5)):
        changed = method(f"{name}+{control}", **options)
        for term in own.objective:
            scale = factor if term in perceptual(own) else 1.0
            want = scale * step(only(own, term), case).loss
            assert step(only(changed, term), case).loss == pytest.approx(want, abs=1e-12)


def test_extra_kl_adds_one_term_of_its_strength():
    control = method("papo-dapo+extra-kl", strength=0.1)
    assert list(control.objective)[-1] == "extra_kl"
    assert control.views["reference"].policy == "reference"
    case = make(control, 1)
    l_BT, ref_BT = case.live.logp("image"), case.frozen.logp("reference")
    tokens = [
        (a, b) for a, b, m in zip(*(t.flatten().tolist() for t in (l_BT, ref_BT, case.batch.mask_BT)), strict=True) if m
    ]
    want = 0.1 * sum(math.exp(b - a) - (b - a) - 1 for a, b in tokens) / len(tokens)
    assert step(only(control, "extra_kl"), case).loss == pytest.approx(want, abs=1e-12)


def order(case, row: int) -> dict[int, int]:
    """For each response token of a row, the token whose statistic it gets: in plain Python."""
    tokens = [t for t, m in enumerate(case.batch.mask_BT[row].tolist()) if m]
    drawn = sorted(tokens, key=lambda t: case.batch.chance_BT[row, t].item())
    return dict(zip(tokens, drawn, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_papo_pushes_each_token_as_another_one_would_be(seed):
    """d(-gamma k3)/dl = gamma (q/p - 1), taken at the other token; 0 where the clamps hold it; the same histogram."""
    own = only(method("papo-grpo@release", gamma=0.1), "perception")
    control = only(method("papo-grpo@release+shuffled", gamma=0.1), "perception")
    case = make(own, seed, wild=True)
    tokens = int(case.batch.mask_BT.sum())
    key = ("image", "logp", None)
    push_BT, plain_BT = step(control, case).grads[key], step(own, case).grads[key]
    moved = 0
    for row in range(6):
        for here, there in order(case, row).items():
            x = (case.frozen.logp("masked") - case.live.logp("image"))[row, there].item()
            held = abs(x) > 20 or math.exp(min(x, 20.0)) - x - 1 > 10
            want = 0.0 if held else 0.1 * (math.exp(x) - 1) / tokens
            assert push_BT[row, here].item() == pytest.approx(want, abs=1e-9)
            moved += here != there
    assert moved > 0
    assert torch.allclose(push_BT.sort(-1).values, plain_BT.sort(-1).values, atol=1e-12)
    assert not torch.allclose(push_BT, plain_BT)


@pytest.mark.parametrize("control", ["random", "shuffled"])
@pytest.mark.parametrize("name", ["cppo-grpo@release-verl", "cppo-grpo@release-areal", "cppo-grpo@paper"])
def test_as_many_tokens_are_selected_elsewhere(name, control):
    own, changed, moved = method(name), method(f"{name}+{control}"), 0
    for seed in range(6):
        case = make(own, seed, S=4, T=12)
        here_BT, there_BT = (one.objective["contrast"].select(case.batch, case.frozen) for one in (own, changed))
        assert torch.equal(here_BT.sum(-1), there_BT.sum(-1))
        for row in range(8):
            for token, other in order(case, row).items():
                assert there_BT[row, token] == here_BT[row, other]
        w_BT, v_BT = (one.objective["contrast"].weigh(case.batch, case.frozen, case.live) for one in (own, changed))
        assert torch.equal((w_BT > 0), here_BT)
        assert torch.equal((v_BT > 0), there_BT)
        totals = [one.objective["contrast"].total(case.batch, case.frozen) for one in (own, changed)]
        assert totals[0] == totals[1]
        moved += int((here_BT != there_BT).sum())
    assert moved > 0


@pytest.mark.parametrize("control", ["random", "shuffled"])
def test_vppo_spends_as_much_advantage_elsewhere(control):
    own, changed = method("vppo-dapo"), method(f"vppo-dapo+{control}")
    case = make(own, 0, S=4, T=12)
    here_BT, there_BT = (reshaped(one, case, [slice(None)]).batch.advantage_BT for one in (own, changed))
    torch.testing.assert_close(here_BT.sort(-1).values, there_BT.sort(-1).values)
    assert not torch.equal(here_BT, there_BT)
    assert torch.equal(
        there_BT != 0, changed.reshape.select(case.batch, case.frozen) & (case.batch.advantage_B != 0)[:, None]
    )


def test_an_order_that_leaves_the_response_is_caught(monkeypatch):
    """Wrong: permuted over the row, padding included."""
    from vergence.objectives import controls

    def over_the_row(value_BT, batch):
        return value_BT.gather(-1, batch.chance_BT.argsort(dim=-1))

    monkeypatch.setattr(controls, "_mixed", over_the_row)
    with pytest.raises(AssertionError):
        test_as_many_tokens_are_selected_elsewhere("cppo-grpo@release-verl", "random")
    with pytest.raises(AssertionError):
        law.what_is_masked_does_not_matter(method("papo+shuffled"))
