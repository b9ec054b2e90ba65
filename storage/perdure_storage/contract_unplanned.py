"""What every store does with runs without a plan, which who claims them builds."""

from __future__ import annotations

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    a_plan,
    a_value,
    an_owner,
    an_unplanned_run,
    built,
    by,
    created,
    digest,
    kinds,
)
from perdure_storage.errors import (
    BlobsCondemned,
    InternalError,
    StoreError,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Place, RunEnd, RunId

_replace = msgspec.structs.replace

_RUN = RunId("run")


class UnplannedContract:
    """Runs that are made without a plan."""

    def test_run_without_a_plan_is_kept_and_claimable(self, store: RunStore) -> None:
        run = store.create_run(an_unplanned_run(), None)

        assert run is not None
        assert run.plan_digest is None
        assert store.get_run(_RUN) == run
        assert [each.plan_digest for each in store.claimable()] == [None]
        with pytest.raises(StoreError, match="no plan yet"):
            store.get_plan(run.plan_digest)

    def test_run_is_made_with_the_plan_that_it_names(self, store: RunStore) -> None:
        for plan in (a_plan(), None):
            run = _replace(an_unplanned_run(), plan_digest=digest("another"))
            with pytest.raises(InternalError):
                store.create_run(run, plan)
        with pytest.raises(InternalError):
            store.create_run(an_unplanned_run(), a_plan())

    def test_run_without_a_plan_is_not_to_be_had_without_one(self, store: RunStore) -> None:
        store.create_run(an_unplanned_run(), None)
        store.register(an_owner(), LEASE_S)

        assert store.claim_run(_RUN, an_owner()) is None
        assert store.claim_runs([_RUN], an_owner()) == []
        assert store.get_run(_RUN).status is RunStatus.QUEUED

    def test_claim_writes_the_plan_that_was_built_with_its_inputs(self, store: RunStore) -> None:
        store.create_run(an_unplanned_run(inputs={"x": a_value("1")}), None)
        store.register(an_owner(), LEASE_S)
        large = a_value("large", place=Place.BLOB, name="large")

        run = store.claim_run(_RUN, an_owner(), built=built("built", "code", x=large))

        assert run is not None
        assert (run.plan_digest, run.inputs_digest) == (digest("built"), "v1:built")
        assert run.inputs == {"x": large}
        assert run.status is RunStatus.RUNNING
        assert store.get_run(_RUN) == run
        assert store.get_plan(run.plan_digest) == a_plan("built", "code")
        assert store.unreferenced([digest("code"), digest("large")]) == []
        assert kinds(store) == ["submitted", "claimed"]

    def test_many_get_their_plans_in_one_claim_and_the_others_wait(self, store: RunStore) -> None:
        for name in ("a", "b"):
            store.create_run(an_unplanned_run(name), None)
        created(store, "planned")
        store.register(an_owner(), LEASE_S)
        ids = [RunId(name) for name in ("a", "b", "planned")]

        claimed_now = store.claim_runs(ids, an_owner(), built={RunId("b"): built()})

        assert [run.id for run in claimed_now] == ["b", "planned"]

    def test_run_that_has_a_plan_keeps_it(self, store: RunStore) -> None:
        created(store, plan=a_plan("first"))
        store.register(an_owner(), LEASE_S)

        run = store.claim_run(_RUN, an_owner(), built=built("second"))

        assert run is not None
        assert run.plan_digest == digest("first")
        with pytest.raises(StoreError):
            store.get_plan(digest("second"))

    def test_claim_refuses_a_plan_whose_blobs_are_being_collected(self, store: RunStore) -> None:
        store.create_run(an_unplanned_run(), None)
        store.condemn([digest("taken")])
        store.register(an_owner(), LEASE_S)

        with pytest.raises(BlobsCondemned):
            store.claim_run(_RUN, an_owner(), built=built("built", "taken"))

        assert store.get_run(_RUN).status is RunStatus.QUEUED
        with pytest.raises(StoreError):
            store.get_plan(digest("built"))

    def test_plan_that_was_built_goes_with_its_run(self, store: RunStore) -> None:
        store.create_run(an_unplanned_run(), None)
        _end(store, "run", RunStatus.SUCCEEDED, plan="built")

        store.delete_run(_RUN)

        with pytest.raises(StoreError):
            store.get_plan(digest("built"))

    def test_reason_why_a_run_has_no_plan_is_noted_once(self, store: RunStore) -> None:
        store.create_run(an_unplanned_run(), None)

        noted = [store.note_unplanned(_RUN, why) for why in ("gone", "gone", "worse")]

        assert noted == [True, False, True]
        told = [each for each in store.list_events(_RUN) if each.kind == "unplanned"]
        assert [each.detail["why"] for each in told] == ["gone", "worse"]

    def test_run_that_has_a_plan_is_not_said_to_have_none(self, store: RunStore) -> None:
        created(store)

        assert not store.note_unplanned(_RUN, "gone")

    def test_run_without_a_plan_is_cancelled_at_once(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        store.create_run(an_unplanned_run(), None)

        run = store.request_cancel(_RUN)

        assert (run.status, run.finished_at) == (RunStatus.CANCELLED, clock.now())
        assert store.get_run(_RUN) == run
        assert kinds(store) == ["submitted", "cancel requested", "cancelled"]
        assert store.claimable() == []

    def test_cancelled_run_without_a_plan_can_be_opened_again(self, store: RunStore) -> None:
        store.create_run(an_unplanned_run(), None)
        store.request_cancel(_RUN)

        run = store.reset_run(_RUN)

        assert (run.status, run.plan_digest) == (RunStatus.QUEUED, None)
        assert [each.id for each in store.claimable()] == [_RUN]


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
