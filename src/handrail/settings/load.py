"""From flags, environment and file to one snapshot: strongest first, then the default.

Loading raises ConfigInvalid with one line that names the file or variable: a setting that cannot
be read never falls back to another.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from handrail.core.budgets import Budget
from handrail.core.caller_keys import key_digest
from handrail.core.caller_policy import (
    BackgroundPolicy,
    CallerPolicy,
    CrashPolicy,
    Executor,
    Priority,
    StoreFalsePolicy,
    StorePolicy,
    WhenLeft,
)
from handrail.core.fast_session import FastPolicy, FastSession
from handrail.core.rates import RateLimit
from handrail.core.select import Strategy as AccountStrategy
from handrail.core.switch import Switch, resolve_switch
from handrail.errors import ConfigInvalid
from handrail.settings.accounting import Accounting, read_accounting
from handrail.settings.caller_options import CALLER_OPTIONS
from handrail.settings.catalogue import read_tables
from handrail.settings.model import Caller, Settings
from handrail.settings.oauth import read_oauth
from handrail.settings.options import CALLER_KEY_VARIABLE, FILE_VARIABLE, OPTIONS, Option
from handrail.settings.targets import Found, Known, Places, check_names, read_targets
from handrail.settings.vault import read_vault

DEFAULT_CALLER: Final = "default"
DEFAULT_FILE: Final = Path("handrail.toml")
LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
MIN_KEY: Final = 20
_MAX_FILE: Final = 1 << 20
_SAMPLES: Final = ("changeme", "change-me", "your-", "your_", "example", "placeholder", "xxxx")

# Fields of Settings, and the settings that they are without anything being made of them.
_AS_THEY_ARE: Final = MappingProxyType(
    {
        "host": "server.host",
        "port": "server.port",
        "allowed_hosts": "server.allowed_hosts",
        "max_body_bytes": "server.max_body_bytes",
        "max_connections": "server.max_connections",
        "drain_seconds": "server.drain",
        "heartbeat_seconds": "server.heartbeat",
        "log_level": "log.level",
        "data_dir": "data_dir",
        "max_running": "background.max_running",
        "max_queued": "background.max_queued",
        "max_run_seconds": "background.max_duration",
        "max_output_bytes": "background.max_output_bytes",
        "max_stored_bytes": "background.max_stored_bytes",
        "max_history_bytes": "background.max_history_bytes",
    }
)

ACCOUNTS_FILE: Final = "accounts.db"
"""In the data directory: what several processes change."""

Tree = dict[str, Any]


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    default_data_dir: Path,
    credentials: bool = True,
) -> Settings:
    """The settings. `flags` maps the paths of OPTIONS, and `config`, to values or None.

    Reads the settings file, and files and keyrings that it names. Without `credentials` a missing
    key is no error: `sources` says under its setting that it is missing. Raises ConfigInvalid.
    """
    file, tree = _read_file(flags.get("config"), environment)
    where = str(file)
    missing: dict[str, str] = {}  # path of a credential -> why there is none
    values, sources, switch = _values(flags, environment, tree=tree, file=where)
    callers = _callers(tree.pop("callers", {}), environment, where, missing=missing)
    models, defaults = read_tables(tree, where)
    oauth = read_oauth(
        tree.pop("oauth", {}), environment, file=where, values=values, sources=sources
    )
    accounting = read_accounting(tree, values, file=where)
    values["data_dir"] = values["data_dir"] or default_data_dir
    found = Found(values=values, sources=sources, missing=missing, known=Known(models, defaults))
    places = read_targets(tree, environment, where, found=found)
    _check_targets(callers, where, places)
    _check_callers(accounting, where, callers)
    _excuse_keys(missing, values, sources)
    _refuse_unknown(tree, where)
    if missing and credentials:
        raise ConfigInvalid(next(iter(missing.values())))
    sources.update(missing)
    return Settings(
        **{name: values[path] for name, path in _AS_THEY_ARE.items()},
        targets=places.targets,
        routes=places.routes,
        oauth=oauth,
        switch=switch,
        executor=Executor(values["background.executor"]),
        account_strategy=AccountStrategy(values["accounts.strategy"]),
        fast_session=_fast_session(values),
        callers=MappingProxyType(callers),
        models=models,
        defaults=defaults,
        accounting=accounting,
        vault=read_vault(values, environment),
        file=file,
        values=MappingProxyType(values),
        sources=MappingProxyType(sources),
    )


def _check_targets(callers: Mapping[str, Caller], file: str, places: Places) -> None:
    for name, caller in callers.items():
        allowed = caller.policy.targets
        check_names(allowed or (), f"{file}: callers.{name}.targets", places.targets)


def _check_callers(accounting: Accounting, file: str, callers: Mapping[str, Caller]) -> None:
    """A budget or limit for a caller that there is not would never hold anything back."""
    entries: list[Budget | RateLimit] = [*accounting.budgets, *accounting.limits]
    for entry in entries:
        if entry.caller is not None and entry.caller not in callers:
            table = "budgets" if isinstance(entry, Budget) else "limits"
            raise ConfigInvalid(
                f"{file}: {table}: '{entry.name}' is for the caller '{_plain(entry.caller)}', of "
                "which the settings know nothing."
            )


def _excuse_keys(missing: dict[str, str], values: Tree, sources: dict[str, str]) -> None:
    """Where somebody may have signed in; whether there is an account is seen in that file."""
    if (values["data_dir"] / ACCOUNTS_FILE).exists():
        keys = [path for path in missing if path.endswith(".api_key")]
        sources.update({path: missing.pop(path) for path in keys})


def _fast_session(values: Mapping[str, Any]) -> FastSession:
    return FastSession(
        strategy=values["fast_session.strategy"],
        max_items=values["fast_session.max_input_items"],
        drop_tools=values["fast_session.drop_tools"],
        cut_instructions=values["fast_session.cut_instructions"],
        compact_seconds=values["fast_session.compact_timeout"],
    )


def _values(
    flags: Mapping[str, Any], environment: Mapping[str, str], *, tree: Tree, file: str
) -> tuple[dict[str, Any], dict[str, str], Switch]:
    """The value and the source of every option by its path, and the switch."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    _import_reference_name(tree, file)
    said = _switch_in_file(tree, file)
    for option in OPTIONS:
        values[option.path], sources[option.path] = _resolve(
            option, flags=flags, environment=environment, tree=tree, file=file
        )
    switch = resolve_switch(
        flag=flags.get("background.enabled"), environment=environment, file=said
    )
    values["background.enabled"], sources["background.enabled"] = switch.enabled, switch.source
    return values, sources, switch


