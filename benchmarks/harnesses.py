"""Our exports before the loaders of lmms-eval and VLMEvalKit themselves: `python -m benchmarks.harnesses --help`.

Needs lmms-eval (0.7.3) and ms-vlmeval (0.0.20) beside vergence, and no network and no GPU; docs/harnesses.md says how
they were installed and what came out. Each check prints a line, and the first that fails ends the run.

VLMEvalKit's Qwen classes refuse to start where there is no GPU and ask for FlashAttention. Here they are told that
there is a GPU, and transformers is told to load for this CPU; all else is theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

WORLDS = ("digits", "bars", "mosaic")
SAMPLES, SEED = 2, 0


def check(what: str, right: bool, detail: object = "") -> None:
    """Say that it is so, or end."""
    print(f"{'ok  ' if right else 'FAIL'} {what}{f': {detail}' if detail != '' else ''}", flush=True)
    if not right:
        sys.exit(1)


def exported(folder: Path, to: str, number: int) -> dict[str, Any]:
    """Questions for the seedling, exported by the command itself; what it said as JSON."""
    from vergence.commands.exporting import Asking, export
    from vergence.commands.given import Data

    asking = Asking(number=number, samples=SAMPLES, seed=SEED)
    with redirect_stdout(StringIO()) as said:
        export("seedling", to, folder, data=Data(worlds=WORLDS), asking=asking, json=True)
    return json.loads(said.getvalue())


def ours(number: int) -> tuple[Any, list[Any], list[dict[str, Any]]]:
    """The seedling, the questions, and our own records of its answers to them."""
    from vergence.evaluate.suite import answer
    from vergence.models.policy import load
    from vergence.scenes.source import Embedded

    policy, scenes = load("seedling"), Embedded(WORLDS).held_out("report", number, seed=SEED)
    return policy, scenes, answer(policy, scenes, samples=SAMPLES, seed=SEED)


def rescored(folder: Path, file: Path, out: Path) -> dict[str, Any]:
    """What `vergence export --score` says of a harness's answers."""
    from vergence.commands.exporting import export

    with redirect_stdout(StringIO()) as said:
        export(str(folder), "neutral", out, score=file, json=True)
    return json.loads(said.getvalue())


def hostile() -> list[Any]:
    """Questions that a table, a YAML or a program could take for something else; one has two pictures in its words."""
    import numpy as np
    from PIL import Image

    from vergence import chance
    from vergence.types import IMAGE, Gold, Scene

    def scene(key: str, question: str, gold: Gold, pictures: int = 1) -> Scene:
        noise = [chance.rng(key, at).integers(0, 256, (9, 7, 3), dtype=np.uint8) for at in range(pictures)]
        return Scene(key=key, world="w", images=tuple(map(Image.fromarray, noise)), question=question, gold=gold)

    return [
        scene(
            "../../x",
            "a\tb\nc\r\n\"d\" 'e' {f} %s : - !!python/object:os.system [1] \u202e é",
            Gold("x+1", "expression"),
        ),
        scene("task: !!x", "NA", Gold("2001-01-01", "word")),
        scene("=1+1", f"Is {IMAGE} in {IMAGE}?", Gold("null", "word"), pictures=2),
    ]


def written(folder: Path, scenes: list[Any]) -> Path:
    """The folder of these questions."""
    from vergence.harnesses.questions import Putting, write_questions

    how = Putting(name="hostile", split="report", wording="boxed", samples=2, temperature=1.0, max_tokens=9)
    write_questions(folder, scenes, how)
    return folder


# ---------------------------------------------------------------------------------------------------- lmms-eval


def check_hostile_task(folder: Path) -> None:
    """Hostile questions come through lmms-eval as they are; a symbolic answer is judged in its process."""
    import numpy as np
    from lmms_eval.tasks import TaskManager

    from vergence.harnesses.lmms_eval import write_pack
    from vergence.rollout.render import put

    scenes = hostile()
    name = write_pack(written(folder, scenes), tell=lambda line: None)
    task = loaded(TaskManager(include_path=str(folder), include_defaults=False), name, "chat")
    same = 0
    for doc, scene in zip(task.eval_docs, scenes, strict=True):
        parts = task.doc_to_messages(doc)[0]["content"]
        shown = [np.asarray(part["url"]).tolist() for part in parts if part["type"] == "image"]
        text = "".join(part.get("text", "") for part in parts)
        same += shown == [np.asarray(image).tolist() for image in scene.images]
        same += text == put(scene.question, wording="boxed").replace("\ufffc", "") and doc["gold"] == scene.gold.text
    check("hostile questions come through as they are", same == 2 * len(scenes), f"{same}/{2 * len(scenes)}")
    found = task.process_results(task.eval_docs[0], [["\\boxed{1+x}", "\\boxed{x+2}"]])
    check("expressions are compared", found["accuracy"] == 0.5, found)


