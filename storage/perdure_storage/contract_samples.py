"""Small records for the contract tests of stores: what is not said is plain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from perdure_storage.boots import boot_id
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.protocols import RunStore
from perdure_storage.queue_records import QueueRecord
from perdure_storage.records import (
    AttemptRecord,
    BuiltPlan,
    Cause,
    Digest,
    ErrorRecord,
    EventRecord,
    ExpansionRecord,
    History,
    MessageRecord,
    Owner,
    Place,
    PlanRecord,
    Progress,
    Refusal,
    RunCommit,
    RunEnd,
    RunId,
    RunPolicy,
    RunRecord,
    SaveRecord,
    StepId,
    StepRecord,
    StoredValue,
    WaitRecord,
    WholeRun,
)
from perdure_storage.schedule_records import ScheduleChange, ScheduleRecord, TickRecord
from perdure_storage.trigger_records import ArrivalRecord, TriggerChange, TriggerRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE_S = 10.0


def digest(name: str) -> Digest:
    """Return a digest that is told apart by its name."""
    return Digest(f"blake3:{name}")


def a_plan(name: str = "plan", *blobs: str, needs: dict[str, float] | None = None) -> PlanRecord:
    """Return a plan that refers to blobs of those names."""
    return PlanRecord(
        digest=digest(name),
        body=b'{"of":"%s"}' % name.encode(),
        blobs=tuple(map(digest, blobs)),
        needs=needs or {},
    )


def a_run(name: str = "run", *, plan: PlanRecord | None = None, **more: Any) -> RunRecord:
    """Return a run that was never stored."""
    record = {
        "id": RunId(name),
        "workflow": "flow",
        "status": RunStatus.QUEUED,
        "plan_digest": (plan or a_plan()).digest,
        "created_at": NOW,
        **more,
    }
    return RunRecord(**record)


def an_owner(token: str = "one", **more: Any) -> Owner:
    """Return a coordinator of this boot."""
    facts = {"host": "here", "boot_id": boot_id(), "pid_ns": "pid:[1]", "pid": 7, "started": 1.5}
    return Owner(token=token, **{**facts, **more})


def a_value(text: str = "1", *, place: Place = Place.INLINE, name: str = "") -> StoredValue:
    """Return a value; ``name`` names its blob."""
    data = text.encode()
    return StoredValue(
        codec="json/1",
        place=place,
        size_bytes=len(data),
        integrity=digest(name or text),
        value_digest=f"v1:{text}",
        data=data if place is Place.INLINE else None,
        preview=f'{{"repr":"{text}"}}',
    )


def a_step(run: str, step: str, generation: int = 1, **more: Any) -> StepRecord:
    """Return the row of a step that succeeded."""
    record = {
        "run_id": RunId(run),
        "step_id": StepId(step),
        "generation": generation,
        "status": StepStatus.SUCCEEDED,
        "name": step,
        **more,
    }
    return StepRecord(**record)


def an_attempt(run: str, step: str, attempt: int = 1, **more: Any) -> AttemptRecord:
    """Return the row of a try of a step's first generation."""
    key = {"run_id": RunId(run), "step_id": StepId(step), "generation": 1, "attempt": attempt}
    return AttemptRecord(**{**key, **more})


def an_event(kind: str, **more: Any) -> EventRecord:
    """Return an event that has no number yet."""
    return EventRecord(**{"kind": kind, "at": NOW, **more})


def an_expansion(run: str, step: str, **more: Any) -> ExpansionRecord:
    """Return the row of a graph that a step gave."""
    record = {
        "run_id": RunId(run),
        "step_id": StepId(step),
        "generation": 1,
        "count": 2,
        "plan": a_plan("child"),
        **more,
    }
    return ExpansionRecord(**record)


def a_wait(run: str, step: str, **more: Any) -> WaitRecord:
    """Return the row of a step that waits for the signal ``go``."""
    record = {
        "run_id": RunId(run),
        "step_id": StepId(step),
        "generation": 1,
        "kind": "signal",
        "name": "go",
        **more,
    }
    return WaitRecord(**record)


def a_save(step: str, **more: Any) -> SaveRecord:
    """Return what the first attempt of a step of the run ``run`` saves."""
    record = {
        "run_id": RunId("run"),
        "step_id": StepId(step),
        "generation": 1,
        "attempt": 1,
        "at": 1,
        "value": a_value(),
        "saved_at": NOW,
        **more,
    }
    return SaveRecord(**record)


def saved(
    store: RunStore, run: RunRecord, save: SaveRecord, *, keep_last: int = 1
) -> Refusal | None:
    """Save as whoever has claimed the run; return why it was refused."""
    assert run.owner is not None
    return store.save(save, owner=run.owner.token, epoch=run.epoch, keep_last=keep_last)


