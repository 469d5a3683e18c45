"""What a server has beside create: `compact` and `input_tokens`."""

from tests.scripted_upstream.script import Json, last_user_text

ENDPOINTS = {"openai": ("compact", "input_tokens"), "codex": ("compact",)}


def compaction(body: Json, number: int) -> Json:
    """The user messages among the input's items, then one item that stands for all the rest.

    The API documents the user messages, but the SDK's strict models (3.54) do not know them in an
    output: a text as input gives an answer without any.
    """
    given = body.get("input") or []
    items = given if isinstance(given, list) else []
    said = [item for item in items if item.get("role") == "user"]
    sealed = {"type": "compaction", "id": f"cmp_{number}", "encrypted_content": "gAAAA-compacted"}
    return {
        "id": f"resp_upstream{number}",
        "object": "response.compaction",
        "created_at": 1_700_000_000,
        "output": [*(_message(item, f"msg_{number}_{n}") for n, item in enumerate(said)), sealed],
        "usage": {
            "input_tokens": 7,
            "output_tokens": 9,
            "total_tokens": 16,
            "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 3},
        },
    }


def _message(item: Json, message_id: str) -> Json:
    content = item.get("content") or ""
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    message = {"type": "message", "id": message_id, "status": "completed", "role": "user"}
    return {**message, "content": content}


def input_tokens(body: Json) -> Json:
    """A count, one a word."""
    return {"object": "response.input_tokens", "input_tokens": len(last_user_text(body).split())}
