"""Takes the credential of a call out of the answer to it, wherever the upstream has put it.

An upstream that gives back what it was shown, in an error, a header or the middle of a stream,
would otherwise show the gateway's own credential to whoever calls the gateway.
"""

from collections.abc import Iterable
from typing import Final

from handrail.core.redact import MASK

MIN_SECRET: Final = 12
"""Characters. What local servers take for a key ("none", "EMPTY") is a word of any answer."""

_MASK: Final = MASK.encode()


class Mask:
    """Masks `secrets` in the bytes of one answer, which come in slices. Shorter ones are none."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._texts = tuple(text for text in secrets if len(text) >= MIN_SECRET)
        self._secrets = tuple(text.encode() for text in self._texts)
        self._ends = frozenset(byte for secret in self._secrets for byte in secret)
        self._held = b""

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def text(self, text: str) -> str:
        """The same text without them; the very same where it holds none."""
        for secret in self._texts:
            text = text.replace(secret, MASK)
        return text

    def whole(self, data: bytes) -> bytes:
        """The same for bytes that are complete."""
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, _MASK)
        return data

    def slice(self, data: bytes) -> bytes:
        """The next bytes that can be shown: what may be the beginning of a secret waits."""
        if self._held:
            data = self._held + data
            self._held = b""
        data = self.whole(data)
        # Events end with a line feed, which is in no credential: nearly nothing ever waits.
        if data and data[-1] in self._ends:
            held = max(_begun(secret, data) for secret in self._secrets)
            if held:
                data, self._held = data[:-held], data[-held:]
        return data

    def rest(self) -> bytes:
        """What has waited, once nothing follows."""
        held, self._held = self._held, b""
        return held


def _begun(secret: bytes, data: bytes) -> int:
    """How many of the last bytes of `data` are the first ones of `secret`."""
    most = min(len(secret) - 1, len(data))
    return next((n for n in range(most, 0, -1) if data.endswith(secret[:n])), 0)
