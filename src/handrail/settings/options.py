"""The literal table of all settings: the loader, `config explain` and the docs are held to it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from handrail.core.fast_session import MAX_ITEMS, MIN_ITEMS, NO_FAST_SESSION, FastPolicy, Strategy
from handrail.core.policy import (
    BackgroundPolicy,
    CallerPolicy,
    Executor,
    StoreFalsePolicy,
    StorePolicy,
)
from handrail.core.profiles import PROFILES, AddReasoning, ToolCleanUp
from handrail.core.switch import SWITCH_VARIABLES
from handrail.errors import ConfigInvalid

CALLER_KEY_VARIABLE: Final = "HANDRAIL_CALLER_KEY"
API_KEY_VARIABLE: Final = "HANDRAIL_UPSTREAM_API_KEY"
OPENAI_KEY_VARIABLE: Final = "OPENAI_API_KEY"
FILE_VARIABLE: Final = "HANDRAIL_CONFIG"

Reader = Callable[[Any, str], Any]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigInvalid(f"{name}: must be a text that is not empty.")
    return value.strip()


def _path(value: Any, name: str) -> Path:
    return Path(_text(value, name)).expanduser()


def _texts(value: Any, name: str) -> tuple[str, ...]:
    entries = [part for part in value.split(",") if part] if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(
        isinstance(entry, str) and entry.strip() for entry in entries
    ):
        raise ConfigInvalid(f"{name}: must be a list of texts that are not empty.")
    return tuple(entry.strip() for entry in entries)


def _integer(low: int, high: int) -> Reader:
    def read(value: Any, name: str) -> int:
        if isinstance(value, str):
            value = int(value) if _DIGITS.fullmatch(value.strip()) else None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigInvalid(f"{name}: must be a whole number from {low} to {high}.")
        return value

    return read


# Bounded, because Python refuses to read an integer of thousands of digits.
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_DURATION: Final = re.compile(r"([0-9]{1,12})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _duration(low: int, high: int) -> Reader:
    def read(value: Any, name: str) -> int:
        found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is not None:
            value = int(found[1]) * _UNITS[found[2]]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigInvalid(
                f'{name}: must be a duration such as "90s", "15m", "24h" or "7d", '
                f"from {low} to {high} seconds."
            )
        return value

    return read


def _word(*words: str) -> Reader:
    def read(value: Any, name: str) -> str:
        if value not in words:
            raise ConfigInvalid(f"{name}: must be one of {', '.join(words)}.")
        return str(value)

    return read


def _boolean(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigInvalid(f"{name}: must be true or false.")
    return value


def _chains(value: Any, name: str) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise ConfigInvalid(f'{name}: must be a table such as "model" = ["another", "a third"].')
    return MappingProxyType(
        {model: _texts(chain, f"{name}.{model}") for model, chain in value.items()}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting: its place in the file, its other names, its default and how it is read."""

    path: str
    read: Reader
    default: Any
    meaning: str
    variable: str | None = None
    flag: str | None = None


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        path="server.host",
        variable="HANDRAIL_HOST",
        flag="--host",
        read=_text,
        default="127.0.0.1",
        meaning="Address to listen on.",
    ),
    Option(
        path="server.port",
        variable="HANDRAIL_PORT",
        flag="--port",
        read=_integer(0, 65_535),
        default=8787,
        meaning="Port to listen on; 0 takes a free one.",
    ),
    Option(
        path="server.allowed_hosts",
        read=_texts,
        default=(),
        meaning="Further names that a Host header may have; loopback names and the bound address "
        "always may.",
    ),
    Option(
        path="server.max_body_bytes",
        read=_integer(1_024, 1 << 30),
        default=32 << 20,
        meaning="Largest request body, after decompression.",
    ),
    Option(
        path="server.max_connections",
        read=_integer(1, 100_000),
        default=2_000,
        meaning="Most client connections at once; one more gets a 503.",
    ),
    Option(
        path="server.drain",
        read=_duration(0, 3_600),
        default=20,
        meaning="How long streams and runs may go on after SIGTERM.",
    ),
    Option(
        path="server.heartbeat",
        read=_duration(1, 3_600),
        default=15,
        meaning="How long a stream may be silent before its reader gets a sign of life.",
    ),
    Option(
        path="log.level",
        variable="HANDRAIL_LOG_LEVEL",
        flag="--log-level",
        read=_word("debug", "info", "warning", "error"),
        default="info",
        meaning="What is logged: debug adds a line a request and the steps of its rewriting.",
    ),
    Option(
        path="data_dir",
        variable="HANDRAIL_DATA_DIR",
        flag="--data-dir",
        read=_path,
        default=None,
        meaning="Directory of the run store and the generated keys; by default the user's data "
        "directory.",
    ),
    Option(
        path="upstream.url",
        variable="HANDRAIL_UPSTREAM_URL",
        flag="--upstream",
        read=_text,
        default=None,
        meaning="Base URL, as an SDK would take it; only /responses, what is below that, and "
        "/models are appended. By default the profile's own.",
    ),
    Option(
        path="upstream.profile",
        variable="HANDRAIL_UPSTREAM_PROFILE",
        flag="--profile",
        read=_word(*PROFILES),
        default="openai",
        meaning="What kind of server it is: openai, codex or compatible.",
    ),
    Option(
        path="upstream.api_key_env",
        read=_text,
        default=None,
        meaning="Name of the variable that holds the credential, if not "
        f"{API_KEY_VARIABLE} (which wins) or, for the profile openai, OPENAI_API_KEY.",
    ),
    Option(
        path="upstream.runs_background",
        read=_boolean,
        default=None,
        meaning="Whether the upstream can keep and run background responses itself. The profile "
        "openai can, codex cannot; of compatible servers vLLM can, with its own store switched on.",
    ),
    Option(
        path="upstream.encrypted_reasoning",
        read=_word(*AddReasoning),
        default=None,
        meaning="When reasoning.encrypted_content is added to include: always, when_reasoning "
        "(the body has reasoning) or never. By default codex always, openai when_reasoning, "
        "compatible never.",
    ),
    Option(
        path="upstream.clean_tools",
        read=_word(*ToolCleanUp),
        default=None,
        meaning="What is put right in tools: never anything, the shape of functions that have the "
        "older API's, or all, with their schemas and what the model cannot use. By default codex "
        "all, openai shape, compatible never.",
    ),
    Option(
        path="upstream.model_fallbacks",
        read=_chains,
        default=MappingProxyType({}),
        meaning="By model, the models to try in turn when the upstream does not serve it to this "
        "account. Without an entry the caller gets the upstream's refusal.",
    ),
    Option(
        path="upstream.extra_fields",
        read=_texts,
        default=(),
        meaning="Further request fields that a server of the profile compatible takes.",
    ),
    Option(
        path="upstream.reply_timeout",
        read=_duration(1, 86_400),
        default=600,
        meaning="How long to wait for the headers of an upstream reply.",
    ),
    Option(
        path="upstream.idle_timeout",
        read=_duration(1, 86_400),
        default=300,
        meaning="How long an upstream stream may be silent.",
    ),
    Option(
        path="fast_session.strategy",
        read=_word(*Strategy),
        default=Strategy.OFF,
        meaning="Which requests are trimmed: none (off), those whose last turn is not complex "
        "(hybrid), or all (always). Never background responses, and never without this setting.",
    ),
    Option(
        path="fast_session.max_input_items",
        read=_integer(MIN_ITEMS, MAX_ITEMS),
        default=NO_FAST_SESSION.max_items,
        meaning="How many input items are left after trimming, about.",
    ),
    Option(
        path="fast_session.drop_tools",
        read=_boolean,
        default=False,
        meaning="Whether a turn of one short line goes without tools.",
    ),
    Option(
        path="fast_session.cut_instructions",
        read=_boolean,
        default=False,
        meaning="Whether instructions are cut to 900 characters, or to 320 in a turn of one short "
        "line.",
    ),
    Option(
        path="fast_session.compact_timeout",
        read=_duration(0, 600),
        default=0,
        meaning="How long the upstream's compact endpoint may take to put in short what would be "
        "left out; 0 never asks it. Each time is one more call.",
    ),
    Option(
        path="background.enabled",
        variable=SWITCH_VARIABLES[0],
        flag="--background/--no-background",
        read=_boolean,
        default=False,
        meaning="Whether background responses are accepted. Off by flag or variable is a lock "
        f"that no caller's policy lifts. {SWITCH_VARIABLES[1]} is read too; the file may also "
        "say backgroundResponses, as the reference implementation's does.",
    ),
    Option(
        path="background.max_running",
        read=_integer(1, 10_000),
        default=16,
        meaning="Most background responses under way at once, of all callers.",
    ),
    Option(
        path="background.max_queued",
        read=_integer(0, 1_000_000),
        default=1_000,
        meaning="Most background responses waiting, of all callers; one more gets a 429.",
    ),
    Option(
        path="background.executor",
        read=_word(*Executor),
        default=Executor.GATEWAY,
        meaning="Who runs background responses: gateway (over a stateless upstream call), or "
        "upstream (which then stores them; only for servers that can).",
    ),
    Option(
        path="background.max_duration",
        read=_duration(1, 7 * 86_400),
        default=6 * 3_600,
        meaning="How long one background response may take from its upstream call on.",
    ),
    Option(
        path="background.max_output_bytes",
        read=_integer(1_024, 1 << 32),
        default=64 << 20,
        meaning="Most bytes of events that one background response may produce.",
    ),
)

