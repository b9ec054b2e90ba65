"""Looking whether a store is whole: its database, its signatures, and the blobs that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from perdure_storage.blobs import BlobRoot
from perdure_storage.database import Database, Row
from perdure_storage.errors import RunNotFound, StoreError, StoreUnavailable, ValueDamaged
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Digest, Place, RunId, StoredValue
from perdure_storage.schedule_records import TickQuery
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_database import SqliteDatabase
from perdure_storage.statement import Statement
from perdure_storage.tables import blob_ref
from perdure_storage.tables import message as message_table
from perdure_storage.tables import plan as plan_table
from perdure_storage.tables import run as run_table
from perdure_storage.tables import schedule as schedule_table
from perdure_storage.tables import trigger as trigger_table
from perdure_storage.trigger_records import ArrivalQuery
from perdure_storage.trigger_rows import holder_of

T = TypeVar("T")
_PAGE = 1000
Holder = tuple[str, str, str, int]
"""Who refers to a blob, as a row of ``blob_ref`` has it: kind, id, step, generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as it was committed.

    Attributes:
        kind: ``"database"``, ``"row"``, ``"blob"`` or ``"reference"``.
        message: what is wrong, where, and what to type.
        run_id: the run that it is about, if it is about one.
        digest: the blob that it is about, if it is about one.
        holder: of a reference, whose it is.
    """

    kind: str
    message: str
    run_id: str | None = None
    digest: Digest | None = None
    holder: Holder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What was looked at, and what is wrong.

    Attributes:
        runs: how many runs had all their rows read, signatures verified.
        blobs: how many blobs are referred to.
        size_bytes: of those blobs that are there.
        deep: whether their bytes were read, or only their names and sizes.
        orphans: blobs that nothing refers to, which the next gc takes if they are old enough.
        orphan_bytes: of all of them.
    """

    runs: int
    blobs: int
    size_bytes: int
    deep: bool
    orphans: int = 0
    orphan_bytes: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Known:
    """What rows say of a blob. Mutable while rows are read."""

    sizes: dict[Digest, int] = field(default_factory=dict)
    users: dict[Digest, str] = field(default_factory=dict)
    named: set[Digest] = field(default_factory=set)
    holders: dict[Digest, Holder] = field(default_factory=dict)
    lost: set[Digest] = field(default_factory=set)

    def note(
        self, value: StoredValue | None, run_id: RunId | None, what: str, holder: Holder
    ) -> None:
        """Remember a value of a run, or of an event, which has none."""
        if value is not None and value.place is Place.BLOB:
            self.named.add(value.integrity)
            self.sizes[value.integrity] = value.size_bytes
            whose = what if run_id is None else f"{what} of run {run_id!r}"
            self.users.setdefault(value.integrity, whose)
            self.holders.setdefault(value.integrity, holder)
        if value is not None and value.files:
            whose = what if run_id is None else f"{what} of run {run_id!r}"
            self.note_all(value.files, whose, holder)

    def note_all(self, blobs: Iterable[Digest], what: str, holder: Holder) -> None:
        """Remember blobs of which no row says the size."""
        for blob in blobs:
            self.named.add(blob)
            self.users.setdefault(blob, what)
            self.holders.setdefault(blob, holder)


