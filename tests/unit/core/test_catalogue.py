"""What is known about a name, at each kind of upstream, shipped and said by the operator."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.catalogue import (
    NO_OPTIONS,
    NOTHING_KNOWN,
    AmbiguousAlias,
    Capability,
    Catalogue,
    Entry,
    Options,
    Variant,
    catalogue_for,
)
from handrail.core.profiles import CODEX, COMPATIBLE, OPENAI

SHIPPED: dict[str, Any] = {
    "m-2-codex": {
        "family": "codex",
        "aliases": ["m-1-codex", "m-1-codex-max", "old_codex"],
        "default_effort": "high",
        "efforts": ["low", "high"],
        "capabilities": ["reasoning"],
    },
    "m-2": {"family": "two", "efforts": ["none", "high"], "capabilities": ["reasoning"]},
    "m-chat": {"capabilities": [], "upstream": {"codex": "m-2"}},
    "m-gone": {"disabled": True},
}


def entries(tables: dict[str, Any]) -> dict[str, Entry]:
    return {name: msgspec.convert(table, Entry) for name, table in tables.items()}


def catalogue(
    own: dict[str, Any] | None = None, *, profile: str = "codex", **defaults: Any
) -> Catalogue:
    """The catalogue at an upstream of a profile, with these tables of the operator's."""
    kinds = {"codex": CODEX, "openai": OPENAI, "compatible": COMPATIBLE}
    return catalogue_for(
        kinds[profile],
        shipped=lambda: entries(SHIPPED),
        own=entries(own or {}),
        defaults=Options(**defaults),
    )


def sent(name: str, *args: Any, **options: Any) -> tuple[str, str | None] | None:
    """The name that leaves and the effort that the caller's name says; None for an unknown one."""
    found = catalogue(*args, **options).find(name)
    return None if found is None else (found.sends, found.effort)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("m-2-codex", ("m-2-codex", None)),
        ("m-1-codex", ("m-2-codex", None)),
        ("m-1-codex-max", ("m-2-codex", None)),
        ("m-1-codex-max-max", ("m-2-codex", "max")),
        ("m-1-codex-low", ("m-2-codex", "low")),
        ("old_codex-ultra", ("m-2-codex", "ultra")),
        ("m-2-max", ("m-2", "max")),
        ("m-2-none", ("m-2", "none")),
        ("m-chat", ("m-2", None)),
        ("m-chat-high", ("m-2", "high")),
        ("M-2-HIGH", ("m-2", "high")),
        (" openai/m-2-high ", ("m-2", "high")),
        ("OpenAI/M-1-Codex", ("m-2-codex", None)),
        ("m-2-2026-04-23", ("m-2-2026-04-23", None)),
        ("m-2-2026-04-23-high", ("m-2-2026-04-23", "high")),
        # A name that only resembles one is unknown.
        ("m-2-codex-max", None),
        ("M-2-CODEX-MAX", None),
        ("m-2-", None),
        ("-high", None),
        ("high", None),
        ("m-2-very", None),
        ("m-2-high-high", None),
        ("m-2-2026-04", None),
        ("m-2-2026-04-23x", None),
        ("m-2-2026-04-23-2026-04-23", None),
        ("azure/m-2", None),
        ("openai/openai/m-2", None),
        ("m-3", None),
        ("m", None),
        ("m-gone", None),
        ("", None),
        ("/", None),
    ],
)
def test_the_codex_backend_gets_the_catalogues_names(
    name: str, wanted: tuple[str, str | None] | None
) -> None:
    assert sent(name) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("m-2-codex", ("m-2-codex", None)),
        ("m-1-codex", ("m-1-codex", None)),
        ("m-1-codex-max", ("m-1-codex-max", None)),
        ("m-1-codex-high", ("m-1-codex", "high")),
        ("m-chat", ("m-chat", None)),
        ("m-2-2026-04-23", ("m-2-2026-04-23", None)),
        # Another spelling may be another model there.
        ("M-2", None),
        ("m-2-HIGH", None),
        (" m-2", None),
        ("openai/m-2", None),
        ("m-gone", None),
    ],
)
def test_elsewhere_an_alias_is_a_model_of_its_own_and_only_the_ending_is_read(
    name: str, wanted: tuple[str, str | None] | None
) -> None:
    assert sent(name, profile="openai") == wanted


def test_elsewhere_a_model_can_what_it_can_and_says_itself_what_it_takes() -> None:
    found = catalogue(profile="openai").find("m-1-codex")
    assert found is not None
    assert found.entry == Entry(family="codex", capabilities=frozenset({Capability.REASONING}))
    chat = catalogue(profile="openai").find("m-chat")
    assert chat is not None
    assert not chat.entry.can(Capability.REASONING)


@pytest.mark.parametrize("name", ["m-2", "m-2-high", "m-1-codex", "anything"])
def test_a_server_of_another_kind_has_models_of_its_own(name: str) -> None:
    assert sent(name, profile="compatible") is None

    def unread() -> Any:
        raise AssertionError

    nothing = catalogue_for(COMPATIBLE, shipped=unread, own={}, defaults=NO_OPTIONS)
    assert nothing == NOTHING_KNOWN


