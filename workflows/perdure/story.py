"""Why a step ran, was taken over, is retried or waits, and how its attempts went: from its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from perdure import words
from perdure.plan import GIVEN, request_of
from perdure.progress.causes import (
    HOW_ENDED,
    how_ended,
    how_far,
    how_long,
    is_choice,
    of_saves,
    of_wait,
    standing_of,
)
from perdure.results import item_of
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import AttemptRecord, Cause, ErrorRecord, StepRecord

if TYPE_CHECKING:
    from perdure.runs import Generation, Run, Step
    from perdure_storage.records import StoredValue

_TOLD = 20
_UNMET = 5
_NAMED = 3
_ONE_LINE = 500
_UNDER_WAY = {
    StepStatus.RUNNING: "running",
    StepStatus.READY: "to be retried",
    StepStatus.WAITING: "waiting",
    StepStatus.FAILED: "failed",
}
"""Steps of these statuses are named where a graph is told of, and the others counted."""
_COUNTED = {
    "reused": "reused",
    "caught": "failed and caught",
    "FAILED": "failed",
    "RUNNING": "running",
    "not finished": "not finished",
    "not begun": "not begun",
}
"""Where steps stand that are counted beside those that are done."""
_STOPPED = (RunStatus.INTERRUPTED, RunStatus.PAUSED)


class Siblings:
    """The steps of a run, which are part of each other's stories: read once, when first needed.

    Args:
        run: the run.
        steps: its steps, where they have been read already.
    """

    def __init__(self, run: Run, steps: Sequence[Step] | None = None) -> None:
        self._run = run
        self._steps = steps

    @cached_property
    def steps(self) -> Sequence[Step]:
        """Return all steps, in plan order."""
        return self._run.steps() if self._steps is None else self._steps

    @cached_property
    def run_status(self) -> str:
        """Return where their run stands."""
        return str(self._run.status)

    @cached_property
    def waits_for_host(self) -> str:
        """Return why no host that is up takes their run on; "" if one does."""
        return self._run.waits_for_host

    @cached_property
    def waits_in_line(self) -> str:
        """Return why the queue of their run keeps it from going on; "" if it does not."""
        return self._run.waits_in_line

    @cached_property
    def departures(self) -> dict[str, list[str]]:
        """Return which hosts left their run to others, and why, by the step that showed it."""
        told: dict[str, list[str]] = {}
        for event in self._run.events():
            if event.kind == "handed-back" and event.step_id is not None:
                who = event.detail.get("place", "one")
                why = words.one_line(
                    f"{who} left its run to another host: {event.detail['why']}", _ONE_LINE
                )
                told.setdefault(event.step_id, []).append(words.printable(why))
        return told

    @cached_property
    def ends(self) -> dict[str, datetime]:
        """Return when each gave what others may need: its value, or a graph in place of it."""
        return {step.id: at for step in self.steps if (at := _gave_at(step)) is not None}

    @cached_property
    def began(self) -> datetime | None:
        """Return when their run was first taken on."""
        return self._run.record.started_at

    @cached_property
    def values(self) -> dict[str, StoredValue | None]:
        """Return the values of those that have ended, by step id."""
        return {step.id: step.row.value for step in self.steps if step.row is not None}

    @cached_property
    def members(self) -> dict[str, list[Step]]:
        """Return the steps of the graphs that steps gave, by the step that gave them."""
        return _members(self.steps)

    @cached_property
    def left(self) -> dict[str, str]:
        """Return why steps have no end though their run has ended, by step id."""
        return of_left(self.steps, self.run_status)

    @cached_property
    def unended(self) -> list[str]:
        """Return the ids of those that have not ended, in plan order."""
        return [step.id for step in self.steps if step.row is None]


def of_run(run: Run) -> str:
    """Return why a run does not go on, if it does not; else how far it came, and what is next."""
    status = run.status
    if held_up := run.waits_in_line or run.waits_for_host:
        return f"{run.id} is {status}: it {held_up}"
    if unplanned := run.unplanned:
        return f"{run.id} is {status}: it has no plan yet: {unplanned}"
    siblings = Siblings(run)
    first = f"{run.id} is {status}{_counted(run, siblings.steps)}"
    return "\n".join([first, *(f"  {line}" for line in _more_of_run(run, status, siblings))])


def _counted(run: Run, steps: Sequence[Step]) -> str:
    """Return how many of a run's steps stand where, and how long that took."""
    if not steps:
        return ""
    standings = Counter(map(standing_of, steps))
    done = sum(map(_has_value, steps))
    parts = [f"{words.count(done)} of {words.count_of(len(steps), 'step')} done"]
    parts += [
        f"{words.count(standings[standing])} {name}"
        for standing, name in _COUNTED.items()
        if standings[standing]
    ]
    record = run.record
    if record.started_at is not None and record.finished_at is not None:
        took = (record.finished_at - record.started_at).total_seconds()
        parts.append(f"in {words.duration(took)}")
    return f": {', '.join(parts)}"


