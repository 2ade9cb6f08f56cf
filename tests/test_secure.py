"""Untrusted input stays data: what no source of ours does, and what no folder, config or page of others can have done.

The rules over the source are each shown to find what they forbid (`FORBIDDEN`).
"""

import ast
import asyncio
import contextlib
import gzip
import io
import json
import logging
import os
import re
import shutil
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import torch
import yaml
from page.planted import trace
from report.planted import Elements, lines, plant
from rewards.fake_server import Reply, counted, serving, text_of
from safetensors.torch import load_file, save_file

from vergence.cli import main
from vergence.commands.looking import checkpoints_of
from vergence.models.folder import refuse_endless
from vergence.models.policy import SEEDLING, load
from vergence.report.compare import compare
from vergence.report.drawn import scenes_of
from vergence.report.looks import write_looks
from vergence.report.page import report
from vergence.report.policy import named
from vergence.report.table import print_table
from vergence.rewards import wire
from vergence.rewards.pool import Worker
from vergence.rewards.reasoner import Question
from vergence.rewards.secret import SECRETS
from vergence.rewards.server import Server
from vergence.rewards.wire import open_client
from vergence.rollout import vllm_place
from vergence.rollout.vllm_http import Address, alone
from vergence.rollout.vllm_place import environment
from vergence.scenes import folders
from vergence.scenes.embedded import of_key
from vergence.scenes.files import read
from vergence.studies import one
from vergence.train import config_file
from vergence.train.config import Config
from vergence.train.config_file import load_config
from vergence.train.display import Display
from vergence.train.recorded import TUNED
from vergence.train.trusted import reaches
from vergence.types import ORIGINAL, UserError

PACKAGE = Path(__file__).parents[1] / "vergence"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}

# ---------------------------------------------------------------------------------------- what no source does

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "multiprocessing"}
MODULES |= {"http", "socketserver", "wsgiref", "xmlrpc", "tarfile", "gzip", "bz2", "lzma", "ctypes", "code"}
"""None of these is imported: they run what is in files, open ports, or unpack without a bound."""
CALLS = {
    *("eval", "exec", "compile", "__import__", "input"),
    *("os.system", "os.popen", "tempfile.mktemp", "torch.load", "torch.save", "np.load", "numpy.load"),
    *("yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.dump_all"),
    *("pandas.read_pickle", "pd.read_pickle", "subprocess.getoutput", "asyncio.start_server"),
}
MAY_IMPORT = {"zipfile": {"harnesses/rescore.py"}}
MAY = {
    "importlib.import_module": {"commands/__init__.py", "rewards/functions.py"},
    "import_module": {"commands/__init__.py", "rewards/functions.py"},
    "spec.loader.exec_module": {"rewards/functions.py"},
    "subprocess.Popen": {"rewards/pool.py", "rollout/vllm_place.py", "studies/running.py"},
    "Markup": {"report/template.py", "report/viewer.py", "report/looks.py", "report/page.py"},
    "dist.all_gather_object": {"train/processes.py"},
    "yaml.dump": {"harnesses/lmms_eval.py"},
    "yaml.load": {"train/config_file.py"},
}
"""Calls that stand in these files alone: a command's module, a user's reward function, our own processes, our own
markup, and what the processes of one run say to each other."""


def found(source, where="x.py"):
    """What of the forbidden a source does, in words."""
    told = []
    for node in ast.walk(ast.parse(source)):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        told += [f"imports {name}" for name in names if name.partition(".")[0] in MODULES]
        told += [f"imports {name}" for name in names if name in MAY_IMPORT and where not in MAY_IMPORT[name]]
        if isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::"):
            told.append("listens everywhere")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in CALLS or (called in MAY and where not in MAY[called]):
            told.append(f"calls {called}")
        if called.startswith("subprocess.") and called not in MAY and called != "subprocess.TimeoutExpired":
            told.append(f"calls {called}")
        for given in node.keywords:
            value = ast.unparse(given.value)
            if (given.arg, value) in {
                *(
                    ("shell", "True"),
                    ("trust_remote_code", "True"),
                    ("allow_pickle", "True"),
                    ("weights_only", "False"),
                ),
                *(
                    ("verify", "False"),
                    ("follow_redirects", "True"),
                    ("autoescape", "False"),
                    ("use_safetensors", "False"),
                ),
                *(("Loader", "yaml.Loader"), ("Loader", "yaml.FullLoader"), ("Loader", "yaml.UnsafeLoader")),
            }:
                told.append(f"gives {given.arg}={value}")
        if called == "Environment" and not any(given.arg == "autoescape" for given in node.keywords):
            told.append("fills templates without escaping")
    return told


