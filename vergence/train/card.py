"""The model card of a checkpoint: what was trained, on what, how it was asked, what came of it, and how to do it again.

Names of files, columns and servers come from users and data: they are shown as code, and of a path its last part alone.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml

from vergence import objectives
from vergence.harmless import harmless
from vergence.rewards.verify import VERSION
from vergence.sources.catalogue import known
from vergence.train.config import Config
from vergence.train.config_file import to_yaml
from vergence.train.recorded import TUNED
from vergence.types import About

FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".py", ".zip")
PACKAGES = ("vergence", "torch", "transformers")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
COMMAND = "vergence train --config config.yaml --out runs/again"


class Number(NamedTuple):
    """A result, with its 95 % interval over questions."""

    what: str
    mean: float
    low: float
    high: float
    questions: int
    how: str = ""
    """The conditions under which it was asked; empty: those of the run's own evaluations."""


def card(config: Config, data: Mapping[str, Any], *, step: int, numbers: Sequence[Number] = ()) -> str:
    """The card as Markdown with its YAML header, as the Hub reads it; a function of its arguments and the versions.

    Args:
        data: what the run's data.json says.
        step: optimizer steps taken.
        numbers: what was measured; without, the card says that nothing was.
    """
    about = objectives.method(config.method, **config.options).about
    return "\n".join(
        [
            *_header(config, about),
            f"# {about.title}: {code(config.method)}",
            "",
            f"{code(shown(config.model))} after {step} of {config.steps} optimizer steps of {code(config.method)}: "
            f"{about.title}, arXiv:{about.paper}, as the {about.variant}"
            + (f", on {about.base}." if about.base else "."),
            "",
            *_section("Numbers", (_number(one, config) for one in numbers), "No evaluation was made."),
            *_section("Differences from the paper or its code", about.deviations, "None that we know of."),
            *(_section("Formulas that are ours", about.reconstructed, "") if about.reconstructed else ()),
            *_section("Data", _data(config, data), ""),
            *_section("How it was asked in training", _asked(config), ""),
            *_section("Versions", (f"{name} {version_of(name)}" for name in PACKAGES), ""),
            "## Doing it again",
            "",
            f"Save this as `config.yaml`, with your own paths where it names files; then {code(COMMAND)}.",
            "",
            fenced(to_yaml(_without_places(config)), "yaml"),
            "",
        ]
    )


def version_of(package: str) -> str:
    """The version of a package; "not installed" of one that is run as it lies."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def numbers_of(metrics: Iterable[Mapping[str, Any]]) -> list[Number]:
    """The last evaluation on the tune split among the lines of metrics.jsonl; [] if there was none.

    >>> numbers_of([{"step": 1, "eval/accuracy": 0.5, "eval/accuracy_low": 0.4, "eval/accuracy_high": 0.6,
    ...              "eval/questions": 9}, {"step": 2}])
    [Number(what='accuracy on the tune split, step 1', mean=0.5, low=0.4, high=0.6, questions=9, how='')]
    """
    said = [line for line in metrics if all(name in line for name in TUNED)]
    return [
        Number(
            f"accuracy on the tune split, step {line['step']}",
            line["eval/accuracy"],
            line["eval/accuracy_low"],
            line["eval/accuracy_high"],
            int(line["eval/questions"]),
        )
        for line in said[-1:]
    ]


def _header(config: Config, about: About) -> list[str]:
    fields: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    if is_hub_name(config.model):
        fields["base_model"] = config.model
    tags = ["vergence", "reinforcement-learning", re.split(r"[-@+]", config.method)[0], f"arxiv:{about.paper}"]
    fields["tags"] = tags + ([] if config.adapter == "none" else ["lora"])
    if datasets := [*dict.fromkeys(filter(None, map(_dataset, config.scenes.split(","))))]:
        fields["datasets"] = datasets
    return ["---", yaml.safe_dump(fields, sort_keys=False).rstrip(), "---", ""]


def _dataset(source: str) -> str | None:
    """The Hub's name of one of the sources of a run, if it is from there."""
    name = re.split("[@:#]", source)[0]
    one = known(name)
    return one.hub[0] if one and one.hub else name if is_hub_name(name) else None


def _section(title: str, lines: Iterable[str], otherwise: str) -> list[str]:
    points = [f"- {line}" for line in lines] or [otherwise]
    return [f"## {title}", "", *points, ""]


