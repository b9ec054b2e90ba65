"""JSON for plain values (``json/1``), and tagged JSON for what plain JSON would change.

``json/1`` is JSON as anyone reads it; only values that come back exactly are written so: None,
bool, int, finite float, str, list and dict with str keys, by exact type, no container twice.

``json+types/1`` is JSON in which an object with a ``"$"`` says what it stands for: a tuple, a set,
other keys, bytes, dates, Decimal, UUID, paths, enums and data classes by import path; and, where
there is no pickle, classes and functions of modules by theirs. A container that occurs twice is
written once and referred to. Reading it imports the modules that it names, and makes instances of
data classes; it calls nothing else.
"""

from __future__ import annotations

import base64
import decimal
import importlib
import math
import pathlib
import struct
import uuid
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from perdure_storage.codecs.culprit import key_text
from perdure_storage.digests import Opaque, PlainScan, zone_from, zone_name
from perdure_storage.errors import StoreError
from perdure_storage.shapes import import_name, is_importable, readable, shape_of, shown_name

PLAIN = "json/1"
TYPED = "json+types/1"

SCALARS = frozenset({int, str, bool, float, type(None)})
_ATOMS = frozenset({int, str, bool, type(None)})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Node = Any
"""What msgspec writes as JSON."""

MADE = "__perdure_made__"
"""A class that has it, and ``__perdure_parts__``, is written as those parts and made of them."""