# --- what the operator says ---------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["codex", "openai", "compatible"])
def test_an_operators_model_is_known_everywhere(profile: str) -> None:
    own = {"mine": {"aliases": ["main"], "upstream": {profile: "their-name"}}}
    assert sent("mine", own, profile=profile) == ("their-name", None)
    assert sent("main", own, profile=profile) == ("their-name", None)
    assert sent("main-low", own, profile=profile) == ("their-name", "low")
    other = {"mine": {"upstream": {"azure": "their-name"}}}
    assert sent("mine", other, profile=profile) == ("mine", None)


def test_a_variant_belongs_to_the_operators_name_and_not_to_what_is_sent() -> None:
    own = {"mine": {"upstream": {"codex": "m-2"}, "variants": {"fast": {"verbosity": "low"}}}}
    assert sent("mine-fast", own) == ("m-2", None)
    assert sent("m-2-fast", own) is None


def test_an_operators_name_is_known_as_it_is_written() -> None:
    own: dict[str, Any] = {"My-Model": {}}
    assert sent("My-Model", own) == ("My-Model", None)
    assert sent("My-Model-low", own) == ("My-Model", "low")
    assert sent("my-model", own) is None


def test_a_table_completes_what_is_known_about_the_name() -> None:
    found = catalogue({"m-1-codex": {"effort": "low", "family": "mine"}}).find("m-1-codex")
    assert found is not None
    assert found.sends == "m-2-codex"
    assert (found.entry.family, found.entry.efforts) == ("mine", ("low", "high"))
    assert found.entry.default_effort == "high"
    assert found.options.effort == "low"
    other = catalogue({"m-1-codex": {"effort": "low"}}).find("m-2-codex")
    assert other is not None
    assert other.options.effort is None


def test_a_table_for_a_name_with_an_ending_has_the_endings_effort_unless_it_says_another() -> None:
    for table, effort in (({}, "low"), ({"effort": "high"}, "high")):
        found = catalogue({"m-1-codex-low": table}).find("m-1-codex-low")
        assert found is not None
        assert (found.sends, found.options.effort, found.effort) == ("m-2-codex", effort, None)


def test_what_is_known_comes_from_the_upstreams_name_first() -> None:
    own = {"m-2": {"upstream": {"codex": "m-1-codex"}}}
    found = catalogue(own).find("m-2")
    assert found is not None
    assert found.sends == "m-1-codex"
    assert found.entry.efforts == ("low", "high")
    unknown = catalogue({"m-2": {"upstream": {"codex": "deployment"}}}).find("m-2")
    assert unknown is not None
    assert unknown.entry.efforts == ("none", "high")


def test_an_operators_name_may_be_what_was_an_alias_or_a_model() -> None:
    own: dict[str, Any] = {"mine": {"aliases": ["m-2", "m-1-codex"]}, "old_codex": {}}
    assert sent("m-2", own) == ("mine", None)
    assert sent("m-1-codex-high", own) == ("mine", "high")
    assert sent("old_codex", own) == ("m-2-codex", None)
    assert "old_codex" not in catalogue(own).aliases


def test_a_disabled_table_makes_the_name_unknown() -> None:
    own = {"m-2-codex": {"disabled": True, "aliases": ["x"]}, "m-chat": {"disabled": True}}
    for name in ("m-2-codex", "m-1-codex", "old_codex-low", "m-chat", "x"):
        assert sent(name, own) is None
    assert sent("m-2", own) == ("m-2", None)
    alone = {"m-1-codex": {"disabled": True}}
    assert sent("m-1-codex", alone) is None
    assert sent("m-2-codex", alone) == ("m-2-codex", None)


@pytest.mark.parametrize(
    "own",
    [
        {"a": {"aliases": ["x"]}, "b": {"aliases": ["x"]}},
        {"a": {"aliases": ["b"]}, "b": {}},
    ],
)
def test_an_alias_means_one_model(own: dict[str, Any]) -> None:
    with pytest.raises(AmbiguousAlias) as caught:
        catalogue(own)
    alias, other = ("x", "a") if "aliases" in own["b"] else ("b", "b")
    name = "b" if alias == "x" else "a"
    assert str(caught.value) == f"'{alias}' cannot mean both '{other}' and '{name}'."


@pytest.mark.parametrize(
    "own",
    [
        {"a": {"aliases": ["x", "x"]}},
        {"a": {"aliases": ["a"]}},
        {"a": {"aliases": ["b"]}, "b": {"disabled": True}},
        {"a": {"aliases": ["x"], "disabled": True}, "b": {"aliases": ["x"]}},
    ],
)
def test_what_is_disabled_or_said_twice_is_not_ambiguous(own: dict[str, Any]) -> None:
    catalogue(own)


# --- options ------------------------------------------------------------------------------------

