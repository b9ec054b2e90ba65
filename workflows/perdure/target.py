"""Targets: ``FILE.py[:workflow]`` and ``package.module:workflow``, from text and back to it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import linecache
import os
import sys
import types
from pathlib import Path
from typing import Any

import perdure_storage
from perdure.errors import DefinitionError, did_you_mean
from perdure.workflow import Workflow
from perdure_storage.shapes import SCRIPT_PREFIX, is_main, treat_as_main

_OURS = tuple(os.path.dirname(file or "") + os.sep for file in (__file__, perdure_storage.__file__))
_loaded: dict[str, tuple[int, int]] = {}
"""Modification time and size of the files behind loaded scripts."""


def load_target(target: str) -> Workflow[Any, Any]:
    """Return the workflow that a target names.

    A file is imported under a private name, so that ``if __name__ == "__main__"`` does not run;
    its folder comes first on the path, as for ``python FILE.py``. A file that has changed since is
    imported again.

    Args:
        target: ``"FILE.py"`` (its only workflow), ``"FILE.py:name"`` or ``"package.module:name"``.

    Raises:
        DefinitionError: there is no such file, module or workflow, or importing it fails.
    """
    place, _, name = target.partition(":")
    if not place or "\0" in target:
        raise DefinitionError(f"target {target!r}: write FILE.py[:workflow] or package.module:name")
    return _workflow_in(load_module(place), name, place)


def load_module(place: str) -> types.ModuleType:
    """Return the module of ``"FILE.py"`` or ``"package.module"``, as ``load_target`` does.

    Raises:
        DefinitionError: there is none, or importing it fails.
    """
    return _load_file(place) if _is_file_name(place) else _load_module(place)


def name_of_place(place: str) -> str:
    """Return a module's name, or the path in full of a file: the same wherever somebody stands."""
    return str(_resolved(place)) if _is_file_name(place) else place


def _is_file_name(place: str) -> bool:
    """Say whether a file is meant: nothing that is no module's name is looked for as one."""
    is_module_name = all(part.isidentifier() for part in place.split("."))
    return place.endswith(".py") or not is_module_name or Path(place).is_file()


def _load_file(place: str) -> types.ModuleType:
    path = _resolved(place)
    if path.is_dir():
        raise DefinitionError(f"{place} is a folder: name a file in it{_examples(path)}")
    if not path.is_file():
        near = did_you_mean(path.name, _names_in(path.parent))
        raise DefinitionError(f"there is no file {place}{near}")
    main = sys.modules.get("__main__")
    main_file = getattr(main, "__file__", None)
    if main is not None and main_file and os.path.realpath(main_file) == str(path):
        return main  # the script itself asks for its own workflow
    name = script_name(path)
    stat = path.stat()
    stamp = (stat.st_mtime_ns, stat.st_size)
    if name in sys.modules and _loaded.get(name) == stamp:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = _execute(path, name)
    _loaded[name] = stamp
    return module


def _resolved(place: str) -> Path:
    try:
        return Path(place).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, an unknown user
        raise DefinitionError(f"there is no file {place}: {error}") from error


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.glob("*.py"))
    except OSError:
        return []


def _examples(folder: Path) -> str:
    names = _names_in(folder)
    return f", such as {', '.join(names[:3])}" if names else " (there is no .py file in it)"


def script_name(path: Path) -> str:
    """Return the private module name of a script."""
    stem = "".join(char if char.isalnum() else "_" for char in path.stem)
    return f"{SCRIPT_PREFIX}{stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"


def _execute(path: Path, name: str) -> types.ModuleType:
    linecache.checkcache(str(path))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{path} cannot be imported as Python source: name a FILE.py")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    treat_as_main(name)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        _put_back(name, before)
        if isinstance(error, Exception | SystemExit):
            raise _import_failed(str(path), error) from error
        raise
    _travel_by_value(module)
    return module


def _put_back(name: str, before: types.ModuleType | None) -> None:
    del sys.modules[name]
    if before is not None:
        sys.modules[name] = before


def _travel_by_value(module: types.ModuleType) -> None:
    """Let functions and classes of a script be pickled with their definition."""
    import cloudpickle

    if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.register_pickle_by_value(module)


