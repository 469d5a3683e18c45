"""Which paths may be passed through, and which never."""

import pytest

from handrail.core.passing import is_entry, listed, passable

EVERYTHING = ("/*",)


@pytest.mark.parametrize(
    ("path", "entries", "is_listed"),
    [
        ("/embeddings", ("/embeddings",), True),
        ("/embeddings/x", ("/embeddings",), False),
        ("/files", ("/files/*",), False),
        ("/files/f-1/content", ("/files/*",), True),
        ("/filesystem", ("/files/*",), False),
        ("/files/f-1", ("/chat/completions", "/files/*"), True),
        ("/anything/at/all", EVERYTHING, True),
        ("/anything", (), False),
    ],
)
def test_the_list_decides(path: str, entries: tuple[str, ...], *, is_listed: bool) -> None:
    assert listed(path, entries) is is_listed


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "files",
        "//files",
        "/files/",
        "/files//x",
        "/./files",
        "/files/../x",
        "/files/...",
        "/files/%2e%2e/x",
        "/files?x",
        "/files#x",
        "/fi les",
        "/files\n",
        "/fil\u00e9s",
        "/files;x",
        "/files\\x",
        "/" + "x" * 129,
        "/x" * 9,
        "/responses",
        "/Responses",
        "/responses/r_1",
        "/v1/responses",
        "/responses.",
        "/x/RESPONSES/compact",
        "/models",
        "/models/gpt-5",
    ],
)
def test_what_a_server_might_read_otherwise_is_never_passed_through(path: str) -> None:
    assert not passable(path)
    assert not listed(path, (*EVERYTHING, path, f"{path}/*"))


@pytest.mark.parametrize("text", ["/*", "/files/*", "/files", "/audio/speech", "/a.b~c:d@e+f-g"])
def test_a_list_has_paths_and_what_is_below_them(text: str) -> None:
    assert is_entry(text)


@pytest.mark.parametrize(
    "text", ["", "*", "files", "/files/", "/fi*", "/*/x", "/responses/*", "//*"]
)
def test_nothing_else_stands_in_a_list(text: str) -> None:
    assert not is_entry(text)
