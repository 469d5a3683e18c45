"""`handrail status` and `handrail why`: accounts and their quotas, and who serves a request."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from handrail.cli.accounts import account_flags, opened
from handrail.cli.serve import load_settings
from handrail.core.report import gauge

if TYPE_CHECKING:
    from handrail.bootstrap.status import Status

_WIDTH: Final = 20
_UNKNOWN: Final = {
    "stopped": "No gateway is running here: this is what it would begin with.",
    "running": "The gateway does not answer: calls under way and failures of the last minute are "
    "not in this.",
    "unknown": "Whether a gateway is running here cannot be told; what only that knows is not in "
    "this.",
}


@contextmanager
def _looking(parameters: dict[str, Any]) -> Iterator["Status"]:
    from handrail.bootstrap.status import Status  # noqa: PLC0415 - an HTTP stack comes along

    settings = load_settings(parameters, credentials=False)
    with opened(settings) as book:
        yield Status(settings, book)


@click.command()
@account_flags
@click.option("--live", is_flag=True, help="Ask the upstream for each account's quota first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(*, live: bool, as_json: bool, **parameters: Any) -> None:
    """Show the gateway and every account: state, plan, quota, what holds it back.

    Works beside a running gateway, which is asked what only it knows, and without one.
    """

    async def look(at: "Status") -> dict[str, Any]:
        return await at.told(await at.live() if live else None)

    with _looking(parameters) as looking:
        told = asyncio.run(look(looking))
    click.echo(json.dumps(told) if as_json else "\n".join(_lines(told)))


@click.command()
@account_flags
@click.option("--model", default="", help="The model that the request is for.")
@click.option("--account", metavar="NAME", help="The account that the request would demand.")
@click.option("--caller", metavar="NAME", help="Whose request it is: only what this one may use.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def why(
    *, model: str, account: str | None, caller: str | None, as_json: bool, **parameters: Any
) -> None:
    """Say which account would serve a request now, and why not the others, by target.

    A running gateway says so itself; without one it is the same rule over what is kept. Exit status
    1 when none would.
    """
    with _looking(parameters) as looking:
        from handrail.engine.account_views import Asked  # noqa: PLC0415 - as above

        told = asyncio.run(looking.why(Asked(model=model, account=account, caller=caller)))
    if as_json:
        click.echo(json.dumps(told))
    else:
        if told["source"] == "store":
            click.echo(_UNKNOWN[told["gateway"]], err=True)
        if not told["targets"]:
            click.echo("No route leads to a target for this request: it would get a 404.")
        for found in told["targets"]:
            if len(told["targets"]) > 1:
                click.echo(f"target {found['target']}")
            click.echo("\n".join(_reasons(found)))
    sys.exit(0 if any(found["account"] for found in told["targets"]) else 1)


def _reasons(found: dict[str, Any]) -> Iterator[str]:
    until = f", until {found['until']}" if found["until"] else ""
    yield f"{found['account'] or 'none'}: {found['reason']}{until}"
    for each in found["candidates"]:
        standing = [_obstacle(obstacle) for obstacle in each["obstacles"]]
        if not each["chosen"]:
            if each["why_not"] not in [obstacle["reason"] for obstacle in each["obstacles"]]:
                standing = [each["why_not"], *standing]
            yield f"  not {each['name']}: {'; '.join(standing)}"
        elif standing:
            yield f"  although: {'; '.join(standing)}"


def _obstacle(obstacle: dict[str, Any]) -> str:
    until = f", until {obstacle['until']}" if obstacle["until"] else ""
    guess = " (a guess: it serves if nobody else can)" if obstacle["guessed"] else ""
    return f"{obstacle['reason']}{until}{guess}"


def _lines(told: dict[str, Any]) -> Iterator[str]:
    gateway = told["gateway"]
    words = [gateway["state"]]
    if gateway["answers"]:
        words += [f"at {gateway['url']}", f"store {gateway['store']}"]
        words += [f"settings {gateway['settings']}"]
    yield f"gateway  {'  '.join(words)}"
    for target in told["targets"]:
        yield f"target   {target['name']}  {target['profile']}  {target['url']}"
    if not gateway["answers"]:
        yield f"         {_UNKNOWN[gateway['state']]}"
    if not told["accounts"]:
        yield "\nThere is no account. Sign in: handrail accounts login"
    for row in told["accounts"]:
        yield ""
        yield from _account(row, (told["not_asked"] or {}).get(row["name"]))


def _account(row: dict[str, Any], not_asked: str | None) -> Iterator[str]:
    words = [row["name"], row["kind"], row["state"] + (", pinned" if row["pinned"] else "")]
    words += [f"plan {row['plan']}"] if row["plan"] else []
    words += [f"credits {row['credits']}"] if row["credits"] else []
    words += [f"{row['running']} calls now"] if row["running"] is not None else []
    yield "  ".join(words)
    if row["why_ended"]:
        yield f"  {row['why_ended']}"
    if row["expires_at"] and row["state"] != "ended":
        yield f"  its credential ends {row['expires_at']}, and is refreshed before"
    for window in row["quota"]:
        yield f"  {_window(window)}"
    for each in row["cooldowns"]:
        models = "all models" if each["model"] == "*" else each["model"]
        yield f"  held back for {models}: {each['reason']}, until {each['until']}"
    held = {(each["reason"], each["until"]) for each in row["cooldowns"]}
    for each in row["obstacles"]:
        if (each["reason"], each["until"]) not in held:
            yield f"  {_obstacle(each)}"
    if not_asked:
        yield f"  no new word about its quota: {not_asked}"


def _window(window: dict[str, Any]) -> str:
    about = f" ({window['model']})" if window["model"] else ""
    anew = f", begins anew {window['resets_at']}" if window["resets_at"] else ""
    used = window["used_percent"]
    drawn = gauge(used / 100, width=_WIDTH)
    return f"{window['name']}{about}  {drawn}  {used:g} % used{anew}, seen {window['seen_at']}"
