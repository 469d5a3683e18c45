"""OAuth accounts as values: what an issuer grants, and what is written and read to get it.

The names on the wire are those of RFC 6749 and 7636. What an ID document (a JWT) says is read
without looking at its signature: it has come from the issuer itself over TLS, as an answer to our
own request, which OpenID Connect Core 3.1.3.7 accepts in place of the signature. It is used to
show an account and to fill the account's header, and never to let anybody in.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

MAX_CREDENTIAL: Final = 16 * 1024
"""Characters. A longer one would not fit into a header anyway."""

_MAX_LIFETIME: Final = 10 * 366 * 86_400.0
_MAX_UNIX: Final = 1e11
_AUTH_CLAIMS: Final = "https://api.openai.com/auth"
_PROFILE_CLAIMS: Final = "https://api.openai.com/profile"


class UnusableReply(Exception):
    """Why an issuer's answer is of no use; the message shows nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What an issuer has granted: the credentials of one account, and what it says of itself.

    `access` is shown to the upstream ("" where there is none yet), `refresh` is exchanged for the
    next grant and can be used once. `expires_at` is in unix seconds, None where nobody says when
    the access credential ends. `workspace` is the one that the operator chose to call for, None for
    the account itself that was granted. Its repr shows no credential and nobody's name.
    """

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    email: str | None = field(default=None, repr=False)
    account_id: str | None = field(default=None, repr=False)
    plan: str | None = None
    is_fedramp: bool = False
    expires_at: float | None = None
    workspace: str | None = field(default=None, repr=False)

    @property
    def called_for(self) -> str | None:
        """Which workspace calls are made for; None where nobody says."""
        return self.workspace or self.account_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a JWT says; whatever it does not say, or not in a usable form, is None."""

    email: str | None = field(default=None, repr=False)
    account_id: str | None = field(default=None, repr=False)
    plan: str | None = None
    is_fedramp: bool = False
    ends_at: float | None = None


# --- claims ---------------------------------------------------------------------------------------


def read_claims(jwt: str) -> Claims:
    """What a JWT says about its account and its end (unix seconds). Any text will do."""
    said = _payload(jwt)
    auth, profile = _object(said.get(_AUTH_CLAIMS)), _object(said.get(_PROFILE_CLAIMS))
    return Claims(
        email=_shown(said.get("email")) or _shown(profile.get("email")),
        account_id=_header_value(auth.get("chatgpt_account_id")),
        plan=_shown(auth.get("chatgpt_plan_type")),
        is_fedramp=auth.get("chatgpt_account_is_fedramp") is True,
        ends_at=_unix(said.get("exp")),
    )


def _payload(jwt: str) -> dict[str, Any]:
    parts = jwt.split(".")
    if len(parts) != 3 or len(jwt) > 4 * MAX_CREDENTIAL or not jwt.isascii():
        return {}
    try:
        # A JWT has no padding; more of it than is needed is no error.
        data = base64.b64decode(parts[1] + "==", altchars=b"-_")
        return _object(msgspec.json.decode(data))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _shown(value: object) -> str | None:
    """A text that may be put on a terminal: one printable line of at most 320 characters."""
    if isinstance(value, str) and 0 < len(value) <= 320 and value.isprintable():
        return value
    return None


def _header_value(value: object) -> str | None:
    text = _shown(value)
    return text if is_credential(text) else None


