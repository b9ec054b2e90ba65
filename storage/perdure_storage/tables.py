"""The tables of a store: the only truth about DDL. Migrations are tested to be equal to it.

Times are microseconds since 1970 in UTC (``_us``), exact and the same in every database. Columns
exist for what is queried, guarded or signed; structs that are only handed back are packed. Ids
sort by code point everywhere, as Python sorts them, so a page of runs is the same page on every
store. Small tables are their own index on SQLite (no rowid): each page less is a shorter commit.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects import postgresql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _id(name: str, *args: ForeignKey, nullable: bool = False, **more: Any) -> Column[str]:
    return Column(name, _ID, *args, nullable=nullable, **more)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _bytes(name: str, *, nullable: bool = True) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=nullable)


def _at(name: str, *, nullable: bool = True) -> Column[int]:
    return Column(f"{name}_us", BigInteger, nullable=nullable)


def _int(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _flag(name: str, **more: Any) -> Column[bool]:
    return Column(name, Boolean, nullable=False, **more)


setting = Table(
    "setting",
    metadata,
    _text("name"),
    _text("value"),
    PrimaryKeyConstraint("name"),
    sqlite_with_rowid=False,
)

plan = Table(
    "plan",
    metadata,
    _id("digest"),
    _bytes("body", nullable=False),
    _text("blobs"),
    _bytes("mac"),
    _text("needs", nullable=True),
    PrimaryKeyConstraint("digest"),
)

run = Table(
    "run",
    metadata,
    _id("id"),
    _text("workflow"),
    _text("status"),
    _id("plan_digest", ForeignKey("plan.digest"), nullable=True),
    _text("origin", nullable=True),
    _text("inputs_digest"),
    _text("policy"),
    _text("tags"),
    _text("metadata"),
    _id("parent", nullable=True),
    _id("forked_from", nullable=True),
    _id("reuse_from", nullable=True),
    _text("queue", nullable=True),
    _int("priority"),
    _at("not_before"),
    _at("deadline"),
    _at("created_at", nullable=False),
    _at("started_at"),
    _at("finished_at"),
    _bytes("error"),
    _bytes("error_mac"),
    _text("owner", nullable=True),
    _text("owner_token", nullable=True),
    _int("epoch"),
    _int("takeovers"),
    _int("seq"),
    _at("wake_at"),
    _flag("cancel_requested"),
    _flag("pause_requested"),
    _id("schedule", nullable=True),
    _flag("by_hand", server_default=false()),
    _id("trigger", nullable=True),
    _id("limit_key", server_default=""),
    _id("dedup_key", nullable=True),
    _bytes("inputs", nullable=False),
    _bytes("mac"),
    PrimaryKeyConstraint("id"),
    # Hot rows are updated in place while there is room on their page.
    postgresql_with={"fillfactor": "70"},
)


def _partial(name: str, *columns: object, where: str) -> None:
    Index(
        name,
        *columns,  # type: ignore[arg-type]
        postgresql_where=text(where),
        sqlite_where=text(where),
    )


# Conditions of partial indexes, which serve only a query that says them in the same words. Some
# of them are said in a way that no other index can serve: without statistics SQLite prefers any
# index on an equal status, and would walk through every sleeping run for the one that is due.
IS_DRIVEN = "status IN ('RUNNING', 'PAUSED')"
IS_WAITING = "status || '' = 'WAITING'"
IS_COUNTED = "schedule IS NOT NULL AND NOT by_hand"
# Those about queues cost a run without a queue nothing, but for the first, by which it is found
# among a hundred thousand that wait in one: a run that its maker drives is never in that.
IS_QUEUED_FREELY = "queue IS NULL AND status || '' = 'QUEUED'"
IS_IN_LINE = "queue IS NOT NULL AND status || '' = 'QUEUED'"
HAS_SLOT = "queue IS NOT NULL AND owner_token IS NOT NULL"
HAS_STARTED = "queue IS NOT NULL AND started_at_us IS NOT NULL"
IS_ONLY_ONE = "dedup_key IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'WAITING', 'PAUSED')"
IS_CANCELLING = "cancel_requested AND status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"

Index("ix_run_newest", run.c.created_at_us, run.c.id)
Index("ix_run_by_status", run.c.status, run.c.created_at_us, run.c.id)
Index("ix_run_by_workflow", run.c.workflow, run.c.created_at_us, run.c.id)
_partial("ix_run_waiting", run.c.wake_at_us, where=IS_WAITING)
_partial("ix_run_driven", run.c.owner_token, where=IS_DRIVEN)
_partial("ix_run_cancelling", run.c.id, where=IS_CANCELLING)
_partial(
    "ix_run_line",
    run.c.queue,
    run.c.limit_key,
    run.c.priority.desc(),
    run.c.created_at_us,
    run.c.id,
    run.c.not_before_us,
    where=IS_IN_LINE,
)
_partial("ix_run_queued_freely", run.c.created_at_us, where=IS_QUEUED_FREELY)
_partial("ix_run_slot", run.c.queue, run.c.limit_key, where=HAS_SLOT)
_partial("ix_run_started", run.c.queue, run.c.started_at_us, where=HAS_STARTED)
_partial("ix_run_key_started", run.c.queue, run.c.limit_key, run.c.started_at_us, where=HAS_STARTED)
# Of the live runs of a queue one has a deduplication key, whoever makes them at the same time.
Index(
    "ix_run_only_one",
    run.c.queue,
    run.c.dedup_key,
    unique=True,
    postgresql_where=text(IS_ONLY_ONE),
    sqlite_where=text(IS_ONLY_ONE),
)
_partial("ix_run_parent", run.c.parent, where="parent IS NOT NULL")
# A plan that goes has to be nobody's: without this each row would be looked at for its foreign key.
_partial("ix_run_plan_digest", run.c.plan_digest, where="plan_digest IS NOT NULL")
_partial("ix_run_reuse_from", run.c.reuse_from, where="reuse_from IS NOT NULL")
_partial(
    "ix_run_of_schedule",
    run.c.schedule,
    run.c.status,
    run.c.finished_at_us,
    where=IS_COUNTED,
)
_partial(
    "ix_run_by_schedule",
    run.c.schedule,
    run.c.created_at_us,
    run.c.id,
    where="schedule IS NOT NULL",
)
_partial(
    "ix_run_by_trigger",
    run.c.trigger,
    run.c.created_at_us,
    run.c.id,
    where="trigger IS NOT NULL",
)

plan_ref = Table(
    "plan_ref",
    metadata,
    _id("run_id", ForeignKey("run.id")),
    _id("plan_digest", ForeignKey("plan.digest")),
    PrimaryKeyConstraint("run_id", "plan_digest"),
    Index("ix_plan_ref_plan_digest", "plan_digest"),
    sqlite_with_rowid=False,
)

step = Table(
    "step",
    metadata,
    _id("run_id", ForeignKey("run.id")),
    _int("seq"),
    _id("step_id"),
    _int("generation"),
    _flag("current"),
    _text("status"),
    _int("attempt"),
    _text("name"),
    _text("own"),
    _text("code"),
    _text("fingerprint"),
    _text("inputs"),
    _text("place", nullable=True),
    _text("codec", nullable=True),
    Column("size_bytes", BigInteger, nullable=True),
    _text("integrity", nullable=True),
    _text("value_digest", nullable=True),
    _text("parts", nullable=True),
    _text("preview", nullable=True),
    _bytes("data"),
    _bytes("error"),
    _flag("caught"),
    _at("started_at"),
    _at("finished_at"),
    _text("worker"),
    _text("reason"),
    _bytes("mac"),
    Column("peak_memory_bytes", BigInteger, nullable=True),
    _bytes("states"),
    # Rows of one run are read together and sorted by whoever reads them: an index for their
    # order would cost every commit another page.
    PrimaryKeyConstraint("run_id", "step_id", "generation"),
)
# One generation of a step is in force, whatever a coordinator believes.
Index(
    "ix_step_current",
    step.c.run_id,
    step.c.step_id,
    unique=True,
    postgresql_where=text("current"),
    sqlite_where=text("current"),
)

attempt = Table(
    "attempt",
    metadata,
    _id("run_id", ForeignKey("run.id")),
    _id("step_id"),
    _int("generation"),
    _int("attempt"),
    _text("cause", nullable=True),
    _bytes("error"),
    _text("worker"),
    _at("started_at"),
    _at("finished_at"),
    _at("not_before"),
    Column("peak_memory_bytes", BigInteger, nullable=True),
    _bytes("mac"),
    _text("progress", nullable=True),
    PrimaryKeyConstraint("run_id", "step_id", "generation", "attempt"),
    sqlite_with_rowid=False,
)

save = Table(
    "save",
    metadata,
    _id("run_id", ForeignKey("run.id")),
    _id("step_id"),
    _int("number"),
    _id("item"),
    _int("generation"),
    _int("attempt"),
    _int("at"),
    _text("source"),
    _at("saved_at", nullable=False),
    _bytes("value", nullable=False),
    _bytes("mac"),
    PrimaryKeyConstraint("run_id", "step_id", "number"),
    sqlite_with_rowid=False,
)
"""What steps have saved while they run; a save's number stands for its generation in blob_ref."""

