"""A fast session on one request: what goes, what is said of it, and where it never is."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import wire
from handrail.core.catalogue import NOTHING_KNOWN, Capability, Catalogue, Entry
from handrail.core.efforts import Effort
from handrail.core.fast_session import FastSession, Strategy
from handrail.core.model_options import Known
from handrail.core.profiles import CODEX, OPENAI, PROFILES, Endpoint, Profile
from handrail.core.rewrite import (
    UpstreamRequest,
    endpoint_request,
    upstream_request,
    upstream_run_request,
)
from handrail.core.shaping import UNSHAPED, Shaping, turn_of
from handrail.errors import RequestRejected
from tests.unit.core.generated import WILD, spelled

Json = dict[str, Any]
HYBRID = FastSession(strategy=Strategy.HYBRID, max_items=8)
ALWAYS = FastSession(strategy=Strategy.ALWAYS, max_items=8)
TALK: list[Json] = [
    {"type": "message", "role": ("user", "assistant")[n % 2], "content": f"part {n}\nof it"}
    for n in range(20)
]
LAST: Json = {"type": "message", "role": "user", "content": "and\nnow"}
SHORT: Json = {**LAST, "content": "hi"}
TOOL: Json = {
    "type": "function",
    "name": "run",
    "parameters": {"type": "object", "properties": {"a": {}}},
}
REASON = "fast session (hybrid): the user's last messages are plain"
QUICK = "fast session (always): the last turn is one short line"


def shaped(
    fields: Json,
    fast: FastSession = HYBRID,
    *,
    profile: Profile = OPENAI,
    continues: str | None = None,
    lowest_effort: str | None = None,
) -> UpstreamRequest:
    """The upstream's request for a create with these fields."""
    request = wire.read_create(json.dumps({"model": "m", "input": TALK, **fields}).encode())
    shaping = Shaping(fast=fast, lowest_effort=lowest_effort)
    return upstream_request(
        request, profile=profile, stream=False, shaping=shaping, continues=continues
    )


def sent(request: UpstreamRequest) -> Json:
    """Its body, decoded."""
    body: Json = json.loads(wire.encode(request.body))
    return body


def told(request: UpstreamRequest, *fields: str) -> list[tuple[str, str, str]]:
    """What its steps say of these fields."""
    return [(s.field, s.action, s.reason) for s in request.steps if s.field in fields]


def test_without_the_operators_word_nothing_is_ever_left_out() -> None:
    fields = {"input": [*TALK * 20, SHORT], "tools": [TOOL], "instructions": "x" * 5_000}
    for shaping in (UNSHAPED, Shaping(lowest_effort="none")):
        request = wire.read_create(json.dumps({"model": "m", **fields}).encode())
        for profile in PROFILES.values():
            made = upstream_request(request, profile=profile, stream=False, shaping=shaping)
            assert sent(made)["input"] == fields["input"]
            assert sent(made)["tools"] == [TOOL]
            assert sent(made)["instructions"] == fields["instructions"]
            assert "reasoning" not in sent(made)
            assert made.compaction is None


def test_a_long_input_is_trimmed_and_the_step_says_why() -> None:
    made = shaped({"input": [*TALK, LAST]})
    assert sent(made)["input"] == [*TALK[13:], LAST]
    assert told(made, "input") == [("input", "13 of 21 items left out", REASON)]


def test_a_short_input_stays_and_nothing_is_said_of_it() -> None:
    for some in ([LAST], "hi", []):
        assert told(shaped({"input": some}), "input") == []
    assert told(shaped({"input": None}), "input") == []
    made = shaped({"input": "hi"}, ALWAYS, profile=CODEX)
    assert [item["role"] for item in sent(made)["input"]] == ["user"]


def test_a_complex_request_is_left_whole_and_the_step_says_why() -> None:
    given = [*TALK, {**LAST, "content": "```code```"}]
    made = shaped({"input": given, "tools": [TOOL]}, HYBRID)
    assert sent(made)["input"] == given
    assert [step[:2] for step in told(made, "input", "tools")] == [("input", "left whole")]
    assert "code" in told(made, "input")[0][2]
    assert len(sent(shaped({"input": given}, ALWAYS))["input"]) == 8


def test_a_trivial_turn_keeps_its_answer_and_itself() -> None:
    made = shaped({"input": [*TALK, SHORT]}, ALWAYS)
    assert sent(made)["input"] == [TALK[-1], SHORT]
    assert told(made, "input") == [("input", "19 of 21 items left out", QUICK)]


