"""Where Handrail differs from the recorded reference, on purpose: by row, with the reason.

The rows about accounts are in `differences_of_accounts`.
"""

from typing import Any, Final

from tests.conformance.departures import SENT, Table
from tests.conformance.recorded import ABSENT

DIFFERENCES: Final = Table()
_differs: Final = DIFFERENCES.differs

# --- items ----------------------------------------------------------------------------------------

_MESSAGE: Final = {"type": "message", "role": "user"}
_CALL: Final = {"type": "function_call", "call_id": "a", "name": "run", "arguments": "{}"}
_BROKEN_OFF: Final = {
    "type": "function_call_output",
    "call_id": "a",
    "output": "Operation cancelled by user",
}
_QUOTED: Final = {
    "type": "message",
    "role": "assistant",
    "content": "[Previous tool result; call_id=a]: o",
}

_differs("filterInput", [3], "stricter", outcome="item_reference_not_found: input[0].id")
_differs(
    "filterInput",
    [7],
    "D-17",
    input=[{**_MESSAGE, "content": [{"type": "input_text", "text": "string input"}]}],
)
_differs("filterInput", [9], "stricter", outcome="invalid_type: input")
_differs("filterInput", [11], "stricter", outcome="invalid_type: input[0]")
_differs(
    "normalizeOrphanedToolOutputs", [19, 21], "both-halves", input=[_CALL, _BROKEN_OFF, _QUOTED]
)
_differs("injectMissingToolOutputs", [11], "both-halves", input=[_CALL, _BROKEN_OFF, _QUOTED])

# --- streams --------------------------------------------------------------------------------------


def _said(text: str, **keys: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "type": "message",
        "role": "assistant",
        "content": content,
        "status": "completed",
    } | keys


_SSE: Final = "convertSseToJson"
_differs(_SSE, [3], "shape", output=[_said("Hello", id="msg_1")])
_differs(_SSE, [5], "D-34", output=[_said("Hello", id="msg_1")])
_differs(_SSE, [7], "shape", output=[_said("no item")])
_differs(_SSE, [9], "D-34", output=[_said("too big")])
_differs(_SSE, [11], "stricter", outcome="502 upstream_protocol_error")
_differs(_SSE, [13], "understood", output=[_said("noindex")])
_differs(
    _SSE,
    [19],
    "shape",
    output=[{"type": "reasoning", "summary": [{"type": "summary_text", "text": "second"}]}],
)
_differs(
    _SSE,
    [21],
    "shape",
    output=[
        _said("think", id="msg_1", phase="commentary"),
        _said("done", id="m2", phase="final_answer"),
    ],
)
_differs(_SSE, [23], "shape", output=[_said("p")])
_differs(_SSE, [27], "shape", output=[_said("part")])
_differs(
    _SSE, [29], "D-34", output=[_said("") | {"content": [{"type": "refusal", "refusal": "no"}]}]
)
_differs(_SSE, [31], "D-23", code="server_error", message="boom")
_differs(_SSE, [33], "one-end", outcome="answered")
_differs(_SSE, [37, 39, 41, 43, 47], "one-end", outcome="502 upstream_ended_early")
_differs(_SSE, [49], "D-34", raw_text=ABSENT, id="resp_ml", output=[])
_differs(_SSE, [51], "one-end", id="a")
_differs(_SSE, [53, 55], "one-end", outcome="502 upstream_protocol_error")
_differs(_SSE, [57], "one-end", outcome="502 upstream_protocol_error")
_differs(_SSE, [59], "one-end", output=[])
_differs(_SSE, [63], "shape", http=200)
_differs(_SSE, [65], "D-40", outcome="504 upstream_stalled")

_differs("isEmptyResponse", [1, 3, 11, 21], "never-twice", repeated=False)
_differs("isEmptyResponse", [13, 15, 17, 23, 25], "D-4", repeated=False)

# --- errors, and how long to wait -----------------------------------------------------------------

