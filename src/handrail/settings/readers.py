"""How a setting is read: from what a file, variable or flag has to a value, or ConfigInvalid."""

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from handrail.core.durations import read_duration
from handrail.core.passing import is_entry
from handrail.core.select import MAX_TAGS
from handrail.errors import ConfigInvalid

Reader = Callable[[Any, str], Any]

# Bounded, because Python refuses to read an integer of thousands of digits.
_VERSION: Final = re.compile(r"[A-Za-z0-9.-]{1,40}")
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


def text(value: Any, name: str) -> str:
    """A text that is not empty, without blanks around it. Raises ConfigInvalid."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigInvalid(f"{name}: must be a text that is not empty.")
    return value.strip()


def path(value: Any, name: str) -> Path:
    """A path, with `~` for the user's own directory. Raises ConfigInvalid."""
    return Path(text(value, name)).expanduser()


def texts(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts; a variable or flag has commas between them. Raises ConfigInvalid."""
    entries = [part for part in value.split(",") if part] if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(
        isinstance(entry, str) and entry.strip() for entry in entries
    ):
        raise ConfigInvalid(f"{name}: must be a list of texts that are not empty.")
    return tuple(entry.strip() for entry in entries)


def tags(value: Any, name: str) -> tuple[str, ...]:
    """A list of tags of accounts, each once. Raises ConfigInvalid."""
    found = tuple(dict.fromkeys(texts(value, name)))
    if len(found) > MAX_TAGS or not all(NAME.fullmatch(tag) for tag in found):
        raise ConfigInvalid(
            f"{name}: must be a list of at most {MAX_TAGS} tags of 1 to 64 letters, digits, '-', "
            "'_' and '.'."
        )
    return found


def words(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts that may hold commas, so never one text. Raises ConfigInvalid."""
    if isinstance(value, str):
        raise ConfigInvalid(f"{name}: must be a list of words.")
    return texts(value, name)


def passed_paths(value: Any, name: str) -> tuple[str, ...]:
    """A list of paths below a base URL that may be passed through. Raises ConfigInvalid."""
    found = words(value, name)
    for entry in found:
        if not is_entry(entry):
            raise ConfigInvalid(
                f"{name}: must be paths such as '/embeddings', or '/files/*' for all below it; "
                f"{entry[:80]!a} is none, and no '/responses' or '/models' is passed through."
            )
    return found


def version(value: Any, name: str) -> str:
    """A version of an API, as a parameter of a URL takes it. Raises ConfigInvalid."""
    found = text(value, name)
    if not _VERSION.fullmatch(found):
        raise ConfigInvalid(f"{name}: must be 1 to 40 letters, digits, '.' and '-'.")
    return found


def integer(low: int, high: int) -> Reader:
    """A reader of whole numbers from `low` to `high`. It raises ConfigInvalid."""

    def read(value: Any, name: str) -> int:
        if isinstance(value, str):
            value = int(value) if _DIGITS.fullmatch(value.strip()) else None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigInvalid(f"{name}: must be a whole number from {low} to {high}.")
        return value

    return read


def some_of(known: Collection[int]) -> Reader:
    """A reader of a list of `known` numbers. It raises ConfigInvalid."""

    def read(value: Any, name: str) -> tuple[int, ...]:
        # `True` is an int to Python, and equal to 1.
        if not isinstance(value, list) or any(type(n) is not int or n not in known for n in value):
            said = ", ".join(map(str, sorted(known)))
            raise ConfigInvalid(f"{name}: must be a list of some of {said}.")
        return tuple(value)

    return read


def duration(low: int, high: int) -> Reader:
    """A reader of durations, from `low` to `high` seconds. It raises ConfigInvalid."""

    def read(value: Any, name: str) -> int:
        if isinstance(value, str):
            value = read_duration(value.strip())
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigInvalid(
                f'{name}: must be a duration such as "90s", "15m", "24h" or "7d", '
                f"from {low} to {high} seconds."
            )
        return value

    return read


def word(*known: str) -> Reader:
    """A reader of one of the `known` words. It raises ConfigInvalid."""

    def read(value: Any, name: str) -> str:
        if value not in known:
            raise ConfigInvalid(f"{name}: must be one of {', '.join(known)}.")
        return str(value)

    return read


def boolean(value: Any, name: str) -> bool:
    """True or false. Raises ConfigInvalid."""
    if not isinstance(value, bool):
        raise ConfigInvalid(f"{name}: must be true or false.")
    return value


def chains(value: Any, name: str) -> Mapping[str, tuple[str, ...]]:
    """By model, a list of others. Raises ConfigInvalid."""
    if not isinstance(value, dict):
        raise ConfigInvalid(f'{name}: must be a table such as "model" = ["another", "a third"].')
    return MappingProxyType(
        {model: texts(chain, f"{name}.{model}") for model, chain in value.items()}
    )


def zone(value: Any, name: str) -> str:
    """The name of a time zone that this machine knows. Raises ConfigInvalid."""
    found = text(value, name)
    try:
        ZoneInfo(found)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigInvalid(
            f'{name}: must be a time zone of this machine, such as "UTC" or "Europe/Berlin".'
        ) from None
    return found
