"""Trackers see every step once, never stop a run, and change nothing of it. Small fakes play their packages."""

import ast
import json
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from vergence.recipes import recipe
from vergence.scenes.source import open_source
from vergence.train import trackers
from vergence.train.loop import train
from vergence.train.run import read_lines
from vergence.train.tracking import LARGEST, SIBLINGS, cut, picture, read_state, rows_of, together, tracking
from vergence.types import UserError

TINY = replace(
    recipe("demo", "grpo"), steps=4, scenes_per_batch=4, siblings=4, max_tokens=24, token_budget=800, eval_every=0
)
TINY = replace(TINY, watch_every=2)


class Recorded:
    """A tracker that keeps what it is told."""

    opened: list["Recorded"]

    def __init__(self, run):
        self.run, self.steps, self.tables, self.ended = run, {}, {}, None
        self.opened.append(self)

    def numbers(self, step, metrics):
        assert step not in self.steps
        self.steps[step] = dict(metrics)

    def rollouts(self, step, rows):
        self.tables[step] = list(rows)

    def close(self, *, failed):
        self.ended = "failed" if failed else "whole"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was tracked from its first step to its last: its folder, its tracker, and what was told."""
    with pytest.MonkeyPatch.context() as patched:
        opened = played(patched)
        out = tmp_path_factory.mktemp("runs") / "tracked"
        told = tracked_run(out)
    (tracker,) = opened
    return SimpleNamespace(out=out, tracker=tracker, told=told)


@pytest.fixture
def recorded(monkeypatch):
    """The trackers that are opened, in order, all of them `Recorded`."""
    return played(monkeypatch)


def played(monkeypatch):
    Fresh = type("Fresh", (Recorded,), {"opened": []})
    monkeypatch.setattr("vergence.train.tracking.TRACKERS", {"fake": Fresh, "other": Fresh})
    monkeypatch.setattr("vergence.train.tracking.refuse_missing", lambda names: None)
    return Fresh.opened


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "plain"
    train(TINY, out)
    return out


def tracked_run(out, config=TINY, told=None, names=("fake",), **how):
    source = open_source(config.scenes, config.worlds)
    told = [] if told is None else told
    with tracking(names, out, config, source=source, tell=told.append) as watch:
        train(config, out, watch=watch, source=source, **how)
    return told


def test_every_number_of_every_step_under_its_own_name(whole):
    tracker, lines = whole.tracker, list(read_lines(whole.out / "metrics.jsonl"))
    assert whole.told == []
    assert tracker.ended == "whole"
    assert list(tracker.steps) == [1, 2, 3, 4]
    for line in lines:
        shown = tracker.steps[line.pop("step")]
        assert shown.pop("seconds") > 0
        assert shown == line
    assert tracker.run.config == json.loads(json.dumps(tracker.run.config))
    assert tracker.run.config["method"] == "grpo"


def test_tracking_changes_nothing_of_the_run(whole, untracked):
    for name in ("metrics.jsonl", "rollouts.jsonl", "checkpoints/step-000004/model.safetensors"):
        assert (whole.out / name).read_bytes() == (untracked / name).read_bytes()


def test_tables_show_what_was_said_to_which_picture(whole):
    tracker = whole.tracker
    assert list(tracker.tables) == [1, 3, 4]  # the watched rounds, and the last
    records = list(read_lines(whole.out / "rollouts.jsonl"))
    source = open_source(TINY.scenes, TINY.worlds)
    for step, rows in tracker.tables.items():
        of_step = [record for record in records if record["step"] == step]
        assert len(rows) == 16 == len(of_step)
        for row, record in zip(rows, of_step, strict=True):
            assert (row.step, row.response, row.reward) == (step, record["response"], record["reward"])
            assert (row.status, row.advantage) == (record["status"], record["advantage"])
            shown = source.scene(record["scene"]).images[0].convert("RGB")
            assert row.image.tobytes() == shown.tobytes()


def test_a_round_of_many_steps_is_shown_once(recorded, whole):
    """Rounds of two steps: the second of each has nothing new to show; the last round is shown though not watched."""
    lines = [line for line in read_lines(whole.out / "rollouts.jsonl") if line["step"] % 2]
    for every, shown in ((1, [1, 3]), (0, [4])):
        with tracking(("fake",), whole.out, replace(TINY, parts=2, watch_every=every)) as watch:
            (whole.out / "tracking.json").unlink(missing_ok=True)
            for step in range(1, 5):
                watch(step, {"step": step, "loss": 0.5}, 1.0)
        assert list(recorded[-1].tables) == shown
        want = [line["response"] for line in lines if line["step"] == 3]
        assert [row.response for row in recorded[-1].tables[shown[-1]]] == want


def test_a_resumed_run_goes_on_in_the_same_tracked_run(recorded, tmp_path):
    config = replace(TINY, save_every=2)
    tracked_run(tmp_path / "run", config, until=3)
    (tmp_path / "run" / "checkpoints" / "step-000003").rename(tmp_path / "lost")  # steps after 2 are taken again
    tracked_run(tmp_path / "run", config, resume=True)
    first, second = recorded
    assert first.run.id == second.run.id
    assert [*first.steps, *second.steps] == [1, 2, 3, 4]
    assert [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.parametrize("broken", ["__init__", "numbers", "rollouts", "close"])
def test_a_tracker_that_fails_is_told_once_and_the_others_go_on(broken, recorded, untracked, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ConnectionError("no network\nat all")

    failing = type("Failing", (Recorded,), {"opened": [], broken: fails})
    both = {"fake": failing, "other": sys.modules["vergence.train.tracking"].TRACKERS["other"]}
    monkeypatch.setattr("vergence.train.tracking.TRACKERS", both)
    told = []
    with tracking(("fake", "other"), untracked, TINY, tell=told.append) as watch:
        for line in read_lines(untracked / "metrics.jsonl"):
            watch(line["step"], line, 1.0)
    (untracked / "tracking.json").unlink()
    assert len(told) == 1
    assert told[0].startswith("fake is left out from here on (ConnectionError: no network);")
    assert list(recorded[0].steps) == [1, 2, 3, 4]


def test_a_run_that_fails_ends_its_trackers_as_failed(recorded, tmp_path):
    def fails(watch):
        watch(1, {"step": 1, "loss": 0.5}, 1.0)
        raise RuntimeError

    with pytest.raises(RuntimeError), tracking(("fake",), tmp_path, TINY) as watch:
        fails(watch)
    assert recorded[0].ended == "failed"


def test_nothing_is_opened_before_the_first_step(recorded, tmp_path):
    with tracking(("fake",), tmp_path / "run", TINY):
        pass
    assert recorded == []
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_drawn_is_left_out(recorded, tmp_path):
    with tracking(("fake",), tmp_path, TINY) as watch:
        watch(1, {"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "note": "text", "entropy": 0.5}, 1.0)
    assert recorded[0].steps == {1: {"grad_norm": float("inf"), "entropy": 0.5, "seconds": 1.0}}


def test_standard_output_is_kept_clean(recorded, tmp_path, capsys, monkeypatch):
    talkative = type("Talkative", (Recorded,), {"opened": [], "numbers": lambda *_: print("* created a run")})
    monkeypatch.setattr("vergence.train.tracking.TRACKERS", {"fake": talkative})
    with tracking(("fake",), tmp_path, TINY) as watch:
        watch(1, {"step": 1, "loss": 0.5}, 1.0)
    assert capsys.readouterr() == ("", "* created a run\n")


def test_state_that_was_torn_begins_anew(tmp_path):
    for torn in ("", "{", "[]", '{"id": "a"}', '{"id": "a", "last": 3}', '{"id": "a", "last": {"wandb": "x"}}'):
        (tmp_path / "tracking.json").write_text(torn)
        assert read_state(tmp_path)["last"] == {}
    (tmp_path / "tracking.json").write_text('{"id": "a", "last": {"wandb": 3}}')
    assert read_state(tmp_path) == {"id": "a", "last": {"wandb": 3}}


def test_pictures_and_texts_are_bounded():
    class Two:
        def train(self, start, number, *, seed):
            raise NotImplementedError

        held_out = train

        def scene(self, key):
            if key == "gone":
                raise UserError("no such scene")
            return SimpleNamespace(images=(Image.new("RGBA", (1000, 500), "red"), Image.new("L", (10, 20), 0)))

    sheet = picture("any", Two())
    assert sheet.size == (LARGEST + 10, LARGEST // 2)
    assert sheet.getpixel((0, 0)) == (255, 0, 0)
    assert sheet.getpixel((LARGEST, 0)) == (0, 0, 0)
    assert sheet.getpixel((LARGEST, 30)) == (255, 255, 255)
    assert picture("gone", Two()) is None
    assert len(cut("x" * 1_000_000)) < 4100
    record = {"step": 1, "question": "", "response": "", "gold": "", "extracted": None, "status": "wrong"}
    record |= {"reward": 0, "advantage": 0}
    many = [record | {"scene": str(n // 9), "sibling": n % 9} for n in range(90)]
    assert len(rows_of(many, None)) == 4 * SIBLINGS


def test_together_tells_all_of_them():
    seen = []
    together(lambda *step: seen.append(("a", *step)), lambda *step: seen.append(("b", *step)))(3, {}, 0.5)
    assert seen == [("a", 3, {}, 0.5), ("b", 3, {}, 0.5)]


def test_a_missing_package_is_told_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vergence\[trackio\]'"), tracking(("trackio",), tmp_path, TINY):
        pass
    monkeypatch.setattr(trackers, "find_spec", lambda name: ModuleSpec(name, None))  # a folder called wandb
    with pytest.raises(UserError, match="needs the package wandb"), tracking(("wandb",), tmp_path, TINY):
        pass
    with pytest.raises(UserError, match="no tracker 'neptune'; there are wandb, trackio, tensorboard"):
        trackers.refuse_missing(["neptune"])


ROW = trackers.Row(3, Image.new("RGB", (4, 4)), "How many?", "<b>\n# two", "2", "two", "wrong", 0.0, -1.0)
BARE = ROW._replace(image=None)
COLUMNS = ["image", "step", "question", "response", "gold", "extracted", "status", "reward", "advantage"]


def fake_package(monkeypatch, name, **members):
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Calls(list):
    """An object whose methods note how they are called."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given, **named: self.append((name, given, named))


