"""Settings: argument > ``PERDURE_*`` > ``[tool.perdure]`` > user file > default.

The environment is read here and nowhere else.
"""

from __future__ import annotations

import json
import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from perdure.errors import DefinitionError, did_you_mean, known_names
from perdure.resources import check_resources, parse_duration, parse_memory
from perdure_storage.records import CacheTerms

log = logging.getLogger(__name__)

FOLDER = ".perdure"
SCHEMES = ("sqlite", "postgresql", "postgres")
EXECUTORS = ("processes", "inline", "ray")
REUSES = ("off", "last")
DRAIN = timedelta(seconds=10)
BLOBS_CACHE_SIZE = 10 << 30
KEEP_TICKS = timedelta(days=90)
KEEP_TICKS_LAST = 10_000
HTTP_MAX_BODY = 1 << 20
"""More than 90 days of a schedule of each quarter of an hour, and 28 hours of one of each ten
seconds: a thousand of these are some 3 GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How perdure runs here.

    Attributes:
        store: URL of the metadata, ``sqlite:///...`` or ``postgresql://...``. Default: the
            nearest ``.perdure/perdure.db`` upwards, else beside the nearest pyproject.toml, else
            in the working directory.
        blobs: URL or folder of the values, any fsspec URL. Default: ``blobs/`` beside a SQLite
            store; a PostgreSQL store needs one.
        blobs_cache: folder in which this host keeps copies of values that are in a bucket.
        blobs_cache_size: bytes that all copies together may have; 0: none are kept.
        key: the store's signing key in hexadecimal; None means the file ``key`` beside a SQLite
            store.
        executor: where steps run, ``processes``, ``inline`` or ``ray``.
        ray_address: which Ray cluster, as ``ray.init`` takes it. None: what ``RAY_ADDRESS`` names,
            one that runs on this machine, or else one that this process starts and ends.
        ray_namespace: Ray's namespace of what perdure makes there. None: one of its own.
        ray_runtime_env: what Ray prepares for the workers: a table such as
            ``{working_dir = ".", env_vars = {TOKEN = "..."}}``, in the environment as JSON.
        workers: CPUs that steps may use at one time. None: what this machine has.
        cpus: the same, where it is not the number of worker processes too. None: ``workers``.
        gpus: GPUs that steps may use. None: those that are found; more than those are pretended
            ones, for tests; 0: none is counted, and none hidden from steps.
        memory: bytes that steps may ask for at one time. None: most of what this machine has.
        resources: what else steps may ask for by ``resources=`` and how much of it there is here:
            a table such as ``{license = 2}``, in the environment ``license=2,slot=1``.
        labels: what else there is to say of this machine, and is not used up: a table such as
            ``{zone = "a"}``; steps ask for it by ``resources={"zone=a": 1}``.
        modules: whose schedules ``perdure up`` registers: ``FILE.py`` or ``package.module``.
        drain: how long steps may go on once `perdure up` is told to end by SIGTERM; what has not
            ended then is cut off, and runs again elsewhere.
        keep_ticks: how long the ledger of a schedule says what became of a time, and a trigger
            of what arrived; what it has forgotten and comes again, counts again.
        keep_ticks_last: of how many times it does, at the most: the newest ones.
        http_host: where ``perdure up`` serves HTTP.
        http_port: at which port; 0: one that is free.
        http_max_body: bytes of the longest body that a request may have, a webhook's too: of a
            longer one nothing is read. It is held in memory, and a webhook's is a row besides.
        token: what requests over HTTP have to carry; None: nothing, which only this machine's
            loopback allows.
        reuse: what a new run takes over where it is not told: ``off``, nothing; ``last``, what
            has not changed since the workflow's newest run.
        allow_pickle: False refuses values, functions and exceptions that only pickle can write, and
            reads none: what is stored never runs code by being read.
        origin: where each value came from, by name.
    """

    store: str
    blobs: str
    blobs_cache: str = ""
    blobs_cache_size: int = BLOBS_CACHE_SIZE
    key: str | None = field(default=None, repr=False)
    executor: str = "processes"
    ray_address: str | None = None
    ray_namespace: str | None = None
    ray_runtime_env: Mapping[str, Any] = field(default_factory=dict)
    workers: int | None = None
    cpus: float | None = None
    gpus: int | None = None
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    drain: timedelta = DRAIN
    keep_ticks: timedelta = KEEP_TICKS
    keep_ticks_last: int = KEEP_TICKS_LAST
    http_host: str = "127.0.0.1"
    http_port: int = 7373
    http_max_body: int = HTTP_MAX_BODY
    token: str | None = field(default=None, repr=False)
    reuse: str = "off"
    allow_pickle: bool = True
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """Return the folder of a SQLite store, or None."""
        path = sqlite_path(self.store)
        return path.parent if path is not None else None

    @property
    def cache(self) -> CacheTerms | None:
        """Return the terms on which this host keeps copies of values, None if it keeps none."""
        if not self.blobs_cache or not self.blobs_cache_size:
            return None
        return CacheTerms(folder=self.blobs_cache, limit_bytes=self.blobs_cache_size)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as people need it.

    Attributes:
        kinds: the types that it has in a TOML file.
        unit: what its value is counted or written in.
        default: what holds if nobody says anything, in words where it is no fixed value.
    """

    name: str
    kinds: tuple[type, ...]
    unit: str
    default: str

    @property
    def variable(self) -> str:
        """Return the environment variable that sets it."""
        return f"{PREFIX}{self.name.upper()}"


PREFIX = "PERDURE_"
SETTINGS = (
    Setting(
        name="store",
        kinds=(str,),
        unit="path or URL",
        default="perdure.db in the nearest .perdure/, else in one beside the nearest"
        " pyproject.toml, else in one here",
    ),
    Setting(
        name="blobs",
        kinds=(str,),
        unit="path or fsspec URL",
        default="blobs/ beside a SQLite store; PostgreSQL needs one",
    ),
    Setting(
        name="blobs_cache",
        kinds=(str,),
        unit="path",
        default="perdure in the user's folder of caches, $XDG_CACHE_HOME or ~/.cache",
    ),
    Setting(name="blobs_cache_size", kinds=(int, str), unit="bytes, or 10GiB", default="10GiB"),
    Setting(
        name="key",
        kinds=(str,),
        unit="hexadecimal",
        default="the file key beside a SQLite store",
    ),
    Setting(name="executor", kinds=(str,), unit="processes, inline or ray", default="processes"),
    Setting(
        name="ray_address",
        kinds=(str,),
        unit="host:port, ray://host:port, auto or local",
        default="RAY_ADDRESS, else a cluster that runs here, else one that is started",
    ),
    Setting(name="ray_namespace", kinds=(str,), unit="name", default="one of its own"),
    Setting(name="ray_runtime_env", kinds=(str, dict), unit="JSON or a TOML table", default="none"),
    Setting(name="workers", kinds=(int,), unit="CPUs", default="those of this machine"),
    Setting(name="cpus", kinds=(int, float), unit="CPUs", default="workers"),
    Setting(name="gpus", kinds=(int,), unit="GPUs", default="those that are found"),
    Setting(
        name="memory", kinds=(int, str), unit="bytes, or 64GiB", default="90% of this machine's"
    ),
    Setting(
        name="resources", kinds=(str, dict), unit="NAME=AMOUNT,... or a TOML table", default="none"
    ),
    Setting(
        name="labels", kinds=(str, dict), unit="NAME=VALUE,... or a TOML table", default="none"
    ),
    Setting(
        name="modules",
        kinds=(str, list),
        unit="FILE.py or package.module, between commas or a TOML list",
        default="none",
    ),
    Setting(name="drain", kinds=(str, int, float), unit="duration", default="10s"),
    Setting(name="keep_ticks", kinds=(str,), unit="duration", default="90d"),
    Setting(
        name="keep_ticks_last",
        kinds=(int,),
        unit="ticks of each schedule",
        default=f"{KEEP_TICKS_LAST}",
    ),
    Setting(name="http_host", kinds=(str,), unit="address or name", default="127.0.0.1"),
    Setting(name="http_port", kinds=(int,), unit="port", default="7373"),
    Setting(name="http_max_body", kinds=(int, str), unit="bytes, or 25MiB", default="1MiB"),
    Setting(name="token", kinds=(str,), unit="16 characters or more", default="none"),
    Setting(name="reuse", kinds=(str,), unit="off or last", default="off"),
    Setting(name="allow_pickle", kinds=(bool, str), unit="true or false", default="true"),
)
KEYS = tuple(each.name for each in SETTINGS)
_BY_NAME = {each.name: each for each in SETTINGS}

_OF_TESTS = ("TEST_", "CRASH_", "KILL_", "STORM_", "SHAPE_", "SIMULATION_")
"""Variables that perdure's own tests read; all others that begin as settings do should be some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where settings come from: relative paths start in ``folder``."""

    name: str
    values: Mapping[str, Any]
    folder: Path
    is_file: bool = False