_ERROR: Final = "handleErrorResponse"
_differs(_ERROR, [1, 3, 17, 21, 27, 45, 51], "honest", wait=None)
_differs(_ERROR, [25], "D-26", wait=300.0)
_differs(_ERROR, [31], "order", wait=5.0)
_differs(_ERROR, [33], "order", wait=30.0)
_differs(_ERROR, [37], "D-26", wait=1.0)
_differs(_ERROR, [49], "D-26", wait=1.2)
_differs(
    _ERROR,
    [53],
    "honest",
    message="The upstream answered 404: usage_not_included.",
    type="invalid_request_error",
)
_differs(_ERROR, [59], "whose-fault", outcome="403")
_differs(_ERROR, [61, 63], "honest", code="model_not_supported", type="invalid_request_error")
_differs(
    _ERROR,
    [61],
    "honest",
    message="The 'gpt-5.4' model is not supported when using Codex with a ChatGPT account.",
)
_differs(
    _ERROR,
    [63],
    "honest",
    message="The model `gpt-9` does not exist or you do not have access to it.",
)
_differs(_ERROR, [65], "D-24", message="bad")
_differs(_ERROR, [67], "D-24", message="string error")
_differs(_ERROR, [69, 71], "whose-fault", outcome="503")
_differs(_ERROR, [75], "understood", wait=3.0)

_differs("errorClassification", [7], "whose-fault", about_the_account=True)
_differs("errorClassification", [31, 33], "asked", next_model=None)
_differs(
    "errorClassification", [47, 49], "whose-fault", outcome="503 upstream_credentials_rejected"
)

_differs("parseRetryAfterBodyMs", [13], "understood", wait=30.0)
_differs("parseRetryAfterHeaderMs", [11], "stricter", wait=None)
_differs("parseRetryAfterHintMs", [3], "understood", wait=0.0015)

# --- URLs, headers, switches, logs ----------------------------------------------------------------

_URL: Final = "rewriteUrlForCodex"
_differs(_URL, [1, 33, 35], "D-27", outcome="https://chatgpt.com/backend-api/codex/responses")
_differs(_URL, [3, 5, 7], "D-3", outcome="answered from the store")
_differs(_URL, [9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29], "D-27", outcome="404")

_AS_CODEX: Final = {"openai-beta": ABSENT, "originator": ABSENT}
_differs("createCodexHeaders", [1, 3, 5], "asked", **_AS_CODEX)
_differs("createCodexHeaders", [3], "asked", session_id=ABSENT, conversation_id=ABSENT)
_differs("createCodexHeaders", [9], "understood", outcome="sent")

_differs("resolveProxyUrlForRequest", [19], "D-42", proxy=None)
_differs("resolveProxyUrlForRequest", [25], "D-42", proxy="http://a:1")

_differs("getBackgroundResponses", [47, 49, 51, 53, 55, 57], "stricter", outcome="the start stops")
_differs("parseBooleanEnv", [9], "understood", outcome=True)
_differs("parseBooleanEnv", [11], "stricter", outcome="the start stops")

_differs("redaction", [7, 15, 17], "D-37", masked=True)

# --- requests: background -------------------------------------------------------------------------

_BACKGROUND: Final = "backgroundMode"
_differs(_BACKGROUND, range(33, 48, 2), "stricter", outcome="invalid_type: store")
_differs(_BACKGROUND, [49, 51, 53, 55], "stricter", outcome="item_reference_not_found: input[1].id")
_differs(_BACKGROUND, [49, 51, 53, 55], "shape", background=ABSENT)
_differs(_BACKGROUND, [57, 59, 61, 63], "stricter", outcome="invalid_type: background")
_differs(_BACKGROUND, [69], "D-11", outcome="invalid_type: include")
_differs(_BACKGROUND, [65, 67, 71, 73, 75, 77, 83, 85, 89, 93], "D-10", input=SENT)
_differs(_BACKGROUND, [65, 67, 71, 73, 75, 77, 79, 81, 83, 85, 89, 93], "D-6", stream=False)
_differs(_BACKGROUND, [71, 75], "D-15", providerOptions=ABSENT)
_differs(_BACKGROUND, [87], "stricter", outcome="unsupported_parameter: conversation")
_differs(_BACKGROUND, [89], "D-13", model="gpt-4o")

# --- requests: the transform and the layer around it ----------------------------------------------

