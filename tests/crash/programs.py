"""Programs by chance: trees that run as real tasks, and say beforehand what is to come of it.

A program is data. ``bind`` makes it a graph, which may go on to grow while it runs; ``expect``
computes in plain Python, without perdure, its value and what each of its steps is to note in the
ledger. A note has what a step was given, so one that saw half of a fan-out notes what
nobody expects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from tests.crash import program_steps as steps
from tests.crash.program_steps import BY_KIND, FAILED, KINDS, MAPPED, bind_step, fold, note
from tests.crash.steps import bytes_of

import perdure
from perdure import workflow

SIGNAL = "go"
SENT, LATE = 7, 11

Env = Mapping[str, Any]
"""What names stand for: nodes or values; in ``expect`` functions of the world."""


# --- what is expected ---------------------------------------------------------------------------
@dataclass
class World:
    """What the steps of a run are to note: for certain, or perhaps if a race goes that way.

    Attributes:
        signal: what waits for the signal are given.
        signals: how many of each are waited for, at most.
        kinds: what is in it that some tests have to know.
        is_sure: whether what is called begins in any case.
    """

    signal: int
    certain: Counter[str] = field(default_factory=Counter)
    possible: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    kinds: set[str] = field(default_factory=set)
    is_sure: bool = True

    def call(self, name: str, given: Any) -> Any:
        """Expect a step to begin with what it is given; return that."""
        (self.certain if self.is_sure else self.possible)[note(name, given)] += 1
        return given

    def perhaps(self) -> World:
        """Return the world of steps that may begin or not."""
        self.kinds.add("race")
        return replace(self, is_sure=False)


@dataclass
class Lazy:
    """The expected value of a node: its steps are expected once, if anybody needs them."""

    program: Program
    env: Env
    known: dict[bool, Any] = field(default_factory=dict)

    def __call__(self, world: World) -> Any:
        for sure in (True, world.is_sure):
            if sure in self.known:
                return self.known[sure]
        self.known[world.is_sure] = value = self.program.expect(self.env, world)
        return value


# --- programs -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Program:
    """One construct, over the programs that are its parts.

    Attributes:
        parts: what it is made of.
        number: a value, a depth, or which of its variants it is.
    """

    parts: tuple[Program, ...] = ()
    number: int = 0

    def bind(self, env: Env) -> Any:
        """Return a node, a value, or a list of these."""
        raise NotImplementedError

    def expect(self, env: Env, world: World) -> Any:
        """Return the value, and tell the world what is noted on the way."""
        raise NotImplementedError

    @property
    def is_step(self) -> bool:
        """Say whether ``bind`` gives a node in any environment."""
        return True

    @property
    def is_map(self) -> bool:
        """Say whether that node is one whose value is a list."""
        return False

    def names(self) -> frozenset[str]:
        """Return the names that it uses and does not bind."""
        return frozenset[str]().union(*(part.names() for part in self.parts))

    def bound(self, env: Env) -> list[Any]:
        return [part.bind(env) for part in self.parts]

    def expected(self, env: Env, world: World) -> list[Any]:
        return [part.expect(env, world) for part in self.parts]

    def given(self, env: Env) -> dict[str, Any]:
        """Return what a step needs that is to bind the parts while it runs."""
        return {name: env[name] for name in sorted(self.names())}

    def taken(self, env: Env, world: World) -> tuple[Env, dict[str, Any]]:
        """Return the environment in such a step, and what it was given."""
        values = {name: env[name](world) for name in sorted(self.names())}
        return {name: _constantly(value) for name, value in values.items()}, values


def _constantly(value: Any) -> Callable[[World], Any]:
    return lambda world: value


def expect_step(program: Program, env: Env, world: World) -> Any:
    """Return the value of such a node."""
    value = program.expect(env, world)
    return value if program.is_step else world.call("several", [value])


# --- leaves -------------------------------------------------------------------------------------
class Constant(Program):
    """A value that no step computes."""

    is_step = False

    def bind(self, env: Env) -> Any:
        return self.number

    def expect(self, env: Env, world: World) -> Any:
        return self.number


class Number(Program):
    """A step."""

    def bind(self, env: Env) -> Any:
        return steps.take.bind(self.number)

    def expect(self, env: Env, world: World) -> Any:
        return world.call("take", self.number)


class Ref(Program):
    """What a name stands for, a step that others need too."""

    is_step = False

    def bind(self, env: Env) -> Any:
        return env[str(self.number)]

    def expect(self, env: Env, world: World) -> Any:
        return env[str(self.number)](world)

    def names(self) -> frozenset[str]:
        return frozenset([str(self.number)])


class Sleep(Program):
    """A time, which is over at once or soon."""

    def bind(self, env: Env) -> Any:
        return perdure.sleep(self.number % 2 * 0.002)

    def expect(self, env: Env, world: World) -> Any:
        return None


class Signal(Program):
    """A signal that was sent before anybody waited."""

    def bind(self, env: Env) -> Any:
        return perdure.wait_signal(SIGNAL, int, timeout=100.0, default=LATE)

    def expect(self, env: Env, world: World) -> Any:
        world.signals[SIGNAL] += 1
        return world.signal


class Late(Program):
    """A signal that nobody sends in time."""

    def bind(self, env: Env) -> Any:
        return perdure.wait_signal("never", timeout=0.0, default=self.number)

    def expect(self, env: Env, world: World) -> Any:
        return self.number


# --- one step after another ---------------------------------------------------------------------
class Add(Program):
    """A fan-in of several programs."""

    def bind(self, env: Env) -> Any:
        return steps.add.bind(self.bound(env))

    def expect(self, env: Env, world: World) -> Any:
        return fold(world.call("add", self.expected(env, world)))


class Several(Program):
    """A list of programs, as users write it."""

    is_step = False

    def bind(self, env: Env) -> Any:
        return self.bound(env)

    def expect(self, env: Env, world: World) -> Any:
        return self.expected(env, world)


class Through(Program):
    """One program, through a step of some kind: the value is a number of what it was given."""

    @property
    def kind(self) -> str:
        return KINDS[self.number % len(KINDS)]

    def bind(self, env: Env) -> Any:
        return BY_KIND[self.kind].bind(self.parts[0].bind(env))

    def expect(self, env: Env, world: World) -> Any:
        given = world.call(self.kind, self.parts[0].expect(env, world))
        if self.kind == "flaky":  # the first attempt raises, if it is not lost before
            world.possible[note("flaky", given)] += 1
        if self.kind in ("volatile", "hopeless", "unkept", "gated"):
            world.kinds.add(self.kind)
        match self.kind:
            case "hopeless":
                return FAILED
            case "large":
                return bytes_of(str(fold(given)))
        return fold(given) + 1


class Part(Program):
    """One of several outputs of a step, or an item within its value."""

    def bind(self, env: Env) -> Any:
        value = self.parts[0].bind(env)
        if self.number % 2:
            return steps.box.bind(value)["inside"][1]
        return steps.pair.bind(value)[self.number // 2 % 2]

    def expect(self, env: Env, world: World) -> Any:
        value = self.parts[0].expect(env, world)
        world.call("box" if self.number % 2 else "pair", value)
        return fold(value) + (1 if self.number % 2 else self.number // 2 % 2)


class After(Program):
    """One program's step after another, of which it takes nothing; and both."""

    is_step = False

    def bind(self, env: Env) -> Any:
        first = bind_step(self.parts[0], env)
        second = self.parts[1].bind(env)
        if self.number % 2:
            return [first, second, perdure.sleep(0.0, after=first)]
        return [first, steps.take.options(after=[first]).bind(second)]

    def expect(self, env: Env, world: World) -> Any:
        first = expect_step(self.parts[0], env, world)
        second = self.parts[1].expect(env, world)
        return [first, second, None] if self.number % 2 else [first, world.call("take", second)]