def load_settings(
    *, environ: Mapping[str, str] | None = None, start: Path | None = None, **arguments: Any
) -> Settings:
    """Gather the settings; ``arguments`` that are None count as not given.

    A variable ``PERDURE_...`` that is no setting is warned of, not refused: it may be another
    program's.

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
    for source in _sources(environ, start, arguments):
        for name, value in source.values.items():
            _check_key(name, value, source)
            if name not in found:
                found[name], origin[name] = _placed(name, value, source), source.name
    for line in unknown_variables(environ):
        log.warning("%s", line)
    found.setdefault("blobs_cache", str(_caches(environ) / "perdure"))
    _default_places(found, origin, start)
    return Settings(**_checked(found, origin), origin=origin)


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a sentence about each variable ``PERDURE_...`` that perdure does not read."""
    environ = os.environ if environ is None else environ
    known = [each.variable for each in SETTINGS]
    return [
        f"{name} is set, and is no setting of perdure{did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and name not in known
        and not name.removeprefix(PREFIX).startswith(_OF_TESTS)
    ]


def _sources(
    environ: Mapping[str, str], start: Path, arguments: Mapping[str, Any]
) -> list[_Source]:
    given = {name: value for name, value in arguments.items() if value is not None}
    variables = {each.variable: each.name for each in SETTINGS}
    set_here = {variables[name]: environ[name] for name in variables if environ.get(name)}
    return [
        _Source(name="argument", values=given, folder=start),
        _Source(name="environment", values=set_here, folder=start),
        *_files(environ, start),
    ]