FORBIDDEN = [
    "import pickle",
    "from multiprocessing import Queue",
    "import http.server",
    "from zipfile import ZipFile",
    "eval(text)",
    "torch.load(path)",
    "np.load(path, allow_pickle=True)",
    "yaml.load(text, Loader=yaml.Loader)",
    "subprocess.run(words)",
    "subprocess.Popen(words)",
    "popen(words, shell=True)",
    "AutoModel.from_pretrained(name, trust_remote_code=True)",
    "importlib.import_module(name)",
    "Markup(text)",
    "Environment(loader=loader)",
    "dist.all_gather_object(all, one)",
    "server.bind(('0.0.0.0', 80))",
    "httpx2.Client(verify=False)",
]


@pytest.mark.parametrize("source", FORBIDDEN)
def test_the_rules_find_what_they_forbid(source):
    assert found(source)


@pytest.mark.parametrize("where", sorted(SOURCES))
def test_no_source_does_it(where):
    assert found(SOURCES[where], where) == []


def test_configs_are_read_by_a_safe_loader():
    assert issubclass(config_file._Loader, yaml.SafeLoader)


def test_no_template_leaves_anything_unescaped_and_no_script_makes_markup():
    for path in (PACKAGE / "report").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|javascript:|\bon[a-z]+\s*=\s*[\"']|https?://", text), path
    for path in (PACKAGE / "report").glob("*.js"):
        text = path.read_text(encoding="utf-8")
        made = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|fetch\(|XMLHttp|import\("
        assert not re.search(made, text), path


# ---------------------------------------------------------------------------- what a folder of others can have done

CODE = "import pathlib\npathlib.Path({!r}).write_text('ran')\ndef short(completions, **_): return [0.0]\n"
MARKS = "\x1b]0;owned\x07\x1b[2J\u202e[/bold]"
"""A terminal's title, a cleared screen, a line turned round, and what a table of rich's would take for markup."""


@pytest.fixture
def nobody(monkeypatch):
    """Whoever is called on the network, by name or by address; nobody answers."""
    called = []

    def refuse(*given, **_):
        called.append(given)
        raise OSError("there is no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return called


DATA = {"source": "stranger/data", "rows": {"train": 1}, "refused": {}, "kinds": {"integer": 1}, "kinds_declared": 0}
DATA |= {"content": "0" * 64}


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A run folder whose config, checkpoint and files ask for everything that they must not be given."""
    monkeypatch.chdir(tmp_path)
    canary, run = tmp_path / "canary", tmp_path / "stranger"
    code = CODE.format(str(canary))
    (tmp_path / "theirs.py").write_text(code)
    asked = {
        "rewards": ("theirs.py:short",),
        "trust_remote_code": True,
        "captions": "http://10.1.2.3:8000",
        "reasoner": "http://10.1.2.3:8001",
        "sampler": "http://10.1.2.3:8002",
        "pictures": "/",
        "scenes": "stranger/data",
        "model": "stranger/model",
    }
    plant(run, steps=1, method="racro", **asked)
    (run / "data.json").write_text(json.dumps(DATA))
    saved = run / "checkpoints" / "step-000001"
    shutil.copytree(SEEDLING, saved)
    for name in ("configuration_theirs.py", "modeling_theirs.py", "processing_theirs.py"):
        (saved / name).write_text(code + "class Theirs: pass\n")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        config = json.loads((saved / name).read_text())
        kinds = ("AutoConfig", "AutoModelForImageTextToText", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor")
        config["auto_map"] = dict.fromkeys(kinds, "modeling_theirs.Theirs")
        (saved / name).write_text(json.dumps(config))
    (saved / "trainer").mkdir()
    (saved / "trainer" / "config.yaml").write_text((run / "config.yaml").read_text())
    (saved / "trainer" / "state.json").write_text(json.dumps({"step": 1, "position": 1, "scenes": []}))
    return run


COMMANDS = {
    "eval": ["eval", "stranger", "--worlds", "digits", "--number", "1", "--samples", "1", "--max-tokens", "2"],
    "look": ["look", "stranger", "--worlds", "digits", "--number", "1", "--max-tokens", "2"],
    "tokens": ["tokens", "stranger", "--worlds", "digits", "--number", "2", "--samples", "1", "--max-tokens", "32"],
    "report": ["report", "stranger"],
    "push": ["push", "stranger", "owner/name", "--dry-run"],
    "same": ["same", "stranger", "other"],
    "export": ["export", "stranger", "--to", "lmms-eval", "--number", "1", "--out", "task"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_of_others_runs_no_code_and_calls_nobody(stranger, nobody, name, capsys):
    if name == "same":
        shutil.copytree("stranger", "other")
    with contextlib.suppress(SystemExit):
        main(COMMANDS[name])
    assert "error" not in capsys.readouterr().err
    assert not (stranger.parent / "canary").exists()
    assert nobody == []
    assert "theirs" not in sys.modules
    assert {"report": "nobody is asked for it here"}.get(name, "") in (
        (stranger / "report.html").read_text() if name == "report" else ""
    )


def test_a_page_shows_data_of_this_machine_to_who_has_it_already(tmp_path, monkeypatch):
    """A config may name any file: its rows are shown only if they are those that the run says it was trained on."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "What is my number?", "answer": "7"}\n')
    config, content = Config(scenes=str(path)), read(path).content
    assert scenes_of(config, DATA | {"content": content}).scene("mine/1").question == "What is my number?"
    for data, why in ((DATA, "is not what the run was trained on"), ({}, "its data.json is missing")):
        with pytest.raises(UserError, match=why):
            scenes_of(config, data).scene("mine/1")
    monkeypatch.setattr(folders, "MOST_ENTRIES", 1000)
    with pytest.raises(UserError, match="nobody but a config says to search it"):
        scenes_of(replace(config, scenes="/"), DATA).scene("mine/1")


def test_what_is_handed_on_is_told_of_a_damaged_folder_too(stranger, capsys):
    saved = stranger / "checkpoints" / "step-000001"
    deep = "[" * 900 + "]" * 900
    (stranger / "data.json").write_text(f'{{"source": "embedded", "more": {deep}}}')
    main(COMMANDS["push"])
    (stranger / "data.json").write_text(f'{{"source": "embedded", "worlds": {deep}}}')
    with pytest.raises(SystemExit):
        main(COMMANDS["push"])
    (stranger / "data.json").unlink()
    (stranger / "evaluation").mkdir(exist_ok=True)
    for line in ('{"scene": "a"}', '{"scene": "a", "status": "right", "max_tokens": "many"}'):
        (stranger / "evaluation" / "last.jsonl").write_text(line + "\n")
        with pytest.raises(SystemExit):
            main(COMMANDS["push"])
    (stranger / "evaluation" / "last.jsonl").unlink()
    with (stranger / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 1} | dict.fromkeys(TUNED, "x")) + "\n")
    with pytest.raises(SystemExit):
        main(COMMANDS["push"])
    told = capsys.readouterr().err
    for why in ("its worlds is not", "there is no 'status'", "'max_tokens' must be", "'eval/accuracy' must be"):
        assert why in told
    assert saved.is_dir()


def test_a_folder_deeper_than_python_calls_is_sent_and_compared(stranger):
    shutil.copytree("stranger", "other")
    deep = [f"{stranger}/checkpoints/step-000001{'/d' * number}" for number in range(1, 1100)]
    for folder in deep:
        os.mkdir(folder)
    try:
        main(COMMANDS["push"])
        main(COMMANDS["same"])
    finally:  # which pytest could not do
        for folder in reversed(deep):
            os.rmdir(folder)


def test_a_model_of_endless_layers_is_refused_before_one_is_made(stranger, capsys):
    path = stranger / "checkpoints" / "step-000001" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["num_hidden_layers"] = 10**8
    path.write_text(json.dumps(config))
    with pytest.raises(SystemExit):
        main(COMMANDS["eval"])
    assert "has num_hidden_layers 100000000 in its config.json, and no model has that many" in capsys.readouterr().err


def test_sizes_of_layers_and_experts_are_not_their_number(tmp_path):
    """As published models have them: Qwen2-MoE's, DeepSeek's and others'."""
    sizes = {"shared_expert_intermediate_size": 5632, "moe_layer_size": 9000, "block_size": 4096, "num_experts": 16_384}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": sizes}))
    refuse_endless(tmp_path, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": sizes | {"n_routed_experts": 10**7}}))
    with pytest.raises(UserError, match="n_routed_experts 10000000"):
        refuse_endless(tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["audit", "evaluation"])
def test_an_audit_is_not_written_where_a_link_of_others_leads(stranger, tmp_path, capsys, name):
    (tmp_path / "mine").mkdir()
    shutil.rmtree(stranger / name, ignore_errors=True)
    (stranger / name).symlink_to(tmp_path / "mine")
    with pytest.raises(SystemExit):
        main(["audit", "stranger", "--worlds", "digits", "--number", "1"])
    assert f"{name} is a link, and an audit is written there" in capsys.readouterr().err
    assert not [*(tmp_path / "mine").iterdir()]


def test_code_beside_weights_of_no_known_kind_is_refused(stranger, nobody):
    saved = stranger / "checkpoints" / "step-000001"
    config = json.loads((saved / "config.json").read_text()) | {"model_type": "theirs"}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="--trust-remote-code"):
        load(saved)
    assert not (stranger.parent / "canary").exists()
    assert nobody == []


@pytest.mark.parametrize(("asks", "told"), [("kernel", "code of 'theirs/kernel'"), ("adapter", "holds an adapter")])
def test_a_model_that_names_code_or_a_model_elsewhere_is_refused(stranger, nobody, asks, told):
    saved = stranger / "checkpoints" / "step-000001"
    if asks == "adapter":
        (saved / "adapter_config.json").write_text('{"base_model_name_or_path": "theirs/model", "peft_type": "LORA"}')
    else:
        config = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps(config | {"attn_implementation": "theirs/kernel"}))
    with pytest.raises(UserError, match=told):
        load(saved)
    assert nobody == []


