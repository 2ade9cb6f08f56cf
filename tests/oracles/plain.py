"""GRPO, DAPO, Dr. GRPO, PAPO and VPPO in plain Python: one token at a time, dividing exactly, derivatives by hand.

A table is a list of rows of floats. Nothing is shared with the library but the names of the options. Each function of a
token returns its value and the derivative in each of its log-probabilities.
"""

from fractions import Fraction
from math import ceil, exp, fsum, inf

Table = list[list[float]]


def surrogate(lp: float, old: float, A: float, low: float, high: float, dual: float | None) -> tuple[float, float]:
    """The clipped surrogate of one token and its derivative in lp."""
    if lp - old > 20:
        r, dr = exp(20), 0.0
    elif lp - old < -20:
        r, dr = exp(-20), 0.0
    else:
        r = dr = exp(lp - old)
    clipped = 1 - low if r < 1 - low else 1 + high if r > 1 + high else r
    value, slope = -A * r, -A * dr
    if -A * clipped > value:
        value, slope = -A * clipped, (-A * dr if clipped == r else 0.0)
    if dual is not None and A < 0 and value > -A * dual:
        value, slope = -A * dual, 0.0
    return value, slope


def k3(lp: float, other: float, cap: float) -> tuple[float, float, float]:
    """q/p - log(q/p) - 1 of one token, and its derivatives in log p and log q."""
    x = other - lp
    if abs(x) > 20:
        x, moves = (20.0 if x > 0 else -20.0), False
    else:
        moves = True
    value = exp(x) - x - 1
    if value > cap:
        return cap, 0.0, 0.0
    slope = exp(x) - 1 if moves else 0.0
    return value, -slope, slope


def k3_printed(lp: float, other: float, cap: float) -> tuple[float, float, float]:
    """p/q - log(p/q) - 1."""
    value, by_first, by_second = k3(other, lp, cap)
    return value, by_second, by_first


def k2(lp: float, other: float, cap: float) -> tuple[float, float, float]:
    return (lp - other) ** 2 / 2, lp - other, other - lp


def k1(lp: float, other: float, cap: float) -> tuple[float, float, float]:
    return lp - other, 1.0, -1.0


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3, "k3-printed": k3_printed}


def shares(mask: list[list[bool]], mean: str, budget: int = 0) -> Table:
    """What fraction of the mean each token is."""
    rows = sum(any(row) for row in mask)
    if mean == "token":
        tokens = sum(sum(row) for row in mask)
        return [[1 / tokens if m else 0.0 for m in row] for row in mask]
    if mean == "budget":
        return [[1 / (rows * budget) if m else 0.0 for m in row] for row in mask]
    return [[1 / rows / sum(row) if m else 0.0 for m in row] for row in mask]


def grpo(
    data: dict, *, mean: str = "sequence", clip_low: float = 0.2, clip_high: float = 0.2, dual: float = 0.0,
    beta: float = 0.04, kl: str = "k3", kl_cap: float = 0.0, entropy: float = 0.0, entropy_of: str = "sampled",
    budget: int = 0,
) -> tuple[float, dict[str, Table]]:  # fmt: skip
    """DeepSeekMath, arXiv:2402.03300 eq. 3 and 4; the entropy is a token mean whatever the others are.

    `data["factor"]`, if there, is what each token's advantage is multiplied by.
    """
    share, token_share, loss = shares(data["mask"], mean, budget), shares(data["mask"], "token"), []
    slope, by_kl, by_entropy = ([[0.0] * len(row) for row in data["mask"]] for _ in range(3))
    for i, row in enumerate(data["mask"]):
        for t, trained in enumerate(row):
            if not trained:
                continue
            lp = data["image"][i][t]
            A = data["A"][i] * (data["factor"][i][t] if "factor" in data else 1.0)
            value, by_l = surrogate(lp, data["sampled"][i][t], A, clip_low, clip_high, dual or None)
            if beta and kl == "full":
                value, by_kl[i][t] = value + beta * data["kl_reference"][i][t], beta * share[i][t]
            elif beta:
                drift, drift_by_l, _ = ESTIMATORS[kl](lp, data["reference"][i][t], kl_cap or inf)
                value, by_l = value + beta * drift, by_l + beta * drift_by_l
            loss.append(share[i][t] * value)
            slope[i][t] = share[i][t] * by_l
            if entropy and entropy_of == "full":
                loss.append(entropy * token_share[i][t] * data["H"][i][t])
                by_entropy[i][t] = entropy * token_share[i][t]
            elif entropy:
                loss.append(-entropy * token_share[i][t] * lp)
                slope[i][t] -= entropy * token_share[i][t]
    return fsum(loss), {"image": slope, "kl_reference": by_kl, "H": by_entropy}


def dapo(
    data: dict, *, mean: str = "token", clip_high: float = 0.28, beta: float = 0.0, overlong: float = 0.2, **options
) -> tuple[float, dict[str, Table]]:
    """arXiv:2503.14476 eq. 8: GRPO with other numbers. What it does to rewards and to the groups is not in the loss."""
    return grpo(data, mean=mean, clip_high=clip_high, beta=beta, **options)


def dr_grpo(data: dict, *, budget: int = 64, beta: float = 0.0, **options) -> tuple[float, dict[str, Table]]:
    """arXiv:2503.20783: every rollout is divided by the same constant."""
    return grpo(data, mean="budget", budget=budget, beta=beta, **options)