def _more_of_run(run: Run, status: RunStatus, siblings: Siblings) -> Iterator[str]:
    """Yield what is to be known beside numbers: what failed, what is under way, what to type."""
    error = run.record.error
    if error is not None:
        yield f"step {error.step_id}: {_error(error)}" if error.step_id else _error(error)
    waiting = [step for step in siblings.steps if step.wait is not None]
    for step in waiting[:_UNMET]:
        yield _why(step, siblings)
    running = [step.id for step in siblings.steps if step.status is StepStatus.RUNNING]
    if running:
        yield f"{_some(running)} {'runs' if len(running) == 1 else 'run'}"
    yield from _of_late_leases(run)
    if status in (*_STOPPED, RunStatus.FAILED, RunStatus.CANCELLED):
        yield run.next_command


def _of_late_leases(run: Run) -> Iterator[str]:
    """Yield how often who drove the run was silent for longer than its lease, if it was."""
    late = [event for event in run.events() if event.kind == "lease late"]
    if late:
        longest = words.duration(max(event.detail["silent_s"] for event in late))
        yield (
            f"its lease ran out {words.count_of(len(late), 'time')} before it was renewed, after up"
            f" to {longest}: its process was stopped, or a step that runs inline held Python's lock"
        )


def waited_s(step: Step, siblings: Siblings) -> float | None:
    """Return how long a step waited for its turn, once nothing that it needs was missing."""
    began = next((each.started_at for each in step.attempts if each.started_at), None)
    needs = [*step.inputs, *([step.root] if step.root is not None else [])]
    ready = [siblings.ends[name] for name in needs if name in siblings.ends]
    if siblings.began is not None:
        ready.append(siblings.began)
    if began is None or not ready:
        return None
    return max(0.0, (began - max(ready)).total_seconds())


def _gave_at(step: Step) -> datetime | None:
    """Return when a step ended; of one that gave a graph, when it gave that."""
    if step.attempts:
        return step.attempts[-1].finished_at
    return step.row.finished_at if step.row is not None else None


def why(step: Step, siblings: Siblings) -> str:
    """Return why a step ran, was taken over, is retried or waits, and how its attempts went."""
    left = [f"  {line}" for line in siblings.departures.get(step.id, [])]
    return "\n".join([_why(step, siblings), *left])


def _why(step: Step, siblings: Siblings) -> str:
    if step.row is not None:
        told = _with_saves(of_ended(step.row, step.attempts), step)
        if step.row.generation == 1:
            return told
        return "\n".join([told, *map(of_generation, step.generations)])
    if step.wait is not None:
        now = step.run.runtime.clock.now()
        return f"{step.id} waits for {of_wait(step.wait, step.run.signal_command, now=now)}"
    members = siblings.members.get(step.id)
    if members and (step.is_left or step.status is StepStatus.WAITING):
        return _of_giver(step, members, siblings)
    told = of_unended(
        step.id,
        step.status,
        step.attempts,
        unmet=lambda: _unmet(step, siblings),
        left=lambda: siblings.left[step.id],
        run_status=siblings.run_status,
        asks=lambda: request_text(step),
        held_up=siblings.waits_in_line or siblings.waits_for_host,
    )
    return _with_saves(told, step)