def a_message(run: str | None = "run", **more: Any) -> MessageRecord:
    """Return the signal ``go`` to a run, or, to none, an event of that name."""
    to = None if run is None else RunId(run)
    return MessageRecord(**{"run_id": to, "name": "go", "value": a_value(), "at": NOW, **more})


def a_schedule(name: str = "nightly", **more: Any) -> ScheduleRecord:
    """Return a schedule that was never stored, due at ``NOW``."""
    facts = {"name": name, "definition": "{}", "digest": "v1:d", "state": "{}", "next_at": NOW}
    return ScheduleRecord(**{**facts, **more})


def a_tick(schedule: str = "nightly", at: datetime = NOW, **more: Any) -> TickRecord:
    """Return the row of a tick that was skipped."""
    facts = {"schedule": schedule, "at": at, "decision": "skip", "decided_at": NOW}
    return TickRecord(**{**facts, **more})


def an_unplanned_run(name: str = "run", **more: Any) -> RunRecord:
    """Return a run whose plan is to be built by who claims it."""
    return msgspec.structs.replace(a_run(name, origin="package:flow", **more), plan_digest=None)


def built(name: str = "plan", *blobs: str, **inputs: StoredValue) -> BuiltPlan:
    """Return what who claims a run without a plan has built for it."""
    return BuiltPlan(plan=a_plan(name, *blobs), inputs=inputs, inputs_digest="v1:built")


def fired(schedule: ScheduleRecord, *runs: RunRecord, **more: Any) -> ScheduleChange:
    """Return the change of a tick at ``NOW`` that makes runs."""
    ticks = tuple(
        a_tick(schedule.name, NOW + timedelta(seconds=n), decision="fire", run_id=run.id)
        for n, run in enumerate(runs)
    )
    mine = tuple(msgspec.structs.replace(run, schedule=schedule.name) for run in runs)
    return ScheduleChange(**{"schedule": schedule, "ticks": ticks, "runs": mine, **more})


def registered(store: RunStore, name: str = "nightly", **more: Any) -> ScheduleRecord:
    """Return a schedule that was just registered."""
    change = ScheduleChange(schedule=a_schedule(name, **more))
    schedule = store.schedules.register(change)
    assert schedule is not None
    return schedule


def a_trigger(name: str = "landed", **more: Any) -> TriggerRecord:
    """Return a trigger that was never stored, for which time brings nothing."""
    facts = {"name": name, "definition": "{}", "digest": "v1:d", "state": "{}"}
    return TriggerRecord(**{**facts, **more})


def an_arrival(key: str = "a.csv", **more: Any) -> ArrivalRecord:
    """Return the row of an arrival that was filtered out."""
    facts = {"trigger": "landed", "key": key, "at": NOW, "decision": "filtered"}
    return ArrivalRecord(**{**facts, "decided_at": NOW, **more})


def arrived(trigger: TriggerRecord, *keys: str, run: str = "run", **more: Any) -> TriggerChange:
    """Return the change of arrivals each of which makes a run, called ``run`` and its key."""
    ids = [RunId(f"{run}-{key}") for key in keys]
    arrivals = tuple(
        an_arrival(key, trigger=trigger.name, decision="fired", run_id=run_id)
        for key, run_id in zip(keys, ids, strict=True)
    )
    runs = tuple(an_unplanned_run(run_id, trigger=trigger.name) for run_id in ids)
    return TriggerChange(**{"trigger": trigger, "arrivals": arrivals, "runs": runs, **more})


def watched(store: RunStore, name: str = "landed", **more: Any) -> TriggerRecord:
    """Return a trigger that was just registered."""
    trigger = store.triggers.register(TriggerChange(trigger=a_trigger(name, **more)))
    assert trigger is not None
    return trigger


def by(run: RunRecord, *steps: StepRecord, **more: Any) -> RunCommit:
    """Return the part of a batch that the run's owner would make."""
    owner = "nobody" if run.owner is None else run.owner.token
    part = {"run_id": run.id, "owner": owner, "epoch": run.epoch, "steps": steps}
    return RunCommit(**{**part, **more})


def created(store: RunStore, name: str = "run", **more: Any) -> RunRecord:
    """Return a run that was just made."""
    plan = more.get("plan") or a_plan()
    run = store.create_run(a_run(name, **{**more, "plan": plan}), plan)
    assert run is not None
    return run


def a_queue(name: str = "q", **limits: Any) -> QueueRecord:
    """Return a queue that was never stored."""
    return QueueRecord(**{"name": name, "created_at": NOW, "updated_at": NOW, **limits})


def queued(store: RunStore, name: str = "run", **more: Any) -> RunRecord:
    """Return a run that was just made in the queue ``q``."""
    return created(store, name, **{"queue": "q", **more})


def claimed(
    store: RunStore, name: str = "run", owner: Owner | None = None, **more: Any
) -> RunRecord:
    """Return a run that was just made and taken."""
    created(store, name, **more)
    by_whom = owner or an_owner()
    store.register(by_whom, LEASE_S)
    run = store.claim_run(RunId(name), by_whom)
    assert run is not None
    return run