def check_store(store: SqlRunStore, blobs: BlobRoot, *, deep: bool = False) -> CheckReport:
    """Read a whole store and change nothing; runs may go on meanwhile.

    Args:
        store: every row of it is read, and its signature verified.
        blobs: every blob that a row names must be there, in its size.
        deep: also read each blob and compare it with its name.

    Raises:
        StoreUnavailable: the database does not answer.
        ValueUnavailable: the blobs cannot be reached.
    """
    known, problems = _Known(), list(_damages(store.database))
    runs = [RunId(text) for text in _values(store.database, run_table.c.id)]
    for run_id in runs:
        problems += _asked(run_id, _read_run, store, run_id, known)
    for digest in map(Digest, _values(store.database, plan_table.c.digest)):
        problems += _asked(None, _read_plan, store, digest, known)
    for number in _values(store.database, message_table.c.id):
        problems += _asked(None, _read_message, store, number, known)
    for name in _values(store.database, schedule_table.c.name):
        problems += _asked(None, _read_schedule, store, name, known)
    for name in _values(store.database, trigger_table.c.name):
        problems += _asked(None, _read_trigger, store, name, known)
    # Rows before blobs: a row that was read has its blob, whoever works meanwhile.
    there = {blob.digest: blob.size_bytes for blob in blobs.survey()}
    held = _rows(store.database, store.database.statements.list_referenced)
    referenced = {Digest(row[0]) for row in held}
    problems += _unprotected(store, known, referenced)
    problems += _dangling(store.database)
    for digest in sorted(referenced - (known.lost - known.named)):
        problems += _check_blob(store, blobs, digest, there.get(digest), known, deep)
    orphans = there.keys() - set(map(Digest, _values(store.database, blob_ref.c.digest)))
    return CheckReport(
        runs=len(runs),
        blobs=len(referenced),
        size_bytes=sum(there.get(digest, 0) for digest in referenced),
        deep=deep,
        orphans=len(orphans),
        orphan_bytes=sum(there[digest] for digest in orphans),
        problems=tuple(problems),
    )


# --- rows -----------------------------------------------------------------------------------
def _damages(database: Database) -> Iterator[Problem]:
    """Yield what SQLite finds wrong in its own file; PostgreSQL has tools of its own."""
    if not isinstance(database, SqliteDatabase):
        return
    for pragma in ("integrity_check", "foreign_key_check"):
        statement = Statement(f"PRAGMA {pragma}", (), {}, False)
        for row in _rows(database, statement):
            said = " ".join(map(str, row))
            if said != "ok":
                yield Problem(
                    kind="database",
                    message=f"{database.url}: {said}. Restore it from a backup",
                )


def _values(database: Database, column: sa.Column[T]) -> list[T]:
    statement = database.statements.compile(sa.select(column).distinct())
    return [row[0] for row in _rows(database, statement)]


def _rows(database: Database, statement: Statement) -> list[Row]:
    return database.read(lambda transaction: transaction.rows(statement))


def _asked(run_id: RunId | None, read: Callable[..., None], *given: object) -> Iterator[Problem]:
    """Yield the problem that reading meets, if there is one; each row says its own."""
    try:
        read(*given)
    except RunNotFound:  # deleted since it was listed
        return
    except StoreUnavailable:
        raise
    except StoreError as error:
        yield Problem(kind="row", message=str(error), run_id=run_id)


def _read_run(store: SqlRunStore, run_id: RunId, known: _Known) -> None:
    run = store.get_run(run_id)
    for name, value in run.inputs.items():
        known.note(value, run_id, f"input {name!r}", ("run", run_id, "", 0))
    for step in store.list_steps(run_id, current_only=False):
        of_step = ("step", run_id, step.step_id, step.generation)
        if step.status is StepStatus.LOST and step.value is not None:
            known.lost.add(step.value.integrity)  # that it is gone is what its row says
        else:
            known.note(step.value, run_id, f"step {step.step_id!r}", of_step)
        for state in step.states.values():
            known.note(state, run_id, f"the state after step {step.step_id!r}", of_step)
    store.list_attempts(run_id)
    store.list_expansions(run_id)
    for wait in store.list_waits(run_id):
        of_wait = ("step", run_id, wait.step_id, wait.generation)
        known.note(wait.default, run_id, f"default of step {wait.step_id!r}", of_wait)
    for save in store.list_saves(run_id):
        of_save = ("save", run_id, save.step_id, save.number)
        known.note(save.value, run_id, f"save {save.number} of step {save.step_id!r}", of_save)
    store.list_events(run_id)


def _read_message(store: SqlRunStore, number: int, known: _Known) -> None:
    message = store.find_message(number)
    if message is not None:  # else it went since it was listed
        of_message = ("message", str(number), "", 0)
        known.note(message.value, message.run_id, f"message {number}, {message.name!r}", of_message)


def _read_schedule(store: SqlRunStore, name: str, known: _Known) -> None:
    schedule = store.schedules.find_schedule(name)
    if schedule is None:  # removed since it was listed
        return
    known.note_all(schedule.blobs, f"definition of schedule {name!r}", ("schedule", name, "", 0))
    query = TickQuery(schedule=name, limit=_PAGE)
    while page := store.schedules.list_ticks(query):
        query = msgspec.structs.replace(query, before=page[-1].at)


