"""Who sits at the wheel in this process: one thread at a time drives one coordinator.

``run`` drives in the calling thread; ``start`` has a background thread do it; whoever waits while
another drives just waits, and takes the seat when it falls free. Ctrl-C is taken as a request:
never in the middle of a commit, at once while user code runs inline.
"""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from perdure.errors import DefinitionError, PerdureError
from perdure.interactive import current_cell, is_kernel
from perdure_storage.errors import StoreUnavailable

if TYPE_CHECKING:
    from perdure.engine.coordinator import Coordinator
    from perdure.engine.loading import Born
    from perdure_storage.records import Owner

log = logging.getLogger(__name__)

_TURN_S = 0.2
_AGAIN_S = 1.0
_NOTICED_S = 0.5  # a program that takes longer than this to end says why


class Driving:
    """The seat. ``make`` builds the coordinator when the first run needs one."""

    def __init__(self, make: Callable[[Callable[[str], None]], Coordinator]) -> None:
        self._make = make
        self._coordinator: Coordinator | None = None
        self._seat = threading.Lock()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._in_background: dict[str, int | None] = {}  # the cell that started each
        self._interrupted = False
        self._driver: int | None = None
        self._interruption: tuple[set[str], set[str]] = (set(), set())

    def submit(self, run_id: str) -> None:
        """Hand a run to this process's coordinator; somebody must ``drive`` or be waiting."""
        self._current().submit(run_id)

    def owner(self) -> Owner:
        """Return the identity under which runs may be claimed for this process."""
        return self._current().ready_to_own()

    def adopt(self, born: Born) -> None:
        """Hand over a run that was claimed, as it was made, for ``owner()``."""
        self._current().adopt(born)

    def drives(self, run_id: str) -> bool:
        """Say whether the run is driven in this process."""
        return self._coordinator is not None and self._coordinator.drives(run_id)

    def drive(self, until: Callable[[], bool]) -> None:
        """Return when ``until()`` holds, driving whenever nobody else does.

        Raises KeyboardInterrupt after everything driven here was left resumable.
        """
        if self._driver == threading.get_ident():
            raise DefinitionError(
                "a step that runs inline cannot wait for another run: it would wait for itself. "
                "Bind the other workflow into this one, or use executor='processes'"
            )
        with self._polite_interrupts():
            while not until():
                if not self._interrupted and self._seat.acquire(blocking=False):
                    self._driver = threading.get_ident()
                    try:
                        self._drive(until)
                    finally:
                        self._driver = None
                        self._seat.release()
                        self._tell("")
                else:
                    with self._changed:
                        self._changed.wait(_TURN_S)
                self._raise_interrupt()

    def _drive(self, until: Callable[[], bool]) -> None:
        while not until() and not self._interrupted:
            coordinator = self._coordinator
            if coordinator is None:
                return
            try:
                coordinator.turn(_TURN_S)
            except BaseException:
                # What it had decided may not be written: its runs are loaded again from rows.
                self._discard(coordinator)
                raise

    def _discard(self, coordinator: Coordinator) -> None:
        if self._coordinator is coordinator:
            self._coordinator = None
        coordinator.close()

    def wait_a_moment(self, seconds: float) -> None:
        """Wait until a run driven here changed its state, at most ``seconds``."""
        with self._changed:
            self._changed.wait(seconds)

    def drive_in_background(self, run_id: str) -> None:
        """Hand a run over, and have a thread drive until nothing is left to do here."""
        self._in_background[run_id] = current_cell()
        self.submit(run_id)
        self._start_thread()

    def goes_on(self, run_id: str) -> bool:
        """Say whether a thread of this process drives it, or is about to."""
        return run_id in self._in_background

    def take_interruption(self) -> tuple[set[str], set[str]]:
        """Return which runs in the background an interrupt has ended, and which go on; once."""
        taken, self._interruption = self._interruption, (set(), set())
        return taken

    def _start_thread(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._background, name="perdure-driver")
                self._thread.start()

    def _background(self) -> None:
        looked_at, tell_at = time.monotonic(), 0.0

        def is_over() -> bool:
            nonlocal looked_at, tell_at
            is_ending = not threading.main_thread().is_alive()
            if is_ending and is_kernel():
                return True  # a kernel that lingers is killed, and its notebook waits for that
            if self._coordinator is None or self._coordinator.is_idle:
                return True
            now = time.monotonic()
            if is_ending and not tell_at:
                tell_at = looked_at + _NOTICED_S  # since then it has been ending, at the longest
            if is_ending and now >= tell_at:
                tell_at = math.inf
                sys.stderr.write("perdure: waiting for started runs (Ctrl-C: resumable)\n")
            looked_at = now
            return False

        def is_left() -> bool:
            # Asked where threads are started: what was handed over before finds this one, or none.
            with self._changed:
                if is_over():
                    self._thread = None
            return self._thread is not threading.current_thread()

        try:
            while not is_left():
                self.drive(is_over)
        except PerdureError as error:
            # Whoever waits for the runs is told by them that nobody drives them any more.
            log.error("runs are no longer driven here: %s", error)
        finally:
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def serve(self, stop: threading.Event) -> None:
        """Drive until ``stop`` is set, taking on whatever run nobody drives."""
        while not stop.is_set():
            try:
                self._current().serve()
                self.drive(stop.is_set)
            except StoreUnavailable as error:
                log.error("the store is away, trying again: %s", error)
                stop.wait(_AGAIN_S)

    def leave(self, within_s: float, hurry: threading.Event) -> None:
        """Let what runs end, and give its runs to others, until ``within_s`` is over.

        Args:
            within_s: then, or when ``hurry`` is set, what still runs is left to ``stop``.
            hurry: somebody does not want to wait.
        """
        coordinator = self._coordinator
        if coordinator is None:
            return
        coordinator.leave(within_s)
        until = time.monotonic() + within_s
        try:
            self.drive(lambda: coordinator.is_left or hurry.is_set() or time.monotonic() >= until)
        except StoreUnavailable as error:
            log.error("the store is away: %s", error)

    def hasten(self, within_s: float) -> None:
        """Wait for a store that is away only so long, from any thread: ``leave`` comes next."""
        if (coordinator := self._coordinator) is not None:
            coordinator.leave(within_s)

    def stop(self) -> None:
        """Give everything up: workers die, runs stay resumable. Waiters are told."""
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            coordinator.give_up()
            with self._seat:
                coordinator.close()
        self._tell("")

    def _current(self) -> Coordinator:
        if self._coordinator is None:
            self._coordinator = self._make(self._tell)
        return self._coordinator

    def _tell(self, run_id: str) -> None:
        self._in_background.pop(run_id, None)
        with self._changed:
            self._changed.notify_all()

    # --- Ctrl-C ---------------------------------------------------------------------------------
    @contextmanager
    def _polite_interrupts(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler:
            yield  # somebody else's handler, or we are nested: leave it alone
            return
        signal.signal(signal.SIGINT, self._on_sigint)
        try:
            yield
        except KeyboardInterrupt:
            self._interrupted = True
            raise
        finally:
            signal.signal(signal.SIGINT, before)
            if self._interrupted:
                self._end_what_the_cell_started()

    def _end_what_the_cell_started(self) -> None:
        """Let runs that other cells started go on: who interrupts a cell means what that runs."""
        cell, started = current_cell(), self._in_background
        ended = {run_id for run_id, its in started.items() if its == cell or not is_kernel()}
        others = started.keys() - ended
        self._interruption = ended, others
        try:
            is_done = bool(others) and self._give_up_all_but(others)
        finally:
            self._interrupted = False
        for run_id in ended:
            started.pop(run_id, None)
        if not is_done:
            self.stop()
            for run_id in sorted(others):
                self.submit(run_id)
        if others:
            self._start_thread()

    def _give_up_all_but(self, kept: Collection[str]) -> bool:
        """Give up what else is driven here; False where only ``stop`` can do that."""
        with self._seat:  # whoever drives leaves it, as there is an interrupt
            coordinator = self._coordinator
            try:
                return coordinator is not None and coordinator.give_up_all_but(kept)
            except PerdureError as error:
                log.warning("runs cannot be given up one by one: %s", error)
                return False

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        coordinator = self._coordinator
        if self._interrupted or (coordinator is not None and coordinator.is_in_user_code):
            self._interrupted = True
            raise KeyboardInterrupt
        self._interrupted = True
        if coordinator is not None:
            coordinator.wake()

    def _raise_interrupt(self) -> None:
        if self._interrupted and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
