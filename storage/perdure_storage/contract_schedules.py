"""What every store does with schedules: kept, listed, found when they are due."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_plan,
    a_schedule,
    a_tick,
    an_owner,
    an_unplanned_run,
    built,
    by,
    created,
    digest,
    fired,
    registered,
)
from perdure_storage.errors import (
    BlobsCondemned,
    InternalError,
    ScheduleNotFound,
    StoreError,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import PlanRecord, RunEnd, RunId
from perdure_storage.schedule_records import (
    ScheduleChange,
    ScheduleQuery,
    ScheduleRecord,
    TickQuery,
)

_replace = msgspec.structs.replace

_RUN = RunId("run")
_SECOND = timedelta(seconds=1)
_OF_NIGHTLY = TickQuery(schedule="nightly")


class ScheduleContract:
    """Schedules, and when they are due."""

    # --- registering -----------------------------------------------------------------------------
    def test_schedule_is_kept_with_every_field(self, store: RunStore, clock: ManualClock) -> None:
        plan = a_plan("pinned", "code")
        full = a_schedule(
            definition='{"cron":"0 2 * * *"}',
            digest="v1:full",
            module="package.module",
            plan_digest=plan.digest,
            blobs=(digest("bundle"),),
            concurrency="warehouse",
            state='{"fired":3}',
            next_at=NOW + timedelta(microseconds=1),
            wakes_below=2,
            waits_since=NOW - _SECOND,
            paused=True,
            ended=True,
        )

        made = store.schedules.register(ScheduleChange(schedule=full), plan)

        at = clock.now()
        assert made == _replace(full, version=1, created_at=at, updated_at=at)
        assert store.schedules.get_schedule("nightly") == made
        assert store.schedules.find_schedule("nightly") == made
        assert store.get_plan(plan.digest) == plan

    def test_schedule_of_a_name_that_is_taken_is_not_registered_as_new(
        self, store: RunStore
    ) -> None:
        first = registered(store)

        again = ScheduleChange(schedule=a_schedule(definition="another"), ticks=(a_tick(),))

        assert store.schedules.register(again) is None
        assert store.schedules.get_schedule("nightly") == first
        assert store.schedules.list_ticks(_OF_NIGHTLY) == []

    def test_register_replaces_the_definition_of_the_version_that_was_read(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        first = registered(store)
        clock.advance(5)

        new = _replace(first, definition="new", digest="v1:new", module="m", state="moved")
        second = store.schedules.register(ScheduleChange(schedule=new, ticks=(a_tick(),)))

        assert second == _replace(new, version=2, updated_at=clock.now())
        assert store.schedules.get_schedule("nightly") == second
        assert store.schedules.list_ticks(_OF_NIGHTLY) == [a_tick()]
        assert store.schedules.register(ScheduleChange(schedule=new)) is None

    def test_registering_what_was_removed_meanwhile_changes_nothing(self, store: RunStore) -> None:
        read = registered(store)
        store.schedules.remove("nightly")

        assert store.schedules.register(ScheduleChange(schedule=read)) is None
        assert store.schedules.find_schedule("nightly") is None

    def test_register_makes_runs_as_fire_does(self, store: RunStore) -> None:
        schedule = registered(store)

        store.schedules.register(fired(schedule, an_unplanned_run()))

        assert store.get_run(_RUN).schedule == "nightly"

    def test_plan_goes_when_another_takes_its_place_and_no_run_has_it(
        self, store: RunStore
    ) -> None:
        old, new = a_plan("old", "old code"), a_plan("new", "new code")
        first = _registered_with(store, old)

        pinned = _replace(first, plan_digest=new.digest)
        second = store.schedules.register(ScheduleChange(schedule=pinned), new)

        assert second is not None
        assert store.get_plan(new.digest) == new
        with pytest.raises(StoreError):
            store.get_plan(old.digest)
        assert store.unreferenced([digest("old code"), digest("new code")]) == [digest("old code")]

    def test_plan_of_a_schedule_stays_while_a_run_has_it(self, store: RunStore) -> None:
        plan = a_plan("pinned", "code")
        schedule = _registered_with(store, plan)
        run = _replace(an_unplanned_run(), plan_digest=plan.digest)
        assert store.schedules.fire([fired(schedule, run)]).made == (_RUN,)

        store.schedules.remove("nightly")

        assert store.get_plan(plan.digest) == plan
        assert store.unreferenced([digest("code")]) == []

    def test_plan_of_a_schedule_outlives_its_runs(self, store: RunStore) -> None:
        plan = a_plan("pinned", "code")
        schedule = _registered_with(store, plan)
        run = _replace(an_unplanned_run(), plan_digest=plan.digest)
        store.schedules.fire([fired(schedule, run)])
        _end(store, "run", RunStatus.SUCCEEDED)
        assert store.unreferenced([digest("code")], besides=[_RUN]) == []

        store.delete_run(_RUN)

        assert store.get_plan(plan.digest) == plan
        assert store.unreferenced([digest("code")]) == []

    def test_register_takes_no_other_plan_than_the_schedule_names(self, store: RunStore) -> None:
        for schedule, plan in (
            (a_schedule(), a_plan()),
            (a_schedule(plan_digest=digest("pinned")), None),
            (a_schedule(plan_digest=digest("pinned")), a_plan("other")),
        ):
            with pytest.raises(InternalError):
                store.schedules.register(ScheduleChange(schedule=schedule), plan)

    def test_blobs_of_a_schedule_are_kept_as_long_as_it_names_them(self, store: RunStore) -> None:
        schedule = registered(store, blobs=(digest("a"), digest("b")))
        both = [digest("a"), digest("b")]
        assert store.unreferenced(both) == []

        second = store.schedules.register(
            ScheduleChange(schedule=_replace(schedule, blobs=(digest("b"),)))
        )
        assert second is not None
        assert store.unreferenced(both) == [digest("a")]
        store.schedules.remove("nightly")

        assert store.unreferenced(both) == both

    def test_register_refuses_blobs_that_are_being_collected(self, store: RunStore) -> None:
        store.condemn([digest("taken")])
        by_name = ScheduleChange(schedule=a_schedule(blobs=(digest("taken"),)))
        plan = a_plan("pinned", "taken")
        by_plan = ScheduleChange(schedule=a_schedule(plan_digest=plan.digest))

        for change, its_plan in ((by_name, None), (by_plan, plan)):
            with pytest.raises(BlobsCondemned) as refused:
                store.schedules.register(change, its_plan)
            assert refused.value.digests == (digest("taken"),)

        assert store.schedules.find_schedule("nightly") is None

    @pytest.mark.parametrize("field", ["name", "definition", "state", "module", "digest"])
    @pytest.mark.parametrize("text", ["nul \0", "lone \ud800"])
    def test_schedule_that_no_database_could_keep_is_refused(
        self, store: RunStore, field: str, text: str
    ) -> None:
        change = ScheduleChange(schedule=a_schedule(**{field: text}))

        with pytest.raises(StoreError, match="cannot be stored"):
            store.schedules.register(change)

        assert store.schedules.list_schedules(ScheduleQuery()) == []

    # --- removing --------------------------------------------------------------------------------
    def test_remove_takes_the_schedule_and_its_ticks_and_leaves_its_runs(
        self, store: RunStore
    ) -> None:
        store.schedules.fire([fired(registered(store), an_unplanned_run())])

        assert store.schedules.remove("nightly")

        assert not store.schedules.remove("nightly")
        with pytest.raises(ScheduleNotFound, match="nightly"):
            store.schedules.get_schedule("nightly")
        assert store.schedules.list_ticks(_OF_NIGHTLY) == []
        assert store.get_run(_RUN).schedule == "nightly"

    # --- lists -----------------------------------------------------------------------------------
    def test_schedules_are_listed_by_name_by_pages_and_by_what_is_asked(
        self, store: RunStore
    ) -> None:
        registered(store, "b", module="m", paused=True, concurrency="key")
        registered(store, "a", module="m", concurrency="key of a")
        registered(store, "ä", ended=True)
        registered(store, "a-2")

        def names(**more: object) -> list[str]:
            query = ScheduleQuery(**more)  # type: ignore[arg-type]
            return [schedule.name for schedule in store.schedules.list_schedules(query)]

        assert names() == ["a", "a-2", "b", "ä"]
        assert names(limit=2) == ["a", "a-2"]
        assert names(limit=2, after="a-2") == ["b", "ä"]
        assert names(module="m") == ["a", "b"]
        assert names(concurrency="key") == ["b"]
        assert names(paused=True) == ["b"]
        assert names(paused=False, ended=False) == ["a", "a-2"]
        assert names(name_prefix="a") == ["a", "a-2"]

    # --- due -------------------------------------------------------------------------------------
    def test_due_are_those_whose_time_has_come_the_longest_due_first(self, store: RunStore) -> None:
        registered(store, "later", next_at=NOW + _SECOND)
        registered(store, "now", next_at=NOW)
        registered(store, "also now", next_at=NOW)
        registered(store, "long ago", next_at=NOW - timedelta(days=1))
        registered(store, "never", next_at=None)

        assert _names(store.schedules.due(NOW)) == ["long ago", "also now", "now"]
        assert _names(store.schedules.due(NOW, limit=1)) == ["long ago"]
        assert store.schedules.next_due() == NOW - timedelta(days=1)

    def test_nothing_is_due_where_there_is_no_schedule(self, store: RunStore) -> None:
        assert store.schedules.due(NOW) == []
        assert store.schedules.next_due() is None
        registered(store, next_at=None)
        assert store.schedules.next_due() is None

    def test_schedule_is_due_when_fewer_of_its_runs_are_live(self, store: RunStore) -> None:
        schedule = registered(store, "a", next_at=None, wakes_below=2)
        registered(store, "timed", next_at=NOW)
        runs = (an_unplanned_run("one"), an_unplanned_run("two"))
        created(store, "of nobody")
        assert _names(store.schedules.due(NOW)) == ["timed", "a"]
        store.schedules.fire([fired(schedule, *runs)])
        assert _names(store.schedules.due(NOW)) == ["timed"]

        store.request_cancel(RunId("one"))

        assert _names(store.schedules.due(NOW)) == ["timed", "a"]


def _registered_with(store: RunStore, plan: PlanRecord) -> ScheduleRecord:
    change = ScheduleChange(schedule=a_schedule(plan_digest=plan.digest))
    schedule = store.schedules.register(change, plan)
    assert schedule is not None
    return schedule


def _end(
    store: RunStore, name: str, status: RunStatus, *, plan: str = "plan", is_claimed: bool = False
) -> None:
    """Let a run go to its end."""
    store.register(an_owner(), LEASE_S * 100)
    run = store.get_run(RunId(name))
    if not is_claimed:
        taken = store.claim_run(run.id, an_owner(), built=built(plan))
        assert taken is not None
        run = taken
    assert run.id in store.commit([by(run, end=RunEnd(status=status))]).committed


def _names(schedules: list[ScheduleRecord]) -> list[str]:
    return [schedule.name for schedule in schedules]
