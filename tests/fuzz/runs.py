"""Targets that take a run folder, or a file of one: the pages that are made of it, and the readers of its parts."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import warnings
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from fuzz.drawing import TEXTS, Draw, one_of, some, text, torn, written
from fuzz.files import workplace
from fuzz.kinds import Target, Unescaped, told
from page.planted import trace
from report.planted import AUDIT, MEASURES, evaluate, plant
from rich.console import Console
from safetensors.torch import save_file

from vergence.commands.comparing import same
from vergence.guards.catalogue import raised
from vergence.harmless import printable
from vergence.report.audited import audit_of
from vergence.report.coloured import coloured, highest, legend, scale_of
from vergence.report.compare import compared, comparison_as_json, write
from vergence.report.legible import legible
from vergence.report.page import report
from vergence.report.viewer import embedded, viewed, viewer
from vergence.scenes.embedded import of_key
from vergence.scenes.source import Embedded
from vergence.studies import record
from vergence.train.card import numbers_of
from vergence.train.checkpoint import latest, step_of
from vergence.train.data import read_data
from vergence.train.data import told as told_data
from vergence.train.recorded import METRICS, checked
from vergence.train.run import load_run_config, read_lines
from vergence.train.sums import write_sums

warnings.filterwarnings("ignore", module="matplotlib")  # a letter without a form in a font
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""What a terminal obeys, or turns a line around, or cannot be seen."""
LINE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Page(HTMLParser):
    """The elements of a page, their attributes, and what is none."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, str]] = set()
        self.said: list[str] = []
        self.odd: list[str] = []
        self.scripts = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element."""
        self.scripts += tag == "script"
        for name, content in attrs or [("", "")]:
            self.tags.add((tag, name))
            if (
                name in ("src", "href", "action", "formaction", "srcdoc", "xlink:href", "data", "srcset")
                and not (tag == "img" and re.fullmatch("data:image/png;base64,[A-Za-z0-9+/=]*", content or ""))
                and not (content or "").startswith("#")
            ):
                self.odd.append(f"{tag} {name}={(content or '')[:80]}")

    def handle_comment(self, data: str) -> None:
        """A comment: we write none."""
        self.odd.append(f"comment {data[:80]}")

    def handle_data(self, data: str) -> None:
        """Text, and what stands in script and style."""
        self.said.append(data)

    def handle_pi(self, data: str) -> None:
        """Something that no page of ours has."""
        self.odd.append(f"instruction {data[:80]}")

    def unknown_decl(self, data: str) -> None:
        """Likewise."""
        self.odd.append(f"declaration {data[:80]}")


