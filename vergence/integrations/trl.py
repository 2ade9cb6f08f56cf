"""Our objectives inside TRL's trainer: data sets, reward functions, PEFT, accelerate and callbacks are TRL's.

What is called and overridden here, TRL does not promise: so a window of versions is known to work, and others are
refused (`trl_window`). TRL generates and scores; its rewards become the method's advantages, its rows are shown in
every view, and the loss is `objectives.reduce` over the whole optimizer step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vergence.integrations import trl_window as window
from vergence.integrations.trl_rewards import refuse_without_reasoner
from vergence.integrations.trl_round import (
    SAMPLED,
    Accelerated,
    Held,
    batch_of,
    credited,
    kept_rows,
    measured,
    planned,
    refreshed,
    refuse_mixed_groups,
    taken,
)
from vergence.integrations.trl_scoring import bare, looking_of, scorer_of, teach
from vergence.integrations.trl_views import conversation, prompts_of, reader_of, refuse_unlike, scene_of
from vergence.models.saliency import load_saliency
from vergence.objectives.objective import reads_of, reduce
from vergence.scoring.naive import Prompts, Scorer, reads_when
from vergence.train.step import needed, read_in
from vergence.types import Batch, Method, Read, Salient, Stats, UserError

window.refuse_other_versions()

from trl import GRPOConfig, GRPOTrainer  # noqa: E402 (a TRL of another version is refused before it is imported)

window.refuse_other_versions(trainer=GRPOTrainer)

ROWS = "vergence_rows"
"""All that TRL carries from a generation to a backward pass: which of its rollouts they are."""
STEP = "vergence_step"
"""Which optimizer step of the round."""


class VergenceGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` with a method of ours: `method="papo"`, `"cppo"`, `"cappo"`, `"vppo"`, ... or a `Method`.

    The method decides the loss, its clip, its mean, how rewards become advantages, and the views; TRL's settings of
    these are to be left alone (`trl_window.DECIDED`). Denominators are summed over the whole optimizer step and all
    processes before its first backward pass, so neither per_device_train_batch_size nor gradient_accumulation_steps
    changes the loss. A view's chance belongs to (seed, round, row): the same run shows the same pixels.

    Args:
        model, reward_funcs, args, train_dataset, given: as of `GRPOTrainer`. Data sets have TRL's columns: `prompt`,
            `image` or `images` (PIL), and what the reward functions want; views of captions want `caption`.
        method: the name of one, with a variant or a control if you like (`papo@paper`, `cppo+shuffled`), or a `Method`.
        options: of the named method, such as {"gamma": 0.01}.
        correct: the name of the reward function that says what is right, for methods that keep only groups whose
            siblings differ in that (`dapo`); it may be left out where there is but one function.

    Raises:
        UserError: there is no such method or option; or TRL, the model, the data or a setting is such that the loss
            could not be the method's.
    """

    _tag_names = ["trl", "grpo", "vergence"]  # noqa: RUF012 (as TRL has it)
    _name = "GRPO with Vergence"

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        *,
        method: str | Method = "papo",
        options: Mapping[str, Any] | None = None,
        correct: str | None = None,
        **given: Any,
    ) -> None:
        self.method = window.method_of(method, options)
        args = GRPOConfig("vergence-grpo") if args is None else args
        window.refuse_settings(args, given, self.method)
        window.refuse_without_images(self.method, getattr(train_dataset, "column_names", None))
        args.ddp_find_unused_parameters = True  # a process whose rollouts need nothing has a forward pass all the same
        # TRL makes a reference where beta is not 0, and prepares it for each way of spreading weights
        args.beta = float(any(view.policy == "reference" for view in self.method.views.values()))
        try:
            super().__init__(model, reward_funcs, args, train_dataset, **given)
        finally:
            args.beta = 0.0  # the KL is a term of the method's
        self.beta = 0.0
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        window.refuse_machines(self.accelerator.distributed_type.name, getattr(plugin, "zero_stage", 0))
        window.refuse_model(self)
        self.correct = window.correct_of(self.method, self.reward_func_names, correct)
        refuse_without_reasoner(self.method, self.reward_funcs)
        inner = bare(self.accelerator.unwrap_model(self.model))
        self.reader = reader_of(self.processing_class, inner.config.model_type)
        teach(inner)
        if self.ref_model is not None:
            self.ref_model.requires_grad_(False)
        if not self.use_vllm:
            self.generation_config.suppress_tokens = [
                *(self.generation_config.suppress_tokens or ()),
                *(token for token in self.reader.banned if token is not None),
            ]
        encoders = {view.show.encoder for view in self.method.views.values() if isinstance(view.show, Salient)}
        self.saliency = load_saliency(*encoders, str(self.accelerator.device)) if encoders else None
        self.backend = Accelerated(self.accelerator)
        self._held: dict[str, Held] = {}
        self._scored: dict[str, Any] = {}
        self._shares: list[dict[str, Tensor]] = []
        self._scorer: Scorer | None = None

    # ------------------------------------------------------------------------------------------ a round

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards_NF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        lengths = torch.tensor([float(len(ids)) for ids in completion_ids_list], device=self.accelerator.device)
        self._scored = {"reward_NF": rewards_NF, "length_N": self.backend.gather(lengths), "prompts": prompts}
        return rewards_NF

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        made = super()._generate_and_score_completions(inputs)
        if made.get("tool_mask") is not None:
            raise UserError("a completion holds tokens that the policy did not write (tool_mask): see `tools`")
        siblings = self.num_generations if mode == "train" else self.num_generations_eval
        refuse_mixed_groups(inputs, siblings)
        every = self.args.steps_per_generation * self.num_iterations
        round_ = self.state.global_step * self.args.gradient_accumulation_steps // every if mode == "train" else -1
        readers = [
            conversation(
                self.reader,
                self._scored["prompts"][row],
                made["prompt_ids"][row][made["prompt_mask"][row].bool()].tolist(),
                self.chat_template_kwargs,
            )
            for row in range(0, len(inputs), siblings)
        ]
        scenes = [scene_of(inputs[at * siblings], one.messages) for at, one in enumerate(readers)]
        prompts = prompts_of(
            readers, scenes, self.method.views,
            seed=self.args.seed, round_=round_, saliency=self.saliency, alike=bool(self._held),
        )  # fmt: skip
        refuse_unlike(made, prompts[self.method.sample_view], siblings)
        batch = self._batch(made, scenes, siblings, round_, mode)
        rows = torch.arange(len(inputs), device=self.accelerator.device)
        ratio_BT = made.get("importance_sampling_ratio")
        held = taken(self.method, batch, prompts, self._measure, self.backend, ratio_BT=ratio_BT)
        self._held[mode] = held if mode == "train" else planned(self.method, held, [rows], self.backend)
        tokens = {"entropy": held.frozen.read(SAMPLED[1])[held.batch.mask_BT].sum(), "all": held.batch.mask_BT.sum()}
        total = self.backend.sum({name: number.double() for name, number in tokens.items()})
        self._metrics[mode]["entropy"].append(float(total["entropy"] / total["all"].clamp(min=1)))
        return {ROWS: rows}

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *given: Any, **named: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """TRL's, where it corrects for a sampler of other numbers; else zeros, which nobody reads."""
        if self.use_vllm and self.vllm_importance_sampling_correction:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *given, **named
            )
        return torch.zeros(len(input_ids), logits_to_keep, device=input_ids.device), None, None

    def _batch(self, made: Mapping[str, Any], scenes: Sequence[Any], siblings: int, round_: int, mode: str) -> Batch:
        """This process's rollouts, with the credit of the groups that the method keeps."""
        reward_NF = self._scored["reward_NF"]
        advantage_N, _ = credited(
            self.method, reward_NF, self.reward_weights, self._scored["length_N"],
            siblings=siblings, longest=self.max_completion_length,
        )  # fmt: skip
        logged = self._logs["advantages"]  # of TRL's own credit, in its table of completions
        for _ in range(min(len(advantage_N), len(logged))):
            logged.pop()
        logged.extend(advantage_N.tolist())
        correct_N = (
            reward_NF[:, self.correct].nan_to_num() if self.correct is not None else torch.zeros_like(advantage_N)
        )
        kept_N = kept_rows(self.method, correct_N, siblings)
        token_BT = made["completion_ids"]
        banned = torch.tensor([token for token in self.reader.banned if token is not None], device=token_BT.device)
        mask_BT = made["completion_mask"].bool()
        unseen_B = (torch.isin(token_BT, banned) & mask_BT).any(-1)  # an image token in a response cannot be scored
        size = len(token_BT)
        own = slice(self.accelerator.process_index * size, (self.accelerator.process_index + 1) * size)
        if self.method.keep is not None:
            self._metrics[mode]["sampling/kept"].append(float(kept_N.float().mean()))
        mask_BT = mask_BT & (kept_N[own] & ~unseen_B)[:, None]
        advantage_B = advantage_N[own].where(mask_BT.any(-1), 0.0)
        return batch_of(scenes, token_BT, mask_BT, advantage_B, correct_N[own], seed=self.args.seed, round_=round_)

    # ------------------------------------------------------------------------------------------ optimizer steps

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = self._held.get("train")
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return inputs
        each, held = self.args.gradient_accumulation_steps, self._held["train"]
        at = self._step % self.args.steps_per_generation
        if held is not before:
            held = self._plan(held, each)
        elif self.method.fresh and at % each == 0:
            rows = torch.cat([one[ROWS] for one in self._buffered_inputs[at : at + each]])
            held = refreshed(self.method, held, at // each, rows, self._measure, self.backend)
        self._held["train"] = held
        if self.current_gradient_accumulation_steps != each:
            raise UserError(
                f"an optimizer step of {self.current_gradient_accumulation_steps} backward passes was counted as one "
                f"of {each}: make the number of rows a multiple of what an optimizer step takes"
            )
        return {**self._buffered_inputs[at], STEP: at // each}

    def _plan(self, held: Held, each: int) -> Held:
        """The rows of every optimizer step in order, so that siblings come together; and the totals of each."""
        parts = [one[ROWS] for one in self._buffered_inputs]
        steps = [torch.cat(parts[first : first + each]).sort().values for first in range(0, len(parts), each)]
        self._buffered_inputs = [{ROWS: some} for rows in steps for some in rows.chunk(each)]
        return planned(self.method, held, steps, self.backend)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """This process's part of the loss of a micro-batch; summed over all of the step it is the method's.

        Every process calls the wrapped model once, whatever its rows need.
        """
        if return_outputs:
            raise UserError("this trainer returns no outputs: its model is asked about several views")
        mode = "train" if self.model.training else "eval"
        held, method = self._held[mode], self.method
        terms, totals = {**method.objective, **method.metrics}, held.totals[inputs.get(STEP, 0)]
        batch, past = held.batch.rows(inputs[ROWS]), held.frozen.rows(inputs[ROWS])
        needed_B = needed(terms.values(), batch)
        batch, past = batch.rows(needed_B), past.rows(needed_B)
        live, anchor = self._look(model, batch, held.prompts, reads_when(reads_of(terms), "live", "grad"))
        loss, shares = anchor, {name: torch.zeros((), dtype=total.dtype) for name, total in totals.items()}
        if needed_B.any():
            now = live.detach()
            weights = {name: term.weigh(batch, past, now) for name, term in terms.items()}
            values = {name: term.value(batch, past, live) for name, term in method.objective.items()}
            loss = anchor + reduce(values, weights, totals)
            values |= {name: term.value(batch, past, now) for name, term in method.metrics.items()}
            shares = {name: reduce({name: value_BT.detach()}, weights, totals) for name, value_BT in values.items()}
        self._note({name: share.to(self.accelerator.device) for name, share in shares.items()}, mode)
        return loss * self.accelerator.num_processes  # which data parallelism divides by

    def _look(self, model: Any, batch: Batch, prompts: Prompts, reads: Sequence[Read]) -> tuple[Stats, Tensor]:
        """What the terms read, in one forward pass of the wrapped model, and a 0 that depends on its weights."""
        learning = next(weight for weight in self.model.parameters() if weight.requires_grad)

        def score() -> tuple[Tensor, ...]:
            anchor = learning.flatten()[:1].sum() * 0.0
            if not len(batch.key_B):
                return (anchor,)
            with self._scoring().open(batch, read_in(prompts, reads), reads) as scores:
                seen = scores(slice(None))
            return (anchor, *(seen.value[read[:3]] for read in reads))

        with self.accelerator.autocast():
            anchor, *values = model(vergence=score)
        return Stats(dict(zip((read[:3] for read in reads), values, strict=False))), anchor

    def _note(self, shares: dict[str, Tensor], mode: str) -> None:
        """Put the loss of each term and the method's metrics into TRL's log, once for an optimizer step."""
        self._shares.append(shares)
        if len(self._shares) < (self.args.gradient_accumulation_steps if mode == "train" else 1):
            return
        summed = {name: torch.stack([one[name] for one in self._shares]).sum() for name in shares}
        self._shares = []
        for name, share in self.backend.sum(summed).items():
            self._metrics[mode][f"loss/{name}" if name in self.method.objective else name].append(float(share))

    # ------------------------------------------------------------------------------------------ the model

    def _measure(self, batch: Batch, prompts: Prompts, reads: Sequence[Read]) -> Stats:
        """These reads of the whole batch, without gradient."""
        with self.accelerator.autocast():
            rows = self.args.per_device_train_batch_size
            return measured(self._scoring(), batch, read_in(prompts, reads), reads, rows=rows)

    def _scoring(self) -> Scorer:
        """What scores; made when it is first wanted, because the model is prepared by then."""
        if self._scorer is None:
            views = self.method.views
            model, frozen = self.accelerator.unwrap_model(self.model), self.ref_model
            frozen = None if frozen is None else self.accelerator.unwrap_model(frozen)
            looking = looking_of(model, frozen, self.reader, views)
            share = not self.args.gradient_checkpointing
            self._scorer = scorer_of(looking, views, temperature=self.temperature, share=share)
        return self._scorer
