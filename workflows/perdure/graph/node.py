"""Nodes: calls not yet made, as frozen values. No call happens here, and no I/O.

A ``Node`` is what users hold: a source and a path into its value. There are three sources so far:
a ``Call``, the ``Inputs`` of a graph, and an ``Alias``, which names something already known while
a sub-workflow is inlined. Further kinds (waits, actor calls) are further sources.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NoReturn, Protocol

import msgspec

from perdure.errors import NodeUse
from perdure.plan import Attr, Item, Path, StepOptions, path_text
from perdure.reference import StepRef
from perdure.retry import RetryOn
from perdure.showing import Bundle, bundle_of

_order = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorUse:
    """What a step is to an actor.

    Attributes:
        cls: the actor's class.
        method: the method that is called; "" for the constructor.
        role: ``"new"``, ``"write"`` or ``"read"``.
        state: ``"durable"`` or ``"rebuild"``.
        snapshot: after how many mutating calls the state is kept; 0: after the last one.
        nondeterminism: ``"fail"`` or ``"warn"``, where a replayed call gives another value.
        pool: how many instances there are at most.
    """

    cls: type
    method: str = ""
    role: str = "new"
    state: str = "durable"
    snapshot: int = 1
    nondeterminism: str = "fail"
    pool: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskSpec:
    """A task as data: the function and how it is to be run.

    Attributes:
        function: the user's function, undecorated.
        name: the step's name: given, or the function's qualified name without ``<locals>``.
        version: declared code version, replaces the code digest.
        options: what the plan says about it; ``retry_on`` is filled when constants are encoded.
        retry_on: exception classes or a predicate; None: any ``Exception``.
        stop_when: of a task that is mapped, after which value of a child the others are not needed.
        key: of a task that is mapped, what a child is called, of its item.
        chunk: of a task that is mapped, how many items one step takes.
        is_async: an ``async def``.
        branches: of a step that has the value of one of its branches, what they are called; its
            first argument says which, the others are the branches.
        maps: its step calls a task for each item; arguments: the task, what of it is code, the
            iterables, the keyword arguments.
        actor: of a call of an actor, which.
    """

    function: Callable[..., Any]
    name: str
    version: str | None = None
    options: StepOptions = field(default_factory=StepOptions)
    retry_on: RetryOn | None = None
    stop_when: Callable[[Any], object] | None = None
    key: Callable[..., object] | None = None
    chunk: int | None = None
    is_async: bool = False
    branches: tuple[str, ...] = ()
    maps: bool = False
    actor: ActorUse | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One use of a sub-workflow; its steps are called ``name/step``."""

    name: str
    parent: Scope | None = None
    order: int = field(default_factory=lambda: next(_order))


class Source(Protocol):
    """Where a node's value comes from."""

    @property
    def label(self) -> str:
        """Return how messages call it."""
        ...

    @property
    def remedy(self) -> str:
        """Return what to write where a node was used as a value."""
        ...

    @property
    def outputs(self) -> int | None:
        """Return how many values it unpacks into, or None if that is not known yet."""
        ...


