"""Accounts in one shared SQLite file: the port, and beside it what the command line does."""

import hmac
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from handrail.core.credentials import SETTINGS
from handrail.core.limits import Cooldown, Told, Window
from handrail.core.select import State
from handrail.errors import Code, ConfigInvalid, StoreFailed
from handrail.store.accounts import (
    Account,
    Busy,
    Kept,
    Leased,
    NewAccount,
    Renewal,
    Renewed,
)
from handrail.store.process_locks import ProcessLocks
from handrail.store.queries import load, parse
from handrail.store.shared import SharedFile
from handrail.store.vault import Sealer

SQL: Final = parse(load("accounts/queries.sql"))

PIN: Final = "pin"
"""The setting with the id of the account that the operator pinned."""

_BUSY_SECONDS: Final = 0.1
"""How soon it is worth asking again for a lease that should be over."""

_QUOTA_SECONDS: Final = 40 * 86_400.0
"""How long a window is shown that no reply tells any more: longer than any lasts."""


class SqliteAccounts:
    """`Accounts` in one shared SQLite file, and beside it what the command line does to it."""

    def __init__(self, file: SharedFile, *, key: bytes) -> None:
        self._sealer = Sealer(key)
        self._mark = hmac.digest(key, b"handrail/makers", "sha256")
        self._locks = ProcessLocks(file.path)
        self.file = file

    def close(self) -> None:
        """Let go of the file, and of what is locked."""
        self.file.close()
        self._locks.close()

    # --- for the engine --------------------------------------------------------------------

    async def all(self, *, now: float) -> Sequence[Account]:
        return await self.file.read(lambda c: _all(c, now))

    async def pinned(self) -> str | None:
        return await self.file.read(_pinned)

    async def credential(self, account: str) -> Kept | None:
        return await self.file.read(
            lambda c: self._kept(account, _one(c, "credential", id=account))
        )

    async def lease(
        self, account: str, *, version: int, owner: str, now: float, seconds: float
    ) -> Leased | Renewed | Busy | None:
        def work(connection: sqlite3.Connection) -> Leased | Renewed | Busy | None:
            row = _one(connection, "lease_state", id=account)
            kept = self._kept(account, row)
            if row is None or kept is None or row["state"] == State.ENDED:
                return None
            if row["version"] != version:
                return Renewed(kept=kept)
            if not self._alone(account, version=version, owner=owner):
                # It lives, whatever the clock says: its exchange may be under way.
                return Busy(until=max(row["lease_until"] or 0.0, now + _BUSY_SECONDS))
            # Free, it was left by a process that is no more, or whose exchange is over.
            values = {"id": account, "owner": owner, "until": now + seconds}
            connection.execute(SQL["lease"], values)
            return Leased(kept=kept)

        def after(result: Leased | Renewed | Busy | None) -> None:
            if not isinstance(result, Leased):  # nor can whoever asked have lost an earlier one
                self._locks.give_back(account, owner=owner, version=version)

        return await self.file.run(work, after=after)

    def _alone(self, account: str, *, version: int, owner: str) -> bool:
        try:
            return self._locks.take(account, owner=owner, version=version)
        except OSError as error:
            raise StoreFailed(
                Code.STORE_UNAVAILABLE,
                "The gateway cannot lock an account to refresh it.",
                detail=f"lock of {account}: {type(error).__name__}",
            ) from None

    # The lock is given back right after the transaction, before this process does anything else to
    # the file: a new lease of it must not lose its lock to the end of an older one.

    async def renew(self, account: str, *, version: int, renewal: Renewal, now: float) -> bool:
        values = self._renewal(account, renewal, now) | {"version": version}

        def after(renewed: bool | None) -> None:
            # What is not written is known to this process alone, and the others hold what is spent.
            if renewed is not None:
                self._locks.give_back(account, version=version)

        return await self.file.run(
            lambda c: c.execute(SQL["renew"], values).rowcount == 1, after=after
        )

    async def release(self, account: str, *, owner: str) -> None:
        await self.file.run(
            lambda c: c.execute(SQL["release"], {"id": account, "owner": owner}).rowcount,
            after=lambda _: self._locks.give_back(account, owner=owner),
        )

    async def end(
        self, account: str, *, version: int, why: str, resumed: int | None = None
    ) -> None:
        def after(ended: object) -> None:
            if ended is not None:  # else an exchange that is under way goes on to need its lease
                self._locks.give_back(account, version=version)

        values = {"id": account, "version": version, "why": why, "resumed": resumed}
        await self.file.run(lambda c: c.execute(SQL["end"], values).rowcount, after=after)

    async def cool(self, account: str, cooldown: Cooldown) -> None:
        await self._do(
            "cool",
            id=account,
            scope=cooldown.scope,
            until=cooldown.until,
            reason=cooldown.reason,
            guessed=cooldown.guessed,
        )

    async def saw_quota(self, account: str, told: Told, *, now: float) -> None:
        rows = [
            {
                "id": account,
                "name": window.name,
                "used_percent": window.used_percent,
                "resets_at": window.resets_at,
                "seconds": window.seconds,
                "about": window.about,
                "now": now,
            }
            for window in told.windows
        ]
        values = {"id": account, "plan": told.plan, "credits": told.credits}

        def work(connection: sqlite3.Connection) -> None:
            if connection.execute(SQL["told"], values).rowcount:
                connection.executemany(SQL["saw_quota"], rows)

        await self.file.run(work)

    async def made(self, makers: Mapping[bytes, str], *, until: float) -> None:
        rows = [{"digest": each, "maker": makers[each], "until": until} for each in makers]
        await self.file.run(lambda connection: _many(connection, "made", rows))

    async def any_made(self) -> bool:
        return await self.file.read(lambda c: bool(c.execute(SQL["any_made"]).fetchone()[0]))

    async def makers(self, digests: Sequence[bytes], *, now: float) -> Mapping[bytes, str]:
        def work(connection: sqlite3.Connection) -> Mapping[bytes, str]:
            rows = {each: _one(connection, "maker", digest=each, now=now) for each in digests}
            return {each: str(row["maker"]) for each, row in rows.items() if row is not None}

        return await self.file.read(work)

    def digest(self, sealed: str) -> bytes:
        return hmac.digest(self._mark, sealed.encode(errors="replace"), "sha256")

    async def put(self, account: str, state: State) -> bool:
        return await self.file.run(lambda c: _put(c, account, state))

    async def changes(self) -> int:
        return await self.file.changes()

    async def sweep(self, *, now: float) -> None:
        """Forget what is over."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["forget_cooldowns"], {"now": now})
            connection.execute(SQL["forget_makers"], {"now": now})
            connection.execute(SQL["forget_quota"], {"before": now - _QUOTA_SECONDS})

        await self.file.run(work)

    # --- for the command line --------------------------------------------------------------

    def listed(self, *, now: float) -> Sequence[Account]:
        """What `all` gives."""
        return self.file.read_now(lambda c: _all(c, now))

    def pin(self, account: str | None) -> None:
        """Pin an account, or none."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["unset"], {"name": PIN})
            if account is not None:
                connection.execute(SQL["set_setting"], {"name": PIN, "value": account})

        self.file.now(work)

    def pinned_now(self) -> str | None:
        """What `pinned` gives."""
        return self.file.read_now(_pinned)

    def credential_now(self, account: str) -> Kept | None:
        """What `credential` gives."""
        return self.file.read_now(lambda c: self._kept(account, _one(c, "credential", id=account)))

    def keep(self, account: NewAccount, *, now: float) -> str:
        """Keep a new account, or put its credential into the one of that name; the id.

        Raises ConfigInvalid when the name is one of another target or kind.
        """

        def work(connection: sqlite3.Connection) -> str:
            known = _one(connection, "by_name", name=account.name)
            if known is not None and (known["target"], known["kind"]) != (
                account.target,
                account.kind,
            ):
                raise ConfigInvalid(
                    f"accounts: '{account.name}' is an account of kind {known['kind']} at "
                    f"{known['target']}; give another name."
                )
            found = f"acct_{secrets.token_hex(8)}" if known is None else str(known["id"])
            renewal = Renewal(
                credential=account.credential, expires_at=account.expires_at, plan=account.plan
            )
            values = self._renewal(found, renewal, now)
            if known is not None:
                connection.execute(SQL["sign_in"], values)
                return found
            values |= {
                "name": account.name,
                "target": account.target,
                "kind": account.kind,
                "added_at": now,
            }
            connection.execute(SQL["add"], values)
            return found

        return self.file.now(work)

    def declare(self, targets: Mapping[str, str], *, now: float, forget: bool = True) -> None:
        """Make the accounts of the settings known, and `forget` those that are there no more.

        `targets` has the target of each by its name. Raises ConfigInvalid when a name is that of an
        account of another kind.
        """

        def work(connection: sqlite3.Connection) -> None:
            for row in _all(connection, now):
                gone = row.kind == SETTINGS and targets.get(row.name) != row.target
                if gone and forget:
                    connection.execute(SQL["remove"], {"id": row.id})
                    connection.execute(SQL["forget_made"], {"id": row.id})
                elif row.kind != SETTINGS and row.name in targets:
                    raise ConfigInvalid(
                        f"accounts.{row.name}: the settings have an account of a name that is in "
                        "`handrail accounts list` already."
                    )
            for name, target in targets.items():
                if _one(connection, "by_name", name=name) is None:
                    values = {"id": f"acct_{secrets.token_hex(8)}", "name": name, "now": now}
                    connection.execute(SQL["declare"], values | {"target": target})

        self.file.now(work)

    def set_state(self, account: str, state: State) -> bool:
        """What `put` does."""
        return self.file.now(lambda c: _put(c, account, state))

    def set_weight(self, account: str, weight: float) -> None:
        """Give it another weight."""
        self.file.now(lambda c: c.execute(SQL["set_weight"], {"id": account, "weight": weight}))

    def set_tags(self, account: str, tags: Sequence[str]) -> None:
        """Give it these tags instead of those it has."""
        written = msgspec.json.encode(tags).decode()
        self.file.now(lambda c: c.execute(SQL["set_tags"], {"id": account, "tags": written}))

    def remove(self, account: str) -> None:
        """Destroy it and its credential; a pin on it is gone too."""

        def work(connection: sqlite3.Connection) -> None:
            if _pinned(connection) == account:
                connection.execute(SQL["unset"], {"name": PIN})
            connection.execute(SQL["remove"], {"id": account})

        self.file.now(work)
        self._locks.forget(account)

    # --- inside ----------------------------------------------------------------------------

    async def _do(self, query: str, **values: Any) -> None:
        await self.file.run(lambda c: c.execute(SQL[query], values))

    def _kept(self, account: str, row: Any) -> Kept | None:
        if row is None:
            return None
        plain = self._sealer.open(_place(account), row["credential"])
        return Kept(credential=plain, version=row["version"])

    def _renewal(self, account: str, renewal: Renewal, now: float) -> dict[str, Any]:
        return {
            "id": account,
            "credential": self._sealer.seal(_place(account), renewal.credential),
            "expires_at": renewal.expires_at,
            "plan": renewal.plan,
            "now": now,
        }


