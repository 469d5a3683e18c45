"""What the head of a request must look like: pure checks, each with the attack that it closes.

llhttp is strict about most framing. What is here is what it lets through, and what only we can
know: which hosts are served, how large a body may be.
"""

import re
from collections.abc import Iterable
from typing import Final

from handrail.errors import Code

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_TARGET_BYTES: Final = 8 * 1024

METHODS: Final = frozenset({b"GET", b"POST", b"DELETE"})

_END: Final = re.compile(rb"\r?\n\r?\n")
_HOST: Final = re.compile(
    rb"(?:([A-Za-z0-9._\-]{1,255})|\[([0-9A-Fa-f:.]{2,45})\])(?::[0-9]{1,5})?\Z"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}\Z")
_BLANKS: Final = b" \t"

# Two of any of these would let two readers of one request decide differently.
_SINGLE: Final = frozenset(
    {
        b"api-key",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"handrail-crash-policy",
        b"handrail-priority",
        b"handrail-retention",
        b"host",
        b"idempotency-key",
        b"origin",
        b"sec-fetch-site",
        b"transfer-encoding",
        b"x-api-key",
    }
)

Headers = Iterable[tuple[bytes, bytes]]


class HeadRefused(Exception):
    """The head is not acceptable; `code` and `message` say why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def head_end(head: bytes | bytearray, *, seen: int) -> int | None:
    """Where the head ends in what has arrived, None while it is incomplete.

    `seen` bytes of it have been looked at before. Raises HeadRefused as soon as it can be told
    that this is no request, or a head larger than MAX_HEAD_BYTES.
    """
    if not 0x41 <= head[0] <= 0x5A:
        raise HeadRefused(Code.MALFORMED_REQUEST, "That is no HTTP request.")
    newline = head.find(b"\n", 0, MAX_TARGET_BYTES + 64)
    if newline < 0 and len(head) > MAX_TARGET_BYTES + 32:
        raise _too_long()
    if newline >= 0:
        line = head[:newline]
        # llhttp takes several blanks, where a proxy in front may have read another target, and
        # takes RTSP and ICE for HTTP.
        if line.count(b" ") != 2 or b" HTTP/" not in line:
            raise HeadRefused(Code.MALFORMED_REQUEST, "The request line is malformed.")
    end = _END.search(head, max(0, seen - 3))
    if (end.end() if end else len(head)) > MAX_HEAD_BYTES:
        raise HeadRefused(
            Code.HEADERS_TOO_LARGE, f"The headers are larger than {MAX_HEAD_BYTES} bytes."
        )
    return end.end() if end else None


def check_head(
    *,
    method: bytes,
    target: bytes,
    version: str,
    headers: Headers,
    allowed_hosts: frozenset[bytes],
    max_body_bytes: int,
) -> None:
    """Raise HeadRefused for the first thing that is wrong; header names are lower-case."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _SINGLE and name in found:
            raise HeadRefused(
                Code.MALFORMED_REQUEST, f"The header '{name.decode()}' is given twice."
            )
        found[name] = value.strip(_BLANKS)
    _check_line(method, target, version)
    _check_host(found.get(b"host"), allowed_hosts)
    _check_framing(found, version=version, max_body_bytes=max_body_bytes)


def _check_line(method: bytes, target: bytes, version: str) -> None:
    if version not in ("1.1", "1.0"):
        raise HeadRefused(Code.HTTP_VERSION, "Only HTTP/1.1 is spoken here.")
    if len(target) > MAX_TARGET_BYTES:
        raise _too_long()
    if method not in METHODS:
        name = method.decode("ascii", "replace")
        raise HeadRefused(Code.METHOD_NOT_ALLOWED, f"The method {name} is not allowed.")
    if not target.startswith(b"/") or target.startswith(b"//") or b"#" in target:
        raise HeadRefused(Code.MALFORMED_REQUEST, "The request target must be a path.")


def _too_long() -> HeadRefused:
    return HeadRefused(Code.URI_TOO_LONG, f"The URL is longer than {MAX_TARGET_BYTES} bytes.")


def _check_host(host: bytes | None, allowed: frozenset[bytes]) -> None:
    match = _HOST.match(host) if host else None
    if match is None:
        raise HeadRefused(Code.MALFORMED_REQUEST, "A valid Host header is required.")
    # A page whose name was pointed at this address shows that name here (DNS rebinding).
    if (match[1] or match[2]).lower() not in allowed:
        raise HeadRefused(
            Code.HOST_NOT_ALLOWED,
            "This Host is not served here; [server] allowed_hosts names further ones.",
        )


def _check_framing(found: dict[bytes, bytes], *, version: str, max_body_bytes: int) -> None:
    length, coding = found.get(b"content-length"), found.get(b"transfer-encoding")
    if length is not None and (coding is not None or not _LENGTH.match(length)):
        raise HeadRefused(Code.MALFORMED_REQUEST, "Content-Length is malformed or contradicted.")
    if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
        raise HeadRefused(Code.MALFORMED_REQUEST, "Transfer-Encoding can only be 'chunked'.")
    if length is not None and int(length) > max_body_bytes:
        raise HeadRefused(
            Code.PAYLOAD_TOO_LARGE, f"The body is larger than {max_body_bytes} bytes."
        )
    if found.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise HeadRefused(Code.EXPECTATION_FAILED, "Only 'Expect: 100-continue' is understood.")


_H2C: Final = re.compile(
    rb"^(?:upgrade:[ \t]*h2c|http2-settings:[^\r\n]*|connection:[^\r\n]*\bupgrade\b[^\r\n]*)"
    rb"[ \t]*\r?\n",
    re.IGNORECASE | re.MULTILINE,
)


def without_h2c(head: bytes) -> bytes:
    """The head without an offer of HTTP/2.

    Java's HttpClient makes that offer on its first request, also with a body, which the parser
    would leave out. Without the offer it is the plain HTTP/1.1 request that it also is.
    """
    return _H2C.sub(b"", head) if b"h2c" in head.lower() else head
