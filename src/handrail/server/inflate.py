"""Request bodies that came compressed, inflated to a bound and no further."""

import sys
import zlib
from typing import Any, Final

from handrail.errors import Code, RequestRejected

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS: Final = frozenset({"gzip", "x-gzip", "zstd"})

# 8 MiB, the window that RFC 8878 (section 3.1.1.1.2) asks every decoder to support; a larger one
# is memory that the sender makes us take.
_ZSTD_OPTIONS: Final = {int(zstd.DecompressionParameter.window_log_max): 23}
_PIECE: Final = 1 << 20


def inflate(data: bytes, *, coding: str, limit: int) -> bytes:
    """`data` without its content coding: gzip, or zstd as Codex CLI sends it.

    Goes by pieces of 1 MiB and stops at `limit` bytes, so a bomb costs no more than a large body.
    Raises RequestRejected for damaged, cut-off or trailing data, and beyond the limit.
    """
    decoder: Any
    if coding == "zstd":
        decoder = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
    else:
        decoder = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    size = 0
    rest = data
    try:
        while piece := decoder.decompress(rest, _PIECE):
            parts.append(piece)
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            if decoder.eof:
                break
            # zlib hands back what it has not looked at; zstd keeps it.
            rest = getattr(decoder, "unconsumed_tail", b"")
    except (zlib.error, zstd.ZstdError):
        raise _damaged(coding) from None
    if not decoder.eof or decoder.unused_data:
        raise _damaged(coding)
    return b"".join(parts)


def too_large(limit: int) -> RequestRejected:
    """The error for a body beyond `limit` bytes."""
    return RequestRejected(Code.PAYLOAD_TOO_LARGE, f"The body is larger than {limit} bytes.")


def unknown_coding() -> RequestRejected:
    """The error for a content coding that is none of ours."""
    return RequestRejected(
        Code.UNSUPPORTED_MEDIA_TYPE,
        "Content-Encoding can be identity, gzip or zstd.",
        param="content-encoding",
    )


def _damaged(coding: str) -> RequestRejected:
    return RequestRejected(
        Code.MALFORMED_REQUEST, f"The body is not valid {coding}.", param="content-encoding"
    )