def ended(store: RunStore, name: str = "run", status: RunStatus = RunStatus.SUCCEEDED) -> RunRecord:
    """Return a run that is over."""
    run = claimed(store, name)
    report = store.commit([by(run, end=RunEnd(status=status))])
    assert run.id in report.committed
    return store.get_run(run.id)


def kinds(store: RunStore, name: str = "run") -> list[str]:
    """Return the kinds of a run's events, in order."""
    return [event.kind for event in store.list_events(RunId(name))]


def a_whole_run() -> WholeRun:
    """Return a run with rows of every kind, in which each field has been set by some row."""
    plans = (a_plan("child", "child code"), a_plan("former", "old code"), a_plan("plan", "code"))
    plans = (plans[0], msgspec.structs.replace(plans[1], needs={"gpus": 1.0}), plans[2])
    blob = a_value("large", place=Place.BLOB, name="large")
    full = msgspec.structs.replace(blob, parts={"[0]": "v1:part"}, files=(digest("file"),))
    error = ErrorRecord(
        type="builtins.ValueError",
        message="no",
        traceback="at line 1",
        cause=Cause.TIMEOUT,
        step_id="bad",
        pickled=b"\x80never read",
    )
    later = NOW + timedelta(microseconds=3)
    run = a_run(
        status=RunStatus.FAILED,
        plan=plans[2],
        origin="package.module:flow",
        inputs={"x": a_value("1"), "y": a_value(place=Place.BLOB, name="input")},
        inputs_digest="v1:xy",
        policy=RunPolicy(durability="group"),
        tags={"team": "search"},
        metadata={"nested": [1, None, 2.5, "\0"]},
        parent=RunId("above"),
        forked_from=RunId("before"),
        reuse_from=RunId("before"),
        queue="q",
        limit_key="k",
        priority=-3,
        not_before=later,
        deadline=later,
        started_at=later,
        finished_at=later,
        error=error,
        epoch=4,
        seq=40,
    )
    steps = (
        a_step("run", "a", 1, status=StepStatus.LOST, current=False, seq=3, value=_blob("lost")),
        a_step("run", "a", 2, current=False, seq=5, value=_blob("history")),
        StepRecord(
            run_id=run.id,
            step_id=StepId("a"),
            generation=3,
            status=StepStatus.SUCCEEDED,
            attempt=2,
            name="a",
            own="own:1",
            code="code:1",
            fingerprint="fp:1",
            inputs=("v1:1", "opaque:2"),
            value=msgspec.structs.replace(full, files=()),
            started_at=NOW,
            finished_at=later,
            worker="w1",
            reason="its code changed",
            peak_memory_bytes=12,
            seq=7,
            states={"counter": _blob("state"), "other": a_value("2")},
        ),
        a_step("run", "bad", status=StepStatus.FAILED, error=error, caught=True, seq=8),
        a_step("run", "asked", value=a_value("yes"), seq=9),
    )
    attempts = (
        AttemptRecord(
            run_id=run.id,
            step_id=StepId("a"),
            generation=3,
            attempt=2,
            cause=Cause.SUCCEEDED,
            error=error,
            worker="w1",
            started_at=NOW,
            finished_at=later,
            not_before=later,
            peak_memory_bytes=12,
            progress=Progress(done=1.0, total=2.0, message="half", at=NOW, item="a[1]"),
        ),
        an_attempt("run", "bad"),
    )
    waits = (
        a_wait("run", "asked", message=11),
        a_wait(
            "run",
            "heard",
            generation=2,
            kind="event",
            name="landed",
            match={"path": "a.csv"},
            deadline=later,
            default=_blob("default"),
            source="made of this",
            message=12,
        ),
        a_wait("run", "still", name="more"),
    )
    save = a_save(
        "bad", generation=1, attempt=3, item="bad[4]", number=6, at=7, source="s", value=full
    )
    events = (
        an_event("submitted", seq=1),
        an_event("signalled", seq=2, detail={"name": "go", "message": 11}),
        an_event("lost", seq=6, step_id=StepId("a"), detail={"why": "gone"}),
    )
    messages = (
        a_message(id=11, dedup_key="once"),
        a_message(None, id=12, name="landed", match={"path": "a.csv"}, dedup_key="k"),
        a_message(id=13, name="more", value=_blob("sent"), sender=RunId("other")),
    )
    return WholeRun(
        run=run,
        plans=plans,
        history=History(
            steps=steps,
            attempts=attempts,
            expansions=(
                an_expansion("run", "bad", link=1, kind="map", source="src", plan=plans[0]),
            ),
            waits=waits,
            saves=(save,),
            events=events,
        ),
        messages=messages,
    )


def _blob(name: str) -> StoredValue:
    return a_value(place=Place.BLOB, name=name)
