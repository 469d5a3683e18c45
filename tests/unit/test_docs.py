"""The reference pages, held against the code: all that exists is described, and nothing else."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec
import pytest

from handrail.cli.main import cli
from handrail.core.catalogue import Options
from handrail.core.profiles import PROFILES
from handrail.core.proxies import PROXY_VARIABLES
from handrail.core.switch import SWITCH_VARIABLES
from handrail.errors import CATALOGUE, Code
from handrail.server.admin import ADMIN_ROUTES
from handrail.server.app import OPEN, ROUTES
from handrail.settings.accounting import (
    BUDGET_MEANINGS,
    PRICE_MEANINGS,
    BudgetEntry,
    PriceEntry,
)
from handrail.settings.caller_options import CALLER_OPTIONS
from handrail.settings.catalogue import MEANINGS
from handrail.settings.oauth import OAUTH_OPTIONS
from handrail.settings.options import (
    API_KEY_VARIABLE,
    CALLER_KEY_VARIABLE,
    FILE_VARIABLE,
    OPENAI_KEY_VARIABLE,
    OPTIONS,
    Option,
)
from handrail.settings.rate_limits import LIMIT_MEANINGS, LimitEntry
from handrail.settings.targets import ROUTE_MEANINGS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def page(name: str) -> str:
    return (DOCS / name).read_text()


def shown(value: object) -> str:
    """A default, as the page writes it."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    return "`{}`" if value == {} else f"`{value}`"


def settings_row(option: Option) -> str:
    names = " ".join(f"`{name}`" for name in (option.flag, option.variable) if name) or "—"
    return f"| `{option.path}` | {names} | {shown(option.default)} | {option.meaning} |"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.path))
def test_every_setting_has_its_row(option: Option) -> None:
    assert settings_row(option) in page("reference/settings.md")


@pytest.mark.parametrize("option", CALLER_OPTIONS, ids=lambda option: str(option.path))
def test_every_setting_of_a_caller_has_its_row(option: Option) -> None:
    row = f"| `callers.NAME.{option.path}` | {shown(option.default)} | {option.meaning} |"
    assert row in page("reference/settings.md")


@pytest.mark.parametrize("option", OAUTH_OPTIONS, ids=lambda option: str(option.path))
def test_every_setting_of_the_issuer_has_its_row(option: Option) -> None:
    row = f"| `oauth.{option.path}` | {shown(option.default)} | {option.meaning} |"
    assert row in page("reference/settings.md")


def test_no_setting_is_described_that_does_not_exist() -> None:
    text = page("reference/settings.md")
    described = re.findall(r"^\| `([a-z_.A-Z0-9]+)` \|", text, re.MULTILINE)
    known = {option.path for option in OPTIONS}
    known |= {f"callers.NAME.{option.path}" for option in CALLER_OPTIONS}
    known |= {f"oauth.{option.path}" for option in OAUTH_OPTIONS}
    known |= variables()
    known |= {f"models.NAME.{key}" for key in MEANINGS}
    known |= {f"defaults.{key}" for key in Options.__struct_fields__}
    known |= {f"budgets.{key}" for key in BUDGET_MEANINGS}
    known |= {f"prices.{key}" for key in PRICE_MEANINGS}
    known |= {f"limits.{key}" for key in LIMIT_MEANINGS}
    known |= {f"routes.{key}" for key in ROUTE_MEANINGS}
    assert set(described) == known


@pytest.mark.parametrize(
    ("table", "entry", "meanings"),
    [
        ("budgets", BudgetEntry, BUDGET_MEANINGS),
        ("prices", PriceEntry, PRICE_MEANINGS),
        ("limits", LimitEntry, LIMIT_MEANINGS),
    ],
)
def test_every_key_of_a_table_of_accounting_has_its_row(
    table: str, entry: type[msgspec.Struct], meanings: Mapping[str, str]
) -> None:
    assert set(meanings) == set(entry.__struct_fields__)
    for key, meaning in meanings.items():
        assert re.search(
            rf"^\| `{table}\.{key}` \| .+ \| {re.escape(meaning)} \|$",
            page("reference/settings.md"),
            re.MULTILINE,
        )


@pytest.mark.parametrize(("key", "meaning"), ROUTE_MEANINGS.items())
def test_every_key_of_a_route_has_its_row(key: str, meaning: str) -> None:
    assert f"| `routes.{key}` | {meaning} |" in page("reference/settings.md")


