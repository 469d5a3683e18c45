"""The address at which a browser ends after a sign-in: the code in it, or what is wrong with it."""

import hmac
from typing import Final
from urllib.parse import parse_qs, urlsplit

from handrail.core.redact import scrub

CALLBACK_PATH: Final = "/auth/callback"

_MAX: Final = 16 * 1024
_MAX_CODE: Final = 4 * 1024
_MAX_WORDS: Final = 200


class CallbackRefused(Exception):
    """What is wrong with an address, in one line that shows no secret.

    `final` says that the sign-in has ended; otherwise another address may still be the right one.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def read_callback(text: str, *, state: str) -> str:
    """The authorization code in `text`: a whole address, or its query alone.

    `state` is what this sign-in was begun with; it is compared in constant time, before anything
    else in the address is believed. Raises CallbackRefused.
    """
    said = _query(text.strip().strip("<>'\""))
    if "code_challenge" in said or "response_type" in said:
        raise CallbackRefused(
            "That is the address to sign in at; give the one at which the browser ended."
        )
    given = said.get("state", [])
    if not given and not said.keys() & {"code", "error"}:
        raise CallbackRefused(
            "That address has neither a code nor an error; give the whole address at which the "
            "browser ended, with everything after the question mark."
        )
    if not given:
        raise CallbackRefused("That address has no state; give the whole of it.")
    if len(given) > 1 or not _same(given[0], state):
        raise CallbackRefused(
            "The state in that address belongs to another sign-in; use the address that was shown "
            "last."
        )
    if "error" in said:
        raise CallbackRefused(_error(said), final=True)
    return _code(said)


def _same(given: str, state: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), state.encode())


def _query(text: str) -> dict[str, list[str]]:
    if not text:
        raise CallbackRefused("Nothing was given.")
    if len(text) > _MAX:
        raise CallbackRefused(f"That is longer than {_MAX} characters.")
    try:
        query = urlsplit(text).query if "?" in text or "://" in text else text
        return parse_qs(query, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise CallbackRefused(
            "That address cannot be read; give the whole one at which the browser ended."
        ) from None


def _error(said: dict[str, list[str]]) -> str:
    code = _plain(said["error"][0]) or "no reason"
    words = _plain(said.get("error_description", [""])[0])
    return f"The issuer ended the sign-in: {code}{f' ({words})' if words else ''}."


def _plain(text: str) -> str:
    # It came in an address that anybody could have made: one line, nothing that looks secret.
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * _MAX_WORDS])
    return scrub(" ".join(shown.split()))[:_MAX_WORDS].rstrip(".")


def _code(said: dict[str, list[str]]) -> str:
    codes = said.get("code", [])
    if not codes or not codes[0]:
        raise CallbackRefused("That address has no code; give the whole of it.")
    if len(codes) > 1:
        raise CallbackRefused("That address has more than one code.")
    if len(codes[0]) > _MAX_CODE or not codes[0].isprintable():
        raise CallbackRefused("The code in that address cannot be one.")
    return codes[0]