expansion = Table(
    "expansion",
    metadata,
    _id("run_id", ForeignKey("run.id")),
    _id("step_id"),
    _int("generation"),
    _int("link"),
    _text("kind"),
    _int("count"),
    _text("source"),
    _id("plan_digest", ForeignKey("plan.digest")),
    _bytes("mac"),
    PrimaryKeyConstraint("run_id", "step_id", "generation", "link"),
    Index("ix_expansion_plan_digest", "plan_digest"),
    sqlite_with_rowid=False,
)
"""Graphs that steps gave in place of their values."""

wait = Table(
    "wait",
    metadata,
    _id("run_id", ForeignKey("run.id")),
    _id("step_id"),
    _int("generation"),
    _text("kind"),
    _id("name"),
    _text("match"),
    _at("deadline"),
    _bytes("value"),
    _text("source"),
    Column("message", BigInteger, nullable=True),
    _bytes("mac"),
    PrimaryKeyConstraint("run_id", "step_id", "generation"),
    sqlite_with_rowid=False,
)
"""What steps wait for in place of having a value; ``value`` is the one at the deadline."""

IS_DELIVERED = "message IS NOT NULL"
AWAITS_EVENT = "kind = 'event' AND message IS NULL"
# A message is delivered to a run once, whatever a coordinator believes.
Index(
    "ix_wait_delivered",
    wait.c.run_id,
    wait.c.message,
    unique=True,
    postgresql_where=text(IS_DELIVERED),
    sqlite_where=text(IS_DELIVERED),
)
_partial("ix_wait_event", wait.c.name, wait.c.run_id, where=AWAITS_EVENT)

