"""Opens the accounts of a data directory, for the gateway and for command lines alike."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from handrail.bootstrap.data_dir import open_shared
from handrail.core.credentials import pack, unpack
from handrail.core.oauth_refusals import IssuerRefused
from handrail.engine.accounts import Pool
from handrail.engine.clock import Clock
from handrail.engine.refresh import Exchange, Refresher, RefreshFailed
from handrail.errors import ConfigInvalid, IssuerFailed
from handrail.settings.load import ACCOUNTS_FILE
from handrail.settings.model import OAuthSettings, Settings
from handrail.store.accounts import Renewal
from handrail.store.files import private_directory, read_private, replace_file
from handrail.store.shared import SharedFile
from handrail.store.sqlite_accounts import SqliteAccounts, sealed_in
from handrail.store.vault import KEY_BYTES
from handrail.telemetry import get_logger
from handrail.upstream.oauth import Issuer

ACCOUNTS_KEY: Final = "accounts.key"


def open_accounts(data_dir: Path) -> SqliteAccounts:
    """The accounts of a data directory, made at the first time. Raises ConfigInvalid."""
    private_directory(data_dir)
    file = open_shared(data_dir)
    try:
        return accounts_in(file, data_dir)
    except ConfigInvalid:
        file.close()
        raise


def accounts_in(file: SharedFile, data_dir: Path) -> SqliteAccounts:
    """The accounts in an open file. Raises ConfigInvalid when their key is not there.

    They have a key of their own: several processes use it at once, so it is not exchanged together
    with that of the run store.
    """
    path = data_dir / ACCOUNTS_KEY
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

    Only then are those forgotten that the settings name no more: a command line may well be given
    other settings than the gateway, and must not take its accounts away.

    Raises ConfigInvalid when there is none although the upstream needs one.
    """
    target = settings.target
    store.declare(target.label, target.accounts.keys(), now=now, forget=needed)
    there = any(account.target == target.label for account in store.listed(now=now))
    needs = needed and target.profile.needs_credential
    if needs and not there and target.api_key is None and not target.bearer_command:
        raise ConfigInvalid(
            f"upstream: a target of the profile {target.profile.name} needs a credential: an API "
            "key, or an account (`handrail accounts login`)."
        )


def tell_unused(store: SqliteAccounts, settings: Settings) -> None:
    """Log which setting gives a credential that no call shows, because there are accounts."""
    target = settings.target
    given = {
        "upstream.api_key": target.api_key is not None,
        "upstream.bearer_command": bool(target.bearer_command),
    }
    unused = [f"{path} ({settings.sources[path]})" for path, is_given in given.items() if is_given]
    there = [a.name for a in store.listed(now=0.0) if a.target == target.label]
    if unused and there:
        get_logger().warning("credential_not_used", settings=unused, accounts=there)


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
