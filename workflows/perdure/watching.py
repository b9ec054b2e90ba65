"""Which runs of this process are watched, and by whom: what the driving thread says, and where."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perdure.progress.board import Board
from perdure.progress.changes import summary
from perdure.progress.displays import FindMedium, Scene
from perdure.progress.watch import Facts, Watch, in_flight_or_ended
from perdure.runs import Run
from perdure.runtime import Runtime
from perdure.showing import bundle_of
from perdure_storage.lifecycle import RUN_LIVE
from perdure_storage.records import RunCommit


class Watching:
    """Tells of runs while somebody waits for them.

    Args:
        say: takes the line that says how a run has ended.
        find_medium: finds where to show the rest.
    """

    def __init__(self, say: Callable[[str], None], find_medium: FindMedium) -> None:
        self._say = say
        self._find_medium = find_medium
        self._watched: dict[str, Facts] = {}

    def overhear(self, commit: RunCommit) -> None:
        """Note what the driving thread has committed, for whoever watches the run."""
        facts = self._watched.get(commit.run_id)
        if facts is not None:
            facts.overheard.append(commit)

    @contextmanager
    def watch(self, run: Run, runtime: Runtime, drives: Callable[[str], bool]) -> Iterator[None]:
        """Show how the run goes on while the block runs, and how it has ended.

        Only what the main thread waits for is shown, and no run twice.
        """
        medium = None
        if run.id not in self._watched and threading.current_thread() is threading.main_thread():
            medium = self._find_medium(self._say)
        record = run.record
        if medium is None or record.status not in RUN_LIVE:
            yield
            return
        facts = Facts(runtime.store, record.id, lambda: drives(run.id))
        self._watched[run.id] = facts  # before the rows are read: nothing falls in between
        try:
            board = _board_of(run, runtime)
            scene = Scene(
                run_id=record.id,
                board=board,
                logs=runtime.logs,
                clock=runtime.clock,
                send=run.signal_command,
                look=lambda: bundle_of(run),
            )
            with Watch(facts, medium(scene)):
                yield
        finally:
            del self._watched[run.id]
        if board.ended_as is not None:
            self._say(summary(run.id, board.look(runtime.clock.now()), board.ended_as))


def _board_of(run: Run, runtime: Runtime) -> Board:
    record = run.record  # as it is now that the run is listened to: who takes it later is heard
    executor = record.policy.executor or runtime.settings.executor
    board = Board(run.plan, runtime.clock.now(), is_serial=executor == "inline")
    if record.epoch:  # somebody has driven it before
        store = runtime.store
        board.begin(
            store.list_steps(record.id),
            in_flight_or_ended(store.list_attempts(record.id), record),
            store.list_expansions(record.id),
            store.list_waits(record.id),
        )
    return board
