"""The science: what each method minimises, as a dictionary of per-token terms. See docs/papers.md for the equations."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import signature
from math import isfinite
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vergence.objectives import papo
from vergence.objectives.grpo import grpo
from vergence.objectives.papo_full import full
from vergence.types import Method, UserError

METHODS: dict[str, Callable[..., Method]] = {
    "grpo": grpo,
    "papo-grpo@release": papo.release,
    "papo-grpo@paper": papo.paper,
    "papo-grpo@full": full,
}

ALIASES = {
    "papo": "papo-grpo@release",
    "papo-grpo": "papo-grpo@release",
    "papo@release": "papo-grpo@release",
    "papo@paper": "papo-grpo@paper",
    "papo@full": "papo-grpo@full",
}


def method(name: str, **options: Any) -> Method:
    """The method of that name with these options; options may be text, as from YAML or the command line.

    Raises:
        UserError: there is no such method or option, or the option cannot have that value.

    >>> method("papo", gamma="1e-2").about.variant
    'release'
    >>> method("pape")
    Traceback (most recent call last):
    vergence.types.UserError: there is no method 'pape'; did you mean 'papo'? There are: grpo, papo, papo-grpo, \
papo-grpo@full, papo-grpo@paper, papo-grpo@release, papo@full, papo@paper, papo@release
    """
    full_name = ALIASES.get(name, name)
    if full_name not in METHODS:
        raise UserError(f"there is no method {name!r}; {_nearest(name, {**METHODS, **ALIASES})}")
    function = METHODS[full_name]
    parameters, hints = signature(function).parameters, get_type_hints(function)
    for option in options:
        if option not in parameters:
            raise UserError(f"method {name!r} has no option {option!r}; {_nearest(option, parameters)}")
    return function(**{option: _converted(name, option, hints[option], given) for option, given in options.items()})


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"There are: {', '.join(sorted(known))}"


def _converted(name: str, option: str, hint: Any, given: Any) -> Any:
    """`given` as the option's type: float, int or one of a Literal's choices."""
    where = f"option {option!r} of method {name!r}"
    if get_origin(hint) is Literal:
        if given not in get_args(hint):
            raise UserError(f"{where} must be one of {', '.join(get_args(hint))}, got {given!r}")
        return given
    try:
        value = hint(given)
    except (TypeError, ValueError, OverflowError):
        value = None
    changed = not isinstance(given, str) and value != given
    if value is None or isinstance(given, bool) or changed or not isfinite(value):
        kind = {float: "a finite number", int: "a whole number"}[hint]
        raise UserError(f"{where} must be {kind}, got {given!r}")
    return value
