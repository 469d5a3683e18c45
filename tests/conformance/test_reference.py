"""Every recorded row of the reference: it passes, or it differs as the table says.

The counts by file and class stand in docs/explanation/reference-conformance.md, and are held
against it here.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from handrail import telemetry
from tests.conformance import (
    accounting,
    accounts,
    answers,
    bodies,
    differences,
    differences_of_accounts,
    edges,
    models,
    shaping,
)
from tests.conformance.departures import REASONS, SENT
from tests.conformance.life import life
from tests.conformance.proxy import runtime_proxy
from tests.conformance.recorded import FOLDER, Json, Outcome, Row, rows

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/explanation/reference-conformance.md"

ADAPTERS: Final[Mapping[str, Callable[[Row], Outcome]]] = {
    "backgroundMode": bodies.transform_request_body,
    "budget": accounting.budget,
    "circuitBreakerSequence": accounts.circuit_breaker,
    "cleanupToolDefinitions": shaping.cleanup_tool_definitions,
    "computeOutboundRequestAttemptBudget": accounts.attempt_budget,
    "configResolution": models.config_resolution,
    "convertSseToJson": answers.convert_sse_to_json,
    "createCodexHeaders": edges.create_codex_headers,
    "errorClassification": answers.error_classification,
    "evaluateFailurePolicy": accounts.failure_policy,
    "filterHostSystemPromptsWithCachedPrompt": shaping.filter_host_prompts,
    "filterInput": bodies.filter_input,
    "getBackgroundResponses": edges.get_background_responses,
    "getModelConfig": models.get_model_config,
    "getModelProfile": models.get_model_profile,
    "getReasoningConfig": models.get_reasoning_config,
    "handleErrorResponse": answers.handle_error_response,
    "injectMissingToolOutputs": bodies.repair_items,
    "isEmptyResponse": answers.is_empty_response,
    "miscRules": models.misc_rules,
    "normalizeModel": models.normalize_model,
    "normalizeOrphanedToolOutputs": bodies.repair_items,
    "parseBooleanEnv": edges.parse_boolean_env,
    "parseRetryAfterBodyMs": answers.wait_in_body,
    "parseRetryAfterHeaderMs": answers.wait_in_headers,
    "parseRetryAfterHintMs": answers.wait_in_headers,
    "quotaDeferralSequence": accounts.quota_deferral,
    "quotaHeaders": accounts.quota_headers,
    "rateLimitBackoffSequence": accounts.rate_limit_backoff,
    "redaction": edges.redaction,
    "resolveFastSessionInputTrimPlan": shaping.resolve_plan,
    "resolveProxyUrlForRequest": edges.resolve_proxy_url_for_request,
    "responseCompaction": shaping.response_compaction,
    "rewriteUrlForCodex": edges.rewrite_url_for_codex,
    "runtimePolicy": accounts.runtime_policy,
    "selectHybridAccountTraced": accounts.select_hybrid,
    "transformRequestBody": bodies.transform_request_body,
    "transformRequestForCodex": bodies.transform_request_for_codex,
    "trimInputForFastSession": shaping.trim_input,
    "usageRow": accounting.usage_row,
}
LIVES: Final[Mapping[str, Callable[[Row, Path], Awaitable[Outcome]]]] = {  # with a gateway
    "pluginEndToEnd": life,
    "runtimeProxy": runtime_proxy,
}
FILES: Final = (*ADAPTERS, *LIVES)
DIFFERENCES: Final = {**differences.DIFFERENCES.rows, **differences_of_accounts.DIFFERENCES.rows}


def expected(row: Row, outcome: Outcome) -> Json:
    """What ours says in the terms that differ, by the table; {} for a row that passes."""
    found: Json = {}
    for departure in DIFFERENCES.get(row.key, ()):
        said = departure.ours
        found[departure.term] = outcome.given[departure.term] if said == SENT else said
    return found


def check(row: Row, outcome: Outcome) -> None:
    """Ours is what the recording says, or differs exactly as the table says."""
    differing = outcome.differing()
    assert differing == expected(row, outcome), row.id
    assert bool(differing) == (row.key in DIFFERENCES), f"{row.id} passes and is in the table"


def walked(*files: str) -> list[Any]:
    return [pytest.param(file, row, id=row.id) for file in files for row in rows(file)]


@pytest.mark.parametrize(("file", "row"), walked(*ADAPTERS))
def test_a_recorded_row_passes_or_differs_as_the_table_says(file: str, row: Row) -> None:
    telemetry.configure("error")
    check(row, ADAPTERS[file](row))


@pytest.mark.parametrize(("file", "row"), walked(*LIVES))
async def test_a_recorded_life_passes_or_differs_as_the_table_says(
    file: str, row: Row, tmp_path: Path
) -> None:
    check(row, await LIVES[file](row, tmp_path))


def classes(file: str) -> Counter[str]:
    """How many rows of a file pass, or differ for which reason; several reasons count once."""
    return Counter(
        DIFFERENCES[row.key][0].reason if row.key in DIFFERENCES else "pass" for row in rows(file)
    )


def test_every_recorded_file_is_walked() -> None:
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(FILES)


def test_every_difference_has_a_row_and_a_reason() -> None:
    assert {row.key for file in FILES for row in rows(file)} >= DIFFERENCES.keys()
    reasons = {entry.reason for entries in DIFFERENCES.values() for entry in entries}
    assert reasons >= REASONS.keys()
    # No row waits for anything: there is no other reason than these.
    assert all(re.fullmatch(r"D-\d+", reason) for reason in reasons - REASONS.keys())


def table() -> list[str]:
    """The counts, as the page shows them."""

    def line(name: str, count: Counter[str]) -> str:
        defects = sum(n for reason, n in count.items() if reason.startswith("D-"))
        cells = [count["pass"], defects, *(count[reason] for reason in REASONS)]
        return f"| {name} | {count.total()} | " + " | ".join(str(n or "·") for n in cells) + " |"

    heads = ["rows", "pass", "defect", *REASONS]
    found = {file: classes(file) for file in sorted(FILES)}
    return [
        "| file | " + " | ".join(heads) + " |",
        "|---|" + "--:|" * len(heads),
        *(line(f"`{file}`", count) for file, count in found.items()),
        line("**all**", sum(found.values(), Counter())),
    ]


def test_the_page_shows_these_counts() -> None:
    assert "\n".join(table()) in PAGE.read_text()


@pytest.mark.parametrize("reason", REASONS)
def test_the_page_explains_every_reason(reason: str) -> None:
    assert f"| `{reason}` | {REASONS[reason]} |" in PAGE.read_text()
