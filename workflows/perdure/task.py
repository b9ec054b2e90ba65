"""``@task``: a function that becomes a step when it is bound into a graph."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from perdure import effects
from perdure.errors import DefinitionError, Failure
from perdure.graph.arguments import Entries, Fields, Items, freeze, handles_in, nodes_in
from perdure.graph.node import Call, Node, TaskSpec, use_of_actor
from perdure.graph.trace import check_origin, current_trace
from perdure.mapping import Each, expand, iterable
from perdure.options import BaseOptions, Options, apply_options, check_name
from perdure.plan import StepOptions
from perdure_storage.shapes import travels_by_value

P = ParamSpec("P")
R = TypeVar("R")

_foreign: dict[str, Callable[[Any, Any], Any]] = {}
"""Options of other libraries that ``options`` takes too, and what makes of each another task."""


def understand(name: str, change: Callable[[Any, Any], Any]) -> None:
    """Let ``Task.options`` take an option of another library.

    Args:
        name: the option.
        change: takes the task and what was given, and returns another task.
    """
    _foreign[name] = change


def is_understood(name: str) -> bool:
    """Say whether ``Task.options`` takes that option of another library."""
    return name in _foreign


class Task(Generic[P, R]):
    """A function registered as a task. Immutable; calling it calls the plain function.

    For type checkers ``bind`` returns the value it stands for; at run time it returns a ``Node``.
    """

    def __init__(
        self, function: Callable[P, Any], spec: TaskSpec, after: tuple[Node, ...] = ()
    ) -> None:
        # Of a class what is in it stays there: it would hide what a task has of its own.
        updated = () if isinstance(function, type) else functools.WRAPPER_UPDATES
        wrapped: Callable[..., Any] = function
        functools.update_wrapper(self, wrapped, updated=updated)
        self._spec = spec
        self._after = after
        self._signature = _signature(function)
        self._positions = _positions(self._signature)

    @property
    def function(self) -> Callable[P, Any]:
        """Return the plain function."""
        return self._spec.function

    @property
    def spec(self) -> TaskSpec:
        """Return the task as data."""
        return self._spec

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make a node: a call of the task, not made yet.

        Arguments are constants, nodes, or containers with nodes inside at any depth.

        Raises:
            DefinitionError: the arguments do not fit the function's signature, or a node is
                where no worker would find it.
        """
        self._check_signature(args, kwargs, "bind")
        return self._bound(args, kwargs)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        trace = current_trace()
        token = trace.token if trace else None
        where, uses = self._spec.name + ".bind", list[Node]()
        call = Call(
            spec=self._spec,
            args=tuple(freeze(arg, f"{where}(#{i})", uses) for i, arg in enumerate(args)),
            kwargs={name: freeze(arg, f"{where}({name})", uses) for name, arg in kwargs.items()},
            uses=tuple(uses),
            after=(*self._after, *trace.after) if trace else self._after,
            token=token,
            scope=trace.scope if trace else None,
        )
        for node in (*call.uses, *call.after):
            check_origin(node, token, trace.workflow if trace else "")
        if trace is not None:
            trace.calls.append(call)
        if token is None and effects.is_noting() and _changes_an_actor(call):
            effects.note(call, self._spec.name)
        return cast(R, Node(call))

    def map(self, /, *iterables: Any, **constants: Any) -> list[R]:
        """Make a node that calls the task for each item of values known only at run time.

        Positional iterables are zipped and must be equally long; keyword arguments are the same
        for every call, unless they are ``perdure.each(...)``. The value is the list of results,
        in order. Its steps are ``name[0]``, ``name[1]``, ...; retries, time-outs, resources and
        ``catch`` are each one's own.

        Args:
            *iterables: nodes, lists, tuples, arrays; ``perdure.product(...)``.
            **constants: keyword arguments of every call.

        Raises:
            DefinitionError: there is nothing to map over, or what cannot be iterated in order.
        """
        where = f"{self._spec.name}.map"
        columns = [iterable(each, f"{where}(#{n})") for n, each in enumerate(iterables)]
        if not columns and not any(isinstance(each, Each) for each in constants.values()):
            raise DefinitionError(
                f"{where}() has nothing to map over: give it an iterable by position, or "
                "`name=perdure.each(...)`"
            )
        self._check_signature(tuple(columns), constants, "map")
        spec = self._spec
        one = type(self)(spec.function, spec)
        options = StepOptions(
            lost_retries=spec.options.lost_retries, volatile=spec.options.volatile
        )
        of_map = TaskSpec(function=expand, name=spec.name, options=options, maps=True)
        mapping = Task[[Any, Any, Any, Any], list[R]](expand, of_map, self._after)
        counts_as = (spec.options.catch, spec.options.outputs, spec.stop_when)
        return mapping.bind(one, counts_as, columns, constants)

    @overload
    def options(
        self, *, catch: Literal[True], **options: Unpack[BaseOptions]
    ) -> Task[P, R | Failure]: ...
    @overload
    def options(self, **options: Unpack[Options]) -> Task[P, R]: ...
    def options(self, **options: Any) -> Task[P, Any]:
        """Return a copy of the task with some options changed.

        Raises:
            DefinitionError: an option is unknown or its value makes no sense.
        """
        foreign = {name: options.pop(name) for name in _foreign.keys() & options.keys()}
        spec = apply_options(self._spec, options, default_name(self._spec.function))
        after = after_nodes(options["after"]) if "after" in options else self._after
        changed = type(self)(self._spec.function, spec, after)
        for name, given in foreign.items():
            changed = _foreign[name](changed, given)
        return changed

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function.

        Raises:
            DefinitionError: in a traced body, or with a node among the arguments.
        """
        if current_trace() is not None or any(
            type(arg) is Node for arg in (*args, *kwargs.values())
        ):
            name = getattr(self, "__name__", self._spec.name)
            raise DefinitionError(
                f"{name}(...) calls the function now, where only a graph is made: "
                f"write `{name}.bind(...)`"
            )
        return cast(R, self._spec.function(*args, **kwargs))

    def _check_signature(self, args: tuple[Any, ...], kwargs: dict[str, Any], verb: str) -> None:
        if self._signature is None or (not kwargs and len(args) in self._positions):
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            name = self._spec.name
            raise DefinitionError(
                f"{name}.{verb}(): {error}; it is {name}{self._signature}"
            ) from None

    def __perdure_code__(self) -> tuple[Callable[..., Any], str | None, str]:
        """Return what code digests are made of: function, declared version, name."""
        return self._spec.function, self._spec.version, self._spec.name

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_definition(self, self._spec.function)

    def __perdure_parts__(self) -> dict[str, Any]:
        """Return what it is made of, for stores without pickle."""
        return {"spec": self._spec}

    @classmethod
    def __perdure_made__(cls, parts: dict[str, Any]) -> Task[P, R]:
        spec = parts["spec"]
        return cls(spec.function, spec)

    def __copy__(self) -> Task[P, R]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Task[P, R]:
        return self

    def __repr__(self) -> str:
        return f"<Task {self._spec.name}>"


class AsyncTask(Task[P, R]):
    """A task whose function is ``async def``: a plain call returns the coroutine."""

    def __call__(  # type: ignore[override]  # a plain call of an async function is a coroutine
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        return cast("Coroutine[Any, Any, R]", super().__call__(*args, **kwargs))


class TaskDecorator(Protocol):
    """What ``@task(...)`` with options returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class CatchingDecorator(Protocol):
    """What ``@task(catch=True, ...)`` returns: the result may be a ``Failure``."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R | Failure]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R | Failure]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(  # type: ignore[overload-overlap]  # catch=True is the narrower one, and comes first
    *, catch: Literal[True], **options: Unpack[BaseOptions]
) -> CatchingDecorator: ...
@overload
def task(**options: Unpack[Options]) -> TaskDecorator: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Register a function as a task: ``@task`` or ``@task(retries=2, ...)``.

    The options, which ``f.options(...)`` takes too:

    - ``name``: step name; default: the function's qualified name.
    - ``version``: declared code version; replaces the code digest.
    - ``cpus``: CPUs that one attempt holds while it runs; an ``async def`` none by default.
    - ``gpus``: GPUs that it holds: whole ones, or a fraction of one. It sees no others.
    - ``memory``: memory that is set aside for it, in bytes or as ``"8GiB"``; an attempt that takes
      more is ended.
    - ``resources``: how much it holds of what the settings name: ``{"license": 1}``.
    - ``retries``: further attempts after the user's code raised.
    - ``retry_on``: exception classes or a predicate; default ``Exception``.
    - ``backoff``: delays between attempts.
    - ``lost_retries``: further attempts after the system lost one; -1: for ever.
    - ``timeout``: run time of one attempt, a duration.
    - ``allow_unenforced``: let an executor that cannot kill run it without enforcing
      ``timeout``.
    - ``checkpoint``: False: the value is not stored, and rebuilt from lineage when needed.
    - ``outputs``: n > 1: ``a, b = f.bind()``.
    - ``volatile``: reads the outside world: never taken over from another run.
    - ``stop_when``: of a task that is mapped, a function of a child's value: once it holds, the
      other children are not needed, and cancelled.
    - ``key``: of a task that is mapped, what a child is called, a function of its items.
    - ``chunk``: of a task that is mapped, how many items one step takes; retries, ``catch`` and
      failure stay each item's, ``timeout`` is that of an item times their number.
    - ``metadata``: what you want to note about it: JSON, kept with the step.
    - ``after``: nodes that must end before it, without giving it data.
    - ``catch``: True: a final failure becomes a checkpointed ``Failure``; the run may succeed.

    Args:
        function: a function, sync or async; no generator, no class.
        **options: those above.

    Raises:
        DefinitionError: it is no such function, or an option makes no sense.
    """
    if function is None:
        return functools.partial(_make, options)
    return _make(options, function)


