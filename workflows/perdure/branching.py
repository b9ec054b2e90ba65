"""Branches and loops over values known only at run time.

``when`` and ``switch`` are two steps: one computes which branch it is to be, an ordinary step whose
row is the decision; the other has the value of that branch, by the engine's doing, once it is
there. Steps that only other branches need are skipped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar, cast, overload

from perdure.errors import DefinitionError, Failure, LoopLimit, did_you_mean
from perdure.graph.arguments import freeze, leaves
from perdure.graph.node import Alias, Call, Mention, Node, TaskSpec, path_of, source_of
from perdure.plan import StepOptions
from perdure.task import Task, task

A = TypeVar("A")
B = TypeVar("B")
S = TypeVar("S")


@overload
def when(cond: Any, then: A, otherwise: B) -> A | B: ...
@overload
def when(cond: Any, then: A) -> A | None: ...
def when(cond: Any, then: Any, otherwise: Any = None) -> Any:
    """Make a node whose value is that of ``then`` if ``cond`` is true, else of ``otherwise``.

    Only the chosen branch runs. What only the other one needs is SKIPPED, with the reason.

    Args:
        cond: a node, a parameter or a value; its truth is taken as Python takes it. A ``Failure``
            is neither true nor false: the step fails.
        then: a node, a value, or a container with nodes inside.
        otherwise: the same.
    """
    choice = _which.options(name="when.choice").bind(cond)
    return _select("when", choice, {"then": then, "otherwise": otherwise})


@overload
def switch(key: Any, cases: Mapping[Any, A], default: B) -> A | B: ...
@overload
def switch(key: Any, cases: Mapping[Any, A]) -> A: ...
def switch(key: Any, cases: Any, default: Any = None) -> Any:
    """Make a node whose value is that of the case of this key, else of ``default``.

    Only that branch runs. A key that is no case, without a default, fails with the cases' names.

    Args:
        key: a node, a parameter or a value; compared with the keys of ``cases`` by equality.
        cases: nodes or values by key.
        default: for any other key; None: there is no such branch.

    Raises:
        DefinitionError: there are no cases.
    """
    if not isinstance(cases, Mapping) or not cases:
        raise DefinitionError("switch(key, {...}) needs cases: a dict of branches by key")
    branches = {str(name): branch for name, branch in cases.items()}
    if default is not None:
        branches["default"] = default
    choice = _case.options(name="switch.choice").bind(key, list(cases), default is not None)
    return _select("switch", choice, branches)


@task(cpus=0)
def _which(cond: Any) -> int:
    _refuse_failure(cond, "when: the condition")
    return 0 if cond else 1


@task(cpus=0)
def _case(key: Any, cases: list[Any], has_default: bool) -> int:
    _refuse_failure(key, "switch: the key")
    if key in cases:
        return cases.index(key)
    if has_default:
        return len(cases)
    names = ", ".join(map(repr, cases))
    near = did_you_mean(str(key), [str(case) for case in cases])
    raise ValueError(f"switch: there is no case {key!r}{near} (cases: {names}) and no default=")


def _refuse_failure(value: Any, what: str) -> None:
    """Refuse a caught failure: Python takes it for true, so a failed check would be an approval."""
    if isinstance(value, Failure):
        raise DefinitionError(
            f"{what} is a caught failure, {value.type} of step {value.step_id}, which decides "
            "nothing: say in a task what it means, `return not isinstance(x, "
            "perdure.Failure) and x`, and take the value of that"
        )


@task(name="branch", cpus=0)
def _branch(value: Any, also: Any = None) -> Any:
    """Return what a branch comes to that is no single step; ``also`` belongs to it."""
    return value


def _selected(choice: int, *branches: Any) -> Any:
    """Stand for the step that the engine carries out; nobody calls it."""
    raise AssertionError("a select step is carried out by the engine")


def _select(name: str, choice: Any, branches: Mapping[str, Any]) -> Any:
    spec = TaskSpec(
        function=_selected, name=name, options=StepOptions(cpus=0.0), branches=tuple(branches)
    )
    select: Task[..., Any] = Task(_selected, spec)
    for label, branch in branches.items():
        _refuse_function(branch, f"{name}: the branch {label!r}")
    return select.bind(choice, *(_as_step(branch) for branch in branches.values()))


def _refuse_function(branch: Any, what: str) -> None:
    """Refuse a branch that nobody would ever call."""
    if type(branch) is Node or not (inspect.isroutine(branch) or hasattr(branch, "bind")):
        return
    called = getattr(branch, "__name__", "")
    called = called if called.isidentifier() else "f"
    if hasattr(branch, "bind"):
        raise DefinitionError(f"{what} is {called} itself, no call of it: write {called}.bind(...)")
    raise DefinitionError(
        f"{what} is a function, which nobody would call: write @task above it, and "
        f"{called}.bind(...) here"
    )


def _as_step(branch: Any) -> Any:
    """Return a branch as the node of one step: with a workflow in it, all that it is to run."""
    if type(branch) is Node and isinstance(source_of(branch), Call) and not path_of(branch):
        return branch
    inside: list[Node] = []
    freeze(branch, "a branch", inside)
    aliases = [source for node in inside if isinstance(source := source_of(node), Alias)]
    ends = _ends_of([call for alias in aliases for call in alias.members])
    if not ends:
        return _branch.bind(branch)
    return _branch.bind(branch, [Mention(Node(end)) for end in ends])


def _ends_of(members: Sequence[Call]) -> Collection[Call]:
    """Return the calls of sub-workflows that no other one of these takes.

    All of them belong to these. To name each call would be to want it, also one that is in a branch
    within the sub-workflow and is not chosen there.
    """
    taken = {source_of(leaf) for member in members for use in member.uses for leaf in leaves(use)}
    return dict.fromkeys(member for member in members if member not in taken)


# --- loops --------------------------------------------------------------------------------------
def loop(
    body: Callable[[S], S] | Any,
    init: S,
    *,
    until: Callable[[S], bool] | Any,
    max_iterations: int | Any,
) -> S:
    """Make a node that applies ``body`` again and again, until ``until`` says of its value: enough.

    Each round is a step of ``body``, recorded as any; a resume goes on with the round that it was
    in. ``body`` runs at least once.

    Args:
        body: a task or workflow of one argument, the state; it returns the next state.
        init: the first state: a value, a node or a parameter.
        until: a function (or task) of the state that says whether it is the last; it is called
            in the loop's own step.
        max_iterations: rounds after which the loop fails with ``LoopLimit``; at least 1.

    Raises:
        DefinitionError: ``body`` cannot be bound, ``until`` not be called, or the limit is no
            positive number.
    """
    if not hasattr(body, "bind"):
        raise DefinitionError(f"loop: body is {body!r:.80}; write @task or @workflow above it")
    if not callable(until):
        raise DefinitionError(f"loop: until={until!r:.80} is no function of the state")
    if type(max_iterations) is not Node:
        _check_limit(max_iterations)
    return cast(S, _loop.bind(body, until, body.bind(init), 1, max_iterations))


def _check_limit(most: Any) -> None:
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise DefinitionError(f"loop: max_iterations={most!r}: write a whole number, 1 or more")


@task(name="loop", cpus=0)
def _loop(body: Any, until: Any, state: Any, done: int, most: Any) -> Any:
    _check_limit(most)
    if _is_enough(until, state):
        return state
    if done >= most:
        raise LoopLimit(
            f"the loop over {_name_of(body)} was not done after {done} rounds: its `until` never "
            f"held. Raise max_iterations={most}, or let `until` hold earlier"
        )
    return _loop.bind(body, until, body.bind(state), done + 1, most)


def _is_enough(until: Any, state: Any) -> bool:
    function = until.function if isinstance(until, Task) else until
    return bool(function(state))


def _name_of(body: Any) -> str:
    return str(getattr(body, "__name__", "its body"))
