"""`handrail config`: what the settings are and where each came from."""

from collections.abc import Mapping
from typing import Any

import click
import msgspec

from handrail.cli.serve import load_settings, setting_flags
from handrail.core.redact import masked
from handrail.settings.model import Secret, Settings


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


def explained(settings: Settings) -> list[tuple[str, str, str]]:
    """Path, value as shown, and source of every setting and caller."""
    rows = [
        (path, _shown(value), settings.sources[path]) for path, value in settings.values.items()
    ]
    file = str(settings.file) if settings.file else "default"
    tables: dict[str, msgspec.Struct] = {"defaults": settings.defaults}
    tables |= {f'models."{name}"': entry for name, entry in settings.models.items()}
    rows += [
        (f"{place}.{key}", msgspec.json.encode(value).decode(), file)
        for place, table in tables.items()
        for key, value in _said(table)
    ]
    for name, caller in settings.callers.items():
        policy = caller.policy
        key = "generated" if caller.digest is None else f"sha256 {masked(caller.digest.hex())}"
        missing = settings.sources.get(f"callers.{name}.key")
        rows += [
            (f"callers.{name}.key", "(not set)" if missing else key, missing or file),
            (f"callers.{name}.background", policy.background.value, file),
            (f"callers.{name}.store", policy.store.value, file),
            (f"callers.{name}.store_false", policy.store_false.value, file),
            (f"callers.{name}.max_running", str(policy.max_running), file),
            (f"callers.{name}.max_queued", str(policy.max_queued), file),
            (f"callers.{name}.retention", f"{policy.retention_seconds}s", file),
        ]
    return rows


def _said(table: msgspec.Struct) -> list[tuple[str, object]]:
    """The keys of a table that say something."""
    said = ((field, getattr(table, field.name)) for field in msgspec.structs.fields(table))
    return [(field.name, value) for field, value in said if value not in (field.default, {})]


def _shown(value: Any) -> str:
    if isinstance(value, Secret):
        return masked(value.reveal())
    if isinstance(value, tuple):
        return ", ".join(value) or "(none)"
    if isinstance(value, Mapping):
        chains = (f"{name}: {' > '.join(chain)}" for name, chain in value.items())
        return "; ".join(chains) or "(none)"
    return "(not set)" if value is None else str(value)
