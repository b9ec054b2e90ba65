"""What every run store does with waits, and with the signals and events that end them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    NOW,
    a_message,
    a_step,
    a_value,
    a_wait,
    by,
    claimed,
    created,
    digest,
    ended,
    kinds,
)
from perdure_storage.errors import BlobsCondemned, RunConflict, RunNotFound
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Delivery, Place, RunEnd, RunId, RunRecord, StepId

_RUN = RunId("run")
_LATER = NOW + timedelta(hours=1)
_SOON = timedelta(seconds=1)


class MessageContract:
    """Waits and messages: kept, woken for, delivered once, gone with their run."""

    def test_commit_keeps_every_field_of_a_wait(self, store: RunStore) -> None:
        run = claimed(store)
        plain = a_wait("run", "b")
        full = a_wait(
            "run",
            "a",
            generation=2,
            kind="event",
            name="landed",
            match={"file": "a.csv", "n": 1},
            deadline=_LATER,
            default=a_value("late"),
            source="made of this",
        )

        store.commit([by(run, waits=(plain, full))])

        assert store.list_waits(_RUN) == [full, plain]

    def test_wait_is_written_once(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, waits=(a_wait("run", "a"),))])

        again = a_wait("run", "a", name="other")
        report = store.commit([by(run, a_step("run", "s"), waits=(again,))])

        assert report.refused[_RUN].kind == "rejected"
        assert report.refused[_RUN].steps == ("a",)
        assert store.list_steps(_RUN) == []
        assert store.list_waits(_RUN) == [a_wait("run", "a")]

    def test_default_of_a_wait_is_referred_to(self, store: RunStore) -> None:
        run = claimed(store)
        late = a_value("late", place=Place.BLOB, name="late")

        store.commit([by(run, waits=(a_wait("run", "a", default=late),))])

        assert store.unreferenced([digest("late")]) == []

    def test_signals_come_back_as_they_were_sent_in_order(self, store: RunStore) -> None:
        created(store)
        first = store.send(a_message(value=a_value("1")))
        second = store.send(a_message(value=a_value("2"), dedup_key="k"))

        assert first is not None
        assert second is not None
        assert first.id < second.id
        assert store.messages(_RUN, ["go"]) == [first, second]
        assert store.messages(_RUN, ["other"]) == []

    def test_signal_is_told_in_the_story_of_its_run(self, store: RunStore) -> None:
        created(store)

        store.send(a_message())

        assert kinds(store) == ["submitted", "signalled"]

    def test_signal_to_no_run_is_refused(self, store: RunStore) -> None:
        with pytest.raises(RunNotFound):
            store.send(a_message("nobody"))

    def test_signal_to_a_run_that_is_over_is_refused(self, store: RunStore) -> None:
        ended(store)

        with pytest.raises(RunConflict, match="SUCCEEDED"):
            store.send(a_message())

    def test_message_of_a_known_key_is_dropped(self, store: RunStore) -> None:
        created(store)
        created(store, "other")
        first = store.send(a_message(dedup_key="k"))

        assert store.send(a_message(dedup_key="k", value=a_value("2"))) is None
        assert store.messages(_RUN, ["go"]) == [first]
        assert store.send(a_message("other", dedup_key="k")) is not None
        assert store.send(a_message(name="stop", dedup_key="k")) is not None
        assert store.send(a_message(None, dedup_key="k")) is not None
        assert store.send(a_message(None, dedup_key="k")) is None

    def test_message_that_names_a_condemned_blob_is_refused(self, store: RunStore) -> None:
        created(store)
        store.condemn([digest("taken")])
        value = a_value("x", place=Place.BLOB, name="taken")

        with pytest.raises(BlobsCondemned):
            store.send(a_message(value=value))

        assert store.messages(_RUN, ["go"]) == []

    def test_known_key_counts_more_than_a_condemned_blob(self, store: RunStore) -> None:
        created(store)
        store.send(a_message(dedup_key="k"))
        store.condemn([digest("taken")])
        value = a_value("x", place=Place.BLOB, name="taken")

        assert store.send(a_message(dedup_key="k", value=value)) is None

    def test_event_is_for_every_run_that_was_there(self, store: RunStore) -> None:
        created(store)
        created(store, "later", created_at=_LATER)
        event = store.send(a_message(None, at=NOW + _SOON, match={"file": "a"}))

        assert store.messages(_RUN, ["go"]) == [event]
        assert store.messages(RunId("later"), ["go"]) == []

    def test_delivery_ends_a_wait_once(self, store: RunStore) -> None:
        run = claimed(store)
        sent = store.send(a_message())
        assert sent is not None
        store.commit([by(run, waits=(a_wait("run", "a"), a_wait("run", "b")))])

        delivery = Delivery(sent.id, StepId("a"), 1)
        store.commit([by(run, a_step("run", "a"), deliveries=(delivery,))])

        assert store.messages(_RUN, ["go"]) == []
        assert [wait.message for wait in store.list_waits(_RUN)] == [sent.id, None]
        for second in (Delivery(sent.id, StepId("b"), 1), Delivery(sent.id + 9, StepId("a"), 1)):
            step = a_step("run", second.step_id, 2)
            report = store.commit([by(run, step, deliveries=(second,))])
            assert report.refused[_RUN].kind == "rejected"
            assert report.refused[_RUN].steps == (second.step_id,)
        assert len(store.list_steps(_RUN)) == 1

    def test_two_messages_of_one_batch_do_not_end_the_same_wait(self, store: RunStore) -> None:
        run = claimed(store)
        sent = [store.send(a_message()) for _ in range(2)]
        store.commit([by(run, waits=(a_wait("run", "a"),))])

        both = tuple(Delivery(each.id, StepId("a"), 1) for each in sent if each is not None)
        report = store.commit([by(run, a_step("run", "a"), deliveries=both)])

        assert report.refused[_RUN].kind == "rejected"
        assert report.refused[_RUN].steps == ("a",)
        assert [wait.message for wait in store.list_waits(_RUN)] == [None]

    def test_event_is_delivered_to_each_run(self, store: RunStore) -> None:
        event = store.send(a_message(None, at=_LATER))
        assert event is not None
        for name in ("run", "other"):
            run = claimed(store, name)
            store.commit([by(run, waits=(a_wait(name, "a", kind="event"),))])

            delivery = Delivery(event.id, StepId("a"), 1)
            report = store.commit([by(run, a_step(name, "a"), deliveries=(delivery,))])

            assert run.id in report.committed

    # --- waking ---------------------------------------------------------------------------------
    def test_waiting_run_is_claimable_when_it_is_due(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        _asleep(store)
        assert store.next_wake() == _LATER
        assert store.claimable() == []

        clock.advance(3600)

        assert [run.id for run in store.claimable()] == [_RUN]

    def test_signal_wakes_its_run(self, store: RunStore) -> None:
        _asleep(store)

        store.send(a_message())

        assert [run.id for run in store.claimable()] == [_RUN]

    def test_event_wakes_the_runs_that_wait_for_its_name(self, store: RunStore) -> None:
        _asleep(store, "one", kind="event")
        _asleep(store, "two", kind="event", of="other")
        _asleep(store, "three")

        store.send(a_message(None, at=NOW + _SOON))

        assert [run.id for run in store.claimable()] == ["one"]

    def test_event_does_not_wake_a_run_that_has_had_one(self, store: RunStore) -> None:
        run = claimed(store)
        first = store.send(a_message(None))
        assert first is not None
        wait = a_wait("run", "a", kind="event")
        store.commit([by(run, waits=(wait,))])
        delivery = Delivery(first.id, StepId("a"), 1)
        store.commit([by(run, a_step("run", "a"), deliveries=(delivery,))])
        store.release_run(run, to=RunStatus.WAITING, wake_at=_LATER, heard=first.id)

        store.send(a_message(None))

        assert store.claimable() == []

    @pytest.mark.parametrize("kind", ["signal", "event"])
    def test_run_that_was_sent_something_meanwhile_is_due_at_once(
        self, store: RunStore, kind: str
    ) -> None:
        run = claimed(store)
        store.commit([by(run, waits=(a_wait("run", "a", kind=kind),))])
        heard = store.send(a_message("run" if kind == "signal" else None))
        assert heard is not None
        store.send(a_message("run" if kind == "signal" else None))

        store.release_run(run, to=RunStatus.WAITING, wake_at=_LATER, heard=heard.id)

        assert [each.id for each in store.claimable()] == [_RUN]

    def test_run_that_is_handed_back_to_go_on_is_not_asked_what_it_was_sent(
        self, store: RunStore
    ) -> None:
        run = claimed(store)
        store.commit([by(run, waits=(a_wait("run", "a"),))])
        store.send(a_message())

        store.release_run(run, to=RunStatus.QUEUED)

        assert store.get_run(_RUN).wake_at is None

    def test_run_that_has_heard_everything_sleeps(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, waits=(a_wait("run", "a", kind="event"),))])
        heard = store.send(a_message(None))
        assert heard is not None

        store.release_run(run, to=RunStatus.WAITING, wake_at=_LATER, heard=heard.id)

        assert store.claimable() == []
        assert store.next_wake() == _LATER

    def test_sleeping_run_without_a_deadline_is_never_due(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, waits=(a_wait("run", "a"),))])

        store.release_run(run, to=RunStatus.WAITING)

        assert store.next_wake() is None
        assert store.claimable() == []

    # --- upkeep ---------------------------------------------------------------------------------
    def test_waits_and_signals_go_with_their_run(self, store: RunStore) -> None:
        run = claimed(store)
        value = a_value("x", place=Place.BLOB, name="payload")
        store.send(a_message(value=value))
        store.commit([by(run, waits=(a_wait("run", "a"),))])
        assert store.unreferenced([digest("payload")]) == []
        assert store.unreferenced([digest("payload")], besides=[_RUN]) == [digest("payload")]
        store.commit([by(run, end=RunEnd(status=RunStatus.SUCCEEDED))])

        store.delete_run(_RUN)
        store.free_id(_RUN)

        assert store.list_waits(_RUN) == []
        assert store.unreferenced([digest("payload")]) == [digest("payload")]
        created(store)
        assert store.messages(_RUN, ["go"]) == []

    def test_old_events_are_forgotten_that_no_live_run_may_have(self, store: RunStore) -> None:
        value = a_value("x", place=Place.BLOB, name="payload")
        store.send(a_message(None, at=NOW - _SOON, value=value))
        created(store)
        store.send(a_message(None, at=NOW))

        assert store.forget_events(_LATER) == 1

        assert len(store.messages(_RUN, ["go"])) == 1
        assert store.unreferenced([digest("payload")]) == [digest("payload")]


def _asleep(
    store: RunStore, name: str = "run", *, kind: str = "signal", of: str = "go"
) -> RunRecord:
    run = claimed(store, name)
    store.commit([by(run, waits=(a_wait(name, "a", kind=kind, name=of),))])
    assert store.release_run(run, to=RunStatus.WAITING, wake_at=_LATER)
    return store.get_run(run.id)
