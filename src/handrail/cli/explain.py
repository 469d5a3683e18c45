"""`handrail explain`: what would become of a request, and why. Nothing is sent."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO, Final

import click
import msgspec
from msgspec import Raw

from handrail.cli.serve import load_settings
from handrail.core import wire
from handrail.core.explain import explained, refused
from handrail.core.explain import model as known
from handrail.core.policy import Mode
from handrail.core.prepare import prepare
from handrail.engine.routing import routed, with_targets
from handrail.errors import Code, RequestRejected
from handrail.settings.in_process import LibrarySettings
from handrail.settings.load import DEFAULT_CALLER
from handrail.settings.model import Settings, Target

Json = dict[str, Any]

_MODES: Final = {
    Mode.STATELESS: "stateless: one upstream call, nothing is kept",
    Mode.KEPT: "kept by Handrail while its caller waits; below is its stateless upstream call",
    Mode.BACKGROUND: "background, run and kept by Handrail; below is its stateless upstream call",
    Mode.UPSTREAM: "background, run and kept by the upstream",
}


@click.command()
@click.argument("body", type=click.File("rb"), metavar="BODY.json")
@click.option("--config", "config_file", metavar="FILE", help="Settings file (TOML).")
@click.option("--upstream", metavar="URL", help="Base URL of the upstream.")
@click.option("--profile", help="openai, codex, azure or compatible (openai).")
@click.option(
    "--background/--no-background",
    default=None,
    help="As if background responses were accepted, or locked off.",
)
@click.option("--caller", metavar="NAME", help="Whose rules hold (default).")
@click.option("--model", help="As if the body named this model.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
def explain(
    *, body: BinaryIO, caller: str | None, model: str | None, as_json: bool, **parameters: Any
) -> None:
    """Show what would become of the request in BODY.json (`-` for stdin), and why.

    Prints the decision, each change with the field before and after, and the body that would go to
    the upstream. Calls nobody and needs no credential. Exit status 1 when it would be refused.
    """
    settings = load_settings(parameters, credentials=False)
    result = _explanation(body, settings=settings, caller=caller, model=model)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result)).decode())
    else:
        text = "\n".join(_refusal(result) if "error" in result else _sentences(result))
        click.echo(_plain(text))
    sys.stdout.flush()
    if "error" in result:
        sys.exit(1)


def _explanation(
    file: BinaryIO, *, settings: Settings, caller: str | None, model: str | None
) -> Json:
    rules = LibrarySettings.of(settings)
    policy = rules.caller(caller)  # a wrong name is a wrong setting, whatever the body says
    given: Mapping[str, Raw] | None = None
    judges = settings.target
    try:
        data = file.read(settings.max_body_bytes + 1)
        if len(data) > settings.max_body_bytes:
            raise RequestRejected(
                Code.PAYLOAD_TOO_LARGE,
                f"The body is larger than {settings.max_body_bytes} bytes.",
            )
        given = wire.parse_object(data)
        if model is not None:
            given = {**given, "model": wire.raw(model)}
            data = wire.encode(given)
        request = wire.read_create(data)
        targets = settings.targets_for(request.model, policy)
        judges = targets[0] if targets else judges
        rules = LibrarySettings.of(settings, target=judges)
        prepared = prepare(
            request,
            switch=rules.switch,
            caller=rules.caller(caller),
            executor=rules.executor,
            upstream=rules.upstream(),
            has_store=True,
            fast_session=rules.fast_session,
        )
        # Where it goes comes last, as in the gateway: a guardrail's refusal is told first.
        plan = with_targets(prepared.plan, routed(request.model, targets))
        prepared = replace(prepared, plan=plan)
        asked = prepared.request.models[0]
        found = {**explained(prepared), "model": known(asked, rules.upstream().catalogue)}
    except RequestRejected as error:
        found = refused(error, given)
    return {**found, "judged_by": _judged_by(settings, judges, caller)}


def _plain(text: str) -> str:
    # A body may come from anybody, and a terminal obeys what it is shown.
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def _judged_by(settings: Settings, target: Target, caller: str | None) -> Json:
    switch = settings.switch
    policy = LibrarySettings.of(settings).caller(caller)
    return {
        "caller": caller or DEFAULT_CALLER,
        "profile": target.profile.name,
        "upstream": target.url,
        "background": f"{'on' if switch.enabled else 'off'} ({switch.source})",
        "executor": (policy.executor or settings.executor).value,
        "settings": str(settings.file) if settings.file else "no file",
    }


def _rules_line(result: Json) -> str:
    return "  ".join(f"{name}={value}" for name, value in result["judged_by"].items())


def _model_line(model: Json) -> str:
    if model["sent"] is None:
        return f"{model['asked']}: not known, and left as it is"
    words = [model["sent"], f"family {model['family'] or 'not known'}"]
    if model["efforts"]:
        words.append(f"efforts {' '.join(model['efforts'])} ({model['default_effort']} by itself)")
    return "  ".join([*words, " ".join(model["capabilities"])]).rstrip()


def _refusal(result: Json) -> list[str]:
    error = result["error"]
    lines = [
        f"REFUSED  {result['status']} {error['code']}",
        f"  {error['message']}",
        "",
        f"  param       {error['param'] or '(the whole body)'}",
    ]
    lines += [f"  your body   {name}: {value}" for name, value in result.get("given", {}).items()]
    return [*lines, f"  judged by   {_rules_line(result)}", "", "Nothing would be sent."]


def _sentences(result: Json) -> list[str]:
    plan, steps = result["plan"], result["steps"]
    lines = [
        f"ACCEPTED  {_MODES[Mode(plan['mode'])]}",
        *(f"  {reason['text']}" for reason in plan["reasons"]),
        "",
        f"  header      handrail-decision: {result['decision']}",
        f"  judged by   {_rules_line(result)}",
        f"  model       {_model_line(result['model'])}",
        "",
        f"{len(steps) or 'No'} change{'' if len(steps) == 1 else 's'}"
        " between your body and the upstream's",
    ]
    for step in steps:
        before, after = (value or "(absent)" for value in (step["before"], step["after"]))
        lines += [
            f"  {step['field']}  {step['action']}",
            f"    why     {step['reason']}",
            f"    before  {before}",
            f"    after   {after}",
        ]
    body = msgspec.json.format(msgspec.json.encode(result["body"])).decode()
    headers = (f"{name}: {value}" for name, value in result["headers"].items())
    return [*lines, "", f"POST {result['url']}", *headers, "", body]
