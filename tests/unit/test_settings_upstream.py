"""Settings of the upstream: its base URL as an SDK would take it, and its credential."""

import base64
from pathlib import Path
from typing import Any

import pytest

from handrail.settings.explained import explained
from tests.unit.reading import FILE, KEY, KEYS, Read, refusal

CALLER = {"HANDRAIL_CALLER_KEY": KEY}


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("https://up.example", "https://up.example"),
        ("https://up.example/", "https://up.example"),
        ("https://up.example/v1//", "https://up.example/v1"),
        ("HTTPS://up.example/v1", "HTTPS://up.example/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://up.example/a%20b/v1", "https://up.example/a%20b/v1"),
        ("https://up.example/responses/v1", "https://up.example/responses/v1"),
        (" https://up.example/v1 ", "https://up.example/v1"),
    ],
)
def test_a_base_url_is_taken_as_an_sdk_would(read: Read, given: str, url: str) -> None:
    settings = read(flags={"upstream.url": given})
    assert settings.target.url == url
    assert settings.target.name == f"openai {url}"


WRONG = [
    ("up.example/v1", "http:// or https://"),
    ("//up.example/v1", "http:// or https://"),
    ("ftp://up.example", "http:// or https://"),
    ("file:///etc/passwd", "http:// or https://"),
    ("https://", "http:// or https://"),
    ("https:///v1", "http:// or https://"),
    ("https://:443/v1", "http:// or https://"),
    ("https://up.example:0/v1", "http:// or https://"),
    ("https://up.example:99999/v1", "cannot be read"),
    ("https://up.example:x/v1", "cannot be read"),
    ("https://[::1/v1", "cannot be read"),
    ("https://ann@up.example/v1", "user name"),
    ("https://ann:secret@up.example/v1", "user name"),
    ("https://:secret@up.example/v1", "user name"),
    ("https://@up.example/v1", "user name"),
    ("https://up.example/v1?a=b", "a query or a fragment"),
    ("https://up.example/v1#top", "a query or a fragment"),
    ("https://üp.example/v1", "ASCII"),
    ("https://up.example/\u202ev1", "ASCII"),
    ("https://up.example/\tv1", "ASCII"),
    ("https://up.example/v1/responses", "without /responses"),
    ("https://up.example/v1/responses/", "without /responses"),
]


@pytest.mark.parametrize(("url", "words"), WRONG)
def test_anything_else_is_refused_by_the_name_of_its_source(
    read: Read, url: str, words: str
) -> None:
    sources: dict[str, dict[str, Any]] = {
        "flag --upstream": {"flags": {"upstream.url": url}},
        "environment HANDRAIL_UPSTREAM_URL": {"env": {**KEYS, "HANDRAIL_UPSTREAM_URL": url}},
        FILE: {"toml": f"upstream.url = '{url}'" if url.isprintable() else None},
    }
    for source, options in sources.items():
        if options.get("toml", "") is not None:
            text = refusal(read, **options)
            assert text.startswith(f"{source}: the upstream's base URL ")
            assert words in text
            assert "secret" not in text


@pytest.mark.parametrize("end", ["?", "#", "?#"])
def test_an_empty_query_or_fragment_is_refused_too(read: Read, end: str) -> None:
    assert "a query or a fragment" in refusal(
        read, flags={"upstream.url": f"https://up.example/v1{end}"}
    )


@pytest.mark.parametrize("url", ["https://up example/v1", "https://up.example/v 1"])
def test_a_url_with_a_space_is_refused(read: Read, url: str) -> None:
    assert "without spaces" in refusal(read, flags={"upstream.url": url})


@pytest.mark.parametrize(
    ("profile", "url"),
    [
        ("openai", "https://api.openai.com/v1"),
        ("codex", "https://chatgpt.com/backend-api/codex"),
    ],
)
def test_a_profile_with_a_home_needs_no_url(read: Read, profile: str, url: str) -> None:
    settings = read(flags={"upstream.profile": profile})
    assert settings.target.url == settings.values["upstream.url"] == url
    assert settings.sources["upstream.url"] == f"profile {profile}"


