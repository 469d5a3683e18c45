"""Settings read the ordinary way, from a file in an empty directory and given variables."""

from collections.abc import Mapping
from typing import Any, Protocol

import pytest

from handrail.errors import ConfigInvalid
from handrail.settings.model import Settings

KEY = "hr_0123456789abcdefXYZ"
OTHER = "hr_zyxwvutsrq9876543210"
KEYS = {"HANDRAIL_CALLER_KEY": KEY, "HANDRAIL_UPSTREAM_API_KEY": "sk-upstream"}
FILE = "handrail.toml"


class Read(Protocol):
    """Writes the settings file, if a text is given, and reads the settings."""

    def __call__(
        self,
        toml: str | None = None,
        *,
        flags: Mapping[str, Any] = ...,
        env: Mapping[str, str] = ...,
        credentials: bool = ...,
    ) -> Settings:
        """The settings. Raises ConfigInvalid."""


def refusal(read: Read, toml: str | None = None, **options: Any) -> str:
    """The one line that stops the start."""
    with pytest.raises(ConfigInvalid) as caught:
        read(toml, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text
