"""The question with words left out: how much of it is needed?"""

import re

from vergence.chance import rng


def reword(question: str, *key: int | str, fraction: float) -> str:
    """The question, each word of it left out with probability `fraction`; one word, whichever draws highest, stays.

    What a larger fraction leaves of it is part of what a smaller one leaves.

    >>> reword("How  many cubes?", 0, fraction=0.0), len(reword("How many cubes?", 0, fraction=1.0).split())
    ('How  many cubes?', 1)
    """
    words = re.findall(r"\s*\S+\s*", question)  # with the space around them: what is left is not set anew
    draws = rng("reword", *key).random(len(words))
    kept = [word for word, draw in zip(words, draws, strict=True) if draw >= min(fraction, draws.max())]
    return question if len(kept) == len(words) else "".join(kept).strip()
