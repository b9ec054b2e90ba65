"""A function's source as text that only changes when its meaning may have changed.

Left out are positions, comments, docstrings and perdure's own decorators; local variables are
numbered in the order in which they are bound, so renaming one changes nothing. What remains also
says which outer names the function looks up, and what it imports inside its body.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_SKIPPED = frozenset({"ctx", "type_comment", "kind", "type_ignores", "lineno", "simple"})
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SEES_LOCALS = frozenset({"locals", "vars", "dir", "eval", "exec"})
DYNAMIC = frozenset({"eval", "exec", "globals", "__import__", "import_module"})
"""Names whose use means that code may be reached which no reading of the source finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalised:
    """What is left of a function's source.

    Attributes:
        text: the same for the same meaning.
        names: outer names that are looked up, bare.
        chains: outer names that are looked up with attributes: ``("prep", "scale")``.
        imports: import statements inside the body, with the names they bind.
        defaults: of defaults that are no literals, the text of the expression, by position or name.
        dynamic: look-ups that cannot be followed by reading: ``eval`` and its like.
        is_source: False if it was made of bytecode, since there is no source.
    """

    text: str
    names: tuple[str, ...]
    chains: tuple[tuple[str, ...], ...] = ()
    imports: tuple[ast.Import | ast.ImportFrom, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    dynamic: tuple[str, ...] = ()
    is_source: bool = True


@dataclass(slots=True)
class _Scope:
    """Names bound in one function, comprehension or class body; ``name`` -> what is written."""

    names: dict[str, str] = field(default_factory=dict)
    is_class: bool = False


def normalise_function(
    node: Definition, is_own_decorator: Callable[[ast.expr], bool]
) -> Normalised:
    """Return the normal form of a function; its own name, and defaults, are left out.

    Args:
        node: the definition. Its defaults count by their values, which the caller knows.
        is_own_decorator: says whether a decorator is one of perdure's.
    """
    writer = _Writer()
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    for each in decorators:
        if not is_own_decorator(each):
            writer.write("@")
            writer.visit(each)
    writer.function(node, with_defaults=False)
    return replace(writer.result(), defaults=_default_texts(node.args))


def _default_texts(args: ast.arguments) -> dict[str, str]:
    given: dict[str, ast.expr | None] = {
        str(index): default for index, default in enumerate(args.defaults)
    }
    given.update((each.arg, default) for each, default in zip(args.kwonlyargs, args.kw_defaults))
    return {
        name: normalise_statements([ast.Expr(default)]).text
        for name, default in given.items()
        if default is not None and not is_literal(default)
    }


def is_literal(node: ast.AST) -> bool:
    """Say whether an expression has the same value wherever it is evaluated."""
    kinds = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp)
    return all(
        isinstance(each, (*kinds, ast.expr_context, ast.operator, ast.unaryop))
        for each in ast.walk(node)
    )


def normalise_statements(nodes: Iterable[ast.stmt]) -> Normalised:
    """Return the normal form of top-level statements, names and defaults included."""
    writer = _Writer()
    for node in nodes:
        writer.visit(node)
    return writer.result()


