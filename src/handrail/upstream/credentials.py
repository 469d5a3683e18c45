"""The credentials of upstreams: the key of the settings, or what a command prints.

A command is run without a shell, when a credential is needed and none is left that may be used;
what it prints is kept in memory until its end and is never logged.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from handrail.core.bearer import MAX_BYTES, Bearer, Unusable, read_bearer
from handrail.errors import Code, UpstreamFailed
from handrail.settings.model import Secret, Target
from handrail.telemetry import get_logger

COMMAND_SECONDS: Final = 30.0
"""How long a command may take."""


class Credentials:
    """Gives each target its credential; `now` tells unix seconds."""

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: dict[tuple[str, ...], Bearer] = {}
        self._locks: dict[tuple[str, ...], asyncio.Lock] = {}
        self._logger = get_logger()

    async def of(self, target: Target) -> Secret | None:
        """The credential to call `target` with, None where it needs none.

        Many may wait for one command. Raises UpstreamFailed when the command gives none.
        """
        command = target.bearer_command
        if not command:
            return target.api_key
        async with self._locks.setdefault(command, asyncio.Lock()):
            kept = self._kept.get(command)
            if kept is None or self._now() >= kept.until:
                kept = await self._fetched(target)
                self._kept[command] = kept
        return Secret(kept.secret)

    def forget(self, target: Target) -> None:
        """The upstream has refused the target's credential: the next call asks for another."""
        self._kept.pop(target.bearer_command, None)

    async def _fetched(self, target: Target) -> Bearer:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                output = await _output(target.bearer_command)
            return read_bearer(output, now=self._now(), lifetime=target.bearer_seconds)
        except TimeoutError:
            why = f"it took longer than {COMMAND_SECONDS:.0f} s"
        except OSError as error:
            why = f"it cannot be run: {error.strerror}"
        except Unusable as error:
            why = str(error)
        self._logger.error("bearer_command_failed", program=target.bearer_command[0], why=why)
        raise UpstreamFailed(
            Code.UPSTREAM_CREDENTIALS_REJECTED,
            "The gateway has no credential for its upstream; its operator has to mend that.",
            sent=False,
        )


async def _output(command: tuple[str, ...]) -> bytes:
    """What the command prints. Raises OSError, and Unusable for a status that is not 0."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None  # noqa: S101 - it is piped
    try:
        output = b""
        while len(output) <= MAX_BYTES and (part := await process.stdout.read(MAX_BYTES)):
            output += part
        if len(output) <= MAX_BYTES and await process.wait() != 0:
            raise Unusable(f"it ended with status {process.returncode}")
        return output
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # Also when whoever waits has left: a process that nobody waits for stays in the table.
        await asyncio.shield(process.wait())
