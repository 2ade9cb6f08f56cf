"""Traces as training writes them, planted: responses in the English of the embedded scenes, numbers from a die."""

import re

from vergence import chance
from vergence.evaluate.looking import SHOWS
from vergence.scenes.embedded import TRAINED, draw, say
from vergence.scenes.speech import value_spans

NAMES = ["entropy", *(f"{what} {view}" for view in ("masked", "removed") for what in ("kl", "k3", "log ratio"))]
NAMES += ["entropy gain masked", "advantage"]
HOSTILE = {
    "script": "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "end of style": "</style></script><style>body{display:none}</style><!-- ]]> -->",
    "template": "{{ 7 * 7 }} ${7 * 7} &lt;b&gt; &#60;script&#62;",
    "right to left": "abc \u202egnp.exe\u202c \u2066x\u2069 שלום עולם \u200f",
    "controls": "a\x00b\x07c\x1b[31md\x7f e\u200bf\ufeff\u00adg\u2028h",
    "half a pair": "before \ud800 after \udfff",
    "large": "word " * 200_000,
}
SHOWN = dict(SHOWS)


def tokens_of(text):
    """Words with the blank before them, and signs: joined they are the text."""
    return re.findall(r"\s?\w+|\s?[^\w\s]|\s", text)


def trace(scene, response, *, step=1, sibling=0, status="wrong", names=NAMES, **more):
    """One record; a token that states something seen has the larger numbers."""
    tokens = tokens_of(response) if len(response) < 100_000 else [response]
    spans, ends = value_spans(response), []
    for token in tokens:
        ends.append((ends[-1] if ends else 0) + len(token))
    looks = [int(any(start < end <= stop for start, stop in spans)) for end in ends]
    die = chance.dice("planted", scene.key, step, sibling)
    advantage = 1.0 if status == "right" else -0.5
    stats = {name: [round(die.random() * 0.2 + 2.0 * look, 4) for look in looks] for name in names}
    for name in names:
        if name.startswith(("log ratio", "entropy gain")):
            stats[name] = [round(value - 0.3, 4) for value in stats[name]]
    stats["advantage"] = [advantage] * len(tokens)
    return {
        "step": step, "scene": scene.key, "world": scene.world, "sibling": sibling, "question": scene.question,
        "gold": scene.gold.text, "kind": scene.gold.kind, "response": response, "extracted": "4", "status": status,
        "finish": "stop", "reward": float(status == "right"), "advantage": advantage,
        "view_key": {"masked": 11, "removed": 12}, "tokens": tokens, "stats": stats,
        "views": ["image", "masked", "removed"], "looks": looks, "selected": {"contrast": looks},
    } | more  # fmt: skip


def traces(groups=8, siblings=4, *, names=NAMES, longer=""):
    """`groups` scenes, half of whose responses misread what they need; two steps."""
    found = []
    for place in range(groups):
        world = TRAINED[place % len(TRAINED)]
        drawn = draw(world, "train", place // len(TRAINED))
        for sibling in range(siblings):
            wrong = sibling % 2 == 1
            text = say(drawn, world, chance.dice("said", place, sibling), misread=wrong) + longer
            boxed = re.findall(r"\\boxed\{(.*?)\}", text)[-1]
            status = "right" if boxed == drawn.scene.gold.text else "wrong"
            about = {"step": 1 + place // len(TRAINED) % 2, "sibling": sibling, "status": status, "extracted": boxed}
            found.append(trace(drawn.scene, text, names=names, **about))
    return found