def _read_file(flag: Any, environment: Mapping[str, str]) -> tuple[Path | None, Tree]:
    named = flag or environment.get(FILE_VARIABLE, "").strip()
    path = Path(named) if named else DEFAULT_FILE
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        if not named and isinstance(error, FileNotFoundError):
            return None, {}
        raise ConfigInvalid(f"{path}: cannot be read: {error.strerror}.") from None
    if len(data) > _MAX_FILE:
        raise ConfigInvalid(f"{path}: is larger than {_MAX_FILE} bytes.")
    try:
        return path, tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise ConfigInvalid(f"{path}: is not valid TOML: {words}.") from None


def _import_reference_name(tree: Tree, file: str) -> None:
    # The reference implementation's settings call the switch `backgroundResponses`.
    if "backgroundResponses" not in tree:
        return
    table = tree.setdefault("background", {})
    if not isinstance(table, dict) or "enabled" in table:
        raise ConfigInvalid(f"{file}: give backgroundResponses or background.enabled, not both.")
    value = tree.pop("backgroundResponses")
    if not isinstance(value, bool):
        raise ConfigInvalid(f"{file}: backgroundResponses: must be true or false.")
    table["enabled"] = value


def _switch_in_file(tree: Tree, file: str) -> bool | None:
    table = tree.get("background", {})
    if not isinstance(table, dict) or "enabled" not in table:
        return None
    value = table.pop("enabled")
    if not isinstance(value, bool):
        raise ConfigInvalid(f"{file}: background.enabled: must be true or false.")
    return value


def _resolve(
    option: Option,
    *,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    tree: Tree,
    file: str,
) -> tuple[Any, str]:
    # The file's value is taken out and checked even when something stronger decides: a typing
    # error in it is one whether or not it has an effect today.
    section, _, name = option.path.rpartition(".")
    table = tree.get(section, {}) if section else tree
    if not isinstance(table, dict):
        raise ConfigInvalid(f"{file}: '{section}' must be a table.")
    value, source = option.default, "default"
    if option.path == "background.enabled":  # three more places decide it: `resolve_switch`
        return value, source
    if name in table:
        value, source = option.read(table.pop(name), f"{file}: {option.path}"), file
    text = environment.get(option.variable or "", "").strip()
    if text:
        value = option.read(text, f"environment {option.variable}")
        source = f"environment {option.variable}"
    if flags.get(option.path) is not None:
        value, source = option.read(flags[option.path], f"{option.flag}"), f"flag {option.flag}"
    return value, source


def _refuse_unknown(tree: Tree, file: str) -> None:
    for name, value in tree.items():
        if isinstance(value, dict) and any(o.path.startswith(f"{name}.") for o in OPTIONS):
            if value:
                raise ConfigInvalid(
                    f"{file}: unknown setting '{name}.{_plain(next(iter(value)))}'."
                )
        else:
            raise ConfigInvalid(f"{file}: unknown setting '{_plain(name)}'.")


def _plain(name: str) -> str:
    # TOML allows any character in a quoted key; a message is one line.
    return name.encode("unicode_escape").decode()[:60]


