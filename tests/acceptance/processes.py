"""The real programs as child processes: the gateway's command and the scripted model server."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
CALLER_KEY = "hr_acceptance-caller-key-0123"
HANDRAIL = (str(Path(sys.executable).with_name("handrail")),)
UPSTREAM_KEY = "sk-upstream-canary-key"


class Child:
    """A process that says on its first lines where it listens; ended by its own id."""

    def __init__(
        self, command: list[str], *, ready: str, environment: Mapping[str, str], log: Path
    ) -> None:
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": os.environ.get("HOME", "/"),
                    **environment,
                },
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )
        self.url = self._listening_at(ready)

    def _listening_at(self, ready: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.search(ready, line)
            if found is not None:
                return found[1]
        raise AssertionError(f"it ended with {self.process.wait()}: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self._gone()

    def stop(self, *, seconds: float = 15.0) -> int:
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._gone(seconds)

    def _gone(self, seconds: float = 15.0) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.kill()


def scripted_upstream(directory: Path, *, port: int = 0) -> Child:
    """The model server; `url` is its origin."""
    return Child(
        [sys.executable, "-m", "tests.scripted_upstream", "--port", str(port)],
        ready=r"scripted model server on (\S+)",
        environment={},
        log=directory / "upstream.log",
    )


def gateway(
    directory: Path,
    *arguments: str,
    upstream: str,
    profile: str = "openai",
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> Child:
    """`handrail serve` on a free port; `url` is its base URL. `within` is what starts it."""
    return Child(
        [
            *within,
            *HANDRAIL,
            "serve",
            "--data-dir",
            str(directory / "data"),
            "--upstream",
            upstream,
            "--profile",
            profile,
            *(arguments or ("--port", "0", "--background")),
        ],
        ready=r"Handrail listens on (\S+)",
        environment={
            "HANDRAIL_CALLER_KEY": CALLER_KEY,
            "HANDRAIL_UPSTREAM_API_KEY": UPSTREAM_KEY,
            **(environment or {}),
        },
        log=directory / "gateway.log",
    )


def monotonic() -> float:
    """Seconds, for measuring how long something took."""
    return time.monotonic()
