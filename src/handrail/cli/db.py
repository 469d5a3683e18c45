"""`handrail db`: look after the run store."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from handrail.cli.serve import F, load_settings

if TYPE_CHECKING:
    from handrail.bootstrap.upkeep import Kept


@click.group()
def db() -> None:
    """Check, copy, shrink and re-key the run store."""


def store_flags(command: F) -> F:
    """Add the flags that say which data directory is meant."""
    command = click.option("--data-dir", metavar="DIR", help="Where runs and keys are kept.")(
        command
    )
    return click.option("--config", "config_file", metavar="FILE", help="Settings file (TOML).")(
        command
    )


def _kept(parameters: dict[str, Any]) -> "Kept":
    from handrail.bootstrap.upkeep import kept  # noqa: PLC0415 - the store is slow to import

    return kept(load_settings(parameters, credentials=False))


@db.command()
@store_flags
@click.option("--quick", is_flag=True, help="Open no value: structure, numbers and counts only.")
def check(*, quick: bool, **parameters: Any) -> None:
    """Look whether the store is whole. Exit status 1 and one line a problem when it is not.

    Reads only, also while the gateway runs. Nothing of what is kept is printed.
    """
    looked = _kept(parameters).check(quick=quick)
    problems = 0
    for problem in looked.problems():
        problems += 1
        click.echo(str(problem))
    found = "nothing is wrong" if not problems else f"{problems} problems"
    click.echo(f"{looked.runs} runs looked at; {found}", err=bool(problems))
    sys.exit(1 if problems else 0)


@db.command()
@store_flags
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def backup(file: Path, **parameters: Any) -> None:
    """Copy the store into FILE, a new one; also while the gateway runs."""
    kept = _kept(parameters)
    size = kept.backup(file)
    click.echo(f"{file}: {size} bytes.")
    click.echo(
        f"The store key is not in it: keep a copy of {kept.key_is_in} elsewhere. Without the key "
        "nobody can read the copy."
    )


@db.command()
@store_flags
def vacuum(**parameters: Any) -> None:
    """Give free space back to the disk. The gateway must be stopped."""
    before, after = _kept(parameters).vacuum()
    click.echo(f"{before} bytes before, {after} bytes after.")


@db.command("rotate-key")
@store_flags
def rotate_key(**parameters: Any) -> None:
    """Seal everything kept under a new store key. The gateway must be stopped.

    Backups from before need the key from before: copy it first if you want to read them.
    """
    kept = _kept(parameters)
    runs = kept.rotate_key()
    click.echo(f"{runs} runs are sealed under a new key, in {kept.key_file}.")
