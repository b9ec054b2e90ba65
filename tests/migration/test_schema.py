"""The tables of a fresh store, and what becomes of older and newer ones."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from perdure_storage.connect import (
    open_run_store,
    parse_place,
    pending_revisions,
    upgrade,
    upgrade_sql,
)
from perdure_storage.contract_samples import (
    a_message,
    a_plan,
    a_step,
    an_owner,
    an_unplanned_run,
    arrived,
    by,
    claimed,
    fired,
    registered,
    watched,
)
from perdure_storage.errors import SchemaMismatch, StoreError
from perdure_storage.faults import InjectedCrash, armed
from perdure_storage.lifecycle import RunStatus
from perdure_storage.migrating import migrate
from perdure_storage.postgres_database import postgres_engine
from perdure_storage.records import RunEnd, RunId
from perdure_storage.schema import CURRENT, Schema
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.sqlite_engine import sqlite_engine
from perdure_storage.tables import metadata

LATER = '''"""A revision of the future."""

import sqlalchemy as sa
from alembic import op

revision = "later"
down_revision = "{head}"


def upgrade() -> None:
    with op.batch_alter_table("run") as batch:
        batch.add_column(sa.Column("later", sa.Text()))
'''

FAILING = LATER + "    raise RuntimeError('half-way')\n"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a place where no store is yet."""
    if request.param == "sqlite":
        return str(tmp_path / "perdure.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    place = parse_place(url)
    if place.path is not None:
        engine = sqlite_engine(place.path)
    else:
        assert place.server is not None
        engine = postgres_engine(place.server)
    yield engine
    engine.dispose()


def _later(tmp_path: Path, text: str = LATER) -> Schema:
    """Return the line of revisions with one more at its end."""
    location = tmp_path / "migrations"
    shutil.copytree(CURRENT.location, location)
    (location / "versions" / "later.py").write_text(text.format(head=CURRENT.head))
    return Schema(location, (*CURRENT.revisions, "later"))


def _columns(engine: sa.Engine) -> set[str]:
    try:
        return {column["name"] for column in sa.inspect(engine).get_columns("run")}
    finally:
        engine.dispose()


def _shape(connection: sa.Connection) -> dict[str, object]:
    """Return all that the database itself says of its tables and indexes."""
    if connection.dialect.name == "sqlite":
        # SQLite quotes the name of a table that a migration copied, which means nothing either.
        rows = connection.exec_driver_sql(
            "SELECT name, replace(sql, '\"', '') FROM sqlite_master"
        ).all()
    else:
        rows = connection.exec_driver_sql(
            "SELECT c.relname, coalesce(pg_get_indexdef(c.oid), '') || c.reloptions::text"
            " || (SELECT coalesce(string_agg(concat(a.attname, a.atttypid, a.attcollation,"
            " a.attnotnull), ',' ORDER BY a.attname), '') FROM pg_attribute a"
            " WHERE a.attrelid = c.oid AND a.attnum > 0)"
            " FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace"
        ).all()
    # Columns and constraints may come in another order, which means nothing.
    return {name: sorted(_parts(sql or "")) for name, sql in rows}


def _parts(sql: str) -> list[str]:
    """Return what a statement says; the last part may be any, so it loses its bracket."""
    return [part.strip() for part in " ".join(sql.split()).removesuffix(")").split(", ")]


def test_the_newest_migration_is_the_revision_that_this_code_works_with() -> None:
    scripts = ScriptDirectory(str(CURRENT.location))

    assert scripts.get_heads() == [CURRENT.head]
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(revisions)) == CURRENT.revisions


def _differences(engine: sa.Engine) -> list[object]:
    with engine.connect() as connection:
        found: list[object] = compare_metadata(MigrationContext.configure(connection), metadata)
        return found


def test_a_fresh_store_has_the_tables_of_the_metadata(url: str, engine: sa.Engine) -> None:
    open_run_store(url).close()

    assert _differences(engine) == []


