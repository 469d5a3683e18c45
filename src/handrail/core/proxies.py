"""Through which proxy a URL is called, by the environment variables that other programs obey.

Held against the recorded behaviour of the reference implementation. On purpose otherwise: this
machine is never called through a proxy (an operator who sets one up for the world outside would
lose the local model server, or show its traffic to the proxy); ALL_PROXY is read; CIDR works in
NO_PROXY; a proxy of a kind that is not spoken is an error and not a direct call.
"""

import ipaddress
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, urlsplit

from handrail.errors import ConfigInvalid

PROXY_VARIABLES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
"""What is read, each under its lower-case name first."""

# Whose proxy a URL takes, strongest first. That HTTP_PROXY serves https too is the reference's
# rule; whoever wants another one for https says so in HTTPS_PROXY.
_ORDER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"https": ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), "http": ("HTTP_PROXY", "ALL_PROXY")}
)
_DEFAULT_PORT: Final[Mapping[str, int]] = MappingProxyType({"https": 443, "http": 80})
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,19})://")
_WHOLE: Final = re.compile(r"[a-zA-Z]+://[^\x00-\x20/?#\\\x7f-\U0010ffff]+/?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """The URL of the proxy for a valid http or https `url`, None for a direct call.

    It can hold a user name and password. Raises ConfigInvalid, in a line that names the variable
    and not its value, for a proxy that cannot be used.
    """
    name = proxy_variable(url, environment)
    return None if name is None else _checked(environment[name].strip(), name)


def proxy_variable(url: str, environment: Mapping[str, str]) -> str | None:
    """The name of the variable, as it is spelled in the environment, that decides for `url`."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    address = _address(host)
    if _is_here(host, address) or _is_exempt(parts, host, environment=environment):
        return None
    for name in _ORDER.get(parts.scheme, ()):
        spelled = _spelled(name, environment)
        if environment.get(spelled, "").strip():
            return spelled
    return None


def _spelled(name: str, environment: Mapping[str, str]) -> str:
    # The lower-case name shadows the other even when it is empty: that is how one says "none".
    return name.lower() if name.lower() in environment else name


def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_here(host: str, address: Address | None) -> bool:
    if address is not None:
        return address.is_loopback or address.is_unspecified  # 0.0.0.0 is how servers print it
    return host == "localhost" or host.endswith(".localhost")


def _is_exempt(parts: SplitResult, host: str, *, environment: Mapping[str, str]) -> bool:
    text = environment.get(_spelled("NO_PROXY", environment), "")
    port = parts.port or _DEFAULT_PORT.get(parts.scheme)
    return any(_matches(entry, host, port=port) for entry in re.split(r"[\s,]+", text.lower()))


def _matches(entry: str, host: str, *, port: int | None) -> bool:
    """Whether one entry of NO_PROXY, in lower case, means this host and port.

    An entry means what is written: `a.com` that host alone, `.a.com` what is below it and not it
    (as in Go and the reference; curl and Python take it for both), `*a.com` all that ends so.
    What is no entry at all matches nothing, for the list is shared with programs that know more.
    """
    if entry == "*":
        return True
    if "/" in entry:
        return _is_within(entry, _address(host))
    name, wanted = _split_port(entry)
    if wanted is not None and wanted != str(port):
        return False
    if name.startswith((".", "*")):
        return host.endswith(name.removeprefix("*"))
    address = _address(name)
    return address == _address(host) if address is not None else name == host


def _is_within(network: str, address: Address | None) -> bool:
    try:
        return address is not None and address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, str | None]:
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, rest.removeprefix(":") or None
    name, colon, port = entry.partition(":")
    # More than one colon is an IPv6 address without brackets, which leaves no room for a port.
    return (name, port) if colon and ":" not in port else (entry, None)


def _checked(text: str, name: str) -> str:
    found = _SCHEME.match(text)
    if found is None and "://" not in text:
        text = f"http://{text}"  # `host:port` alone is as common
    elif found is None or found[1].lower() not in _DEFAULT_PORT:
        kind = f"{found[1].lower()} proxies are" if found else "this kind of proxy is"
        raise ConfigInvalid(f"{name}: {kind} not supported; use http:// or https://.")
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    # An unescaped / ? or # in a password would end the host there: half the password is no host.
    if not usable or not _WHOLE.fullmatch(text):
        raise ConfigInvalid(f"{name}: the proxy's URL cannot be read.")
    return text
