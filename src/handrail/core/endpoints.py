"""`compact` and `input_tokens` as one pure function: whether such a call may leave, and how."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from handrail.core import wire
from handrail.core.caller_policy import CallerPolicy
from handrail.core.catalogue import NOTHING_KNOWN, Catalogue
from handrail.core.policy import Plan, decide_endpoint
from handrail.core.profiles import Endpoint, Profile
from handrail.core.rewrite import UpstreamRequest, endpoint_request
from handrail.core.switch import Switch
from handrail.core.wire import CreateRequest
from handrail.errors import Code, RequestRejected

READERS: Final[Mapping[Endpoint, Callable[[bytes], CreateRequest]]] = MappingProxyType(
    {Endpoint.COMPACT: wire.read_compact, Endpoint.INPUT_TOKENS: wire.read_input_tokens}
)
"""What reads the body of a call to each."""


def require_endpoint(profile: Profile, endpoint: Endpoint) -> None:
    """Raise RequestRejected where upstreams of the profile do not have the endpoint."""
    if endpoint not in profile.endpoints:
        raise RequestRejected(
            Code.UNSUPPORTED_ENDPOINT,
            f"'{endpoint}' is not supported here: upstreams of the profile '{profile.name}' do not "
            "have it.",
        )


def prepare_endpoint(
    request: CreateRequest,
    *,
    endpoint: Endpoint,
    switch: Switch,
    caller: CallerPolicy,
    profile: Profile,
    extra_fields: frozenset[str],
    catalogue: Catalogue = NOTHING_KNOWN,
) -> tuple[Plan, UpstreamRequest]:
    """Decide on a call whose body its reader has read, and rewrite it. Raises RequestRejected."""
    require_endpoint(profile, endpoint)
    plan = decide_endpoint(request, endpoint=endpoint, switch=switch, caller=caller)
    return plan, endpoint_request(
        request, endpoint=endpoint, profile=profile, extra_fields=extra_fields, catalogue=catalogue
    )
