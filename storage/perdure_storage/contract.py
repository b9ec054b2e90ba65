"""What every run store must do, as public pytest classes: subclass, and give ``store``, ``clock``.

    class TestMyStore(RunStoreContract):
        @pytest.fixture
        def store(self, clock): ...

The store takes wall time and leases from ``clock``. One test for each sentence of ``RunStore``.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import compress

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_arrivals import ArrivalContract
from perdure_storage.contract_claims import ManyRunsContract
from perdure_storage.contract_commits import CommitContract
from perdure_storage.contract_expansions import ExpansionContract
from perdure_storage.contract_imports import ImportContract
from perdure_storage.contract_messages import MessageContract
from perdure_storage.contract_news import TriggerNewsContract
from perdure_storage.contract_queues import QueueContract
from perdure_storage.contract_requests import RequestContract
from perdure_storage.contract_retention import RetentionContract
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_plan,
    a_run,
    a_step,
    a_value,
    an_owner,
    by,
    claimed,
    created,
    digest,
    ended,
    kinds,
)
from perdure_storage.contract_saves import SaveContract
from perdure_storage.contract_schedules import ScheduleContract
from perdure_storage.contract_ticks import TickContract
from perdure_storage.contract_triggers import TriggerContract
from perdure_storage.contract_unplanned import UnplannedContract
from perdure_storage.errors import BlobsCondemned, InternalError, RunNotFound, StoreError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    Place,
    ProcessId,
    RunEnd,
    RunId,
    RunPolicy,
    RunQuery,
)

_RUN = RunId("run")


class CreationContract:
    """Making runs, finding them, and listing them."""

    def test_create_run_gives_the_row_that_is_found_later(self, store: RunStore) -> None:
        run = a_run(
            origin="package.module:flow",
            inputs={"x": a_value("1"), "y": a_value("2", place=Place.BLOB)},
            inputs_digest="v1:xy",
            policy=RunPolicy(durability="group", executor="inline"),
            tags={"team": "search", "odd \" 'key": "ünï"},
            metadata={"nested": {"list": [1, 2.5, None, True]}},
            parent=RunId("above"),
            forked_from=RunId("before"),
            reuse_from=RunId("before"),
            queue="q",
            limit_key="k",
            dedup_key="once",
            priority=-3,
            not_before=NOW + timedelta(microseconds=1),
            deadline=NOW + timedelta(days=400),
        )

        made = store.create_run(run, a_plan())

        assert made == msgspec.structs.replace(run, seq=1)
        assert store.get_run(_RUN) == made
        assert store.find_run(_RUN) == made

    def test_create_run_starts_from_nothing_whatever_the_record_says(self, store: RunStore) -> None:
        run = a_run(status=RunStatus.SUCCEEDED, owner=an_owner(), epoch=9, takeovers=2, seq=40)

        made = store.create_run(run, a_plan())

        assert made is not None
        assert (made.status, made.owner, made.epoch, made.takeovers, made.seq) == (
            RunStatus.QUEUED,
            None,
            0,
            0,
            1,
        )
        assert kinds(store) == ["submitted"]

    def test_create_run_with_an_owner_makes_a_run_that_is_claimed(self, store: RunStore) -> None:
        owner = an_owner()
        store.register(owner, 10.0)

        made = store.create_run(a_run(), a_plan(), owner=owner)

        assert made == store.get_run(_RUN)
        assert made is not None
        assert (made.status, made.owner, made.lease_live) == (RunStatus.RUNNING, owner, True)
        assert (made.epoch, made.takeovers, made.seq) == (1, 0, 2)
        assert made.started_at is not None
        assert kinds(store) == ["submitted", "claimed"]
        assert store.claim_run(_RUN, an_owner("another")) is None

    def test_create_run_with_an_owner_claims_no_run_that_is_there(self, store: RunStore) -> None:
        first = created(store)
        store.register(an_owner(), 10.0)

        assert store.create_run(a_run(), a_plan(), owner=an_owner()) is None

        assert store.get_run(_RUN) == first

    def test_create_run_gives_none_and_changes_nothing_when_the_id_is_taken(
        self, store: RunStore
    ) -> None:
        first, other = created(store), a_plan("other plan")

        assert store.create_run(a_run(workflow="another", plan=other), other) is None

        assert store.get_run(_RUN) == first
        with pytest.raises(StoreError):
            store.get_plan(digest("other plan"))

    def test_create_run_refuses_blobs_that_are_being_collected(self, store: RunStore) -> None:
        store.condemn([digest("input"), digest("function")])

        for run, plan in (
            (a_run(inputs={"x": a_value(place=Place.BLOB, name="input")}), a_plan()),
            (a_run(), a_plan("plan", "function")),
        ):
            with pytest.raises(BlobsCondemned) as refused:
                store.create_run(run, plan)
            assert len(refused.value.digests) == 1

        assert store.find_run(_RUN) is None

    def test_create_run_keeps_one_plan_for_runs_that_share_it(self, store: RunStore) -> None:
        plan = a_plan("shared", "function")
        created(store, "a", plan=plan)
        created(store, "b", plan=plan)

        assert store.get_plan(plan.digest) == plan

    def test_find_runs_gives_those_that_there_are(self, store: RunStore) -> None:
        runs = [created(store, name) for name in ("a", "b", "c")]

        found = store.find_runs([RunId("c"), RunId("a"), RunId("absent")])

        assert sorted(found, key=lambda run: run.id) == [runs[0], runs[2]]
        assert store.find_runs([]) == []

    def test_find_run_gives_none_when_there_is_no_such_run(self, store: RunStore) -> None:
        assert store.find_run(_RUN) is None

    def test_get_run_names_the_store_that_was_asked(self, store: RunStore) -> None:
        with pytest.raises(RunNotFound, match="run 'run'") as missing:
            store.get_run(_RUN)

        assert missing.value.store == store.url

    def test_get_plan_refuses_a_digest_that_is_not_there(self, store: RunStore) -> None:
        with pytest.raises(StoreError, match="blake3:none"):
            store.get_plan(digest("none"))

    def test_list_runs_pages_newest_first_by_time_and_id(self, store: RunStore) -> None:
        for name, second in (("b", 0), ("a", 0), ("c", 1), ("Z", 0), ("é", 0)):
            created(store, name, created_at=NOW + timedelta(seconds=second))

        first = store.list_runs(RunQuery(limit=3))
        rest = store.list_runs(RunQuery(limit=3, after=first[-1].id))

        assert [run.id for run in first] == ["c", "é", "b"]
        assert [run.id for run in rest] == ["a", "Z"]

    def test_list_runs_leaves_inputs_out(self, store: RunStore) -> None:
        created(store, inputs={"x": a_value()})

        assert store.list_runs(RunQuery())[0].inputs == {}

    def test_list_runs_finds_by_workflow_time_prefix_and_tags(self, store: RunStore) -> None:
        created(store, "iris-1", workflow="iris", tags={"k": "v", "o": "1"})
        created(store, "iris-2", workflow="iris", tags={"k": "w"}, created_at=NOW + timedelta(1))
        created(store, "other_1", tags={"k": "v"})

        def found(**query: object) -> list[str]:
            return [run.id for run in store.list_runs(RunQuery(**query))]  # type: ignore[arg-type]

        assert found(workflow="iris") == ["iris-2", "iris-1"]
        assert found(since=NOW + timedelta(seconds=1)) == ["iris-2"]
        assert found(id_prefix="iris-") == ["iris-2", "iris-1"]
        assert found(id_prefix="other%") == []
        assert found(id_prefix="other_") == ["other_1"]
        assert found(tags={"k": "v"}) == ["other_1", "iris-1"]
        assert found(tags={"k": "v", "o": "1"}) == ["iris-1"]
        assert found(tags={"o": "2"}) == []

    def test_list_runs_finds_by_status_and_tells_interrupted_by_the_lease(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        claimed(store, "dead", an_owner("dead"))
        clock.advance(LEASE_S + 1)
        claimed(store, "alive", an_owner("alive"))
        created(store, "queued")

        def found(*status: RunStatus) -> set[str]:
            return {run.id for run in store.list_runs(RunQuery(status=status))}

        assert found(RunStatus.INTERRUPTED) == {"dead"}
        assert found(RunStatus.RUNNING) == {"dead", "alive"}
        assert found(RunStatus.QUEUED, RunStatus.INTERRUPTED) == {"queued", "dead"}
        assert found(RunStatus.FAILED) == set()

    def test_list_runs_refuses_a_page_after_a_run_that_is_gone(self, store: RunStore) -> None:
        with pytest.raises(RunNotFound):
            store.list_runs(RunQuery(after=RunId("gone")))


class ClaimContract:
    """Leases, claims and hand-backs."""

    def test_claim_takes_a_queued_run(self, store: RunStore, clock: ManualClock) -> None:
        run = claimed(store)

        assert run.status is RunStatus.RUNNING
        assert run.owner == an_owner()
        assert (run.epoch, run.takeovers, run.lease_live) == (1, 0, True)
        assert run.started_at == clock.now()
        assert store.get_run(_RUN) == run
        assert kinds(store) == ["submitted", "claimed"]

    def test_claim_gives_none_when_a_lease_stands(self, store: RunStore) -> None:
        held = claimed(store)
        store.register(an_owner("two"), LEASE_S)

        assert store.claim_run(_RUN, an_owner("two")) is None
        assert store.claim_run(_RUN, an_owner("one")) is None
        assert store.get_run(_RUN) == held

    def test_claim_gives_none_when_there_is_no_such_run(self, store: RunStore) -> None:
        assert store.claim_run(RunId("none"), an_owner()) is None

    @pytest.mark.parametrize("status", [RunStatus.SUCCEEDED, RunStatus.FAILED])
    def test_claim_gives_none_when_the_run_is_over(
        self, store: RunStore, status: RunStatus
    ) -> None:
        run = ended(store, status=status)

        assert store.claim_run(_RUN, an_owner()) is None
        assert store.get_run(_RUN) == run

    def test_claim_takes_over_when_the_lease_is_over(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        claimed(store)
        store.register(an_owner("two"), 10 * LEASE_S)
        clock.advance(LEASE_S)

        run = store.claim_run(_RUN, an_owner("two"))

        assert run is not None
        assert (run.epoch, run.takeovers, run.owner) == (2, 1, an_owner("two"))
        last = store.list_events(_RUN)[-1]
        assert (last.kind, last.detail["from"], last.detail["epoch"]) == ("taken over", "one", 2)

    def test_claim_takes_over_at_once_from_an_owner_that_was_seen_dead(
        self, store: RunStore
    ) -> None:
        claimed(store)

        assert store.claim_run(_RUN, an_owner("two"), seen_dead="another") is None
        run = store.claim_run(_RUN, an_owner("two"), seen_dead="one")

        assert run is not None
        assert run.takeovers == 1

    def test_claim_takes_over_when_the_owner_unregistered(self, store: RunStore) -> None:
        claimed(store)
        store.unregister(an_owner())

        assert not store.get_run(_RUN).lease_live
        assert store.claim_run(_RUN, an_owner("two")) is not None

    def test_a_second_claim_by_the_same_owner_is_no_takeover(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        claimed(store)
        clock.advance(LEASE_S)
        store.register(an_owner(), LEASE_S)
        clock.advance(LEASE_S)

        again = store.claim_run(_RUN, an_owner())

        assert again is not None
        assert (again.epoch, again.takeovers) == (2, 0)

    def test_claim_keeps_the_first_start(self, store: RunStore, clock: ManualClock) -> None:
        first = claimed(store)
        store.release_run(first, to=RunStatus.QUEUED)
        clock.advance(5)

        again = store.claim_run(_RUN, an_owner())

        assert again is not None
        assert again.started_at == first.started_at
        assert again.takeovers == 0

    def test_run_that_is_given_up_as_it_stands_is_interrupted_and_free(
        self, store: RunStore
    ) -> None:
        store.release_run(claimed(store), to=RunStatus.RUNNING)

        assert [run.id for run in store.list_runs(RunQuery(status=(RunStatus.INTERRUPTED,)))] == [
            _RUN
        ]
        assert [run.id for run in store.claimable()] == [_RUN]
        again = store.claim_run(_RUN, an_owner())
        assert again is not None
        assert (again.status, again.takeovers) == (RunStatus.RUNNING, 0)

    def test_claim_leaves_a_paused_run_paused_while_the_request_stands(
        self, store: RunStore
    ) -> None:
        created(store)
        store.request_pause(_RUN, True)
        store.register(an_owner(), LEASE_S)

        run = store.claim_run(_RUN, an_owner())

        assert run is not None
        assert run.status is RunStatus.PAUSED

    def test_claim_runs_a_paused_run_whose_request_was_cleared_meanwhile(
        self, store: RunStore
    ) -> None:
        held = claimed(store)
        store.request_pause(_RUN, True)
        store.request_pause(_RUN, False)
        store.release_run(held, to=RunStatus.PAUSED)

        assert [run.id for run in store.claimable()] == [_RUN]
        run = store.claim_run(_RUN, an_owner())

        assert run is not None
        assert run.status is RunStatus.RUNNING

    def test_register_again_extends_the_lease(self, store: RunStore, clock: ManualClock) -> None:
        claimed(store)
        clock.advance(LEASE_S - 1)

        store.register(an_owner(), LEASE_S)
        clock.advance(LEASE_S - 1)

        assert store.get_run(_RUN).lease_live

    def test_renew_extends_the_lease_and_records_workers(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        claimed(store)
        workers = (ProcessId(pid=11, started=1.25), ProcessId(pid=12, started=2.5))

        assert store.renew(an_owner(), 3 * LEASE_S, workers)
        clock.advance(2 * LEASE_S)

        assert store.get_run(_RUN).lease_live
        assert store.workers_of("one") == workers

    def test_a_late_renewal_keeps_runs_that_nobody_took(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        held = claimed(store)
        clock.advance(5 * LEASE_S)

        assert store.renew(an_owner(), LEASE_S)

        assert store.get_run(_RUN).lease_live
        assert _RUN in store.commit([by(held, a_step("run", "s"))]).committed

    def test_renew_says_false_when_the_heartbeat_is_gone(self, store: RunStore) -> None:
        store.register(an_owner(), LEASE_S)
        store.unregister(an_owner())
        store.unregister(an_owner())

        assert not store.renew(an_owner(), LEASE_S)
        assert store.workers_of("one") == ()

    def test_a_lease_does_not_follow_the_wall_clock(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        claimed(store)

        clock.jump(86_400)
        assert store.get_run(_RUN).lease_live
        clock.jump(-200_000)
        clock.advance(LEASE_S)

        assert not store.get_run(_RUN).lease_live

    def test_coordinators_are_listed_with_whether_their_lease_stands(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        store.register(an_owner("b"), LEASE_S)
        store.register(an_owner("a", serves=True), 3 * LEASE_S)
        clock.advance(2 * LEASE_S)

        assert store.coordinators() == [
            (an_owner("a", serves=True), True),
            (an_owner("b"), False),
        ]

    def test_requests_shows_the_runs_of_one_coordinator(self, store: RunStore) -> None:
        claimed(store, "b", inputs={"x": a_value()})
        claimed(store, "a")
        claimed(store, "other", an_owner("two"))
        created(store, "queued")
        store.request_cancel(RunId("b"))

        mine = store.requests("one")

        assert [(run.id, run.cancel_requested) for run in mine] == [("a", False), ("b", True)]
        assert mine[1].inputs == {}

    def test_release_gives_the_run_back(self, store: RunStore) -> None:
        run = claimed(store)
        wake_at = NOW + timedelta(hours=1)

        assert store.release_run(run, to=RunStatus.WAITING, wake_at=wake_at)

        given_back = store.get_run(_RUN)
        assert (given_back.status, given_back.owner) == (RunStatus.WAITING, None)
        assert (given_back.wake_at, given_back.epoch) == (wake_at, 1)

    def test_release_says_false_when_somebody_else_holds_the_run(self, store: RunStore) -> None:
        old = claimed(store)
        new = store.claim_run(_RUN, an_owner("two"), seen_dead="one")

        assert not store.release_run(old, to=RunStatus.QUEUED)
        assert new is not None
        assert not store.release_run(msgspec.structs.replace(new, epoch=1), to=RunStatus.QUEUED)
        assert not store.release_run(a_run("none", owner=an_owner()), to=RunStatus.QUEUED)
        assert store.get_run(_RUN).owner == an_owner("two")

    def test_release_says_false_when_the_run_is_over(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, end=RunEnd(status=RunStatus.FAILED))])

        assert not store.release_run(run, to=RunStatus.QUEUED)

    def test_release_refuses_a_status_that_is_no_hand_back(self, store: RunStore) -> None:
        run = claimed(store)

        with pytest.raises(InternalError):
            store.release_run(run, to=RunStatus.SUCCEEDED)


class ClaimableContract:
    """Which runs somebody should take."""

    def test_claimable_gives_runs_that_are_due(self, store: RunStore, clock: ManualClock) -> None:
        soon = NOW + timedelta(seconds=30)
        created(store, "now", inputs={"x": a_value()})
        created(store, "later", not_before=soon)
        waiting = claimed(store, "waiting")
        store.release_run(waiting, to=RunStatus.WAITING, wake_at=soon)
        forever = claimed(store, "forever")
        store.release_run(forever, to=RunStatus.WAITING)
        ended(store, "over")

        before = {run.id for run in store.claimable()}
        clock.advance(30)
        after = {run.id for run in store.claimable()}

        assert before == {"now"}
        assert after == {"now", "later", "waiting"}
        assert all(run.inputs == {} for run in store.claimable())

    def test_claimable_gives_interrupted_runs(self, store: RunStore, clock: ManualClock) -> None:
        claimed(store)
        clock.advance(LEASE_S)

        assert [run.id for run in store.claimable(besides="two")] == [_RUN]

    def test_claimable_gives_runs_of_this_boot_for_the_caller_to_look_at(
        self, store: RunStore
    ) -> None:
        claimed(store)

        assert [run.id for run in store.claimable(besides="two")] == [_RUN]
        assert store.claimable(besides="one") == []

    def test_claimable_leaves_paused_runs_alone(self, store: RunStore) -> None:
        created(store)
        store.request_pause(_RUN, True)

        assert store.claimable() == []

    @pytest.mark.parametrize("status", [RunStatus.WAITING, RunStatus.PAUSED, RunStatus.QUEUED])
    def test_claimable_gives_runs_that_are_to_be_cancelled(
        self, store: RunStore, status: RunStatus
    ) -> None:
        run = claimed(store, not_before=NOW + timedelta(days=1))
        if status is RunStatus.PAUSED:
            store.request_pause(_RUN, True)
        store.release_run(run, to=status)
        assert store.claimable() == []

        store.request_cancel(_RUN)

        assert [run.id for run in store.claimable()] == [_RUN]

    def test_claimable_sorts_by_lease_then_whether_begun_then_priority_then_age(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        def made(name: str, priority: int, second: int) -> None:
            created(store, name, priority=priority, created_at=NOW + timedelta(seconds=second))

        claimed(store, "interrupted", an_owner("over"))
        clock.advance(LEASE_S)
        claimed(store, "neighbour", priority=99)
        claimed(store, "orphan", an_owner("dead"), created_at=NOW + timedelta(seconds=7))
        made("old", 0, 0)
        made("young", 0, 5)
        made("urgent", 7, 9)

        names = [run.id for run in store.claimable(seen_dead=["dead"])]

        assert names == ["interrupted", "orphan", "urgent", "old", "young", "neighbour"]
        assert [run.id for run in store.claimable(2)] == ["interrupted", "urgent"]


class UpkeepContract:
    """Deleting, condemning, binding, and looking out for changes."""

    def test_delete_run_removes_all_of_it(self, store: RunStore) -> None:
        plan = a_plan("plan", "function")
        run = claimed(store, plan=plan, inputs={"x": a_value(place=Place.BLOB, name="input")})
        blob = a_value(place=Place.BLOB, name="result")
        done = RunEnd(status=RunStatus.SUCCEEDED)
        store.commit([by(run, a_step("run", "s", value=blob), end=done)])

        store.delete_run(_RUN)

        assert store.find_run(_RUN) is None
        assert store.list_steps(_RUN, current_only=False) == []
        assert store.list_events(_RUN) == []
        assert store.list_attempts(_RUN) == []
        with pytest.raises(StoreError):
            store.get_plan(plan.digest)
        blobs = sorted(map(digest, ("function", "input", "result")))
        assert store.condemn(blobs) == blobs

    def test_delete_run_keeps_what_other_runs_share(self, store: RunStore) -> None:
        plan = a_plan("plan", "function")
        created(store, "other", plan=plan)
        run = claimed(store, plan=plan)
        store.commit([by(run, end=RunEnd(status=RunStatus.CANCELLED))])

        store.delete_run(_RUN)

        assert store.get_plan(plan.digest) == plan
        assert store.condemn([digest("function")]) == []

    def test_delete_run_holds_the_id_until_it_is_freed(self, store: RunStore) -> None:
        ended(store)
        store.delete_run(_RUN)

        assert store.create_run(a_run(), a_plan()) is None
        store.free_id(_RUN)
        store.free_id(_RUN)

        assert store.create_run(a_run(), a_plan()) is not None

    def test_delete_run_refuses_one_that_is_not_there(self, store: RunStore) -> None:
        with pytest.raises(RunNotFound):
            store.delete_run(_RUN)

    def test_condemn_marks_what_nothing_refers_to(self, store: RunStore) -> None:
        created(store, plan=a_plan("plan", "function"))

        marked = store.condemn(map(digest, ("orphan", "function", "orphan")))

        assert marked == [digest("orphan")]
        assert store.condemn([digest("orphan")]) == [digest("orphan")]

    def test_absolve_lifts_the_mark(self, store: RunStore) -> None:
        run = claimed(store)
        store.condemn([digest("b")])
        part = by(run, a_step("run", "s", value=a_value(place=Place.BLOB, name="b")))
        assert _RUN in store.commit([part]).refused

        store.absolve({**store.list_condemned(), digest("never marked"): NOW})

        assert _RUN in store.commit([part]).committed
        assert store.condemn([digest("b")]) == []

    def test_bind_blobs_keeps_the_first_root(self, store: RunStore) -> None:
        store.bind_blobs("s3://user:secret@bucket/a")
        store.bind_blobs("s3://other:word@bucket/a")

        for method in (store.check_blobs, store.bind_blobs):
            with pytest.raises(StoreError) as refused:
                method("s3://user:secret@bucket/b")
            assert "secret" not in str(refused.value)
        assert store.check_blobs("s3://other:word@bucket/a")

    def test_check_blobs_binds_nothing(self, store: RunStore) -> None:
        assert store.check_blobs("s3://misspelt/a")

        store.bind_blobs("s3://bucket/a")

        with pytest.raises(StoreError):
            store.check_blobs("s3://misspelt/a")

    def test_bind_blobs_by_many_at_once_binds_one_root(self, store: RunStore) -> None:
        urls = [f"s3://bucket/{n}" for n in range(8)]
        start = threading.Barrier(len(urls))

        def bind(url: str) -> bool:
            start.wait()
            try:
                store.bind_blobs(url)
            except StoreError:
                return False
            return True

        with ThreadPoolExecutor(len(urls)) as pool:
            bound = list(compress(urls, pool.map(bind, urls)))

        assert len(bound) == 1
        assert store.check_blobs(bound[0])

    def test_check_blobs_knows_that_a_root_is_no_longer_fresh_once_a_run_was_made(
        self, store: RunStore
    ) -> None:
        store.bind_blobs("file:///blobs")
        ended(store)

        assert not store.check_blobs("file:///blobs")
        store.delete_run(_RUN)
        assert not store.check_blobs("file:///blobs")

    def test_changes_differ_after_anyone_asked_for_something(self, store: RunStore) -> None:
        run = claimed(store)
        before = store.changes()

        store.request_cancel(run.id)

        assert store.changes() != before

    def test_close_can_be_repeated(self, store: RunStore) -> None:
        created(store)

        store.close()
        store.close()


class RunStoreContract(
    ArrivalContract,
    ClaimContract,
    ClaimableContract,
    CommitContract,
    CreationContract,
    ExpansionContract,
    ImportContract,
    ManyRunsContract,
    MessageContract,
    QueueContract,
    RequestContract,
    RetentionContract,
    SaveContract,
    ScheduleContract,
    TickContract,
    TriggerContract,
    TriggerNewsContract,
    UnplannedContract,
    UpkeepContract,
):
    """All that ``RunStore`` and its stores of queues, schedules and triggers promise."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Return the clock that the store under test goes by."""
        return ManualClock(NOW)

    @pytest.fixture
    def store(self, clock: ManualClock) -> RunStore:
        """Return a fresh store."""
        raise NotImplementedError("give your store as a fixture named `store`")
