"""The accounts of a data directory for a command line: beside a gateway, or without one."""

import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from handrail.bootstrap.accounts import declare, open_accounts, pool_of
from handrail.core.account_files import AccountFile, Found
from handrail.core.credentials import KEY, OAUTH, pack, unpack
from handrail.core.oauth import Grant, is_workspace
from handrail.core.profiles import CODEX
from handrail.core.redact import scrub
from handrail.core.routes import route
from handrail.core.select import Choice, State, Wants
from handrail.engine import account_views
from handrail.engine.account_views import Asked
from handrail.engine.accounts import Pool
from handrail.engine.asked_usage import asked_usage
from handrail.engine.clock import SystemClock
from handrail.engine.dispatch import Dispatcher
from handrail.engine.refresh import BUSY_SECONDS
from handrail.errors import ConfigInvalid, HandrailError
from handrail.settings.model import Settings
from handrail.settings.readers import tags as read_tags
from handrail.store.accounts import Account, Leased, NewAccount, Renewal, Renewed
from handrail.store.sqlite_accounts import SqliteAccounts
from handrail.upstream.client import AiohttpClient

NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAX_MODELS: Final = 4 << 20
_WRITING_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a probe of one account found: `problem` is None when it answered, or was not asked.

    `note` says why it was not asked.
    """

    name: str
    problem: str | None = None
    note: str | None = None


class AccountBook:
    """What a person does with accounts. Names are unique; nothing here shows a credential."""

    def __init__(self, settings: Settings, *, target: str | None = None) -> None:
        """Of these settings; `target` is whose accounts new ones are. Raises ConfigInvalid."""
        if target is not None and target not in settings.targets:
            raise ConfigInvalid(
                f"--target: there is no target of that name; the settings have: "
                f"{', '.join(settings.targets)}."
            )
        self._settings = settings
        self._target = target
        self._clock = SystemClock()
        self._store: SqliteAccounts = open_accounts(
            settings.data_dir, place=settings.vault.accounts
        )
        declare(self._store, settings, now=self._clock.now(), needed=False)

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    def listed(self) -> Sequence[Account]:
        """All accounts, by name."""
        return self._store.listed(now=self._clock.now())

    def pinned(self) -> str | None:
        """The id of the pinned one."""
        return self._store.pinned_now()

    def named(self, name: str) -> Account:
        """The account of that name. Raises ConfigInvalid."""
        for account in self.listed():
            if account.name == name:
                return account
        # Somebody may have pasted a key where a name belongs.
        raise ConfigInvalid(f"accounts: there is none called '{scrub(name)[:64]}'.")

    def set_state(self, name: str, state: State) -> Account:
        """Make it `state`. Raises ConfigInvalid for an unknown one, and for one that has ended.

        One of the settings may be resumed: nobody here can see that another key stands there now.
        """
        account = self.named(name)
        if not self._store.set_state(account.id, state):
            account = self.named(name)  # as it is now; it may be gone
            raise ConfigInvalid(
                f"accounts: '{name}' has ended ({account.why_ended}); sign in again with "
                f"`handrail accounts login --name {name}`."
            )
        return account

    def pin(self, name: str | None) -> None:
        """Have all calls made with this one; None for the ordinary choice."""
        self._store.pin(None if name is None else self.named(name).id)

    def set_weight(self, name: str, weight: float) -> None:
        """Give it another share."""
        self._store.set_weight(self.named(name).id, weight)

    def tag(self, name: str, tags: Collection[str]) -> tuple[str, ...]:
        """Give it these tags as well; all that it has then. Raises ConfigInvalid."""
        return self._tagged(name, lambda before: (*before, *tags))

    def untag(self, name: str, tags: Collection[str]) -> tuple[str, ...]:
        """Take these tags from it; those that it has then. Raises ConfigInvalid."""
        return self._tagged(name, lambda before: tuple(t for t in before if t not in tags))

    def _tagged(
        self, name: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]
    ) -> tuple[str, ...]:
        account = self.named(name)
        if account.kind not in (OAUTH, KEY):
            raise ConfigInvalid(
                f"accounts: '{name}' stands in the settings; give it its tags there "
                f"(upstream.accounts.{name}.tags)."
            )
        tags = read_tags(list(change(account.tags)), "accounts")
        self._store.set_tags(account.id, tags)
        return tags

    def remove(self, name: str) -> None:
        """Destroy it and its credential. Raises ConfigInvalid for one of the settings."""
        account = self.named(name)
        if account.kind not in (OAUTH, KEY):
            raise ConfigInvalid(f"accounts: '{name}' stands in the settings; take it out there.")
        self._store.remove(account.id)

    def keep_grant(self, grant: Grant, *, name: str | None) -> str:
        """Keep what a sign-in gave, in the place of an earlier one of the same account; its name.

        Raises ConfigInvalid for a name that cannot be one, or is another account's.
        """
        same = self._same(grant)
        if same is not None and name not in (None, same.name):
            raise ConfigInvalid(
                f"accounts: this account is there already, as '{same.name}' (another workspace of "
                "it needs --workspace)."
            )
        found = name or (same.name if same else self._free_name())
        if grant.workspace is None:  # a new login of an account goes on for what was chosen for it
            grant = replace(grant, workspace=self._workspace_of(found))
        return self._keep(
            NewAccount(
                name=found,
                target=self.home(of_login=True),
                kind=OAUTH,
                credential=pack(grant),
                expires_at=grant.expires_at,
                plan=grant.plan,
            )
        )

    def keep_key(self, key: str, *, name: str | None) -> str:
        """Keep an API key; the account's name. Raises ConfigInvalid as `keep_grant` does."""
        if not key or not (key.isascii() and key.isprintable() and " " not in key):
            raise ConfigInvalid("accounts: that is no API key.")
        return self._keep(
            NewAccount(
                name=name or self._free_name(),
                target=self.home(),
                kind=KEY,
                credential=key.encode(),
            )
        )

    def keep_file(self, file: AccountFile) -> list[str]:
        """Keep all accounts of a file; their names. Those that were switched off are paused."""
        names = []
        for found in file.accounts:
            name = self._keep_found(found)
            if not found.enabled:
                self.set_state(name, State.PAUSED)
            names.append(name)
        return names

    def _keep_found(self, found: Found) -> str:
        name = found.label if found.label and NAME.fullmatch(found.label) else None
        if name is not None and any(account.name == name for account in self.listed()):
            name = None
        if found.grant is not None:
            same = self._same(found.grant)
            return self.keep_grant(found.grant, name=None if same else name)
        return self.keep_key(found.api_key or "", name=name)

    def home(self, *, of_login: bool = False) -> str:
        """Whose account a new one is: what was said, or the only target that it can be of.

        Raises ConfigInvalid when there are several.
        """
        able = list(self._settings.targets.values())
        if of_login and len(able) > 1:
            able = [each for each in able if each.profile.name == CODEX.name]
        if self._target is None and len(able) != 1:
            names = ", ".join(self._settings.targets)
            raise ConfigInvalid(f"--target: say which target the account is of: {names}.")
        return self._target or able[0].label

    def _keep(self, account: NewAccount) -> str:
        if not NAME.fullmatch(account.name):
            raise ConfigInvalid("accounts: a name is 1 to 64 letters, digits, '-', '_' and '.'.")
        self._store.keep(account, now=self._clock.now())
        return account.name

    def _same(self, grant: Grant) -> Account | None:
        """The account that a grant is of, by what the issuer calls it or by its credential.

        A refresh credential that two accounts had would be shown twice, which ends the login.
        """
        alike = []
        for account, known in self._logins():
            if known.refresh == grant.refresh:
                return account
            if grant.account_id is not None and _who(known) == _who(grant):
                alike.append((account, known))
        # One login and one workspace are one account: two of a login have credentials of their own.
        wanted = grant.called_for
        found = next((account for account, known in alike if known.called_for == wanted), None)
        if found is None and grant.workspace is None and len(alike) == 1:
            return alike[0][0]
        return found

    def _logins(self) -> Iterator[tuple[Account, Grant]]:
        for account in self.listed():
            kept = self._store.credential_now(account.id) if account.kind == OAUTH else None
            if kept is not None:
                yield account, unpack(kept.credential)

    def _workspace_of(self, name: str) -> str | None:
        found = (known.workspace for account, known in self._logins() if account.name == name)
        return next(found, None)

    async def set_workspace(self, name: str, workspace: str | None) -> None:
        """Have an account call for another workspace of its login; None for the one granted.

        Raises ConfigInvalid for an account that is no login, or has ended.
        """
        account = self.named(name)
        if account.kind != OAUTH:
            raise ConfigInvalid(f"accounts: '{name}' is an API key, which has no workspaces.")
        if workspace is not None and not is_workspace(workspace):
            raise ConfigInvalid("accounts: a workspace is 1 to 128 letters, digits, '-' and '_'.")
        # The credential is written under the lease of a refresh: one that is under way would find
        # its account changed, and what it has been granted would be lost.
        leased = await self._leased(account)
        grant = replace(unpack(leased.kept.credential), workspace=workspace)
        renewal = Renewal(credential=pack(grant), expires_at=grant.expires_at)
        if not await self._store.renew(
            account.id, version=leased.kept.version, renewal=renewal, now=self._clock.now()
        ):
            raise ConfigInvalid(f"accounts: somebody has just signed in to '{name}'; ask again.")

    async def _leased(self, account: Account) -> Leased:
        owner, version = secrets.token_hex(8), account.version
        until = self._clock.monotonic() + BUSY_SECONDS
        while self._clock.monotonic() < until:
            leased = await self._store.lease(
                account.id,
                version=version,
                owner=owner,
                now=self._clock.now(),
                seconds=_WRITING_SECONDS,
            )
            if isinstance(leased, Leased):
                return leased
            if leased is None:
                raise ConfigInvalid(
                    f"accounts: '{account.name}' has ended; sign in again with "
                    f"`handrail accounts login --name {account.name}`."
                )
            if isinstance(leased, Renewed):
                version = leased.kept.version
            else:
                await self._clock.sleep(_POLL_SECONDS)
        raise ConfigInvalid(
            f"accounts: another process has been refreshing '{account.name}' for long."
        )

    def _free_name(self) -> str:
        # No address and no number of the account: names stand in logs and listings.
        taken = {account.name for account in self.listed()}
        return next(name for n in range(1, 1_000_000) if (name := f"account-{n}") not in taken)

    async def best(self, *, model: str, caller: str | None = None) -> Choice:
        """Which account a call for `model` would be made with now, by the gateway's own rule.

        At the first target of its route; by the rules of `caller` too, if one is named. Raises
        ConfigInvalid for an unknown one.
        """
        known = self._settings.callers
        if caller is not None and caller not in known:
            raise ConfigInvalid(f"accounts: there is no caller '{scrub(caller)[:64]}'.")
        policy = known[caller].policy if caller else None
        names = route(model, self._settings.routes, policy.targets if policy else None)
        target = self._settings.targets[names[0]] if names else self._settings.target
        tags = frozenset(policy.account_tags if policy else ())
        async with self._pool() as pool:
            return pool.choice(target, Wants(tags=tags), model=model)

    async def check(self, names: Sequence[str]) -> list[Checked]:
        """Ask the upstream for its models with each account; a credential that ends is refreshed.

        Raises ConfigInvalid for an unknown name.
        """
        accounts = [self.named(name) for name in names] or list(self.listed())
        async with self._calling() as (pool, dispatcher):
            return [await self._checked(dispatcher, pool, account) for account in accounts]

    async def ask_usage(self) -> list[Checked]:
        """Ask the upstream how much of its quota each account has used, and keep what it says."""
        async with self._calling() as (pool, dispatcher):
            return [await self._asked(dispatcher, pool, account) for account in self.listed()]

    async def _asked(self, dispatcher: Dispatcher, pool: Pool, account: Account) -> Checked:
        out = account.state in (State.PAUSED, State.ENDED)
        target = self._settings.targets.get(account.target)
        if out or target is None or target.profile.name != CODEX.name:
            why = account.state if out else "this upstream does not tell"
            return Checked(name=account.name, note=f"{why}, so it was not asked")
        try:
            told = await asked_usage(
                dispatcher, pool, target, account=account.id, now=self._clock.now
            )
        except HandrailError as error:
            return Checked(name=account.name, problem=self._problem(account, error))
        if told is None:
            return Checked(name=account.name, problem="what it answers cannot be read")
        return Checked(name=account.name)

    def _problem(self, account: Account, error: HandrailError) -> str:
        now = self.named(account.name)
        return now.why_ended or f"{error.fault.code or error.fault.type}: {error.fault.message}"

    async def _checked(self, dispatcher: Dispatcher, pool: Pool, account: Account) -> Checked:
        if account.state is State.PAUSED:
            return Checked(name=account.name, note="paused, so it was not asked")
        target = self._settings.targets.get(account.target)
        if target is None:
            return Checked(name=account.name, note="its target is not in the settings")
        # The Codex backend answers that route only to clients of some version.
        path = "/models?client_version=1.0.0" if target.profile.name == CODEX.name else "/models"
        try:
            await dispatcher.ask(target, path, limit=_MAX_MODELS, account=account.id)
        except HandrailError as error:
            return Checked(name=account.name, problem=self._problem(account, error))
        if (await self._asked(dispatcher, pool, account)).problem is not None:
            return Checked(name=account.name, note="ok, but its quota could not be asked for")
        return Checked(name=account.name)

    async def why(self, asked: Asked) -> list[dict[str, Any]]:
        """See `account_views.whys`; without what only a running gateway knows."""
        async with self._pool() as pool:
            return account_views.whys(pool, self._settings, asked)

    async def told(self) -> list[dict[str, Any]]:
        """See `account_views.told`, for every account; how many calls it has nobody knows here."""
        pinned = self.pinned()
        async with self._pool() as pool:
            rows = [
                account_views.told(pool, account, pinned=account.id == pinned)
                for account in pool.known()
            ]
        return [{**row, "running": None} for row in rows]

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[tuple[Pool, Dispatcher]]:
        async with self._pool() as pool:
            client = AiohttpClient()
            try:
                yield pool, Dispatcher(client, clock=self._clock, accounts=pool)
            finally:
                await pool.settle()
                await client.close()

    @asynccontextmanager
    async def _pool(self) -> AsyncIterator[Pool]:
        yield await pool_of(self._store, settings=lambda: self._settings, clock=self._clock)


def _who(grant: Grant) -> tuple[str | None, str | None]:
    return grant.account_id, grant.email
