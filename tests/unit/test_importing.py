"""Importing the reference's settings: what is taken, changed and left out, and why."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from handrail.cli.config import config
from handrail.errors import ConfigInvalid
from handrail.settings.importing import Imported, Verdict, imported, toml
from handrail.settings.load import load
from handrail.settings.options import OPTIONS
from handrail.settings.reference import FIELDS, VARIABLES
from tests.unit.core.generated import JSON

Json = dict[str, Any]


def told(fields: Json, **environment: str) -> list[tuple[str, str, str, Any]]:
    """Name, verdict, place and value of every record."""
    found = imported({"pluginConfig": fields}, environment)
    return [
        (entry.name, entry.verdict.value, ".".join(entry.path), entry.written) for entry in found
    ]


def test_every_field_becomes_a_setting_that_exists_or_says_why_not() -> None:
    settings = {field.setting for field in FIELDS.values() if field.setting}
    assert settings <= {option.path for option in OPTIONS}
    for field in FIELDS.values():
        assert bool(field.reason) is (field.setting is None), field.name
    variables = [field.variable for field in FIELDS.values() if field.variable]
    assert len(set(variables)) == len(variables)
    assert not set(variables) & VARIABLES.keys()
    assert all(VARIABLES.values())


@pytest.mark.parametrize(
    ("fields", "setting", "written"),
    [
        ({"backgroundResponses": True}, "background.enabled", True),
        ({"backgroundResponses": False}, "background.enabled", False),
        ({"fetchTimeoutMs": 60_000}, "upstream.reply_timeout", 60),
        ({"streamStallTimeoutMs": 45_000}, "upstream.idle_timeout", 45),
        ({"schedulingStrategy": "hybrid"}, "accounts.strategy", "hybrid"),
    ],
)
def test_what_means_the_same_is_taken(fields: Json, setting: str, written: Any) -> None:
    (name,) = fields
    assert told(fields) == [(name, "taken", setting, written)]


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [(1_500, 2), (1_001, 2), (1_000.5, 2), (90_000_000, 86_400)],
)
def test_what_has_another_measure_is_changed(milliseconds: float, seconds: int) -> None:
    ((_, verdict, _, written),) = told({"fetchTimeoutMs": milliseconds})
    assert (verdict, written) == ("changed", seconds)


def test_a_strategy_that_drains_one_account_after_another_is_changed() -> None:
    found = told({"schedulingStrategy": "sequential"})
    assert found == [("schedulingStrategy", "changed", "accounts.strategy", "drain_first")]


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.reason])
def test_what_has_no_setting_here_says_why(name: str) -> None:
    field = FIELDS[name]
    values = (True, 8, "hybrid", "enabled", "strict")
    readable = []
    for value in values:
        (entry,) = imported({"pluginConfig": {name: value}}, {})
        assert entry.path == ()
        if entry.verdict is Verdict.NOT_APPLICABLE:
            readable.append(value)
            assert entry.reason == field.reason
    assert readable


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("backgroundResponses", "perhaps", "must be true or false"),
        ("backgroundResponses", 1, "must be true or false"),
        ("fetchTimeoutMs", 999, "must be at least 1000"),
        ("fetchTimeoutMs", True, "must be a number"),
        ("fetchTimeoutMs", None, "must be a number"),
        ("schedulingStrategy", 5, "must be one of hybrid, sequential"),
        ("unsupportedCodexFallbackChain", [], "must be a table of lists of names"),
        ("unsupportedCodexFallbackChain", {"a": "b"}, "must be a table of lists of names"),
        ("unsupportedCodexFallbackChain", {"a": ["\ud800"]}, "must be a table of lists of names"),
        ("unsupportedCodexFallbackChain", {" ": ["b"]}, "must be a table of lists of names"),
    ],
)
def test_a_value_that_cannot_be_read_is_left_out_and_told(
    name: str, value: Any, reason: str
) -> None:
    (entry,) = imported({"pluginConfig": {name: value}}, {})
    assert (entry.name, entry.verdict, entry.reason) == (name, Verdict.INVALID, reason)
    assert entry.path == ()


@pytest.mark.parametrize("text", ["1", "TRUE", "yes", " on "])
def test_a_variable_is_stronger_than_the_file(text: str) -> None:
    file = {"backgroundResponses": False}
    (entry,) = imported(file, {"CODEX_AUTH_BACKGROUND_RESPONSES": text})
    assert (entry.written, entry.source) == (True, "environment CODEX_AUTH_BACKGROUND_RESPONSES")


def test_a_variable_that_cannot_be_read_gives_way_to_the_file_and_is_told() -> None:
    found = imported({"fetchTimeoutMs": 2_000}, {"CODEX_AUTH_FETCH_TIMEOUT_MS": "1e3"})
    assert [(entry.verdict, entry.source, entry.written) for entry in found] == [
        (Verdict.INVALID, "environment CODEX_AUTH_FETCH_TIMEOUT_MS", None),
        (Verdict.TAKEN, "file", 2),
    ]


def test_a_variable_that_is_too_small_becomes_the_smallest() -> None:
    ((_, verdict, _, written),) = told({}, CODEX_AUTH_FETCH_TIMEOUT_MS="-5")
    assert (verdict, written) == ("taken", 1)


def test_variables_without_a_field_are_told() -> None:
    given = {
        "CODEX_PLUGIN_LOG_LEVEL": "WARN",
        "CODEX_PLUGIN_LOG_BODIES": "1",
        "CODEX_AUTH_SOMETHING": "x",
        "CODEX_AUTH_EMPTY": " ",
        "PATH": "/bin",
    }
    assert told({}, **given) == [
        ("CODEX_PLUGIN_LOG_LEVEL", "taken", "log.level", "warning"),
        ("CODEX_AUTH_SOMETHING", "not applicable", "", None),
        ("CODEX_PLUGIN_LOG_BODIES", "not applicable", "", None),
    ]


def test_a_field_that_nobody_knows_is_told() -> None:
    found = imported({"pluginConfig": {"newField": 1}, "dashboard": {}}, {})
    assert [(entry.name, entry.reason) for entry in found] == [
        ("newField", "no field of codex-multi-auth 2.8.7"),
        ("dashboard", "no part of pluginConfig"),
    ]


CHAIN = {"unsupportedCodexFallbackChain": {"a": ["b", "c"]}}


@pytest.mark.parametrize(
    ("fields", "environment", "taken"),
    [
        ({}, {}, False),
        ({"unsupportedCodexPolicy": "fallback"}, {}, True),
        ({"unsupportedCodexPolicy": "strict", "fallbackOnUnsupportedCodexModel": True}, {}, False),
        ({"fallbackOnUnsupportedCodexModel": True}, {}, True),
        ({"fallbackOnUnsupportedCodexModel": False}, {}, False),
        (
            {"unsupportedCodexPolicy": "fallback"},
            {"CODEX_AUTH_UNSUPPORTED_MODEL_POLICY": "STRICT"},
            False,
        ),
        ({}, {"CODEX_AUTH_FALLBACK_UNSUPPORTED_MODEL": "1"}, True),
    ],
)
def test_a_chain_is_taken_where_it_was_in_force(
    fields: Json, environment: dict[str, str], taken: bool
) -> None:
    found = imported({**fields, **CHAIN}, environment)
    (chain,) = [entry for entry in found if entry.name in CHAIN]
    assert bool(chain.path) is taken
    if taken:
        assert tomllib.loads(toml(found))["upstream"]["model_fallbacks"] == {"a": ["b", "c"]}
    else:
        assert "strict" in chain.reason


# --- options of models ----------------------------------------------------------------------------

HOST: Json = {
    "provider": {
        "openai": {
            "options": {"reasoningEffort": "medium", "store": False, "include": ["a"]},
            "models": {
                "gpt-5.4": {
                    "name": "ours",
                    "options": {"textVerbosity": "low", "promptCacheRetention": "in-memory"},
                    "variants": {
                        "high": {"reasoningEffort": "high", "reasoningSummary": "detailed"},
                        "low": {"disabled": True, "reasoningEffort": "low"},
                        "Very-Odd": {"reasoningEffort": "low"},
                    },
                },
                "bad": {"options": {"reasoningEffort": "HIGH", "include": ["\n"], "x": None}},
                "": {},
                "worse": [],
            },
        }
    }
}


def test_a_hosts_options_become_tables() -> None:
    found = imported(HOST, {})
    assert tomllib.loads(toml(found)) == {
        "upstream": {"profile": "codex"},
        "defaults": {"effort": "medium", "include": ["a"]},
        "models": {
            "gpt-5.4": {
                "verbosity": "low",
                "prompt_cache_retention": "in_memory",
                "variants": {
                    "high": {"effort": "high", "summary": "detailed"},
                    "low": {"disabled": True, "effort": "low"},
                },
            }
        },
    }
    place = "provider.openai.models"
    assert [
        (entry.name, entry.verdict.value, entry.reason) for entry in found if not entry.path
    ] == [
        ("provider.openai.options.store", "not applicable", "no option of a request"),
        (
            f"{place}.gpt-5.4.variants.Very-Odd",
            "not applicable",
            "an ending has 1 to 32 small letters, digits and '_'",
        ),
        (f"{place}.bad.options.reasoningEffort", "invalid", "Invalid enum value 'HIGH'"),
        (f"{place}.bad.options.include", "invalid", "must be printable"),
        (f"{place}.bad.options.x", "not applicable", "no option of a request"),
        (f"{place}.", "invalid", "must be a named object"),
        (f"{place}.worse", "invalid", "must be a named object"),
    ]


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        ({"accounts": []}, "accounts"),
        ({"pluginConfig": 5}, "pluginConfig"),
        ({"provider": {"openai": 5}}, "provider.openai"),
        ({"provider": {"openai": {"models": 5}}}, "provider.openai.models"),
    ],
)
def test_a_file_of_another_kind_is_refused(file: Json, wrong: str) -> None:
    with pytest.raises(ConfigInvalid, match=wrong):
        imported(file, {})


# --- what is written ------------------------------------------------------------------------------

NAMES = st.sampled_from([*FIELDS, "odd"])
VALUES = (
    JSON
    | st.integers(-10, 100_000)
    | st.sampled_from(["strict", "fallback", "hybrid", "true"])
    | st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=5), max_size=2), max_size=2)
)
OPTION_VALUES = JSON | st.sampled_from(["low", "high", "auto", "24h", "in-memory", True, False])
OPTION_TABLES = st.dictionaries(
    st.sampled_from(
        [
            "reasoningEffort",
            "reasoningSummary",
            "textVerbosity",
            "promptCacheRetention",
            "include",
            "disabled",
            "odd",
        ]
    ),
    OPTION_VALUES,
    max_size=4,
)
ENTRIES = JSON | st.fixed_dictionaries(
    {},
    optional={
        "options": JSON | OPTION_TABLES,
        "variants": JSON
        | st.dictionaries(
            st.sampled_from(["low", "fast", "A-b", "x\x7f"]) | st.text(max_size=4), OPTION_TABLES
        ),
    },
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "pluginConfig": st.dictionaries(NAMES, VALUES, max_size=6),
        "provider": JSON
        | st.fixed_dictionaries(
            {
                "openai": st.fixed_dictionaries(
                    {},
                    optional={
                        "options": JSON | OPTION_TABLES,
                        "models": st.dictionaries(
                            st.sampled_from(["gpt-5.4", 'a"b\\', "é\U0001f600", "x y", "a\x7fb"])
                            | st.text(max_size=5),
                            ENTRIES,
                            max_size=3,
                        ),
                    },
                )
            }
        ),
    },
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from([f.variable for f in FIELDS.values() if f.variable] + ["CODEX_AUTH_ODD"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
    | st.sampled_from(["1", "no", "250", "hybrid", "12.5"]),
    max_size=4,
)


@given(file=FILES, environment=ENVIRONMENTS)
def test_whatever_is_imported_can_be_loaded(
    tmp_path_factory: pytest.TempPathFactory, file: Json, environment: dict[str, str]
) -> None:
    try:
        found = imported(file, environment)
    except ConfigInvalid as error:
        assert "provider" in str(error)  # noqa: PT017
        return
    path = tmp_path_factory.getbasetemp() / "imported.toml"
    path.write_text(toml(found), encoding="utf-8")
    settings = load({"config": str(path)}, {}, default_data_dir=Path(), credentials=False)
    assert settings.target.profile.name == "codex"
    for entry in found:
        assert (entry.written is not None) is bool(entry.path)
        assert bool(entry.reason) is (entry.verdict is not Verdict.TAKEN)
        if entry.path and ".".join(entry.path) in settings.values:
            assert settings.values[".".join(entry.path)] == entry.written


# --- the command ----------------------------------------------------------------------------------

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Imports a file, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    for name in (*VARIABLES, *(field.variable or "-" for field in FIELDS.values())):
        monkeypatch.delenv(name, raising=False)

    def running(file: Any, *arguments: str, **environment: str) -> Result:
        data = file if isinstance(file, bytes) else json.dumps(file).encode()
        (tmp_path / "settings.json").write_bytes(data)
        return CliRunner().invoke(config, ["import", "settings.json", *arguments], env=environment)

    return running


def test_every_value_is_told_in_a_line(run: Run) -> None:
    done = run(
        {"backgroundResponses": True, "fetchTimeoutMs": 1_500, "codexMode": True},
        CODEX_AUTH_FALLBACK_UNSUPPORTED_MODEL="no",
    )
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "taken           backgroundResponses = true -> background.enabled = true",
        "changed         fetchTimeoutMs = 1500 -> upstream.reply_timeout = 2"
        "  (in whole seconds, from 1 to 86400)",
        "not applicable  codexMode = true"
        "  (the caller's instructions and input leave as they were written)",
        "not applicable  fallbackOnUnsupportedCodexModel = false"
        "  (a model has the fallbacks that upstream.model_fallbacks names, and no others)",
        "2 of 4 values have a setting here.",
    ]


def test_a_program_gets_the_same_as_json(run: Run) -> None:
    done = run({"backgroundResponses": True}, "--json")
    assert json.loads(done.output) == [
        {
            "name": "backgroundResponses",
            "source": "file",
            "value": "true",
            "verdict": "taken",
            "setting": "background.enabled",
            "written": "true",
            "reason": "",
        }
    ]


def test_a_settings_file_is_written_once(run: Run, tmp_path: Path) -> None:
    done = run({"backgroundResponses": True}, "--write", "handrail.toml")
    assert "Written to handrail.toml." in done.output
    written = (tmp_path / "handrail.toml").read_text()
    assert tomllib.loads(written) == {
        "upstream": {"profile": "codex"},
        "background": {"enabled": True},
    }
    again = run({}, "--write", "handrail.toml")
    assert isinstance(again.exception, ConfigInvalid)
    assert str(again.exception) == "handrail.toml: cannot be written: File exists."
    assert (tmp_path / "handrail.toml").read_text() == written


def test_what_looks_secret_is_not_shown(run: Run) -> None:
    secret = "sk-proj-0123456789abcdef"
    done = run({"apiKey": "plain-words", "other": {"token": "abc"}, "x\n\x1b[31m": secret})
    for words in ("plain-words", "abc", secret, "\x1b"):
        assert words not in done.output
    assert "x\\n\\x1b[31m" in done.output


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b"5", b"[" * 100_000, b" " * (1 << 20) + b"{}"]
)
def test_a_file_that_is_no_object_is_named(run: Run, data: bytes) -> None:
    done = run(data)
    assert isinstance(done.exception, ConfigInvalid)
    assert str(done.exception).startswith("settings.json: ")


def test_a_byte_order_mark_is_none_of_the_json(run: Run) -> None:
    assert run(b"\xef\xbb\xbf{}").output == "0 of 0 values have a setting here.\n"


def test_a_record_says_what_it_is() -> None:
    (entry,) = imported({"codexMode": True}, {})
    assert entry == Imported(
        name="codexMode",
        source="file",
        value=True,
        verdict=Verdict.NOT_APPLICABLE,
        reason="the caller's instructions and input leave as they were written",
    )
