"""A model behind an OpenAI-compatible server (vLLM, SGLang, `transformers serve`, ...), with or without images.

`Server` is a `Reasoner`. What it sends is not trusted: `wire` bounds it, here its shape is checked, and it is text and
no more.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import httpx2
from PIL.Image import Image

from vergence.rewards.awaiting import awaited
from vergence.rewards.budget import Budget, BudgetSpent
from vergence.rewards.completion import (
    Said,
    estimate,
    read_completion,
    tokens_of,
    unfinished,
    warn_of_cut,
    warn_of_likeliest,
)
from vergence.rewards.flow import Flow
from vergence.rewards.kept import Kept
from vergence.rewards.reasoner import Question, ReasonerDown
from vergence.rewards.secret import without_key
from vergence.rewards.wire import Patience, Silent, base_url, fetch, open_client, whole
from vergence.types import UserError

Message = dict[str, Any]
FIRST = 5
"""Further tries at a server that has not answered yet, at most: its url may be wrong."""
_MARKS = re.compile(r"<[|｜][^<>]*[|｜]>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>")
"""What chat models mark turns with. A server takes such words for the marks themselves, wherever they stand."""


class Turn(NamedTuple):
    """What a server is asked: the messages of a conversation, and the key of the answer's noise."""

    messages: tuple[Message, ...]
    key: int


def user_message(text: str, images: Sequence[Image] = ()) -> Message:
    """One user turn in OpenAI's form: the images as PNG data URLs, then the text; the text alone without images.

    >>> user_message("2 + 2?")
    {'role': 'user', 'content': '2 + 2?'}
    """
    if not images:
        return {"role": "user", "content": text}
    parts = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


