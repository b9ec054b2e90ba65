"""Every SQL statement of a store, by name: built with SQLAlchemy Core, compiled once per dialect.

The hot path hands the compiled text straight to the driver. A statement is compiled when it is
first used, so that a short program pays for the dozen that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from perdure_storage.leases import LEASE_FACTS, LeaseTerms
from perdure_storage.records import AMOUNT_SLACK
from perdure_storage.statement import Statement
from perdure_storage.tables import (
    AWAITS_EVENT,
    IS_CANCELLING,
    IS_DRIVEN,
    IS_ONLY_ONE,
    IS_QUEUED_FREELY,
    IS_WAITING,
    WATCHES_RUNS,
    attempt,
    blob_ref,
    condemned,
    coordinator,
    event,
    expansion,
    message,
    pin,
    plan,
    plan_ref,
    queue,
    run,
    run_end,
    save,
    schedule,
    setting,
    step,
    tombstone,
    trigger,
    wait,
)

# Written out, not bound: a partial index serves only a query that says its condition itself.
_IS_DRIVEN = sa.text(IS_DRIVEN)
_IS_WAITING = sa.text(IS_WAITING)
_IS_QUEUED_FREELY = sa.text(IS_QUEUED_FREELY)
_IS_CANCELLING = sa.text(IS_CANCELLING)
_WATCHES_RUNS = sa.text(WATCHES_RUNS)
_IS_LIVE = sa.text("status IN ('QUEUED', 'RUNNING', 'WAITING', 'PAUSED')")
_IS_CURRENT = sa.text("current")
_BLOB_LOCK = 0x7065_7264_7572_6501
"""PostgreSQL advisory lock: shared by whoever refers to blobs, exclusive to who condemns them."""
_CONDEMNATION_KEY: sa.ColumnElement[int] = sa.literal_column(str(_BLOB_LOCK))

_MESSAGE_KEY: sa.ColumnElement[int] = sa.literal_column(str(_BLOB_LOCK + 1))
"""PostgreSQL advisory lock: exclusive to who sends a message, shared by who must miss none."""

LISTED = [column for column in run.c if column.name not in ("inputs", "mac")]
"""What lists of runs read of each: never its payload."""


def _amount(pair: Any) -> Any:
    return sa.cast(pair.c.value, sa.Double)


class Statements:
    """The statements of one store, for one dialect.

    Args:
        dialect: with a positional parameter style.
        terms: how leases are judged; enters the statements that judge them.
    """

    def __init__(self, dialect: Dialect, terms: LeaseTerms) -> None:
        self._dialect = dialect
        self._terms = terms
        self.is_postgres = dialect.name == "postgresql"
        self._shapes: dict[object, Statement] = {}

    def compile(self, clause: Any, columns: Sequence[str] | None = None) -> Statement:
        """Return a clause as text; ``columns`` are those that an UPDATE sets."""
        compiled = clause.compile(dialect=self._dialect, column_keys=columns)
        names = tuple(compiled.positiontup or ())
        binds = {name: compiled.binds[name] for name in sorted(set(names))}
        constants = {name: bind.value for name, bind in binds.items() if not bind.required}
        judges_leases = not LEASE_FACTS.isdisjoint(names)
        return Statement(str(compiled), names, constants, judges_leases)

    def id_list(self, ids: Sequence[str]) -> object:
        """Return ids as the one parameter that ``among`` takes."""
        if self.is_postgres:
            return list(ids)
        return _json_list(ids)

    # --- settings, plans, tombstones ---------------------------------------------------------
    @cached_property
    def list_settings(self) -> Statement:
        return self.compile(sa.select(setting.c.name, setting.c.value))

    @cached_property
    def insert_setting(self) -> Statement:
        return self.compile(self.insert_or_keep(setting))

    @cached_property
    def count_live(self) -> Statement:
        counted = sa.select(run.c.status, run.c.queue, sa.func.count()).where(_IS_LIVE)
        return self.compile(counted.group_by(run.c.status, run.c.queue))

    @cached_property
    def get_plan(self) -> Statement:
        return self.compile(sa.select(plan).where(plan.c.digest == sa.bindparam("digest")))

    @cached_property
    def insert_plan(self) -> Statement:
        if not self.is_postgres:
            return self.compile(self.insert_or_keep(plan))
        # Touching the row locks it: whoever deletes unused plans waits, and then sees it used.
        insert = postgresql.insert(plan)
        return self.compile(
            insert.on_conflict_do_update(
                index_elements=[plan.c.digest], set_={"digest": insert.excluded.digest}
            )
        )

    @cached_property
    def insert_plan_ref(self) -> Statement:
        return self.compile(self.insert_or_keep(plan_ref))

    @cached_property
    def plans_of_run(self) -> Statement:
        where = plan_ref.c.run_id == sa.bindparam("run_id")
        return self.compile(sa.select(plan_ref.c.plan_digest).where(where))

    @cached_property
    def lock_plans(self) -> Statement:
        chosen = sa.select(plan.c.digest).where(self.among(plan.c.digest))
        return self.compile(chosen.order_by(plan.c.digest).with_for_update())

    @cached_property
    def plans_in_use(self) -> Statement:
        # One look a plan: a hundred thousand runs may have the same.
        by_run = sa.exists(sa.select(1).where(plan_ref.c.plan_digest == plan.c.digest))
        by_others = [
            sa.exists(sa.select(1).where(table.c.plan_digest == plan.c.digest))
            for table in (schedule, trigger)
        ]
        wanted = sa.select(plan.c.digest).where(self.among(plan.c.digest))
        return self.compile(wanted.where(sa.or_(by_run, *by_others)))

    @cached_property
    def delete_plans(self) -> Statement:
        return self.compile(sa.delete(plan).where(self.among(plan.c.digest)))

    @cached_property
    def delete_plan_blobs(self) -> Statement:
        mine = (blob_ref.c.holder == "plan") & self.among(blob_ref.c.holder_id)
        return self.compile(sa.delete(blob_ref).where(mine))

    @cached_property
    def find_tombstone(self) -> Statement:
        where = tombstone.c.run_id == sa.bindparam("run_id")
        return self.compile(sa.select(tombstone.c.run_id).where(where))

    @cached_property
    def insert_tombstone(self) -> Statement:
        return self.compile(self.insert_or_keep(tombstone))

    @cached_property
    def delete_tombstone(self) -> Statement:
        return self.compile(
            sa.delete(tombstone).where(tombstone.c.run_id == sa.bindparam("run_id"))
        )

    @cached_property
    def list_tombstones(self) -> Statement:
        old = sa.select(tombstone.c.run_id).where(tombstone.c.at_us < sa.bindparam("before_us"))
        return self.compile(old.order_by(tombstone.c.run_id))

    # --- runs --------------------------------------------------------------------------------
    @cached_property
    def insert_run(self) -> Statement:
        return self.compile(self.insert_or_keep(run).returning(run.c.id))

    @cached_property
    def share_runs(self) -> Statement:
        """Keep runs from being deleted until the one that refers to them is there."""
        named = sa.select(run.c.id).where(self.among(run.c.id)).order_by(run.c.id)
        return self.compile(named.with_for_update(read=True, key_share=True))

    @cached_property
    def find_run(self) -> Statement:
        return self.compile(self._runs(*run.c).where(run.c.id == sa.bindparam("run_id")))

    @cached_property
    def find_runs(self) -> Statement:
        return self.compile(self._runs(*run.c).where(self.among(run.c.id)).order_by(run.c.id))

    @cached_property
    def lock_run(self) -> Statement | None:
        """Lock a run's row, before anything about it is read; SQLite has one writer anyway.

        Locking and reading must be two statements. One that waits for the lock sees the run as
        its last owner left it, but joins the heartbeats as they were before it waited: the new
        owner would have none, and the run would be taken from it at once.
        """
        if not self.is_postgres:
            return None
        chosen = sa.select(run.c.id).where(run.c.id == sa.bindparam("run_id"))
        return self.compile(chosen.with_for_update())

    @cached_property
    def lock_free_runs(self) -> Statement | None:
        """Lock those of some runs that no other transaction works on; SQLite has one writer."""
        if not self.is_postgres:
            return None
        chosen = sa.select(run.c.id).where(self.among(run.c.id)).order_by(run.c.id)
        return self.compile(chosen.with_for_update(skip_locked=True))

    def claimable(self, *, fits: bool, queues: bool) -> Statement:
        """Return a query for runs to take on; ``fits``: those that fit an offer.

        Where there are ``queues``, runs that wait in a line are left out, and those that need a
        slot of one of them.
        """
        shape = ("claimable", fits, queues)
        if shape not in self._shapes:
            self._shapes[shape] = self.compile(self._claimable(fits=fits, queues=queues))
        return self._shapes[shape]

    def _claimable(self, *, fits: bool, queues: bool) -> Any:
        owner = run.c.owner_token
        others = owner.is_(None) | (owner != sa.bindparam("besides", type_=sa.Text))
        due_at = sa.bindparam("now_us", type_=sa.BigInteger)
        ids = sa.select(run.c.id)
        is_queued = _IS_QUEUED_FREELY if queues else run.c.status == "QUEUED"
        unlimited = run.c.queue.is_(None) | run.c.queue.not_in(sa.select(queue.c.name))
        begun = run.c.not_before_us.is_(None) | (run.c.not_before_us <= due_at)
        candidates = sa.union(
            ids.where(is_queued, begun),
            ids.where(_IS_WAITING, run.c.wake_at_us <= due_at, unlimited if queues else sa.true()),
            ids.where(_IS_DRIVEN, others).where(
                (run.c.status == "RUNNING") | ~run.c.pause_requested
            ),
            ids.where(_IS_CANCELLING),
        ).subquery()
        is_free = ~self.lease_lives() | (
            coordinator.c.boot_id == sa.bindparam("this_boot", type_=sa.Text)
        )
        fitting = run.c.cancel_requested | self.fits() if fits else sa.true()
        return (
            self._runs(*LISTED)
            .where(run.c.id.in_(sa.select(candidates.c.id)), is_free, others, fitting)
            .order_by(
                sa.case((self.among(owner, "seen_dead"), 0), (self.lease_lives(), 1), else_=0),
                sa.case((owner.is_(None), 1), else_=0),
                run.c.priority.desc(),
                run.c.created_at_us,
                run.c.id,
            )
            .limit(sa.bindparam("limit", type_=sa.Integer))
        )

    def fits(self) -> Any:
        """Say of a run that neither its plan nor a graph that it was given needs too much."""
        need = self._amounts(plan.c.needs, "need")
        plans = plan.join(need, sa.true())
        given = expansion.join(plans, plan.c.digest == expansion.c.plan_digest)
        own = sa.select(sa.literal(1)).select_from(plans).where(plan.c.digest == run.c.plan_digest)
        grown = sa.select(sa.literal(1)).select_from(given).where(expansion.c.run_id == run.c.id)
        return self._never_more(own, need) & self._never_more(grown, need)

    def _never_more(self, needs: Any, need: Any) -> Any:
        """Say that none of these needs is more than what is offered.

        Written so that PostgreSQL asks for each run in turn: of ``NOT EXISTS`` it makes a join, for
        which it reads the plans of all runs.
        """
        offered = self._amounts(sa.bindparam("offer", type_=sa.Text), "offered")
        has = sa.select(_amount(offered)).where(offered.c.key == need.c.key).scalar_subquery()
        enough = sa.func.coalesce(has, 0.0) + AMOUNT_SLACK
        first = needs.where(_amount(need) > enough).limit(sa.literal_column("1")).correlate(run)
        return sa.func.coalesce(first.scalar_subquery(), 0) == 0

    def _amounts(self, column: Any, name: str) -> Any:
        """Return amounts by name as a table of the database."""
        if self.is_postgres:
            pairs = sa.func.json_each_text(sa.cast(column, postgresql.JSON))
        else:
            pairs = sa.func.json_each(column)
        return pairs.table_valued("key", "value", name=name)

    def list_runs(self, *, statuses: int, filters: frozenset[str]) -> Statement:
        """Return a page query; ``filters`` names those in use, so that each shape has a plan."""
        shape = ("list_runs", statuses, filters)
        if shape not in self._shapes:
            self._shapes[shape] = self.compile(self._list_runs(statuses, filters))
        return self._shapes[shape]

    def _list_runs(self, statuses: int, filters: frozenset[str]) -> Any:
        newest = (run.c.created_at_us, run.c.id)
        query = self._runs(*LISTED)
        if statuses:
            query = query.where(self._shows_as(statuses, "interrupted" in filters))
        if "workflow" in filters:
            query = query.where(run.c.workflow == sa.bindparam("workflow"))
        if "schedule" in filters:
            query = query.where(run.c.schedule == sa.bindparam("schedule"))
        if "trigger" in filters:
            query = query.where(run.c.trigger == sa.bindparam("trigger"))
        if "since" in filters:
            query = query.where(run.c.created_at_us >= sa.bindparam("since_us"))
        if "prefix" in filters:
            query = query.where(
                run.c.id >= sa.bindparam("prefix"), run.c.id < sa.bindparam("prefix_end")
            )
        for number in range(sum(name.startswith("tag") for name in filters)):
            query = query.where(self._has_tag(number))
        if "after" in filters:
            last = sa.tuple_(
                sa.bindparam("after_us", type_=sa.BigInteger), sa.bindparam("after_id")
            )
            query = query.where(sa.tuple_(*newest) < last)
        return query.order_by(*(column.desc() for column in newest)).limit(
            sa.bindparam("limit", type_=sa.Integer)
        )

    def _shows_as(self, statuses: int, interrupted: bool) -> Any:
        """A stored status, or RUNNING without a live lease if ``interrupted`` is asked for.

        One status alone is then read in the order of its index, without a sort.
        """
        if statuses == 1:
            stored = run.c.status == sa.bindparam("status0")
        else:
            stored = run.c.status.in_([sa.bindparam(f"status{n}") for n in range(statuses)])
        if not interrupted:
            return stored
        return stored | ((run.c.status == "RUNNING") & ~self.lease_lives())

    def _has_tag(self, number: int) -> Any:
        if self.is_postgres:
            tags = sa.func.json_each_text(sa.cast(run.c.tags, postgresql.JSON))
        else:
            tags = sa.func.json_each(run.c.tags)
        pair = tags.table_valued("key", "value", name=f"tag{number}")
        return sa.exists(
            sa.select(sa.literal(1)).where(
                pair.c.key == sa.bindparam(f"tag{number}_name", type_=sa.Text),
                pair.c.value == sa.bindparam(f"tag{number}_value", type_=sa.Text),
            )
        )

    def update_run(self, *columns: str) -> Statement:
        """Return an UPDATE of one run that sets exactly ``columns``; the key is ``run_id``."""
        shape = ("update_run", columns)
        if shape not in self._shapes:
            clause = sa.update(run).where(run.c.id == sa.bindparam("run_id"))
            self._shapes[shape] = self.compile(clause, columns)
        return self._shapes[shape]

    @cached_property
    def find_only_one(self) -> Statement:
        """Find the live run of a queue that has a deduplication key."""
        mine = (
            sa.text(IS_ONLY_ONE),
            run.c.queue == sa.bindparam("of_queue", type_=sa.Text),
            run.c.dedup_key == sa.bindparam("of_dedup_key", type_=sa.Text),
        )
        return self.compile(sa.select(run.c.id).where(*mine))

    @cached_property
    def live_children(self) -> Statement:
        children = sa.select(run.c.id).where(run.c.parent == sa.bindparam("run_id"), _IS_LIVE)
        return self.compile(children)

    @cached_property
    def live_takers(self) -> Statement:
        takers = sa.select(run.c.id).where(run.c.reuse_from == sa.bindparam("run_id"), _IS_LIVE)
        return self.compile(takers)

    @cached_property
    def delete_of_run(self) -> tuple[Statement, ...]:
        """Everything that hangs on a run, then the run itself."""
        run_id: sa.BindParameter[str] = sa.bindparam("run_id")
        refs = sa.text("holder IN ('run', 'step', 'save')") & (blob_ref.c.holder_id == run_id)
        numbers = sa.select(sa.cast(message.c.id, sa.Text)).where(message.c.receiver == run_id)
        of_messages = sa.text("holder = 'message'") & blob_ref.c.holder_id.in_(numbers)
        hanging = (event, attempt, save, step, expansion, wait, plan_ref)
        return (
            self.compile(sa.delete(blob_ref).where(of_messages)),
            self.compile(sa.delete(message).where(message.c.receiver == run_id)),
            *(self.compile(sa.delete(t).where(t.c.run_id == run_id)) for t in hanging),
            self.compile(sa.delete(blob_ref).where(refs)),
            self.compile(sa.delete(run).where(run.c.id == run_id)),
        )

    # --- coordinators ------------------------------------------------------------------------
    @cached_property
    def put_heartbeat(self) -> Statement:
        insert = self.insert(coordinator).values(
            token=sa.bindparam("token"),
            owner=sa.bindparam("owner"),
            boot_id=sa.bindparam("boot_id"),
            workers=sa.bindparam("workers"),
            lease_until_us=self._lease_end(),
        )
        kept = ("owner", "boot_id", "workers", "lease_until_us")
        return self.compile(
            insert.on_conflict_do_update(
                index_elements=[coordinator.c.token],
                set_={name: insert.excluded[name] for name in kept},
            )
        )

    @cached_property
    def renew(self) -> Statement:
        clause = (
            sa.update(coordinator)
            .where(coordinator.c.token == sa.bindparam("for_token"))
            .values(lease_until_us=self._lease_end(), workers=sa.bindparam("new_workers"))
            .returning(coordinator.c.token)
        )
        return self.compile(clause)

    @cached_property
    def delete_heartbeat(self) -> Statement:
        return self.compile(
            sa.delete(coordinator).where(coordinator.c.token == sa.bindparam("token"))
        )

    @cached_property
    def delete_old_heartbeats(self) -> Statement:
        """Forget coordinators that died and own nothing any more: nobody asks for their workers."""
        owned = run.c.owner_token == coordinator.c.token
        # Runs that are over keep the name of their last owner, and are many.
        owns = sa.exists(sa.select(run.c.id).where(owned, _IS_DRIVEN))
        old = coordinator.c.lease_until_us < self._lease_now() - sa.bindparam("kept_us")
        if self._terms.ends_with_boot:
            old = old | (coordinator.c.boot_id != sa.bindparam("this_boot"))
        return self.compile(sa.delete(coordinator).where(old, ~owns))

    @cached_property
    def list_coordinators(self) -> Statement:
        chosen = sa.select(coordinator.c.owner, self.lease_lives())
        return self.compile(chosen.order_by(coordinator.c.token))

    @cached_property
    def runs_of_owner(self) -> Statement:
        mine = self._runs(*LISTED).where(_IS_DRIVEN, run.c.owner_token == sa.bindparam("token"))
        return self.compile(mine.order_by(run.c.id))

    @cached_property
    def any_run_ever(self) -> Statement:
        made = sa.exists(sa.select(run.c.id)) | sa.exists(sa.select(tombstone.c.run_id))
        return self.compile(sa.select(made))

    @cached_property
    def workers_of(self) -> Statement:
        where = coordinator.c.token == sa.bindparam("token")
        return self.compile(sa.select(coordinator.c.workers).where(where))

    # --- checkpoints -------------------------------------------------------------------------
    @cached_property
    def lock_run_states(self) -> Statement:
        c = run.c
        chosen = sa.select(c.id, c.status, c.owner_token, c.epoch, c.seq, c.takeovers)
        chosen = chosen.where(self.among(run.c.id)).order_by(run.c.id)
        return self.compile(chosen.with_for_update())

    def advance_run(self, *, with_steps: bool) -> Statement:
        """Guard a run and move it on, in one statement: for a batch that holds one run."""
        shape = ("advance_run", with_steps)
        if shape not in self._shapes:
            self._shapes[shape] = self.compile(_advance(with_steps))
        return self._shapes[shape]

    @cached_property
    def insert_step(self) -> Statement:
        return self.compile(sa.insert(step))

    @cached_property
    def lose_step(self) -> Statement:
        return self.compile(_retire(step.c.status == "SUCCEEDED").values(status="LOST"))

    @cached_property
    def supersede_step(self) -> Statement:
        return self.compile(_retire())

    @cached_property
    def close_failures(self) -> Statement:
        failed = sa.text("status IN ('FAILED', 'CANCELLED') AND NOT caught")
        clause = sa.update(step).where(step.c.run_id == sa.bindparam("of_run"))
        return self.compile(clause.where(_IS_CURRENT, failed).values(current=sa.false()))

    @cached_property
    def put_attempt(self) -> Statement:
        insert = self.insert(attempt)
        keys = list(attempt.primary_key.columns)
        rest = {c.name: insert.excluded[c.name] for c in attempt.c if c not in keys}
        return self.compile(insert.on_conflict_do_update(index_elements=keys, set_=rest))

    @cached_property
    def insert_event(self) -> Statement:
        return self.compile(sa.insert(event))

    @cached_property
    def list_steps(self) -> Statement:
        return self.compile(self._steps_of_run())

    @cached_property
    def list_current_steps(self) -> Statement:
        return self.compile(self._steps_of_run().where(_IS_CURRENT))

    @cached_property
    def list_some_steps(self) -> Statement:
        return self.compile(self._steps_of_run().where(self.among(step.c.step_id)))

    @cached_property
    def list_some_current_steps(self) -> Statement:
        some = self._steps_of_run().where(_IS_CURRENT, self.among(step.c.step_id))
        return self.compile(some)

    def _steps_of_run(self) -> Any:
        return sa.select(step).where(step.c.run_id == sa.bindparam("run_id"))

    @cached_property
    def list_attempts(self) -> Statement:
        return self.compile(self._attempts(attempt.c.run_id == sa.bindparam("run_id")))

    @cached_property
    def list_attempts_of_step(self) -> Statement:
        of_step = attempt.c.step_id == sa.bindparam("step_id")
        return self.compile(self._attempts(attempt.c.run_id == sa.bindparam("run_id"), of_step))

    def _attempts(self, *where: Any) -> Any:
        a = attempt.c
        return sa.select(attempt).where(*where).order_by(a.step_id, a.generation, a.attempt)

    @cached_property
    def insert_expansion(self) -> Statement:
        return self.compile(sa.insert(expansion))

    @cached_property
    def list_expansions(self) -> Statement:
        return self.compile(self._expansions(expansion.c.run_id == sa.bindparam("run_id")))

    def _expansions(self, of_runs: Any) -> Any:
        e = expansion.c
        found = sa.select(expansion, plan).where(of_runs, plan.c.digest == e.plan_digest)
        return found.order_by(e.step_id, e.generation, e.link)

    # --- histories of many runs --------------------------------------------------------------
    # Each row begins with the id of its run; the rows of one run come in the order of its list.
    @cached_property
    def steps_of_runs(self) -> Statement:
        return self.compile(sa.select(step).where(self.among(step.c.run_id)))

    @cached_property
    def attempts_of_runs(self) -> Statement:
        return self.compile(self._attempts(self.among(attempt.c.run_id)))

    @cached_property
    def expansions_of_runs(self) -> Statement:
        return self.compile(self._expansions(self.among(expansion.c.run_id)))

    @cached_property
    def waits_of_runs(self) -> Statement:
        return self.compile(self._waits(self.among(wait.c.run_id)))

    @cached_property
    def saves_of_runs(self) -> Statement:
        return self.compile(self._saves(self.among(save.c.run_id)))

    @cached_property
    def events_of_runs(self) -> Statement:
        found = sa.select(event).where(self.among(event.c.run_id))
        return self.compile(found.order_by(event.c.seq))

    # --- saves -------------------------------------------------------------------------------
    @cached_property
    def find_later_attempt(self) -> Statement:
        """Find what shows that an attempt is not the current one of its step."""
        of_run: sa.BindParameter[str] = sa.bindparam("of_run", type_=sa.Text)
        of_step: sa.BindParameter[str] = sa.bindparam("of_step", type_=sa.Text)
        generation = sa.bindparam("of_generation", type_=sa.BigInteger)
        number = sa.bindparam("of_attempt", type_=sa.BigInteger)

        def later(table: sa.Table) -> Any:
            return (table.c.generation > generation) | (
                (table.c.generation == generation) & (table.c.attempt > number)
            )

        mine = (attempt.c.generation == generation) & (attempt.c.attempt == number)
        has_ended = mine & attempt.c.cause.is_not(None)
        found = [
            sa.select(sa.literal(1)).where(
                table.c.run_id == of_run, table.c.step_id == of_step, is_
            )
            for table, is_ in (
                (step, step.c.generation >= generation),
                (attempt, later(attempt) | has_ended),
                (save, later(save)),
            )
        ]
        return self.compile(sa.union_all(*found))

    @cached_property
    def numbers_of_saves(self) -> Statement:
        """All saves of a step, newest first: number and item."""
        mine = (save.c.run_id == sa.bindparam("of_run"), save.c.step_id == sa.bindparam("of_step"))
        found = sa.select(save.c.number, save.c.item).where(*mine)
        return self.compile(found.order_by(save.c.number.desc()))

    @cached_property
    def insert_save(self) -> Statement:
        return self.compile(sa.insert(save))

    @cached_property
    def delete_save(self) -> tuple[Statement, Statement]:
        """One save, and what it refers to."""
        of_run: sa.BindParameter[str] = sa.bindparam("of_run", type_=sa.Text)
        of_step: sa.BindParameter[str] = sa.bindparam("of_step", type_=sa.Text)
        number = sa.bindparam("of_number", type_=sa.BigInteger)
        mine = (save.c.run_id == of_run, save.c.step_id == of_step, save.c.number == number)
        refs = self._refs_of_saves(of_run, of_step) & (blob_ref.c.generation == number)
        return (
            self.compile(sa.delete(save).where(*mine)),
            self.compile(sa.delete(blob_ref).where(refs)),
        )

    @cached_property
    def delete_saves_of_step(self) -> tuple[Statement, Statement]:
        """All saves of a step, and what they refer to."""
        of_run: sa.BindParameter[str] = sa.bindparam("of_run", type_=sa.Text)
        of_step: sa.BindParameter[str] = sa.bindparam("of_step", type_=sa.Text)
        mine = (save.c.run_id == of_run, save.c.step_id == of_step)
        return (
            self.compile(sa.delete(save).where(*mine)),
            self.compile(sa.delete(blob_ref).where(self._refs_of_saves(of_run, of_step))),
        )

    def _refs_of_saves(self, of_run: Any, of_step: Any) -> Any:
        mine = (blob_ref.c.holder_id == of_run) & (blob_ref.c.step_id == of_step)
        return sa.text("holder = 'save'") & mine

    @cached_property
    def list_saves(self) -> Statement:
        return self.compile(self._saves(save.c.run_id == sa.bindparam("run_id")))

    def _saves(self, of_runs: Any) -> Any:
        return sa.select(save).where(of_runs).order_by(save.c.step_id, save.c.number)

    # --- waits and messages ------------------------------------------------------------------
    @cached_property
    def insert_wait(self) -> Statement:
        return self.compile(sa.insert(wait))

    @cached_property
    def deliver(self) -> Statement:
        mine = (
            wait.c.run_id == sa.bindparam("of_run"),
            wait.c.step_id == sa.bindparam("of_step"),
            wait.c.generation == sa.bindparam("of_generation"),
            wait.c.message.is_(None),
        )
        clause = sa.update(wait).where(*mine)
        new = sa.bindparam("new_message", type_=sa.BigInteger)
        return self.compile(clause.values(message=new).returning(wait.c.step_id))

    @cached_property
    def list_waits(self) -> Statement:
        return self.compile(self._waits(wait.c.run_id == sa.bindparam("run_id")))

    def _waits(self, of_runs: Any) -> Any:
        return sa.select(wait).where(of_runs).order_by(wait.c.step_id, wait.c.generation)

    @cached_property
    def insert_message(self) -> Statement:
        columns = [column.name for column in message.c if column.name != "id"]
        made = sa.insert(message).values({c: sa.bindparam(c) for c in columns})
        return self.compile(made.returning(message.c.id))

    @cached_property
    def messages_of_run(self) -> Statement:
        """Signals to a run, and the events that it has consumed."""
        of_run: sa.BindParameter[str] = sa.bindparam("of_run", type_=sa.Text)
        had = sa.select(wait.c.message).where(wait.c.run_id == of_run, wait.c.message.is_not(None))
        # As one list of numbers: for "either ... or" PostgreSQL reads all messages of all runs.
        sent = sa.select(message.c.id).where(message.c.receiver == of_run)
        mine = message.c.id.in_(sent.union_all(had))
        return self.compile(sa.select(message).where(mine).order_by(message.c.id))

    @cached_property
    def find_duplicate(self) -> Statement:
        # Looked for, not run into: a row that a key refuses would still use up a number.
        same = (
            message.c.receiver == sa.bindparam("of_receiver"),
            message.c.name == sa.bindparam("of_name"),
            message.c.dedup_key == sa.bindparam("of_dedup_key"),
        )
        return self.compile(sa.select(message.c.id).where(*same))

    @cached_property
    def list_messages(self) -> Statement:
        of_run: sa.BindParameter[str] = sa.bindparam("of_run", type_=sa.Text)
        made = sa.select(run.c.created_at_us).where(run.c.id == of_run).scalar_subquery()
        had = sa.select(1).where(wait.c.run_id == of_run, wait.c.message == message.c.id)
        may_have = (message.c.receiver != "") | (message.c.at_us >= made)
        found = sa.select(message).where(
            self._is_to(of_run), self.among(message.c.name), may_have, ~sa.exists(had)
        )
        return self.compile(found.order_by(message.c.id))

    @cached_property
    def find_message(self) -> Statement:
        number = sa.bindparam("of_id", type_=sa.BigInteger)
        return self.compile(sa.select(message).where(message.c.id == number))

    @cached_property
    def find_maybe_unheard(self) -> Statement:
        """Find runs with an open wait of whose name there is a newer message, to whomever."""
        newer = sa.select(1).where(
            message.c.receiver.in_([wait.c.run_id, sa.literal_column("''")]),
            message.c.name == wait.c.name,
            message.c.id > sa.bindparam("heard", type_=sa.BigInteger),
        )
        mine = (self.among(wait.c.run_id), wait.c.message.is_(None), sa.exists(newer))
        return self.compile(sa.select(wait.c.run_id).where(*mine).distinct())

    @cached_property
    def find_unheard(self) -> Statement:
        of_run: sa.BindParameter[str] = sa.bindparam("of_run", type_=sa.Text)
        is_event = (message.c.receiver == "") & (wait.c.kind == "event")
        found = (
            sa.select(message.c.id)
            .join(wait, wait.c.name == message.c.name)
            .join(run, run.c.id == wait.c.run_id)
            .where(
                wait.c.run_id == of_run,
                message.c.id > sa.bindparam("heard", type_=sa.BigInteger),
                self._is_to(of_run),
                ((message.c.receiver == of_run) & (wait.c.kind == "signal"))
                | (is_event & (message.c.at_us >= run.c.created_at_us)),
                self._is_open(),
            )
        )
        return self.compile(found.limit(1))

    def _is_to(self, of_run: sa.BindParameter[str]) -> Any:
        """A signal to the run, or an event: two places of one index, which goes on by name."""
        return message.c.receiver.in_([of_run, sa.literal_column("''")])

    def _is_open(self) -> Any:
        """A wait that nothing has ended: that life of its step has no row."""
        ended = sa.select(1).where(
            step.c.run_id == wait.c.run_id,
            step.c.step_id == wait.c.step_id,
            step.c.generation == wait.c.generation,
        )
        return wait.c.message.is_(None) & ~sa.exists(ended)

    @cached_property
    def wake_for_signal(self) -> Statement:
        mine = sa.update(run).where(run.c.id == sa.bindparam("of_run"))
        now = sa.bindparam("now_us", type_=sa.BigInteger)
        woken = sa.case((_IS_WAITING, now), else_=run.c.wake_at_us)
        return self.compile(
            mine.values(wake_at_us=woken, seq=sa.bindparam("new_seq", type_=sa.BigInteger))
        )

    @cached_property
    def wake_for_event(self) -> Statement:
        waiting = sa.select(wait.c.run_id).where(
            sa.text(AWAITS_EVENT), wait.c.name == sa.bindparam("of_name"), self._is_open()
        )
        # Written so that no index of statuses serves it: few of those who sleep wait for this name.
        is_asleep = sa.case((run.c.status == "WAITING", 1), else_=0) == 1
        # PostgreSQL would look at every run for whether it waits: it gets the ids beforehand.
        ids = sa.func.array(waiting.scalar_subquery())
        is_waiting = run.c.id == sa.any_(ids) if self.is_postgres else run.c.id.in_(waiting)
        clause = sa.update(run).where(is_asleep, is_waiting)
        return self.compile(clause.values(wake_at_us=sa.bindparam("now_us", type_=sa.BigInteger)))

    @cached_property
    def forget_events(self) -> Statement:
        live = sa.select(sa.func.min(run.c.created_at_us)).where(_IS_LIVE).scalar_subquery()
        before: sa.BindParameter[int] = sa.bindparam("before_us", type_=sa.BigInteger)
        old = (
            message.c.receiver == "",
            message.c.at_us < before,
            message.c.at_us < sa.func.coalesce(live, before),
            ~sa.exists(self._awaiting_triggers()),
        )
        return self.compile(sa.delete(message).where(*old).returning(message.c.id))

    def _awaiting_triggers(self) -> Any:
        """Triggers that want to know of an event and have not been told of it."""
        if self.is_postgres:
            names = sa.func.json_array_elements_text(sa.cast(trigger.c.events, postgresql.JSON))
        else:
            names = sa.func.json_each(trigger.c.events)
        wanted = names.table_valued("value", name="wanted")
        return sa.select(sa.literal(1)).where(
            trigger.c.heard < message.c.id, wanted.c.value == message.c.name
        )

    @cached_property
    def delete_message_blobs(self) -> Statement:
        mine = sa.text("holder = 'message'") & self.among(blob_ref.c.holder_id)
        return self.compile(sa.delete(blob_ref).where(mine))

    @cached_property
    def order_messages(self) -> Statement | None:
        """Let one message be sent at a time; SQLite has one writer anyway."""
        if not self.is_postgres:
            return None
        return self.compile(sa.select(sa.func.pg_advisory_xact_lock(_MESSAGE_KEY)))

    @cached_property
    def hold_messages(self) -> Statement | None:
        """Let none be sent until this transaction ends."""
        if not self.is_postgres:
            return None
        return self.compile(sa.select(sa.func.pg_advisory_xact_lock_shared(_MESSAGE_KEY)))

    # --- ends of runs ------------------------------------------------------------------------
    @cached_property
    def note_ends(self) -> Statement:
        """Keep the ends of runs that have just ended, if a trigger wants to know of them.

        On PostgreSQL it shares the table with whoever does the same, until its transaction ends:
        a trigger that begins to watch waits for them, and misses no end after that.
        """
        noted = [column.name for column in run_end.c if column.name != "id"]
        renamed = {"run_id": "id", "at_us": "finished_at_us"}
        columns = [run.c[renamed.get(name, name)] for name in noted]
        watching = sa.select(trigger.c.name).where(_WATCHES_RUNS)
        ends = sa.select(*columns).where(self.among(run.c.id), sa.exists(watching))
        return self.compile(sa.insert(run_end).from_select(noted, ends))

    def next_wake(self, *, fits: bool) -> Statement:
        """Return a query for the next wake-up; ``fits``: of runs that fit an offer."""
        shape = ("next_wake", fits)
        if shape not in self._shapes:
            sleeping = sa.select(run.c.wake_at_us).where(_IS_WAITING, run.c.wake_at_us.is_not(None))
            mine = sleeping.where(self.fits()) if fits else sleeping
            self._shapes[shape] = self.compile(mine.order_by(run.c.wake_at_us).limit(1))
        return self._shapes[shape]

    @cached_property
    def list_events(self) -> Statement:
        mine = sa.select(event).where(
            event.c.run_id == sa.bindparam("run_id"), event.c.seq > sa.bindparam("after")
        )
        return self.compile(mine.order_by(event.c.seq))

    # --- blobs -------------------------------------------------------------------------------
    @cached_property
    def insert_blob_ref(self) -> Statement:
        return self.compile(self.insert_or_keep(blob_ref))

    @cached_property
    def refer_to_blobs(self) -> Statement | None:
        """Keep gc from condemning until this transaction ends; SQLite has one writer anyway."""
        if not self.is_postgres:
            return None
        return self.compile(sa.select(sa.func.pg_advisory_xact_lock_shared(_CONDEMNATION_KEY)))

    @cached_property
    def exclude_referrers(self) -> Statement | None:
        if not self.is_postgres:
            return None
        return self.compile(sa.select(sa.func.pg_advisory_xact_lock(_CONDEMNATION_KEY)))

    @cached_property
    def find_condemned(self) -> Statement:
        marks = sa.select(condemned.c.digest, condemned.c.at_us)
        return self.compile(marks.where(self.among(condemned.c.digest)))

    @cached_property
    def find_referenced(self) -> Statement:
        found = sa.select(blob_ref.c.digest).where(self.among(blob_ref.c.digest))
        return self.compile(found.distinct())

    @cached_property
    def find_referenced_besides(self) -> Statement:
        """As ``find_referenced``, as if the runs ``besides`` were deleted with their own plans."""
        leaving = self.among(blob_ref.c.holder_id, "besides")
        stays = (plan_ref.c.plan_digest == blob_ref.c.holder_id) & ~self.among(
            plan_ref.c.run_id, "besides"
        )
        numbers = sa.select(sa.cast(message.c.id, sa.Text)).where(
            self.among(message.c.receiver, "besides")
        )
        of_messages = sa.text("holder = 'message'") & blob_ref.c.holder_id.in_(numbers)
        of_runs = sa.text("holder IN ('run', 'step', 'save')") & leaving
        others = [
            sa.select(1).where(table.c.plan_digest == blob_ref.c.holder_id)
            for table in (schedule, trigger)
        ]
        holders = (sa.select(1).where(stays), *others)
        of_plans = sa.and_(sa.text("holder = 'plan'"), *(~sa.exists(each) for each in holders))
        found = sa.select(blob_ref.c.digest).where(
            self.among(blob_ref.c.digest), ~(of_runs | of_plans | of_messages)
        )
        return self.compile(found.distinct())

    @cached_property
    def insert_condemned(self) -> Statement:
        insert = self.insert(condemned)
        return self.compile(
            insert.on_conflict_do_update(
                index_elements=[condemned.c.digest], set_={"at_us": insert.excluded.at_us}
            )
        )

    @cached_property
    def list_condemned(self) -> Statement:
        return self.compile(sa.select(condemned.c.digest, condemned.c.at_us))

    @cached_property
    def forget_condemned(self) -> Statement:
        old = sa.delete(condemned).where(condemned.c.at_us < sa.bindparam("before_us"))
        return self.compile(old.returning(condemned.c.digest))

    @cached_property
    def delete_condemned(self) -> Statement:
        mark = (
            condemned.c.digest == sa.bindparam("digest"),
            condemned.c.at_us == sa.bindparam("at"),
        )
        return self.compile(sa.delete(condemned).where(*mark))

    # --- pins --------------------------------------------------------------------------------
    @cached_property
    def insert_pin(self) -> Statement:
        return self.compile(self.insert_or_keep(pin).returning(pin.c.id))

    @cached_property
    def list_referenced(self) -> Statement:
        """List the blobs to which somebody refers who is there, in order, a page at a time."""
        digest = blob_ref.c.digest
        held = sa.select(digest).distinct().where(digest > sa.bindparam("beyond"))
        page = held.where(sa.not_(self._is_dangling())).order_by(digest)
        return self.compile(page.limit(sa.bindparam("limit")))

    @cached_property
    def list_references(self) -> Statement:
        """List who refers to which blob, but for pins, in order, a page at a time."""
        key = tuple(blob_ref.primary_key)
        last = [sa.bindparam(f"beyond_{each.name}", type_=each.type) for each in key]
        page = sa.select(*key).where(sa.text("holder <> 'pin'"), sa.tuple_(*key) > sa.tuple_(*last))
        return self.compile(page.order_by(*key).limit(sa.bindparam("limit", type_=sa.Integer)))

    @cached_property
    def find_dangling(self) -> Statement:
        """Find references of holders that are not there."""
        return self.compile(sa.select(blob_ref).where(self._is_dangling()))

    @cached_property
    def delete_dangling(self) -> Statement:
        """Remove them: a holder that is made meanwhile brings its own with it."""
        removed = sa.delete(blob_ref).where(self._is_dangling())
        return self.compile(removed.returning(blob_ref.c.digest))

    def _is_dangling(self) -> Any:
        number = sa.cast(message.c.id, sa.Text)
        there = {
            ("run", "step", "save"): run.c.id,
            ("plan",): plan.c.digest,
            ("message",): number,
            ("schedule",): schedule.c.name,
            ("trigger",): trigger.c.name,
            ("pin",): pin.c.id,
        }
        return sa.or_(
            *(
                blob_ref.c.holder.in_([sa.literal_column(f"'{kind}'") for kind in kinds])
                & ~sa.exists().where(column == blob_ref.c.holder_id)
                for kinds, column in there.items()
            ),
            sa.text("holder = 'step'") & ~self._is_named(step) & ~self._is_named(wait),
            sa.text("holder = 'save'") & ~self._is_named(save),
        )

    def _is_named(self, table: sa.Table) -> Any:
        """Say of a reference that the row of a step is there in whose name it is."""
        number = table.c.number if table is save else table.c.generation
        return sa.exists().where(
            table.c.run_id == blob_ref.c.holder_id,
            table.c.step_id == blob_ref.c.step_id,
            number == blob_ref.c.generation,
        )

    @cached_property
    def count_unkept_plans(self) -> Statement:
        """Count the plans that runs name and do not keep; also return one of those runs."""
        unkept = self._unkept_plans().subquery()
        return self.compile(sa.select(sa.func.count(), sa.func.min(unkept.c.run_id)))

    @cached_property
    def keep_plans(self) -> Statement:
        """Have each run keep the plans that it names."""
        columns = [column.name for column in plan_ref.c]
        return self.compile(sa.insert(plan_ref).from_select(columns, self._unkept_plans()))

    def _unkept_plans(self) -> Any:
        own = sa.select(run.c.id.label("run_id"), run.c.plan_digest)
        named = sa.union(
            own.where(run.c.plan_digest.is_not(None)),
            sa.select(expansion.c.run_id, expansion.c.plan_digest),
        ).subquery()
        kept = sa.exists().where(
            plan_ref.c.run_id == named.c.run_id, plan_ref.c.plan_digest == named.c.plan_digest
        )
        return sa.select(named).where(~kept)

    @cached_property
    def insert_pinned(self) -> Statement:
        """Refer, for a pin, to every blob that anything refers to."""
        held = sa.select(
            sa.literal_column("'pin'"),
            sa.bindparam("pin_id", type_=sa.Text),
            sa.literal_column("''"),
            sa.literal_column("0"),
            blob_ref.c.digest,
        ).where(sa.text("holder <> 'pin'"))
        columns = ["holder", "holder_id", "step_id", "generation", "digest"]
        return self.compile(sa.insert(blob_ref).from_select(columns, held.distinct()))

    @cached_property
    def delete_pinned(self) -> Statement:
        mine = sa.text("holder = 'pin'") & (blob_ref.c.holder_id == sa.bindparam("pin_id"))
        return self.compile(sa.delete(blob_ref).where(mine))

    @cached_property
    def delete_pin(self) -> Statement:
        mine = sa.delete(pin).where(pin.c.id == sa.bindparam("pin_id"))
        return self.compile(mine.returning(pin.c.id))

    @cached_property
    def list_pins(self) -> Statement:
        return self.compile(sa.select(pin).order_by(pin.c.at_us, pin.c.id))

    # --- parts of statements -----------------------------------------------------------------
    def insert(self, table: sa.Table) -> Any:
        """Return an INSERT of the dialect, which knows conflicts."""
        return postgresql.insert(table) if self.is_postgres else sqlite.insert(table)

    def insert_or_keep(self, table: sa.Table) -> Any:
        """Return an INSERT that leaves a row of the same key as it is."""
        return self.insert(table).on_conflict_do_nothing()

    def _runs(self, *columns: sa.Column[Any]) -> Any:
        joined = run.outerjoin(coordinator, coordinator.c.token == run.c.owner_token)
        return sa.select(*columns, self.lease_lives()).select_from(joined)

    def lease_lives(self) -> Any:
        """Say of a joined coordinator whether its lease stands."""
        lives = sa.func.coalesce(coordinator.c.lease_until_us, 0) > self._lease_now()
        if self._terms.ends_with_boot:
            here = sa.func.coalesce(coordinator.c.boot_id, "") == sa.bindparam("this_boot")
            lives = lives & here
        return lives

    def _lease_now(self) -> Any:
        if self._terms.clock is None:
            return sa.literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return sa.bindparam("lease_now_us", type_=sa.BigInteger)

    def _lease_end(self) -> Any:
        return self._lease_now() + sa.bindparam("lease_us", type_=sa.BigInteger)

    def among(self, column: sa.Column[str], name: str = "ids") -> Any:
        """Match a list of any length that is one parameter: no bind limit, one statement."""
        ids = sa.bindparam(name, type_=sa.Text)
        if self.is_postgres:
            return column == sa.func.any(sa.bindparam(name, type_=postgresql.ARRAY(sa.Text)))
        return column.in_(sa.select(sa.func.json_each(ids).table_valued("value").c.value))

    def among_numbers(self, column: sa.Column[int]) -> Any:
        """Match a list of numbers, which are given as texts, as ``among`` does."""
        ids = sa.bindparam("ids", type_=sa.Text)
        if self.is_postgres:
            texts = sa.bindparam("ids", type_=postgresql.ARRAY(sa.Text))
            return column == sa.func.any(sa.cast(texts, postgresql.ARRAY(sa.BigInteger)))
        values = sa.func.json_each(ids).table_valued("value")
        return column.in_(sa.select(sa.cast(values.c.value, sa.Integer)))


def _advance(with_steps: bool) -> Any:
    moved = {
        "seq": run.c.seq + sa.bindparam("rows", type_=sa.BigInteger),
        "wake_at_us": sa.bindparam("wake_at", type_=sa.BigInteger),
    }
    if with_steps:
        moved["takeovers"] = sa.literal_column("0")
    guard = (
        run.c.id == sa.bindparam("run_id"),
        run.c.owner_token == sa.bindparam("owner"),
        run.c.epoch == sa.bindparam("of_epoch"),
        _IS_DRIVEN,
    )
    return sa.update(run).where(*guard).values(moved).returning(run.c.seq)


def _retire(*also: Any) -> Any:
    return (
        sa.update(step)
        .where(
            step.c.run_id == sa.bindparam("of_run"),
            step.c.step_id == sa.bindparam("of_step"),
            step.c.generation == sa.bindparam("of_generation"),
            _IS_CURRENT,
            *also,
        )
        .values(current=sa.false())
        .returning(step.c.step_id)
    )


def _json_list(ids: Sequence[str]) -> str:
    return msgspec.json.encode(list(ids)).decode()
