"""The issuer of the settings: its addresses, as whom it is asked, and which are refused."""

from typing import Any

import pytest

from handrail.settings.explained import explained
from handrail.settings.oauth import OAUTH_OPTIONS
from tests.unit.reading import FILE, KEYS, Read, refusal


def test_by_default_the_issuer_is_that_of_codex(read: Read) -> None:
    oauth = read().oauth
    assert oauth.issuer == "https://auth.openai.com"
    assert oauth.client_id == "app_EMoamEEZ73f0CkXaXp7hrann"
    assert oauth.originator == "codex_cli_rs"
    assert " ".join(oauth.scopes) == (
        "openid profile email offline_access api.connectors.read api.connectors.invoke"
    )
    assert oauth.authorize_url == "https://auth.openai.com/oauth/authorize"
    assert oauth.token_url == "https://auth.openai.com/oauth/token"
    assert oauth.revoke_url == "https://auth.openai.com/oauth/revoke"
    assert oauth.device_url == "https://auth.openai.com/api/accounts/deviceauth"
    assert oauth.device_page == "https://auth.openai.com/codex/device"
    assert oauth.device_redirect == "https://auth.openai.com/deviceauth/callback"
    assert oauth.redirect_uri(oauth.redirect_port) == "http://127.0.0.1:1455/auth/callback"


def test_another_issuer_moves_every_address_and_allows_any_port(read: Read) -> None:
    oauth = read('oauth.issuer = "https://id.example/base/"').oauth
    assert oauth.issuer == "https://id.example/base"
    assert oauth.authorize_url == "https://id.example/base/oauth/authorize"
    assert oauth.token_url == "https://id.example/base/oauth/token"
    assert oauth.revoke_url == "https://id.example/base/oauth/revoke"
    assert oauth.device_url == "https://id.example/base/api/accounts/deviceauth"
    assert oauth.device_page == "https://id.example/base/codex/device"
    assert oauth.device_redirect == "https://id.example/base/deviceauth/callback"
    assert oauth.redirect_port == 0


GIVEN: dict[str, tuple[str, Any]] = {
    "issuer": ('"http://127.0.0.1:9000"', "http://127.0.0.1:9000"),
    "client_id": ('"app_mine"', "app_mine"),
    "originator": ('"mine"', "mine"),
    "scopes": ('["openid", "offline_access"]', ("openid", "offline_access")),
    "authorize_url": ('"https://a.example/x"', "https://a.example/x"),
    "token_url": ('"http://localhost:1/t/"', "http://localhost:1/t"),
    "revoke_url": ('"http://[::1]:1/r"', "http://[::1]:1/r"),
    "device_url": ('"https://d.example"', "https://d.example"),
    "device_page": ('"https://d.example/page"', "https://d.example/page"),
    "redirect_port": ("0", 0),
    "redirect_host": ('"localhost"', "localhost"),
}


def test_this_test_knows_every_setting_of_the_issuer() -> None:
    assert set(GIVEN) == {option.path for option in OAUTH_OPTIONS}
    assert all(option.meaning for option in OAUTH_OPTIONS)


@pytest.mark.parametrize("name", GIVEN)
def test_a_setting_of_the_issuer_is_read_and_explained(read: Read, name: str) -> None:
    text, value = GIVEN[name]
    settings = read(f"[oauth]\n{name} = {text}")
    assert getattr(settings.oauth, name) == value
    assert settings.sources[f"oauth.{name}"] == FILE
    shown = ", ".join(value) if isinstance(value, tuple) else str(value)
    assert (f"oauth.{name}", shown, FILE) in explained(settings)
    others = {f"oauth.{other}" for other in GIVEN} - {f"oauth.{name}"}
    assert {settings.sources[path] for path in others} == {"default"}


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("oauth = 5", "'oauth' must be a table."),
        ("[oauth]\ncanary = 5", "unknown setting 'oauth.canary'."),
        ('[oauth]\n"a\\nb" = 5', "unknown setting 'oauth.a\\nb'."),
        ("[oauth]\nissuer = 5", "oauth.issuer: must be a text that is not empty."),
        ("[oauth]\nredirect_port = 65536", "oauth.redirect_port: must be a whole number"),
        ('[oauth]\nredirect_host = "0.0.0.0"', "oauth.redirect_host: must be one of 127.0.0.1, "),
        ("[oauth]\nscopes = []", "oauth.scopes: must be printable ASCII without spaces"),
        ('[oauth]\nscopes = ["a b"]', "oauth.scopes: must be printable ASCII without spaces"),
        ('[oauth]\nclient_id = "a\\nb"', "oauth.client_id: must be printable ASCII"),
        ('[oauth]\noriginator = "ü"', "oauth.originator: must be printable ASCII"),
        (f'[oauth]\nclient_id = "{"x" * 201}"', "oauth.client_id: must be printable ASCII"),
    ],
)
def test_a_wrong_setting_of_the_issuer_is_named(read: Read, toml: str, words: str) -> None:
    assert refusal(read, toml).startswith(f"{FILE}: {words}")


@pytest.mark.parametrize(
    "name", ["issuer", "authorize_url", "token_url", "revoke_url", "device_url", "device_page"]
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id.example", "must be https:// with a host."),
        ("ftp://id.example", "must be https:// with a host."),
        ("https://", "must be https:// with a host."),
        ("https://id.example:0", "must be https:// with a host."),
        ("http://id.example", "must be https://; http:// is for this machine alone."),
        ("http://127.0.0.1.example", "must be https://; http:// is for this machine alone."),
        ("https://[::1", "cannot be read as an address."),
        ("https://id.example:x", "cannot be read as an address."),
        ("https://ann:canary@id.example", "must be plain ASCII without a login"),
        ("https://@id.example", "must be plain ASCII without a login"),
        ("https://id.example/?a=canary", "must be plain ASCII without a login"),
        ("https://id.example/#", "must be plain ASCII without a login"),
        ("https://ïd.example/", "must be plain ASCII without a login"),
    ],
)
def test_an_address_where_credentials_would_be_unsafe_is_refused(
    read: Read, name: str, text: str, words: str
) -> None:
    said = refusal(read, f'[oauth]\n{name} = "{text}"')
    assert said.startswith(f"{FILE}: oauth.{name}: {words}")
    assert "canary" not in said


def test_only_the_proxy_variables_go_along_and_no_repr_shows_them(read: Read) -> None:
    env = {**KEYS, "https_proxy": "http://ann:canary@p.example", "NO_PROXY": "a", "OTHER": "x"}
    oauth = read(env=env).oauth
    assert dict(oauth.environment) == {
        "https_proxy": "http://ann:canary@p.example",
        "NO_PROXY": "a",
    }
    assert "canary" not in repr(oauth)


def test_a_proxy_that_only_the_issuer_would_take_stops_no_start(read: Read) -> None:
    env = {**KEYS, "ALL_PROXY": "socks5://p.example"}
    assert read('upstream.url = "http://127.0.0.1:9/v1"', env=env).oauth.environment
