"""`handrail accounts`: what upstreams are called with, who is chosen, and why."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from handrail import telemetry
from handrail.cli.login import login_command
from handrail.cli.serve import F, load_settings
from handrail.core.account_files import MAX_BYTES, NoAccounts, of_issuer, read_account_file
from handrail.core.oauth import Grant
from handrail.core.select import MAX_WEIGHT, Choice, State
from handrail.settings.model import Settings
from handrail.store.accounts import written

if TYPE_CHECKING:
    from handrail.bootstrap.pool import AccountBook


@click.group()
def accounts() -> None:
    """Look after the accounts that upstreams are called with; also while the gateway runs."""


def account_flags(command: F) -> F:
    """What says whose accounts they are."""
    command = click.option("--data-dir", metavar="DIR", help="Where accounts are kept.")(command)
    return click.option("--config", "config_file", metavar="FILE", help="Settings file (TOML).")(
        command
    )


def _target(command: F) -> F:
    return click.option("--target", metavar="NAME", help="Of which target (the only one).")(command)


@contextmanager
def opened(settings: Settings, target: str | None = None) -> Iterator["AccountBook"]:
    """The accounts of these settings' data directory, until the block is left."""
    from handrail.bootstrap.pool import AccountBook  # noqa: PLC0415 - an HTTP stack comes along

    telemetry.configure("error")  # a person reads what is printed, not the engine's log
    book = AccountBook(settings, target=target)
    try:
        yield book
    finally:
        book.close()


@contextmanager
def _book(parameters: dict[str, Any], *, target: str | None = None) -> Iterator["AccountBook"]:
    with opened(load_settings(parameters, credentials=False), target) as book:
        yield book


def _keep(settings: Settings, *, name: str | None, target: str | None) -> Callable[[Grant], None]:
    with opened(settings, target) as book:
        book.home(of_login=True)  # known before anybody signs in

    def keep(grant: Grant) -> None:
        with opened(settings, target) as book:
            kept = book.keep_grant(grant, name=name)
        click.echo(f"Signed in. The account is called '{kept}'; `handrail accounts list` shows it.")

    return keep


accounts.add_command(login_command(_keep))


@accounts.command("list")
@account_flags
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_accounts(*, as_json: bool, **parameters: Any) -> None:
    """Every account: what it is, whether it may be used, how much of its quota is used."""
    with _book(parameters) as book:
        pinned = book.pinned()
        rows = [account.shown(pinned=account.id == pinned) for account in book.listed()]
    if as_json:
        click.echo(json.dumps({"accounts": rows}))
        return
    if not rows:
        click.echo("There is no account. Sign in: handrail accounts login")
    for row in rows:
        click.echo(_line(row))


@accounts.command()
@account_flags
@click.argument("name", metavar="NAME")
def show(name: str, **parameters: Any) -> None:
    """All that is known about one account, as JSON; never its credential."""
    with _book(parameters) as book:
        account = book.named(name)
        row = account.shown(pinned=account.id == book.pinned())
    click.echo(json.dumps(row, indent=2))


def _state_command(word: str, state: State, meaning: str) -> None:
    @accounts.command(word, help=meaning)
    @account_flags
    @click.argument("name", metavar="NAME")
    def command(name: str, **parameters: Any) -> None:
        with _book(parameters) as book:
            book.set_state(name, state)
        click.echo(f"{name}: {state}.")


_state_command("pause", State.PAUSED, "Make no more calls with an account.")
_state_command("drain", State.DRAINING, "Serve only what is bound to an account already.")
_state_command("resume", State.ACTIVE, "Use an account again, and forget its cool-downs.")


@accounts.command()
@account_flags
@click.argument("name", metavar="NAME")
def pin(name: str, **parameters: Any) -> None:
    """Make every call with one account, and fail when it cannot be used."""
    with _book(parameters) as book:
        book.pin(name)
    click.echo(f"{name}: every call is made with it until `handrail accounts unpin`.")


@accounts.command()
@account_flags
def unpin(**parameters: Any) -> None:
    """Go back to the ordinary choice."""
    with _book(parameters) as book:
        book.pin(None)
    click.echo("No account is pinned.")


@accounts.command()
@account_flags
@click.argument("name", metavar="NAME")
@click.argument("share", metavar="SHARE", type=click.FloatRange(0.0, MAX_WEIGHT, min_open=True))
def weight(name: str, share: float, **parameters: Any) -> None:
    """Give an account another SHARE of the calls; 1 is the ordinary one."""
    with _book(parameters) as book:
        book.set_weight(name, share)
    click.echo(f"{name}: weight {share:g}.")


