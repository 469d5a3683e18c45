"""Where the choice of accounts differs from the recorded reference, on purpose."""

from typing import Any, Final

from tests.conformance.departures import Table

DIFFERENCES: Final = Table()
_differs: Final = DIFFERENCES.differs

# --- failures -------------------------------------------------------------------------------------

_differs("circuitBreakerSequence", [5], "D-35", told=["closed"])
_differs("computeOutboundRequestAttemptBudget", [1], "never-twice", calls=1)

_FAILURE: Final = "evaluateFailurePolicy"
_NOT_TWICE: Final[dict[str, Any]] = {"lost: another account": False}
_differs(_FAILURE, [1, 15], "never-twice", **_NOT_TWICE)
_differs(_FAILURE, [1, 7], "one-rule", **{"lost: held back": 0.0})
_differs(_FAILURE, [3], "never-twice", **{"empty: another account": False})
_differs(_FAILURE, [5], "never-twice", **{"500: another account": False})
_differs(_FAILURE, [5], "one-rule", **{"500: held back": 0.0})
_differs(
    _FAILURE,
    [7],
    "one-rule",
    **{"unreached: another account": True, "unreached: the same again": False},
)
_differs(_FAILURE, [7], "never-twice", **{"lost: the same again": False})
_differs(_FAILURE, [9], "never-twice", **{"empty: the same again": False})
_differs(_FAILURE, [13], "guess", over=False)
_differs(_FAILURE, [15], "one-rule", **{"unreached: held back": 6.0})
_differs(_FAILURE, [17], "never-twice", **{"unknown: another account": False})
_differs(_FAILURE, [17], "one-rule", **{"unknown: counts": False})

# --- limits and quotas ----------------------------------------------------------------------------

_differs("quotaDeferralSequence", [9], "honest", looks=[{"held back": True, "seconds": 5.0}])
_differs("quotaHeaders", [5, 7], "stricter", windows={})
_BACKOFF: Final = "rateLimitBackoffSequence"
_differs(_BACKOFF, [1], "honest", seconds=[1.0] * 5)
_differs(_BACKOFF, [5], "honest", seconds=[1.0] * 2)
_differs(_BACKOFF, [7], "honest", seconds=[1.0])
_differs(_BACKOFF, [9], "honest", seconds=[30.0] * 3)

# --- the choice -----------------------------------------------------------------------------------

_differs("selectHybridAccountTraced", [7], "D-32", chosen=1)
_differs("runtimePolicy", [5], "not-here", preferred=[])
_differs("runtimePolicy", [7], "whose-fault", status=404)

# --- the proxy ------------------------------------------------------------------------------------

_PROXY: Final = "runtimeProxy"
_differs(_PROXY, [1], "D-18", used=[5, 7, 12])
_differs(_PROXY, [3, 31], "D-1", outcome="400x1", calls=0)
_differs(_PROXY, [5, 7, 9], "D-3", outcome="200x1")
_differs(_PROXY, [17], "stricter", outcome="401x1", calls=0)
_differs(_PROXY, [19], "D-22", **{"counted as": "failure"})
_differs(_PROXY, [19], "D-24", error=True)
_differs(_PROXY, [21], "D-24", outcome="429x1", calls=2)
_differs(_PROXY, [23, 25], "D-25", **{"wait told": True})
_differs(_PROXY, [27, 29], "whose-fault", outcome="503x1")
_differs(_PROXY, [33], "D-21", outcome="200x2", calls=2)
_differs(_PROXY, [35], "stricter", outcome="the start stops")