@cache
def _sound() -> tuple[dict[str, bytes], dict[str, bytes], frozenset[tuple[str, str]]]:
    """The files of a run with everything, those of a short one, and all elements with their attributes of our pages."""
    folder = workplace() / "sound"
    plant(folder, steps=4, options={"gamma": "0.02"})
    evaluate(folder, "before", "after", "after-blind", error="perception", wording="short")
    (folder / "evaluation" / "audit.json").write_text(json.dumps(AUDIT))
    scene = of_key("bars/train/0/0")
    (folder / "traces.jsonl").write_text(
        "".join(json.dumps(trace(scene, "red bar: 3.", sibling=at)) + "\n" for at in (0, 1))
    )
    (folder / "data.json").write_text(json.dumps(DATA))
    (folder / "interventions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in DONE))
    card = folder / "checkpoints" / "step-000004" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("# A card\n\n## Versions\n\n- torch 2.13\n\n## More\n")
    whole, short = _files(folder), folder.with_name("short")
    source = Embedded(("bars",))
    tags = Page(report(folder, source=source).read_text()).tags
    (folder / "traces.jsonl").unlink()
    shutil.copytree(folder, short)
    tags |= Page(write(compared([folder, short]), workplace() / "comparison.html").read_text()).tags
    plant(short, steps=1, options={"gamma": "0.02"})
    for one in ("evaluation", "checkpoints", "data.json", "report.html"):
        shutil.rmtree(short / one) if (short / one).is_dir() else (short / one).unlink()
    tags |= Page(report(short, source=source).read_text()).tags
    small = _files(short)
    return whole, small, frozenset(tags)


DONE = (
    {"step": 3, "since": 2, "guard": "KL hacking", "said": "it surges", "action": "back"}
    | {"to": 1, "option": "gamma", "from_value": 0.04, "to_value": 0.02},
    {"step": 4, "since": 4, "guard": "not finite", "said": "loss is not finite", "action": "stop"}
    | {"to": None, "option": None, "from_value": None, "to_value": None},
)
DATA = {
    "source": "a.jsonl", "rows": {"train": 8, "tune": 1, "report": 1}, "refused": {"image": 2},
    "kinds": {"choice": 4, "integer": 6}, "kinds_declared": 0, "content": "1f" * 32, "worlds": ["bars"],
}  # fmt: skip


@cache
def _checkpointed() -> dict[str, bytes]:
    """The files of a run that was saved twice, with tensors and their hashes."""
    folder, files = workplace() / "saved", dict(_sound()[1])
    for step in (1, 2):
        at = folder / f"step-{step:06d}"
        (at / "trainer").mkdir(parents=True)
        save_file({"a.weight": torch.full((2, 3), float(step)), "b": torch.zeros(1)}, at / "model.safetensors")
        save_file({"exp_avg": torch.ones(2)}, at / "trainer" / "optimizer.safetensors")
        (at / "trainer" / "state.json").write_text(json.dumps({"step": step, "position": 3, "logs": None}))
        (at / "README.md").write_text("# A card\n\n## Versions\n\n- torch 2.13\n\n## More\n")
        write_sums(at)
        files |= {f"checkpoints/{at.name}/{name}": data for name, data in _files(at).items()}
    return files


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "report.html"
    }


def _changed(draw: Draw, name: str, data: bytes) -> bytes:
    """The file with something changed in it: a field of a line, or the bytes."""
    if draw.below(5) == 0:
        return torn(draw, data)
    if name.endswith(".jsonl"):
        try:
            lines = [json.loads(line) for line in data.splitlines()]
        except (ValueError, RecursionError):  # changed before
            return torn(draw, data)
        at = draw.below(len(lines)) if lines else 0
        lines[at : at + 1] = [some(draw, lines[at] if lines else {}, 3) for _ in range(1 + (draw.below(6) == 0))]
        return "".join(written(line) + "\n" for line in lines).encode()
    if name.endswith(".json"):
        try:
            return written(some(draw, json.loads(data), 3)).encode()
        except (ValueError, RecursionError):
            return torn(draw, data)
    at = draw.below(len(data) + 1)
    return data[:at] + text(draw).encode("utf-8", "surrogatepass") + data[at:]


def _plant(draw: Draw, name: str, *, small: bool) -> Path:
    """A run folder with up to three of its files changed, or missing, or a folder in their place."""
    return _planted(draw, name, dict(_sound()[1 if small else 0]))


def _planted(draw: Draw, name: str, files: dict[str, bytes]) -> Path:
    folder = workplace() / name
    shutil.rmtree(folder, ignore_errors=True)
    for _ in range(1 + draw.below(3)):
        which = one_of(draw, list(files))
        match draw.below(40):
            case 0:
                files.pop(which)
            case 1:
                (folder / which).mkdir(parents=True)
                files.pop(which)
            case _:
                files[which] = _changed(draw, which, files[which])
        if not files:
            break
    for one, data in files.items():
        (folder / one).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / one).is_dir():
            (folder / one).write_bytes(data)
    return folder


def _refuse_markup(path: Path) -> None:
    """Raise where a page has an element or an attribute that no page of ours has, or an address, or a second script."""
    page = Page(path.read_text(encoding="utf-8"))
    new = page.tags - _sound()[2]
    if new or page.odd:
        raise Unescaped(f"{path.name}: {sorted(new)[:5]} {page.odd[:5]}")
    if page.scripts > 2:
        raise Unescaped(f"{page.scripts} scripts")
    found = LINE.search("".join(page.said))
    if found:
        raise Unescaped(f"{path.name} holds U+{ord(found[0]):04X}")


