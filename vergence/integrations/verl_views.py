"""The pixels of each stored view: made where verl answers, put in the image's place where it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from vergence import chance, views
from vergence.integrations.verl_methods import stored_views
from vergence.types import Method, UserError

VIEWS = "vergence_views"
"""The field of verl's rollouts with the pixels of each view."""


def shown(
    made: Method, images: Sequence[Any], read: Callable[[list[Any]], Mapping[str, Tensor]], *key: int | str
) -> dict[str, dict[str, Tensor]]:
    """What the image processor makes of the images as each stored view shows them: view -> name -> tensor.

    Args:
        images: of one question, in order, as verl has made them ready.
        read: verl's image processor: images -> tensors by name.
        key: of the views' randomness, without the sibling: all rollouts of a question see the same.
    """
    found = {}
    for name, view in stored_views(made).items():
        seed = chance.key("verl", name, *key)
        drawn = [views.show(view.show, image.convert("RGB"), seed, index) for index, image in enumerate(images)]
        found[name] = dict(read(drawn))
    return found


def instead(clean: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any] | None], view: str) -> list[dict]:
    """verl's `multi_modal_inputs` of some rollouts with the pixels of a view; those without images stay without.

    verl fills a batch up with rows that have no image, but a copy of another row's fields.

    Raises:
        UserError: a rollout with images has no such view, or the view has another size.
    """
    found = []
    for inputs, of_view in zip(clean, seen, strict=True):
        if "pixel_values" not in inputs:
            found.append(dict(inputs))
            continue
        if not of_view or view not in of_view:
            raise UserError(
                f"a rollout has no view {view!r}: actor_rollout_ref.rollout.agent.default_agent_loop must be vergence"
            )
        swapped = {**inputs, **of_view[view]}
        if any(swapped[name].shape != inputs[name].shape for name in of_view[view] if name in inputs):
            raise UserError(f"the view {view!r} of an image has another size than the image")
        found.append(swapped)
    return found
