"""A vLLM engine in this process, beside the policy that trains: it is given live tensors, and sleeps while they change.

vLLM's public classes are used, and of its engine (`LLM.llm_engine`) what `LLM` itself is written with: `step`,
`has_unfinished_requests`, `abort_request`, `reset_encoder_cache`. A hang within one step of the engine cannot be ended
from inside the process; a server can be killed (`rollout.vllm_server`).
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import torch

from vergence.models.policy import Policy, Reader
from vergence.rollout.vllm_arguments import arguments, refuse_missing
from vergence.rollout.vllm_request import Answer, Broken, Request, Said, Wanted, folded, patience, pictures, settings
from vergence.rollout.vllm_weights import folder, tensors, write_model
from vergence.types import UserError

NEEDED = ("step", "has_unfinished_requests", "abort_request", "reset_encoder_cache")
"""What is used of `LLM.llm_engine`."""


class Colocated:
    """An `Engine` in this process.

    Raises:
        UserError: vLLM is not installed.
    """

    def __init__(self, reader: Reader, *, memory: float = 0.4, processed: bool = False) -> None:
        refuse_missing()
        self.reader, self.memory, self.processed, self.ending = reader, memory, processed, Event()
        self._llm: Any = None
        self._folder: TemporaryDirectory[str] | None = None
        self._pushed = (0, 0)
        self._asleep, self._own_group = False, True

    def start(self, policy: Policy) -> None:
        """See `Engine`. Anything of an earlier engine is put away.

        Raises:
            UserError: this is one of several processes that train together.
        """
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            raise UserError("vLLM beside the training is for one process; take --sampler vllm-server or a url")
        again = self._folder is not None
        self.stop()
        self._own_group = not torch.distributed.is_initialized()
        if again and not self._own_group:
            raise Broken("the engine shares the processes' group of the training, and cannot be started again in it")
        self._folder = folder()
        model = Path(self._folder.name)
        try:
            write_model(policy, model)
            self._llm = engine(model, policy, memory=self.memory, processed=self.processed)
        except UserError:
            self.stop()
            raise
        except Exception as error:
            self.stop()
            raise Broken(f"{type(error).__name__}: {_first(error)}") from error
        for weights in model.glob("*.safetensors"):  # the engine has them; its processor may be read again
            weights.unlink()

    def push(self, policy: Policy, version: str) -> None:
        """See `Engine`. The engine reads the policy's own tensors."""
        self._pushed = _changes(policy)
        llm = self._llm
        try:
            if self._asleep:
                llm.wake_up()
                self._asleep = False
            llm.collective_rpc("reload_weights", kwargs={"weights_iterator": tensors(policy)})
            if not llm.reset_prefix_cache():
                raise Broken("its prefix cache cannot be reset, as if requests were under way")
            llm.reset_mm_cache()
            llm.llm_engine.reset_encoder_cache()
            llm.update_weight_version(version)
        except Broken:
            raise
        except Exception as error:  # whatever vLLM raises: the weights may be half there
            raise Broken(f"{type(error).__name__} while weights were pushed: {_first(error)}") from error

    def push_again(self, policy: Policy, version: str) -> None:
        """See `Engine`. The weights must still be those of the last push."""
        if self._pushed != _changes(policy):
            raise Broken("it died while the policy trained on, and the weights that it had are no longer there")
        self.push(policy, version)

    def ask(self, requests: Sequence[Request], wanted: Wanted) -> tuple[dict[int, Answer], Exception | None]:
        """See `Engine`."""
        from vllm import SamplingParams

        inside, found, places, ids = self._llm.llm_engine, dict[int, Answer](), dict[str, int](), list[str]()
        prompts = [self._prompt(request) for request in requests]
        try:
            params = [SamplingParams(**settings(request, wanted, self.reader)) for request in requests]
            ids += self._llm.enqueue(prompts, params, use_tqdm=False)
            # an id is the number that the request goes by outside, and more after a hyphen
            places, since = {one.split("-")[0]: place for place, one in enumerate(ids)}, time.monotonic()
            while inside.has_unfinished_requests():
                ended = {places.get(out.request_id.split("-")[0]): out for out in inside.step() if out.finished}
                ended.pop(None, None)  # left over from a call that was refused
                found |= {place: self._answer(out) for place, out in ended.items()}
                since = time.monotonic() if ended else since
                if self.ending.is_set() or time.monotonic() - since > patience(wanted):
                    raise Broken(f"no request ended within {time.monotonic() - since:.0f} s")
        except KeyboardInterrupt:
            inside.abort_request(ids, internal=True)
            raise
        except Broken as error:
            return found, error
        except Exception as error:
            if type(error).__name__ == "VLLMValidationError" or (not places and isinstance(error, ValueError)):
                return found, UserError(f"vLLM refuses what it is asked: {_first(error)}")
            return found, Broken(f"{type(error).__name__}: {_first(error)}")
        return found, None

    def _prompt(self, request: Request) -> dict[str, Any]:
        processor, prompt = self.reader.image_processor, request.prompt
        tokens = folded(prompt, image_id=self.reader.image_id, merge=processor.merge_size)
        shown = pictures(prompt, processor)
        return {"prompt_token_ids": tokens, **({"multi_modal_data": {"image": shown}} if shown else {})}

    def _answer(self, out: Any) -> Answer:
        banned = self.reader.banned if self.processed else ()
        said = []
        for one in out.outputs:
            tokens = list(one.token_ids)
            logp = [float(entry[token].logprob) for entry, token in zip(one.logprobs, tokens, strict=True)]
            also = [[float(entry[ban].logprob) for ban in banned] for entry in one.logprobs]
            versions = [span.version for span in one.weight_versions or ()]
            said.append(Said(tokens, logp, also, one.finish_reason, versions))
        return Answer(out.prompt_token_ids, said)

    def rest(self) -> None:
        """See `Engine`: weights to the CPU's memory, keys and values forgotten. On a CPU nothing is to be had by it."""
        if self._llm is not None and not self._asleep and self._llm.llm_engine.model_config.enable_sleep_mode:
            self._llm.sleep(level=1)
            self._asleep = True

    def stop(self) -> None:
        """See `Engine`."""
        if self._llm is not None:
            self._llm, self._asleep = None, False
            gc.collect()
            if self._own_group:
                from vllm.distributed import cleanup_dist_env_and_memory

                cleanup_dist_env_and_memory()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def engine(model: Path, policy: Policy, *, memory: float, processed: bool) -> Any:
    """A `vllm.LLM` on the model in a folder, its engine in this process.

    Raises:
        UserError: this vLLM has not what is used of it.
    """
    # read when vLLM is imported; tensors cannot be handed over to an engine in another process
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # the training's threads stay where they are
    from vllm import LLM

    llm = LLM(**arguments(model, policy, memory=memory, processed=processed), disable_log_stats=True)
    if missing := [name for name in NEEDED if not hasattr(llm.llm_engine, name)]:
        raise UserError(f"this version of vLLM has no {', '.join(missing)}: take one that docs/vllm.md names")
    return llm


def _changes(policy: Policy) -> tuple[int, int]:
    """Which policy it is, and how often its weights were written to (PyTorch counts that for every tensor)."""
    return id(policy.model), sum(weight._version for weight in policy.model.parameters())


def _first(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:300]
