"""`handrail serve`, and the flags that every command about settings shares."""

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import platformdirs

from handrail.settings.load import load
from handrail.settings.model import Settings

F = TypeVar("F", bound=Callable[..., Any])

# Parameter of the command -> path of the setting it decides.
FLAGS: Final = {
    "config_file": "config",
    "host": "server.host",
    "port": "server.port",
    "data_dir": "data_dir",
    "upstream": "upstream.url",
    "profile": "upstream.profile",
    "background": "background.enabled",
    "log_level": "log.level",
}


def setting_flags(command: F) -> F:
    """Add the flags of the settings. Values are checked where the file's are, not by click."""
    options = [
        click.option("--config", "config_file", metavar="FILE", help="Settings file (TOML)."),
        click.option("--host", help="Address to listen on (127.0.0.1)."),
        click.option("--port", help="Port to listen on (8787)."),
        click.option("--data-dir", metavar="DIR", help="Where runs and keys are kept."),
        click.option("--upstream", metavar="URL", help="Base URL of the upstream."),
        click.option("--profile", help="openai, codex, azure or compatible (openai)."),
        click.option(
            "--background/--no-background",
            default=None,
            help="Accept background responses, or lock them off.",
        ),
        click.option("--log-level", help="debug, info, warning or error (info)."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def load_settings(parameters: dict[str, Any], *, credentials: bool = True) -> Settings:
    """The settings for a command's parameters and this process's environment.

    Without `credentials` a missing key is no error: for commands that call nobody.
    """
    flags = {path: parameters.get(name) for name, path in FLAGS.items()}
    data_dir = Path(platformdirs.user_data_dir("handrail", appauthor=False))
    return load(flags, os.environ, default_data_dir=data_dir, credentials=credentials)


@click.command()
@setting_flags
def serve(**parameters: Any) -> None:
    """Run the gateway until SIGTERM or Ctrl-C. SIGHUP reloads the settings file."""
    # Imported here so that `handrail config explain` does not wait for an HTTP stack.
    from handrail import telemetry  # noqa: PLC0415
    from handrail.bootstrap.data_dir import admin_key_file, caller_key_file  # noqa: PLC0415
    from handrail.bootstrap.gateway import Gateway  # noqa: PLC0415

    telemetry.configure(load_settings(parameters).log_level)
    gateway = Gateway(lambda: load_settings(parameters))

    def started() -> None:
        _settle_garbage_collector()
        settings = gateway.settings
        click.echo(f"Handrail listens on {gateway.url}")
        for target in settings.targets.values():
            click.echo(f"  upstream    {target.name}")
        state = "on" if settings.switch.enabled else "off"
        click.echo(f"  background  {state} ({settings.switch.source})")
        key_file = caller_key_file(settings)
        if key_file.exists():
            click.echo(f"  caller key  in {key_file}")
        click.echo(f"  admin key   in {admin_key_file(settings)}")
        sys.stdout.flush()

    sys.exit(_run(gateway.serve(started=started)))


def _settle_garbage_collector() -> None:
    # What exists now stays to the end: no collection needs to look at it again. Requests make few
    # cycles, so looking for them rarely costs nothing and saves a tenth of a small request.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _run(main: Any) -> int:
    factory = None
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        status: int = runner.run(main)
        return status
