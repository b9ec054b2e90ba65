"""Where code is written: source files parsed once, definitions found in them and verified.

*Local* code is the user's own: of ``__main__``, of notebooks, of modules that are neither in the
standard library nor installed. Only local code is read; the rest counts by name.
"""

from __future__ import annotations

import ast
import importlib.machinery
import linecache
import os
import sys
import sysconfig
import types
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from perdure.interactive import cells, current_cell, is_cell
from perdure.normalise import (
    Definition,
    Normalised,
    is_literal,
    local_names,
    normalise_statements,
)
from perdure_storage.shapes import is_main

_INSTALLED_PARTS = frozenset({"site-packages", "dist-packages"})
_OWN = frozenset({"perdure", "perdure_storage", "perdure_scheduler"})
_NOTEBOOK_MARKS = ("<ipython-input", "<stdin>", "<python-input", "<doctest", "<console>")


@lru_cache(maxsize=1)
def _library_roots() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({os.path.realpath(sysconfig.get_path(name)) + os.sep for name in names})


@lru_cache(maxsize=4096)
def is_local_file(filename: str) -> bool:
    """Say whether a file, or a notebook's cell, is the user's own code."""
    if filename.startswith("<"):
        return filename.startswith(_NOTEBOOK_MARKS)
    if _INSTALLED_PARTS & set(filename.split(os.sep)):
        return False
    if is_cell(filename):
        return True
    return not os.path.realpath(filename).startswith(_library_roots())


def is_perdures_own(name: str) -> bool:
    """Say whether a module is part of perdure, wherever perdure is installed."""
    return name.partition(".")[0] in _OWN


def is_local_module(module: types.ModuleType | None) -> bool:
    """Say whether an imported module is the user's own."""
    if module is None:
        return False
    name = module.__name__
    if is_main(name):
        return True
    if is_perdures_own(name) or name in sys.builtin_module_names:
        return False
    filename = getattr(module, "__file__", None)
    return bool(filename) and is_local_file(filename)


def is_local_name(name: str | None) -> bool:
    """Say whether what is defined in the module of this name is the user's own."""
    return is_main(name) or is_local_module(sys.modules.get(name or ""))


def display_module(name: str, filename: str | None = None) -> str:
    """Return a module's name for people: the file's stem for scripts; cells have none.

    Args:
        name: the module's name.
        filename: where the code is, if that is known better than through the module.
    """
    if not is_main(name):
        return name
    file: str = filename or getattr(sys.modules.get(name), "__file__", None) or ""
    stem = os.path.splitext(os.path.basename(file))[0]
    return name if is_cell(file) or not stem else stem


@dataclass(slots=True)
class SourceFile:
    """One parsed file or cell.

    Attributes:
        text: the whole file.
        tree: the same, parsed.
        functions: definitions by their first line, decorators included.
        codes: what the interpreter makes of them, by (first line, name).
        bindings: the top-level statements that bind a name.
        state: module-level names that functions of the file assign or mutate.
        imports: the import statements of the file, wherever they stand.
    """

    text: str
    tree: ast.Module
    functions: dict[int, list[Definition]] = field(default_factory=dict)
    codes: dict[tuple[int, str], list[types.CodeType]] = field(default_factory=dict)
    bindings: dict[str, list[ast.stmt]] = field(default_factory=dict)
    state: frozenset[str] = frozenset()
    imports: list[ast.Import | ast.ImportFrom] = field(default_factory=list)


_files: dict[str, tuple[int, SourceFile | None]] = {}


def source_file(filename: str, module_globals: dict[str, Any] | None = None) -> SourceFile | None:
    """Return a file's source as it was first read, or None if there is none to be parsed."""
    look_again_if_reloaded(filename, module_globals or {})
    lines = linecache.getlines(filename, module_globals)
    key = hash(tuple(lines))
    known = _files.get(filename)
    if known is None or known[0] != key:
        known = _files[filename] = (key, _parse("".join(lines), filename))
    return known[1]


_specs: dict[tuple[str, int], Any] = {}


def look_again_if_reloaded(filename: str, module_globals: dict[str, Any]) -> None:
    """Have a file read anew whose module was loaded anew into the same names, by ``reload``."""
    spec, at = module_globals.get("__spec__"), (filename, id(module_globals))
    if spec is not None and _specs.setdefault(at, spec) is not spec:
        _specs[at] = spec
        linecache.checkcache(filename)


def _parse(text: str, filename: str) -> SourceFile | None:
    if not text:
        return None
    try:
        tree = ast.parse(text, filename)
        code = compile(tree, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):  # a cell with magics, or a file that is being edited
        return None
    functions: dict[int, list[Definition]] = defaultdict(list)
    imports: list[ast.Import | ast.ImportFrom] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
            functions[min([node.lineno, *(each.lineno for each in decorators)])].append(node)
    return SourceFile(text, tree, functions, _codes(code), _bindings(tree), _state(tree), imports)


