"""Settings of the switch (G1) and of callers: who may call, by which key, under which policy."""

import hashlib
from typing import Any

import pytest

from handrail.core.admission import Limits
from handrail.core.caller_keys import key_digest
from handrail.core.caller_policy import (
    BackgroundPolicy,
    CallerPolicy,
    CrashPolicy,
    Executor,
    Priority,
    StoreFalsePolicy,
    StorePolicy,
    WhenLeft,
)
from handrail.core.fast_session import FastPolicy
from handrail.core.quota import Quota
from handrail.core.switch import Switch
from handrail.settings.caller_options import CALLER_OPTIONS
from tests.unit.reading import FILE, KEY, KEYS, OTHER, Read, refusal

OURS, THEIRS = "HANDRAIL_BACKGROUND_RESPONSES", "CODEX_AUTH_BACKGROUND_RESPONSES"
UPSTREAM = {"HANDRAIL_UPSTREAM_API_KEY": "sk-upstream"}
DIGEST = hashlib.sha256(OTHER.encode()).hexdigest()


# --- the switch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "env", "flag", "switch"),
    [
        ("", {}, None, (False, "default", False)),
        ("enabled = false", {}, None, (False, "file [background] enabled", False)),
        ("enabled = true", {}, None, (True, "file [background] enabled", False)),
        ("enabled = true", {THEIRS: "0"}, None, (False, f"environment {THEIRS}", True)),
        ("enabled = false", {THEIRS: "1"}, None, (True, f"environment {THEIRS}", False)),
        ("enabled = true", {OURS: " Off "}, None, (False, f"environment {OURS}", True)),
        ("enabled = true", {OURS: "no", THEIRS: "0"}, None, (False, f"environment {OURS}", True)),
        ("enabled = true", {OURS: " "}, None, (True, "file [background] enabled", False)),
        ("enabled = false", {OURS: "0"}, True, (True, "flag --background", False)),
        ("enabled = true", {OURS: "1"}, False, (False, "flag --no-background", True)),
    ],
)
def test_the_strongest_source_of_the_switch_decides_and_an_explicit_off_is_a_lock(
    read: Read, toml: str, env: dict[str, str], flag: bool | None, switch: tuple[bool, str, bool]
) -> None:
    enabled, source, locked = switch
    settings = read(
        f"[background]\n{toml}", env={**KEYS, **env}, flags={"background.enabled": flag}
    )
    assert settings.switch == Switch(enabled=enabled, source=source, locked=locked)
    assert settings.values["background.enabled"] is enabled
    assert settings.sources["background.enabled"] == source


@pytest.mark.parametrize("flag", [None, True, False])
def test_variables_that_contradict_each_other_stop_the_start(read: Read, flag: bool | None) -> None:
    text = refusal(read, env={**KEYS, OURS: "1", THEIRS: "off"}, flags={"background.enabled": flag})
    assert OURS in text
    assert THEIRS in text


@pytest.mark.parametrize("variable", [OURS, THEIRS])
def test_a_switch_that_cannot_be_read_stops_the_start_also_where_a_flag_decides(
    read: Read, variable: str
) -> None:
    text = refusal(read, env={**KEYS, variable: "ja"}, flags={"background.enabled": True})
    assert text.startswith(f"{variable}: is not a boolean")


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("section", ["", "[background]\nmax_running = 3\n"])
def test_the_switch_may_have_its_name_in_the_reference_implementation(
    read: Read, value: bool, section: str
) -> None:
    settings = read(f"backgroundResponses = {str(value).lower()}\n{section}")
    assert settings.switch.enabled is value
    assert settings.switch.source == "file [background] enabled"


@pytest.mark.parametrize("rest", ["[background]\nenabled = true", "background = 1"])
def test_the_switch_may_not_have_two_names(read: Read, rest: str) -> None:
    text = refusal(read, f"backgroundResponses = true\n{rest}")
    assert text.startswith(f"{FILE}: give backgroundResponses or background.enabled")


def test_a_wrong_switch_is_told_under_the_name_that_it_has_in_the_file(read: Read) -> None:
    assert "backgroundResponses" in refusal(read, 'backgroundResponses = "yes"')


# --- callers -------------------------------------------------------------------------------------

