"""Where every setting comes from, and that a wrong one stops the start and is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handrail.settings.caller_options import CALLER_OPTIONS
from handrail.settings.model import Secret, Settings
from handrail.settings.options import OPTIONS
from tests.unit.reading import FILE, KEY, KEYS, Read, refusal

Attribute = Callable[[Settings], Any]

# path -> default, the text of another value in the file, what that is, and where it is read from.
GONE = "accounts.when_maker_is_gone"
ROWS: dict[str, tuple[Any, str, Any, Attribute]] = {
    "server.host": ("127.0.0.1", '"0.0.0.0"', "0.0.0.0", lambda s: s.host),
    "server.port": (8787, "1001", 1001, lambda s: s.port),
    "server.allowed_hosts": ((), '["a", " b "]', ("a", "b"), lambda s: s.allowed_hosts),
    "server.max_body_bytes": (32 << 20, "2048", 2048, lambda s: s.max_body_bytes),
    "server.max_connections": (2000, "7", 7, lambda s: s.max_connections),
    "server.drain": (20, '"90s"', 90, lambda s: s.drain_seconds),
    "server.heartbeat": (15, "30", 30, lambda s: s.heartbeat_seconds),
    "log.level": ("info", '"debug"', "debug", lambda s: s.log_level),
    "data_dir": (None, '"/srv/x"', Path("/srv/x"), lambda s: s.data_dir),
    "vault.store_key": (None, '"env:A"', "env:A", lambda s: s.values["vault.store_key"]),
    "vault.accounts_key": (None, '"env:A"', "env:A", lambda s: s.values["vault.accounts_key"]),
    "upstream.url": (
        "https://api.openai.com/v1",
        '"http://up.example:8000/v1/"',
        "http://up.example:8000/v1",
        lambda s: s.target.url,
    ),
    "upstream.profile": ("openai", '"codex"', "codex", lambda s: s.target.profile.name),
    "upstream.api_key_env": (None, '"SPARE"', "SPARE", lambda s: s.values["upstream.api_key_env"]),
    "upstream.auth": ("bearer", '"api-key"', "api-key", lambda s: s.target.auth),
    "upstream.bearer_command": (
        (),
        '["az", "a,b"]',
        ("az", "a,b"),
        lambda s: s.target.bearer_command,
    ),
    "upstream.bearer_lifetime": (300, '"15m"', 900, lambda s: s.target.bearer_seconds),
    "upstream.accounts": (
        {},
        '{ work = "env:HANDRAIL_UPSTREAM_API_KEY" }',
        {"work": KEYS["HANDRAIL_UPSTREAM_API_KEY"]},
        lambda s: {name: secret.reveal() for name, secret in s.target.accounts.items()},
    ),
    "accounts.strategy": ("hybrid", '"least_used"', "least_used", lambda s: s.account_strategy),
    "accounts.also_after": ((), "[403]", (403,), lambda s: tuple(s.target.also_after)),
    "accounts.nearly_used_up": (95, "80", 80, lambda s: s.values["accounts.nearly_used_up"]),
    "accounts.when_maker_is_gone": ("refuse", '"drop"', "drop", lambda s: s.values[GONE]),
    "upstream.api_version": (
        None,
        '"2025-04-01-preview"',
        "2025-04-01-preview",
        lambda s: s.target.query.removeprefix("api-version=") or None,
    ),
    "upstream.extra_fields": ((), "[]", frozenset(), lambda s: s.target.extra_fields),
    "upstream.runs_background": (True, "false", False, lambda s: s.target.runs_background),
    "upstream.encrypted_reasoning": (
        "when_reasoning",
        '"never"',
        "never",
        lambda s: s.target.profile.add_reasoning,
    ),
    "upstream.clean_tools": ("shape", '"all"', "all", lambda s: s.target.profile.clean_tools),
    "upstream.model_fallbacks": (
        {},
        '{ "a" = ["b", "c"] }',
        {"a": ("b", "c")},
        lambda s: s.target.model_fallbacks,
    ),
    "upstream.pass_through": ((), '["/a/*"]', ("/a/*",), lambda s: s.target.pass_through),
    "upstream.reply_timeout": (600, '"2h"', 7200, lambda s: s.target.reply_seconds),
    "upstream.idle_timeout": (300, '"1d"', 86_400, lambda s: s.target.idle_seconds),
    "fast_session.strategy": ("off", '"hybrid"', "hybrid", lambda s: s.fast_session.strategy),
    "fast_session.max_input_items": (30, "40", 40, lambda s: s.fast_session.max_items),
    "fast_session.drop_tools": (False, "true", True, lambda s: s.fast_session.drop_tools),
    "fast_session.cut_instructions": (
        False,
        "true",
        True,
        lambda s: s.fast_session.cut_instructions,
    ),
    "fast_session.compact_timeout": (0, '"4s"', 4, lambda s: s.fast_session.compact_seconds),
    "background.enabled": (False, "true", True, lambda s: s.switch.enabled),
    "background.max_running": (16, "3", 3, lambda s: s.max_running),
    "background.max_queued": (1000, "0", 0, lambda s: s.max_queued),
    "background.executor": ("gateway", '"upstream"', "upstream", lambda s: s.executor),
    "background.max_duration": (21_600, '"15m"', 900, lambda s: s.max_run_seconds),
    "background.max_output_bytes": (64 << 20, "4096", 4096, lambda s: s.max_output_bytes),
    "background.max_stored_bytes": (10 << 30, "0", 0, lambda s: s.max_stored_bytes),
    "background.max_history_bytes": (32 << 20, "4096", 4096, lambda s: s.max_history_bytes),
    "ledger.retention": (
        400 * 86_400,
        '"7d"',
        7 * 86_400,
        lambda s: s.accounting.retention_seconds,
    ),
    "ledger.time_zone": ("UTC", '"Asia/Tokyo"', "Asia/Tokyo", lambda s: str(s.accounting.zone)),
}


def test_this_test_knows_every_setting() -> None:
    assert set(ROWS) == {option.path for option in OPTIONS}
    assert all(option.meaning for option in (*OPTIONS, *CALLER_OPTIONS))


@pytest.mark.parametrize("path", ROWS)
def test_a_setting_that_nobody_gives_has_its_default(read: Read, path: str) -> None:
    default, _, _, attribute = ROWS[path]
    settings = read()
    wanted = Path.cwd() / "data" if path == "data_dir" else default
    assert attribute(settings) == (frozenset() if path == "upstream.extra_fields" else wanted)
    assert settings.values[path] == wanted
    sources = {"upstream.url": "profile openai"}
    assert settings.sources[path] == sources.get(path, "default")
    assert settings.file is None


@pytest.mark.parametrize("path", ROWS)
def test_a_setting_is_read_from_the_file(read: Read, path: str) -> None:
    _, text, value, attribute = ROWS[path]
    # A command gives what the key of the environment would.
    env = {"HANDRAIL_CALLER_KEY": KEY} if path == "upstream.bearer_command" else KEYS
    settings = read(f"{path} = {text}", env=env)
    assert attribute(settings) == value
    assert settings.file == Path(FILE)
    wanted = "file [background] enabled" if path == "background.enabled" else FILE
    assert settings.sources[path] == wanted


# path -> the variable and the flag, and the values by file, environment and flag.
STRENGTH: dict[str, tuple[str, str, tuple[Any, Any, Any]]] = {
    "server.host": ("HANDRAIL_HOST", "--host", ("10.0.0.1", "10.0.0.2", "10.0.0.3")),
    "server.port": ("HANDRAIL_PORT", "--port", (1001, 1002, 1003)),
    "log.level": ("HANDRAIL_LOG_LEVEL", "--log-level", ("debug", "warning", "error")),
    "data_dir": ("HANDRAIL_DATA_DIR", "--data-dir", ("/a", "/b", "/c")),
    "upstream.url": (
        "HANDRAIL_UPSTREAM_URL",
        "--upstream",
        ("http://a.example", "http://b.example", "http://c.example"),
    ),
    "upstream.profile": (
        "HANDRAIL_UPSTREAM_PROFILE",
        "--profile",
        ("openai", "codex", "openai"),
    ),
}


def test_this_test_knows_every_variable_and_flag() -> None:
    named = {option.path for option in OPTIONS if option.variable or option.flag}
    assert named == {*STRENGTH, "background.enabled"}


@pytest.mark.parametrize("path", STRENGTH)
@pytest.mark.parametrize("given", ["f", "e", "l", "fe", "fl", "el", "fel"])
def test_a_flag_goes_over_the_environment_and_that_over_the_file(
    read: Read, path: str, given: str
) -> None:
    variable, flag, (in_file, in_environment, by_flag) = STRENGTH[path]
    toml = f"{path} = {in_file if isinstance(in_file, int) else repr(in_file)}"
    env = {**KEYS, variable: f" {in_environment} "} if "e" in given else KEYS
    settings = read(
        toml if "f" in given else None, env=env, flags={path: by_flag} if "l" in given else {}
    )
    wanted, source = (in_file, FILE)
    if "e" in given:
        wanted, source = in_environment, f"environment {variable}"
    if "l" in given:
        wanted, source = by_flag, f"flag {flag}"
    assert str(settings.values[path]) == str(wanted)
    assert settings.sources[path] == source


def test_an_empty_variable_and_a_flag_that_was_not_given_are_unset(read: Read) -> None:
    env = {**KEYS, "HANDRAIL_PORT": " ", "HANDRAIL_HOST": "", "HANDRAIL_CONFIG": " "}
    settings = read("server.port = 5", env=env, flags={"server.port": None, "config": None})
    assert (settings.port, settings.host) == (5, "127.0.0.1")


def test_a_wrong_value_in_the_file_is_an_error_also_where_a_flag_decides(read: Read) -> None:
    assert f"{FILE}: server.port" in refusal(
        read, 'server.port = "x"', flags={"server.port": 1}, env={**KEYS, "HANDRAIL_PORT": "2"}
    )


TEXT = ['""', '"  "', "1", "true", "[]"]
TEXTS = ["1", "[1]", '["a", 1]', "{}", "true"]
WORD = ['"loud"', '"INFO"', "1", "[]", '""']
BOOLEAN = ['"true"', "1", "0", "[]", '""']


def whole(low: int, high: int) -> list[str]:
    """What is no whole number within these bounds."""
    return [str(low - 1), str(high + 1), "true", "1.5", '"x"', '""', '"-1"', "[]", "{}"]


def duration(low: int, high: int) -> list[str]:
    """What is no duration within these bounds."""
    return [*whole(low, high), '"5"', '"5x"', '"5S"', '"-5s"', '"5 s"', '"1h30m"', '"999999d"']


WHOLE = {
    "accounts.nearly_used_up": (1, 100),
    "server.port": (0, 65_535),
    "server.max_body_bytes": (1_024, 1 << 30),
    "server.max_connections": (1, 100_000),
    "background.max_running": (1, 10_000),
    "background.max_queued": (0, 1_000_000),
    "background.max_output_bytes": (1_024, 1 << 32),
    "background.max_stored_bytes": (0, 1 << 50),
    "background.max_history_bytes": (1_024, 1 << 30),
    "fast_session.max_input_items": (8, 200),
}
DURATIONS = {
    "server.drain": (0, 3_600),
    "server.heartbeat": (1, 3_600),
    "upstream.reply_timeout": (1, 86_400),
    "upstream.idle_timeout": (1, 86_400),
    "upstream.bearer_lifetime": (1, 86_400),
    "background.max_duration": (1, 7 * 86_400),
    "fast_session.compact_timeout": (0, 600),
    "ledger.retention": (86_400, 3_660 * 86_400),
}
WORDS = {
    "log.level": ["debug", "info", "warning", "error"],
    "upstream.profile": ["openai", "codex", "azure", "compatible"],
    "upstream.auth": ["bearer", "api-key"],
    "background.executor": ["gateway", "upstream"],
    "upstream.encrypted_reasoning": ["always", "when_reasoning", "never"],
    "upstream.clean_tools": ["never", "shape", "all"],
    "fast_session.strategy": ["off", "hybrid", "always"],
    "accounts.strategy": ["hybrid", "drain_first", "round_robin", "least_used"],
    "accounts.when_maker_is_gone": ["refuse", "drop"],
}

BAD: dict[str, list[str]] = {
    "server.host": TEXT,
    "server.allowed_hosts": TEXTS,
    "log.level": WORD,
    "data_dir": TEXT,
    "upstream.url": TEXT,
    "upstream.profile": [*WORD, '"nobody"'],
    "upstream.runs_background": BOOLEAN,
    "upstream.encrypted_reasoning": WORD,
    "upstream.clean_tools": WORD,
    "fast_session.strategy": WORD,
    "accounts.strategy": WORD,
    "accounts.when_maker_is_gone": WORD,
    "upstream.accounts": ["5", '"x"', "[]"],
    **{f"vault.{name}_key": [*TEXT, '"x"', '"file:/x"'] for name in ("store", "accounts")},
    "fast_session.drop_tools": BOOLEAN,
    "fast_session.cut_instructions": BOOLEAN,
    "upstream.model_fallbacks": ["5", '"x"', "[]"],
    "accounts.also_after": ["[404]", "[true]", '["403"]', "403"],
    "upstream.pass_through": [*TEXTS, '["files"]', '["/responses"]', '"/files"'],
    "background.executor": WORD,
    "upstream.api_key_env": TEXT,
    "upstream.auth": WORD,
    "upstream.bearer_command": [*TEXTS, '"az login"'],
    "upstream.api_version": [*TEXT, '"a b"', '"a&b"', f'"{"x" * 41}"'],
    "upstream.extra_fields": TEXTS,
    "ledger.time_zone": [*TEXT, '"Mars/Olympus"', '"../etc/passwd"'],
    "background.enabled": BOOLEAN,
    **{path: whole(*bounds) for path, bounds in WHOLE.items()},
    **{path: duration(*bounds) for path, bounds in DURATIONS.items()},
}


@pytest.mark.parametrize(
    ("path", "number"), [(path, n) for path, bounds in (WHOLE | DURATIONS).items() for n in bounds]
)
def test_the_bounds_of_a_number_are_allowed_themselves(read: Read, path: str, number: int) -> None:
    assert read(f"{path} = {number}").values[path] == number
    unit = "s" if path in DURATIONS else ""
    assert read(f'{path} = " {number}{unit} "').values[path] == number


@pytest.mark.parametrize(("path", "word"), [(path, w) for path in WORDS for w in WORDS[path]])
def test_every_word_of_a_choice_is_allowed(read: Read, path: str, word: str) -> None:
    settings = read(f'{path} = "{word}"', flags={"upstream.url": "http://up.example"})
    assert settings.values[path] == word


@pytest.mark.parametrize(("path", "text"), [(path, text) for path in ROWS for text in BAD[path]])
def test_a_wrong_value_in_the_file_names_the_file_and_the_setting(
    read: Read, path: str, text: str
) -> None:
    assert refusal(read, f"{path} = {text}").startswith(f"{FILE}: {path}: must be ")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HANDRAIL_PORT", "x"),
        ("HANDRAIL_PORT", "65536"),
        ("HANDRAIL_PORT", "-1"),
        ("HANDRAIL_PORT", "80.0"),
        ("HANDRAIL_PORT", "80 81"),
        ("HANDRAIL_LOG_LEVEL", "loud"),
        ("HANDRAIL_UPSTREAM_PROFILE", "nobody"),
        ("HANDRAIL_UPSTREAM_URL", "ftp://x.example"),
        ("HANDRAIL_BACKGROUND_RESPONSES", "maybe"),
        ("CODEX_AUTH_BACKGROUND_RESPONSES", "2"),
        ("HANDRAIL_CALLER_KEY", "short"),
        ("HANDRAIL_UPSTREAM_API_KEY", "käse"),
    ],
)
def test_a_wrong_value_in_the_environment_names_the_variable(
    read: Read, variable: str, text: str
) -> None:
    assert variable in refusal(read, env={**KEYS, variable: text})


@pytest.mark.parametrize(
    ("path", "value", "flag"),
    [
        ("server.host", " ", "--host"),
        ("server.port", 65_536, "--port"),
        ("log.level", "loud", "--log-level"),
        ("data_dir", "", "--data-dir"),
        ("upstream.url", "x.example", "flag --upstream"),
        ("upstream.profile", "nobody", "--profile"),
    ],
)
def test_a_wrong_value_by_flag_names_the_flag(read: Read, path: str, value: Any, flag: str) -> None:
    assert refusal(read, flags={path: value}).startswith(f"{flag}: ")


@pytest.mark.parametrize("path", ["server.port", "server.drain"])
def test_a_number_without_end_is_a_wrong_value_too(read: Read, path: str) -> None:
    assert path in refusal(
        read, f'{path} = "{"1" * 5_000}s"'.replace("1s", "1" * (path[-1] == "t"))
    )


@pytest.mark.parametrize("text", ["0x", "00"])
def test_a_zero_without_a_unit_is_no_duration(read: Read, text: str) -> None:
    assert "server.drain" in refusal(read, f'server.drain = "{text}"')


def test_a_list_may_be_one_text_with_commas(read: Read) -> None:
    assert read('server.allowed_hosts = "a, b,"').allowed_hosts == ("a", "b")


def test_the_home_directory_may_be_a_tilde(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert read('data_dir = "~/runs"').data_dir == Path("/home/ann/runs")


# --- the file ------------------------------------------------------------------------------------


def test_the_file_is_that_of_the_flag_then_of_the_variable_then_the_one_here(read: Read) -> None:
    for number, name in enumerate(["flag.toml", "variable.toml"], start=1):
        Path(name).write_text(f"server.port = {number}")
    env = {**KEYS, "HANDRAIL_CONFIG": "variable.toml"}
    assert read("server.port = 3").port == 3
    assert read(env=env).port == 2
    settings = read(env=env, flags={"config": "flag.toml"})
    assert (settings.port, settings.file) == (1, Path("flag.toml"))


@pytest.mark.parametrize("named", [{"flags": {"config": "x"}}, {"env": {"HANDRAIL_CONFIG": "x"}}])
def test_a_file_that_was_named_must_be_there(read: Read, named: dict[str, Any]) -> None:
    assert refusal(read, **named).startswith("x: cannot be read: No such file")


def test_a_file_that_cannot_be_read_stops_the_start(read: Read) -> None:
    Path(FILE).mkdir()
    assert refusal(read).startswith(f"{FILE}: cannot be read")


def test_a_file_may_have_a_mebibyte_and_no_more(read: Read) -> None:
    line = "server.port = 5\n#"
    assert read(line + "x" * ((1 << 20) - len(line))).port == 5
    assert refusal(read, line + "x" * (1 << 20)).startswith(f"{FILE}: is larger than")


@pytest.mark.parametrize(
    "data", [b"server", b"a = 1\na = 2", b"a = \xff", b"[" * 5_000, b"x = [1,"]
)
def test_a_file_that_is_no_toml_is_named(read: Read, data: bytes) -> None:
    Path(FILE).write_bytes(data)
    text = refusal(read)
    assert text.startswith(f"{FILE}: is not valid TOML: ")
    assert len(text) < 300


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ("prot = 1", "prot"),
        ("[sever]", "sever"),
        ("[sever]\nport = 1", "sever"),
        ("server.prot = 1", "server.prot"),
        ("background.enabeld = true", "background.enabeld"),
        ('upstream.api_key = "x"', "upstream.api_key"),
        ("[callers.ann]\nkey_evn = 1", "callers.ann.key_evn"),
        ("[[data]]", "data"),
    ],
)
def test_a_setting_that_does_not_exist_is_named(read: Read, toml: str, name: str) -> None:
    assert refusal(read, toml) == f"{FILE}: unknown setting '{name}'."


@pytest.mark.parametrize("toml", ["server = 1", "[[server]]", 'log = "debug"', "background = true"])
def test_a_section_must_be_a_table(read: Read, toml: str) -> None:
    section = toml.split(" ", maxsplit=1)[0].strip("[]")
    assert refusal(read, toml) == f"{FILE}: '{section}' must be a table."


def test_empty_sections_are_no_settings(read: Read) -> None:
    assert read("[server]\n[log]\n[upstream]\n[background]\n[callers]").port == 8787


@pytest.mark.parametrize("toml", ['"a\\nb" = 1', '[callers."a\\nb"]', 'server."a\\nb" = 1'])
def test_a_name_with_line_ends_cannot_break_the_message(read: Read, toml: str) -> None:
    refusal(read, toml)


# --- secrets -------------------------------------------------------------------------------------


def test_a_secret_shows_nowhere_but_where_it_is_asked_for(read: Read) -> None:
    settings = read(env={**KEYS, "HANDRAIL_UPSTREAM_API_KEY": "sk-0123456789abcdefgh-tail"})
    assert settings.target.api_key is not None
    assert settings.target.api_key.reveal() == "sk-0123456789abcdefgh-tail"
    assert "0123456789" not in f"{settings!r} {settings} {settings.target.api_key}"
    assert repr(Secret("short")) == "Secret(…)"


def test_a_snapshot_cannot_be_changed(read: Read) -> None:
    settings: Any = read()
    with pytest.raises(AttributeError):
        settings.port = 1
    for mapping in (settings.values, settings.sources, settings.callers):
        with pytest.raises(TypeError):
            mapping["x"] = 1
