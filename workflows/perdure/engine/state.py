"""A run in memory: built from rows, one way for fresh and resumed runs alike.

``RunState`` is mutable and owned by one coordinator; only ``load_run`` makes one and only
``decide`` changes it. It can be thrown away and built again from rows at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from heapq import heappush

from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    ErrorRecord,
    EventRecord,
    Place,
    RunCommit,
    RunEnd,
    RunId,
    RunRecord,
    StepId,
    StepKey,
    StepRecord,
    StoredValue,
)

from perdure.calls import CallId
from perdure.engine.matching import Matching, match_name
from perdure.engine.placement import Shape, shape_of
from perdure.plan import (
    FromInput,
    FromStep,
    Path,
    Plan,
    StepOptions,
    StepPlan,
    collect,
    path_text,
    references,
)

OPAQUE = "opaque:"
"""Prefix of value digests whose difference proves nothing."""

DONE = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED})


class StepState:
    """One step of a run in memory: its newest generation and what it waits for."""

    __slots__ = (
        "attempt",
        "candidates",
        "consumers",
        "deps",
        "generation",
        "inputs",
        "losses",
        "missing",
        "not_before",
        "open_consumers",
        "options",
        "out_of_memory",
        "parts",
        "plan",
        "position",
        "ready_at",
        "reason",
        "rebuilt",
        "refs",
        "shape",
        "status",
        "unavailable",
        "user_errors",
        "value",
    )

    def __init__(self, plan: StepPlan, options: StepOptions, position: int, shape: Shape) -> None:
        self.plan = plan
        self.options = options
        self.position = position
        self.shape = shape
        self.refs: tuple[FromStep | FromInput, ...] = tuple(references(plan))
        self.deps: tuple[str, ...] = tuple(
            dict.fromkeys([r.step for r in self.refs if isinstance(r, FromStep)] + [*plan.after])
        )
        self.consumers: list[StepState] = []
        self.parts: tuple[Path, ...] = ()
        self.status = StepStatus.PENDING
        self.generation = 1
        self.attempt = 0
        self.user_errors = 0
        self.losses = 0
        self.out_of_memory = 0
        self.missing = 0
        self.open_consumers = 0
        self.value: StoredValue | None = None
        self.inputs: tuple[str, ...] = ()
        self.not_before: datetime | None = None
        self.ready_at: datetime | None = None
        self.reason = ""
        self.rebuilt = 0
        self.unavailable = 0
        self.candidates: tuple[StepRecord, ...] = ()

    @property
    def id(self) -> str:
        """Return the step id."""
        return self.plan.id

    @property
    def is_done(self) -> bool:
        """Say whether consumers may count on it."""
        return self.status in DONE

    @property
    def has_value(self) -> bool:
        """Say whether its bytes are somewhere, as far as is known."""
        return self.value is not None and self.value.place is not Place.NONE

    def open_generation(self, reason: str) -> None:
        """Begin a new life: nothing of the old one counts, budgets are fresh."""
        self.generation += 1
        self.status = StepStatus.PENDING
        self.attempt = self.user_errors = self.losses = self.out_of_memory = 0
        self.value = None
        self.not_before = None
        self.reason = reason


class RunState:
    """One run in memory. Changed by ``decide`` only.

    Attributes:
        ready: heaps of (position, generation, step id) by shape: what could start now.
        delayed: heap of (not_before, position, step id): retries that wait.
        running: attempts in flight.
        unfinished: number of steps that are not done.
        failure: the first final failure, which ends the run.
        ending: how the run will end once nothing runs any more; set by cancel and deadline.
        suspects: steps that were running when an owner died, for a run that kills its owners.
        one_at_a_time: such a run is driven with care.
        executor: name of the executor that runs its steps.
        outputs: steps of which the result is made; their values are always stored.
    """

    def __init__(self, record: RunRecord, plan: Plan, fingerprints: Mapping[str, str]) -> None:
        self.record = record
        self.plan = plan
        self.fingerprints = fingerprints
        self.steps: dict[str, StepState] = _steps(plan)
        self.ready: dict[Shape, list[tuple[int, int, str]]] = {}
        self.delayed: list[tuple[datetime, int, str]] = []
        self.running: dict[CallId, StepState] = {}
        self.unfinished = len(self.steps)
        self.failure: ErrorRecord | None = None
        self.ending: RunEnd | None = None
        self.paused = record.pause_requested
        self.suspects: tuple[str, ...] = ()
        self.one_at_a_time = False
        self.executor = record.policy.executor or "processes"
        self.outputs = output_steps(plan)
        self.outbox = Outbox()

    @property
    def id(self) -> RunId:
        """Return the run id."""
        return self.record.id

    @property
    def is_stopping(self) -> bool:
        """Say whether no new step may start."""
        return (
            self.ending is not None
            or self.paused
            or (self.failure is not None and self.record.policy.on_failure == "stop")
        )

    def input_digests(self, step: StepState) -> tuple[str, ...]:
        """Return the value digests of what the step would consume now, in reference order."""
        return tuple(self._digest(ref) for ref in step.refs)

    def _digest(self, ref: FromStep | FromInput) -> str:
        if isinstance(ref, FromInput):
            value: StoredValue | None = self.record.inputs[ref.name]
        else:
            value = self.steps[ref.step].value
        return part_digest(value, ref.path) if value is not None else ""


class Outbox:
    """Rows that the next commit of the run is to carry."""

    __slots__ = ("attempts", "end", "events", "lost", "steps", "superseded")

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []
        self.attempts: dict[CallId, AttemptRecord] = {}
        self.events: list[EventRecord] = []
        self.lost: list[StepKey] = []
        self.superseded: list[StepKey] = []
        self.end: RunEnd | None = None

    def take(self, run: RunState) -> RunCommit | None:
        """Empty the box into a commit, or return None if there is nothing to write."""
        if not (self.steps or self.attempts or self.events or self.lost or self.superseded):
            if self.end is None:
                return None
        owner = run.record.owner
        commit = RunCommit(
            run_id=run.id,
            owner=owner.token if owner else "",
            epoch=run.record.epoch,
            steps=tuple(self.steps),
            attempts=tuple(self.attempts.values()),
            events=tuple(self.events),
            lost=tuple(self.lost),
            superseded=tuple(self.superseded),
            end=self.end,
        )
        self.__init__()  # type: ignore[misc]
        return commit


def part_digest(value: StoredValue, path: Path) -> str:
    """Return the value digest of a projection.

    Where the part's own digest was not recorded the answer is opaque: equal ones are equal, but
    different ones prove nothing.
    """
    if not path:
        return value.value_digest
    text = path_text(path)
    return value.parts.get(text) or f"{OPAQUE}{value.value_digest}{text}"


def _steps(plan: Plan) -> dict[str, StepState]:
    shapes = {
        (index, is_async): shape_of(options, is_async=is_async)
        for index, options in enumerate(plan.options)
        for is_async in (False, True)
    }
    steps: dict[str, StepState] = {}
    for position, step in enumerate(plan.steps):
        shape = shapes[step.options, plan.functions[step.function].is_async]
        steps[step.id] = StepState(step, plan.options[step.options], position, shape)
    for state in steps.values():
        for dep in state.deps:
            steps[dep].consumers.append(state)
    _collect_parts(plan, steps)
    return steps


def _collect_parts(plan: Plan, steps: dict[str, StepState]) -> None:
    parts: dict[str, dict[str, Path]] = {}
    output: list[FromStep | FromInput] = []
    collect(plan.output, output)
    for ref in (*output, *(ref for state in steps.values() for ref in state.refs)):
        if ref.path and isinstance(ref, FromStep):
            parts.setdefault(ref.step, {})[path_text(ref.path)] = ref.path
    for step_id, paths in parts.items():
        steps[step_id].parts = tuple(paths.values())


def output_steps(plan: Plan) -> frozenset[str]:
    """Return the ids of the steps of which the run's result is made."""
    found: list[FromStep | FromInput] = []
    collect(plan.output, found)
    return frozenset(ref.step for ref in found if isinstance(ref, FromStep))


