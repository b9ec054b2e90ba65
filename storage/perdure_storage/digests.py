"""The value digest: compares values over processes, hash seeds and encodings.

``v1:<hex>`` is canonical over exact types: ``1``, ``1.0`` and ``True`` differ, the order of a set
or a dict does not matter, a data class counts by its type's name, its type's code (whoever gets one
may call its methods) and its fields, an array by dtype, shape and items, a frame by schema and
data, a function or class by its code digest. A value that
is, or holds, anything else is *opaque*: ``opaque:<hex>`` of its encoded bytes, of which equality
proves sameness and difference proves nothing.
"""

from __future__ import annotations

import collections
import contextlib
import decimal
import functools
import math
import pathlib
import struct
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

import msgspec
from blake3 import blake3

from perdure_storage.hashing import combine, digest_of, hex_of, integrity_digest
from perdure_storage.records import Digest
from perdure_storage.shapes import shape_of, type_name

__all__ = [
    "Opaque",
    "canonical_digest",
    "derived_digest",
    "digest_of",
    "integrity_digest",
    "opaque_digest",
    "value_digest",
]

CodeDigest = Callable[[Any], str]
"""Names the code of a function or class; handed in by the floor that knows code."""

_NODES_AT_ONCE = 100_000  # a plain value up to this size is hashed as one piece of JSON
_ITEMS_AT_ONCE = 8_192  # a longer list is hashed in slices of this length

_ATOMS = frozenset({int, str, bool, type(None)})
_PLAIN = _ATOMS | {float, list, dict}
_JSON_ATOMS = _ATOMS | {float}

_to_json = msgspec.json.Encoder(order="deterministic").encode


class Opaque(Exception):
    """The value is, or holds, something that has no canonical digest."""


def value_digest(
    value: Any, *, code_digest: CodeDigest | None = None, integrity: Digest | None = None
) -> str:
    """Return ``v1:<hex>``, or ``opaque:<hex>`` if the value has no canonical form.

    Args:
        value: what to compare by.
        code_digest: names functions and classes; without it they are opaque.
        integrity: integrity digest of the encoded bytes, which an opaque value goes by; made
            from the pickled value if it is not given.
    """
    canonical = canonical_digest(value, code_digest)
    if canonical is not None:
        return canonical
    return opaque_digest(integrity or digest_of(_pickled(value)))


def canonical_digest(
    value: Any,
    code_digest: CodeDigest | None = None,
    *,
    class_digest: CodeDigest | None = None,
    with_state: bool = False,
) -> str | None:
    """Return ``v1:<hex>``, or None if the value is opaque.

    Args:
        value: what to compare by.
        code_digest: names functions and classes that are values; without it they are opaque.
        class_digest: names the classes that values are of, by their code; without it an object
            counts by its class's name.
        with_state: an object of any class counts by its class's name and what its pickle would
            hold. Slow where these are many.
    """
    if type(value) in _JSON_ATOMS:
        return "v1:" + _atom(value).hex()
    try:
        return "v1:" + _Canon(code_digest, class_digest, with_state).digest(value).hex()
    except (Opaque, RecursionError):
        return None


def opaque_digest(integrity: Digest) -> str:
    """Return the digest by which an opaque value of these encoded bytes goes."""
    return "opaque:" + hex_of(integrity)


def derived_digest(kind: str, integrity: Digest) -> str:
    """Return the value digest of something whose encoded bytes are canonical themselves.

    Args:
        kind: ``"bytes"`` or ``"array"``, as the codec says.
        integrity: digest of the encoded bytes.
    """
    return "v1:" + combine(kind, bytes.fromhex(hex_of(integrity))).hex()


def _pickled(value: Any) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value, protocol=5))


def _atom(value: Any) -> bytes:
    """Digest a None, bool, int, float or str."""
    if type(value) is float and not math.isfinite(value):
        return combine("float", repr(value).encode())
    try:
        return blake3(b"json\0" + _to_json(value)).digest()
    except ValueError:  # a lone surrogate, or digits beyond the interpreter's limit
        if isinstance(value, str):
            return combine("str", value.encode("utf-8", "surrogatepass"))
        return combine("int", f"{value:x}".encode())


def _json_of(value: Any) -> bytes | None:
    try:
        return _to_json(value)
    except ValueError:
        return None


