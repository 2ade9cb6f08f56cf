"""Published models have the sizes of their configs: built without weights, they hold as many numbers as is said."""

import pytest
import torch

from vergence.models.published import PUBLISHED, config_of, published
from vergence.types import UserError


def numbers(config) -> int:
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_numbers_of_a_checkpoint(name):
    assert numbers(config_of(name)) == PUBLISHED[name].numbers


def test_the_count_can_fail():
    config = config_of("Qwen/Qwen3-VL-2B-Instruct")
    config.text_config.num_hidden_layers -= 1
    assert numbers(config) != PUBLISHED["Qwen/Qwen3-VL-2B-Instruct"].numbers


def test_a_short_name_is_enough_and_another_is_refused():
    assert published("72B") == "Qwen/Qwen2.5-VL-72B-Instruct"
    with pytest.raises(UserError, match=r"'9b' are not known here; give a folder .* qwen2.5-vl-3b"):
        published("9b")
