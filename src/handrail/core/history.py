"""A conversation that goes on from a kept response, as one input.

An upstream without memory wants the whole of it with every call. A chain is walked by its links,
from the latest response back to the first, so that is the order in which it is taken in here.
"""

from dataclasses import replace
from typing import Final

import msgspec
from msgspec import Raw

from handrail.core import items as item_rules
from handrail.core import wire
from handrail.core.lifecycle import State
from handrail.core.wire import Body, CreateRequest
from handrail.errors import Code, RequestRejected

PARAM: Final = "previous_response_id"
SHOWN: Final = 80
"""Characters of an id that are repeated in a message."""

# What a model has said so far. A failed or cancelled response has no answer to go on from.
CONTINUABLE: Final = frozenset({State.COMPLETED, State.INCOMPLETE})

_NOT_YET: Final = "It can be continued when it has ended; poll it, or follow its events."
_NEVER: Final = "Only one that is completed or incomplete has an answer to continue from."

_BODY: Final = msgspec.json.Decoder(Body)


class History:
    """What was said before a request. `max_bytes` bounds its items as JSON, None for no bound."""

    def __init__(self, *, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._turns: list[tuple[Raw | None, Raw]] = []

    @property
    def size(self) -> int:
        """Bytes of JSON taken in so far."""
        return self._bytes

    def take(self, response_id: str, state: State, *, request: bytes, response: bytes) -> None:
        """Take in the response before those so far: its own input, and its output.

        `request` and `response` are JSON as they are kept. Raises RequestRejected for one that
        cannot be continued, and beyond the bound.
        """
        if state not in CONTINUABLE:
            unfinished = state in (State.QUEUED, State.IN_PROGRESS)
            raise RequestRejected(
                Code.RESPONSE_NOT_COMPLETED,
                f"Previous response with id '{response_id}' is {state}. "
                f"{_NOT_YET if unfinished else _NEVER}",
                param=PARAM,
            )
        asked = _BODY.decode(request)
        # Copied: a slice would keep the whole request and response in memory.
        given = asked["input"].copy() if wire.is_set(asked, "input") else None
        output = _BODY.decode(response)["output"].copy()
        self._bytes += len(memoryview(output)) + (0 if given is None else len(memoryview(given)))
        if self._max_bytes is not None and self._bytes > self._max_bytes:
            raise RequestRejected(
                Code.HISTORY_TOO_LARGE,
                f"The conversation before this request is larger than {self._max_bytes} bytes "
                "(background.max_history_bytes). Begin a new one, with a summary as 'input'.",
                param=PARAM,
            )
        self._turns.append((given, output))

    def before(self, request: CreateRequest, *, strips_ids: bool) -> CreateRequest:
        """`request` with the conversation since its beginning as its input.

        `strips_ids`: the upstream looks items up by their ids and has none of these.
        """
        if not self._turns:
            return request
        whole: list[Body] = []
        for given, output in reversed(self._turns):
            if given is not None:
                whole += _items(given, strips_ids=strips_ids)
            whole += filter(_can_travel, _items(output, strips_ids=strips_ids))
        if request.has("input"):
            whole += item_rules.as_items(request.body["input"])
        return replace(request, body={**request.body, "input": wire.raw(whole)}, whole=True)


def _items(value: Raw, *, strips_ids: bool) -> list[Body]:
    items, heads = item_rules.read(value)
    if strips_ids:
        item_rules.strip_ids(items, heads)
    return items


def _can_travel(item: Body) -> bool:
    """Whether an output item means anything to an upstream that has kept nothing of it.

    A reasoning item that holds neither its encrypted content nor its text is only a name for what
    the upstream has forgotten, and OpenAI answers 400 or 404 to such a name.
    """
    if item_rules.item_type(item) != "reasoning":
        return True
    return any(
        wire.is_set(item, name) and item[name] not in (Raw(b"[]"), Raw(b'""'))
        for name in ("encrypted_content", "content")
    )


def not_found(missing: str, *, previous: str) -> RequestRejected:
    """The refusal for a chain that leads to `missing`, of which nothing is kept for this caller.

    `previous` is what the request names. The words are the same whether the id is unknown,
    deleted, expired, or another caller's.
    """
    if missing != previous:
        text = (
            f"Previous response with id '{missing[:SHOWN]}' not found: it was deleted, and "
            f"'{previous[:SHOWN]}' goes on from it. Send the whole conversation as 'input'."
        )
    else:
        text = (
            f"Previous response with id '{missing[:SHOWN]}' not found: this gateway keeps only "
            "background responses ([background] enabled) and, for callers with [callers.NAME] "
            'store = "keep" or "keep_all", foreground ones, each for its retention. Otherwise '
            "send the whole conversation as 'input'."
        )
    return RequestRejected(Code.PREVIOUS_RESPONSE_NOT_FOUND, text, param=PARAM)
