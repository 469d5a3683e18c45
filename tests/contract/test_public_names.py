"""The public surface of the library: names, signatures and fields, pinned.

A change here is a change for those who import Handrail: an addition is a minor version, anything
else a major one, and `handrail.core.prepare.VERSION` says so where data has changed its shape.
"""

import dataclasses
import inspect
from typing import Any

import pytest

import handrail
from handrail.core.prepare import VERSION
from handrail.integrations import openai as integration

NAMES = [
    "AddReasoning",
    "BackgroundPolicy",
    "CallerPolicy",
    "Change",
    "ConfigInvalid",
    "CrashPolicy",
    "Executor",
    "FastSession",
    "LibrarySettings",
    "Mode",
    "Plan",
    "Prepared",
    "Priority",
    "Reason",
    "RequestRejected",
    "Step",
    "StoreFalsePolicy",
    "StorePolicy",
    "Switch",
    "WhenLeft",
    "errors",
    "prepare",
]

SIGNATURES: list[tuple[Any, str]] = [
    (
        handrail.prepare,
        "(body: collections.abc.Mapping[str, typing.Any] | bytes | str, *, "
        "settings: handrail.settings.in_process.LibrarySettings, profile: str | None = None, "
        "caller: str | None = None) -> handrail.core.prepare.Prepared",
    ),
    (
        handrail.LibrarySettings.from_environment,
        "(environment: collections.abc.Mapping[str, str] | None = None, *, "
        "background: bool | None = None, profile: str | None = None, "
        "base_url: str | None = None) -> Self",
    ),
    (
        handrail.LibrarySettings.from_file,
        "(path: str | os.PathLike[str], *, "
        "environment: collections.abc.Mapping[str, str] | None = None, "
        "background: bool | None = None) -> Self",
    ),
    (handrail.LibrarySettings.for_profile, "(self, profile: str) -> Self"),
    (
        integration.HandrailTransport,
        "(settings: handrail.settings.in_process.LibrarySettings | None = None, *, "
        "caller: str | None = None, "
        "transport: httpx2.BaseTransport | None = None) -> None",
    ),
    (
        integration.AsyncHandrailTransport,
        "(settings: handrail.settings.in_process.LibrarySettings | None = None, *, "
        "caller: str | None = None, "
        "transport: httpx2.AsyncBaseTransport | None = None) -> None",
    ),
]

FIELDS: list[tuple[Any, list[str]]] = [
    (handrail.Change, ["step", "before", "after"]),
    (
        handrail.Plan,
        [
            "mode",
            "stream",
            "store",
            "retention_seconds",
            "reasons",
            "continues",
            "crash",
            "priority",
            "outlives_reader",
            "rules",
            "account",
            "project",
            "others",
            "account_tags",
        ],
    ),
    (handrail.Prepared, ["plan", "request", "url", "headers", "given", "version"]),
    (handrail.Reason, ["name", "text"]),
    (handrail.Step, ["field", "action", "reason"]),
    (handrail.Switch, ["enabled", "source", "locked"]),
    (
        handrail.CallerPolicy,
        [
            "name",
            "background",
            "store",
            "store_false",
            "when_left",
            "fast_session",
            "max_running",
            "max_queued",
            "max_foreground",
            "max_stored_bytes",
            "retention_seconds",
            "crash",
            "weight",
            "executor",
            "models",
            "targets",
            "account_tags",
            "priority",
            "max_priority",
        ],
    ),
    (
        handrail.FastSession,
        ["strategy", "max_items", "drop_tools", "cut_instructions", "compact_seconds"],
    ),
    (
        handrail.LibrarySettings,
        [
            "profile",
            "base_url",
            "switch",
            "executor",
            "runs_background",
            "extra_fields",
            "encrypted_reasoning",
            "api_version",
            "clean_tools",
            "model_fallbacks",
            "fast_session",
            "callers",
            "models",
            "defaults",
        ],
    ),
]


def test_the_public_names_are_these() -> None:
    assert sorted(handrail.__all__) == sorted(NAMES)
    for name in NAMES:
        assert getattr(handrail, name) is not None
    assert sorted(integration.__all__) == ["AsyncHandrailTransport", "HandrailTransport"]


@pytest.mark.parametrize(
    ("function", "signature"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", "")
)
def test_a_public_function_has_this_signature(function: Any, signature: str) -> None:
    shown = str(inspect.signature(function)).replace("typing.Self", "Self")
    for home in ("httpx2._transports.base.", "openai."):  # the SDK renames it when it is imported
        shown = shown.replace(f"transport: {home}", "transport: httpx2.")
    assert shown == signature


@pytest.mark.parametrize(
    ("kind", "fields"), FIELDS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_public_value_has_these_fields_and_is_frozen(kind: Any, fields: list[str]) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    assert [name for name in names if not name.startswith("_")] == fields
    assert kind.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind))


def test_what_is_prepared_says_its_version_and_more_than_its_fields() -> None:
    assert VERSION == 1
    assert {"body", "changes", "content", "decision", "steps"} <= set(dir(handrail.Prepared))


def test_everything_public_is_documented() -> None:
    for name in NAMES:
        assert inspect.getdoc(getattr(handrail, name))
    for name in integration.__all__:
        assert inspect.getdoc(getattr(integration, name))
