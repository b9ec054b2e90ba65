"""Types and values that tests of codecs and digests share."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Any, NamedTuple

import msgspec
import pydantic
from hypothesis import strategies as st


class Color(enum.Enum):
    RED = 1
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass
class Checked:
    value: int

    def __post_init__(self) -> None:
        self.value += 1  # must not run again when a value is read


@dataclasses.dataclass
class Caching:
    x: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.x


@dataclasses.dataclass
class OwnState:
    x: int

    def __getstate__(self) -> dict[str, Any]:
        return {"x": -self.x}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.x = -state["x"]


class Pair(NamedTuple):
    left: Any
    right: Any


class Packed(msgspec.Struct):
    a: Any
    b: Any = None


class Model(pydantic.BaseModel):
    name: str
    scores: list[float] = []


class MyInt(int):
    pass


class MyDict(dict):  # type: ignore[type-arg]
    pass


class MyList(list):  # type: ignore[type-arg]
    pass


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(allow_nan=True),
    st.text(),
    st.characters(categories=["Cs"]),
    st.binary(max_size=40),
    st.complex_numbers(allow_nan=False),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([*Color, *Level, Access.READ, Access.READ | Access.WRITE, ...]),
)

hashables = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(inner, max_size=4),
        st.builds(Frozen, st.text(), st.frozensets(st.text(), max_size=3)),
    ),
    max_leaves=8,
)

values = st.recursive(
    hashables,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.text(), inner, max_size=5),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=5),
        st.builds(Point, inner, inner),
        st.builds(Pair, inner, inner),
        st.builds(Packed, inner, inner),
        st.builds(Model, name=st.text(), scores=st.lists(st.floats(allow_nan=False))),
    ),
    max_leaves=25,
)


def same(one: Any, two: Any) -> bool:
    """Say whether two values are equal, with equal types all the way down; NaN equals NaN."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return repr(one) == repr(two)
    if isinstance(one, complex):
        return same(one.real, two.real) and same(one.imag, two.imag)
    if isinstance(one, dict):
        pairs = zip(one.items(), two.items(), strict=False)
        return len(one) == len(two) and all(same(a, b) for p, q in pairs for a, b in zip(p, q))
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, set | frozenset):
        return len(one) == len(two) and sorted(map(_key, one)) == sorted(map(_key, two))
    if isinstance(one, Point | Packed | Frozen | Model):
        names = [n for n in ("x", "y", "a", "b", "name", "tags", "scores") if hasattr(one, n)]
        return all(same(getattr(one, n), getattr(two, n)) for n in names)
    if hasattr(one, "tzinfo"):
        return bool(one == two and one.fold == two.fold and repr(one.tzinfo) == repr(two.tzinfo))
    return bool(one == two)


def _key(item: Any) -> str:
    """Return text by which equal elements of equal types are equal."""
    if isinstance(item, frozenset):
        return f"frozenset({sorted(map(_key, item))})"
    if isinstance(item, tuple):
        return f"tuple({list(map(_key, item))})"
    if isinstance(item, Frozen):
        return f"Frozen({item.name!r}, {sorted(item.tags)})"
    return f"{type(item)} {item!r}"
