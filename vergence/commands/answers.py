"""What `vergence eval` asks, keeps, and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vergence.commands.given import Data, Loading, asked_as
from vergence.report.table import print_json, print_table
from vergence.types import Scene, UserError, Wording

if TYPE_CHECKING:
    from vergence.evaluate.suite import Record
    from vergence.scenes.source import Source
    from vergence.train.config import Config


@dataclass(frozen=True)
class Put:
    """How questions are put."""

    samples: int = 8
    """Answers to each question: k of avg@k, pass@k and maj@k."""
    seed: int = 0
    """Of the scenes and of the sampling noise."""
    show: Literal["image", "blank"] = "image"
    """The image, or a grey one in its place."""
    wording: Wording | None = None
    """How a question is put; by default as the model was trained, else short."""
    max_tokens: int | None = None
    """Longest answer; by default as the model was trained, else 64, or 2048 but for --wording short."""
    temperature: float = 1.0
    """Of sampling; 0 takes the likeliest token every time."""
    at_once: int = 256
    """Answers that are sampled at once: memory. Go on with the number that you began with."""

    def how(self, trained: Config | None) -> dict[str, Any]:
        """The arguments of `evaluate.suite.answer`.

        Raises:
            UserError: a number is out of its range.
        """
        from vergence.evaluate.suite import conditions
        from vergence.types import ORIGINAL, Blank

        if self.at_once < 1:
            raise UserError(f"--at-once must be at least 1, got {self.at_once}")
        wording, max_tokens = asked_as(trained, self.wording, self.max_tokens, "short")
        how = {"wording": wording, "max_tokens": max_tokens, "temperature": self.temperature, "samples": self.samples}
        how["show"] = Blank() if self.show == "blank" else ORIGINAL
        conditions(**how)
        return how | {"seed": self.seed, "at_once": self.at_once}


@dataclass(frozen=True)
class Behind:
    """What answers in the model's place."""

    reasoner: str = ""
    """Let this one answer, from the model's caption and tentative answer: weak, strong, a folder or a URL."""
    reasoner_model: str = ""
    """The name of a server's model; by default its first."""
    reasoner_cache: Path | None = None
    """A folder that keeps a server's answers, so that none is asked for twice."""

    @property
    def named(self) -> str:
        """The reasoner's name as the records tell it."""
        return " ".join(filter(None, (self.reasoner, self.reasoner_model)))


class Asking(NamedTuple):
    """How questions are put to any model: everything but the model, and where its answers go."""

    scenes: Sequence[Scene]
    how: Mapping[str, Any]
    """seed, samples, show, temperature, max_tokens, wording, at_once."""
    loading: Loading
    behind: Behind

    def __call__(self, model: str, out: Path | None, **other: Any) -> list[Record]:
        """The records of a model's answers; those that `out` holds already are not asked for again.

        Each chunk is in `out` as soon as it is there, so that nothing is lost with what follows.

        Args:
            other: what is asked otherwise than `how` says.

        Raises:
            UserError: there is no such model; or `out` holds answers to something else, or another process adds to it.
        """
        from vergence.evaluate import suite
        from vergence.evaluate.kept import alone, appending, begun
        from vergence.evaluate.pipeline import answer_by_reasoner
        from vergence.rollout.reason import load_reasoner
        from vergence.train.display import counting
        from vergence.train.hub import refuse_unreachable

        given = {**self.how, **other}
        policy = self.loading.load(model)
        under = suite.under(policy, **{name: value for name, value in given.items() if name != "at_once"})
        if self.behind.reasoner:
            name, model_there, cache = astuple(self.behind)
            refuse_unreachable(name)
            reasoner = load_reasoner(name, model=model_there, cache=cache, device=self.loading.device)
            under["reasoner"] = self.behind.named
        chunk = given["at_once"] if self.behind.reasoner else suite.chunk(given["samples"], given["at_once"])
        with alone(out), counting("answers") as told:
            done = begun(out, self.scenes, under, chunk=chunk) if out else []
            asked = {"told": told, "keep": appending(out), "done": done, **given}
            if self.behind.reasoner:
                return answer_by_reasoner(policy, reasoner, self.scenes, named=under["reasoner"], **asked)
            return suite.answer(policy, self.scenes, **asked)


def opened(data: Data, trained: Config | None, *outs: Path | None) -> Source:
    """What is asked, which is not to be written over with the answers; nor is any other file but such answers.

    Raises:
        UserError: it would be.
    """
    from vergence.evaluate.kept import refuse_unwritable
    from vergence.evaluate.suite import refuse_overwriting

    written = [out for out in outs if out]
    for out in written:
        refuse_overwriting(out)
    source = data.open(trained)
    files = [Path(part.table.file) for part in getattr(source, "parts", ())]
    for out in written:
        if out.exists() and any(file.exists() and out.samefile(file) for file in files):
            raise UserError(f"--out {out} is the data set itself; give another file")
    for out in written[:1]:
        refuse_unwritable(out)
    return source