class PlainScan:
    """Finds out, without visiting atoms one by one, what in a value is plain JSON.

    Plain means None, bool, int, finite float, str, list, and dict with str keys, by exact type.
    ``shared`` says whether one container was met twice: such a value is plain to compare, and
    not to write, since JSON would forget that the two are one.
    """

    __slots__ = ("_nodes", "shared")

    def __init__(self) -> None:
        self._nodes: dict[int, int] = {}  # by id; 0 while inside, -1 if not plain
        self.shared = False

    def nodes(self, value: Any) -> int:
        """Return how many nodes a list or dict has, written out; -1 if it is not plain."""
        key = id(value)
        known = self._nodes.get(key)
        if known is not None:
            self.shared = True
            return known or -1
        self._nodes[key] = 0
        count = self._nodes[key] = self._count(value)
        return count

    def _count(self, value: Any) -> int:
        if type(value) is list:
            return self.items(value)
        if value and set(map(type, value)) != {str}:
            return -1
        return self.items(value.values())

    def items(self, values: Iterable[Any]) -> int:
        """Return the nodes of a list with these items, -1 if one of them is not plain."""
        items = values if isinstance(values, list) else list(values)
        kinds = set(map(type, items))
        if not kinds <= _PLAIN:
            return -1
        if float in kinds and not _all_finite(items, kinds):
            return -1
        total = 1 + len(items)
        if list in kinds or dict in kinds:
            for item in items:
                if type(item) is list or type(item) is dict:
                    inside = self.nodes(item)
                    if inside < 0:
                        return -1
                    total += inside
        return total


def _all_finite(items: Sequence[Any], kinds: set[type]) -> bool:
    if len(kinds) == 1:
        return all(map(math.isfinite, items))
    return all(math.isfinite(item) for item in items if type(item) is float)


