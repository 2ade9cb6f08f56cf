"""Answers per second of an OpenAI-compatible server, by how many requests may be under way at once.

    python benchmarks/reasoner.py http://localhost:8000 [--model NAME] [--concurrency 1 4 16] [--questions 64]

Asked is about captions of the embedded worlds, as RACRO asks its reasoner, each time at temperature 1 and with another
key. The numbers of requests take turns, there and back. Median and quartiles of the turns; the first is not counted.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.timing import spread
from vergence import chance
from vergence.rewards.reasoner import Question, question
from vergence.rewards.server import Server
from vergence.scenes.embedded import TRAINED
from vergence.scenes.source import Embedded
from vergence.types import UserError


def asked(number: int, turn: int) -> list[Question]:
    """Questions about the true captions of held-out scenes, with keys that no other turn has."""
    scenes = Embedded(TRAINED).held_out("tune", number, seed=0)
    texts = [question(scene.caption, scene.question) for scene in scenes]
    return [Question(text, chance.key("benchmark", turn, at)) for at, text in enumerate(texts)]


def main() -> None:
    """Print one line for each number of requests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--model", default="")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    servers = {many: Server(given.url, given.model, concurrency=many) for many in given.concurrency}
    rates: dict[int, list[float]] = {many: [] for many in servers}
    for turn in range(given.repeats + 1):
        for many in list(servers)[:: 1 if turn % 2 == 0 else -1]:
            questions = asked(given.questions, turn * 1000 + many)
            begun = time.perf_counter()
            servers[many](questions, temperature=1.0, max_tokens=given.max_tokens)
            if turn:
                rates[many].append(given.questions / (time.perf_counter() - begun))
    print(f"{given.questions} questions a turn, {given.repeats} turns: answers per second, median [quartiles]")
    for many, server in servers.items():
        used = server.budget.used
        print(
            f"at most {many:3d} at once: {spread(rates[many])}; {used.tokens / used.answers:.0f} tokens an answer, "
            f"{used.retries} retries, {used.in_flight} under way at most"
        )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
