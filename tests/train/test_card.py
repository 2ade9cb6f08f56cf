"""A model card says what was done and measured, and shows what others have named without obeying it."""

import re
from dataclasses import replace

import yaml

from vergence.recipes import recipe
from vergence.train.card import Number, card, code
from vergence.train.config_file import from_yaml

DATA = {"source": "x", "rows": {"train": 8000, "tune": 1000}, "content": "ab" * 32, "kinds": {"choice": 9000}}
MEASURED = [Number("accuracy on the tune split, step 60", 0.5, 0.4, 0.6, 96)]


def header(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_header_is_what_the_hub_reads():
    found = header(card(recipe("qwen2.5-vl-3b", "papo"), DATA, step=60))
    assert found["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert (found["library_name"], found["pipeline_tag"]) == ("transformers", "image-text-to-text")
    assert found["datasets"] == ["PAPOGalaxy/PAPO_ViRL39K_train"]
    assert {"vergence", "papo", "arxiv:2507.06448"} <= set(found["tags"])
    assert "datasets" not in header(card(recipe("demo"), {}, step=1))


def test_everything_that_a_number_depends_on_is_there():
    config = recipe("qwen2.5-vl-7b", "papo@release")
    told = card(config, DATA, step=60, numbers=MEASURED)
    for part in (
        "**0.500** (95 % interval [0.400, 0.600], 96 questions)",
        "after 60 of 606 optimizer steps",
        "ab" * 32,
        "`train` 8,000",
        "at most 1,003,520 pixels",
        "temperature 1",
        "seed 0",
        "verifier: `vergence-verifier",
        "- vergence 0.",
        "the code averages the means of micro-batches",
    ):
        assert part in told, part
    assert "No evaluation was made" in card(config, DATA, step=60)


def test_the_config_in_it_makes_the_same_run():
    config = recipe("qwen2.5-vl-3b", "cppo")
    (block,) = re.findall(r"```yaml\n(.*?)```", card(config, DATA, step=1), re.DOTALL)
    assert from_yaml(block) == config


def test_places_of_this_machine_and_servers_are_not_told():
    config = replace(
        recipe("demo"), scenes="/home/me/secret/own.jsonl", model="/home/me/models/mine", reasoner="strong"
    )
    told = card(replace(config, captions="http://10.1.2.3:8000/v1", rewards=("/home/me/own.py:reward",)), {}, step=1)
    assert "own.jsonl" in told
    assert "own.py:reward" in told
    for hidden in ("/home", "secret", "10.1.2.3"):
        assert hidden not in told


def test_names_of_others_are_shown_and_not_obeyed():
    evil = "a`b\n# Big\n---\nlicense: mit\n<script>x</script>|[l](http://e)"
    told = card(replace(recipe("demo"), scenes=evil), {"rows": {evil: 3}, "refused": {evil: 1}}, step=1)
    lines = told.split("```yaml")[0].splitlines()
    assert sum(line == "---" for line in lines) == 2
    assert not any(line.startswith("# Big") for line in lines)
    assert "license" not in header(told)
    for line in lines:
        outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)
        assert "<script>" not in outside
        assert "](http" not in outside or "vergence" in outside
    assert "\n" not in code("a\nb")