def load_run(
    record: RunRecord,
    plan: Plan,
    fingerprints: Mapping[str, str],
    *,
    rows: Sequence[StepRecord] = (),
    attempts: Sequence[AttemptRecord] = (),
    own: Matching,
    donated: Matching | None = None,
    now: datetime,
) -> RunState:
    """Build the state of a run from its rows: the one constructor, for fresh and resumed runs.

    Args:
        rows: every step row of the run, history included.
        own: how the run's current rows match the plan.
        donated: how the rows of ``record.reuse_from`` match it.
        now: the time of the load, for the rows that it makes.
    """
    run = RunState(record, plan, fingerprints)
    _number_generations(run, rows, attempts)
    _restore_rows(run, rows, own)
    _adopt(run, own, f"unchanged in {record.id}", now)
    if donated is not None:
        without_volatile = {
            step_id: row
            for step_id, row in {**donated.adopted, **donated.kept}.items()
            if not run.steps[step_id].options.volatile
        }
        _adopt_rows(run, without_volatile, f"taken over from {record.reuse_from}", now)
        _set_candidates(run, donated)
    _restore_attempts(run, attempts, now)
    for step in run.steps.values():
        step.missing = sum(not run.steps[dep].is_done for dep in step.deps)
        step.open_consumers = sum(not consumer.is_done for consumer in step.consumers)
    return run


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


