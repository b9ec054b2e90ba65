"""A store that was stopped says nothing of it: its answers come late, by its own clock."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.unit.perdure.engine.bench import plan_of

from perdure.engine.coordinator import Coordinator
from perdure.engine.doubts import SETTLE_S
from perdure.engine.heartbeat import LEASE_S, Heartbeat
from perdure.executors.inline import InlineExecutor
from perdure.plan import encode_plan
from perdure_storage.blobs import open_blobs
from perdure_storage.clock import ManualClock
from perdure_storage.codecs import Codecs
from perdure_storage.contract_samples import an_owner, claimed, created
from perdure_storage.memory import MemoryRunStore
from perdure_storage.records import Digest, Owner, PlanRecord, ProcessId, RunId, RunRecord
from perdure_storage.values import Values

PLAN = PlanRecord(digest=Digest("blake3:" + "0" * 64), body=encode_plan(plan_of({"a": []})))


class StoppedStore(MemoryRunStore):
    """Is stopped, when it is told to, as it is asked what can be claimed, or with a claim.

    Attributes:
        stops_for_s: how long when it is asked next.
        faster: whose claim is done before it is stopped with the next one.
    """

    stops_for_s = 0.0
    faster: Owner | None = None

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.clock = clock
        self.renewed = threading.Semaphore(0)

    def claimable(self, *args: Any, **kwargs: Any) -> list[RunRecord]:
        stops_for_s, self.stops_for_s = self.stops_for_s, 0.0
        self.clock.advance(stops_for_s)
        return super().claimable(*args, **kwargs)

    def claim_runs(self, run_ids: Collection[RunId], owner: Owner, **known: Any) -> list[RunRecord]:
        faster, self.faster = self.faster, None
        if faster is not None:
            assert super().claim_runs(run_ids, faster)
            self.clock.advance(LEASE_S + 1)
        return super().claim_runs(run_ids, owner, **known)

    def renew(self, owner: Owner, lease_s: float, workers: Sequence[ProcessId] = ()) -> bool:
        try:
            return super().renew(owner, lease_s, workers)
        finally:
            self.renewed.release()


@dataclass
class Serving:
    """A coordinator that serves beside another, which has a run."""

    clock: ManualClock = field(default_factory=ManualClock)
    other: Owner = field(default_factory=lambda: an_owner("other"))

    def __post_init__(self) -> None:
        self.store = StoppedStore(self.clock)
        blobs = open_blobs("memory://stopped", self.store.store_id, bind=True)
        self.store.register(self.other, LEASE_S)
        claimed(self.store, "run", self.other, plan=PLAN)
        owner = an_owner("mine", serves=True)
        self.heartbeat = Heartbeat(self.store, owner, self.clock)
        self.coordinator = Coordinator(
            store=self.store,
            blobs=blobs,
            values=Values(Codecs(), blobs),
            executors=lambda name: InlineExecutor(),
            owner=owner,
            clock=self.clock,
            default_executor="inline",
            heartbeat=self.heartbeat,
        )
        self.coordinator.serve()

    def look(self) -> str:
        """Let it look for runs; return whose the run is then."""
        self.clock.advance(1.5)
        self.coordinator.turn(0)
        owner = self.store.get_run(RunId("run")).owner
        assert owner is not None
        return owner.token

    def renew(self) -> None:
        """Let it renew its lease."""
        self.heartbeat.beat_now(())
        assert self.store.renewed.acquire(timeout=10)
        while self.heartbeat.steady_s == 0:  # it was asked, and is about to be answered
            threading.Event().wait(0.001)
            self.clock.advance(0.001)


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving()
    yield serving
    serving.coordinator.close()


def test_run_is_left_to_its_owner_who_could_not_renew_while_the_store_was_stopped(
    serving: Serving,
) -> None:
    serving.store.stops_for_s = LEASE_S + 1

    assert serving.look() == "other"
    serving.store.register(serving.other, LEASE_S)
    serving.renew()
    serving.clock.advance(SETTLE_S)

    assert serving.look() == "other"


def test_run_is_taken_over_whose_owner_does_not_come_back_with_the_store(serving: Serving) -> None:
    serving.store.stops_for_s = LEASE_S + 1

    assert serving.look() == "other"
    serving.renew()
    assert serving.look() == "other"
    for _ in range(2):
        serving.clock.advance(SETTLE_S / 2)
        serving.renew()

    assert serving.look() == "mine"


def test_run_is_taken_over_though_no_renewal_of_ones_own_is_ever_in_time(serving: Serving) -> None:
    serving.clock.advance(LEASE_S + 1)

    assert [serving.look() for _ in range(6)] == ["other"] * 5 + ["mine"]


def test_time_in_which_a_store_was_away_again_does_not_count(serving: Serving) -> None:
    serving.store.stops_for_s = LEASE_S + 1
    assert serving.look() == "other"

    serving.store.stops_for_s = LEASE_S + 1

    assert serving.look() == "other"


def test_run_is_taken_over_at_once_from_an_owner_who_alone_was_silent(serving: Serving) -> None:
    for _ in range(2):
        serving.clock.advance(LEASE_S / 2)
        serving.renew()

    assert serving.look() == "mine"


def test_claim_that_was_on_its_way_takes_no_new_run_from_who_was_faster(serving: Serving) -> None:
    created(serving.store, "new", plan=PLAN)
    serving.renew()
    serving.clock.advance(SETTLE_S)
    serving.store.register(serving.other, LEASE_S)
    serving.store.faster = serving.other

    assert serving.look() == "other"
    assert serving.store.get_run(RunId("new")).owner == serving.other
