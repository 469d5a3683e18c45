"""The command `handrail`."""

import io
import sys
import threading

import click

from handrail import __version__
from handrail.cli.accounts import accounts
from handrail.cli.budgets import budgets
from handrail.cli.config import config
from handrail.cli.db import db
from handrail.cli.explain import explain
from handrail.cli.keys import keys
from handrail.cli.serve import serve
from handrail.cli.status import status, why
from handrail.cli.usage import usage
from handrail.core.redact import scrub
from handrail.core.tracebacks import told
from handrail.errors import ConfigInvalid


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="handrail")
def cli() -> None:
    """A gateway for the OpenAI Responses API."""


cli.add_command(serve)
cli.add_command(config)
cli.add_command(explain)
cli.add_command(db)
cli.add_command(accounts)
cli.add_command(keys)
cli.add_command(usage)
cli.add_command(status)
cli.add_command(why)
cli.add_command(budgets)


def _tell_crashes_safely() -> None:
    # Python's own way of showing what nobody catches quotes whatever was being worked on.
    def crashed(error: BaseException | None) -> None:
        if error is not None:
            sys.stderr.write(f"{told(error)}\n")

    sys.excepthook = lambda _kind, error, _trace: crashed(error)
    sys.unraisablehook = lambda seen: crashed(seen.exc_value)
    threading.excepthook = lambda seen: crashed(seen.exc_value)


def _show(error: click.ClickException) -> None:
    # A key may stand where a name or a flag belongs.
    shown = io.StringIO()
    error.show(shown)
    click.echo(scrub(shown.getvalue()), err=True, nl=False)


def main() -> None:
    """Run the command line: exit status 2 and one line for a wrong setting."""
    _tell_crashes_safely()
    try:
        cli(standalone_mode=False)
    except ConfigInvalid as error:
        click.echo(f"handrail: {error}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
