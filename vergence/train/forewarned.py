"""What is known to end badly, said before a run begins."""

from typing import Any

from vergence.train.config import Config


def forewarned(config: Config) -> list[str]:
    """What is known to end badly of the settings of a run, before it begins; from the options that were given.

    arXiv:2507.06448 section 5.2, Tables 3 to 5: gamma = 0.04 ended PAPO of 3B (overall accuracy 34.4, at 0.02 49.9),
    and no entropy term saved it; 0.02 ended 7B without one; a mask of everything is hacked sooner. The seedling bears
    more: two of its three runs with gamma = 0.2 went bad within 80 steps, none of three with 0.1.

    >>> forewarned(Config(method="papo", options={"gamma": "0.2"}))[0].split(":")[0]
    'gamma=0.2 is known to be hacked on the seedling'
    >>> forewarned(Config(method="papo", options={"gamma": "0.02"}))
    []
    """
    if not config.method.startswith("papo"):
        return []
    gamma, eta, fraction = (_number(config.options.get(name)) for name in ("gamma", "eta", "fraction"))
    small = config.model == "seedling"
    advice = "watch the KL to the masked view and the upper clip (docs/watching.md), or take a smaller one"
    warnings = []
    if gamma >= (0.2 if small else 0.04):
        warnings.append(
            f"gamma={gamma:g} is known to be hacked on {'the seedling' if small else '3B and up'}: {advice}"
        )
    elif not small and gamma >= 0.02 and not eta:
        warnings.append(f"gamma={gamma:g} without an entropy term is known to be hacked at 7B: set eta=0.03 or more")
    if fraction >= 1.0:
        warnings.append("fraction=1 erases the whole image, which is hacked sooner: the papers take 0.6")
    return warnings


def _number(text: Any) -> float:
    """An option as a number; 0 where it is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0
