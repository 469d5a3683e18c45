"""The real openai SDK for Node through the real gateway, against the scripted model server."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from tests.acceptance import npm, processes
from tests.acceptance.processes import CALLER_KEY, ROOT, Child

MODULES = npm.modules("node")
CLIENT = ROOT / "tests" / "acceptance" / "node" / "client.mjs"

pytestmark = npm.needs(MODULES / "openai", called="the openai Node SDK")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path_factory.mktemp("upstream")) as child:
        yield child


@pytest.fixture(scope="module")
def stateless(upstream: Child, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A gateway as it is by default."""
    directory = tmp_path_factory.mktemp("stateless")
    server = f"{upstream.url}/openai/v1"
    with processes.gateway(directory, "--port", "0", upstream=server) as child:
        yield child


@pytest.fixture(scope="module")
def opted_in(upstream: Child, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A gateway with background responses enabled."""
    directory = tmp_path_factory.mktemp("opted-in")
    with processes.gateway(directory, upstream=f"{upstream.url}/openai/v1") as child:
        yield child


def run_client(scenario: str, gateway: Child) -> Any:
    """What one scenario of `client.mjs` tells."""
    with CLIENT.open() as script:
        done = subprocess.run(
            ["node", "--input-type=module", "-", scenario],
            cwd=MODULES.parent,
            env={
                "PATH": os.environ["PATH"],
                "HANDRAIL_URL": gateway.url,
                "HANDRAIL_KEY": CALLER_KEY,
            },
            stdin=script,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_create_answers_with_a_whole_response_that_is_not_kept(stateless: Child) -> None:
    told = run_client("create", stateless)
    assert told["object"] == "response"
    assert told["status"] == "completed"
    assert told["store"] is False
    assert len(told["text"].split()) == 3
    assert told["request"]


def test_the_stream_helper_reads_all_events_and_builds_the_final_response(stateless: Child) -> None:
    told = run_client("stream", stateless)
    events = told["events"]
    assert events["types"][0] == "response.created"
    assert events["types"][-1] == "response.completed"
    assert events["numbers"] == list(range(len(events["numbers"])))
    assert len(events["text"].split()) == 4
    assert told["final"] == {"status": "completed", "text": events["text"]}


def test_background_without_the_opt_in_is_a_bad_request_that_names_it(stateless: Child) -> None:
    assert run_client("refused", stateless) == {
        "is": ["BadRequestError"],
        "status": 400,
        "code": "background_not_enabled",
        "param": "background",
        "type": "invalid_request_error",
    }


def test_a_background_response_is_queued_and_polled_until_it_is_completed(opted_in: Child) -> None:
    told = run_client("background", opted_in)
    assert told["same"] is True
    assert told["statuses"][0] == "queued"
    assert told["statuses"][-1] == "completed"
    assert set(told["statuses"]) <= {"queued", "in_progress", "completed"}
    assert len(told["text"].split()) == 5


@pytest.mark.parametrize("scenario", ["resume", "resume_with_the_helper"])
def test_a_dropped_stream_goes_on_with_exactly_the_event_after_the_last_one_read(
    scenario: str, opted_in: Child
) -> None:
    told = run_client(scenario, opted_in)
    before, after = told["before"], told["after"]
    assert before["numbers"] == [0, 1, 2, 3, 4]
    assert after["numbers"] == list(range(5, 5 + len(after["numbers"])))
    assert after["types"][-1] == "response.completed"
    assert before["text"] + after["text"] == told["text"]
    assert len(told["text"].split()) == 12


def test_a_cancelled_response_stays_cancelled_and_may_be_cancelled_again(opted_in: Child) -> None:
    told = run_client("cancel", opted_in)
    assert told["statuses"] == ["cancelled", "cancelled", "cancelled"]
    assert (told["output"], told["error"]) == ([], None)


def test_a_deleted_response_is_not_found(opted_in: Child) -> None:
    told = run_client("delete", opted_in)
    assert (told["is"], told["status"]) == (["NotFoundError"], 404)


def test_the_input_items_are_listed_over_more_than_one_page(opted_in: Child) -> None:
    told = run_client("input_items", opted_in)
    assert told["texts"] == ["one", "two", "three"]
    assert told["types"] == ["message"] * 3
    assert told["distinct"] == 3


def test_the_models_are_listed_and_one_is_retrieved(stateless: Child) -> None:
    assert run_client("models", stateless) == {"ids": ["scripted"], "one": "scripted"}


def test_the_sdk_waits_as_long_as_a_429_says_and_tries_again(
    stateless: Child, upstream: Child
) -> None:
    told = run_client("retry", stateless)
    assert told["statuses"] == [429, 200]
    assert told["retry_after"] == "1"
    assert told["waited"] > 0.9  # by itself it would wait for half a second at most
    assert told["status"] == "completed"
    with urlopen(f"{upstream.url}/seen") as reply:
        assert json.load(reply)["tags"]["node-retry"] == 2
