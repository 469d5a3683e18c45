"""Through which proxy a URL is called, by the variables of the environment."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.proxies import PROXY_VARIABLES, proxy_for, proxy_variable
from handrail.errors import ConfigInvalid

URL = "https://chatgpt.com/backend-api/codex/responses"
P = "http://p:1"
Environment = dict[str, str]

# What the reference implementation was seen to do, kept: URL, environment, proxy.
RECORDED: list[tuple[str, Environment, str | None]] = [
    (URL, {}, None),
    (URL, {"https_proxy": "http://l:1", "HTTPS_PROXY": P}, "http://l:1"),
    (URL, {"https_proxy": "  ", "HTTP_PROXY": "http://h:1"}, "http://h:1"),
    ("http://x.example:8080/a", {"HTTPS_PROXY": P}, None),
    (URL, {"HTTPS_PROXY": P, "NO_PROXY": "*"}, None),
    (URL, {"HTTPS_PROXY": P, "NO_PROXY": ".chatgpt.com"}, P),
    (URL, {"HTTPS_PROXY": P, "NO_PROXY": "*chatgpt.com"}, None),
    (URL, {"HTTPS_PROXY": P, "NO_PROXY": "chatgpt.com:444"}, P),
    (URL, {"HTTPS_PROXY": P, "no_proxy": "", "NO_PROXY": "*"}, P),
    ("http://[::1]:9/", {"HTTP_PROXY": P, "NO_PROXY": "[::1]"}, None),
    ("ws://x/", {"HTTP_PROXY": P}, None),
]


@pytest.mark.parametrize(("url", "environment", "proxy"), RECORDED)
def test_the_recorded_behaviour_of_the_reference_is_kept(
    url: str, environment: Environment, proxy: str | None
) -> None:
    assert proxy_for(url, environment) == proxy


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/",
        "http://127.8.9.10/v1",
        "https://127.0.0.1/v1",
        "http://[::1]:8000/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://0.0.0.0:8000/v1",
        "http://[::]:8000/v1",
        "http://localhost:8000/v1",
        "http://LOCALHOST/v1",
        "http://localhost./v1",
        "http://models.localhost/v1",
    ],
)
def test_this_machine_is_never_called_through_a_proxy(url: str) -> None:
    # The reference does that (its row 019), and loses every local model server.
    environment = {"HTTP_PROXY": P, "HTTPS_PROXY": P, "ALL_PROXY": "socks5://s:1"}
    assert proxy_for(url, environment) is None
    assert proxy_variable(url, environment) is None


@pytest.mark.parametrize(
    "url",
    ["http://localhost.example/", "http://notlocalhost/", "http://128.0.0.1/", "http://10.0.0.1/"],
)
def test_what_only_looks_like_this_machine_is_not_exempt(url: str) -> None:
    assert proxy_for(url, {"HTTP_PROXY": P}) == P


@pytest.mark.parametrize("url", [URL, "http://x.example/"])
def test_all_proxy_comes_last(url: str) -> None:
    # The reference does not read it (its row 025).
    assert proxy_for(url, {"ALL_PROXY": "http://a:1"}) == "http://a:1"
    assert proxy_for(url, {"all_proxy": "http://b:1", "ALL_PROXY": "http://a:1"}) == "http://b:1"
    assert proxy_for(url, {"all_proxy": "", "ALL_PROXY": "http://a:1"}) is None
    assert proxy_for(url, {"ALL_PROXY": "http://a:1", "HTTP_PROXY": P}) == P
    assert proxy_for(url, {"ALL_PROXY": "http://a:1", "http_proxy": ""}) == "http://a:1"


def test_an_empty_lower_case_variable_shadows_the_other_and_means_none() -> None:
    assert proxy_for(URL, {"https_proxy": "", "HTTPS_PROXY": P}) is None
    assert proxy_for("http://x.example/", {"http_proxy": "", "HTTP_PROXY": P}) is None


def test_the_variable_that_decided_is_told_as_it_is_spelled() -> None:
    assert proxy_variable(URL, {"HTTPS_PROXY": P}) == "HTTPS_PROXY"
    assert proxy_variable(URL, {"https_proxy": P, "HTTPS_PROXY": "x"}) == "https_proxy"
    assert proxy_variable(URL, {"https_proxy": "", "HTTP_PROXY": P}) == "HTTP_PROXY"
    assert proxy_variable(URL, {}) is None


# URL's authority, NO_PROXY, whether it is exempt.
EXEMPT: list[tuple[str, str, bool]] = [
    ("a.com", "a.com", True),
    ("a.com", "A.COM", True),
    ("A.com.", "a.com", True),
    ("a.com", "b.com, a.com", True),
    ("a.com", "b.com  a.com\tc.com", True),
    ("a.com", ",, ,", False),
    ("a.com", "b.com,*", True),
    ("x.a.com", "a.com", False),
    ("xa.com", "a.com", False),
    ("x.a.com", ".a.com", True),
    ("x.y.a.com", ".a.com", True),
    ("a.com", ".a.com", False),
    ("xa.com", ".a.com", False),
    ("x.a.com", "*.a.com", True),
    ("a.com", "*.a.com", False),
    ("xa.com", "*a.com", True),
    ("a.com", "a.com:443", True),
    ("a.com:8443", "a.com:8443", True),
    ("a.com:8443", "a.com:443", False),
    ("x.a.com:8443", ".a.com:8443", True),
    ("x.a.com", ".a.com:8443", False),
    ("a.com", "a.com:", False),
    ("a.com", ".", False),
    ("a.com", "a.com/path", False),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("10.1.2.3", "10.9.9.9/8", True),
    ("11.1.2.3", "10.0.0.0/8", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3:8443", "10.1.2.3:443", False),
    ("10.1.2.3", "10.0.0.0/99", False),
    ("10.a.com", "10.0.0.0/8", False),
    ("[fd00::1]", "fd00::/8", True),
    ("[fd00::1]", "10.0.0.0/8", False),
    ("[fd00::1]", "fd00:0::1", True),
    ("[fd00::1]", "[fd00::1]", True),
    ("[fd00::1]", "[fd00::1]:443", True),
    ("[fd00::1]", "[fd00::1]:444", False),
    ("[::ffff:10.1.2.3]", "10.0.0.0/8", True),
]


@pytest.mark.parametrize(("authority", "entries", "exempt"), EXEMPT)
def test_no_proxy_means_what_is_written(authority: str, entries: str, exempt: bool) -> None:
    environment = {"HTTPS_PROXY": P, "NO_PROXY": entries}
    assert proxy_for(f"https://{authority}/v1", environment) == (None if exempt else P)


def test_a_port_that_is_not_written_is_the_schemes_own() -> None:
    environment = {"HTTP_PROXY": P, "NO_PROXY": "a.com:80"}
    assert proxy_for("http://a.com/", environment) is None
    assert proxy_for("https://a.com/", environment) == P


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        (" http://p:1 ", "http://p:1"),
        ("p:1", "http://p:1"),
        ("ann:secret@p:1", "http://ann:secret@p:1"),
        ("HTTPS://p", "HTTPS://p"),
        ("http://ann:s%2Fcret@[fd00::1]:3128/", "http://ann:s%2Fcret@[fd00::1]:3128/"),
    ],
)
def test_a_proxy_is_http_or_https_and_http_where_nothing_is_said(value: str, proxy: str) -> None:
    assert proxy_for(URL, {"HTTPS_PROXY": value}) == proxy


UNUSABLE = [
    ("socks5://ann:secret@s:1", "socks5 proxies are not supported"),
    ("SOCKS5h://s:1", "socks5h proxies are not supported"),
    ("ftp://s:1", "ftp proxies are not supported"),
    ("://secret", "this kind of proxy is not supported"),
    ("ann:secret://s", "this kind of proxy is not supported"),
    ("http://", "cannot be read"),
    ("http://ann:secret@:1", "cannot be read"),
    ("http://p:secret", "cannot be read"),
    ("http://p:99999", "cannot be read"),
    ("http://p:0", "cannot be read"),
    ("http://[secret", "cannot be read"),
    ("http://ann:1#secret@p:1", "cannot be read"),
    ("http://ann:1/secret@p:1", "cannot be read"),
    ("http://ann:1?secret@p:1", "cannot be read"),
    ("http://ann:1\\secret@p:1", "cannot be read"),
    ("http://ann:secret word@p:1", "cannot be read"),
    ("http://ann:secret\x01@p:1", "cannot be read"),
    ("http://ann:secrét@p:1", "cannot be read"),
]


@pytest.mark.parametrize(("value", "words"), UNUSABLE)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used_is_an_error_and_never_a_direct_call(
    name: str, value: str, words: str
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        proxy_for(URL, {name: value})
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert words in text
    assert "secret" not in text
    assert "\n" not in text


def test_a_proxy_that_is_not_asked_for_need_not_be_usable() -> None:
    environment = {"HTTPS_PROXY": P, "ALL_PROXY": "socks5://s:1"}
    assert proxy_for(URL, environment) == P
    assert proxy_for(URL, {"ALL_PROXY": "socks5://s:1", "NO_PROXY": "chatgpt.com"}) is None


_hosts: Any = st.from_regex(r"[a-z0-9.:*\[\]/_\-]{0,12}", fullmatch=True)


@given(
    environment=st.dictionaries(
        st.sampled_from([*PROXY_VARIABLES, *(name.lower() for name in PROXY_VARIABLES)]),
        st.text(max_size=12) | _hosts | st.just(P),
    ),
    host=st.sampled_from(["a.com", "10.0.0.1", "[fd00::1]", "a.com:8443"]),
)
def test_any_environment_gives_a_proxy_no_proxy_or_a_refusal(
    environment: Environment, host: str
) -> None:
    try:
        proxy = proxy_for(f"https://{host}/v1", environment)
    except ConfigInvalid:
        return
    assert proxy is None or proxy.lower().startswith(("http://", "https://"))
