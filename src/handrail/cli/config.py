"""`handrail config`: what the settings are and where each came from."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
import msgspec

from handrail.cli.serve import load_settings, setting_flags
from handrail.core.explain import MAX_SHOWN
from handrail.core.redact import hidden
from handrail.errors import ConfigInvalid
from handrail.settings.explained import explained

if TYPE_CHECKING:
    from handrail.settings.importing import Imported


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@setting_flags
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def explain(*, as_json: bool, **parameters: Any) -> None:
    """Print every setting with its value and where it came from; secrets are masked.

    A key that is not set is shown as such; `serve` would stop there.
    """
    rows = explained(load_settings(parameters, credentials=False))
    if as_json:
        body = {path: {"value": value, "source": source} for path, value, source in rows}
        click.echo(msgspec.json.format(msgspec.json.encode(body)).decode())
        return
    wide = max(len(path) for path, _, _ in rows)
    longest = max(len(value) for _, value, _ in rows)
    for path, value, source in rows:
        click.echo(f"{path:<{wide}}  {value:<{min(longest, 48)}}  {source}")


# --- import -------------------------------------------------------------------------------------

_MAX_IMPORT: Final = 1 << 20


@config.command(name="import")
@click.argument("settings", type=click.File("rb"), metavar="SETTINGS.json")
@click.option("--write", "target", metavar="FILE", help="Write a settings file; it must be new.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def import_(*, settings: BinaryIO, target: str | None, as_json: bool) -> None:
    """Read the settings of codex-multi-auth, its variables too, and say what becomes of each.

    SETTINGS.json is its settings.json or an older config.json, or a host's file whose
    `provider.openai` has options and models; `-` for stdin. Accounts are not imported.
    """
    # Imported here: a start of the gateway needs none of it.
    from handrail.settings.importing import imported, toml  # noqa: PLC0415

    found = imported(_json_object(settings), os.environ)
    if target is not None:
        _write_new(Path(target), toml(found))
    if as_json:
        click.echo(json.dumps([_row(entry) for entry in found], indent=2))
        return
    for row in map(_row, found):
        there = f" -> {row['setting']} = {row['written']}" if row["setting"] else ""
        reason = f"  ({row['reason']})" if row["reason"] else ""
        click.echo(f"{row['verdict']:<14}  {row['name']} = {row['value']}{there}{reason}")
    count = len([entry for entry in found if entry.path])
    click.echo(f"{count} of {len(found)} values have a setting here.")
    if target is not None:
        click.echo(f"Written to {target}. Look at it: handrail config explain --config {target}")


def _json_object(file: BinaryIO) -> Mapping[str, Any]:
    data = file.read(_MAX_IMPORT + 1)
    try:
        if len(data) > _MAX_IMPORT:
            raise ValueError
        read = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise ConfigInvalid(f"{file.name}: is no JSON of at most {_MAX_IMPORT} bytes.") from None
    if not isinstance(read, dict):
        raise ConfigInvalid(f"{file.name}: must hold a JSON object.")
    return read


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be written: {error.strerror}.") from None


def _row(entry: "Imported") -> dict[str, str]:
    # The file may be anybody's, and hold anything: what looks secret is not shown.
    return {
        "name": _plain(entry.name),
        "source": _plain(entry.source),
        "value": _json_text({entry.name.rpartition(".")[2]: entry.value}),
        "verdict": entry.verdict.value,
        "setting": _plain(".".join(entry.path)),
        "written": _json_text({"": entry.written}) if entry.path else "",
        "reason": _plain(entry.reason),
    }


def _json_text(table: Mapping[str, Any]) -> str:
    """The one value of a table, masked where its name or its look is that of a secret."""
    (value,) = hidden(dict(table)).values()
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _plain(text: str) -> str:
    return text.encode("unicode_escape").decode()
