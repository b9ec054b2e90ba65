"""From rows to a run in memory: the one constructor, for fresh and resumed runs alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from perdure.calls import CallId
from perdure.engine.actors import remember_lost
from perdure.engine.advance import hold
from perdure.engine.branching import choose_again, find_conditional
from perdure.engine.edits import Edits
from perdure.engine.growth import (
    find_effects,
    graft,
    ids_of_life,
    is_rooted,
    leave_ended,
    newest_links,
    outside,
    plan_of,
    reach,
    recall,
    retire_rows,
    settle_graft,
    source_of,
)
from perdure.engine.matching import Matching
from perdure.engine.needs import end_again, remember_races
from perdure.engine.saves import remember_saves
from perdure.engine.state import RunState, StepState
from perdure.engine.waits import wait_again
from perdure.plan import Plan
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    ErrorRecord,
    ExpansionRecord,
    RunEnd,
    RunRecord,
    SaveRecord,
    StepRecord,
    WaitRecord,
)

CAREFUL_TAKEOVERS = 3
"""Owners lost in a row without progress, after which a run's suspects start one at a time."""
_NONE: Mapping[str, list[StepRecord]] = {}
_NOTHING: Mapping[str, str] = {}
MAX_TAKEOVERS = 4
"""... after which the run fails and names them."""


def load_run(
    record: RunRecord,
    plan: Plan,
    fingerprints: Mapping[str, str],
    *,
    rows: Sequence[StepRecord] = (),
    attempts: Sequence[AttemptRecord] = (),
    own: Matching,
    donated: Matching | None = None,
    expansions: Sequence[ExpansionRecord] = (),
    grown: Mapping[str, list[StepRecord]] = _NONE,
    donated_grown: Mapping[str, list[StepRecord]] = _NONE,
    waits: Sequence[WaitRecord] = (),
    saves: Sequence[SaveRecord] = (),
    edits: Edits | None = None,
    noted: Mapping[str, str] = _NOTHING,
    now: datetime,
) -> RunState:
    """Build the state of a run from its rows: the one constructor, for fresh and resumed runs.

    Args:
        record: the run's row, just claimed.
        plan: its plan.
        fingerprints: of the plan's steps, by step id.
        attempts: every attempt of the run.
        rows: every step row of the run, history included.
        own: how the run's current rows match the plan.
        donated: how the rows of ``record.reuse_from`` match it, but for what is to be fresh.
        expansions: the graphs that steps gave, by step, generation and link.
        grown: rows of the steps of such graphs, by the step that waited.
        donated_grown: such rows of ``record.reuse_from``, by their name.
        waits: what steps wait or waited for.
        saves: what steps have saved while they ran.
        edits: of the code since the plans before: for reasons too.
        noted: how noted versions of packages differ, by function: for reasons.
        now: the time of the load, for the rows that it makes.
    """
    run = RunState(record, plan, fingerprints)
    find_conditional(run, list(run.steps.values()))
    run.edits = edits or run.edits
    run.noted = noted
    run.grown = dict(grown)
    run.donated = dict(donated_grown)
    _number_generations(run, rows, attempts)
    hold(run, own, now, reason=f"unchanged in {record.id}")
    retire_rows(run, own.obsolete)
    if donated is not None:
        held = {**donated.adopted, **donated.kept}
        taken = msgspec.structs.replace(donated, kept={}, adopted=held, obsolete=())
        hold(run, taken, now, reason=f"taken over from {record.reuse_from}")
    remember_lost(run, rows)
    remember_races(run, rows, waits)
    run.begun = _newest((attempt.step_id, attempt.generation) for attempt in attempts)
    _grow_again(run, expansions, now)
    lives = _newest((expansion.step_id, expansion.generation) for expansion in expansions)
    run.taken = _newest([*run.begun.items(), *lives.items()])
    run.begun = {}
    wait_again(run, waits)
    choose_again(run, rows, now)
    end_again(run, now)
    remember_saves(run, saves)
    _restore_failures(run, rows)
    _restore_attempts(run, attempts, now)
    if record.forked_from is not None and record.reuse_from is None:
        _explain_again(run, f"{record.forked_from} is run again from the start")
    run.count_missing(run.steps)
    _look_at_takeovers(run)
    return run