def _page(draw: Draw) -> None:
    run = _plant(draw, "run", small=bool(draw.below(16)))
    path = told(lambda: report(run, source=Embedded(("bars",)) if draw.below(2) else None))
    if path:
        _refuse_markup(path)


def _compare(draw: Draw) -> None:
    small = bool(draw.below(16))
    run, other = _plant(draw, "run", small=small), workplace() / ("other" if small else "other whole")
    if not other.is_dir():
        for name, data in _sound()[int(small)].items():
            (other / name).parent.mkdir(parents=True, exist_ok=True)
            (other / name).write_bytes(data)
    found = told(lambda: compared([run, other] if draw.below(2) else [other, run]))
    if found:
        json.dumps(comparison_as_json(found), allow_nan=True)
        _refuse_markup(write(found, workplace() / "comparison.html"))


def _same(draw: Draw) -> None:
    """Two runs, one hostile, beside each other, and what a terminal is given of it."""
    run, other = _planted(draw, "run", dict(_checkpointed())), workplace() / "other saved"
    if not other.is_dir():
        for name, data in _checkpointed().items():
            (other / name).parent.mkdir(parents=True, exist_ok=True)
            (other / name).write_bytes(data)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        told(lambda: same(run, other, json=False))
    found = LINE.search(out.getvalue().replace("\n", ""))
    if found:
        raise Unescaped(f"the terminal is given U+{ord(found[0]):04X}")


def _parts(draw: Draw) -> None:
    """What is read of a run folder besides its page."""
    run = _plant(draw, "run", small=bool(draw.below(2)))
    told(lambda: load_run_config(run), str(run))
    for name in ("metrics.jsonl", "rollouts.jsonl", "traces.jsonl"):
        lines = told(lambda name=name: list(read_lines(run / name)), name)
        if lines is not None and name == "metrics.jsonl":
            sound = told(lambda lines=lines: list(checked(lines, run / "metrics.jsonl", METRICS)), "metrics.jsonl")
            if sound is not None:
                raised(sound)
                numbers_of(sound)
    data = told(lambda: read_data(run), "data.json")
    if data is not None:
        told(lambda: told_data(data))
    told(lambda: audit_of(run), "audit.json")


def _checkpoint(draw: Draw) -> None:
    folder = workplace() / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    for _ in range(1 + draw.below(3)):
        name = one_of(
            draw, ("step-000040", "step-000007", "step-1", "step-", "step-٤٠٠٠٠٠", "step-0000400000", "step-9" * 9)
        )
        trainer = folder / name / "trainer"
        trainer.mkdir(parents=True, exist_ok=True)
        state = some(draw, {"step": 40, "position": 3, "scenes": ["a"], "logs": None, "open": None}, 2)
        (trainer / "state.json").write_bytes(torn(draw, written(state).encode()))
    found = told(lambda: latest(folder))
    if found:
        told(lambda: step_of(found), "state.json")


def _study(draw: Draw) -> None:
    path = workplace() / "seed-0.jsonl"
    header = {
        "format": 1,
        "name": "a seed 0",
        "config": {"seed": 0},
        "seconds": 0.0,
        "samples": 2,
        "asked": 1,
        "elsewhere": ["m"],
    }
    header |= {"verifier": "v", "last": 60, "best": 60, "tune": {}, "cost": {}, "warnings": [], "errors_known": True}
    header |= {"counted": ["right", "unparsed"]}
    lines = [header, {"scene": "a/0", "world": "a", "image": [1, 1], "blank": [2], "best": [1]}]
    lines[draw.below(2)] = some(draw, lines[draw.below(2)], 2)
    path.write_bytes(torn(draw, "".join(written(line) + "\n" for line in lines).encode()))
    kept = told(lambda: record.read(path), path.name)
    if kept:
        for condition in record.CONDITIONS:
            told(lambda condition=condition: kept.share("right", condition), path.name)
        told(lambda: kept.config)