def _codes(code: types.CodeType) -> dict[tuple[int, str], list[types.CodeType]]:
    found: dict[tuple[int, str], list[types.CodeType]] = defaultdict(list)
    found[code.co_firstlineno, code.co_name].append(code)
    stack = [code]
    while stack:
        for value in stack.pop().co_consts:
            if isinstance(value, types.CodeType):
                found[value.co_firstlineno, value.co_name].append(value)
                stack.append(value)
    return found


def _bindings(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    found: dict[str, list[ast.stmt]] = defaultdict(list)
    for statement in tree.body:
        for name in _names_bound(statement):
            found[name].append(statement)
    return found


def _names_bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    return _names_inside(statement)


def _names_inside(statement: ast.stmt) -> set[str]:
    """Return names bound at module level by an assignment or a compound statement."""
    found: set[str] = set()
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(_names_bound(node))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(node.id)
        elif not isinstance(node, ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))
    return found


_MUTATORS = frozenset(
    {
        "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
        "popleft", "remove", "reverse", "setdefault", "sort", "update",
    }
)  # fmt: skip


def _state(tree: ast.Module) -> frozenset[str]:
    """Return names that functions of the module assign or mutate: state, not constants."""
    found: set[str] = set()
    stack: list[tuple[ast.AST, frozenset[str] | None]] = [(tree, None)]
    while stack:
        node, bound = stack.pop()  # names local to the functions around it; None outside of any
        if bound is not None:
            found.update(name for name in _mutated(node) if name not in bound)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            bound = local_names(node) | (bound or frozenset())
        stack.extend((child, bound) for child in ast.iter_child_nodes(node))
    return frozenset(found)


def _mutated(node: ast.AST) -> list[str]:
    match node:
        case ast.Global(names=names):
            return names
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)) if attr in _MUTATORS:
            return [name]
    return []


class Assignment(NamedTuple):
    """How a module-level name gets its value.

    Attributes:
        text: the normal form of the statements that bind it.
        names: the names that they look up.
        is_computed: it is no literal: what it is may differ between processes.
        is_state: functions of its module assign or mutate it.
        name, module, filename, line: what it is called there, and where that is; for people.
    """

    text: str = ""
    names: tuple[str, ...] = ()
    is_computed: bool = False
    is_state: bool = False
    name: str = ""
    module: str = ""
    filename: str = ""
    line: int = 0


def assignment(scope: dict[str, Any], name: str, filename: str = "") -> Assignment:
    """Return how a global got its value; as a literal where that cannot be found out.

    Args:
        scope: the module's names.
        name: the name; one that was imported from another of the user's modules is looked up
            there.
        filename: where the module's code is if it has no file: a notebook's cell.
    """
    for _ in range(20):  # as many re-exports as anyone has
        file = scope.get("__file__") or filename
        source = source_file(file, scope)
        statements = source.bindings.get(name, []) if source else []
        origin = _imported_from(statements, scope, name)
        if origin is None:
            break
        scope, name = origin
    else:
        return Assignment()
    if source is None or not statements:
        return Assignment()
    normal = normalise_statements(statements)
    is_computed = not all(map(_assigns_literal, statements))
    module, line = scope.get("__name__", ""), statements[-1].lineno
    is_state = name in source.state
    return Assignment(normal.text, _roots(normal), is_computed, is_state, name, module, file, line)