class Unfit(Exception):
    """The value has no JSON form; ``path`` leads to the part that has none."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path = ""
        super().__init__(reason)


def encode_scalar(value: Any) -> bytes | None:
    """Return the JSON of a None, bool, int, float or str, or None if JSON would change it."""
    if type(value) is float and not math.isfinite(value):
        return None
    try:
        return _encode(value)
    except ValueError:  # a lone surrogate, digits beyond the interpreter's limit
        return None


def encode_plain(value: Any) -> bytes | None:
    """Return the JSON of a list or dict, or None if it would not come back as it is."""
    scan = PlainScan()
    try:
        if scan.nodes(value) < 0 or scan.shared:
            return None
        return _encode(value)
    except (ValueError, RecursionError):
        return None


def decode_plain(data: memoryview) -> Any:
    """Return the value that ``encode_plain`` or ``encode_scalar`` wrote."""
    return _decode(data)


def encode_typed(
    value: Any,
    *,
    nodes: float = math.inf,
    buffer_bytes: float = math.inf,
    names: bool = False,
) -> bytes:
    """Return tagged JSON.

    Args:
        value: what to write.
        nodes: give up on a value of more parts than this: another codec is faster.
        buffer_bytes: give up on byte strings longer than this.
        names: write classes and functions of modules, and what stands in their place there, by
            their names.

    Raises:
        Unfit: it has no such form, or is too large.
    """
    writer = _Writer(nodes, buffer_bytes, names)
    try:
        holder: list[Node] = [None]
        holder[0] = writer.write(value, holder, 0)
        return _encode(holder[0])
    except RecursionError:
        raise Unfit("it is nested too deeply") from None
    except ValueError:
        raise Unfit("text that is not Unicode, or a number of thousands of digits") from None


def decode_typed(data: memoryview) -> Any:
    """Return the value that ``encode_typed`` wrote.

    Raises:
        StoreError: a type that it names is not there any more, or is no data class now.
    """
    return _Reader().read(_decode(data))


class _Writer:
    def __init__(self, nodes: float, buffer_bytes: float, names: bool) -> None:
        self.buffer_bytes = buffer_bytes
        self._names = names
        self._left = nodes
        self._inside: set[int] = set()
        # Where each container was written, so that it can be given a number when it is met again;
        # None inside sets, whose elements are sorted afterwards.
        self._places: dict[int, tuple[Any, Any] | None] = {}
        self._numbers: dict[int, int] = {}
        self._sets = 0
        self._alive: list[Any] = []

    def write(self, value: Any, into: Any, key: Any) -> Node:
        """Return the node for ``value``, which is going to be put at ``into[key]``."""
        cls = type(value)
        if cls in _ATOMS:
            return value
        atom = _ATOM_WRITERS.get(cls)
        if atom is not None:
            return atom(self, value)
        if cls is tuple and set(map(type, value)) <= _ATOMS:
            return {"$": "tuple", "v": list(value)}
        return self._container(cls, value, into, key)

    def _container(self, cls: type, value: Any, into: Any, key: Any) -> Node:
        if isinstance(value, Enum):
            return self._object(cls, value)
        name = id(value)
        if name in self._inside:
            raise Unfit("it contains itself")
        if name in self._places:
            return self._again(name)
        self._places[name] = None if self._sets else (into, key)
        self._inside.add(name)
        writer = _CONTAINER_WRITERS.get(cls)
        node = writer(self, value) if writer is not None else self._object(cls, value)
        self._inside.discard(name)
        return node

    def _again(self, name: int) -> Node:
        place = self._places[name]
        if place is None or self._sets:
            raise Unfit("one object occurs twice, once of it in a set")
        if name not in self._numbers:
            into, key = place
            number = self._numbers[name] = len(self._numbers)
            into[key] = {"$": "def", "n": number, "v": into[key]}
        return {"$": "ref", "n": self._numbers[name]}

    def spend(self, count: int) -> None:
        """Count parts, and give up when there are too many."""
        self._left -= count
        if self._left < 0:
            raise Unfit("it has too many parts")

    def items(
        self, values: Iterable[Any], step: Callable[[int], str] = "[{}]".format
    ) -> list[Node]:
        """Return the nodes of several values."""
        nodes: list[Node] = []
        for at, value in enumerate(values):
            nodes.append(None)
            try:
                nodes[at] = self.write(value, nodes, at)
            except Unfit as unfit:
                unfit.path = step(at) + unfit.path
                raise
        return nodes

    def mapping(self, fields: dict[str, Any], step: Callable[[str], str]) -> dict[str, Node]:
        """Return the nodes of named values."""
        nodes: dict[str, Node] = {}
        for name, value in fields.items():
            nodes[name] = None
            try:
                nodes[name] = self.write(value, nodes, name)
            except Unfit as unfit:
                unfit.path = step(name) + unfit.path
                raise
        return nodes

    def list_(self, value: list[Any]) -> Node:
        """Write a list; one of atoms only is its own node."""
        self.spend(1)
        if set(map(type, value)) <= _ATOMS:
            return value
        self.spend(len(value))
        return self.items(value)

    def tuple_(self, value: tuple[Any, ...]) -> Node:
        """Write a tuple."""
        self.spend(1 + len(value))
        return {"$": "tuple", "v": self.items(value)}

    def dict_(self, value: dict[Any, Any]) -> Node:
        """Write a dict: as an object, if its keys allow it."""
        self.spend(1 + len(value))
        if not value or (set(map(type, value)) == {str} and "$" not in value):
            return self.mapping(value, key_text)
        names = list(value)
        keys = self.items(names, lambda at: f".keys()[{at}]")
        values = self.items(value.values(), lambda at: key_text(names[at]))
        return {"$": "dict", "k": keys, "v": values}

    def set_(self, value: set[Any] | frozenset[Any]) -> Node:
        """Write a set, its elements sorted by what they look like: same set, same bytes."""
        self.spend(1 + len(value))
        self._sets += 1
        nodes = self.items(value, lambda at: "{...}")
        self._sets -= 1
        return {"$": type(value).__name__, "v": sorted(nodes, key=_encode)}

    def _object(self, cls: type, value: Any) -> Node:
        if self._names and (node := self._named(cls, value)) is not None:
            return node
        shape = shape_of(cls)
        if shape is None:
            raise Unfit(_no_form(cls, value))
        if not is_importable(cls):
            raise Unfit(f"class {cls.__qualname__} cannot be imported from {cls.__module__}")
        fields = shape.fields_of(value)
        if fields is None:
            raise Unfit(f"this {cls.__qualname__} keeps more than its fields")
        self.spend(1 + len(fields))
        self._alive.append(fields)
        written = self.mapping(fields, lambda name: f".{name}")
        return {"$": shape.kind, "t": f"{cls.__module__}:{cls.__qualname__}", "v": written}

    def _named(self, cls: type, value: Any) -> Node | None:
        """Write code by its name, and perdure's own definitions by what they are made of."""
        name = import_name(value)
        if name is not None:
            return {"$": "name", "v": name.text, "inside": name.is_inside}
        if not hasattr(cls, MADE):
            return None
        parts = value.__perdure_parts__()
        self._alive.append(parts)
        return {
            "$": "made",
            "t": f"{cls.__module__}:{cls.__qualname__}",
            "v": self.mapping(parts, "".format),
        }

    def bytes_(self, value: bytes | bytearray) -> Node:
        """Write a byte string as base 64."""
        if len(value) > self.buffer_bytes:
            raise Unfit("a long byte string")
        return {"$": type(value).__name__, "v": base64.b64encode(value).decode()}

    def float_(self, value: float) -> Node:
        """Write a float; one that JSON has no word for, bit by bit."""
        if math.isfinite(value):
            return value
        return {"$": "float", "v": struct.pack(">d", value).hex()}


