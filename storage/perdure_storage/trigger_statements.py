"""Every SQL statement about triggers, by name, as ``statements.py`` has those about runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from perdure_storage.statement import Statement
from perdure_storage.statements import Statements
from perdure_storage.tables import (
    IS_TIMED,
    LISTENS,
    arrival,
    blob_ref,
    coordinator,
    message,
    run_end,
    trigger,
)
from perdure_storage.trigger_guards import DEFERRED, UNDECIDED
from perdure_storage.trigger_rows import DECISION, STATE

_IS_TIMED = sa.text(IS_TIMED)
_LISTENS = sa.text(LISTENS)
_COLUMNS = [column.name for column in trigger.c]
_HELD = ("name", "created_at_us")
"""The columns that stay when a trigger is registered again."""


class TriggerStatements:
    """The statements about triggers of one store.

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

    def _among(self, column: Any, name: str = "ids") -> Any:
        return self._statements.among(column, name)

    # --- changes -----------------------------------------------------------------------------
    @cached_property
    def lock_triggers(self) -> Statement:
        """Lock triggers in the order of their names: no two batches wait for each other."""
        named = sa.select(trigger).where(self._among(trigger.c.name)).order_by(trigger.c.name)
        return self._compile(named.with_for_update())

    @cached_property
    def insert_trigger(self) -> Statement:
        insert = self._statements.insert_or_keep(trigger)
        values: dict[str, Any] = {name: sa.bindparam(name) for name in _COLUMNS}
        return self._compile(insert.values(values).returning(trigger.c.name))

    @cached_property
    def update_trigger(self) -> Statement:
        kept = [name for name in _COLUMNS if name not in _HELD]
        return self._compile(sa.update(trigger).where(_is_named()).values(_new(trigger, *kept)))

    @cached_property
    def move_trigger(self) -> Statement:
        moved = _new(trigger, *STATE, "newest", "listener", "updated_at_us")
        return self._compile(sa.update(trigger).where(_is_named()).values(moved))

    @cached_property
    def count_arrivals(self) -> Statement:
        return self._compile(sa.update(trigger).where(_is_named()).values(_new(trigger, "newest")))

    @cached_property
    def insert_arrival(self) -> Statement:
        return self._compile(sa.insert(arrival))

    @cached_property
    def revise_arrival(self) -> Statement:
        clause = sa.update(arrival).where(_is_of(), arrival.c.key == sa.bindparam("of_key"))
        return self._compile(clause.values(_new(arrival, *DECISION)))

    @cached_property
    def watch_ends(self) -> Statement | None:
        """Wait for the transactions that have just ended runs; SQLite has one writer anyway.

        They looked for somebody who watches, and saw nobody. Whoever ends a run later waits for
        this transaction, before it looks.
        """
        if not self._statements.is_postgres:
            return None
        return self._compile(sa.text("LOCK TABLE run_end IN SHARE MODE"))

    @cached_property
    def delete_ends(self) -> Statement:
        told = self._statements.among_numbers(run_end.c.id)
        return self._compile(sa.delete(run_end).where(told))

    @cached_property
    def delete_of_trigger(self) -> tuple[Statement, ...]:
        name: sa.BindParameter[str] = sa.bindparam("of_name", type_=sa.Text)
        holder = arrival.c.trigger + " " + sa.cast(arrival.c.seq, sa.Text)
        carrying = sa.select(holder).where(
            arrival.c.trigger == name, arrival.c.payload.is_not(None)
        )
        payloads = sa.text("holder = 'arrival'") & blob_ref.c.holder_id.in_(carrying)
        return (
            self._compile(sa.delete(blob_ref).where(payloads)),
            self._compile(sa.delete(arrival).where(arrival.c.trigger == name)),
            self.delete_trigger_blobs,
            self._compile(sa.delete(trigger).where(trigger.c.name == name)),
        )

    @cached_property
    def delete_trigger_blobs(self) -> Statement:
        refs = sa.text("holder = 'trigger'") & (blob_ref.c.holder_id == sa.bindparam("of_name"))
        return self._compile(sa.delete(blob_ref).where(refs))

    @cached_property
    def forget_arrivals(self) -> Statement:
        clause = sa.delete(arrival).where(_is_of(), self._among(arrival.c.key), *_is_old())
        return self._compile(clause.returning(arrival.c.seq))

    @cached_property
    def delete_payloads(self) -> Statement:
        refs = sa.text("holder = 'arrival'") & self._among(blob_ref.c.holder_id)
        return self._compile(sa.delete(blob_ref).where(refs))

    # --- who listens -------------------------------------------------------------------------
    @cached_property
    def free_sources(self) -> Statement:
        return self._compile(self._free().limit(_limit()))

    @cached_property
    def free_among(self) -> Statement:
        return self._compile(self._free().where(self._among(trigger.c.name)))

    def _free(self) -> Any:
        listener = trigger.c.listener
        token = sa.bindparam("token", type_=sa.Text)
        joined = trigger.outerjoin(coordinator, coordinator.c.token == listener)
        is_left = (
            listener.is_(None) | self._among(listener, "dead") | ~self._statements.lease_lives()
        )
        return (
            sa.select(trigger.c.name)
            .select_from(joined)
            .where(_LISTENS, ~trigger.c.paused, sa.func.coalesce(listener, "") != token, is_left)
            .order_by(trigger.c.name)
        )

    @cached_property
    def lock_free(self) -> Statement:
        """Lock those of some triggers on which no other transaction works.

        Who holds them, and whether that one lives, is read by another statement after it: this
        one would join the heartbeats as they were before.
        """
        named = sa.select(trigger.c.name).where(self._among(trigger.c.name))
        return self._compile(named.order_by(trigger.c.name).with_for_update(skip_locked=True))

    @cached_property
    def lock_sources_of(self) -> Statement:
        mine = sa.select(trigger.c.name).where(_LISTENS, _is_heard_by())
        return self._compile(mine.order_by(trigger.c.name).with_for_update())

    @cached_property
    def sources_of(self) -> Statement:
        mine = sa.select(trigger).where(_LISTENS, _is_heard_by())
        return self._compile(mine.order_by(trigger.c.name))

    @cached_property
    def set_listener(self) -> Statement:
        clause = sa.update(trigger).where(self._among(trigger.c.name))
        return self._compile(clause.values(_new(trigger, "listener")))

    # --- questions ---------------------------------------------------------------------------
    @cached_property
    def find_trigger(self) -> Statement:
        return self._compile(sa.select(trigger).where(_is_named()))

    def list_triggers(self, filters: frozenset[str]) -> Statement:
        """Return a page query; ``filters`` names those in use, so that each shape has a plan."""
        return self._compile_once("triggers", filters, self._list_triggers)

    def _list_triggers(self, filters: frozenset[str]) -> Any:
        query = sa.select(trigger)
        if "module" in filters:
            query = query.where(trigger.c.module == sa.bindparam("of_module"))
        for flag in (trigger.c.paused, trigger.c.watches_runs, trigger.c.listens):
            if flag.name in filters:
                query = query.where(flag == sa.bindparam(f"is_{flag.name}", type_=sa.Boolean))
        if "prefix" in filters:
            query = query.where(
                trigger.c.name >= sa.bindparam("prefix"),
                trigger.c.name < sa.bindparam("prefix_end"),
            )
        if "after" in filters:
            query = query.where(trigger.c.name > sa.bindparam("after"))
        return query.order_by(trigger.c.name).limit(_limit())

    @cached_property
    def hearing(self) -> Statement:
        hearing = sa.select(trigger).where(trigger.c.events != sa.literal_column("'[]'"))
        return self._compile(hearing.order_by(trigger.c.name))

    @cached_property
    def watching(self) -> Statement:
        watching = sa.select(trigger).where(trigger.c.watches_runs == sa.true())
        return self._compile(watching.order_by(trigger.c.name))

    @cached_property
    def due(self) -> Statement:
        now = sa.bindparam("now_us", type_=sa.BigInteger)
        due = sa.select(trigger).where(_IS_TIMED, trigger.c.next_at_us <= now)
        return self._compile(due.order_by(trigger.c.next_at_us, trigger.c.name).limit(_limit()))

    @cached_property
    def next_due(self) -> Statement:
        first = sa.select(trigger.c.next_at_us).where(_IS_TIMED)
        return self._compile(first.order_by(trigger.c.next_at_us).limit(1))

    @cached_property
    def known(self) -> Statement:
        return self._compile(sa.select(arrival).where(_is_of(), self._among(arrival.c.key)))

    def list_arrivals(self, filters: frozenset[str]) -> Statement:
        """Return a page query; ``filters`` names those in use."""
        return self._compile_once("arrivals", filters, self._list_arrivals)

    @cached_property
    def newest_arrivals(self) -> Statement:
        older = arrival.alias("older")
        newest = sa.select(sa.func.max(older.c.seq)).where(older.c.trigger == trigger.c.name)
        is_newest = arrival.c.seq == newest.correlate(trigger).scalar_subquery()
        joined = trigger.join(arrival, (arrival.c.trigger == trigger.c.name) & is_newest)
        named = self._among(trigger.c.name)
        return self._compile(sa.select(arrival).select_from(joined).where(named))

    def _list_arrivals(self, filters: frozenset[str]) -> Any:
        query = sa.select(arrival).where(_is_of())
        if "decision" in filters:
            query = query.where(arrival.c.decision == sa.bindparam("of_decision"))
        is_forward = "oldest first" in filters
        if "beyond" in filters:
            limit = sa.bindparam("beyond", type_=sa.BigInteger)
            query = query.where(arrival.c.seq > limit if is_forward else arrival.c.seq < limit)
        order = arrival.c.seq if is_forward else arrival.c.seq.desc()
        return query.order_by(order).limit(_limit())

    @cached_property
    def deferred(self) -> Statement:
        is_deferred = arrival.c.decision == sa.literal_column(f"'{DEFERRED}'")
        keys = sa.select(arrival.c.key).where(_is_of(), is_deferred)
        return self._compile(keys.order_by(arrival.c.seq).limit(_limit()))

    @cached_property
    def old_arrivals(self) -> Statement:
        beyond = arrival.c.seq > sa.bindparam("beyond", type_=sa.BigInteger)
        old = sa.select(arrival.c.key, arrival.c.seq).where(_is_of(), beyond, *_is_old())
        return self._compile(old.order_by(arrival.c.seq).limit(_limit()))

    @cached_property
    def events_after(self) -> Statement:
        """Read the events of one name, as they lie in an index: of several there is no such."""
        wanted = sa.select(message).where(
            message.c.receiver == sa.literal_column("''"),
            message.c.name == sa.bindparam("of_event"),
            message.c.id > sa.bindparam("beyond", type_=sa.BigInteger),
        )
        return self._compile(wanted.order_by(message.c.id).limit(_limit()))

    @cached_property
    def newest_event(self) -> Statement:
        return self._compile(sa.select(sa.func.max(message.c.id)))

    @cached_property
    def ends(self) -> Statement:
        return self._compile(sa.select(run_end).order_by(run_end.c.id).limit(_limit()))


def _is_named() -> Any:
    return trigger.c.name == sa.bindparam("of_name")


def _is_of() -> Any:
    return arrival.c.trigger == sa.bindparam("of_name")


def _is_heard_by() -> Any:
    return trigger.c.listener == sa.bindparam("token", type_=sa.Text)


def _is_old() -> tuple[Any, ...]:
    before = sa.bindparam("before_us", type_=sa.BigInteger)
    decided = arrival.c.decision.not_in([sa.literal_column(f"'{word}'") for word in UNDECIDED])
    return arrival.c.decided_at_us < before, decided


def _new(table: sa.Table, *columns: str) -> dict[str, Any]:
    return {name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in columns}


def _limit() -> Any:
    return sa.bindparam("limit", type_=sa.Integer)
