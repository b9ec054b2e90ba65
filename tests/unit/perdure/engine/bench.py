"""A run on the bench: real plans and the real ``decide``, with outcomes made by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from perdure.calls import CallId, Outcome, StepCall
from perdure.engine.commands import Turn
from perdure.engine.decide import decide, take_on
from perdure.engine.events import Ended, Event
from perdure.engine.matching import match_rows
from perdure.engine.placement import Pool
from perdure.engine.restore import load_run
from perdure.engine.state import EngineState, RunState
from perdure.engine.takeover import match_donor
from perdure.errors import Failure
from perdure.executors.protocol import Capacity
from perdure.plan import FromStep, Function, ListArg, Plan, StepOptions, StepPlan
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    Digest,
    ErrorRecord,
    Owner,
    Place,
    RunCommit,
    RunId,
    RunPolicy,
    RunRecord,
    StepRecord,
    StoredValue,
    WaitRecord,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = Owner(token="me", host="h", boot_id="b", pid_ns="n", pid=1, started=0.0)


def stored(text: str, *, opaque: bool = False, place: Place = Place.INLINE) -> StoredValue:
    return StoredValue(
        codec="json/1",
        place=place,
        size_bytes=len(text),
        integrity=Digest(f"blake3:{text}"),
        value_digest=f"{'opaque' if opaque else 'v1'}:{text}",
        data=text.encode() if place is Place.INLINE else None,
    )


def made(value: Any) -> StoredValue:
    """Store what the engine makes: a failure, or who had ended and who had not."""
    if isinstance(value, Failure):
        return stored(f"failure-{value.type}")
    done, pending = (" ".join(map(str, refs)) for refs in value)
    return stored(f"{done} | {pending}")


def plan_of(
    edges: dict[str, list[str]],
    *,
    output: str | None = None,
    code: dict[str, str] | None = None,
    options: dict[str, StepOptions] | None = None,
    is_async: frozenset[str] = frozenset(),
) -> Plan:
    """Return a plan of steps named by ``edges``' keys, each taking the values of its list."""
    code, options = code or {}, options or {}
    table = [StepOptions(), *options.values()]
    index = {name: place + 1 for place, name in enumerate(options)}
    functions = {
        name: Function(
            id=name,
            module="m",
            qualname=name,
            code=code.get(name, f"code-{name}"),
            counts_as=code.get(name, f"code-{name}"),
            is_async=name in is_async,
        )
        for name in edges
    }
    steps = tuple(
        StepPlan(
            id=name,
            name=name,
            function=name,
            given="given",
            own=f"own-{code.get(name, name)}",
            args=tuple(FromStep(step=dep) for dep in deps),
            options=index.get(name, 0),
        )
        for name, deps in edges.items()
    )
    last = output or list(edges)[-1]
    return Plan(
        workflow="w",
        steps=steps,
        output=ListArg(items=(FromStep(step=last),)),
        functions=functions,
        options=tuple(table),
    )


def with_selects(plan: Plan, **branches: tuple[str, ...]) -> Plan:
    """Let some steps of a plan be selects: after their choice they take the named branches."""
    steps = (
        msgspec.structs.replace(step, branches=branches.get(step.id, ())) for step in plan.steps
    )
    return msgspec.structs.replace(plan, steps=tuple(steps))


def prints_of(plan: Plan) -> dict[str, str]:
    prints: dict[str, str] = {}
    for step in plan.steps:
        above = [prints[arg.step] for arg in step.args if isinstance(arg, FromStep)]
        prints[step.id] = f"{step.own}({','.join(above)})"
    return prints