def _tag_command(word: str, meaning: str) -> None:
    @accounts.command(word, help=meaning)
    @account_flags
    @click.argument("name", metavar="NAME")
    @click.argument("tags", metavar="TAGS", nargs=-1, required=True)
    def command(name: str, tags: tuple[str, ...], **parameters: Any) -> None:
        with _book(parameters) as book:
            left = book.tag(name, tags) if word == "tag" else book.untag(name, tags)
        click.echo(f"{name}: {'tags ' + ' '.join(left) if left else 'no tags'}.")


_tag_command("tag", "Give an account tags, by which callers are allowed it.")
_tag_command("untag", "Take tags from an account.")


@accounts.command()
@account_flags
@click.argument("name", metavar="NAME")
def remove(name: str, **parameters: Any) -> None:
    """Destroy an account and its credential here; at the issuer it goes on."""
    with _book(parameters) as book:
        book.remove(name)
    click.echo(f"{name}: removed.")


@accounts.command()
@account_flags
@_target
@click.option("--name", help="What to call it.")
def add(name: str | None, target: str | None, **parameters: Any) -> None:
    """Keep an API key, read from standard input, sealed in the data directory."""
    key = click.prompt("API key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    with _book(parameters, target=target) as book:
        kept = book.keep_key(key.strip(), name=name)
    click.echo(f"The account is called '{kept}'.")


@accounts.command("import")
@account_flags
@_target
@click.argument(
    "file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
def import_file(file: Path, target: str | None, **parameters: Any) -> None:
    """Take over the accounts of Codex CLI's auth.json, or of codex-multi-auth's accounts file.

    The file is only read. A login can be refreshed by one program alone: from now on that is
    Handrail, so let nothing else use what was imported.
    """
    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    settings = load_settings(parameters, credentials=False)
    try:
        found = of_issuer(read_account_file(data), settings.oauth.issuer)
    except NoAccounts as error:
        raise click.ClickException(f"{file}: {error}") from None
    with opened(settings, target) as book:
        names = book.keep_file(found)
    for name in names:
        click.echo(f"{name}: imported.")
    for why in found.left_out:
        click.echo(f"left out: {why}", err=True)
    if any(each.grant for each in found.accounts):
        click.echo(
            f"From now on Handrail refreshes these logins. Take them from {found.kind} without "
            "signing out there, which would end them: two programs that refresh one login end it."
        )


@accounts.command()
@account_flags
@click.argument("names", metavar="NAMES", nargs=-1)
def check(names: tuple[str, ...], **parameters: Any) -> None:
    """Ask the upstream for its models with each account that is not paused.

    Exit status 1 when one cannot be used.
    """
    with _book(parameters) as book:
        checked = asyncio.run(book.check(names))
    for each in checked:
        click.echo(f"{each.name}: {each.problem or each.note or 'ok'}")
    sys.exit(1 if any(each.problem for each in checked) else 0)


@accounts.command()
@account_flags
@click.option("--model", default="", help="The model that the call is for.")
@click.option("--caller", metavar="NAME", help="Whose call it is: only accounts with its tags.")
def best(model: str, caller: str | None, **parameters: Any) -> None:
    """Which account a call would be made with now, and why not the others.

    By the rule of the gateway itself, but without what only that knows: calls under way and
    failures of the last minute. Exit status 1 when there is none.
    """
    with _book(parameters) as book:
        choice = asyncio.run(book.best(model=model, caller=caller))
    _tell(choice)
    sys.exit(0 if choice.account else 1)


def _tell(choice: Choice) -> None:
    names = {each.id: each.name for each in choice.considered}
    chosen = names.get(choice.account or "", "none")
    click.echo(f"{chosen}: {choice.reason}")
    for each in choice.considered:
        if each.id == choice.account:
            continue
        why = "less room, or not its turn" if each.obstacle is None else each.obstacle.reason
        until = each.obstacle.until if each.obstacle else None
        click.echo(f"  not {each.name}: {why}" + (f", until {written(until)}" if until else ""))


def _line(row: dict[str, Any]) -> str:
    words = [row["name"], row["kind"], row["state"] + (", pinned" if row["pinned"] else "")]
    words += [row["plan"]] if row["plan"] else []
    words += [f"tags {' '.join(row['tags'])}"] if row["tags"] else []
    words += [row["why_ended"]] if row["why_ended"] else []
    words += [f"{each['name']} {each['used_percent']:g} % used" for each in row["quota"]]
    words += [
        f"{each['model']}: {each['reason']} until {each['until']}" for each in row["cooldowns"]
    ]
    return "  ".join(words)
