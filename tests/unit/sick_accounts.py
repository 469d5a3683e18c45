"""A store of accounts whose disk is sick for as long as a test says."""

from collections.abc import Callable
from typing import Any

from handrail.errors import Code, StoreFailed
from handrail.store.sqlite_accounts import SqliteAccounts


class SickAccounts:
    """`Accounts` over a real store. While `sick`, what the engine asks of the disk fails."""

    def __init__(self, store: SqliteAccounts) -> None:
        self._store = store
        self.sick = False
        self.defect: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return found if name == "digest" else self._guarded(found)

    def _guarded(self, work: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*arguments: Any, **rest: Any) -> Any:
            if self.defect is not None:
                raise self.defect
            if self.sick:
                raise StoreFailed(Code.STORE_UNAVAILABLE, "no", detail="disk I/O error")
            return await work(*arguments, **rest)

        return guarded
