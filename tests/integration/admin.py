"""A client of the admin API that takes replies to the letter."""

import json
from dataclasses import dataclass
from typing import Any

from tests.conftest import Running
from tests.raw_http import Reply, ask, head


def admin_key(gateway: Running) -> str:
    """The key that the gateway has made for it."""
    return (gateway.gateway.settings.data_dir / "admin.key").read_text().strip()


@dataclass(frozen=True, slots=True)
class Admin:
    """Calls one gateway with its admin key."""

    gateway: Running

    async def ask(
        self, method: str, path: str, body: Any = None, *fields: bytes, **options: Any
    ) -> Reply:
        """One reply. `body` is sent as JSON, bytes as they are."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        if "key" not in options:
            options["key"] = admin_key(self.gateway)
        if body is None:
            options.setdefault("kind", None)
        if data or method == "POST":
            fields = (*fields, b"Content-Length: %d" % len(data))
        request = head(f"{method} {path} HTTP/1.1".encode(), *fields, **options) + data
        reply = await ask(self.gateway.port, request)
        assert reply is not None
        return reply

    async def done(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The JSON of a reply that says that it was done."""
        reply = await self.ask(method, path, body)
        assert reply.status == 200, reply.body
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in reply.headers
        found: dict[str, Any] = json.loads(reply.body)
        return found

    async def key(self, caller: str, **fields: Any) -> dict[str, Any]:
        """A new key."""
        return await self.done("POST", "/admin/keys", {"caller": caller, **fields})
