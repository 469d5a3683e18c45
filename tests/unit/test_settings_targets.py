"""Several targets in the settings, and the routes to them."""

from pathlib import Path

import pytest

from handrail.core.caller_policy import CallerPolicy
from handrail.settings.explained import explained
from tests.unit.reading import FILE, KEY, Read, refusal

CALLER = {"HANDRAIL_CALLER_KEY": KEY}
TWO = """
[targets.openai]
api_key_env = "KEY_A"
[targets.local]
profile = "compatible"
url = "http://127.0.0.1:8000/v1"
"""
ROUTES = """
[[routes]]
model = "gpt-*"
targets = ["openai", "local"]
[[routes]]
targets = ["local"]
"""
ENV = {**CALLER, "KEY_A": "sk-of-a"}
ANN = CallerPolicy(name="ann", targets=("local",))
BOB = CallerPolicy(name="bob")


def test_targets_have_what_an_upstream_has_and_a_name(read: Read) -> None:
    settings = read(TWO + ROUTES, env=ENV)
    openai, local = settings.targets.values()
    assert (openai.label, openai.url) == ("openai", "https://api.openai.com/v1")
    assert openai.api_key is not None
    assert openai.api_key.reveal() == "sk-of-a"
    assert openai.name == "openai: openai https://api.openai.com/v1"
    assert (local.label, local.profile.name, local.api_key) == ("local", "compatible", None)
    assert not openai.only
    assert settings.target is openai


def test_without_a_table_there_is_the_one_upstream(read: Read) -> None:
    settings = read()
    assert list(settings.targets) == ["upstream"]
    assert settings.target.only
    assert settings.targets_for("anything", BOB) == (settings.target,)


def test_a_single_target_needs_no_route(read: Read) -> None:
    settings = read('[targets.mine]\nprofile = "compatible"\nurl = "http://x/v1"\n', env=CALLER)
    assert settings.targets_for("m", BOB) == (settings.targets["mine"],)
    assert settings.target.only


def test_the_upstream_may_have_routes_too(read: Read) -> None:
    settings = read('[[routes]]\nmodel = "gpt-*"\ntargets = ["upstream"]\n')
    assert settings.targets_for("gpt-5", BOB) == (settings.target,)
    assert settings.targets_for("o3", BOB) == ()


def test_routes_lead_to_what_a_caller_may_use(read: Read) -> None:
    settings = read(TWO + ROUTES, env=ENV)
    openai, local = settings.targets.values()
    assert settings.targets_for("gpt-5", BOB) == (openai, local)
    assert settings.targets_for("gpt-5", ANN) == (local,)
    assert settings.targets_for("qwen", BOB) == (local,)


def test_only_openais_own_address_gets_the_variable_that_nobody_named(read: Read) -> None:
    other = '[targets.other]\nurl = "https://proxy.example/v1"\n'
    everything = '[[routes]]\ntargets = ["own"]\n'
    env = {**CALLER, "OPENAI_API_KEY": "sk-openai"}
    settings = read("[targets.own]\n" + other + everything, env=env, credentials=False)
    own = settings.targets["own"].api_key
    assert own is not None
    assert own.reveal() == "sk-openai"
    assert settings.targets["other"].api_key is None
    text = refusal(read, "[targets.own]\n" + other + everything, env=env)
    assert text.startswith("targets.other.api_key_env: is not set")


def test_what_is_in_force_is_shown_by_target(read: Read) -> None:
    settings = read(TWO + ROUTES, env=ENV)
    rows = {path: (value, source) for path, value, source in explained(settings)}
    assert rows["targets.local.url"] == ("http://127.0.0.1:8000/v1", FILE)
    assert rows["targets.openai.url"] == ("https://api.openai.com/v1", "profile openai")
    assert rows["targets.openai.idle_timeout"] == ("300", "default")
    assert "sk-of-a" not in str(rows)
    assert not [path for path in rows if path.startswith("upstream.")]
    assert rows["routes[0]"] == ("gpt-*: openai, local", FILE)


