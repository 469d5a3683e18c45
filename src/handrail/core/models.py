"""The list of models, in one body that the SDKs and Codex CLI both can read.

The SDKs read `data`, Codex CLI reads `models`, and each leaves the other's key alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from handrail.core import wire
from handrail.core.wire import Body
from handrail.errors import Code, UpstreamFailed

_ENTRIES: Final = msgspec.json.Decoder(list[Raw])


class _Slug(msgspec.Struct):
    """What of a Codex entry names the model."""

    slug: str


class _Id(msgspec.Struct):
    """What of an SDK entry names the model."""

    id: str


_SLUG: Final = msgspec.json.Decoder(_Slug)
_ID: Final = msgspec.json.Decoder(_Id)


def both_shapes(body: Mapping[str, Raw]) -> Body:
    """The upstream's list with `data` and `models`; what it has given itself stays as it is.

    From `models` alone (the Codex backend) `data` is derived. From `data` alone there is nothing
    to derive: Codex's entries describe prompts and tools that only its own backend knows, and an
    empty list makes it use its built-in catalogue. Raises UpstreamFailed when neither is a list.
    """
    shaped = dict(body)
    if not _is_list(body, "data"):
        if not _is_list(body, "models"):
            raise UpstreamFailed(
                Code.UPSTREAM_PROTOCOL_ERROR,
                "The upstream's list of models has neither 'data' nor 'models'.",
            )
        shaped["data"] = wire.raw([_derived(slug) for slug in _slugs(body["models"])])
    if not _is_list(body, "models"):
        shaped["models"] = wire.raw([])
    if not wire.is_set(body, "object"):
        shaped["object"] = wire.raw("list")
    return shaped


def find(body: Mapping[str, Raw], model: str) -> Raw | None:
    """The entry of `data` with this id in a list of both shapes, None when there is none."""
    # An entry that nobody could read is not the one.
    return next((e for e in _entries(body["data"]) if _name(e, _ID) == model), None)


def only(body: Mapping[str, Raw], wanted: Callable[[str], bool]) -> Body:
    """A list of both shapes, with those models alone whose name is `wanted`.

    What has no name that can be read, or speaks of the models that are not there, goes too.
    """
    data = [entry for entry in _entries(body["data"]) if wanted(_name(entry, _ID) or "")]
    slugs = [entry for entry in _entries(body["models"]) if wanted(_name(entry, _SLUG) or "")]
    rest = {name: value for name, value in body.items() if name not in ("first_id", "last_id")}
    return {**rest, "data": wire.raw(data), "models": wire.raw(slugs)}


def union(lists: Sequence[Body]) -> Body:
    """Lists of both shapes as one; of equal names the first is there. An empty one of none."""
    if not lists:
        return {"object": wire.raw("list"), "data": wire.raw([]), "models": wire.raw([])}
    if len(lists) == 1:
        return lists[0]
    data: dict[str, Raw] = {}
    slugs: dict[str, Raw] = {}
    for body in lists:
        for entry in _entries(body["data"]):
            data.setdefault(_name(entry, _ID) or "", entry)
        for entry in _entries(body["models"]):
            slugs.setdefault(_name(entry, _SLUG) or "", entry)
    return {
        "object": wire.raw("list"),
        "data": wire.raw([entry for name, entry in data.items() if name]),
        "models": wire.raw([entry for name, entry in slugs.items() if name]),
    }


def _is_list(body: Mapping[str, Raw], field: str) -> bool:
    return wire.is_set(body, field) and wire.kind_of(body[field]) is wire.Kind.ARRAY


def _entries(value: Raw) -> list[Raw]:
    try:
        return _ENTRIES.decode(value)
    except (msgspec.DecodeError, RecursionError):
        # Parsed once already, but how deep a parser gets depends on who calls it.
        raise UpstreamFailed(
            Code.UPSTREAM_PROTOCOL_ERROR, "The upstream's list of models cannot be read."
        ) from None


def _slugs(models: Raw) -> list[str]:
    # Without a name it cannot be asked for.
    names = (_name(entry, _SLUG) for entry in _entries(models))
    return [name for name in names if name is not None]


def _name(
    entry: Raw, decoder: "msgspec.json.Decoder[_Id] | msgspec.json.Decoder[_Slug]"
) -> str | None:
    try:
        found = decoder.decode(entry)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found.id if isinstance(found, _Id) else found.slug


def _derived(slug: str) -> dict[str, object]:
    # `created` is required by the SDK's model and unknown here.
    return {"id": slug, "object": "model", "created": 0, "owned_by": "openai"}
