"""``@workflow``: a function whose body is traced into a graph; its signature is the schema."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from perdure import session
from perdure.errors import DefinitionError, did_you_mean
from perdure.graph.arguments import freeze
from perdure.graph.dag import Dag, make_dag
from perdure.graph.node import Alias, Inputs, Node, Scope
from perdure.graph.trace import Trace, check_origin, current_trace, tracing
from perdure.options import check_name
from perdure.plan import Attr
from perdure.schema import Schema, schema_of
from perdure.showing import Bundle, bundle_of
from perdure.task import Task, after_nodes, default_name, reduce_definition

if TYPE_CHECKING:
    from perdure.runs import Run

P = ParamSpec("P")
R = TypeVar("R")

RUN_OPTIONS = (
    "run_id",
    "inputs",
    "reuse",
    "tags",
    "metadata",
    "executor",
    "durability",
    "on_change",
    "on_failure",
    "on_divergence",
    "deadline",
    "queue",
    "priority",
    "delay",
    "limit_key",
    "dedup_key",
    "if_duplicate",
    "if_exists",
)
"""Keywords of ``run``, ``start`` and ``submit`` that are no parameters of workflows."""


class Workflow(Generic[P, R]):
    """A function whose body makes a graph. Immutable; calling it executes eagerly."""

    def __init__(
        self,
        function: Callable[P, Any],
        name: str,
        run_options: Mapping[str, Any] | None = None,
        after: tuple[Node, ...] = (),
        schema: Schema | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._name = name
        self._schema = replace(schema, workflow=name) if schema else schema_of(function, name)
        self._run_options = dict(run_options or {})
        self._after = after

    @property
    def name(self) -> str:
        """Return the name under which its runs are listed."""
        return self._name

    @property
    def function(self) -> Callable[P, Any]:
        """Return the plain function."""
        return self._function

    @property
    def schema(self) -> Schema:
        """Return its parameters."""
        return self._schema

    @property
    def run_options(self) -> dict[str, Any]:
        """Return what ``options`` has set for its runs."""
        return dict(self._run_options)

    def options(self, **options: Any) -> Workflow[P, R]:
        """Return a copy with options for its runs, ``name=``, or ``after=`` for ``bind``.

        Raises:
            DefinitionError: an option is unknown.
        """
        known = (*(name for name in RUN_OPTIONS if name != "inputs"), "name", "after")
        for option in options:
            if option not in known:
                raise DefinitionError(
                    f"unknown option {option!r}{did_you_mean(option, known)} "
                    f"(known: {', '.join(known)})"
                )
        name = check_name(options.pop("name", None) or self._name)
        after = after_nodes(options.pop("after")) if "after" in options else self._after
        given = {**self._run_options, **options}
        # In another process its annotations may name what did not come along: they are read once.
        return type(self)(self._function, name, given, after, self._schema)

    def dag(self, /, **static: Any) -> Dag:
        """Trace the body and return the graph.

        Args:
            **static: values of ``Static`` parameters; those with defaults may be left out.

        Raises:
            DefinitionError: a value does not fit, or the body uses a node as a value.
        """
        token = object()
        inputs = Inputs(token=token, workflow=self._name)
        values = self._schema.complete({**self._placeholders(inputs), **static})
        for field in self._schema.fields:
            if field.static:
                self._schema.check(field.name, values[field.name])
            elif field.name in static:
                raise DefinitionError(
                    f"{self._name}: parameter {field.name!r} is no Static one: its value is given "
                    "to run, not to dag"
                )
        with tracing(Trace(self._name, token)) as trace:
            result = self._call_body(values)
        return make_dag(
            result,
            name=self._name,
            bound=trace.calls,
            token=token,
            parameters=tuple(field.planned() for field in self._schema.fields),
            statics={each.name: values[each.name] for each in self._schema.fields if each.static},
        )

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Inline the workflow into the graph that is being made; steps are ``name/step``.

        Raises:
            DefinitionError: the arguments do not fit its schema.
        """
        given = self._schema.complete(self._schema.by_name(args, kwargs))
        trace = current_trace() or Trace(self._name, None)
        values = {name: self._bound(name, value, trace) for name, value in given.items()}
        first = len(trace.calls)
        with tracing(trace), trace.within(Scope(self._name, trace.scope), self._after):
            result = self._call_body(values)
            found: list[Node] = []
            template = freeze(result, f"the result of workflow {self._name!r}", found)
        unpacks = len(result) if isinstance(result, tuple | list) else None
        alias = Alias(
            value=template,
            label=f"the result of workflow {self._name!r}",
            members=tuple(trace.calls[first:]),
            unpacks=unpacks,
        )
        return cast(R, Node(alias))

    def map(self, /, *iterables: Any, **constants: Any) -> NoReturn:
        """Refuse: a workflow is inlined where it is bound, so a task has to be mapped.

        Raises:
            DefinitionError: always; it says how a workflow is run for each item.
        """
        raise DefinitionError(
            f"{self._name}.map: only tasks are mapped. Write a task that returns the workflow, "
            f"`@task def each(item): return {self._name}.bind(item)`, and `each.map(...)`"
        )

    def run(self, /, *args: Any, **kwargs: Any) -> R:
        """Run durably in this process and return the result.

        Args:
            *args: parameters by position.
            **kwargs: parameters by name, and ``run_id=``, ``reuse=``, ``tags=``, ... as in
                ``perdure.run``.
        """
        return cast(R, session.current_driver().run(self, **self._split(args, kwargs)))

    def start(self, /, *args: Any, **kwargs: Any) -> Run:
        """Run durably in the background of this process; return the run. Arguments as ``run``."""
        return cast("Run", session.current_driver().start(self, **self._split(args, kwargs)))

    def submit(self, /, *args: Any, **kwargs: Any) -> Run:
        """Record a run for whoever drives the store; return it. Arguments as ``run``."""
        return cast("Run", session.current_driver().submit(self, **self._split(args, kwargs)))

    def execute(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run eagerly: in this process, nothing stored."""
        return self(*args, **kwargs)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run eagerly: in this process, nothing stored.

        Raises:
            DefinitionError: inside a traced body, where ``bind`` is meant.
        """
        if current_trace() is not None:
            name = getattr(self, "__name__", self._name)
            raise DefinitionError(
                f"{name}(...) runs the workflow now, where only a graph is made: "
                f"write `{name}.bind(...)`"
            )
        return cast(R, session.execute_eagerly(self, self._schema.by_name(args, kwargs)))

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the driver's arguments: run options, and all parameters as ``inputs``."""
        options = {name: value for name, value in kwargs.items() if name in RUN_OPTIONS}
        given = {name: value for name, value in kwargs.items() if name not in RUN_OPTIONS}
        inputs = self._schema.by_name(args, {**(options.pop("inputs", None) or {}), **given})
        return {**self._run_options, **options, "inputs": inputs}

    def _placeholders(self, inputs: Inputs) -> dict[str, Node]:
        return {
            field.name: Node(inputs, (Attr(field.name),))
            for field in self._schema.fields
            if not field.static
        }

    def _bound(self, name: str, value: Any, trace: Trace) -> Any:
        """Return what the body of an inlined workflow sees for one argument."""
        found: list[Node] = []
        where = f"{self._name}.bind({name})"
        template = freeze(value, where, found)
        for node in found:
            check_origin(node, trace.token, trace.workflow)
        field = self._schema.field(name)
        if field.static and found:
            raise DefinitionError(
                f"{where}: it is a Static parameter, a real value while tracing, and cannot take "
                "the result of a step"
            )
        if not found:
            self._schema.check(name, value)
        if field.static:
            return value
        return Node(Alias(value=template, label=f"parameter {name!r} of {self._name!r}"))

    def _call_body(self, values: dict[str, Any]) -> Any:
        try:
            result = self._function(**values)  # type: ignore[call-arg]
        except RecursionError:
            raise DefinitionError(
                f"workflow {self._name!r} contains itself without an end: its body is called "
                f"before any value is there. Return `{self._name}.bind(...)` from a task instead"
            ) from None
        if inspect.iscoroutine(result):
            raise DefinitionError(f"workflow {self._name!r}: its body must be a plain function")
        return result

    def __perdure_code__(self) -> tuple[Callable[..., Any], str | None, str]:
        """Return what code digests are made of: function, declared version, name."""
        return self._function, None, self._name

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_definition(self, self._function)

    def __copy__(self) -> Workflow[P, R]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Workflow[P, R]:
        return self

    def __repr__(self) -> str:
        return f"<Workflow {self._name}>"

    def _repr_mimebundle_(self, **kinds: Any) -> Bundle:
        return bundle_of(self)


class WorkflowDecorator(Protocol):
    """What ``@workflow(...)`` with options returns."""

    def __call__(self, function: Callable[P, R], /) -> Workflow[P, R]: ...


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(*, name: str | None = None, **options: Any) -> WorkflowDecorator: ...
def workflow(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Register a function as a workflow: ``@workflow`` or ``@workflow(name=...)``.

    Args:
        function: its body is traced; its parameters are the schema of its inputs.
        **options: ``name``, and defaults for options of its runs (``tags``, ``queue``, ...).

    Raises:
        DefinitionError: its signature cannot be a schema, or an option is unknown.
    """
    if function is None:
        return functools.partial(_make, options)
    return _make(options, function)


def _make(options: dict[str, Any], function: Callable[..., Any]) -> Workflow[..., Any]:
    if isinstance(function, Task | Workflow):
        raise DefinitionError(f"{function!r} is registered already; put @workflow on a function")
    if isinstance(function, type) or not callable(function):
        raise DefinitionError(f"@workflow is for functions, not for {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(
            f"workflow {default_name(function)!r}: its body is traced, so it must be a plain "
            "function; tasks may be async"
        )
    made: Workflow[..., Any] = Workflow(function, check_name(default_name(function)))
    _check_parameters(made)
    return made.options(**options) if options else made


def _check_parameters(made: Workflow[..., Any]) -> None:
    for field in made.schema.fields:
        if field.name in RUN_OPTIONS:
            raise DefinitionError(
                f"workflow {made.name!r}: parameter {field.name!r} has the name of an option of "
                "run(): choose another"
            )
        if not field.required and type(field.default) is not Node:
            made.schema.check(field.name, field.default)
