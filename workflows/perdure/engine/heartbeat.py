"""The lease of a coordinator, renewed beside its work."""

from __future__ import annotations

import logging
import threading

from perdure.engine.outages import Outage
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreError
from perdure_storage.protocols import RunStore
from perdure_storage.records import Owner, ProcessId

log = logging.getLogger(__name__)

LEASE_S = 10.0
"""How long other hosts leave a run alone whose owner is silent."""
AGAIN_S = 0.25
"""When a renewal is tried again that failed: others wait for it only so long once the store is
back."""
LATE = 0.6
"""The part of a lease after which a renewal is late. Renewals come after a quarter: where a store
was away for so long that somebody's lease ran out, everybody's renewal is later than this."""


class Heartbeat:
    """Renews the coordinator's lease from a thread of its own, so that slow turns lose nothing."""

    def __init__(self, store: RunStore, owner: Owner, clock: Clock) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._renewed_at = clock.monotonic()
        self._outage = Outage(
            log, clock, what="could not renew the lease", over="the lease is renewed again"
        )
        self._workers: tuple[ProcessId, ...] = ()
        self._beat = threading.Event()
        self._stopping = False
        self._was_refused = False
        self._steady_since = float("-inf")
        self._late_s: float | None = None
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Register the coordinator and begin to renew, once, whoever asks for it first."""
        with self._starting:
            if self._thread is not None:
                return
            asked_at = self._clock.monotonic()
            try:
                self._store.register(self._owner, LEASE_S)
            except StoreError:
                self._was_refused = True
                raise
            self._renewed_at = self._clock.monotonic()
            if self._was_refused or self._renewed_at - asked_at > LATE * LEASE_S:
                self._steady_since = self._renewed_at  # others could not renew theirs, either
            self._thread = threading.Thread(target=self._run, name="perdure-heartbeat", daemon=True)
            self._thread.start()

    def beat_now(self, workers: tuple[ProcessId, ...]) -> None:
        """Record these worker processes with the next renewal, which comes at once."""
        self._workers = workers
        self._beat.set()

    def take_late(self) -> float | None:
        """Return how long the lease was not renewed, if it was over meanwhile; once."""
        late_s, self._late_s = self._late_s, None
        return late_s

    @property
    def steady_s(self) -> float:
        """Return for how long the lease has been renewed in time: 0 while that is late, or fails.

        Who could not renew a lease cannot tell from another's, which is over, that its owner is
        gone: the store may have been away from both, without a word if it was stopped.
        """
        if self._thread is None:
            return float("inf")
        # In this order: a renewal notes first that it comes late, and then that it came.
        now, renewed_at = self._clock.monotonic(), self._renewed_at
        is_late = self._outage.is_on or now - renewed_at > LATE * LEASE_S
        return 0.0 if is_late else now - self._steady_since

    def stop(self) -> None:
        """End the renewals and remove the heartbeat row: the runs are free at once."""
        if self._thread is None:
            return
        self._stopping = True
        self._beat.set()
        self._thread.join()
        self._thread = None
        try:
            self._store.unregister(self._owner)
        except StoreError as error:
            log.warning("could not take the heartbeat row back: %s", error)

    def _run(self) -> None:
        while not self._stopping:
            self._beat.wait(AGAIN_S if self._outage.is_on else LEASE_S / 4)
            self._beat.clear()
            if not self._stopping:
                self._renew()

    def _renew(self) -> None:
        try:
            if not self._store.renew(self._owner, LEASE_S, self._workers):
                # Whoever tidied up took a sleeper for dead: what nobody claimed is held again.
                self._store.register(self._owner, LEASE_S)
        except StoreError as error:
            # Nothing to do here: every commit checks the epoch by itself.
            self._outage.note(error)
        else:
            now = self._clock.monotonic()
            silent_s = now - self._renewed_at
            if self._outage.is_on or silent_s > LATE * LEASE_S:
                self._steady_since = now
            self._tell_if_over(silent_s)
            self._renewed_at = now
            self._outage.end()

    def _tell_if_over(self, silent_s: float) -> None:
        """Say that the lease was over for a while, unless it is known that the store was away.

        A thread renews, so a step in this process that holds Python's lock stops that. Another
        process that renewed would keep the lease of a coordinator that is stopped, or hangs.
        """
        if silent_s > LEASE_S and not self._outage.is_on:
            self._late_s = silent_s
            log.warning(
                "the lease was not renewed for %.0f s, and is over after %.0f: this process was "
                "stopped, or a step that runs inline held Python's lock. Runs that another host "
                'took over meanwhile are its own now; with executor="processes" no step does that',
                silent_s,
                LEASE_S,
            )
