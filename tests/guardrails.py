"""The guardrails as a table: every kind of create, and an oracle written from their wording.

Every entrance is held against it: `policy.decide`, `handrail.prepare`, the SDK transport.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from handrail.core.caller_policy import CallerPolicy, Executor
from handrail.core.switch import Switch, resolve_switch

OURS, THEIRS = "HANDRAIL_BACKGROUND_RESPONSES", "CODEX_AUTH_BACKGROUND_RESPONSES"

# Who says it -> what `resolve_switch` is given, and what that means by G1.
SOURCES: dict[str, dict[str, Any]] = {
    "flag on": {"flag": True},
    "flag off": {"flag": False},
    "handrail on": {"environment": {OURS: "1"}},
    "handrail off": {"environment": {OURS: "off"}},
    "codex on": {"environment": {THEIRS: "yes"}},
    "codex off": {"environment": {THEIRS: "no"}},
    "file on": {"file": True},
    "file off": {"file": False},
    "default": {},
}
ABSENT = "absent"
LOOSE: list[Any] = [ABSENT, None, True, False]
KEPT_SECONDS = 4_321


def switch_of(source: str) -> Switch:
    """The switch when one source alone has spoken."""
    return resolve_switch(**{"flag": None, "environment": {}, "file": None, **SOURCES[source]})


@dataclass(frozen=True, kw_only=True)
class Case:
    """One create by one caller. A field may be absent, null, true or false."""

    background: Any
    store: Any
    provider_store: Any
    stream: Any

    def fields(self) -> dict[str, Any]:
        """The request body."""
        openai = {} if self.provider_store == ABSENT else {"store": self.provider_store}
        named = {"background": self.background, "store": self.store, "stream": self.stream}
        fields = {name: value for name, value in named.items() if value != ABSENT}
        options = {} if self.provider_store == ABSENT else {"providerOptions": {"openai": openai}}
        return {"model": "m", "input": "hi", **fields, **options}

    def data(self) -> bytes:
        """The request body as JSON."""
        return json.dumps(self.fields()).encode()


def every_case() -> Iterator[Case]:
    """Each background x store x provider store x stream."""
    streams = [ABSENT, False, True]
    for row in itertools.product([ABSENT, None, False, True], LOOSE, LOOSE, streams):
        yield Case(background=row[0], store=row[1], provider_store=row[2], stream=row[3])


def opted_in(source: str, caller: CallerPolicy) -> bool:
    """G1 in words: deny wins, on is on, an explicit off of the operator is a lock."""
    if caller.background == "deny":
        return False
    if source.endswith("on"):
        return True
    lock = source in ("flag off", "handrail off", "codex off")
    return caller.background == "allow" and not lock


# Who runs background responses, and whether the target could do it itself.
EXECUTORS = [(Executor.GATEWAY, True), (Executor.UPSTREAM, True), (Executor.UPSTREAM, False)]


def expected(
    case: Case,
    *,
    source: str,
    caller: CallerPolicy,
    runs: tuple[Executor, bool],
    has_store: bool = False,
) -> tuple[Any, ...]:
    """What the guardrails say: an error's code and param, or mode, store and retention."""
    found = _by_the_rules(case, source=source, caller=caller, runs=runs, has_store=has_store)
    # A model that is not for this caller is one that does not exist, which only comes out last.
    if found[0] != "error" and not {"*", "m"} & set(caller.models):
        return ("error", "model_not_found", "model")
    return found


def _by_the_rules(
    case: Case,
    *,
    source: str,
    caller: CallerPolicy,
    runs: tuple[Executor, bool],
    has_store: bool,
) -> tuple[Any, ...]:
    stores = {"store": case.store, "providerOptions.openai.store": case.provider_store}
    says_false = [name for name, value in stores.items() if value is False]
    says_true = [name for name, value in stores.items() if value is True]
    if case.background is not True:  # unset and null mean false (G4)
        if says_true and caller.store == "refuse":  # G7
            return ("error", "store_not_allowed", says_true[0])
        wanted = {"keep": bool(says_true), "keep_all": True}.get(caller.store, False)
        if wanted and not says_false and has_store:
            return ("kept", True, KEPT_SECONDS)
        return ("stateless", False, 0)
    if not opted_in(source, caller):  # G2, which is reported before G3 (G5)
        return ("error", "background_not_enabled", "background")
    executor, able = runs
    if caller.executor is not None:
        executor = caller.executor
    if not says_false and executor == "upstream":  # G6
        if able:
            return ("background-upstream", True, 0)
        return ("error", "background_not_supported", "background")
    if not says_false:
        return ("background", True, KEPT_SECONDS)
    if caller.store_false == "reject":  # G3
        return ("error", "background_requires_store", says_false[0])
    return ("background", False, 600)
