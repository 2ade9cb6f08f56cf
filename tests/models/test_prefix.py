"""A shared prompt is the same sum in another order: logits and every parameter's gradient, for both families."""

import copy

import pytest
import torch
from torch import Tensor

from vergence.models import prefix
from vergence.models.policy import Policy, load
from vergence.models.prefix import SharedPrefix, refusal
from vergence.rollout.render import render, render_text
from vergence.scenes import embedded
from vergence.types import Erase, Original, Prompt, UserError


def qwen25(reader) -> Policy:
    """A tiny Qwen2.5-VL of random weights that reads with the seedling's reader."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {"image_token_id": reader.image_id, "video_token_id": reader.banned[1]}
    tokens = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    ids |= {f"{name}_token_id": reader.tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}
    text = {"vocab_size": len(reader.tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3]}}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "window_size": 32}
    vision |= {"fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Policy(Qwen2_5_VLForConditionalGeneration(config).eval(), reader)


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def policy(request) -> Policy:
    seedling = load("seedling")
    made = seedling if request.param == "qwen3_vl" else qwen25(seedling.reader)
    return Policy(copy.deepcopy(made.model).double(), made.reader)


@pytest.fixture
def all_in_float64(monkeypatch):
    """The family's own code goes through float32 in its norms and rotations; here it may not."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)


def responses(B: int, T: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(B)
    length_B = torch.randint(1, T + 1, (B,), generator=generator)
    return torch.randint(20, 300, (B, T), generator=generator), torch.arange(T) < length_B[:, None]


def prompts_of(policy: Policy, kind: str) -> list[Prompt]:
    """Groups of unequal size, some cut by a gate or a micro-batch: each prompt as often as it has responses."""
    scenes = embedded.draw_many(embedded.TRAINED, "tune", 4)
    if kind == "text":
        made = [render_text(policy.reader, scene.question, scene.caption) for scene in scenes]
    elif kind == "two images":
        made = [policy.reader.prompt(one.question, [one.images[0], scenes[0].images[0]]) for one in scenes]
    elif kind == "mixed":
        made = [
            render(policy.reader, scenes[0], Original(), 0),
            render_text(policy.reader, scenes[1].question, scenes[1].caption),
            policy.reader.prompt("And now?", [scenes[2].images[0]] * 3),
            render(policy.reader, scenes[3], Erase(), 0),
        ]
    else:
        made = [render(policy.reader, scene, Original(), 0) for scene in scenes]
    return [made[row] for row in (0, 0, 0, 1, 2, 2, 3, 0)]


def outcome(policy: Policy, logits, prompts) -> tuple[Tensor, dict[str, Tensor]]:
    token_BT, mask_BT = responses(len(prompts))
    policy.model.zero_grad(set_to_none=True)
    logp_BTV = logits(prompts, token_BT, mask_BT).log_softmax(-1).where(mask_BT[..., None], 0.0)
    (logp_BTV.gather(-1, token_BT[..., None]).sum() + logp_BTV.exp().square().sum()).backward()
    grads = {name: weight.grad for name, weight in policy.model.named_parameters() if weight.grad is not None}
    return logp_BTV.detach(), grads


def assert_equal(policy: Policy, logits, prompts, tolerance: float = 1e-10) -> None:
    want, got = outcome(policy, policy.logits, prompts), outcome(policy, logits, prompts)
    torch.testing.assert_close(got[0], want[0], rtol=tolerance, atol=tolerance)
    assert got[1].keys() == want[1].keys()
    for name, grad in want[1].items():
        assert (got[1][name] - grad).norm() <= tolerance * grad.norm().clamp(min=1e-8), name


@pytest.mark.parametrize("kind", ["image", "text", "two images", "mixed"])
def test_logits_and_gradients_are_those_of_reading_every_prompt_again(policy, kind, all_in_float64):
    assert_equal(policy, SharedPrefix(policy), prompts_of(policy, kind))


def test_in_float32_too():
    seedling = load("seedling")
    assert_equal(seedling, SharedPrefix(seedling), prompts_of(seedling, "image"), tolerance=1e-4)


def test_without_gradient_and_after_sampling(policy, all_in_float64):
    """A model remembers positions of what it generated last: they must not be used here."""
    prompts = prompts_of(policy, "image")
    with torch.no_grad():
        policy.model.generate(**policy.inputs(prompts[:2]), max_new_tokens=3, do_sample=False)
    assert_equal(policy, SharedPrefix(policy), prompts)


@pytest.mark.parametrize("wrong", ["every response has the first prompt", "positions start anew"])
def test_what_would_be_wrong_is_caught(policy, monkeypatch, wrong, all_in_float64):
    after = SharedPrefix._after

    def faulty(self, inputs, position, row_B, cache, token_BT, mask_BT):
        if wrong == "positions start anew":
            return after(self, inputs, position - position.amax(), row_B, cache, token_BT, mask_BT)
        return after(self, inputs, position, torch.zeros_like(row_B), cache, token_BT, mask_BT)

    monkeypatch.setattr(prefix.SharedPrefix, "_after", faulty)
    with pytest.raises(AssertionError):
        assert_equal(policy, SharedPrefix(policy), prompts_of(policy, "image"))


def test_the_tower_sees_each_image_once_and_the_language_model_each_prompt_once(policy, monkeypatch):
    seen = {"patches": 0, "tokens": 0}
    language, tower = policy.model.model.language_model, policy.model.model.visual
    hooks = [
        tower.register_forward_pre_hook(lambda _, args: seen.__setitem__("patches", seen["patches"] + len(args[0]))),
        language.register_forward_pre_hook(
            lambda _, args, kwargs: seen.__setitem__(
                "tokens", seen["tokens"] + kwargs["inputs_embeds"].shape[0] * kwargs["inputs_embeds"].shape[1]
            ),
            with_kwargs=True,
        ),
    ]
    prompts = prompts_of(policy, "image")
    token_BT, mask_BT = responses(len(prompts))
    try:
        SharedPrefix(policy)(prompts, token_BT, mask_BT)
    finally:
        for hook in hooks:
            hook.remove()
    distinct = list({id(prompt): prompt for prompt in prompts}.values())
    longest = max(len(prompt.tokens) for prompt in distinct)
    assert seen["patches"] == sum(len(prompt.pixels) for prompt in distinct)
    assert seen["tokens"] == len(distinct) * (longest - 1) + token_BT.numel()


def test_what_cannot_be_shared_exactly_is_refused(policy):
    for change, told in (
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "sliding_attention layers"),
        ({"attention_dropout": 0.1}, "drops attention at random"),
    ):
        model = copy.deepcopy(policy.model)
        for name, value in change.items():
            setattr(model.config.get_text_config(), name, value)
        with pytest.raises(UserError, match=f"{told}.*take --scorer naive"):
            SharedPrefix(Policy(model, policy.reader))
    assert refusal(policy.model) is None
