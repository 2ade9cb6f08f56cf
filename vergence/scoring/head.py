"""The fused head: what K views say about the same N tokens, from hidden states, a tile of the vocabulary at a time.

With z = (h W^T) / temperature, m = max z and x = z - m, one sweep keeps per view s = sum e^x and a = sum e^x x and, per
ordered pair, g = sum e^x_p (x_p - x_q), all corrected when a maximum moves (online softmax, arXiv 1805.02867). Then

    log p_y = x_y - log s        H(p) = log s - a / s        KL(p||q) = g / s_p - log s_p + log s_q

A JS needs m and s first, hence a second sweep. The backward pass computes each tile again; there the gradient in the
logits of view k is, with upstream gradients c and r = (p_k + p_q) / 2, a sum of

    c (1_y - p_k)                               of log p_k(y)
    -c p_k (log p_k + H(p_k))                   of H(p_k)
    c p_k (log p_k - log p_q - KL(k||q))        of KL(k||q), and  c (p_k - p_q)  of KL(q||k)
    c p_k (log p_k - log r - KL(p_k||r)) / 2    of JS(k, q)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Pair = tuple[int, int]
TILE = {"cpu": (512, 1024), "cuda": (4096, 8192)}  # rows (over all views) and columns: 2 MiB and 128 MiB in float32
KEPT = 16
"""A vocabulary of at most so many hidden states' width: its logits are no more than what a layer keeps of a token."""
MOST = 2**24
"""Logits that are kept at all, over views and tokens: 64 MiB."""


class FusedOut(NamedTuple):
    """What the views say about each token, nats. float64 if an input is, else float32."""

    logp_KN: Float[Tensor, "K N"]
    """Log-probability of the sampled token."""
    entropy: dict[int, Float[Tensor, " N"]]
    """view -> entropy of its distribution."""
    kl: dict[Pair, Float[Tensor, " N"]]
    """(p, q) -> KL(p || q)."""
    js: dict[Pair, Float[Tensor, " N"]]
    """(p, q) -> Jensen-Shannon divergence, at most log 2."""


