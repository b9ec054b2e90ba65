"""A DAG as data: what is stored with a run, read by the engine, and sent to workers in parts.

No Python objects of the user's are in here, only JSON, digests and encoded constants. The same
definition gives the same plan in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

from perdure.errors import DefinitionError
from perdure.interactive import is_notebooks
from perdure_storage.records import RunRecord, StoredValue

if TYPE_CHECKING:
    from perdure_storage.protocols import RunStore


class Item(msgspec.Struct, frozen=True, gc=False, tag="item", tag_field="t"):
    """``value[key]``; ``key`` is a str or an int."""

    key: str | int


class Attr(msgspec.Struct, frozen=True, gc=False, tag="attr", tag_field="t"):
    """``value.name``."""

    name: str


Path = tuple[Item | Attr, ...]


class Const(msgspec.Struct, frozen=True, gc=False, tag="const", tag_field="t", omit_defaults=True):
    """A constant: an index into ``Plan.constants``.

    Attributes:
        is_code: it is a function, a class or a task: what it does counts as code of the step.
    """

    index: int
    is_code: bool = False


class FromStep(msgspec.Struct, frozen=True, gc=False, tag="step", tag_field="t"):
    """The value of a step, or a projection of it."""

    step: str
    path: Path = ()


class FromInput(msgspec.Struct, frozen=True, gc=False, tag="input", tag_field="t"):
    """A parameter of the workflow, or a projection of it."""

    name: str
    path: Path = ()


class RefTo(msgspec.Struct, frozen=True, gc=False, tag="ref", tag_field="t"):
    """A step itself, as a ``StepRef``: passes no value and waits for none."""

    step: str
    path: tuple[Item, ...] = ()


class ItemsOf(msgspec.Struct, frozen=True, gc=False, tag="items", tag_field="t"):
    """What a map gives, item by item: references to its children, as soon as it has expanded.

    Where it has no children in this run, as when it was taken over whole, its value.
    """

    step: str

    @property
    def path(self) -> Path:
        """Return the path into the value: none, as it is there for all references."""
        return ()


class StateOf(msgspec.Struct, frozen=True, gc=False, tag="state", tag_field="t"):
    """The state of an actor after a step: after what the last call before it left.

    Attributes:
        actor: the step of its constructor.
        step: what has its place before in the actor's order, and may change the state.
    """

    actor: str
    step: str

    @property
    def path(self) -> Path:
        """Return the path into the state: none, as it is there for all references."""
        return ()


class FromSecret(msgspec.Struct, frozen=True, gc=False, tag="secret", tag_field="t"):
    """A secret, resolved in the worker when the step starts; only its name is stored."""

    name: str


class ListArg(msgspec.Struct, frozen=True, gc=False, tag="list", tag_field="t"):
    """A list, tuple, set or frozenset in which there is a node."""

    items: tuple[Arg, ...]
    kind: str = "list"  # list | tuple | set | frozenset


class DictArg(msgspec.Struct, frozen=True, gc=False, tag="dict", tag_field="t"):
    """A dict in which a value is or holds a node; keys are constants."""

    keys: tuple[Const, ...]
    values: tuple[Arg, ...]


class ObjectArg(msgspec.Struct, frozen=True, gc=False, tag="object", tag_field="t"):
    """A dataclass or named tuple with nodes in its fields; ``cls`` is a constant: the class."""

    cls: Const
    fields: dict[str, Arg]


Arg = Const | FromStep | FromInput | RefTo | ItemsOf | FromSecret | ListArg | DictArg | ObjectArg
Reference = FromStep | FromInput | RefTo | ItemsOf | StateOf
"""What a step takes from elsewhere in its run."""


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A user function as it travels.

    Attributes:
        id: name within the plan; equal ids in two plans mean equal functions.
        module, qualname: where it lives; by reference it is imported from there.
        code: its code digest, which the worker checks after importing.
        counts_as: the digest by which reuse compares it: ``code``, or that of the version that
            the task declares.
        value: cloudpickle bytes for functions of ``__main__``, notebooks and lambdas;
            None means by reference.
        file, line: where the user wrote it, for messages.
        cell: the number of the cell that is, in a notebook; no part of what the function is, as
            cells have others in the next session.
        cells: the numbers of all cells that it reaches code of, by file name.
        is_async: an ``async def``.
        manifest: what the code digest covers: ``{"prep.scale (prep.py:40)": digest}``.
        not_followed: what it could not see into (opaque globals, dynamic look-ups).
        texts: of functions that travel by value what was written, for people: as ``manifest``.
    """

    id: str
    module: str
    qualname: str
    code: str
    counts_as: str
    value: StoredValue | None = None
    file: str = ""
    line: int = 0
    cell: str = ""
    cells: dict[str, str] = {}
    is_async: bool = False
    manifest: dict[str, str] = {}
    not_followed: tuple[str, ...] = ()
    texts: dict[str, str] = {}

    @property
    def where(self) -> str:
        """Return where the user wrote it: ``flow.py:9``, ``cell 7, line 2``; "" if not known."""
        if self.cell:
            return f"cell {self.cell}, line {self.line}"
        if is_notebooks(self.file):  # that name says nothing once its kernel is gone
            return f"a notebook's cell, line {self.line}"
        return f"{self.file}:{self.line}" if self.file else ""


