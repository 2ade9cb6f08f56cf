"""What a model of the Qwen-VL family keeps for a backward pass: it follows from its sizes.

With b bytes to a number and 4 to one of float32, a token keeps in each layer, where it attends with queries of width A
(H heads) to N keys of width K, T tokens at a time:

    two norms         8D + 2bD   their input in float32, and that over its length
    what they give    2bD        read by the projections
    attention         2bA + 4H   rotated queries, outcome (read by its projection), log-sum-exp
                      2bA N/T    keys and values, each repeated for all query heads that share it (not a single one)
                      bN         the mask
    head norms        (4 + b)(A + K) + 4(H + K/d), in Qwen3-VL
    gated product     4bF        gate, its activation, the other factor, their product

and once (4 + b)D for the last norm and 2bd for the rotation. A patch of a layer of the tower has no N, and keeps the
queries, keys and values that were projected beside the rotated ones: 7bD + 4H. Where the tower's norms are layer norms
and its product is not gated (all but Qwen2.5-VL) they keep 2bD + 2bD and 2bF.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vergence.models.prefix import core


class Sizes(NamedTuple):
    """Of a model: numbers to a token or patch, bytes to a number."""

    number: int
    """b: bytes to a number."""
    layers: int
    width: int
    """D."""
    heads: int
    """H, of queries."""
    key_heads: int
    head: int
    """d: numbers of one head."""
    inner: int
    """F."""
    head_norms: bool
    vocabulary: int
    tower_layers: int
    tower_width: int
    tower_heads: int
    tower_inner: int
    tower_gated: bool
    patch: int
    """Numbers of a patch as it comes."""
    mergers: int
    """How often the tower's outcome is brought to the width of the language model."""
    weights: int
    """Bytes of all weights."""
    learning: int
    """Bytes of those that are trained."""
    tower_learns: bool

    def cached(self, tokens: int) -> int:
        """Bytes of the keys and values of so many tokens."""
        return self.layers * tokens * 2 * self.number * self.key_heads * self.head

    def language(self, rows: int, tokens: int, keys: int) -> int:
        """Bytes kept of `rows` sequences of so many tokens, each attending to so many keys (itself among them)."""
        b, D, A, both = self.number, self.width, self.heads * self.head, self.heads + self.key_heads
        layer = 2 * (4 + 2 * b) * D + 8 + 2 * b * A + 4 * self.heads + 4 * b * self.inner + b * keys
        if self.head_norms:
            layer += (4 + b) * both * self.head + 4 * both
        once = (4 + b) * D + 2 * b * self.head
        attended = A if self.key_heads > 1 else self.head  # repeating a single one copies nothing
        return rows * (tokens * (self.layers * layer + once) + self.layers * keys * 2 * b * attended)

    def tower(self, patches: int) -> int:
        """Bytes kept of so many patches."""
        b, D, norm = self.number, self.tower_width, 4 + self.number if self.tower_gated else self.number
        layer = 2 * (norm + b) * D + 7 * b * D + 4 * self.tower_heads
        layer += (4 if self.tower_gated else 2) * b * self.tower_inner
        once = b * self.patch + 8 * D // self.tower_heads + self.mergers * (norm + 3 * b) * D
        return patches * (self.tower_layers * layer + once)


def sizes(model: Any) -> Sizes:
    """The sizes of a model of the Qwen-VL family."""
    text, tower = model.config.get_text_config(), core(model).visual
    gated, patch = hasattr(tower.blocks[0].mlp, "gate_proj"), tower.patch_embed.proj.weight
    inner = next(part.out_features for part in tower.blocks[0].mlp.modules() if hasattr(part, "out_features"))
    weights = list(model.parameters())
    return Sizes(
        number=patch.element_size(),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        key_heads=text.num_key_value_heads,
        head=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        inner=text.intermediate_size,
        head_norms=hasattr(core(model).language_model.layers[0].self_attn, "q_norm"),
        vocabulary=text.vocab_size,
        tower_layers=len(tower.blocks),
        tower_width=len(patch),
        tower_heads=model.config.vision_config.num_heads,
        tower_inner=inner,
        tower_gated=gated,
        patch=patch[0].numel(),
        mergers=1 + len(getattr(model.config.vision_config, "deepstack_visual_indexes", None) or ()),
        weights=sum(weight.nbytes for weight in weights),
        learning=sum(weight.nbytes for weight in weights if weight.requires_grad),
        tower_learns=any(weight.requires_grad for weight in tower.parameters()),
    )