WRONG = [
    ("targets = 1", "'targets' must be a table of tables"),
    ("[targets]", "'targets' must be a table of tables"),
    ("[targets]\na = 1", "targets.a must be a table"),
    ('[targets."a b"]', "targets.a b must be a table whose name is"),
    ('[targets."a\\nb"]', "targets.a\\nb must be a table whose name is"),
    ("[targets.a]\ncolour = 1", "unknown setting 'targets.a.colour'"),
    ('[targets.a]\nprofile = "x"', "targets.a.profile: must be one of"),
    ('[targets.a]\nprofile = "azure"', "targets.a.url: the profile azure needs the base URL"),
    ('[targets.a]\nurl = "ftp://x"', "targets.a.url: the upstream's base URL must be http"),
    ('[targets.a]\nextra_fields = ["seed"]', "targets.a.extra_fields has a meaning only for"),
    ("[targets.a]\n[targets.b]", "several targets need [[routes]]"),
    ("[targets.a]\n[upstream]\nreply_timeout = 5", "upstream.reply_timeout: the settings have the"),
    ("[targets.a]\nroutes = 1", "unknown setting 'targets.a.routes'"),
    ("routes = 1", "'routes' must be a list of tables"),
    ("routes = []", "'routes' must be a list of tables"),
    ("routes = [1]", "routes[0]: must be a table"),
    ('[[routes]]\ntargets = ["upstream"]\nx = 1', "routes[0]: unknown setting 'x'"),
    ("[[routes]]\ntargets = []", "routes[0].targets: must name one target or more"),
    ("[[routes]]", "routes[0].targets: must be a list"),
    ('[[routes]]\ntargets = "upstream"', "routes[0].targets: must be a list"),
    ('[[routes]]\ntargets = ["upstream", "upstream"]', "each once"),
    (
        '[[routes]]\ntargets = ["nobody"]',
        "no target 'nobody'; the settings have: upstream",
    ),
    ('[[routes]]\nmodel = ""\ntargets = ["upstream"]', "routes[0].model: must be a text"),
    ('[callers.ann]\ntargets = ["nobody"]', "callers.ann.targets: there is no target 'nobody'"),
]


@pytest.mark.parametrize(("toml", "words"), WRONG)
def test_what_makes_no_sense_stops_the_start(read: Read, toml: str, words: str) -> None:
    text = refusal(read, toml, env={**CALLER, "OPENAI_API_KEY": "sk-x"}, credentials=False)
    assert words in text
    assert text.startswith((FILE, "targets."))


@pytest.mark.parametrize(
    ("flags", "env", "source"),
    [
        ({"upstream.url": "http://x/v1"}, {}, "flag --upstream"),
        ({}, {"HANDRAIL_UPSTREAM_URL": "http://x/v1"}, "environment HANDRAIL_UPSTREAM_URL"),
        ({}, {"HANDRAIL_UPSTREAM_API_KEY": "sk-x"}, "HANDRAIL_UPSTREAM_API_KEY"),
    ],
)
def test_the_one_upstream_cannot_be_described_beside_the_table(
    read: Read, flags: dict[str, str], env: dict[str, str], source: str
) -> None:
    text = refusal(read, TWO + ROUTES, flags=flags, env={**ENV, **env})
    assert text.startswith(source)
    assert "targets.NAME" in text


def test_two_targets_cannot_have_accounts_of_one_name(read: Read) -> None:
    accounts = (
        '[targets.openai.accounts]\na = "env:KEY_A"\n[targets.local.accounts]\na = "env:KEY_A"\n'
    )
    text = refusal(read, TWO + accounts + ROUTES, env=ENV)
    assert "targets.local.accounts.a: targets.openai has an account of that name" in text


def test_a_target_whose_credential_is_missing_is_named(read: Read) -> None:
    assert "targets.openai.api_key_env: the variable KEY_A" in refusal(
        read, TWO + ROUTES, env=CALLER
    )


def test_who_has_signed_in_before_needs_no_key_in_the_settings(read: Read, tmp_path: Path) -> None:
    (tmp_path / "accounts.db").touch()
    flags = {"data_dir": str(tmp_path)}
    settings = read(TWO + ROUTES, env=CALLER, flags=flags)
    assert settings.targets["openai"].api_key is None
