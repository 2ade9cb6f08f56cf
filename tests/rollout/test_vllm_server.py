"""The vLLM sampler with an engine that dies, and against an HTTP server that lies and hangs; no vLLM is needed."""

import base64
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from vergence.models.policy import load
from vergence.rollout import vllm_http, vllm_place, vllm_server
from vergence.rollout.render import put
from vergence.rollout.sampler import Following, Sampler
from vergence.rollout.vllm import RESTARTS, SamplerDown, Vllm, open_vllm
from vergence.rollout.vllm_http import Address
from vergence.rollout.vllm_place import Child, environment
from vergence.rollout.vllm_request import Answer, Broken, Request, Said, Wanted
from vergence.types import Asked, Prompt, UserError

POLICY = load("seedling")
READER = POLICY.reader
EOS = READER.eos_id
WORD = READER.tokenizer("2")["input_ids"][0]
HOW = {"temperature": 1.0, "max_tokens": 8}


def prompts() -> list[Prompt]:
    level = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    return [READER.prompt(put("What is 2+3?"), []), READER.prompt(put("How many?"), [Image.fromarray(level)])]


def asked(number: int = 6) -> list[Asked]:
    both = prompts()
    return [Asked(both[row % 2], 10 * row) for row in range(number)]


# ---------------------------------------------------------------------------------------- an engine that is a script


class Scripted:
    """An `Engine`. A call of `ask` takes the next of `script`: how many requests are answered, and what ends it."""

    processed = False

    def __init__(self, *script: tuple[int, Exception | None], starts: int = 99) -> None:
        self.script, self.starts, self.ending = list(script), starts, threading.Event()
        self.calls: list[str] = []
        self.seen: list[list[Request]] = []
        self.label = ""

    def start(self, policy):
        self.calls.append("start")
        self.starts -= 1
        if self.starts < 0:
            raise Broken("no room")

    def push(self, policy, version):
        self.calls.append("push")
        self.label = version

    def push_again(self, policy, version):
        self.calls.append("push again")
        self.label = version

    def rest(self):
        self.calls.append("rest")

    def stop(self):
        self.calls.append("stop")

    def ask(self, requests, wanted):
        self.seen.append(list(requests))
        number, why = self.script.pop(0) if self.script else (len(requests), None)
        return {place: self.answer(requests[place]) for place in range(min(number, len(requests)))}, why

    def answer(self, request):
        said = [Said([WORD, EOS], [-0.5, -float(row)], [[], []], "stop", [self.label]) for row in request.rows]
        return Answer(request.prompt.tokens, said)


def following(engine: Scripted) -> Vllm:
    sampler = Vllm(engine, READER)
    sampler.follow(POLICY)
    return sampler


def test_it_is_a_sampler_that_follows():
    sampler = following(Scripted())
    assert isinstance(sampler, Sampler)
    assert isinstance(sampler, Following)
    assert [one.logp[1] for one in sampler(asked(), **HOW)] == [0.0, -1.0, -2.0, -3.0, -4.0, -5.0]  # in order


def test_weights_that_were_not_pushed_are_not_sampled_from():
    sampler = Vllm(Scripted(), READER)
    with pytest.raises(UserError, match="follow"):
        sampler(asked(), **HOW)
    sampler.follow(POLICY)
    sampler(asked(), **HOW)
    sampler(asked(), **HOW)  # without a rest they may have moved on: sampling ahead
    sampler.rest()
    with pytest.raises(UserError, match="follow"):
        sampler(asked(), **HOW)
    sampler.follow(POLICY)
    assert sampler.version == 2
    sampler(asked(), **HOW)
    sampler.close()
    with pytest.raises(UserError, match="follow"):
        sampler(asked(), **HOW)
    assert sampler.engine.calls == ["start", "push", "rest", "push", "stop"]