def sealed_in(file: SharedFile) -> bool:
    """Whether there is a credential in the file."""
    return bool(file.read_now(lambda c: c.execute(SQL["sealed"]).fetchone()[0]))


def _place(account: str) -> str:
    return f"accounts/{account}/credential"


def _many(connection: sqlite3.Connection, query: str, rows: Sequence[Mapping[str, Any]]) -> None:
    connection.executemany(SQL[query], rows)


def _one(connection: sqlite3.Connection, query: str, **values: Any) -> Any:
    return connection.execute(SQL[query], values).fetchone()


def _put(connection: sqlite3.Connection, account: str, state: State) -> bool:
    values = {"id": account, "state": state.value}
    changed = connection.execute(SQL["set_state"], values).rowcount == 1
    if changed and state is State.ACTIVE:
        connection.execute(SQL["warm"], {"id": account})
    return changed


def _pinned(connection: sqlite3.Connection) -> str | None:
    row = _one(connection, "get_setting", name=PIN)
    return None if row is None else str(row["value"])


def _all(connection: sqlite3.Connection, now: float) -> Sequence[Account]:
    cooldowns: dict[str, list[Cooldown]] = {}
    for row in connection.execute(SQL["cooldowns"], {"now": now}):
        cooldown = Cooldown(
            scope=row["scope"],
            until=row["until"],
            reason=row["reason"],
            guessed=bool(row["guessed"]),
        )
        cooldowns.setdefault(row["account"], []).append(cooldown)
    quota: dict[str, list[Window]] = {}
    for row in connection.execute(SQL["quota"]):
        values = dict(row)
        quota.setdefault(values.pop("account"), []).append(Window(**values))
    return tuple(
        _account(dict(row), cooldowns=cooldowns, quota=quota)
        for row in connection.execute(SQL["all"])
    )


def _account(
    values: dict[str, Any],
    *,
    cooldowns: Mapping[str, Sequence[Cooldown]],
    quota: Mapping[str, Sequence[Window]],
) -> Account:
    values["state"] = State(values["state"])
    values["tags"] = tuple(msgspec.json.decode(values["tags"], type=list[str]))
    account = values["id"]
    return Account(
        **values,
        cooldowns=tuple(cooldowns.get(account, ())),
        quota=tuple(quota.get(account, ())),
    )
