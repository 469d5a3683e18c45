"""The gateway that runs on a data directory, as a command line finds and asks it."""

import json
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from handrail.bootstrap.data_dir import ADDRESS, admin_key_file, is_held
from handrail.errors import ConfigInvalid
from handrail.settings.model import Settings
from handrail.store.files import read_private

_SECONDS: Final = 5.0
_MAX_REPLY: Final = 16 << 20
_OK: Final = 200
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not to listen


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What is known of the gateway of a data directory.

    `held` says whether it runs, None when nobody can tell. `url` is its base URL, None when it runs
    but does not say where.
    """

    held: bool | None
    url: str | None = None
    key: str = field(default="", repr=False)

    def ask(self, path: str, **query: str | None) -> dict[str, Any] | None:
        """The JSON object of a GET with the admin key; None when there is none to be had."""
        if self.url is None:
            return None
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        parts = urlsplit(self.url)
        # Neither a proxy nor a redirect: they would be told the key.
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_SECONDS)
        try:
            connection.request(
                "GET",
                f"{path}?{asked}" if asked else path,
                headers={"authorization": f"Bearer {self.key}"},
            )
            reply = connection.getresponse()
            found = json.loads(reply.read(_MAX_REPLY)) if reply.status == _OK else None
        except (OSError, HTTPException, ValueError, RecursionError):
            return None
        finally:
            connection.close()
        return found if isinstance(found, dict) else None


def running(settings: Settings) -> Running:
    """The gateway of the settings' data directory. Raises nothing."""
    held = is_held(settings.data_dir)
    if not held:
        return Running(held=held)
    try:
        key = read_private(admin_key_file(settings))
    except ConfigInvalid:
        key = None
    url = _address(settings.data_dir / ADDRESS)
    if key is None or url is None:
        return Running(held=True)
    return Running(held=True, url=url, key=key.decode("ascii", "replace").strip())


def _address(path: Path) -> str | None:
    try:
        url = path.read_text("ascii").strip()
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (OSError, ValueError):
        return None
    if parts.scheme != "http" or host is None or port is None:
        return None
    name = _ANY.get(host, host)
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}{parts.path}"