# path -> default, the text of another value, what that is, and a wrong one.
ROWS: dict[str, tuple[Any, str, Any, list[str]]] = {
    "background": (BackgroundPolicy.INHERIT, '"allow"', BackgroundPolicy.ALLOW, ['"yes"', "true"]),
    "store": (StorePolicy.LOWER, '"refuse"', StorePolicy.REFUSE, ['"keep it"', "false"]),
    "store_false": (StoreFalsePolicy.REJECT, '"gateway"', StoreFalsePolicy.GATEWAY, ['""', "1"]),
    "when_left": (WhenLeft.STOP, '"stop"', WhenLeft.STOP, ['"go on"', "true"]),
    "fast_session": (FastPolicy.INHERIT, '"hybrid"', FastPolicy.HYBRID, ['""', "true"]),
    "max_running": (8, "0", 0, ["-1", "10001", "true"]),
    "max_queued": (100, "5", 5, ["-1", "1000001", "1.5"]),
    "max_foreground": (0, "4", 4, ["-1", "10001", "true"]),
    "max_stored_bytes": (0, "1048576", 1 << 20, ["-1", "1125899906842625", '"1G"']),
    "retention": (86_400, '"7d"', 604_800, ["0", str(366 * 86_400 + 1), '"1w"']),
    "crash": (CrashPolicy.SAFE, '"retry"', CrashPolicy.RETRY, ['"request"', "true"]),
    "weight": (1, "7", 7, ["0", "101", "1.5", "true"]),
    "executor": (None, '"upstream"', Executor.UPSTREAM, ['"nobody"', "true"]),
    "models": (("*",), '["o3", "gpt-*"]', ("o3", "gpt-*"), ['[""]', "5", "[5]"]),
    "targets": (None, '["upstream"]', ("upstream",), ['"upstream"', "5", "[5]"]),
    "account_tags": ((), '["eu", "paid"]', ("eu", "paid"), ['["e u"]', "5", '[""]']),
    "priority": (Priority.NORMAL, '"low"', Priority.LOW, ['"urgent"', "1"]),
    "max_priority": (Priority.HIGH, '"normal"', Priority.NORMAL, ['""', "true"]),
}


def policy_of(read: Read, toml: str) -> CallerPolicy:
    """The policy of the caller `ann`, whose key is in the environment."""
    settings = read(f'[callers.ann]\nkey_env = "ANN"\n{toml}', env={**UPSTREAM, "ANN": OTHER})
    return settings.callers["ann"].policy


def test_this_test_knows_every_setting_of_a_caller() -> None:
    assert {*ROWS, "key_env", "key_sha256"} == {option.path for option in CALLER_OPTIONS}


@pytest.mark.parametrize("path", ROWS)
def test_a_setting_of_a_caller_has_a_default_and_is_read_from_the_file(
    read: Read, path: str
) -> None:
    default, text, value, _ = ROWS[path]
    attribute = {"retention": "retention_seconds"}.get(path, path)
    assert getattr(policy_of(read, ""), attribute) == default
    assert getattr(policy_of(read, f"{path} = {text}"), attribute) == value


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("max_running", "10000", 10_000),
        ("max_queued", "0", 0),
        ("max_queued", "1000000", 1_000_000),
        ("retention", "1", 1),
        ("retention", '"366d"', 366 * 86_400),
        ("background", '"deny"', "deny"),
        ("background", '"inherit"', "inherit"),
        ("store", '"lower"', "lower"),
        ("store", '"keep"', "keep"),
        ("store", '"keep_all"', "keep_all"),
        ("store_false", '"reject"', "reject"),
        ("fast_session", '"off"', "off"),
        ("fast_session", '"always"', "always"),
    ],
)
def test_the_bounds_and_words_of_a_callers_settings_are_allowed(
    read: Read, path: str, text: str, value: Any
) -> None:
    attribute = {"retention": "retention_seconds"}.get(path, path)
    assert getattr(policy_of(read, f"{path} = {text}"), attribute) == value


def test_streams_go_on_without_a_reader_only_where_they_are_kept(read: Read) -> None:
    policy = policy_of(read, 'store = "keep"\nwhen_left = "continue"')
    assert policy.when_left is WhenLeft.CONTINUE
    line = refusal(read, '[callers.ann]\nwhen_left = "continue"')
    assert line.startswith(f'{FILE}: callers.ann.when_left: "continue" needs store = "keep"')


