"""The client against a real HTTP server that answers, stutters, hangs, lies and dies."""

import asyncio
import base64
import io
import pickle
import threading
import time
import traceback
from typing import Any

import pytest
from PIL import Image
from rewards.fake_server import Reply, ask, echo, questions, said, serving, text_of

from vergence.rewards import wire
from vergence.rewards.reasoner import Question, Reasoner, ReasonerDown
from vergence.rewards.server import Server, Turn, user_message
from vergence.types import UserError

SECRET = "sk-do-not-show-me"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in wire.KEYS:
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


# ------------------------------------------------------------------------------------------------- what is sent


def test_answers_come_in_order_and_no_more_are_under_way_than_allowed():
    def slow_first(wanted, tried):
        time.sleep(0.002 * (20 - int(text_of(wanted)[1:])))
        return echo(wanted, tried)

    with serving(slow_first) as fake:
        server = Server(fake.url, "m", concurrency=3)
        assert isinstance(server, Reasoner)
        assert ask(server, questions(20)) == [f"q{at}!" for at in range(20)]
        assert 1 < fake.most_in_flight <= 3


def test_the_request_is_the_protocols():
    with serving(echo) as fake:
        Server(fake.url + "/v1/", "m")([Question("é \ud800", key=2**40 + 7)], temperature=0.0, max_tokens=8)
    path, wanted, headers = fake.seen[0]
    assert path == "/v1/chat/completions"
    assert wanted == {
        "model": "m",
        "messages": [{"role": "user", "content": "é ?"}],  # half a surrogate pair is a status 500 to some
        "seed": (2**40 + 7) % 2**31,
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 8,
    }
    assert "Authorization" not in headers


def test_images_go_before_the_text_as_png():
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    with serving(lambda wanted, tried: said("a picture")) as fake:
        turn = Turn((user_message("What is it?", [picture]),), key=1)
        assert Server(fake.url, "m").chat([turn], temperature=0.0, max_tokens=8) == ["a picture"]
    image, text = fake.seen[0][1]["messages"][0]["content"]
    kind, data = image["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == picture.tobytes()
    assert text == {"type": "text", "text": "What is it?"}


def test_without_a_name_the_servers_first_model_is_asked():
    def one(wanted, tried):
        return Reply({"data": [{"id": "its-own"}]}) if "path" in wanted else said(wanted["model"])

    with serving(one) as fake:
        assert ask(Server(fake.url), questions(1)) == ["its-own"]
    with serving(lambda *_: Reply({"data": []})) as fake, pytest.raises(UserError, match="lists no model"):
        ask(Server(fake.url), questions(1))


def test_it_can_be_called_from_within_an_event_loop():
    async def notebook(server):
        return ask(server, questions(2))

    with serving(echo) as fake:
        assert asyncio.run(notebook(Server(fake.url, "m"))) == ["q0!", "q1!"]


def test_nothing_asked_is_nothing_sent():
    assert ask(Server("http://127.0.0.1:9"), []) == []


# ------------------------------------------------------------------------------------------------- what may pass


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_asked_again(status):
    def twice(wanted, tried):
        return Reply({"error": "busy"}, status) if tried <= 2 else echo(wanted, tried)

    with serving(twice) as fake:
        assert ask(Server(fake.url, "m", patience=0.01), questions(3)) == ["q0!", "q1!", "q2!"]
        assert set(fake.tries.values()) == {3}


def test_a_cut_answer_is_asked_again():
    with serving(lambda wanted, tried: said("half", cut=True) if tried == 1 else echo(wanted, tried)) as fake:
        assert ask(Server(fake.url, "m", patience=0.0), questions(1)) == ["q0!"]


def test_a_hanging_answer_is_asked_again():
    with serving(lambda wanted, tried: said("late", hang=30.0) if tried == 1 else echo(wanted, tried)) as fake:
        assert ask(Server(fake.url, "m", patience=0.0, timeout=0.3), questions(1)) == ["q0!"]


def test_waits_double_and_retry_after_comes_first(monkeypatch):
    waits = []

    async def note(seconds):
        waits.append(seconds)

    def busy(wanted, tried):
        return Reply({}, 429, **({"Retry-After": "0.2"} if tried == 3 else {})) if tried <= 4 else echo(wanted, tried)

    monkeypatch.setattr(wire.asyncio, "sleep", note)
    with serving(busy) as fake:
        ask(Server(fake.url, "m", patience=0.5), questions(1))
    assert waits == [0.5, 1.0, 0.2, 4.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("-3", 0.0), ("inf", wire.LONGEST_WAIT), ("nan", 1.0), ("", 1.0)],
)
def test_odd_retry_after_headers(header, seconds):
    assert wire._asked_to_wait(header, 1.0) == seconds


