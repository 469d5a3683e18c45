"""Accounts in the files of other programs: Codex CLI's auth.json, codex-multi-auth's accounts.

Both are only read. A login in them is shared with the program that wrote the file, and its refresh
credential works once: whoever takes it over from then on has to be the only one that uses it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import msgspec

from handrail.core.oauth import Claims, Grant, is_credential, is_workspace, read_claims

MAX_BYTES: Final = 4 << 20
MAX_ACCOUNTS: Final = 1_000

_VERSION: Final = 3
_MILLISECONDS_FROM: Final = 1e11
_MAX_UNIX_MILLISECONDS: Final = 1e14
_NAMES: Final = 80


class NoAccounts(Exception):
    """Why a file has no accounts to import; the message shows nothing of what is in it."""


class Kind(StrEnum):
    """Which program wrote the file."""

    CODEX = "Codex CLI"
    CODEX_MULTI_AUTH = "codex-multi-auth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One account: a grant or an API key, never both. `label` is what its owner called it.

    `issuer` is who granted it, None where the file does not say: nobody else can refresh it.
    `place` is where it stands in the file.
    """

    grant: Grant | None = None
    api_key: str | None = field(default=None, repr=False)
    label: str | None = field(default=None, repr=False)
    enabled: bool = True
    issuer: str | None = None
    place: str = field(default="tokens", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFile:
    """The accounts of a file, and for each that is left out its place and why."""

    kind: Kind
    accounts: tuple[Found, ...]
    left_out: tuple[str, ...] = ()


def read_account_file(data: bytes) -> AccountFile:
    """The accounts in an auth.json, or in an accounts file of version 3.

    Raises NoAccounts for a file of another kind, or one with nothing that can be imported.
    """
    if len(data) > MAX_BYTES:
        raise NoAccounts(f"The file is larger than {MAX_BYTES} bytes.")
    try:
        said = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoAccounts("The file is no JSON.") from None
    if isinstance(said, dict) and "accounts" in said:
        return _pool(said)
    if isinstance(said, dict) and said.keys() & {"tokens", "OPENAI_API_KEY", "auth_mode"}:
        return _official(said)
    raise NoAccounts(
        "The file is neither an auth.json of Codex CLI nor an accounts file of codex-multi-auth."
    )


def of_issuer(file: AccountFile, issuer: str) -> AccountFile:
    """The file without the logins that it says another issuer has granted.

    They could not be refreshed here, and their credentials must be shown to nobody else. Raises
    NoAccounts when none is left.
    """
    others = [found for found in file.accounts if found.issuer not in (None, issuer.rstrip("/"))]
    if not others:
        return file
    words = "was granted by another issuer than oauth.issuer names."
    left_out = (*file.left_out, *(f"{found.place}: {words}" for found in others))
    kept = tuple(found for found in file.accounts if found not in others)
    if not kept:
        raise NoAccounts(left_out[-1])
    return replace(file, accounts=kept, left_out=left_out)


# --- auth.json ------------------------------------------------------------------------------------


def _official(said: Mapping[str, Any]) -> AccountFile:
    mode = said.get("auth_mode")
    if mode not in (None, "apikey", "chatgpt"):
        raise NoAccounts(
            "auth_mode: only 'chatgpt' and 'apikey' can be imported, and this is another."
        )
    tokens, key = said.get("tokens"), said.get("OPENAI_API_KEY")
    if mode == "apikey" or (mode is None and tokens is None):
        return AccountFile(kind=Kind.CODEX, accounts=(_key(key),))
    if tokens is None:
        raise NoAccounts(
            "tokens: there are none; the login may be in the system's keyring. Sign in anew: "
            "handrail accounts login."
        )
    if not isinstance(tokens, dict):
        raise NoAccounts("tokens: must be an object.")
    found = Found(grant=_of_tokens(tokens), issuer=_issuer(tokens.get("oauth_provenance")))
    return AccountFile(kind=Kind.CODEX, accounts=(found,))


def _issuer(provenance: object) -> str | None:
    # Codex CLI 0.169 writes down where a login is from.
    said = provenance.get("issuer") if isinstance(provenance, dict) else None
    return str(said).rstrip("/") if is_credential(said) and len(str(said)) <= _NAMES * 4 else None


def _key(key: object) -> Found:
    if key is None:
        raise NoAccounts(
            "OPENAI_API_KEY: there is none; it may be in the system's keyring or environment."
        )
    if not is_credential(key):
        raise NoAccounts("OPENAI_API_KEY: must be a text of printable ASCII without spaces.")
    return Found(api_key=str(key))


def _of_tokens(tokens: Mapping[str, Any]) -> Grant:
    access = _needed(tokens, "access_token", place="tokens.")
    refresh = _needed(tokens, "refresh_token", place="tokens.")
    document = tokens.get("id_token")
    named = read_claims(document) if isinstance(document, str) else Claims()
    return _grant(access, refresh, named, account_id=tokens.get("account_id"))


def _grant(access: str, refresh: str, named: Claims, *, account_id: object) -> Grant:
    claims = read_claims(access)
    given = str(account_id) if is_credential(account_id) else None
    return Grant(
        access=access,
        refresh=refresh,
        email=named.email or claims.email,
        account_id=given or named.account_id or claims.account_id,
        plan=named.plan or claims.plan,
        is_fedramp=named.is_fedramp or claims.is_fedramp,
        expires_at=claims.ends_at,
    )


def _needed(table: Mapping[str, Any], name: str, *, place: str) -> str:
    value = table.get(name)
    if not is_credential(value):
        raise NoAccounts(f"{place}{name}: must be a text of printable ASCII without spaces.")
    return str(value)


# --- accounts of codex-multi-auth -----------------------------------------------------------------


def _pool(said: Mapping[str, Any]) -> AccountFile:
    if said.get("version") != _VERSION:
        raise NoAccounts(f"version: only {_VERSION} of an accounts file is known.")
    tables = said["accounts"]
    if not isinstance(tables, list) or len(tables) > MAX_ACCOUNTS:
        raise NoAccounts(f"accounts: must be a list of at most {MAX_ACCOUNTS}.")
    accounts: list[Found] = []
    left_out: list[str] = []
    seen: dict[str, int] = {}
    for number, table in enumerate(tables):
        place = f"accounts[{number}]"
        try:
            found = _of_pool(table, place)
        except NoAccounts as error:
            left_out.append(str(error))
            continue
        refresh = found.grant.refresh if found.grant else ""
        if refresh in seen:
            left_out.append(f"{place}: is the same login as accounts[{seen[refresh]}].")
            continue
        seen[refresh] = number
        accounts.append(found)
    if not accounts:
        raise NoAccounts(" ".join(["accounts: none can be imported.", *left_out[:1]]))
    return AccountFile(
        kind=Kind.CODEX_MULTI_AUTH, accounts=tuple(accounts), left_out=tuple(left_out)
    )


def _of_pool(table: object, place: str) -> Found:
    if not isinstance(table, dict):
        raise NoAccounts(f"{place}: must be an object.")
    for problem in _wrong_types(table):
        raise NoAccounts(f"{place}.{problem}")
    if table.get("authInvalidatedAt") is not None:
        raise NoAccounts(f"{place}: its login has ended (authInvalidatedAt); sign in anew.")
    refresh = _needed(table, "refreshToken", place=f"{place}.")
    access = ""
    if table.get("accessToken") not in (None, ""):
        access = _needed(table, "accessToken", place=f"{place}.")
    grant = _grant(access, refresh, Claims(), account_id=table.get("accountId"))
    ends_at = _milliseconds(table.get("expiresAt"))
    chosen = table.get("accountIdSource") in _CHOSEN and is_workspace(grant.account_id or "")
    grant = replace(
        grant,
        email=_name(table.get("email"), most=320) or grant.email,
        expires_at=grant.expires_at if ends_at is None else ends_at,
        workspace=grant.account_id if chosen else None,
    )
    return Found(
        grant=grant,
        label=_name(table.get("label"), most=_NAMES),
        enabled=table.get("enabled", True) is not False,
        place=place,
    )


_TYPES: Final[Mapping[str, tuple[type, str]]] = {
    "accountId": (str, "a text"),
    "email": (str, "a text"),
    "label": (str, "a text"),
    "enabled": (bool, "true or false"),
}


# Whoever signed in has picked it, and what the issuer grants next may say another.
_CHOSEN: Final = ("manual", "org")


def _wrong_types(table: Mapping[str, Any]) -> Iterator[str]:
    for name, (kind, words) in _TYPES.items():
        value = table.get(name)
        if value is not None and not isinstance(value, kind):
            yield f"{name}: must be {words}."


def _name(value: object, *, most: int) -> str | None:
    if isinstance(value, str) and 0 < len(value) <= most and value.isprintable():
        return value
    return None


def _milliseconds(value: object) -> float | None:
    """Unix seconds from a time that JavaScript wrote, which counts milliseconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 < value < _MAX_UNIX_MILLISECONDS:
        return None
    return value / 1_000 if value >= _MILLISECONDS_FROM else float(value)
