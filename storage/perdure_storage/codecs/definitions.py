"""Classes that cannot be imported elsewhere: of ``__main__``, of notebooks, of function bodies.

Such a class travels as its name and code digest, with its definition beside it. Where it arrives,
the live class of that name is taken if its digest agrees; else the recorded one, of which a process
makes one for each digest, so that identity, ``isinstance`` and ``except`` hold within it. What a
worker sends back is an instance of a recorded class under the same name and digest, so at home it
becomes an instance of the live class again.

What a live class comes to may change while it lives: a notebook's next cell may patch it, or define
anew what its methods call. So its digest is asked for each time; who names code may remember it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import EnumMeta
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import cloudpickle

from perdure_storage.codecs.by_value import ByValuePickler
from perdure_storage.codecs.skeletons import fill, take_apart
from perdure_storage.digests import CodeDigest
from perdure_storage.shapes import is_importable, is_main, main_modules, type_name

logger = logging.getLogger(__name__)

ClassKey = str
"""``module:qualname#digest``: one class as it was when the value was made."""

_lock = threading.RLock()
_keys: WeakKeyDictionary[type, ClassKey] = WeakKeyDictionary()
"""Of recorded classes: those of the originals."""
_last_keys: WeakKeyDictionary[type, ClassKey] = WeakKeyDictionary()
"""Of classes that were defined here: how they were named last."""
_recorded: dict[ClassKey, type] = {}
_seen_here: WeakValueDictionary[ClassKey, type] = WeakValueDictionary()
_definitions: dict[ClassKey, bytes] = {}
_unfinished: WeakSet[type] = WeakSet()
_warned: set[ClassKey] = set()

_code_digest: ContextVar[CodeDigest | None] = ContextVar("code_digest", default=None)


@contextmanager
def naming_code(code_digest: CodeDigest | None) -> Iterator[None]:
    """Name classes by ``code_digest`` within the block."""
    token = _code_digest.set(code_digest)
    try:
        yield
    finally:
        _code_digest.reset(token)


def needs_definition(value: Any) -> bool:
    """Say whether ``value`` is a class that another process could not import."""
    return (
        isinstance(value, type)
        and not is_importable(value)
        # NoneType and its like have no importable name either; cloudpickle knows them.
        and value.__module__ != "builtins"
    )


def class_key(cls: type) -> ClassKey:
    """Return the name under which ``cls`` travels; that of a recorded class is the original's."""
    with _lock:
        key = _keys.get(cls)
        return _key_now(cls) if key is None else key


def _key_now(cls: type) -> ClassKey:
    last = _last_keys.get(cls)
    if last is not None and _code_digest.get() is None:
        return last  # nobody names code here who could say more
    key = f"{type_name(cls)}#{_digest(cls)}"
    if last is not None and last != key:
        _seen_here.pop(last, None)  # it is that class no longer
    _last_keys[cls] = key
    _seen_here[key] = cls
    return key


def definition_of(cls: type) -> tuple[ClassKey, bytes]:
    """Return the key and the pickled definition of a class."""
    key = class_key(cls)
    with _lock:
        found = _definitions.get(key)
        if found is None:
            file = io.BytesIO()
            _DefinitionPickler(file, protocol=5).dump(cls)
            found = _definitions[key] = file.getvalue()
    return key, found


def resolve(key: ClassKey, definition: bytes) -> type:
    """Return the class of this key: the live one if it agrees, else the recorded one."""
    with _lock:
        found = _find(key)
        if found is None:
            cls: type = cloudpickle.loads(definition)
            _definitions.setdefault(key, definition)
            found = _recorded.setdefault(key, cls)
        _warn_if_changed(key, found)
        return found


def known_class(key: ClassKey) -> type:
    """Return a class that ``resolve`` has found; what a pickled value refers to."""
    found = _find(key)
    if found is None:
        raise LookupError(f"no definition of {key} came with the value")
    return found


def _find(key: ClassKey) -> type | None:
    live = _live(key)
    if live is not None and class_key(live) == key:
        return live
    return _recorded.get(key) or _seen_here.get(key)


def _live(key: ClassKey) -> type | None:
    module, _, qualname = key.partition("#")[0].partition(":")
    if not is_main(module):
        return None
    for main in main_modules():
        found: Any = main
        for name in qualname.split("."):
            found = getattr(found, name, None)
        if isinstance(found, type):
            return found
    return None


def _warn_if_changed(key: ClassKey, taken: type) -> None:
    live = _live(key)
    if live is None or live is taken or key in _warned:
        return
    _warned.add(key)
    warnings.warn(
        f"a stored value holds {live.__qualname__} as it was before it was edited: it is read "
        "with the recorded class, of which today's objects are no instances",
        stacklevel=2,
    )


def _digest(cls: type) -> str:
    code_digest = _code_digest.get()
    if code_digest is not None:
        try:
            return code_digest(cls)
        except Exception as error:  # noqa: BLE001 - it looks into user code, which may do anything
            logger.debug("no code digest of %s: %s", cls, error)
    return _bytecode_digest(cls)


def _bytecode_digest(cls: type) -> str:
    """Digest names, fields and bytecode: where nothing better is known, equal in any process."""
    state = hashlib.blake2b(type_name(cls).encode(), digest_size=16)
    for base in cls.__bases__:
        state.update(type_name(base).encode())
    if isinstance(cls, EnumMeta):
        members: dict[str, Any] = dict(cls.__members__)
        state.update(repr([(name, member.value) for name, member in members.items()]).encode())
    for name, member in sorted(vars(cls).items()):
        if name in _INCIDENTAL:
            continue
        state.update(name.encode())
        function = getattr(member, "__func__", member)
        if isinstance(function, types.FunctionType):
            state.update(_code_text(function.__code__).encode())
        elif isinstance(member, int | str | float | bool | None):
            state.update(repr(member).encode())
    return f"bytecode:{state.hexdigest()}"


# What does not change what a class does: where it was defined, what is said about it, and what
# Python itself notes in it once an instance is pickled.
_INCIDENTAL = frozenset(
    {"__doc__", "__firstlineno__", "__module__", "__slotnames__", "__static_attributes__"}
)


def _code_text(code: types.CodeType) -> str:
    constants = [
        _code_text(part) if isinstance(part, types.CodeType) else repr(part)
        for part in code.co_consts
        if not isinstance(part, frozenset)  # its order differs between hash seeds
    ]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"


class _DefinitionPickler(ByValuePickler):
    """Pickles a class by value; it and other such classes inside are made under their keys."""

    def reducer_override(self, obj: Any) -> Any:
        if not needs_definition(obj):
            return super().reducer_override(obj)
        maker, arguments, state = take_apart(obj)
        return make_class, (class_key(obj), maker, arguments), state, None, None, set_class_state


def make_class(key: ClassKey, maker: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """Return the class of this key, or an empty one that ``set_class_state`` fills."""
    found = _find(key)
    if found is not None:
        return found
    cls = maker(*arguments)
    _recorded[key] = cls
    _keys[cls] = key
    _unfinished.add(cls)
    return cls


def set_class_state(cls: type, state: Any) -> None:
    """Fill a class that ``make_class`` made; leave one alone that was there before."""
    if cls in _unfinished:
        _unfinished.discard(cls)
        fill(cls, state)