def _restore_rows(run: RunState, rows: Iterable[StepRecord], own: Matching) -> None:
    for step_id, row in own.kept.items():
        step = run.steps[step_id]
        step.status = StepStatus.SUCCEEDED
        step.generation, step.attempt = row.generation, row.attempt
        step.value, step.inputs, step.reason = row.value, row.inputs, row.reason
        run.unfinished -= 1
    for row in rows:
        if row.current and row.status is StepStatus.FAILED and row.step_id in run.steps:
            step = run.steps[row.step_id]
            step.status, step.generation = StepStatus.FAILED, row.generation
            run.failure = run.failure or row.error


def _adopt(run: RunState, own: Matching, reason: str, now: datetime) -> None:
    run.outbox.superseded += [StepKey(row.step_id, row.generation) for row in own.obsolete]
    _adopt_rows(run, own.adopted, reason, now)
    _set_candidates(run, own)


def _set_candidates(run: RunState, matching: Matching) -> None:
    for step_id, rows in matching.candidates.items():
        if not run.steps[step_id].options.volatile or rows[0].run_id == run.id:
            run.steps[step_id].candidates += rows
    for step_id, reason in matching.reasons.items():
        run.steps[step_id].reason = reason


def _adopt_rows(
    run: RunState, rows: Mapping[str, StepRecord], reason: str, now: datetime
) -> None:
    for step_id in sorted(rows, key=lambda step_id: run.steps[step_id].position):
        step = run.steps[step_id]
        if not step.is_done:
            adopt(run, step, rows[step_id], reason, now)
            run.unfinished -= 1


def adopt(run: RunState, step: StepState, row: StepRecord, reason: str, now: datetime) -> None:
    """Take over a committed result as this step's, without running it. Does not wake consumers."""
    step.status = StepStatus.SUCCEEDED
    step.value, step.inputs, step.reason = row.value, row.inputs, reason
    run.outbox.steps.append(
        StepRecord(
            run_id=run.id,
            step_id=StepId(step.id),
            generation=step.generation,
            status=StepStatus.SUCCEEDED,
            attempt=0,
            name=match_name(step.plan),
            own=step.plan.own,
            code=row.code,
            fingerprint=run.fingerprints[step.id],
            inputs=row.inputs,
            value=row.value,
            caught=row.caught,
            started_at=row.started_at,
            finished_at=row.finished_at or now,
            worker=row.worker,
            reason=reason,
        )
    )


