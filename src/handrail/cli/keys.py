"""`handrail keys`: keys of callers, also while the gateway runs."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from handrail.cli.db import store_flags
from handrail.cli.serve import load_settings
from handrail.core.caller_keys import CallerKey, Standing, Wish, read_lifetime, read_overlap
from handrail.engine.clock import SystemClock
from handrail.errors import ConfigInvalid, HandrailError
from handrail.settings.model import Settings

if TYPE_CHECKING:
    from handrail.engine.caller_keys import CallerKeys, Issued

T = TypeVar("T")

_COLUMNS: Final = (
    "id", "caller", "state", "created_at", "expires_at", "last_used_at", "label",
)  # fmt: skip
_HEADS: Final = ["ID", "CALLER", "STATE", "CREATED", "ENDS", "USED", "LABEL"]


@click.group()
def keys() -> None:
    """Make, list, rotate and revoke keys of callers. A running gateway notices at once."""


def _with_keys(settings: Settings, work: "Callable[[CallerKeys], Awaitable[T]]") -> T:
    """What `work` gives. Raises ConfigInvalid, with the one line that it is refused with."""
    from handrail.bootstrap.keys import opened  # noqa: PLC0415 - the store is slow to import

    async def run(keys: "CallerKeys") -> T:
        return await work(keys)

    try:
        with opened(settings) as found:
            return asyncio.run(run(found))
    except HandrailError as error:
        raise ConfigInvalid(error.fault.message) from None


def _settings(parameters: dict[str, Any]) -> Settings:
    return load_settings(parameters, credentials=False)


@keys.command()
@store_flags
@click.argument("caller", metavar="CALLER")
@click.option("--label", default="", help="What you call it; shown in listings.")
@click.option("--expires", metavar="DURATION", help="When it ends, such as 30d; else never.")
def create(*, caller: str, label: str, expires: str | None, **parameters: Any) -> None:
    """Make a key for CALLER, who must be in the settings.

    The key alone goes to stdout, this one time; its digest is all that is kept.
    """
    settings = _settings(parameters)
    try:
        lifetime = None if expires is None else read_lifetime(expires, param="--expires")
        wish = Wish(caller=caller, label=label, lifetime=lifetime)
    except HandrailError as error:
        raise ConfigInvalid(error.fault.message) from None
    _print_new(_with_keys(settings, lambda keys: keys.create(wish, callers=settings.callers)))


@keys.command(name="list")
@store_flags
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def list_(*, as_json: bool, **parameters: Any) -> None:
    """Print every key that was made: whose it is, whether it opens anything, when it was used.

    Never a key itself, and not the keys that the settings give.
    """
    settings = _settings(parameters)
    now = SystemClock().now()
    found = _with_keys(settings, lambda keys: keys.listed())
    rows = [_row(key, settings, now=now) for key in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("There is no key but those of the settings.")
        return
    table = [_HEADS, *([row[name] or "-" for name in _COLUMNS] for row in rows)]
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, wide, strict=True))
        click.echo("  ".join(cells).rstrip())


@keys.command()
@store_flags
@click.argument("key_id", metavar="KEY-ID")
@click.option(
    "--overlap", metavar="DURATION", default="24h", help="How long the old one lives on (24h)."
)
def rotate(*, key_id: str, overlap: str, **parameters: Any) -> None:
    """Make a successor of a key, with its caller, label and lifetime.

    The old one goes on for the overlap, so that clients can be changed one after another. Responses
    belong to the caller's name: the new key finds all of them.
    """
    settings = _settings(parameters)
    try:
        seconds = read_overlap(overlap, param="--overlap")
    except HandrailError as error:
        raise ConfigInvalid(error.fault.message) from None
    _print_new(
        _with_keys(
            settings, lambda keys: keys.rotate(key_id, callers=settings.callers, overlap=seconds)
        )
    )


@keys.command()
@store_flags
@click.argument("key_id", metavar="KEY-ID")
def revoke(*, key_id: str, **parameters: Any) -> None:
    """End a key for good. What its caller has running goes on: that belongs to the caller."""
    key = _with_keys(_settings(parameters), lambda keys: keys.revoke(key_id))
    click.echo(f"{key.id} of the caller {key.caller} is revoked since {_date(key.revoked_at)}.")


def _print_new(issued: "Issued") -> None:
    key = issued.key
    click.echo(issued.secret.reveal())
    end = f"ends {_date(key.expires_at)}" if key.expires_at is not None else "never ends"
    click.echo(
        f"{key.id} of the caller {key.caller}, {end}. The key is not shown again: only its digest "
        "is kept.",
        err=True,
    )
    if issued.old is not None:
        click.echo(f"{issued.old.id} ends {_date(issued.old.expires_at)}.", err=True)


def _row(key: CallerKey, settings: Settings, *, now: float) -> dict[str, str | None]:
    standing = key.standing(now)
    lost = standing is Standing.ACTIVE and key.caller not in settings.callers
    return {
        "id": key.id,
        "caller": key.caller,
        "state": "caller_gone" if lost else standing.value,
        "label": key.label,
        "created_at": _date(key.created_at),
        "expires_at": _date(key.expires_at),
        "revoked_at": _date(key.revoked_at),
        "last_used_at": _date(key.last_used_at),
    }


def _date(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
