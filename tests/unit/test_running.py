"""The gateway of a data directory as a command line finds it, over a real lock and sockets."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from filelock import FileLock

from handrail.bootstrap.data_dir import ADDRESS, ADMIN_KEY, LOCK, is_held, note_address, take_lock
from handrail.bootstrap.running import running
from handrail.settings.model import Settings
from handrail.store.files import replace_file
from tests.unit.reading import Read


class Seen(BaseHTTPRequestHandler):
    """Answers what the class says, and remembers who asked."""

    status = 200
    body = b'{"object": "list"}'
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        """Answer."""
        self.asked.append((self.path, self.headers["authorization"]))
        self.send_response(self.status)
        if self.status == 307:
            self.send_header("location", "/elsewhere")
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    Seen.asked, Seen.status, Seen.body = [], 200, b'{"object": "list"}'
    found = HTTPServer(("127.0.0.1", 0), Seen)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def settings(read: Read) -> Settings:
    found = read()
    found.data_dir.mkdir(parents=True, exist_ok=True)
    replace_file(found.data_dir / ADMIN_KEY, b"hr_admin_key\n")
    return found


def at(server: HTTPServer, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.server_port}/v1"


def test_nobody_is_asked_where_no_gateway_runs(settings: Settings, server: HTTPServer) -> None:
    assert running(settings).held is False
    note_address(settings.data_dir, at(server))
    assert running(settings).url is None
    take_lock(settings.data_dir).release()
    assert running(settings).url is None
    assert Seen.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_running_one_is_asked_where_it_says_with_the_admin_key(
    settings: Settings, server: HTTPServer, host: str
) -> None:
    lock = take_lock(settings.data_dir)
    note_address(settings.data_dir, at(server, host))
    found = running(settings)
    assert (found.held, found.url) == (True, at(server))
    assert found.ask("/admin/why", model="gpt 5", account=None) == {"object": "list"}
    assert Seen.asked == [("/admin/why?model=gpt+5", "Bearer hr_admin_key")]
    assert "hr_admin" not in repr(found)
    lock.release()


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, b"{}"), (307, b"{}"), (200, b"[]"), (200, b"no"), (200, b"[" * 100_000)],
)
def test_an_answer_that_is_none_is_none(
    settings: Settings, server: HTTPServer, status: int, body: bytes
) -> None:
    lock = take_lock(settings.data_dir)
    note_address(settings.data_dir, at(server))
    Seen.status, Seen.body = status, body
    assert running(settings).ask("/readyz") is None
    assert len(Seen.asked) == 1  # and a redirect is not followed
    lock.release()


@pytest.mark.parametrize(
    "url", ["", "ftp://127.0.0.1:1/v1", "http://127.0.0.1/v1", "http://[", "é"]
)
def test_an_address_that_is_none_is_not_asked(settings: Settings, url: str) -> None:
    lock = take_lock(settings.data_dir)
    (settings.data_dir / ADDRESS).write_text(url)
    found = running(settings)
    assert (found.held, found.url, found.ask("/readyz")) == (True, None, None)
    lock.release()


def test_one_that_has_just_gone_does_not_answer(settings: Settings) -> None:
    lock = take_lock(settings.data_dir)
    note_address(settings.data_dir, "http://127.0.0.1:1/v1")
    assert running(settings).ask("/readyz") is None
    (settings.data_dir / ADMIN_KEY).unlink()
    assert running(settings).url is None
    lock.release()


def test_what_a_gateway_before_has_noted_is_gone_when_another_begins(settings: Settings) -> None:
    note_address(settings.data_dir, "http://127.0.0.1:1/v1")
    take_lock(settings.data_dir).release()
    assert not (settings.data_dir / ADDRESS).exists()


def test_a_look_at_the_lock_does_not_stop_a_start(settings: Settings) -> None:
    held, starting = threading.Event(), threading.Event()

    def look() -> None:
        with FileLock(settings.data_dir / LOCK):
            held.set()
            starting.wait(10)

    looking = threading.Thread(target=look)
    looking.start()
    assert held.wait(10)
    starting.set()
    lock = take_lock(settings.data_dir)
    looking.join()
    assert lock.is_locked
    lock.release()


def test_a_lock_that_cannot_be_looked_at_says_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    assert is_held(tmp_path) is None