def test_the_model_that_a_run_says_it_began_with_is_loaded_for_who_names_it(stranger):
    with pytest.raises(UserError, match=r"began with stranger/model.*name that model too"):
        checkpoints_of("stranger", "all", ("stranger",))
    assert checkpoints_of("stranger", "all", ("stranger", "stranger/model"))[0] == ("stranger", "stranger/model")


def test_a_config_of_others_trains_nothing_unless_it_is_trusted(stranger, nobody, capsys):
    given = ["train", "--config", "stranger/config.yaml", "--out", "run"]
    with pytest.raises(SystemExit):
        main(given)
    told = capsys.readouterr().err
    for what in ("runs the code of theirs.py:short", "runs code that comes with", "asks the server", "reads pictures"):
        assert what in told
    assert "--trust-config" in told
    assert not (stranger.parent / "canary").exists()
    assert not Path("run").exists()
    assert nobody == []
    with pytest.raises(SystemExit):  # each that is typed is allowed, and the others are not
        main([*given, "--captions", "scene", "--sampler=own", "--reasoner", "weak", "--no-trust-remote-code"])
    told = capsys.readouterr().err
    assert "--rewards, --pictures" in told
    assert "--reasoner" not in told.partition("say it yourself")[2]


def test_every_field_that_may_reach_out_is_known():
    """Of a config with an address in every field of text, each is told, or names data and weights alone."""
    only_data = {"model", "method", "scenes", "device"}
    texts = [name for name, kind in Config.__annotations__.items() if kind == "str" and name not in only_data]
    assert set(texts) - set(reaches(Config(**{name: "http://a:1" for name in texts if name != "server_model"}))) == {
        "server_model"
    }