def _restore_attempts(run: RunState, attempts: Iterable[AttemptRecord], now: datetime) -> None:
    """Count budgets already spent, and close the tries that were cut off by a dead owner."""
    suspects: dict[str, None] = {}
    for attempt in attempts:
        step = run.steps.get(attempt.step_id)
        if step is None or attempt.generation != step.generation or step.is_done:
            continue
        step.attempt = max(step.attempt, attempt.attempt)
        count_cause(step, attempt.cause)
        step.not_before = attempt.not_before
        if attempt.cause is None:
            suspects[step.id] = None
            call = CallId(run.id, step.id, attempt.generation, attempt.attempt)
            run.outbox.attempts[call] = _abandoned(attempt, now)
        elif attempt.cause is Cause.ABANDONED:
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


def make_ready(run: RunState, step: StepState, now: datetime) -> None:
    """Put a step whose inputs are there into its queue, or to wait for its back-off deadline."""
    step.status = StepStatus.READY
    if step.not_before is not None and step.not_before > now:
        heappush(run.delayed, (step.not_before, step.position, step.id))
        return
    step.ready_at = now
    heappush(
        run.ready.setdefault(step.shape, []), (step.position, step.generation, step.id)
    )


def settle(run: RunState, steps: Iterable[StepState], now: datetime) -> None:
    """Move steps with nothing missing on: take over, ask for lost inputs, or make ready.

    Iterative: a chain of take-overs or of lineage of any length costs no stack.
    """
    work = deque(steps)
    while work:
        step = work.popleft()
        if step.status is not StepStatus.PENDING or step.missing:
            continue
        inputs = run.input_digests(step)
        row = next((row for row in step.candidates if row.inputs == inputs), None)
        if row is not None:
            adopt(run, step, row, "its inputs turned out unchanged", now)
            work.extend(mark_done(run, step))
            continue
        absent = [
            run.steps[ref.step]
            for ref in step.refs
            if isinstance(ref, FromStep) and not run.steps[ref.step].has_value
        ]
        if absent:
            for upstream in dict.fromkeys(absent):
                work.append(reopen(run, upstream, f"its value is needed by {step.id}", now))
            continue
        make_ready(run, step, now)


def mark_done(run: RunState, step: StepState) -> list[StepState]:
    """Count a step that has just become done; return the consumers that now miss nothing."""
    run.unfinished -= 1
    for dep in step.deps:
        run.steps[dep].open_consumers -= 1
    freed = []
    for consumer in step.consumers:
        if consumer.status is StepStatus.PENDING:
            consumer.missing -= 1
            if not consumer.missing:
                freed.append(consumer)
    return freed


def reopen(run: RunState, step: StepState, reason: str, now: datetime) -> StepState:
    """Begin a new generation of a done step whose value is gone; consumers wait for it again."""
    run.outbox.lost.append(StepKey(step.id, step.generation))
    run.outbox.events.append(
        EventRecord(kind="lost", at=now, step_id=StepId(step.id), detail={"why": reason})
    )
    begin_again(run, step, f"rebuilt: {reason}")
    return step


def begin_again(run: RunState, step: StepState, reason: str) -> None:
    """Open a new generation of a step that was done; its waiting consumers miss it again."""
    step.open_generation(reason)
    step.rebuilt += 1
    step.candidates = ()
    run.unfinished += 1
    pend(run, step)
    for dep in step.deps:
        run.steps[dep].open_consumers += 1
    for consumer in step.consumers:
        if consumer.status in (StepStatus.PENDING, StepStatus.READY):
            pend(run, consumer)


def pend(run: RunState, step: StepState) -> None:
    """Send a step back to wait for its inputs, counting anew what it misses."""
    step.status = StepStatus.PENDING
    step.missing = sum(not run.steps[dep].is_done for dep in step.deps)