class _Plan(NamedTuple):
    outputs: tuple[tuple[str, tuple[int, ...]], ...]  # O of them: ("logp", "entropy", "kl" or "js", its views)
    grad: tuple[bool, ...]
    temperature: float
    rows: int  # of one view
    columns: int
    dtype: torch.dtype
    kept: bool
    """Whether logits are kept for the backward pass instead of computed again: all of them are one tile then."""

    def sweep(self, hidden_KND: Tensor, weight_VD: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """The logits of every view, a tile (n rows, v columns) at a time: which rows, which columns, z_Knv."""
        for columns in _cut(len(weight_VD), self.columns):
            for rows in _cut(hidden_KND.shape[1], self.rows):
                yield rows, columns, self.logits(hidden_KND[:, rows], weight_VD[columns])

    def logits(self, state_KnD: Tensor, weight_vD: Tensor) -> Tensor:
        z_Knv = self.product(state_KnD.flatten(0, 1), weight_vD.T).unflatten(0, state_KnD.shape[:2])
        return z_Knv if self.temperature == 1 else z_Knv.div_(self.temperature)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """left @ right, summed in `dtype`, autocast or not."""
        with torch.autocast(left.device.type, enabled=False):
            if right.is_cuda and self.dtype == torch.float32 and right.dtype != self.dtype:
                return torch.mm(left.to(right.dtype), right, out_dtype=self.dtype)
            return left.to(self.dtype) @ right.to(self.dtype)

    def work(self, up_ON: Tensor) -> Iterator[tuple[Tensor, list[int], list[int], list[int]]]:
        """Blocks of rows whose same outputs have gradient: (rows, outputs, views that learn, views), learners first."""
        live_NO = (up_ON != 0).T  # never of an output of constants alone: `fused` detached it
        for live_O in live_NO.unique(dim=0) if len(live_NO) else ():
            outputs, rows_N = live_O.nonzero()[:, 0].tolist(), (live_NO == live_O).all(-1).nonzero()[:, 0]
            seen = sorted({view for o in outputs for view in self.outputs[o][1]}, key=lambda view: not self.grad[view])
            for rows in _cut(len(rows_N), self.rows) if outputs else ():
                yield rows_N[rows], outputs, [view for view in seen if self.grad[view]], seen


def fused(
    hidden_KND: Float[Tensor, "K N D"],
    weight_VD: Float[Tensor, "V D"],
    token_N: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    entropies: Sequence[int] = (),
    kls: Sequence[Pair] = (),
    js: Sequence[Pair] = (),
    grad: Sequence[bool] | None = None,
    rows: int | None = None,
    columns: int | None = None,
) -> FusedOut:
    """Log-probabilities, entropies and divergences (nats) over the whole vocabulary, which is never held at once.

    The equations are above. Every output carries gradient to `hidden_KND` and `weight_VD`, once. In the backward pass a
    token costs nothing where its upstream gradients are zero, nor does a view where those of its outputs are. Sums are
    float32 at least (a GPU rounds a product's factors to its lower precision). A KL may be rounded to just below zero.

    Args:
        hidden_KND: the last hidden state before each token, in each view.
        weight_VD: the output layer's weight; it has no bias.
        token_N: the sampled tokens, in [0, V).
        temperature: that of sampling; logits are divided by it.
        entropies: the views whose entropy is wanted.
        kls, js: the pairs (p, q) of views of which KL(p || q) is wanted, and those of which JS is.
        grad: which views carry gradient, to hidden states and weight; the others are constants. None is all.
        rows, columns: the most of a tile; rows are counted over all views, but one token's views are never split. If
            neither is given, the logits of a small vocabulary (`KEPT`) are one tile, and kept for the backward pass.

    Raises:
        ValueError: shapes that do not match, a token or a view that is not there, a temperature or tile not positive.

    Two views of one token; the logits are the hidden states, so p = (1/2, 1/2) and q = (1/4, 3/4):

    >>> hidden_KND = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]]).log()
    >>> out = fused(hidden_KND, torch.eye(2), torch.tensor([1]), entropies=(0,), kls=((0, 1),), js=((0, 1),))
    >>> [round(float(x), 4) for x in (*out.logp_KN.exp(), out.entropy[0], out.kl[0, 1], out.js[0, 1])]
    [0.5, 0.75, 0.6931, 0.1438, 0.0338]
    """
    K, most = len(hidden_KND), TILE.get(hidden_KND.device.type, TILE["cuda"])
    untiled = rows is None and columns is None
    rows, columns = most[0] if rows is None else rows, most[1] if columns is None else columns
    outputs = [("logp", (view,)) for view in range(K)] + [("entropy", (view,)) for view in dict.fromkeys(entropies)]
    outputs += [(kind, tuple(pair)) for kind, pairs in (("kl", kls), ("js", js)) for pair in dict.fromkeys(pairs)]
    grad = (True,) * K if grad is None else tuple(grad)
    dtype = torch.promote_types(torch.promote_types(hidden_KND.dtype, weight_VD.dtype), torch.float32)
    small = len(weight_VD) <= KEPT * weight_VD.shape[-1] and K * len(token_N) * len(weight_VD) <= MOST
    kept, rows_each = untiled and small and any(grad) and torch.is_grad_enabled(), max(1, rows // max(1, K))
    if kept:
        rows_each, columns = max(1, hidden_KND.shape[1]), len(weight_VD)
    plan = _Plan(tuple(outputs), grad, temperature, rows_each, columns, dtype, kept)
    _check(hidden_KND, weight_VD, token_N, plan, rows)
    of: dict[str, dict] = {kind: {} for kind in ("logp", "entropy", "kl", "js")}
    for (kind, views), value_N in zip(outputs, _Fused.apply(hidden_KND, weight_VD, token_N, plan), strict=True):
        of[kind][views] = value_N if any(grad[view] for view in views) else value_N.detach()
    logp_KN = torch.stack([*of["logp"].values()])
    return FusedOut(logp_KN, {view: value_N for (view,), value_N in of["entropy"].items()}, of["kl"], of["js"])


def _check(hidden_KND: Tensor, weight_VD: Tensor, token_N: Tensor, plan: _Plan, rows: int) -> None:
    hidden, weight, token = tuple(hidden_KND.shape), tuple(weight_VD.shape), tuple(token_N.shape)
    fits = (len(hidden), len(weight)) == (3, 2) and hidden[1:] == (*token, weight[1]) and hidden[0] * weight[0] > 0
    if not fits or len(plan.grad) != hidden[0]:
        raise ValueError(f"hidden {hidden}, weight {weight}, token {token} and grad {plan.grad} do not match")
    for kind, views in plan.outputs:
        if len(views) != 1 + (kind in ("kl", "js")) or not all(0 <= view < hidden[0] for view in views):
            raise ValueError(f"{kind} of {views}, but the views are 0 to {hidden[0] - 1}")
    if not plan.temperature > 0 or rows < 1 or plan.columns < 1:
        raise ValueError(f"temperature and tile must be positive: {plan.temperature}, {rows} x {plan.columns}")
    if len(token_N) and not 0 <= int(token_N.min()) <= int(token_N.max()) < weight[0]:
        raise ValueError(f"tokens must lie in [0, {weight[0]}), got {int(token_N.min())} to {int(token_N.max())}")


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_KND: Tensor, weight_VD: Tensor, token_N: Tensor, plan: _Plan) -> Tensor:
        lse_KN, value_ON, tile = _statistics(hidden_KND, weight_VD, token_N, plan)
        sides_ON2 = value_ON.new_zeros(*value_ON.shape, 2)  # of a JS, KL(p || r) and KL(q || r)
        pairs = [(o, views) for o, (kind, views) in enumerate(plan.outputs) if kind == "js"]
        for rows, _, z_Knv in plan.sweep(hidden_KND, weight_VD) if pairs else ():
            logp_Knv = z_Knv.sub_(lse_KN[:, rows, None])
            for o, (p, q) in pairs:
                middle_nv = torch.logaddexp(logp_Knv[p], logp_Knv[q]).sub_(math.log(2))
                for side, view in enumerate((p, q)):
                    sides_ON2[o, rows, side] += (logp_Knv[view] - middle_nv).mul_(logp_Knv[view].exp()).sum(-1)
        value_ON += sides_ON2.mean(-1)
        ctx.plan = plan
        ctx.save_for_backward(hidden_KND, weight_VD, token_N, lse_KN, value_ON, sides_ON2, tile)
        return value_ON

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, up_ON: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_KND, weight_VD, token_N, lse_KN, *per_output, tile = ctx.saved_tensors
        plan, work, to_weight = ctx.plan, list(ctx.plan.work(up_ON)), ctx.needs_input_grad[1]
        d_hidden_KND = torch.zeros_like(hidden_KND, dtype=plan.dtype)
        d_weight_VD = torch.zeros_like(weight_VD) if to_weight else None
        for columns in _cut(len(weight_VD), plan.columns):  # outside, so that a weight's gradient is rounded once
            weight_vD = weight_VD[columns]
            d_weight_vD = torch.zeros_like(weight_vD, dtype=plan.dtype)
            for rows_n, outputs, learners, seen in work:
                state_KnD = torch.stack([hidden_KND[view, rows_n] for view in seen])
                if tile is None:
                    logits = zip(seen, plan.logits(state_KnD, weight_vD), strict=True)
                    logp = {view: z_nv.sub_(lse_KN[view, rows_n, None]) for view, z_nv in logits}
                else:
                    logp = {view: tile[view, rows_n] for view in seen}
                parts = [(*plan.outputs[o], *(x[o, rows_n, None] for x in (up_ON, *per_output))) for o in outputs]
                dz_nv = _dlogits(logp, learners, parts, *_place(token_N[rows_n], columns)).div_(plan.temperature)
                for view, part_nD in zip(learners, plan.product(dz_nv, weight_vD).chunk(len(learners)), strict=True):
                    d_hidden_KND[view].index_add_(0, rows_n, part_nD)
                if to_weight:
                    d_weight_vD += plan.product(dz_nv.T, state_KnD[: len(learners)].flatten(0, 1))
            if to_weight:
                d_weight_VD[columns] = d_weight_vD
        return d_hidden_KND.to(hidden_KND.dtype), d_weight_VD, None, None


def _statistics(
    hidden_KND: Tensor, weight_VD: Tensor, token_N: Tensor, plan: _Plan
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One sweep: log sum e^z of every view and row, every output but a JS, which is 0, and log p if it is kept."""
    sum_KN, sampled_KN = hidden_KND.new_zeros(2, *hidden_KND.shape[:2], dtype=plan.dtype)
    # A finite start, so that the first correction is 0 * e^(-large) and not of infinity less infinity.
    max_KN = torch.full_like(sum_KN, torch.finfo(plan.dtype).min / 2)
    value_ON = hidden_KND.new_zeros(len(plan.outputs), len(token_N), dtype=plan.dtype)  # until the end, a or g
    for rows, columns, z_Knv in plan.sweep(hidden_KND, weight_VD):
        inside_n, place_n = _place(token_N[rows], columns)
        sampled_Kn = z_Knv.gather(-1, place_n.expand(len(z_Knv), -1)[..., None])[..., 0]
        sampled_KN[:, rows] = sampled_Kn.where(inside_n, sampled_KN[:, rows])
        max_Kn = torch.maximum(max_KN[:, rows], z_Knv.amax(-1))
        moved_Kn, x_Knv = max_KN[:, rows] - max_Kn, z_Knv.sub_(max_Kn[..., None])
        shrink_Kn, mass_Knv = moved_Kn.exp(), x_Knv.exp()
        for value_N, (kind, (p, *q)) in zip(value_ON, plan.outputs, strict=True):
            if kind in ("entropy", "kl"):
                x_nv, moved_n = (t[p] - t[q[0]] if q else t[p] for t in (x_Knv, moved_Kn))
                kept_n = (value_N[rows] + sum_KN[p, rows] * moved_n) * shrink_Kn[p]
                value_N[rows] = kept_n + (x_nv * mass_Knv[p]).sum(-1)
        sum_KN[:, rows] = sum_KN[:, rows] * shrink_Kn + mass_Knv.sum(-1)
        max_KN[:, rows] = max_Kn
    log_KN = sum_KN.log()
    for value_N, (kind, (p, *q)) in zip(value_ON, plan.outputs, strict=True):
        if kind == "logp":
            value_N.copy_(sampled_KN[p] - max_KN[p] - log_KN[p])
        elif kind != "js":
            mean_N = value_N / sum_KN[p] - log_KN[p]
            value_N.copy_(mean_N + log_KN[q[0]] if q else -mean_N)
    return max_KN + log_KN, value_ON, x_Knv.sub_(log_KN[..., None]) if plan.kept and len(token_N) else None


def _dlogits(logp: dict[int, Tensor], learners: list[int], parts: list, inside_n: Tensor, place_n: Tensor) -> Tensor:
    """Gradient in the logits of the views that learn, one below the other."""
    prob = {view: logp_nv.exp() for view, logp_nv in logp.items()}
    dz = {view: torch.zeros_like(logp[view]) for view in learners}
    for kind, (p, *q), up_n1, value_n1, sides_n12 in parts:
        if kind == "logp":
            dz[p].addcmul_(prob[p], up_n1, value=-1).scatter_add_(1, place_n[:, None], up_n1 * inside_n[:, None])
            continue
        if kind == "entropy":
            pulls = [(p, 0.0, -value_n1, -up_n1)]
        elif kind == "kl":
            pulls = [(p, logp[q[0]], value_n1, up_n1)]
            if q[0] in dz:
                dz[q[0]] += (prob[q[0]] - prob[p]).mul_(up_n1)
        else:
            middle_nv = torch.logaddexp(logp[p], logp[q[0]]).sub_(math.log(2))
            pulls = [(view, middle_nv, sides_n12[..., side], up_n1 / 2) for side, view in enumerate((p, *q))]
        for view, other_nv, centre_n1, up_n1 in pulls:
            if view in dz:
                dz[view] += (logp[view] - other_nv).sub_(centre_n1).mul_(prob[view]).mul_(up_n1)
    return torch.cat(list(dz.values()))


def _cut(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _place(token_n: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Whether each token lies in these columns, and in which of them."""
    near_n = token_n.clamp(columns.start, columns.stop - 1)
    return near_n == token_n, near_n - columns.start