def test_wandb_is_told_as_its_interface_asks(monkeypatch, tmp_path):
    run, begun = Calls(), {}
    fake = {"Image": lambda image: ("image", image.size), "Table": lambda columns, data: (columns, data)}
    init = lambda **given: begun.update(given) or run  # noqa: E731
    fake_package(monkeypatch, "wandb", init=init, Settings=lambda **given: given, **fake)
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    tracker = trackers.Wandb(trackers.Tracked(tmp_path / "mine", "1a2b", {"lr": 0.1}))
    assert (begun["project"], begun["name"], begun["id"], begun["resume"]) == ("vergence", "mine", "1a2b", "allow")
    assert (begun["dir"], begun["config"], "mode" in begun) == (str(tmp_path / "mine"), {"lr": 0.1}, False)
    assert begun["settings"]["disable_git"]
    assert begun["settings"]["save_code"] is False
    tracker.numbers(3, {"reward": 0.5})
    tracker.rollouts(3, [ROW, BARE])
    tracker.close(failed=True)
    texts = [3, "How many?", "<b>\n# two", "2", "two", "wrong", 0.0, -1.0]
    table = (COLUMNS, [[("image", (4, 4)), *texts], [None, *texts]])
    logged = [("log", ({"reward": 0.5},), {"step": 3}), ("log", ({"rollouts": table},), {"step": 3})]
    assert run == [*logged, ("finish", (), {"exit_code": 1})]


