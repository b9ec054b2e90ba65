"""Looking whether a store is whole: its database, its signatures, and the blobs that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from perdure_storage import guards
from perdure_storage.blobs import BlobRoot
from perdure_storage.census import Census, Expected, Holder, Reference
from perdure_storage.database import Database, Row
from perdure_storage.errors import RunNotFound, StoreError, StoreUnavailable, ValueDamaged
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import Digest, RunId
from perdure_storage.schedule_records import TickQuery
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_database import SqliteDatabase
from perdure_storage.statement import Statement
from perdure_storage.tables import blob_ref, metadata
from perdure_storage.tables import message as message_table
from perdure_storage.tables import plan as plan_table
from perdure_storage.tables import run as run_table
from perdure_storage.tables import schedule as schedule_table
from perdure_storage.tables import trigger as trigger_table
from perdure_storage.trigger_records import ArrivalQuery
from perdure_storage.trigger_rows import holder_of

T = TypeVar("T")
Outputs = Callable[[Digest], Iterable[str]]
"""Says of the digest of a plan which steps' values the result of its runs is made of."""

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as it was committed.

    Attributes:
        kind: ``"database"``, ``"row"``, ``"blob"`` or ``"reference"``; of one that is spare,
            ``"gone"``.
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
        gone: blobs that are not there, and that nobody has to have: states of actors, results of
            before an edit. Whoever wants one again makes it again.
    """

    runs: int
    blobs: int
    size_bytes: int
    deep: bool
    orphans: int = 0
    orphan_bytes: int = 0
    problems: tuple[Problem, ...] = ()
    gone: tuple[Problem, ...] = ()


def check_store(
    store: SqlRunStore,
    blobs: BlobRoot,
    *,
    deep: bool = False,
    outputs: Outputs = lambda plan: (),
) -> CheckReport:
    """Read a whole store and change nothing; runs may go on meanwhile.

    Args:
        store: every row of it is read, and its signature verified.
        blobs: every blob that a row names must be there, in its size.
        deep: also read each blob and compare it with its name.
        outputs: which steps of a plan the result is of, which the store does not know; each of a
            run that succeeded must have a value.

    Raises:
        StoreUnavailable: the database does not answer.
        ValueUnavailable: the blobs cannot be reached.
    """
    runs, problems = 0, list(_damages(store.database))
    with closing(Census()) as census:
        for run_id in _values(store.database, run_table.c.id, ""):
            runs += 1
            problems += _asked(RunId(run_id), _read_run, store, run_id, census, outputs)
        problems += _read_others(store, census)
        # Rows before blobs: a row that was read has its blob, whoever works meanwhile.
        census.note_there((blob.digest, blob.size_bytes) for blob in blobs.survey())
        census.note_referenced(_referenced(store.database))
        census.note_references(_references(store.database))
        problems += _unprotected(store, census)
        problems += _dangling(store.database)
        problems += _unkept_plans(store.database)
        for expected in census.expected():
            problems += _check_blob(store, blobs, expected, deep)
        gone = tuple(problem for problem in problems if problem.kind == "gone")
        census.note_kept(map(Digest, _values(store.database, blob_ref.c.digest, "")))
        referenced, orphans = census.referenced(), census.orphans()
    return CheckReport(
        runs=runs,
        blobs=referenced.blobs,
        size_bytes=referenced.size_bytes,
        deep=deep,
        orphans=orphans.blobs,
        orphan_bytes=orphans.size_bytes,
        problems=tuple(problem for problem in problems if problem.kind != "gone"),
        gone=gone,
    )


# --- rows -----------------------------------------------------------------------------------
def _damages(database: Database) -> Iterator[Problem]:
    """Yield what SQLite finds wrong in its own file; PostgreSQL has tools of its own."""
    if not isinstance(database, SqliteDatabase):
        return
    for (said,) in _rows(database, Statement("PRAGMA integrity_check", (), {}, False)):
        if said != "ok":
            yield _damage(database, said)
    lacking: dict[str, dict[str, int]] = {}
    for parent, table, count in _rows(database, Statement(_LACKING, (), {}, False)):
        lacking.setdefault(parent, {})[table] = count
    for parent, counts in lacking.items():
        told = f"{sum(counts.values())} rows ({', '.join(counts)}) are of "
        if parent == run_table.name:
            told += f"runs that are not there: {_runs_lacking(database, counts)}"
        else:
            told += f"what is not there in {parent!r}"
        yield _damage(database, told)


def _damage(database: Database, said: str) -> Problem:
    return Problem(kind="database", message=f"{database.url}: {said}. Restore it from a backup")


def _runs_lacking(database: Database, tables: Collection[str]) -> str:
    """Return the ids of some runs of which these tables have rows, and that are not there."""
    found: set[str] = set()
    for table in metadata.sorted_tables:
        if table.name in tables:
            missing = table.c.run_id.not_in(sa.select(run_table.c.id))
            some = sa.select(table.c.run_id).where(missing).distinct().limit(_SHOWN + 1)
            found.update(row[0] for row in _rows(database, database.statements.compile(some)))
    shown = [repr(run_id) for run_id in sorted(found)]
    return ", ".join(shown if len(shown) <= _SHOWN else [*shown[:_SHOWN], "..."])


_SHOWN = 3
_LACKING = """
SELECT parent, "table", count(*) FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 1, 2
"""


def _values(database: Database, column: sa.Column[T], before_all: T) -> Iterator[T]:
    """Yield the values of a column, each once and in order."""
    beyond = sa.bindparam("beyond", type_=column.type)
    page = sa.select(column).distinct().where(column > beyond).order_by(column).limit(_PAGE)
    yield from _paged(database, database.statements.compile(page), before_all)


def _referenced(database: Database) -> Iterator[Digest]:
    """Yield the blobs to which somebody refers who is there."""
    yield from _paged(database, database.statements.list_referenced, Digest(""), limit=_PAGE)


def _references(database: Database) -> Iterator[Reference]:
    """Yield which row refers to which blob; a pin is no row that names one."""
    last: Reference = ("", "", "", 0, Digest(""))
    while page := _rows(
        database, database.statements.list_references, **_beyond(*last), limit=_PAGE
    ):
        for holder, holder_id, step_id, generation, digest in page:
            last = (holder, holder_id, step_id, generation, digest)
            yield last


def _beyond(
    holder: str, holder_id: str, step_id: str, generation: int, digest: Digest
) -> dict[str, object]:
    return {
        "beyond_holder": holder,
        "beyond_holder_id": holder_id,
        "beyond_step_id": step_id,
        "beyond_generation": generation,
        "beyond_digest": digest,
    }


def _paged(database: Database, statement: Statement, beyond: T, **given: object) -> Iterator[T]:
    """Yield what a statement gives page after page, each in a transaction of its own."""
    while page := _rows(database, statement, beyond=beyond, **given):
        yield from (row[0] for row in page)
        beyond = page[-1][0]


def _rows(database: Database, statement: Statement, **given: object) -> list[Row]:
    return database.read(lambda transaction: transaction.rows(statement, **given))


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


def _read_others(store: SqlRunStore, census: Census) -> Iterator[Problem]:
    """Read what is no run and may name blobs."""
    for digest in _values(store.database, plan_table.c.digest, ""):
        yield from _asked(None, _read_plan, store, digest, census)
    for number in _values(store.database, message_table.c.id, 0):
        yield from _asked(None, _read_message, store, number, census)
    for name in _values(store.database, schedule_table.c.name, ""):
        yield from _asked(None, _read_schedule, store, name, census)
    for name in _values(store.database, trigger_table.c.name, ""):
        yield from _asked(None, _read_trigger, store, name, census)


def _read_run(store: SqlRunStore, run_id: RunId, census: Census, outputs: Outputs) -> None:
    run = store.get_run(run_id)
    for name, value in run.inputs.items():
        census.note(value, run_id, f"input {name!r}", ("run", run_id, "", 0))
    steps = store.list_steps(run_id, current_only=False)
    for step in steps:
        of_step = ("step", run_id, step.step_id, step.generation)
        if step.status is StepStatus.LOST:
            census.note_lost(guards.blobs_of_step(step))
            continue
        # Whoever takes an edit back, or wants a state, runs the step or its calls again.
        note = census.note if step.current else census.note_spare
        note(step.value, run_id, f"step {step.step_id!r}", of_step)
        for state in step.states.values():
            census.note_spare(state, run_id, f"the state after step {step.step_id!r}", of_step)
    store.list_attempts(run_id)
    store.list_expansions(run_id)
    for wait in store.list_waits(run_id):
        of_wait = ("step", run_id, wait.step_id, wait.generation)
        census.note(wait.default, run_id, f"default of step {wait.step_id!r}", of_wait)
    for save in store.list_saves(run_id):
        of_save = ("save", run_id, save.step_id, save.number)
        census.note(save.value, run_id, f"save {save.number} of step {save.step_id!r}", of_save)
    store.list_events(run_id)
    if run.status is RunStatus.SUCCEEDED and run.plan_digest is not None:
        have = {step.step_id for step in steps if step.current and step.value is not None}
        lacking = sorted(set(outputs(run.plan_digest)) - have)
        # Else it went on meanwhile.
        if lacking and store.get_run(run_id).seq == run.seq:
            raise StoreError(
                f"run {run_id!r} has succeeded, and the rows are not there of steps that its result"
                f" needs: {', '.join(lacking)}. Restore the database from a backup, or `perdure"
                f" fork {run_id}` makes them in another run"
            )


def _read_message(store: SqlRunStore, number: int, census: Census) -> None:
    message = store.find_message(number)
    if message is not None:  # else it went since it was listed
        of_message = ("message", str(number), "", 0)
        census.note(
            message.value, message.run_id, f"message {number}, {message.name!r}", of_message
        )


def _read_schedule(store: SqlRunStore, name: str, census: Census) -> None:
    schedule = store.schedules.find_schedule(name)
    if schedule is None:  # removed since it was listed
        return
    census.note_all(schedule.blobs, f"definition of schedule {name!r}", ("schedule", name, "", 0))
    query = TickQuery(schedule=name, limit=_PAGE)
    while page := store.schedules.list_ticks(query):
        query = msgspec.structs.replace(query, before=page[-1].at)


def _read_trigger(store: SqlRunStore, name: str, census: Census) -> None:
    trigger = store.triggers.find_trigger(name)
    if trigger is None:  # removed since it was listed
        return
    census.note_all(trigger.blobs, f"definition of trigger {name!r}", ("trigger", name, "", 0))
    query = ArrivalQuery(trigger=name, limit=_PAGE)
    while page := store.triggers.list_arrivals(query):
        for arrival in page:
            what = f"arrival {arrival.key!r} of trigger {name!r}"
            census.note(arrival.payload, None, what, ("arrival", holder_of(arrival), "", 0))
        query = msgspec.structs.replace(query, beyond=page[-1].seq)


def _read_plan(store: SqlRunStore, digest: Digest, census: Census) -> None:
    try:
        plan = store.get_plan(digest)
    except StoreError:
        there = sa.select(plan_table.c.digest).where(plan_table.c.digest == digest)
        if _rows(store.database, store.database.statements.compile(there)):
            raise
        return  # its last run was deleted since it was listed
    census.note_all(plan.blobs, f"code or constants of plan {digest}", ("plan", digest, "", 0))


# --- blobs ----------------------------------------------------------------------------------
def _unprotected(store: SqlRunStore, census: Census) -> Iterator[Problem]:
    """Yield blobs that a row names, and that no reference of that row keeps from gc."""
    found = census.unprotected()
    first = next(found, None)
    if first is None:
        return
    with closing(Census()) as again:  # a run may have been deleted since its rows were read
        for run_id in _values(store.database, run_table.c.id, ""):
            list(_asked(RunId(run_id), _read_run, store, run_id, again, lambda plan: ()))
        list(_read_others(store, again))
        for each in chain([first], found):
            if again.needs(each.holder, each.digest):
                yield Problem(
                    kind="reference",
                    message=f"{each.user}: its blob {each.digest} has no reference of its own. gc"
                    " takes it as soon as nobody else needs it: run none before `perdure db check"
                    " --repair`, and report this",
                    digest=each.digest,
                    holder=each.holder,
                )


def _dangling(database: Database) -> Iterator[Problem]:
    """Yield references of what is not there any more: they keep blobs from gc for ever."""
    counted: Counter[tuple[str, str]] = Counter()
    for holder, holder_id, *_ in _rows(database, database.statements.find_dangling):
        counted[holder, holder_id] += 1
    for (holder, holder_id), count in sorted(counted.items()):
        yield Problem(
            kind="reference",
            message=f"{_HOLDERS.get(holder, holder)} {holder_id!r} is not there, and {count}"
            " references of it keep blobs from gc: `perdure db check --repair` removes them",
            holder=(holder, holder_id, "", 0),
        )


_HOLDERS = {"step": "a step of run", "save": "a save of run"}


def _unkept_plans(database: Database) -> Iterator[Problem]:
    """Yield plans that runs name and do not keep: whoever is deleted last would take them along."""
    ((count, run_id),) = _rows(database, database.statements.count_unkept_plans)
    if count:
        yield Problem(
            kind="reference",
            message=f"run {run_id!r}: a plan that it names is not kept for it ({count} in all), and"
            " goes with another run that has the same. Delete none before `perdure db check"
            " --repair`, and report this",
        )


def _check_blob(
    store: SqlRunStore, blobs: BlobRoot, expected: Expected, deep: bool
) -> Iterator[Problem]:
    digest, size_bytes, wanted_bytes, user, is_spare = expected
    said = ""
    if size_bytes is None:  # or it came after the look at all of them, with its reference
        size_bytes = blobs.size_of(digest)
        wanted_bytes = size_bytes if wanted_bytes is None else wanted_bytes
    if size_bytes is None or wanted_bytes is None:
        said = _MISSING
    elif size_bytes != wanted_bytes:
        said = f"has {size_bytes} bytes and should have {wanted_bytes}"
    elif deep:
        said = _misread(blobs, digest, wanted_bytes)
    if said and not store.unreferenced([digest]):
        whose = user or "a pinned backup"
        is_gone = is_spare and said == _MISSING
        remedy = _REMEDY if blobs.cache is None else f"{_COPIED} {_REMEDY}"
        yield Problem(
            kind="gone" if is_gone else "blob",
            message=f"{whose}: its blob {digest} {said}. {_SPARE if is_gone else remedy}",
            digest=digest,
        )


def _misread(blobs: BlobRoot, digest: Digest, size_bytes: int) -> str:
    try:
        blobs.verify(digest, size_bytes)
    except ValueDamaged as error:
        return _MISSING if error.missing else "holds other bytes than were committed"
    return ""


_MISSING = "is missing"
_SPARE = (
    "Nobody has to have it: whoever wants it again has the step, or the actor's calls, run again"
)
_COPIED = "`perdure db check --repair` puts it back if this host has a copy. Else:"
_REMEDY = (
    "A step's value is rebuilt by `perdure resume RUN`; anything else comes back from a backup, or"
    " with the run itself, run again"
)
