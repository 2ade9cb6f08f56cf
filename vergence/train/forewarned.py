"""What is known to end badly, said before a run begins."""

from collections.abc import Mapping
from typing import Any

from vergence.objectives import ALIASES, METHODS, defaults
from vergence.train.config import Config
from vergence.train.interventions import goes_back

UNFED = ("blind", "entropy-only", "reversed")
"""Controls that maximise no perception term."""


def forewarned(config: Config) -> list[str]:
    """What is known to end badly of the settings of a run, before it begins. Each warning says where it is known from.

    >>> forewarned(Config(method="papo", options={"gamma": "0.2"}))[0].split(":")[0]
    'gamma=0.2 is known to be hacked on the seedling'
    >>> forewarned(Config(method="papo", options={"gamma": "0.02"}))
    []
    """
    plain, _, control = config.method.partition("+")
    name = ALIASES.get(plain, plain)
    if name not in METHODS:
        return []
    options, small = {**defaults(name), **config.options}, config.model == "seedling"
    warnings = _of_acting(config)
    if name.startswith("papo") and control not in UNFED:
        warnings += _of_papo(options, small=small)
    if name in ("dapo", "vppo-dapo", "vppo-grpo") and not small and not _number(options.get("entropy")):
        warnings.append(
            "without an entropy term DAPO of 7B ends in an explosion of entropy (arXiv:2507.06448 appendix H: at about "
            "step 140; arXiv:2510.09285 appendix E): set entropy=0.03 to 0.06, and watch `entropy`"
        )
    return warnings


def _of_papo(options: Mapping[str, Any], *, small: bool) -> list[str]:
    """arXiv:2507.06448 section 5.2, Tables 3 to 5 and 8: gamma = 0.04 ended PAPO of 3B (overall accuracy 34.4, at 0.02
    49.9), and no entropy term saved it; 0.02 ended 7B without one, and without a reference KL even with one; there
    0.01 needs one. A mask of everything is hacked sooner. The seedling bears more: two of its three runs with
    gamma = 0.2 went bad within 80 steps, none of three with 0.1.
    """
    gamma, eta, fraction, beta, entropy = (
        _number(options.get(name)) for name in ("gamma", "eta", "fraction", "beta", "entropy")
    )
    advice = "watch the KL to the masked view and the upper clip (docs/watching.md), or take a smaller one"
    warnings = []
    if gamma >= (0.2 if small else 0.04):
        warnings.append(
            f"gamma={gamma:g} is known to be hacked on {'the seedling' if small else '3B and up'}: {advice}"
        )
    elif not small and gamma >= 0.02 and not beta:
        warnings.append(
            f"gamma={gamma:g} without a reference KL is known to be hacked even with an entropy term: take gamma=0.01 "
            f"with eta=0.03, or beta=0.01"
        )
    elif not small and gamma >= 0.02 and not eta + entropy:
        warnings.append(f"gamma={gamma:g} without an entropy term is known to be hacked at 7B: set eta=0.03 or more")
    elif not small and gamma > 0 and not beta and not eta + entropy:
        warnings.append(
            f"gamma={gamma:g} with neither a reference KL nor an entropy term: the perception term is maximised and "
            f"nothing holds it. The papers' runs without a reference KL have eta=0.03"
        )
    if fraction >= 1.0 and gamma:
        warnings.append("fraction=1 erases the whole image, which is hacked sooner: the papers take 0.6")
    return warnings


def _of_acting(config: Config) -> list[str]:
    if goes_back(config) and not config.save_every:
        return ["a guard may send this run back, and save_every=0 saves nothing on the way: it would begin anew"]
    return []


def _number(text: Any) -> float:
    """An option as a number; 0 where it is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0
