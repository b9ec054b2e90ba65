"""``@actor``: a class whose instance keeps its state from one call to the next, durably.

``Stats.bind()`` in a graph, or as an argument of a task, is a *handle*: it has the actor's methods,
each with ``.bind`` and ``.map``. What is called in which order is fixed by the order of binding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    NoReturn,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from perdure.errors import DefinitionError, did_you_mean
from perdure.graph.node import ActorUse, Handle, Node, TaskSpec
from perdure.graph.trace import current_trace
from perdure.options import OPTION_NAMES, apply_options
from perdure.plan import StepOptions
from perdure.reference import StepRef
from perdure.task import Task, after_nodes, default_name

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
C = TypeVar("C", bound=type[Any])

SETTINGS = "__perdure_actor__"
"""What an actor's class is known by."""

OPTIONS = "__perdure_method__"
"""What a method's options are known by."""

HANDLE = "perdure_actor"
"""Under which name the actor travels among the constants of a map of one of its methods."""

_STATES = ("durable", "rebuild")
_NONDETERMINISM = ("fail", "warn")
_OWN = ("bind", "options")
_VERBS = ("bind", "map")
_NOT_OF_ACTORS = {
    "checkpoint": "the results of an actor's calls are always kept: replays are checked by them",
    "volatile": "what an actor does is replayed, and must be the same then",
    "chunk": "calls of an actor are one step each: their order is that of the steps",
}
_OF_ACTORS = ("state", "snapshot", "nondeterminism", "pool", "max_concurrency")
_OF_METHODS = frozenset({"catch", "outputs", "stop_when", "key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSettings:
    """How an actor is kept, and the options that its calls have.

    Attributes:
        state: ``"durable"`` or ``"rebuild"``.
        snapshot: after how many mutating calls the state is kept; 0: after the last one.
        nondeterminism: ``"fail"`` or ``"warn"``, where a replayed call gives another value.
        pool: how many instances there are at most, each in a process of its own.
        options: those of tasks, checked.
    """

    state: str = "durable"
    snapshot: int = 1
    nondeterminism: str = "fail"
    pool: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def changed(self, name: str, given: Mapping[str, Any]) -> ActorSettings:
        """Return the settings with some of them changed.

        Raises:
            DefinitionError: an option is unknown or its value makes no sense.
        """
        options = dict(self.options)
        own: dict[str, Any] = {}
        for option, value in given.items():
            if option == "snapshot":
                own["snapshot"] = _snapshot(value)
            elif option == "state":
                own["state"] = _one_of("state", value, _STATES)
            elif option == "nondeterminism":
                own["nondeterminism"] = _one_of("nondeterminism", value, _NONDETERMINISM)
            elif option == "pool":
                own["pool"] = _pool(value)
            elif option == "max_concurrency":
                _check_concurrency(value)
            else:
                options[option] = value
        _refuse_unknown(options, _OF_ACTORS)
        _check_options(options)
        for option in _OF_METHODS & options.keys():
            raise DefinitionError(f"{option}= is for single methods: @method({option}=...)")
        apply_options(TaskSpec(function=len, name=name), options, name)
        changed = replace(self, options=options, **own)
        if changed.state == "rebuild" and "snapshot" in given:
            raise DefinitionError(
                'snapshot= is for durable actors: of one with state="rebuild" no state is kept'
            )
        if changed.pool > 1 and changed.state != "rebuild":
            raise DefinitionError(
                f"pool={changed.pool}: a durable actor has one state, which its calls change one "
                'after the other, and so one instance; state="rebuild" is for actors that keep '
                "nothing between calls"
            )
        return changed


def _snapshot(value: Any) -> int:
    if value == "every":
        return 1
    if value == "end":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DefinitionError(f'snapshot={value!r}: write "every", a number of calls, or "end"')
    return value


def _pool(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DefinitionError(f"pool={value!r}: write a number of instances, 1 or more")
    return value


def _check_concurrency(value: Any) -> None:
    if value != 1:
        raise DefinitionError(
            f"max_concurrency={value!r}: an instance makes one call at a time; pool= is for more "
            "instances"
        )


def _one_of(option: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise DefinitionError(f"{option}={value!r}{hint} (known: {', '.join(known)})")
    return str(value)


def _refuse_unknown(options: Mapping[str, Any], own: tuple[str, ...]) -> None:
    known = (*own, *OPTION_NAMES)
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise DefinitionError(f"unknown option {option!r}{hint} (known: {', '.join(known)})")


def _check_options(options: Mapping[str, Any]) -> None:
    for option, why in _NOT_OF_ACTORS.items():
        if options.get(option) not in (None, option == "checkpoint"):
            raise DefinitionError(f"{option}={options[option]!r} is not for actors: {why}")


# --- classes ------------------------------------------------------------------------------------
class Actor:
    """Base of actors that type checkers understand: ``class Stats(perdure.Actor): ...``.

    The options of ``@actor`` are given as keywords of the class:
    ``class Stats(perdure.Actor, snapshot=100)``. Constructing it gives a plain object.
    """

    __perdure_actor__: ClassVar[ActorSettings] = ActorSettings()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__()
        _register(cls, options)

    @classmethod
    def bind(cls: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a handle on an actor, constructed with these arguments in its place in the graph.

        Raises:
            DefinitionError: the arguments do not fit the constructor's signature.
        """
        return cast(T, Definition(cast(Any, cls)).bind(*args, **kwargs))

    @classmethod
    def options(cls: type[T], **options: Any) -> Definition[T]:
        """Return the class with some options changed, to be bound.

        Raises:
            DefinitionError: an option is unknown or its value makes no sense.
        """
        return Definition(cls).options(**options)


@overload
def actor(cls: C, /) -> C: ...
@overload
def actor(**options: Any) -> Callable[[C], C]: ...
def actor(cls: Any = None, /, **options: Any) -> Any:
    """Register a class as an actor: ``@actor`` or ``@actor(snapshot=100, ...)``.

    The class is returned as it is, with ``bind`` and ``options``: constructing it gives a plain
    object. Its public methods can be bound: ``stats = Stats.bind()``, ``stats.add.bind(1)``. Each
    mutating call's result and the state after it are committed together.

    Args:
        cls: the class.
        **options: ``state``: ``"durable"``, or ``"rebuild"`` for one that its constructor makes
            again, as a model; ``pool``: of such, how many instances there are, each in a process
            of its own; ``snapshot``: ``"every"``, a number of calls after which the state
            is kept, or ``"end"``; ``nondeterminism``: ``"fail"`` or ``"warn"``, where a call that
            is replayed gives another value; and those of ``@task``, for all of its calls.

    Raises:
        DefinitionError: it is no class, or an option makes no sense.
    """
    if cls is None:
        return lambda decorated: actor(decorated) if not options else _decorate(decorated, options)
    return _decorate(cls, options)


def _decorate(cls: Any, options: Mapping[str, Any]) -> Any:
    if not isinstance(cls, type):
        raise DefinitionError(f"@actor is for classes, not for {cls!r:.100}")
    _register(cls, options)
    if not issubclass(cls, Actor):
        for name in _OWN:
            setattr(cls, name, vars(Actor)[name])
    return cls


def _register(cls: type, options: Mapping[str, Any]) -> None:
    for name in _OWN:
        if name in vars(cls):
            raise DefinitionError(
                f"{cls.__name__}.{name}: actors have a {name} of their own: call it otherwise"
            )
    for name, member in vars(cls).items():
        if inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member):
            raise DefinitionError(
                f"{cls.__name__}.{name}: a method of an actor cannot be async: its calls come "
                "one after the other"
            )
    for name, member in vars(cls).items():
        if isinstance(member, Task):
            raise DefinitionError(
                f"{cls.__name__}.{name} is a task: of an actor's methods each call is a step, "
                "write @method"
            )
        if inspect.isfunction(member) and not name.startswith("_"):
            for verb in _VERBS:
                vars(member).setdefault(verb, _Unbound(f"{cls.__name__}.{name}", verb))
    before: ActorSettings = getattr(cls, SETTINGS, ActorSettings())
    setattr(cls, SETTINGS, before.changed(default_name(cls), options))


class _Unbound:
    """``bind`` or ``map`` of a method of a plain object, or of the class: says what to write."""

    def __init__(self, method: str, verb: str) -> None:
        self._method = method
        self._verb = verb

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        cls, _, name = self._method.rpartition(".")
        raise DefinitionError(
            f"{self._method}.{self._verb}(...): methods are bound of a handle, which {cls}.bind() "
            f"gives, not of the class or of a plain object: write `{cls}.bind(...)"
            f".{name}.{self._verb}(...)`"
        )


def is_actor(cls: object) -> bool:
    """Say whether a class is an actor's."""
    return isinstance(cls, type) and isinstance(getattr(cls, SETTINGS, None), ActorSettings)


class Definition(Generic[T]):
    """An actor's class with its options, to be bound. Immutable."""

    def __init__(self, cls: type[T], settings: ActorSettings | None = None) -> None:
        self._cls = cls
        self._settings: ActorSettings = settings or getattr(cls, SETTINGS)

    def options(self, **options: Any) -> Definition[T]:
        """Return it with some options changed.

        Raises:
            DefinitionError: an option is unknown or its value makes no sense.
        """
        name = default_name(self._cls)
        return Definition(self._cls, self._settings.changed(name, options))

    def bind(self, /, *args: Any, **kwargs: Any) -> T:
        """Make a handle on an actor, constructed with these arguments in its place in the graph.

        Raises:
            DefinitionError: the arguments do not fit the constructor's signature.
        """
        given = dict(self._settings.options)
        after = after_nodes(given.pop("after", None))
        spec = apply_options(_spec_of(self._cls, self._settings), given, default_name(self._cls))
        node = Task[Any, Any](self._cls, spec, after).bind(*args, **kwargs)
        settings = replace(self._settings, options={})
        return cast(T, ActorHandle(self._cls, settings, spec, node))

    def __repr__(self) -> str:
        return f"<actor {default_name(self._cls)}>"


def _spec_of(cls: type, settings: ActorSettings, **use: Any) -> TaskSpec:
    kept = ActorUse(
        cls=cls,
        state=settings.state,
        snapshot=settings.snapshot,
        nondeterminism=settings.nondeterminism,
        pool=settings.pool,
        **use,
    )
    return TaskSpec(function=cls, name=default_name(cls), actor=kept)


# --- handles ------------------------------------------------------------------------------------
class ActorHandle(Handle):
    """An actor in a graph, or among a task's arguments: it has the actor's methods.

    In a task calls take effect when the task returns them: ``return stats.add.bind(1)``.
    """

    __slots__ = ("_cls", "_settings", "_spec")
    _cls: type
    _settings: ActorSettings
    _spec: TaskSpec

    def __init__(
        self, cls: type, settings: ActorSettings, spec: TaskSpec, at: Node | StepRef
    ) -> None:
        own = {"_cls": cls, "_settings": settings, "_spec": spec, "_at": at, "_use": spec.actor}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> ActorMethod[Any, Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return _method_of(self, name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise DefinitionError(
            f"{self!r} is a handle: its state changes by its methods, which are called by "
            f"`.bind(...)`, not by setting {name!r}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._cls, self._settings, self._spec, self._at)

    def __perdure_parts__(self) -> dict[str, Any]:
        """Return what it is made of, for stores without pickle."""
        return {"cls": self._cls, "settings": self._settings, "spec": self._spec, "at": self._at}

    @classmethod
    def __perdure_made__(cls, parts: dict[str, Any]) -> ActorHandle:
        return cls(**parts)

    def __copy__(self) -> ActorHandle:
        return self

    def __deepcopy__(self, memo: object) -> ActorHandle:
        return self

    def __repr__(self) -> str:
        return f"<handle of {self._spec.name}>"


def handle_in_run(
    cls: type, use: ActorUse, name: str, defaults: StepOptions, step_id: str
) -> ActorHandle:
    """Return the handle that an actor's constructor has as its value.

    Args:
        cls: the actor's class.
        use: of the constructor's step.
        name: what its steps are called.
        defaults: the options of its calls.
        step_id: the constructor's step.
    """
    kept: ActorSettings = getattr(cls, SETTINGS)
    settings = replace(
        kept,
        state=use.state,
        snapshot=use.snapshot,
        nondeterminism=use.nondeterminism,
        pool=use.pool,
        options={},
    )
    spec = TaskSpec(function=cls, name=name, options=defaults, actor=use)
    retry_on = kept.options.get("retry_on")
    if retry_on is not None:
        spec = apply_options(spec, {"retry_on": retry_on}, name)
    return ActorHandle(cls, settings, spec, StepRef(step_id))


def _method_of(handle: ActorHandle, name: str) -> ActorMethod[Any, Any]:
    cls = handle._cls
    function = inspect.getattr_static(cls, name, None)
    if name in _OWN or not inspect.isfunction(function):
        known = [each for each, value in inspect.getmembers(cls, inspect.isfunction)]
        public = [each for each in known if not each.startswith("_")]
        raise DefinitionError(
            f"{default_name(cls)} has no method {name!r} that could be bound"
            f"{did_you_mean(name, public)} (it has: {', '.join(public) or 'none'})"
        )
    given = dict(getattr(function, OPTIONS, {}))
    role = "read" if given.pop("readonly", False) else "write"
    spec = replace(
        _spec_of(cls, handle._settings, method=name, role=role),
        function=function,
        name=f"{handle._spec.name}.{name}",
        options=handle._spec.options,
        retry_on=handle._spec.retry_on,
    )
    after = after_nodes(given.pop("after", None))
    called = f"{handle._spec.name}.{name}"
    task = MethodTask(function, apply_options(spec, given, called), after)
    return ActorMethod(handle, task)


class MethodTask(Task[Any, Any]):
    """A method of an actor as a task: its first argument is the actor's handle."""

    def __init__(
        self, function: Callable[..., Any], spec: TaskSpec, after: tuple[Node, ...] = ()
    ) -> None:
        super().__init__(function, spec, after)
        for verb in _VERBS:  # what the function has under these names is for plain objects
            vars(self).pop(verb, None)
        if self._signature is not None:
            _, *rest = self._signature.parameters.values()
            self._signature = self._signature.replace(parameters=rest)
            self._positions = range(0)

    def bind(self, /, *args: Any, **kwargs: Any) -> Any:
        """Make a node: a call of the method, of the actor that is among the keywords."""
        handle = kwargs.pop(HANDLE)
        self._check_signature(args, kwargs, "bind")
        return self._bound((handle, *args), kwargs)

    def _check_signature(self, args: tuple[Any, ...], kwargs: dict[str, Any], verb: str) -> None:
        given = {name: value for name, value in kwargs.items() if name != HANDLE}
        super()._check_signature(args, given, verb)


class ActorMethod(Generic[P, R]):
    """A method of an actor in a graph. Immutable."""

    __slots__ = ("_handle", "_task")

    def __init__(self, handle: ActorHandle, task: MethodTask) -> None:
        self._handle = handle
        self._task = task

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make a node: a call of the method, in the actor's order where it was bound.

        Raises:
            DefinitionError: the arguments do not fit the method's signature.
        """
        return cast(R, self._task.bind(*args, **kwargs, **{HANDLE: self._handle}))

    def map(self, /, *iterables: Any, **constants: Any) -> list[R]:
        """Make a node that calls the method for each item, in the order of the items.

        As ``map`` of a task. Raises as it does.
        """
        return self._task.map(*iterables, **constants, **{HANDLE: self._handle})

    def options(self, **options: Any) -> ActorMethod[P, R]:
        """Return the method with some options changed.

        Raises:
            DefinitionError: an option is unknown or its value makes no sense.
        """
        _check_options(options)
        changed = self._task.options(**options)
        return ActorMethod(self._handle, cast(MethodTask, changed))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Refuse the call.

        Raises:
            DefinitionError: always: it says what to write.
        """
        name = self._task.spec.name
        actor = "the actor"
        call = f"`{name.rpartition('.')[2]}.bind(...)`"
        if current_trace() is not None:
            raise DefinitionError(
                f"{name}(...) would call {actor} now, where only a graph is made: write {call}"
            )
        raise DefinitionError(
            f"{name}(...) would call {actor} from inside a step, and again if the step is tried "
            f"again: calls take effect when the step returns them. Write `return actor.{call[1:]}, "
            "and do the rest in a task that takes its value"
        )

    def __repr__(self) -> str:
        return f"<method {self._task.spec.name} of an actor>"


# --- methods ------------------------------------------------------------------------------------
if TYPE_CHECKING:

    class Method(Generic[P, R]):
        """A method of an actor as type checkers see it: a function with ``bind`` and ``map``."""

        @overload
        def __get__(self, instance: None, owner: type) -> Callable[..., R]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> ActorMethod[P, R]: ...
        def __get__(self, instance: object, owner: type) -> Any: ...


@overload
def method(function: Callable[Concatenate[S, P], R], /) -> Method[P, R]: ...
@overload
def method(
    *, readonly: bool = ..., **options: Any
) -> Callable[[Callable[Concatenate[S, P], R]], Method[P, R]]: ...
def method(function: Any = None, /, *, readonly: bool = False, **options: Any) -> Any:
    """Give a method of an actor options of its own: ``@method(readonly=True, timeout="1m")``.

    The function is returned as it is. Without it a public method is a mutating one.

    Args:
        function: the method.
        readonly: it does not change the state: neighbouring readers run at the same time, on
            copies of the state.
        **options: those of ``@task``, for this method.

    Raises:
        DefinitionError: it is no function, or an option makes no sense.
    """
    if function is None:
        return lambda decorated: _mark(decorated, readonly, options)
    return _mark(function, readonly, options)


def _mark(function: Any, readonly: bool, options: Mapping[str, Any]) -> Any:
    if not inspect.isfunction(function):
        raise DefinitionError(f"@method is for methods of an actor, not for {function!r:.100}")
    if not isinstance(readonly, bool):
        raise DefinitionError(f"readonly={readonly!r}: must be True or False")
    _refuse_unknown(options, ("readonly",))
    _check_options(options)
    name = default_name(function)
    if not inspect.signature(function).parameters:
        raise DefinitionError(f"{name} takes no self: a method of an actor has its instance")
    apply_options(TaskSpec(function=function, name=name), options, name)
    setattr(function, OPTIONS, {"readonly": readonly, **options})
    return function
