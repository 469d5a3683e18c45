"""What can be mended of a refused call, so that it may be made once more in another form.

Only after an answer that proves that the call did not run (400, 403, 404, 422): never-twice is
not touched by it.
"""

from collections.abc import Mapping, Sequence

from handrail.core.profiles import ENCRYPTED_REASONING
from handrail.core.rewrite import UpstreamRequest
from handrail.core.upstream_errors import is_about_model
from handrail.errors import HandrailError, UpstreamRefused


def mended(
    request: UpstreamRequest,
    error: HandrailError,
    *,
    fallbacks: Mapping[str, Sequence[str]],
) -> UpstreamRequest | None:
    """The form to try after `error`, None when there is none.

    What we added to `include` is taken back, once (G7). A model that the upstream does not serve
    gives way to the next of its `fallbacks`, by the name that the caller gave or else by the one
    that was sent for it; without an entry nothing is ever changed.
    """
    if request.added_include and _is_about_include(error):
        return request.without_added_include()
    if is_about_model(error):
        tried = request.models
        chain: Sequence[str] = next((fallbacks[name] for name in tried if name in fallbacks), ())
        left = [model for model in chain if model not in tried]
        return request.with_model(left[0]) if left else None
    return None


def _is_about_include(error: HandrailError) -> bool:
    if not isinstance(error, UpstreamRefused) or error.upstream_status not in (400, 422):
        return False
    about = f"{error.fault.param} {error.fault.message}".lower()
    return "include" in about or ENCRYPTED_REASONING in about or "encrypted content" in about