_LAYER: Final = "transformRequestForCodex"
_differs(_LAYER, [1], "D-2", outcome="sent")
_differs(_LAYER, [3], "D-2", outcome="Responses background mode requires store=true")
_differs(_LAYER, [11], "shape", background=ABSENT)
_differs(_LAYER, [15, 21], "D-2", outcome="invalid_json")
_differs(_LAYER, [17], "stricter", outcome="invalid_type")
_differs(_LAYER, [19], "stricter", outcome="missing_required_parameter: model")
_differs(_LAYER, [25], "D-2", outcome="invalid_type")
_differs(_LAYER, [27], "D-2", outcome="invalid_type: model")

_TRANSFORM: Final = "transformRequestBody"
_differs(_TRANSFORM, [1, 7], "D-17", input=[])
_differs(_TRANSFORM, [3], "stricter", outcome="missing_required_parameter: model")
_differs(_TRANSFORM, [5], "D-2", outcome="invalid_type: model")
_differs(_TRANSFORM, [11], "D-2", outcome="invalid_type")
_differs(_TRANSFORM, [15], "stricter", outcome="unsupported_parameter: conversation")
_differs(_TRANSFORM, [19], "stricter", outcome="item_reference_not_found: input[0].id")
_differs(_TRANSFORM, [23], "stricter", outcome="invalid_type: input[0]")
_differs(_TRANSFORM, [31, 33], "D-2", outcome="invalid_type: include")
_differs(_TRANSFORM, [49], "stricter", outcome="invalid_type: reasoning")
_differs(_TRANSFORM, [77], "stricter", outcome="invalid_type: tools")
_differs(_TRANSFORM, [79], "stricter", outcome="invalid_type: tools[0]")
_differs(_TRANSFORM, [95], "D-13", model=SENT)
_differs(_TRANSFORM, [81, 83], "meaning", tools=SENT)
_differs(_TRANSFORM, [101], "meaning", tools=ABSENT)
_differs(_TRANSFORM, [81, 85, 87, 91, 93, 95, 97, 99, 101, 109], "words", input=SENT)
_differs(_TRANSFORM, [119], "words", effort="xhigh", text=SENT)
_differs(_TRANSFORM, [55], "D-15", providerOptions=ABSENT)
_differs(_TRANSFORM, [55, 65, 67, 69, 71], "D-17", prompt_cache_retention=ABSENT)
_differs(_TRANSFORM, [71], "D-15", providerOptions=ABSENT)

# --- models and settings --------------------------------------------------------------------------

_differs("normalizeModel", [227], "stricter", model="missing_required_parameter: model")
_NAMES: Final = (229, *range(237, 242, 2), *range(245, 264, 2), *range(271, 282, 2))
_differs("normalizeModel", _NAMES, "D-13", model=SENT)
_differs("getModelProfile", [17], "D-13", outcome="unknown")
_differs("getModelConfig", [7], "D-14", reasoningEffort="ultra")
_differs("getModelConfig", [11], "D-14", reasoningEffort="high")
_differs("getModelConfig", [15], "D-13", reasoningEffort=ABSENT)
_differs("getModelConfig", [17], "D-13", outcome="unknown")
_EFFORT: Final = "getReasoningConfig"
_differs(_EFFORT, [65, 67, 69], "asked", effort=ABSENT)
_differs(_EFFORT, [69], "asked", summary="off")
_differs(_EFFORT, [71], "understood", effort="high")
_differs(_EFFORT, [73], "asked", effort="")
_differs(_EFFORT, [77], "stricter", outcome="missing_required_parameter")
_differs(_TRANSFORM, [41], "understood", **{"reasoning.effort": "high"})
_differs(_TRANSFORM, [51], "D-14", **{"reasoning.effort": "low"})
_differs(_TRANSFORM, [57], "D-13", model="gpt-4o")
_differs(_TRANSFORM, [37, 39, 41, 47, 51, 53, 57], "asked", **{"reasoning.summary": ABSENT})
_differs(_TRANSFORM, [43], "asked", **{"reasoning.effort": None, "reasoning.summary": None})
_differs(_TRANSFORM, [45, 47, 57], "asked", **{"reasoning.effort": ABSENT})
_differs(_TRANSFORM, [45], "asked", **{"reasoning.summary": "none"})
_differs(_TRANSFORM, [61], "asked", **{"text.verbosity": None})
_differs(_TRANSFORM, [63], "asked", **{"text.verbosity": ABSENT})
_differs("configResolution", [19, 21], "asked", value=None)
_differs("miscRules", [11, 13], "honest", outcome="no such rule")
_differs("miscRules", [1, 9], "honest", limits="the model")
_differs("miscRules", [19], "stricter", demanded="1.5")