def _no_form(cls: type, value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):  # code: of a class itself, or of a function
        where = readable(str(getattr(value, "__module__", "")))
        return f"{name} cannot be imported from {where}: move it into a module, and import it"
    return f"{shown_name(cls)} has no JSON form"


def _moment(writer: _Writer, value: datetime | time) -> Node:
    try:
        zone = zone_name(value.tzinfo)
    except Opaque as opaque:
        raise Unfit(str(opaque)) from None
    text = value.replace(tzinfo=None, fold=0).isoformat()
    return {"$": type(value).__name__, "v": text, "zone": zone, "fold": value.fold}


def _zone(writer: _Writer, value: timezone | ZoneInfo) -> Node:
    try:
        return {"$": "zone", "v": zone_name(value)}
    except Opaque as opaque:
        raise Unfit(str(opaque)) from None


def _read_moment(cls: type[datetime] | type[time], node: Node) -> datetime | time:
    moment = cls.fromisoformat(node["v"])
    return moment.replace(tzinfo=zone_from(node["zone"]), fold=node["fold"])


def _tagged(tag: str, write: Callable[[Any], Node]) -> Callable[[_Writer, Any], Node]:
    return lambda writer, value: {"$": tag, "v": write(value)}


def _range(value: range) -> Node:
    return [value.start, value.stop, value.step]


