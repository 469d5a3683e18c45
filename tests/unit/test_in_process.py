"""`import handrail`: the pipeline and its rules, without a server, a credential or a directory."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import handrail
from handrail import (
    AddReasoning,
    BackgroundPolicy,
    CallerPolicy,
    ConfigInvalid,
    Executor,
    FastSession,
    LibrarySettings,
    Mode,
    Prepared,
    RequestRejected,
    StorePolicy,
    Switch,
    prepare,
)
from handrail.core.fast_session import FastPolicy
from handrail.core.profiles import ToolCleanUp
from tests.guardrails import EXECUTORS, SOURCES, every_case, expected, switch_of
from tests.unit.core.generated import JSON, KNOWN, UNKNOWN, WILD

OFF = LibrarySettings()
BODY: dict[str, Any] = {"model": "m", "input": "hi", "store": True}
KEPT_SECONDS = 4_321


def settings_for(source: str, caller: CallerPolicy, runs: tuple[Executor, bool]) -> LibrarySettings:
    """Rules for one caller."""
    return LibrarySettings(
        switch=switch_of(source),
        executor=runs[0],
        runs_background=runs[1],
        callers={caller.name: caller},
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("background", BackgroundPolicy)
@pytest.mark.parametrize(("store", "store_false"), [("lower", "reject"), ("refuse", "gateway")])
def test_every_combination_is_prepared_as_the_guardrails_say(
    source: str, background: BackgroundPolicy, store: Any, store_false: Any
) -> None:
    for runs in EXECUTORS:
        caller = CallerPolicy(
            name="ann",
            background=background,
            store=store,
            store_false=store_false,
            retention_seconds=KEPT_SECONDS,
        )
        settings = settings_for(source, caller, runs)
        for case in every_case():
            wanted = expected(case, source=source, caller=caller, runs=runs)
            got: tuple[Any, ...]
            try:
                plan = prepare(case.fields(), settings=settings, caller="ann").plan
                got = (plan.mode.value, plan.store, plan.retention_seconds)
            except RequestRejected as error:
                got = ("error", error.fault.code, error.fault.param)
            assert got == wanted, (case, runs)


@pytest.mark.parametrize(
    "spell",
    [dict, MappingProxyType, json.dumps, lambda body: json.dumps(body).encode()],
    ids=["dict", "mapping", "str", "bytes"],
)
def test_a_body_may_be_a_mapping_or_its_json(spell: Callable[[Any], Any]) -> None:
    result = prepare(spell(BODY), settings=OFF)
    assert result.body == {**BODY, "store": False, "stream": False}
    assert result.url == "https://api.openai.com/v1/responses"


class Odd:
    """No JSON at all."""


RING: list[Any] = []
RING.append(RING)


@pytest.mark.parametrize(
    "body",
    [
        {**BODY, "temperature": float("nan")},
        {**BODY, "input": Odd()},
        {**BODY, "input": "\ud800"},
        {**BODY, "input": RING},
        dict([*BODY.items(), (("a",), 1)]),
        "\ud800",
        "{",
        b"\xff",
        b'{"model":"\\ud800"}',
        [],
        None,
        5,
        bytearray(b"{}"),
    ],
    ids=lambda body: type(body).__name__,
)
def test_what_is_no_json_object_is_rejected_and_nothing_else_is_raised(body: Any) -> None:
    with pytest.raises(RequestRejected) as caught:
        prepare(body, settings=OFF)
    assert caught.value.fault.status == 400


@given(st.builds(lambda known, unknown: {**known, **unknown}, KNOWN, UNKNOWN) | WILD | JSON)
def test_the_body_is_never_changed(body: Any) -> None:
    before = repr(body)
    result: Prepared | None = None
    with suppress(RequestRejected):
        result = prepare(body, settings=OFF)
    assert repr(body) == before
    if result is not None:
        result.body["model"] = "changed"
        assert result.body["model"] != "changed"


def test_another_profile_has_its_own_url_and_rules() -> None:
    settings = LibrarySettings(
        base_url="https://gw.example/v1/", profile="compatible", extra_fields=frozenset({"seed"})
    )
    own = prepare({**BODY, "seed": 1}, settings=settings)
    assert (own.url, own.body["seed"]) == ("https://gw.example/v1/responses", 1)
    other = prepare({**BODY, "seed": 1}, settings=settings, profile="codex")
    assert other.url == "https://chatgpt.com/backend-api/codex/responses"
    assert settings.for_profile("compatible") is settings
    with pytest.raises(ConfigInvalid, match="base_url"):
        prepare(BODY, settings=OFF, profile="compatible")
    with pytest.raises(ConfigInvalid, match="none of openai, codex, azure, compatible"):
        prepare(BODY, settings=OFF, profile="nope")


def test_encrypted_reasoning_is_asked_for_as_the_settings_say() -> None:
    word: Any = "always"
    settings = LibrarySettings(encrypted_reasoning=word)
    assert "include" not in prepare(BODY, settings=OFF).body
    assert prepare(BODY, settings=settings).body["include"] == ["reasoning.encrypted_content"]


def test_tools_are_put_right_as_the_settings_say() -> None:
    tool = {"type": "function", "function": {"name": "run", "parameters": {"title": "T"}}}
    body = {**BODY, "tools": [tool]}
    flat = {"type": "function", "name": "run", "parameters": {"title": "T"}, "strict": False}
    assert prepare(body, settings=OFF).body["tools"] == [flat]
    for word, tools in (("never", [tool]), ("all", [{**flat, "parameters": {}}])):
        words: Any = {"clean_tools": word}
        assert prepare(body, settings=LibrarySettings(**words)).body["tools"] == tools
    assert LibrarySettings(**words).for_profile("compatible").clean_tools is None


def test_a_fast_session_is_what_the_settings_and_the_caller_say() -> None:
    plain: Any = {"strategy": "always", "max_items": 8, "compact_seconds": 4}
    body = {"model": "m", "input": [{"role": "user", "content": f"{n}\n{n}"} for n in range(20)]}
    fast = FastSession(**plain)
    callers = {
        name: CallerPolicy(name=name, fast_session=word)
        for name, word in (("default", FastPolicy.INHERIT), ("ann", FastPolicy.OFF))
    }
    settings = LibrarySettings(fast_session=fast, callers=callers)
    assert len(prepare(body, settings=OFF).body["input"]) == 20
    prepared = prepare(body, settings=settings)
    assert len(prepared.body["input"]) == 8
    assert "input: 12 of 20 items left out" in prepared.decision
    assert len(prepare(body, settings=settings, caller="ann").body["input"]) == 20
    on = replace(settings, switch=Switch(enabled=True, source="test", locked=False))
    kept = prepare({**body, "background": True}, settings=on)
    assert kept.plan.mode is Mode.BACKGROUND
    assert len(kept.body["input"]) == 20


def test_a_caller_who_does_not_exist_gets_nobodys_rules() -> None:
    settings = LibrarySettings(callers={"ann": CallerPolicy(name="ann")})
    for name in (None, "bob", ""):
        with pytest.raises(ConfigInvalid, match="the settings have: ann"):
            prepare(BODY, settings=settings, caller=name)
    with pytest.raises(ConfigInvalid, match="none"):
        prepare(BODY, settings=LibrarySettings(callers={}))


def test_a_rule_given_as_a_plain_word_means_what_it_says() -> None:
    loose: Any = {"background": "deny", "store": "refuse"}
    executor: Any = "upstream"
    settings = LibrarySettings(
        switch=Switch(enabled=True, source="test", locked=False),
        executor=executor,
        callers={"default": CallerPolicy(name="default", **loose)},
    )
    assert settings.executor is Executor.UPSTREAM
    assert settings.callers["default"].store is StorePolicy.REFUSE
    with pytest.raises(RequestRejected, match="denied to the caller"):
        prepare({**BODY, "background": True}, settings=settings)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"executor": "both"}, "executor"),
        ({"profile": "x"}, "profile"),
        ({"encrypted_reasoning": "x"}, "encrypted_reasoning"),
        ({"clean_tools": "x"}, "clean_tools"),
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "https://x/v1/responses"}, "base_url"),
        ({"profile": "codex", "runs_background": True}, "Codex backend"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(fields: Any, named: str) -> None:
    with pytest.raises(ConfigInvalid, match=named):
        LibrarySettings(**fields)


def test_rules_cannot_be_changed_from_outside_afterwards() -> None:
    callers = {"default": CallerPolicy(name="default", background=BackgroundPolicy.DENY)}
    settings = LibrarySettings(callers=callers)
    callers["default"] = CallerPolicy(name="default", background=BackgroundPolicy.ALLOW)
    assert settings.caller(None).background is BackgroundPolicy.DENY


# --- from environment and file -------------------------------------------------------------------

TOML = """
[background]
enabled = true
executor = "upstream"
[callers.default]
background = "deny"
[callers.ann]
key_env = "KEY_THAT_IS_NOT_SET"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rules_need_no_credential_and_make_no_directory(here: Path) -> None:
    settings = LibrarySettings.from_environment({})
    assert settings == LibrarySettings(
        base_url="https://api.openai.com/v1",
        runs_background=True,
        switch=settings.switch,
        encrypted_reasoning=AddReasoning.WHEN_REASONING,
        clean_tools=ToolCleanUp.SHAPE,
    )
    assert not settings.switch.enabled
    assert list(here.iterdir()) == []