def _files(environ: Mapping[str, str], start: Path) -> list[_Source]:
    sources = []
    project = _nearest(start, "pyproject.toml")
    if project is not None:
        table = _tool_table(project)
        sources.append(
            _Source(name=str(project), values=table, folder=project.parent, is_file=True)
        )
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    user = home / "perdure" / "config.toml"
    if user.exists():
        table = _read_toml(user)
        sources.append(_Source(name=str(user), values=table, folder=user.parent, is_file=True))
    return sources


def _caches(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "/tmp") / ".cache")


def _tool_table(project: Path) -> Mapping[str, Any]:
    tool = _read_toml(project).get("tool", {})
    table = tool.get("perdure", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise DefinitionError(
            f"{project}: tool.perdure is {_kind(table)}: write a table, [tool.perdure]"
        )
    return table


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise DefinitionError(f"{path} cannot be read: {error.strerror}") from error


def _nearest(start: Path, name: str) -> Path | None:
    # os.path: a folder above that is not ours to look into holds nothing for us.
    return next((p / name for p in (start, *start.parents) if os.path.exists(p / name)), None)


def _check_key(name: str, value: Any, source: _Source) -> None:
    """Refuse a key that is no setting, and a value of a file that has another type."""
    setting = _BY_NAME.get(name)
    if setting is None:
        raise DefinitionError(f"unknown setting {name!r} in {source.name}{known_names(name, KEYS)}")
    # A bool is an int in Python, and never meant as one in a file.
    if source.is_file and type(value) not in setting.kinds:
        wanted = " or ".join(_KINDS[kind] for kind in setting.kinds)
        raise DefinitionError(f"{name} in {source.name} is {_kind(value)}: write {wanted}")


_KINDS = {
    str: "a text",
    int: "a whole number",
    bool: "a truth value",
    float: "a number with a point",
    dict: "a table",
    list: "a list",
}


def _kind(value: Any) -> str:
    return f"{_KINDS.get(type(value), 'a time')} ({value!r})"


def _placed(name: str, value: Any, source: _Source) -> Any:
    """Return paths in full: one in a file starts there, not where somebody happens to stand."""
    if name == "store":
        return _store_url(str(value), source)
    if name == "blobs":
        return _blobs_url(str(value), source)
    if name == "blobs_cache":
        return str(_in_full(str(value), source))
    if name == "modules":
        return tuple(_module(str(each), source) for each in _listed(value))
    return value


def _listed(value: Any) -> list[Any]:
    """Return what a TOML list holds, or a text between its commas."""
    if not isinstance(value, str):
        return list(value)
    return [each.strip() for each in value.split(",") if each.strip()]


def _module(text: str, source: _Source) -> str:
    return str(_in_full(text, source)) if text.endswith(".py") else text


def _store_url(text: str, source: _Source) -> str:
    scheme, has_scheme, _ = text.partition("://")
    if has_scheme and scheme not in SCHEMES:
        raise DefinitionError(
            f"no store can be opened at {scheme}://... (from {source.name})"
            f"{did_you_mean(scheme, SCHEMES)}: {_STORE_FORMS}"
        )
    if has_scheme and scheme != "sqlite":
        return text
    path = text.removeprefix("sqlite:///") if has_scheme else text
    if not path.strip("/ ") or path.startswith("sqlite:") or not _is_text(path):
        raise DefinitionError(f"store {text!r} (from {source.name}) names no file: {_STORE_FORMS}")
    if path == ":memory:":
        raise DefinitionError(
            f"store {text!r} (from {source.name}) would be gone with its process: name a file. "
            "To run without a store, call the workflow, or perdure.execute"
        )
    return f"sqlite:///{_in_full(path, source)}"


_STORE_FORMS = (
    "expected a path, sqlite:///PATH (four slashes if absolute) or postgresql://HOST/DATABASE"
)


def _blobs_url(text: str, source: _Source) -> str:
    if not text.strip() or not _is_text(text):
        raise DefinitionError(
            f"blobs {text!r} (from {source.name}) names no place: expected a folder or an fsspec "
            "URL, such as s3://bucket/prefix"
        )
    return text if "://" in text else str(_in_full(text, source))


def _is_text(path: str) -> bool:
    """Say whether a store can keep it: bytes that are no Unicode come as halves of surrogates."""
    return "\0" not in path and not any("\ud800" <= char <= "\udfff" for char in path)


def _in_full(path: str, source: _Source) -> Path:
    try:
        return (source.folder / Path(path).expanduser()).absolute()
    except RuntimeError as error:  # no such user, or no home
        raise DefinitionError(f"{path} (from {source.name}): {error}") from error


def _default_places(found: dict[str, Any], origin: dict[str, str], start: Path) -> None:
    if "store" not in found:
        found["store"] = f"sqlite:///{_default_folder(start) / 'perdure.db'}"
    if "blobs" not in found:
        path = sqlite_path(str(found["store"]))
        if path is None:
            raise DefinitionError(
                "a store in a database server needs a place for large values: set PERDURE_BLOBS "
                "or pass blobs=, for example blobs='/mnt/shared/perdure' or 's3://bucket/prefix'"
            )
        found["blobs"] = str(path.parent / "blobs")
    for name in KEYS:
        origin.setdefault(name, "default")


def _default_folder(start: Path) -> Path:
    nearest = _nearest(start, FOLDER)
    if nearest is not None:
        return nearest
    project = _nearest(start, "pyproject.toml")
    return (project.parent if project is not None else start) / FOLDER


def _checked(found: dict[str, Any], origin: Mapping[str, str]) -> dict[str, Any]:
    for name, choices in (("executor", EXECUTORS), ("reuse", REUSES)):
        value = found.get(name, choices[0])
        if value not in choices:
            raise DefinitionError(
                f"{name} {value!r} (from {origin[name]}) is not known"
                f"{known_names(str(value), choices)}"
            )
    for name, (least, most) in _NUMBERS.items():
        if found.get(name) is not None:
            found[name] = _read_number(name, found[name], origin[name], least, most)
    if "keep_ticks" in found:
        found["keep_ticks"] = _read_age("keep_ticks", found["keep_ticks"], origin["keep_ticks"])
    if "drain" in found:
        found["drain"] = _read_span("drain", found["drain"], origin["drain"])
    if "resources" in found:
        found["resources"] = _read_resources(found["resources"], origin["resources"])
    if "labels" in found:
        found["labels"] = _read_labels(found["labels"], origin["labels"])
    if "ray_runtime_env" in found:
        found["ray_runtime_env"] = _read_table(
            "ray_runtime_env", found["ray_runtime_env"], origin["ray_runtime_env"]
        )
    if "memory" in found:
        found["memory"] = _read_bytes("memory", found["memory"], origin["memory"])
    if "http_max_body" in found:
        longest = found["http_max_body"]
        found["http_max_body"] = _read_bytes("http_max_body", longest, origin["http_max_body"])
    if "allow_pickle" in found:
        found["allow_pickle"] = _read_truth(
            "allow_pickle", found["allow_pickle"], origin["allow_pickle"]
        )
    if "blobs_cache_size" in found:
        found["blobs_cache_size"] = _read_cache_size(
            found["blobs_cache_size"], origin["blobs_cache_size"]
        )
    if "cpus" in found:
        found["cpus"] = _read_cpus(found["cpus"], origin["cpus"])
    return found


_NUMBERS = {
    "workers": (1, 4096),
    "gpus": (0, 4096),
    "keep_ticks_last": (1, 10_000_000),
    "http_port": (0, 65535),
}


def _read_number(name: str, value: Any, source: str, least: int, most: int) -> int:
    try:
        number = int(str(value))  # neither 2.5 nor True
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{name}={value!r} (from {source}) is not a whole number") from error
    if not least <= number <= most:
        raise DefinitionError(f"{name}={number} (from {source}) is not from {least} to {most}")
    return number


def _read_truth(name: str, value: Any, source: str) -> bool:
    """Return a truth value, of an environment variable too: no other word passes for one."""
    truth = value if isinstance(value, bool) else _TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise DefinitionError(f"{name}={value!r} (from {source}): write true or false")
    return truth


_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def _read_span(name: str, value: Any, source: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(value, what=name))
    except DefinitionError as error:
        raise DefinitionError(f"{error} (from {source})") from error


def _read_age(name: str, value: Any, source: str) -> timedelta:
    age = _read_span(name, value, source)
    if age <= timedelta(0):
        raise DefinitionError(f"{name}={value!r} (from {source}) keeps nothing: write 90d or so")
    return age


def _read_cpus(value: Any, source: str) -> float:
    try:
        cpus = float(value)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"cpus={value!r} (from {source}) is not a number") from error
    if not 0 < cpus <= 4096:
        raise DefinitionError(f"cpus={value!r} (from {source}) is not above 0 and up to 4096")
    return cpus