_POLICY: Final = CallerPolicy(name="")

CALLER_OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        path="key_env",
        read=_text,
        default=None,
        meaning="Name of the environment variable that holds the caller's key.",
    ),
    Option(
        path="key_sha256",
        read=_text,
        default=None,
        meaning="SHA-256 of the caller's key, as 64 hexadecimal digits.",
    ),
    Option(
        path="background",
        read=_word(*BackgroundPolicy),
        default=_POLICY.background,
        meaning="inherit the switch, allow (lifts an off that is no lock), or deny.",
    ),
    Option(
        path="store",
        read=_word(*StorePolicy),
        default=_POLICY.store,
        meaning="What becomes of store:true without background: lower it to false, or refuse it.",
    ),
    Option(
        path="store_false",
        read=_word(*StoreFalsePolicy),
        default=_POLICY.store_false,
        meaning="What becomes of background with store:false: reject it, or run it on the gateway "
        "and keep it for the polling window (10 minutes) only.",
    ),
    Option(
        path="fast_session",
        read=_word(*FastPolicy),
        default=_POLICY.fast_session,
        meaning="inherit fast_session.strategy, or one of its own: off, hybrid, always.",
    ),
    Option(
        path="max_running",
        read=_integer(0, 10_000),
        default=_POLICY.max_running,
        meaning="Most background responses of this caller under way at once.",
    ),
    Option(
        path="max_queued",
        read=_integer(0, 1_000_000),
        default=_POLICY.max_queued,
        meaning="Most background responses of this caller waiting.",
    ),
    Option(
        path="retention",
        read=_duration(1, 366 * 86_400),
        default=_POLICY.retention_seconds,
        meaning="How long a background response is kept after its end.",
    ),
)