def test_links_out_of_a_checkpoint_are_not_sent(stranger, capsys):
    secret = stranger.parent / "secret.txt"
    secret.write_text("mine")
    (stranger / "checkpoints" / "step-000001" / "notes.txt").symlink_to(secret)
    with pytest.raises(SystemExit):
        main(COMMANDS["push"])
    assert "is a link to" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ secrets

CANARY = "sk-canary-0123456789"


def echoing(wanted, tried):
    """A server that gives back what it was sent, its key too, and now and then fails with it."""
    if tried == 1:
        return Reply({"error": {"message": f"busy, {CANARY}"}}, 503, **{"Retry-After": "0"})
    return counted(f"{CANARY} \\boxed{{{text_of(wanted)[-1:]}}}", 20, 10)


def test_keys_are_in_nothing_that_is_written_or_printed(tmp_path, monkeypatch, capfd):
    """Trained, evaluated, reported and studied with every secret set to one word, by a server that gives it back."""
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    monkeypatch.chdir(tmp_path)
    with serving(echoing) as fake:
        given = ["--reasoner", fake.url, "--server-model", "m", "--seed", "1", "--worlds", "digits", "--quiet"]
        size = ["--steps", "1", "--scenes-per-batch", "2", "--siblings", "2", "--max-tokens", "16", "--parts", "1"]
        main(["train", "demo", "--method", "racro", "--out", "run", *given, *size, "--eval-every", "0"])
        asked = [
            "--worlds",
            "digits",
            "--number",
            "1",
            "--samples",
            "1",
            "--max-tokens",
            "16",
            "--out",
            "answers.jsonl",
        ]
        main(["eval", "run", "--reasoner", fake.url, "--reasoner-model", "m", *asked])
        config = replace(load_config(Path("run/config.yaml")), steps=1)
        how = {"seconds": 0.0, "questions": 1, "samples": 1, "elsewhere": 0}
        one.carry_out(one.Job(name="a", config=config, run=Path("again"), record=Path("record.json"), **how))
        assert {sent[2]["Authorization"] for sent in fake.seen} == {f"Bearer {CANARY}"}
        fake.behave = lambda *_: Reply({"error": f"no, {CANARY}"}, 401)
        with pytest.raises(SystemExit):
            main(["eval", "run", "--reasoner", fake.url, "--reasoner-model", "m", *asked[:-1], "others.jsonl"])
    main(["report", "run"])
    main(["env"])
    said = capfd.readouterr()
    assert "[key]" in said.err
    assert CANARY not in said.out + said.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"report.html", "config.yaml", "rollouts.jsonl", "record.json"} <= {path.name for path in files}
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert any(b"[key]" in path.read_bytes() for path in files)  # it did come back


