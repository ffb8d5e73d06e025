"""A web server on this machine that misbehaves as it is told to, and a cache of its own for every test."""

import email.utils
import importlib
import io
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from robust_models.transfer import fetch

downloading = importlib.import_module("robust_models.download")  # the package has a function of that name

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True, kw_only=True)
class File:
    """Answers with a file, from where the client asks if the version is the same."""

    content: bytes
    etag: str = '"1"'
    modified: str = ""
    kind: str = "application/octet-stream"
    ranges: bool = True
    length: int | None = -1  # what the header claims; -1: the truth, None: nothing
    stop_after: int | None = None  # bytes of the body, then the connection ends
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        asked, unchanged = handler.headers.get("Range"), handler.headers.get("If-Range") in (self.etag, self.modified)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges and unchanged else 0
        body = self.content[first:]
        handler.send_response(206 if first else 200)
        given = {"Content-Type": self.kind, "ETag": self.etag, "Last-Modified": self.modified}
        if self.length is not None:
            given["Content-Length"] = str(len(body) if self.length < 0 else self.length - first)
        if first:
            given["Content-Range"] = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        for name, value in (given | self.headers).items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: self.stop_after])


@dataclass(frozen=True)
class Status:
    """Answers with a status alone."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(self.code)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()


class Web:
    """The server: `web["/file"] = [first answer, ..., last answer, which stays]`, and what it was asked."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()

    def __setitem__(self, path: str, answers: Answer | list[Answer]) -> None:
        self.answers[path] = answers if isinstance(answers, list) else [answers]

    def url(self, path: str) -> str:
        return self.address + path

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self.lock:
            self.asked.append((handler.path, {name.lower(): value for name, value in handler.headers.items()}))
            waiting = self.answers.get(urllib.parse.urlsplit(handler.path).path, [Status(404)])
            chosen = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        chosen(handler)


@pytest.fixture
def web() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that hangs up is what many tests are about
    found = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def file() -> type[File]:
    return File


@pytest.fixture
def status() -> type[Status]:
    return Status


@pytest.fixture(scope="session")
def weights() -> bytes:
    """A file as torch.save writes it."""
    written = io.BytesIO()
    values = torch.randn(30_000, generator=torch.Generator().manual_seed(0))
    torch.save({"state_dict": {"weight": values}}, written)
    return written.getvalue()


@pytest.fixture(scope="session")
def other_weights() -> bytes:
    written = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.ones(30_000)}}, written)
    return written.getvalue()


@pytest.fixture
def long_ago() -> str:
    return email.utils.formatdate(1_600_000_000, usegmt=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the cache, with no setting of the user in force."""
    for name in ("ROBUST_MODELS_OFFLINE", "HF_HUB_OFFLINE", "ROBUST_MODELS_MIRRORS", "ROBUST_MODELS_ACCEPT_LICENSE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("ROBUST_MODELS_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """The seconds for which downloads would have waited."""
    waited: list[float] = []
    monkeypatch.setattr(downloading, "fetch", partial(fetch, sleep=waited.append))
    return waited
