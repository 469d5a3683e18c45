"""`handrail usage`: what upstream calls have used and cost, from the ledger."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import click
import msgspec

from handrail.cli.serve import load_settings
from handrail.core.report import COUNTS, GROUPS, Line, UsageSum, bar, lines, total
from handrail.core.usage_query import BY, SINCE, UsageQuery, answer, counts, read_query
from handrail.errors import ConfigInvalid, RequestRejected
from handrail.settings.model import Settings

_WIDTH: Final = 24
_HEADS: Final = ("calls", "failed", "input", "cached", "output", "reasoning", "USD")
# What a spreadsheet would take for a formula: models are named by callers.
_FORMULA: Final = ("=", "+", "-", "@")


@click.command()
@click.option("--config", "config_file", metavar="FILE", help="Settings file (TOML).")
@click.option("--data-dir", metavar="DIR", help="Where the ledger is.")
@click.option(
    "--since",
    default=SINCE,
    metavar="WHEN",
    help="From when on: a day (2026-11-01), or how long ago (12h, 7d). By default 30d.",
)
@click.option("--until", metavar="WHEN", help="Up to when, likewise; by default now.")
@click.option(
    "--by",
    default=BY,
    metavar="GROUPS",
    help=f"What belongs together, of {', '.join(GROUPS)}, with commas between (model).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a line of heads.")
def usage(
    *, since: str, until: str | None, by: str, as_json: bool, as_csv: bool, **parameters: Any
) -> None:
    """Show what upstream calls have used and cost; also while the gateway runs.

    A cost is by the price list at the time of the call. Calls without a known price or use are told
    apart, and never counted as free.
    """
    if as_json and as_csv:
        raise click.UsageError("Give --json or --csv, not both.")
    settings = load_settings(parameters, credentials=False)
    zone = ZoneInfo(settings.values["ledger.time_zone"])
    now = datetime.now(UTC).astimezone(zone)  # noqa: TID251 - a command line has no clock to take
    query = _query(since=since, until=until, by=by, now=now)
    found = lines(_sums(settings, query), by=query.by, zone=zone)
    if as_json:
        click.echo(_json(found, query))
    elif as_csv:
        click.echo(_csv(found, query.by), nl=False)
    else:
        click.echo(f"{query.since:%Y-%m-%d %H:%M} to {query.until:%Y-%m-%d %H:%M} ({zone.key})\n")
        click.echo("\n".join(_table(found, query.by)) if found else "No upstream calls.")


def _query(*, now: datetime, **words: Any) -> UsageQuery:
    try:
        return read_query(**words, now=now)
    except RequestRejected as error:
        said, name = error.fault.message, error.fault.param
        raise click.UsageError(said.replace(f"'{name}'", f"--{name}", 1)) from None


def _sums(settings: Settings, query: UsageQuery) -> Iterable[UsageSum]:
    from handrail.bootstrap.data_dir import LEDGER  # noqa: PLC0415 - both are slow to import
    from handrail.store.ledger import read_usage  # noqa: PLC0415

    path: Path = settings.data_dir / LEDGER
    if not path.is_file():
        raise ConfigInvalid(f"{settings.data_dir}: there is no usage ledger ({LEDGER}).")
    return read_usage(
        path,
        since=query.since.timestamp(),
        until=query.until.timestamp(),
        by=query.by,
    )


# --- shapes ----------------------------------------------------------------------------------


def _json(found: Sequence[Line], query: UsageQuery) -> str:
    body = {"version": 1, **answer(found, query)}
    return msgspec.json.format(msgspec.json.encode(body)).decode()


def _csv(found: Sequence[Line], groups: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*groups, *counts(Line(key=()))])
    for line in found:
        words = [
            f"'{word}" if word.startswith(_FORMULA) and word != "-" else word for word in line.key
        ]
        writer.writerow([*words, *("" if v is None else v for v in counts(line).values())])
    return out.getvalue()


def _table(found: Sequence[Line], groups: Sequence[str]) -> list[str]:
    whole = total(found)
    body = [[*map(_plain, line.key), *_cells(line)] for line in found]
    last = ["total", *[""] * (len(groups) - 1), *_cells(whole)]
    rows = [[*groups, *_HEADS], *body, last]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    bars = ["", *(bar(line, found, width=_WIDTH) for line in found), ""]
    shown = []
    for row, drawn in zip(rows, bars, strict=True):
        left = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells = [*left[: len(groups)], *right[len(groups) :]]
        shown.append("  ".join([*cells, drawn]).rstrip())
    if whole.unpriced:
        calls = "1 call has" if whole.unpriced == 1 else f"{whole.unpriced} calls have"
        shown += ["", f"{calls} no known price or use: not in the sums of USD (?)."]
    return shown


def _cells(line: Line) -> list[str]:
    counts = [f"{getattr(line, count):,}" for count in COUNTS]
    usd = "?" if line.usd is None else f"{line.usd:,.4f}" + (" + ?" if line.unpriced else "")
    return [*counts, usd]


def _plain(text: str) -> str:
    # A terminal obeys what it is shown.
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
