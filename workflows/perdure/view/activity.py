"""What goes on in a store: runs and who drives them, looked at again and again."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import msgspec

from perdure.engine.ownership import driver_of, is_driven, is_seen_dead
from perdure.plan import recorded_plan
from perdure.progress.board import Board, Glance
from perdure.progress.causes import of_wait
from perdure.progress.watch import Facts
from perdure.runs import status_of
from perdure.runtime import Runtime
from perdure.view.model import ActiveRunView, ActivityView, CoordinatorView
from perdure_storage.errors import RunNotFound
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus
from perdure_storage.records import RunQuery, RunRecord

ENDED_UP_TO = 5
"""Runs that have ended and are still shown."""
_ENDED_WITHIN = timedelta(minutes=10)
_STEPS = 3
_IN_ORDER = (RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.PAUSED, RunStatus.WAITING)


class Activity:
    """Looks at a store; what is known of a run is kept until it has ended. Used by one thread.

    Args:
        runtime: the opened store.
        limit: how many runs are shown.
    """

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._runtime = runtime
        self._limit = limit
        self._watched: dict[str, _Watched] = {}

    def look(self) -> ActivityView:
        """Return what goes on now."""
        store, now = self._runtime.store, self._runtime.clock.now()
        live = self._live()
        shown = live[: self._limit]
        self._watched = {r.id: self._watched.get(r.id) or _Watched(self._runtime) for r in shown}
        runs = [self._watched[record.id].look(record, now) for record in shown]
        ended = self._ended(now, min(ENDED_UP_TO, self._limit - len(shown)))
        owned = Counter(each.owner.token for each in shown if each.owner is not None)
        return ActivityView(
            at=now,
            runs=(*runs, *(_brief(record, now) for record in ended)),
            are_all=len(live) <= self._limit,
            coordinators=tuple(
                CoordinatorView(
                    host=owner.host,
                    pid=owner.pid,
                    serves=owner.serves,
                    workers=len(store.workers_of(owner.token)),
                    runs=owned[owner.token],
                )
                for owner, alive in store.coordinators()
                if alive and not is_seen_dead(owner)
            ),
        )

    def _live(self) -> list[RunRecord]:
        """Return the runs that go on, those that run first, one more than are shown."""
        found: list[RunRecord] = []
        for status in _IN_ORDER:
            left = self._limit + 1 - len(found)
            if left > 0:
                query = RunQuery(status=(status,), limit=left)
                found += self._runtime.store.list_runs(query)
        return found

    def _ended(self, now: datetime, limit: int) -> list[RunRecord]:
        if limit < 1:
            return []
        query = RunQuery(status=tuple(RUN_TERMINAL), limit=limit)
        ended = self._runtime.store.list_runs(query)
        return [r for r in ended if r.finished_at and now - r.finished_at < _ENDED_WITHIN]


class _Watched:
    """One run that goes on: its board, made when it has a plan, and what is new for it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._board: Board | None = None
        self._facts: Facts | None = None
        self._plan_digest: str | None = None

    def look(self, record: RunRecord, now: datetime) -> ActiveRunView:
        view = _brief(record, now)
        try:
            glance = self._glance(record, now)
        except RunNotFound:  # deleted just now
            return view
        if glance is None:
            return view
        slowest = glance.slowest[:_STEPS] if is_driven(record) else ()
        waits = glance.waits if record.status is RunStatus.WAITING else ()
        return msgspec.structs.replace(
            view,
            done=glance.done,
            running=glance.running if slowest else 0,
            failed=glance.failed,
            total=glance.total,
            steps=tuple(each.step_id for each in slowest),
            step_s=(now - slowest[0].since).total_seconds() if slowest else None,
            waits=of_wait(waits[0], now=now) if waits else "",
        )

    def _glance(self, record: RunRecord, now: datetime) -> Glance | None:
        if record.plan_digest is None:
            return None
        if self._board is None or record.plan_digest != self._plan_digest:
            plan = recorded_plan(self._runtime.store, record)
            executor = record.policy.executor or self._runtime.settings.executor
            self._board = Board(plan, now, is_serial=executor == "inline")
            self._facts = Facts(self._runtime.store, record.id, lambda: False)
            self._plan_digest = record.plan_digest
        assert self._facts is not None
        for commit in self._facts.take():
            self._board.apply(commit)
        return self._board.look(now)


def _brief(record: RunRecord, now: datetime) -> ActiveRunView:
    since = record.finished_at or record.started_at or record.created_at
    return ActiveRunView(
        id=record.id,
        workflow=record.workflow,
        status=str(status_of(record)),
        since=since,
        age_s=max(0.0, (now - since).total_seconds()),
        driver=driver_of(record) if is_driven(record) else "",
    )
