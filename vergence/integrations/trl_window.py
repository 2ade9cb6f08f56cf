"""What the adapter was made for: which versions of TRL, and which of its settings. The rest is refused, with a remedy.

A method decides what is minimised, so TRL's own settings of that are to be left at their defaults: two places that say
what a clip is are one too many. Other settings are refused because the loss could not be right with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import Version

from vergence import objectives
from vergence.models.prefix import drops
from vergence.types import Method, Original, Reword, UserError

LEAST, BELOW = "1.15", "1.17"
"""The window: from the first on, and below the second."""
CALLED: Mapping[str, tuple[str, ...]] = {
    "_prepare_inputs": ("self", "generation_batch"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_get_per_token_logps_and_entropies": (
        *("self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy"),
        *("compute_aux_loss", "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes"),
        *("num_tiles", "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
    ),
    "compute_loss": ("self", "model", "inputs", "return_outputs", "num_items_in_batch"),
}
"""What is overridden of TRL's trainer, none of it promised by TRL: looked at before it is built upon."""
_OPTION = "the method decides it: leave it out, and give options={...} where the method has such an option"
DECIDED = {
    "loss_type": "the method is the loss: leave it out, and give method=",
    "beta": "leave it out, and give options={'beta': ...} to a method that has a reference KL",
    "epsilon": "leave it out, and give options={'clip_low': ...}",
    "epsilon_high": "leave it out, and give options={'clip_high': ...}",
    "delta": "leave it out; options={'dual': ...} bounds the loss of tokens with a negative advantage",
    "importance_sampling_level": _OPTION,
    "scale_rewards": "the method's credit decides it: leave it out, and take method='drgrpo' for no scaling",
    "multi_objective_aggregation": "rewards are summed by their weights, then the method gives credit: leave it out",
    "top_entropy_quantile": _OPTION,
    "entropy_coef": "leave it out, and give options={'entropy': -coefficient, 'entropy_of': 'full'}",
    "use_adaptive_entropy": _OPTION,
    "off_policy_mask_threshold": _OPTION,
    "use_bias_correction_kl": _OPTION,
}
"""TRL's settings of what a method decides, and what to do instead."""
SHARDED = (
    "sharded weights are gathered layer by layer, by all processes at the same time; but a process whose rollouts a "
    "view is not spent on does not read that view, and would be waited for. Take data parallelism (DDP), with PEFT if "
    "the model is large, or `torchrun -m vergence train`, which shards"
)


def refuse_other_versions(found: str | None = None, trainer: type | None = None) -> None:
    """Refuse a TRL that the adapter was not made for.

    Args:
        found: its version; None looks for the one that is installed.
        trainer: its `GRPOTrainer`; what is overridden of it must be there, with the arguments it is known to have.

    Raises:
        UserError: there is no TRL, it is outside the window, or it is not what that version is known to be.

    >>> refuse_other_versions("1.16.2")
    >>> refuse_other_versions("1.17.0")                    # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vergence.types.UserError: TRL 1.17.0 is installed, and this adapter is made for TRL 1.15 up to, not including, ...
    """
    if found is None:
        try:
            found = version("trl")
        except PackageNotFoundError as error:
            raise UserError("TRL is not installed: pip install 'vergence[trl]'") from error
    window = f"TRL {LEAST} up to, not including, {BELOW}"
    remedy = f"install one of these (pip install 'trl>={LEAST},<{BELOW}'), or train with `vergence train`"
    base = Version(Version(found).base_version)  # 1.17.0.dev0 comes before 1.17.0, and is of its kind
    if not (Version(LEAST) <= Version(found) and base < Version(BELOW)):
        raise UserError(
            f"TRL {found} is installed, and this adapter is made for {window}: it overrides what TRL changes between "
            f"versions, and a loss that is silently another is worse than none; {remedy}"
        )
    for name, arguments in CALLED.items() if trainer else ():
        method = getattr(trainer, name, None)
        known = tuple(inspect.signature(inspect.unwrap(method)).parameters) if callable(method) else None
        if known != arguments:
            raise UserError(
                f"this TRL calls itself {found}, but its {trainer.__name__}.{name} takes {known}, not {arguments}: it "
                f"is no {window}; {remedy}"
            )


