"""The literal table of all settings: the loader, `config explain` and the docs are held to it."""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from handrail.core.caller_policy import Executor
from handrail.core.failover import REFUSALS
from handrail.core.fast_session import MAX_ITEMS, MIN_ITEMS, NO_FAST_SESSION, Strategy
from handrail.core.limits import NEARLY_USED_UP
from handrail.core.profiles import PROFILES, AddReasoning, Auth, ToolCleanUp
from handrail.core.select import Strategy as AccountStrategy
from handrail.core.switch import SWITCH_VARIABLES
from handrail.settings import readers
from handrail.settings.account_table import account_table
from handrail.settings.vault import key_place

CALLER_KEY_VARIABLE: Final = "HANDRAIL_CALLER_KEY"
API_KEY_VARIABLE: Final = "HANDRAIL_UPSTREAM_API_KEY"
OPENAI_KEY_VARIABLE: Final = "OPENAI_API_KEY"
FILE_VARIABLE: Final = "HANDRAIL_CONFIG"


class WhenMakerIsGone(StrEnum):
    """What becomes of reasoning that only an account can read which cannot be used."""

    REFUSE = "refuse"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting: its place in the file, its other names, its default and how it is read."""

    path: str
    read: readers.Reader
    default: Any
    meaning: str
    variable: str | None = None
    flag: str | None = None


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        path="server.host",
        variable="HANDRAIL_HOST",
        flag="--host",
        read=readers.text,
        default="127.0.0.1",
        meaning="Address to listen on.",
    ),
    Option(
        path="server.port",
        variable="HANDRAIL_PORT",
        flag="--port",
        read=readers.integer(0, 65_535),
        default=8787,
        meaning="Port to listen on; 0 takes a free one.",
    ),
    Option(
        path="server.allowed_hosts",
        read=readers.texts,
        default=(),
        meaning="Further names that a Host header may have; loopback names and the bound address "
        "always may.",
    ),
    Option(
        path="server.max_body_bytes",
        read=readers.integer(1_024, 1 << 30),
        default=32 << 20,
        meaning="Largest request body, after decompression.",
    ),
    Option(
        path="server.max_connections",
        read=readers.integer(1, 100_000),
        default=2_000,
        meaning="Most client connections at once; one more gets a 503.",
    ),
    Option(
        path="server.drain",
        read=readers.duration(0, 3_600),
        default=20,
        meaning="How long streams and runs may go on after SIGTERM.",
    ),
    Option(
        path="server.heartbeat",
        read=readers.duration(1, 3_600),
        default=15,
        meaning="How long a stream may be silent before its reader gets a sign of life.",
    ),
    Option(
        path="log.level",
        variable="HANDRAIL_LOG_LEVEL",
        flag="--log-level",
        read=readers.word("debug", "info", "warning", "error"),
        default="info",
        meaning="What is logged: debug adds a line a request and the steps of its rewriting.",
    ),
    Option(
        path="data_dir",
        variable="HANDRAIL_DATA_DIR",
        flag="--data-dir",
        read=readers.path,
        default=None,
        meaning="Directory of the run store and the generated keys; by default the user's data "
        "directory.",
    ),
    Option(
        path="vault.store_key",
        read=key_place,
        default=None,
        meaning="Where the key of the run store stands, if not in the file store.key: "
        "`env:VARIABLE` with 64 hexadecimal digits, or `keyring:SERVICE/USER` (extra keyring).",
    ),
    Option(
        path="vault.accounts_key",
        read=key_place,
        default=None,
        meaning="The same for the key of the accounts, and the file accounts.key.",
    ),
    Option(
        path="upstream.url",
        variable="HANDRAIL_UPSTREAM_URL",
        flag="--upstream",
        read=readers.text,
        default=None,
        meaning="Base URL, as an SDK would take it; only /responses, what is below that, and "
        "/models are appended. By default the profile's own.",
    ),
    Option(
        path="upstream.profile",
        variable="HANDRAIL_UPSTREAM_PROFILE",
        flag="--profile",
        read=readers.word(*PROFILES),
        default="openai",
        meaning="What kind of server it is: openai, codex, azure or compatible.",
    ),
    Option(
        path="upstream.api_key_env",
        read=readers.text,
        default=None,
        meaning="Name of the variable that holds the credential, if not "
        f"{API_KEY_VARIABLE} (which wins) or, for the profile openai, OPENAI_API_KEY.",
    ),
    Option(
        path="upstream.auth",
        read=readers.word(*Auth),
        default=None,
        meaning="How the credential is shown: bearer (Authorization: Bearer ...) or api-key (the "
        "header api-key). By default azure api-key, unless a command gives it, and the others "
        "bearer.",
    ),
    Option(
        path="upstream.bearer_command",
        read=readers.words,
        default=(),
        meaning="A command that prints the credential, as a list of its words; it is run without a "
        "shell. Plain text, or JSON with accessToken and expires_on as az account "
        "get-access-token prints it.",
    ),
    Option(
        path="upstream.bearer_lifetime",
        read=readers.duration(1, 86_400),
        default=300,
        meaning="How long a credential of that command is used if it does not say when it ends.",
    ),
    Option(
        path="upstream.accounts",
        read=account_table,
        default=MappingProxyType({}),
        meaning="Further API keys, as a table of names: each is `env:VARIABLE`, `file:PATH` or "
        "`keyring:SERVICE/USER` (extra keyring), or a table such as "
        '`{ key = "env:X", tags = ["eu"], weight = 2 }`. Calls are spread over them, and over the '
        "accounts of `handrail accounts`.",
    ),
    Option(
        path="accounts.strategy",
        read=readers.word(*AccountStrategy),
        default=AccountStrategy.HYBRID,
        meaning="Which account a call is made with: the one with the most room (hybrid), the first "
        "by name until it is used up (drain_first), each in its turn (round_robin), or the one "
        "that has made the fewest calls (least_used).",
    ),
    Option(
        path="accounts.also_after",
        read=readers.some_of(REFUSALS),
        default=(),
        meaning="Of the statuses 402 and 403 those after which another account, then another "
        "target, is asked. By default such an answer stands: it may be about the request.",
    ),
    Option(
        path="accounts.nearly_used_up",
        read=readers.integer(1, 100),
        default=int(NEARLY_USED_UP),
        meaning="Percent of a quota window from which on other accounts come first. The last one "
        "that is left serves all the same, until the upstream itself refuses.",
    ),
    Option(
        path="accounts.when_maker_is_gone",
        read=readers.word(*WhenMakerIsGone),
        default=WhenMakerIsGone.REFUSE,
        meaning="What becomes of a request with encrypted reasoning whose account cannot be used "
        "now: refuse it with that account's reset, or drop the reasoning, say so, and go to "
        "another account.",
    ),
    Option(
        path="upstream.api_version",
        read=readers.version,
        default=None,
        meaning="The parameter api-version of every URL; the older addresses of Azure need it.",
    ),
    Option(
        path="upstream.runs_background",
        read=readers.boolean,
        default=None,
        meaning="Whether the upstream can keep and run background responses itself. The profiles "
        "openai and azure can, codex cannot; of compatible servers vLLM can, with its own store "
        "switched on.",
    ),
    Option(
        path="upstream.encrypted_reasoning",
        read=readers.word(*AddReasoning),
        default=None,
        meaning="When reasoning.encrypted_content is added to include: always, when_reasoning "
        "(the body has reasoning, or the model is known to reason) or never. By default codex "
        "always, openai and azure when_reasoning, compatible never.",
    ),
    Option(
        path="upstream.clean_tools",
        read=readers.word(*ToolCleanUp),
        default=None,
        meaning="What is put right in tools: never anything, the shape of functions that have the "
        "older API's, or all, with their schemas and what the model cannot use. By default codex "
        "all, openai and azure shape, compatible never.",
    ),
    Option(
        path="upstream.model_fallbacks",
        read=readers.chains,
        default=MappingProxyType({}),
        meaning="By model, the models to try in turn when the upstream does not serve it to this "
        "account. Without an entry the caller gets the upstream's refusal.",
    ),
    Option(
        path="upstream.extra_fields",
        read=readers.texts,
        default=(),
        meaning="Further request fields that a server of the profile compatible takes.",
    ),
    Option(
        path="upstream.pass_through",
        read=readers.passed_paths,
        default=(),
        meaning="Other routes below /v1 that callers may use, as `/embeddings` or, with all below "
        "it, `/files/*`. They are passed through as they are; never for the profile codex.",
    ),
    Option(
        path="upstream.reply_timeout",
        read=readers.duration(1, 86_400),
        default=600,
        meaning="How long to wait for the headers of an upstream reply.",
    ),
    Option(
        path="upstream.idle_timeout",
        read=readers.duration(1, 86_400),
        default=300,
        meaning="How long an upstream stream may be silent.",
    ),
    Option(
        path="fast_session.strategy",
        read=readers.word(*Strategy),
        default=Strategy.OFF,
        meaning="Which requests are trimmed: none (off), those whose last turn is not complex "
        "(hybrid), or all (always). Never background responses, and never without this setting.",
    ),
    Option(
        path="fast_session.max_input_items",
        read=readers.integer(MIN_ITEMS, MAX_ITEMS),
        default=NO_FAST_SESSION.max_items,
        meaning="How many input items are left after trimming, about.",
    ),
    Option(
        path="fast_session.drop_tools",
        read=readers.boolean,
        default=False,
        meaning="Whether a turn of one short line goes without tools.",
    ),
    Option(
        path="fast_session.cut_instructions",
        read=readers.boolean,
        default=False,
        meaning="Whether instructions are cut to 900 characters, or to 320 in a turn of one short "
        "line.",
    ),
    Option(
        path="fast_session.compact_timeout",
        read=readers.duration(0, 600),
        default=0,
        meaning="How long the upstream's compact endpoint may take to put in short what would be "
        "left out; 0 never asks it. Each time is one more call.",
    ),
    Option(
        path="background.enabled",
        variable=SWITCH_VARIABLES[0],
        flag="--background/--no-background",
        read=readers.boolean,
        default=False,
        meaning="Whether background responses are accepted. Off by flag or variable is a lock "
        f"that no caller's policy lifts. {SWITCH_VARIABLES[1]} is read too; the file may also "
        "say backgroundResponses, as the reference implementation's does.",
    ),
    Option(
        path="background.max_running",
        read=readers.integer(1, 10_000),
        default=16,
        meaning="Most background responses under way at once, of all callers.",
    ),
    Option(
        path="background.max_queued",
        read=readers.integer(0, 1_000_000),
        default=1_000,
        meaning="Most background responses waiting, of all callers; one more gets a 429.",
    ),
    Option(
        path="background.executor",
        read=readers.word(*Executor),
        default=Executor.GATEWAY,
        meaning="Who runs background responses: gateway (over a stateless upstream call), or "
        "upstream (which then stores them; only for servers that can).",
    ),
    Option(
        path="background.max_duration",
        read=readers.duration(1, 7 * 86_400),
        default=6 * 3_600,
        meaning="How long one background response may take from its upstream call on.",
    ),
    Option(
        path="background.max_output_bytes",
        read=readers.integer(1_024, 1 << 32),
        default=64 << 20,
        meaning="Most bytes of events that one background response may produce.",
    ),
    Option(
        path="background.max_stored_bytes",
        read=readers.integer(0, 1 << 50),
        default=10 << 30,
        meaning="Most bytes that are kept of the responses of all callers, as they are stored; one "
        "more gets a 503. 0 sets no bound.",
    ),
    Option(
        path="background.max_history_bytes",
        read=readers.integer(1_024, 1 << 30),
        default=32 << 20,
        meaning="Largest history, as JSON, that is put before the input for a "
        "previous_response_id.",
    ),
    Option(
        path="ledger.retention",
        read=readers.duration(86_400, 3_660 * 86_400),
        default=400 * 86_400,
        meaning="How long a row of the usage ledger is kept.",
    ),
    Option(
        path="ledger.time_zone",
        read=readers.zone,
        default="UTC",
        meaning="The time zone that days, weeks and months of budgets and of handrail usage "
        "begin in.",
    ),
)
