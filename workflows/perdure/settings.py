"""Settings: argument > ``PERDURE_*`` > ``[tool.perdure]`` > user file > default.

The environment is read here and nowhere else.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from perdure.errors import DefinitionError, did_you_mean
from perdure.resources import check_resources

FOLDER = ".perdure"
SCHEMES = ("sqlite", "postgresql", "postgres")
EXECUTORS = ("processes", "inline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How perdure runs here.

    Attributes:
        store: URL of the metadata, ``sqlite:///...`` or ``postgresql://...``. Default: the
            nearest ``.perdure/perdure.db`` upwards, else beside the nearest pyproject.toml, else
            in the working directory.
        blobs: URL or folder of the values, any fsspec URL. Default: ``blobs/`` beside a SQLite
            store; a PostgreSQL store needs one.
        key: the store's signing key in hexadecimal; None means the file ``key`` beside a SQLite
            store.
        executor: where steps run, ``processes`` or ``inline``.
        workers: CPUs that steps may use at one time. None: what this machine has.
        resources: what else steps may ask for by ``resources=`` and how much of it there is here:
            a table such as ``{license = 2}``, in the environment ``license=2,slot=1``.
        origin: where each value came from, by name.
    """

    store: str
    blobs: str
    key: str | None = field(default=None, repr=False)
    executor: str = "processes"
    workers: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """Return the folder of a SQLite store, or None."""
        path = sqlite_path(self.store)
        return path.parent if path is not None else None

    @property
    def blobs_name(self) -> str:
        """Return what the store remembers of ``blobs``: its URL, or its place in the folder.

        A folder that holds both the rows and the values may be moved as a whole.
        """
        folder = self.folder
        if folder is not None and "://" not in self.blobs:
            place = Path(self.blobs).absolute()
            if place.is_relative_to(folder):
                return f"./{place.relative_to(folder)}"
        return self.blobs


KEYS = tuple(f.name for f in fields(Settings) if f.name != "origin")


def load_settings(
    *, environ: Mapping[str, str] | None = None, start: Path | None = None, **arguments: Any
) -> Settings:
    """Gather the settings; ``arguments`` that are None count as not given.

    Args:
        environ: the environment, ``os.environ`` by default.
        start: the folder from which the nearest files upwards are looked for.
        **arguments: settings by name, which outrank everything else.

    Raises:
        DefinitionError: an unknown key, or a value that cannot be.
    """
    environ = os.environ if environ is None else environ
    start = start or Path.cwd()
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, values in _sources(environ, start, arguments):
        for name, value in values.items():
            if name not in KEYS:
                raise DefinitionError(
                    f"unknown setting {name!r} in {source}{did_you_mean(name, KEYS)}. "
                    f"Known: {', '.join(KEYS)}"
                )
            if name not in found:
                found[name], origin[name] = value, source
    _default_places(found, origin, start)
    return Settings(**_checked(found, origin), origin=origin)


def _sources(
    environ: Mapping[str, str], start: Path, arguments: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any]]]:
    given = {name: value for name, value in arguments.items() if value is not None}
    names = {f"PERDURE_{name.upper()}": name for name in KEYS}
    from_environ = {names[var]: environ[var] for var in names if environ.get(var)}
    project = _nearest(start, "pyproject.toml")
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    user = home / "perdure" / "config.toml"
    return [
        ("argument", given),
        ("environment", from_environ),
        (str(project), _tool_table(project) if project else {}),
        (str(user), _read_toml(user) if user.exists() else {}),
    ]


def _tool_table(project: Path) -> Mapping[str, Any]:
    table = _read_toml(project).get("tool", {}).get("perdure", {})
    return {name: value for name, value in table.items() if name != "modules"}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path} is not valid TOML: {error}") from error


def _nearest(start: Path, name: str) -> Path | None:
    return next((p / name for p in (start, *start.parents) if (p / name).exists()), None)


def _default_places(found: dict[str, Any], origin: dict[str, str], start: Path) -> None:
    if "store" not in found:
        found["store"] = f"sqlite:///{_default_folder(start) / 'perdure.db'}"
        origin["store"] = "default"
    elif "://" not in str(found["store"]):
        found["store"] = f"sqlite:///{Path(str(found['store'])).absolute()}"
    scheme = str(found["store"]).partition("://")[0]
    if scheme not in SCHEMES:
        raise DefinitionError(
            f"no store can be opened at {scheme}://...{did_you_mean(scheme, SCHEMES)}: expected a "
            "path, sqlite:///PATH or postgresql://HOST/DATABASE"
        )
    if "blobs" not in found:
        path = sqlite_path(str(found["store"]))
        if path is None:
            raise DefinitionError(
                "a store in a database server needs a place for large values: set PERDURE_BLOBS "
                "or pass blobs=, for example blobs='/mnt/shared/perdure' or 's3://bucket/prefix'"
            )
        found["blobs"] = str(path.parent / "blobs")
        origin["blobs"] = "default"


def _default_folder(start: Path) -> Path:
    nearest = _nearest(start, FOLDER)
    if nearest is not None:
        return nearest
    project = _nearest(start, "pyproject.toml")
    return (project.parent if project is not None else start) / FOLDER


def _checked(found: dict[str, Any], origin: Mapping[str, str]) -> dict[str, Any]:
    executor = found.get("executor", "processes")
    if executor not in EXECUTORS:
        raise DefinitionError(
            f"executor {executor!r} (from {origin['executor']}) is not known"
            f"{did_you_mean(str(executor), EXECUTORS)}. Known: {', '.join(EXECUTORS)}"
        )
    if found.get("workers") is not None:
        try:
            found["workers"] = int(found["workers"])
        except (TypeError, ValueError) as error:
            raise DefinitionError(
                f"workers={found['workers']!r} (from {origin['workers']}) is not a whole number"
            ) from error
        if not 1 <= found["workers"] <= 4096:
            raise DefinitionError("workers must be from 1 to 4096")
    if "resources" in found:
        found["resources"] = _read_resources(found["resources"], origin["resources"])
    return found


def _read_resources(given: Any, source: str) -> Mapping[str, float]:
    """Return amounts by name, from a table or from the text ``"license=2,slot=1"``."""
    if isinstance(given, str):
        pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
        try:
            given = {name.strip(): float(amount) for name, _, amount in pairs}
        except ValueError as error:
            raise DefinitionError(
                f"resources={given!r} (from {source}): write NAME=AMOUNT,... such as 'license=2'"
            ) from error
    try:
        return check_resources(given)
    except DefinitionError as error:
        raise DefinitionError(f"{error} (from {source})") from error


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL, or None for any other."""
    prefix = "sqlite:///"
    return Path(url.removeprefix(prefix)).absolute() if url.startswith(prefix) else None