class Call(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One call of a task.

    Attributes:
        args, kwargs: templates, see ``graph.arguments``.
        uses: the nodes inside ``args`` and ``kwargs``, in that order.
        after: nodes that must end before it.
        token: the trace in which it was bound; None outside of workflows.
        scope: the use of a sub-workflow in which it was bound.
        order: place among all binds of this process; only comparisons mean anything.
    """

    spec: TaskSpec
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    uses: tuple[Node, ...] = ()
    after: tuple[Node, ...] = ()
    token: object | None = None
    scope: Scope | None = None
    order: int = msgspec.field(default_factory=_order.__next__)

    @property
    def label(self) -> str:
        return f"the result of {self.spec.name!r}"

    @property
    def remedy(self) -> str:
        return "do it inside a task that takes this node as an argument"

    @property
    def outputs(self) -> int | None:
        return self.spec.options.outputs if self.spec.options.outputs > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """All inputs of one graph; the first part of a node's path says which one is meant.

    Attributes:
        token: the trace that it belongs to; None for a free ``Input()``.
        workflow: the workflow's name, "" for a free ``Input()``.
    """

    token: object | None = None
    workflow: str = ""

    @property
    def label(self) -> str:
        return f"an input of {self.workflow!r}" if self.workflow else "an input"

    @property
    def remedy(self) -> str:
        known = "annotate the parameter `perdure.Static[...]`, so that it is a real value here"
        return f"{known}, or do it inside a task" if self.workflow else "do it inside a task"

    @property
    def outputs(self) -> int | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Alias:
    """A parameter or the result of an inlined sub-workflow: another name for a template.

    Attributes:
        value: the template that it stands for.
        label: how messages call it.
        members: every call bound in the sub-workflow, if this is its result.
        unpacks: whether a tuple or list behind it may be unpacked.
    """

    value: Any
    label: str
    members: tuple[Call, ...] = ()
    unpacks: int | None = None

    @property
    def remedy(self) -> str:
        return "do it inside a task, or annotate the parameter `perdure.Static[...]`"

    @property
    def outputs(self) -> int | None:
        return self.unpacks


@dataclass(frozen=True, slots=True, eq=False)
class Mention:
    """A node among arguments of which not the value is wanted: the step itself, or its items.

    Attributes:
        node: the node that is meant, or a reference to a step of the run.
        items: of a map, what it gives item by item; else a reference to the step.
    """

    node: Node | StepRef
    items: bool = False


class Handle:
    """An actor among arguments: the step of its constructor, as a node or, in a run, by its id.

    What users hold is a subclass with the actor's methods.
    """

    __slots__ = ("_at", "_use")
    _at: Node | StepRef
    _use: ActorUse


def use_of_actor(handle: Handle) -> ActorUse:
    """Return how the actor is kept."""
    use: ActorUse = object.__getattribute__(handle, "_use")
    return use


def place_of_actor(handle: Handle) -> Node | StepRef:
    """Return the step of the actor's constructor."""
    at: Node | StepRef = object.__getattribute__(handle, "_at")
    return at


def _refusal(doing: str) -> Callable[..., NoReturn]:
    def refuse(self: Node, *_: object, **__: object) -> NoReturn:
        raise _misuse(self, doing)

    return refuse


class Node:
    """A value that does not exist yet: a call not yet made, or a projection of one.

    ``node[i]``, ``node["k"]`` and ``node.attr`` project the value. Everything that would need the
    value now is refused with a ``NodeUse`` error that says what to write instead. Nodes are equal
    only to themselves.
    """

    __slots__ = ("_path", "_source")
    _source: Source
    _path: Path

    def __init__(self, source: Source, path: Path = ()) -> None:
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_path", path)

    def __getattr__(self, name: str) -> Node:
        if name.startswith("_"):
            raise _misuse(self, f"its attribute {name!r}, which begins with an underscore,")
        return Node(self._source, (*self._path, Attr(name)))

    def __getitem__(self, key: object) -> Node:
        if isinstance(key, bool) or not isinstance(key, int | str):
            kind = "a slice" if isinstance(key, slice) else f"an index of type {type(key).__name__}"
            raise _misuse(self, f"{kind} (only an int or a str)")
        count = None if self._path else self._source.outputs
        if count is not None and isinstance(key, int) and not -count <= key < count:
            raise _misuse(self, f"[{key}] (it has {count} outputs)")
        return Node(self._source, (*self._path, Item(key)))

    def __iter__(self) -> Iterator[Node]:
        count = None if self._path else self._source.outputs
        if count is None:
            raise _misuse(self, "iteration or unpacking (a task unpacks with `outputs=n`)")
        return iter([Node(self._source, (Item(index),)) for index in range(count)])

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        raise _misuse(self, "a comparison")

    def __ne__(self, other: object) -> bool:
        if other is self:
            return False
        raise _misuse(self, "a comparison")

    def __hash__(self) -> int:
        return id(self) >> 4

    def __repr__(self) -> str:
        return f"<Node {describe(self)}>"

    def _repr_mimebundle_(self, **kinds: Any) -> Bundle:
        return bundle_of(self)

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: object) -> Node:
        return self  # a copy would be a second call

    __bool__ = _refusal("a truth value (`if`, `and`, `not`, `while`)")
    __len__ = _refusal("`len()`")
    __contains__ = _refusal("`in`")
    __reversed__ = _refusal("`reversed()`")
    __lt__ = __le__ = __gt__ = __ge__ = _refusal("a comparison")
    __int__ = __float__ = __complex__ = __index__ = _refusal("a number")
    __round__ = __abs__ = __neg__ = __pos__ = __invert__ = _refusal("arithmetic")
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refusal("arithmetic")
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _refusal("arithmetic")
    __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _refusal("arithmetic")
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _refusal("arithmetic")
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _refusal("arithmetic")
    __format__ = _refusal("formatting (an f-string)")
    __str__ = _refusal("text (`str()`, `print()`, `%s`; its `repr()` shows the node itself)")
    __bytes__ = __fspath__ = _refusal("text or a path")
    __call__ = _refusal("a call")
    __await__ = _refusal("`await`")
    __enter__ = __aenter__ = _refusal("`with`")
    __exit__ = __aexit__ = _refusal("`with`")
    __setattr__ = __delattr__ = _refusal("an assignment to its attributes")
    __setitem__ = __delitem__ = _refusal("an assignment to its items")
    __reduce_ex__ = _refusal("pickling: a node is inside an object that only travels whole, as")


def _misuse(node: Node, doing: str) -> NodeUse:
    source = source_of(node)
    return NodeUse(
        f"{describe(node)} does not exist yet: {doing} is not possible while the graph is being "
        f"made; {source.remedy}"
    )


source_of: Callable[[Node], Source] = attrgetter("_source")
"""Return where the node's value comes from."""

path_of: Callable[[Node], Path] = attrgetter("_path")
"""Return the node's path into the value of its source."""


def describe(node: Node) -> str:
    """Return how messages call the node: ``parameter 'k'``, ``the result of 'load'[0]``."""
    source, path = source_of(node), path_of(node)
    if isinstance(source, Inputs) and path:
        owner = f" of {source.workflow!r}" if source.workflow else ""
        return f"parameter {input_name(path)!r}{path_text(path[1:])}{owner}"
    return source.label + path_text(path)


def input_name(path: Path) -> str:
    """Return the name of the input that a path from ``Inputs`` begins with."""
    first = path[0]
    return first.name if isinstance(first, Attr) else str(first.key)


def input_placeholder() -> Any:
    """Return a placeholder for the inputs of a graph without a workflow.

    ``inp.path``, ``inp["path"]`` and ``inp[0]`` are arguments of ``bind``; their values are given
    to ``run(node, inputs={"path": ...})``, positions as ``"0"`` or ``0``.
    """
    return Node(Inputs())
