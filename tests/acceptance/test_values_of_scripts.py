"""Values whose classes are a script's own: out to workers, home again, and after a restart."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.conftest import CommandLine

CLASSES = """
import abc
import collections
import datetime
import enum
import functools
import sys
import typing
from dataclasses import dataclass, field

import perdure
from perdure import task, workflow

T = typing.TypeVar("T")
UserId = typing.NewType("UserId", int)


def alike(self, other):
    return type(self) is type(other) and facts(self) == facts(other)


def facts(value):
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    held = {name: getattr(value, name) for name in slots if not name.startswith("__")
            and hasattr(value, name)}
    return held, getattr(value, "__dict__", None), getattr(value, "args", None)


# --- slots
@dataclass(slots=True)
class Slotted:
    x: int


@dataclass(slots=True, frozen=True)
class Frozen:
    x: int


@dataclass(slots=True)
class SlottedChild(Slotted):
    z: list = field(default_factory=list)


class Plain:
    __slots__ = ("a", "__hidden")
    __eq__ = alike

    def __init__(self, a):
        self.a, self.__hidden = a, 2 * a

    def hidden(self):
        return self.__hidden


class OneSlot:
    __slots__ = "only"
    __eq__ = alike

    def __init__(self):
        self.only = 1


class Documented:
    __slots__ = {"given": "is set", "missing": "is not"}
    __eq__ = alike

    def __init__(self):
        self.given = 1


class SlotsAndMore(Plain):
    __slots__ = ("b", "__dict__", "__weakref__")

    def __init__(self):
        super().__init__(1)
        self.b, self.free = 2, 3


class NoSlots:
    __slots__ = ()
    __eq__ = alike


class OpenChild(Plain):
    pass


