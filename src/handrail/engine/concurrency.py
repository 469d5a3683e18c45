"""How many foreground requests of a caller are under way at once."""

from collections import Counter
from collections.abc import Callable

from handrail.errors import Code, HandrailError, fault


class Concurrency:
    """Counts requests whose caller waits for the answer.

    `most` gives how many one caller may have, 0 for as many as it likes. Everybody is counted, so
    that a limit which comes with a reload knows what is under way.
    """

    def __init__(self, *, most: Callable[[str], int]) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()

    def enter(self, caller: str) -> Callable[[], None]:
        """Count one more; what comes back is to be called once, when it is over.

        Raises HandrailError when there are as many as may be.
        """
        most = self._most(caller)
        if most and self._under_way[caller] >= most:
            message = (
                f"{self._under_way[caller]} requests of this caller are under way, and {most} may "
                "be at once. Please try again when one of them has ended."
            )
            raise HandrailError(fault(Code.CONCURRENCY_EXCEEDED, message))
        self._under_way[caller] += 1
        return lambda: self._leave(caller)

    def under_way(self, caller: str) -> int:
        """How many there are."""
        return self._under_way[caller]

    def _leave(self, caller: str) -> None:
        self._under_way[caller] -= 1
        if not self._under_way[caller]:
            del self._under_way[caller]