def loaded(manager: Any, name: str, kind: str) -> Any:
    """The task as lmms-eval builds it for models of a kind, "simple" or "chat"."""
    from lmms_eval.tasks import get_task_dict

    return get_task_dict([name], manager, kind)[name]


def check_task(pack: Path, name: str, policy: Any, scenes: list[Any]) -> Any:
    """lmms-eval's own TaskManager finds the task; its prompts are ours, token for token; its verdicts too."""
    from lmms_eval.tasks import TaskManager

    from vergence.rollout.render import put, render
    from vergence.types import ORIGINAL

    manager = TaskManager(include_path=str(pack), include_defaults=False)
    check("TaskManager(include_path=...) finds the task", name in manager.all_tasks, name)
    simple, chat = loaded(manager, name, "simple"), loaded(manager, name, "chat")
    check(
        "it builds as many docs as questions, for both kinds of model",
        {len(simple.eval_docs), len(chat.eval_docs)} == {len(scenes)},
        len(scenes),
    )
    same = 0
    for doc, scene in zip(chat.eval_docs, scenes, strict=True):
        prompt, wanted = read_by(policy, chat.doc_to_messages(doc)), render(policy.reader, scene, ORIGINAL, 0)
        same += prompt.tokens == wanted.tokens and bool((prompt.pixels == wanted.pixels).all())
        same += simple.doc_to_text(doc) == put(scene.question) and len(simple.doc_to_visual(doc)) == len(scene.images)
    check(
        "its messages give our prompt: every token and every pixel the same",
        same == 2 * len(scenes),
        f"{same}/{2 * len(scenes)}",
    )
    doc = chat.eval_docs[0]
    right, wrong = f"<think>so</think>\\boxed{{{doc['gold']}}}", "\\boxed{1000003}"
    for answers, wanted in (
        ([right], (1, 0)),
        ([wrong], (0, 0)),
        ([""], (0, 1)),
        ([right, wrong, "", ""], (0.25, 0.5)),
    ):
        found = chat.process_results(doc, [answers])
        check(f"process_results of {len(answers)} answer(s)", (found["accuracy"], found["unparsed"]) == wanted, found)
    long = chat.process_results(doc, [["1 " * 200]])
    check("a long answer is truncated", long["truncated"] == 1.0, long)
    return manager


def read_by(policy: Any, messages: list[dict[str, Any]]) -> Any:
    """The prompt of one turn as our reader reads it: each image in its place."""
    from vergence.types import IMAGE

    parts = messages[0]["content"]
    text = "".join(part["text"] if part["type"] == "text" else IMAGE for part in parts)
    return policy.reader.prompt(text, [part["url"] for part in parts if part["type"] == "image"])


def answering(policy: Any) -> Any:
    """A model of lmms-eval that answers with our sampler, its noise keyed as `vergence eval` keys it."""
    from lmms_eval.api.model import lmms

    from vergence import chance
    from vergence.rollout.decode import sampler_of
    from vergence.types import Asked

    class Ours(lmms):
        is_simple = False

        def generate_until(self, requests: list[Any]) -> list[str]:
            asked, seen = [], Counter[int]()
            for request in requests:
                _, doc_to_messages, how, doc_id, task, split = request.args
                doc = self.task_dict[task][split][doc_id]
                key = chance.key(SEED, "evaluation", doc["item_id"], seen[doc_id])
                seen[doc_id] += 1
                asked.append(Asked(read_by(policy, doc_to_messages(doc)), key))
            drawn = sampler_of(policy)(asked, temperature=how["temperature"], max_tokens=how["max_new_tokens"])
            return [policy.reader.text(one.tokens) for one in drawn]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise NotImplementedError

    return Ours()


