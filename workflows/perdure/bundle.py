"""The user's own modules that a plan reached, as one archive that travels with it.

The archive is a zip without compression, with fixed times and sorted names: the same sources give
the same bytes in every process. Scripts and notebooks are not in it, their functions travel by
value; neither is what is installed, nor anything that is not Python source.
"""

from __future__ import annotations

import ast
import io
import os
import shutil
import sys
import tokenize
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp

from perdure.errors import ValueDamaged
from perdure.sources import (
    absolute_import,
    find_module_file,
    is_local_file,
    is_perdures_own,
    look_again_if_reloaded,
    source_file,
)
from perdure_storage.shapes import is_main

_EPOCH = (1980, 1, 1, 0, 0, 0)


def make_bundle(modules: Iterable[str]) -> bytes | None:
    """Return the archive of ``modules`` and of the user's modules that they import.

    Args:
        modules: names of modules that a plan reached.

    Returns:
        The archive's bytes, or None if there is nothing to put into it.
    """
    files = _closure(modules)
    if not files:
        return None
    return _archive_of(tuple((name, _source_bytes(files[name])) for name in sorted(files)))


@lru_cache(maxsize=16)
def _archive_of(files: tuple[tuple[str, bytes], ...]) -> bytes:
    """Return the archive of files; kept, as a process records many runs of the same sources."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def _closure(modules: Iterable[str]) -> dict[str, str]:
    """Return archive names and file names of everything that ``modules`` import, statically."""
    files: dict[str, str] = {}
    pending, seen = list(modules), set[str]()
    while pending:
        name = pending.pop()
        if name in seen or not name or is_perdures_own(name) or _is_elsewhere(name):
            continue
        seen.add(name)
        if is_main(name):
            pending.extend(_script_imports(name))
            continue
        filename = find_module_file(name)
        if filename is None or not filename.endswith(".py") or not is_local_file(filename):
            continue
        look_again_if_reloaded(filename, getattr(sys.modules.get(name), "__dict__", {}))
        files[_archive_name(name, filename)] = filename
        pending.extend(_imports(filename, _package_of(name, filename)))
        pending.append(name.rpartition(".")[0])  # a package's __init__ runs before its modules
    return files


def _is_elsewhere(name: str) -> bool:
    """Say, without looking at the disk, whether a name belongs to a library that is loaded."""
    top = sys.modules.get(name.partition(".")[0])
    filename = getattr(top, "__file__", None)
    return filename is not None and not is_main(name) and not is_local_file(filename)


def _script_imports(name: str) -> list[str]:
    """What a script imports is loaded when its functions are decoded in a worker."""
    filename = getattr(sys.modules.get(name), "__file__", None)
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if not filename or not is_local_file(filename):
        return []
    return _imports(filename, spec.parent if spec is not None else "")


def _imports(filename: str, package: str) -> list[str]:
    source = source_file(filename)
    found: list[str] = []
    for node in source.imports if source else ():
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        else:
            base = absolute_import(node, package)
            found.append(base)
            found.extend(f"{base}.{alias.name}" for alias in node.names)
    return found


def _package_of(name: str, filename: str) -> str:
    return name if os.path.basename(filename) == "__init__.py" else name.rpartition(".")[0]


def _archive_name(name: str, filename: str) -> str:
    path = name.replace(".", "/")
    is_package = os.path.basename(filename) == "__init__.py"
    return f"{path}/__init__.py" if is_package else f"{path}.py"


def _source_bytes(filename: str) -> bytes:
    """Return a module's source as it was first read, in the encoding that it declares."""
    source = source_file(filename)
    if source is None or not source.text.strip():  # of an empty file linecache may give a line
        return Path(filename).read_bytes()
    return _encoded(source.text)


@lru_cache(maxsize=256)
def _encoded(text: str) -> bytes:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(text.encode()).readline)
    return text.encode(encoding)


def unpack_bundle(data: bytes | memoryview, folder: Path) -> Path:
    """Unpack an archive into ``folder``, which then belongs first on a worker's path.

    Safe for several processes at once: a folder that is there is complete. A crash leaves at
    most a temporary folder beside it.

    Args:
        data: what ``make_bundle`` returned.
        folder: where to; named by the bundle's digest.

    Raises:
        ValueDamaged: it is no such archive, or names files outside of the folder.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _extract(data, temporary)
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def recorded_sources(data: bytes | memoryview) -> dict[str, str]:
    """Return the texts in an archive, by the names of their files; nothing is written or run.

    Raises:
        ValueDamaged: it is no such archive.
    """
    with _archive(data) as archive:
        return {name: archive.read(name).decode(errors="replace") for name in archive.namelist()}


def _archive(data: bytes | memoryview) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise ValueDamaged(
            f"the recorded sources are no archive: {error}. Take today's code: code='current'"
        ) from None


def _extract(data: bytes | memoryview, folder: Path) -> None:
    with _archive(data) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueDamaged(
                    f"the recorded sources name a file elsewhere: {name!r}. Somebody changed them"
                )
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
