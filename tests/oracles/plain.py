"""GRPO and PAPO in plain Python: from the definitions, one token at a time, dividing exactly, derivatives by hand.

A table is a list of rows of floats. Nothing is shared with the library but the names of the options. Each function of a
token returns its value and the derivative in each of its log-probabilities.
"""

from math import exp, fsum, inf

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


def shares(mask: list[list[bool]], mean: str) -> Table:
    """What fraction of the mean each token is."""
    if mean == "token":
        tokens = sum(sum(row) for row in mask)
        return [[1 / tokens if m else 0.0 for m in row] for row in mask]
    rows = sum(any(row) for row in mask)
    return [[1 / rows / sum(row) if m else 0.0 for m in row] for row in mask]


def grpo(
    data: dict, *, mean: str = "sequence", clip_low: float = 0.2, clip_high: float = 0.2, dual: float = 0.0,
    beta: float = 0.04, kl_cap: float = 0.0,
) -> tuple[float, dict[str, Table]]:  # fmt: skip
    """DeepSeekMath, arXiv:2402.03300 eq. 3 and 4."""
    share, loss = shares(data["mask"], mean), []
    slope = [[0.0] * len(row) for row in data["mask"]]
    for i, row in enumerate(data["mask"]):
        for t, trained in enumerate(row):
            if not trained:
                continue
            lp = data["image"][i][t]
            value, by_l = surrogate(lp, data["sampled"][i][t], data["A"][i], clip_low, clip_high, dual or None)
            if beta:
                kl, kl_by_l, _ = k3(lp, data["reference"][i][t], kl_cap or inf)
                value, by_l = value + beta * kl, by_l + beta * kl_by_l
            loss.append(share[i][t] * value)
            slope[i][t] = share[i][t] * by_l
    return fsum(loss), {"image": slope}


def papo_sampled(
    data: dict, *, fresh: bool, entropy_mean: str, cap: float, gamma: float = 0.02, eta: float = 0.0,
    estimator: str = "k3", **base,
) -> tuple[float, dict[str, Table]]:  # fmt: skip
    """Base - gamma KL(image || masked) - eta log p - eta log p_masked; `fresh` differentiates the masked branch too."""
    loss, slopes = grpo(data, kl_cap=cap if cap < inf else 0.0, **base)
    parts = [loss]
    share, entropy_share = shares(data["mask"], base["mean"]), shares(data["mask"], entropy_mean)
    slopes["masked"] = [[0.0] * len(row) for row in data["mask"]]
    for i, row in enumerate(data["mask"]):
        for t, trained in enumerate(row):
            if not trained:
                continue
            lp, m = data["image"][i][t], data["masked"][i][t]
            kl, by_l, by_m = ESTIMATORS[estimator](lp, m, cap)
            parts += [-gamma * share[i][t] * kl, -eta * entropy_share[i][t] * lp, -eta * entropy_share[i][t] * m]
            slopes["image"][i][t] += -gamma * share[i][t] * by_l - eta * entropy_share[i][t]
            if fresh:
                slopes["masked"][i][t] += -gamma * share[i][t] * by_m - eta * entropy_share[i][t]
    return fsum(parts), slopes


def release(data: dict, *, mean: str = "token", clip_high: float = 0.3, dual: float = 3.0, beta: float = 0.01, **own):
    """The released code: masked log-probabilities are constants, entropies always a token mean."""
    base = {"mean": mean, "clip_high": clip_high, "dual": dual, "beta": beta}
    return papo_sampled(data, fresh=False, entropy_mean="token", cap=10.0, **base, **own)


def paper(data: dict, *, mean: str = "sequence", clip_high: float = 0.3, beta: float = 0.01, **own):
    """arXiv:2507.06448 eq. 2 and 3: one sequence mean over everything, both branches differentiated, no bound."""
    base = {"mean": mean, "clip_high": clip_high, "beta": beta}
    return papo_sampled(data, fresh=True, entropy_mean=mean, cap=inf, **base, **own)


def full(
    data: dict, *, gamma: float = 0.02, eta: float = 0.0, mean: str = "token", **base
) -> tuple[float, dict[str, Table]]:
    """The divergence and the entropies are given, so their derivatives are the coefficients."""
    options = {"clip_high": 0.3, "dual": 3.0, "beta": 0.01, "kl_cap": 10.0, **base}
    loss, slopes = grpo(data, mean=mean, **options)
    parts, share, entropy_share = [loss], shares(data["mask"], mean), shares(data["mask"], "token")
    for name, coefficient, by in (("kl", -gamma, share), ("H", eta, entropy_share), ("H_masked", eta, entropy_share)):
        slopes[name] = [[coefficient * by[i][t] for t in range(len(row))] for i, row in enumerate(data["mask"])]
        if coefficient:
            parts += [s * v for i, row in enumerate(slopes[name]) for s, v in zip(row, data[name][i], strict=True)]
    return fsum(parts), slopes


def standardised(rewards: list[float], eps: float = 1e-6, ddof: int = 1) -> list[float]:
    """GRPO's advantages of one group."""
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    mean = fsum(rewards) / len(rewards)
    variance = fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - ddof)
    return [(reward - mean) / (variance**0.5 + eps) for reward in rewards]
