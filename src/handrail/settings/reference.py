"""The settings of the reference implementation (codex-multi-auth 2.8.7), and what each becomes.

A literal table: every field of its settings file with its environment variable, how it is read
there, and either the setting of ours that it becomes or why it has none.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from handrail.core.switch import parse_boolean
from handrail.errors import ConfigInvalid


class Unreadable(Exception):
    """A value that the field cannot have; the message says what it may be."""


Read = Callable[[Any], Any]
"""From a value of the file, or the text of a variable, to the value. Raises Unreadable."""

Converted = tuple[Any, str]
"""What is written for a value, and what is changed about it; "" for nothing."""


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        try:
            read = parse_boolean(value, name="")
        except ConfigInvalid:
            read = None
    else:
        read = value if isinstance(value, bool) else None
    if read is None:
        raise Unreadable("must be true or false")
    return read


_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


def _number(low: float = 0) -> Read:
    """A number; like the reference, one of a variable that is too small becomes the smallest."""

    def read(value: Any) -> float:
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value.strip()):
                raise Unreadable("must be a number")
            return max(low, _whole(float(value)))
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise Unreadable("must be a number")
        if value < low:
            raise Unreadable(f"must be at least {low:g}")
        return value

    return read


def _whole(value: float) -> float:
    return int(value) if value.is_integer() else value


def _word(*words: str) -> Read:
    def read(value: Any) -> str:
        word = value.strip().lower() if isinstance(value, str) else value
        if word not in words:
            raise Unreadable(f"must be one of {', '.join(words)}")
        return str(word)

    return read


def _chains(value: Any) -> Mapping[str, list[str]]:
    def is_chain(chain: Any) -> bool:
        return isinstance(chain, list) and all(map(_is_name, chain))

    if not isinstance(value, dict) or not all(
        _is_name(model) and is_chain(chain) for model, chain in value.items()
    ):
        raise Unreadable("must be a table of lists of names")
    return value


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _anything(value: Any) -> Any:
    return value


def _as_it_is(value: Any) -> Converted:
    return value, ""


def _seconds(value: Any) -> Converted:
    seconds = min(max(math.ceil(value / 1_000), 1), 86_400)
    return seconds, "" if seconds * 1_000 == value else "in whole seconds, from 1 to 86400"


def _strategy(value: Any) -> Converted:
    sequential = value == "sequential"
    return ("drain_first", "the first by name is drained first") if sequential else (value, "")


def _items(value: Any) -> Converted:
    count = min(int(value), 200)
    return count, "" if count == value else "a whole number of at most 200"


def _level(value: Any) -> Converted:
    return ("warning", "") if value == "warn" else (value, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: its variable, how it is read, and the path of our setting or why there is none.

    A field that only the environment has is named by its variable.
    """

    name: str
    variable: str | None
    read: Read = _anything
    setting: str | None = None
    convert: Callable[[Any], Converted] = _as_it_is
    reason: str = ""


_WAITING: Final = "background responses wait for a free account; other callers are told when"
_PROJECTS: Final = "accounts are for all projects; a request may demand one by handrail-account"
_PROBING: Final = "an account is chosen by what is known of it, and none is asked only to see"
_SHARED: Final = "processes share one file of accounts and notice within a second what changes"
_AFFINITY: Final = "a conversation stays with its account for 20 minutes"
_REFRESH: Final = "a login is refreshed in good time, once an expiry, whoever asks"
_QUOTA: Final = "accounts.nearly_used_up (95 %) puts an account after the others"
_FAILOVER: Final = "failures have one rule: another account only where the call cannot have run"
_DEMANDED: Final = "the header handrail-account demands an account, handrail accounts pin pins one"
_LIMITS: Final = "the waits that the upstream names are kept, and no others"
_NO_SCREEN: Final = "Handrail has no screen of its own"
_ONCE: Final = "a create that was answered is never sent again, whatever it held"
_FALLBACKS: Final = "a model has the fallbacks that upstream.model_fallbacks names, and no others"