def test_mending_comes_before_trimming() -> None:
    lost = {"type": "function_call_output", "call_id": "c", "output": "o"}
    made = shaped({"input": [lost, *TALK, LAST]}, ALWAYS)
    assert [step[1] for step in told(made, "input")] == [
        "1 tool outputs made messages",
        "14 of 22 items left out",
    ]


# --- where there is none --------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [HYBRID, ALWAYS])
def test_background_in_every_form_is_never_touched(fast: FastSession) -> None:
    eager = FastSession(
        strategy=fast.strategy,
        max_items=8,
        drop_tools=True,
        cut_instructions=True,
        compact_seconds=9,
    )
    given = {
        "model": "m",
        "input": [*TALK, SHORT],
        "tools": [TOOL],
        "instructions": "x" * 2_000,
        "background": True,
    }
    request = wire.read_create(json.dumps(given).encode())
    shaping = Shaping(fast=eager, lowest_effort="none")
    for write in (upstream_request, upstream_run_request):
        made = write(request, profile=OPENAI, stream=True, shaping=shaping)
        body = sent(made)
        assert {name: body[name] for name in ("input", "tools", "instructions")} == {
            name: given[name] for name in ("input", "tools", "instructions")
        }
        assert not {"reasoning", "text"} & body.keys()
        assert made.compaction is None
        assert not any("fast session" in step.reason for step in made.steps)


def test_what_the_upstream_keeps_is_not_trimmed() -> None:
    given = [*TALK, LAST]
    made = shaped({"input": given, "previous_response_id": "resp_1"}, ALWAYS, continues="resp_1")
    assert sent(made)["input"] == given


def test_what_goes_on_from_a_response_of_the_gateways_is_not_trimmed() -> None:
    given = {"model": "m", "input": [*TALK, LAST], "previous_response_id": "resp_1"}
    request = replace(wire.read_create(json.dumps(given).encode()), whole=True)
    shaping = Shaping(fast=ALWAYS, lowest_effort="low")
    made = upstream_request(request, profile=OPENAI, stream=False, shaping=shaping)
    assert sent(made)["input"] == given["input"]
    assert "reasoning" not in sent(made)


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_endpoints_beside_create_get_their_input_whole(endpoint: Endpoint) -> None:
    request = wire.read_compact(json.dumps({"model": "m", "input": [*TALK, SHORT]}).encode())
    made = endpoint_request(
        request, endpoint=endpoint, profile=OPENAI, shaping=Shaping(fast=ALWAYS)
    )
    assert sent(made)["input"] == [*TALK, SHORT]


# --- what the catalogue knows ---------------------------------------------------------------------

SEARCH: Json = {"type": "tool_search"}
ASKING = FastSession(strategy=Strategy.ALWAYS, max_items=8, compact_seconds=4)


def knowing(*capabilities: Capability, efforts: tuple[Effort, ...] | None = None) -> Catalogue:
    """A catalogue with one model, called m."""
    entry = Entry(capabilities=frozenset(capabilities), efforts=efforts)
    return Catalogue(entries={"m": entry})


@pytest.mark.parametrize("write", [upstream_request, upstream_run_request])
def test_a_tool_that_the_model_is_known_not_to_take_is_left_out(write: Callable[..., Any]) -> None:
    given = {"model": "m", "input": "hi", "tools": [SEARCH, TOOL]}
    request = wire.read_create(json.dumps(given).encode())
    for catalogue, kinds in (
        (NOTHING_KNOWN, ["tool_search", "function"]),
        (knowing(Capability.TOOL_SEARCH), ["tool_search", "function"]),
        (knowing(), ["function"]),
    ):
        made = write(request, profile=CODEX, stream=True, catalogue=catalogue)
        assert [tool["type"] for tool in sent(made)["tools"]] == kinds


def test_an_endpoint_gets_no_tool_that_the_model_is_known_not_to_take() -> None:
    given = {"model": "m", "input": "hi", "tools": [SEARCH, TOOL]}
    request = wire.read_compact(json.dumps(given).encode())
    made = endpoint_request(request, endpoint=Endpoint.COMPACT, profile=CODEX, catalogue=knowing())
    assert [tool["type"] for tool in sent(made)["tools"]] == ["function"]


