"""Our reconstruction of CapPO, and RACRO's loss, in plain Python: one rollout at a time, derivatives by hand."""

from math import exp, fsum

from oracles import plain
from oracles.plain import Table
from oracles.plain_cppo import softplus


def divergence(lp: float, caption: float, estimator: str) -> tuple[float, float, float]:
    """Of one sampled token, with its derivatives; k3 held to 10 nats."""
    return plain.ESTIMATORS[estimator](lp, caption, 10.0)


def weight_of(K: list[float], scene: list[int], i: int, weight: str, spread: float) -> float:
    """w_i."""
    siblings = [K[j] for j in range(len(K)) if scene[j] == scene[i]]
    if weight == "none":
        return 1.0
    if weight == "exp":
        return exp(-K[i] / spread)
    if weight == "inverse":
        return 1 / (1 + K[i])
    if weight == "softmax":
        return len(siblings) * exp(-K[i] / spread) / fsum(exp(-one / spread) for one in siblings)
    mean = fsum(siblings) / len(siblings)
    variance = fsum((one - mean) ** 2 for one in siblings) / max(len(siblings) - 1, 1)
    _, sigmoid = softplus(-(K[i] - mean) / (variance**0.5 + 1e-6))
    return 2 * sigmoid


def reshaped(
    data: dict, estimator: str, weight: str, negatives: str, spread: float, recentre: str
) -> list[float]:  # fmt: skip
    """A' of each rollout."""
    K, A, scene = [], data["A"], data["scene"]
    for i, row in enumerate(data["mask"]):
        tokens = [t for t, trained in enumerate(row) if trained]
        if estimator == "full":
            terms = [data["then"]["kl_caption"][i][t] for t in tokens]
        else:
            terms = [divergence(data["sampled"][i][t], data["then"]["caption"][i][t], estimator)[0] for t in tokens]
        K.append(max(0.0, fsum(terms) / len(terms)) if terms else 0.0)
    new = []
    for i, advantage in enumerate(A):
        w = weight_of(K, scene, i, weight, spread)
        if advantage < 0 and negatives == "untouched":
            w = 1.0
        if advantage < 0 and negatives == "mirrored":
            w = min(max(2 - w, 0.0), 2.0)
        new.append(w * advantage)
    if recentre == "no":
        return new
    centred = []
    for i in range(len(new)):
        siblings = [new[j] for j in range(len(new)) if scene[j] == scene[i]]
        centred.append(new[i] - fsum(siblings) / len(siblings))
    return centred


def cappo(
    data: dict, *, coefficient: float = 0.05, weight: str = "exp", negatives: str = "same", spread: float = 0.5,
    recentre: str = "no", estimator: str = "k3", gradient: str = "image", mean: str = "sequence", **base,
) -> tuple[float, dict[str, Table]]:  # fmt: skip
    """Base with A', + coefficient mean(D(image, caption))."""
    new = data["A"] if weight == "none" else reshaped(data, estimator, weight, negatives, spread, recentre)
    loss, slopes = plain.grpo({**data, "A": new}, mean=mean, **base)
    parts, share = [loss], plain.shares(data["mask"], mean)
    names = ("kl_caption",) if estimator == "full" else ("caption",)
    slopes |= {name: [[0.0] * len(row) for row in data["mask"]] for name in names}
    for i, row in enumerate(data["mask"]):
        for t, trained in enumerate(row):
            if not trained or coefficient == 0:
                continue
            by = coefficient * share[i][t]
            if estimator == "full":
                parts.append(by * data["kl_caption"][i][t])
                slopes["kl_caption"][i][t] = by
                continue
            caption = data["caption"] if gradient == "both" else data["then"]["caption"]
            value, by_l, by_caption = divergence(data["image"][i][t], caption[i][t], estimator)
            parts.append(by * value)
            slopes["image"][i][t] += by * by_l
            if gradient == "both":
                slopes["caption"][i][t] = by * by_caption
    return fsum(parts), slopes


def cappo_dapo(data: dict, **options):
    """On DAPO: a mean over tokens, a higher clip, no reference KL."""
    return cappo(data, **{"mean": "token", "clip_high": 0.28, "beta": 0.0, **options})


def racro(data: dict, *, samples: int = 1, leak: float = 0.0, **options):
    """GRPO with the settings of RACRO's code: what is its own is in the reward."""
    return plain.grpo(data, **{"mean": "token", "dual": 3.0, "beta": 0.001, "kl_cap": 10.0, **options})


def racro_dapo(data: dict, *, samples: int = 1, leak: float = 0.0, **options):
    """The same on DAPO."""
    return plain.grpo(data, **{"mean": "token", "dual": 3.0, "clip_high": 0.28, "beta": 0.0, "kl_cap": 10.0, **options})
