"""Settings: who outranks whom, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.errors import DefinitionError
from perdure.settings import Settings, load_settings


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
