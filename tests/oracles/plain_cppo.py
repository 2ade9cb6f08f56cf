"""CPPO in plain Python: which tokens, and a contrast of each, with derivatives by hand."""

from fractions import Fraction
from math import ceil, exp, floor, fsum, log1p

from oracles import plain
from oracles.plain import Table


def rising(H: list[float], H_removed: list[float], mask: list[bool]) -> dict[int, float]:
    """(H' - H) / (H' + 1e-6) of each token at which entropy rises."""
    found = {}
    for t, trained in enumerate(mask):
        if trained and H_removed[t] > H[t]:
            found[t] = (H_removed[t] - H[t]) / (H_removed[t] + 1e-6)
    return found


def verl(H: list[float], H_removed: list[float], mask: list[bool], top: float) -> set[int]:
    """Those that rise as much as the k-th, k = max(1, floor(top #rising))."""
    found = rising(H, H_removed, mask)
    if not found:
        return set()
    k = max(1, floor(Fraction(str(top)) * len(found)))
    last = sorted(found.values())[-k]
    return {t for t, rise in found.items() if rise >= last}


def areal(H: list[float], H_removed: list[float], mask: list[bool], top: float) -> set[int]:
    """The first ceil(top #rising) of those that rise, the greatest first, of equals the earlier."""
    found = rising(H, H_removed, mask)
    return set(sorted(found, key=lambda t: (-found[t], t))[: ceil(Fraction(str(top)) * len(found))])


def paper(H: list[float], H_removed: list[float], mask: list[bool], top: float) -> set[int]:
    """The first ceil(top T) of all T tokens by H' - H, of equals the earlier."""
    tokens = [t for t, trained in enumerate(mask) if trained]
    ordered = sorted(tokens, key=lambda t: (H[t] - H_removed[t], t))
    return set(ordered[: ceil(Fraction(str(top)) * len(tokens))])


def held(estimate: float, by_l: float, by_other: float) -> tuple[float, float, float]:
    """Within +-10, without a slope outside."""
    if estimate > 10:
        return 10.0, 0.0, 0.0
    if estimate < -10:
        return -10.0, 0.0, 0.0
    return estimate, by_l, by_other


def distance(lp: float, other: float, estimator: str) -> tuple[float, float, float]:
    if estimator == "k1":
        return held(lp - other, 1.0, -1.0)
    return plain.k3(lp, other, 10.0)


def softplus(x: float) -> tuple[float, float]:
    """log(1 + e^x) and its slope."""
    if x > 0:
        return x + log1p(exp(-x)), 1 / (1 + exp(-x))
    return log1p(exp(x)), exp(x) / (1 + exp(x))


def contrast(
    data: dict, rule, *, averaged: str, coefficient: float = 0.01, tau: float = 0.1, top: float = 0.5, estimator: str,
    select: str = "published", gate: str = "positive", views: str = "", fresh: str = "no",
) -> tuple[float, dict[str, Table]]:  # fmt: skip
    """The term alone: the mean of softplus((d_plus - d_minus) / tau), by selected token or by rollout."""
    mask = data["mask"]
    names = ("kl_kept", "kl_removed") if estimator == "full" else ("image", "kept", "removed")
    slopes = {name: [[0.0] * len(row) for row in mask] for name in names}
    chosen = []
    for i, row in enumerate(mask):
        tokens = {t for t, trained in enumerate(row) if trained}
        if select == "published":
            tokens = rule(data["H_anchor"][i], data["H_removed"][i], row, top)
        chosen.append(tokens if gate == "none" or data["A"][i] > 0 else set())
    picked, rollouts = sum(map(len, chosen)), sum(any(row) for row in mask)
    parts = []
    for i, tokens in enumerate(chosen):
        for t in tokens:
            share = coefficient / (picked if averaged == "selected" else rollouts * len(tokens))
            if estimator == "full":
                value, slope = softplus((data["kl_kept"][i][t] - data["kl_removed"][i][t]) / tau)
                slopes["kl_kept"][i][t], slopes["kl_removed"][i][t] = share * slope / tau, -share * slope / tau
            else:
                lp = data["image"][i][t]
                plus, plus_by_l, plus_by_kept = distance(lp, data["kept"][i][t], estimator)
                minus, minus_by_l, minus_by_removed = distance(lp, data["removed"][i][t], estimator)
                value, slope = softplus((plus - minus) / tau)
                slopes["image"][i][t] = share * slope / tau * (plus_by_l - minus_by_l)
                slopes["kept"][i][t] = share * slope / tau * plus_by_kept
                slopes["removed"][i][t] = -share * slope / tau * minus_by_removed
            parts.append(share * value)
    return fsum(parts), slopes


OWN = ("coefficient", "tau", "top", "estimator", "select", "gate", "views", "fresh")


def on_grpo(data: dict, rule, averaged: str, defaults: dict, options: dict) -> tuple[float, dict[str, Table]]:
    everything = {**defaults, **options}
    own = {name: value for name, value in everything.items() if name in OWN}
    loss, slopes = plain.grpo(data, **{name: value for name, value in everything.items() if name not in OWN})
    if everything.get("coefficient") == 0:
        return loss, slopes
    more, more_slopes = contrast(data, rule, averaged=averaged, **own)
    for i, row in enumerate(more_slopes.pop("image", [])):
        for t, slope in enumerate(row):
            slopes["image"][i][t] += slope
    return loss + more, {**slopes, **more_slopes}


def release_verl(data: dict, **options):
    """recipe/cppo of the released code for verl, on its GRPO."""
    defaults = {"mean": "token", "dual": 3.0, "beta": 0.01, "kl_cap": 10.0, "estimator": "k3"}
    return on_grpo(data, verl, "selected", defaults, options)


def release_areal(data: dict, **options):
    """AReaL/cppo of the released code, on its GRPO."""
    defaults = {"mean": "token", "clip_low": 0.4, "clip_high": 0.4, "beta": 0.0, "estimator": "k1"}
    return on_grpo(data, areal, "selected", defaults, options)


def text(data: dict, **options):
    """The text of the paper's summary, as we read it."""
    return on_grpo(data, paper, "all", {"estimator": "full"}, options)


def release_verl_dapo(data: dict, **options):
    """The same on DAPO: a mean over tokens, a higher clip, no reference KL."""
    defaults = {"mean": "token", "dual": 3.0, "clip_high": 0.28, "beta": 0.0, "kl_cap": 10.0, "estimator": "k3"}
    return on_grpo(data, verl, "selected", defaults, options)
