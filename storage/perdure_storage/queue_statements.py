"""Every SQL statement about queues, by name, as ``statements.py`` has those about runs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import sqlalchemy as sa

from perdure_storage.statement import Statement
from perdure_storage.statements import LISTED, Statements
from perdure_storage.tables import HAS_SLOT, HAS_STARTED, IS_IN_LINE, IS_WAITING, queue, run

# Written out, not bound: a partial index serves only a query that says its condition itself.
_IS_IN_LINE = sa.text(IS_IN_LINE)
_HAS_SLOT = sa.text(HAS_SLOT)
_HAS_STARTED = sa.text(HAS_STARTED)
_IS_WAITING = sa.text(IS_WAITING)
_OF_QUEUE: sa.BindParameter[str] = sa.bindparam("of_queue", type_=sa.Text)
_NOW: sa.BindParameter[int] = sa.bindparam("now_us", type_=sa.BigInteger)
_IN_ORDER = (run.c.priority.desc(), run.c.created_at_us, run.c.id)
_NOBODYS: sa.ColumnElement[int] = sa.literal_column("0")
"""In the place of ``lease_live``: who waits has no owner."""


class QueueStatements:
    """The statements about queues of one store.

    Args:
        statements: compiles for the store's dialect.
    """

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._shapes: dict[tuple[str, bool], Statement] = {}

    def _compile(self, clause: Any) -> Statement:
        return self._statements.compile(clause)

    # --- queues ------------------------------------------------------------------------------
    @cached_property
    def list_queues(self) -> Statement:
        return self._compile(sa.select(queue).order_by(queue.c.name))

    @cached_property
    def find_queue(self) -> Statement:
        return self._compile(sa.select(queue).where(queue.c.name == _OF_QUEUE))

    @cached_property
    def lock_queues(self) -> Statement:
        """Lock queues and read them; what is counted next is what there is under that lock."""
        named = sa.select(queue).where(self._statements.among(queue.c.name))
        return self._compile(named.order_by(queue.c.name).with_for_update())

    @cached_property
    def insert_queue(self) -> Statement:
        insert = self._statements.insert_or_keep(queue)
        return self._compile(insert.returning(queue.c.name))

    @cached_property
    def replace_queue(self) -> Statement:
        changed = ("running_limit", "key_limit", "rate", "window_us", "declared", "updated_at_us")
        clause = (
            sa.update(queue)
            .where(queue.c.name == _OF_QUEUE, queue.c.version == sa.bindparam("of_version"))
            .values({name: sa.bindparam(f"new_{name}") for name in changed})
            .values(version=queue.c.version + 1)
            .returning(queue.c.name)
        )
        return self._compile(clause)

    @cached_property
    def delete_queue(self) -> Statement:
        gone = sa.delete(queue).where(queue.c.name == _OF_QUEUE)
        return self._compile(gone.returning(queue.c.name))

    # --- what is taken -----------------------------------------------------------------------
    @cached_property
    def count_running(self) -> Statement:
        """Count the slots that are taken, by queue and key."""
        mine = (_HAS_SLOT, self._statements.among(run.c.queue))
        found = sa.select(run.c.queue, run.c.limit_key, sa.func.count()).where(*mine)
        return self._compile(found.group_by(run.c.queue, run.c.limit_key))

    @cached_property
    def count_starts(self) -> Statement:
        """Count the runs of a queue that have begun after a time."""
        return self._compile(sa.select(sa.func.count()).where(*self._started()))

    @cached_property
    def find_start(self) -> Statement:
        """Find when that run began which is so many places before the newest."""
        found = sa.select(run.c.started_at_us).where(*self._started())
        newest = found.order_by(run.c.started_at_us.desc())
        return self._compile(newest.limit(1).offset(sa.bindparam("after", type_=sa.Integer)))

    def _started(self) -> tuple[Any, ...]:
        since = sa.bindparam("since_us", type_=sa.BigInteger)
        return _HAS_STARTED, run.c.queue == _OF_QUEUE, run.c.started_at_us > since

    @cached_property
    def list_holders(self) -> Statement:
        mine = sa.select(run.c.id).where(_HAS_SLOT, run.c.queue == _OF_QUEUE)
        return self._compile(
            mine.order_by(run.c.started_at_us, run.c.id).limit(sa.bindparam("limit"))
        )

    # --- who waits ---------------------------------------------------------------------------
    @cached_property
    def count_waiting(self) -> Statement:
        """Count those who wait, by key, and those whose time has not come."""
        later = sa.func.sum(sa.case((run.c.not_before_us > _NOW, 1), else_=0))
        oldest = sa.func.min(sa.case((run.c.not_before_us > _NOW, None), else_=run.c.created_at_us))
        mine = (_IS_IN_LINE, run.c.queue == _OF_QUEUE)
        found = sa.select(run.c.limit_key, sa.func.count(), later, oldest).where(*mine)
        return self._compile(found.group_by(run.c.limit_key))

    @cached_property
    def queues_in_line(self) -> Statement:
        """Find the names of queues in which somebody waits: one look into the index for each."""
        next_name = sa.select(run.c.queue).where(_IS_IN_LINE).order_by(run.c.queue).limit(1)
        names = sa.select(next_name.scalar_subquery().label("name")).cte("names", recursive=True)
        later = next_name.where(run.c.queue > names.c.name).correlate(names).scalar_subquery()
        names = names.union_all(
            sa.select(later).select_from(names).where(names.c.name.is_not(None))
        )
        return self._compile(sa.select(names.c.name).where(names.c.name.is_not(None)))

    def lines(self, *, fits: bool) -> Statement:
        """Return a query for the first run of each key that waits; ``fits``: that fits an offer.

        Each row: the key, when a run of it began last, and its first run. It goes from key to key
        by the index, so that it takes as long as there are keys, not as there are runs. Of very
        many keys those come that are next, and as many more as may have runs going on.
        """
        shape = ("lines", fits)
        if shape not in self._shapes:
            self._shapes[shape] = self._compile(self._lines(fits))
        return self._shapes[shape]

    def _lines(self, fits: bool) -> Any:
        due = self._in_line(fits=False)
        next_key = sa.select(run.c.limit_key).where(*due).order_by(run.c.limit_key).limit(1)
        keys = sa.select(next_key.scalar_subquery().label("key")).cte("keys", recursive=True)
        later = next_key.where(run.c.limit_key > keys.c.key).correlate(keys).scalar_subquery()
        keys = keys.union_all(sa.select(later).select_from(keys).where(keys.c.key.is_not(None)))
        of_key = run.c.limit_key == keys.c.key
        head = sa.select(run.c.id).where(*self._in_line(fits=fits), of_key)
        head = head.order_by(*_IN_ORDER).limit(1).correlate(keys)
        served = sa.select(sa.func.max(run.c.started_at_us))
        served = served.where(_HAS_STARTED, run.c.queue == _OF_QUEUE, of_key).correlate(keys)
        first = run.alias("first")
        listed = [first.c[column.name] for column in LISTED]
        joined = keys.join(first, first.c.id == head.scalar_subquery())
        since = served.scalar_subquery().label("since_us")
        found = sa.select(keys.c.key, since, *listed, _NOBODYS).select_from(joined)
        next_ones = (first.c.priority.desc(), sa.func.coalesce(served.scalar_subquery(), 0))
        ordered = found.order_by(*next_ones, first.c.created_at_us, first.c.id)
        return ordered.limit(sa.bindparam("heads", type_=sa.Integer))

    def line(self, *, fits: bool) -> Statement:
        """Return a query for the runs of one key that wait, in their order."""
        shape = ("line", fits)
        if shape not in self._shapes:
            mine = self._listed(*self._in_line(fits=fits), run.c.limit_key == sa.bindparam("key"))
            self._shapes[shape] = self._compile(_page(mine.order_by(*_IN_ORDER)))
        return self._shapes[shape]

    def woken(self, *, fits: bool) -> Statement:
        """Return a query for the runs of a queue that slept and have something to do."""
        shape = ("woken", fits)
        if shape not in self._shapes:
            due = (_IS_WAITING, run.c.wake_at_us <= _NOW, run.c.queue == _OF_QUEUE)
            mine = self._listed(*due, *self._fitting(fits))
            self._shapes[shape] = self._compile(_page(mine.order_by(run.c.wake_at_us, run.c.id)))
        return self._shapes[shape]

    def _listed(self, *where: Any) -> Any:
        return sa.select(*LISTED, _NOBODYS).where(*where)

    def _in_line(self, *, fits: bool) -> tuple[Any, ...]:
        is_due = run.c.not_before_us.is_(None) | (run.c.not_before_us <= _NOW)
        return _IS_IN_LINE, run.c.queue == _OF_QUEUE, is_due, *self._fitting(fits)

    def _fitting(self, fits: bool) -> tuple[Any, ...]:
        # Who is to be cancelled is anybody's, and in no line.
        return ~run.c.cancel_requested, *((self._statements.fits(),) if fits else ())


def _page(query: Any) -> Any:
    return query.limit(sa.bindparam("limit", type_=sa.Integer))