# ------------------------------------------------------------------------------------------------- what is an error


def refused(reply: Reply, **settings: Any) -> str:
    with serving(lambda *_: reply) as fake, pytest.raises(UserError) as caught:
        ask(Server(fake.url, "m", patience=0.0, **settings), questions(1))
    assert not isinstance(caught.value, ReasonerDown)
    assert sum(fake.tries.values()) == 1  # asked once and no more
    return str(caught.value)


def test_a_refusal_is_told_at_once_in_the_servers_words():
    assert "too long" in refused(Reply({"error": {"message": "prompt is too long"}}, 400))
    assert "VERGENCE_API_KEY" in refused(Reply({"detail": "who are you?"}, 401))
    assert "ends in /v1" in refused(Reply(b"<html>not here</html>", 404))
    assert "sends elsewhere" in refused(Reply(b"", 302, Location="http://127.0.0.1:1/"))


def test_what_a_server_says_is_cut_and_cannot_steer_the_terminal():
    told = refused(Reply(b"\x1b[2J\x07" + b"x" * 100_000, 400))
    assert "\x1b" not in told
    assert len(told) < 600


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5000,
        b"null",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"text": "old"}]}',
        b'{"choices": [{"message": {"content": 3}}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": {"0": 1}}',
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
def test_garbage_is_a_clear_error(body):
    told = refused(Reply(body))
    assert "answers with" in told
    assert len(told) < 600


def test_a_huge_answer_is_not_read(monkeypatch):
    monkeypatch.setattr(wire, "LARGEST", 2**20)
    assert "more than 1 MiB" in refused(Reply(b" " * 2**21))


def test_an_odd_encoding_is_no_crash():
    reply = Reply(b"no gzip", Content_Encoding="gzip")
    with serving(lambda *_: reply) as fake, pytest.raises(UserError):
        ask(Server(fake.url, "m", retries=0), questions(1))


def test_null_is_the_empty_answer_and_half_a_character_can_be_written():
    with serving(lambda *_: said(None)) as fake:
        assert ask(Server(fake.url, "m"), questions(1)) == [""]
    with serving(lambda *_: said("a\ud800b")) as fake:
        assert ask(Server(fake.url, "m"), questions(1)) == ["a?b"]


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://", "strong", "http://[::1", "http://h:x"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(UserError, match="not the url of a server"):
        Server(url)


@pytest.mark.parametrize(
    "settings",
    [{"concurrency": 0}, {"retries": -1}, {"patience": -1.0}, {"timeout": 0.0}, {"timeout": float("nan")}],
    ids=str,
)
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match="must be"):
        Server("http://127.0.0.1:9", "m", **settings)


@pytest.mark.parametrize(("temperature", "max_tokens"), [(-1.0, 8), (float("nan"), 8), (1.0, 0)])
def test_settings_out_of_range_are_refused(temperature, max_tokens):
    with pytest.raises(UserError, match="must be"):
        Server("http://127.0.0.1:9", "m")(questions(1), temperature=temperature, max_tokens=max_tokens)


# ------------------------------------------------------------------------------------------------- what is kept


def test_a_finished_answer_is_never_asked_again(tmp_path):
    with serving(echo) as fake:
        server = Server(fake.url, "m", cache=tmp_path / "answers")
        first = ask(server, [*questions(3), *questions(3)])
        assert sum(fake.tries.values()) == 3
    assert ask(Server(fake.url, "m", cache=tmp_path / "answers", retries=0), questions(3)) == first[:3]  # it is gone
    assert len(list((tmp_path / "answers").iterdir())) == 3


