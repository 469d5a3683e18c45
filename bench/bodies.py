"""The requests that are sent: small ones, and one as large as a coding session's.

What the benchmark's upstream shall do stands in the model name, because every gateway passes that
on unread: `bench events=400 rate=50 tag=x hold=head`. See `upstream.py` for the words.
"""

import json
from typing import Any

SMALL_BYTES = 512
LARGE_BYTES = 109 * 1024

_PROSE = (
    "def add(first, second):\n"
    '    """The sum of two numbers, \\"as is\\"."""\n'
    "    return first + second  # nothing to see here, the tests pass\n"
)


def small(script: str = "", *, stream: bool = False, background: bool = False) -> bytes:
    """A request of half a kilobyte with one message."""
    body: dict[str, Any] = {
        "model": f"bench {script}".strip(),
        "stream": stream,
        "instructions": "You are terse.",
        "input": [_message("user", "")],
    }
    if background:
        body["background"] = True
    missing = SMALL_BYTES - len(_encode(body))
    body["input"] = [_message("user", "x" * missing)]
    return _encode(body)


def large(script: str = "", *, stream: bool = False) -> bytes:
    """A request of 109 KiB: a long list of messages, calls and their outputs, all with ids."""
    items: list[dict[str, Any]] = []
    size = 0
    while size < LARGE_BYTES - 400:
        number = len(items) // 3
        call = {"call_id": f"call_{number}", "id": f"fc_{number:048}"}
        items += [
            {**_message("assistant", _PROSE), "id": f"msg_{number:048}"},
            {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', **call},
            {
                "type": "function_call_output",
                "call_id": call["call_id"],
                "id": f"fco_{number:048}",
                "output": _PROSE * 4,
            },
        ]
        size = len(_encode(items))
    return _whole(script, items, stream=stream)


def large_text() -> bytes:
    """A request of 109 KiB whose input is one string."""
    text = _PROSE * (LARGE_BYTES // len(json.dumps(_PROSE)))
    return _whole("", text, stream=False)


def _whole(script: str, given: object, *, stream: bool) -> bytes:
    body = {"model": f"bench {script}".strip(), "stream": stream, "instructions": "Be terse."}
    return _encode({**body, "input": given})


def _message(role: str, text: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
