"""`providerOptions.openai`, as the AI SDK spells it: read into the body, then left out.

The body's own field always wins. Only the literal table below is read; any other option is
reported as dropped, never forwarded (D-15 of the reference).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Raw

from handrail.core import wire
from handrail.core.wire import Body, Kind

# option -> field of the body, or `field.key` of an object in it
FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "instructions": "instructions",
        "maxToolCalls": "max_tool_calls",
        "metadata": "metadata",
        "parallelToolCalls": "parallel_tool_calls",
        "promptCacheKey": "prompt_cache_key",
        "promptCacheRetention": "prompt_cache_retention",
        "reasoningEffort": "reasoning.effort",
        "reasoningSummary": "reasoning.summary",
        "safetyIdentifier": "safety_identifier",
        "serviceTier": "service_tier",
        "textVerbosity": "text.verbosity",
        "truncation": "truncation",
        "user": "user",
    }
)

KINDS: Final[Mapping[str, tuple[Kind, ...]]] = MappingProxyType(
    {option: wire.CREATE_FIELDS.get(field, (Kind.STRING,)) for option, field in FIELDS.items()}
)


def merge(body: Body, options: Mapping[str, Raw]) -> tuple[list[str], list[str]]:
    """Put what `options` say and `body` does not into `body`; fields that were set, options left.

    Raises RequestRejected for an option of a wrong type, and for a `reasoning` or `text` that
    cannot be read.
    """
    wire.check_kinds(options, KINDS, prefix="providerOptions.openai.")
    taken, left = [], []
    for option in options:
        if option in wire.PROVIDER_FIELDS or not wire.is_set(options, option):
            continue
        path = FIELDS.get(option)
        if path is None:
            left.append(option)
            continue
        field, _, key = path.partition(".")
        if key:
            inner = wire.nested(body, field)
            if wire.is_set(inner, key):
                continue
            body[field] = wire.raw({**inner, key: options[option]})
        elif wire.is_set(body, field):
            continue
        else:
            body[field] = options[option]
        taken.append(path)
    return taken, left