def test_trackio_is_told_as_its_interface_asks(monkeypatch, tmp_path):
    run, begun, ended = Calls(), {}, []
    fake = {"Image": lambda image: ("image", image.size), "Table": lambda columns, data: (columns, data)}
    init = lambda **given: begun.update(given) or run  # noqa: E731
    fake_package(monkeypatch, "trackio", init=init, finish=lambda: ended.append(True), **fake)
    monkeypatch.delenv("TRACKIO_PROJECT", raising=False)
    tracker = trackers.Trackio(trackers.Tracked(tmp_path / "mine", "1a2b", {"lr": 0.1}))
    want = {"project": "vergence", "name": "mine-1a2b", "config": {"lr": 0.1}, "resume": "allow", "embed": False}
    assert begun == want
    tracker.numbers(3, {"reward": 0.5})
    tracker.rollouts(3, [ROW])
    tracker.close(failed=False)
    assert [call[2] for call in run] == [{"step": 3}, {"step": 3}]
    assert run[1][1][0]["rollouts"][0] == COLUMNS
    assert ended == [True]


def test_tensorboard_is_told_as_its_interface_asks(monkeypatch, tmp_path):
    calls = Calls()
    fake_package(monkeypatch, "torch.utils.tensorboard", SummaryWriter=lambda folder: calls.append(folder) or calls)
    tracker = trackers.TensorBoard(trackers.Tracked(tmp_path, "1a2b", {"lr": 0.1, "method": "papo"}))
    tracker.numbers(3, {"reward": 0.5})
    tracker.rollouts(3, [ROW, BARE])
    tracker.close(failed=False)
    assert calls[0] == str(tmp_path / "tensorboard")
    assert calls[1] == ("add_text", ("config", "    lr: 0.1\n    method: papo", 0), {})
    assert ("add_scalar", ("reward", 0.5, 3), {}) in calls
    (shown,) = [call for call in calls if call[0] == "add_image"]
    assert shown[1][0] == "rollouts/1"
    assert shown[1][1].shape == (4, 4, 3)
    texts = [call[1] for call in calls if call[0] == "add_text"][1:]
    assert [(name, step) for name, _, step in texts] == [("rollouts/1", 3), ("rollouts/2", 3)]
    assert all(not line or line.startswith("    ") for line in texts[0][1].split("\n"))  # shown, never rendered
    assert calls[-1][0] == "close"


def test_no_tracker_is_imported_before_it_is_opened():
    for path in Path(trackers.__file__).parents[1].rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if "tensorboard" in name or name in ("wandb", "trackio")], path
