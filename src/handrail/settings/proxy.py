"""The proxy of an address as a value: where it is, and the login that it wants."""

import base64
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from handrail.core.proxies import proxy_for
from handrail.settings.model import Proxy, Secret


def proxy_of(url: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy that the environment names for `url`, None for a direct call.

    Raises ConfigInvalid for a proxy that cannot be used.
    """
    given = proxy_for(url, environment)
    if given is None:
        return None
    parts = urlsplit(given)
    authorization = None
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = Secret(f"Basic {base64.b64encode(login.encode()).decode()}")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return Proxy(url=shown, authorization=authorization)