def _make(options: dict[str, Any], function: Callable[..., Any]) -> Task[..., Any]:
    _check_function(function)
    name = default_name(function)
    is_async = inspect.iscoroutinefunction(function)
    # A coroutine mostly waits: a thousand of them share one process and ask for no CPU.
    asks = StepOptions(cpus=0.0) if is_async else StepOptions()
    spec = TaskSpec(function=function, name=name, options=asks, is_async=is_async)
    spec = apply_options(spec, options, name)
    check_name(spec.name)
    after = after_nodes(options["after"]) if "after" in options else ()
    return (AsyncTask if is_async else Task)(function, spec, after)


def _check_function(function: object) -> None:
    if isinstance(function, Task):
        raise DefinitionError(f"{function!r} is a task already: use .options(...) to change it")
    if isinstance(function, staticmethod | classmethod):
        raise DefinitionError(
            "put @staticmethod above @task, or move the function out of the class"
        )
    if not callable(function) or isinstance(function, type):
        raise DefinitionError(f"@task is for functions, not for {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"{default_name(function)}: a generator cannot be a task, its values would not be "
            "checkpointed: return a list"
        )


def default_name(function: Callable[..., Any]) -> str:
    """Return a function's qualified name without ``<locals>``."""
    name: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name.replace(".<locals>", "")


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return None


