"""Eager execution: every step in this process, in order, nothing stored.

The same results as a durable run: every value goes through its codec and each consumer decodes its
own, several outputs are checked, errors are retried (without waiting) and caught. Not enforced
are time-outs and resources. An error that nobody catches is raised as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from perdure import effects
from perdure.actor import handle_in_run
from perdure.calls import CallId, SavedValue, Saving, Told
from perdure.chunks import unchunked
from perdure.compile import prepare
from perdure.errors import DefinitionError, Failure, SecretMissing
from perdure.fingerprint import plain_digest
from perdure.graph.arguments import Entries, Fields, Items, leaves, nodes_in, resolve
from perdure.graph.dag import Dag, Step, place_of
from perdure.graph.growth import answer_id, first_answer_id
from perdure.graph.node import (
    ActorUse,
    Call,
    Handle,
    Inputs,
    Mention,
    Node,
    TaskSpec,
    describe,
    input_name,
    path_of,
    place_of_actor,
    source_of,
)
from perdure.mapping import expand
from perdure.pausing import NO_DEFAULT, Pause
from perdure.plan import Item, Path, path_text, project
from perdure.ray_dag import from_ray, is_ray_node
from perdure.reference import StepRef
from perdure.secret import SecretRef
from perdure.templates import build_object
from perdure.worker.actors import copy_of, refused_growth
from perdure.worker.context import Context, StopSignal, running
from perdure.worker.growth import graph_of, is_graph, refuse_handle, refuse_nodes_inside
from perdure.worker.saving import Saves
from perdure.worker.secrets import resolve_secret
from perdure.worker.tracebacks import traceback_text
from perdure_storage.codecs import Codecs
from perdure_storage.directories import Directories
from perdure_storage.scratch import ScratchBlobs
from perdure_storage.shapes import readable, shown_name
from perdure_storage.values import Values

_SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset,
}  # fmt: skip
_CONTAINERS = (list, tuple, dict, set, frozenset)
_ATOMS = (type(None), bool, int, float, complex, str, bytes)


def execute(dag: Dag, inputs: Mapping[str, Any]) -> Any:
    """Execute a graph and return its result.

    Args:
        dag: the graph.
        inputs: values of its inputs, checked.

    Raises:
        DefinitionError: a secret is not set.
        NotSerializable: a value has no encoding; the durable run could not keep it either.
        Exception: whatever a step's function raises.
    """
    refuse_handle(dag.output)
    try:
        with effects.unnoted():
            return _Execution(dag, inputs).result()
    except Exception as error:
        if step_id := _blamed(error)[0]:
            error.add_note(f"in step {step_id}")
        if isinstance(error, RecursionError):
            error.add_note(
                "a graph below a graph is a call within a call where it is executed without a run; "
                "durably, `.run(...)`, their depth costs no stack"
            )
        raise


def execute_definition(definition: Any, given: Mapping[str, Any]) -> Any:
    """Execute a workflow or nodes with these arguments and return the result."""
    prepared = prepare(definition, given)
    return execute(prepared.dag, prepared.inputs)


@dataclass(frozen=True, slots=True)
class _Kept:
    """An encoded value, or an immutable one as it is."""

    codec: str
    data: bytes
    atom: Any = None

    def decode(self, codecs: Codecs) -> Any:
        if not self.codec:
            return self.atom
        # A copy of its own: arrays are views of it, and writable.
        return codecs.decode(self.codec, memoryview(bytearray(self.data)))


class _Execution:
    """One eager execution. Mutable, used once.

    ``known`` has the values of steps that references name, in this graph and those around it, and
    ``actors`` the instances of actors, by the steps of their constructors.
    """

    def __init__(
        self,
        dag: Dag,
        inputs: Mapping[str, Any],
        known: dict[str, _Kept] | None = None,
        actors: dict[str, Any] | None = None,
    ) -> None:
        self._dag = dag
        self._actors = {} if actors is None else actors
        self._known = {} if known is None else known
        self._codecs = Codecs(code_digest=plain_digest)
        self._inputs = {name: self._keep(value, name) for name, value in inputs.items()}
        self._values: dict[Call, _Kept] = {}
        self._done: set[Call] = set()
        self._dropped: set[Call] = set()
        self._has_enough = False
        outputs = _calls_in(nodes_in(dag.output))
        used = {call for step in dag.steps for call in _calls_in(step.call.uses)}
        self._wanted: set[Call] = set()
        self._want([*outputs, *(step.call for step in dag.steps if step.call not in used)])
        self._constants: dict[int, tuple[_Kept, Any]] = {}
        self._consumers = Counter(
            call for step in dag.steps for call in _calls_in(step.call.uses)
        ) + Counter(_calls_in(nodes_in(dag.output)))

    def result(self) -> Any:
        """Run every step, then make the output."""
        self._run_all(self._dag.steps)
        return self._build(self._dag.output, "the result")

    def last(self) -> Any:
        """Run every step and return what the last one gave, a graph as it is.

        The graph is run by whoever asked, so that a chain of tail calls costs no stack.
        """
        *steps, last = self._dag.steps
        self._run_all(steps)
        if last.call.spec.branches:
            return self._branch(last)
        given = self._tried(last)
        catches = last.call.spec.options.catch
        return self._without_graph(given, last) if catches and is_graph(given) else given

    def _want(self, calls: Iterable[Call]) -> None:
        """Want calls, what they need, and steps of branches that a choice is ``after=``."""
        wanted = wanted_calls(calls)
        while not wanted <= self._wanted:
            self._wanted |= wanted
            selects = (s.call for s in self._dag.steps if s.call.spec.branches)
            open_ones = [c for c in selects if c in self._wanted and c not in self._done]
            wanted = wanted_calls(call for select in open_ones for call in _awaited(select))

    def _run_all(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if step.call in self._wanted:
                self._run_one(step)

    def _run_one(self, step: Step) -> None:
        if step.call in self._done:
            return
        self._done.add(step.call)
        stop_when = step.call.spec.stop_when
        if stop_when is not None and self._has_enough:
            self._dropped.add(step.call)
            return
        value = self._run(step)
        self._has_enough = self._has_enough or (stop_when is not None and bool(stop_when(value)))
        if self._consumers[step.call]:
            self._values[step.call] = self._keep(value, f"the result of {step.id}")

    def _branch(self, step: Step) -> Any:
        """Return the value of the branch that a step chooses, after running what it needs."""
        choice, *branches = step.call.args
        call = _calls_in([branches[self._build(choice, step.id)]])[0]
        self._want([call])
        # Not what comes after this step: that may need the value that is yet to be found.
        self._run_all(takewhile(lambda each: each is not step, self._dag.steps))
        return self._build(Node(call), step.id)

    def _keep(self, value: Any, name: str) -> _Kept:
        if type(value) in _ATOMS or isinstance(value, Handle):
            return _Kept("", b"", value)
        encoded = self._codecs.encode(value, name=name)
        return _Kept(encoded.codec, b"".join(encoded.buffers))

    # --- steps ------------------------------------------------------------------------------
    def _run(self, step: Step) -> Any:
        """Run one step, and the graph that it gives if it gives one."""
        if step.call.spec.branches:
            return self._branch(step)
        given = self._tried(step)
        return self._without_graph(given, step) if is_graph(given) else given

    def _tried(self, step: Step) -> Any:
        """Return what the step's function gives, after as many tries as it has."""
        spec = step.call.spec
        attempts = 0
        desk = EagerDesk(self._codecs)
        while True:
            attempts += 1
            context = context_of(step.id, attempts, desk=desk)
            token = running.set(context)
            effects.begin()
            try:
                return self._attempt(step)
            except Exception as error:  # noqa: BLE001 (of the user's code: raised again, or a value)
                if attempts <= spec.options.retries and _is_worth_retrying(spec, error):
                    continue
                return _fail(error, step, attempts)
            finally:
                running.reset(token)
                context.saves.close()

    def _without_graph(self, given: Any, step: Step) -> Any:
        """Run what a step gave; failures below a step that catches are its own to take."""
        try:
            names = f"{step.scope}/{step.name}" if step.scope else step.name
            value = run_graphs(given, step.id, names, self._known, self._actors)
            _check_result(value, step.call.spec.options.outputs)
        except Exception as error:  # noqa: BLE001 (of the user's code: raised again, or a value)
            return _fail(error, step, 1)
        return value

    def _attempt(self, step: Step) -> Any:
        call = step.call
        args = [self._build(each, place_of(step, i)) for i, each in enumerate(call.args)]
        kwargs = {
            name: self._build(each, f"{step.id}.bind({name})") for name, each in call.kwargs.items()
        }
        if call.spec.actor is not None:
            return self._call_actor(step, call.spec.actor, args, kwargs)
        return call_here(call.spec, args, kwargs)

    def _call_actor(
        self, step: Step, use: ActorUse, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Construct an actor or call its method; one that raises leaves it as it was."""
        spec = step.call.spec
        if use.role == "new":
            self._actors[step.id] = spec.function(*args, **kwargs)
            return handle_in_run(use.cls, use, step.name, spec.options, step.id)
        at = place_of_actor(args[0])
        assert isinstance(at, StepRef)
        instance = self._actors[at.step_id]
        if use.state == "rebuild":
            return _call_method(spec, use, instance, args[1:], kwargs)
        if use.role == "read":
            return _call_method(spec, use, copy_of(instance), args[1:], kwargs)
        before = copy_of(instance)
        try:
            return _call_method(spec, use, instance, args[1:], kwargs)
        except BaseException:
            self._actors[at.step_id] = before
            raise

    # --- arguments --------------------------------------------------------------------------
    def _build(self, template: Any, where: str) -> Any:
        match template:
            case Node():
                return self._node(template, where)
            case Mention(node, items):
                return self._build(node, where) if items else self._mention(node)
            case StepRef():
                return self._referred(template, where)
            case SecretRef(name):
                return _secret(name)
            case Handle():
                at = place_of_actor(template)
                return self._node(at, where) if isinstance(at, Node) else template
            case Items(kind, items):
                items = tuple(item for item in items if not self._is_dropped(item))
                parts = [self._build(item, f"{where}[{i}]") for i, item in enumerate(items)]
                return _SEQUENCES[kind](parts)
            case Entries(keys, values):
                return {
                    self._constant(key, where): self._build(value, f"{where}[{key!r}]")
                    for key, value in zip(keys, values)
                }
            case Fields(cls, fields):
                made = {n: self._build(each, f"{where}.{n}") for n, each in fields.items()}
                return build_object(cls, made)
        return self._constant(template, where)

    def _is_dropped(self, item: Any) -> bool:
        return type(item) is Node and source_of(item) in self._dropped

    def _node(self, node: Node, where: str) -> Any:
        target = resolve(node)
        if type(target) is not Node:
            return self._build(target, where)
        source, path = source_of(target), path_of(target)
        if isinstance(source, Inputs):
            kept, path = self._inputs[input_name(path)], path[1:]
        else:
            assert isinstance(source, Call)
            kept = self._values[source]
        return _projected(kept.decode(self._codecs), path, target)

    def _mention(self, node: Node | StepRef) -> StepRef:
        if isinstance(node, StepRef):
            return node
        target = resolve(node)
        source = source_of(target) if type(target) is Node else None
        if not isinstance(source, Call):
            raise DefinitionError(f"{describe(node)} is no step, so there is nothing to wait for")
        step_id = self._dag.ids[source]
        self._known[step_id] = self._values[source]
        return StepRef(step_id, tuple(p.key for p in path_of(target) if isinstance(p, Item)))

    def _referred(self, ref: StepRef, where: str) -> Any:
        if ref.step_id not in self._known:
            raise DefinitionError(f"{where}: step {ref} is not in this run")
        path = tuple(Item(key) for key in ref.path)
        return project(self._known[ref.step_id].decode(self._codecs), path)

    def _constant(self, value: Any, where: str) -> Any:
        if type(value) in _ATOMS or isinstance(value, type):
            return value
        known = self._constants.get(id(value))
        if known is None:  # the object is kept too, so that its id is not given out again
            known = self._constants[id(value)] = (self._keep(value, where), value)
        return known[0].decode(self._codecs)


def wanted_calls(roots: Iterable[Call]) -> set[Call]:
    """Return the calls that ``roots`` need for certain: not those of branches."""
    wanted: set[Call] = set()
    stack = list(roots)
    while stack:
        call = stack.pop()
        if call not in wanted:
            wanted.add(call)
            stack += _calls_in(call.uses[:1] if call.spec.branches else call.uses)
    return wanted


def _awaited(select: Call) -> set[Call]:
    """Return the calls of a select's branches that its choice comes after."""
    before: set[Call] = set()
    stack = _calls_in(select.uses[:1])
    while stack:
        call = stack.pop()
        if call not in before:
            before.add(call)
            uses = call.uses[:1] if call.spec.branches else call.uses
            stack += [*_calls_in(uses), *_calls_in(call.after)]
    lazily: set[Call] = set()
    stack = _calls_in(select.uses[1:])
    while stack:
        call = stack.pop()
        if call not in lazily:
            lazily.add(call)
            stack += _calls_in(call.uses)
    return lazily & before


def call_here(spec: TaskSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a task's function in this process, to the end of its coroutine if it makes one.

    Raises:
        TypeError: what it returned cannot stand for the step's value.
    """
    if spec.function is expand:  # here one item is called after the other anyway
        args = [unchunked(args[0]), *args[1:]]
    result = spec.function(*args, **kwargs)
    if isinstance(result, Coroutine):  # asyncio takes a generator for one
        result = _finish(result)
    if isinstance(result, Pause):
        return _waited(result)
    if is_ray_node(result):
        return from_ray(result)
    if not is_graph(result):
        effects.refuse_lost()
        _check_result(result, spec.options.outputs)
        if isinstance(result, (Handle, *_CONTAINERS)):
            refuse_handle(result)
            refuse_nodes_inside(result)
    return result


def _call_method(
    spec: TaskSpec, use: ActorUse, instance: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    function = getattr(instance, use.method)

    def checked(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if is_graph(result) or isinstance(result, Pause):
            raise refused_growth(spec.name, "a node" if is_graph(result) else "a wait")
        return result

    return call_here(replace(spec, function=checked), args, kwargs)


def context_of(
    step_id: str, attempt: int, run_id: str = "eager", desk: EagerDesk | None = None
) -> Context:
    """Return what ``current()`` is to say in a step that runs here."""
    key = f"{run_id}/{step_id}/1"
    call = CallId(run_id, step_id, 1, attempt)
    saves = (desk or EagerDesk()).saves(call)
    return Context(run_id, step_id, 1, attempt, key, StopSignal(), _Printed(), saves)


class EagerDesk:
    """The ``Desk`` of one step that runs here: what its attempts save stays in memory."""

    def __init__(self, codecs: Codecs | None = None) -> None:
        self._values = Values(codecs or Codecs(code_digest=plain_digest), ScratchBlobs())
        self._directories = Directories(self._values)
        self._saved: list[SavedValue] = []

    def saves(self, call: CallId) -> Saves:
        """Return what an attempt saves with, and has to go on from."""
        return Saves(call, self._values, self._directories, self, self._saved)

    def keep(self, saving: Saving) -> None:
        """Remember it for the next attempt."""
        self._saved.append(SavedValue(saving.at, saving.value, saving.item))
        mine = [each for each in self._saved if each.item == saving.item]
        for old in mine[: -saving.keep_last]:
            self._saved.remove(old)

    def tell(self, told: Told) -> None:
        """Do nothing: nobody looks."""

    def look(self, call: CallId) -> bool:
        """Nobody asks."""
        return False


def _calls_in(nodes: Any) -> list[Call]:
    sources = [source_of(leaf) for node in nodes for leaf in leaves(node)]
    return [source for source in sources if isinstance(source, Call)]


def _projected(value: Any, path: Path, node: Node) -> Any:
    try:
        return project(value, path)
    except Exception as error:  # the access of the user's own object: anything may be raised
        error.add_note(f"{node!r}: there is no {path_text(path)} in the value")
        raise


def _check_result(result: Any, outputs: int) -> None:
    if outputs > 1 and not (isinstance(result, tuple | list) and len(result) == outputs):
        got = len(result) if isinstance(result, tuple | list) else type(result).__name__
        raise TypeError(f"outputs={outputs}, but the function returned {got}")


def run_graphs(
    given: Any,
    step_id: str,
    names: str,
    known: dict[str, _Kept] | None = None,
    actors: dict[str, Any] | None = None,
) -> Any:
    """Run the graph that a step gave, and the one that its last step gives, and so on.

    Args:
        given: what the step's function returned; anything but a graph is returned as it is.
        step_id: the step.
        names: what the names of the graph's steps begin with.
        known: values of steps that references name.
        actors: instances of actors, by the steps of their constructors.
    """
    answer = first_answer_id(step_id)
    while is_graph(given):
        dag = graph_of(given, step_id, names, answer)
        effects.refuse_lost()
        given = _Execution(dag, {}, known, actors).last()
        last = dag.steps[-1]
        step_id, answer = last.id, answer_id(last.id)
        names = f"{last.scope}/{last.name}" if last.scope else last.name
    return given


def _is_worth_retrying(spec: TaskSpec, error: Exception) -> bool:
    wanted = spec.retry_on
    if wanted is None:
        return True
    if isinstance(wanted, type | tuple):
        return isinstance(error, wanted)
    return bool(wanted(error))


def _fail(error: Exception, step: Step, attempts: int) -> Failure:
    """Return a step's failure as a value if it catches, or raise it."""
    _blame(error, step, attempts)
    if not step.call.spec.options.catch:
        raise error
    return _failure(error)


def _blame(error: Exception, step: Step, attempts: int) -> None:
    """Remember which step failed, and how often it was tried: the first one that says so."""
    if not _blamed(error)[0]:
        with contextlib.suppress(AttributeError):  # of a class without room for it
            blamed = step.id, attempts, step.item
            error.__perdure_step__ = blamed  # type: ignore[attr-defined]


def _blamed(error: Exception) -> tuple[str, int, int | None]:
    found: tuple[str, int, int | None] = getattr(error, "__perdure_step__", ("", 1, None))
    return found


def _failure(error: Exception) -> Failure:
    kind = type(error)
    step_id, attempts, item = _blamed(error)
    # The user's frames only: the first two are this module's.
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return Failure(
        type=shown_name(kind),
        message=readable(str(error)),
        traceback=readable(traceback_text(error, frames)),
        step_id=step_id,
        index=item,
        attempts=attempts,
    )


def _secret(name: str) -> str:
    try:
        return resolve_secret(name)
    except SecretMissing as error:
        raise DefinitionError(str(error)) from None


def _waited(pause: Pause) -> Any:
    """Return what a wait comes to where nobody sends anything: a sleep is slept."""
    if pause.kind == "steps":  # here one step runs after the other: all of them are done
        return list(pause.steps), []
    if pause.kind == "sleep":
        threading.Event().wait(pause.timeout_s)
        return pause.default
    if pause.default is NO_DEFAULT:
        raise DefinitionError(
            f"nobody can send the {pause.kind} {pause.name!r} to a graph that is executed here, "
            "without a run: run it durably, `.run(...)`, or give the wait timeout= and default="
        )
    return pause.default


class _Printed:
    """Where an eager step's output goes: where it would go without perdure."""

    def write(self, text: str) -> None:
        sys.stdout.write(text)


def _finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, also where an event loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    errors: list[BaseException] = []
    outcome: list[Any] = []

    around = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append(around.run(asyncio.run, coroutine))
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            errors.append(error)

    thread = threading.Thread(target=run, name="perdure-eager")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]
