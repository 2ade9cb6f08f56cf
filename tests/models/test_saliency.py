"""The attention that patches receive, on tiny encoders with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from vergence.chance import rng
from vergence.models.saliency import layers, load_saliency, received
from vergence.types import Salient, UserError
from vergence.views import show

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}


def cropping() -> BitImageProcessorPil:
    return BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 35})


def dino(depth: int = 4) -> Dinov2Model:
    torch.manual_seed(0)
    model = Dinov2Model(Dinov2Config(num_hidden_layers=depth, **SIZES))
    with torch.no_grad():
        for weight in model.parameters():  # as initialised, attention is nearly the same everywhere
            weight.normal_(std=0.3)
    return model


@pytest.fixture
def folder(tmp_path):
    dino().save_pretrained(tmp_path)
    cropping().save_pretrained(tmp_path)
    return tmp_path


def picture(*size: int) -> Image.Image:
    return Image.fromarray(rng("picture", *size).integers(1, 256, (size[1], size[0], 3), dtype=np.uint8))


def by_hand(image: Image.Image) -> np.ndarray:
    """From the definition, one pair of tokens at a time: 4 x 5 patches after CLS; of 4 layers the third."""
    pixels = np.asarray(image.resize((35, 28), Image.Resampling.BICUBIC)) / 255
    processor = cropping()
    pixels = (pixels - processor.image_mean) / processor.image_std
    model = dino().eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(torch.tensor(pixels).float().permute(2, 0, 1)[None], output_attentions=True)
    total = np.zeros((4, 5))
    for patch in range(20):
        for giver in range(20):
            for head in range(2):
                total[patch // 5, patch % 5] += float(out.attentions[2][0, head, 1 + giver, 1 + patch]) / 2
    return total


def is_the_definition(saliency) -> None:
    for size in ((45, 30), (28, 200)):
        found, true = saliency(picture(*size)), by_hand(picture(*size))
        assert found.shape == true.shape
        assert found == pytest.approx(true, abs=1e-5)
        assert np.ptp(true) > 0.1


def test_it_is_the_attention_received(folder):
    saliency = load_saliency(folder)
    is_the_definition(saliency)
    assert (saliency(picture(45, 30)) == saliency(picture(45, 30))).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda saliency: lambda image: saliency(image)[::-1],
        lambda saliency: lambda image: saliency(image.crop((5, 0, image.width - 5, image.height))),
        lambda saliency: lambda image: saliency(image).T,
    ],
)
def test_the_definition_fails_on_a_wrong_saliency(folder, wrong):
    with pytest.raises(AssertionError):
        is_the_definition(wrong(load_saliency(folder)))


def test_what_was_most_attended_is_erased(folder):
    image, saliency = picture(50, 40), load_saliency(str(folder))
    gone = (np.asarray(show(Salient(str(folder), 0.5), image, 0, saliency=saliency)) == 0).all(-1)
    black = gone[::10, ::10]  # 4 x 5 patches of 10 x 10 pixels
    assert (gone == np.kron(black, np.ones((10, 10), bool))).all()
    assert black.sum() == 10
    assert saliency(image)[black].min() >= saliency(image)[~black].max()


def test_only_the_layers_named_count():
    assert [list(range(1, depth + 1))[layers(depth)] for depth in (9, 12, 24, 3)] == [[6, 7, 8, 9]] * 3 + [[2, 3]]
    attention = np.zeros((2, 3, 5, 5))
    attention[:, :, :, 0] = 100  # CLS receives, which is not counted
    attention[0, 0, 1:, 2] = 6  # one layer and head of 2 x 3, from 4 patches
    attention[0, 0, 0, 3] = 100  # CLS gives
    assert received(attention, 2, 2).tolist() == [[0, 4], [0, 0]]


def test_registers_and_other_processors(tmp_path):
    registers = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_hidden_layers=2, num_register_tokens=3, **SIZES))
    vit = ViTModel(ViTConfig(num_hidden_layers=1, **SIZES))
    square = ViTImageProcessorPil(size={"height": 28, "width": 28})
    for name, model, processor in (("registers", registers, cropping()), ("vit", vit, square)):
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
        grid = load_saliency(tmp_path / name)(picture(9, 30))
        assert grid.shape == ((4, 5) if name == "registers" else (4, 4))
        assert 0 < grid.sum() <= 20


def test_what_cannot_be_loaded_says_why(tmp_path, folder):
    with pytest.raises(UserError, match=r"no vision encoder at .*nowhere; give a Vision Transformer"):
        load_saliency(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"cannot load a vision encoder from .*empty"):
        load_saliency(empty)
    convolutions = tmp_path / "convolutions"
    ConvNextModel(ConvNextConfig(num_stages=2, hidden_sizes=[4, 8], depths=[1, 1])).save_pretrained(convolutions)
    cropping().save_pretrained(convolutions)
    with pytest.raises(UserError, match="a 'convnext', gives no attention between patches"):
        load_saliency(convolutions)
    with pytest.raises(UserError, match=r"cannot load a vision encoder .*nonsense"):
        load_saliency(folder, device="nonsense")
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot load a vision encoder"):
        load_saliency(folder)