def test_only_what_is_unfinished_is_asked_of_the_next_engine():
    engine = Scripted((1, Broken("gone")))
    assert len(following(engine)(asked(), **HOW)) == 6
    assert [[one.rows for one in seen] for seen in engine.seen] == [[(0, 2, 4), (1, 3, 5)], [(1, 3, 5)]]
    assert engine.calls == ["start", "push", "start", "push again"]


def test_an_engine_that_comes_again_too_often_is_given_up():
    engine = Scripted((1, Broken("gone")), *[(0, Broken("gone"))] * 9)
    with pytest.raises(SamplerDown, match=rf"{RESTARTS} restarts did not help: gone") as down:
        following(engine)(asked(), **HOW)
    assert {row: one.logp[1] for row, one in down.value.finished.items()} == {0: 0.0, 2: -2.0, 4: -4.0}
    assert engine.calls.count("start") == 1 + RESTARTS


def test_restarts_that_fail_count_too():
    engine = Scripted((1, Broken("gone")), starts=1)
    with pytest.raises(SamplerDown, match="no room"):
        following(engine)(asked(), **HOW)
    assert engine.calls.count("start") == 1 + RESTARTS
    with pytest.raises(SamplerDown, match="does not start: no room"):
        following(Scripted(starts=0))


def test_an_engine_that_comes_again_otherwise_loses_nothing_either(monkeypatch):
    sampler = following(engine := Scripted((1, Broken("gone"))))

    def other(policy):
        raise UserError("it would resize the pictures")

    monkeypatch.setattr(engine, "start", other)
    with pytest.raises(SamplerDown, match="resize") as down:
        sampler(asked(), **HOW)
    assert [*down.value.finished] == [0, 2, 4]


def test_answers_of_other_weights_are_asked_again():
    engine = Scripted()
    sampler = following(engine)
    engine.label = "somebody-1"  # somebody else gave the server weights
    assert len(sampler(asked(), **HOW)) == 6
    assert engine.calls[-2:] == ["start", "push again"]


def test_two_samplers_do_not_label_their_weights_alike():
    assert following(one := Scripted()).version == following(other := Scripted()).version
    assert one.label != other.label


def test_what_is_refused_is_not_asked_again():
    engine = Scripted((1, UserError("too long")))
    with pytest.raises(UserError, match="too long"):
        following(engine)(asked(), **HOW)
    assert engine.calls.count("start") == 1
    engine.script = [(1, None)]
    with pytest.raises(UserError, match="without an answer"):
        following(engine)(asked(), **HOW)


def test_the_likeliest_response_is_asked_for_one_by_one():
    engine = Scripted()
    following(engine)(asked(), temperature=0.0, max_tokens=8)
    assert [len(one.rows) for one in engine.seen[0]] == [1] * 6


def test_closing_ends_a_call_in_another_thread():
    class Slow(Scripted):
        def ask(self, requests, wanted):
            assert self.ending.wait(20)
            return {}, Broken("closed")

    sampler, raised = following(Slow()), []

    def call():
        try:
            sampler(asked(), **HOW)
        except UserError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.05)
    sampler.close()
    thread.join(20)
    assert [type(error) for error in raised] == [SamplerDown]
    assert sampler.engine.calls == ["start", "push", "stop", "stop"]  # nothing was started anew


# --------------------------------------------------------------------------------------- a server that is a function


MODEL = {"logprobs_mode": "raw_logprobs", "multimodal_config": {"mm_processor_kwargs": {"do_resize": False}}}
INFO = {"vllm_config": {"model_config": MODEL}}
Reply = tuple[int, Any] | Callable[[BaseHTTPRequestHandler], None]


