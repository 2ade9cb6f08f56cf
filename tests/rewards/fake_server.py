"""A chat server of our own, over real HTTP: what it does with each request is a function."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vergence.rewards.reasoner import Question
from vergence.rewards.server import Server


class Reply:
    """What the fake server does with a request: `body` is sent as it is."""

    def __init__(self, body: Any = None, status: int = 200, *, hang: float = 0.0, cut: bool = False, **headers: str):
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.hang, self.cut, self.headers = status, hang, cut, headers


def said(text: Any, **more: Any) -> Reply:
    return Reply({"choices": [{"message": {"role": "assistant", "content": text}}]}, **more)


def completion(message: dict[str, Any], finish: str = "stop", usage: Any = None, **more: Any) -> Reply:
    """A chat completion as servers write it in full."""
    body = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    return Reply(body | ({} if usage is None else {"usage": usage}), **more)


def counted(text: str, prompt: int, written: int) -> Reply:
    """A completion with its tokens counted."""
    return completion({"content": text}, usage={"prompt_tokens": prompt, "completion_tokens": written})


class Fake(ThreadingHTTPServer):
    """A chat server. `behave` decides what a request, its number among those of the same text given, is answered."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behave: Callable[[dict[str, Any], int], Reply], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.behave = behave
        self.lock, self.tries, self.seen = threading.Lock(), Counter(), []
        self.in_flight = self.most_in_flight = 0
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that goes away is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: the second of two waits 40 ms for the first to be acknowledged

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send(self.server.behave({"path": self.path}, 0))

    def do_POST(self):
        server = self.server
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append((self.path, wanted, dict(self.headers)))
            name = json.dumps(wanted["messages"])
            server.tries[name] += 1
            tried = server.tries[name]
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            self.send(server.behave(wanted, tried))
        finally:
            with server.lock:
                server.in_flight -= 1

    def send(self, reply: Reply) -> None:
        self.server.over.wait(reply.hang)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(reply.body) + reply.cut))
        self.end_headers()
        self.wfile.write(reply.body)
        self.close_connection = reply.cut


@contextmanager
def serving(behave: Callable[[dict[str, Any], int], Reply], port: int = 0) -> Iterator[Fake]:
    fake = Fake(behave, port)
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.over.set()
        fake.shutdown()
        fake.server_close()
        thread.join()


def text_of(wanted: dict[str, Any]) -> str:
    return wanted["messages"][-1]["content"]


def echo(wanted: dict[str, Any], tried: int) -> Reply:
    return said(f"{text_of(wanted)}!")


def questions(number: int) -> list[Question]:
    return [Question(f"q{at}", key=at) for at in range(number)]


def ask(server: Server, asked: list[Question]) -> list[str]:
    return server(asked, temperature=1.0, max_tokens=8)