def _newest(lives: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the newest generation by step."""
    newest: dict[str, int] = {}
    for step_id, generation in lives:
        newest[step_id] = max(newest.get(step_id, 0), generation)
    return newest


def _grow_again(run: RunState, expansions: Iterable[ExpansionRecord], now: datetime) -> None:
    """Add the graphs again that steps had given which still wait for their value.

    Those of steps that are done come back where one of these refers to a step of them.
    """
    expansions = list(expansions)
    run.dormant = newest_links(expansions)
    # First: what a graph that waits was made from may be the state that another left an actor in.
    find_effects(run, list(run.steps), now)
    seen: set[str] = set()
    while roots := [run.steps[i] for i in run.dormant if i in run.steps and i not in seen]:
        # The first one first: what a graph refers to is upstream of it.
        for root in sorted(roots, key=lambda root: root.position):
            seen.add(root.id)
            expansion = run.dormant.get(root.id)  # None: it has come back meanwhile
            if expansion is not None and root.status is StepStatus.PENDING:
                _graft_again(run, root, expansion, expansions, now)


def _graft_again(
    run: RunState,
    root: StepState,
    expansion: ExpansionRecord,
    expansions: Sequence[ExpansionRecord],
    now: datetime,
) -> None:
    if expansion.generation != root.generation:
        return
    root.inputs = run.input_digests(root)
    links = _links(run, root, expansion, expansions, now)
    if expansion.source != source_of(run, root) or not links:
        # Its code, or what it consumes, is another: it gives a graph again, under a new number.
        root.generation += 1
        # From the same items as before, not from the value of them all: what it gave then may hold.
        for opened in root.opens:
            recall(run, run.steps[opened], now)
        return
    if len(links) == 1:
        run.placed[root.id] = ids_of_life(expansions, root.id, root.generation)
    for link in links:
        leave_ended(run, root)
        settle_graft(run, graft(run, root, link, plan_of(link)), now)


def _links(
    run: RunState,
    root: StepState,
    last: ExpansionRecord,
    expansions: Sequence[ExpansionRecord],
    now: datetime,
) -> list[ExpansionRecord]:
    """Return what is to be added of a step's chain of graphs: the last, or all up to it.

    All, where it refers to those before it: its calls of an actor come after theirs. None of them
    if something is gone that they refer to.
    """
    if is_rooted(run, plan_of(last), now):
        return [last]
    life = (root.id, root.generation)
    links = [each for each in expansions if (each.step_id, each.generation) == life]
    before: set[str] = set()
    for plan in map(plan_of, links):
        if not all(name in before or reach(run, name, now) for name in outside(plan)):
            return []
        before.update(step.id for step in plan.steps)
    return links


def _number_generations(
    run: RunState, rows: Iterable[StepRecord], attempts: Iterable[AttemptRecord]
) -> None:
    """Continue after the newest ended generation; an unfinished one goes on where it stood."""
    ended: dict[str, int] = {}
    for row in rows:
        ended[row.step_id] = max(ended.get(row.step_id, 0), row.generation)
    for step_id, generation in ended.items():
        if step_id in run.steps:
            run.steps[step_id].generation = generation + 1
    for attempt in attempts:
        step = run.steps.get(attempt.step_id)
        if step is not None and attempt.generation > step.generation:
            step.generation = attempt.generation


def _restore_failures(run: RunState, rows: Iterable[StepRecord]) -> None:
    for row in rows:
        is_open = row.current and row.status is StepStatus.FAILED and not row.caught
        if is_open and row.step_id in run.steps:
            step = run.steps[row.step_id]
            step.status, step.generation = StepStatus.FAILED, row.generation
            run.failure = run.failure or row.error


def _explain_again(run: RunState, reason: str) -> None:
    for step in run.steps.values():
        if not step.is_done:
            step.reason = step.reason or reason


def _restore_attempts(run: RunState, attempts: Iterable[AttemptRecord], now: datetime) -> None:
    """Count budgets already spent, and close the tries that were cut off by a dead owner."""
    suspects: dict[str, None] = {}
    for attempt in attempts:
        step = run.steps.get(attempt.step_id)
        if step is None or attempt.generation != step.generation or step.is_done:
            continue
        step.attempt = max(step.attempt, attempt.attempt)
        if step.status is StepStatus.WAITING:  # the try that gave its graph, or began to wait
            step.started_at, step.worker = attempt.started_at, attempt.worker
        count_cause(step, attempt.cause)
        step.not_before = attempt.not_before
        if attempt.cause is None:
            suspects[step.id] = None
            call = CallId(run.id, step.id, attempt.generation, attempt.attempt)
            run.outbox.attempts[call] = _abandoned(attempt, now)
        elif attempt.cause is Cause.ABANDONED and attempt.started_at is not None:
            suspects[step.id] = None
    run.suspects = tuple(suspects)


def count_cause(step: StepState, cause: Cause | None) -> None:
    """Charge the budget that this cause spends."""
    if cause in (Cause.USER_ERROR, Cause.TIMEOUT):
        step.user_errors += 1
    elif cause is Cause.WORKER_LOST:
        step.losses += 1
    elif cause is Cause.OUT_OF_MEMORY:
        step.out_of_memory += 1


def _abandoned(attempt: AttemptRecord, now: datetime) -> AttemptRecord:
    return AttemptRecord(
        run_id=attempt.run_id,
        step_id=attempt.step_id,
        generation=attempt.generation,
        attempt=attempt.attempt,
        cause=Cause.ABANDONED,
        worker=attempt.worker,
        started_at=attempt.started_at,
        finished_at=now,
    )


def _look_at_takeovers(run: RunState) -> None:
    """Treat a run with care whose owners die; without a step that ran then, none is to blame."""
    if not run.suspects:
        return
    if run.record.takeovers >= MAX_TAKEOVERS:
        names = ", ".join(run.suspects)
        run.ending = RunEnd(
            status=RunStatus.FAILED,
            error=ErrorRecord(
                type="perdure.errors.WorkerLost",
                message=(
                    f"{run.record.takeovers} processes in a row died while they drove this run, "
                    f"without a single commit. Running when the last one died: {names}. Likely its "
                    "native code crashes, or it needs more memory than there is"
                ),
                cause=Cause.WORKER_LOST,
                step_id=run.suspects[0],
            ),
        )
    run.one_at_a_time = run.record.takeovers >= CAREFUL_TAKEOVERS
