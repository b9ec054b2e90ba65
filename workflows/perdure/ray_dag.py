"""``from_ray``: the graphs of ``ray.dag``, made of ``@ray.remote(...)`` and ``.bind``, as nodes.

An import adapter: it reads Ray's nodes and runs nothing of Ray's; where the steps run is the
executor's affair. Ray is never imported here: whoever holds a node of its has done that.
"""

from __future__ import annotations

import logging
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from perdure.actor import ActorHandle, Definition, actor, is_actor
from perdure.errors import DefinitionError
from perdure.foreign import user_class
from perdure.graph.node import Node, input_placeholder
from perdure.retry import Backoff
from perdure.task import Task, is_understood, task

log = logging.getLogger(__name__)

NOTE = "perdure.ray"
"""Under which name a step's metadata tells all options that its function has in Ray."""

ON_FUNCTION = "__perdure_labels__"
"""Under which name a function keeps labels that all of its nodes have."""

FOR_EVER = 2**31 - 1

_LABELS = "_labels"
_NEVER_RUN = ("lifetime", "get_if_exists", "namespace")


@dataclass(frozen=True)
class RayInput:
    """Several inputs of a graph of Ray's as one value: ``RayInput((1, 2), {"x": 3})``.

    Attributes:
        args: what ``execute`` takes by position: ``inp[0]``.
        kwargs: what it takes by name: ``inp["x"]``, ``inp.x``.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: int | str) -> Any:
        return self.args[key] if isinstance(key, int) else self.kwargs[key]

    def __getattr__(self, name: str) -> Any:
        if name in ("args", "kwargs") or name.startswith("__"):
            raise AttributeError(name)
        try:
            return self.kwargs[name]
        except KeyError:
            raise AttributeError(name) from None


def ray_input(*args: Any, **kwargs: Any) -> Any:
    """Return what a graph has as its input if it is executed with these arguments.

    One by position is the input itself; several are one object.
    """
    return args[0] if len(args) == 1 and not kwargs else RayInput(args, kwargs)


def is_ray_node(value: object) -> bool:
    """Say whether a value is a node of ``ray.dag``."""
    # Not imported for the question's sake: where nobody has, nothing is one.
    module = sys.modules.get("ray.dag")
    return module is not None and isinstance(value, module.DAGNode)


def from_ray(node: Any, *, state: str | None = None) -> Any:
    """Return the graph of a node of ``ray.dag`` as nodes of perdure's.

    Functions become tasks: ``num_cpus``, ``num_gpus``, ``memory``, ``resources`` and labels are
    what a step holds, ``max_retries`` becomes ``lost_retries``, with ``retry_exceptions`` also
    ``retries``, ``num_returns`` is ``outputs``. Classes become actors. The input is called
    ``input``: ``perdure.run(perdure.from_ray(node), input=3)``; several values are a
    ``perdure.RayInput``. All options are kept as data with the step.

    Args:
        node: what ``bind`` returned; of a ``MultiOutputNode`` a list of nodes is made.
        state: of its actors: ``"durable"`` or ``"rebuild"``; by default ``"rebuild"`` for those
            that ask for GPUs.

    Raises:
        DefinitionError: it is no such node, arguments do not fit a signature, or something in it
            cannot be had: a live actor, a generator.
    """
    if not is_ray_node(node):
        raise DefinitionError(
            f"from_ray takes what `.bind(...)` of Ray's functions and actors gives, not "
            f"{node!r:.80}"
        )
    return _Import(state).graph(node)


class _Import:
    """One graph that is read. A node is known by its ``_stable_uuid`` here, and nowhere else."""

    def __init__(self, state: str | None) -> None:
        self._state = state
        self._made: dict[str, Any] = {}
        self._tasks: dict[tuple[int, str], Task[Any, Any]] = {}
        self._input = input_placeholder().input

    def graph(self, root: Any) -> Any:
        for node in walk(root):
            make = _KINDS.get(type(node).__name__)
            if make is None:
                raise DefinitionError(
                    f"from_ray cannot take a {type(node).__name__}: it knows "
                    f"{', '.join(sorted(_KINDS))}"
                )
            self._made[node._stable_uuid] = make(self, node)
        return self._made[root._stable_uuid]

    def _value(self, value: Any) -> Any:
        """Return an argument with nodes of perdure's in place of Ray's."""
        if is_ray_node(value):
            return self._made[value._stable_uuid]
        if _is_object_ref(value):
            return sys.modules["ray"].get(value)
        return _rebuilt(value, self._value)

    def _arguments(self, node: Any) -> tuple[list[Any], dict[str, Any]]:
        args = [self._value(each) for each in node._bound_args]
        return args, {name: self._value(each) for name, each in node._bound_kwargs.items()}

    def function(self, node: Any) -> Any:
        args, kwargs = self._arguments(node)
        return self._task(node._body, node._bound_options).bind(*args, **kwargs)

    def _task(self, body: Callable[..., Any], options: Mapping[str, Any]) -> Task[Any, Any]:
        key = id(body), repr(sorted(options.items(), key=lambda item: item[0]))
        if key not in self._tasks:
            self._tasks[key] = task_of(body, options)
        return self._tasks[key]

    def actor(self, node: Any) -> ActorHandle:
        cls, given = user_class(node._body), node._bound_options
        for name in _NEVER_RUN:
            if given.get(name):
                raise DefinitionError(
                    f"{cls.__qualname__}: {name}={given[name]!r}: an actor that outlives its run "
                    "or is shared by runs is not to be had: its state is that of one run"
                )
        args, kwargs = self._arguments(node)
        state = self._state or ("rebuild" if given.get("num_gpus") else "durable")
        if not is_actor(cls):
            actor(cls)
        restarts = given.get("max_restarts", 0)
        lost = {"lost_retries": restarts} if restarts else {}
        concurrency = {n: given[n] for n in ("max_concurrency",) if given.get(n) is not None}
        options = {**_amounts(given, cls), **lost, **concurrency, "state": state}
        definition: Definition[Any] = Definition(cls).options(
            **options, metadata={NOTE: _noted(given)}
        )
        handle: ActorHandle = definition.bind(*args, **kwargs)
        return handle

    def method(self, node: Any) -> Any:
        if node._is_class_method_output:
            return self._value(node._bound_args[0])[node.output_idx]
        parent = node._parent_class_node
        if not is_ray_node(parent):
            raise DefinitionError(
                f"{node._method_name}.bind(...) is of a live actor, {parent!r:.80}: its state is "
                "in a process of Ray's and cannot be restored. Bind the class, `Cls.bind(...)`, "
                "and the method of that"
            )
        handle, cls = self._made[parent._stable_uuid], user_class(parent._body)
        declared = getattr(getattr(cls, node._method_name), "__ray_num_returns__", 1)
        outputs = _outputs(node._bound_options.get("num_returns", declared), node._method_name)
        before = node._prev_class_method_call
        after = None if before is None else self._made[before._stable_uuid]
        args, kwargs = self._arguments(node)
        method = getattr(handle, node._method_name).options(outputs=outputs, after=after)
        return method.bind(*args, **kwargs)

    def input(self, node: Any) -> Any:
        return self._input

    def attribute(self, node: Any) -> Any:
        if node._accessor_method == "__getattr__":
            return getattr(self._input, node._key)
        return self._input[node._key]

    def outputs(self, node: Any) -> list[Any]:
        return [self._value(each) for each in node._bound_args]


_KINDS: dict[str, Callable[[_Import, Any], Any]] = {
    "FunctionNode": _Import.function,
    "ClassNode": _Import.actor,
    "ClassMethodNode": _Import.method,
    "InputNode": _Import.input,
    "InputAttributeNode": _Import.attribute,
    "MultiOutputNode": _Import.outputs,
}


def let_nodes_pass() -> None:
    """Let nodes of perdure be arguments of Ray's ``bind``, which pickles them to look for its own.

    Has no effect where Ray is not imported.
    """
    if "ray" not in sys.modules:
        return
    from ray.dag.py_obj_scanner import _PyObjScanner  # pyright: ignore[reportMissingImports]

    if Node not in _PyObjScanner.dispatch_table:
        _PyObjScanner.dispatch_table = ChainMap({Node: _nothing}, _PyObjScanner.dispatch_table)


def _nothing(node: Node) -> tuple[Any, ...]:
    return int, ()


# --- walking ------------------------------------------------------------------------------------
def walk(root: Any) -> Iterator[Any]:
    """Yield the nodes that a node is made from, each once and after its own, and last itself."""
    seen: set[str] = set()
    stack = [(root, False)]
    while stack:
        node, is_ready = stack.pop()
        if node._stable_uuid in seen:
            continue
        if is_ready:
            seen.add(node._stable_uuid)
            yield node
        else:
            stack.append((node, True))
            stack += [(each, False) for each in reversed(list(_below(node)))]


def _below(node: Any) -> Iterator[Any]:
    # What an actor's call comes after is bound before its arguments are: that is its order.
    others = node._bound_other_args_to_resolve or {}
    for given in (tuple(others.values()), node._bound_args, node._bound_kwargs):
        yield from _nodes_in(given)


def _nodes_in(value: Any) -> Iterator[Any]:
    if is_ray_node(value):
        yield value
        return
    found: list[Any] = []

    def note(each: Any) -> Any:
        found.append(each)
        return each

    _rebuilt(value, note)
    for each in found:
        yield from _nodes_in(each)


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a container with its items changed; what is none as it is."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(change, value))
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(change, value))
    if type(value) is dict:
        return {key: change(each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        own = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        changed = {name: change(each) for name, each in own.items()}
        is_same = all(changed[name] is own[name] for name in own)
        return value if is_same else replace(value, **changed)
    return value


def _is_object_ref(value: object) -> bool:
    module = sys.modules.get("ray")
    return module is not None and isinstance(value, getattr(module, "ObjectRef", ()))


# --- options ------------------------------------------------------------------------------------
def task_of(body: Callable[..., Any], options: Mapping[str, Any]) -> Task[Any, Any]:
    """Return a function of Ray's as a task.

    Args:
        body: the plain function.
        options: those that Ray has for it.

    Raises:
        DefinitionError: it is a generator, or an option cannot be had.
    """
    retries = options.get("max_retries", 3)
    retry_on = options.get("retry_exceptions", False)
    own: dict[str, Any] = {
        **_amounts(options, body),
        "lost_retries": retries,
        "outputs": _outputs(options.get("num_returns", 1), body.__qualname__),
        "metadata": {NOTE: _noted(options)},
    }
    if retry_on:
        own["retries"] = FOR_EVER if retries == -1 else retries
        own["backoff"] = Backoff(first=0, max=0, jitter=0)
        own["retry_on"] = None if retry_on is True else tuple(retry_on)
    made: Task[Any, Any] = task(**own)(body)
    for labels in (getattr(body, ON_FUNCTION, None), options.get(_LABELS)):
        if labels and is_understood(_LABELS):
            made = made.options(**{_LABELS: labels})
    return made


def _amounts(options: Mapping[str, Any], owner: Any) -> dict[str, Any]:
    """Return what a step holds while it runs."""
    held = {"num_cpus": "cpus", "num_gpus": "gpus", "memory": "memory"}
    found = {ours: options[its] for its, ours in held.items() if options.get(its) is not None}
    resources = dict(options.get("resources") or {})
    for name, wanted in (options.get("label_selector") or {}).items():
        if wanted.startswith(("!", "in(")):
            log.warning("%s: label %s=%s is kept as data only", owner.__qualname__, name, wanted)
        else:
            resources[f"{name}={wanted}"] = 1
    if options.get("runtime_env"):
        log.warning("%s: its runtime_env is kept as data: only executors that know it make it",
                    owner.__qualname__)  # fmt: skip
    return {**found, "resources": resources} if resources else found


def _outputs(returns: Any, name: str) -> int:
    if returns in (None, "default"):
        return 1
    if isinstance(returns, bool) or not isinstance(returns, int) or returns < 1:
        raise DefinitionError(
            f"{name}: num_returns={returns!r}: a step has a number of values, 1 or more, and all "
            "of them are there when it ends: return a list"
        )
    return returns


def _noted(options: Mapping[str, Any]) -> dict[str, Any]:
    return {n: as_data(each) for n, each in options.items() if n != _LABELS and each is not None}


def as_data(value: Any) -> Any:
    """Return an option as JSON has it: of strategies and the like their class and attributes."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): as_data(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_data(each) for each in value]
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    attributes = getattr(value, "__dict__", None)
    if attributes is None:
        return str(value)
    told = {name: as_data(each) for name, each in attributes.items()}
    return {"type": as_data(type(value)), **told}
