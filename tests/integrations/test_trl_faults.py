"""What was wrong with the PAPO that TRL once had, and what its trainer lets go wrong silently: a test for each."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("trl")

from datasets import Dataset
from integrations.trl_case import Watching, dataset_of, logged, policy_of, scenes, seedling, trainer_of

from vergence.integrations.trl_data import ImagesAndText
from vergence.integrations.trl_scoring import Looking, Whole
from vergence.integrations.trl_views import conversation, prompts_of, reader_of, refuse_resized, scene_of
from vergence.models.policy import Policy
from vergence.scoring.naive import Naive
from vergence.types import Blank, Erase, Read, UserError, View

PAPO = {"beta": 0, "gamma": 0.5}


def moves(folder, **changed):
    """The weights after an optimizer step, and TRL's log."""
    policy = policy_of()
    usual = {"optim": "sgd", "learning_rate": 1.0, **changed}
    trainer = trainer_of(folder, "papo", PAPO, policy=policy, **usual)
    trainer.train()
    return {name: weight.detach() for name, weight in policy.model.named_parameters()}, logged(trainer)


# ------------------------------------------------------------------------------------------------ scaling and padding


def test_accumulation_and_micro_batches_change_nothing(tmp_path):
    """The perception terms were not divided by the accumulation steps, which the surrogate was."""
    want, told = moves(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    got, said = moves(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    for name, weight in want.items():
        torch.testing.assert_close(got[name], weight, rtol=1e-6, atol=1e-7, msg=name)
    for one, other in zip(told, said, strict=True):
        for term in ("loss", "loss/surrogate", "loss/perception"):
            assert one[term] == pytest.approx(other[term], rel=1e-5, abs=1e-7)
    assert told[0]["loss/perception"] != 0


def test_padding_is_not_averaged(tmp_path):
    """The mean was over all of (B, T), padding among it; here it is what the mask says, whatever lies outside."""
    trainer = trainer_of(tmp_path, "papo@paper", PAPO, max_completion_length=48)
    inputs = first(trainer)
    held = trainer._held["train"]
    batch = held.batch
    lengths = batch.mask_BT.sum(-1)
    assert len(lengths.unique()) > 1
    with_tail = {
        "token_BT": torch.cat([batch.token_BT.where(batch.mask_BT, 77), torch.full((len(lengths), 5), 78)], 1),
        "mask_BT": torch.cat([batch.mask_BT, torch.zeros(len(lengths), 5, dtype=torch.bool)], 1),
    }
    junk = torch.full((len(lengths), 5), torch.nan, dtype=batch.sampled_logp_BT.dtype)
    for name in ("sampled_logp_BT", "chance_BT", "advantage_BT"):
        with_tail[name] = torch.cat([getattr(batch, name), junk.to(getattr(batch, name).dtype)], 1)
    want = float(trainer.compute_loss(trainer.model, inputs).detach())
    frozen = type(held.frozen)({key: torch.cat([v_BT, junk], 1) for key, v_BT in held.frozen.value.items()})
    trainer._held["train"] = replace(held, batch=replace(batch, **with_tail), frozen=frozen)
    assert float(trainer.compute_loss(trainer.model, inputs).detach()) == pytest.approx(want, rel=1e-12)


def test_the_perception_term_is_the_mean_over_tokens_by_hand(tmp_path):
    trainer = trainer_of(
        tmp_path, "papo", {"beta": 0, "gamma": 0.5, "eta": 0.0, "mean": "sequence"}, max_completion_length=48
    )
    trainer.train()
    held = trainer._held["train"]
    image_BT, masked_BT = held.batch.sampled_logp_BT, held.frozen.logp("masked")
    mean, rows = 0.0, held.batch.mask_BT.tolist()
    for row, mask in enumerate(rows):  # of each response, then over responses
        inside = [t for t, real in enumerate(mask) if real]
        x = [float(masked_BT[row, t] - image_BT[row, t]) for t in inside]
        mean += sum(min(float(torch.tensor(one).exp()) - one - 1, 10.0) for one in x) / len(inside) / len(rows)
    assert mean > 1e-4
    assert logged(trainer)[0]["loss/perception"] == pytest.approx(-0.5 * mean, rel=1e-4)


def first(trainer):
    """The first micro-batch, as training would ask for it."""
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


# ------------------------------------------------------------------------------------------------ views


def shown(views, round_=0, seed=0, number=4):
    """What each view shows of some rows, and the rows."""
    data = dataset_of(scenes(number))
    reader = reader_of(seedling().reader, "qwen3_vl")
    readers = []
    for row in data:
        one = [{**row["prompt"][0], "content": _with(row["prompt"][0]["content"], row["images"])}]
        ids = seedling().reader.prompt(row["question"] + " Answer.", row["images"]).tokens
        readers.append(conversation(reader, one, ids, {}))
    rows = [scene_of(row, one.messages) for row, one in zip(data, readers, strict=True)]
    return prompts_of(readers, rows, views, seed=seed, round_=round_), rows


def _with(parts, images):
    left = iter(images)
    return [{**part, "image": next(left)} if part["type"] == "image" else part for part in parts]


def black(prompt):
    """The share of an image's pixels that are black: after normalisation black is not 0."""
    processor = seedling().reader.image_processor
    least = (0.0 - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    of_channel = prompt.pixels.view(len(prompt.pixels), len(least), -1)
    return float((of_channel - least[:, None]).abs().lt(1e-4).all(1).float().mean())


def test_the_image_is_masked_in_the_pixels_of_a_qwen(tmp_path):
    """Qwen's pixel_values have two axes, and were given back unmasked: every KL was 0, without a word."""
    prompts, _ = shown({"image": View(Erase(0.0, 8)), "masked": View(Erase(1.0, 8))})
    for whole, none in zip(prompts["image"], prompts["masked"], strict=True):
        assert whole.pixels.ndim == 2
        assert none.pixels.shape == whole.pixels.shape
        assert none.grid.equal(whole.grid)
        assert black(none) == 1.0 > black(whole)


def test_the_mask_ratio_is_the_share_that_is_masked():
    """The example said `mask_ratio=0.6  # 40% masked`."""
    bright, _ = shown({"image": View(Blank(200)), "masked": View(Erase(0.25, 2))}, number=16)
    prompts, _ = shown({"masked": View(Erase(0.75, 2))}, number=16)
    plain, _ = shown({"image": View(Erase(0.0, 2))}, number=16)
    left = [1 - black(one) for one in plain["image"]]
    share = [1 - (1 - black(one)) / there for one, there in zip(prompts["masked"], left, strict=True)]
    assert sum(share) / len(share) == pytest.approx(0.75, abs=0.03)
    share = [1 - (1 - black(one)) / there for one, there in zip(bright["masked"], left, strict=True)]
    assert sum(share) / len(share) == pytest.approx(0.25, abs=0.03)


def test_a_view_that_shows_every_row_as_it_is_is_refused():
    with pytest.raises(UserError, match="exactly as they are"):
        shown({"masked": View(Erase(0.0, 8))})


def test_a_black_image_alone_in_a_generation_stops_no_run_that_is_under_way(tmp_path):
    rows = list(dataset_of(scenes(1))) * 2
    rows[1] = {**rows[1], "images": [rows[1]["images"][0].point(lambda _: 0)], "key": "black"}
    data = Dataset.from_list(rows)
    one = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "shuffle_dataset": False}
    one["max_completion_length"] = 4
    trainer = trainer_of(tmp_path, "papo", PAPO, data=data, max_steps=2, **one)
    trainer.train()
    assert [line["loss/perception"] == 0 for line in logged(trainer)] == [False, True]
    with pytest.raises(UserError, match="exactly as they are"):
        trainer_of(tmp_path, "papo", PAPO, data=data.select([1, 1]), max_steps=2, **one).train()


def test_views_are_repeatable_and_belong_to_seed_round_and_row():
    views = {"masked": View(Erase(0.5, 8))}
    one, _ = shown(views)
    again, _ = shown(views)
    fewer, _ = shown(views, number=2)
    assert all(a.pixels.equal(b.pixels) for a, b in zip(one["masked"], again["masked"], strict=True))
    assert all(a.pixels.equal(b.pixels) for a, b in zip(one["masked"], fewer["masked"], strict=False))
    for other in (shown(views, round_=1)[0], shown(views, seed=1)[0]):
        assert not any(a.pixels.equal(b.pixels) for a, b in zip(one["masked"], other["masked"], strict=True))


# ------------------------------------------------------------------------------------------------ the buffer


def test_the_second_pass_over_a_generation_sees_the_image_again(tmp_path):
    """`pixel_values` of the buffer were overwritten: with num_iterations=2 the clean pass saw the masked image."""
    told, seen = [], []
    trainer = trainer_of(tmp_path, "papo@full", PAPO, max_steps=3, num_iterations=3, learning_rate=0.0)
    compute = trainer.compute_loss

    def spied(model, inputs, **given):
        held = trainer._held["train"]
        seen.append({name: [p.pixels.clone() for p in prompts] for name, prompts in held.prompts.items()})
        loss = compute(model, inputs, **given)
        told.append(float(loss.detach()))
        return loss

    trainer.compute_loss = spied
    trainer.train()
    assert len(told) == 6
    assert told[:2] == told[2:4] == told[4:]  # the weights never move, so each pass says what the first did
    assert all(a.equal(b) for name in seen[0] for a, b in zip(seen[0][name], seen[-1][name], strict=True))
    assert not any(a.equal(b) for a, b in zip(seen[-1]["image"], seen[-1]["masked"], strict=True))


def test_every_row_is_trained_once_in_every_pass(tmp_path):
    """TRL shuffles a generation and cuts it; what it does not know, it cuts wrongly without a word."""
    trainer, rows = trainer_of(tmp_path, "papo", PAPO, max_steps=4, num_iterations=2, steps_per_generation=4), []
    prepare = trainer._prepare_inputs

    def spied(generation):
        inputs = prepare(generation)
        rows.append((trainer._step, inputs["vergence_step"], inputs["vergence_rows"].tolist()))
        return inputs

    trainer._prepare_inputs = spied
    trainer.train()
    assert len(rows) == 8
    for half in (rows[:4], rows[4:]):
        assert sorted(row for _, _, some in half for row in some) == list(range(16))
        assert [step for _, step, _ in half] == [0, 0, 1, 1]
    assert rows[0][2] != list(range(4))  # they are shuffled between optimizer steps


# ------------------------------------------------------------------------------------------------ forward passes


def test_what_tells_image_tokens_apart_reaches_the_model(tmp_path):
    """mm_token_type_ids and the like were not handed on."""
    trainer = trainer_of(tmp_path, "papo@paper", PAPO, gradient_checkpointing=True)
    inputs, asked = first(trainer), []
    trainer.model.model.register_forward_pre_hook(lambda _, args, kwargs: asked.append(kwargs), with_kwargs=True)
    trainer.compute_loss(trainer.model, inputs)
    assert len(asked) == 2  # the image and the masked image
    for kwargs in asked:
        kinds = kwargs["mm_token_type_ids"]
        assert kinds.shape == kwargs["input_ids"].shape
        assert kinds.bool().equal(kwargs["input_ids"] == seedling().reader.image_id)
        assert int(kwargs["image_grid_thw"].prod(-1).sum()) == len(kwargs["pixel_values"])
        assert int(kinds.sum()) * 4 == len(kwargs["pixel_values"])
    assert not asked[0]["pixel_values"].equal(asked[1]["pixel_values"])


def test_rows_read_whole_say_what_the_definition_says(tmp_path):
    trainer = trainer_of(tmp_path, "cppo", {"beta": 0})
    first(trainer)
    held, views = trainer._held["train"], trainer.method.views
    names = list(views)
    reads = [Read(name, quantity, when="grad") for name in names for quantity in ("logp", "entropy")]
    reads += [Read(names[0], "kl", names[-1], when="grad"), Read(names[0], "js", names[-1])]
    policy = Policy(trainer.model, trainer.reader)
    whole = Whole({"now": Looking(policy, learns=True)}, views, temperature=0.7)
    naive = Naive({"now": policy.logits}, views, temperature=0.7)
    with whole.open(held.batch, held.prompts, reads) as got, naive.open(held.batch, held.prompts, reads) as want:
        got, want = got(slice(None)), want(slice(None))
    assert any(not view.through(held.batch).all() for view in views.values())  # a gate is shut for some
    for key, value_BT in want.value.items():
        torch.testing.assert_close(got.value[key], value_BT, rtol=1e-4, atol=1e-5, check_dtype=False, msg=str(key))
        assert got.value[key].requires_grad == (key[1] != "js")


def test_every_micro_batch_is_one_forward_of_the_wrapped_model(tmp_path):
    """Processes must call the wrapped model equally often, whatever their rows need: also where nothing is needed."""
    watching = Watching()
    none = lambda completions, **_: [0.0] * len(completions)  # noqa: E731 (nobody has an advantage)
    trainer = trainer_of(tmp_path, "cppo", {"beta": 0}, reward_funcs=none, callbacks=[watching])
    calls = []
    trainer.model.register_forward_pre_hook(lambda _, args, kw: calls.append("vergence" in kw), with_kwargs=True)
    trainer.train()
    assert calls.count(True) == trainer.args.gradient_accumulation_steps
    assert all(not grad.any() for grad in watching.steps[0].grads.values())


def test_nothing_is_read_that_nobody_asks_for(tmp_path, monkeypatch):
    """TRL reads a generation once more where it serves several steps; so do we, with the views, and once is enough."""
    import trl

    monkeypatch.setattr(trl.GRPOTrainer, "_get_per_token_logps_and_entropies", None)
    trainer = trainer_of(tmp_path, "papo", PAPO, max_steps=2, num_iterations=2, gradient_checkpointing=True)
    rows = []
    core = trainer.model.model.language_model
    core.register_forward_pre_hook(lambda _, args, kw: rows.append(len(kw["inputs_embeds"])), with_kwargs=True)
    generate = trainer._generate

    def generated(*args):
        made = generate(*args)
        rows.clear()
        return made

    trainer._generate = generated
    trainer.train()
    assert sum(rows) == 8 * 2 + 2 * 8  # two views of the generation, then the image alone in each of two steps


def test_rows_of_no_image_of_one_and_of_two_are_scored_as_they_are_however_they_are_cut(tmp_path):
    some = scenes(4)
    data = dataset_of([replace(some[0], images=()), replace(some[1], images=some[1].images * 2), *some[2:]])
    told = []
    for rows, parts in ((16, 1), (4, 4)):
        cut = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": parts}
        trainer = trainer_of(tmp_path, "papo", PAPO, data=data, max_completion_length=4, **cut)
        trainer.train()
        told.append(logged(trainer)[0]["loss/perception"])
    assert told[0] == pytest.approx(told[1], rel=1e-6) != 0
    held = trainer._held["train"]
    numbers = [0 if one.grid is None else len(one.grid) for one in held.prompts["masked"]]
    assert sorted(numbers) == [0, 1, 1, 2]
    blind = torch.tensor([numbers[scene] == 0 for scene in held.batch.scene_B.tolist()])
    apart_BT = held.frozen.logp("masked") - held.batch.sampled_logp_BT
    assert [bool(one.any()) for one in (apart_BT[blind], apart_BT[~blind])] == [False, True]
    with pytest.raises(UserError, match="no column 'image' or 'images'"):
        trainer_of(tmp_path, "papo", PAPO, data=data.remove_columns("images"))


def test_a_sampled_image_token_takes_its_row_out_and_nothing_else(tmp_path):
    trainer = trainer_of(tmp_path, "grpo", {"beta": 0})
    made = trainer.generation_config.suppress_tokens
    assert set(made) >= set(trainer.reader.banned)
    first(trainer)
    held = trainer._held["train"].batch
    scored = trainer._scored
    tokens = held.token_BT.clone()
    tokens[2, 1] = trainer.reader.image_id
    made = {"completion_ids": tokens, "completion_mask": held.mask_BT.long()}
    batch = trainer._batch(made, scenes(2), 4, 0, "train")
    assert scored is trainer._scored
    assert not batch.mask_BT[2].any()
    assert batch.advantage_B[2] == 0
    others = [row for row in range(8) if row != 2]
    assert batch.mask_BT[others].equal(held.mask_BT[others])


def test_a_processor_that_shows_the_sampler_something_else_is_refused(tmp_path):
    """Transparency, say: there it may be laid upon white, and dropped where views are made."""

    class Darker(ImagesAndText):
        def __call__(self, images=None, **given):
            darker = [[one.point(lambda value: value // 2) for one in some or ()] for some in images or ()]
            return super().__call__(images=darker or None, **given)

    policy = policy_of()
    processor = Darker(policy.reader, "qwen3_vl")
    with pytest.raises(UserError, match="sampled from other pixels"):
        first(trainer_of(tmp_path, "grpo", {"beta": 0}, policy=policy, more={"processing_class": processor}))


def test_a_view_that_changes_the_size_of_an_image_is_refused():
    prompts, _ = shown({"masked": View(Erase(1.0, 8))})
    refuse_resized("masked", Erase(), prompts["masked"], prompts["masked"])
    larger = [one._replace(grid=one.grid * 2) for one in prompts["masked"]]
    with pytest.raises(UserError, match="keeps the size"):
        refuse_resized("masked", Erase(), larger, prompts["masked"])
