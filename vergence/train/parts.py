"""What a run is made of, before anything is written."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch

from vergence import objectives
from vergence.models.adapters import adapt, is_adapted, reference
from vergence.models.policy import Policy, load
from vergence.models.prefix import Prefix, refusal
from vergence.models.saliency import load_saliency
from vergence.rewards.budget import Budget
from vergence.rewards.functions import by_functions, load_rewards
from vergence.rewards.judge import Judge, by_reasoner, by_verifier
from vergence.rollout.captions import Captioner, open_captions
from vergence.rollout.decode import sampler_of
from vergence.rollout.reason import load_reasoner
from vergence.rollout.sampler import Sampler
from vergence.rollout.unfinished import Unfinished
from vergence.scenes.source import Embedded, Source, open_source
from vergence.scoring.naive import Naive, Scorer
from vergence.scoring.shared import Shared
from vergence.train.ahead import Ahead
from vergence.train.backend import ONE, Group
from vergence.train.config import Config
from vergence.train.hub import refuse_unreachable
from vergence.train.masters import adamw
from vergence.train.processes import Processes, SampledElsewhere, here, is_first
from vergence.train.sharding import Sharded
from vergence.types import Caption, Erase, Method, Salient, Swap, View
from vergence.views.salient import Saliency


class Parts(NamedTuple):
    """What a run is made of."""

    config: Config
    method: Method
    source: Source
    policy: Policy
    sampler: Sampler
    judge: Judge
    captioner: Captioner
    """Writes captions into scenes, where a view needs them."""
    saliency: Saliency | None
    scorer: Scorer
    definition: Scorer | None
    """The naive scorer, where the other is to be compared with it before the first step."""
    backend: Group
    optimizer: torch.optim.Optimizer
    budget: Budget
    """Of the servers that answer and write captions, together; it counts what they do."""
    ahead: Ahead | None = None
    """The next round, where it is sampled while this one trains."""


MORE = (
    "Go on with --resume, which begins another budget of --server-tokens and --server-seconds (0 is no bound); what is "
    "kept is not asked again"
)
"""What to do when servers have used what they may."""

WATCHED = View(Erase())
"""The masked view whose KL is logged for every method alike, trained on or not."""


def assemble(
    config: Config,
    run: Path,
    *,
    source: Source | None = None,
    processes: Processes | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Parts:
    """Everything a run is made of. Nothing is written yet.

    Args:
        run: the run's folder, where answers of servers will be kept.
        source: the config's, where it has been opened already.
        processes: those that train together; None is this one alone.
        tell: told what of the data cannot be used, where the config says to go on without.

    Raises:
        UserError: the config asks for something that does not exist.
    """
    asked, method = config, objectives.method(config.method, **config.options)
    source = source or open_data(config, tell)
    config = here(config, processes)
    policy = adapt(
        load_policy(config),
        adapter=config.adapter,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        tower=config.tower,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
    )
    initial = cache(partial(_initial, config, policy))
    backend = Sharded(processes, policy.model, shards=config.shards, offload=config.offload) if processes else ONE
    weights = [weight for weight in policy.model.parameters() if weight.requires_grad]
    optimizer = adamw(weights, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    budget = _budget(config, method, backend.size)
    return Parts(
        asked,
        method,
        source,
        policy,
        _sampler(config, policy, backend, run),
        _judge(config, method, run, budget),
        _captioner(config, method, initial, run, budget),
        _saliency(config, method),
        _scorer(config, method, policy, initial),
        _scorer(replace(config, scorer="naive"), method, policy, initial) if config.verify_scorer else None,
        backend,
        optimizer,
        budget,
        Ahead(backend) if config.ahead else None,
    )


def open_data(config: Config, tell: Callable[[str], None] = lambda _: None, *, fetch: bool = True) -> Source:
    """The scenes that the config names.

    Args:
        config: the run's.
        tell: see `assemble`.
        fetch: whether a data set of the Hub may be fetched; else it is had from this machine or not at all.

    Raises:
        UserError: there are none, or rows cannot be used and the config does not say to go on without them; or there
            is no such world, needed or not.
    """
    Embedded(config.worlds)
    return open_source(
        config.scenes,
        config.worlds,
        columns=config.columns,
        tolerance=config.tolerance,
        skip_refused=config.skip_refused,
        pictures=config.pictures,
        fetch=fetch,
        tell=tell,
    )


def load_policy(config: Config, model: str | Path = "") -> Policy:
    """The config's model, or another one that is to be loaded as that is.

    Raises:
        UserError: there is none, or it cannot be trained.
    """
    refuse_unreachable(model or config.model)
    return load(
        model or config.model,
        dtype=getattr(torch, config.dtype),
        device=config.device,
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
        trust_remote_code=config.trust_remote_code,
        quantize=config.adapter == "qlora",
    )


def _initial(config: Config, policy: Policy) -> Policy:
    """The weights that training starts from, frozen: those of the policy without its adapters; else loaded once, and
    only where something looks with them."""
    if is_adapted(policy):
        return reference(policy)
    initial = load_policy(config)
    initial.model.requires_grad_(False)
    return initial


def _sampler(config: Config, policy: Policy, backend: Group, run: Path) -> Sampler:
    if config.sampler != "own" and backend.rank:
        return SampledElsewhere()
    if config.sampler != "own":
        from vergence.rollout.vllm import open_vllm

        engine = open_vllm(config.sampler, policy, temperature=config.temperature, memory=config.sampler_memory)
        return Unfinished(engine, run / "unfinished.json")
    if (why := refusal(policy.model, training=False)) and is_first():
        print(f"every response is sampled from a prompt of its own (Hugging Face's generate): {why}", file=sys.stderr)
    return sampler_of(policy, at_once=config.sample_batch)


def _scorer(config: Config, method: Method, policy: Policy, initial: Callable[[], Policy]) -> Scorer:
    policies = {"now": policy}
    if any(view.policy == "reference" for view in method.views.values()):
        policies["reference"] = initial()
    views, keep = {**method.views, "watched": WATCHED}, config.scorer
    if keep == "auto":
        why = refusal(policy.model)
        keep = "leaf" if why is None else "naive"
        if why is not None and is_first():
            print(f"every response reads its prompt again (--scorer naive): {why}", file=sys.stderr)
    if keep == "naive":
        return Naive({name: one.logits for name, one in policies.items()}, views, temperature=config.temperature)
    read = {name: Prefix(one) for name, one in policies.items()}
    return Shared(read, views, temperature=config.temperature, keep=keep, budget=config.token_budget)


def _judge(config: Config, method: Method, run: Path, budget: Budget) -> Judge:
    judge = _says_right(config, method, run, budget)
    return by_functions(load_rewards(config.rewards), judge) if config.rewards else judge


def _says_right(config: Config, method: Method, run: Path, budget: Budget) -> Judge:
    if method.reward.judge == "verifier":
        return by_verifier(method.reward, wording=config.wording)
    refuse_unreachable(config.reasoner)
    reasoner = load_reasoner(
        config.reasoner,
        model=config.server_model,
        device=config.device,
        cache=run / "servers" / "reasoner",
        budget=budget,
        remedy="Start it and go on with --resume; its address may be another",
    )
    asked = {"temperature": config.reasoner_temperature, "max_tokens": config.reasoner_tokens}
    return by_reasoner(reasoner, method.reward, wording=config.wording, **asked)


def _captioner(config: Config, method: Method, initial: Callable[[], Policy], run: Path, budget: Budget) -> Captioner:
    if not any(map(shows_captions, method.views.values())):
        return list
    frozen = initial() if config.captions == "initial" else None
    return open_captions(
        config.captions,
        sampler=sampler_of(frozen, at_once=config.sample_batch) if frozen else None,
        reader=frozen.reader if frozen else None,
        seed=config.seed,
        max_tokens=config.max_tokens,
        wording=config.wording,
        model=config.server_model,
        cache=run / "servers" / "captions",
        budget=budget,
    )


def _budget(config: Config, method: Method, processes: int) -> Budget:
    """This process's part. One alone asks a sampler with weights of its own, and judges; captions are asked by all."""
    asking = processes if config.sampler == "own" or any(map(shows_captions, method.views.values())) else 1
    return Budget(-(-config.server_tokens // asking), config.server_seconds, remedy=MORE)


def _saliency(config: Config, method: Method) -> Saliency | None:
    encoders = {view.show.encoder for view in method.views.values() if isinstance(view.show, Salient)}
    if not encoders:
        return None
    (encoder,) = encoders  # a method has one masked view
    return load_saliency(encoder, config.device)


def shows_captions(view: View) -> bool:
    """Whether a view needs its scene's caption.

    >>> shows_captions(View(Caption())), shows_captions(WATCHED)
    (True, False)
    """
    return isinstance(view.show, Caption) or (isinstance(view.show, Swap) and isinstance(view.show.of, Caption))