def test_a_model_that_is_known_not_to_compact_is_not_asked_to() -> None:
    request = wire.read_create(json.dumps({"model": "m", "input": [*TALK, LAST]}).encode())
    for catalogue, asks in (
        (NOTHING_KNOWN, True),
        (knowing(Capability.COMPACTION), True),
        (knowing(), False),
    ):
        made = upstream_request(
            request,
            profile=OPENAI,
            stream=False,
            catalogue=catalogue,
            shaping=Shaping(fast=ASKING),
        )
        assert (made.compaction is not None) is asks


def test_a_fast_session_asks_the_least_that_the_model_is_known_to_think() -> None:
    catalogue = knowing(efforts=(Effort.MEDIUM, Effort.LOW))
    for said, effort in ((None, "low"), ("medium", "medium")):
        fields = {} if said is None else {"reasoning": {"effort": said}}
        given = {"model": "m", "input": [LAST], **fields}
        request = wire.read_create(json.dumps(given).encode())
        shaping = Shaping(fast=ALWAYS)
        made = upstream_request(
            request, profile=OPENAI, stream=False, catalogue=catalogue, shaping=shaping
        )
        assert sent(made)["reasoning"] == {"effort": effort}


# --- tools, instructions, effort ------------------------------------------------------------------

DROPS = FastSession(strategy=Strategy.ALWAYS, drop_tools=True)


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}, {"tool_choice": "none"}])
def test_a_trivial_turn_goes_without_tools_where_that_is_allowed(choice: Json) -> None:
    fields = {"input": [SHORT], "tools": [TOOL], "parallel_tool_calls": True, **choice}
    made = shaped(fields, DROPS)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & sent(made).keys()
    assert told(made, "tools") == [("tools", "removed", QUICK)]
    assert len(told(made, "tool_choice")) == len(choice)
    assert sent(shaped(fields, ALWAYS))["tools"] == [TOOL]
    assert sent(shaped({**fields, "input": [LAST]}, DROPS))["tools"] == [TOOL]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "run"}])
def test_whoever_demands_a_tool_gets_it(choice: object) -> None:
    made = shaped({"input": [SHORT], "tools": [TOOL], "tool_choice": choice}, DROPS)
    assert sent(made)["tools"] == [TOOL]
    assert told(made, "tools") == []


def test_without_tools_there_is_nothing_to_drop() -> None:
    made = shaped({"input": [SHORT], "parallel_tool_calls": True}, DROPS)
    assert sent(made)["parallel_tool_calls"] is True


def test_instructions_are_cut_where_that_is_allowed() -> None:
    cuts = FastSession(strategy=Strategy.ALWAYS, cut_instructions=True)
    long = {"instructions": "x" * 1_000, "input": [LAST]}
    made = shaped(long, cuts)
    length = len(sent(made)["instructions"])
    assert 900 < length < 1_000
    assert told(made, "instructions") == [
        (
            "instructions",
            f"cut from 1000 to {length} characters",
            "fast session (always): the user's last messages are plain",
        )
    ]
    assert len(sent(shaped({**long, "input": [SHORT]}, cuts))["instructions"]) < 420
    assert sent(shaped(long, ALWAYS))["instructions"] == long["instructions"]
    brief = shaped({**long, "instructions": "brief"}, cuts)
    assert (sent(brief)["instructions"], told(brief, "instructions")) == ("brief", [])
    assert told(shaped({"input": [LAST]}, cuts), "instructions") == []


def test_effort_and_verbosity_are_lowered_where_the_caller_says_none() -> None:
    made = shaped({"input": [LAST], "text": {"format": {"type": "text"}}}, lowest_effort="minimal")
    assert sent(made)["reasoning"] == {"effort": "minimal"}
    assert sent(made)["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert told(made, "reasoning.effort", "text.verbosity") == [
        ("reasoning.effort", "set to minimal", REASON),
        ("text.verbosity", "set to low", REASON),
    ]
    said = {"reasoning": {"effort": "high"}, "text": {"verbosity": "high"}, "input": [LAST]}
    for fields in (said, {**said, "input": [{**LAST, "content": "```x```"}]}):
        kept = sent(shaped(fields, lowest_effort="minimal"))
        assert (kept["reasoning"], kept["text"]) == (said["reasoning"], said["text"])
    assert not {"reasoning", "text"} & sent(shaped({"input": [LAST]})).keys()


# --- compaction -----------------------------------------------------------------------------------

