"""Opens the accounts of a data directory, for the gateway and for command lines alike."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from handrail.bootstrap.data_dir import open_shared
from handrail.bootstrap.vault_keys import key_at
from handrail.core.credentials import pack, unpack
from handrail.core.oauth_refusals import IssuerRefused
from handrail.engine.accounts import Pool
from handrail.engine.clock import Clock
from handrail.engine.refresh import Exchange, Refresher, RefreshFailed
from handrail.errors import ConfigInvalid, IssuerFailed
from handrail.settings.load import ACCOUNTS_FILE
from handrail.settings.model import KeyPlace, OAuthSettings, Settings
from handrail.settings.target import place_of
from handrail.store.accounts import Renewal
from handrail.store.files import private_directory, read_private, replace_file
from handrail.store.shared import SharedFile
from handrail.store.sqlite_accounts import SqliteAccounts, sealed_in
from handrail.store.vault import KEY_BYTES
from handrail.telemetry import get_logger
from handrail.upstream.oauth import Issuer

ACCOUNTS_KEY: Final = "accounts.key"


def open_accounts(data_dir: Path, *, place: KeyPlace | None = None) -> SqliteAccounts:
    """The accounts of a data directory, made at the first time. Raises ConfigInvalid.

    `place` is where their key stands if not in the directory.
    """
    private_directory(data_dir)
    file = open_shared(data_dir)
    try:
        return accounts_in(file, data_dir, place=place)
    except ConfigInvalid:
        file.close()
        raise


def accounts_in(
    file: SharedFile, data_dir: Path, *, place: KeyPlace | None = None
) -> SqliteAccounts:
    """The accounts in an open file. Raises ConfigInvalid when their key is not there.

    They have a key of their own: several processes use it at once, so it is not exchanged together
    with that of the run store.
    """
    path = data_dir / ACCOUNTS_KEY
    if place is not None:
        needed_by = data_dir / ACCOUNTS_FILE if sealed_in(file) else None
        return SqliteAccounts(file, key=key_at(place, file=path, needed_by=needed_by))
    if sealed_in(file) and not path.exists():
        raise ConfigInvalid(
            f"{path}: the key of the accounts is missing but {ACCOUNTS_FILE} has some; restore the "
            "key file, or move the database away to sign in anew."
        )
    return SqliteAccounts(file, key=_key(path))


def _key(path: Path) -> bytes:
    key = read_private(path)
    if key is None:
        key = _new_key(path)
    if len(key) != KEY_BYTES:
        raise ConfigInvalid(f"{path}: is not a key of {KEY_BYTES} bytes.")
    return key


def _new_key(path: Path) -> bytes:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    replace_file(beside, secrets.token_bytes(KEY_BYTES))
    try:
        os.link(beside, path)
    except FileExistsError:  # another process was first: what it has made holds
        pass
    finally:
        beside.unlink()
    return read_private(path) or b""


def declare(store: SqliteAccounts, settings: Settings, *, now: float, needed: bool = True) -> None:
    """Make the settings' accounts known, and if `needed` see that there is a credential at all.

    One whose key is not there now is known all the same: a command line may lack the variable that
    the gateway has. Only if `needed` are those forgotten that the settings name no more: a command
    line may be given other settings than the gateway, and must not take its accounts away.

    Raises ConfigInvalid when there is none although the upstream needs one.
    """
    targets = settings.targets.values()
    named = {name: t.label for t in targets for name in t.account_table}
    store.declare(named, now=now, forget=needed)
    accounts = store.listed(now=now)
    for account in accounts:
        home = settings.targets.get(account.target)
        said = home.account_table.get(account.name) if home else None
        if said is None:
            continue
        if said.tags != account.tags:
            store.set_tags(account.id, said.tags)
        if said.weight not in (None, account.weight):
            store.set_weight(account.id, said.weight)
    there = {account.target for account in accounts}
    for target in targets:
        needs = needed and target.profile.needs_credential and target.label not in there
        if needs and target.api_key is None and not target.bearer_command:
            raise ConfigInvalid(
                f"{place_of(target)}: a target of the profile {target.profile.name} needs a "
                "credential: an API key, or an account (`handrail accounts login`)."
            )


def tell_unused(store: SqliteAccounts, settings: Settings) -> None:
    """Log which setting gives a credential that no call shows, because there are accounts."""
    there = store.listed(now=0.0)
    for target in settings.targets.values():
        place = place_of(target)
        given = {
            f"{place}.api_key": target.api_key is not None,
            f"{place}.bearer_command": bool(target.bearer_command),
        }
        unused = [f"{path} ({settings.sources[path]})" for path, said in given.items() if said]
        names = [account.name for account in there if account.target == target.label]
        if unused and names:
            get_logger().warning("credential_not_used", settings=unused, accounts=names)


async def pool_of(store: SqliteAccounts, *, settings: Callable[[], Settings], clock: Clock) -> Pool:
    """The accounts of a gateway, as they are now. Raises StoreFailed."""
    refresher = Refresher(
        store, exchange_at(lambda: settings().oauth, clock), clock=clock, owner=secrets.token_hex(8)
    )
    pool = Pool(
        store,
        refresher,
        clock=clock,
        strategy=lambda: settings().account_strategy,
        spread=secrets.SystemRandom().random,
        nearly_used_up=lambda: float(settings().values["accounts.nearly_used_up"]),
    )
    await pool.load()
    return pool


def exchange_at(settings: Callable[[], OAuthSettings], clock: Clock) -> Exchange:
    """Asks the issuer of the settings, as they are at that moment."""

    async def exchange(credential: bytes) -> Renewal:
        grant = unpack(credential)
        try:
            async with Issuer(settings(), now=clock.now) as issuer:
                new = await issuer.refresh(grant)
        except IssuerRefused as error:
            refusal = error.refusal
            raise RefreshFailed(
                str(error), permanent=refusal.permanent, wait=refusal.retry_after
            ) from None
        except IssuerFailed as error:
            raise RefreshFailed(str(error), lost=error.sent) from None
        return Renewal(credential=pack(new), expires_at=new.expires_at, plan=new.plan)

    return exchange
