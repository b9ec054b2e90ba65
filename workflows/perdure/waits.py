"""Waits: a time, a signal to the run, an event for anyone. They hold nothing while they wait."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, overload

from perdure.conform import check_value
from perdure.errors import DefinitionError
from perdure.graph.arguments import holds_node
from perdure.graph.node import Mention, Node
from perdure.pausing import NO_DEFAULT, Pause
from perdure.reference import StepRef
from perdure.resources import Duration, parse_duration
from perdure.task import task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """A type as annotations write it, in parts that are the same in every process.

    Attributes:
        kind: a class, ``"union"`` or ``"literal"``.
        args: its arguments; forms, classes or constants.
    """

    kind: Any
    args: tuple[Any, ...] = ()


def sleep(duration: Duration | Any, *, after: Any = None) -> Any:
    """Make a node that ends when a time has passed since it began; its value is None.

    The deadline is fixed when the node begins and kept over restarts. Nothing is held meanwhile:
    no worker, no thread, and, if everything in the run waits, no owner.

    Args:
        duration: seconds, a ``timedelta``, ``"5m"``, ``"3d"``; or a node or parameter of these.
        after: nodes that must end before it begins.
    """
    if not isinstance(duration, Node):
        parse_duration(duration, what="sleep")
    return _sleep.options(after=after).bind(duration)


@overload
def wait_signal(
    name: str,
    schema: type[T],
    timeout: Duration | None = None,
    default: Any = ...,
    *,
    catch: bool = False,
    after: Any = None,
) -> T: ...
@overload
def wait_signal(
    name: str,
    schema: Any = None,
    timeout: Duration | None = None,
    default: Any = ...,
    *,
    catch: bool = False,
    after: Any = None,
) -> Any: ...
def wait_signal(
    name: str,
    schema: Any = None,
    timeout: Duration | None = None,
    default: Any = NO_DEFAULT,
    *,
    catch: bool = False,
    after: Any = None,
) -> Any:
    """Make a node whose value is what ``signal(run_id, name, value)`` sends to this run.

    Signals of one name are a queue: each wait takes the oldest that is left, also one that was
    sent before anybody waited.

    Args:
        name: of the signal.
        schema: a type that the value is checked against when it is sent: ``bool``, ``list[int]``.
        timeout: how long it waits from when it begins; None: for ever.
        default: its value if the time is over, of the schema's type or None; without it that is a
            failure, ``WaitTimeout``.
        catch: give that failure as a ``Failure`` in place of failing the run.
        after: nodes that must end before it begins.
    """
    options = _checked("wait_signal", name, timeout, schema, default)
    return _wait_signal.options(after=after, catch=catch).bind(name, **options)


def wait_event(
    name: str,
    match: Mapping[str, Any] | None = None,
    schema: Any = None,
    timeout: Duration | None = None,
    default: Any = NO_DEFAULT,
    *,
    catch: bool = False,
    after: Any = None,
) -> Any:
    """Make a node whose value is the payload of an event that somebody emits, for anyone.

    Each run that waits gets it. Events that were sent since the run was created count, oldest
    first, each once a run.

    Args:
        name: of the event.
        match: what ``emit(..., match={...})`` has to say about it, item by item.
        schema: a type for whoever reads the graph; payloads are not checked.
        timeout: how long it waits from when it begins; None: for ever.
        default: its value if the time is over; without it that is a failure, ``WaitTimeout``.
        catch: give that failure as a ``Failure`` in place of failing the run.
        after: nodes that must end before it begins.
    """
    options = _checked("wait_event", name, timeout, schema, default)
    said = match_of(match)
    return _wait_event.options(after=after, catch=catch).bind(name, said, **options)


def wait(
    nodes: Any,
    num_returns: int | Any = 1,
    timeout: Duration | Any = None,
    cancel_rest: bool = False,
) -> tuple[list[StepRef], list[StepRef]]:
    """Make a node that ends once some of several steps are done, and unpack it into two.

    ``done, pending = perdure.wait([a, b])``: lists of ``StepRef`` in the order of ``nodes``,
    recorded when it ends, so that a resume does not ask again. ``perdure.get(done)`` gives the
    values. A step that is skipped or cancelled is never done: it is pending, and not waited for.

    Args:
        nodes: a list of nodes, a map (its children are meant), or references of an earlier wait.
        num_returns: how many have to be done.
        timeout: after which it ends with those that are done by then; None: never.
        cancel_rest: end the others and what only they need, unless somebody else needs it.

    Raises:
        DefinitionError: there are not so many, or something else than a node is among them.
    """
    if not isinstance(num_returns, Node):
        _check_count(num_returns)
    if timeout is not None and not isinstance(timeout, Node):
        parse_duration(timeout, what="timeout")
    if not isinstance(nodes, Node | list | tuple):
        raise DefinitionError(f"wait: {nodes!r:.80} is no list of nodes: write wait([a, b])")
    if isinstance(nodes, Node):
        mentioned: Any = Mention(nodes, items=True)
        of: Any = Mention(nodes)
    else:
        strange = next((each for each in nodes if not isinstance(each, Node | StepRef)), None)
        if strange is not None:
            raise DefinitionError(f"wait: {strange!r:.80} is no node, so it is there already")
        if isinstance(num_returns, int) and len(nodes) < num_returns:
            raise DefinitionError(f"wait: num_returns={num_returns} of {len(nodes)} nodes")
        mentioned, of = [Mention(each) for each in nodes], None
    result: Any = _wait.bind(mentioned, num_returns, timeout, cancel_rest, of)
    done, pending = result
    return done, pending


@task(name="wait", cpus=0, volatile=True, outputs=2)
def _wait(
    targets: Any, num_returns: Any, timeout: Any, cancel_rest: bool, of: StepRef | None
) -> Any:
    """Begin to wait for references, or for the items of a map that is there by its value."""
    _check_count(num_returns)
    if not isinstance(targets, list | tuple):
        raise DefinitionError(
            f"wait takes the node of a map or of a list, but the value of {of} is of type "
            f"{type(targets).__name__}: write perdure.wait([node])"
        )
    if len(targets) < num_returns:
        raise ValueError(f"wait: num_returns={num_returns}, but there are {len(targets)} steps")
    return Pause(
        kind="steps",
        timeout_s=_seconds(timeout),
        steps=tuple(_meant(target, of, index) for index, target in enumerate(targets)),
        wanted=num_returns,
        cancel_rest=cancel_rest,
    )


def _check_count(count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise DefinitionError(f"wait: num_returns={count!r}: write a whole number, 1 or more")


def _meant(target: Any, of: StepRef | None, index: int) -> StepRef:
    if isinstance(target, StepRef):
        return target
    assert of is not None
    return StepRef(of.step_id, (*of.path, index))


def match_of(match: Any) -> dict[str, Any]:
    """Return ``match=`` as a dict.

    Raises:
        DefinitionError: it is no mapping of texts to scalars (or nodes).
    """
    if match is not None and not isinstance(match, Mapping):
        raise DefinitionError(f"match={match!r:.80}: write a dict, match={{'file': 'a.csv'}}")
    said: dict[Any, Any] = dict(match or {})
    for key, value in said.items():
        if not isinstance(key, str) or not isinstance(value, _MATCHED):
            raise DefinitionError(
                f"match={{{key!r}: {value!r:.80}}}: keys are texts, values texts, numbers, "
                "booleans or None"
            )
    return said


_MATCHED = (str, int, float, bool, type(None), Node)


def _checked(verb: str, name: Any, timeout: Any, schema: Any, default: Any) -> dict[str, Any]:
    if not isinstance(name, Node):
        _check_name(name, verb)
    if timeout is not None and not isinstance(timeout, Node):
        parse_duration(timeout, what="timeout")
    if timeout is None and default not in (NO_DEFAULT, ...):
        raise DefinitionError("default= is the value when timeout= is over: give both")
    given = {"timeout": timeout} if timeout is not None else {}
    if schema is not None:
        if not _is_type(schema):
            raise DefinitionError(
                f"{verb}: schema={schema!r:.80} is no type: write schema=bool, or schema=list[int]"
            )
        given["schema"] = form_of(schema)
        if default not in (NO_DEFAULT, ..., None) and not holds_node(default):
            check_value(default, schema, f"{verb}: default=")
    if default is not NO_DEFAULT and default is not ...:
        given["default"] = default
    return given


def _check_name(name: Any, verb: str) -> None:
    if not isinstance(name, str) or not name:
        raise DefinitionError(f"{verb}: {name!r:.80} is no name, a text: {verb}('approve')")


def _is_type(schema: Any) -> bool:
    """Say whether annotations may be written like this."""
    is_special = type(schema).__module__ in ("typing", "typing_extensions")
    return isinstance(schema, type) or get_origin(schema) is not None or is_special


@task(name="sleep", cpus=0, volatile=True)
def _sleep(duration: Any) -> Any:
    seconds = parse_duration(duration, what="sleep")
    return Pause(kind="sleep", timeout_s=seconds, default=None)


@task(name="wait_signal", cpus=0, volatile=True)
def _wait_signal(
    name: str, timeout: Any = None, schema: Any = None, default: Any = NO_DEFAULT
) -> Any:
    _check_name(name, "wait_signal")
    return Pause(kind="signal", name=name, timeout_s=_seconds(timeout), default=default)


@task(name="wait_event", cpus=0, volatile=True)
def _wait_event(
    name: str,
    match: dict[str, Any],
    timeout: Any = None,
    schema: Any = None,
    default: Any = NO_DEFAULT,
) -> Any:
    _check_name(name, "wait_event")
    seconds = _seconds(timeout)
    return Pause(kind="event", name=name, match=match, timeout_s=seconds, default=default)


def _seconds(timeout: Any) -> float | None:
    return None if timeout is None else parse_duration(timeout, what="timeout")


def form_of(annotation: Any) -> Any:
    """Return a type in parts; what has no parts is returned as it is."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return Form("literal", args)
    if origin is None:
        return annotation
    kind = "union" if origin is Union or getattr(origin, "__name__", "") == "UnionType" else origin
    return Form(kind, tuple(map(form_of, args)))


def type_of(form: Any) -> Any:
    """Return the type that ``form_of`` took apart."""
    if not isinstance(form, Form):
        return form
    if form.kind == "literal":
        return Literal[form.args]
    args = tuple(map(type_of, form.args))
    return functools.reduce(operator.or_, args) if form.kind == "union" else form.kind[args]