class _Canon:
    """One computation of a value digest. Raises Opaque."""

    def __init__(
        self,
        code_digest: CodeDigest | None,
        class_digest: CodeDigest | None,
        with_state: bool,
    ) -> None:
        self.code_digest = code_digest
        self._class_digest = class_digest
        self._with_state = with_state
        self._classes: dict[type, bytes] = {}
        self._scan = PlainScan()
        self._done: dict[int, bytes] = {}
        self._inside: dict[int, int] = {}  # by id, how deep
        self._alive: list[Any] = []  # what ids in the tables above refer to, if made here

    def digest(self, value: Any) -> bytes:
        """Return the raw digest of ``value``."""
        cls = type(value)
        if cls in _JSON_ATOMS:
            return _atom(value)
        known = self._done.get(id(value))
        if known is not None:
            return known
        if id(value) in self._inside:
            if self._with_state:
                return combine("again", _atom(self._inside[id(value)]))
            raise Opaque("it contains itself")
        self._inside[id(value)] = len(self._inside)
        result = self._compose(cls, value)
        del self._inside[id(value)]
        self._done[id(value)] = result
        return result

    def nothing_more(self, value: Any) -> None:
        """Raise Opaque if an object has attributes beside what its type is about."""
        if vars(value):
            raise Opaque("it has attributes of its own")

    def fresh(self, value: Any) -> bytes:
        """Digest an object made on the way; kept, since its id must not be given out again."""
        self._alive.append(value)
        return self.digest(value)

    def fields(self, kind: str, cls: type, fields: dict[str, Any]) -> bytes:
        """Digest named parts of an object of class ``cls``."""
        self._alive.append(fields)
        pairs = [_atom(name) + self.digest(fields[name]) for name in sorted(fields)]
        return combine(kind, _atom(type_name(cls)), self._class_of(cls), *pairs)

    def _class_of(self, cls: type) -> bytes:
        """Digest what a class does, as far as that is known."""
        known = self._classes.get(cls)
        if known is None:
            code = ""
            if self._class_digest is not None:
                with contextlib.suppress(Exception):  # it looks into user code: by name, then
                    code = self._class_digest(cls)
            known = self._classes[cls] = _atom(code)
        return known

    def _compose(self, cls: type, value: Any) -> bytes:
        rule = _RULES.get(cls)
        if rule is not None:
            return rule(self, value)
        if isinstance(value, type):
            return self._class(value)
        shape = shape_of(cls)
        if shape is not None:
            fields = shape.fields_of(value)
            if fields is None:
                raise Opaque("it keeps more than its fields")
            return self.fields(shape.kind, cls, fields)
        return self._foreign(cls, value)

    def _foreign(self, cls: type, value: Any) -> bytes:
        """Digest what registers code, or an array or frame of a library.

        The library is imported, or there were no value of it.
        """
        registered = getattr(cls, "__perdure_code__", None)
        if registered is not None:  # a task or workflow: its pickle says where lines are, too
            return combine("registered", _atom(registered(value)[2]), _atom(self._code(value)))
        library = cls.__module__.partition(".")[0]
        if library in ("numpy", "pyarrow", "pandas", "polars", "torch") and library in sys.modules:
            from perdure_storage import frame_digests

            try:
                found = frame_digests.find_digest(library, value, self.fresh)
            except (Opaque, RecursionError, MemoryError):
                raise
            except Exception as error:  # a library of somebody else's, and its odd corners
                raise Opaque(f"{library} could not say what it is") from error
            if found is not None:
                return found
        if self._with_state:
            return self._object(cls, value)
        raise Opaque(f"{type_name(cls)} has no canonical form")

    def _object(self, cls: type, value: Any) -> bytes:
        """Digest an object by what its pickle would hold."""
        if cls is types.SimpleNamespace:
            return self.fields("object", cls, dict(vars(value)))
        own = ("__reduce_ex__", "__reduce__", "__getstate__")
        says_itself = any(getattr(cls, name) is not getattr(object, name) for name in own)
        says_how = hasattr(cls, "__getnewargs__") or hasattr(cls, "__getnewargs_ex__")
        try:
            reduced = value.__reduce_ex__(2)
        except Exception as error:
            raise Opaque(f"{type_name(cls)} cannot be taken apart") from error
        if isinstance(reduced, str):
            raise Opaque(f"{type_name(cls)} is pickled by name")
        make, args, state, items, pairs, more = [*reduced, None, None, None, None][:6]
        if more is not None:
            raise Opaque(f"{type_name(cls)} says how its state is set")
        parts = list(map(self.fresh, (state, list(items or ()), dict(pairs or ()))))
        if says_itself or says_how:
            parts.append(self.fresh([make, *args]))
        return combine("object", _atom(type_name(cls)), self._class_of(cls), *parts)

    # --- containers -------------------------------------------------------------------------
    def list_(self, value: list[Any]) -> bytes:
        """Digest a list: as JSON if it is plain and not huge."""
        return self._plain(value) or combine("list", self._items(value))

    def dict_(self, value: dict[Any, Any]) -> bytes:
        """Digest a dict by its items, in no order."""
        plain = self._plain(value)
        if plain is not None:
            return plain
        kinds = set(map(type, value))
        if kinds in ({str}, {int}):
            keys = sorted(value)
            return combine("dict", self._items(keys), self._items([value[key] for key in keys]))
        pairs = (self.digest(key) + self.digest(item) for key, item in value.items())
        return combine("pairs", *sorted(pairs))

    def tuple_(self, value: tuple[Any, ...]) -> bytes:
        """Digest a tuple."""
        return combine("tuple", self._items(list(value)))

    def set_(self, value: set[Any] | frozenset[Any]) -> bytes:
        """Digest a set by its elements, in no order."""
        kind = type(value).__name__
        if set(map(type, value)) in ({str}, {int}):
            return combine(kind, self._items(sorted(value)))
        return combine(kind + "*", *sorted(map(self.digest, value)))

    def _plain(self, value: Any) -> bytes | None:
        if not 0 < self._scan.nodes(value) <= _NODES_AT_ONCE:
            return None
        text = _json_of(value)
        return None if text is None else blake3(b"json\0" + text).digest()

    def _items(self, items: list[Any]) -> bytes:
        if len(items) <= _ITEMS_AT_ONCE:
            return self._slice(items)
        starts = range(0, len(items), _ITEMS_AT_ONCE)
        return combine("long", *(self._slice(items[at : at + _ITEMS_AT_ONCE]) for at in starts))

    def _slice(self, items: list[Any]) -> bytes:
        if 0 < self._scan.items(items) <= _NODES_AT_ONCE:
            text = _json_of(items)
            if text is not None:
                return blake3(b"json\0" + text).digest()
        return combine("items", *map(self.digest, items))

    # --- code -------------------------------------------------------------------------------
    def _class(self, cls: type) -> bytes:
        if cls.__module__ == "builtins":
            return combine("builtin", _atom(cls.__qualname__))
        return combine("class", _atom(self._code(cls)))

    def function(self, value: Any) -> bytes:
        """Digest a Python function by its code."""
        return combine("function", _atom(self._code(value)))

    def _code(self, value: Any) -> str:
        if self.code_digest is None:
            raise Opaque("no one names code here")
        try:
            return self.code_digest(value)
        except Exception as error:  # it looks into user code, and may fail in any way
            raise Opaque("its code has no digest") from error


