"""The first layer of the vision tower, computed as what it is: one product of matrices."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class PatchProjection(torch.nn.Conv3d):
    """A convolution that is given one patch at a time: its kernel covers it, so it is a product of matrices.

    The same numbers but for rounding, from the same weights under the same names; libraries compute a convolution of
    this form several times slower.
    """

    def forward(self, patch: Float[Tensor, "N C t h w"]) -> Float[Tensor, "N D 1 1 1"]:
        """Each patch's features."""
        rows = torch.nn.functional.linear(patch.flatten(1), self.weight.flatten(1), self.bias)
        return rows[:, :, None, None, None]


def project_by_product(model: Any) -> Any:
    """The same model, its patches projected by `PatchProjection` where it has a convolution for that.

    >>> from vergence.models.policy import load
    >>> type(load("seedling").model.model.visual.patch_embed.proj).__name__
    'PatchProjection'
    """
    for name, part in model.named_modules():
        covers = name.endswith("patch_embed.proj") and type(part) is torch.nn.Conv3d
        if covers and part.stride == part.kernel_size and part.padding == (0, 0, 0):
            part.__class__ = PatchProjection
    return model