class Backoff(msgspec.Struct, frozen=True):
    """Delays between attempts: ``first_s * factor**n``, at most ``max_s``, +- ``jitter`` share."""

    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0
    jitter: float = 0.1


class StepOptions(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What one attempt holds and how failure is met; units in the names.

    Attributes:
        retry_on: index into ``Plan.constants`` of the encoded classes or predicate; None: any
            ``Exception``.
        timeout_s: run time of one attempt.
        stop_when: of a map's children, index into ``Plan.constants`` of the predicate of a value
            after which the others are not needed.
        metadata: what its user notes about it, JSON; names that begin with ``perdure.`` are ours.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    resources: dict[str, float] = {}
    retries: int = 0
    retry_on: int | None = None
    backoff: Backoff = Backoff()
    lost_retries: int = 3
    timeout_s: float | None = None
    checkpoint: bool = True
    catch: bool = False
    outputs: int = 1
    volatile: bool = False
    stop_when: int | None = None
    allow_unenforced: bool = False
    metadata: dict[str, Any] = {}


class ActorStep(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a step is to an actor.

    Attributes:
        actor: the step of the constructor.
        cls: id of the class among ``Plan.functions``.
        method: the method that is called; "" for the constructor.
        role: ``"new"``, ``"write"`` or ``"read"``.
        state: ``"durable"`` or ``"rebuild"``.
        snapshot: after how many mutating calls the state is kept; 0: after the last one.
        is_last: no other step of its graph changes the state after it.
        nondeterminism: ``"fail"`` or ``"warn"``, where a replayed call gives another value.
        pool: how many instances there are at most.
        name: what the actor's steps are called.
    """

    actor: str
    cls: str
    method: str = ""
    role: str = "new"
    state: str = "durable"
    snapshot: int = 1
    is_last: bool = False
    nondeterminism: str = "fail"
    pool: int = 1
    name: str = ""


class StepPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One call.

    Attributes:
        id: the step id: the same in any process; unique in the plan.
        name: the step's name without a duplicate number; what plans are matched by.
        scope: path of the sub-workflow it belongs to, "" at the top.
        function: id of a ``Plan.functions`` entry.
        options: index into ``Plan.options``.
        item: of a child of a map, which item it is for, or its first one.
        width: of a child of a map that takes several items, how many.
        branches: of a step that has the value of one of its branches, by the engine's doing, what
            they are called: its first argument says which, the others are the branches.
        after: ids of steps that must end before it, without giving it data.
        given: digest over the shape of the arguments and the value digests of constants in them,
            but for those that are code.
        actor: of a call of an actor, which; its first argument is the actor's constructor.
        turns: of each actor that it calls or is given, what comes before it in the actor's order.
        passed: digest over the constants that are code; "" if there are none.
        own: digest over the code, ``given``, ``outputs`` and ``catch``; over nothing upstream.
    """

    id: str
    name: str
    function: str
    given: str
    own: str
    passed: str = ""
    scope: str = ""
    args: tuple[Arg, ...] = ()
    kwargs: dict[str, Arg] = {}
    after: tuple[str, ...] = ()
    options: int = 0
    item: int | None = None
    width: int = 0
    branches: tuple[str, ...] = ()
    actor: ActorStep | None = None
    turns: tuple[StateOf, ...] = ()


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a workflow as people see it.

    Attributes:
        static: a real value while tracing, and so part of the plan.
        value: index into ``Plan.constants`` of a static parameter's value.
    """

    name: str
    annotation: str = ""
    default: str | None = None
    static: bool = False
    value: int | None = None


MAPPED = 2
"""Of a map's step, how many arguments say what is mapped, and so are code; then come iterables."""

GIVEN = "given:"
"""Prefix of ``StepPlan.own`` where the step's value is given and its code is not run."""


class Takeover(msgspec.Struct, frozen=True, kw_only=True):
    """What a fork wants of the run that it was made from, beyond what has not changed.

    It is part of the plan, so that it is true in the transaction that makes the run.

    Attributes:
        from_step: a step that runs again together with everything downstream of it, or None.
        force: ids of steps that run again, whatever was committed; also of steps in graphs that
            steps of the other run gave.
        caught: ids of those that were asked for as failed: their errors had been caught.
        around: steps in whose graphs there are such steps, with the first of them: they give
            their graphs again, of which all that holds otherwise is taken over.
        given: steps whose value is given, as indices into ``Plan.constants``. In the plan they
            take no arguments: nothing upstream makes their value.
        keep_changed: a committed step holds under its id also where its code or constants are
            others today.
    """

    from_step: str | None = None
    force: tuple[str, ...] = ()
    caught: tuple[str, ...] = ()
    around: dict[str, str] = {}
    given: dict[str, int] = {}
    keep_changed: bool = False


class Mapped(msgspec.Struct, frozen=True):
    """What a map calls for each item.

    Attributes:
        function: id in ``Plan.functions``.
        options: index in ``Plan.options``.
    """

    function: str
    options: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A traced workflow, or the ancestors of a node.

    Attributes:
        steps: in topological order, ties in the order of binding.
        output: what ``result()`` gives, over the steps' values.
        mapped: of steps that are maps, or chunks of one, what they call for each item.
        origin: entry point that makes it again, or None.
        bundle: digest of the blob that holds the project-local sources it reached, or None.
        bundle_size: its length in bytes.
        takeover: of a fork, what it wants of the run that it was made from.
        made_with: versions of Python and of perdure, and the machine, for people.
    """

    workflow: str
    steps: tuple[StepPlan, ...]
    output: Arg
    functions: dict[str, Function] = {}
    constants: tuple[StoredValue, ...] = ()
    options: tuple[StepOptions, ...] = (StepOptions(),)
    mapped: dict[str, Mapped] = {}
    parameters: tuple[Parameter, ...] = ()
    origin: str | None = None
    bundle: str | None = None
    bundle_size: int = 0
    takeover: Takeover | None = None
    made_with: dict[str, str] = {}
    version: int = 1


def request_of(options: StepOptions) -> dict[str, float]:
    """Return what a step asks for, by name."""
    asked = {"cpus": options.cpus, "gpus": options.gpus, "memory": options.memory_bytes or 0}
    return asked | options.resources


def options_in(plan: Plan) -> list[tuple[StepPlan, StepOptions]]:
    """Return each of the options that steps of a plan have, or children of its maps, once.

    With the first step that has them, or whose children do.
    """
    first: dict[int, StepPlan] = {}
    for step in plan.steps:
        first.setdefault(step.options, step)
        if (mapped := plan.mapped.get(step.id)) is not None:
            first.setdefault(mapped.options, step)
    return [(step, plan.options[index]) for index, step in first.items()]


def needs_of(plan: Plan) -> dict[str, float]:
    """Return the same for stores to choose hosts by; empty if each host that can run any has it."""
    most = largest_request(plan)
    return {} if most.keys() <= {"cpus"} and most.get("cpus", 0.0) <= 1 else most


def largest_request(plan: Plan) -> dict[str, float]:
    """Return the most that any step of a plan asks for of each thing: who has that, fits all."""
    most: dict[str, float] = {}
    for options in plan.options:
        for name, amount in request_of(options).items():
            if amount > most.get(name, 0.0):
                most[name] = amount
    return most


def is_built_in(function: Function) -> bool:
    """Say whether a function is one of perdure's own: of a map, a wait, a choice."""
    return function.module.startswith("perdure.")


def placed(step: StepPlan, functions: Mapping[str, Function]) -> str:
    """Return how messages call a step, with its function's place: ``step fit (flow.py:9)``.

    Of a wait, a choice or another of perdure's own there is none that the user could look at.
    """
    function = functions.get(step.function)
    if function is None or not function.where or is_built_in(function):
        return f"step {step.id}"
    return f"step {step.id} ({function.where})"


def given_digest(text: list[str]) -> str:
    """Return the digest over a step's arguments: their shape and their constants."""
    # No part has a zero in it: they are digests, names of the language, and secrets' names.
    return blake3("\0".join(text).encode(errors="surrogatepass")).hexdigest(16)


def passed_with(passed: str, more: Iterable[str]) -> str:
    """Return a digest of passed code with more of it; as it is, if there is no more."""
    added = list(more)
    return blake3("\0".join([passed, *added]).encode()).hexdigest(16) if added else passed


def passed_digest(args: Iterable[Arg], digest_of: Callable[[Const], str]) -> str:
    """Return the digest over the constants in ``args`` that are code, or "" if there are none."""
    found: list[Const] = []
    _collect_code(args, found)
    if not found:
        return ""
    return blake3("\0".join(map(digest_of, found)).encode()).hexdigest(16)


def _collect_code(args: Iterable[Arg], found: list[Const]) -> None:
    for arg in args:
        if isinstance(arg, Const):
            if arg.is_code:
                found.append(arg)
        elif isinstance(arg, ListArg):
            _collect_code(arg.items, found)
        elif isinstance(arg, DictArg):
            _collect_code(arg.values, found)
        elif isinstance(arg, ObjectArg):
            _collect_code(arg.fields.values(), found)


def step_code(counts_as: str, passed: str) -> str:
    """Return what a step's code counts as: that of its function, and what it is passed."""
    return f"{counts_as}+{passed}" if passed else counts_as


def function_of_user(plan: Plan, step: StepPlan) -> Function:
    """Return the function that a person knows a step by: of a map what it calls for each item."""
    mapped = plan.mapped.get(step.id)
    return plan.functions[step.function if mapped is None else mapped.function]


def functions_by_code(plan: Plan) -> dict[str, Function]:
    """Return the functions of a plan by what reuse compares, of maps those that they call."""
    found = {function.counts_as: function for function in plan.functions.values()}
    for step in plan.steps:
        if step.id in plan.mapped:
            code = step_code(plan.functions[step.function].counts_as, step.passed)
            found[code] = function_of_user(plan, step)
    return found


def own_digest(code: str, outputs: int, catch: bool, given: str) -> str:
    """Return the digest over all of a step that is its own, nothing upstream."""
    return "own:" + blake3(f"{code}\0{outputs}\0{catch}\0{given}".encode()).hexdigest(16)


def references(step: StepPlan) -> list[Reference]:
    """Return the step's references in the order of the plan: arguments, then keywords by name.

    Last come the states that it begins from.
    """
    found: list[Reference] = []
    collect(step.args, found)
    if step.kwargs:
        collect([step.kwargs[name] for name in sorted(step.kwargs)], found)
    found += step.turns
    return found


def upstream(step: StepPlan) -> list[str]:
    """Return the ids of the steps that it refers to, each once, in the order of the plan."""
    refs = references(step)
    return list(dict.fromkeys(ref.step for ref in refs if not isinstance(ref, FromInput)))


def needs(step: StepPlan) -> list[str]:
    """Return the ids of the steps whose values it takes: without those it only comes after."""
    refs = references(step)
    return list(dict.fromkeys(ref.step for ref in refs if not isinstance(ref, FromInput | StateOf)))


_REFERENCES = (FromStep, FromInput, RefTo, ItemsOf)
"""A tuple made once: this is asked of every argument of every step, also of 100,000."""


def collect(args: Iterable[Arg], found: list[Reference]) -> None:
    """Append the references inside ``args`` to ``found``, depth first, left to right."""
    for arg in args:
        if isinstance(arg, _REFERENCES):
            found.append(arg)
        elif isinstance(arg, ListArg):
            collect(arg.items, found)
        elif isinstance(arg, DictArg):
            collect(arg.values, found)
        elif isinstance(arg, ObjectArg):
            collect(arg.fields.values(), found)


def secrets_in(args: Iterable[Arg]) -> frozenset[str]:
    """Return the names of the secrets inside arguments."""
    return frozenset(name for arg in args for name in _secrets(arg))


def _secrets(arg: Arg) -> Iterator[str]:
    match arg:
        case FromSecret(name):
            yield name
        case ListArg(items) | DictArg(_, items):
            yield from secrets_in(items)
        case ObjectArg(_, fields):
            yield from secrets_in(fields.values())


def rebase(plan: Plan, base: int) -> Plan:
    """Return the plan with its constants numbered from ``base``; ``constants`` stay as they are."""
    if not base:
        return plan
    return msgspec.structs.replace(
        plan,
        steps=tuple(
            msgspec.structs.replace(
                step,
                args=tuple(_rebased(arg, base) for arg in step.args),
                kwargs={name: _rebased(arg, base) for name, arg in step.kwargs.items()},
            )
            for step in plan.steps
        ),
        output=_rebased(plan.output, base),
        options=tuple(
            options
            if options.retry_on is None and options.stop_when is None
            else msgspec.structs.replace(
                options,
                retry_on=None if options.retry_on is None else options.retry_on + base,
                stop_when=None if options.stop_when is None else options.stop_when + base,
            )
            for options in plan.options
        ),
    )


def _rebased(arg: Arg, base: int) -> Arg:
    match arg:
        case Const(index, is_code):
            return Const(index + base, is_code)
        case ListArg(items, kind):
            return ListArg(tuple(_rebased(item, base) for item in items), kind)
        case DictArg(keys, values):
            return DictArg(
                tuple(Const(key.index + base) for key in keys),
                tuple(_rebased(value, base) for value in values),
            )
        case ObjectArg(cls, fields):
            return ObjectArg(
                Const(cls.index + base),
                {name: _rebased(value, base) for name, value in fields.items()},
            )
    return arg


def path_text(path: Path) -> str:
    """Write a projection as its user would: ``[0].name["k"]``; "" for the value itself."""
    if not path:  # as a rule, and for each of 100,000 steps
        return ""
    return "".join(
        f".{part.name}" if isinstance(part, Attr) else f"[{part.key!r}]" for part in path
    )


def project(value: Any, path: Path) -> Any:
    """Follow ``path`` into ``value``."""
    for part in path:
        value = getattr(value, part.name) if isinstance(part, Attr) else value[part.key]
    return value


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[Plan] | None = None


def encode_plan(plan: Plan) -> bytes:
    """Return the plan's canonical JSON.

    Raises:
        DefinitionError: the name of an argument, a key or the like is no Unicode text.
    """
    try:
        return _encoder.encode(plan)
    except UnicodeEncodeError as error:
        raise DefinitionError(
            f"the graph cannot be written down: {error.object!r}, a name or a key in it, has half "
            "of a surrogate pair, which is no Unicode text; as a value it would be welcome"
        ) from None


def decode_plan(body: bytes) -> Plan:
    """Return the plan that ``encode_plan`` wrote."""
    global _decoder
    if _decoder is None:
        _decoder = msgspec.json.Decoder(Plan)
    return _decoder.decode(body)


def recorded_plan(store: RunStore, record: RunRecord) -> Plan:
    """Return the plan that a run was made with; without a step while nobody has built it yet."""
    if record.plan_digest is None:
        return Plan(workflow=record.workflow, steps=(), output=ListArg(()), origin=record.origin)
    return decode_plan(store.get_plan(record.plan_digest).body)
