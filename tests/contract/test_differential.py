"""One stream of operations on every run store: equal answers after each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from perdure_storage.boots import boot_id
from perdure_storage.clock import ManualClock
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_message,
    a_plan,
    a_run,
    a_schedule,
    a_step,
    a_tick,
    a_trigger,
    a_value,
    a_wait,
    an_arrival,
    an_attempt,
    an_event,
    an_owner,
    an_unplanned_run,
    built,
    by,
    digest,
)
from perdure_storage.errors import PerdureError
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.memory import MemoryRunStore
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    CommitReport,
    Delivery,
    ErrorRecord,
    PinRecord,
    Place,
    Release,
    RunCommit,
    RunEnd,
    RunId,
    RunPolicy,
    RunQuery,
    StepKey,
)
from perdure_storage.schedule_records import (
    FireReport,
    ScheduleChange,
    ScheduleQuery,
    ScheduleRecord,
    TickQuery,
)
from perdure_storage.trigger_records import (
    AcceptReport,
    ArrivalQuery,
    TriggerChange,
    TriggerQuery,
    TriggerRecord,
)

RUNS = ["a", "b", "c"]
TOKENS = ["one", "two"]
BLOBS = ["x", "y", "z"]
STEPS = ["s", "t"]
SCHEDULES = ["n", "m"]
FIRED = ["c", "d", "e"]
TRIGGERS = ["u", "v"]
KEYS = ["k", "l", "m"]

a_run_id = st.sampled_from(RUNS).map(RunId)
a_schedule_name = st.sampled_from(SCHEDULES)
a_trigger_name = st.sampled_from(TRIGGERS)
a_token = st.sampled_from(TOKENS)
some_blobs = st.lists(st.sampled_from(BLOBS), unique=True, max_size=2)
a_key = st.builds(StepKey, st.sampled_from(STEPS), st.integers(1, 3))
a_name = st.sampled_from(["go", "stop"])
a_delivery = st.builds(Delivery, st.integers(1, 6), st.sampled_from(STEPS), st.integers(1, 3))
some_keys = st.lists(a_key, max_size=2).map(tuple)
a_moment = st.none() | st.integers(-5, 40).map(lambda s: NOW + timedelta(seconds=s))
a_lag = st.sampled_from([0, 0, 0, 1])
a_hand_back = st.sampled_from([RunStatus.QUEUED, RunStatus.WAITING, RunStatus.PAUSED])
a_status = st.sampled_from(
    [StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED]
)
an_end = st.none() | st.builds(
    RunEnd,
    status=st.sampled_from([RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED]),
    error=st.none() | st.just(ErrorRecord(type="E", message="m", pickled=b"p")),
)


@st.composite
def step_facts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what a step row is made of, but for its run."""
    blob = draw(st.none() | st.sampled_from(BLOBS))
    value = None if blob is None else a_value(place=Place.BLOB, name=blob)
    return {
        "step": draw(st.sampled_from(STEPS)),
        "generation": draw(st.integers(1, 3)),
        "status": draw(a_status),
        "value": value,
        "reason": draw(st.sampled_from(["", "because", "nul \0"])),
    }


@st.composite
def wait_facts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what a wait is made of, but for its run."""
    blob = draw(st.none() | st.sampled_from(BLOBS))
    return {
        "step": draw(st.sampled_from(STEPS)),
        "generation": draw(st.integers(1, 3)),
        "kind": draw(st.sampled_from(["sleep", "signal", "signal", "event", "event"])),
        "name": draw(a_name),
        "deadline": draw(a_moment),
        "default": None if blob is None else a_value(place=Place.BLOB, name=blob),
    }


@st.composite
def schedule_facts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what a tick changes of a schedule."""
    return {
        "state": draw(st.sampled_from(["1", "1", "2", "2", "2", "nul \0"])),
        "next_at": draw(a_moment),
        "wakes_below": draw(st.none() | st.integers(0, 2)),
        "paused": draw(st.booleans()),
    }


