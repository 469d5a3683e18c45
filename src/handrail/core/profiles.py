"""What each kind of upstream accepts: one literal row a profile, read by `rewrite`.

A profile says what is true of a kind of server, never what a caller may do (that is `policy`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"


class AddReasoning(StrEnum):
    """When `reasoning.encrypted_content` is put into `include` of a stateless call (G7)."""

    ALWAYS = "always"
    WHEN_REASONING = "when_reasoning"
    NEVER = "never"


class Auth(StrEnum):
    """How a credential is shown to an upstream: `Authorization: Bearer …`, or `api-key: …`."""

    BEARER = "bearer"
    API_KEY = "api-key"


class Knowledge(StrEnum):
    """What of the shipped catalogue of models holds at an upstream.

    WHOLE: it takes the catalogue's names and efforts and no others. ABILITIES: what a model can do,
    and what endings of its name mean; the upstream has more names, and says itself what each model
    takes. OWN: nothing; another server's models may have any name.
    """

    WHOLE = "whole"
    ABILITIES = "abilities"
    OWN = "own"


class ToolCleanUp(StrEnum):
    """What is put right in `tools`: nothing, functions of the older API's shape, or all.

    All is their JSON schemas too, and what the model or its mode cannot use is left out.
    """

    NEVER = "never"
    SHAPE = "shape"
    ALL = "all"


class Endpoint(StrEnum):
    """What some upstreams have beside create, named by the last segment of its path.

    Each is one JSON body in and one out: never a stream, never run in the background, never kept.
    """

    COMPACT = "compact"
    INPUT_TOKENS = "input_tokens"

    @property
    def path(self) -> str:
        """Where it is, below the base URL."""
        return f"/responses/{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The rule table of one upstream kind.

    `takes`: the only fields that may leave, None where unknown fields are welcome. `drops`: fields
    the server answers with a 400 although leaving them out does no harm. `refuses`: fields that
    cannot be left out without changing what was asked, so the caller gets the 400 from us.
    `runs_background`: the server can keep and run background responses itself. `translates`: fields
    of the older API, and what they are called here. `headers`: request headers of the caller that
    may go along, by exact name or `prefix-*`. `endpoints`: what the upstream has beside create; a
    call to another one is not sent. `lists_only`: it has no route for one model, only the list.
    `knowledge`: what of the shipped catalogue of models holds there. `needs_credential`: it takes
    no call without one; `auth`: how it is shown.
    `clean_tools`: what is put right in `tools`. `keep_seconds`: how long a connection that is not
    used is kept open.
    """

    name: str
    base_url: str | None
    takes: frozenset[str] | None = None
    drops: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    always_streams: bool = False
    runs_background: bool = False
    list_input: bool = False
    strips_ids: bool = True
    add_reasoning: AddReasoning = AddReasoning.NEVER
    completes: bool = False
    translates: Mapping[str, str] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    endpoints: frozenset[Endpoint] = frozenset()
    lists_only: bool = False
    knowledge: Knowledge = Knowledge.OWN
    needs_credential: bool = True
    auth: Auth = Auth.BEARER
    clean_tools: ToolCleanUp = ToolCleanUp.SHAPE
    keep_seconds: float = 15.0


_OLDER: Final = MappingProxyType(
    {"max_completion_tokens": "max_output_tokens", "max_tokens": "max_output_tokens"}
)

OPENAI: Final = Profile(
    name="openai",
    base_url="https://api.openai.com/v1",
    runs_background=True,
    add_reasoning=AddReasoning.WHEN_REASONING,
    translates=_OLDER,
    headers=("openai-beta", "x-client-request-id"),
    endpoints=frozenset({Endpoint.COMPACT, Endpoint.INPUT_TOKENS}),
    knowledge=Knowledge.ABILITIES,
)

# The ChatGPT Codex backend: `store` must be an explicit false, `stream` true, `input` a list, and
# it answers `{"detail": "Unsupported parameter: X"}` to sampling and limit fields
# (openai/codex#26173; the request that Codex CLI 0.169 itself sends has none of these).
CODEX: Final = Profile(
    name="codex",
    base_url="https://chatgpt.com/backend-api/codex",
    drops=frozenset(
        {
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
        }
    ),
    refuses=frozenset({"prompt"}),
    always_streams=True,
    list_input=True,
    add_reasoning=AddReasoning.ALWAYS,
    clean_tools=ToolCleanUp.ALL,
    headers=(
        "openai-beta",
        "originator",
        "session-id",
        "session_id",
        "thread-id",
        "conversation_id",
        "version",
        "x-client-request-id",
        "x-codex-*",
    ),
    endpoints=frozenset({Endpoint.COMPACT}),
    lists_only=True,
    knowledge=Knowledge.WHOLE,
)

# Azure OpenAI, at a resource's v1 address or at the older one with an `api-version`. `model` is the
# name of a deployment. Experimental: held against Azure's own server library, not the service.
AZURE: Final = Profile(
    name="azure",
    base_url=None,
    runs_background=True,
    add_reasoning=AddReasoning.WHEN_REASONING,
    translates=_OLDER,
    headers=("x-client-request-id", "x-ms-client-request-id"),
    knowledge=Knowledge.ABILITIES,
    auth=Auth.API_KEY,
)

# Servers that speak the protocol in part (transformers, llama.cpp, vLLM). transformers answers 422
# to any field outside the SDK's own parameter list, so only what all of them take goes out. Item
# ids stay: these servers look nothing up by id, and vLLM validates input against SDK types in
# which `id` is required on assistant messages and reasoning items.
COMPATIBLE: Final = Profile(
    name="compatible",
    base_url=None,
    takes=frozenset(
        {
            "include",
            "input",
            "instructions",
            "max_output_tokens",
            "metadata",
            "model",
            "parallel_tool_calls",
            "reasoning",
            "service_tier",
            "store",
            "stream",
            "stream_options",
            "temperature",
            "text",
            "tool_choice",
            "tools",
            "top_logprobs",
            "top_p",
            "truncation",
            "user",
        }
    ),
    refuses=frozenset({"prompt"}),
    strips_ids=False,
    completes=True,
    clean_tools=ToolCleanUp.NEVER,
    translates=_OLDER,
    needs_credential=False,
    # uvicorn-based servers close theirs after 5 s, and a request on a connection that is just being
    # closed is lost.
    keep_seconds=4.0,
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {profile.name: profile for profile in (OPENAI, CODEX, AZURE, COMPATIBLE)}
)
