"""The pipeline without a server: what the gateway would send for a body, and why.

This is what `import handrail` offers; `docs/howto/use-as-a-library.md` shows it.
"""

import json
from collections.abc import Mapping
from typing import Any

from handrail.core import prepare as pipeline
from handrail.core import wire
from handrail.core.prepare import Prepared
from handrail.errors import Code, RequestRejected
from handrail.settings.in_process import LibrarySettings


def prepare(
    body: Mapping[str, Any] | bytes | str,
    *,
    settings: LibrarySettings,
    profile: str | None = None,
    caller: str | None = None,
) -> Prepared:
    """Decide on one create as the gateway would, and rewrite it for the upstream.

    `body` is the request: a mapping, or its JSON. `profile` is for another kind of upstream than
    the settings', `caller` the name of the caller whose rules hold (`default`). Nothing is sent,
    read or remembered, and `body` is not changed. Raises RequestRejected for what a guardrail
    forbids, and ConfigInvalid when the settings know no such profile or caller.
    """
    rules = settings if profile is None else settings.for_profile(profile)
    policy, upstream = rules.caller(caller), rules.upstream()
    return pipeline.prepare(
        wire.read_create(encoded(body)),
        switch=rules.switch,
        caller=policy,
        executor=rules.executor,
        upstream=upstream,
        fast_session=rules.fast_session,
    )


def encoded(body: Mapping[str, Any] | bytes | str) -> bytes:
    """The body as JSON. Raises RequestRejected for what is none, such as NaN or an object."""
    if isinstance(body, bytes):
        return body
    try:
        if isinstance(body, str):
            return body.encode()
        if isinstance(body, Mapping):
            # The standard library's encoder, because it refuses NaN where others write null.
            return json.dumps(dict(body), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestRejected(
            Code.INVALID_JSON, f"The body cannot be written as JSON: {error}."
        ) from None
    raise RequestRejected(
        Code.INVALID_TYPE,
        f"Invalid type for the request body: expected an object, but got {type(body).__name__}.",
    )