ASKS = FastSession(strategy=Strategy.ALWAYS, max_items=8, compact_seconds=4)


def test_what_would_be_left_out_may_be_put_in_short_first() -> None:
    made = shaped({"input": [*TALK, LAST], "instructions": "i"}, ASKS)
    assert made.compaction is not None
    reason = "fast session (always): the user's last messages are plain"
    reason += "; before that the upstream may take 4 s to put them in short"
    assert told(made, "input") == [("input", "13 of 21 items left out", reason)]
    asked = made.to_compact(made.compaction)
    assert sent(asked) == {"model": "m", "instructions": "i", "input": TALK}
    assert (asked.streams, asked.added_include, asked.compaction) == (False, False, None)
    assert shaped({"input": [LAST]}, ASKS).compaction is None


def test_what_came_of_it_is_told() -> None:
    made = shaped({"input": [*TALK, LAST]}, ASKS, profile=CODEX)
    done = made.compacted(wire.raw([LAST]), reason="why")
    assert sent(done)["input"] == [LAST]
    assert told(done, "input")[-1] == ("input", "compacted by the upstream instead", "why")
    left = made.compacted(None, reason="why not")
    assert sent(left) == sent(made)
    assert told(left, "input")[-1] == ("input", "not compacted", "why not")
    assert (done.compaction, left.compaction) == (None, None)
    assert (done.streams, left.streams) == (True, True)


# --- large inputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["hi", "and\nnow"])
def test_a_large_input_takes_a_bounded_multiple_of_its_size(text: str) -> None:
    item = {"type": "message", "role": "assistant", "content": "x" * 40_000}
    given = [item] * 300
    data = json.dumps({"model": "m", "input": [*given, {**LAST, "content": text}]}).encode()
    assert len(data) > 12_000_000

    def peak(shaping: Shaping) -> float:
        request = wire.read_create(data)
        tracemalloc.start()
        try:
            upstream_request(request, profile=CODEX, stream=True, shaping=shaping)
            return tracemalloc.get_traced_memory()[1] / len(data)
        finally:
            tracemalloc.stop()

    plain = peak(UNSHAPED)
    assert plain < 1.5
    assert peak(Shaping(fast=ASKS)) < 0.1
    assert peak(Shaping(fast=FastSession(strategy=Strategy.HYBRID, max_items=200))) <= plain


# --- any JSON at all ------------------------------------------------------------------------------


@given(
    spelled(WILD),
    st.sampled_from(sorted(PROFILES)),
    st.sampled_from([Strategy.HYBRID, Strategy.ALWAYS]),
    st.booleans(),
)
def test_shaping_any_json_raises_nothing_but_a_rejection(
    data: bytes, profile: str, strategy: Strategy, everything: bool
) -> None:
    fast = FastSession(
        strategy=strategy,
        max_items=8,
        drop_tools=everything,
        cut_instructions=everything,
        compact_seconds=float(everything),
    )
    shaping = Shaping(
        capabilities=frozenset({"compaction"}),
        fast=fast,
        lowest_effort="low" if everything else None,
    )
    try:
        request = wire.read_create(data)
        plain = upstream_request(request, profile=PROFILES[profile], stream=False)
    except RequestRejected:
        return
    made = upstream_request(request, profile=PROFILES[profile], stream=False, shaping=shaping)
    if request.background:
        assert made.body == plain.body
    if isinstance(sent(plain).get("input"), list):
        assert len(sent(made)["input"]) <= len(sent(plain)["input"])


def test_there_is_no_turn_where_no_fast_session_can_be() -> None:
    request = wire.read_create(b'{"model":"m","input":"hi"}')
    always = Shaping(fast=FastSession(strategy=Strategy.ALWAYS))
    assert turn_of(request, dict(request.body), shaping=always, continues=None) is not None
    assert turn_of(request, dict(request.body), shaping=always, continues="resp_1") is None
    assert turn_of(request, dict(request.body), shaping=Shaping(), continues=None) is None


def test_what_the_catalogue_does_not_know_stays_as_it_was_known() -> None:
    known = Shaping(capabilities=frozenset({"reasoning"}), lowest_effort="low")
    assert known.knowing(Known(model="m")) == known
    told = known.knowing(Known(model="m", capabilities=frozenset(), lowest_effort=Effort.NONE))
    assert (told.capabilities, told.lowest_effort) == (frozenset(), "none")
