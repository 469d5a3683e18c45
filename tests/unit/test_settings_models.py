"""What is known about models: the shipped file, and the tables of the settings file."""

import re
from pathlib import Path

import msgspec
import pytest

from handrail.core.catalogue import NO_OPTIONS, Capability, Catalogue, Entry, Options
from handrail.core.efforts import LADDERS, Effort
from handrail.core.profiles import PROFILES
from handrail.errors import ConfigInvalid
from handrail.settings.catalogue import (
    MEANINGS,
    SHIPPED_FILE,
    catalogue_of,
    read_models,
    shipped,
)
from handrail.settings.explained import explained
from handrail.settings.in_process import LibrarySettings
from tests.unit.reading import FILE, Read, refusal

ROOT = Path(__file__).resolve().parents[2]


def known(profile: str) -> Catalogue:
    return catalogue_of(PROFILES[profile], own={}, defaults=NO_OPTIONS)


# --- the shipped file ---------------------------------------------------------------------------


def test_every_shipped_model_takes_the_effort_that_it_runs_at() -> None:
    for name, entry in shipped().items():
        if entry.capabilities:
            assert entry.can(Capability.REASONING), name
            assert entry.default_effort in (entry.efforts or ()), name
        else:
            assert entry.efforts is None, name
        assert entry.family, name


def test_no_shipped_entry_fills_anything_into_a_request() -> None:
    for name, entry in shipped().items():
        said = {option: getattr(entry, option) for option in Options.__struct_fields__}
        assert set(said.values()) == {None}, name
        assert not entry.variants, name


def test_no_shipped_alias_means_two_models_or_another_family() -> None:
    names = [each for name, entry in shipped().items() for each in (name, *entry.aliases)]
    assert len(names) == len(set(names))
    for name, entry in shipped().items():
        for alias in entry.aliases:
            assert ("codex" in alias) is ("codex" in name)
            assert ("pro" in alias) is ("pro" in name)
        for there in entry.upstream.values():
            assert shipped()[there].family == entry.family


@pytest.mark.parametrize("profile", PROFILES)
def test_every_shipped_name_means_the_same_with_each_effort_behind_it(profile: str) -> None:
    catalogue = known(profile)
    for name in {*catalogue.entries, *catalogue.aliases}:
        plain = catalogue.find(name)
        assert plain is not None
        for effort in Effort:
            if name.endswith("codex") and effort is Effort.MAX:
                continue  # codex-max is a model
            found = catalogue.find(f"{name}-{effort}")
            assert found is not None
            assert (found.sends, found.effort) == (plain.sends, effort)


@pytest.mark.parametrize(
    "name", ["gpt-4o", "o1-preview", "claude-opus-4", "gpt-5.4-codex", "gpt-6-sol", "gpt-5.7", "m"]
)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_model_that_nobody_named_is_unknown(profile: str, name: str) -> None:
    assert known(profile).find(name) is None


def test_the_shipped_file_is_read_once_and_the_catalogue_built_once() -> None:
    assert shipped() is shipped()
    assert known("codex") is known("codex")


# --- the settings' own tables ---------------------------------------------------------------------

OWN = """
[defaults]
verbosity = "low"
[models."gpt-5.5"]
aliases = ["main"]
effort = "medium"
upstream = { openai = "mine" }
[models."gpt-5.5".variants.deep]
effort = "xhigh"
"""


def test_tables_of_the_file_are_part_of_what_is_known(read: Read) -> None:
    settings = read(toml=OWN)
    found = settings.target.catalogue.find("main-deep")
    assert found is not None
    assert found.sends == "mine"
    assert found.options == Options(effort=Effort.XHIGH, verbosity="low")
    assert found.entry.can(Capability.REASONING)
    assert settings.models["gpt-5.5"].aliases == ("main",)
    assert settings.defaults == Options(verbosity="low")


def test_tables_are_shown_with_their_source(read: Read) -> None:
    rows = {path: (value, source) for path, value, source in explained(read(toml=OWN))}
    own = {path: row for path, row in rows.items() if path.startswith(("models", "defaults"))}
    assert own == {
        "defaults.verbosity": ('"low"', FILE),
        'models."gpt-5.5".aliases': ('["main"]', FILE),
        'models."gpt-5.5".effort': ('"medium"', FILE),
        'models."gpt-5.5".upstream': ('{"openai":"mine"}', FILE),
        'models."gpt-5.5".variants': (own['models."gpt-5.5".variants'][0], FILE),
    }
    assert '"deep":{"effort":"xhigh"' in own['models."gpt-5.5".variants'][0]
    none = explained(read(toml=""))
    assert not [path for path, _, _ in none if path.startswith(("models", "defaults"))]