def test_a_key_that_may_be_anothers_goes_to_no_other_machine_in_the_clear(monkeypatch):
    monkeypatch.delenv("VERGENCE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    for url, told in {
        "https://host/v1": CANARY,
        "http://localhost:8000/v1": CANARY,
        "http://127.0.0.1:8000": CANARY,
        "http://[::1]:8000": CANARY,
        "http://host/v1": "",
        "http://10.0.0.1:8000": "",
        "http://localhost.example.org": "",
        "http://127.0.0.1.example.org": "",
    }.items():
        assert wire.key_for(url) == told, url
        assert (f"Bearer {CANARY}" in open_client(url, 1, 1.0).headers.values()) == bool(told)
    monkeypatch.setenv("VERGENCE_API_KEY", "ours")
    assert wire.key_for("http://10.0.0.1:8000") == "ours"


def test_processes_that_need_no_secret_have_none(monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    assert CANARY not in environment(load("seedling")).values()
    worker = Worker()
    given = Path(f"/proc/{worker._process.pid}/environ").read_text()
    worker.end()
    assert "PYTHONPATH" in given
    assert CANARY not in given


def test_the_server_that_is_started_has_no_port_no_key_and_a_folder_of_its_own(monkeypatch, tmp_path):
    started = []

    class Started:
        def __init__(self, command, **how):
            started.append((command, how))

        def poll(self):
            return None

    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    for name, other in {"refuse_missing": lambda: None, "wait_for": lambda *_: None}.items():
        monkeypatch.setattr(vllm_place, name, other)
    monkeypatch.setattr(vllm_place.subprocess, "Popen", Started)
    child = vllm_place.Child()
    address = child.up(tmp_path, load("seedling"), threading.Event())
    ((command, how),) = started
    assert f"--uds={address.socket}" in command
    assert not [word for word in command if word.startswith(("--host", "--port", "--api-key"))]
    assert address.socket.parent.stat().st_mode & 0o077 == 0
    assert CANARY not in " ".join(command) + str(how)
    assert "shell" not in how
    child.process = None
    child.down()


@pytest.mark.parametrize("packing", ["gzip", "br", "zstd", "deflate, gzip"])
def test_an_answer_that_is_packed_is_not_unpacked(packing):
    bomb = gzip.compress(json.dumps({"data": "a" * 2**20}).encode())
    with serving(lambda *_: Reply(bomb, **{"Content-Encoding": packing})) as fake:
        with pytest.raises(UserError, match="compresses its answer"):
            Server(fake.url, "m", retries=0)([Question("a", 1)], temperature=0.0, max_tokens=1)
        with pytest.raises(UserError, match="compresses its answer"):
            alone("GET", Address(fake.url), "/x", timeout=5.0)


# ----------------------------------------------------------------------------------------------- terminals


def test_nothing_that_data_says_is_obeyed_by_a_terminal(capsys, tmp_path):
    print_table(MARKS, [MARKS], [[MARKS], ["[red]b[/red]"]])
    Display(1, quiet=False).tell(MARKS)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "?", "answer": "1", "image": MARKS}) + "\n")
    for given in (["data", "check"], ["eval", "seedling", "--scenes"]):
        with contextlib.suppress(SystemExit):
            main([*given, str(tmp_path / "rows.jsonl")])
    with pytest.raises(SystemExit):
        main([MARKS])
    said = capsys.readouterr()
    assert not set(said.out + said.err) & set("\x1b\x07\u202e")
    assert "[red]b[/red]" in said.out


