"""The Open Responses compliance suite against the real gateway, through every profile.

The suite (github.com/openresponses/openresponses) is not on npm and not part of this project. A
checkout of it, only `bin` and `src` are needed, is named by an environment variable:

    HANDRAIL_OPEN_RESPONSES=/path/to/openresponses scripts/test tests/acceptance
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import npm, processes
from tests.acceptance.processes import CALLER_KEY, Child

CHECKOUT = os.environ.get("HANDRAIL_OPEN_RESPONSES", "")
SUITE = Path(CHECKOUT) / "bin" / "compliance-test.ts"
MODULES = npm.modules("open_responses")

pytestmark = [
    pytest.mark.npm,
    pytest.mark.skipif(
        not CHECKOUT, reason="HANDRAIL_OPEN_RESPONSES names no checkout of the compliance suite"
    ),
]

CASES = (
    "assistant-phase",
    "basic-response",
    "compact-missing-model",
    "compact-response",
    "image-input",
    "multi-turn",
    "response-output-phase-schema",
    "streaming-response",
    "system-prompt",
    "tool-calling",
)
MANNERS = {"openai": "openai/v1", "codex": "codex", "compatible": "transformers/v1"}

# Profile -> case -> why it fails.
COMPACT = dict.fromkeys(
    ("compact-missing-model", "compact-response"), "these servers have no compact endpoint"
)
NOT_YET: dict[str, dict[str, str]] = {"openai": {}, "codex": {}, "compatible": COMPACT}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path_factory.mktemp("upstream")) as child:
        yield child


@pytest.fixture(scope="module", params=MANNERS)
def profile(request: pytest.FixtureRequest) -> str:
    """Each profile in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def results(
    profile: str, upstream: Child, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What one run of the whole suite found, by case."""
    directory = tmp_path_factory.mktemp(profile)
    server = f"{upstream.url}/{MANNERS[profile]}"
    with processes.gateway(directory, "--port", "0", upstream=server, profile=profile) as gateway:
        return run_suite(gateway, home=directory)


def run_suite(gateway: Child, *, home: Path) -> dict[str, Any]:
    """The suite's own report on this gateway, by case."""
    bun = [str(MODULES / ".bin" / "bun"), "--no-install", "run", str(SUITE)]
    done = subprocess.run(
        [*bun, "--base-url", gateway.url, "--api-key", CALLER_KEY, "--model", "obliging", "--json"],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "NODE_PATH": str(MODULES)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    return {result["id"]: result for result in json.loads(done.stdout)["results"]}


def test_every_case_of_the_suite_but_those_over_websocket_is_looked_at(
    results: dict[str, Any],
) -> None:
    assert {name for name in results if not name.startswith("websocket-")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_the_gateway_complies(
    case: str, profile: str, results: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if case in NOT_YET[profile]:
        mark = pytest.mark.xfail(reason=NOT_YET[profile][case], strict=True)
        request.applymarker(mark)
    assert results[case]["status"] == "passed", results[case]["errors"]