def _number(one: Number, config: Config) -> str:
    how = one.how or put(config.wording, config.max_tokens, config.temperature, float(config.eval_samples))
    interval = f"95 % interval [{one.low:.3f}, {one.high:.3f}], {one.questions} questions"
    return f"{one.what}: **{one.mean:.3f}** ({interval}); {how}"


def put(wording: str, max_tokens: int, temperature: float, samples: float) -> str:
    """How questions were put, in words.

    >>> put("short", 64, 1.0, 4.0)
    'avg@4, wording `short`, at most 64 tokens, temperature 1'
    """
    return f"avg@{samples:g}, wording {code(wording)}, at most {max_tokens:,} tokens, temperature {temperature:g}"


def _data(config: Config, data: Mapping[str, Any]) -> list[str]:
    said = [f"source: {code(shown(config.scenes))}"]
    for name, value in data.items():
        if name != "source" and value not in (None, "", {}, []):
            said.append(f"{name.replace('_', ' ')}: {_listed(value)}")
    return said


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{code(name)} {_listed(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_listed, value))
    return f"{value:,}" if isinstance(value, int) else code(str(value))


def _asked(config: Config) -> list[str]:
    limits = {"at least": config.min_pixels, "at most": config.max_pixels}
    pixels = [f"{most} {number:,} pixels" for most, number in limits.items() if number]
    return [
        f"wording: `{config.wording}` (`vergence.rollout.render.WORDINGS`)",
        f"images: {', '.join(pixels) or 'as large as its processor makes them'}",
        f"sampling: temperature {config.temperature:g}, at most {config.max_tokens} tokens, {config.siblings} "
        f"responses to a question, seed {config.seed}",
        f"verifier: {code(VERSION)}",
        f"rewards: {', '.join(map(code, map(shown, config.rewards))) if config.rewards else 'the method’s own'}",
    ]


# ------------------------------------------------------------------------------------------ what others have named


def is_hub_name(name: str) -> bool:
    """Whether it reads as owner/name, and no such file or folder is here.

    >>> [is_hub_name(name) for name in ("Qwen/Qwen2.5-VL-3B-Instruct", "./mine", "a/b/c", "a/b\\nc", "data/own.jsonl")]
    [True, False, False, False, False]
    """
    return bool(HUB_NAME.fullmatch(name)) and not name.endswith(FILES) and not Path(name).exists()


def shown(name: str) -> str:
    """A model, source or function as the world may read it: a Hub name, or of a path its last part; no address.

    >>> shown("/home/me/own.jsonl,hiyouga/geometry3k@test"), shown("geometry3k:/data/a.parquet")
    ('own.jsonl,hiyouga/geometry3k@test', 'geometry3k:a.parquet')
    >>> shown("http://10.0.0.1:8000/v1"), shown("/home/me/rewards.py:short")
    ('a server', 'rewards.py:short')
    """
    return "a server" if "://" in name else ",".join(map(_last_part, name.split(",")))


def _last_part(name: str) -> str:
    base, mark, rest = re.match(r"([^@:#]*)([@:#]?)(.*)", name, re.DOTALL).groups()
    if is_hub_name(base) and "/" not in rest:
        return name
    return PurePath(name).name if "/" in base else base + mark + PurePath(rest).name


def code(text: str) -> str:
    """Text that nobody vouches for, as Markdown that shows it and does nothing else.

    >>> code("a`b\\n# c"), code("")
    ('`` a`b # c ``', '` `')
    """
    plain = " ".join(harmless(text).split())
    fence = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    pad = " " if not plain or "`" in plain else ""
    return f"{fence}{pad}{plain}{pad if plain else ''}{fence}"


def fenced(text: str, language: str) -> str:
    """A block of code that nothing within it ends.

    >>> print(fenced("a: 1", "yaml"))
    ```yaml
    a: 1
    ```
    """
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _without_places(config: Config) -> Config:
    """The config, with of every path its last part alone."""
    places = {name: shown(getattr(config, name)) for name in ("model", "scenes", "pictures")}
    for name in ("captions", "reasoner", "sampler"):
        places[name] = "http://SERVER" if "://" in getattr(config, name) else shown(getattr(config, name))
    return replace(config, **places, rewards=tuple(map(shown, config.rewards)))
