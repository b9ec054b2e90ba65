"""What every store keeps for triggers: events, and the ends of runs, until they have been told."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_message,
    an_owner,
    an_unplanned_run,
    arrived,
    built,
    by,
    claimed,
    created,
    ended,
    watched,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunEnd, RunId, RunRecord
from perdure_storage.trigger_records import (
    TriggerChange,
)

_replace = msgspec.structs.replace

_RUN = RunId("run")
_SECOND = timedelta(seconds=1)


class TriggerNewsContract:
    """Events and ends of runs, of which triggers want to know."""

    # --- events ----------------------------------------------------------------------------------
    def test_events_are_read_in_order_by_who_has_heard_the_ones_before(
        self, store: RunStore
    ) -> None:
        assert store.triggers.newest_event() == 0
        created(store)
        sent = [
            store.send(a_message(run, name=name))
            for run, name in ((None, "a"), (None, "b"), ("run", "a"), (None, "c"), (None, "a"))
        ]
        numbers = [message.id for message in sent if message is not None]

        events = store.triggers.events_after(0, ["a", "b"])

        assert [event.id for event in events] == [numbers[0], numbers[1], numbers[4]]
        assert events[0] == sent[0]
        after = store.triggers.events_after(numbers[0], ["a", "b"], limit=1)
        assert [event.id for event in after] == [numbers[1]]
        assert store.triggers.events_after(numbers[4], ["a", "b"]) == []
        assert store.triggers.events_after(0, []) == []
        assert store.triggers.newest_event() == numbers[4]

    def test_event_stays_until_every_trigger_that_wants_it_has_heard_it(
        self, store: RunStore
    ) -> None:
        sent = [store.send(a_message(None, name=name)) for name in ("a", "b", "a")]
        first, _, last = (message.id for message in sent if message is not None)
        watched(store, "deaf", events=("b",), heard=last)
        slow = watched(store, "slow", events=("z", "a"), heard=first)
        watched(store, "quick", events=("a",), heard=last)

        assert store.forget_events(NOW + _SECOND) == 2
        assert [event.id for event in store.triggers.events_after(0, ["a", "b"])] == [last]
        store.triggers.accept([TriggerChange(trigger=_replace(slow, heard=last))])

        assert store.forget_events(NOW + _SECOND) == 1

    def test_event_is_kept_for_no_trigger_that_was_removed(self, store: RunStore) -> None:
        watched(store, events=("go",))
        store.send(a_message(None))
        assert store.forget_events(NOW + _SECOND) == 0

        store.triggers.remove("landed")

        assert store.forget_events(NOW + _SECOND) == 1

    def test_event_is_kept_for_no_trigger_that_wants_others_now(self, store: RunStore) -> None:
        trigger = watched(store, events=("go",))
        store.send(a_message(None))

        store.triggers.register(TriggerChange(trigger=_replace(trigger, events=("stop",))))

        assert store.forget_events(NOW + _SECOND) == 1

    # --- ends of runs ----------------------------------------------------------------------------
    @pytest.mark.parametrize("status", [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED])
    def test_end_of_a_run_is_kept_for_who_watches_runs(
        self, store: RunStore, clock: ManualClock, status: RunStatus
    ) -> None:
        watched(store, watches_runs=True)
        created(store, tags={"team": "a"}, trigger="other", schedule="nightly", workflow="load")
        clock.advance(5)

        run = _end(store, "run", status)

        (end,) = store.triggers.ends()
        assert end == msgspec.convert(
            {
                "id": end.id,
                "run_id": run.id,
                "seq": run.seq,
                "status": status,
                "workflow": "load",
                "tags": {"team": "a"},
                "trigger": "other",
                "schedule": "nightly",
                "at": run.finished_at,
                "created_at": run.created_at,
            },
            type(end),
        )

    def test_end_of_a_run_that_is_cancelled_before_it_has_a_plan_is_kept(
        self, store: RunStore
    ) -> None:
        watched(store, watches_runs=True)
        store.create_run(an_unplanned_run(), None)

        run = store.request_cancel(_RUN)

        (end,) = store.triggers.ends()
        assert (end.run_id, end.status, end.seq) == (_RUN, "CANCELLED", run.seq)
        assert end.at == run.finished_at

    def test_end_is_not_kept_where_nobody_watches(self, store: RunStore) -> None:
        watched(store)

        ended(store)

        assert store.triggers.ends() == []

    def test_end_is_kept_for_a_trigger_that_is_paused(self, store: RunStore) -> None:
        watched(store, watches_runs=True, paused=True)

        ended(store)

        assert [end.run_id for end in store.triggers.ends()] == [_RUN]

    def test_request_to_cancel_a_run_that_goes_on_is_no_end(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        claimed(store)

        store.request_cancel(_RUN)

        assert store.triggers.ends() == []

    def test_ends_of_a_batch_are_kept_for_those_that_landed(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        store.register(an_owner(), LEASE_S)
        runs = [claimed(store, name) for name in ("a", "b", "c")]
        end = RunEnd(status=RunStatus.SUCCEEDED)
        late = _replace(runs[1], epoch=runs[1].epoch + 1)

        store.commit([by(runs[0], end=end), by(late, end=end), by(runs[2])])

        assert [end.run_id for end in store.triggers.ends()] == ["a"]

    def test_run_that_is_opened_again_ends_again(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        first = ended(store, status=RunStatus.FAILED)

        store.reset_run(_RUN)
        second = _end(store, "run", RunStatus.SUCCEEDED)

        told = {(end.seq, end.status) for end in store.triggers.ends()}
        assert told == {(first.seq, RunStatus.FAILED), (second.seq, RunStatus.SUCCEEDED)}

    def test_end_outlives_its_run(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        ended(store)

        store.delete_run(_RUN)

        assert [end.run_id for end in store.triggers.ends()] == [_RUN]

    def test_ends_go_with_the_changes_that_tell_of_them(self, store: RunStore) -> None:
        trigger = watched(store, watches_runs=True)
        for name in ("a", "b"):
            ended(store, name)
        (one,) = store.triggers.ends(limit=1)

        store.triggers.accept([arrived(trigger, "a 5", moves=False)], [one.id])

        left = store.triggers.ends()
        assert {end.run_id for end in left} == {"a", "b"} - {one.run_id}

    def test_ends_stay_if_a_change_that_tells_of_them_did_not_land(self, store: RunStore) -> None:
        told, late = watched(store, "told", watches_runs=True), watched(store, "late")
        store.triggers.accept([TriggerChange(trigger=late)])
        ended(store)
        numbers = [end.id for end in store.triggers.ends()]
        mine = arrived(told, "run 5", moves=False)

        report = store.triggers.accept([mine, arrived(late, "run 5", run="late")], numbers)

        assert list(report.refused) == ["late"]
        assert [end.id for end in store.triggers.ends()] == numbers
        again = arrived(store.triggers.get_trigger("late"), "run 5", run="late")
        second = store.triggers.accept([mine, again], numbers)
        assert list(second.known) == [("told", "run 5")]
        assert second.made == ("late-run 5",)
        assert store.triggers.ends() == []

    def test_ends_go_if_nobody_wants_to_know_of_them_any_more(self, store: RunStore) -> None:
        trigger = watched(store, watches_runs=True)
        ended(store, "a")
        ended(store, "b")
        first, second = (end.id for end in store.triggers.ends())
        store.triggers.remove("landed")

        store.triggers.accept([arrived(trigger, "a 5", moves=False)], [first])
        store.triggers.accept([], [second])

        assert store.triggers.ends() == []

    def test_number_of_an_end_is_not_given_again(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        ended(store, "a")
        (first,) = store.triggers.ends()
        store.triggers.accept([], [first.id])

        ended(store, "b")

        (second,) = store.triggers.ends()
        assert second.id != first.id


def _end(store: RunStore, name: str, status: RunStatus) -> RunRecord:
    run_id = RunId(name)
    store.register(an_owner(), LEASE_S)
    is_planned = store.get_run(run_id).plan_digest is not None
    run = store.claim_run(run_id, an_owner(), built=None if is_planned else built())
    assert run is not None
    assert store.commit([by(run, end=RunEnd(status=status))]).committed
    return store.get_run(run_id)
