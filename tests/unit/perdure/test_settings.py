"""Settings: who outranks whom, and what is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from perdure.errors import DefinitionError
from perdure.settings import KEYS, Settings, load_settings, unknown_variables
from perdure_storage.records import CacheTerms


def load(start: Path, environ: dict[str, str] | None = None, **arguments: object) -> Settings:
    return load_settings(
        environ={"XDG_CONFIG_HOME": str(start), **(environ or {})}, start=start, **arguments
    )


def test_default_store_lies_in_the_working_directory(tmp_path: Path) -> None:
    settings = load(tmp_path)

    assert settings.store == f"sqlite:///{tmp_path}/.perdure/perdure.db"
    assert settings.blobs == f"{tmp_path}/.perdure/blobs"
    assert settings.origin["store"] == "default"


def test_default_store_is_the_nearest_one_upwards(tmp_path: Path) -> None:
    (tmp_path / ".perdure").mkdir()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)

    assert load(inner).folder == tmp_path / ".perdure"


def test_default_store_lies_beside_the_nearest_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    inner = tmp_path / "src"
    inner.mkdir()

    assert load(inner).folder == tmp_path / ".perdure"


def test_argument_outranks_environment_outranks_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.perdure]\nexecutor = 'inline'\nworkers = 3\n")
    environ = {"PERDURE_EXECUTOR": "processes", "PERDURE_WORKERS": "5"}

    settings = load(tmp_path, environ, workers=7)

    assert (settings.executor, settings.workers) == ("processes", 7)
    assert settings.origin["executor"] == "environment"
    assert load(tmp_path).executor == "inline"


def test_plain_path_is_a_sqlite_store(tmp_path: Path) -> None:
    settings = load(tmp_path, {"PERDURE_STORE": str(tmp_path / "x.db")})

    assert settings.store == f"sqlite:///{tmp_path}/x.db"


def test_server_store_asks_for_a_place_for_values(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="PERDURE_BLOBS"):
        load(tmp_path, {"PERDURE_STORE": "postgresql://db/x"})


def test_store_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="expected a path"):
        load(tmp_path, {"PERDURE_STORE": "mysql://db/x"})


def test_blobs_inside_the_stores_folder_are_known_by_their_place_in_it(tmp_path: Path) -> None:
    assert load(tmp_path).blobs_name == "./blobs"
    assert load(tmp_path, blobs="/mnt/values").blobs_name == "/mnt/values"


def test_unknown_key_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.perdure]\nexecuter = 'inline'\n")

    with pytest.raises(DefinitionError, match="did you mean 'executor'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PERDURE_EXECUTOR": "proceses"}, "did you mean 'processes'"),
        ({"PERDURE_WORKERS": "many"}, "not a whole number"),
        ({"PERDURE_WORKERS": "0"}, "from 1 to 4096"),
        ({"PERDURE_REUSE": "list"}, "did you mean 'last'"),
        ({"PERDURE_KEEP_TICKS": "long"}, "is not a duration.*from environment"),
        ({"PERDURE_KEEP_TICKS": "0s"}, "keeps nothing"),
        ({"PERDURE_KEEP_TICKS_LAST": "0"}, "from 1 to"),
    ],
)
def test_impossible_value_is_refused(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        load(tmp_path, environ)


def test_broken_project_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.perdure\n")

    with pytest.raises(DefinitionError, match=r"pyproject\.toml is not valid TOML"):
        load(tmp_path)


def test_key_is_not_shown(tmp_path: Path) -> None:
    assert "abcd" not in repr(load(tmp_path, {"PERDURE_KEY": "abcd"}))


def test_resources_come_from_a_table_or_from_text(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.perdure.resources]\nlicense = 2\n")

    assert load(tmp_path).resources == {"license": 2.0}
    environ = {"PERDURE_RESOURCES": "license=1, slot=0.5"}
    assert load(tmp_path, environ).resources == {"license": 1.0, "slot": 0.5}


@pytest.mark.parametrize("text", ["license", "license=many", "=2", "cpus=4", "license=-1"])
def test_resources_that_make_no_sense_are_refused_with_their_source(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(DefinitionError, match="environment"):
        load(tmp_path, {"PERDURE_RESOURCES": text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store = 3", r"store in .*pyproject\.toml is a whole number \(3\): write a text"),
        ("workers = '3'", r"workers in .*pyproject\.toml is a text \('3'\): write a whole number"),
        ("workers = true", "workers in .* is a truth value"),
        ("workers = 2.0", "workers in .* is a number with a point"),
        ("executor = ['inline']", "executor in .* is a list"),
        ("resources = 2020-01-01", "resources in .* write a text or a table"),
    ],
)
def test_wrong_type_in_a_file_is_refused_with_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.perdure]\n{text}\n")

    with pytest.raises(DefinitionError, match=message):
        load(tmp_path)


def test_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\nperdure = 'inline'\n")

    with pytest.raises(DefinitionError, match=r"write a table, \[tool\.perdure\]"):
        load(tmp_path)


def test_unknown_key_in_the_users_own_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "perdure").mkdir()
    (tmp_path / "perdure" / "config.toml").write_text("worker = 3\n")

    with pytest.raises(DefinitionError, match=r"config\.toml; did you mean 'workers'"):
        load(tmp_path)


def test_project_outranks_the_users_own_file(tmp_path: Path) -> None:
    (tmp_path / "perdure").mkdir()
    (tmp_path / "perdure" / "config.toml").write_text("workers = 3\nexecutor = 'inline'\n")
    (tmp_path / "pyproject.toml").write_text("[tool.perdure]\nworkers = 2\n")

    settings = load(tmp_path)

    assert (settings.workers, settings.executor) == (2, "inline")
    assert settings.origin["workers"].endswith("pyproject.toml")
    assert settings.origin["executor"].endswith("config.toml")


def test_path_in_a_file_starts_at_the_file_and_not_where_somebody_stands(tmp_path: Path) -> None:
    text = "[tool.perdure]\nstore = 'data/x.db'\nblobs = 'data/values'\n"
    (tmp_path / "pyproject.toml").write_text(text)
    inner = tmp_path / "src"
    inner.mkdir()

    assert load(inner).store == f"sqlite:///{tmp_path}/data/x.db"
    assert load(inner).blobs == f"{tmp_path}/data/values"


def test_home_is_a_home_in_a_store_and_in_blobs(tmp_path: Path) -> None:
    settings = load(tmp_path, store="~/x.db", blobs="~/values")

    assert settings.store == f"sqlite:///{Path.home()}/x.db"
    assert settings.blobs == f"{Path.home()}/values"


@pytest.mark.parametrize(
    "store",
    ["", "  ", "sqlite://", "sqlite:///", "sqlite:x.db", ":memory:", "a\0b", "~nobody-such/x"],
)
def test_store_that_names_no_file_is_refused_with_its_source(tmp_path: Path, store: str) -> None:
    with pytest.raises(DefinitionError, match="from argument"):
        load(tmp_path, store=store)


@pytest.mark.parametrize("blobs", ["", "  "])
def test_blobs_that_name_no_place_are_refused(tmp_path: Path, blobs: str) -> None:
    with pytest.raises(DefinitionError, match="names no place"):
        load(tmp_path, blobs=blobs)


def test_variable_that_is_no_setting_is_told_of_with_the_nearest_one() -> None:
    environ = {
        "PERDURE_STOR": "x",
        "PERDURE_STORE": "y",
        "PERDURE_CRASH_POINTS": "1",
        "PERDURES": "z",
        "PERDURE_TEST_STORE": "t",
    }

    assert unknown_variables(environ) == [
        "PERDURE_STOR is set, and is no setting of perdure; did you mean 'PERDURE_STORE'?"
    ]


def test_variable_that_is_no_setting_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(tmp_path, {"PERDURE_WORKER": "3"})

    assert "did you mean 'PERDURE_WORKERS'" in caplog.text


def test_each_setting_has_an_origin(tmp_path: Path) -> None:
    assert load(tmp_path, workers=2).origin == {
        **dict.fromkeys(KEYS, "default"),
        "workers": "argument",
    }


def test_each_setting_is_a_field_with_a_meaning() -> None:
    names = [each.name for each in fields(Settings) if each.name != "origin"]

    assert list(KEYS) == names
    for name in names:
        assert f"        {name}: " in (Settings.__doc__ or "")


def test_modules_are_a_list_in_a_file_and_a_file_among_them_starts_there(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.perdure]\nmodules = ["a.flows", "b.py"]\n')
    inner = tmp_path / "src"
    inner.mkdir()

    assert load(inner).modules == ("a.flows", str(tmp_path / "b.py"))
    assert load(inner, {"PERDURE_MODULES": "a, c.flows"}).modules == ("a", "c.flows")


def test_what_a_machine_has_is_read_from_text_and_from_tables(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.perdure]\ncpus = 1.5\ngpus = 2\nmemory = '4GiB'\nlabels = { zone = 'a' }\n"
    )
    environ = {
        "PERDURE_CPUS": "2.5",
        "PERDURE_GPUS": "0",
        "PERDURE_MEMORY": "1024",
        "PERDURE_LABELS": "zone=b, disk=fast",
    }

    project, environment = load(tmp_path), load(tmp_path, environ)

    assert (project.cpus, project.gpus, project.memory) == (1.5, 2, 4 << 30)
    assert project.labels == {"zone": "a"}
    assert (environment.cpus, environment.gpus, environment.memory) == (2.5, 0, 1024)
    assert environment.labels == {"zone": "b", "disk": "fast"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("CPUS", "many", "cpus='many' .from environment. is not a number"),
        ("CPUS", "0", "is not above 0"),
        ("GPUS", "-1", "is not from 0 to 4096"),
        ("MEMORY", "4 elephants", "memory='4 elephants' is not a size.*from environment"),
        ("LABELS", "zone", "write zone=VALUE, such as zone=a"),
    ],
)
def test_what_no_machine_can_have_is_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(DefinitionError, match=said):
        load(tmp_path, {f"PERDURE_{name}": text})


def test_copies_of_values_have_a_folder_and_a_bound_of_their_own(tmp_path: Path) -> None:
    found = load_settings(
        environ={"XDG_CACHE_HOME": "/caches", "XDG_CONFIG_HOME": str(tmp_path)}, start=tmp_path
    )
    given = load(tmp_path, {"PERDURE_BLOBS_CACHE": "kept", "PERDURE_BLOBS_CACHE_SIZE": "2GiB"})

    assert found.cache == CacheTerms(folder="/caches/perdure", limit_bytes=10 << 30)
    assert given.cache == CacheTerms(folder=str(tmp_path / "kept"), limit_bytes=2 << 30)


def test_no_copies_are_kept_where_none_may_be(tmp_path: Path) -> None:
    assert load(tmp_path, {"PERDURE_BLOBS_CACHE_SIZE": "0"}).cache is None


def test_bound_of_copies_that_is_no_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"blobs_cache_size.*environment"):
        load(tmp_path, {"PERDURE_BLOBS_CACHE_SIZE": "much"})