message = Table(
    "message",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), autoincrement=True),
    _id("receiver"),
    _id("name"),
    _text("match"),
    _id("dedup_key", nullable=True),
    _at("at", nullable=False),
    _bytes("value", nullable=False),
    _bytes("mac"),
    _id("sender", nullable=True),
    PrimaryKeyConstraint("id"),
    Index("ix_message_receiver", "receiver", "name", "id"),
    # A number is never given twice: runs remember which ones they have had.
    sqlite_autoincrement=True,
)
"""Signals to a run, and events, whose ``receiver`` is empty."""

HAS_KEY = "dedup_key IS NOT NULL"
Index(
    "ix_message_dedup",
    message.c.receiver,
    message.c.name,
    message.c.dedup_key,
    unique=True,
    postgresql_where=text(HAS_KEY),
    sqlite_where=text(HAS_KEY),
)

schedule = Table(
    "schedule",
    metadata,
    _id("name"),
    _id("module", nullable=True),
    _text("definition"),
    _text("digest"),
    _id("plan_digest", ForeignKey("plan.digest"), nullable=True),
    _text("blobs"),
    _id("concurrency", nullable=True),
    _bytes("mac"),
    _text("state"),
    _at("next_at"),
    Column("wakes_below", BigInteger, nullable=True),
    _at("waits_since"),
    _flag("paused"),
    _flag("ended"),
    _int("version"),
    _bytes("state_mac"),
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    PrimaryKeyConstraint("name"),
    # Hot rows: each tick rewrites the state.
    postgresql_with={"fillfactor": "70"},
)
"""Schedules. What they mean is in ``definition`` and ``state``, which the store does not read."""

WAKES_BY_TIME = "next_at_us IS NOT NULL"
WAKES_BY_RUN = "wakes_below IS NOT NULL"
_partial("ix_schedule_next", schedule.c.next_at_us, where=WAKES_BY_TIME)
_partial("ix_schedule_waiting", schedule.c.name, where=WAKES_BY_RUN)
_partial(
    "ix_schedule_line",
    schedule.c.concurrency,
    schedule.c.waits_since_us,
    schedule.c.name,
    where="concurrency IS NOT NULL",
)
_partial("ix_schedule_plan_digest", schedule.c.plan_digest, where="plan_digest IS NOT NULL")

concurrency = Table(
    "concurrency",
    metadata,
    _id("key"),
    _int("version"),
    PrimaryKeyConstraint("key"),
    sqlite_with_rowid=False,
)
"""Keys that schedules share, each with the guard of what is fired under it."""

queue = Table(
    "queue",
    metadata,
    _id("name"),
    Column("running_limit", BigInteger, nullable=True),
    Column("key_limit", BigInteger, nullable=True),
    Column("rate", BigInteger, nullable=True),
    Column("window_us", BigInteger, nullable=True),
    _text("declared"),
    _int("version"),
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    PrimaryKeyConstraint("name"),
    sqlite_with_rowid=False,
)
"""Queues with their limits. Who has a slot is read off the runs: a row here is the lock of its
queue, under which they are counted."""

tick = Table(
    "tick",
    metadata,
    _id("schedule", ForeignKey("schedule.name")),
    _at("at", nullable=False),
    _at("last"),
    _int("count"),
    _text("decision"),
    _text("why"),
    _text("reason"),
    _at("decided_at", nullable=False),
    _id("run_id", nullable=True),
    _text("code"),
    _bytes("mac"),
    # Read by schedule, newest first; and swept by schedule, oldest first: no other index.
    PrimaryKeyConstraint("schedule", "at_us"),
    sqlite_with_rowid=False,
)
"""What became of the nominal times of schedules. A run that a tick made may be long gone."""

