from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from perdure.engine.heartbeat import LATE, LEASE_S, Heartbeat
from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import an_owner
from perdure_storage.errors import StoreUnavailable
from perdure_storage.memory import MemoryRunStore
from perdure_storage.records import Owner, ProcessId


class Store(MemoryRunStore):
    """Says when a renewal was asked for; refuses as many as it is told to."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.asked = threading.Semaphore(0)
        self.refuses = 0

    def register(self, owner: Owner, lease_s: float, *args: Any, **kwargs: Any) -> None:
        if self.refuses:
            self.refuses -= 1
            raise StoreUnavailable("away")
        super().register(owner, lease_s, *args, **kwargs)

    def renew(self, owner: Owner, lease_s: float, workers: Sequence[ProcessId] = ()) -> bool:
        try:
            if self.refuses:
                self.refuses -= 1
                raise StoreUnavailable("away")
            return super().renew(owner, lease_s, workers)
        finally:
            self.asked.release()


def renewed_after(seconds: float, *, refused: int = 0) -> Heartbeat:
    """Let a heartbeat renew when so much time is over, and end; return it."""
    clock = ManualClock()
    store = Store(clock)
    heartbeat = Heartbeat(store, an_owner(), clock)
    heartbeat.start()
    clock.advance(seconds)
    store.refuses = refused
    heartbeat.beat_now(())
    for _ in range(refused + 1):
        assert store.asked.acquire(timeout=10)
    heartbeat.stop()
    return heartbeat


def test_lease_that_was_over_before_it_was_renewed_is_told_with_the_way_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heartbeat = renewed_after(LEASE_S + 5)

    assert f"the lease was not renewed for {LEASE_S + 5:.0f} s" in caplog.text
    assert 'executor="processes"' in caplog.text
    assert (heartbeat.take_late(), heartbeat.take_late()) == (LEASE_S + 5, None)


def test_lease_that_is_renewed_in_time_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    heartbeat = renewed_after(LEASE_S / 2)

    assert caplog.text == ""
    assert heartbeat.take_late() is None


def test_lease_that_was_over_because_the_store_was_away_is_told_as_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    renewed_after(LEASE_S + 5, refused=1)

    assert "could not renew the lease" in caplog.text
    assert "held Python's lock" not in caplog.text


def test_lease_is_steady_from_its_registration_on() -> None:
    clock = ManualClock()
    heartbeat = Heartbeat(Store(clock), an_owner(), clock)
    heartbeat.start()

    clock.advance(LATE * LEASE_S - 1)

    assert heartbeat.steady_s > LEASE_S
    heartbeat.stop()


def test_lease_is_not_steady_that_could_not_be_registered_at_first() -> None:
    clock = ManualClock()
    store = Store(clock)
    heartbeat = Heartbeat(store, an_owner(), clock)
    store.refuses = 1
    with pytest.raises(StoreUnavailable):
        heartbeat.start()
    heartbeat.start()

    clock.advance(2)

    assert heartbeat.steady_s == 2
    heartbeat.stop()


def test_lease_is_not_steady_while_its_renewal_is_late_and_from_its_end_on_again() -> None:
    clock = ManualClock()
    store = Store(clock)
    heartbeat = Heartbeat(store, an_owner(), clock)
    heartbeat.start()

    clock.advance(LATE * LEASE_S + 1)
    assert heartbeat.steady_s == 0
    heartbeat.beat_now(())
    assert store.asked.acquire(timeout=10)
    while heartbeat.steady_s == 0:  # it was asked, and is about to be answered
        threading.Event().wait(0.001)
        clock.advance(0.001)

    clock.advance(2)

    assert 2 <= heartbeat.steady_s < LEASE_S
    heartbeat.stop()