def _without(reason: str, read: Read, **fields: str | None) -> tuple[Field, ...]:
    """Fields that have no setting here: by name, with their variables."""
    return tuple(
        Field(name=name, variable=variable, read=read, reason=reason)
        for name, variable in fields.items()
    )


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        field.name: field
        for field in (
            Field(
                name="backgroundResponses",
                variable="CODEX_AUTH_BACKGROUND_RESPONSES",
                read=_boolean,
                setting="background.enabled",
            ),
            Field(
                name="fetchTimeoutMs",
                variable="CODEX_AUTH_FETCH_TIMEOUT_MS",
                read=_number(1_000),
                setting="upstream.reply_timeout",
                convert=_seconds,
            ),
            Field(
                name="streamStallTimeoutMs",
                variable="CODEX_AUTH_STREAM_STALL_TIMEOUT_MS",
                read=_number(1_000),
                setting="upstream.idle_timeout",
                convert=_seconds,
            ),
            Field(
                name="CODEX_PLUGIN_LOG_LEVEL",
                variable="CODEX_PLUGIN_LOG_LEVEL",
                read=_word("debug", "info", "warn", "error"),
                setting="log.level",
                convert=_level,
            ),
            Field(
                name="unsupportedCodexPolicy",
                variable="CODEX_AUTH_UNSUPPORTED_MODEL_POLICY",
                read=_word("strict", "fallback"),
                reason=_FALLBACKS,
            ),
            Field(
                name="unsupportedCodexFallbackChain",
                variable=None,
                read=_chains,
                setting="upstream.model_fallbacks",
            ),
            *_without(
                _FALLBACKS,
                _boolean,
                fallbackOnUnsupportedCodexModel="CODEX_AUTH_FALLBACK_UNSUPPORTED_MODEL",
                fallbackToGpt52OnUnsupportedGpt53="CODEX_AUTH_FALLBACK_GPT53_TO_GPT52",
            ),
            Field(
                name="fastSession",
                variable="CODEX_AUTH_FAST_SESSION",
                read=_boolean,
                setting="fast_session.strategy",
            ),
            Field(
                name="fastSessionStrategy",
                variable="CODEX_AUTH_FAST_SESSION_STRATEGY",
                read=_word("hybrid", "always"),
                setting="fast_session.strategy",
            ),
            Field(
                name="fastSessionMaxInputItems",
                variable="CODEX_AUTH_FAST_SESSION_MAX_INPUT_ITEMS",
                read=_number(8),
                setting="fast_session.max_input_items",
                convert=_items,
            ),
            *_without(
                "the caller's instructions and input leave as they were written",
                _boolean,
                codexMode="CODEX_MODE",
            ),
            *_without(
                "Handrail is that proxy: point the client's base URL at it",
                _boolean,
                codexRuntimeRotationProxy="CODEX_MULTI_AUTH_RUNTIME_ROTATION_PROXY",
            ),
            *_without(
                "previous_response_id goes to an upstream that keeps responses, and nowhere else",
                _boolean,
                responseContinuation="CODEX_AUTH_RESPONSE_CONTINUATION",
            ),
            *_without(
                "the store is a database, which backs nothing up by itself",
                _boolean,
                storageBackupEnabled="CODEX_AUTH_STORAGE_BACKUP_ENABLED",
            ),
            *_without(
                "a client keeps its own sessions",
                _boolean,
                sessionRecovery="CODEX_AUTH_SESSION_RECOVERY",
                autoResume="CODEX_AUTH_AUTO_RESUME",
            ),
            *_without(
                _NO_SCREEN,
                _anything,
                codexTuiV2="CODEX_TUI_V2",
                codexTuiColorProfile="CODEX_TUI_COLOR_PROFILE",
                codexTuiGlyphMode="CODEX_TUI_GLYPHS",
                rateLimitToastDebounceMs="CODEX_AUTH_RATE_LIMIT_TOAST_DEBOUNCE_MS",
                toastDurationMs="CODEX_AUTH_TOAST_DURATION_MS",
            ),
            *_without(
                _ONCE,
                _number(),
                emptyResponseMaxRetries="CODEX_AUTH_EMPTY_RESPONSE_MAX_RETRIES",
                emptyResponseRetryDelayMs="CODEX_AUTH_EMPTY_RESPONSE_RETRY_DELAY_MS",
            ),
            *_without(
                _LIMITS,
                _number(),
                rateLimitDedupWindowMs="CODEX_AUTH_RATE_LIMIT_DEDUP_WINDOW_MS",
                rateLimitStateResetMs="CODEX_AUTH_RATE_LIMIT_STATE_RESET_MS",
                rateLimitMaxBackoffMs="CODEX_AUTH_RATE_LIMIT_MAX_BACKOFF_MS",
                rateLimitShortRetryThresholdMs="CODEX_AUTH_RATE_LIMIT_SHORT_RETRY_THRESHOLD_MS",
            ),
            *_without(
                _WAITING, _boolean, retryAllAccountsRateLimited="CODEX_AUTH_RETRY_ALL_RATE_LIMITED"
            ),
            *_without(
                _WAITING,
                _number(),
                retryAllAccountsMaxWaitMs="CODEX_AUTH_RETRY_ALL_MAX_WAIT_MS",
                retryAllAccountsMaxRetries="CODEX_AUTH_RETRY_ALL_MAX_RETRIES",
            ),
            *_without(_PROJECTS, _boolean, perProjectAccounts="CODEX_AUTH_PER_PROJECT_ACCOUNTS"),
            *_without(_PROBING, _boolean, parallelProbing="CODEX_AUTH_PARALLEL_PROBING"),
            *_without(
                _PROBING,
                _number(),
                parallelProbingMaxConcurrency="CODEX_AUTH_PARALLEL_PROBING_MAX_CONCURRENCY",
            ),
            *_without(
                _SHARED,
                _boolean,
                pidOffsetEnabled="CODEX_AUTH_PID_OFFSET_ENABLED",
                liveAccountSync="CODEX_AUTH_LIVE_ACCOUNT_SYNC",
            ),
            *_without(
                _SHARED,
                _number(),
                liveAccountSyncDebounceMs="CODEX_AUTH_LIVE_ACCOUNT_SYNC_DEBOUNCE_MS",
                liveAccountSyncPollMs="CODEX_AUTH_LIVE_ACCOUNT_SYNC_POLL_MS",
            ),
            *_without(_SHARED, _word("enabled", "legacy"), routingMutex="CODEX_AUTH_ROUTING_MUTEX"),
            *_without(_AFFINITY, _boolean, sessionAffinity="CODEX_AUTH_SESSION_AFFINITY"),
            *_without(
                _AFFINITY,
                _number(),
                sessionAffinityTtlMs="CODEX_AUTH_SESSION_AFFINITY_TTL_MS",
                sessionAffinityMaxEntries="CODEX_AUTH_SESSION_AFFINITY_MAX_ENTRIES",
            ),
            *_without(_REFRESH, _boolean, proactiveRefreshGuardian="CODEX_AUTH_PROACTIVE_GUARDIAN"),
            *_without(
                _REFRESH,
                _number(),
                tokenRefreshSkewMs="CODEX_AUTH_TOKEN_REFRESH_SKEW_MS",
                proactiveRefreshIntervalMs="CODEX_AUTH_PROACTIVE_GUARDIAN_INTERVAL_MS",
                proactiveRefreshBufferMs="CODEX_AUTH_PROACTIVE_GUARDIAN_BUFFER_MS",
            ),
            *_without(
                _QUOTA, _boolean, preemptiveQuotaEnabled="CODEX_AUTH_PREEMPTIVE_QUOTA_ENABLED"
            ),
            *_without(
                _QUOTA,
                _number(),
                preemptiveQuotaRemainingPercent5h="CODEX_AUTH_PREEMPTIVE_QUOTA_5H_REMAINING_PCT",
                preemptiveQuotaRemainingPercent7d="CODEX_AUTH_PREEMPTIVE_QUOTA_7D_REMAINING_PCT",
                preemptiveQuotaMaxDeferralMs="CODEX_AUTH_PREEMPTIVE_QUOTA_MAX_DEFERRAL_MS",
            ),
            *_without(
                _FAILOVER,
                _number(),
                networkErrorCooldownMs="CODEX_AUTH_NETWORK_ERROR_COOLDOWN_MS",
                serverErrorCooldownMs="CODEX_AUTH_SERVER_ERROR_COOLDOWN_MS",
                tokenInvalidationCooldownMs="CODEX_AUTH_TOKEN_INVALIDATION_COOLDOWN_MS",
                minRotationIntervalMs="CODEX_AUTH_MIN_ROTATION_INTERVAL_MS",
            ),
            Field(
                name="schedulingStrategy",
                variable="CODEX_AUTH_SCHEDULING_STRATEGY",
                read=_word("hybrid", "sequential"),
                setting="accounts.strategy",
                convert=_strategy,
            ),
        )
    }
)

