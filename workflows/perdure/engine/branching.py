"""Branches: which steps are wanted, which branch is chosen, and what is skipped for it.

A *select* step has the value of one of its branches. It refers to them lazily: a step that is
needed only so is conditional, and becomes ready only once it is wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from perdure.engine.endings import count_ended, row_of
from perdure.engine.state import RunState, StepState
from perdure.plan import FromInput, FromStep, StateOf, needs
from perdure_storage.errors import InternalError
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Place, StepId, StepKey, StepRecord

CHOSE = "has the value of "
"""What the reason of a select's row begins with: none of its code ran, and nothing was reused."""


def find_conditional(run: RunState, added: Sequence[StepState]) -> None:
    """Note of steps that were just added who needs them, and that those only lazily needed wait.

    Steps of a plan without branches are all wanted from the start, and nothing is noted.
    """
    if not any(step.branches for step in added):
        return
    for step in added:
        for ref in step.refs:
            if not isinstance(ref, FromInput | StateOf):
                run.steps[ref.step].users.append(step)
    for step in added:
        step.wanted = False
    run.ordered = run.ordered or any(step.plan.after for step in added)
    needed = [step for step in added if not step.users or step.id in run.outputs]
    for step in needed:
        _want_all(run, step)
    _want_awaited(run)


def _want_all(run: RunState, first: StepState) -> list[StepState]:
    """Want a step and all that it needs for certain; return those that were not wanted so far."""
    newly: list[StepState] = []
    stack = [first]
    while stack:
        step = stack.pop()
        if not step.wanted:
            step.wanted = True
            newly.append(step)
            stack += [run.steps[name] for name in _needs(step)]
    return newly


def _want_awaited(run: RunState) -> list[StepState]:
    """Want steps of branches for which the choice between these waits: they cannot wait for it.

    That is so where the choice is ``after=`` such a step. Order alone wants nothing otherwise: a
    step that is skipped counts as done for those that are after it.
    """
    newly: list[StepState] = []
    while run.ordered and (awaited := _awaited(run)):
        for step in awaited:
            newly += _want_all(run, step)
    return newly


def _awaited(run: RunState) -> list[StepState]:
    undecided = [s for s in run.steps.values() if s.branches and s.wanted and s.chosen is None]
    lazily = {select.id: _lazily_needed(run, select) for select in undecided}
    found = [
        name for select in undecided for name in lazily[select.id] & _before(run, select, lazily)
    ]
    return sorted((run.steps[name] for name in set(found)), key=lambda step: step.position)


def _lazily_needed(run: RunState, select: StepState) -> set[str]:
    """Return the steps that nobody wants so far, and a branch of this select needs."""
    found: set[str] = set()
    stack = _named(select)[1:]
    while stack:
        step = run.steps[stack.pop()]
        if not step.wanted and step.status is StepStatus.PENDING and step.id not in found:
            found.add(step.id)
            stack += needs(step.plan)
    return found


def _before(run: RunState, select: StepState, lazily: Mapping[str, Collection[str]]) -> set[str]:
    """Return what a choice waits for: by value, by order, and for other choices by these."""
    found: set[str] = set()
    stack = _named(select)[:1]
    while stack:
        step = run.steps[stack.pop()]
        if step.id in found or step.is_done:
            continue
        found.add(step.id)
        stack += (*_needs(step), *step.plan.after)
        if step.answer:
            stack.append(step.answer)
        if not step.wanted:
            others = (name for name, steps in lazily.items() if step.id in steps)
            stack += [_named(run.steps[name])[0] for name in others]
    return found


def _needs(step: StepState) -> list[str]:
    """Return the steps that a step refers to, but for branches that are not chosen."""
    if not step.branches:
        return needs(step.plan)
    choice, *branches = _named(step)
    return [choice] + ([branches[step.chosen]] if step.chosen is not None else [])


def _named(select: StepState) -> list[str]:
    """Return the ids of a select's choice and of its branches, in order."""
    return [ref.step for ref in select.refs if isinstance(ref, FromStep)]


def choose(run: RunState, select: StepState, now: datetime) -> list[StepState]:
    """Let a select have the branch that its choice says; return the steps that may move on now.

    Steps that only other branches need are skipped. Where the choice's value is only pretended,
    as in a run that is explained, every branch may be the one.
    """
    choice, *branches = _named(select)
    index = _index(run.steps[choice])
    chosen = range(len(branches)) if index is None else [index]
    select.chosen = chosen[0]
    moved: list[StepState] = []
    for number in chosen:
        branch = run.steps[branches[number]]
        if branch.id not in select.deps:
            select.deps += (branch.id,)
            branch.consumers.append(select)
            branch.open_consumers += not select.is_done
        newly = [*_want_all(run, branch), *_want_awaited(run)]
        moved += [_wanted_again(run, step) for step in newly]
    select.missing = run.missing_of(select)
    if index is not None:
        name = select.branches[index]
        for number, branch_id in enumerate(branches):
            if number != index:
                why = f"the branch {select.branches[number]!r} of {select.id} was not chosen"
                moved += _skip(run, run.steps[branch_id], f"{why}, but {name!r}", now)
    return moved