def test_a_profile_without_a_home_needs_a_url_and_says_where_to_give_it(read: Read) -> None:
    text = refusal(read, flags={"upstream.profile": "compatible"})
    for name in ("compatible", "--upstream", "HANDRAIL_UPSTREAM_URL", "upstream.url"):
        assert name in text


COMPATIBLE = 'upstream.profile = "compatible"\nupstream.url = "http://up.example/v1"\n'


def test_a_compatible_server_may_take_further_fields(read: Read) -> None:
    settings = read(f'{COMPATIBLE}upstream.extra_fields = ["seed", "top_k"]')
    assert settings.target.extra_fields == {"seed", "top_k"}


@pytest.mark.parametrize("profile", ["openai", "codex"])
def test_further_fields_have_no_meaning_where_all_are_taken(read: Read, profile: str) -> None:
    text = refusal(read, 'upstream.extra_fields = ["seed"]', flags={"upstream.profile": profile})
    assert text.startswith(f"{FILE}: upstream.extra_fields ")


OURS, OPENAI, SPARE = "HANDRAIL_UPSTREAM_API_KEY", "OPENAI_API_KEY", "SPARE"
ALL = {OURS: "sk-ours", OPENAI: "sk-openai", SPARE: "sk-spare"}


@pytest.mark.parametrize(
    ("profile", "given", "named", "source"),
    [
        ("openai", [OURS], False, OURS),
        ("openai", [OPENAI], False, OPENAI),
        ("openai", [OURS, OPENAI], False, OURS),
        ("openai", [OURS, OPENAI, SPARE], True, OURS),
        ("openai", [OPENAI, SPARE], True, SPARE),
        ("codex", [OURS, OPENAI], False, OURS),
        ("codex", [OPENAI, SPARE], True, SPARE),
        ("compatible", [OURS, OPENAI], False, OURS),
        ("compatible", [SPARE], True, SPARE),
        # OpenAI's own key never goes to anybody else's server.
        ("compatible", [OPENAI], False, None),
        ("compatible", [], False, None),
    ],
)
def test_the_credential_is_the_strongest_that_belongs_to_the_profile(
    read: Read, profile: str, given: list[str], named: bool, source: str | None
) -> None:
    toml = 'upstream.api_key_env = "SPARE"\n' if named else ""
    toml += COMPATIBLE if profile == "compatible" else f'upstream.profile = "{profile}"'
    settings = read(toml, env={**CALLER, **{name: f" {ALL[name]} " for name in given}})
    key = settings.target.api_key
    assert (key.reveal() if key else None) == (ALL[source] if source else None)
    assert settings.sources["upstream.api_key"] == (source or "not set")
    assert settings.values["upstream.api_key"] is key


@pytest.mark.parametrize(
    ("profile", "env", "named", "words"),
    [
        ("openai", {}, False, "OPENAI_API_KEY: is not set"),
        ("openai", {OURS: " "}, False, "OPENAI_API_KEY: is not set"),
        ("codex", {OPENAI: "sk-openai"}, False, "HANDRAIL_UPSTREAM_API_KEY: is not set"),
        ("openai", {OPENAI: "sk-x"}, True, "upstream.api_key_env: the variable SPARE is not set"),
        ("codex", {SPARE: ""}, True, "upstream.api_key_env: the variable SPARE is not set"),
        ("compatible", {}, True, "upstream.api_key_env: the variable SPARE is not set"),
        ("openai", {OPENAI: "sk-é"}, False, "OPENAI_API_KEY: must be printable ASCII"),
        ("openai", {SPARE: "sk-\x07x"}, True, "SPARE: must be printable ASCII"),
        ("openai", {OURS: "sk-\nx", OPENAI: "sk-x"}, False, f"{OURS}: must be printable ASCII"),
    ],
)
def test_a_credential_that_is_missing_or_unreadable_stops_the_start(
    read: Read, profile: str, env: dict[str, str], named: bool, words: str
) -> None:
    toml = 'upstream.api_key_env = "SPARE"\n' if named else ""
    toml += COMPATIBLE if profile == "compatible" else f'upstream.profile = "{profile}"'
    assert refusal(read, toml, env={**CALLER, **env}).startswith(words)