def _builtin(canon: _Canon, value: Any) -> bytes:
    if not isinstance(value.__self__, types.ModuleType | None):
        raise Opaque("a bound method")
    return combine("builtin", _atom(f"{value.__module__}:{value.__qualname__}"))


def zone_name(zone: tzinfo | None) -> str | None:
    """Return a time zone as text that ``zone_from`` reads, or None if it has none.

    Raises:
        Opaque: the zone is of an unknown kind.
    """
    if zone is None or zone is UTC:
        return None if zone is None else "UTC"
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        if repr(zone) == repr(timezone(offset)):  # no name of its own
            return f"{offset / timedelta(microseconds=1):.0f}"
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return f"zone {zone.key}"
    raise Opaque("a time zone of an unknown kind")


def zone_from(name: str | None) -> tzinfo | None:
    """Return the time zone that ``zone_name`` wrote."""
    if name is None or name == "UTC":
        return None if name is None else UTC
    if name.startswith("zone "):
        return zoneinfo.ZoneInfo(name[5:])
    return timezone(timedelta(microseconds=int(name)))


def _moment(canon: _Canon, value: datetime | time) -> bytes:
    text = f"{value.replace(tzinfo=None, fold=0).isoformat()} {value.fold}"
    return combine(type(value).__name__, _atom(text), _atom(zone_name(value.tzinfo)))


def _partial(canon: _Canon, value: functools.partial[Any]) -> bytes:
    canon.nothing_more(value)
    parts = (value.func, value.args, value.keywords)
    return combine("partial", *map(canon.digest, parts))


def _method(canon: _Canon, value: types.MethodType) -> bytes:
    return combine("method", canon.digest(value.__self__), canon.digest(value.__func__))


def _deque(canon: _Canon, value: collections.deque[Any]) -> bytes:
    return combine("deque", canon.fresh([value.maxlen, *value]))


def _counter(canon: _Canon, value: collections.Counter[Any]) -> bytes:
    canon.nothing_more(value)
    return combine("Counter", canon.fresh(dict(value)))


def _ordered(canon: _Canon, value: collections.OrderedDict[Any, Any]) -> bytes:
    canon.nothing_more(value)
    return combine("OrderedDict", canon.fresh(list(value)), canon.fresh(list(value.values())))


def _defaults(canon: _Canon, value: collections.defaultdict[Any, Any]) -> bytes:
    return combine("defaultdict", canon.digest(value.default_factory), canon.fresh(dict(value)))


def _text(kind: str, write: Callable[[Any], str]) -> Callable[[_Canon, Any], bytes]:
    return lambda canon, value: combine(kind, _atom(write(value)))


def _bytes(canon: _Canon, value: bytes) -> bytes:
    return combine("bytes", bytes.fromhex(hex_of(digest_of(value))))


def _bytearray(canon: _Canon, value: bytearray) -> bytes:
    return combine("bytearray", bytes.fromhex(hex_of(integrity_digest((value,)))))


_RULES: dict[type, Callable[[_Canon, Any], bytes]] = {
    list: _Canon.list_,
    dict: _Canon.dict_,
    tuple: _Canon.tuple_,
    set: _Canon.set_,
    frozenset: _Canon.set_,
    bytes: _bytes,
    bytearray: _bytearray,
    complex: lambda canon, value: combine("complex", struct.pack("<dd", value.real, value.imag)),
    range: _text("range", repr),
    type(...): _text("ellipsis", repr),
    date: _text("date", date.isoformat),
    datetime: _moment,
    time: _moment,
    timedelta: _text("timedelta", lambda v: f"{v.days} {v.seconds} {v.microseconds}"),
    timezone: lambda canon, value: combine("zone", _atom(zone_name(value))),
    zoneinfo.ZoneInfo: lambda canon, value: combine("zone", _atom(zone_name(value))),
    decimal.Decimal: _text("decimal", str),
    uuid.UUID: _text("uuid", str),
    pathlib.PosixPath: _text("PosixPath", str),
    pathlib.PurePosixPath: _text("PurePosixPath", str),
    pathlib.PureWindowsPath: _text("PureWindowsPath", str),
    types.FunctionType: _Canon.function,
    types.BuiltinFunctionType: _builtin,
    types.MethodType: _method,
    functools.partial: _partial,
    collections.Counter: _counter,
    collections.OrderedDict: _ordered,
    collections.defaultdict: _defaults,
    collections.deque: _deque,
}
