"""Digests of code, and of what each step of a plan depends on.

The *code digest* of a function covers everything of the user's that it reaches: its normalised
source, defaults, closure values, the globals it looks up (functions, classes with their bases and
methods, constants, tasks), and what it imports inside its body. What is installed counts by name;
what cannot be looked into is listed as *not followed*. It is computed where the function was
defined and is the same in every process.
"""

from __future__ import annotations

import ast
import builtins
import functools
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from blake3 import blake3

from perdure.foreign import undecorated
from perdure.interactive import cell_of, current_cell, is_cell
from perdure.members import class_annotations, class_members
from perdure.normalise import Normalised, normalise_code, normalise_function, normalise_statements
from perdure.plan import FromInput, Plan, path_text, references
from perdure.slices import Slice, import_targets
from perdure.sources import (
    Assignment,
    assignment,
    cell_that_binds,
    display_module,
    find_definition,
    is_local_file,
    is_local_module,
    is_local_name,
    member_assignment,
    written_text,
)
from perdure_storage.digests import canonical_digest, value_digest
from perdure_storage.records import StoredValue
from perdure_storage.shapes import is_main

_UNIT = re.compile(r"unit:\d+")
_NOTED = "noted"
"""What a manifest has in place of a digest for a package, which is not compared."""
_METHOD = "__perdure_method__"
"""Where ``@method`` keeps what it was told."""
_TEXT_CHARS = 20_000
"""Of a longer definition the beginning is recorded: plans are read whole, and often."""
_OWN_DECORATORS = frozenset({"task", "workflow", "actor", "method"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeDigest:
    """What a function's code is, by a digest and by name.

    Attributes:
        digest: ``"code:<hex>"``, or ``"version:<name>:<version>"`` where one is declared.
        stable: the same without what may differ between processes that run the same code: of
            values computed when a module is imported (a path beside the file, the time, a
            setting) it has the expression. What workers compare with what they import.
        manifest: what it covers: ``{"prep.scale (prep.py:40)": digest}``; installed
            distributions that it names are noted with their version.
        not_followed: what it could not see into.
        modules: names of the user's importable modules that were reached.
        texts: what it covers of scripts and notebooks, as written, under the names of ``manifest``.
        cells: the numbers of a notebook's cells that it covers code of, by file name.
        is_source: False if some function had no source and counts by its bytecode.
    """

    digest: str
    stable: str
    manifest: dict[str, str]
    not_followed: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    cells: dict[str, str] = field(default_factory=dict)
    is_source: bool = True


def code_digest(obj: Any) -> CodeDigest:
    """Return the code digest of a function, class, task or workflow.

    Args:
        obj: what to digest; a callable object counts by its class and canonical state.
    """
    obj = undecorated(obj)
    version = _declared_version(obj)
    if version is not None:
        return CodeDigest(digest=version, stable=version, manifest={})
    return _Reach(obj).result()


def noted_versions(manifest: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of installed packages that a manifest notes, by package."""
    noted = (part.rpartition(" ") for part, digest in manifest.items() if digest == _NOTED)
    return {package: version for package, _, version in noted}


def is_code(obj: Any) -> bool:
    """Say whether a value is code itself: a function, a class, a task or a workflow."""
    return isinstance(obj, types.FunctionType | type) or _is_registered(obj)


def _is_registered(obj: Any) -> bool:
    """Say whether an object is a task or workflow: it names its function, version and name."""
    # Asked of every constant: isinstance with a protocol would take a hundred times as long.
    return hasattr(type(obj), "__perdure_code__")


def plain_digest(obj: Any) -> str:
    """Return the digest that is the same in every process: for workers and for ``Codecs``.

    That of a class is remembered while one cell of a notebook runs, or until a member of it or of
    its bases is another one: each value asks for it.
    """
    if not isinstance(obj, type):
        return code_digest(obj).stable
    look = current_cell(), _members_now(obj)
    known = _classes_looked_at.get(obj)
    if known is None or known[0] != look:
        known = _classes_looked_at[obj] = look, code_digest(obj).stable
    return known[1]


_classes_looked_at: WeakKeyDictionary[type, tuple[Any, str]] = WeakKeyDictionary()


def _members_now(cls: type) -> list[tuple[str, int]]:
    """Return what a class and its bases of the user's are made of now, by identity."""
    bases = (each for each in cls.__mro__ if is_local_name(each.__module__))
    return [(name, id(value)) for each in bases for name, value in vars(each).items()]


def version_digest(name: str, version: str) -> str:
    """Return the code digest of a task that declares its version."""
    return f"version:{name}:{version}"


def _declared_version(obj: Any) -> str | None:
    if not _is_registered(obj):
        return None
    _, version, name = obj.__perdure_code__()
    return None if version is None else version_digest(name, version)


def _hash(*parts: str) -> str:
    told: list[bytes] = []
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        told += (len(data).to_bytes(8, "little"), data)
    return blake3(b"".join(told)).hexdigest(16)


@dataclass(slots=True)
class _Unit:
    """One reached function or class: what it is, and what its slots refer to."""

    obj: Any
    label: str
    place: str
    text: str = ""
    slots: list[_Slot] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return what the manifest calls it."""
        return f"{self.label} ({self.place})"


class _Slot(NamedTuple):
    """What a name, default, closure variable or member of a unit refers to.

    Attributes:
        ref: a unit (``"unit:3"``), a value digest, a name in a library, or several of these.
        stable: the same, with expressions for values that were computed at import.
        part: what the manifest calls it, if it may be another one while the code that reads it
            stays as it is; "" where what it refers to says so itself, None for what is part of
            the unit.
    """

    name: str
    ref: str
    stable: str
    part: str | None = None


def _slot(name: str, ref: str, part: str | None = None) -> _Slot:
    return _Slot(name, ref, ref, part)


class _Reach:
    """Follows one object through the user's code.

    Units are numbered in the order of discovery, which structure alone decides, so that cycles
    are no trouble and no module name enters.
    """

    def __init__(self, root: Any) -> None:
        self._units: list[_Unit] = []
        self._index: dict[int, int] = {}
        self._not_followed: dict[str, None] = {}
        self._modules: set[str] = set()
        self._noted: dict[str, str] = {}
        self._slices: dict[str, str] = {}
        self._is_source = True
        self._captured = False
        self._followed: set[tuple[int, str]] = set()
        self._asked = root
        self._root = self._captured_ref(_function_of(root), "it")
        done = 0
        while done < len(self._units):
            self._fill(self._units[done])
            done += 1

    def result(self) -> CodeDigest:
        """Return the digests over everything that was reached."""
        manifest = dict(self._noted)
        for unit in self._units:
            own = [unit.text]
            for slot in unit.slots:
                ref = self._labelled(slot.ref)
                if slot.part is None:
                    own += (slot.name, ref)
                elif slot.part:
                    manifest[slot.part] = _hash(ref)
            manifest[unit.name] = _hash(*own)
        manifest.update(self._slices)
        return CodeDigest(
            digest="code:" + self._digest(lambda slot: slot.ref),
            stable="code:" + self._digest(lambda slot: slot.stable),
            manifest=manifest,
            not_followed=tuple(self._not_followed),
            modules=tuple(sorted(self._modules)),
            texts=self._texts(),
            cells=self._cells(),
            is_source=self._is_source,
        )

    def _texts(self) -> dict[str, str]:
        """Return what was written of the units that no archive of modules will have."""
        written = (
            (unit.name, written_text(unit.obj))
            for unit in self._units
            if is_main(unit.obj.__module__)
        )
        return {name: text[:_TEXT_CHARS] for name, text in written if text}

    def _labelled(self, ref: str) -> str:
        """Return a reference with the names of units in the place of their numbers."""
        return _UNIT.sub(lambda unit: self._units[int(unit[0][5:])].label, ref)

    def _cells(self) -> dict[str, str]:
        codes = (getattr(unit.obj, "__code__", None) for unit in self._units)
        files = {code.co_filename for code in codes if code is not None}
        return {file: cell for file in sorted(files) if (cell := cell_of(file))}

    def _digest(self, chosen: Callable[[_Slot], str]) -> str:
        """Digest what the chosen references reach, units numbered in the order of that."""
        numbers: dict[str, str] = {}

        def renumbered(ref: str) -> str:
            return _UNIT.sub(lambda unit: numbers.setdefault(unit[0], f"unit:{len(numbers)}"), ref)

        parts = [renumbered(self._root)]
        done = 0
        while done < len(numbers):
            unit = self._units[int(list(numbers)[done].removeprefix("unit:"))]
            parts.append(unit.text)
            for slot in unit.slots:
                parts += (slot.name, renumbered(chosen(slot)))
            parts.append("end")
            done += 1
        return _hash(*parts)

    # --- references -------------------------------------------------------------------------
    def refer(self, obj: Any, where: str) -> str:
        """Return the text by which ``obj`` counts; local code is numbered, to be read later.

        Args:
            obj: what a name, default, closure or attribute holds.
            where: its name, for what is not followed.
        """
        obj = undecorated(obj)
        if isinstance(obj, types.FunctionType):
            return self._function_ref(obj, where)
        if isinstance(obj, type):
            return self._class_ref(obj)
        if isinstance(obj, types.ModuleType):
            return self._module_ref(obj, where)
        if isinstance(obj, type(None) | bool | int | float | str | bytes):
            return self._value_ref(obj, where)
        if _is_registered(obj):
            return _declared_version(obj) or self.refer(_function_of(obj), where)
        if isinstance(obj, types.MethodType):
            return f"method {self.refer(obj.__func__, where)} of {self.refer(obj.__self__, where)}"
        if isinstance(obj, types.BuiltinFunctionType | types.MethodDescriptorType):
            return _library(obj)
        if isinstance(obj, functools.partial):
            parts = [obj.func, *obj.args, *(obj.keywords[name] for name in sorted(obj.keywords))]
            refs = ",".join(self.refer(part, where) for part in parts)
            return f"partial({refs};{','.join(sorted(obj.keywords))})"
        wrapped = getattr(obj, "__wrapped__", None)
        if callable(wrapped):  # lru_cache, and decorators of libraries
            return f"{type(obj).__qualname__} of {self.refer(wrapped, where)}"
        return self._value_ref(obj, where)

    def _function_ref(self, function: types.FunctionType, where: str) -> str:
        if _is_local_function(function):
            return self._unit(function)
        wrapped = getattr(function, "__wrapped__", None)
        self._note_library(function.__module__)
        inner = f" of {self.refer(wrapped, where)}" if callable(wrapped) else ""
        kinds = getattr(function, "registry", None)  # of a generic function, by type
        if isinstance(kinds, types.MappingProxyType) and "unit:" in inner:
            inner += f" for {self._value_ref(dict(kinds), where)}"
        return _library(function) + inner

    def _class_ref(self, cls: type) -> str:
        if is_local_name(cls.__module__):
            return self._unit(cls)
        self._note_library(cls.__module__)
        return _library(cls)

    def _module_ref(self, module: types.ModuleType, where: str) -> str:
        if is_local_module(module):
            self._modules.add(module.__name__)
            self._skip(f"module {display_module(module.__name__)}, passed around as {where}")
            return "module"
        self._note_library(module.__name__)
        return f"lib:{module.__name__}"

    def _unit(self, obj: Any) -> str:
        index = self._index.get(id(obj))
        if index is None:
            index = self._index[id(obj)] = len(self._units)
            self._units.append(_Unit(obj, _label(obj), _place(obj)))
            if obj.__module__ and is_local_module(sys.modules.get(obj.__module__)):
                self._modules.add(obj.__module__)
        return f"unit:{index}"

    def _value_ref(self, value: Any, where: str) -> str:
        held: dict[str, None] = {}

        def code_of(obj: Any) -> str:
            # Numbers would be lost in the digest, and with them what the functions are.
            ref = self.refer(obj, where)
            held[ref] = None
            return self._labelled(ref)

        classes = self._classes_of(value)
        digest = canonical_digest(value, code_of, with_state=self._captured)
        holds = "".join(f" {ref}" for ref in sorted(held, key=self._labelled) if "unit:" in ref)
        if digest is None and self._captured:
            digest = _digest_of_bytes(value)
        if digest is None:
            self._skip(f"{where} ({type(value).__module__}.{type(value).__qualname__})")
        return (digest or "opaque") + classes + holds

    def _classes_of(self, value: Any) -> str:
        return "".join(f" {self._class_ref(cls)}" for cls in _local_classes(value))

    def _captured_ref(self, value: Any, where: str) -> str:
        """As ``refer``, but what is opaque counts by its bytes: it travels with the function."""
        before, self._captured = self._captured, True
        ref = self.refer(value, where)
        self._captured = before
        return ref

    def _skip(self, what: str) -> None:
        self._not_followed[what] = None

    def _note_library(self, module: str | None) -> None:
        top = (module or "").partition(".")[0]
        version = getattr(sys.modules.get(top), "__version__", None)
        if isinstance(version, str):
            self._noted[f"{top} {version}"] = _NOTED

    # --- units ------------------------------------------------------------------------------
    def _fill(self, unit: _Unit) -> None:
        if isinstance(unit.obj, type):
            self._fill_class(unit, unit.obj)
        else:
            self._fill_function(unit, unit.obj)

    def _fill_function(self, unit: _Unit, function: types.FunctionType) -> None:
        normal = _normal_form(function)
        self._is_source &= normal.is_source
        unit.text = normal.text
        unit.slots = [
            *self._defaults(function, normal, unit.label),
            *self._free(function, unit),
            *self._globals(function, normal, unit),
        ]
        for name in normal.dynamic:
            self._skip(f"{unit.label} uses {name}: what it reaches is not seen")
        unit.slots += self._body_imports(function, normal)

    def _defaults(
        self, function: types.FunctionType, normal: Normalised, label: str
    ) -> Iterator[_Slot]:
        given = {str(index): value for index, value in enumerate(function.__defaults__ or ())}
        given.update(sorted((function.__kwdefaults__ or {}).items()))
        for name, value in given.items():
            ref = self._captured_ref(value, f"a default of {label}")
            yield _Slot(f"default {name}", ref, normal.defaults.get(name, ref))

    def _free(self, function: types.FunctionType, unit: _Unit) -> Iterator[_Slot]:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:
                yield _slot(f"free {name}", "unbound")
                continue
            where = f"{name}, captured by {unit.label}"
            part = None if _is_reached(value) else f"{where} ({unit.place})"
            yield _slot(f"free {name}", self._captured_ref(value, where), part)

    def _globals(
        self, function: types.FunctionType, normal: Normalised, unit: _Unit
    ) -> Iterator[_Slot]:
        scope, free = function.__globals__, set(function.__code__.co_freevars)
        # Annotations name things too, but only what the code itself looks up is reached.
        used = _code_names(function.__code__) if normal.is_source else set(normal.names)
        cell = function.__code__.co_filename
        for name in sorted(set(normal.names) & used - free):
            yield from self._global(scope, name, name, unit, cell)
        for chain in sorted(normal.chains):
            root = chain[0]
            if root in free or root not in used or root not in scope:
                continue
            if isinstance(scope[root], types.ModuleType):
                yield from self._through_module(chain, scope[root], unit)
                continue
            if _is_attribute_of_function(scope[root], chain):
                yield from self._attribute(scope, chain, unit, cell)
            if root not in normal.names:
                yield from self._global(scope, root, root, unit, cell)

    def _global(
        self, scope: dict[str, Any], name: str, slot: str, unit: _Unit, cell: str = ""
    ) -> Iterator[_Slot]:
        """Yield what a global of a module means: code to be followed, a value, or its expression.

        Args:
            scope: the module's names.
            name: the name in it.
            slot: how the code that uses it says it.
            unit: what uses it.
            cell: where that unit's code is, for scopes without a file of their own.
        """
        if name not in scope:
            if not hasattr(builtins, name):
                yield _slot(slot, "unbound", f"{slot} (not defined)")
            return
        value = undecorated(scope[name])
        if isinstance(value, types.ModuleType):
            yield _slot(slot, self.refer(value, slot))
            return
        if _is_named(value, name) and (ref := self.refer(value, slot)).startswith("unit:"):
            yield _slot(slot, ref, "")
            return
        if _is_followed(value):
            # Of a file the line that binds it is rarely edited alone, and dear to find.
            bound = _part_of(Assignment(), name) if is_cell(cell) else ""
            yield _slot(slot, self.refer(value, slot), bound or None)
            return
        assigned = assignment(scope, name, cell)
        part = _part_of(assigned, name) or f"{slot}, read by {unit.label} ({unit.place})"
        if assigned.is_state:
            self._skip(f"{slot}, used by {unit.label}: functions change it at run time")
            yield _slot(slot, f"state {assigned.text}{self._classes_of(value)}", part)
            return
        # In a notebook what a global holds travels with the code that reads it.
        travels = is_cell(cell) and "__file__" not in scope
        ref = (self._captured_ref if travels else self.refer)(value, slot)
        is_opaque, text = "opaque" in ref, f"computed {assigned.text}"
        if assigned.is_computed and is_opaque:
            ref = f"{ref} {text}"
        is_fixed = not assigned.is_computed or callable(value)
        yield _Slot(slot, ref, ref if is_fixed else text, part)
        if is_opaque:
            self._followed.add((id(scope), name))
            yield from self._computed_from(scope, assigned.names, slot, unit, cell)

    def _computed_from(
        self, scope: dict[str, Any], names: Sequence[str], slot: str, unit: _Unit, cell: str
    ) -> Iterator[_Slot]:
        """Yield what names mean of which a global was made that cannot be looked into; once."""
        for used in names:
            is_new = used in scope and (id(scope), used) not in self._followed
            if is_new and not isinstance(scope[used], types.ModuleType):
                self._followed.add((id(scope), used))
                yield from self._global(scope, used, f"{slot} from {used}", unit, cell)

    def _attribute(
        self, scope: dict[str, Any], chain: tuple[str, ...], unit: _Unit, cell: str
    ) -> Iterator[_Slot]:
        """Yield what an attribute of a function holds, unless functions change it at run time."""
        root, name = chain[:2]
        if assignment(scope, root, cell).is_state:
            return
        slot, value = f"{root}.{name}", vars(scope[root])[name]
        travels = is_cell(cell) and "__file__" not in scope
        ref = (self._captured_ref if travels else self.refer)(value, slot)
        yield _slot(slot, ref, f"{slot}, read by {unit.label} ({unit.place})")

    def _through_module(
        self, chain: tuple[str, ...], module: types.ModuleType, unit: _Unit
    ) -> Iterator[_Slot]:
        """Follow ``prep.scale`` through the user's modules to what it means."""
        slot, depth = ".".join(chain), 1
        while is_local_module(module):
            self._modules.add(module.__name__)
            if depth == len(chain):
                yield _slot(slot, self._module_ref(module, slot))
                return
            inner = vars(module).get(chain[depth])
            if not isinstance(inner, types.ModuleType):
                yield from self._global(vars(module), chain[depth], slot, unit)
                return
            module, depth = inner, depth + 1
        self._note_library(module.__name__)
        yield _slot(slot, f"lib:{module.__name__}")

    def _body_imports(self, function: types.FunctionType, normal: Normalised) -> Iterator[_Slot]:
        if not normal.imports:
            return
        package = function.__globals__.get("__package__") or ""
        local = _local_chains(function)
        found = Slice(
            target
            for statement in normal.imports
            for target in import_targets(statement, package, local.chains, local.names)
        )
        self._modules |= found.modules
        for label in sorted(found.library):
            self._note_library(label)
            yield _slot(f"import {label}", "lib")
        for label in sorted(found.texts):
            digest = _hash(found.texts[label])
            self._slices[f"{label} ({found.places.get(label, '')})"] = digest
            yield _slot(f"import {label}", digest)

    # --- classes ----------------------------------------------------------------------------
    def _fill_class(self, unit: _Unit, cls: type) -> None:
        unit.text = f"class {type(cls).__qualname__} {class_annotations(cls)}"
        unit.slots = [_slot("base", self.refer(base, unit.label)) for base in cls.__bases__]
        members = class_members(cls)
        if cls is self._asked:
            members = _without_readers(cls, members)
        if is_local_name(type(cls).__module__):
            unit.slots.append(_slot("metaclass", self.refer(type(cls), unit.label)))
        self._captured = _is_of_notebook(cls)  # what such a class holds travels with it
        for name, value in sorted(members.items()):
            ref = self._member(value, f"{unit.label}.{name}")
            made = member_assignment(cls, name) if "opaque" in ref else Assignment()
            unit.slots.append(_slot(name, f"{ref} {made.text}" if made.text else ref))
            scope = vars(sys.modules[cls.__module__]) if made.names else {}
            unit.slots += self._computed_from(scope, made.names, name, unit, "")
        self._captured = False

    def _member(self, value: Any, where: str) -> str:
        if isinstance(value, staticmethod | classmethod):
            return f"{type(value).__name__} {self.refer(value.__func__, where)}"
        if isinstance(value, property):
            parts = (value.fget, value.fset, value.fdel)
            return "property " + " ".join(
                self.refer(part, where) if part is not None else "-" for part in parts
            )
        if isinstance(value, functools.cached_property):
            return "cached_property " + self.refer(value.func, where)
        if isinstance(value, functools.partialmethod):
            bound = functools.partial(value.func, *value.args, **value.keywords)
            return "partialmethod " + self.refer(bound, where)
        if isinstance(value, functools.singledispatchmethod):
            return "singledispatchmethod " + self.refer(value.dispatcher, where)
        return self.refer(value, where)


def _without_readers(cls: type, members: dict[str, Any]) -> dict[str, Any]:
    """Leave out methods of an actor that only read, unless another member names them.

    What they do enters the results of their own calls, not the actor's state.
    """
    if any(is_local_name(base.__module__) for base in cls.__bases__ if base is not object):
        return members  # which may call what is here
    readers = {
        name for name, value in members.items() if getattr(value, _METHOD, {}).get("readonly")
    }
    while readers:
        others = (value for name, value in members.items() if name not in readers)
        named = {name for each in others if _is_function(each) for name in _all_names(each)}
        if not named & readers:
            break
        readers -= named
    return {name: value for name, value in members.items() if name not in readers}


def _is_function(member: Any) -> bool:
    return isinstance(member, types.FunctionType | staticmethod | classmethod | property)


def _all_names(member: Any) -> set[str]:
    if isinstance(member, property):
        parts = [each for each in (member.fget, member.fset, member.fdel) if each is not None]
    else:
        parts = [getattr(member, "__func__", member)]
    return {name for each in parts for name in _code_names(each.__code__)}


def _function_of(obj: Any) -> Any:
    return obj.__perdure_code__()[0] if _is_registered(obj) else obj


def _digest_of_bytes(value: Any) -> str | None:
    try:
        return value_digest(value)
    except Exception:  # noqa: BLE001 (foreign code: pickling may raise anything)
        return None


def _library(obj: Any) -> str:
    return f"lib:{getattr(obj, '__module__', '')}.{getattr(obj, '__qualname__', repr(obj))}"


def _label(obj: Any) -> str:
    filename = obj.__code__.co_filename if isinstance(obj, types.FunctionType) else None
    module = display_module(obj.__module__ or "", filename)
    name = str(obj.__qualname__).replace(".<locals>", "")
    return name if is_main(module) else f"{module}.{name}"


def _part_of(assigned: Assignment, name: str) -> str:
    """Return what the manifest calls a global value: ``prep.RATE (prep.py:3)``, ``K (cell 4)``.

    In a notebook that is the cell that bound it last, wherever the code that reads it stands; ""
    if nobody knows.
    """
    if not assigned.filename or cell_of(assigned.filename):
        cell = cell_of(cell_that_binds(name) or assigned.filename)
        return f"{name} (cell {cell})" if cell else ""
    module = display_module(assigned.module, assigned.filename)
    label = assigned.name if is_main(module) else f"{module}.{assigned.name}"
    return f"{label} ({_place_text(assigned.filename, assigned.line)})"


def _place(obj: Any) -> str:
    if isinstance(obj, types.FunctionType):
        return _place_text(obj.__code__.co_filename, obj.__code__.co_firstlineno)
    filename = getattr(sys.modules.get(obj.__module__), "__file__", None)
    if filename:
        return _file_text(filename)
    cell = cell_of(cell_that_binds(obj.__name__))
    return f"cell {cell}" if cell else "class"


def _place_text(filename: str, line: int) -> str:
    cell = cell_of(filename)
    return f"cell {cell}" if cell else f"{_file_text(filename)}:{line}"


def _file_text(filename: str) -> str:
    return "cell" if is_cell(filename) else os.path.basename(filename)


def _is_local_function(function: types.FunctionType) -> bool:
    filename = function.__code__.co_filename
    if filename.startswith("<") and not filename.startswith("<frozen"):
        # Made of text (exec, a notebook's cell): whose it is, its module says.
        return not function.__module__ or is_local_name(function.__module__)
    return is_local_file(filename)


# Equal code has equal normal form, whatever file or function object it is in.
_normal_forms: dict[tuple[types.CodeType, str], Normalised] = {}
_local_forms: WeakKeyDictionary[types.FunctionType, Normalised] = WeakKeyDictionary()


def _normal_form(function: types.FunctionType) -> Normalised:
    key = (function.__code__, function.__code__.co_filename)
    known = _normal_forms.get(key)
    if known is None:
        known = _normal_forms[key] = _normalise(function)
    return known


def _normalise(function: types.FunctionType) -> Normalised:
    node = find_definition(function)
    if node is None:
        return normalise_code(function.__code__)
    return normalise_function(node, lambda each: _is_own_decorator(each, function.__globals__))


def _is_own_decorator(node: ast.expr, scope: Mapping[str, Any]) -> bool:
    value: ast.expr = node.func if isinstance(node, ast.Call) else node
    parts: list[str] = []
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name):
        return False
    found: Any = scope.get(value.id)
    for name in reversed(parts):
        found = getattr(found, name, None)
    if found is None:
        return (parts[0] if parts else value.id) in _OWN_DECORATORS
    module = getattr(found, "__module__", None) or ""
    return str(module).partition(".")[0] == "perdure"


def _local_chains(function: types.FunctionType) -> Normalised:
    """Return the names that a body uses, locals among them: what is used of a local import."""
    known = _local_forms.get(function)
    if known is None:
        node = find_definition(function)
        body: list[ast.stmt] = []
        if node is not None and not isinstance(node, ast.Lambda):
            body = node.body
        known = _local_forms[function] = normalise_statements(body)
    return known


def _is_followed(value: Any) -> bool:
    """Say whether a value is nothing but code: of other callables it counts what they hold."""
    kinds = types.FunctionType | type | types.BuiltinFunctionType | types.MethodDescriptorType
    is_code = isinstance(value, kinds) or _is_registered(value)
    return is_code or callable(getattr(value, "__wrapped__", None))


def _is_named(value: Any, name: str) -> bool:
    """Say whether a function or class has the name by which it is looked up."""
    return is_code(value) and getattr(_function_of(value), "__name__", "") == name


def _is_attribute_of_function(value: Any, chain: tuple[str, ...]) -> bool:
    is_local = isinstance(value, types.FunctionType) and _is_local_function(value)
    return is_local and len(chain) > 1 and chain[1] in vars(value)


def _is_of_notebook(cls: type) -> bool:
    module = sys.modules.get(cls.__module__)
    return is_main(cls.__module__) and not hasattr(module, "__file__")


def _is_reached(value: Any) -> bool:
    """Say whether a value is code to be followed, and no constant."""
    return callable(value) or isinstance(value, types.ModuleType)


def _code_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            names |= _code_names(value)
    return names


def _local_classes(value: Any) -> list[type]:
    """Return the user's classes of which there are instances in a constant: their methods count."""
    found: dict[type, None] = {}
    stack, looked = [value], 0
    while stack and looked < 100:
        item = stack.pop()
        looked += 1
        if isinstance(item, list | tuple | set | frozenset):
            stack.extend(list(item)[:100])
        elif isinstance(item, dict):
            stack.extend(list(item.values())[:100])
        elif is_local_name(type(item).__module__):
            found[type(item)] = None
            stack.extend(list(getattr(item, "__dict__", {}).values())[:100])
    return sorted(found, key=lambda cls: cls.__qualname__)


# --- plans --------------------------------------------------------------------------------------
_NONE: Mapping[str, str] = {}


def fingerprints(
    plan: Plan, inputs: Mapping[str, StoredValue], outside: Mapping[str, str] = _NONE
) -> dict[str, str]:
    """Return every step's fingerprint: what it is, and everything upstream that it depends on.

    Args:
        plan: the plan; its steps are in topological order.
        inputs: the run's inputs by parameter name.
        outside: fingerprints of the steps that are not in the plan, for a graph that a step gave.
    """
    found: dict[str, str] = {}
    for step in plan.steps:
        parts = [step.own]
        for reference in references(step):
            if isinstance(reference, FromInput):
                parts.append(_input_part(reference, inputs))
            else:
                above = found.get(reference.step) or outside[reference.step]
                parts.append(above + path_text(reference.path))
        found[step.id] = "fp:" + _hash(*parts)
    return found


def _input_part(reference: FromInput, inputs: Mapping[str, StoredValue]) -> str:
    stored = inputs[reference.name]
    text = path_text(reference.path)
    part = stored.parts.get(text) if text else None
    return part if part is not None else stored.value_digest + text
