"""The life of a background response, through the real gateway over real sockets.

The rows were recorded with the reference's custom fetch in front of a scripted upstream; here the
same upstream stands behind a gateway. Verbs on a response (poll, resume, cancel, delete, items) are
called on one that the gateway runs, in the state that the row's upstream tells.
"""

import json
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.conformance.gateways import Client, Got, Script, gateway, listening
from tests.conformance.recorded import Json, Outcome, Row

_DONE: Final = {"type": "response.completed", "response": {"id": "resp_up", "output": []}}


async def life(row: Row, folder: Path) -> Outcome:
    """One row."""
    request = row.args[0]["request"]
    verb = urlsplit(request["url"]).path.partition("/responses")[2]
    script = Script(replies=row.args[0]["upstream"])
    async with listening(script) as url, gateway(folder, url, environment=row.env) as base:
        client = Client(url=base)
        if verb:
            return await _verb(row, client, script, verb=verb)
        got = await client.call("POST", "responses", request["body"])
        if got.body.get("background"):
            await client.ended(got.body["id"])
        recorded, ours = _recorded(row), _seen(got)
        if got.status == 200 and not request["body"].get("background"):
            ours["output"] = got.body["output"]
            recorded["output"] = row.result["body"]["output"]
        calls = _recorded_calls(row)
        beside = Outcome(
            recorded=_arrived([{**call, "path": urlsplit(call["url"]).path} for call in calls]),
            ours=_arrived(script.calls),
        )
        return Outcome(recorded=recorded, ours=ours, beside=beside)


async def _verb(row: Row, client: Client, script: Script, *, verb: str) -> Outcome:
    answers = [json.loads(reply["body"]) for reply in script.replies if reply["body"][:1] == "{"]
    state = answers[0].get("status") if answers else "completed"
    script.holds = state in ("in_progress", "cancelled")
    done = f"data: {json.dumps(_DONE)}\n\n"
    script.replies = [{"headers": {"content-type": "text/event-stream"}, "body": done}]
    create = {"model": "gpt-5.4", "input": "hi", "background": True}
    made = await client.call("POST", "responses", create)
    if not script.holds:
        await client.ended(made.body["id"])
    # A 404 of the reference is one of the wrong account; here it is an id that nobody gave out.
    known = made.body["id"] if "error" not in (answers or [{}])[0] else "resp_bg"
    request = row.args[0]["request"]
    query = urlsplit(request["url"]).query
    path = f"responses{verb.replace('resp_bg', known)}" + (f"?{query}" if query else "")
    if script.holds:
        await client.under_way(script, known)
    before = len(script.calls)
    got = await client.call(request["method"], path)
    beside = Outcome(
        recorded={"calls": len(_recorded_calls(row))}, ours={"calls": len(script.calls) - before}
    )
    return Outcome(recorded=_recorded(row), ours=_seen(got), beside=beside)


def _recorded_calls(row: Row) -> list[Json]:
    calls: list[Json] = (row.result or {}).get("upstreamCalls", [])
    return calls


def _sentence(message: str) -> str:
    return " ".join(message.split()[:5])


def _seen(got: Got) -> Json:
    error = got.body.get("error") or {}
    message = error.get("message", "")
    if error.get("param") == "background":
        return {"outcome": _sentence(message)}
    state = got.body.get("status")
    return {"outcome": str(got.status), "kind": got.kind, "state": state, "message": message}


def _recorded(row: Row) -> Json:
    if row.error is not None:
        return {"outcome": _sentence(row.error["message"])}
    got = Got(
        status=row.result["status"],
        kind=row.result["contentType"].partition(";")[0],
        text=json.dumps(row.result["body"]),
    )
    return _seen(got)


def _arrived(calls: list[Json]) -> Json:
    """How many creates there were, and what both upstreams saw of the first."""
    if not calls:
        return {"calls": 0}
    path, body = calls[0]["path"], calls[0]["body"]
    fields = ("model", "store", "stream", "background")
    return {
        "calls": len(calls),
        "path": path,
        **{name: body[name] for name in fields if name in body},
    }