trigger = Table(
    "trigger",
    metadata,
    _id("name"),
    _id("module", nullable=True),
    _text("definition"),
    _text("digest"),
    _id("plan_digest", ForeignKey("plan.digest"), nullable=True),
    _text("blobs"),
    _text("events"),
    _flag("watches_runs"),
    _flag("listens"),
    _bytes("mac"),
    _text("state"),
    _int("heard"),
    _at("next_at"),
    _flag("paused"),
    _int("version"),
    _bytes("state_mac"),
    _id("listener", nullable=True),
    _int("newest"),
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    PrimaryKeyConstraint("name"),
    # Hot rows: each arrival counts ``newest`` on, and may rewrite the state.
    postgresql_with={"fillfactor": "70"},
)
"""Triggers. What they mean is in ``definition`` and ``state``, which the store does not read;
``newest`` is the number of the newest arrival that there ever was."""

IS_TIMED = "next_at_us IS NOT NULL"
WATCHES_RUNS = "watches_runs"
LISTENS = "listens"
_partial("ix_trigger_next", trigger.c.next_at_us, where=IS_TIMED)
_partial("ix_trigger_watching", trigger.c.name, where=WATCHES_RUNS)
_partial("ix_trigger_listening", trigger.c.name, where=LISTENS)
_partial("ix_trigger_plan_digest", trigger.c.plan_digest, where="plan_digest IS NOT NULL")

arrival = Table(
    "arrival",
    metadata,
    _id("trigger", ForeignKey("trigger.name")),
    _id("key"),
    _int("seq"),
    _text("condition"),
    _at("at", nullable=False),
    _text("facts"),
    _bytes("payload"),
    _text("decision"),
    _text("why"),
    _text("reason"),
    _at("decided_at", nullable=False),
    _id("run_id", nullable=True),
    _text("code"),
    _bytes("mac"),
    # Rows may be as long as what was sent: they do not lie in the tree of their keys.
    PrimaryKeyConstraint("trigger", "key"),
    Index("ix_arrival_seq", "trigger", "seq", unique=True),
    Index("ix_arrival_decision", "trigger", "decision", "seq"),
)
"""What arrived for triggers, and what became of it. A run that it made may be long gone."""

run_end = Table(
    "run_end",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), autoincrement=True),
    _id("run_id"),
    _int("seq"),
    _text("status"),
    _text("workflow"),
    _text("tags"),
    _id("trigger", nullable=True),
    _id("schedule", nullable=True),
    _at("at", nullable=False),
    _at("created_at"),
    PrimaryKeyConstraint("id"),
    # A number is never given twice: who was told of an end lets go of that one, of no later one.
    sqlite_autoincrement=True,
)
"""Ends of runs of which triggers have not been told. The runs may be long gone."""

event = Table(
    "event",
    metadata,
    _id("run_id", ForeignKey("run.id")),
    _int("seq"),
    _text("kind"),
    _at("at", nullable=False),
    _id("step_id", nullable=True),
    _text("detail"),
    PrimaryKeyConstraint("run_id", "seq"),
    sqlite_with_rowid=False,
)

blob_ref = Table(
    "blob_ref",
    metadata,
    _text("holder"),
    _id("holder_id"),
    _id("step_id"),
    Column("generation", Integer, nullable=False),
    _id("digest"),
    PrimaryKeyConstraint("holder", "holder_id", "step_id", "generation", "digest"),
    Index("ix_blob_ref_digest", "digest"),
    sqlite_with_rowid=False,
)
"""Who refers to which blob: ``holder`` is "run" (inputs), "plan", "step", "save",
"message", "schedule", "trigger", "arrival" or "pin"."""

condemned = Table(
    "condemned",
    metadata,
    _id("digest"),
    _at("at", nullable=False),
    PrimaryKeyConstraint("digest"),
    sqlite_with_rowid=False,
)

coordinator = Table(
    "coordinator",
    metadata,
    _id("token"),
    _text("owner"),
    _text("boot_id"),
    _int("lease_until_us"),
    _text("workers"),
    PrimaryKeyConstraint("token"),
    sqlite_with_rowid=False,
)

tombstone = Table(
    "tombstone",
    metadata,
    _id("run_id"),
    _at("at", nullable=False),
    PrimaryKeyConstraint("run_id"),
    sqlite_with_rowid=False,
)

pin = Table(
    "pin",
    metadata,
    _id("id"),
    _at("at", nullable=False),
    _text("note"),
    PrimaryKeyConstraint("id"),
    sqlite_with_rowid=False,
)