@pytest.mark.parametrize(
    "change", [{"text": "other"}, {"key": 1}, {"model": "n"}, {"temperature": 0.5}, {"max_tokens": 9}], ids=str
)
def test_whatever_changes_the_answer_is_asked_anew(tmp_path, change):
    settings = {"text": "q", "key": 0, "model": "m", "temperature": 1.0, "max_tokens": 8}
    with serving(echo) as fake:
        for now in (settings, settings | change):
            server = Server(fake.url, now["model"], cache=tmp_path)
            asked = [Question(now["text"], now["key"])]
            server(asked, temperature=now["temperature"], max_tokens=now["max_tokens"])
        assert len(fake.seen) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"request": "other", "answer": "x"}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_asked_anew(tmp_path, damage):
    with serving(echo) as fake:
        server = Server(fake.url, "m", cache=tmp_path)
        ask(server, questions(1))
        (file,) = tmp_path.iterdir()
        whole = file.read_bytes()
        file.write_bytes(damage)
        assert ask(server, questions(1)) == ["q0!"]
        assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with serving(echo) as fake, pytest.raises(UserError, match="cannot keep an answer"):
        ask(Server(fake.url, "m", cache=tmp_path / "file" / "answers"), questions(1))


def test_a_server_that_dies_midway_is_told_and_only_the_rest_is_asked_later(tmp_path):
    alive = threading.Event()
    alive.set()

    def dies(wanted, tried):
        if not alive.is_set() or text_of(wanted) == "q3":
            alive.clear()
            return Reply({"error": "cuda is gone"}, 500)
        return echo(wanted, tried)

    with serving(dies) as fake:
        server = Server(fake.url, "m", concurrency=1, retries=1, patience=0.0, cache=tmp_path)
        with pytest.raises(ReasonerDown) as caught:
            ask(server, questions(6))
        told = str(caught.value)
        assert fake.url in told
        assert "2 tries" in told
        assert "cuda is gone" in told
        assert f"3 of 6 answers are done and kept in {tmp_path}" in told
        assert "--reasoner strong" in told
        fake.behave = echo
        before = len(fake.seen)
        assert ask(server, questions(6)) == [f"q{at}!" for at in range(6)]
        assert [text_of(wanted) for _, wanted, _ in fake.seen[before:]] == ["q3", "q4", "q5"]


def test_a_server_that_is_not_there_is_told():
    with serving(echo) as fake:
        url = fake.url
    for model in ("m", ""):
        with pytest.raises(ReasonerDown, match=r"ConnectError.*1 try.*take no server here"):
            ask(Server(url, model, retries=0, remedy="take no server here"), questions(1))
    with pytest.raises(ReasonerDown, match="0 of 1 answers are done and lost"):
        ask(Server(url, "m", retries=0), questions(1))


# ------------------------------------------------------------------------------------------------- the key


@pytest.mark.parametrize("name", wire.KEYS)
def test_the_key_is_sent_and_shown_nowhere(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, f" {SECRET}\n")  # as a file read into a variable has it
    with serving(lambda *_: said(f"you are {SECRET}")) as fake:
        server = Server(fake.url, "m", cache=tmp_path, patience=0.0, retries=1)
        assert ask(server, questions(1)) == ["you are [key]"]
        assert fake.seen[0][2]["Authorization"] == f"Bearer {SECRET}"
        for status in (401, 500):
            fake.behave = lambda *_, status=status: Reply({"error": {"message": f"bad key {SECRET}"}}, status)
            with pytest.raises(UserError) as caught:
                ask(server, [Question("again", status)])
            assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(server) + str(vars(server))
    assert SECRET.encode() not in pickle.dumps(server)
    assert all(SECRET not in file.read_text() for file in tmp_path.iterdir())


def test_the_first_key_counts(monkeypatch):
    monkeypatch.setenv("VERGENCE_API_KEY", "ours")
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    with serving(echo) as fake:
        ask(Server(fake.url, "m"), questions(1))
    assert fake.seen[0][2]["Authorization"] == "Bearer ours"


def test_a_broken_key_is_told_without_it(monkeypatch):
    monkeypatch.setenv("VERGENCE_API_KEY", f"{SECRET}\nmore")
    with pytest.raises(UserError, match="set it again") as caught:
        ask(Server("http://127.0.0.1:9", "m"), questions(1))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url", [f"http://me:{SECRET}@host/v1", f"http://{SECRET}@host", f"http://host/v1?key={SECRET}", f"//me:{SECRET}@h"]
)
def test_a_key_in_the_url_is_refused_without_showing_it(url):
    with pytest.raises(UserError, match="environment variable VERGENCE_API_KEY") as caught:
        Server(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
