"""The reference's loopback proxy against our gateway, both in front of the row's upstream.

The gateway has the row's accounts as API keys. What a row asks of a response that exists is asked
of one that the gateway runs. The moment of the first refusal is the upstream's, so a wait is
compared as told or not.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Final

from handrail.engine.meter import CallRecord
from handrail.engine.meter import Outcome as Ended
from handrail.errors import ConfigInvalid
from tests.conformance.gateways import Client, Got, Script, gateway, listening
from tests.conformance.recorded import Json, Outcome, Row
from tests.conftest import CALLER_KEY

_DONE: Final = {
    "id": "resp_1",
    "output": [],
    "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
}
_STREAM: Final = {
    "headers": {"content-type": "text/event-stream"},
    "body": f"data: {json.dumps({'type': 'response.completed', 'response': _DONE})}\n\n",
}
_KEYS: Final = ("sk-first-account", "sk-second-account")
_WELL: Final = frozenset({Ended.COMPLETED, Ended.INCOMPLETE, Ended.ACCEPTED})
_OPENED: Final = {"CODEX_AUTH_BACKGROUND_RESPONSES": "1"}


async def runtime_proxy(row: Row, folder: Path) -> Outcome:
    """One row."""
    (given,) = row.args
    said = given["upstream"] or _STREAM
    script = Script(replies=said if isinstance(said, list) else [said])
    names = range(given["accounts"])
    toml = "[upstream.accounts]\n" + "".join(f'a{n} = "env:KEY_{n}"\n' for n in names)
    environment = {"HANDRAIL_UPSTREAM_API_KEY": "", **row.env}
    environment |= {f"KEY_{n}": _KEYS[n] for n in names}
    records: list[CallRecord] = []
    of_a_response = "/resp_1" in given["request"]["path"]
    if of_a_response:
        environment |= _OPENED
    recorded = _recorded(row)
    try:
        async with (
            listening(script) as url,
            gateway(
                folder, url, environment=environment, toml=toml, on_call=records.append
            ) as base,
        ):
            client = Client(url=base)
            run = await _running(client, script) if of_a_response else "resp_1"
            before = len(script.calls)
            got = [await _asked(client, given["request"], run) for _ in range(given["repeat"])]
            calls = len(script.calls) - before
    except ConfigInvalid:
        return Outcome(recorded=recorded, ours={"outcome": "the start stops"})
    return Outcome(
        recorded=recorded,
        ours=_seen(got, script, records),
        beside=Outcome(recorded={"calls": row.result["upstreamCalls"]}, ours={"calls": calls}),
    )


async def _running(client: Client, script: Script) -> str:
    """A background response that goes on and on."""
    script.holds = True
    body = {"model": "gpt-5.4", "input": "hi", "background": True}
    run: str = (await client.call("POST", "responses", body)).body["id"]
    await client.under_way(script, run)
    return run


async def _asked(client: Client, request: Json, run: str) -> Got:
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    for name, value in request.get("headers", {}).items():
        headers[name] = CALLER_KEY if value == "ck" else value
    path = request["path"].removeprefix("/v1/").replace("resp_1", run)
    return await client.call(request["method"], path, request.get("body"), headers)


def _statuses(counts: Json) -> str:
    return " ".join(f"{status}x{count}" for status, count in sorted(counts.items()))


def _seen(got: list[Got], script: Script, records: list[CallRecord]) -> Json:
    found: Json = {"outcome": _statuses(Counter(str(reply.status) for reply in got))}
    last = got[-1]
    found["wait told"] = "retry-after" in last.headers
    if last.status >= 400:
        found["error"] = bool(last.body.get("error"))
    if records:
        found |= _arrived(script.calls[-1])
        found["counted as"] = "success" if records[-1].outcome in _WELL else "failure"
    if records and records[-1].usage is not None:
        usage = records[-1].usage
        found["used"] = [usage.input, usage.output, usage.total]
    return found


def _arrived(call: Json) -> Json:
    """Where the last call went, with whose credential, and what of the caller's it showed."""
    headers = call["headers"]
    shown = headers.get("authorization", "").removeprefix("Bearer ")
    return {
        "path": call["path"],
        "an account's credential": shown in _KEYS,
        "cookie": headers.get("cookie"),
        "x-api-key": headers.get("x-api-key"),
        "model": call["body"]["model"],
    }


def _recorded(row: Row) -> Json:
    result = row.result
    found: Json = {"outcome": _statuses(result["statusCounts"])}
    found["wait told"] = result["retryAfterHeader"] is not None
    if result["status"] >= 400:
        found["error"] = bool(result["body"].get("error"))
    last, ledger = result["upstreamLast"], result["ledger"]
    if last is None:
        return found
    found |= {
        "path": last["url"],
        "an account's credential": last["authorization"].startswith("Bearer at"),
        "cookie": last["cookie"],
        "x-api-key": last["xApiKey"],
        "model": last["body"]["model"],
        "counted as": ledger["outcome"],
    }
    if ledger["outcome"] == "success" and result["status"] == 200:
        tokens = ledger["tokens"]
        found["used"] = [tokens[f"{word}Tokens"] for word in ("input", "output", "total")]
    return found