@dataclass
class Bench:
    """One engine, one run, a clock moved by hand, and the rows that would have been committed."""

    plan: Plan
    policy: RunPolicy = field(default_factory=RunPolicy)
    capacity: Capacity = field(default_factory=lambda: Capacity(cpus=2, slots=64))
    now: datetime = START
    rows: list[StepRecord] = field(default_factory=list)
    attempts: dict[CallId, AttemptRecord] = field(default_factory=dict)
    commits: list[RunCommit] = field(default_factory=list)
    waits: list[WaitRecord] = field(default_factory=list)
    in_flight: dict[str, StepCall] = field(default_factory=dict)
    last: Turn = field(default_factory=Turn)
    record_fields: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = EngineState({"processes": Pool(self.capacity)}, made)

    def load(self, *, donor: list[StepRecord] | None = None) -> RunState:
        """Build the state from the rows, as a coordinator that has just claimed the run does."""
        record = RunRecord(
            id=RunId("r"),
            workflow="w",
            status=RunStatus.RUNNING,
            plan_digest=Digest("p"),
            policy=self.policy,
            created_at=START,
            owner=OWNER,
            epoch=1,
            reuse_from=RunId("donor") if donor is not None else None,
            **self.record_fields,
        )
        prints = prints_of(self.plan)
        run = load_run(
            record,
            self.plan,
            prints,
            rows=self.rows,
            attempts=list(self.attempts.values()),
            own=match_rows(self.plan, prints, self.rows),
            donated=match_donor(self.plan, prints, donor) if donor is not None else None,
            waits=self.waits,
            now=self.now,
        )
        take_on(self.engine, run, self.now)
        return run

    def start(self) -> Bench:
        self.load()
        self.turn()
        return self

    def turn(self, *events: Event) -> Turn:
        turn = decide(self.engine, list(events), self.now)
        self.last = turn
        for commit in turn.commits:
            self._commit(commit)
        for command in turn.dispatch:
            self.in_flight[command.call.id.step_id] = command.call
        return turn

    def _commit(self, commit: RunCommit) -> None:
        self.commits.append(commit)
        self.waits += commit.waits
        gone = {(key.step_id, key.generation) for key in (*commit.lost, *commit.superseded)}
        lost = {(key.step_id, key.generation) for key in commit.lost}
        self.rows = [
            msgspec.structs.replace(
                row,
                current=row.current and (row.step_id, row.generation) not in gone,
                status="LOST" if (row.step_id, row.generation) in lost else row.status,
            )
            for row in self.rows
        ]
        keys = {(row.step_id, row.generation) for row in self.rows}
        for row in commit.steps:
            assert (row.step_id, row.generation) not in keys, "a generation commits once"
            self.rows.append(row)
        for attempt in commit.attempts:
            call = CallId("r", attempt.step_id, attempt.generation, attempt.attempt)
            self.attempts[call] = attempt

    def succeed(self, step: str, value: str | None = None, **fields: Any) -> Turn:
        call = self.in_flight.pop(step)
        text = value or f"{step}-value"
        place = fields.pop("place", Place.INLINE)
        opaque = fields.pop("opaque", False)
        return self.turn(
            Ended(
                Outcome(
                    id=call.id,
                    cause=Cause.SUCCEEDED,
                    value=stored(text, opaque=opaque, place=place),
                    **fields,
                )
            )
        )

    def end(self, step: str, cause: Cause, **fields: Any) -> Turn:
        call = self.in_flight.pop(step)
        error = ErrorRecord(type="builtins.ValueError", message="no", cause=cause)
        return self.turn(Ended(Outcome(id=call.id, cause=cause, error=error, **fields)))

    def pass_time(self, seconds: float) -> Turn:
        self.now += timedelta(seconds=seconds)
        return self.turn()

    def all_succeed(self) -> list[str]:
        """Let everything succeed; return the steps in the order in which they ran."""
        ran = []
        while self.in_flight:
            step = next(iter(self.in_flight))
            ran.append(step)
            self.succeed(step)
        return ran

    @property
    def ended_as(self) -> RunStatus | None:
        ends = [commit.end for commit in self.commits if commit.end is not None]
        assert len(ends) <= 1, "a run ends once"
        return ends[0].status if ends else None

    def current(self, step: str) -> StepRecord:
        return next(row for row in self.rows if row.step_id == step and row.current)