@pytest.mark.parametrize(
    ("toml", "wrong"),
    [
        ("models = 5", "'models' must be a table of tables."),
        ("defaults = 5", "defaults: Expected `object`, got `int`."),
        ("models.m = 5", 'models."m": Expected `object`, got `int`.'),
        ("[models.m]\nefort = 'low'", 'models."m": Object contains unknown field `efort`.'),
        ("[models.m]\neffort = 'lo'", "models.\"m\".effort: Invalid enum value 'lo'."),
        ("[models.m]\nefforts = ['lo']", "models.\"m\".efforts[0]: Invalid enum value 'lo'."),
        ("[models.m]\nverbosity = 'off'", "models.\"m\".verbosity: Invalid enum value 'off'."),
        ("[models.m]\naliases = 'x'", 'models."m".aliases: Expected `array`, got `str`.'),
        ("[models.m]\ndisabled = 1", 'models."m".disabled: Expected `bool`, got `int`.'),
        (
            "[models.m]\nefforts = ['ultra']",
            "models.\"m\": efforts: 'ultra' is sent as 'max', which must be there too.",
        ),
        (
            "[models.m.upstream]\nazur = 'x'",
            "models.\"m\".upstream: 'azur' is none of " + ", ".join(PROFILES) + ".",
        ),
        (
            "[models.m.variants.'a-b']",
            "models.\"m\".variants: 'a-b' must be 1 to 32 small letters, digits and '_'.",
        ),
        (
            "[models.m.variants.x]\naliases = []",
            'models."m".variants[...]: Object contains unknown field `aliases`.',
        ),
        ("[models.' ']", 'models." ": a model needs a name.'),
        ('[models."a\\nb"]\nx = 1', 'models."a\\nb": Object contains unknown field `x`.'),
        ("[defaults]\naliases = []", "defaults: Object contains unknown field `aliases`."),
    ],
)
def test_a_wrong_table_names_the_file_and_the_key(read: Read, toml: str, wrong: str) -> None:
    assert refusal(read, toml=toml) == f"{FILE}: {wrong}"


def test_an_alias_of_two_models_stops_the_start(read: Read) -> None:
    toml = "[models.a]\naliases = ['x']\n[models.b]\naliases = ['x']"
    assert refusal(read, toml=toml) == "models: 'x' cannot mean both 'a' and 'b'."


def test_a_library_has_the_same_rules(read: Read) -> None:
    rules = LibrarySettings(
        profile="codex",
        models={"gpt-5.5": {"effort": "high"}},
        defaults={"verbosity": "low"},
    )
    found = rules.upstream().catalogue.find("gpt-5.5")
    assert found is not None
    assert found.options == Options(effort=Effort.HIGH, verbosity="low")
    other = rules.for_profile("openai")
    assert other.models == rules.models
    assert other.upstream().catalogue.find("gpt-5-codex-low") is not None
    assert LibrarySettings.of(read(toml=OWN)).upstream().catalogue.find("main") is not None
    with pytest.raises(ConfigInvalid, match=r"defaults\.effort: Invalid enum value 'lo'"):
        LibrarySettings(defaults={"effort": "lo"})
    with pytest.raises(ConfigInvalid, match=r'models: models."m": Expected `object`'):
        LibrarySettings(models={"m": 5})  # type: ignore[arg-type]


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="a model needs a name"):
        read_models({5: {}}, "models")


# --- the pages ------------------------------------------------------------------------------------


def test_every_key_of_a_table_has_its_row() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    keys = [field.name for field in msgspec.structs.fields(Entry)]
    assert set(MEANINGS) == set(keys)
    for key, meaning in MEANINGS.items():
        assert f"| `models.NAME.{key}` | {meaning} |" in page
    for key in Options.__struct_fields__:
        assert f"| `defaults.{key}` | {MEANINGS[key]} |" in page
    assert len(re.findall(r"^\| `(?:models\.NAME|defaults)\.", page, re.MULTILINE)) == len(
        [*MEANINGS, *Options.__struct_fields__]
    )


def test_the_page_shows_the_ladders() -> None:
    page = (ROOT / "docs/reference/profiles.md").read_text()
    for effort, ladder in LADDERS.items():
        assert f"| `{effort}` | " + ", ".join(f"`{step}`" for step in ladder) in page


def test_the_shipped_file_is_in_the_package() -> None:
    assert SHIPPED_FILE.is_relative_to(ROOT / "src" / "handrail")
