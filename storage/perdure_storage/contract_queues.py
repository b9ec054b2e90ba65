"""What every store does with queues: limits that hold, turns, delays, keys that are there once."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_plan,
    a_queue,
    a_run,
    an_owner,
    by,
    claimed,
    created,
    queued,
)
from perdure_storage.durations import LONGEST
from perdure_storage.errors import DuplicateRun, StoreError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.queue_records import KeyStanding, QueueRecord
from perdure_storage.records import RunEnd, RunId, RunRecord

_replace = msgspec.structs.replace
_MINUTE = timedelta(minutes=1)
_DONE = RunEnd(status=RunStatus.SUCCEEDED)


class QueueContract:
    """Queues, and what they let begin."""

    # --- queues ----------------------------------------------------------------------------------
    def test_a_queue_is_kept_as_it_was_put(self, store: RunStore, clock: ManualClock) -> None:
        queue = a_queue("q", limit=2, limit_per_key=1, rate=5, window=_MINUTE, declared="{}")

        put = store.queues.put_queue(queue)

        assert put == _replace(queue, version=1, created_at=NOW, updated_at=NOW)
        assert store.queues.find_queue("q") == put
        assert store.queues.list_queues() == [put]

    def test_a_window_that_no_clock_can_count_is_refused(self, store: RunStore) -> None:
        longest = put(store, rate=1, window=LONGEST)

        with pytest.raises(StoreError, match="window is longer than 36500 days"):
            store.queues.put_queue(_replace(longest, window=LONGEST + _MINUTE))

        assert store.queues.find_queue("q") == longest
        assert store.queues.standing("q").starts == 0

    def test_a_queue_that_was_changed_meanwhile_stays_as_it_is(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        read = put(store, limit=1)
        clock.advance(5)
        changed = store.queues.put_queue(_replace(read, limit=2))

        refused = store.queues.put_queue(_replace(read, limit=3))

        assert refused is None
        assert store.queues.put_queue(a_queue("q")) is None
        assert changed == _replace(read, limit=2, version=2, updated_at=NOW + timedelta(seconds=5))
        assert store.queues.find_queue("q") == changed

    def test_a_queue_that_is_removed_is_gone_and_lets_everything_begin(
        self, store: RunStore
    ) -> None:
        put(store, limit=0)
        queued(store, "a")

        removed = store.queues.remove_queue("q"), store.queues.remove_queue("q")

        assert removed == (True, False)
        assert store.queues.find_queue("q") is None
        assert taken(store, "a") == ["a"]

    def test_a_queue_that_no_database_can_keep_is_refused(self, store: RunStore) -> None:
        with pytest.raises(StoreError):
            store.queues.put_queue(a_queue("q\0"))

    # --- slots -----------------------------------------------------------------------------------
    def test_no_more_runs_are_claimed_than_the_limit(self, store: RunStore) -> None:
        put(store, limit=2)
        for name in ("a", "b", "c"):
            queued(store, name)

        first = taken(store, "a", "b", "c")
        then = store.claim_run(RunId("c"), an_owner())

        assert first == ["a", "b"]
        assert then is None
        assert store.get_run(RunId("c")).status is RunStatus.QUEUED

    def test_a_run_that_ends_gives_its_slot_to_another(self, store: RunStore) -> None:
        put(store, limit=1)
        for name in ("a", "b"):
            queued(store, name)
        [run] = claimed_of(store, "a")

        store.commit([by(run, end=_DONE)])

        assert turn(store) == ["b"]
        assert taken(store, "b") == ["b"]

    @pytest.mark.parametrize("status", [RunStatus.WAITING, RunStatus.PAUSED, RunStatus.QUEUED])
    def test_a_run_that_is_given_back_gives_its_slot_back(
        self, store: RunStore, status: RunStatus
    ) -> None:
        put(store, limit=1)
        for name in ("a", "b"):
            queued(store, name)
        [run] = claimed_of(store, "a")

        store.release_run(run, to=status)

        assert taken(store, "b") == ["b"]

    def test_a_run_whose_owner_died_keeps_its_slot_for_who_takes_it_over(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        put(store, limit=1)
        for name in ("a", "b"):
            queued(store, name)
        taken(store, "a", by_whom="dead")
        clock.advance(LEASE_S + 5)

        refused = taken(store, "b", by_whom="two")
        over = taken(store, "a", "b", by_whom="two")

        assert refused == []
        assert over == ["a"]
        assert store.queues.standing("q").running == 1

    def test_a_run_is_claimed_by_its_own_owner_again_without_another_slot(
        self, store: RunStore
    ) -> None:
        put(store, limit=1)
        queued(store, "a")
        taken(store, "a")

        again = store.claim_runs([RunId("a")], an_owner(), seen_dead=["one"])

        assert [run.id for run in again] == ["a"]

    def test_a_run_that_is_to_be_cancelled_waits_for_no_slot(self, store: RunStore) -> None:
        put(store, limit=0)
        queued(store, "a")
        store.request_cancel(RunId("a"))

        claimable = [run.id for run in store.claimable()]

        assert claimable == ["a"]
        assert taken(store, "a") == ["a"]

    def test_limits_that_shrink_end_nothing_and_let_nothing_begin(self, store: RunStore) -> None:
        queue = put(store, limit=2)
        for name in ("a", "b", "c"):
            queued(store, name)
        runs = claimed_of(store, "a", "b")
        store.queues.put_queue(_replace(queue, limit=1))

        store.commit([by(runs[0], end=_DONE)])

        assert turn(store) == []
        assert taken(store, "c") == []

    def test_a_queue_without_a_row_has_no_limits(self, store: RunStore) -> None:
        for name in ("a", "b"):
            queued(store, name)

        assert taken(store, "a", "b") == ["a", "b"]

    def test_runs_of_a_queue_without_a_row_are_claimable_beside_those_of_one_that_is_full(
        self, store: RunStore
    ) -> None:
        put(store, limit=0)
        queued(store, "full")
        queued(store, "free", queue="free")
        sleeper = claimed(store, "sleeper", queue="free")
        store.release_run(sleeper, to=RunStatus.WAITING, wake_at=NOW)

        assert turn(store) == ["free", "sleeper"]

    def test_runs_of_other_queues_and_of_none_are_not_counted(self, store: RunStore) -> None:
        put(store, limit=1)
        put(store, "other", limit=1)
        queued(store, "a")
        queued(store, "b", queue="other")
        created(store, "c")

        assert turn(store) == ["a", "b", "c"]
        assert taken(store, "a", "b", "c") == ["a", "b", "c"]

    def test_a_run_of_a_queue_is_not_claimed_as_it_is_made(self, store: RunStore) -> None:
        store.register(an_owner(), LEASE_S)

        made = [
            store.create_run(a_run("a", queue="q"), a_plan(), owner=an_owner()),
            store.create_run(a_run("b", not_before=NOW + _MINUTE), a_plan(), owner=an_owner()),
        ]

        assert [run and (run.status, run.owner, run.epoch) for run in made] == [
            (RunStatus.QUEUED, None, 0)
        ] * 2

    # --- keys ------------------------------------------------------------------------------------
    def test_no_more_runs_of_a_key_are_claimed_than_its_limit(self, store: RunStore) -> None:
        put(store, limit_per_key=1)
        for name in ("a1", "a2", "b1"):
            queued(store, name, limit_key=name[0])
        for name in ("x", "y"):
            queued(store, name)

        first = taken(store, "a1", "a2", "b1", "x", "y")

        assert first == ["a1", "b1", "x", "y"]
        assert turn(store) == []

    def test_keys_take_turns_however_long_the_line_of_one_is(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        put(store, limit=1)
        for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
            queued(store, name, limit_key=name[0], created_at=clock.now())
            clock.advance(1)

        order = served_one_by_one(store, clock)

        assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]

    def test_a_key_with_fewer_runs_going_on_is_first(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        put(store, limit=3)
        for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
            queued(store, name, limit_key=name[0], created_at=clock.now())
            clock.advance(1)

        assert turn(store) == ["a1", "a2", "b1"]

    def test_the_highest_priority_is_first_then_the_oldest(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        put(store, limit=1)
        for name, priority in (("old", 0), ("young", 0), ("urgent", 5), ("idle", -1)):
            queued(store, name, priority=priority, created_at=clock.now())
            clock.advance(1)

        order = served_one_by_one(store, clock)

        assert order == ["urgent", "old", "young", "idle"]

    def test_a_full_queue_hides_no_other_runs(self, store: RunStore) -> None:
        put(store, limit=0)
        for n in range(5):
            queued(store, f"a{n}", priority=9)
        created(store, "plain")

        assert [run.id for run in store.claimable(2)] == ["plain"]

    def test_what_does_not_fit_an_offer_holds_up_nothing_that_does(self, store: RunStore) -> None:
        put(store, limit=1)
        queued(store, "gpu", plan=a_plan("needy", needs={"gpus": 1.0}), priority=5)
        queued(store, "plain")

        assert [run.id for run in store.claimable(offer={"cpus": 8.0})] == ["plain"]
        assert [run.id for run in store.claimable(offer={"gpus": 1.0})] == ["gpu"]

    def test_who_slept_goes_on_before_anything_begins_once_there_is_a_slot(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        put(store, limit=1)
        for name in ("sleeper", "busy", "next"):
            queued(store, name, priority=0 if name == "sleeper" else 9)
        [run] = claimed_of(store, "sleeper")
        store.release_run(run, to=RunStatus.WAITING, wake_at=NOW + _MINUTE)
        [busy] = claimed_of(store, "busy")
        clock.advance(60)

        while_full = turn(store), taken(store, "sleeper")
        store.commit([by(busy, end=_DONE)])

        assert while_full == ([], [])
        assert turn(store) == ["sleeper"]
        assert taken(store, "sleeper", "next") == ["sleeper"]

    def test_a_delayed_run_is_in_nobodys_way_until_its_time_comes(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        put(store, limit=1)
        queued(store, "later", priority=9, not_before=NOW + _MINUTE)
        queued(store, "now")

        before = turn(store)
        clock.advance(60)

        assert before == ["now"]
        assert turn(store) == ["later"]

    # --- rates -----------------------------------------------------------------------------------
    def test_no_more_runs_begin_in_a_window_than_the_rate(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        put(store, rate=2, window=_MINUTE)
        for name in ("a", "b", "c"):
            queued(store, name)
        first = claimed_of(store, "a", "b", "c")
        store.commit([by(run, end=_DONE) for run in first])

        opens_at = store.queues.standing("q").opens_at
        clock.advance(59)
        within = turn(store), taken(store, "c")
        clock.advance(1)

        assert [run.id for run in first] == ["a", "b"]
        assert opens_at == NOW + _MINUTE
        assert within == ([], [])
        assert turn(store) == ["c"]
        assert taken(store, "c") == ["c"]

    def test_a_run_that_goes_on_is_no_start(self, store: RunStore, clock: ManualClock) -> None:
        put(store, rate=1, window=_MINUTE)
        queued(store, "a")
        [run] = claimed_of(store, "a")
        store.release_run(run, to=RunStatus.WAITING, wake_at=NOW)

        assert turn(store) == ["a"]
        assert taken(store, "a") == ["a"]

    # --- keys that are there once ----------------------------------------------------------------
    def test_a_second_live_run_of_a_deduplication_key_is_refused_and_names_the_first(
        self, store: RunStore
    ) -> None:
        queued(store, "a", dedup_key="k")

        with pytest.raises(DuplicateRun) as refused:
            queued(store, "b", dedup_key="k")

        assert refused.value.run_id == "a"
        assert store.find_run(RunId("b")) is None

    def test_a_deduplication_key_is_free_again_when_its_run_is_over(self, store: RunStore) -> None:
        queued(store, "a", dedup_key="k")
        [run] = claimed_of(store, "a")
        store.commit([by(run, end=_DONE)])

        assert queued(store, "b", dedup_key="k").dedup_key == "k"

    def test_a_deduplication_key_is_one_of_its_queue(self, store: RunStore) -> None:
        queued(store, "a", dedup_key="k")

        assert queued(store, "b", queue="other", dedup_key="k").id == "b"
        assert queued(store, "c").id == "c"

    def test_a_run_is_not_opened_again_while_another_one_has_its_deduplication_key(
        self, store: RunStore
    ) -> None:
        queued(store, "a", dedup_key="k")
        [run] = claimed_of(store, "a")
        store.commit([by(run, end=RunEnd(status=RunStatus.CANCELLED))])
        queued(store, "b", dedup_key="k")

        with pytest.raises(DuplicateRun) as refused:
            store.reset_run(RunId("a"))

        assert refused.value.run_id == "b"
        assert store.get_run(RunId("a")).status is RunStatus.CANCELLED

    # --- how a queue stands ----------------------------------------------------------------------
    def test_standing_counts_who_runs_who_waits_and_who_is_delayed(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        put(store, limit=2, limit_per_key=1)
        for name in ("a1", "a2", "b1", "c1"):
            queued(store, name, limit_key=name[0], created_at=clock.now())
            clock.advance(1)
        queued(store, "d1", limit_key="d", not_before=NOW + _MINUTE)
        taken(store, "a1", "b1")

        standing = store.queues.standing("q")

        assert (standing.running, standing.waiting, standing.delayed) == (2, 2, 1)
        assert standing.oldest == NOW + timedelta(seconds=1)
        assert standing.holders == ("a1", "b1")
        assert standing.keys == (
            KeyStanding(key="a", running=1, waiting=1),
            KeyStanding(key="b", running=1),
            KeyStanding(key="c", waiting=1),
        )

    def test_standing_of_a_queue_without_runs_is_empty(self, store: RunStore) -> None:
        standing = store.queues.standing("none")

        assert (standing.name, standing.running, standing.waiting) == ("none", 0, 0)
        assert (standing.keys, standing.holders, standing.oldest) == ((), (), None)


def put(store: RunStore, name: str = "q", **limits: object) -> QueueRecord:
    """Return a queue that was just made."""
    queue = store.queues.put_queue(a_queue(name, **limits))
    assert queue is not None
    return queue


def claimed_of(store: RunStore, *names: str, by_whom: str = "one") -> list[RunRecord]:
    """Claim those of some runs that can be had; return them."""
    store.register(an_owner(by_whom), LEASE_S)
    return store.claim_runs([RunId(name) for name in names], an_owner(by_whom))


def taken(store: RunStore, *names: str, by_whom: str = "one") -> list[str]:
    """Claim those of some runs that can be had; return their ids."""
    return [run.id for run in claimed_of(store, *names, by_whom=by_whom)]


def turn(store: RunStore) -> list[str]:
    """Return the ids of those that nobody drives and that could be claimed, in order."""
    return sorted(run.id for run in store.claimable() if run.owner is None)


def served_one_by_one(store: RunStore, clock: ManualClock) -> list[str]:
    """Claim and end what is claimable, one run at a time; return their ids as they came."""
    order = []
    while found := store.claimable():
        clock.advance(1)
        [run] = claimed_of(store, found[0].id)
        store.commit([by(run, end=_DONE)])
        order.append(str(run.id))
    return order
