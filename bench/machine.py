"""Where a run of the benchmark took place: without that, its figures mean nothing."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from bench.processes import HERE, Cores, has_nginx

_LIBRARIES = ("uvicorn", "uvloop", "httptools", "aiohttp", "msgspec", "cryptography")


def describe(cores: Cores) -> Mapping[str, str]:
    """The machine, the versions and the commit."""
    load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    places = f"load and upstream on {sorted(cores.load)}, gateways on {sorted(cores.gateway)}"
    return {
        "cpu": _cpu_model(),
        "cores": f"{os.cpu_count()} ({places})",
        "load average": load,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "commit": _commit(),
        "nginx": "measured as well" if has_nginx() else "not measured: none on PATH",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "unknown")


def _commit() -> str:
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
