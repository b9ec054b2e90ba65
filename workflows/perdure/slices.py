"""What an import inside a function's body reaches, found by reading, without importing.

Such imports are often lazy on purpose, and whether the module happens to be loaded already must
not change a digest. So the imported module is read: the statements that bind the imported names,
what those use in turn, and so on through the user's own modules.
"""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

from perdure.normalise import Normalised, normalise_statements
from perdure.sources import (
    SourceFile,
    absolute_import,
    find_module_file,
    is_local_file,
    source_file,
)

Target = tuple[str, str]
"""A module's name and a name in it; ``"*"`` for the whole module."""


class Slice:
    """Everything that some imported names reach.

    Attributes:
        texts: normal form of each reached statement's name, by ``module.name``.
        places: ``module.name`` -> ``file:line`` for people.
        library: names that lead out of the user's own code.
        modules: the user's modules that were reached.
    """

    def __init__(self, targets: Iterable[Target]) -> None:
        self.texts: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.library: set[str] = set()
        self.modules: set[str] = set()
        pending = list(targets)
        while pending:
            pending.extend(self._reach(*pending.pop()))

    def _reach(self, module: str, name: str) -> Iterator[Target]:
        label = f"{module}.{name}"
        if label in self.texts or label in self.library:
            return
        filename = find_module_file(module)
        source = source_file(filename) if filename and is_local_file(filename) else None
        if filename is None or source is None:
            self.library.add(label)
            return
        self.modules.add(module)
        statements = source.bindings.get(name, [])
        if name == "*":
            statements = list(source.tree.body)
        if not statements:
            yield from self._submodule(module, name, label)
            return
        own = [each for each in statements if not isinstance(each, ast.Import | ast.ImportFrom)]
        normal = normalise_statements(own)
        self.texts[label] = normal.text
        self.places[label] = f"{os.path.basename(filename)}:{statements[0].lineno}"
        if len(own) < len(statements):
            yield from imported(source, name, _package(module, filename), None)
        yield from used_names(normal, source, module, _package(module, filename))

    def _submodule(self, module: str, name: str, label: str) -> Iterator[Target]:
        """A name that no statement binds: a submodule, or something made at run time."""
        inner = f"{module}.{name}"
        if name != "*" and find_module_file(inner) is not None:
            yield inner, "*"
        else:
            self.texts[label] = ""


def used_names(
    normal: Normalised, source: SourceFile, module: str, package: str
) -> Iterator[Target]:
    """Yield what the names used in a statement of a module refer to."""
    for name in normal.names:
        if name in source.bindings:
            yield module, name
    for chain in normal.chains:
        is_import = any(
            isinstance(each, ast.Import | ast.ImportFrom)
            for each in source.bindings.get(chain[0], ())
        )
        if is_import:
            yield from imported(source, chain[0], package, chain[1])
        elif chain[0] in source.bindings:
            yield module, chain[0]
    for statement in normal.imports:
        yield from import_targets(statement, package, normal.chains, normal.names)


def imported(
    source: SourceFile, name: str, package: str, attribute: str | None
) -> Iterator[Target]:
    """Yield what a module-level name that was imported refers to.

    Args:
        source: the file that imports it.
        name: the name in that file.
        package: the file's package, for relative imports.
        attribute: what of it is used; None: all.
    """
    for statement in source.bindings.get(name, ()):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            chains = [(name, attribute)] if attribute else []
            only = _only(statement, name)
            yield from import_targets(only, package, chains, () if attribute else (name,))


def _only(statement: ast.Import | ast.ImportFrom, name: str) -> ast.Import | ast.ImportFrom:
    aliases = [
        alias
        for alias in statement.names
        if (alias.asname or alias.name.partition(".")[0]) == name or alias.name == "*"
    ]
    if isinstance(statement, ast.Import):
        return ast.Import(names=aliases)
    return ast.ImportFrom(module=statement.module, names=aliases, level=statement.level)


def import_targets(
    statement: ast.Import | ast.ImportFrom,
    package: str,
    chains: Iterable[tuple[str, ...]],
    bare: Iterable[str],
) -> Iterator[Target]:
    """Yield what an import statement reaches.

    Args:
        statement: the import.
        package: of the module that it stands in, for relative imports.
        chains: dotted names used beside it; of an imported module, only those are reached.
        bare: names used without attributes: then the whole module is reached.
    """
    used: dict[str, set[str]] = defaultdict(set)
    for chain in chains:
        used[chain[0]].add(chain[1])
    for alias in statement.names:
        attributes = used.get(alias.asname or alias.name.partition(".")[0], set())
        if isinstance(statement, ast.ImportFrom):
            yield from _from_target(absolute_import(statement, package), alias, attributes, bare)
        elif (
            (alias.asname is None and "." in alias.name) or not attributes or _bound_in(alias, bare)
        ):
            yield alias.name, "*"
        else:
            yield from ((alias.name, attribute) for attribute in sorted(attributes))


def _bound_in(alias: ast.alias, bare: Iterable[str]) -> bool:
    return (alias.asname or alias.name.partition(".")[0]) in set(bare)


def _from_target(
    module: str, alias: ast.alias, attributes: set[str], bare: Iterable[str]
) -> Iterator[Target]:
    inner = f"{module}.{alias.name}"
    source = _source_of(module)
    is_submodule = (source is None or alias.name not in source.bindings) and _source_of(inner)
    if is_submodule and attributes and not _bound_in(alias, bare):
        yield from ((inner, attribute) for attribute in sorted(attributes))
    else:
        yield module, alias.name


def _source_of(module: str) -> SourceFile | None:
    filename = find_module_file(module)
    return source_file(filename) if filename and is_local_file(filename) else None


def _package(module: str, filename: str) -> str:
    if os.path.basename(filename) == "__init__.py":
        return module
    return module.rpartition(".")[0]