# --- callers -------------------------------------------------------------------------------------


def _callers(
    tables: Any, environment: Mapping[str, str], file: str, *, missing: dict[str, str]
) -> dict[str, Caller]:
    if not isinstance(tables, dict):
        raise ConfigInvalid(f"{file}: 'callers' must be a table of tables.")
    callers: dict[str, Caller] = {}
    for name, table in tables.items():
        if not isinstance(table, dict) or not _is_name(name):
            raise ConfigInvalid(
                f"{file}: callers.{_plain(name)} must be a table whose name is 1 to 64 letters, "
                "digits, '-' and '_'."
            )
        callers[name] = _caller(name, table, environment=environment, file=file, missing=missing)
    variable = environment.get(CALLER_KEY_VARIABLE, "").strip()
    if variable or not callers:
        known = callers.get(DEFAULT_CALLER)
        digest = _digest(variable, CALLER_KEY_VARIABLE) if variable else None
        if known is not None and known.digest not in (None, digest):
            raise ConfigInvalid(
                f"{CALLER_KEY_VARIABLE}: {file} gives callers.{DEFAULT_CALLER} another key."
            )
        policy = known.policy if known else CallerPolicy(name=DEFAULT_CALLER)
        callers[DEFAULT_CALLER] = Caller(policy=policy, digest=digest)
    _refuse_shared_keys(callers, file)
    return callers


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= 64 and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    )


def _caller(
    name: str,
    table: Tree,
    *,
    environment: Mapping[str, str],
    file: str,
    missing: dict[str, str],
) -> Caller:
    place = f"{file}: callers.{name}"
    values: dict[str, Any] = {}
    for option in CALLER_OPTIONS:
        values[option.path] = option.default
        if option.path in table:
            values[option.path] = option.read(table.pop(option.path), f"{place}.{option.path}")
    if table:
        unknown = _plain(next(iter(table)))
        raise ConfigInvalid(f"{file}: unknown setting 'callers.{name}.{unknown}'.")
    policy = _policy(name, values, file=file)
    variable = values["key_env"]
    if variable and not values["key_sha256"] and not environment.get(variable, "").strip():
        missing[f"callers.{name}.key"] = f"{place}.key_env: the variable {variable} is not set."
        return Caller(policy=policy, digest=None)
    return Caller(policy=policy, digest=_key(values, environment=environment, place=place))


def _policy(name: str, values: Mapping[str, Any], *, file: str) -> CallerPolicy:
    try:
        return CallerPolicy(
            name=name,
            background=BackgroundPolicy(values["background"]),
            store=StorePolicy(values["store"]),
            store_false=StoreFalsePolicy(values["store_false"]),
            when_left=WhenLeft(values["when_left"]),
            fast_session=FastPolicy(values["fast_session"]),
            max_running=values["max_running"],
            max_queued=values["max_queued"],
            max_foreground=values["max_foreground"],
            max_stored_bytes=values["max_stored_bytes"],
            retention_seconds=values["retention"],
            crash=CrashPolicy(values["crash"]),
            weight=values["weight"],
            executor=Executor(values["executor"]) if values["executor"] else None,
            models=values["models"],
            targets=values["targets"],
            account_tags=values["account_tags"],
            priority=Priority(values["priority"]),
            max_priority=Priority(values["max_priority"]),
        )
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{file}: {error}") from None


def _key(values: Mapping[str, Any], *, environment: Mapping[str, str], place: str) -> bytes | None:
    variable, digest = values["key_env"], values["key_sha256"]
    if variable and digest:
        raise ConfigInvalid(f"{place}: give key_env or key_sha256, not both.")
    if variable:
        return _digest(environment[variable].strip(), variable)
    if digest:
        try:
            raw = bytes.fromhex(digest)
        except ValueError:
            raw = b""
        if len(raw) != hashlib.sha256().digest_size:
            raise ConfigInvalid(f"{place}.key_sha256: must be 64 hexadecimal digits.")
        return raw
    return None  # its keys, if it has any, are in the data directory


def _digest(key: str, name: str) -> bytes:
    lowered = key.lower()
    if len(key) < MIN_KEY or len(set(key)) < 8 or any(word in lowered for word in _SAMPLES):
        raise ConfigInvalid(
            f"{name}: is no caller key: it must have at least {MIN_KEY} characters and be random. "
            'Try: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigInvalid(f"{name}: a caller key must be printable ASCII without spaces.")
    return key_digest(key)


def _refuse_shared_keys(callers: Mapping[str, Caller], file: str) -> None:
    seen: dict[bytes, str] = {}
    for name, caller in callers.items():
        if caller.digest is not None and caller.digest in seen:
            raise ConfigInvalid(
                f"{file}: callers.{seen[caller.digest]} and callers.{name} have the same key."
            )
        if caller.digest is not None:
            seen[caller.digest] = name
