"""What verl loads of this package by itself, through its entry points `verl.plugins`: nothing, unless it is asked to.

verl loads its plugins in every process that imports it, and of one that fails it says nothing that one would see. So
whoever merely has both installed gets nothing from this. With VERL_USE_EXTERNAL_PLUGINS=vergence it imports
`verl_plugin`, which registers the trainer and the agent loop `vergence`, and a failure is told. See docs/verl.md.
"""

import logging
import os
from collections.abc import Mapping

ASKED = "VERL_USE_EXTERNAL_PLUGINS"
"""verl's own variable: `auto`, `none`, or the names of the plugins to load, with commas."""


def asked_for(environment: Mapping[str, str]) -> bool:
    """Whether verl was told to load the plugin `vergence`, by its name.

    >>> asked_for({}), asked_for({ASKED: "auto"}), asked_for({ASKED: "other, Vergence"})
    (False, False, True)
    """
    return "vergence" in (name.strip() for name in environment.get(ASKED, "").lower().split(","))


if asked_for(os.environ):
    try:
        import vergence.integrations.verl_plugin  # noqa: F401
    except Exception:
        logging.getLogger(__name__).exception("the plugin vergence of verl could not be loaded")
        raise