_ATOM_WRITERS: dict[type, Callable[[_Writer, Any], Node]] = {
    float: _Writer.float_,
    bytes: _Writer.bytes_,
    bytearray: _Writer.bytes_,
    complex: _tagged("complex", lambda value: struct.pack(">dd", value.real, value.imag).hex()),
    range: _tagged("range", _range),
    type(...): _tagged("ellipsis", lambda value: None),
    date: _tagged("date", date.isoformat),
    datetime: _moment,
    time: _moment,
    timedelta: _tagged("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    timezone: _zone,
    ZoneInfo: _zone,
    decimal.Decimal: _tagged("decimal", str),
    uuid.UUID: _tagged("uuid", str),
    pathlib.PosixPath: _tagged("PosixPath", str),
    pathlib.PurePosixPath: _tagged("PurePosixPath", str),
    pathlib.PureWindowsPath: _tagged("PureWindowsPath", str),
}

_CONTAINER_WRITERS: dict[type, Callable[[_Writer, Any], Node]] = {
    list: _Writer.list_,
    tuple: _Writer.tuple_,
    dict: _Writer.dict_,
    set: _Writer.set_,
    frozenset: _Writer.set_,
}


class _Reader:
    def __init__(self) -> None:
        self.shared: dict[int, Any] = {}

    def read(self, node: Node) -> Any:
        """Return the value that a node stands for."""
        if type(node) is list:
            return node if set(map(type, node)) <= _ATOMS else [self.read(part) for part in node]
        if type(node) is not dict:
            return node
        tag = node.get("$")
        if tag is None:
            return {name: self.read(part) for name, part in node.items()}
        if "t" in node:
            return self._object(tag, node)
        reader = _READERS.get(tag)
        if reader is None:
            raise StoreError(
                f"a stored value is tagged {tag!r}, which this perdure does not know: use a newer"
            )
        return reader(self, node)

    def _object(self, kind: str, node: Node) -> Any:
        cls = find_class(node["t"])
        if kind == "made" and (make := getattr(cls, MADE, None)) is not None:
            return make({name: self.read(part) for name, part in node["v"].items()})
        shape = shape_of(cls)
        if shape is None or shape.kind != kind:
            raise StoreError(
                f"{node['t']} was a data class when a value was stored, and is not. {_PUT_BACK}"
            )
        fields = {name: self.read(part) for name, part in node["v"].items()}
        try:
            return shape.make(cls, fields)
        except Exception as error:  # the class may have changed in any way since
            raise StoreError(
                f"{node['t']} does not take the stored fields now: {error}. {_PUT_BACK}"
            ) from error

    def define(self, node: Node) -> Any:
        """Read a container that is referred to again."""
        value = self.shared[node["n"]] = self.read(node["v"])
        return value


_PUT_BACK = "Put it back as it was, or run the step that made the value again"


def find_class(name: str) -> type:
    """Return the class of ``module:qualname``, importing its module.

    Raises:
        StoreError: there is no such module, or no such class in it.
    """
    found = find_named(name)
    if not isinstance(found, type):
        raise StoreError(
            f"a stored value needs the class {name}, which is no class now. {_PUT_BACK}"
        )
    return found


def find_named(name: str, *, is_inside: bool = False) -> Any:
    """Return what ``module:qualname`` stands for, importing its module.

    Args:
        name: of a class, a function, or what a decorator put in its place.
        is_inside: the plain function in such a decorator's object is meant.

    Raises:
        StoreError: there is no such module, or nothing of that name in it.
    """
    module, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
        if is_inside:
            found = found.__wrapped__
    except Exception as error:  # importing runs the user's module, which may raise anything
        raise StoreError(
            f"a stored value needs {name}, which is not there: {error}. {_PUT_BACK}"
        ) from error
    return found


def _read_dict(reader: _Reader, node: Node) -> dict[Any, Any]:
    keys = map(reader.read, node["k"])
    return dict(zip(list(keys), map(reader.read, node["v"]), strict=True))


_READERS: dict[str, Callable[[_Reader, Node], Any]] = {
    "def": _Reader.define,
    "ref": lambda reader, node: reader.shared[node["n"]],
    "tuple": lambda reader, node: tuple(map(reader.read, node["v"])),
    "dict": _read_dict,
    "set": lambda reader, node: set(map(reader.read, node["v"])),
    "frozenset": lambda reader, node: frozenset(map(reader.read, node["v"])),
    "float": lambda reader, node: struct.unpack(">d", bytes.fromhex(node["v"]))[0],
    "complex": lambda reader, node: complex(*struct.unpack(">dd", bytes.fromhex(node["v"]))),
    "bytes": lambda reader, node: base64.b64decode(node["v"]),
    "bytearray": lambda reader, node: bytearray(base64.b64decode(node["v"])),
    "range": lambda reader, node: range(*node["v"]),
    "ellipsis": lambda reader, node: ...,
    "date": lambda reader, node: date.fromisoformat(node["v"]),
    "datetime": lambda reader, node: _read_moment(datetime, node),
    "time": lambda reader, node: _read_moment(time, node),
    "timedelta": lambda reader, node: timedelta(*node["v"]),
    "zone": lambda reader, node: zone_from(node["v"]),
    "decimal": lambda reader, node: decimal.Decimal(node["v"]),
    "uuid": lambda reader, node: uuid.UUID(node["v"]),
    "PosixPath": lambda reader, node: pathlib.PosixPath(node["v"]),
    "PurePosixPath": lambda reader, node: pathlib.PurePosixPath(node["v"]),
    "PureWindowsPath": lambda reader, node: pathlib.PureWindowsPath(node["v"]),
    "name": lambda reader, node: find_named(node["v"], is_inside=node["inside"]),
}