def given_by(step: Step, siblings: Siblings) -> str:
    """Return what a step gave in place of a value that it has not: its graph; "" if nothing."""
    members = siblings.members.get(step.id)
    if not members or step.row is not None:
        return ""
    return "its items" if _items(members) else "its graph"


def _of_giver(step: Step, members: Sequence[Step], siblings: Siblings) -> str:
    """Return the story of a step that gave a graph, and has no value of it, or not yet."""
    gave = f"gave {given_by(step, siblings)}"
    if step.is_left:
        told = f"{step.id} has no value: {siblings.left[step.id]}"
        return _with_tries(told, step.attempts, 1, succeeded=gave)
    told = f"{step.id} waits for {_awaited(members)}"
    held_up = siblings.waits_in_line or siblings.waits_for_host
    if held_up:
        told += f"; its run {held_up}"
    elif siblings.run_status in _STOPPED:
        told += f"; its run is {siblings.run_status}"
    return _with_tries(told, step.attempts, succeeded=gave)


def _with_saves(told: str, step: Step) -> str:
    """Add what the next attempt would go on from; a step with a value has nothing of that."""
    return f"{told}\n  {of_saves(step.saves)}" if step.saves else told


def request_text(step: Step) -> str:
    """Return what a step asks for in words: ``cpus=1, gpus=0.5``."""
    asked = request_of(step.graph.options[step.plan.options])
    return ", ".join(words.amount(name, amount) for name, amount in asked.items() if amount)


def _unmet(step: Step, siblings: Siblings) -> list[str]:
    taken = set(step.inputs)
    return [name for name in siblings.unended if name in taken]


def of_ended(row: StepRecord, attempts: Sequence[AttemptRecord]) -> str:
    """Return the story of a step that has a row: why it ran or did not, and each try."""
    reason = row.reason or "it had not run before"
    if row.status is StepStatus.SKIPPED:
        return f"{row.step_id} was skipped: {reason}"
    if row.status is StepStatus.CANCELLED:
        return _with_tries(f"{row.step_id} was cancelled: {reason}", attempts, least=1)
    if is_choice(row):
        return f"{row.step_id} {reason}"
    if row.attempt == 0:
        did = "did not run: " if row.own.startswith(GIVEN) else "was taken over: "
        if reason.startswith("taken over from "):
            did = "was "
        return _with_tries(f"{row.step_id} {did}{reason}", attempts, least=1)
    first = f"{row.step_id} ran ({_count(attempts, row)}): {reason}"
    if row.error is not None and len(attempts) < 2:
        caught = " and that was caught" if row.caught else ""
        first += f"; it failed{caught}: {_error(row.error)}"
    return _with_tries(first, attempts)


def of_unended(
    step_id: str,
    status: StepStatus,
    attempts: Sequence[AttemptRecord],
    *,
    unmet: Callable[[], Sequence[str]],
    left: Callable[[], str],
    run_status: str,
    asks: Callable[[], str] = lambda: "",
    held_up: str = "",
) -> str:
    """Return the story of a step that has no row yet, or never got one.

    Args:
        step_id: the step.
        status: where it stands.
        attempts: its tries so far.
        unmet: finds the steps that it takes values of and that have not ended.
        left: finds why it was left when its run ended.
        run_status: where its run stands.
        asks: finds what it asks for.
        held_up: why nobody takes its run on.
    """
    if status is StepStatus.RUNNING:
        far = f": {how_far(attempts[-1].progress)}" if attempts[-1].progress else ""
        return _with_tries(f"{step_id} runs (attempt {attempts[-1].attempt}){far}", attempts)
    if status is StepStatus.READY:
        return _with_tries(f"{step_id} waits for another attempt{_when(attempts)}", attempts, 1)
    if status is StepStatus.CANCELLED:
        did = "was not finished" if attempts else "did not run"
        return _with_tries(f"{step_id} {did}: {left()}", attempts, 1)
    missing = unmet()
    if status is StepStatus.PENDING and missing:
        return f"{step_id} waits for {_some(missing)}"
    if status is StepStatus.PENDING and run_status == "RUNNING" and (asked := asks()):
        return f"{step_id} could begin, and waits for its turn: until {asked} are free"
    if status is StepStatus.PENDING:
        more = f", and {held_up}" if held_up else ""
        return f"{step_id} has not begun: its run is {run_status}{more}"
    more = f": its run {held_up}" if held_up else ""
    return f"{step_id} is {status}{more}"