def check_same_answers(manager: Any, name: str, policy: Any, records: list[dict[str, Any]]) -> None:
    """`simple_evaluate` over the same answers says what `vergence eval` says, question by question."""
    from lmms_eval.evaluator import simple_evaluate

    from vergence.evaluate.suite import accuracy, by_question

    found = simple_evaluate(model=answering(policy), tasks=[name], task_manager=manager, repeats=SAMPLES)
    theirs = {sample["doc"]["item_id"]: sample["accuracy"] for sample in found["samples"][name]}
    said = [text for sample in found["samples"][name] for text in sample["filtered_resps"][0]]
    check("simple_evaluate, our sampler: the answers are ours", said == [one["response"].strip() for one in records])
    check("... and so is each question's accuracy", theirs == by_question(records), f"{len(theirs)} questions")
    check(
        "... and the mean",
        abs(found["results"][name]["accuracy,all"] - accuracy(records)) < 1e-12,
        f"{accuracy(records):.4f}",
    )
    unparsed = sum(one["status"] == "unparsed" for one in records) / len(records)
    check("... and the unparsed", abs(found["results"][name]["unparsed,all"] - unparsed) < 1e-12, f"{unparsed:.4f}")
    cut = sum(one["finish"] == "length" for one in records) / len(records)
    counted = found["results"][name]["truncated,all"]
    check(
        "truncated, counted from the text, beside what the sampler knows",
        abs(counted - cut) <= 0.05,
        f"{counted:.4f}, {cut:.4f}",
    )