def test_migrations_from_nothing_make_the_tables_of_the_metadata(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        migrate(connection, CURRENT)

    assert _differences(engine) == []


def test_migrations_from_nothing_make_what_a_fresh_store_has(url: str, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        migrate(connection, CURRENT)
        migrated = _shape(connection)
        version = sa.Table("alembic_version", sa.MetaData())
        for table in (*reversed(metadata.sorted_tables), version):
            connection.execute(sa.schema.DropTable(table))

    open_run_store(url).close()

    with engine.connect() as connection:
        assert _shape(connection) == migrated


def test_an_older_sqlite_store_is_brought_up_to_date_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "perdure.db"
    store = open_run_store(path)
    run = claimed(store)
    store.commit([by(run, a_step("run", "s"))])
    store.close()
    schema = _later(tmp_path)

    store = open_run_store(path, schema=schema)

    assert [step.step_id for step in store.list_steps(run.id)] == ["s"]
    store.close()
    assert "later" in _columns(sqlite_engine(path))
    assert pending_revisions(path, schema=schema) == ()


@pytest.mark.postgres
def test_an_older_postgres_store_says_what_to_type(postgres_url: str, tmp_path: Path) -> None:
    open_run_store(postgres_url).close()
    schema = _later(tmp_path)

    with pytest.raises(SchemaMismatch, match="perdure db upgrade"):
        open_run_store(postgres_url, schema=schema)


def test_upgrade_applies_what_is_pending_once(url: str, engine: sa.Engine, tmp_path: Path) -> None:
    open_run_store(url).close()
    schema = _later(tmp_path)

    assert pending_revisions(url, schema=schema) == ("later",)
    assert upgrade(url, schema=schema) == ("later",)
    assert upgrade(url, schema=schema) == ()

    assert "later" in _columns(engine)
    open_run_store(url, schema=schema).close()


def test_upgrade_can_be_printed_and_changes_nothing(
    url: str, engine: sa.Engine, tmp_path: Path
) -> None:
    open_run_store(url).close()

    text = upgrade_sql(url, schema=_later(tmp_path))

    assert "ALTER TABLE run ADD COLUMN later" in text
    assert "later" not in _columns(engine)
    assert upgrade_sql(url) == ""


def test_a_migration_that_fails_leaves_the_tables_as_they_were(
    url: str, engine: sa.Engine, tmp_path: Path
) -> None:
    open_run_store(url).close()
    schema = _later(tmp_path, FAILING)

    with pytest.raises(RuntimeError, match="half-way"):
        upgrade(url, schema=schema)

    assert "later" not in _columns(engine)
    open_run_store(url).close()


def test_older_code_refuses_a_newer_store(url: str, tmp_path: Path) -> None:
    open_run_store(url).close()
    upgrade(url, schema=_later(tmp_path))

    for attempt in (open_run_store, pending_revisions, upgrade):
        with pytest.raises(SchemaMismatch, match="pip install -U perdure"):
            attempt(url)


def _older(engine: sa.Engine, revision: str, rows_of: Path) -> None:
    """Make the tables of a revision, and fill them with the rows of a store of today."""
    until = CURRENT.revisions.index(revision) + 1
    source = sqlite_engine(rows_of)
    with source.connect() as today, engine.begin() as older:
        migrate(older, Schema(CURRENT.location, CURRENT.revisions[:until]))
        known = {name: _names(older, name) for name in sa.inspect(older).get_table_names()}
        for table in metadata.sorted_tables:
            columns = [column for column in table.c if column.name in known.get(table.name, ())]
            if columns and (rows := today.execute(sa.select(*columns)).mappings().all()):
                older.execute(sa.insert(table), [dict(row) for row in rows])
    source.dispose()


def _names(connection: sa.Connection, table: str) -> set[str]:
    return {column["name"] for column in sa.inspect(connection).get_columns(table)}


def test_runs_of_a_store_without_schedules_go_on_in_one_that_has_them(
    url: str, engine: sa.Engine, tmp_path: Path
) -> None:
    today = tmp_path / "today.db"
    store = open_run_store(today, key=b"k" * 32)
    run = claimed(store, plan=a_plan("plan", "code"), tags={"a": "b"})
    store.commit([by(run, a_step("run", "s"))])
    store.send(a_message())
    store.close()
    _older(engine, "0005", today)

    printed = upgrade_sql(url)
    assert upgrade(url) == CURRENT.revisions[CURRENT.revisions.index("0006") :]

    assert "CREATE TABLE schedule" in printed
    assert _differences(engine) == []
    store = open_run_store(url, key=b"k" * 32)
    assert store.get_run(run.id).tags == run.tags
    assert [step.step_id for step in store.list_steps(run.id)] == ["s"]
    assert [event.kind for event in store.list_events(run.id)][:2] == ["submitted", "claimed"]
    assert store.get_plan(run.plan_digest).blobs == ("blake3:code",)
    assert run.id in store.commit([by(run, a_step("run", "t"))]).committed
    made = store.schedules.fire([fired(registered(store), an_unplanned_run("by schedule"))]).made
    assert made == ("by schedule",)
    store.close()


def test_schedules_of_a_store_without_triggers_fire_in_one_that_has_them(
    url: str, engine: sa.Engine, tmp_path: Path
) -> None:
    today = tmp_path / "today.db"
    store = open_run_store(today, key=b"k" * 32)
    schedule = registered(store)
    run = claimed(store, schedule="nightly")
    store.close()
    _older(engine, "0006", today)

    printed = upgrade_sql(url)
    assert upgrade(url) == CURRENT.revisions[CURRENT.revisions.index("0007") :]

    assert "CREATE TABLE arrival" in printed
    assert _differences(engine) == []
    store = open_run_store(url, key=b"k" * 32)
    assert store.get_run(run.id).trigger is None
    assert store.schedules.fire([fired(schedule, an_unplanned_run("next"))]).made == ("next",)
    trigger = watched(store, watches_runs=True)
    assert store.commit([by(run, end=RunEnd(status=RunStatus.SUCCEEDED))]).committed
    (end,) = store.triggers.ends()
    assert (end.run_id, end.schedule) == (run.id, "nightly")
    assert store.triggers.accept([arrived(trigger, "a")], [end.id]).made == ("run-a",)
    store.close()


OLDER = CURRENT.revisions[:-1]


@pytest.fixture
def since(url: str, engine: sa.Engine, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Make a store of an older revision, in which a run has committed a step; return which."""
    revision: str = request.param
    today = tmp_path / "today.db"
    store = open_run_store(today)
    run = claimed(store, plan=a_plan("plan", "code"), tags={"a": "b"})
    store.commit([by(run, a_step("run", "s"))])
    store.close()
    _older(engine, revision, today)
    return revision


def _check_goes_on(url: str, engine: sa.Engine) -> None:
    """Say whether the run of an older store is whole, and goes on in one of today."""
    assert _differences(engine) == []
    store = open_run_store(url)
    run = store.get_run(RunId("run"))
    assert [step.step_id for step in store.list_steps(run.id)] == ["s"]
    assert run.id in store.commit([by(run, a_step("run", "t"))]).committed
    store.close()


@pytest.mark.parametrize("since", OLDER, indirect=True)
def test_run_of_a_store_of_each_revision_goes_on_though_the_first_upgrade_died(
    url: str, engine: sa.Engine, since: str
) -> None:
    with armed("migration.in-transaction:1:raise"), pytest.raises(InjectedCrash):
        upgrade(url)

    pending = CURRENT.revisions[CURRENT.revisions.index(since) + 1 :]
    assert pending_revisions(url) == pending
    assert upgrade(url) == pending
    _check_goes_on(url, engine)


@pytest.mark.postgres
def test_load_goes_on_while_a_store_is_migrated(postgres_url: str, tmp_path: Path) -> None:
    """Of processes that were started before: one that starts now refuses a newer store."""
    stores = [open_run_store(postgres_url) for _ in range(3)]
    committed: list[int] = [0] * len(stores)
    is_over = threading.Event()

    def work(number: int, store: SqlRunStore) -> None:
        run = claimed(store, f"run-{number}", owner=an_owner(f"o{number}"))
        while not is_over.is_set():
            step = a_step(run.id, f"s{committed[number]}")
            assert run.id in store.commit([by(run, step)]).committed
            committed[number] += 1

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(stores)]
    for thread in threads:
        thread.start()
    while min(committed) < 5 and all(thread.is_alive() for thread in threads):
        is_over.wait(0.01)

    upgrade(postgres_url, schema=_later(tmp_path))

    then = [number + 5 for number in committed]
    while any(a < b for a, b in zip(committed, then)) and all(t.is_alive() for t in threads):
        is_over.wait(0.01)
    is_over.set()
    for thread in threads:
        thread.join()
    for number, store in enumerate(stores):
        assert committed[number] >= then[number], "its commits were refused"
        assert len(store.list_steps(RunId(f"run-{number}"))) == committed[number]
        store.close()


def test_upgrade_refuses_a_place_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        upgrade(tmp_path / "none.db")


OPENING = """
import sys
from perdure_storage.connect import open_run_store
from perdure_storage.signing import KeyFile
from pathlib import Path
sys.stdin.read(1)
store = open_run_store(sys.argv[1], key=KeyFile(Path(sys.argv[2])))
print(store.store_id)
"""


def test_ten_processes_that_open_a_fresh_store_at_once_make_one(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENING, url, str(tmp_path / "key")]
    openers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(10)
    ]

    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("x")
        opener.stdin.flush()
    said = [opener.communicate()[0].strip() for opener in openers]

    assert len(set(said)) == 1
    assert said[0]
    assert [opener.returncode for opener in openers] == [0] * 10


MIGRATING = """
import sys
from pathlib import Path
from perdure_storage.connect import upgrade
from perdure_storage.schema import CURRENT, Schema
sys.stdin.read(1)
schema = Schema(Path(sys.argv[2]), (*CURRENT.revisions, "later"))
print(len(upgrade(sys.argv[1], schema=schema)))
"""


def test_ten_migrators_at_once_do_one_migration(
    url: str, engine: sa.Engine, tmp_path: Path
) -> None:
    open_run_store(url).close()
    schema = _later(tmp_path)
    command = [sys.executable, "-c", MIGRATING, url, str(schema.location)]
    migrators = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(10)
    ]

    for migrator in migrators:
        assert migrator.stdin is not None
        migrator.stdin.write("x")
        migrator.stdin.flush()
    for migrator in migrators:
        migrator.communicate()

    assert [migrator.returncode for migrator in migrators] == [0] * 10
    assert "later" in _columns(engine)


def test_a_short_program_does_not_import_alembic(tmp_path: Path) -> None:
    code = (
        "import sys; from perdure_storage.connect import open_run_store;"
        f"open_run_store({str(tmp_path / 'p.db')!r}).close();"
        "print([name for name in ('alembic', 'psycopg') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_fresh_sqlite_store_keeps_a_write_ahead_log(tmp_path: Path) -> None:
    open_run_store(tmp_path / "p.db").close()

    with sqlite3.connect(tmp_path / "p.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_the_first_run_survives_in_a_store_made_by_somebody_else(url: str) -> None:
    first, second = open_run_store(url), open_run_store(url)

    claimed(first)

    assert second.get_run(RunId("run")).lease_live
    assert first.store_id == second.store_id
    first.close()
    second.close()
