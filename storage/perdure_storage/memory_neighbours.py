"""What schedules and triggers in this process's memory ask of the runs beside them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from perdure_storage.records import Digest, MessageRecord, PlanRecord, RunId, RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The runs, messages and coordinators of a store, under the one lock of all of it.

    Attributes:
        drop_plan: removes a plan that nothing has any more.
        is_live: says of a coordinator's token whether its lease stands.
        changed: is told that something has changed.
    """

    lock: AbstractContextManager[object]
    url: str
    is_taken: Callable[[RunId], bool]
    create: Callable[[RunRecord], bool]
    cancel: Callable[[RunId], None]
    runs: Callable[[], Iterable[RunRecord]]
    messages: Callable[[], Sequence[MessageRecord]]
    is_live: Callable[[str], bool]
    condemned: Callable[[], Collection[Digest]]
    plans: dict[Digest, PlanRecord]
    drop_plan: Callable[[Digest], None]
    changed: Callable[[], None]

    def missing_plan(self, runs: Iterable[RunRecord], plans: Collection[Digest]) -> str:
        """Return why a database would refuse one of these new runs, if it would."""
        taken: set[RunId] = set()
        for run in runs:
            is_new = run.id not in taken and not self.is_taken(run.id)
            if is_new and run.plan_digest is not None and run.plan_digest not in plans:
                return f"its plan {run.plan_digest} is not there"
            taken.add(run.id)
        return ""