@pytest.mark.parametrize("chain", ["5", '[""]', "[5]", "{}"])
def test_a_chain_of_models_that_is_no_list_of_names_is_named(read: Read, chain: str) -> None:
    text = refusal(read, f'upstream.model_fallbacks = {{ "gpt-5.5" = {chain} }}')
    assert text.startswith(f"{FILE}: upstream.model_fallbacks.gpt-5.5: must be ")


@pytest.mark.parametrize(
    ("profile", "said", "can"),
    [
        ("openai", None, True),
        ("openai", False, False),
        ("compatible", None, False),
        ("compatible", True, True),
        ("codex", None, False),
        ("codex", False, False),
    ],
)
def test_whether_an_upstream_runs_background_itself_is_known(
    read: Read, profile: str, said: bool | None, can: bool
) -> None:
    text = "" if said is None else f"upstream.runs_background = {str(said).lower()}"
    flags = {"upstream.profile": profile, "upstream.url": "http://up.example"}
    settings = read(text, flags=flags)
    assert settings.target.runs_background is can
    assert settings.values["upstream.runs_background"] is can


def test_the_codex_backend_cannot_be_said_to_run_background(read: Read) -> None:
    text = refusal(read, "upstream.runs_background = true", flags={"upstream.profile": "codex"})
    assert text.startswith(f"{FILE}: upstream.runs_background: the Codex backend stores nothing")


def test_without_a_variable_calls_are_direct(read: Read) -> None:
    settings = read()
    assert settings.target.proxy is None
    assert (settings.values["upstream.proxy"], settings.sources["upstream.proxy"]) == (
        None,
        "not set",
    )


@pytest.mark.parametrize(
    ("value", "shown", "login"),
    [
        ("http://p.example:3128", "http://p.example:3128", None),
        ("p.example:3128/", "http://p.example:3128", None),
        ("https://ann:s3%3Acr3t%C3%BC@p.example", "https://p.example", "ann:s3:cr3tü"),
        ("http://ann@[fd00::1]:8080", "http://[fd00::1]:8080", "ann:"),
    ],
)
def test_a_proxy_is_taken_from_the_environment_and_shown_without_its_login(
    read: Read, value: str, shown: str, login: str | None
) -> None:
    settings = read(env={**KEYS, "https_proxy": value})
    proxy = settings.target.proxy
    assert proxy is not None
    assert proxy.url == shown
    secret = proxy.authorization.reveal() if proxy.authorization else None
    encoded = login and f"Basic {base64.b64encode(login.encode()).decode()}"
    assert secret == encoded
    assert settings.target.name == "openai https://api.openai.com/v1"
    row = ("upstream.proxy", shown, "environment https_proxy")
    assert row in explained(settings)
    for text in (repr(settings), str(explained(settings))):
        assert "cr3t" not in text
        assert encoded is None or encoded[-4:] not in text


def test_a_local_upstream_needs_no_exception_from_the_proxy(read: Read) -> None:
    env = {**KEYS, "HTTP_PROXY": "http://p:1", "ALL_PROXY": "socks5://s:1"}
    settings = read(flags={"upstream.url": "http://127.0.0.1:8000/v1"}, env=env)
    assert settings.target.proxy is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "socks5://ann:secret@s:1"),
        ("all_proxy", "socks5h://s:1"),
        ("http_proxy", "http://ann:secret@p:port"),
    ],
)
def test_a_proxy_that_cannot_be_used_stops_the_start(read: Read, name: str, value: str) -> None:
    text = refusal(read, env={**KEYS, name: value})
    assert text.startswith(f"{name}: ")
    assert "secret" not in text


