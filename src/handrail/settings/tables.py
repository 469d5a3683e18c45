"""Lists of tables in the settings file, such as `[[budgets]]`, read strictly."""

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from handrail.errors import ConfigInvalid

MAX_LIMIT: Final = 1_000_000_000_000
"""The largest limit of a budget: USD, tokens or requests."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_WHERE: Final = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)

T = TypeVar("T")


def entries(tables: Any, kind: type[T], *, word: str, file: str) -> list[tuple[str, T]]:
    """The tables `[[word]]`, each with its place for errors. Raises ConfigInvalid."""
    if not isinstance(tables, list):
        raise ConfigInvalid(f"{file}: '{word}' must be a list of tables: [[{word}]].")
    found = []
    for number, table in enumerate(tables, start=1):
        place = f"{file}: {word}[{number}]"
        try:
            found.append((place, msgspec.convert(table, kind)))
        except msgspec.ValidationError as error:
            match = _WHERE.fullmatch(str(error))
            words, path = (str(error), "") if match is None else match.groups()
            plain = words.encode("unicode_escape").decode()[:200]
            raise ConfigInvalid(f"{place}{path}: {plain}.") from None
    return found


def check_name(name: str, place: str) -> None:
    """Raise ConfigInvalid unless errors and the log can say the name of a table."""
    if not _NAME.fullmatch(name):
        raise ConfigInvalid(
            f"{place}.name: must be 1 to 64 letters, digits, blanks, '.', '-' and '_'."
        )


def check_unique(names: Sequence[str], *, word: str, file: str) -> None:
    """Raise ConfigInvalid for a name that two tables have."""
    for name in names:
        if names.count(name) > 1:
            raise ConfigInvalid(f"{file}: two {word} have the name '{name}'.")


def amount(value: float | None, place: str, *, most: int = MAX_LIMIT) -> None:
    """Raise ConfigInvalid unless it is from 0 to `most`, or not there."""
    if value is not None and not 0 <= value <= most:  # which also refuses nan
        raise ConfigInvalid(f"{place}: must be a number from 0 to {most}.")
