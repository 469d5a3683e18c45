"""`handrail budgets`: what is used of every budget, from the settings and the ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

import click
import msgspec

from handrail.cli.serve import load_settings
from handrail.core.budget_report import shown
from handrail.core.budgets import Charge, span
from handrail.settings.model import Settings

_SCOPE: Final = ("caller", "project", "model", "account")
_HEADS: Final = ("budget", "of", "window", "USD", "tokens", "requests", "state", "resets")


@click.command()
@click.option("--config", "config_file", metavar="FILE", help="Settings file (TOML).")
@click.option("--data-dir", metavar="DIR", help="Where the ledger is.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def budgets(*, as_json: bool, **parameters: Any) -> None:
    """Show what is used of every budget; also while the gateway runs.

    By the settings as they are read now and the rows of the ledger. What is reserved for calls
    under way only the gateway knows: GET /admin/budgets.
    """
    settings = load_settings(parameters, credentials=False)
    zone = ZoneInfo(settings.values["ledger.time_zone"])
    now = datetime.now(UTC).timestamp()  # noqa: TID251 - a command line has no clock to take
    found = _found(settings, zone, now=now)
    if as_json:
        body = msgspec.json.encode({"version": 1, "budgets": found})
        click.echo(msgspec.json.format(body).decode())
    elif found:
        click.echo("\n".join(_table(found, zone)))
    else:
        click.echo("No budgets.")


def _found(settings: Settings, zone: ZoneInfo, *, now: float) -> list[dict[str, Any]]:
    from handrail.bootstrap.data_dir import LEDGER  # noqa: PLC0415 - both are slow to import
    from handrail.store.ledger import read_spent  # noqa: PLC0415

    @cache
    def spent(since: float) -> Sequence[Charge]:
        return read_spent(settings.data_dir / LEDGER, since=since)

    rows = []
    for budget in settings.accounting.budgets:
        window = span(budget.window, now, zone)
        used = budget.used(spent(window.start))
        rows.append(shown(budget, window=window, used=used, reserved=None))
    return rows


def _table(found: Sequence[dict[str, Any]], zone: ZoneInfo) -> list[str]:
    rows = [_HEADS, *(_row(budget, zone) for budget in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(budget: dict[str, Any], zone: ZoneInfo) -> tuple[str, ...]:
    used = budget["used"]
    resets = datetime.fromtimestamp(budget["resets_at"], zone)
    return (
        budget["name"],
        ", ".join(f"{key} {budget[key]}" for key in _SCOPE if budget[key] is not None) or "all",
        budget["window"],
        _of(used["cost_usd"], budget["max_cost_usd"], form=",.2f"),
        _of(used["tokens"], budget["max_tokens"], form=",d"),
        _of(used["requests"], budget["max_requests"], form=",d"),
        budget["state"],
        f"{resets:%Y-%m-%d %H:%M}",
    )


def _of(used: float, limit: float | None, *, form: str) -> str:
    return f"{used:{form}}" if limit is None else f"{used:{form}} of {limit:{form}}"