class Fake(ThreadingHTTPServer):
    """What a vLLM server does, unless `instead` says something else of a path (by how often it was asked)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.seen, self.version, self.weights = threading.Lock(), [], "none", ""
        self.instead: dict[str, Callable[[Any, int], Reply | None]] = {}
        self.over = threading.Event()

    def handle_error(self, request, client_address):
        """A client that goes away is what some tests are about."""

    def reply(self, path: str, body: Any) -> Reply:
        with self.lock:
            self.seen.append((path, body))
            times = sum(one == path for one, _ in self.seen)
        if path in self.instead and (given := self.instead[path](body, times)) is not None:
            return given
        if path == "/collective_rpc":
            self.weights = body["kwargs"]["weights_path"]
            self.pushed = load_file(Path(self.weights) / "weights.safetensors")
        if path == "/update_weight_version":
            self.version = body["new_version"]
        if path == vllm_server.GENERATE:
            return 200, self.generated(body)
        return 200, INFO if path.startswith("/server_info") else {"success": True}

    def generated(self, body: Any) -> Any:
        sent = [part["url"].split(",")[1] for part in body.get("content_parts", [])]
        images = iter([Image.open(io.BytesIO(base64.b64decode(one))) for one in sent])
        tokens = []
        for token in body["token_ids"]:
            width, height = next(images).size if token == READER.image_id else (READER.token_side,) * 2
            tokens += [token] * ((width // READER.token_side) * (height // READER.token_side))
        number = body["sampling_params"]["n"]
        return {"prompt_token_ids": tokens, "choices": [self.choice(at) for at in range(number)]}

    def choice(self, at: int) -> Any:
        content = [{"token_id": WORD, "logprob": -1.0 - at}, {"token_id": EOS, "logprob": -0.25}]
        return {
            **{"index": at, "token_ids": [WORD, EOS], "finish_reason": "stop", "logprobs": {"content": content}},
            "weight_versions": [{"version": self.version, "start": 0, "end": 2}],
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send(self.server.reply(self.path, None))

    def do_POST(self):
        read = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send(self.server.reply(self.path, json.loads(read) if read else None))

    def send(self, reply: Reply) -> None:
        if callable(reply):
            return reply(self)
        status, body = reply
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)


def cut(handler: BaseHTTPRequestHandler) -> None:
    """The connection is lost in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"prompt_')
    handler.close_connection = True