class _Writer:
    """Writes one tree. Mutable, used once."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._scopes: list[_Scope] = []
        self._names: dict[str, None] = {}
        self._chains: dict[tuple[str, ...], None] = {}
        self._imports: list[ast.Import | ast.ImportFrom] = []

    def write(self, text: str) -> None:
        """Add a token."""
        self._out.append(text)

    def result(self) -> Normalised:
        """Return what was written and seen."""
        used = {*self._names, *(part for chain in self._chains for part in chain)}
        return Normalised(
            text="\n".join(self._out),
            names=tuple(self._names),
            chains=tuple(self._chains),
            imports=tuple(self._imports),
            dynamic=tuple(sorted(DYNAMIC & used)),
        )

    def visit(self, node: ast.AST) -> None:
        """Write one node with everything inside."""
        match node:
            case ast.Name():
                self._name(node)
            case ast.Attribute():
                self._attribute(node)
            case ast.Constant():
                self.write(f"{type(node.value).__name__}:{node.value!r}")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._nested(node)
            case ast.Lambda():
                self.function(node, with_defaults=True)
            case ast.ClassDef():
                self._class(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node)
            case _:
                self._other(node)

    def _other(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._imports.append(node)
        self.write(type(node).__name__ + "(")
        for name in node._fields:
            self._field(name, getattr(node, name, None))
        self.write(")")

    def _field(self, name: str, value: object) -> None:
        if value is None or value == [] or name in _SKIPPED:
            return
        self.write(name)
        if isinstance(value, ast.AST):
            self.visit(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, ast.AST):
                    self.visit(item)
                else:
                    self.write(self._known(item) if isinstance(item, str) else repr(item))
        elif isinstance(value, str) and name in ("name", "rest"):
            self.write(self._known(value))  # of an except clause or a match pattern
        else:
            self.write(repr(value))

    # --- names ------------------------------------------------------------------------------
    def _known(self, name: str) -> str:
        """Return what is written for a name: a number if it is a local variable."""
        return self._local(name) or name

    def _local(self, name: str) -> str | None:
        for depth, scope in enumerate(reversed(self._scopes)):
            if name in scope.names and not (scope.is_class and depth):
                return scope.names[name]
        return None

    def _name(self, node: ast.Name) -> None:
        written = self._local(node.id)
        if written is None:
            self._names[node.id] = None
        self.write(f"{type(node.ctx).__name__}:{written or node.id}")

    def _attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        if chain and self._local(chain[0]) is None:
            self._chains[chain] = None
            self.write(f"{type(node.ctx).__name__}:{'.'.join(chain)}")
            return
        self.write(f"{type(node.ctx).__name__}:.{node.attr}")
        self.visit(node.value)

    # --- scopes -----------------------------------------------------------------------------
    def _nested(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for each in node.decorator_list:
            self.write("@")
            self.visit(each)
        self.write(f"def {self._known(node.name)}")
        self.function(node, with_defaults=True)

    def function(self, node: Definition, *, with_defaults: bool) -> None:
        """Write parameters and body in a scope of their own."""
        self.write(type(node).__name__)
        self._arguments(node.args, with_defaults)
        body = [node.body] if isinstance(node, ast.Lambda) else without_docstring(node.body)
        returns = None if isinstance(node, ast.Lambda) else node.returns
        if returns is not None:
            self.write("->")
            self.visit(returns)
        self._scopes.append(_function_scope(node.args, body, len(self._scopes)))
        for each in body:
            self.visit(each)
        self._scopes.pop()
        self.write("end")

    def _arguments(self, args: ast.arguments, with_defaults: bool) -> None:
        kinds = {
            "/": args.posonlyargs,
            "": args.args,
            "*": [args.vararg] if args.vararg else [],
            ",": args.kwonlyargs,
            "**": [args.kwarg] if args.kwarg else [],
        }
        for kind, group in kinds.items():
            for each in group:
                self.write(f"{kind}{each.arg}")
                if each.annotation is not None:
                    self.write(":")
                    self.visit(each.annotation)
        for default in (*args.defaults, *args.kw_defaults) if with_defaults else ():
            self.write("=")
            if default is not None:
                self.visit(default)

    def _class(self, node: ast.ClassDef) -> None:
        self.write(f"class {self._known(node.name)}")
        for each in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(each)
        names = {name: name for name in _bound(node.body).all}
        self._scopes.append(_Scope(names, is_class=True))
        for statement in without_docstring(node.body):
            self.visit(statement)
        self._scopes.pop()
        self.write("end")

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        self.write(type(node).__name__)
        bound: dict[str, None] = {}
        for generator in node.generators:
            for each in ast.walk(generator.target):
                if isinstance(each, ast.Name):
                    bound[each.id] = None
        self._scopes.append(_Scope(_numbered(bound, len(self._scopes))))
        for part in (*node.generators, *_elements(node)):
            self._other(part) if isinstance(part, ast.comprehension) else self.visit(part)
        self._scopes.pop()
        self.write("end")


def _elements(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.DictComp):
        return [node.key, node.value]
    assert isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp)
    return [node.elt]


def _chain(node: ast.Attribute) -> tuple[str, ...]:
    parts: list[str] = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    return (value.id, *reversed(parts)) if isinstance(value, ast.Name) else ()


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return a body without its docstring."""
    first = body[0] if body else None
    is_doc = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return body[1:] if is_doc else body