def of_left(steps: Sequence[Step], run_status: str) -> dict[str, str]:
    """Return why steps have no end though their run has ended, by step id.

    Args:
        steps: all steps of the run.
        run_status: how it ended.
    """
    by_id = {step.id: step for step in steps}
    members = _members(steps)
    values = {step.id: step.row.value for step in steps if step.row is not None}
    said: dict[str, str] = {}
    for step in steps:
        if not step.is_left:
            continue
        unmet = [name for name in step.inputs if name in by_id and not _has_value(by_id[name])]
        if step.id in members:
            said[step.id] = _of_graph(members[step.id], values)
        elif unmet:
            said[step.id] = f"it takes the value of {_lacking(by_id, members, unmet)}"
        else:
            said[step.id] = f"the run ended as {run_status} first"
    return said


def _members(steps: Sequence[Step]) -> dict[str, list[Step]]:
    members: dict[str, list[Step]] = {}
    for step in steps:
        if step.root is not None:
            members.setdefault(step.root, []).append(step)
    return members


def _items(members: Sequence[Step]) -> list[Step]:
    """Return the steps of a graph that are items of a map: all but the one that lists them."""
    return [step for step in members if step.plan.item is not None]


def _failed(members: Sequence[Step]) -> list[Step]:
    return [step for step in _items(members) or members if step.status is StepStatus.FAILED]


def _of_graph(members: Sequence[Step], values: Mapping[str, StoredValue | None]) -> str:
    """Return how far the graph of a step came: which items failed, how many are done."""
    failed = _failed(members)
    named = [f"{step.id}{_item(step, values)}" for step in failed[:_NAMED]]
    more = [f"and {len(failed) - _NAMED} more"] if len(failed) > _NAMED else []
    return _how_far(members) + (f": {'; '.join([*named, *more])}" if named else "")


def _how_far(members: Sequence[Step]) -> str:
    """Return how many of a graph stand where: "34 of 100 items failed, 66 done"."""
    items = _items(members)
    counted, what = (items, "item") if items else (members, "step")
    failed = len(_failed(members))
    done = sum(_has_value(step) for step in counted)
    begun = sum(bool(step.is_left and step.attempts) for step in counted)
    numbers = {
        "failed": failed,
        "done": done,
        "not finished": begun,
        "not begun": len(counted) - failed - done - begun,
    }
    first, *others = ((name, number) for name, number in numbers.items() if number)
    return ", ".join(
        [
            f"{words.count(first[1])} of {words.count_of(len(counted), what)} {first[0]}",
            *(f"{words.count(number)} {name}" for name, number in others),
        ]
    )


def _awaited(members: Sequence[Step]) -> str:
    """Return what a step waits for that gave a graph: which of it are under way, and how many."""
    items = _items(members)
    if items and all(step.row is not None for step in items):
        return _some([step.id for step in members if step.row is None])
    whole = f"its {words.count_of(len(items), 'item')}"
    if not items:
        whole = f"the {words.count_of(len(members), 'step')} of its graph"
    statuses: dict[StepStatus, list[str]] = {}
    for step in items or members:
        statuses.setdefault(step.status, []).append(step.id)
    done = sum(map(_has_value, items or members))
    parts = [f"{words.count(done)} done" if done else ""]
    parts += [
        f"{words.count(len(statuses[status]))} {name} ({_some(statuses[status], _NAMED)})"
        for status, name in _UNDER_WAY.items()
        if status in statuses
    ]
    pending = len(statuses.get(StepStatus.PENDING, ()))
    parts += [f"{words.count(pending)} not begun" if pending else ""]
    return f"{whole}: {', '.join(filter(None, parts))}"