def _load_module(place: str) -> types.ModuleType:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or place
        if place == missing or place.startswith(missing + "."):
            raise DefinitionError(
                f"there is no module {missing!r} on the path (looked from {os.getcwd()}); a file "
                f"is given as FILE.py{_nearest_file(place)}"
            ) from None
        raise _import_failed(place, error) from error
    except (Exception, SystemExit) as error:  # importing runs the user's code
        raise _import_failed(place, error) from error


def _nearest_file(place: str) -> str:
    return did_you_mean(f"{place}.py", _names_in(Path.cwd()))


def _import_failed(place: str, error: BaseException) -> DefinitionError:
    if isinstance(error, SyntaxError):
        where = f"{error.filename or place}:{error.lineno}"
        return DefinitionError(f"{where}: {error.msg}: {(error.text or '').strip()}")
    line = _last_line_of_theirs(error)
    hint = ""
    if isinstance(error, ImportError) and "relative import" in str(error):
        hint = ". A file of a package is given as package.module:workflow"
    elif isinstance(error, ModuleNotFoundError):
        hint = f". Install it for {sys.executable}, or put its folder on PYTHONPATH"
    return DefinitionError(f"importing {place} failed{line}: {type(error).__name__}: {error}{hint}")


def _last_line_of_theirs(error: BaseException) -> str:
    """Return where the user's code failed, `` at FILE:line``: not where perdure refused it."""
    import traceback

    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen", *_OURS))
    ]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _workflow_in(module: types.ModuleType, name: str, place: str) -> Workflow[Any, Any]:
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, Workflow) and not key.startswith("_")
    }
    if name:
        return _named(module, name, place, found)
    own = {
        key: value for key, value in found.items() if value.function.__module__ == module.__name__
    }
    if len(own) == 1:
        return next(iter(own.values()))
    if not own:
        raise DefinitionError(f"{place} defines no workflow: put @workflow on a function")
    names = ", ".join(own)
    raise DefinitionError(
        f"{place} defines several workflows ({names}): say which, {place}:{next(iter(own))}"
    )


def _named(
    module: types.ModuleType, name: str, place: str, found: dict[str, Workflow[Any, Any]]
) -> Workflow[Any, Any]:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    if isinstance(value, Workflow):
        return value
    by_name = [each for each in found.values() if each.name == name]
    if len(by_name) == 1:
        return by_name[0]
    if value is not None:
        raise DefinitionError(f"{place}:{name} is no workflow: put @workflow on it")
    listed = f" (workflows: {', '.join(found)})" if found else ""
    raise DefinitionError(f"{place} has no workflow {name!r}{did_you_mean(name, found)}{listed}")


def origin_of(workflow: Workflow[Any, Any]) -> str | None:
    """Return the target that makes the workflow again, or None if nothing can.

    Returns:
        ``"package.module:name"``, or ``"/abs/FILE.py:name"`` for scripts; None for workflows of
        notebooks and of function bodies.
    """
    module = sys.modules.get(workflow.function.__module__)
    name = _global_name(module, workflow)
    place = place_of(module) if module is not None else None
    return f"{place}:{name}" if place is not None and name is not None else None


def place_of(module: types.ModuleType) -> str | None:
    """Return what ``load_module`` takes for a module: its name, or the file of a script."""
    spec = getattr(module, "__spec__", None)
    if not is_main(module.__name__):
        return module.__name__
    if module.__name__ == "__main__" and spec is not None and spec.name:
        return str(spec.name)  # python -m
    filename = getattr(module, "__file__", None)
    return os.path.abspath(filename) if filename else None


def _global_name(module: types.ModuleType | None, workflow: Workflow[Any, Any]) -> str | None:
    """Return the global that holds the workflow, or a copy of it made by ``options``."""
    if module is None:
        return None
    qualname = workflow.function.__qualname__
    own = getattr(module, qualname, None) if "<" not in qualname else None
    if isinstance(own, Workflow) and own.function is workflow.function:
        return qualname
    for name, value in vars(module).items():
        if isinstance(value, Workflow) and value.function is workflow.function:
            return name
    return None


def file_being_imported() -> str | None:
    """Return the file of the module whose body runs now, the innermost one; None: it has none."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return None if frame is None else _real(frame.f_globals.get("__file__"))


def file_of(place: str) -> str | None:
    """Return the file of a module that is called as ``name_of_place`` has it, if it is known."""
    if _is_file_name(place):
        return _real(place)
    return _real(getattr(sys.modules.get(place), "__file__", None))


def _real(filename: str | None) -> str | None:
    return os.path.realpath(filename) if filename else None
