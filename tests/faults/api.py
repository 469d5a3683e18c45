"""What fault tests ask a gateway over the API, and the invariants that hold after every fault."""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.acceptance.processes import CALLER_KEY, Child

Answer = tuple[int, Any, Mapping[str, str]]
FINAL = ("completed", "failed", "incomplete", "cancelled")


class Api:
    """Plain requests, without an SDK's own repeats."""

    def __init__(self, gateway: Child) -> None:
        self.url = gateway.url

    def call(
        self, method: str, path: str, body: object = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body (decoded when it is JSON) and headers."""
        request = Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "authorization": f"Bearer {CALLER_KEY}",
                "content-type": "application/json",
            },
        )
        try:
            with urlopen(request, timeout=60) as reply:
                return reply.status, _decoded(reply.read()), dict(reply.headers)
        except HTTPError as error:
            with error:
                return error.code, _decoded(error.read()), dict(error.headers)

    def create(self, text: str, *, background: bool = True) -> Answer:
        """One create."""
        return self.call(
            "POST", "/responses", {"model": "m", "input": text, "background": background}
        )

    def accepted(self, text: str) -> str:
        """The id of one background response that was accepted."""
        status, body, _ = self.create(text)
        assert status == 200, body
        return str(body["id"])

    def get(self, response_id: str) -> Any:
        """One response as it is."""
        status, body, _ = self.call("GET", f"/responses/{response_id}")
        assert status == 200, body
        return body

    def ended(self, response_id: str, *, seconds: float = 60.0) -> Any:
        """One response, once it has ended."""
        return until(lambda: self._final(response_id), seconds=seconds)

    def _final(self, response_id: str) -> Any:
        body = self.get(response_id)
        return body if body["status"] in FINAL else None

    def events(self, response_id: str, *, after: int = -1) -> list[Any]:
        """Its stored events."""
        query = "?stream=true" + (f"&starting_after={after}" if after >= 0 else "")
        status, body, _ = self.call("GET", f"/responses/{response_id}{query}")
        assert status == 200, body
        frames = [frame for frame in body.split(b"\n\n") if frame.startswith(b"event: ")]
        return [json.loads(frame.partition(b"\ndata: ")[2]) for frame in frames]

    def ready(self) -> Any:
        """What /readyz says."""
        with urlopen(self.url.removesuffix("/v1") + "/readyz", timeout=60) as reply:
            return json.load(reply)

    def check(self, response_id: str) -> Any:
        """Hold one ended response to I2, I3, I5 and I6."""
        body, events = self.ended(response_id), self.events(response_id)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        ends = [event for event in events if event["type"] in ENDS]
        assert ends == [events[-1]]
        assert ends[0]["response"] == body
        assert self.events(response_id, after=len(events) // 2) == events[len(events) // 2 + 1 :]
        if body["status"] == "completed":
            assert body["output"]
            assert body["usage"]
        return body


ENDS = ("response.completed", "response.failed", "response.incomplete")


def until(look: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """What `look` gives once it gives something true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


def logged(gateway: Child) -> list[Any]:
    """The gateway's log so far."""
    return [json.loads(line) for line in gateway.log.read_text().splitlines() if line[:1] == "{"]


def upstream_calls(upstream: Child) -> dict[str, int]:
    """How often each tagged run was sent upstream (I7)."""
    with urlopen(f"{upstream.url}/seen", timeout=60) as reply:
        tags: dict[str, int] = json.load(reply)["tags"]
        return tags


def is_whole(directory: Path) -> bool:
    """Whether SQLite finds nothing wrong with a database that nobody has open."""
    connection = sqlite3.connect(directory / "handrail.db")
    try:
        return bool(connection.execute("pragma integrity_check").fetchone()[0] == "ok")
    finally:
        connection.close()


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data