def test_settings_can_be_read_without_credentials_and_say_which_are_missing(read: Read) -> None:
    toml = '[callers.team]\nkey_env = "TEAM_KEY"\nbackground = "deny"\n'
    settings = read(toml, env={}, credentials=False)
    assert settings.target.api_key is None
    assert settings.callers["team"].digest is None
    assert settings.callers["team"].policy.background == "deny"
    assert "OPENAI_API_KEY" in settings.sources["upstream.api_key"]
    assert "TEAM_KEY" in settings.sources["callers.team.key"]
    named = read('upstream.api_key_env = "SPARE"', env={}, credentials=False)
    assert "SPARE" in named.sources["upstream.api_key"]


def test_a_credential_that_is_there_is_checked_also_where_none_is_needed(read: Read) -> None:
    toml = '[callers.team]\nkey_env = "TEAM_KEY"\n'
    for env in ({"TEAM_KEY": "short"}, {OURS: "not\nprintable"}):
        assert next(iter(env)) in refusal(read, toml, env=env, credentials=False)
    key = read(env={OURS: "sk-ours"}, credentials=False).target.api_key
    assert key is not None
    assert key.reveal() == "sk-ours"


@pytest.mark.parametrize(
    ("toml", "auth"),
    [
        ("", "bearer"),
        ("profile = 'codex'", "bearer"),
        ("profile = 'compatible'", "bearer"),
        ("profile = 'azure'", "api-key"),
        ("profile = 'azure'\nauth = 'bearer'", "bearer"),
        ("auth = 'api-key'", "api-key"),
    ],
)
def test_a_credential_is_shown_as_the_profile_wants_it_unless_it_is_said(
    read: Read, toml: str, auth: str
) -> None:
    settings = read(f"[upstream]\n{toml}", flags={"upstream.url": "http://up.example"})
    assert settings.target.auth == auth
    assert settings.values["upstream.auth"] == auth


COMMAND = "[upstream]\nprofile = 'azure'\nurl = 'http://up.example'\nbearer_command = ['az']\n"


def test_a_command_needs_no_key_and_is_shown_as_a_bearer(read: Read) -> None:
    settings = read(COMMAND, env=CALLER)
    target = settings.target
    assert (target.api_key, target.auth, target.bearer_command) == (None, "bearer", ("az",))
    assert settings.sources["upstream.api_key"] == "upstream.bearer_command"
    own = read(f"{COMMAND}auth = 'api-key'", env=CALLER)
    assert own.target.auth == "api-key"


def test_of_a_command_only_the_program_is_shown_for_people_put_secrets_behind_it(
    read: Read,
) -> None:
    def shown(command: str) -> str:
        settings = read(f"[upstream]\nbearer_command = {command}\n", env=CALLER)
        return {path: value for path, value, _ in explained(settings)}["upstream.bearer_command"]

    assert shown("['az', '--secret', 's3cr3t']") == "az and 2 more words"
    assert shown("['az']") == "az"


def test_a_command_and_a_key_are_one_too_many(read: Read) -> None:
    words = f"{FILE}: give upstream.bearer_command or {{}}, not both."
    assert refusal(read, COMMAND, env=KEYS) == words.format("HANDRAIL_UPSTREAM_API_KEY")
    named = f"{COMMAND}api_key_env = 'SPARE'"
    assert refusal(read, named, env=CALLER) == words.format("upstream.api_key_env")


def test_azure_needs_a_credential_and_a_url(read: Read) -> None:
    assert "needs a credential" in refusal(
        read, "[upstream]\nprofile = 'azure'\nurl = 'http://up.example'", env=CALLER
    )
    assert "the profile azure needs the base URL" in refusal(read, "upstream.profile = 'azure'")