def test_rules_come_from_the_file_whose_keys_need_not_be_set(here: Path) -> None:
    (here / "rules.toml").write_text(TOML)
    settings = LibrarySettings.from_file(here / "rules.toml", environment={})
    assert settings.executor is Executor.UPSTREAM
    body = {"model": "m", "background": True}
    assert prepare(body, settings=settings, caller="ann").plan.mode is Mode.UPSTREAM
    with pytest.raises(RequestRejected):
        prepare(body, settings=settings)


def test_the_file_here_holds_as_it_does_for_serve(here: Path) -> None:
    (here / "handrail.toml").write_text(TOML)
    assert LibrarySettings.from_environment({}).switch.enabled
    (here / "other.toml").write_text("background.enabled = false")
    named = {"HANDRAIL_CONFIG": "other.toml"}
    assert not LibrarySettings.from_environment(named).switch.enabled


@pytest.mark.parametrize(
    ("flag", "environment", "enabled", "locked"),
    [
        (True, {"HANDRAIL_BACKGROUND_RESPONSES": "0"}, True, False),
        (False, {"HANDRAIL_BACKGROUND_RESPONSES": "1"}, False, True),
        (None, {"HANDRAIL_BACKGROUND_RESPONSES": "off"}, False, True),
        (None, {"CODEX_AUTH_BACKGROUND_RESPONSES": "yes"}, True, False),
        (None, {}, True, False),
    ],
)
def test_flag_environment_and_file_have_their_order_and_off_is_a_lock(
    here: Path, flag: bool | None, environment: dict[str, str], enabled: bool, locked: bool
) -> None:
    (here / "handrail.toml").write_text("background.enabled = true")
    for settings in (
        LibrarySettings.from_environment(environment, background=flag),
        LibrarySettings.from_file("handrail.toml", environment=environment, background=flag),
    ):
        assert (settings.switch.enabled, settings.switch.locked) == (enabled, locked)


