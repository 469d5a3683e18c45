"""The literal table of the settings of one caller, `[callers.NAME]`."""

from typing import Final

from handrail.core.caller_policy import (
    BackgroundPolicy,
    CallerPolicy,
    CrashPolicy,
    Executor,
    Priority,
    StoreFalsePolicy,
    StorePolicy,
    WhenLeft,
)
from handrail.core.fast_session import FastPolicy
from handrail.settings import readers
from handrail.settings.options import Option

_POLICY: Final = CallerPolicy(name="")

CALLER_OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        path="key_env",
        read=readers.text,
        default=None,
        meaning="Name of the environment variable that holds a key of the caller; more are made "
        "with handrail keys create.",
    ),
    Option(
        path="key_sha256",
        read=readers.text,
        default=None,
        meaning="SHA-256 of such a key instead, as 64 hexadecimal digits.",
    ),
    Option(
        path="background",
        read=readers.word(*BackgroundPolicy),
        default=_POLICY.background,
        meaning="inherit the switch, allow (lifts an off that is no lock), or deny.",
    ),
    Option(
        path="store",
        read=readers.word(*StorePolicy),
        default=_POLICY.store,
        meaning="What becomes of store:true without background: lower it to false, refuse it, or "
        "keep the response here; keep_all keeps it where store is left out, too.",
    ),
    Option(
        path="store_false",
        read=readers.word(*StoreFalsePolicy),
        default=_POLICY.store_false,
        meaning="What becomes of background with store:false: reject it, or run it on the gateway "
        "and keep it for the polling window (10 minutes) only.",
    ),
    Option(
        path="when_left",
        read=readers.word(*WhenLeft),
        default=_POLICY.when_left,
        meaning="What becomes of a kept foreground stream whose reader leaves: stop it, or "
        "continue, at most max_running of them at once; continue needs store keep or keep_all.",
    ),
    Option(
        path="fast_session",
        read=readers.word(*FastPolicy),
        default=_POLICY.fast_session,
        meaning="inherit fast_session.strategy, or one of its own: off, hybrid, always.",
    ),
    Option(
        path="max_running",
        read=readers.integer(0, 10_000),
        default=_POLICY.max_running,
        meaning="Most background responses of this caller under way at once.",
    ),
    Option(
        path="max_queued",
        read=readers.integer(0, 1_000_000),
        default=_POLICY.max_queued,
        meaning="Most background responses of this caller waiting.",
    ),
    Option(
        path="max_foreground",
        read=readers.integer(0, 10_000),
        default=_POLICY.max_foreground,
        meaning="Most requests of this caller under way at once whose reply it waits for; one more "
        "gets a 429. 0 sets no bound.",
    ),
    Option(
        path="max_stored_bytes",
        read=readers.integer(0, 1 << 50),
        default=_POLICY.max_stored_bytes,
        meaning="Most bytes that are kept of this caller's responses; one more gets a 429. 0 sets "
        "no bound but that of all callers.",
    ),
    Option(
        path="retention",
        read=readers.duration(1, 366 * 86_400),
        default=_POLICY.retention_seconds,
        meaning="How long a response is kept after its end.",
    ),
    Option(
        path="crash",
        read=readers.word(*CrashPolicy),
        default=_POLICY.crash,
        meaning="What becomes of a background response whose upstream call may have run, but whose "
        "answer was lost: safe ends it, retry makes a new attempt while nothing of it is visible. "
        "A request may say otherwise.",
    ),
    Option(
        path="weight",
        read=readers.integer(1, 100),
        default=_POLICY.weight,
        meaning="The caller's share of what runs when several callers wait: one of weight 3 has "
        "three runs under way where one of weight 1 has one.",
    ),
    Option(
        path="executor",
        read=readers.word(*Executor),
        default=_POLICY.executor,
        meaning="Who runs this caller's background responses, gateway or upstream; by default "
        "background.executor.",
    ),
    Option(
        path="models",
        read=readers.texts,
        default=_POLICY.models,
        meaning="Globs of the models that the caller may use, by the names that its requests say; "
        "any other is a 404, as if it did not exist. An empty list allows none.",
    ),
    Option(
        path="targets",
        read=readers.words,
        default=_POLICY.targets,
        meaning="Names of the targets that the caller's requests may go to; by default all. A "
        "model whose route leads to none of these is a 404.",
    ),
    Option(
        path="account_tags",
        read=readers.tags,
        default=_POLICY.account_tags,
        meaning="Tags of which an account must have one to serve this caller; an empty list allows "
        "every account.",
    ),
    Option(
        path="priority",
        read=readers.word(*Priority),
        default=_POLICY.priority,
        meaning="Priority of background responses that name none, among the caller's own.",
    ),
    Option(
        path="max_priority",
        read=readers.word(*Priority),
        default=_POLICY.max_priority,
        meaning="The highest priority that a request of the caller may name.",
    ),
)