def test_the_version_stands_behind_whatever_a_path_has(read: Read) -> None:
    plain, versioned = read().target, read("upstream.api_version = '1.0-a'").target
    assert plain.address("/models?a=b") == "https://api.openai.com/v1/models?a=b"
    assert versioned.address("/models") == "https://api.openai.com/v1/models?api-version=1.0-a"
    assert versioned.address("/m?a=b") == "https://api.openai.com/v1/m?a=b&api-version=1.0-a"
    assert versioned.name == plain.name


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('{ a = "sk-key" }', "upstream.accounts.a: must be 'env:VARIABLE' or 'file:PATH'"),
        ('{ "a b" = "env:A" }', "upstream.accounts: a name is 1 to 64"),
        ('{ a = "env:NOT_SET" }', "upstream.accounts.a: "),
        ('{ a = "file:/not/there" }', "upstream.accounts.a: "),
        ('{ a = { key = "sk-key" } }', "upstream.accounts.a: must be 'env:VARIABLE'"),
        ('{ a = { tags = ["eu"] } }', "upstream.accounts.a: must be 'env:VARIABLE'"),
        ('{ a = { key = "env:A", sk-key = 1 } }', "upstream.accounts.a: has 'key', 'tags' and"),
        ('{ a = { key = "env:A", tags = "e u" } }', "upstream.accounts.a.tags: must be a list"),
        ('{ a = { key = "env:A", tags = ["e u"] } }', "upstream.accounts.a.tags: must be a list"),
        (
            '{ a = { key = "env:A", tags = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", '
            '"l", "m", "n", "o", "p", "q"] } }',
            "upstream.accounts.a.tags: must be a list of at most 16",
        ),
        *(
            (f'{{ a = {{ key = "env:A", weight = {weight} }} }}', "upstream.accounts.a.weight: mu")
            for weight in ("0", "-1", "10.5", "true", '"2"', "nan")
        ),
        ('["a"]', "upstream.accounts: must be a table of names."),
    ],
)
def test_a_key_of_an_account_stands_in_a_variable_or_a_file(
    read: Read, table: str, words: str
) -> None:
    said = refusal(read, f"upstream.accounts = {table}")
    assert words in said
    assert "sk-key" not in said


def test_keys_of_accounts_are_read_and_shown_nowhere(read: Read, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-home\n")
    table = f'{{ work = "env:WORK", home = "file:{tmp_path}/key" }}'
    settings = read(f"upstream.accounts = {table}", env={**KEYS, "WORK": "sk-work"})
    found = {name: secret.reveal() for name, secret in settings.target.accounts.items()}
    assert found == {"work": "sk-work", "home": "sk-home"}
    assert "sk-work" not in repr(settings)
    assert "sk-home" not in repr(settings)


def test_an_account_may_have_tags_and_a_weight_and_they_are_shown(read: Read) -> None:
    table = (
        '{ a = { key = "env:A", tags = ["eu", "paid", "eu"], weight = 2 }, b = "env:B", '
        'c = { key = "env:C", weight = 0.5 } }'
    )
    env = {**KEYS, "A": "sk-a", "B": "sk-b", "C": "sk-c"}
    settings = read(f"upstream.accounts = {table}", env=env)
    found = settings.target.account_table
    assert {name: (entry.tags, entry.weight) for name, entry in found.items()} == {
        "a": (("eu", "paid"), 2.0),
        "b": ((), None),
        "c": ((), 0.5),
    }
    shown = {path: value for path, value, _ in explained(settings)}["upstream.accounts"]
    assert shown == "a: env:A tags eu paid weight 2; b: env:B; c: env:C weight 0.5"


def test_what_becomes_of_reasoning_whose_account_is_gone_is_the_targets(read: Read) -> None:
    assert not read().target.drops_reasoning
    assert read('accounts.when_maker_is_gone = "drop"').target.drops_reasoning


def test_a_target_is_named_without_its_secret(read: Read) -> None:
    assert read().target.name == "openai https://api.openai.com/v1"