def member_assignment(cls: type, name: str) -> Assignment:
    """Return how a class at the top of one of the user's files got a member."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None) or ""
    source = source_file(file, vars(module)) if file else None
    for node in source.bindings.get(cls.__qualname__, ()) if source is not None else ():
        if isinstance(node, ast.ClassDef):
            normal = normalise_statements(
                [each for each in node.body if name in _names_bound(each)]
            )
            return Assignment(normal.text, _roots(normal))
    return Assignment()


def _roots(normal: Normalised) -> tuple[str, ...]:
    """Return the names that are looked up, also those of which an attribute is."""
    return tuple(dict.fromkeys((*normal.names, *(chain[0] for chain in normal.chains))))


def cell_that_binds(name: str) -> str:
    """Return the file name of the cell that bound a name of the notebook last; "" if none did."""
    return _cell_that_binds(name, current_cell())


@lru_cache(maxsize=1024)
def _cell_that_binds(name: str, _: int | None) -> str:
    """While one cell runs there are no others to come."""
    for filename in cells():
        source = source_file(filename)
        if source is not None and name in source.bindings:
            return filename
    return ""


def _imported_from(
    statements: list[ast.stmt], scope: dict[str, Any], name: str
) -> tuple[dict[str, Any], str] | None:
    if len(statements) != 1 or not isinstance(statements[0], ast.ImportFrom):
        return None
    statement = statements[0]
    module = sys.modules.get(absolute_import(statement, scope.get("__package__") or ""))
    original = [each.name for each in statement.names if (each.asname or each.name) == name]
    if module is None or not original or not is_local_module(module):
        return None
    return vars(module), original[0]


def _assigns_literal(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
            return is_literal(value)
    return False


def find_definition(function: types.FunctionType) -> Definition | None:
    """Return the source of a function, if it is certainly the source of this very function.

    A file may have been edited since it was imported; what does not compile to the function's
    own bytecode is not its source.
    """
    code = function.__code__
    for fresh in (False, True):
        if fresh:
            linecache.checkcache(code.co_filename)
        source = source_file(code.co_filename, function.__globals__)
        node = _find(source, code) if source else None
        if node is not None:
            return node
    return None


def written_text(obj: types.FunctionType | type) -> str:
    """Return a definition as its author wrote it, decorators and comments too; "" if not known."""
    if isinstance(obj, type):
        return _class_text(obj)
    node, source = find_definition(obj), source_file(obj.__code__.co_filename, obj.__globals__)
    return _text_of(node, source) if node is not None and source is not None else ""


def _class_text(cls: type) -> str:
    """Return the text of a class at the top of the file that its methods are in."""
    methods = [each for each in vars(cls).values() if isinstance(each, types.FunctionType)]
    for method in methods:
        source = source_file(method.__code__.co_filename, method.__globals__)
        for node in source.bindings.get(cls.__name__, ()) if source is not None else ():
            if source is not None and isinstance(node, ast.ClassDef):
                return _text_of(node, source)
    return ""


def _text_of(node: Definition | ast.ClassDef, source: SourceFile) -> str:
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
    return "\n".join(source.text.splitlines()[first - 1 : node.end_lineno])


def is_written(code: types.CodeType) -> bool:
    """Say whether today's file has exactly this code, line by line."""
    linecache.checkcache(code.co_filename)
    source = source_file(code.co_filename)
    written = source.codes.get((code.co_firstlineno, code.co_name), ()) if source else ()
    return any(
        # A comment may have moved the lines of what is the same otherwise.
        _same_code(each, code) and (_is_rewritten(code) or [*each.co_lines()] == [*code.co_lines()])
        for each in written
    )


def _find(source: SourceFile, code: types.CodeType) -> Definition | None:
    if not any(
        _same_code(each, code) for each in source.codes.get((code.co_firstlineno, code.co_name), ())
    ):
        return None
    candidates = [
        node
        for node in source.functions.get(code.co_firstlineno, ())
        if getattr(node, "name", "<lambda>") == code.co_name
    ]
    if len(candidates) > 1:
        candidates = [node for node in candidates if _encloses(node, code)]
        # Of lambdas inside one another, the innermost that holds all the code.
        candidates.sort(key=lambda node: (node.end_lineno or 0, node.end_col_offset or 0))
    return candidates[0] if candidates else None


def _same_code(a: types.CodeType, b: types.CodeType) -> bool:
    if _is_rewritten(b):
        return True
    if a.co_code != b.co_code or a.co_names != b.co_names or a.co_varnames != b.co_varnames:
        return False
    if len(a.co_consts) != len(b.co_consts):
        return False
    for one, other in zip(a.co_consts, b.co_consts):
        if isinstance(one, types.CodeType) and isinstance(other, types.CodeType):
            if not _same_code(one, other):
                return False
        elif type(one) is not type(other) or one != other:
            return False
    return True


def _is_rewritten(code: types.CodeType) -> bool:
    """Say whether pytest has rewritten the asserts of the code."""
    return any(name.startswith("@py") for name in (*code.co_names, *code.co_varnames))


def _encloses(node: Definition, code: types.CodeType) -> bool:
    body = node.body if isinstance(node, ast.Lambda) else node
    start = (body.lineno, body.col_offset)
    end = (body.end_lineno or body.lineno, body.end_col_offset or 0)
    inside = [
        start <= (line, column) and (end_line, end_column) <= end
        for line, end_line, column, end_column in code.co_positions()
        if None not in (line, end_line, column, end_column) and column != end_column
    ]
    return bool(inside) and all(inside)


def find_module_file(name: str) -> str | None:
    """Return where a module would be imported from, without importing anything."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return getattr(loaded, "__file__", None)
    parent = sys.modules.get(name.rpartition(".")[0])
    if parent is not None and not hasattr(parent, "__path__"):
        return None  # a name in a module, not a module in a package
    path: Any = None
    spec: importlib.machinery.ModuleSpec | None = None
    prefix = ""
    for part in name.split("."):
        prefix = f"{prefix}.{part}" if prefix else part
        try:
            spec = importlib.machinery.PathFinder.find_spec(prefix, path)
        except (ImportError, ValueError):
            return None
        except KeyError:
            # A namespace package inside one that is not loaded, whose path Python asks that one.
            path = [folder for each in path if os.path.isdir(folder := os.path.join(each, part))]
            spec = None
            continue
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec.origin if spec is not None and spec.has_location else None


def absolute_import(statement: ast.ImportFrom, package: str) -> str:
    """Return the module that a ``from`` statement in a module of ``package`` names."""
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - statement.level + 1])
    return f"{base}.{statement.module}" if statement.module else base