LAYERED = {
    "m-2": {
        "effort": "high",
        "verbosity": "low",
        "variants": {
            "low": {"effort": "none", "verbosity": "high"},
            "fast": {"summary": "concise", "include": ["a"]},
            "off": {"effort": "low", "verbosity": "high", "disabled": True},
            "xhigh": {"verbosity": "high", "disabled": True},
        },
    }
}


@pytest.mark.parametrize(
    ("name", "effort", "options"),
    [
        ("m-2", None, {"effort": "high", "verbosity": "low", "summary": "auto"}),
        ("m-2-low", None, {"effort": "none", "verbosity": "high", "summary": "auto"}),
        ("m-2-max", "max", {"effort": "high", "verbosity": "low", "summary": "auto"}),
        (
            "m-2-fast",
            None,
            {"effort": "high", "verbosity": "low", "summary": "concise", "include": ("a",)},
        ),
        ("m-2-off", None, {"effort": "high", "verbosity": "low", "summary": "auto"}),
        ("m-2-xhigh", "xhigh", {"effort": "high", "verbosity": "low", "summary": "auto"}),
        ("m-2-codex", None, {"effort": "medium", "verbosity": "medium", "summary": "auto"}),
    ],
)
def test_a_variant_comes_before_its_model_and_that_before_the_defaults(
    name: str, effort: str | None, options: dict[str, Any]
) -> None:
    found = catalogue(LAYERED, effort="medium", verbosity="medium", summary="auto").find(name)
    assert found is not None
    assert found.effort == effort
    assert found.options == msgspec.convert(options, Options)


def test_a_default_asks_no_model_to_reason_that_is_not_known_to() -> None:
    own: dict[str, Any] = {
        "plain": {},
        "told": {"effort": "low", "variants": {"x": {"summary": "auto"}}},
    }
    found = catalogue(own, effort="high", summary="auto", verbosity="low").find("plain")
    assert found is not None
    assert found.options == Options(verbosity="low")
    told = catalogue(own, effort="high", summary="detailed").find("told-x")
    assert told is not None
    assert told.options == msgspec.convert({"effort": "low", "summary": "auto"}, Options)


def test_what_is_said_of_a_model_itself_holds_whether_or_not_it_reasons() -> None:
    table = {"effort": "low", "summary": "concise", "variants": {"x": {"effort": "high"}}}
    found = catalogue({"plain": table}).find("plain-x")
    assert found is not None
    assert found.options == msgspec.convert({"effort": "high", "summary": "concise"}, Options)


def test_an_empty_include_is_said_and_not_unsaid() -> None:
    own: dict[str, Any] = {"m-2": {"include": []}}
    found = catalogue(own, include=("a",)).find("m-2")
    assert found is not None
    assert found.options.include == ()


WORDS = {
    "effort": "none minimal low medium high xhigh max ultra",
    "summary": "auto concise detailed",
    "verbosity": "low medium high",
    "prompt_cache_retention": "in_memory 24h",
    "capabilities": "reasoning tool_search computer_use compaction background",
}


@pytest.mark.parametrize("key", WORDS)
def test_a_key_takes_its_words_and_no_others(key: str) -> None:
    for word in WORDS[key].split():
        value = [word] if key == "capabilities" else word
        assert word in str(getattr(msgspec.convert({key: value}, Entry), key))
    for wrong in ("", "other", "HIGH"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({key: [wrong] if key == "capabilities" else wrong}, Entry)


@pytest.mark.parametrize("kind", [Options, Variant, Entry])
def test_a_table_is_frozen_strict_and_says_only_what_is_said(kind: type[Options]) -> None:
    said = msgspec.convert({"effort": "low"}, kind)
    assert msgspec.to_builtins(said) == {"effort": "low"}
    with pytest.raises(AttributeError):
        said.effort = None  # type: ignore[misc]
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"efort": "low"}, kind)
    with pytest.raises(TypeError):
        kind("low")  # type: ignore[call-arg, arg-type]


def test_ultra_needs_max_to_be_sent_as() -> None:
    with pytest.raises(msgspec.ValidationError, match="'ultra' is sent as 'max'"):
        msgspec.convert({"efforts": ["ultra"]}, Entry)
    assert msgspec.convert({"efforts": ["ultra", "max"]}, Entry).efforts == ("ultra", "max")


NAMES = st.text(max_size=12) | st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "openai/", "OPENAI/", " "]),
    st.sampled_from(["m-2", "m-1-codex", "M-CHAT", "m-2-codex", "mine"]),
    st.sampled_from(["", "-high", "-max", "-fast", "-2026-04-23", "-", "x", " "]),
)


@pytest.mark.parametrize("profile", ["codex", "openai", "compatible"])
@given(name=NAMES)
def test_any_name_is_known_or_not_and_what_is_sent_is_sent_again(profile: str, name: str) -> None:
    known = catalogue(LAYERED, profile=profile)
    found = known.find(name)
    if found is None:
        return
    again = known.find(found.sends)
    assert again is not None
    assert again.sends == found.sends
    if profile != "codex":
        assert name.startswith(found.sends)
