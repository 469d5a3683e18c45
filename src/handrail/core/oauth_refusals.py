"""What an issuer's refusal means: whether the account is at its end, and what to do about it.

The codes that end an account, and that any 401 does but one about the client, are Codex CLI's own
rules; that words such as "has been invalidated" do is the reference implementation's. Asking again
after one of those makes an issuer suspect the other accounts too, so nothing is tried again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec

from handrail.core.retry_after import retry_after

_SIGN_IN: Final = "sign in again: handrail accounts login"
_CHECK: Final = "compare oauth.issuer and oauth.client_id with what the issuer gave you"
_WAIT: Final = "nothing: it is tried again later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What an issuer answered instead of a grant; it holds nothing of a credential.

    `permanent` means that the grant it was asked with is of no more use. `code` is the issuer's
    own word, "" where it has none. `next_step` is for the operator. `retry_after` is in seconds.
    """

    permanent: bool
    status: int
    code: str
    reason: str
    next_step: str
    retry_after: float | None = None

    def __str__(self) -> str:
        said = f"{self.status} {self.code}".rstrip()
        return f"{self.reason} ({said}). Next: {self.next_step}."


class IssuerRefused(Exception):
    """The issuer answered, and its answer is no."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    permanent: bool
    reason: str
    next_step: str


_ENDED: Final = _Meaning(
    permanent=True, reason="The issuer takes this login no more", next_step=_SIGN_IN
)
_SETTINGS: Final = _Meaning(
    permanent=False,
    reason="The issuer does not know this client",
    next_step=_CHECK,
)
_ANOTHER_WAY: Final = _Meaning(
    permanent=False,
    reason="The issuer does not serve this machine or network",
    next_step="look whether a proxy is needed, or another network",
)
_BUSY: Final = _Meaning(
    permanent=False, reason="The issuer has had too many requests", next_step=_WAIT
)
_ILL: Final = _Meaning(permanent=False, reason="The issuer is ill", next_step=_WAIT)
_MOVED: Final = _Meaning(
    permanent=False,
    reason="The issuer's address answers with another one, which is not followed",
    next_step="look at oauth.issuer and the addresses below it",
)
_ODD: Final = _Meaning(
    permanent=False,
    reason="The issuer did not take the request",
    next_step=f"if it stays so, {_CHECK}",
)

_BY_CODE: Final[Mapping[str, _Meaning]] = MappingProxyType(
    {
        "refresh_token_expired": _Meaning(
            permanent=True, reason="The login has expired", next_step=_SIGN_IN
        ),
        "refresh_token_reused": _Meaning(
            permanent=True,
            reason="The login has been used by another program, so the issuer ended it",
            next_step="let Handrail have a login that nothing else uses: handrail accounts login",
        ),
        "refresh_token_invalidated": _Meaning(
            permanent=True,
            reason="The login was ended at the issuer (signed out, or another password)",
            next_step=_SIGN_IN,
        ),
        "refresh_token_revoked": _ENDED,
        "token_revoked": _ENDED,
        "token_invalidated": _ENDED,
        # Said of a code that is over as well as of a login.
        "invalid_grant": _Meaning(
            permanent=True,
            reason="The issuer does not take this login or code, or not any more",
            next_step=_SIGN_IN,
        ),
        "invalid_client": _SETTINGS,
        "unauthorized_client": _SETTINGS,
        "access_denied": _Meaning(
            permanent=False,
            reason="The sign-in was declined",
            next_step="begin again: handrail accounts login",
        ),
        "expired_token": _Meaning(
            permanent=False,
            reason="The device code has expired",
            next_step="begin again: handrail accounts login --device-code",
        ),
    }
)
_BY_STATUS: Final[Mapping[int, _Meaning]] = MappingProxyType(
    {401: _ENDED, 403: _ANOTHER_WAY, 429: _BUSY}
)
_ENDING_WORDS: Final = re.compile(r"has been (?:invalidated|revoked)", re.IGNORECASE)
# No digits: an issuer that gives the credential back as its code is not to be quoted.
_PLAIN_CODE: Final = re.compile(r"[A-Za-z_.]{1,48}")


def refusal_of(
    status: int, body: bytes, *, headers: Mapping[str, str] = MappingProxyType({}), now: float
) -> Refusal:
    """What a reply that is no 200 means. `headers` have lower-case names, `now` is unix seconds."""
    said = _said(body)
    code = error_code(body)
    meaning = _meaning(status, code, said)
    # An unknown client is a typing error of ours, and the login is as good as before.
    permanent = meaning.permanent or (status == 401 and meaning is not _SETTINGS)
    step = meaning.next_step
    if permanent and not meaning.permanent:
        step = f"{step}, then {_SIGN_IN}"
    error = said.get("error")
    return Refusal(
        permanent=permanent,
        status=status,
        code=code,
        reason=meaning.reason,
        next_step=step,
        retry_after=None
        if permanent
        else retry_after(headers, error if isinstance(error, dict) else said, now=now),
    )


def error_code(body: bytes) -> str:
    """The issuer's own word for an error: `error.code`, `error` or `code`; "" for none."""
    said = _said(body)
    error = said.get("error")
    inner = error.get("code") if isinstance(error, dict) else error
    for value in (inner, said.get("code")):
        if isinstance(value, str) and _PLAIN_CODE.fullmatch(value):
            return value.lower()
    return ""


def _meaning(status: int, code: str, said: Mapping[str, Any]) -> _Meaning:
    known = _BY_CODE.get(code)
    if known is not None:
        return known
    if status in (400, 401, 403) and _ENDING_WORDS.search(_words(said)):
        return _ENDED
    if status >= 500:
        return _ILL
    if status < 400:
        return _MOVED
    return _BY_STATUS.get(status, _ODD)


def _words(said: Mapping[str, Any]) -> str:
    error = said.get("error")
    inner = error.get("message") if isinstance(error, dict) else None
    return f"{inner} {said.get('message')} {said.get('error_description')}"[:2_000]


def _said(body: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