def answers_in(against: str, asking: Asking) -> list[Record]:
    """The answers in a file to compare with; none where it is no file.

    They are refused before anything is asked, unless they are to what will be asked, under the same conditions.

    Raises:
        UserError: the file holds no answers, or others.
    """
    from vergence.evaluate.asked import image_sha
    from vergence.evaluate.compare import refuse_unlike
    from vergence.evaluate.suite import IN_EVERY, conditions
    from vergence.rewards.verify import VERSION
    from vergence.train.run import read_lines

    if not Path(against).is_file():
        return []
    records = list(read_lines(Path(against)))
    if not records or not all(isinstance(one, dict) and one.keys() >= IN_EVERY for one in records):
        raise UserError(f"{against} holds no answers of an evaluation; give --against a run, a model, or such a file")
    so = conditions(**{name: value for name, value in asking.how.items() if name not in ("seed", "at_once")})
    so |= {"verifier": VERSION, **({"caption": "", "reasoner": asking.behind.named} if asking.behind.reasoner else {})}
    asked = [
        {"scene": one.key, "question": one.question, "gold": one.gold.text, "image_sha": image_sha(one), **so}
        for one in asking.scenes
    ]
    refuse_unlike(records, asked)
    return records


class Found(NamedTuple):
    """What was asked."""

    records: list[Record]
    blind: list[Record]
    """Without the image; empty unless buckets are measured."""
    other: list[Record]
    """What it is compared with; empty if nothing."""


def title(split: str, show: str, how: Mapping[str, Any], behind: Behind) -> str:
    """What was asked, and how."""
    put = f"wording {how['wording']}, at most {how['max_tokens']} tokens, temperature {how['temperature']:g}"
    told = f"avg@{how['samples']}, {split} split, shown: {show}; {put}"
    return f"{told}, answered by the reasoner {behind.reasoner} from the model's captions" if behind.reasoner else told


def tell_json(found: Found, conditions: Mapping[str, Any]) -> None:
    """Print one line: conditions, overall, worlds, and where there are any, buckets and against."""
    from vergence.evaluate.buckets import buckets_as_json, by_level
    from vergence.evaluate.compare import compare, detectable
    from vergence.evaluate.counted import as_json, macro, tables

    lines = {name: as_json(one) for name, one in tables(found.records).items()}
    overall = lines.pop("overall") | {"macro": macro(found.records)._asdict()}
    how = {name: value for name, value in conditions.items() if name != "show"}
    told = {"conditions": how, "overall": overall, "worlds": lines}
    if levels := by_level(found.records, found.blind):
        told["buckets"] = buckets_as_json(levels, measured=bool(found.blind))
    if found.other:
        rows = compare(found.other, found.records)
        told["against"] = {
            "tests": len(rows) - 1,
            "smallest_detectable": detectable(found.other, found.records),
            "rows": {name: one._asdict() | {"difference": one.difference._asdict()} for name, one in rows.items()},
        }
    print_json(told)


def tell(found: Found, title: str) -> None:
    """Print the tables: by world, by vision dependency, and against the other."""
    from vergence.evaluate.buckets import by_level
    from vergence.evaluate.counted import cells, columns, macro, tables

    lines = tables(found.records)
    samples, caption = lines["overall"].samples, "caption" in found.records[0]
    rows = [cells(name, one) for name, one in lines.items()]
    if len({one.accuracy.n for name, one in lines.items() if name != "overall"}) > 1:
        mean = macro(found.records)
        rows.append(["mean of worlds", str(mean.n), f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]", *[""] * 6])
    print_table(title, columns(samples, caption=caption), rows)
    errors = lines["overall"].errors
    if errors:
        print("wrong by: " + ", ".join(f"{name} {share:.3f}" for name, share in errors.items()) + " of all answers")
    if levels := by_level(found.records, found.blind):
        rows = [
            [*cells(level, one.seeing)[:5], *(_signless(x) for x in (one.blind, one.gain))]
            for level, one in levels.items()
        ]
        how = "measured: half of the answers to a grey picture decide" if found.blind else "as the data declares it"
        head = [*columns(samples)[:5], "grey picture", "the picture adds"]
        print_table(f"by vision dependency, {how}", head, rows)
    if found.other:
        _tell_against(found)


def _signless(one: Any) -> str:
    return "" if one is None else f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _tell_against(found: Found) -> None:
    from vergence.evaluate.compare import compare, detectable

    compared = compare(found.other, found.records)
    rows = [
        [
            name,
            str(one.difference.n),
            f"{one.difference.mean:+.3f} [{one.difference.low:+.3f}, {one.difference.high:+.3f}]",
            f"{one.p:.4f}",
            "" if one.holm is None else f"{one.holm:.4f}",
        ]
        for name, one in compared.items()
    ]
    tests = len(compared) - 1
    title = f"this model less the other, paired on the same questions; Holm over {tests} test{'s' * (tests > 1)}"
    print_table(title, ["", "n", "difference [95 %]", "p (sign flips)", "p (Holm)"], rows)
    least = detectable(found.other, found.records)
    if least is not None:
        print(f"a true difference of {least:.3f} over all would be found with a probability of 80 %")
