"""What is known to end badly, or to be asked for in vain, said before a run begins."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from vergence.guards.past import NOW, START, START_WATCHED
from vergence.objectives import ALIASES, METHODS, defaults, method
from vergence.objectives.controls import perceptual
from vergence.objectives.objective import reads_of
from vergence.train.config import Config
from vergence.train.gap import is_read
from vergence.train.interventions import goes_back
from vergence.train.parts import shows_captions
from vergence.train.watch import watched_views
from vergence.types import Original, UserError

UNFED = ("blind", "entropy-only", "reversed")
"""Controls that maximise no perception term."""
COMPARED = ("looks less", "view entropy explosion", "view entropy collapse")
OF_WATCHED = {**dict.fromkeys(COMPARED, START_WATCHED + 2), "view without effect": 2, "drowned reward": 2}
"""Guards of what is measured on watched rounds -> of how many at least."""
OF_ROUNDS = ("collapse", "entropy explosion", "entropy collapse", "unparsed", "length")
"""Guards that compare rounds with the first ones."""


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
    warnings = _of_acting(config) + _of_silence(config)
    if name.startswith("papo") and control not in UNFED:
        warnings += _of_papo(options, small=small, full=name.endswith("@full"))
    if name in ("dapo", "vppo-dapo", "vppo-grpo") and not small and not _number(options.get("entropy")):
        warnings.append(
            "without an entropy term DAPO of 7B ends in an explosion of entropy (arXiv:2507.06448 appendix H: at about "
            "step 140; arXiv:2510.09285 appendix E): set entropy=0.03 to 0.06, and watch `entropy`"
        )
    return warnings


def _of_papo(options: Mapping[str, Any], *, small: bool, full: bool) -> list[str]:
    """arXiv:2507.06448 section 5.2, Tables 3 to 5 and 8: gamma = 0.04 ended PAPO of 3B (overall accuracy 34.4, at 0.02
    49.9), and no entropy term saved it; 0.02 ended 7B without one, and without a reference KL even with one; there
    0.01 needs one. A mask of everything is hacked sooner. The seedling bears more: two of its three runs with
    gamma = 0.2 went bad within 80 steps, none of three with 0.1. Of `papo@full`, which maximises the KL itself, all of
    three with 0.02 went bad within 160 (`benchmarks/failures.py`).
    """
    gamma, eta, fraction, beta, entropy = (
        _number(options.get(name)) for name in ("gamma", "eta", "fraction", "beta", "entropy")
    )
    advice = "watch the KL to the masked view and the upper clip (docs/watching.md), or take a smaller one"
    warnings = []
    if gamma >= ((0.02 if full else 0.2) if small else 0.04):
        of = " with the KL itself" if full and small else ""
        warnings.append(
            f"gamma={gamma:g}{of} is known to be hacked on {'the seedling' if small else '3B and up'}: {advice}"
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


def _of_silence(config: Config) -> list[str]:
    return [
        f"the guard {guard!r} is asked for, and can never be raised in this run: {why}"
        for guard, why in unraised(config).items()
        if guard in config.guards
    ]


def unraised(config: Config) -> dict[str, str]:
    """The guards that cannot be raised in a run with this config, whatever happens, and why.

    >>> list(unraised(Config(method="grpo"))), list(unraised(Config(method="cppo", sampler="vllm")))
    (['KL hacking', 'caption leak', 'drowned reward', 'sampler gap'], ['caption leak'])
    """
    try:
        made = method(config.method, **config.options)
    except UserError:
        return {}  # it is refused elsewhere
    seen, why = made.views["image"].show == Original(), {}
    fed = "contrast" in made.objective or ("perception" in made.objective and not config.method.endswith("+reversed"))
    if not fed:
        why["KL hacking"] = f"{config.method} maximises no perception term"
    elif "perception" not in made.objective and not config.watch_every:
        why["KL hacking"] = "its signs are measured on watched rounds alone, and watch_every=0"
    if made.ask != "caption" and not any(map(shows_captions, made.views.values())):
        why["caption leak"] = f"{config.method} neither writes nor shows captions"
    if not any(read.when == "grad" for read in reads_of(perceptual(made))):
        why["drowned reward"] = f"{config.method} has no term whose gradient is of another view"
    if not is_read(config):
        why["sampler gap"] = "the policy itself samples, and no gap is measured (sampler, correction, most_gap)"
    rounds = ceil(config.steps / config.steps_per_batch)
    if rounds < START + NOW:
        told = f"it compares with the first rounds, from {START + NOW} on, and {config.steps} steps are {rounds}"
        why |= dict.fromkeys(OF_ROUNDS, told)
    watched = ceil(rounds / config.watch_every) if config.watch_every else 0
    few = [name for name, fewest in OF_WATCHED.items() if watched < fewest]
    why |= {name: f"it needs {OF_WATCHED[name]} watched rounds (watch_every), and there are {watched}" for name in few}
    if not seen and not watched_views(made):
        why |= dict.fromkeys(OF_WATCHED, f"{config.method} is shown no image")
    return why


def _number(text: Any) -> float:
    """An option as a number; 0 where it is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0