def _item(step: Step, values: Mapping[str, StoredValue | None]) -> str:
    item = item_of(step.plan, step.graph.constants, values)
    return f" ({item})" if item else ""


def _has_value(step: Step) -> bool:
    return step.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)


def _lacking(
    by_id: Mapping[str, Step], members: Mapping[str, Sequence[Step]], names: Sequence[str]
) -> str:
    """Return which values are not there, and why: those that failed first, for they are why."""
    failed = [name for name in names if by_id[name].status is StepStatus.FAILED]
    broken = [name for name in names if _failed(members.get(name, ()))]
    told = f"{_some(failed)}, which failed" if failed else ""
    if not failed and (broken or len(names) == 1):
        failed = [(broken or names)[0]]
        told = f"{failed[0]}, which has none: {_why_none(by_id[failed[0]], members)}"
    if not failed:
        return f"{_some(names)}, which have none"
    others = len(names) - len(failed)
    return f"{told}; {words.count_of(others, 'other')} had not ended" if others else told


def _why_none(step: Step, members: Mapping[str, Sequence[Step]]) -> str:
    if step.id in members:
        return _how_far(members[step.id])
    return "it was not finished" if step.attempts else "it did not run"


def _some(names: Sequence[str], up_to: int = _UNMET) -> str:
    more = f" and {words.count(len(names) - up_to)} more" if len(names) > up_to else ""
    return f"{', '.join(names[:up_to])}{more}"


def of_generation(life: Generation) -> str:
    """Return what one life of a step's result came to, in a line."""
    seen = words.shown(life.preview)
    value = f" with {seen}" if seen else ""
    counts = ", which counts" if life.is_current else ""
    reason = life.reason or "it had not run before"
    return words.printable(
        f"  generation {life.number} ended as {life.status}{value}{counts}: {reason}"
    )


def of_attempt(attempt: AttemptRecord, succeeded: str = HOW_ENDED[Cause.SUCCEEDED]) -> str:
    """Return how one try went, in a line; ``succeeded`` is what it did if it did."""
    again = f"generation {attempt.generation}, " if attempt.generation > 1 else ""
    name = f"{again}attempt {attempt.attempt}"
    far = f", {how_far(attempt.progress)}" if attempt.progress is not None else ""
    if attempt.cause is None:
        return f"{name} runs{far}"
    ran = how_long(attempt)
    took = f" after {words.duration(ran.total_seconds())}" if ran is not None else ""
    what = f": {_error(attempt.error)}" if attempt.error is not None else ""
    ended = succeeded if attempt.cause is Cause.SUCCEEDED else how_ended(attempt)
    return f"{name} {ended}{took}{far}{what}"


def _count(attempts: Sequence[AttemptRecord], row: StepRecord) -> str:
    own = [attempt for attempt in attempts if attempt.generation == row.generation]
    return f"{len(own)} attempts" if len(own) > 1 else f"attempt {row.attempt}"


def _with_tries(
    first: str,
    attempts: Sequence[AttemptRecord],
    least: int = 2,
    *,
    succeeded: str = HOW_ENDED[Cause.SUCCEEDED],
) -> str:
    if len(attempts) < least:
        return first
    left_out = len(attempts) - _TOLD
    lines = [f"  {of_attempt(attempt, succeeded)}" for attempt in attempts[-_TOLD:]]
    if left_out > 0:
        lines.insert(0, f"  ({words.count_of(left_out, 'attempt')} before these)")
    return "\n".join([first, *lines])


def _when(attempts: Sequence[AttemptRecord]) -> str:
    when = attempts[-1].not_before if attempts else None
    return f", not before {when:%H:%M:%S} UTC" if when is not None else ""


def _error(error: ErrorRecord) -> str:
    said = words.failure(error.type, error.message, error.step_id)
    return words.printable(words.one_line(said, _ONE_LINE))
