"""A run is a function that returns a complete config; the method is its one argument."""

import difflib
from collections.abc import Callable

from vergence.recipes.demo import demo
from vergence.recipes.qwen_vl import qwen_vl_3b, qwen_vl_7b
from vergence.train.config import Config
from vergence.types import UserError

RECIPES: dict[str, Callable[[str], Config]] = {"demo": demo, "qwen-vl-3b": qwen_vl_3b, "qwen-vl-7b": qwen_vl_7b}


def recipe(name: str, method: str = "papo") -> Config:
    """The config of a recipe with this method.

    >>> recipe("demo").model
    'seedling'
    >>> recipe("dem")
    Traceback (most recent call last):
    vergence.types.UserError: there is no recipe 'dem'; did you mean 'demo'? There are: demo, qwen-vl-3b, \
qwen-vl-7b

    Raises:
        UserError: there is no such recipe.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"there is no recipe {name!r}; {hint}There are: {', '.join(RECIPES)}")
    return RECIPES[name](method)