def check_whole(pack: Path, name: str, out: Path, model: Path) -> None:
    """The command line with lmms-eval's own Qwen3-VL class; what it says is what `--score` says of its samples."""
    words = [sys.executable, "-m", "lmms_eval", "--model", "qwen3_vl", "--include_path", str(pack), "--tasks", name]
    words += ["--model_args", f"pretrained={model},device=cpu,device_map=cpu", "-n", str(SAMPLES), "--batch_size", "8"]
    words += ["--log_samples", "--output_path", str(out)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    check(
        "python -m lmms_eval --model qwen3_vl ends well",
        ran.returncode == 0,
        ran.stderr[-300:] if ran.returncode else "",
    )
    (samples,), (results,) = out.glob("*/*samples*.jsonl"), out.glob("*/*results.json")
    theirs = json.loads(results.read_text())["results"][name]
    found = rescored(pack, samples, out / "scored")["worlds"]["overall"]
    for metric, mine in (
        ("accuracy", found["accuracy"]["mean"]),
        ("unparsed", found["unparsed"]),
        ("truncated", found["cut_off"]),
    ):
        check(
            f"--score says of its samples what its results say: {metric}",
            abs(theirs[f"{metric},all"] - mine) < 1e-12,
            f"{mine:.4f}",
        )


# ---------------------------------------------------------------------------------------------------- VLMEvalKit


def check_data(folder: Path, scenes: list[Any]) -> None:
    """VLMEvalKit's own config loader builds the data set; its pictures and words are ours."""
    import numpy as np
    from PIL import Image
    from vlmeval.run import build_dataset_from_config

    from vergence.rollout.render import put

    config = json.loads((folder / "vlmevalkit.json").read_text())
    (name,) = config["data"]
    data = build_dataset_from_config(config["data"], name)
    check(
        "build_dataset_from_config builds the data set",
        len(data) == len(scenes) * SAMPLES,
        f"{type(data).__name__}, {len(data)} rows",
    )
    check("it is open-ended, not multiple choice", data.TYPE == "VQA", data.TYPE)
    same = 0
    for row in range(len(data)):
        picture, words = data.build_prompt(row)
        scene = scenes[row // SAMPLES]
        seen = np.asarray(Image.open(picture["value"]).convert("RGB"))
        same += bool((seen == np.asarray(scene.images[0].convert("RGB"))).all()) and words["value"] == put(
            scene.question
        )
    check("its prompts are our pictures, pixel for pixel, and our words", same == len(data), f"{same}/{len(data)}")


def check_hostile_data(folder: Path) -> None:
    """Hostile questions come through VLMEvalKit as they are."""
    import numpy as np
    from PIL import Image
    from vlmeval.run import build_dataset_from_config

    from vergence.harnesses.vlmevalkit import write_table
    from vergence.rollout.render import put

    scenes = hostile()
    name = write_table(written(folder, scenes))
    os.environ |= {"LMUData": str(folder)}  # as VLMEvalKit spells it
    data = build_dataset_from_config({name: {"class": "CustomVQADataset", "dataset": name}}, name)
    same = 0
    for row in range(len(data)):
        *pictures, words = data.build_prompt(row)
        scene = scenes[row // 2]
        shown = [np.asarray(Image.open(picture["value"]).convert("RGB")).tolist() for picture in pictures]
        same += shown == [np.asarray(image).tolist() for image in scene.images]
        same += words["value"] == put(scene.question, wording="boxed").replace("\ufffc", "").strip()
    check("hostile questions come through as they are", same == 4 * len(scenes), f"{same}/{4 * len(scenes)}")


def on_a_cpu() -> Iterator[None]:
    """While this is open VLMEvalKit believes in a GPU, and transformers loads for the CPU."""
    import transformers
    import vlmeval.vlm.qwen3_vl.model as theirs

    auto = transformers.AutoModelForImageTextToText
    before, gpus = auto.from_pretrained, theirs.get_gpu_memory
    theirs.get_gpu_memory = lambda: [1]

    def load(path: str, **how: Any) -> Any:
        how |= {"attn_implementation": "sdpa", "device_map": None}
        return before(path, **how)

    auto.from_pretrained = load
    yield
    auto.from_pretrained, theirs.get_gpu_memory = before, gpus


def check_model(folder: Path) -> None:
    """Every key of the config is an argument of the class that it names, for each class; and what it samples with."""
    import inspect

    import vlmeval.vlm
    from vlmeval.run import build_model_from_config

    from vergence.harnesses.questions import Putting
    from vergence.harnesses.vlmevalkit import CLASSES, entry

    how = Putting(name="a", split="report", wording="boxed", samples=8, temperature=1.0, max_tokens=2048)
    for kind in CLASSES:
        keys = entry(kind, "m", how, min_pixels=1, max_pixels=2)
        takes = inspect.signature(getattr(vlmeval.vlm, keys.pop("class")).__init__).parameters
        check(f"{kind}: the class takes every key of its entry", keys.keys() <= takes.keys(), ", ".join(keys))
    config = json.loads((folder / "vlmevalkit.json").read_text())["model"]
    (name,) = config
    opened = on_a_cpu()
    next(opened)
    model = build_model_from_config(config, name)
    check("build_model_from_config builds the model", type(model).__name__ == "Qwen3VLChat", model.generate_kwargs)
    check("it puts no words of its own", not model.use_custom_prompt("anything_openended"))
    next(opened, None)


def check_answers(folder: Path, out: Path) -> None:
    """VLMEvalKit's own command over its own class; its predictions, in each of its formats, judged by us."""
    import pandas
    from vlmeval import run as theirs
    from vlmeval.smp import dump, load

    opened = on_a_cpu()
    next(opened)
    sys.argv = ["run.py", "--config", str(folder / "vlmevalkit.json"), "--mode", "infer", "--work-dir", str(out)]
    with redirect_stdout(StringIO()):
        theirs.main()
    next(opened, None)
    (file,) = out.glob("**/*_openended.json")
    first = rescored(folder, file, out / "scored-json")
    check("its predictions are read and judged", first["missing"] == 0 and first["answers"] > 0, first["answers"])
    for ending in ("tsv", "xlsx"):
        again = out / f"again.{ending}"
        dump(pandas.DataFrame(load(str(file))), str(again))
        found = rescored(folder, again, out / f"scored-{ending}")
        check(f"written by it as {ending}, they are judged alike", found["worlds"] == first["worlds"])


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=24, help="questions")
    parser.add_argument("--only", choices=("lmms-eval", "vlmevalkit"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "PRED_FORMAT": "json"}
        os.environ |= {"LMUData": str(folder / "kit"), "TRANSFORMERS_VERBOSITY": "error"}
        policy, scenes, records = ours(given.number)
        if given.only != "vlmevalkit":
            from vergence.models.folder import SEEDLING

            name = exported(folder / "pack", "lmms-eval", given.number)["task"]
            manager = check_task(folder / "pack", name, policy, scenes)
            check_hostile_task(folder / "hostile-pack")
            check_same_answers(manager, name, policy, records)
            check_whole(folder / "pack", name, folder / "answers", SEEDLING)
        if given.only != "lmms-eval":
            exported(folder / "kit", "vlmevalkit", given.number)
            check_data(folder / "kit", scenes)
            check_model(folder / "kit")
            check_answers(folder / "kit", folder / "predictions")
            check_hostile_data(folder / "hostile-kit")
    print("all is as it should be")


if __name__ == "__main__":
    main()