class Let(Program):
    """A program by a name, of which others may make use, or nobody."""

    @property
    def is_step(self) -> bool:
        return self.parts[1].is_step

    @property
    def is_map(self) -> bool:
        return self.parts[1].is_map

    def _within(self, env: Env, value: Callable[[], Any]) -> Env:
        is_used = str(self.number) in self.parts[1].names()
        return {**env, str(self.number): value()} if is_used else env

    def bind(self, env: Env) -> Any:
        return self.parts[1].bind(self._within(env, lambda: self.parts[0].bind(env)))

    def expect(self, env: Env, world: World) -> Any:
        inner = self._within(env, lambda: Lazy(self.parts[0], env))
        return self.parts[1].expect(inner, world)

    def names(self) -> frozenset[str]:
        inner = self.parts[1].names()
        outer = self.parts[0].names() if str(self.number) in inner else frozenset[str]()
        return outer | inner - {str(self.number)}


# --- graphs that grow ---------------------------------------------------------------------------
class Returned(Program):
    """A step that returns the program: a call in its place."""

    @property
    def is_map(self) -> bool:
        return self.parts[0].is_map

    def bind(self, env: Env) -> Any:
        return steps.give.bind(self.parts[0], self.given(env))

    def expect(self, env: Env, world: World) -> Any:
        inner, given = self.taken(env, world)
        world.call("give", given)
        return expect_step(self.parts[0], inner, world)