def _unix(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < _MAX_UNIX else None


_WORKSPACE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def is_workspace(text: str) -> bool:
    """Whether a text can be the id of a workspace."""
    return _WORKSPACE.fullmatch(text) is not None


def is_credential(value: object) -> bool:
    """Whether a value can be a credential: a text that a header can carry."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_CREDENTIAL
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


# --- asking for a grant ---------------------------------------------------------------------------


def challenge(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier (RFC 7636, 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One sign-in in a browser, as the issuer is asked for it."""

    client_id: str
    redirect_uri: str
    scopes: Sequence[str]
    originator: str
    state: str = field(repr=False)
    challenge: str = field(repr=False)
    workspace: str | None = field(default=None, repr=False)


def authorize_url(endpoint: str, asking: Asking) -> str:
    """The address at which a person signs in; the parameters are those that Codex sends."""
    query = {
        "response_type": "code",
        "client_id": asking.client_id,
        "redirect_uri": asking.redirect_uri,
        "scope": " ".join(asking.scopes),
        "code_challenge": asking.challenge,
        "code_challenge_method": "S256",
        "id_token_add_organizations": "true",
        "codex_cli_simplified_flow": "true",
        "state": asking.state,
        "originator": asking.originator,
    }
    if asking.workspace is not None:
        query["allowed_workspace_id"] = asking.workspace
    return f"{endpoint}?{urlencode(query)}"


def code_form(code: str, *, verifier: str, client_id: str, redirect_uri: str) -> dict[str, str]:
    """The form that exchanges an authorization code for a grant."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "client_id": client_id,
        "code_verifier": verifier,
    }


def refresh_body(grant: Grant, *, client_id: str) -> dict[str, str]:
    """The JSON that exchanges a grant for the next one."""
    return {
        "client_id": client_id,
        "grant_type": "refresh_token",
        "refresh_token": grant.refresh,
        "refresh_reason": "proactive_expiry",
    }


def revoke_body(grant: Grant, *, client_id: str) -> dict[str, str]:
    """The JSON that ends a grant for good."""
    return {
        "token": grant.refresh,
        "token_type_hint": "refresh_token",
        "client_id": client_id,
    }


# --- reading the answer ---------------------------------------------------------------------------


def read_grant(body: bytes, *, now: float) -> Grant:
    """The grant in the answer to an authorization code. Raises UnusableReply.

    `now` is in unix seconds.
    """
    grant = read_refreshed(body, Grant(access="", refresh=""), now=now)
    if not grant.access:
        raise UnusableReply("it has no access credential")
    if not grant.refresh:
        raise UnusableReply("it has no refresh credential (was offline_access granted?)")
    return grant


def read_refreshed(body: bytes, before: Grant, *, now: float) -> Grant:
    """The grant that follows `before`. Raises UnusableReply.

    What the answer leaves out stays as it was, as in Codex. Only a credential that cannot be one
    makes it unusable: `before` has been used up by then, and whatever else is odd is no reason to
    lose what has come. `now` is in unix seconds.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnusableReply("it is no JSON") from None
    if not isinstance(said, dict):
        raise UnusableReply("it is no JSON object")
    access, refresh = _credential(said, "access_token"), _credential(said, "refresh_token")
    named = said.get("id_token")
    grant = _told(before, read_claims(access), read_claims(named if isinstance(named, str) else ""))
    return replace(
        grant,
        access=access or before.access,
        refresh=refresh or before.refresh,
        expires_at=_end(said, access, before=before, now=now),
    )


def _credential(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if value is None or value == "":
        return ""
    if not is_credential(value):
        raise UnusableReply(f"its {name} is no text that a header can carry")
    return str(value)


def _told(before: Grant, access: Claims, named: Claims) -> Grant:
    """`before` with what the two documents say; the ID document is about the account itself."""
    account_id = named.account_id or access.account_id
    return replace(
        before,
        email=named.email or access.email or before.email,
        account_id=account_id or before.account_id,
        plan=named.plan or access.plan or before.plan,
        is_fedramp=(named.is_fedramp or access.is_fedramp) if account_id else before.is_fedramp,
    )


def _end(said: Mapping[str, Any], access: str, *, before: Grant, now: float) -> float | None:
    # `expires_in` first: it counts from our own clock, so a clock that is wrong does not matter.
    lifetime: Any = said.get("expires_in")
    is_number = isinstance(lifetime, int | float) and not isinstance(lifetime, bool)
    if is_number and 0 < lifetime <= _MAX_LIFETIME:
        return now + float(lifetime)
    if not access:
        return before.expires_at
    return read_claims(access).ends_at
