"""The rule tables of the upstream kinds, against what those upstreams were seen to do."""

import dataclasses
from typing import Any

import pytest

from handrail.core.profiles import PROFILES, AddReasoning, Profile
from handrail.core.wire import CREATE_FIELDS

EVERY = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)

# Headers that carry a credential, an account or a cookie: never the caller's to an upstream.
CREDENTIALS = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "chatgpt-account-id",
    "openai-organization",
    "openai-project",
    "x-forwarded-for",
]


def passes(profile: Profile, header: str) -> bool:
    """Whether a request header may go along, by exact name or `prefix-*`."""
    return any(
        header.startswith(rule[:-1]) if rule.endswith("*") else header == rule
        for rule in profile.headers
    )


def test_a_profile_is_found_by_its_own_name() -> None:
    assert {name: profile.name for name, profile in PROFILES.items()} == {
        "openai": "openai",
        "codex": "codex",
        "azure": "azure",
        "compatible": "compatible",
    }


@EVERY
def test_no_credential_of_a_caller_goes_along(profile: Profile) -> None:
    assert not [header for header in CREDENTIALS if passes(profile, header)]


@EVERY
def test_header_rules_are_lower_case_and_a_star_stands_only_at_their_end(profile: Profile) -> None:
    for rule in profile.headers:
        assert rule == rule.lower()
        assert "*" not in rule[:-1]
        assert len(rule.removesuffix("*")) > 3


@EVERY
def test_a_field_is_dropped_or_refused_and_what_every_call_needs_is_neither(
    profile: Profile,
) -> None:
    assert not profile.drops & profile.refuses
    needed = {"model", "input", "store", "stream", "include", "instructions", "tools"}
    assert not needed & (profile.drops | profile.refuses)
    if profile.takes is not None:
        assert needed <= profile.takes
        assert not profile.takes & profile.refuses
        assert profile.takes <= set(CREATE_FIELDS)


@EVERY
def test_a_profile_cannot_be_changed(profile: Profile) -> None:
    change: Any = setattr
    with pytest.raises(dataclasses.FrozenInstanceError):
        change(profile, "strips_ids", False)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("openai", "https://api.openai.com/v1"),
        ("codex", "https://chatgpt.com/backend-api/codex"),
        ("azure", None),
        ("compatible", None),
    ],
)
def test_the_base_url_is_the_one_that_the_api_documents(name: str, url: str | None) -> None:
    assert PROFILES[name].base_url == url


def test_openai_takes_unknown_fields_and_reasons_only_for_models_that_do() -> None:
    openai = PROFILES["openai"]
    assert (openai.takes, openai.drops, openai.refuses) == (None, frozenset(), frozenset())
    assert openai.add_reasoning is AddReasoning.WHEN_REASONING
    assert openai.strips_ids
    assert {openai.always_streams, openai.list_input, openai.completes} == {False}


def test_the_codex_backend_only_streams_lists_and_always_wants_encrypted_reasoning() -> None:
    codex = PROFILES["codex"]
    assert codex.always_streams
    assert codex.list_input
    assert codex.strips_ids
    assert codex.add_reasoning is AddReasoning.ALWAYS
    assert codex.takes is None
    assert [name for name, profile in PROFILES.items() if profile.lists_only] == ["codex"]


# Seen refused there as "Unsupported parameter", or never sent by its own client.
@pytest.mark.parametrize(
    "field",
    [
        "max_output_tokens",
        "max_completion_tokens",
        "max_tokens",
        "max_tool_calls",
        "metadata",
        "moderation",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "temperature",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ],
)
def test_sampling_and_limit_fields_do_not_reach_the_codex_backend(field: str) -> None:
    assert field in PROFILES["codex"].drops


# The whole body of the real CLI.
@pytest.mark.parametrize(
    "field",
    [
        "client_metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning",
        "service_tier",
        "stream_options",
        "text",
        "tool_choice",
    ],
)
def test_everything_that_the_real_cli_sends_reaches_the_codex_backend(field: str) -> None:
    codex = PROFILES["codex"]
    assert field not in codex.drops | codex.refuses


@pytest.mark.parametrize(
    "header", ["session-id", "thread-id", "originator", "x-codex-turn-state", "x-codex-window-id"]
)
def test_what_keeps_a_session_together_goes_along_to_the_codex_backend(header: str) -> None:
    assert passes(PROFILES["codex"], header)
    assert not passes(PROFILES["compatible"], header)


def test_compatible_servers_get_a_closed_list_and_their_events_are_completed() -> None:
    compatible = PROFILES["compatible"]
    assert compatible.takes is not None
    assert "client_metadata" not in compatible.takes
    assert "background" not in compatible.takes
    assert compatible.completes
    assert not compatible.strips_ids
    assert compatible.add_reasoning is AddReasoning.NEVER
