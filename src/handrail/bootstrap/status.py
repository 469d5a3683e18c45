"""One view of a gateway and its accounts for a command line: beside a running one, or without."""

from dataclasses import asdict, dataclass
from typing import Any

from handrail.bootstrap.pool import AccountBook, Checked
from handrail.bootstrap.running import Running, running
from handrail.engine.account_views import Asked
from handrail.errors import ConfigInvalid
from handrail.settings.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What came of asking the upstream: by name, why there is nothing new."""

    problems: dict[str, str]


class Status:
    """Looks at a data directory. What a running gateway alone knows is asked of that.

    `answers` says whether it gave an answer; what it alone knows is null otherwise.
    """

    def __init__(self, settings: Settings, book: AccountBook) -> None:
        self._settings = settings
        self._book = book
        self._gateway: Running = running(settings)

    async def live(self) -> Live:
        """Have every account's quota asked for at the upstream, and keep what it says."""
        asked: list[Checked] = await self._book.ask_usage()
        return Live(problems={each.name: said for each in asked if (said := _said(each))})

    async def told(self, live: Live | None = None) -> dict[str, Any]:
        """The whole view as JSON values. Times are ISO 8601 in UTC."""
        ready = self._gateway.ask("/readyz")
        rows = None if ready is None else self._rows()
        return {
            "version": 1,
            "gateway": {
                "state": _STATES[self._gateway.held],
                "answers": ready is not None,
                "url": self._gateway.url,
                "data_dir": str(self._settings.data_dir),
                "store": None if ready is None else ready.get("store"),
                "settings": None if ready is None else ready.get("settings"),
            },
            "targets": [
                {"name": each.label, "profile": each.profile.name, "url": each.url}
                for each in self._settings.targets.values()
            ],
            "accounts": await self._book.told() if rows is None else rows,
            "not_asked": None if live is None else live.problems,
        }

    def _rows(self) -> list[dict[str, Any]] | None:
        said = self._gateway.ask("/admin/accounts")
        data = None if said is None else said.get("data")
        if not isinstance(data, list):
            return None
        return [{k: v for k, v in row.items() if k != "object"} for row in data]

    async def why(self, asked: Asked) -> dict[str, Any]:
        """Who would serve a request now: `source` says whether the running gateway has told.

        Raises ConfigInvalid for an account or a caller that is not there.
        """
        if asked.account is not None:
            self._book.named(asked.account)
        if asked.caller is not None and asked.caller not in self._settings.callers:
            raise ConfigInvalid("--caller: the settings have no caller of that name.")
        said = self._gateway.ask("/admin/why", **asdict(asked))
        if said is not None and isinstance(said.get("targets"), list):
            return {"version": 1, "source": "gateway", "targets": said["targets"]}
        found = await self._book.why(asked)
        return {
            "version": 1,
            "source": "store",
            "gateway": _STATES[self._gateway.held],
            "targets": found,
        }


_STATES = {True: "running", False: "stopped", None: "unknown"}


def _said(checked: Checked) -> str | None:
    return checked.problem or checked.note
