"""Reward functions with TRL's signature, and what the trainer is handed: a data set and a processor."""

import asyncio
import inspect
import threading

import pytest
import torch

pytest.importorskip("trl")

from integrations.trl_case import dataset_of, logged, processor_of, scenes, seedling, trainer_of

from vergence.integrations.trl_rewards import (
    caption_prompt,
    format_reward,
    racro_reward,
    refuse_without_reasoner,
    verifier_reward,
)
from vergence.models.policy import load
from vergence.objectives import method
from vergence.rollout.render import put
from vergence.scenes import embedded
from vergence.types import UserError

COLUMNS = {"solution": ["7", "B"], "question": ["How many?", "Which?"], "kind": ["integer", "choice"]}


def talk(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_the_verifier_gives_ones_and_zeros_of_text_and_of_conversations():
    accuracy = verifier_reward(wording="boxed")
    assert accuracy.__name__ == "accuracy"
    assert accuracy(prompts=[], completions=["\\boxed{7}", "\\boxed{A}"], **COLUMNS) == [1.0, 0.0]
    assert accuracy(prompts=[], completions=talk("\\boxed{8}", "\\boxed{B}"), **COLUMNS) == [0.0, 1.0]
    with pytest.raises(UserError, match="column 'solution'"):
        accuracy(completions=["7"])
    with pytest.raises(UserError, match="row 0"):
        accuracy(completions=["7"], solution=["x"], kind=["integer"])
    assert format_reward(wording="think")(completions=talk("<think>so</think>\\boxed{1}", "1")) == [1.0, 0.0]


def test_racro_asks_the_reasoner_after_each_caption_and_is_awaited():
    asked, threads = [], []

    def reasoner(questions, *, temperature, max_tokens):
        asked.append([one.text for one in questions])
        threads.append(threading.current_thread())
        return ["<think>so</think>\\boxed{7}"] * len(questions)

    racro = racro_reward(reasoner=reasoner, samples=2, leak=0.5)
    assert inspect.iscoroutinefunction(racro)
    captions = ["three red dots and four blue ones", "the answer is B"]
    rewards = asyncio.run(racro(prompts=[], completions=talk(*captions), completion_ids=[[1], [2]], **COLUMNS))
    assert rewards == [1.0, -0.5]
    assert [len(one) for one in asked] == [4]
    assert "three red dots" in asked[0][0]
    assert "How many?" in asked[0][0]
    assert threads[0] is not threading.main_thread()  # others of TRL's asynchronous functions go on meanwhile
    with pytest.raises(UserError, match="column 'question'"):
        asyncio.run(racro(completions=talk("a"), solution=["7"]))


def test_racro_says_the_same_in_the_same_step_and_something_else_in_another():
    keys = []

    def reasoner(questions, *, temperature, max_tokens):
        keys.append([one.key for one in questions])
        return ["\\boxed{7}"] * len(questions)

    racro = racro_reward(reasoner=reasoner, samples=2)
    state = type("State", (), {"global_step": 0})
    for step in (0, 0, 1):
        state.global_step = step
        asyncio.run(racro(completions=talk("a", "a"), trainer_state=state, **COLUMNS))
    assert keys[0] == keys[1] != keys[2]
    assert len(set(keys[0])) == 4


def test_racro_trains_captions_inside_trl_with_the_reasoner_in_the_package(tmp_path):
    data = dataset_of(scenes(2), ask="caption")
    assert data[0]["prompt"][0]["content"][-1]["text"] == caption_prompt(data[0]["question"])
    trainer = trainer_of(
        tmp_path, "racro", {"beta": 0}, data=data, reward_funcs=racro_reward(reasoner="strong"),
        max_completion_length=40, policy=load("seedling"),
    )  # fmt: skip
    trainer.train()
    line = logged(trainer)[0]
    assert 0 < line["rewards/racro/mean"] <= 1
    assert "loss/surrogate" in line


def test_options_of_racro_that_the_reward_function_does_not_follow_are_refused():
    def reasoner(questions, *, temperature, max_tokens):
        return ["7"] * len(questions)

    asked = [verifier_reward(), racro_reward(reasoner=reasoner, samples=4, leak=0.5)]
    for options in ({}, {"samples": 4}, {"leak": 0.5}):
        refuse_without_reasoner(method("racro", **options), asked)
    for options, word in (({"samples": 2}, "samples=2"), ({"leak": 0.1}, "leak=0.1")):
        with pytest.raises(UserError, match=word):
            refuse_without_reasoner(method("racro", **options), asked)
    with pytest.raises(UserError, match="among the reward functions"):
        refuse_without_reasoner(method("racro"), asked[:1])


def test_a_data_set_says_what_the_scenes_say():
    drawn = scenes(4)
    for row, scene in zip(dataset_of(drawn), drawn, strict=True):
        assert row["key"] == scene.key
        assert row["solution"] == scene.gold.text
        assert row["caption"] == scene.caption
        assert row["images"][0].tobytes() == scene.images[0].tobytes()
        words = "".join(part["text"] or "" for part in row["prompt"][0]["content"])
        assert words == put(scene.question)
    with pytest.raises(UserError, match="at least one"):
        dataset_of([])


def test_the_processor_reads_what_the_reader_reads(tmp_path):
    policy, drawn = seedling(), scenes(3)
    processor = processor_of(policy)
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]] * 3
    texts = processor.apply_chat_template(turns, add_generation_prompt=True)
    many = [scene.images[0].resize((48 + 16 * at, 48)) for at, scene in enumerate(drawn)]
    made = processor(text=texts, images=[[one] for one in many], padding=True, return_tensors="pt")
    prompts = [policy.reader.prompt("What?", [one]) for one in many]
    want = policy.inputs(prompts)
    assert made.keys() == want.keys()
    for name, value in want.items():
        assert torch.equal(made[name], value), name
    with pytest.raises(UserError, match=r"1 place\(s\) for images, and 0"):
        processor(text=texts[:1])
    processor.save_pretrained(tmp_path)
    assert {"tokenizer.json", "preprocessor_config.json", "processor_config.json"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_worlds_that_need_captions_have_them():
    assert all(row["caption"] for row in dataset_of(embedded.draw_many(("digits",), "tune", 3)))
