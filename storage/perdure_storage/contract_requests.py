"""What every run store must do with requests from anyone: a part of ``RunStoreContract``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_plan,
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
from perdure_storage.errors import BlobsCondemned, RunConflict, RunNotFound
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import ErrorRecord, Place, RunEnd, RunId, RunPolicy

_RUN = RunId("run")
_TERMINAL = [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED]


class RequestContract:
    """Cancel, pause and reset: from anyone, guarded by the run's state."""

    def test_request_cancel_marks_the_intent_once(self, store: RunStore) -> None:
        claimed(store)

        first = store.request_cancel(_RUN)
        second = store.request_cancel(_RUN)

        assert first.cancel_requested
        assert first.status is RunStatus.RUNNING
        assert first == second == store.get_run(_RUN)
        assert kinds(store).count("cancel requested") == 1

    @pytest.mark.parametrize("status", _TERMINAL)
    def test_requests_are_refused_when_the_run_is_over(
        self, store: RunStore, status: RunStatus
    ) -> None:
        run = ended(store, status=status)

        asks: tuple[Callable[[], object], ...] = (
            lambda: store.request_cancel(_RUN),
            lambda: store.request_pause(_RUN, True),
            lambda: store.request_pause(_RUN, False),
        )
        for ask in asks:
            with pytest.raises(RunConflict, match=status.value):
                ask()

        assert store.get_run(_RUN) == run

    def test_requests_are_refused_when_there_is_no_such_run(self, store: RunStore) -> None:
        asks: tuple[Callable[[], object], ...] = (
            lambda: store.request_cancel(_RUN),
            lambda: store.request_pause(_RUN, True),
            lambda: store.reset_run(_RUN),
        )
        for ask in asks:
            with pytest.raises(RunNotFound):
                ask()

    def test_pause_stops_a_run_that_nobody_drives_at_once(self, store: RunStore) -> None:
        created(store)

        paused = store.request_pause(_RUN, True)

        assert (paused.status, paused.pause_requested) == (RunStatus.PAUSED, True)
        assert store.get_run(_RUN) == paused

    def test_pause_leaves_a_driven_run_to_its_owner(self, store: RunStore) -> None:
        held = claimed(store)

        asked = store.request_pause(_RUN, True)

        assert (asked.status, asked.owner, asked.pause_requested) == (
            RunStatus.RUNNING,
            held.owner,
            True,
        )

    def test_pause_takes_the_run_from_an_owner_whose_lease_is_over(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        held = claimed(store)
        clock.advance(LEASE_S)

        paused = store.request_pause(_RUN, True)

        assert (paused.status, paused.owner) == (RunStatus.PAUSED, None)
        assert store.commit([by(held, a_step("run", "s"))]).refused[_RUN].kind == "stale"

    def test_clearing_a_pause_queues_the_run_again(self, store: RunStore) -> None:
        created(store)
        store.request_pause(_RUN, True)

        cleared = store.request_pause(_RUN, False)

        assert (cleared.status, cleared.pause_requested) == (RunStatus.QUEUED, False)
        assert kinds(store) == ["submitted", "pause requested", "pause cleared"]

    def test_a_request_that_stands_already_writes_no_event(self, store: RunStore) -> None:
        created(store)

        store.request_pause(_RUN, False)
        store.request_pause(_RUN, True)
        store.request_pause(_RUN, True)

        assert kinds(store) == ["submitted", "pause requested"]

    def test_clearing_a_pause_leaves_a_waiting_run_waiting(self, store: RunStore) -> None:
        run = claimed(store)
        store.release_run(run, to=RunStatus.WAITING, wake_at=NOW)

        assert store.request_pause(_RUN, False).status is RunStatus.WAITING

    # --- reset --------------------------------------------------------------------------------
    @pytest.mark.parametrize("status", _TERMINAL)
    def test_reset_opens_a_finished_run_again(self, store: RunStore, status: RunStatus) -> None:
        run = claimed(store, deadline=NOW + timedelta(hours=1))
        store.request_cancel(_RUN)
        error = ErrorRecord(type="E", message="m")
        store.commit([by(run, wake_at=NOW, end=RunEnd(status=status, error=error))])

        opened = store.reset_run(_RUN)

        assert opened == store.get_run(_RUN)
        assert opened.status is RunStatus.QUEUED
        assert (opened.cancel_requested, opened.pause_requested) == (False, False)
        cleared = (opened.error, opened.owner, opened.deadline, opened.wake_at, opened.finished_at)
        assert cleared == (None,) * 5
        assert (opened.takeovers, opened.epoch) == (0, 1)
        last = store.list_events(_RUN)[-1]
        assert (last.kind, last.detail) == ("reset", {"reason": "resume", "was": status.value})

    def test_reset_of_a_run_that_was_cut_off_counts_the_owner_that_died(
        self, store: RunStore
    ) -> None:
        for deaths in (1, 2):
            claimed_run = store.claim_run(_RUN, an_owner()) if deaths > 1 else claimed(store)
            assert claimed_run is not None
            store.unregister(an_owner())

            assert store.reset_run(_RUN).takeovers == deaths

            assert store.get_run(_RUN).takeovers == deaths
            store.register(an_owner(), LEASE_S)

    def test_reset_of_a_run_that_was_given_back_counts_nobody(self, store: RunStore) -> None:
        store.release_run(claimed(store), to=RunStatus.QUEUED)

        assert store.reset_run(_RUN).takeovers == 0

    def test_reset_makes_failures_history_and_keeps_the_rest(self, store: RunStore) -> None:
        run = claimed(store)
        rows = [
            a_step("run", status.value, status=status)
            for status in (
                StepStatus.SUCCEEDED,
                StepStatus.FAILED,
                StepStatus.SKIPPED,
                StepStatus.CANCELLED,
            )
        ]
        store.commit([by(run, *rows, end=RunEnd(status=RunStatus.FAILED))])

        store.reset_run(_RUN)

        assert [row.step_id for row in store.list_steps(_RUN)] == ["SUCCEEDED", "SKIPPED"]
        assert len(store.list_steps(_RUN, current_only=False)) == 4

    def test_reset_lets_a_failed_step_have_a_new_generation(self, store: RunStore) -> None:
        run = claimed(store)
        failed = a_step("run", "s", status=StepStatus.FAILED)
        store.commit([by(run, failed, end=RunEnd(status=RunStatus.FAILED))])
        store.reset_run(_RUN)
        again = store.claim_run(_RUN, an_owner())
        assert again is not None

        report = store.commit([by(again, a_step("run", "s", 2))])

        assert _RUN in report.committed

    def test_reset_takes_a_new_plan_policy_and_inputs(self, store: RunStore) -> None:
        old = ended(store)
        plan = a_plan("mended", "function")
        inputs = {"x": a_value("2", place=Place.BLOB, name="input")}

        opened = store.reset_run(
            _RUN,
            plan=plan,
            policy=RunPolicy(on_change="reuse"),
            inputs=inputs,
            inputs_digest="v1:x",
            reason="resume with other code",
        )

        assert opened == store.get_run(_RUN)
        assert (opened.plan_digest, opened.policy) == (plan.digest, RunPolicy(on_change="reuse"))
        assert (opened.inputs, opened.inputs_digest) == (inputs, "v1:x")
        assert store.get_plan(plan.digest) == plan
        assert store.get_plan(old.plan_digest) == a_plan()
        assert store.list_events(_RUN)[-1].detail["plan_before"] == old.plan_digest
        assert store.condemn([digest("function"), digest("input")]) == []

    def test_reset_refuses_blobs_that_are_being_collected(self, store: RunStore) -> None:
        over = ended(store)
        store.condemn([digest("function"), digest("input")])

        with pytest.raises(BlobsCondemned):
            store.reset_run(_RUN, plan=a_plan("mended", "function"))
        with pytest.raises(BlobsCondemned):
            store.reset_run(_RUN, inputs={"x": a_value(place=Place.BLOB, name="input")})

        assert store.get_run(_RUN) == over

    def test_reset_opens_a_paused_run_whoever_holds_it(self, store: RunStore) -> None:
        created(store)
        store.request_pause(_RUN, True)
        store.register(an_owner(), LEASE_S)
        held = store.claim_run(_RUN, an_owner())
        assert held is not None

        opened = store.reset_run(_RUN)

        assert (opened.status, opened.owner) == (RunStatus.QUEUED, None)
        assert not opened.pause_requested

    def test_reset_opens_a_live_run_only_when_nobody_drives_it(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        run = claimed(store)

        with pytest.raises(RunConflict, match="alive"):
            store.reset_run(_RUN)
        assert store.get_run(_RUN) == run
        clock.advance(LEASE_S)

        assert store.reset_run(_RUN).status is RunStatus.QUEUED

    # --- delete -------------------------------------------------------------------------------
    def test_delete_refuses_a_live_run(self, store: RunStore) -> None:
        run = created(store)

        with pytest.raises(RunConflict, match="perdure cancel run"):
            store.delete_run(_RUN)

        assert store.get_run(_RUN) == run

    def test_delete_refuses_a_run_with_a_live_child(self, store: RunStore) -> None:
        ended(store)
        child = claimed(store, "child", parent=_RUN)

        with pytest.raises(RunConflict, match="child"):
            store.delete_run(_RUN)
        store.commit([by(child, end=RunEnd(status=RunStatus.FAILED))])
        store.delete_run(_RUN)

        assert store.find_run(_RUN) is None