def papo_sampled(
    data: dict, *, fresh: bool, entropy_mean: str, cap: float, gamma: float = 0.02, eta: float = 0.0,
    estimator: str = "k3", entropies: str = "double", **base,
) -> tuple[float, dict[str, Table]]:  # fmt: skip
    """Base - gamma KL(image || masked) - eta log p - eta log p_masked; `fresh` differentiates the masked branch too."""
    loss, slopes = grpo(data, kl_cap=cap if cap < inf else 0.0, **base)
    parts, eta_masked = [loss], eta if entropies == "double" else 0.0
    share, entropy_share = shares(data["mask"], base["mean"]), shares(data["mask"], entropy_mean)
    slopes["masked"] = [[0.0] * len(row) for row in data["mask"]]
    for i, row in enumerate(data["mask"]):
        for t, trained in enumerate(row):
            if not trained:
                continue
            lp, m = data["image"][i][t], data["masked"][i][t]
            kl, by_l, by_m = ESTIMATORS[estimator](lp, m, cap)
            parts += [-gamma * share[i][t] * kl, -eta * entropy_share[i][t] * lp]
            parts += [-eta_masked * entropy_share[i][t] * m]
            slopes["image"][i][t] += -gamma * share[i][t] * by_l - eta * entropy_share[i][t]
            if fresh:
                slopes["masked"][i][t] += -gamma * share[i][t] * by_m - eta_masked * entropy_share[i][t]
    return fsum(parts), slopes


ON_GRPO = {"clip_high": 0.3, "beta": 0.01, "gamma": 0.02, "eta": 0.0}
ON_DAPO = {"clip_high": 0.28, "beta": 0.0, "gamma": 0.01, "eta": 0.03}
"""PAPO's coefficients on either base, arXiv:2507.06448 Table 6: those of the smallest model."""


def release(data: dict, *, mean: str = "token", dual: float = 3.0, **own):
    """The released code: masked log-probabilities are constants, entropies always a token mean."""
    base = {"mean": mean, "dual": dual}
    return papo_sampled(data, fresh=False, entropy_mean="token", cap=10.0, **base, **own)


def paper(data: dict, *, mean: str = "sequence", **own):
    """arXiv:2507.06448 eq. 2 and 3: one mean over everything, both branches differentiated, no bound."""
    return papo_sampled(data, fresh=True, entropy_mean=mean, cap=inf, mean=mean, **own)


def full(
    data: dict, *, gamma: float, eta: float, entropies: str = "double", mean: str = "token", **base
) -> tuple[float, dict[str, Table]]:
    """The divergence and the entropies are given, so their derivatives are the coefficients."""
    loss, slopes = grpo(data, mean=mean, **{"dual": 3.0, "kl_cap": 10.0, **base})
    eta_masked = eta if entropies == "double" else 0.0
    parts, share, entropy_share = [loss], shares(data["mask"], mean), shares(data["mask"], "token")
    given = (("kl", -gamma, share), ("H", eta, entropy_share), ("H_masked", eta_masked, entropy_share))
    for name, coefficient, by in given:
        own = [[coefficient * by[i][t] for t in range(len(row))] for i, row in enumerate(data["mask"])]
        if coefficient:
            parts += [s * v for i, row in enumerate(own) for s, v in zip(row, data[name][i], strict=True)]
        base_slope = slopes.get(name, [[0.0] * len(row) for row in own])
        slopes[name] = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(base_slope, own, strict=True)]
    return fsum(parts), slopes


def vppo(
    data: dict, *, top: float = 0.4, low: float = 0.9, dual: float = 3.0, kl_cap: float = 10.0, entropy: float = 0.06,
    mean: str = "token", **base,
) -> tuple[float, dict[str, Table]]:  # fmt: skip
    """arXiv:2510.09285: the best tokens of each response, and rollouts by where they are between least and greatest."""
    factor, score = [[0.0] * len(row) for row in data["mask"]], {}
    for i, row in enumerate(data["mask"]):
        at = [t for t, trained in enumerate(row) if trained]
        if not at:
            continue
        S = {t: k3(data["sampled"][i][t], data["masked"][i][t], 10.0)[0] for t in at}
        score[i] = fsum(S.values()) / len(at)
        for t in sorted(at, key=lambda t: (-S[t], t))[: ceil(Fraction(str(top)) * len(at))]:
            factor[i][t] = 1.0
    least, greatest = min(score.values()), max(score.values())
    alpha = dict.fromkeys(score, 1.0)
    if greatest > least:
        place = {i: (one - least) / (greatest - least) for i, one in score.items()}
        high = low + (1 - low) / (fsum(place.values()) / len(place))
        alpha = {i: low + (high - low) * one for i, one in place.items()}
    factor = [[alpha.get(i, 0.0) * kept for kept in row] for i, row in enumerate(factor)]
    return grpo({**data, "factor": factor}, dual=dual, kl_cap=kl_cap, entropy=entropy, mean=mean, **base)


def standardised(rewards: list[float], eps: float = 1e-6, ddof: int = 1) -> list[float]:
    """GRPO's advantages of one group."""
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    mean = fsum(rewards) / len(rewards)
    variance = fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - ddof)
    return [(reward - mean) / (variance**0.5 + eps) for reward in rewards]