def has_changed_its_mind(run: RunState, select: StepState) -> bool:
    """Say whether the choice, made anew, says another branch; it is forgotten then."""
    choice, *branches = _named(select)
    if select.chosen is None or _index(run.steps[choice]) in (None, select.chosen):
        return False
    branch = run.steps[branches[select.chosen]]
    select.deps = tuple(dep for dep in select.deps if dep != branch.id)
    branch.consumers[:] = [consumer for consumer in branch.consumers if consumer is not select]
    select.chosen = None
    return True


def chosen_branch(run: RunState, select: StepState) -> StepState:
    """Return the branch whose value a select has."""
    assert select.chosen is not None
    return run.steps[_named(select)[select.chosen + 1]]


def _index(choice: StepState) -> int | None:
    """Return which branch was chosen; None: not yet, or the choice is only pretended."""
    if choice.value is None:
        return None
    if choice.value.place is not Place.INLINE:
        raise InternalError(f"the choice of {choice.id} is not in its row")
    if not choice.value.data:
        return None
    index: int = msgspec.json.decode(choice.value.data)
    return index


def _wanted_again(run: RunState, step: StepState) -> StepState:
    """Let a step that had been skipped, now or in an earlier life of the run, have a new life."""
    if step.status is StepStatus.SKIPPED:
        run.outbox.supersede(StepKey(StepId(step.id), step.generation))
        step.open_generation("its branch is chosen now")
        step.wanted = True
        run.unfinished += 1
        for dep in step.deps:
            run.steps[dep].open_consumers += 1
        step.missing = run.missing_of(step)
    forget_skipped(run, step)
    return step


def forget_skipped(run: RunState, step: StepState) -> None:
    """Take the row out of force by which a step was skipped in an earlier life of the run."""
    row = run.skipped.pop(step.id, None)
    if row is not None:
        run.outbox.supersede(StepKey(row.step_id, row.generation))


def _skip(run: RunState, first: StepState, reason: str, now: datetime) -> list[StepState]:
    """Skip a step that nobody will want any more, and what only it needs; return what is freed."""
    freed: list[StepState] = []
    stack = [first]
    while stack:
        step = stack.pop()
        if step.wanted or step.status is not StepStatus.PENDING or _may_be_wanted(step):
            continue
        step.status = StepStatus.SKIPPED
        step.reason = reason
        _record(run, step, now)
        freed += count_ended(run, step)  # those that are after it without taking its value
        stack += [run.steps[name] for name in needs(step.plan)]
    return freed


def _may_be_wanted(step: StepState) -> bool:
    """Say whether somebody may still come to need it."""
    return any(_may_want(user, step) for user in step.users)


def _may_want(user: StepState, step: StepState) -> bool:
    if user.status in (StepStatus.SKIPPED, StepStatus.CANCELLED):
        return False
    if not user.branches or user.chosen is None:
        return True
    return step.id in _needs(user)


def _record(run: RunState, step: StepState, now: datetime) -> None:
    old = run.skipped.pop(step.id, None)
    if old is not None:  # it was skipped before, and the row stands
        step.generation = old.generation
        return
    ended = run.ended.pop(step.id, None)
    if ended is not None:  # nobody needed it before
        run.outbox.supersede(StepKey(ended.step_id, ended.generation))
    run.outbox.steps.append(row_of(run, step, StepStatus.SKIPPED, now, code=""))


def choose_again(run: RunState, rows: Iterable[StepRecord], now: datetime) -> None:
    """Take up what was skipped, after a run was loaded: where selects are done, their choice is.

    A row by which a step was skipped is out of force where the step is wanted now.
    """
    for row in rows:
        step = run.steps.get(row.step_id)
        if row.status is not StepStatus.SKIPPED or not row.current:
            continue
        if step is None or step.wanted:
            run.outbox.supersede(StepKey(row.step_id, row.generation))
        else:
            run.skipped[row.step_id] = row
    settle_selects(run, run.steps.values(), now)


def settle_selects(run: RunState, steps: Iterable[StepState], now: datetime) -> list[StepState]:
    """Choose for the selects among steps that came into the state done, so that the rest ends.

    Returns the steps that may move on now. Where a choice is being made again it is waited for.
    """
    moved: list[StepState] = []
    for step in list(steps):
        if step.branches and step.status is StepStatus.SUCCEEDED and step.chosen is None:
            choice = run.steps[_named(step)[0]]
            if choice.is_done and _index(choice) is not None:
                moved += choose(run, step, now)
    return moved