@st.composite
def decisions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what is decided about a schedule: runs, ticks, and runs that are to end."""
    a_plan_name = st.sampled_from([None, None, None, "p", "q"])
    a_run_of_it = st.tuples(st.sampled_from(FIRED), a_plan_name, st.just([]) | some_blobs)
    a_decision = st.tuples(
        st.integers(0, 5), st.sampled_from(["a", "b"]), st.none() | st.none() | a_run_id
    )
    return {
        "runs": draw(st.lists(a_run_of_it, max_size=2)),
        "ticks": draw(st.lists(a_decision, max_size=3)),
        "cancels": draw(st.lists(a_run_id, max_size=2)),
    }


@st.composite
def trigger_facts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what arrivals may change of a trigger."""
    return {
        "state": draw(st.sampled_from(["1", "2", "2", "2", "2", "2", "2", "nul \0"])),
        "heard": draw(st.integers(0, 3)),
        "next_at": draw(a_moment),
        "paused": draw(st.sampled_from([False, False, True])),
    }


@st.composite
def arrivals_of(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what is decided about arrivals: new ones, earlier ones, and their runs."""
    a_decision = st.sampled_from(["fired", "held", "deferred", "filtered"])
    a_run_of_it = st.none() | st.sampled_from(FIRED)
    a_payload = st.none() | st.none() | st.sampled_from(BLOBS)
    an_arrival_of_it = st.tuples(st.sampled_from(KEYS), a_decision, a_run_of_it, a_payload)
    decided = draw(st.lists(an_arrival_of_it, max_size=3, unique_by=lambda each: each[0]))
    plans = st.sampled_from([None, None, None, "p", "q"])
    return {
        "decided": decided,
        "revised": draw(st.integers(0, len(decided))),
        "plan": draw(plans),
        "blobs": draw(st.just([]) | some_blobs),
        "moves": draw(st.booleans()),
    }


class Differential(RuleBasedStateMachine):
    """The stores, and what the coordinators of the story believe of the runs that they took."""

    def __init__(self, make: Callable[[ManualClock, Path], list[RunStore]]) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="perdure-differential-"))
        self.clock = ManualClock(NOW)
        self.stores = make(self.clock, self.folder)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    def both(self, ask: Callable[[RunStore], Any]) -> Any:
        """Ask every store the same; return the answer that all of them gave."""
        answers = [_answer(ask, store) for store in self.stores]
        for answer in answers[1:]:
            assert answer == answers[0]
        return answers[0]

    @initialize()
    def begin(self) -> None:
        """Stories are short: one coordinator and two runs are there from the start."""
        self.both(lambda store: store.register(an_owner("one"), LEASE_S))
        for run_id in map(RunId, RUNS[:2]):
            self.both(lambda store, run_id=run_id: store.create_run(a_run(run_id), a_plan()))
        for name in SCHEDULES:
            change = ScheduleChange(schedule=a_schedule(name))
            self.both(lambda store, change=change: store.schedules.register(change))
        for name in TRIGGERS:
            begun = TriggerChange(trigger=a_trigger(name, watches_runs=name == "u", listens=True))
            self.both(lambda store, change=begun: store.triggers.register(change))

    # --- what people and clients do -----------------------------------------------------------
    @rule(
        run_id=a_run_id,
        blobs=some_blobs,
        plan=st.sampled_from("pq"),
        not_before=a_moment,
        parent=st.none() | a_run_id,
        reuse_from=st.none() | a_run_id,
        priority=st.integers(-1, 1),
    )
    def create(self, run_id: RunId, blobs: list[str], plan: str, **more: Any) -> None:
        inputs = {name: a_value(place=Place.BLOB, name=name) for name in blobs}
        made_of = a_plan(plan, "x") if plan == "q" else a_plan(plan)
        run = a_run(run_id, plan=made_of, inputs=inputs, created_at=self.clock.now(), **more)
        self.both(lambda store: store.create_run(run, made_of))

    @rule(run_id=a_run_id)
    def cancel(self, run_id: RunId) -> None:
        self.both(lambda store: store.request_cancel(run_id))

    @rule(run_id=a_run_id, paused=st.booleans())
    def pause(self, run_id: RunId, paused: bool) -> None:
        self.both(lambda store: store.request_pause(run_id, paused))

    @rule(run_id=a_run_id, plan=st.none() | st.just(a_plan("r", "y")), mended=st.booleans())
    def reset(self, run_id: RunId, plan: Any, mended: bool) -> None:
        inputs = {"z": a_value(place=Place.BLOB, name="z")} if mended else None
        policy = RunPolicy(durability="group") if mended else None
        self.both(lambda store: store.reset_run(run_id, plan=plan, inputs=inputs, policy=policy))

    @rule(
        run_id=a_run_id | st.none(),
        name=a_name,
        key=st.none() | st.sampled_from("kl"),
        blob=st.none() | st.sampled_from(BLOBS),
    )
    def send(self, run_id: RunId | None, name: str, key: str | None, blob: str | None) -> None:
        value = a_value() if blob is None else a_value(place=Place.BLOB, name=blob)
        message = a_message(
            run_id, name=name, dedup_key=key, value=value, at=self.clock.now(), match={"n": 1}
        )
        self.both(lambda store: store.send(message))

    @rule(run_id=a_run_id, freed=st.booleans())
    def delete(self, run_id: RunId, freed: bool) -> None:
        self.both(lambda store: store.delete_run(run_id))
        if freed:
            self.both(lambda store: store.free_id(run_id))

    # --- what coordinators do -----------------------------------------------------------------
    @rule(token=a_token)
    def register(self, token: str) -> None:
        self.both(lambda store: store.register(an_owner(token), LEASE_S))

    @rule(token=a_token)
    def renew(self, token: str) -> None:
        self.both(lambda store: store.renew(an_owner(token), LEASE_S))

    @rule(token=a_token)
    def unregister(self, token: str) -> None:
        self.both(lambda store: store.unregister(an_owner(token)))

    @rule(run_id=a_run_id, token=a_token, seen_dead=st.none() | a_token)
    def claim(self, run_id: RunId, token: str, seen_dead: str | None) -> None:
        self.both(lambda store: store.claim_run(run_id, an_owner(token), seen_dead=seen_dead))

    @rule(runs=st.lists(a_run_id, max_size=4), token=a_token, seen_dead=st.lists(a_token))
    def claim_many(self, runs: list[RunId], token: str, seen_dead: list[str]) -> None:
        self.both(lambda store: store.claim_runs(runs, an_owner(token), seen_dead=seen_dead))

    @rule(data=st.data(), runs=st.lists(a_run_id, unique=True, max_size=3))
    def release_many(self, data: st.DataObject, runs: list[RunId]) -> None:
        found = [self.stores[0].find_run(run_id) for run_id in runs]
        releases = [
            Release(
                run=msgspec.structs.replace(run, epoch=run.epoch - data.draw(a_lag)),
                to=data.draw(a_hand_back),
                wake_at=data.draw(a_moment),
                heard=data.draw(st.integers(0, 4)),
            )
            for run in found
            if run is not None
        ]
        self.both(lambda store: store.release_runs(releases))

    @rule(runs=st.lists(a_run_id, unique=True))
    def look_back(self, runs: list[RunId]) -> None:
        self.both(lambda store: store.histories(runs))

    @rule(
        run_id=a_run_id,
        to=a_hand_back,
        wake_at=a_moment,
        lag=a_lag,
        heard=st.integers(0, 4),
    )
    def release(self, run_id: RunId, to: RunStatus, wake_at: Any, lag: int, heard: int) -> None:
        run = self.stores[0].find_run(run_id) or a_run(run_id, owner=an_owner())
        held = msgspec.structs.replace(run, epoch=run.epoch - lag)
        self.both(lambda store: store.release_run(held, to=to, wake_at=wake_at, heard=heard))

    @rule(data=st.data(), runs=st.lists(a_run_id, unique=True, min_size=1, max_size=3))
    def commit(self, data: st.DataObject, runs: list[RunId]) -> None:
        batch = [self._part(data, run_id) for run_id in runs]
        self.both(lambda store: store.commit(batch))

    def _part(self, data: st.DataObject, run_id: RunId) -> RunCommit:
        run = self.stores[0].find_run(run_id)
        owner = run.owner.token if run is not None and run.owner is not None else "one"
        epoch = 1 if run is None else run.epoch
        facts = data.draw(st.lists(step_facts(), max_size=3))
        tries = data.draw(st.lists(st.integers(1, 2), max_size=2))
        waits = data.draw(st.just([]) | st.lists(wait_facts(), max_size=2))
        return RunCommit(
            run_id=run_id,
            owner=data.draw(st.sampled_from([owner, owner, owner, "two"])),
            epoch=epoch - data.draw(st.sampled_from([0, 0, 0, 0, 1])),
            steps=tuple(a_step(run_id, **fact) for fact in facts),
            attempts=tuple(an_attempt(run_id, "s", number, worker=owner) for number in tries),
            events=data.draw(st.sampled_from([(), (an_event("note"),)])),
            lost=data.draw(st.just(()) | some_keys),
            superseded=data.draw(st.just(()) | some_keys),
            waits=tuple(a_wait(run_id, **fact) for fact in waits),
            deliveries=data.draw(st.just(()) | st.lists(a_delivery, max_size=2).map(tuple)),
            end=data.draw(st.none() | st.none() | an_end),
            wake_at=data.draw(a_moment),
        )

    @rule(
        run_id=a_run_id,
        facts=wait_facts(),
        to=st.sampled_from([RunStatus.QUEUED, RunStatus.WAITING, RunStatus.WAITING]),
        heard=st.integers(0, 2),
        to_all=st.booleans(),
    )
    def fall_asleep(
        self, run_id: RunId, facts: dict[str, Any], to: RunStatus, heard: int, to_all: bool
    ) -> None:
        """What a coordinator does with a run in which a step begins to wait, a bit late."""
        run = self.both(lambda store: store.claim_run(run_id, an_owner("one"), seen_dead="one"))
        if run is not None:
            part = by(run, waits=(a_wait(run_id, **facts),))
            self.both(lambda store: store.commit([part]))
            self.send(None if to_all else run_id, facts["name"], None, None)
            self.both(lambda store: store.release_run(run, to=to, heard=heard))

    @rule(run_id=a_run_id, number=st.integers(0, 3), name=a_name)
    def wake_up(self, run_id: RunId, number: int, name: str) -> None:
        """What a coordinator does with a message for a step that waits."""
        waits = self.both(lambda store: store.list_waits(run_id))
        sent = self.both(lambda store: store.messages(run_id, [name]))
        run = self.both(lambda store: store.claim_run(run_id, an_owner("one"), seen_dead="one"))
        if run is None or not waits or not sent:
            return
        wait, message = waits[number % len(waits)], sent[number % len(sent)]
        delivery = Delivery(message.id, wait.step_id, wait.generation)
        step = a_step(run_id, wait.step_id, wait.generation)
        self.both(lambda store: store.commit([by(run, step, deliveries=(delivery,))]))

    # --- what dispatchers do ------------------------------------------------------------------
    @rule(
        name=a_schedule_name,
        lag=st.sampled_from([0, 0, 0, 1]),
        plan=st.none() | st.sampled_from("pq"),
        blobs=st.just([]) | some_blobs,
        facts=schedule_facts(),
        decided=decisions(),
    )
    def register_schedule(
        self, name: str, lag: int, plan: str | None, blobs: list[str], facts: Any, decided: Any
    ) -> None:
        read = self.both(lambda store: store.schedules.find_schedule(name)) or a_schedule(name)
        pinned = None if plan is None else a_plan(plan, "x") if plan == "q" else a_plan(plan)
        new = msgspec.structs.replace(
            read,
            version=max(0, read.version - lag),
            plan_digest=None if pinned is None else pinned.digest,
            blobs=tuple(map(digest, blobs)),
            **facts,
        )
        change = self._change(new, **decided)
        self.both(lambda store: store.schedules.register(change, pinned))

    @rule(
        names=st.lists(a_schedule_name, unique=True, min_size=1, max_size=2),
        data=st.data(),
    )
    def fire(self, names: list[str], data: st.DataObject) -> None:
        batch = []
        for name in names:
            read = self.stores[0].schedules.find_schedule(name) or a_schedule(name)
            lag = data.draw(st.sampled_from([0, 0, 0, 1]))
            facts = data.draw(schedule_facts())
            new = msgspec.structs.replace(read, version=read.version - lag, **facts)
            batch.append(self._change(new, **data.draw(decisions())))
        self.both(lambda store: store.schedules.fire(batch))

    def _change(
        self, new: ScheduleRecord, runs: list[Any], ticks: list[Any], cancels: list[RunId]
    ) -> ScheduleChange:
        made = tuple(
            msgspec.structs.replace(
                an_unplanned_run(run_id, schedule=new.name, created_at=self.clock.now()),
                plan_digest=None if plan is None else digest(plan),
                inputs={name: a_value(place=Place.BLOB, name=name) for name in blobs},
            )
            for run_id, plan, blobs in runs
        )
        decided = tuple(
            a_tick(new.name, NOW + timedelta(seconds=n), reason=reason, run_id=run_id)
            for n, reason, run_id in ticks
        )
        return ScheduleChange(schedule=new, ticks=decided, runs=made, cancels=tuple(cancels))

    @rule(name=a_schedule_name)
    def remove_schedule(self, name: str) -> None:
        self.both(lambda store: store.schedules.remove(name))

    @rule(seconds=st.integers(0, 9), limit=st.sampled_from([1, 100]))
    def forget_ticks(self, seconds: int, limit: int) -> None:
        before = NOW + timedelta(seconds=seconds)
        # Which of them go first is left to the store.
        told = self.both(lambda store: bool(store.schedules.forget_ticks(before, limit=100)))
        if told and limit == 1:
            self.both(lambda store: store.schedules.forget_ticks(before, limit=1))

    @rule(
        name=a_trigger_name,
        lag=a_lag,
        plan=st.none() | st.sampled_from("pq"),
        blobs=st.just([]) | some_blobs,
        definition=st.fixed_dictionaries(
            {
                "digest": st.sampled_from(["v1:a", "v1:a", "v1:b"]),
                "events": st.lists(a_name, unique=True).map(tuple),
                "watches_runs": st.booleans(),
                "listens": st.booleans(),
            }
        ),
        facts=trigger_facts(),
        arrived=arrivals_of(),
    )
    def register_trigger(
        self,
        name: str,
        lag: int,
        plan: str | None,
        blobs: list[str],
        definition: Any,
        facts: Any,
        arrived: Any,
    ) -> None:
        read = self.both(lambda store: store.triggers.find_trigger(name)) or a_trigger(name)
        pinned = None if plan is None else a_plan(plan, "x") if plan == "q" else a_plan(plan)
        new = msgspec.structs.replace(
            read,
            version=max(0, read.version - lag),
            plan_digest=None if pinned is None else pinned.digest,
            blobs=tuple(map(digest, blobs)),
            **definition,
            **facts,
        )
        change = self._arrivals(new, **{**arrived, "moves": True})
        self.both(lambda store: store.triggers.register(change, pinned))

    @rule(
        names=st.lists(a_trigger_name, unique=True, max_size=2),
        told=st.lists(st.sampled_from([*RUNS, *FIRED]), max_size=3),
        data=st.data(),
    )
    def accept(self, names: list[str], told: list[str], data: st.DataObject) -> None:
        batch = []
        for name in names:
            read = self.stores[0].triggers.find_trigger(name) or a_trigger(name)
            facts = data.draw(trigger_facts())
            arrived = data.draw(arrivals_of())
            new = msgspec.structs.replace(read, version=read.version - data.draw(a_lag))
            if arrived["moves"] or data.draw(st.integers(0, 3)) == 0:
                new = msgspec.structs.replace(new, **facts)
            batch.append(self._arrivals(new, **arrived))

        def accept(store: RunStore) -> object:
            ends = [end.id for end in store.triggers.ends() if end.run_id in told]
            return store.triggers.accept(batch, ends)

        self.both(accept)

    def _arrivals(
        self,
        new: TriggerRecord,
        decided: list[Any],
        revised: int,
        plan: str | None,
        blobs: list[str],
        moves: bool,
    ) -> TriggerChange:
        rows = [
            an_arrival(
                key,
                trigger=new.name,
                decision=decision,
                run_id=run_id,
                decided_at=self.clock.now(),
                payload=None if blob is None else a_value(place=Place.BLOB, name=blob),
            )
            for key, decision, run_id, blob in decided
        ]
        ids = dict.fromkeys(row.run_id for row in rows if row.run_id is not None)
        runs = tuple(
            msgspec.structs.replace(
                an_unplanned_run(run_id, trigger=new.name, created_at=self.clock.now()),
                plan_digest=None if plan is None else digest(plan),
                inputs={name: a_value(place=Place.BLOB, name=name) for name in blobs},
            )
            for run_id in ids
        )
        earlier = revised if moves else 0
        return TriggerChange(
            trigger=new,
            moves=moves,
            arrivals=tuple(rows[earlier:]),
            revised=tuple(rows[:earlier]),
            runs=runs,
        )

    @rule(name=a_trigger_name)
    def remove_trigger(self, name: str) -> None:
        self.both(lambda store: store.triggers.remove(name))

    @rule(
        name=a_trigger_name,
        seconds=st.integers(0, 40),
        keep=st.lists(st.sampled_from(KEYS), max_size=1),
        limit=st.sampled_from([1, 100]),
    )
    def forget_arrivals(self, name: str, seconds: int, keep: list[str], limit: int) -> None:
        before = NOW + timedelta(seconds=seconds)
        self.both(
            lambda store: store.triggers.forget_arrivals(
                name, before, keep=keep.__contains__, limit=limit
            )
        )

    @rule(token=a_token, limit=st.sampled_from([1, 100]), dead=st.lists(a_token, max_size=1))
    def take_sources(self, token: str, limit: int, dead: list[str]) -> None:
        self.both(lambda store: store.triggers.take_sources(token, limit, seen_dead=dead))

    @rule(token=a_token)
    def leave_sources(self, token: str) -> None:
        self.both(lambda store: store.triggers.leave_sources(token))

    @rule(run_id=a_run_id, token=a_token, plan=st.sampled_from("pq"), blobs=some_blobs)
    def claim_and_build(self, run_id: RunId, token: str, plan: str, blobs: list[str]) -> None:
        inputs = {name: a_value(place=Place.BLOB, name=name) for name in blobs}
        with_it = built(plan, *(["x"] if plan == "q" else []), **inputs)
        self.both(lambda store: store.claim_run(run_id, an_owner(token), built=with_it))

    @rule(run_id=st.sampled_from(FIRED).map(RunId), why=st.sampled_from("ab"))
    def note_unplanned(self, run_id: RunId, why: str) -> None:
        self.both(lambda store: store.note_unplanned(run_id, why))

    # --- what gc and time do ------------------------------------------------------------------
    @rule(blobs=some_blobs)
    def condemn(self, blobs: list[str]) -> None:
        self.both(lambda store: store.condemn(map(digest, blobs)))

    @rule(blobs=some_blobs)
    def absolve(self, blobs: list[str]) -> None:
        marks = self.both(lambda store: store.list_condemned(map(digest, blobs)))
        self.both(lambda store: store.absolve(marks))

    @rule(age_s=st.sampled_from([0, 4]))
    def forget(self, age_s: int) -> None:
        before = self.clock.now() - timedelta(seconds=age_s)
        self.both(lambda store: store.forget_condemned(before))

    @rule(age_s=st.sampled_from([0, 4]))
    def forget_events(self, age_s: int) -> None:
        before = self.clock.now() - timedelta(seconds=age_s)
        self.both(lambda store: store.forget_events(before))

    @rule(pin_id=st.sampled_from("pq"))
    def pin(self, pin_id: str) -> None:
        pin = PinRecord(id=pin_id, at=self.clock.now())
        self.both(lambda store: store.pin(pin))

    @rule(pin_id=st.sampled_from("pq"))
    def unpin(self, pin_id: str) -> None:
        self.both(lambda store: store.unpin(pin_id))

    @rule(seconds=st.sampled_from([1, 4, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # --- what anyone can see ------------------------------------------------------------------
    @invariant()
    def all_runs_look_alike(self) -> None:
        for run_id in map(RunId, dict.fromkeys([*RUNS, *FIRED])):
            self.compare_run(run_id)

    def compare_run(self, run_id: RunId) -> None:
        run = self.both(lambda store: store.find_run(run_id))
        self.both(lambda store: store.list_steps(run_id, current_only=False))
        self.both(lambda store: store.list_attempts(run_id))
        self.both(lambda store: store.list_waits(run_id))
        self.both(lambda store: store.messages(run_id, ["go", "stop"]))
        self.both(lambda store: store.list_events(run_id))
        if run is not None and run.plan_digest is not None:
            self.both(lambda store: store.get_plan(run.plan_digest))

    @invariant()
    def all_schedules_look_alike(self) -> None:
        now = self.clock.now()
        self.both(lambda store: store.schedules.list_schedules(ScheduleQuery()))
        self.both(lambda store: store.schedules.list_schedules(ScheduleQuery(paused=True)))
        self.both(lambda store: store.schedules.due(now))
        self.both(lambda store: store.schedules.next_due())
        for name in SCHEDULES:
            self.both(lambda store, name=name: store.schedules.runs_of(name))
            self.both(lambda store, name=name: store.schedules.runs_of(name, since=now))
            query = TickQuery(schedule=name, limit=3)
            self.both(lambda store, query=query: store.schedules.list_ticks(query))

    @invariant()
    def all_triggers_look_alike(self) -> None:
        self.both(lambda store: store.triggers.list_triggers(TriggerQuery()))
        self.both(lambda store: store.triggers.list_triggers(TriggerQuery(watches_runs=True)))
        self.both(lambda store: store.triggers.due_triggers(self.clock.now()))
        self.both(lambda store: store.triggers.next_due())
        self.both(lambda store: store.triggers.events_after(1, ["stop", "go"], 2))
        self.both(lambda store: store.triggers.newest_event())
        # Their numbers are the store's own.
        self.both(
            lambda store: sorted(
                msgspec.json.encode(msgspec.structs.replace(end, id=0))
                for end in store.triggers.ends()
            )
        )
        for name in TRIGGERS:
            query = ArrivalQuery(trigger=name, limit=2)
            held = ArrivalQuery(trigger=name, decision="held", oldest_first=True)
            self.both(lambda store, query=query: store.triggers.list_arrivals(query))
            self.both(lambda store, query=held: store.triggers.list_arrivals(query))

    @invariant()
    def all_lists_look_alike(self) -> None:
        self.both(lambda store: store.next_wake())
        self.both(lambda store: store.claimable())
        self.both(lambda store: store.claimable(besides="one"))
        self.both(lambda store: store.requests("one"))
        self.both(lambda store: store.coordinators())
        for status in ((), (RunStatus.INTERRUPTED,), (RunStatus.QUEUED, RunStatus.FAILED)):
            self.compare_page(RunQuery(status=status, limit=2))

    @invariant()
    def what_gc_sees_looks_alike(self) -> None:
        blobs = [digest(name) for name in BLOBS]
        for besides in ([], [RunId("a")], [RunId("a"), RunId("c")]):
            self.both(lambda store, runs=besides: store.unreferenced(blobs, besides=runs))
        self.both(lambda store: store.list_condemned())
        self.both(lambda store: store.list_pins())
        self.both(lambda store: store.list_tombstones(self.clock.now()))

    def compare_page(self, query: RunQuery) -> None:
        self.both(lambda store: store.list_runs(query))

    @invariant()
    def a_step_has_one_current_generation(self) -> None:
        for run_id in map(RunId, RUNS):
            current = [step.step_id for step in self.stores[0].list_steps(run_id)]
            assert len(current) == len(set(current))


def _answer(ask: Callable[[RunStore], Any], store: RunStore) -> Any:
    """Return what a store answers; refusals and errors by their kind, not by their words."""
    try:
        answer = ask(store)
    except PerdureError as error:
        return (type(error), getattr(error, "digests", ()))
    if isinstance(answer, FireReport):
        kinds = {name: (r.kind, r.digests) for name, r in answer.refused.items()}
        return (answer.fired, kinds, answer.made)
    if isinstance(answer, AcceptReport):
        kinds = {name: (r.kind, r.digests) for name, r in answer.refused.items()}
        return (answer.accepted, kinds, answer.known, answer.made)
    if isinstance(answer, CommitReport):
        refused = {
            run_id: (refusal.kind, refusal.digests, sorted(refusal.steps))
            for run_id, refusal in answer.refused.items()
        }
        return (answer.committed, refused)
    return answer


EXAMPLES = int(os.environ.get("PERDURE_TEST_STORIES", "32"))


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Shrinking a story over databases takes minutes; the seed that is printed replays it.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )


class MemoryAndSqlite(Differential):
    def __init__(self) -> None:
        super().__init__(self._make)

    @staticmethod
    def _make(clock: ManualClock, folder: Path) -> list[RunStore]:
        path = folder / "perdure.db"
        return [
            MemoryRunStore(clock, boot_id=boot_id()),
            open_run_store(path, key=b"k" * 32, clock=clock, lease_clock=clock),
        ]


def test_memory_and_sqlite_answer_alike() -> None:
    run_state_machine_as_test(MemoryAndSqlite, settings=_settings(EXAMPLES))


@pytest.fixture
def fresh_schemas(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Yield a maker of URLs of empty schemas, which go away together."""
    import psycopg

    made: list[str] = []

    def make() -> str:
        name = f"d_{len(made)}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            for old in made[-1:]:
                connection.execute(f"DROP SCHEMA {old} CASCADE")
            connection.execute(f"CREATE SCHEMA {name}")
        made.append(name)
        joint = "&" if "?" in postgres_server else "?"
        return f"{postgres_server}{joint}options=-csearch_path%3D{name}"

    yield make
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for old in made[-1:]:
            connection.execute(f"DROP SCHEMA {old} CASCADE")


@pytest.mark.postgres
def test_memory_and_postgres_answer_alike(fresh_schemas: Callable[[], str]) -> None:
    def make(clock: ManualClock, folder: Path) -> list[RunStore]:
        del folder
        return [
            MemoryRunStore(clock, boot_id=boot_id()),
            open_run_store(fresh_schemas(), key=b"k" * 32, clock=clock, lease_clock=clock),
        ]

    class MemoryAndPostgres(Differential):
        def __init__(self) -> None:
            super().__init__(make)

    run_state_machine_as_test(MemoryAndPostgres, settings=_settings(EXAMPLES // 4))
