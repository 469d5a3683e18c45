"""Gateways that die at a named point: `python -m tests.crash.gateway`.

Everything is imported once; then each line on the standard input, a JSON object with `arguments`
(those of `handrail serve`), `environment`, `log`, `point`, `nth` and `armed`, makes one gateway in
a forked process. It says on the standard output "pid N", then where it listens, and when it is gone
"ended STATUS", which is negative for a signal. One at a time. SIGUSR1 arms one that is not armed.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from handrail import telemetry
from handrail.bootstrap.gateway import Gateway
from handrail.cli.serve import load_settings, serve
from tests.crash.ports import CrashingClient, CrashingStore, Trigger


def _serve(order: dict[str, Any]) -> int:
    os.environ.update(order["environment"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stderr.fileno())
    trigger = Trigger(order["point"], order["nth"], armed=order["armed"])

    def arm(*_: object) -> None:
        trigger.armed = True

    signal.signal(signal.SIGUSR1, arm)
    parameters = serve.make_context("serve", list(order["arguments"])).params
    telemetry.configure(load_settings(parameters).log_level)

    def open_store(path: Path, **rest: Any) -> CrashingStore:
        store = CrashingStore(path, trigger=trigger, **rest)
        store.open()
        return store

    gateway = Gateway(
        lambda: load_settings(parameters),
        open_store=open_store,
        new_client=partial(CrashingClient, trigger=trigger),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(gateway.serve(started=partial(_say, f"listens on {gateway.url}")))


def _say(line: str) -> None:
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def _forked(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = _serve(order)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def main() -> None:
    """One gateway for each line, until the input ends."""
    for line in sys.stdin:
        pid = _forked(json.loads(line))
        _say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        _say(f"ended {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