class Descent(Program):
    """A chain of tail calls, with a step beside each, and a program at its end."""

    def bind(self, env: Env) -> Any:
        return steps.descend.bind(self.number % 4, self.parts[0], self.given(env), 0)

    def expect(self, env: Env, world: World) -> Any:
        inner, given = self.taken(env, world)
        beside = 0
        for depth in range(self.number % 4, 0, -1):
            world.call("descend", [depth, given, beside])
            beside = world.call("take", depth)
        world.call("descend", [0, given, beside])
        return expect_step(self.parts[0], inner, world)


class Halves(Program):
    """Recursion that is no tail call: the program at each leaf of a tree."""

    def bind(self, env: Env) -> Any:
        return steps.halve.bind(self.number % 3, self.parts[0], self.given(env))

    def expect(self, env: Env, world: World) -> Any:
        inner, given = self.taken(env, world)

        def half(depth: int) -> Any:
            world.call("halve", [depth, given])
            if depth == 0:
                return expect_step(self.parts[0], inner, world)
            return fold(world.call("add", [half(depth - 1), half(depth - 1)]))

        return half(self.number % 3)


class Within(Program):
    """A workflow that is bound within a workflow."""

    def bind(self, env: Env) -> Any:
        return steps.within.bind(self.parts[0], self.given(env))

    def expect(self, env: Env, world: World) -> Any:
        return fold(world.call("add", [self.parts[0].expect(env, world)]))


class Guard(Program):
    """A step whose graph fails, which is its value."""

    def bind(self, env: Env) -> Any:
        return steps.guard.bind(self.parts[0], self.given(env))

    def expect(self, env: Env, world: World) -> Any:
        inner, given = self.taken(env, world)
        world.call("guard", given)
        perhaps = world.perhaps()
        perhaps.call("fail", [self.parts[0].expect(inner, perhaps)])
        return FAILED


# --- maps ---------------------------------------------------------------------------------------
class Map(Program):
    """A map over programs, which are its items; each child is a graph that grows."""

    is_map = True

    def bind(self, env: Env) -> Any:
        options = {"key": steps.label} if self.number % 2 else {}
        items: Any = list(self.parts)
        if self.number // 2 % 2:
            items = steps.listed.bind(items)
        return steps.item.options(**options).map(items, env=self.given(env))

    def expect(self, env: Env, world: World) -> Any:
        if self.number // 2 % 2:
            world.call("listed", len(self.parts))
        inner, given = self.taken(env, world)
        values = []
        for part in self.parts:
            world.call("item", [part.number, given])
            values.append(expect_step(part, inner, world))
        return values


