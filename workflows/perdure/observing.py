"""What is told of runs that are driven here, to whoever counts or traces them.

Nobody listens by default, and then nothing is told. A listener is called in the driving thread:
it does not wait, and does not raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perdure.calls import Outcome, StepCall
from perdure_storage.records import EventRecord, RunCommit, RunRecord


class Observer(Protocol):
    """Hears what becomes of the runs of one coordinator."""

    @property
    def wants_story(self) -> bool:
        """Say whether ``taken_on`` is to be given the events of a run that others drove before."""
        ...

    def taken_on(self, run: RunRecord, story: Sequence[EventRecord]) -> None:
        """Hear that a run is driven here from now on."""
        ...

    def sent(self, call: StepCall) -> StepCall:
        """Hear that an attempt is about to be started; return the call, with what it needs."""
        ...

    def came(self, outcome: Outcome) -> None:
        """Hear how an attempt ended."""
        ...

    def about_to_commit(self, commits: tuple[RunCommit, ...]) -> tuple[RunCommit, ...]:
        """Return what is to be written, with what is to be remembered of the observation."""
        ...

    def written(self, seconds: float) -> None:
        """Hear how long the store took for a commit."""
        ...

    def committed(self, commit: RunCommit) -> None:
        """Hear what a run has contributed to a commit that was not refused."""
        ...

    def let_go(self, run_id: str) -> None:
        """Hear that a run is not driven here any more."""
        ...


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    @property
    def wants_story(self) -> bool:
        return any(each.wants_story for each in self._observers)

    def taken_on(self, run: RunRecord, story: Sequence[EventRecord]) -> None:
        for each in self._observers:
            each.taken_on(run, story)

    def sent(self, call: StepCall) -> StepCall:
        for each in self._observers:
            call = each.sent(call)
        return call

    def came(self, outcome: Outcome) -> None:
        for each in self._observers:
            each.came(outcome)

    def about_to_commit(self, commits: tuple[RunCommit, ...]) -> tuple[RunCommit, ...]:
        for each in self._observers:
            commits = each.about_to_commit(commits)
        return commits

    def written(self, seconds: float) -> None:
        for each in self._observers:
            each.written(seconds)

    def committed(self, commit: RunCommit) -> None:
        for each in self._observers:
            each.committed(commit)

    def let_go(self, run_id: str) -> None:
        for each in self._observers:
            each.let_go(run_id)