def _read_trigger(store: SqlRunStore, name: str, known: _Known) -> None:
    trigger = store.triggers.find_trigger(name)
    if trigger is None:  # removed since it was listed
        return
    known.note_all(trigger.blobs, f"definition of trigger {name!r}", ("trigger", name, "", 0))
    query = ArrivalQuery(trigger=name, limit=_PAGE)
    while page := store.triggers.list_arrivals(query):
        for arrival in page:
            what = f"arrival {arrival.key!r} of trigger {name!r}"
            known.note(arrival.payload, None, what, ("arrival", holder_of(arrival), "", 0))
        query = msgspec.structs.replace(query, beyond=page[-1].seq)


def _read_plan(store: SqlRunStore, digest: Digest, known: _Known) -> None:
    try:
        plan = store.get_plan(digest)
    except StoreError:
        if digest in _values(store.database, plan_table.c.digest):
            raise
        return  # its last run was deleted since it was listed
    known.note_all(plan.blobs, f"code or constants of plan {digest}", ("plan", digest, "", 0))


# --- blobs ----------------------------------------------------------------------------------
def _unprotected(store: SqlRunStore, known: _Known, referenced: set[Digest]) -> Iterator[Problem]:
    """Yield blobs that a row names and no reference keeps from gc."""
    named = known.named - referenced
    if not named:
        return
    for digest in sorted(named & _still_named(store, known)):
        message = f"{known.users[digest]}: its blob {digest} has no reference, gc would take it"
        yield Problem(
            kind="reference",
            message=f"{message}. Run no gc: `perdure db check --repair`, and report this",
            digest=digest,
            holder=known.holders[digest],
        )


def _dangling(database: Database) -> Iterator[Problem]:
    """Yield references of what is not there any more: they keep blobs from gc for ever."""
    counted: Counter[tuple[str, str]] = Counter()
    for holder, holder_id, *_ in _rows(database, database.statements.find_dangling):
        counted[holder, holder_id] += 1
    for (holder, holder_id), count in sorted(counted.items()):
        yield Problem(
            kind="reference",
            message=f"{holder} {holder_id!r} is not there, and {count} references of it keep blobs"
            " from gc: `perdure db check --repair` removes them",
            holder=(holder, holder_id, "", 0),
        )


def _still_named(store: SqlRunStore, known: _Known) -> set[Digest]:
    """Return what the rows name now: a run may have been deleted since they were read."""
    again = _Known()
    for run_id in map(RunId, _values(store.database, run_table.c.id)):
        list(_asked(run_id, _read_run, store, run_id, again))
    for digest in map(Digest, _values(store.database, plan_table.c.digest)):
        list(_asked(None, _read_plan, store, digest, again))
    for number in _values(store.database, message_table.c.id):
        list(_asked(None, _read_message, store, number, again))
    for name in _values(store.database, schedule_table.c.name):
        list(_asked(None, _read_schedule, store, name, again))
    for name in _values(store.database, trigger_table.c.name):
        list(_asked(None, _read_trigger, store, name, again))
    return again.named


def _check_blob(
    store: SqlRunStore,
    blobs: BlobRoot,
    digest: Digest,
    size_bytes: int | None,
    known: _Known,
    deep: bool,
) -> Iterator[Problem]:
    wanted = known.sizes.get(digest, size_bytes)
    said = ""
    if size_bytes is None or wanted is None:
        said = "is missing"
    elif size_bytes != wanted:
        said = f"has {size_bytes} bytes and should have {wanted}"
    elif deep:
        said = _misread(blobs, digest, wanted)
    if said and not store.unreferenced([digest]):
        user = known.users.get(digest, "a pinned backup")
        yield Problem(
            kind="blob", message=f"{user}: its blob {digest} {said}. {_REMEDY}", digest=digest
        )


def _misread(blobs: BlobRoot, digest: Digest, size_bytes: int) -> str:
    try:
        blobs.verify(digest, size_bytes)
    except ValueDamaged as error:
        return "is missing" if error.missing else "holds other bytes than were committed"
    return ""


_REMEDY = (
    "A step's value is rebuilt by `perdure resume RUN`; anything else comes back from a backup, or"
    " with the run itself, run again"
)
