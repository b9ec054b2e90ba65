"""What every store does with triggers: kept, listened for by one, due when their time comes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_plan,
    a_trigger,
    a_value,
    an_arrival,
    an_owner,
    arrived,
    built,
    by,
    digest,
    watched,
)
from perdure_storage.errors import (
    BlobsCondemned,
    InternalError,
    StoreError,
    TriggerNotFound,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Place, PlanRecord, RunEnd, RunId, RunQuery, RunRecord
from perdure_storage.trigger_records import (
    ArrivalQuery,
    ArrivalRecord,
    TriggerChange,
    TriggerQuery,
    TriggerRecord,
)

_replace = msgspec.structs.replace

_SECOND = timedelta(seconds=1)
_OF_LANDED = ArrivalQuery(trigger="landed")


class TriggerContract:
    """Triggers, who listens for them, and when they are due."""

    # --- registering -----------------------------------------------------------------------------
    def test_trigger_is_kept_with_every_field(self, store: RunStore, clock: ManualClock) -> None:
        plan = a_plan("pinned", "code")
        full = a_trigger(
            definition='{"on":"files"}',
            digest="v1:full",
            module="package.module",
            plan_digest=plan.digest,
            blobs=(digest("bundle"),),
            events=("price", "rate"),
            heard=7,
            watches_runs=True,
            listens=True,
            state='{"cursors":{}}',
            next_at=NOW + timedelta(microseconds=1),
            paused=True,
        )

        made = store.triggers.register(TriggerChange(trigger=full), plan)

        at = clock.now()
        assert made == _replace(full, version=1, created_at=at, updated_at=at)
        assert store.triggers.get_trigger("landed") == made
        assert store.triggers.find_trigger("landed") == made
        assert store.get_plan(plan.digest) == plan

    def test_trigger_of_a_name_that_is_taken_is_not_registered_as_new(
        self, store: RunStore
    ) -> None:
        first = watched(store)

        again = TriggerChange(trigger=a_trigger(definition="another"), arrivals=(an_arrival(),))

        assert store.triggers.register(again) is None
        assert store.triggers.get_trigger("landed") == first
        assert store.triggers.list_arrivals(_OF_LANDED) == []

    def test_register_replaces_the_definition_of_the_version_that_was_read(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        first = watched(store, listens=True, events=("old",))
        clock.advance(5)

        new = _replace(first, definition="new", digest="v1:new", module="m", state="moved")
        new = _replace(new, listens=False, events=("new",), watches_runs=True)
        second = store.triggers.register(TriggerChange(trigger=new, arrivals=(an_arrival(),)))

        assert second == _replace(new, version=2, updated_at=clock.now())
        assert store.triggers.get_trigger("landed") == second
        assert [a.key for a in store.triggers.list_arrivals(_OF_LANDED)] == ["a.csv"]
        assert store.triggers.register(TriggerChange(trigger=new)) is None

    def test_registering_a_trigger_that_was_removed_meanwhile_changes_nothing(
        self, store: RunStore
    ) -> None:
        read = watched(store)
        store.triggers.remove("landed")

        assert store.triggers.register(TriggerChange(trigger=read)) is None
        assert store.triggers.find_trigger("landed") is None

    def test_register_makes_the_runs_of_new_arrivals_alone(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "known", run="first")])
        trigger = store.triggers.get_trigger("landed")

        both = arrived(trigger, "known", "new", run="second")
        second = store.triggers.register(both)

        assert second is not None
        assert {run.id for run in store.list_runs(RunQuery(trigger="landed"))} == {
            "first-known",
            "second-new",
        }
        known = store.triggers.known("landed", ["known"])["known"]
        assert known.run_id == "first-known"

    def test_plan_of_a_trigger_goes_when_another_takes_its_place(self, store: RunStore) -> None:
        old, new = a_plan("old", "old code"), a_plan("new", "new code")
        first = _watched_with(store, old)

        pinned = _replace(first, plan_digest=new.digest)
        second = store.triggers.register(TriggerChange(trigger=pinned), new)

        assert second is not None
        assert store.get_plan(new.digest) == new
        with pytest.raises(StoreError):
            store.get_plan(old.digest)
        assert store.unreferenced([digest("old code"), digest("new code")]) == [digest("old code")]

    def test_plan_of_a_trigger_stays_while_a_run_has_it(self, store: RunStore) -> None:
        plan = a_plan("pinned", "code")
        trigger = _watched_with(store, plan)
        change = arrived(trigger, "a.csv")
        planned = tuple(_replace(run, plan_digest=plan.digest) for run in change.runs)
        assert store.triggers.accept([_replace(change, runs=planned)]).made == ("run-a.csv",)

        store.triggers.remove("landed")

        assert store.get_plan(plan.digest) == plan
        assert store.unreferenced([digest("code")]) == []

    def test_plan_of_a_trigger_outlives_its_runs(self, store: RunStore) -> None:
        plan = a_plan("pinned", "code")
        trigger = _watched_with(store, plan)
        change = arrived(trigger, "a.csv")
        planned = tuple(_replace(run, plan_digest=plan.digest) for run in change.runs)
        store.triggers.accept([_replace(change, runs=planned)])
        _end(store, "run-a.csv", RunStatus.SUCCEEDED)

        store.delete_run(RunId("run-a.csv"))

        assert store.get_plan(plan.digest) == plan
        assert store.unreferenced([digest("code")]) == []

    def test_register_takes_no_other_plan_than_the_trigger_names(self, store: RunStore) -> None:
        for trigger, plan in (
            (a_trigger(), a_plan()),
            (a_trigger(plan_digest=digest("pinned")), None),
            (a_trigger(plan_digest=digest("pinned")), a_plan("other")),
        ):
            with pytest.raises(InternalError):
                store.triggers.register(TriggerChange(trigger=trigger), plan)

    def test_blobs_of_a_trigger_are_kept_as_long_as_it_names_them(self, store: RunStore) -> None:
        trigger = watched(store, blobs=(digest("a"), digest("b")))
        both = [digest("a"), digest("b")]
        assert store.unreferenced(both) == []

        second = store.triggers.register(
            TriggerChange(trigger=_replace(trigger, blobs=(digest("b"),)))
        )
        assert second is not None
        assert store.unreferenced(both) == [digest("a")]
        store.triggers.remove("landed")

        assert store.unreferenced(both) == both

    def test_register_of_a_trigger_refuses_blobs_that_are_being_collected(
        self, store: RunStore
    ) -> None:
        store.condemn([digest("taken")])
        plan = a_plan("pinned", "taken")
        by_name = TriggerChange(trigger=a_trigger(blobs=(digest("taken"),)))
        by_plan = TriggerChange(trigger=a_trigger(plan_digest=plan.digest))
        by_payload = TriggerChange(trigger=a_trigger(), arrivals=(_carrying("taken"),))

        for change, its_plan in ((by_name, None), (by_plan, plan), (by_payload, None)):
            with pytest.raises(BlobsCondemned) as refused:
                store.triggers.register(change, its_plan)
            assert refused.value.digests == (digest("taken"),)

        assert store.triggers.find_trigger("landed") is None

    @pytest.mark.parametrize("field", ["name", "definition", "state", "module", "digest"])
    @pytest.mark.parametrize("text", ["nul \0", "lone \ud800"])
    def test_trigger_that_no_database_could_keep_is_refused(
        self, store: RunStore, field: str, text: str
    ) -> None:
        trigger = a_trigger(**{field: text})

        with pytest.raises(StoreError):
            store.triggers.register(TriggerChange(trigger=trigger))

        assert store.triggers.list_triggers(TriggerQuery()) == []

    def test_removed_trigger_leaves_its_runs_and_nothing_else(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "a.csv")])

        assert store.triggers.remove("landed")
        assert not store.triggers.remove("landed")

        assert store.triggers.find_trigger("landed") is None
        assert store.triggers.list_arrivals(_OF_LANDED) == []
        assert store.get_run(RunId("run-a.csv")).trigger == "landed"
        with pytest.raises(TriggerNotFound, match="landed"):
            store.triggers.get_trigger("landed")

    def test_trigger_of_a_removed_name_makes_none_of_the_runs_again(self, store: RunStore) -> None:
        store.triggers.accept([arrived(watched(store), "a.csv")])
        store.triggers.remove("landed")

        report = store.triggers.accept([arrived(watched(store), "a.csv")])

        assert report.made == ()
        assert report.known == {}
        assert store.triggers.known("landed", ["a.csv"])["a.csv"].run_id == "run-a.csv"

    # --- listening -------------------------------------------------------------------------------
    def test_sources_are_taken_by_one_live_coordinator(self, store: RunStore) -> None:
        for token in ("one", "two"):
            store.register(an_owner(token), LEASE_S)
        for name in ("a", "b", "c"):
            watched(store, name, listens=True)
        watched(store, "deaf")
        watched(store, "paused", listens=True, paused=True)

        first = store.triggers.take_sources("one", limit=2)
        second = store.triggers.take_sources("two")

        assert [(t.name, t.listener, t.version) for t in first] == [
            ("a", "one", 1),
            ("b", "one", 1),
        ]
        assert [t.name for t in second] == ["c"]
        assert [t.name for t in store.triggers.take_sources("one")] == ["a", "b"]
        assert store.triggers.get_trigger("a").listener == "one"

    def test_sources_of_who_is_dead_or_gone_are_taken_over(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        watched(store, listens=True)
        for token in ("one", "two", "three"):
            store.register(an_owner(token), LEASE_S)
        store.triggers.take_sources("one")

        assert store.triggers.take_sources("two") == []
        assert [t.name for t in store.triggers.take_sources("two", seen_dead=["one"])] == ["landed"]
        store.unregister(an_owner("two"))
        assert [t.name for t in store.triggers.take_sources("three")] == ["landed"]
        clock.advance(LEASE_S + 1)
        store.register(an_owner("four"), LEASE_S)
        assert [t.name for t in store.triggers.take_sources("four")] == ["landed"]
        assert store.triggers.take_sources("three") == []

    def test_sources_that_are_left_are_anyones(self, store: RunStore) -> None:
        watched(store, listens=True)
        for token in ("one", "two"):
            store.register(an_owner(token), LEASE_S)
        store.triggers.take_sources("one")

        store.triggers.leave_sources("two")
        assert store.triggers.take_sources("two") == []
        store.triggers.leave_sources("one")

        assert store.triggers.get_trigger("landed").listener is None
        assert [t.listener for t in store.triggers.take_sources("two")] == ["two"]

    def test_listener_loses_what_is_paused_or_registered_anew(self, store: RunStore) -> None:
        store.register(an_owner(), LEASE_S)
        paused, renewed = watched(store, "p", listens=True), watched(store, "r", listens=True)
        assert len(store.triggers.take_sources("one")) == 2

        store.triggers.accept([TriggerChange(trigger=_replace(paused, paused=True))])
        store.triggers.register(TriggerChange(trigger=renewed))

        assert store.triggers.get_trigger("p").listener is None
        assert store.triggers.get_trigger("r").listener is None
        assert [t.name for t in store.triggers.take_sources("one")] == ["r"]

    def test_listener_keeps_its_trigger_while_arrivals_move_it(self, store: RunStore) -> None:
        store.register(an_owner(), LEASE_S)
        watched(store, listens=True)
        (mine,) = store.triggers.take_sources("one")

        report = store.triggers.accept([arrived(_replace(mine, state="moved"), "a.csv")])

        assert report.accepted["landed"].listener == "one"
        assert store.triggers.get_trigger("landed").listener == "one"

    # --- when time brings a decision -------------------------------------------------------------
    def test_trigger_is_due_once_its_time_has_come(self, store: RunStore) -> None:
        watched(store, "later", next_at=NOW + _SECOND)
        watched(store, "now", next_at=NOW)
        watched(store, "never")
        watched(store, "before", next_at=NOW - _SECOND)

        assert [t.name for t in store.triggers.due_triggers(NOW)] == ["before", "now"]
        assert [t.name for t in store.triggers.due_triggers(NOW, limit=1)] == ["before"]
        assert store.triggers.next_due() == NOW - _SECOND

    def test_nothing_is_due_where_no_trigger_waits_for_a_time(self, store: RunStore) -> None:
        watched(store)

        assert store.triggers.due_triggers(NOW) == []
        assert store.triggers.next_due() is None

    def test_triggers_are_listed_by_name_and_filtered(self, store: RunStore) -> None:
        watched(store, "b", module="m", watches_runs=True)
        watched(store, "a", paused=True, listens=True)
        watched(store, "ab", module="m", listens=True)

        def names(**query: object) -> list[str]:
            return [t.name for t in store.triggers.list_triggers(TriggerQuery(**query))]  # type: ignore[arg-type]

        assert names() == ["a", "ab", "b"]
        assert names(limit=1, after="a") == ["ab"]
        assert names(module="m") == ["ab", "b"]
        assert names(paused=True) == ["a"]
        assert names(watches_runs=True) == ["b"]
        assert names(listens=True, paused=False) == ["ab"]
        assert names(name_prefix="a", paused=False) == ["ab"]

    def test_who_is_to_be_told_of_what_is_asked_for_paused_or_not(self, store: RunStore) -> None:
        watched(store, "nothing")
        watched(store, "b", events=("price",))
        watched(store, "a", events=("price",), paused=True)
        watched(store, "runs", watches_runs=True)

        assert [each.name for each in store.triggers.hearing()] == ["a", "b"]
        assert [each.name for each in store.triggers.watching()] == ["runs"]
        assert store.triggers.watching() == [store.triggers.get_trigger("runs")]


def _watched_with(store: RunStore, plan: PlanRecord) -> TriggerRecord:
    change = TriggerChange(trigger=a_trigger(plan_digest=plan.digest))
    trigger = store.triggers.register(change, plan)
    assert trigger is not None
    return trigger


def _carrying(blob: str, trigger: str = "landed", **more: Any) -> ArrivalRecord:
    """Return an arrival whose payload is in a blob."""
    payload = a_value("whole", place=Place.BLOB, name=blob)
    return an_arrival(**{"trigger": trigger, "payload": payload, **more})


def _end(store: RunStore, name: str, status: RunStatus) -> RunRecord:
    run_id = RunId(name)
    store.register(an_owner(), LEASE_S)
    is_planned = store.get_run(run_id).plan_digest is not None
    run = store.claim_run(run_id, an_owner(), built=None if is_planned else built())
    assert run is not None
    assert store.commit([by(run, end=RunEnd(status=status))]).committed
    return store.get_run(run_id)