@dataclass(slots=True)
class _Bound:
    """Names that a body binds: variables may be renamed, definitions and imports keep theirs."""

    variables: dict[str, None] = field(default_factory=dict)
    fixed: dict[str, None] = field(default_factory=dict)
    outer: set[str] = field(default_factory=set)
    sees_locals: bool = False

    @property
    def all(self) -> list[str]:
        return [name for name in (*self.variables, *self.fixed) if name not in self.outer]


def _bound(body: Iterable[ast.AST]) -> _Bound:
    found = _Bound()
    stack = list(reversed(list(body)))
    while stack:
        node = stack.pop()
        _note_binding(node, found)
        stack.extend(reversed(list(_same_scope(node))))
    return found


def _note_binding(node: ast.AST, found: _Bound) -> None:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            found.variables[name] = None
        case ast.Name(id=name):
            found.sees_locals |= name in _SEES_LOCALS
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            found.variables[name] = None
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            found.variables[name] = None
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            found.fixed[name] = None
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            for alias in names:
                found.fixed[alias.asname or alias.name.partition(".")[0]] = None
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            found.outer.update(names)


def _same_scope(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children of a node that are in the same scope."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        yield from (each for each in (*node.args.defaults, *node.args.kw_defaults) if each)
        yield from () if isinstance(node, ast.Lambda) else node.decorator_list
    elif isinstance(node, ast.ClassDef):
        yield from (*node.decorator_list, *node.bases, *(each.value for each in node.keywords))
    elif isinstance(node, _COMPREHENSIONS):
        for generator in node.generators:
            yield from (generator.iter, *generator.ifs)
        yield from _elements(node)
    else:
        yield from ast.iter_child_nodes(node)


def local_names(node: Definition) -> frozenset[str]:
    """Return the names that are local to a function: parameters and what its body binds."""
    bound = _bound([node.body] if isinstance(node, ast.Lambda) else node.body)
    return frozenset({*bound.all, *_parameters(node.args)} - bound.outer)


def _parameters(args: ast.arguments) -> list[str]:
    every = (*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg)
    return [each.arg for each in every if each is not None]


def _function_scope(args: ast.arguments, body: Iterable[ast.AST], depth: int) -> _Scope:
    bound = _bound(body)
    fixed = {n: n for n in (*bound.fixed, *_parameters(args)) if n not in bound.outer}
    variables = {
        name: None for name in bound.variables if name not in fixed and name not in bound.outer
    }
    numbered = {n: n for n in variables} if bound.sees_locals else _numbered(variables, depth)
    return _Scope({**numbered, **fixed})


def _numbered(names: Iterable[str], depth: int) -> dict[str, str]:
    return {name: f"%{depth}.{index}" for index, name in enumerate(names)}


def normalise_code(code: types.CodeType) -> Normalised:
    """Return the normal form of a function without source: its bytecode."""
    out: list[str] = []
    names: dict[str, None] = {}
    stack = [code]
    while stack:
        each = stack.pop()
        names.update(dict.fromkeys((*each.co_names, *each.co_freevars)))
        constants = [_constant(value) for value in each.co_consts if not _is_code(value)]
        out.append(
            f"{each.co_code.hex()} {each.co_names} {each.co_varnames} {each.co_freevars} "
            f"{each.co_argcount},{each.co_kwonlyargcount},{each.co_posonlyargcount} {constants}"
        )
        stack.extend(value for value in each.co_consts if _is_code(value))
    return Normalised(
        text="\n".join(out),
        names=tuple(names),
        dynamic=tuple(sorted(DYNAMIC & names.keys())),
        is_source=False,
    )


def _is_code(value: object) -> bool:
    return isinstance(value, types.CodeType)


def _constant(value: object) -> str:
    if isinstance(value, frozenset):  # its order differs between hash seeds
        return f"frozenset:{sorted(map(_constant, value))}"
    return f"{type(value).__name__}:{value!r}"