# --- enums
class Color(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = "b"


class Number(enum.IntEnum):
    ONE = 1
    TWO = enum.auto()


class Permission(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = READ | WRITE


class Planet(enum.Enum):
    EARTH = (5.9, 6.3)
    MARS = (0.6, 3.3)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius


class Axis(bytes, enum.Enum):
    def __new__(cls, value, label):
        made = bytes.__new__(cls, [value])
        made._value_, made.label = value, label
        return made

    X = (0, "the first")
    Y = (1, "the second")


class Word(enum.StrEnum):
    @staticmethod
    def _generate_next_value_(name, start, count, last):
        return name.lower() + "!"

    HELLO = enum.auto()


class Pair(tuple, enum.Enum):
    A = (1, 2)


class Day(datetime.date, enum.Enum):
    FIRST = 2020, 1, 2


class Operation(enum.Enum):
    ADD = enum.member(lambda a, b: a + b)


class NamesOnly(enum.EnumMeta):
    def __new__(meta, name, bases, body, **options):
        if name != "Checked" and "MUST" not in body:
            raise TypeError("it must have a MUST")
        return super().__new__(meta, name, bases, body, **options)


class Checked(enum.Enum, metaclass=NamesOnly):
    pass


class Good(Checked):
    MUST = 1


# --- tuples, data classes, generic ones
class Named(typing.NamedTuple):
    a: int
    b: str = "x"


class NamedGeneric(typing.NamedTuple, typing.Generic[T]):
    a: T


class NamedChild(Named):
    def more(self):
        return self.a


Collected = collections.namedtuple("Collected", "a b")


@dataclass
class Base:
    a: UserId


@dataclass
class Child(Base):
    b: "list[Slotted] | None" = None

    def __post_init__(self):
        self.extra = 1


class Generic(typing.Generic[T]):
    __eq__ = alike

    def __init__(self, v: T):
        self.v = v


class GenericInt(Generic[int]):
    pass


# --- what says itself how it is pickled, or takes its own arguments
class Reduced:
    __eq__ = alike

    def __init__(self, v):
        self.v = v

    def __reduce__(self):
        return Reduced, (self.v,)


class Stateful(Reduced):
    __reduce__ = object.__reduce__

    def __getstate__(self):
        return {"other": self.v}

    def __setstate__(self, state):
        self.v = state["other"]


class CodeError(Exception):
    __eq__ = alike

    def __init__(self, code, *, why="because"):
        super().__init__(f"code {code}")
        self.code, self.why = code, why

    def __reduce__(self):
        return remade, (self.code, self.why)


def remade(code, why):
    return CodeError(code, why=why)


class Tagged(list):
    def __init__(self, *items):
        super().__init__(items)
        self.tag = "t"

    def __eq__(self, other):
        return list(self) == list(other) and alike(self, other)


# --- classes that hold classes
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    __eq__ = alike

    def area(self):
        return 4


class Outer:
    @dataclass(slots=True)
    class Inner:
        x: int

    class Kind(enum.Enum):
        A = 1


class Cyclic:
    def __eq__(self, other):
        return type(other).me is type(other) is type(self) is type(type(other).one)


Cyclic.me, Cyclic.one = Cyclic, Cyclic()


class Left:
    def __eq__(self, other):
        return type(other) is type(self) is Right.left


class Right:
    left = Left


Left.right = Right


class Meta(type):
    def __new__(meta, name, bases, body, *, tag):
        cls = super().__new__(meta, name, bases, body)
        cls.tag = tag
        return cls

    def __init__(cls, name, bases, body, *, tag):
        super().__init__(name, bases, body)

    def said(cls):
        return cls.tag


class WithMeta(metaclass=Meta, tag="t"):
    def __eq__(self, other):
        return type(self) is type(other) and type(other).said() == "t"


class Keyed:
    def __init_subclass__(cls, *, key, **options):
        super().__init_subclass__(**options)
        cls.key = key


class KeyedSlots(Keyed, key="k"):
    __slots__ = ("q",)

    def __init__(self):
        self.q = 1

    def __eq__(self, other):
        return alike(self, other) and other.key == "k"


class Cached:
    __eq__ = alike

    @functools.cached_property
    def twice(self):
        return 2


MAKE = {
    "slotted data class": lambda: Slotted(1),
    "frozen slotted data class": lambda: Frozen(1),
    "child of a slotted data class": lambda: SlottedChild(1),
    "slots": lambda: Plain(1),
    "one slot": lambda: OneSlot(),
    "documented slots": lambda: Documented(),
    "slots and a dict": lambda: SlotsAndMore(),
    "no slots": lambda: NoSlots(),
    "child with a dict": lambda: OpenChild(1),
    "Enum": lambda: [Color.CRIMSON, Color["CRIMSON"], Color("b"), list(Color.__members__)],
    "IntEnum": lambda: [Number.ONE, Number(2)],
    "Flag": lambda: [Permission.BOTH, Permission(3), Permission(0), ~Permission.READ],
    "Enum with __init__": lambda: [Planet.MARS, Planet.MARS.mass, Planet((0.6, 3.3)).radius],
    "Enum with __new__": lambda: [Axis.Y, Axis(1).label, bytes(Axis.Y)],
    "StrEnum": lambda: [Word.HELLO, Word("hello!"), str(Word.HELLO)],
    "Enum of tuples": lambda: [Pair.A, Pair((1, 2))[1]],
    "Enum of dates": lambda: [Day.FIRST, Day.FIRST.year],
    "Enum of functions": lambda: [Operation.ADD, Operation.ADD.value(1, 2)],
    "Enum with a metaclass": lambda: Good.MUST,
    "NamedTuple": lambda: Named(1),
    "generic NamedTuple": lambda: NamedGeneric(1),
    "child of a NamedTuple": lambda: NamedChild(1),
    "namedtuple": lambda: Collected(1, 2),
    "inherited data class": lambda: Child(UserId(1), [Slotted(1)]),
    "generic class": lambda: Generic(1),
    "child of a generic class": lambda: GenericInt(1),
    "__reduce__": lambda: Reduced(1),
    "__getstate__": lambda: Stateful(1),
    "exception": lambda: CodeError(3, why="so"),
    "list": lambda: Tagged(1, 2),
    "abstract class": lambda: [Square(), Square().area(), isinstance(Square(), Shape)],
    "nested class": lambda: [Outer.Inner(1), Outer.Kind.A],
    "class that holds itself": lambda: Cyclic(),
    "classes that hold each other": lambda: Left(),
    "metaclass": lambda: WithMeta(),
    "__init_subclass__": lambda: KeyedSlots(),
    "cached property": lambda: [Cached(), Cached().twice],
}


def same(value, made):
    if isinstance(made, enum.Enum) and not isinstance(made, enum.Flag):
        return value is made
    if type(made) is list:
        return len(value) == len(made) and all(map(same, value, made))
    return type(value) is type(made) and value == made


@task
def make(maker):
    return maker()


@task
def is_same(value, maker):
    return same(value, maker())


@workflow
def main(given: list):
    made = [make.bind(maker) for maker in MAKE.values()]
    there = [is_same.bind(each, maker) for each, maker in zip(made, MAKE.values())]
    sent = [is_same.bind(given[at], maker) for at, maker in enumerate(MAKE.values())]
    return made, there, sent


if __name__ == "__main__":
    with perdure.open("store", executor=sys.argv[1]):
        made, there, sent = main.run([maker() for maker in MAKE.values()], run_id="one")
    home = list(map(same, made, [maker() for maker in MAKE.values()]))
    print({
        name: [home[at], there[at], sent[at]]
        for at, name in enumerate(MAKE)
        if not home[at] or not there[at] or not sent[at]
    })
"""


def printed(folder: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


@pytest.mark.parametrize("executor", ["processes", "inline"])
def test_values_of_a_script_s_classes_are_what_they_were_here_there_and_after_a_restart(
    tmp_path: Path, executor: str
) -> None:
    (tmp_path / "app.py").write_text(CLASSES)

    assert printed(tmp_path, "app.py", executor) == {}
    assert printed(tmp_path, "app.py", executor) == {}


FUNCTIONS = """
import collections
import functools
import typing

import perdure
from perdure import task, workflow

UserId = typing.NewType("UserId", int)
P = typing.ParamSpec("P")
Ts = typing.TypeVarTuple("Ts")
R = typing.TypeVar("R")


@functools.lru_cache(maxsize=32)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@functools.cache
def square(n):
    return n * n


@functools.singledispatch
def kind(value):
    return "any"


@kind.register
def _(value: int):
    return "int"


@kind.register
def _(value: list):
    return [kind(each) for each in value]


def decorate(function: typing.Callable[P, R]) -> typing.Callable[P, R]:
    @functools.wraps(function)
    def around(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return around


@decorate
def one_more(n: int, *rest: typing.Unpack[Ts]) -> UserId:
    return UserId(n + 1)


class Methods:
    @functools.lru_cache
    def cached(self):
        return 5

    @functools.singledispatchmethod
    def kind(self, value):
        return "any"

    @kind.register
    def _(self, value: int):
        return "int"


class Typed(typing.TypedDict, total=False):
    a: int


@task
def step(given: UserId = UserId(1), typed: Typed = Typed(a=1)):
    methods = Methods()
    cached = [fibonacci(10), square(3), methods.cached(), fibonacci.cache_info().maxsize]
    kinds = [kind("s"), kind([1, None]), methods.kind(1), methods.kind("")]
    return cached, kinds, one_more(given), typed["a"], sorted(Typed.__annotations__)


@workflow
def main():
    return step.bind()


if __name__ == "__main__":
    with perdure.open("store"):
        print(main.run())
"""

DONE = ([55, 9, 5, 32], ["any", ["int", "any"], "int", "any"], 2, 1, ["a"])


@pytest.mark.parametrize("words", [("app.py",), ("-m", "perdure", "run", "app.py")])
def test_steps_use_what_only_has_a_name_in_their_script(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "app.py").write_text(FUNCTIONS)

    assert printed(tmp_path, *words) == DONE


ODD = """
import threading

from perdure import task, workflow


class OddStr(Exception):
    def __str__(self):
        raise ValueError


class Thing:
    def __init__(self):
        self.lock = threading.Lock()


class Kept:
    pass


def is_worth_it(error):
    raise OddStr


@task(catch=True)
def caught():
    raise OddStr


@task(catch=True)
def said():
    raise ValueError(Kept())


@task(catch=True)
def locked():
    return Thing()


@task(catch=True, retries=1, retry_on=is_worth_it)
def judged():
    raise ValueError


@task
def kept():
    return [Kept()], Kept, {"a": Kept()}


@task
def fails(given):
    raise OddStr


@workflow
def main():
    many = caught.bind(), said.bind(), locked.bind(), judged.bind(), kept.bind()
    return fails.bind(many)


@workflow
def fine():
    return caught.bind(), said.bind(), locked.bind(), kept.bind()
"""


@pytest.mark.parametrize("name", ["main", "fine"])
def test_what_is_said_of_a_script_s_classes_names_the_script_as_its_user_does(
    perdure: CommandLine, name: str
) -> None:
    perdure.write("odd-one.py", ODD)

    said = [perdure("run", "--id", "one", f"odd-one.py:{name}")]
    said += [perdure("show", "one", "--json"), perdure("why", "one", "caught")]
    said += [
        perdure("show", "one", step, "--json") for step in ("caught", "said", "judged", "kept")
    ]

    for each in said:
        assert "__perdure_script" not in each.out + each.err
    assert "odd_one.OddStr" in said[2].out