def flood(handler: BaseHTTPRequestHandler) -> None:
    """An answer without an end."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 2**20)
    except OSError:
        handler.close_connection = True


@contextmanager
def serving() -> Iterator[tuple[Fake, Vllm]]:
    fake = Fake()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    sampler = open_vllm(f"http://127.0.0.1:{fake.server_address[1]}", POLICY)
    try:
        yield fake, sampler
    finally:
        sampler.close()
        fake.over.set()
        fake.shutdown()
        fake.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("VERGENCE_API_KEY", "OPENAI_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(vllm_place, "WAIT", 0.3)


def test_what_a_server_is_told_and_says():
    with serving() as (fake, sampler):
        sampler.follow(POLICY)
        drawn = sampler(asked(), **HOW)
        assert [one.logp for one in drawn] == [(-1.0 - row // 2, -0.25) for row in range(6)]
        paths = [path.split("?")[0] for path, _ in fake.seen]
        assert paths[2:9] == [
            "/pause",
            "/collective_rpc",
            "/reset_prefix_cache",
            "/reset_mm_cache",
            "/reset_encoder_cache",
            "/update_weight_version",
            "/resume",
        ]
        assert paths[9:] == [vllm_server.GENERATE] * 2  # one for each prompt: an image goes once, for all its siblings
        own = POLICY.model.state_dict()
        assert fake.pushed.keys() == own.keys()
        assert all((tensor == own[name]).all() for name, tensor in fake.pushed.items())
        sampler.follow(POLICY)
        first = fake.seen[3][1]["kwargs"]["weights_path"]
        assert fake.weights != first
        assert not Path(first).exists()  # no more than one copy is kept
        assert oct(Path(fake.weights).parent.stat().st_mode)[-3:] == "700"
        kept = Path(fake.weights).parent
    assert not kept.exists()


@pytest.mark.parametrize("fault", [(503, {"error": "dead"}), (500, b"\x1b[2Jno"), cut])
def test_a_server_that_fails_is_asked_again_for_the_rest(fault):
    with serving() as (fake, sampler):
        sampler.follow(POLICY)
        fake.instead[vllm_server.GENERATE] = lambda body, times: fault if times == 1 else None
        assert len(sampler(asked(), **HOW)) == 6
        assert sum(path == "/collective_rpc" for path, _ in fake.seen) == 2  # it may have come again without weights


@pytest.mark.slow
def test_a_server_that_fails_for_good_ends_the_run():
    with serving() as (fake, sampler):
        sampler.follow(POLICY)
        fake.instead[vllm_server.GENERATE] = lambda *_: (500, {"error": "dead"})
        with pytest.raises(SamplerDown, match="status 500"):
            sampler(asked(), **HOW)


def test_a_server_that_is_not_there_is_said_to_be_down():
    with pytest.raises(SamplerDown, match="not ready within"):
        open_vllm("http://127.0.0.1:9", POLICY).follow(POLICY)


@pytest.mark.slow
def test_a_server_that_hangs_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr("vergence.rollout.vllm_request.PATIENCE", 0.2)
    monkeypatch.setattr("vergence.rollout.vllm_request.SLOWEST", 1000.0)
    monkeypatch.setattr(vllm_server, "LOOK", 0.05)
    with serving() as (fake, sampler):
        sampler.follow(POLICY)
        fake.instead[vllm_server.GENERATE] = lambda *_: lambda handler: fake.over.wait(20)
        since = time.monotonic()
        with pytest.raises(SamplerDown, match="no request was answered"):
            sampler(asked(), **HOW)
        assert time.monotonic() - since < 10


def test_closing_leaves_a_server_in_the_middle_of_an_answer(monkeypatch):
    monkeypatch.setattr(vllm_server, "LOOK", 0.05)
    with serving() as (fake, sampler):
        sampler.follow(POLICY)
        begun, raised = threading.Event(), []

        def hang(body, times):
            begun.set()
            return lambda handler: fake.over.wait(20)

        fake.instead[vllm_server.GENERATE] = hang

        def call():
            try:
                sampler(asked(), **HOW)
            except UserError as error:
                raised.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        assert begun.wait(20)
        sampler.close()
        thread.join(20)
        assert [type(error) for error in raised] == [SamplerDown]


CHOICE = {
    **{"index": 0, "token_ids": [WORD, EOS], "finish_reason": "stop"},
    "logprobs": {"content": [{"token_id": WORD, "logprob": -1.0}, {"token_id": EOS, "logprob": -0.2}]},
    "weight_versions": [{"version": "v"}],
}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "has not the form"),
        (b"hello", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ([1], "no JSON object"),
        ({}, "has not the form"),
        ({"prompt_token_ids": None, "choices": []}, "has not the form"),
        ({"prompt_token_ids": "12", "choices": [CHOICE]}, "has not the form"),
        ({"prompt_token_ids": [1.5], "choices": [CHOICE]}, "has not the form"),
        ({"prompt_token_ids": [1], "choices": [CHOICE]}, "its processor differs"),
        ({"prompt_token_ids": [1], "choices": {"index": 0}}, "has not the form"),
        ({"prompt_token_ids": [1], "choices": [{**CHOICE, "index": 3}]}, "has not the form"),
        ({"prompt_token_ids": [1], "choices": [CHOICE, CHOICE]}, "has not the form"),
        ({"prompt_token_ids": [1], "choices": [{**CHOICE, "token_ids": "x"}]}, "has not the form"),
        ({"prompt_token_ids": [1], "choices": [{**CHOICE, "token_ids": [WORD]}]}, "has not the form"),
        ({"prompt_token_ids": [1], "choices": [{**CHOICE, "logprobs": None}]}, "has not the form"),
        ({"prompt_token_ids": [1], "choices": [{**CHOICE, "weight_versions": [7]}]}, "has not the form"),
    ],
)
def test_an_answer_of_another_form_is_refused(answer, told):
    with serving() as (fake, sampler):
        sampler.follow(POLICY)
        fake.instead[vllm_server.GENERATE] = lambda *_: (200, answer)
        with pytest.raises(UserError, match=told) as refusal:
            sampler(asked(), **HOW)
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 1000


def test_an_answer_without_an_end_is_not_read_to_it():
    with serving() as (fake, sampler):
        sampler.follow(POLICY)
        fake.instead[vllm_server.GENERATE] = lambda *_: flood
        with pytest.raises(UserError, match="more than"):
            sampler(asked(), **HOW)


def test_a_refusal_is_shown_and_what_is_missing_named():
    with serving() as (fake, sampler):
        fake.instead["/collective_rpc"] = lambda *_: (404, b"\x1b[31mNot Found")
        with pytest.raises(UserError, match="VLLM_SERVER_DEV_MODE=1") as refusal:
            sampler.follow(POLICY)
        assert "\x1b" not in str(refusal.value)
        assert fake.seen[-1][0] == "/resume"  # it is left as it was


def test_caches_that_are_not_reset_are_noticed():
    with serving() as (fake, sampler):
        fake.instead["/reset_prefix_cache"] = lambda *_: (200, {"success": False})
        with pytest.raises(SamplerDown, match="prefix cache"):
            sampler.follow(POLICY)


def changed(**model: Any) -> Any:
    return {"vllm_config": {"model_config": {**MODEL, **model}}}


@pytest.mark.parametrize(
    ("info", "told"),
    [
        (changed(logprobs_mode="raw_logits"), "logprobs_mode"),
        (changed(logprobs_mode=None), "logprobs_mode"),
        (changed(multimodal_config={"mm_processor_kwargs": None}), "resize"),
        (changed(multimodal_config=None), "resize"),
        ({"vllm_config": "VllmConfig(...)"}, "logprobs_mode"),
        ({}, "logprobs_mode"),
    ],
)
def test_a_server_that_was_started_otherwise_is_refused(info, told):
    with serving() as (fake, sampler):
        fake.instead["/server_info?config_format=json"] = lambda *_: (200, info)
        with pytest.raises(UserError, match=told):
            sampler.follow(POLICY)


def test_a_temperature_needs_a_server_that_was_started_for_it():
    with serving() as (_, sampler):
        sampler.follow(POLICY)
        with pytest.raises(UserError, match="processed_logprobs"):
            sampler(asked(), temperature=0.7, max_tokens=8)


def test_a_server_sleeps_where_it_can():
    with serving() as (fake, sampler):
        sampler.follow(POLICY)
        sampler.rest()
        assert not any("sleep" in path for path, _ in fake.seen)
        sampler.close()
        fake.instead["/server_info?config_format=json"] = lambda *_: (200, changed(enable_sleep_mode=True))
        sampler.follow(POLICY)
        sampler.rest()
        sampler.rest()
        sampler.follow(POLICY)
        paths = [path for path, _ in fake.seen]
        assert paths.count("/sleep?level=1") == 1
        assert paths.index("/wake_up") == paths.index("/sleep?level=1") + 1
        fake.instead["/sleep?level=1"] = lambda *_: (500, {})  # it is found to be gone when it is needed
        sampler.rest()


# --------------------------------------------------------------------------------------------------- a child process


def test_a_child_that_dies_at_once_is_told_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm_place, "refuse_missing", lambda: None)
    monkeypatch.setattr(vllm_place, "flags", lambda given: ["--no-such-model"])
    monkeypatch.setattr(vllm_place, "sys", type("S", (), {"executable": "/bin/false"}))
    child = Child()
    with pytest.raises(Broken, match="ended with status 1"):
        child.up(tmp_path, POLICY, threading.Event())
    child.down()
    child.down()
    assert child.process is None


@pytest.mark.parametrize("name", ["vergence-vllm-weights", "mine"])
def test_a_child_is_told_to_take_away_folders_that_were_made_for_it_and_no_others(monkeypatch, tmp_path, name):
    monkeypatch.setattr(vllm_place, "refuse_missing", lambda: None)
    monkeypatch.setattr(vllm_place, "flags", lambda given: [])
    script = tmp_path / "says"
    script.write_text('#!/bin/sh\necho "$4 $TMPDIR"\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setattr(vllm_place, "sys", type("S", (), {"executable": str(script)}))
    child = Child()
    with pytest.raises(Broken) as broken:
        child.up(tmp_path / name / "1", POLICY, threading.Event())
    folders, temporary = str(broken.value).split(": ")[1].split()
    made = [temporary, *([str(tmp_path / name)] if name != "mine" else [])]
    assert folders.split(os.pathsep) == made
    assert Path(temporary).exists()
    child.down()
    assert not Path(temporary).exists()


def test_a_child_is_not_waited_for_when_the_sampler_is_closed(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm_place, "refuse_missing", lambda: None)
    script = tmp_path / "sleeps"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(vllm_place, "sys", type("S", (), {"executable": str(script)}))
    child, ending = Child(), threading.Event()
    threading.Timer(0.3, ending.set).start()
    with pytest.raises(Broken, match="closed"):
        child.up(tmp_path, POLICY, ending)
    process = child.process
    child.down()
    assert process is not None
    assert process.poll() is not None


def test_a_child_inherits_neither_the_place_among_processes_nor_a_key_of_its_own(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "VLLM_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "1")
    told = environment(POLICY)
    assert (
        not {"RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "VLLM_API_KEY", "OPENAI_API_KEY"} & told.keys()
    )
    assert told["VLLM_SERVER_DEV_MODE"] == "1"
    assert told["PYTHONPATH"].split(os.pathsep)[0] == str(Path(vllm_place.__file__).parents[2])


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    """The child's own watch, around a server that is a sleep."""
    (tmp_path / "vllm" / "entrypoints" / "openai").mkdir(parents=True)
    (tmp_path / "vllm" / "entrypoints" / "openai" / "api_server.py").write_text(
        "import sys, time\nprint(sys.argv[1], flush=True)\ntime.sleep(60)\n"
    )
    (tmp_path / "vergence-vllm-made").mkdir()
    parent = (
        "import os, subprocess, sys, time\n"
        "one = subprocess.Popen([sys.executable, '-m', 'vergence.rollout.vllm_child', str(os.getpid()), sys.argv[1],"
        " '--flag'], start_new_session=True)\n"
        "time.sleep(60)\n"
    )
    paths = os.pathsep.join([str(Path(vllm_place.__file__).parents[2]), str(tmp_path)])
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path / "vergence-vllm-made")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "--flag\n"
        process.kill()
        assert process.stdout.read() == ""  # returns when nobody holds the pipe any more: the child has ended
    assert not (tmp_path / "vergence-vllm-made").exists()


def test_a_socket_is_reached_without_a_key_or_a_proxy(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    heads = []

    class Local(Fake):
        address_family = __import__("socket").AF_UNIX

        def server_bind(self):
            self.socket.bind(str(tmp_path / "s"))
            self.server_name, self.server_port = "local", 0

    class Quiet(Handler):
        def do_GET(self):
            heads.append(dict(self.headers))
            self.send((200, {"ok": 1}))

        def address_string(self):
            return "local"

    fake = Local()
    fake.RequestHandlerClass = Quiet
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        assert vllm_http.alone("GET", Address("http://vllm", tmp_path / "s"), "/health", timeout=5.0) == {"ok": 1}
    finally:
        fake.shutdown()
        fake.server_close()
        thread.join()
    assert "authorization" not in {name.lower() for name in heads[0]}


def test_what_may_be_asked_of_a_server_is_bounded():
    one = Request((0,), Prompt((1,) * 100), 0)
    wanted = Wanted(1.0, 64, "v", 300, False)
    assert vllm_server.largest(one, wanted, 2) < 2 * 2**20
    assert vllm_server.largest(one, wanted._replace(max_tokens=2**14), 2) > 2**23
