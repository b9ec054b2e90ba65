"""Every SQL statement about schedules, by name, as ``statements.py`` has those about runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from perdure_storage.schedule_rows import STATE
from perdure_storage.statement import Statement
from perdure_storage.statements import Statements
from perdure_storage.tables import (
    WAKES_BY_RUN,
    WAKES_BY_TIME,
    blob_ref,
    concurrency,
    run,
    schedule,
    tick,
)

_LIVE = ("QUEUED", "RUNNING", "WAITING", "PAUSED")
_WAKES_BY_TIME = sa.text(WAKES_BY_TIME)
_WAKES_BY_RUN = sa.text(WAKES_BY_RUN)
_IS_COUNTED = sa.text("NOT by_hand")
"""As the partial index says it, which serves no query that says it otherwise."""
_COLUMNS = [column.name for column in schedule.c]
_HELD = ("name", "created_at_us")
"""The columns that stay when a schedule is registered again."""


class ScheduleStatements:
    """The statements about schedules of one store.

    Args:
        statements: compiles for the store's dialect.
    """

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._shapes: dict[tuple[str, frozenset[str]], Statement] = {}

    def _compile(self, clause: Any) -> Statement:
        return self._statements.compile(clause)

    def _compile_once(
        self, name: str, filters: frozenset[str], build: Callable[[frozenset[str]], Any]
    ) -> Statement:
        if (name, filters) not in self._shapes:
            self._shapes[name, filters] = self._compile(build(filters))
        return self._shapes[name, filters]

    # --- changes -----------------------------------------------------------------------------
    @cached_property
    def put_key(self) -> Statement:
        return self._compile(self._statements.insert_or_keep(concurrency))

    @cached_property
    def lock_key(self) -> Statement:
        chosen = sa.select(concurrency.c.version).where(_is_key())
        return self._compile(chosen.with_for_update())

    @cached_property
    def advance_key(self) -> Statement:
        grown = sa.update(concurrency).where(_is_key())
        return self._compile(grown.values(version=concurrency.c.version + 1))

    @cached_property
    def lock_schedule(self) -> Statement:
        chosen = sa.select(schedule.c.version, schedule.c.plan_digest)
        return self._compile(chosen.where(_is_named()).with_for_update())

    @cached_property
    def insert_schedule(self) -> Statement:
        values: dict[str, Any] = {name: sa.bindparam(name) for name in _COLUMNS}
        insert = self._statements.insert_or_keep(schedule).values(values)
        return self._compile(insert.returning(schedule.c.name))

    @cached_property
    def update_schedule(self) -> Statement:
        kept = [name for name in _COLUMNS if name not in _HELD]
        return self._compile(sa.update(schedule).where(_is_named()).values(_new(*kept)))

    @cached_property
    def advance_schedule(self) -> Statement:
        """Guard a schedule and rewrite its state, in one statement."""
        is_read = schedule.c.version == sa.bindparam("read_version", type_=sa.BigInteger)
        clause = sa.update(schedule).where(_is_named(), is_read)
        return self._compile(
            clause.values(_new(*STATE, "updated_at_us")).returning(schedule.c.version)
        )

    @cached_property
    def put_tick(self) -> Statement:
        """Write a tick; one that has made a run gives way to another run of that time only."""
        insert = self._statements.insert(tick)
        keys = list(tick.primary_key.columns)
        rest = {c.name: insert.excluded[c.name] for c in tick.c if c not in keys}
        gives_way = tick.c.run_id.is_(None) | (tick.c.run_id != insert.excluded.run_id)
        return self._compile(
            insert.on_conflict_do_update(index_elements=keys, set_=rest, where=gives_way)
        )

    @cached_property
    def delete_of_schedule(self) -> tuple[Statement, ...]:
        name: sa.BindParameter[str] = sa.bindparam("of_name")
        refs = sa.text("holder = 'schedule'") & (blob_ref.c.holder_id == name)
        return (
            self._compile(sa.delete(tick).where(tick.c.schedule == name)),
            self._compile(sa.delete(blob_ref).where(refs)),
            self._compile(sa.delete(schedule).where(schedule.c.name == name)),
        )

    @cached_property
    def delete_schedule_blobs(self) -> Statement:
        refs = sa.text("holder = 'schedule'") & (blob_ref.c.holder_id == sa.bindparam("of_name"))
        return self._compile(sa.delete(blob_ref).where(refs))

    @cached_property
    def forget_ticks(self) -> Statement:
        """Go from schedule to schedule: each has its oldest ticks at one end of the key."""
        before = sa.bindparam("before_us", type_=sa.BigInteger)
        old = (
            sa.select(tick.c.schedule, tick.c.at_us)
            .where(
                tick.c.schedule.in_(sa.select(schedule.c.name)),
                tick.c.at_us < before,
                sa.func.coalesce(tick.c.last_us, tick.c.at_us) < before,
            )
            .limit(_limit())
        )
        key = sa.tuple_(tick.c.schedule, tick.c.at_us)
        return self._compile(sa.delete(tick).where(key.in_(old)).returning(tick.c.at_us))

    @cached_property
    def newest_to_trim(self) -> Statement:
        """Find the newest tick of a schedule that is not among the newest so many."""
        mine = sa.select(tick.c.at_us).where(tick.c.schedule == sa.bindparam("of_name"))
        passed = sa.bindparam("keep_last", type_=sa.Integer)
        return self._compile(mine.order_by(tick.c.at_us.desc()).limit(1).offset(passed))

    @cached_property
    def trim_ticks(self) -> Statement:
        name: sa.BindParameter[str] = sa.bindparam("of_name")
        upto = tick.c.at_us <= sa.bindparam("last_us", type_=sa.BigInteger)
        old = sa.select(tick.c.at_us).where(tick.c.schedule == name, upto)
        portion = old.order_by(tick.c.at_us).limit(_limit())
        gone = sa.delete(tick).where(tick.c.schedule == name, tick.c.at_us.in_(portion))
        return self._compile(gone.returning(tick.c.at_us))

    # --- questions ---------------------------------------------------------------------------
    @cached_property
    def find_schedule(self) -> Statement:
        return self._compile(sa.select(schedule).where(_is_named()))

    def list_schedules(self, filters: frozenset[str]) -> Statement:
        """Return a page query; ``filters`` names those in use, so that each shape has a plan."""
        return self._compile_once("schedules", filters, self._list_schedules)

    def _list_schedules(self, filters: frozenset[str]) -> Any:
        query = sa.select(schedule)
        if "module" in filters:
            query = query.where(schedule.c.module == sa.bindparam("of_module"))
        if "concurrency" in filters:
            query = query.where(_has_key())
        for flag in (schedule.c.paused, schedule.c.ended):
            if flag.name in filters:
                query = query.where(flag == sa.bindparam(f"is_{flag.name}", type_=sa.Boolean))
        if "prefix" in filters:
            query = query.where(
                schedule.c.name >= sa.bindparam("prefix"),
                schedule.c.name < sa.bindparam("prefix_end"),
            )
        if "after" in filters:
            query = query.where(schedule.c.name > sa.bindparam("after"))
        return query.order_by(schedule.c.name).limit(_limit())

    @cached_property
    def due(self) -> Statement:
        names = sa.select(schedule.c.name)
        member, earlier = schedule.alias("member"), schedule.alias("earlier")
        live = sa.select(sa.func.count()).where(_IS_COUNTED, _is_live())
        of_it = live.where(run.c.schedule == schedule.c.name)
        members = sa.select(member.c.name).where(member.c.concurrency == schedule.c.concurrency)
        of_key = live.where(run.c.schedule.in_(members.correlate(schedule)))
        is_first = ~sa.exists(
            sa.select(1).where(
                earlier.c.concurrency == schedule.c.concurrency,
                sa.tuple_(earlier.c.waits_since_us, earlier.c.name)
                < sa.tuple_(schedule.c.waits_since_us, schedule.c.name),
            )
        )
        now = sa.bindparam("now_us", type_=sa.BigInteger)
        due = sa.union(
            names.where(_WAKES_BY_TIME, schedule.c.next_at_us <= now),
            names.where(
                _WAKES_BY_RUN,
                schedule.c.concurrency.is_(None),
                of_it.correlate(schedule).scalar_subquery() < schedule.c.wakes_below,
            ),
            names.where(
                _WAKES_BY_RUN,
                schedule.c.concurrency.is_not(None),
                is_first,
                of_key.correlate(schedule).scalar_subquery() < schedule.c.wakes_below,
            ),
        ).subquery()
        chosen = sa.select(schedule).where(schedule.c.name.in_(sa.select(due.c.name)))
        is_timeless = sa.case((schedule.c.next_at_us.is_(None), 1), else_=0)
        ordered = chosen.order_by(is_timeless, schedule.c.next_at_us, schedule.c.name)
        return self._compile(ordered.limit(_limit()))

    @cached_property
    def next_due(self) -> Statement:
        first = sa.select(schedule.c.next_at_us).where(_WAKES_BY_TIME)
        return self._compile(first.order_by(schedule.c.next_at_us).limit(1))

    @cached_property
    def live_runs(self) -> Statement:
        # Sorted by who reads them: for an order SQLite would walk through all that ever ran.
        mine = run.c.schedule == sa.bindparam("of_name")
        return self._compile(self._live_runs.where(mine))

    @cached_property
    def live_runs_of_key(self) -> Statement:
        members = sa.select(schedule.c.name).where(_has_key())
        return self._compile(self._live_runs.where(run.c.schedule.in_(members)))

    @property
    def _live_runs(self) -> Any:
        chosen = sa.select(run.c.created_at_us, run.c.id, run.c.schedule)
        return chosen.where(_IS_COUNTED, _is_live())

    @cached_property
    def version_of_key(self) -> Statement:
        return self._compile(sa.select(concurrency.c.version).where(_is_key()))

    @cached_property
    def first_in_line(self) -> Statement:
        """Find who has waited longest under a key, but for one schedule."""
        waits = sa.select(schedule.c.waits_since_us, schedule.c.name).where(
            _has_key(),
            schedule.c.waits_since_us.is_not(None),
            schedule.c.name != sa.bindparam("of_name"),
        )
        ordered = waits.order_by(schedule.c.waits_since_us, schedule.c.name)
        return self._compile(ordered.limit(1))

    @cached_property
    def failed_runs(self) -> Statement:
        of_name: sa.BindParameter[str] = sa.bindparam("of_name", type_=sa.Text)
        other = run.alias("other")
        succeeded = (
            sa.select(sa.func.max(other.c.finished_at_us))
            .where(
                sa.text("NOT other.by_hand"),
                other.c.schedule == of_name,
                other.c.status == sa.literal_column("'SUCCEEDED'"),
            )
            .scalar_subquery()
        )
        since: sa.BindParameter[int] = sa.bindparam("since_us", type_=sa.BigInteger)
        failed = sa.select(sa.func.count()).where(
            sa.text("NOT run.by_hand"),
            run.c.schedule == of_name,
            run.c.status == sa.literal_column("'FAILED'"),
            run.c.finished_at_us > since,
            run.c.finished_at_us > sa.func.coalesce(succeeded, since),
        )
        return self._compile(failed)

    @cached_property
    def newest_ticks(self) -> Statement:
        older = tick.alias("older")
        newest = sa.select(sa.func.max(older.c.at_us)).where(older.c.schedule == schedule.c.name)
        is_newest = tick.c.at_us == newest.correlate(schedule).scalar_subquery()
        joined = schedule.join(tick, (tick.c.schedule == schedule.c.name) & is_newest)
        named = self._statements.among(schedule.c.name)
        return self._compile(sa.select(tick).select_from(joined).where(named))

    def list_ticks(self, filters: frozenset[str]) -> Statement:
        """Return a page query; ``filters`` names those in use."""
        return self._compile_once("ticks", filters, self._list_ticks)

    def _list_ticks(self, filters: frozenset[str]) -> Any:
        query = sa.select(tick).where(tick.c.schedule == sa.bindparam("of_name"))
        if "since" in filters:
            query = query.where(tick.c.at_us >= sa.bindparam("since_us", type_=sa.BigInteger))
        if "before" in filters:
            query = query.where(tick.c.at_us < sa.bindparam("before_us", type_=sa.BigInteger))
        return query.order_by(tick.c.at_us.desc()).limit(_limit())


def _is_key() -> Any:
    return concurrency.c.key == sa.bindparam("of_key")


def _has_key() -> Any:
    return schedule.c.concurrency == sa.bindparam("of_key")


def _is_live() -> Any:
    return run.c.status.in_([sa.literal_column(f"'{status}'") for status in _LIVE])


def _is_named() -> Any:
    return schedule.c.name == sa.bindparam("of_name")


def _new(*columns: str) -> dict[str, Any]:
    return {name: sa.bindparam(f"new_{name}", type_=schedule.c[name].type) for name in columns}


def _limit() -> Any:
    return sa.bindparam("limit", type_=sa.Integer)
