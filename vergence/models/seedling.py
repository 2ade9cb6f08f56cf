"""The seedling: a policy of the real Qwen3-VL classes, small enough to ship and to train on two CPU cores.

Here is how it is built (tokenizer, image processor, random weights); `train.warm_start` teaches it.
"""

from collections.abc import Iterable

import torch

from vergence.models.policy import Policy, Reader

SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WORDS = r" ?[A-Za-z]+| ?\d|\\boxed|</?think>|[^\sA-Za-z\d]|\s"
"""One token for a word or a digit, with the space before it; anything else can still be spelled in bytes."""


def build_reader(corpus: Iterable[str]) -> Reader:
    """A byte-level BPE tokenizer trained on `corpus`; a PIL image processor of 8-pixel patches merged two by two."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=640, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        additional_special_tokens=[s for s in SPECIALS if s not in ("<|im_end|>", "<|endoftext|>")],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    pixels = {"shortest_edge": 16 * 16, "longest_edge": 128 * 128}
    return Reader(tokenizer, Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, temporal_patch_size=2, size=pixels))


def build(reader: Reader, *, seed: int) -> Policy:
    """Random weights: text 3 x 128 wide with heads of 32, vision 2 x 64 wide.

    rope_theta is 100: with the usual large base the height and width sections of a 32-wide head would barely turn over
    three rows. The position embedding of the vision tower starts large, or the tower takes long to tell cells apart.
    """
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = {
        f"{name}_token_id": reader.tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }
    text = {
        "vocab_size": len(reader.tokenizer),
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 100.0,
            "mrope_section": [4, 6, 6],
            "mrope_interleaved": True,
        },
        "initializer_range": 0.05,
        "pad_token_id": reader.tokenizer.pad_token_id,
        "eos_token_id": reader.eos_id,
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 128,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.05,
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):  # Hugging Face draws initial weights from the global generator
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.visual.pos_embed.weight, std=0.5)
    model.generation_config.eos_token_id = reader.eos_id
    model.generation_config.pad_token_id = reader.tokenizer.pad_token_id
    return Policy(model, reader)
