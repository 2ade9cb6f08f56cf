"""Patches projected by one product of matrices: the convolution's numbers and gradients, from the same weights."""

import copy

import torch

from vergence.models.patches import PatchProjection, project_by_product
from vergence.models.policy import load


def test_it_is_the_convolution():
    convolution = torch.nn.Conv3d(3, 5, (2, 4, 4), (2, 4, 4)).double()
    product = copy.deepcopy(convolution)
    product.__class__ = PatchProjection
    patch = torch.randn(7, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    for one in (convolution, product):
        one(patch).square().sum().backward()
    torch.testing.assert_close(product(patch), convolution(patch), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product.weight.grad, convolution.weight.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product.bias.grad, convolution.bias.grad, rtol=1e-12, atol=1e-12)


def test_weights_keep_their_names_and_other_convolutions_are_left_alone():
    model = load("seedling").model
    assert "model.visual.patch_embed.proj.weight" in model.state_dict()
    moving = torch.nn.ModuleDict({"patch_embed": torch.nn.ModuleDict({"proj": torch.nn.Conv3d(3, 5, 4, 2)})})
    assert type(project_by_product(moving)["patch_embed"]["proj"]) is torch.nn.Conv3d
