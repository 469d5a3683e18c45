"""How much may be kept, in all and by each caller: decided on byte counts alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Exceeded(StrEnum):
    """Whose quota does not allow any more."""

    CALLER = "caller"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The most bytes that may be kept: of all callers, and by caller name. 0 sets no bound."""

    max_bytes: int = 0
    caller_bytes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def exceeded(self, caller: str, *, of_caller: int, of_all: int) -> Exceeded | None:
        """Which quota is exceeded when `caller` keeps `of_caller` bytes and all keep `of_all`.

        The caller's own comes first: that is the one that it can do something about.
        """
        own = self.caller_bytes.get(caller, 0)
        if own and of_caller > own:
            return Exceeded.CALLER
        if self.max_bytes and of_all > self.max_bytes:
            return Exceeded.GATEWAY
        return None
