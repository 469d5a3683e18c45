"""Request bodies that came compressed, inflated to a bound and no further."""

import sys
import zlib
from typing import Any, Final

from handrail.errors import Code, RequestRejected

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# The window that every decoder must support and none need exceed (RFC 8878, section 3.1.1.1.2
# recommends 8 MB; 2**27 is what `zstd` itself accepts by default).
_ZSTD_OPTIONS: Final = {int(zstd.DecompressionParameter.window_log_max): 27}


def inflate(data: bytes, *, coding: str, limit: int) -> bytes:
    """`data` without its content coding: gzip, or zstd as Codex CLI sends it.

    Stops at `limit` bytes, so a bomb costs no more than a large body. Raises RequestRejected for
    another coding, for damaged, cut-off or trailing data, and beyond the limit.
    """
    decoder: Any
    if coding in ("gzip", "x-gzip"):
        decoder = zlib.decompressobj(wbits=31)
    elif coding == "zstd":
        decoder = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
    else:
        raise RequestRejected(
            Code.UNSUPPORTED_MEDIA_TYPE,
            "Content-Encoding can be identity, gzip or zstd.",
            param="content-encoding",
        )
    try:
        out: bytes = decoder.decompress(data, limit + 1)
    except (zlib.error, zstd.ZstdError):
        raise _damaged(coding) from None
    if len(out) > limit:
        raise too_large(limit)
    if not decoder.eof or decoder.unused_data:
        raise _damaged(coding)
    return out


def too_large(limit: int) -> RequestRejected:
    """The error for a body beyond `limit` bytes."""
    return RequestRejected(Code.PAYLOAD_TOO_LARGE, f"The body is larger than {limit} bytes.")


def _damaged(coding: str) -> RequestRejected:
    return RequestRejected(
        Code.MALFORMED_REQUEST, f"The body is not valid {coding}.", param="content-encoding"
    )