def variables() -> set[str]:
    return {
        FILE_VARIABLE,
        CALLER_KEY_VARIABLE,
        API_KEY_VARIABLE,
        OPENAI_KEY_VARIABLE,
        *SWITCH_VARIABLES,
        *PROXY_VARIABLES,
        *(option.variable for option in OPTIONS if option.variable),
    }


@pytest.mark.parametrize("variable", sorted(variables()))
def test_every_environment_variable_has_its_row(variable: str) -> None:
    assert f"| `{variable}` |" in page("reference/settings.md")


@pytest.mark.parametrize("code", Code)
def test_every_error_code_has_its_row(code: Code) -> None:
    entry = CATALOGUE[code]
    assert f"| `{code}` | {entry.status} | `{entry.type}` |" in page("reference/errors.md")


def test_no_error_code_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^\| `([a-z_]+)` \| \d+ \|", page("reference/errors.md"), re.MULTILINE)
    assert set(described) == set(Code)


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_has_its_row(path: str) -> None:
    for method in ROUTES[path]:
        key = "no" if path in OPEN else "yes"
        assert f"| `{method} {path}` | {key} |" in page("reference/routes.md")


@pytest.mark.parametrize("path", ADMIN_ROUTES)
def test_every_route_of_the_admin_api_has_its_row(path: str) -> None:
    for method in ADMIN_ROUTES[path]:
        assert f"| `{method} {path}` | admin |" in page("reference/routes.md")


def test_no_route_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^\| `([A-Z]+) (/\S+)` \|", page("reference/routes.md"), re.MULTILINE)
    every = {**ROUTES, **ADMIN_ROUTES}
    assert set(described) == {(method, path) for path in every for method in every[path]}


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_and_what_it_drops_is_described(name: str) -> None:
    text = page("reference/profiles.md")
    assert f"## `{name}`" in text
    profile = PROFILES[name]
    for field in (*profile.drops, *profile.refuses, *(profile.takes or ())):
        assert f"`{field}`" in text
    section = text.partition(f"## `{name}`")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(/responses/\w+)`", section)) == {e.path for e in profile.endpoints}


def commands(group: click.Group, prefix: str = "handrail") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        whole = f"{prefix} {name}"
        inner = commands(command, whole) if isinstance(command, click.Group) else []
        found += inner or [(whole, command)]
    return found


@pytest.mark.parametrize(("name", "command"), commands(cli))
def test_every_command_and_flag_is_described(name: str, command: click.Command) -> None:
    text = page("reference/cli.md")
    assert f"## `{name}`" in text
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert f"`{name} {parameter.metavar}`" in text
            continue
        for flag in (*parameter.opts, *parameter.secondary_opts):
            assert f"`{flag}" in text or f"/{flag}`" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{target} in {path.name}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in heads}
            assert anchor in slugs, f"{target} in {path.name}"


def test_the_readme_names_the_two_commands_on_its_first_screen() -> None:
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    assert "./scripts/demo" in first
    assert "./scripts/test" in first
    assert "previous_response_id" in first


def test_every_page_of_the_docs_is_linked_from_another() -> None:
    linked = {
        (path.parent / target.partition("#")[0]).resolve()
        for path in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text())
        if not target.startswith("http")
    }
    assert [path for path in DOCS.rglob("*.md") if path.resolve() not in linked] == []


CONFORMANCE = "explanation/reference-conformance.md"
FAULTS = "explanation/faults.md"


def test_every_defect_of_the_reference_has_a_test_that_shows_it_is_not_here() -> None:
    rows = re.findall(r"^\| D-(\d+) \| .+ \| (.+) \|$", page(CONFORMANCE), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 43))
    assert all("::test_" in named for _, named in rows)


def test_every_fault_has_its_row_with_a_test_or_a_reason() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \| (.+) \|$", page(FAULTS), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 27))
    for _, promise, shown_by in rows:
        if promise == "–":
            assert "`tests/" not in promise
        else:
            assert "`tests/" in shown_by or "the same" in shown_by or "](" in shown_by


def named_tests() -> list[str]:
    text = page(CONFORMANCE) + page(FAULTS)
    return sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", text)))


@pytest.mark.parametrize("name", named_tests())
def test_every_test_that_a_page_names_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert re.search(rf"^(?:async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE)