def test_a_caller_with_every_setting_has_exactly_that_policy(read: Read) -> None:
    toml = "\n".join(f"{path} = {row[1]}" for path, row in ROWS.items())
    assert policy_of(read, toml) == CallerPolicy(
        name="ann",
        background=BackgroundPolicy.ALLOW,
        store=StorePolicy.REFUSE,
        store_false=StoreFalsePolicy.GATEWAY,
        fast_session=FastPolicy.HYBRID,
        max_running=0,
        max_queued=5,
        max_foreground=4,
        max_stored_bytes=1 << 20,
        retention_seconds=604_800,
        crash=CrashPolicy.RETRY,
        weight=7,
        executor=Executor.UPSTREAM,
        models=("o3", "gpt-*"),
        targets=("upstream",),
        account_tags=("eu", "paid"),
        priority=Priority.LOW,
        max_priority=Priority.NORMAL,
    )


@pytest.mark.parametrize(("path", "text"), [(path, bad) for path in ROWS for bad in ROWS[path][3]])
def test_a_wrong_setting_of_a_caller_names_the_file_and_the_setting(
    read: Read, path: str, text: str
) -> None:
    line = refusal(read, f"[callers.ann]\n{path} = {text}")
    assert line.startswith(f"{FILE}: callers.ann.{path}: must be ")


@pytest.mark.parametrize(
    "toml",
    [
        "callers = 1",
        "[[callers]]",
        "callers.ann = 1",
        "[callers.'']",
        "[callers.'a b']",
        "[callers.'é']",
        "[callers.'-_']",
        f"[callers.{'a' * 65}]",
    ],
)
def test_callers_are_tables_with_plain_names(read: Read, toml: str) -> None:
    text = refusal(read, toml)
    assert text.startswith((f"{FILE}: callers.", f"{FILE}: 'callers' must be a table of tables"))
    assert "must be a table" in text
    assert len(text) < 200


@pytest.mark.parametrize("name", ["a", "team-2_x", "a" * 64])
def test_a_name_may_have_letters_digits_and_dashes(read: Read, name: str) -> None:
    assert list(read(f'[callers.{name}]\nkey_sha256 = "{DIGEST}"', env=UPSTREAM).callers) == [name]


def test_a_key_is_given_by_a_variable_or_by_its_digest(read: Read) -> None:
    toml = f'[callers.ann]\nkey_env = "ANN"\n[callers.bob]\nkey_sha256 = "{DIGEST.upper()}"'
    callers = read(toml, env={**UPSTREAM, "ANN": f" {KEY} "}).callers
    assert callers["ann"].digest == hashlib.sha256(KEY.encode()).digest()
    assert callers["bob"].digest == bytes.fromhex(DIGEST)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('key_env = "ANN"', "callers.ann.key_env: the variable ANN is not set"),
        ('key_env = ""', "callers.ann.key_env: must be a text"),
        (f'key_env = "X"\nkey_sha256 = "{DIGEST}"', "callers.ann: give key_env or key_sha256"),
        ('key_sha256 = "abc"', "callers.ann.key_sha256: must be 64 hexadecimal digits"),
        (f'key_sha256 = "{DIGEST[:-2]}"', "callers.ann.key_sha256: must be 64 hexadecimal"),
        (f'key_sha256 = "{DIGEST[:-1]}g"', "callers.ann.key_sha256: must be 64 hexadecimal"),
        ("key_sha256 = 5", "callers.ann.key_sha256: must be a text"),
    ],
)
def test_a_caller_without_one_readable_key_stops_the_start(
    read: Read, lines: str, words: str
) -> None:
    assert refusal(read, f"[callers.ann]\n{lines}", env=UPSTREAM).startswith(f"{FILE}: {words}")


def test_a_caller_may_have_all_its_keys_in_the_data_directory(read: Read) -> None:
    settings = read("[callers.ann]\nmodels = []", env=UPSTREAM)
    assert list(settings.callers) == ["ann"]
    assert settings.callers["ann"].digest is None
    assert settings.callers["ann"].policy.models == ()


def test_a_priority_above_the_highest_stops_the_start(read: Read) -> None:
    toml = '[callers.ann]\npriority = "high"\nmax_priority = "low"'
    assert refusal(read, toml, env=UPSTREAM) == (
        f"{FILE}: callers.ann.priority: high is above max_priority, which is low."
    )


