"""The issuer for a command line, with this machine's clock."""

from handrail.engine.clock import SystemClock
from handrail.settings.model import OAuthSettings
from handrail.upstream.oauth import Issuer


def issuer_of(settings: OAuthSettings) -> Issuer:
    """An issuer to be closed by whoever asked. Raises ConfigInvalid for an unusable proxy."""
    return Issuer(settings, now=SystemClock().now)