class Onward(Program):
    """A map over a map, item by item, or over a list with nodes inside; in chunks, or with keys."""

    is_map = True

    @property
    def options(self) -> dict[str, Any]:
        return ({}, {"chunk": 2}, {"key": steps.label}, {"chunk": 1})[self.number % 4]

    @property
    def kind(self) -> str:
        return MAPPED[self.number // 4 % len(MAPPED)]

    def bind(self, env: Env) -> Any:
        source = self.parts[0].bind(env)
        items = source if self.parts[0].is_map else [source, self.number]
        return BY_KIND[self.kind].options(**self.options).map(items)

    def expect(self, env: Env, world: World) -> Any:
        if self.kind in ("flaky", "gated") and "chunk" in self.options:
            world.kinds.add("taken apart")
        source = self.parts[0].expect(env, world)
        items = source if self.parts[0].is_map else [source, self.number]
        through = [Through((Known(each),), KINDS.index(self.kind)) for each in items]
        return [each.expect(env, world) for each in through]


class Known(Program):
    """A value that is known, in expectations only."""

    def expect(self, env: Env, world: World) -> Any:
        return self.parts


class Enough(Program):
    """A map that stops at a value that is good enough."""

    def bind(self, env: Env) -> Any:
        mapped = steps.item.options(stop_when=steps.is_even).map(
            list(self.parts), env=self.given(env)
        )
        return steps.enough.bind(mapped, len(self.parts))

    def expect(self, env: Env, world: World) -> Any:
        inner, given = self.taken(env, world)
        perhaps = world.perhaps()
        for part in self.parts:
            perhaps.call("item", [part.number, given])
            expect_step(part, inner, perhaps)
        return world.call("enough", len(self.parts))


# --- decisions ----------------------------------------------------------------------------------
class When(Program):
    """One of two branches."""

    @property
    def is_map(self) -> bool:
        return all(part.is_map for part in self.parts[1:])

    def bind(self, env: Env) -> Any:
        cond, then, otherwise = self.bound(env)
        return perdure.when(steps.modulo.bind(cond, 2), then, otherwise)

    def expect(self, env: Env, world: World) -> Any:
        cond = world.call("modulo", self.parts[0].expect(env, world))
        return self.parts[1 if fold(cond) % 2 else 2].expect(env, world)


class Switch(Program):
    """One of several branches, the last one for any other key."""

    def bind(self, env: Env) -> Any:
        key, *cases, default = self.bound(env)
        chosen = steps.modulo.bind(key, len(cases) + 1)
        return perdure.switch(chosen, dict(enumerate(cases)), default=default)

    def expect(self, env: Env, world: World) -> Any:
        key = fold(world.call("modulo", self.parts[0].expect(env, world)))
        return self.parts[1 + key % (len(self.parts) - 1)].expect(env, world)


class Loop(Program):
    """Rounds of a task, of one that returns a call, or of a workflow, until there are enough."""

    def bind(self, env: Env) -> Any:
        start = steps.modulo.bind(self.parts[0].bind(env), 5)
        body = (steps.through, steps.given_back, steps.rounds)[self.number % 3]
        return perdure.loop(body, start, until=steps.is_four, max_iterations=9)

    def expect(self, env: Env, world: World) -> Any:
        state = fold(world.call("modulo", self.parts[0].expect(env, world))) % 5
        while True:
            if self.number % 3 == 1:
                world.call("given_back", state)
            state = fold(world.call("through", state)) + 1
            if steps.is_four(state):
                return state


class Race(Program):
    """A wait for some of several, the others ended or not, or until a time is over."""

    @property
    def wanted(self) -> int:
        return self.number % len(self.parts) + 1

    @property
    def is_timed(self) -> bool:
        return self.number // 3 % 4 == 3

    def bind(self, env: Env) -> Any:
        nodes = [bind_step(part, env) for part in self.parts]
        done, pending = perdure.wait(
            nodes,
            num_returns=self.wanted,
            timeout=0.0 if self.is_timed else None,
            cancel_rest=bool(self.number // 3 % 2),
        )
        least = 0 if self.is_timed else self.wanted
        return steps.raced.bind(done, pending, perdure.get(done), least, len(nodes))

    def expect(self, env: Env, world: World) -> Any:
        is_sure = self.wanted == len(self.parts) and not self.is_timed
        racing = world if is_sure else world.perhaps()
        for part in self.parts:
            expect_step(part, env, racing)
        world.kinds.add("wait")
        return world.call("raced", len(self.parts))


class Sprint(Program):
    """A wait for some children of a map."""

    def bind(self, env: Env) -> Any:
        mapped = Map(self.parts, self.number // 6).bind(env)
        wanted = self.number % len(self.parts) + 1
        done, pending = perdure.wait(
            mapped, num_returns=wanted, cancel_rest=bool(self.number // 3 % 2)
        )
        return steps.raced.bind(done, pending, perdure.get(done), wanted, len(self.parts))

    def expect(self, env: Env, world: World) -> Any:
        perhaps = world.perhaps()
        Map(self.parts, self.number // 6).expect(env, perhaps)
        world.kinds.add("wait")
        return world.call("raced", len(self.parts))


def workflow_of(program: Program) -> Any:
    """Return the workflow that runs it."""

    @workflow
    def by_chance() -> int:
        return steps.add.bind([program.bind({})])

    return by_chance


def expectation(program: Program, signal: int = SENT) -> tuple[int, World]:
    """Return the value of that workflow, and what its steps are to note."""
    world = World(signal)
    return fold(world.call("add", [program.expect({}, world)])), world


# --- by chance ----------------------------------------------------------------------------------
LEAVES: tuple[type[Program], ...] = (Constant, Number, Number, Sleep, Signal, Late)
PARTS: dict[type[Program], tuple[int, int]] = {
    Add: (2, 3), Several: (0, 2), Through: (1, 1), Part: (1, 1), After: (2, 2), Let: (2, 2),
    Returned: (1, 1), Descent: (1, 1), Halves: (1, 1), Within: (1, 1), Guard: (1, 1),
    Map: (0, 3), Onward: (1, 1), Enough: (1, 3), When: (3, 3), Switch: (3, 4), Loop: (1, 1),
    Race: (2, 3), Sprint: (1, 3),
}  # fmt: skip
"""How many parts each construct has, least and most."""


@st.composite
def programs(draw: st.DrawFn, depth: int = 4, names: tuple[int, ...] = ()) -> Program:
    """Draw a program of at most that depth, which may use these names."""
    number = st.integers(0, 60)
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        if names and draw(st.integers(0, 3)):
            return Ref(number=draw(st.sampled_from(names)))
        return draw(st.sampled_from(LEAVES))(number=draw(number))
    kind = draw(st.sampled_from((*PARTS, Through, Through, Let, Let)))
    if kind is Let:
        name = len(names)
        value = draw(programs(depth - 1, names))
        return Let((value, draw(programs(depth - 1, (*names, name)))), name)
    least, most = PARTS[kind]
    count = draw(st.integers(least, most))
    parts = tuple(draw(programs(depth - 1, names)) for _ in range(count))
    return kind(parts, draw(number))


def with_gates(program: Program) -> Program:
    """Return the program with a step after each simple one that fails until it is mended."""
    return _with("gated", program)


def with_blobs(program: Program) -> Program:
    """Return the program with a step after each simple one whose value is a blob."""
    return _with("large", program)


def _with(kind: str, program: Program) -> Program:
    if isinstance(program, Number):
        return Through((program,), KINDS.index(kind))
    return replace(program, parts=tuple(_with(kind, part) for part in program.parts))


@st.composite
def edits(draw: st.DrawFn, program: Program, names: tuple[int, ...] = ()) -> Program:
    """Draw the program with one place of it changed."""
    if not program.parts or draw(st.integers(0, 3)) == 0:
        return draw(programs(depth=2, names=names))
    at = draw(st.integers(0, len(program.parts) - 1))
    inner = (*names, program.number) if isinstance(program, Let) and at == 1 else names
    parts = list(program.parts)
    parts[at] = draw(edits(parts[at], inner))
    return replace(program, parts=tuple(parts))


@st.composite
def edited(draw: st.DrawFn) -> tuple[Program, Program]:
    """Draw a program, and the same after an edit."""
    program = draw(programs())
    return program, draw(edits(program))