# What only the environment says; other variables of these beginnings are told as unknown.
VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CODEX_AUTH_ACCOUNT_ID": _DEMANDED,
        "CODEX_AUTH_FAILOVER_MODE": _FAILOVER,
        "CODEX_AUTH_STREAM_FAILOVER_MAX": _FAILOVER,
        "CODEX_AUTH_STREAM_STALL_SOFT_TIMEOUT_MS": _FAILOVER,
        "CODEX_AUTH_STREAM_STALL_HARD_TIMEOUT_MS": _FAILOVER,
        "CODEX_AUTH_PREWARM": "no prompt is fetched at run time",
        "CODEX_AUTH_REFRESH_LEASE": _REFRESH,
        "CODEX_AUTH_REFRESH_LEASE_DIR": _REFRESH,
        "CODEX_AUTH_REFRESH_LEASE_TTL_MS": _REFRESH,
        "CODEX_AUTH_REFRESH_LEASE_WAIT_MS": _REFRESH,
        "CODEX_AUTH_REFRESH_LEASE_POLL_MS": _REFRESH,
        "CODEX_AUTH_REFRESH_LEASE_RESULT_TTL_MS": _REFRESH,
        "CODEX_COLLABORATION_MODE": "the caller's tools leave as they were written",
        "CODEX_MULTI_AUTH_CONFIG_PATH": "give the file to this command",
        "CODEX_MULTI_AUTH_DIR": "the data directory is data_dir",
        "CODEX_MULTI_AUTH_FORCE_ACCOUNT_INDEX": _DEMANDED,
        "CODEX_PLUGIN_LOG_BODIES": "bodies are never logged; handrail explain shows one",
        "ENABLE_PLUGIN_REQUEST_LOGGING": 'log.level = "debug" adds a line a request',
    }
)
BEGINNINGS: Final = ("CODEX_AUTH_", "CODEX_MULTI_AUTH_")

# Options of a model or of all, as a host's `provider.openai` has them -> of ours.
MODEL_OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "include": "include",
        "promptCacheRetention": "prompt_cache_retention",
        "reasoningEffort": "effort",
        "reasoningSummary": "summary",
        "textVerbosity": "verbosity",
    }
)