def _read_bytes(name: str, value: Any, source: str) -> int:
    plain = value.strip() if isinstance(value, str) else value
    try:
        return parse_memory(plain, what=name)
    except DefinitionError as error:
        raise DefinitionError(f"{error} (from {source})") from error


def _read_cache_size(value: Any, source: str) -> int:
    plain = value.strip() if isinstance(value, str) else value
    if plain in (0, "0"):
        return 0
    try:
        return parse_memory(plain, what="blobs_cache_size")
    except DefinitionError as error:
        raise DefinitionError(f"{error} (from {source})") from error


def _read_table(name: str, given: Any, source: str) -> Mapping[str, Any]:
    """Return a table, from one or from JSON."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise DefinitionError(f"{name} (from {source}) is not JSON: {error}") from error
    if not isinstance(given, Mapping):
        raise DefinitionError(
            f"{name}={given!r} (from {source}): write a table of names and values"
        )
    return dict(given)


def _read_labels(given: Any, source: str) -> Mapping[str, str]:
    """Return labels by name, from a table or from the text ``"zone=a,disk=fast"``."""
    if isinstance(given, str):
        pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
        given = {name.strip(): value.strip() for name, _, value in pairs}
    if not isinstance(given, Mapping):
        raise DefinitionError(f"labels={given!r} (from {source}): write a dict, {{'zone': 'a'}}")
    for name, value in given.items():
        if not (isinstance(name, str) and name and "=" not in name):
            raise DefinitionError(f"labels (from {source}): {name!r} is not a name")
        if not (isinstance(value, str) and value):
            raise DefinitionError(f"labels (from {source}): write {name}=VALUE, such as zone=a")
    return dict(given)


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
