"""The servers under test: started as children on free ports, watched and ended by their pid.

With two cores the load and the upstream share core 0 and every gateway has core 1, so neither
takes time from the other, and all gateways are measured on the same core.
"""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

from bench import bodies
from bench.client import KEYS, BenchFailed, post

HERE: Final = Path(__file__).resolve().parent
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0

_SETTINGS: Final = """\
[background]
max_running = 64
[callers.first]
key_env = "BENCH_FIRST_KEY"
max_running = 32
[callers.second]
key_env = "BENCH_SECOND_KEY"
max_running = 32
"""

_NGINX: Final = """\
worker_processes 1;
daemon off;
pid {home}/nginx.pid;
error_log {home}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  client_body_buffer_size 1m;
  keepalive_requests 1000000000;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Where things run; both sets are the same when there is only one core."""

    load: frozenset[int]
    gateway: frozenset[int]

    @classmethod
    def of_machine(cls) -> "Cores":
        """The first core for load and upstream, the second for gateways."""
        have = sorted(os.sched_getaffinity(0))
        gateway = have[1] if len(have) > 1 else have[0]
        return cls(load=frozenset(have[:1]), gateway=frozenset({gateway}))


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server. `seconds` is from starting the process to its first served request."""

    port: int
    process: subprocess.Popen[bytes]
    seconds: float

    def cpu(self) -> float:
        """Seconds of CPU that the process and its children have had, 10 ms exact."""
        total = 0.0
        for process in self._tree():
            times = process.cpu_times()
            total += times.user + times.system
        return total

    def memory(self) -> tuple[int, int]:
        """RSS and PSS of the process and its children, in bytes."""
        infos = [process.memory_full_info() for process in self._tree()]
        return sum(info.rss for info in infos), sum(info.pss for info in infos)

    def stop(self) -> None:
        """End it politely, then hard."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Starts servers with their files under `home`."""

    home: Path
    cores: Cores

    def upstream(self) -> Server:
        """The model server of the benchmark."""
        port = free_port()
        return self._start([str(HERE / "upstream.py"), "--port", str(port)], port, self.cores.load)

    def handrail(self, upstream: int, *, name: str = "handrail") -> Server:
        """Handrail with background on, two callers and room for 64 runs, else its defaults."""
        port = free_port()
        config = self.home / "handrail.toml"
        config.write_text(_SETTINGS)
        argv = ["-m", "handrail", "serve", "--background", "--port", str(port)]
        argv += ["--config", str(config), "--data-dir", str(self.home / name)]
        argv += ["--upstream", f"http://127.0.0.1:{upstream}/v1"]
        return self._start(argv, port, self.cores.gateway)

    def bare(self, upstream: int) -> Server:
        """The plainest proxy on the same libraries."""
        port = free_port()
        argv = [str(HERE / "bare_proxy.py"), "--port", str(port)]
        argv += ["--upstream", f"http://127.0.0.1:{upstream}"]
        return self._start(argv, port, self.cores.gateway)

    def nginx(self, upstream: int) -> Server:
        """One nginx worker that passes everything on unbuffered."""
        port = free_port()
        home = self.home / "nginx"
        home.mkdir(exist_ok=True)
        config = home / "nginx.conf"
        config.write_text(_NGINX.format(home=home, upstream=upstream, port=port))
        program = shutil.which("nginx")
        assert program is not None
        argv = ["-p", str(home), "-c", str(config)]
        return self._start(argv, port, self.cores.gateway, program=program)

    def _start(
        self,
        argv: list[str],
        port: int,
        cores: frozenset[int],
        *,
        program: str = sys.executable,
    ) -> Server:
        log = self.home / f"{port}.log"
        started = time.perf_counter()
        with log.open("wb") as out, _running_on(cores):
            process = subprocess.Popen(
                [program, *argv], cwd=self.home, env=_environment(), stdout=out, stderr=out
            )
        try:
            _wait_until_it_serves(process, port)
        except BaseException:
            process.kill()
            process.wait()
            sys.stderr.write(log.read_text(errors="replace")[-2_000:])
            raise
        seconds = time.perf_counter() - started
        return Server(port=port, process=process, seconds=seconds)


def has_nginx() -> bool:
    """Whether there is an nginx to compare with."""
    return shutil.which("nginx") is not None


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def allow_many_files() -> None:
    """Raise this process's limit of open files as far as it goes; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _running_on(cores: frozenset[int]) -> Iterator[None]:
    # A child inherits the cores of the thread that forks it.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment() -> Mapping[str, str]:
    ours = ("HANDRAIL_", "CODEX_", "OPENAI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "HANDRAIL_UPSTREAM_API_KEY": "sk-bench",
        "BENCH_FIRST_KEY": KEYS[0],
        "BENCH_SECOND_KEY": KEYS[1],
    }


def _wait_until_it_serves(process: subprocess.Popen[bytes], port: int) -> None:
    request = post(port, bodies.small())
    deadline = time.perf_counter() + START_SECONDS
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise BenchFailed(f"a server ended with status {process.returncode} at its start")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as sock:
                sock.sendall(request)
                reply = sock.recv(65_536)
        except ConnectionError:
            time.sleep(0.002)
            continue
        if not reply.startswith(b"HTTP/1.1 200"):
            raise BenchFailed(f"a server answered {reply[:200]!r} at its start")
        return
    raise BenchFailed(f"a server did not start within {START_SECONDS:.0f} s")