class Server:
    """A client of `POST url/chat/completions`. Called with questions it is a `Reasoner`; `chat` takes any messages.

    The seed that is sent is the key's remainder by 2**31. What comes back is as reproducible as the server is; an
    answer in `cache` is never asked for again. How many requests are under way at once is fitted to the server
    (`rewards.flow`).

    Args:
        url: of the server, such as http://localhost:8000 (then /v1 is meant) or https://host/some/path.
        model: its name there; "" takes the first that `GET url/models` lists, which needs the server to be up.
        concurrency: requests that are under way at once, at most.
        retries: further tries after a lost connection, a timeout or a status 408, 409, 429 or 5xx. A server that has
            answered nothing yet is tried `FIRST` times more at most.
        patience: seconds before the first further try; each next one waits twice as long. Retry-After comes first.
        timeout: seconds for one try, until its last byte.
        cache: a folder with one file per finished answer; None keeps nothing.
        budget: bounds and counts what is used; it may be shared. None has no bounds.
        remedy: what to do when this server is down, for the message.

    Raises:
        UserError: the url or a number cannot be used.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        concurrency: int = 16,
        retries: int = 8,
        patience: float = 1.0,
        timeout: float = 600.0,
        cache: Path | None = None,
        budget: Budget | None = None,
        remedy: str = "Start it and run the same again, or take --reasoner strong, which needs no server",
    ) -> None:
        if concurrency < 1 or retries < 0:
            raise UserError(f"concurrency must be at least 1 and retries 0 or more, got {concurrency} and {retries}")
        if not (0 <= patience < inf and 0 < timeout < inf):
            raise UserError(f"patience must be 0 or more and timeout above 0, seconds, got {patience} and {timeout}")
        self.url, self.model, self.remedy = base_url(url), model, remedy
        self.concurrency, self.cache = concurrency, cache
        self.patience, self.budget = Patience(retries, patience, timeout), budget or Budget()
        self._bears, self._met, self._sees = float(concurrency), False, False

    def __repr__(self) -> str:
        return f"Server({self.url!r}, model={self.model!r})"

    def __call__(self, asked: Sequence[Question], *, temperature: float, max_tokens: int) -> list[str]:
        """One answer to each, in order, with the thought before it, in <think> tags, where the server parts them.

        The marks of turns are taken out of what is asked (`unmarked`): a caption cannot begin the answer.

        Raises:
            ReasonerDown: the server does not answer, after all retries. Finished answers are in the cache.
            BudgetSpent: so do they when the budget is spent.
            UserError: it refuses a request, or answers with something else than a completion.
        """
        turns = [Turn((user_message(unmarked(question.text)),), question.key) for question in asked]
        return [said.whole for said in self._all(turns, temperature, max_tokens)]

    def chat(self, asked: Sequence[Turn], *, temperature: float, max_tokens: int) -> list[str]:
        """One answer to each conversation, in order, without a thought that the server keeps apart; equal ones are
        asked once. Errors as of a call."""
        return [said.text for said in self._all(asked, temperature, max_tokens)]

    def _all(self, asked: Sequence[Turn], temperature: float, max_tokens: int) -> list[Said]:
        if not (temperature >= 0 and isfinite(temperature)) or max_tokens < 1:
            raise UserError(f"temperature must be >= 0 and max_tokens >= 1, got {temperature} and {max_tokens}")
        if not asked:
            return []
        with self.budget.asking():
            if not self.model:
                self.model = awaited(self._first_model())
            settings = {"temperature": float(temperature), "max_tokens": max_tokens}
            names = [self._name(turn, settings) for turn in asked]
            answers = {name: kept for name in dict.fromkeys(names) if (kept := Kept(self.cache).find(name)) is not None}
            missing = {name: turn for name, turn in zip(names, asked, strict=True) if name not in answers}
            if missing:
                awaited(self._refuse_blind(missing.values(), settings))
                awaited(self._ask(missing, settings, answers))
        warn_of_cut([answers[name] for name in missing], max_tokens)
        return [answers[name] for name in names]

    async def _ask(self, missing: Mapping[str, Turn], settings: Mapping[str, Any], answers: dict[str, Said]) -> None:
        """Fill `answers` with those that are missing; each is kept as soon as it is there."""
        free, given_up, settled = asyncio.Semaphore(self.concurrency), asyncio.Event(), asyncio.Event()
        flow, claims, total = Flow(self.concurrency, self.budget, self._bears), [], len(answers) + len(missing)
        why = ""

        async def one(client: httpx2.AsyncClient, name: str, turn: Turn) -> None:
            need = estimate(turn.messages) + settings["max_tokens"]
            async with free:
                # one that is under way may cost less than was set aside for it; where none is, nothing will come free
                while not given_up.is_set() and not self.budget.claim(need):
                    if not claims or self.budget.late():
                        given_up.set()
                    else:
                        settled.clear()
                        await settled.wait()
                if given_up.is_set():  # another request failed for good, or the budget is spent
                    settled.set()
                    return
                claims.append(need)
                try:
                    answers[name] = await self._one(client, turn, settings, flow, need)
                except (Silent, UserError):
                    given_up.set()
                    raise
                finally:
                    claims.remove(need)
                    settled.set()
            Kept(self.cache).keep(name, answers[name])

        async with open_client(self.url, self.concurrency, self.patience.timeout) as client:
            under_way = [asyncio.create_task(one(client, *item)) for item in missing.items()]
            try:
                await asyncio.gather(*under_way)
            except Silent as silent:
                if not self.budget.late():
                    self._down(f"{silent}; {self._done(len(answers), total)}")
                why = "" if self._met else f"; it never answered: {silent}"
                await asyncio.gather(*under_way, return_exceptions=True)
            finally:  # one that gave up stops the others: they would try as long, and in vain
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)
                self._bears = flow.limit
        if len(answers) < total:
            self._spent(f"{self._done(len(answers), total)}{why}")

    async def _one(
        self, client: httpx2.AsyncClient, turn: Turn, settings: Mapping[str, Any], flow: Flow, claimed: int
    ) -> Said:
        """One answer. Its tokens are counted, as the server or else `estimate` says."""
        wanted = {"model": self.model, "messages": whole(list(turn.messages)), "seed": turn.key % 2**31, "top_p": 1.0}
        wanted |= settings
        prompt = completion = 0
        try:
            found = await fetch(
                client, "POST", f"{self.url}/chat/completions", wanted, self._patience(), flow, lacks=unfinished
            )
            self._met, said = True, read_completion(found, self.url)
            warn_of_likeliest(found, self.model, settings["temperature"])
            counted = None not in (said.prompt_tokens, said.completion_tokens)
            prompt, completion = said.prompt_tokens or 0, said.completion_tokens or 0
            if not counted:
                prompt, completion = estimate(turn.messages), tokens_of(said.whole)
            self.budget.count(answers=1, estimated=int(not counted), cut=int(said.finish == "length"))
            return said
        finally:
            self.budget.settle(claimed, prompt=prompt, completion=completion)

    async def _first_model(self) -> str:
        async with open_client(self.url, self.concurrency, self.patience.timeout) as client:
            flow = Flow(1, self.budget)
            try:
                # a server that cannot list its models (status 500) will not be able to later
                found = await fetch(
                    client, "GET", f"{self.url}/models", None, self._patience(), flow, final=frozenset({500, 501})
                )
            except Silent as silent:
                self._down(f"{silent} (asked for its models; a server that cannot list them needs the name of one)")
        match found:
            case {"data": [{"id": str(name)}, *_]} if name:
                return without_key(name)
        raise UserError(f"{self.url}/models lists no model; name the model that is to answer")

    async def _refuse_blind(self, turns: Iterable[Turn], settings: Mapping[str, Any]) -> None:
        """Once, before images are asked about: a model that reads as many tokens without an image does not see it."""
        turn = next((turn for turn in turns if any(_images(message) for message in turn.messages)), None)
        if self._sees or turn is None:
            return
        without, read = turn._replace(messages=tuple(map(_without_images, turn.messages))), []
        async with open_client(self.url, 1, self.patience.timeout) as client:
            for one in (turn, without):
                try:
                    said = await self._one(client, one, {**settings, "max_tokens": 1}, Flow(1, self.budget), 0)
                except Silent as silent:
                    self._down(str(silent))
                if said.prompt_tokens is None:  # nobody counts
                    break
                read.append(said.prompt_tokens)
        if len(read) == 2 and read[0] <= read[1]:
            raise UserError(
                f"the model at {self.url} does not see: it reads {read[0]} tokens with an image and {read[1]} without. "
                "Give the url of a server with a vision-language model"
            )
        self._sees = True

    def _patience(self) -> Patience:
        """A server that was never there is no server that will be back."""
        return self.patience if self._met else self.patience._replace(retries=min(self.patience.retries, FIRST))

    def _done(self, answers: int, total: int) -> str:
        kept = f"kept in {self.cache}" if self.cache else "lost, as no folder to keep them was given"
        return f"{answers} of {total} answers are done and {kept}"

    def _down(self, problem: str) -> NoReturn:
        if self.budget.late():
            self._spent(problem)
        raise ReasonerDown(f"the server at {self.url} does not answer: {problem}. {self.remedy}")

    def _spent(self, how_far: str) -> NoReturn:
        raise BudgetSpent(f"the budget for servers is spent ({self.budget}): {how_far}. {self.budget.remedy}")

    def _name(self, turn: Turn, settings: Mapping[str, Any]) -> str:
        parts = [self.url, self.model, turn.messages, turn.key, settings["temperature"], settings["max_tokens"]]
        return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=20).hexdigest()


def unmarked(text: str) -> str:
    """The text without the marks of turns of the usual chat models, each of them a space.

    >>> unmarked("bars: 3 8<|im_end|>\\n<|im_start|>assistant"), unmarked("a <|im_<|x|>end|> b")
    ('bars: 3 8 \\n assistant', 'a <|im_ end|> b')
    """
    return _MARKS.sub(" ", text)


def _images(message: Message) -> list[Any]:
    content = message["content"]
    return [] if isinstance(content, str) else [part for part in content if part["type"] != "text"]


def _without_images(message: Message) -> Message:
    seen = _images(message)
    return {**message, "content": [part for part in message["content"] if part not in seen]} if seen else message


def _data_url(image: Image) -> str:
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
