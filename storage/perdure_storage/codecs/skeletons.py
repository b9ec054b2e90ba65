"""Classes taken apart: what an empty class is made of, and what fills it.

A class may hold itself, its instances and its subclasses, so it is made empty first. Making it runs
none of the user's code: what metaclasses, ``__init_subclass__`` and the ``__new__`` of enums did is
in the class already.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Generic

from cloudpickle import cloudpickle as _internals

from perdure_storage.shapes import is_importable

Parts = tuple[Callable[..., type], tuple[Any, ...], Any]
"""A maker, its arguments, and the state that ``fill`` takes."""

_making = threading.RLock()

# What the enum machinery notes in a member itself, and what Flag caches in it.
_NOTED_IN_MEMBERS = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})


def take_apart(cls: type) -> Parts:
    """Return what makes the class again."""
    return _enum_parts(cls) if issubclass(cls, Enum) else _class_parts(cls)


def fill(cls: type, state: Any) -> None:
    """Fill a class that was made empty."""
    members, more = state
    _internals._class_setstate(cls, (members, {}))
    for name in more.get("surplus", ()):
        if name not in members and name in vars(cls):
            delattr(cls, name)
    for name, attributes in more.get("members", {}).items():
        vars(cls.__members__[name]).update(attributes)  # type: ignore[attr-defined]


# --- classes ------------------------------------------------------------------------------------
def _class_parts(cls: type) -> Parts:
    _, arguments, (members, _) = _internals._dynamic_class_reduce(cls)[:3]
    meta, name, bases, namespace, *_ = arguments
    if meta is type and types.resolve_bases(bases) != cls.__bases__:
        # A named tuple: what was written as its base makes classes of its own.
        namespace, bases = {**namespace, "__orig_bases__": bases}, cls.__bases__
        if Generic in bases:
            members.pop("__class_getitem__", None)  # taken from Generic itself
    members.pop("__slotnames__", None)  # pickle's own note, made when an instance is pickled
    slots = _slots_of(cls)
    if slots is not None:
        namespace = {**namespace, "__slots__": slots}
        members = {key: value for key, value in members.items() if not _is_slot(cls, value)}
        if not isinstance(cls.__dict__["__slots__"], str | tuple | list | dict):
            members["__slots__"] = slots  # an iterator, used up
    return make_empty_class, (meta, name, bases, namespace), (members, {})


def _slots_of(cls: type) -> tuple[str, ...] | None:
    """Return the names of the slots that the class itself has, mangled; None if it has none.

    Without them instances would be laid out otherwise, and their pickles differ.
    """
    own = vars(cls)
    if "__slots__" not in own:
        return None
    slots = [name for name, value in own.items() if _is_slot(cls, value)]
    # Python before 3.11.3 copies these from the class that a data class with slots was made of.
    real = (name for name in ("__dict__", "__weakref__") if _owner(own.get(name)) is cls)
    return (*slots, *real)


def _owner(descriptor: Any) -> Any:
    return getattr(descriptor, "__objclass__", None)


def _is_slot(cls: type, value: Any) -> bool:
    return isinstance(value, types.MemberDescriptorType) and _owner(value) is cls


def make_empty_class(
    meta: type, name: str, bases: tuple[Any, ...], namespace: dict[str, Any]
) -> type:
    """Return a class with these bases and slots, and nothing else in it."""
    maker = _library_meta(meta)
    with _no_init_subclass(bases):
        if maker is meta:
            return types.new_class(
                name, bases, {"metaclass": meta}, lambda body: body.update(namespace)
            )
        resolved = types.resolve_bases(bases)
        written = {} if resolved is bases else {"__orig_bases__": bases}
        made: type = maker.__new__(meta, name, resolved, {**written, **namespace})
        return made


def _library_meta(meta: type) -> Any:
    """Return the metaclass whose ``__new__`` makes the class: the first that is no user's."""
    return next(each for each in meta.__mro__ if is_importable(each))


@contextmanager
def _no_init_subclass(bases: tuple[Any, ...]) -> Iterator[None]:
    """Take ``__init_subclass__`` away from the user's classes: what it wants is not known here."""
    known = {each for base in types.resolve_bases(bases) for each in base.__mro__}
    with _making:
        taken = [
            (each, vars(each)["__init_subclass__"])
            for each in known
            if "__init_subclass__" in vars(each) and not is_importable(each)
        ]
        try:
            for each, _ in taken:
                del each.__init_subclass__
            yield
        finally:
            for each, hook in taken:
                type.__setattr__(each, "__init_subclass__", hook)


# --- enums --------------------------------------------------------------------------------------
def _enum_parts(cls: Any) -> Parts:
    members, _ = _internals._class_getstate(cls)
    for name in (*cls.__members__, *_KEPT_BY_ENUMS):
        members.pop(name, None)
    values = {
        name: (_new_arguments(cls._member_type_, member), member._value_)
        for name, member in cls.__members__.items()
    }
    attributes = {member._name_: _own_attributes(member) for member in cls}
    arguments = (type(cls), cls.__name__, cls.__bases__, cls.__module__, cls.__qualname__, values)
    more = {
        "members": {name: own for name, own in attributes.items() if own},
        "surplus": ("__init__", "__new_member__"),
    }
    return make_empty_enum, arguments, (members, more)


_KEPT_BY_ENUMS = (
    "_generate_next_value_", "_member_names_", "_member_map_", "_member_type_",
    "_value2member_map_", "__slotnames__",
)  # fmt: skip


def _own_attributes(member: Any) -> dict[str, Any]:
    own = getattr(member, "__dict__", {})
    return {name: value for name, value in own.items() if name not in _NOTED_IN_MEMBERS}


def _new_arguments(kind: Any, member: Any) -> tuple[Any, ...]:
    """Return what a member is as an instance of the data type that its enum is mixed with."""
    if kind.__new__ is object.__new__:
        return ()
    own = getattr(kind, "__getnewargs__", None)
    return tuple(own(member)) if own is not None else tuple(kind.__reduce__(member)[1])


def make_empty_enum(
    meta: Any,
    name: str,
    bases: tuple[type, ...],
    module: str,
    qualname: str,
    members: dict[str, tuple[tuple[Any, ...], Any]],
) -> type:
    """Return an enum with these members and nothing else in it."""
    namespace = meta.__prepare__(name, bases)
    namespace["__new__"] = _new_member
    namespace["__init__"] = _leave_member
    for key, value in members.items():
        namespace[key] = _Member(value)
    with _no_init_subclass(bases):
        made: type = _library_meta(meta).__new__(meta, name, bases, namespace)
    made.__module__, made.__qualname__ = module, qualname
    return made


class _Member:
    """Stands for a member's value while its enum is made, so that nothing looks into the value."""

    def __init__(self, parts: tuple[tuple[Any, ...], Any]) -> None:
        self.parts = parts


def _new_member(cls: Any, given: Any) -> Any:
    if type(given) is tuple:  # as enums of tuples get it
        (given,) = given
    arguments, value = given.parts
    member = cls._member_type_.__new__(cls, *arguments)
    member._value_ = value
    return member


def _leave_member(self: Any, *given: Any) -> None:
    """Do nothing: the attributes that a member's ``__init__`` has set come with the state."""
