"""What can be seen in the text of a response alone: that it repeats itself, and that it disowns its image.

Both are functions of the text, in time linear in it, and count for nothing in a reward: they are logged, and watched.
"""

from __future__ import annotations

import re

GRAM, REPEATED, FEWEST = 4, 0.5, 8
"""Units that are compared at a time; the share of them that a response may have said before; and how many there must
be for it to be judged."""
LONG = 16
"""Characters above which what stands between two spaces is no word: a script without spaces, or one sign for ever."""
MOST_READ, EARLY = 20_000, 4000
"""Characters of a response that are read for repetition, and for what it says of its image: it says so before it
answers."""

_SHOWN = "(?:image|picture|photo|figure|diagram|graph|chart|screenshot)s?"
_IS, _BEEN = "(?:is|are|was|were|appears|seems|looks|has been|have been)", "(?:is|are|was|were|has been|have been)"
_GIVEN = "(?:visible|provided|shown|given|available|attached|included|loaded|displayed|present|accessible|seen)"
_GONE = (
    rf"(?:(?:entirely|completely|totally|just|all|simply) )?(?:blank|empty|missing|unreadable|inaccessible|unavailable|"
    rf"not {_GIVEN}|(?:entirely|completely|totally|all|solid) (?:black|gray|grey|white))\b"
)
_UNABLE = "(?:cannot|can't|can not|could not|couldn't|unable to|not able to)"
_DISOWNED = re.compile(
    "|".join(
        (
            rf"\b{_SHOWN} {_IS}(?: to be)?(?: a)? ?{_GONE}",
            rf"\b{_SHOWN} (?:isn't|aren't|wasn't|can't be|cannot be) {_GIVEN}",
            rf"\b(?:there is|there's|there was|i have|i see|i was given) no {_SHOWN}\b",
            rf"\bno {_SHOWN} {_BEEN} {_GIVEN}",
            rf"\b(?:blank|missing) {_SHOWN}\b",
            rf"\b{_UNABLE} (?:\w+ )?(?:see|view|access|open|load) "
            rf"(?:the |an |any |this |that |your |actual |provided )*(?:{_SHOWN}|it|anything)\b",
            "看不[到见](?:图|照片)|(?:没有|未)提供(?:图|照片)|没有图[像片]|图[片像]?(?:是|为|显示为)?(?:空白|全黑)",
        )
    )
)
"""In English and Chinese, the languages in which the models that are trained think."""


def repeats(text: str) -> bool:
    """Whether more than half of a response's 4-grams were said before in it.

    That share is seq-rep-4 of Welleck et al., arXiv:1908.04319; the bound is ours. Its units are words; what is longer
    than 16 characters is taken sign by sign, so that scripts without spaces, and one sign for ever, count as well.

    >>> repeats("the top bar is 3, the middle bar is 5, so 3 + 5 = 8")
    False
    >>> repeats("I see 3. " * 12), repeats("7" * 40), repeats("红色圆形。" * 12)
    (True, True, True)
    >>> repeats("no no no no no")                # too short to be judged
    False
    """
    units: list[str] = []
    for word in text[:MOST_READ].split():
        units += [word] if len(word) <= LONG else word
    grams = len(units) - GRAM + 1
    if grams < FEWEST:
        return False
    return 1 - len(set(zip(*(units[first:] for first in range(GRAM)), strict=False))) / grams > REPEATED


def disavows(text: str) -> bool:
    """Whether a response says that there is no image, or none that it can see.

    The sign of image disavowal: a policy that learns to answer from the question alone says so more and more often (in
    the log of a distillation from a blind teacher 2 % of the responses at first and 64 % in the end). A response that
    finds nothing *in* the image does not count.

    >>> [disavows(text) for text in ("The image is blank, so I guess 4.", "I can't see the picture.", "图片是空白")]
    [True, True, True]
    >>> [disavows(text) for text in ("The left column is empty.", "I cannot see a red circle.", "The image shows 4.")]
    [False, False, False]
    """
    plain = " ".join(text[:EARLY].lower().replace("\u2019", "'").split())
    return _DISOWNED.search(plain) is not None