@pytest.mark.parametrize(
    ("environment", "options", "named"),
    [
        ({"HANDRAIL_BACKGROUND_RESPONSES": "maybe"}, {}, "HANDRAIL_BACKGROUND_RESPONSES"),
        (
            {"HANDRAIL_BACKGROUND_RESPONSES": "1", "CODEX_AUTH_BACKGROUND_RESPONSES": "0"},
            {},
            "contradict",
        ),
        ({"HANDRAIL_CONFIG": "/nonexistent.toml"}, {}, "/nonexistent.toml"),
        ({}, {"profile": "nope"}, "--profile"),
        ({}, {"profile": "compatible"}, "--upstream"),
        ({}, {"base_url": "nope"}, "--upstream"),
    ],
)
@pytest.mark.usefixtures("here")
def test_wrong_settings_are_named(environment: Any, options: Any, named: str) -> None:
    with pytest.raises(ConfigInvalid, match=named):
        LibrarySettings.from_environment(environment, **options)


@pytest.mark.usefixtures("here")
def test_the_process_own_environment_is_read_when_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HANDRAIL_BACKGROUND_RESPONSES", "1")
    assert LibrarySettings.from_environment().switch.enabled
    monkeypatch.setenv("HANDRAIL_CONFIG", "/nonexistent.toml")
    with pytest.raises(ConfigInvalid):
        LibrarySettings.from_environment()


# --- the package itself --------------------------------------------------------------------------


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_else() -> None:
    assert modules_after("import handrail") == {"handrail"}


def test_preparing_imports_no_server_no_client_and_no_event_loop() -> None:
    loaded = modules_after("import handrail; handrail.prepare, handrail.LibrarySettings")
    heavy = {
        "aiohttp",
        "asyncio",
        "click",
        "cryptography",
        "httpx2",
        "openai",
        "sqlite3",
        "uvicorn",
    }
    assert not heavy & loaded


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    nothing: Any = handrail
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = nothing.nonsense
    assert set(handrail.__all__) <= set(dir(handrail))


def test_the_transport_without_the_sdk_says_what_to_install() -> None:
    code = "import sys; sys.modules['httpx2'] = None; import handrail.integrations.openai"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=20
    )
    assert "pip install 'handrail[openai]'" in done.stderr


def test_the_version_of_an_api_is_checked_and_goes_with_its_profile() -> None:
    settings = LibrarySettings(profile="azure", base_url="https://r.example", api_version="v1")
    assert settings.upstream().query == "api-version=v1"
    assert settings.for_profile("openai").upstream().query == ""
    with pytest.raises(ConfigInvalid, match="api_version: must be"):
        LibrarySettings(api_version="a&b=c")