# --- tools and fast sessions ----------------------------------------------------------------------

_TOOLS: Final = "cleanupToolDefinitions"


def _function(name: str, schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "function", "name": name, "parameters": {"type": "object", **schema}}]


def _user(text: str) -> dict[str, Any]:
    return {**_MESSAGE, "content": [{"type": "input_text", "text": text}]}


_A: Final = {"enum": ["a"], "type": "string"}
_differs(_TOOLS, [3], "stricter", outcome="invalid_type: tools")
_differs(_TOOLS, [5], "stricter", outcome="invalid_type: tools[0]")
_differs(
    _TOOLS,
    [19],
    "meaning",
    tools=_function("reqNoProps", {"required": ["a"], "properties": {"a": {}}}),
)
_differs(
    _TOOLS,
    [25],
    "meaning",
    tools=_function("anyMixed", {"properties": {"k": {"anyOf": [_A, {"type": "string"}]}}}),
)
_differs(
    _TOOLS,
    [29],
    "meaning",
    tools=_function("oneOf", {"properties": {"k": {"enum": ["a", "b"], "type": "string"}}}),
)
_differs(
    _TOOLS,
    [33],
    "meaning",
    tools=_function("multi", {"properties": {"k": {"type": ["string", "number"]}}}),
)

_differs("filterHostSystemPromptsWithCachedPrompt", [1, 3, 5, 7, 15], "words", input=SENT)

_PLAN: Final = "resolveFastSessionInputTrimPlan"
_differs(_PLAN, [19], "understood", trivial=True)
_differs(_PLAN, [23], "meaning", applies=False)
_differs(_PLAN, [29], "stricter", applies=False)

_TRIM: Final = "trimInputForFastSession"
_differs(_TRIM, [15, 27], "meaning", input=SENT)
_differs(_TRIM, [21], "stricter", input="invalid_type: input[1]")
_differs(
    _TRIM,
    [33],
    "meaning",
    input=[
        {**_CALL, "call_id": "c1"},
        *(_user(f"u{number}") for number in range(2, 8)),
        {"type": "function_call_output", "call_id": "c1", "output": "ok"},
    ],
)
_differs("responseCompaction", [3], "meaning", items=2)

# --- the life of a background response ------------------------------------------------------------

_LIFE: Final = "pluginEndToEnd"
_differs(_LIFE, [3], "D-4", calls=1)
_differs(_LIFE, [4], "D-5", outcome="200")
_differs(_LIFE, [5], "D-6", state="queued")
_differs(_LIFE, [6], "D-6", outcome="200")
_differs(_LIFE, [3, 4, 5, 6, 14], "D-5", store=False, background=ABSENT)
_differs(_LIFE, [7, 11], "D-4", calls=0)
_differs(_LIFE, [8], "D-3", calls=0)
_differs(_LIFE, [9], "D-7", calls=0, message="Response with id 'resp_bg' not found.")
_differs(_LIFE, [10, 12], "D-4", outcome="200", calls=0)
_differs(_LIFE, [13], "D-8", calls=0, kind="text/event-stream")
_differs(_LIFE, [15], "D-27", path="/backend-api/codex/responses")
_differs(_LIFE, [15], "D-24", message="Not Found")

# --- account-keeping ------------------------------------------------------------------------------

_NOT_TOLD: Final = dict.fromkeys(("input", "cached", "output", "reasoning", "total"))
_differs("budget", [17], "shape", reached=["USD"])
_differs("budget", [19], "shape", key="Global")
_differs("budget", [21], "stricter", outcome="the start stops")
_differs("budget", [23], "D-19", key={"project": "x"})
_differs("usageRow", [1], "D-20", total=1_100, cost=0.0031)
_differs("usageRow", [3, 5], "D-18", **_NOT_TOLD)
_differs("usageRow", [7], "stricter", **_NOT_TOLD)