def method_of(method: str | Method, options: Mapping[str, Any] | None) -> Method:
    """The method of that name with these options, or the one that is given.

    Raises:
        UserError: there is no such method or option; or options are given beside a `Method`.

    >>> method_of("grpo", {"beta": 0}).views.keys()
    dict_keys(['image'])
    """
    if isinstance(method, str):
        return objectives.method(method, **(options or {}))
    if options:
        raise UserError(f"options {sorted(options)} are for a method's name: a Method already has its own")
    return method


def refuse_without_images(method: Method, columns: Sequence[str] | None) -> None:
    """Refuse data without images for a method that shows them in another way: every divergence would be exactly 0.

    Args:
        columns: of the data; None where nobody knows them, as of some streams.

    Raises:
        UserError: as said.

    >>> refuse_without_images(method_of("papo", None), ["prompt", "image"])
    """
    shown = [view.show for view in method.views.values() if not isinstance(view.show, Original | Reword)]
    if shown and columns is not None and not {"image", "images"} & set(columns):
        raise UserError(
            f"the method shows images as {shown[0]}, and the data has no column 'image' or 'images', but "
            f"{', '.join(columns)}: name the column so (dataset.rename_column)"
        )


def refuse_settings(args: Any, given: Mapping[str, Any], method: Method) -> None:
    """Refuse settings with which the loss would not be the method's.

    Args:
        args: the `GRPOConfig`.
        given: the trainer's other arguments.

    Raises:
        UserError: there is one; the message says which, and what to do.
    """
    usual = {field.name: field.default for field in fields(args)}
    for name, remedy in DECIDED.items():
        if (value := getattr(args, name, usual.get(name))) != usual.get(name):
            raise UserError(f"GRPOConfig({name}={value!r}) contradicts the method: {remedy}")
    refused = {
        "use_liger_kernel": "it replaces parts of the model that are called here one by one",
        "torch_compile": "a compiled model cannot be asked about several views in one call",
        "router_aux_loss_coef": "the loss of a mixture's router is no part of the method; set it to 0",
        "sync_ref_model": "the method's reference is what training started from, and is not moved",
        "neftune_noise_alpha": "its noise is another in every reading, so a view differs from the image by chance",
    }
    for name, why in refused.items():
        if getattr(args, name, None):
            raise UserError(f"GRPOConfig({name}={getattr(args, name)!r}) cannot be right here: {why}; leave it out")
    for name in ("tools", "environment_factory", "rollout_func"):
        if given.get(name):
            raise UserError(
                f"{name} puts tokens or images into a completion that the policy did not write; the views of a scene "
                f"do not know them. Leave it out, or train with TRL's own GRPOTrainer"
            )
    _refuse_sampling(args)
    if (parallel := getattr(args, "parallelism_config", None)) and (parallel.tp_enabled or parallel.dp_shard_enabled):
        raise UserError(SHARDED)
    if getattr(args, "ddp_find_unused_parameters", None) is False:
        raise UserError(
            "ddp_find_unused_parameters=False waits for weights that a process whose rows need nothing does not use: "
            "leave it out"
        )
    if (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        raise UserError(
            "gradient_checkpointing_kwargs={'use_reentrant': True} loses gradient where a view carries none into a "
            "layer, and cannot look for unused parameters: leave it out"
        )
    _refuse_cuts(args)
    _refuse_method(method)


def _refuse_sampling(args: Any) -> None:
    """Log-probabilities are taken at the temperature of sampling, which is said in one place."""
    asked = (args.generation_kwargs or {}).get("temperature", args.temperature)
    if asked != args.temperature:
        raise UserError(
            f"generation_kwargs={{'temperature': {asked}}} samples at another temperature than log-probabilities are "
            f"taken at, {args.temperature}: give GRPOConfig(temperature={asked}) instead"
        )


def _refuse_cuts(args: Any) -> None:
    """An optimizer step must be known as a whole before its first backward pass, and whole groups stay on a process."""
    steps, each = args.steps_per_generation, args.gradient_accumulation_steps
    if steps % each:
        raise UserError(
            f"one generation serves {steps} backward passes (steps_per_generation) and an optimizer step takes {each} "
            f"(gradient_accumulation_steps): the step's tokens could not be counted before its first backward pass. "
            f"Make steps_per_generation a multiple of gradient_accumulation_steps"
        )
    rows = args.per_device_train_batch_size * steps
    if rows % args.num_generations:
        raise UserError(
            f"a process generates {rows} answers at a time, and a question gets {args.num_generations} "
            f"(num_generations): siblings would lie on different processes. Make per_device_train_batch_size x "
            f"steps_per_generation a multiple of num_generations"
        )
    siblings = args.num_generations_eval or args.num_generations
    if (
        str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no"
        and args.per_device_eval_batch_size % siblings
    ):
        raise UserError(
            f"per_device_eval_batch_size is {args.per_device_eval_batch_size}: make it a multiple of the {siblings} "
            f"answers to each question (num_generations_eval)"
        )


def _refuse_method(method: Method) -> None:
    shown = method.views[method.sample_view].show
    if shown != Original():
        raise UserError(
            f"{method.about.variant!r} samples from {shown}, and TRL samples from the images as they are: train it "
            "with `vergence train`"
        )


def refuse_machines(kind: str, zero_stage: int) -> None:
    """Refuse ways to spread the weights that views do not keep step with.

    Args:
        kind: accelerate's `DistributedType`, as text.
        zero_stage: DeepSpeed's; 0 without DeepSpeed.

    Raises:
        UserError: the weights are sharded.

    >>> refuse_machines("MULTI_GPU", 0)
    """
    if kind in ("FSDP", "MEGATRON_LM") or zero_stage == 3:
        raise UserError(SHARDED)


def refuse_model(trainer: Any) -> None:
    """Refuse models whose output is not what the views' statistics are taken from.

    Raises:
        UserError: the model adds a loss of its own router, its adapter is made of tokens before the prompt, or it
            drops out at random.
    """
    if getattr(trainer, "aux_loss_enabled", False):
        raise UserError("this mixture of experts adds a loss of its router: set GRPOConfig(router_aux_loss_coef=0.0)")
    for adapter in (getattr(trainer.model, "peft_config", None) or {}).values():
        if getattr(adapter, "is_prompt_learning", False):
            raise UserError(
                "an adapter made of tokens before the prompt moves where the images stand: take LoRA, or another "
                "adapter that changes weights"
            )
    if any(drops(part) for part in trainer.model.modules()):
        raise UserError(
            "the model drops out at random, anew in every reading: views would differ from the image, and the weights "
            "from themselves, by chance. Set lora_dropout=0.0 or GRPOConfig(disable_dropout=True), and "
            "attention_dropout=0.0 in the model's configuration"
        )


def correct_of(method: Method, names: Sequence[str], correct: str | None) -> int | None:
    """The place of the reward function that says what is right; None where nobody asks.

    Args:
        names: of the reward functions.
        correct: what the user calls it.

    Raises:
        UserError: there is none of that name; or the method wants one and it could be any of several.

    >>> from vergence.objectives.dapo import dapo
    >>> correct_of(dapo(), ["accuracy"], None)
    0
    """
    if correct is not None and correct not in names:
        raise UserError(f"correct={correct!r} is none of the reward functions, which are {', '.join(names)}")
    if method.keep is None:
        return names.index(correct) if correct else None
    if correct is None and len(names) > 1:
        raise UserError(
            f"the method keeps the groups whose siblings differ in correctness, and there are {len(names)} reward "
            f"functions: say which of them is that, correct= one of {', '.join(names)}"
        )
    return names.index(correct) if correct else 0
