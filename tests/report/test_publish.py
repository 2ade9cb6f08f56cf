"""Pushing to the Hub: the real client against a small server that remembers what it was sent."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from vergence.cli import main
from vergence.recipes import recipe
from vergence.report.publish import files_of, publish
from vergence.train.config_file import to_yaml
from vergence.types import UserError


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload needs."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def say(self, status: int, found: object) -> None:
        told = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)

    def handle_one(self) -> None:
        body, hub = self.body(), self.server
        hub.asked.append((self.command, self.path, self.headers.get("Authorization")))
        here = f"http://127.0.0.1:{hub.server_port}"
        if hub.status != 200:
            self.say(hub.status, {"error": "no"})
        elif self.path == "/api/repos/create":
            hub.made = json.loads(body)
            self.say(200, {"url": f"{here}/owner/name"})
        elif "/branch/" in self.path:
            self.say(200, {})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False} for f in files]
            self.say(200, {"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            actions = {"upload": {"href": f"{here}/store"}}
            found = [{"oid": one["oid"], "size": one["size"], "actions": actions} for one in objects]
            self.say(200, {"objects": found, "transfer": "basic"})
        elif self.path == "/store":
            hub.stored.append(body)
            self.say(200, {})
        elif "/commit/" in self.path:
            hub.commits.append((self.path, [json.loads(line) for line in body.splitlines()]))
            self.say(200, {"commitUrl": f"{here}/owner/name/commit/1", "commitOid": "1"})
        else:
            self.say(200, {"id": "owner/name", "private": hub.private, "siblings": [], "sha": "0" * 40})

    do_GET = do_POST = do_PUT = do_HEAD = handle_one


def mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


@contextmanager
def serving(status: int = 200, private: bool = True) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.stored, server.commits, server.made = [], [], [], None
    server.status, server.private = status, private
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# A card")
    (folder / "odd[1]*.json").write_text("[]")
    save_file({"a": torch.arange(8.0)}, folder / "model.safetensors")
    (folder / "trainer").mkdir()
    (folder / "trainer" / "config.yaml").write_text("model: /home/me/private")
    (folder / "trainer" / "state.json").write_text('{"step": 2, "position": 0}')
    return folder


@pytest.fixture
def towards(monkeypatch):
    """Let the real client talk to a server of ours."""

    def point(hub: ThreadingHTTPServer, **constant: object) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        address = f"http://127.0.0.1:{hub.server_port}"
        for name, value in ({"ENDPOINT": address, "HF_HUB_DISABLE_XET": True} | constant).items():
            monkeypatch.setattr(constants, name, value)

    return point


def test_a_checkpoint_goes_to_a_private_repository_without_what_only_resuming_needs(checkpoint, towards, capfd):
    with serving() as hub:
        towards(hub)
        main(["push", str(checkpoint), "owner/name", "--revision", "step-1"])
    out, error = capfd.readouterr()
    assert out.strip().endswith("/owner/name")
    assert hub.made.get("visibility") == "private" or hub.made.get("private") is True
    assert any("/branch/step-1" in path for _, path, _ in hub.asked)
    ((path, lines),) = hub.commits
    assert path.endswith("/commit/step-1")
    sent = {line["value"]["path"] for line in lines if line["key"] in ("file", "lfsFile")}
    assert sent == {"config.json", "README.md", "odd[1]*.json", "model.safetensors"}
    assert hub.stored == [(checkpoint / "model.safetensors").read_bytes()]
    assert any(token == "Bearer hf_secret" for *_, token in hub.asked)
    assert "hf_secret" not in out + error


@pytest.mark.parametrize(
    ("server", "constant", "told"),
    [
        ({"status": 401}, {}, "does not know this login"),
        ({"status": 403}, {}, "lets this login not write to owner/name"),
        ({"private": False}, {}, "give --public"),
        ({}, {"HF_HUB_OFFLINE": True}, "HF_HUB_OFFLINE is set"),
        ({}, {"ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
    ids=["unknown", "forbidden", "seen by all", "offline", "no network"],
)
def test_what_stands_in_the_way_is_told(checkpoint, towards, server, constant, told):
    with serving(**server) as hub:
        towards(hub, **constant)
        with pytest.raises(UserError, match=told) as error:
            publish(checkpoint, "owner/name", files_of(checkpoint))
    assert "hf_secret" not in str(error.value)
    assert not hub.commits


def test_a_dry_run_lists_what_would_be_sent(checkpoint, capsys):
    main(["push", str(checkpoint), "owner/name", "--dry-run"])
    out = capsys.readouterr().out
    assert "model.safetensors" in out
    assert "trainer/" not in out
    assert "4 files" in out
    main(["push", str(checkpoint), "owner/name", "--dry-run", "--with-trainer"])
    assert "trainer/config.yaml" in capsys.readouterr().out


def test_a_dry_run_shows_the_card_that_would_be_sent_and_writes_nothing(checkpoint, tmp_path, capsys):
    folder = tmp_path / "checkpoints" / "step-000002"
    shutil.copytree(checkpoint, folder)
    (folder / "trainer" / "state.json").write_text('{"step": 1, "position": 0}')
    (folder / "trainer" / "config.yaml").write_text(to_yaml(recipe("demo")))
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "evaluation").mkdir()
    record = {"scene": "a", "sample": 0, "status": "right"}
    (tmp_path / "evaluation" / "bench.jsonl").write_text(json.dumps(record) + "\n")
    main(["push", str(tmp_path), "owner/name", "--dry-run"])
    out = capsys.readouterr().out
    assert "`bench`: **1.000** (95 % interval [0.025, 1.000], 1 questions); avg@1, conditions not recorded" in out
    assert (folder / "README.md").read_text() == "# A card"


@pytest.mark.parametrize(
    ("arguments", "told"), [(["nowhere", "owner/name"], "no folder nowhere"), (["seedling", "name"], "owner/name")]
)
def test_bad_input_is_told(capsys, arguments, told):
    with pytest.raises(SystemExit):
        main(["push", *arguments])
    assert told in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        files_of(tmp_path)