def test_what_a_library_logs_of_a_file_is_obeyed_by_no_terminal(stranger, capsys):
    """transformers names the tensors that fit nowhere."""
    (weights,) = (stranger / "checkpoints" / "step-000001").glob("*.safetensors")
    save_file(load_file(weights) | {f"{MARKS} mine": torch.zeros(1)}, weights)
    logged = logging.StreamHandler(io.StringIO())
    logging.getLogger("transformers").addHandler(logged)
    try:
        with pytest.raises(SystemExit):
            main(COMMANDS["eval"])
    finally:
        logging.getLogger("transformers").removeHandler(logged)
    said = logged.stream.getvalue()
    assert "UNEXPECTED" in said
    assert "mine" in said
    assert not set(said + capsys.readouterr().err) & set("\x1b\x07\u202e")


# -------------------------------------------------------------------------------------------------- pages


def test_every_page_says_what_a_browser_may_do_and_names_what_it_has(tmp_path):
    scene = of_key("bars/train/0/0")
    records = [trace(scene, "red bar: 3.", sibling=sibling) for sibling in range(2)]
    for name in ("one", "two"):
        plant(tmp_path / name, steps=1)
    lines(tmp_path / "two" / "traces.jsonl", records)
    shown = {"image": ORIGINAL}
    pages = [report(tmp_path / "one"), report(tmp_path / "two")]
    pages += [compare([tmp_path / "one", tmp_path / "two"], tmp_path / "both.html")]
    pages += [write_looks(tmp_path / "looks.html", "Looks", records, of_key, shown)]
    for page in pages:
        html = page.read_text(encoding="utf-8")
        metas = [attributes for tag, attributes in Elements(html).tags if tag == "meta"]
        (policy,) = [one["content"] for one in metas if one.get("http-equiv") == "Content-Security-Policy"]
        assert html.index("Content-Security-Policy") < html.index("<style")
        assert {"name": "referrer", "content": "no-referrer"} in metas
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
        assert rules["img-src"] == "data:"
        styles = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
        scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
        sheets = rules.get("style-src-elem", rules["style-src"])
        assert sorted(sheets.split()) == sorted(map(named, styles))
        assert rules.get("script-src", "").split() == list(map(named, scripts))
        assert html.lower().count("<style") == len(styles)
        assert "unsafe" not in rules.get("script-src", "") + sheets


def test_a_proxy_hears_nothing_of_what_stays_on_this_machine(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(("127.0.0.1", 0)) as closed:
        proxy.settimeout(0.2)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        url = f"http://localhost:{closed.getsockname()[1]}/v1/models"

        async def ask() -> None:
            async with open_client(url, 1, 0.2) as client:
                await client.get(url)

        with pytest.raises(httpx2.TransportError):  # nobody answers there
            asyncio.run(ask())
        with pytest.raises(TimeoutError):
            proxy.accept()