def _trace(draw: Draw) -> Any:
    return some(draw, trace(of_key("bars/train/0/0"), "red bar: 3. so \\boxed{3}"), 3)


def _terminal(draw: Draw) -> None:
    """A response in the terminal: nothing of it is obeyed."""
    said = {
        "tokens": [text(draw) for _ in range(1 + draw.below(5))],
        "looks": None,
        "stats": {},
    }
    by = text(draw)
    said["stats"] = {by: [one_of(draw, (0.1, -2.0, None, 1e300, 0.0)) for _ in said["tokens"]]}
    said["looks"] = [draw.below(2) for _ in said["tokens"]] if draw.below(2) else None
    scale = told(lambda: scale_of([said], by))
    if scale is None:
        return
    console = Console(highlight=False, soft_wrap=True, record=True, file=io.StringIO(), width=10_000)
    for one in (coloured(said, scale), legend(scale), highest(said, by)):
        console.print(one, markup=False) if isinstance(one, str) else console.print(one)
    shown = console.export_text()
    for text_ in (shown, printable(by), printable(text(draw))):
        found = LINE.search(text_)
        if found:
            raise Unescaped(f"the terminal is given U+{ord(found[0]):04X}")


def _legible(draw: Draw) -> None:
    said = text(draw)
    found = CONTROL.search(legible(said))
    if found:
        raise Unescaped(f"legible leaves U+{ord(found[0]):04X}")
    inside = embedded({text(draw): said})
    if re.search("[<>&\u2028\u2029]", inside) or not inside.isascii():
        raise Unescaped(inside[:80])
    json.loads(inside)


def _viewer(draw: Draw) -> None:
    """The viewer of traces as they come, each a JSON object; as `report` guards it, it may say that they are none."""
    traces = [one for one in (_trace(draw) for _ in range(1 + draw.below(2))) if isinstance(one, dict)]
    try:
        block = viewer(viewed(traces, of_key, {"image": None, "masked": None}))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return  # `report.page` makes this a message: target "page"
    page = Page(str(block))
    new = page.tags - _sound()[2]
    if new or page.odd:
        raise Unescaped(f"the viewer: {sorted(new)[:5]} {page.odd[:5]}")


def _key(draw: Draw) -> None:
    key = "/".join(
        one_of(draw, ("bars", "digits", "train", "report", "0", "7", "-1", "٤", "9" * 4400, "9" * 30, *TEXTS))
        for _ in range(2 + draw.below(4))
    )
    scene = told(lambda: of_key(key))
    assert scene is None or scene.key == key


def _audit(draw: Draw) -> None:
    run = workplace() / "audited"
    (run / "evaluation").mkdir(parents=True, exist_ok=True)
    (run / "evaluation" / "audit.json").write_bytes(
        torn(draw, written(some(draw, {**AUDIT, "measures": MEASURES}, 4)).encode())
    )
    told(lambda: audit_of(run), "audit.json")


RUN_TARGETS = (
    Target("page", _page, 30.0, "run folders whose report is made", few=5),
    Target("compare", _compare, 30.0, "pairs of run folders, one hostile, compared on a page", few=3),
    Target("same", _same, 10.0, "pairs of run folders with checkpoints, one hostile, told where they differ", few=10),
    Target("run files", _parts, 5.0, "config, logs, data and audit of a run folder"),
    Target("checkpoint", _checkpoint, 3.0, "folders of checkpoints: which is the latest, at which step"),
    Target("study", _study, 3.0, "records of a study"),
    Target("audit", _audit, 5.0, "audit.json"),
    Target("viewer", _viewer, 10.0, "traces in the rollout viewer"),
    Target("terminal", _terminal, 5.0, "responses, coloured in the terminal"),
    Target("legible", _legible, 2.0, "texts made visible, and embedded in a script"),
    Target("key", _key, 5.0, "keys of embedded scenes"),
)
