"""Captions: the data's own, the frozen policy's, a server's."""

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from vergence import chance
from vergence.models.policy import load
from vergence.rewards.reasoner import MOST_CAPTION, ReasonerDown
from vergence.rewards.server import Server
from vergence.rollout.captions import UNDESCRIBED, Captioner, by_policy, by_server, open_captions, plain
from vergence.rollout.generate import Generate
from vergence.scenes.source import open_source
from vergence.types import Asked, Sampled, Scene, UserError


@pytest.fixture(scope="module")
def policy():
    return load("seedling")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return open_source("embedded", ["digits", "bars"]).held_out("tune", 4, seed=0)


def test_a_scene_keeps_its_own_caption(scenes):
    assert open_captions("scene")(scenes) == scenes


def test_a_row_without_a_caption_is_named(scenes):
    bare = replace(scenes[0], key="mine/17", caption=" ")
    with pytest.raises(UserError, match=r"'mine/17' has no caption.*'caption'"):
        open_captions("scene")([scenes[1], bare])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_policys_caption_of_a_scene_is_the_same_in_every_batch(policy, scenes, temperature):
    def captioner(seed: int, at_once: int) -> Captioner:
        sampler = Generate(policy, at_once=at_once)
        return open_captions(
            "initial", sampler=sampler, reader=policy.reader, seed=seed, temperature=temperature, max_tokens=24
        )

    first = captioner(0, 256)(scenes)
    assert [scene.caption for scene in first] != [scene.caption for scene in scenes]
    assert [replace(scene, caption="") for scene in first] == [replace(scene, caption="") for scene in scenes]
    again = [captioner(0, 1)([scene])[0] for scene in reversed(scenes)]
    assert [scene.caption for scene in reversed(again)] == [scene.caption for scene in first]
    other = [scene.caption for scene in captioner(1, 256)(scenes)]
    assert (other != [scene.caption for scene in first]) == (temperature > 0)


class Noted:
    """A sampler that says nothing, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def __call__(self, asked: Sequence[Asked], *, temperature: float, max_tokens: int) -> list[Sampled]:
        self.asked += asked
        return [Sampled((), (), (), "stop") for _ in asked]


def test_the_policy_is_asked_for_a_caption_of_the_image_as_it_is(policy, scenes):
    sampler = Noted()
    captions = by_policy(sampler, policy.reader, seed=3)(scenes)
    assert {scene.caption for scene in captions} == {UNDESCRIBED}
    for asked, scene in zip(sampler.asked, scenes, strict=True):
        assert asked.key == chance.key(3, "caption", scene.key)
        assert "Describe." in policy.reader.tokenizer.decode(asked.prompt.tokens)
        assert torch.equal(asked.prompt.pixels, policy.reader.prompt("", scene.images).pixels)
    assert by_policy(sampler, policy.reader, seed=3)([]) == []


def test_what_a_model_writes_can_stand_in_a_prompt(policy):
    token = policy.reader.image_token
    for text in (token, f"<|vision{token}_start|>a", "<|" + token * 3, "x" * 10 * MOST_CAPTION, "", "\n"):
        caption = plain(text)
        assert 0 < len(caption) <= MOST_CAPTION
        policy.reader.prompt(caption, [])


@pytest.mark.parametrize("source", ["", "policy", "localhost:8000"])
def test_another_source_is_refused(source):
    with pytest.raises(UserError, match="there are no captions from"):
        open_captions(source)


def test_initial_needs_the_initial_policy():
    with pytest.raises(UserError, match="initial policy"):
        open_captions("initial")


class Describer(BaseHTTPRequestHandler):
    """Describes every image in the same words, and notes the request."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(wanted)
        self.send_response(200)
        self.end_headers()
        said = f"{len(self.server.seen)} cubes<|im_end|>"
        self.wfile.write(json.dumps({"choices": [{"message": {"content": said}}]}).encode())


def test_a_server_is_sent_the_image_and_the_request(scenes, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Describer)
    server.seen = []
    url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        captioner = open_captions(url, model="m", seed=3, concurrency=1, max_tokens=5, cache=tmp_path)
        assert [scene.caption for scene in captioner(scenes)] == [
            f"{at} cubes" for at in (2, 3, 4, 5)
        ]  # 1: does it see?
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert captioner(scenes)[0].caption == "2 cubes"  # kept: the server is gone
    wanted = server.seen[1]
    image, text = wanted["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"] == (
        "Describe the image in detail, with everything that is needed to answer the following question, "
        f"but do not answer it: {scenes[0].question}"
    )
    assert wanted["seed"] == chance.key(3, "caption", scenes[0].key) % 2**31
    assert (wanted["max_tokens"], wanted["temperature"]) == (5, 0.0)
    gone = Server(url, "m", retries=0, remedy="take captions from somewhere else")
    with pytest.raises(ReasonerDown, match="somewhere else"):
        by_server(gone, seed=0)(scenes)