def _positions(signature: inspect.Signature | None) -> range:
    """Return how many positional arguments fit by themselves: what most binds have, cheaply."""
    parameters = list(signature.parameters.values()) if signature else []
    named = [each for each in parameters if each.kind is not each.VAR_POSITIONAL]
    required = [each for each in named if each.default is each.empty]
    if any(each.kind is each.KEYWORD_ONLY for each in required):
        return range(0)
    places = [
        each for each in named if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    needed = [each for each in required if each.kind is not each.VAR_KEYWORD]
    return range(len(needed), len(places) + 1)


def after_nodes(after: Any) -> tuple[Node, ...]:
    """Return the nodes of an ``after=`` option: a node, or containers of nodes.

    Raises:
        DefinitionError: there is something else than nodes in it.
    """
    if after is None:
        return ()
    found: list[Node] = []
    template = freeze(after, "after", found)
    if not _only_nodes(template):
        raise DefinitionError(f"after={after!r}: write a node or a list of nodes")
    return tuple(nodes_in(template))


def _only_nodes(template: Any) -> bool:
    if type(template) is Items:
        return all(map(_only_nodes, template.items))
    if type(template) is Entries:
        return all(map(_only_nodes, template.values))
    if type(template) is Fields:
        return all(map(_only_nodes, template.fields.values()))
    return type(template) is Node or (isinstance(template, Iterable) and not list(template))


def _changes_an_actor(call: Call) -> bool:
    """Say whether a call may change the state of an actor: by a method, or as it has the handle."""
    spec = call.spec
    if spec.actor is None and spec.maps and isinstance(mapped := call.args[0], Task):
        spec = mapped.spec
    if spec.actor is not None:
        return spec.actor.role == "write" and spec.actor.state == "durable"
    handles = handles_in((*call.args, *call.kwargs.values()))
    return any(use_of_actor(handle).state == "durable" for handle in handles)


def unwrap(value: Any) -> Any:
    """Return the plain function of a task, and anything else as it is."""
    return value.function if isinstance(value, Task) else value


def reduce_definition(definition: Any, function: Callable[..., Any]) -> tuple[Any, ...]:
    """Return how a task or workflow is pickled: by its name, or with all that it is made of.

    What is made of it is filled in later: a function that calls itself finds its own task among
    its globals, before either is complete.
    """
    module, qualname = function.__module__, getattr(function, "__qualname__", "")
    if not travels_by_value(module) and _is_global(definition, module, qualname):
        return find_global, (module, qualname)
    return make_empty, (type(definition),), dict(vars(definition))


def _is_global(definition: Any, module: str, qualname: str) -> bool:
    try:
        return find_global(module, qualname) is definition
    except ImportError:
        return False


def find_global(module: str, qualname: str) -> Any:
    """Return what ``qualname`` means in ``module``.

    Raises:
        ImportError: there is no such module, or no such name in it.
    """
    if not module:
        raise ImportError(f"{qualname!r} says no module that it is of")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImportError(f"there is no {qualname!r} in module {module!r}") from None
    return found


def make_empty(kind: type[Any]) -> Any:
    """Return a task or workflow that unpickling fills."""
    return object.__new__(kind)