WEAK = {
    "short": "hr_0123456789abcdef",
    "of few characters": "ababababababababababab",
    "a sample": "hr_changeme-0123456789abc",
    "a sample in capitals": "hr_CHANGE-ME-0123456789abc",
    "another sample": "your-key-0123456789abcdef",
    "an example": "Example-0123456789abcdef",
    "crossed out": "hr_xxxx0123456789abcdef",
    "not ASCII": "hr_0123456789abcdefé",
    "spaced": "hr_0123456789 abcdefXYZ",
    "with a control character": "hr_0123456789\x07abcdefXYZ",
}


@pytest.mark.parametrize("variable", ["HANDRAIL_CALLER_KEY", "ANN"])
@pytest.mark.parametrize("key", WEAK.values(), ids=WEAK)
def test_a_weak_key_is_refused_by_the_name_of_its_variable_and_not_shown(
    read: Read, variable: str, key: str
) -> None:
    toml = '[callers.ann]\nkey_env = "ANN"'
    text = refusal(read, toml, env={**UPSTREAM, "ANN": OTHER, variable: key})
    assert text.startswith(f"{variable}: ")
    assert key not in text


def test_without_callers_there_is_one_whose_key_is_generated_later(read: Read) -> None:
    settings = read(env=UPSTREAM)
    assert list(settings.callers) == ["default"]
    assert settings.callers["default"].digest is None
    assert settings.callers["default"].policy == CallerPolicy(name="default")


def test_with_callers_in_the_file_there_is_no_other_unless_its_key_is_given(read: Read) -> None:
    toml = f'[callers.ann]\nkey_sha256 = "{DIGEST}"'
    assert list(read(toml, env=UPSTREAM).callers) == ["ann"]
    assert list(read(toml, env=KEYS).callers) == ["ann", "default"]


@pytest.mark.parametrize(("env", "generated"), [(UPSTREAM, True), (KEYS, False)])
def test_the_default_caller_may_have_a_policy_in_the_file_and_its_key_elsewhere(
    read: Read, env: dict[str, str], generated: bool
) -> None:
    caller = read('[callers.default]\nbackground = "deny"', env=env).callers["default"]
    assert caller.policy.background is BackgroundPolicy.DENY
    assert (caller.digest is None) is generated


def test_the_default_caller_may_not_have_two_keys(read: Read) -> None:
    text = refusal(read, f'[callers.default]\nkey_sha256 = "{DIGEST}"')
    assert text.startswith("HANDRAIL_CALLER_KEY: ")
    assert f"{FILE} gives callers.default another key" in text


def test_the_default_caller_may_name_the_variable_of_its_key(read: Read) -> None:
    settings = read('[callers.default]\nkey_env = "HANDRAIL_CALLER_KEY"')
    assert list(settings.callers) == ["default"]


SHARED = f'[callers.ann]\nkey_env = "ANN"\n[callers.bob]\nkey_sha256 = "{DIGEST}"'


def test_two_callers_may_not_share_a_key(read: Read) -> None:
    text = refusal(read, SHARED, env={**UPSTREAM, "ANN": OTHER})
    assert text == f"{FILE}: callers.ann and callers.bob have the same key."


def test_quotas_are_those_of_the_snapshot_and_of_each_caller(read: Read) -> None:
    toml = f"""
        background.max_stored_bytes = 500
        [callers.ann]
        key_sha256 = "{DIGEST}"
        max_stored_bytes = 20
    """
    assert read(toml).quota == Quota(max_bytes=500, caller_bytes={"ann": 20, "default": 0})


def test_limits_are_those_of_the_snapshot_and_of_each_caller(read: Read) -> None:
    toml = f"""
        background.max_running = 4
        background.max_queued = 9
        [callers.ann]
        key_sha256 = "{DIGEST}"
        max_running = 2
        max_queued = 3
        weight = 5
    """
    assert read(toml).limits == Limits(
        max_running=4,
        max_queued=9,
        caller_running={"ann": 2, "default": 8},
        caller_queued={"ann": 3, "default": 100},
        weights={"ann": 5, "default": 1},
    )


def test_a_caller_key_is_kept_as_its_digest_alone(read: Read) -> None:
    settings = read()
    assert settings.callers["default"].digest == hashlib.sha256(KEY.encode()).digest()
    assert key_digest(KEY) == settings.callers["default"].digest
    assert KEY not in repr(settings)
