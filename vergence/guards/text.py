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

_SHOWN = r"(?:image|picture|photo|figure|diagram|graph|chart|screenshot)s?(?!\w|'s)"
_IS, _BEEN = "(?:is|are|was|were|appears|seems|looks|has been|have been)", "(?:is|are|was|were|has been|have been)"
_GIVEN = (
    "(?:visible|provided|shown|given|available|attached|included|loaded|displayed|present|accessible|uploaded|seen)"
)
_WHOLLY = "(?:entirely|completely|totally|just|all|simply)"
_GONE = (
    rf"(?:(?:{_WHOLLY} )?(?:blank|empty|missing|unreadable|inaccessible|unavailable|not {_GIVEN})|"
    rf"(?:entirely|completely|totally|all|solid) (?:black|gr[ae]y|white))(?!\w)"
)
_UNABLE = "(?:cannot|can't|can not|could not|couldn't|unable to|not able to|don't|do not|didn't|did not)"
_THE = "(?:(?:the|an|a|any|this|that|these|your|actual|provided|attached|uploaded) )*"
_SPEAKER = "(?:i|we|you)(?:'ve)?"
_ENDS = (
    rf"(?= ?(?:[^\w\s(-]|$)| (?:so|and i|and we|but i|but we|because|since|which|therefore|thus|then|hence|as|or|if|"
    rf"here|directly|at all|to (?:me|see|look|analy[sz]e|view)|{_GIVEN}|{_SPEAKER} \w+|(?:in|with|from|for) "
    rf"(?:the|this|your|our) (?:question|prompt|message|problem|input|request|query|conversation|chat))(?!\w))"
)
"""What may follow where the image itself is meant, and not something in it: a pause, or another thought."""
_MEANT = (
    rf"(?:{_ENDS}|(?= (?:clearly|myself|itself|file|(?:above|below)(?! \d)|right now|at the moment|for viewing|due to|"
    rf"by the user|white|black|mentioned|described|referenced|referred|associated|attached|"
    rf"that (?:i|you|we|the (?:question|problem))|with (?:no|nothing)|in my)(?!\w)))"
)
"""The same of the image by its own name: `it` and `anything` may be of something in it."""
_DRAWN = "(?>图(?:片|像|形|表|示|画)?|照片)"
_DISOWNED = re.compile(
    "|".join(
        (
            rf"\b{_SHOWN} {_IS}(?: to be)?(?: an?)? ?{_GONE}{_MEANT}",
            rf"\b{_SHOWN} (?:isn't|aren't|wasn't|can't be|cannot be|could not be|did not|didn't) "
            rf"(?:{_GIVEN}|load){_ENDS}",
            rf"\b(?:there is|there's|there was|there are|i have|i see|i can see|i was given|i got) no {_SHOWN}{_MEANT}",
            rf"\bno {_SHOWN} {_BEEN} {_GIVEN}{_MEANT}",
            r"\b(?:given|with|shows|is|have|got|see) (?:only )?(?:the |an? )?blank "
            r"(?:image|picture|photo|screenshot)s?\b",
            rf"\b(?:missing|without (?:the|an|any|access to (?:the|an|any)|seeing (?:the|an|any))) "
            rf"(?:image|picture|photo|screenshot)s?{_ENDS}",
            rf"\b{_UNABLE} (?:\w+ )?(?:see|view|access|open|load|process|receive|have access to) {_THE}"
            rf"{_SHOWN}{_MEANT}",
            rf"\b(?:i|we)(?:'m| am)? (?:cannot|can't|could not|couldn't|unable to) (?:\w+ )?"
            rf"(?:see|view|access|open|load) (?:it|anything){_ENDS}",
            rf"\b(?:i|we)(?: still)? (?:don't|do not|didn't|did not) (?:\w+ )?(?:have|get) {_THE}{_SHOWN}{_ENDS}",
            rf"\b(?:have|has|having) no access to {_THE}{_SHOWN}{_ENDS}",
            rf"\b(?:haven't|have not|hasn't|has not|wasn't|was not|weren't|were not)(?: been)? "
            rf"(?:given|shown|provided(?: with)?|attached|uploaded|received|sent|included) {_THE}{_SHOWN}{_ENDS}",
            rf"\bplease (?:\w+ )?(?:provide|upload|attach|share|send|include)(?: me)? {_THE}{_SHOWN}{_ENDS}",
            rf"(?:看不[到见清]|看不太清|没(?:有)?看[到见]|(?:无法|不能|没法)(?:直接)?(?:看[到见清]?|查看|访问|打开|加载)|请(?:您|你)?(?:先)?(?:提供|上传)|"
            rf"(?:没有|未|未能|并未|没)(?:提供|给出|附上?|上传|收到|显示)|缺少|缺失)(?:了|到)?(?:任何|这张|该|此|您的|你的|题目的|原|相关的?|完整的)*"
            rf"{_DRAWN}(?![中里上内的所片像形表示画例标钉书])",
            r"(?:没有|无|并无)(?:任何)?图[像片]",
            rf"{_DRAWN}(?:似乎|好像|看起来|完全|可能|其实)*(?:是|为|显示为)?(?:完全|一片|全|张?)*"
            rf"(?:空白|全黑|全白|缺失|(?:无法|不能)(?:显示|看[到见清]|查看|加载|打开)|(?:没有|未|并未|没)(?:提供|给出|附上?|上传|显示|加载))"
            rf"(?:的|出来)?(?=\W|$|所以|因此|我|故|只|，|。)",
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
