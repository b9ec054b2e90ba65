"""What PostgreSQL stores do beyond the contract: lost connections, commits in doubt."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import sqlalchemy as sa
from tests.faulty_proxy import SOCKET, FaultyProxy

from perdure_storage import postgres_database
from perdure_storage.clock import ManualClock
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import (
    LEASE_S,
    a_message,
    a_plan,
    a_run,
    a_step,
    a_wait,
    an_owner,
    by,
    claimed,
    created,
)
from perdure_storage.database import Transaction
from perdure_storage.errors import StoreError, StoreUnavailable
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId
from perdure_storage.rows import pack_owner
from perdure_storage.sql_runs import SqlRunStore

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(60)]

_RUN = RunId("run")


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[FaultyProxy]:
    folder = parse_qs(urlsplit(postgres_url).query).get("host", [""])[0]
    if not Path(folder, SOCKET).exists():
        pytest.skip("the proxy stands before a server on a socket")
    proxy = FaultyProxy(Path(folder, SOCKET))
    yield proxy
    proxy.close()


@pytest.fixture
def store(postgres_url: str, proxy: FaultyProxy) -> Iterator[SqlRunStore]:
    """Yield a store that reaches its server through the proxy."""
    store = open_run_store(proxy.url(postgres_url))
    yield store
    store.close()


@pytest.fixture
def direct(postgres_url: str, store: SqlRunStore) -> Iterator[SqlRunStore]:
    """Yield the same store without a proxy."""
    direct = open_run_store(postgres_url)
    assert direct.store_id == store.store_id
    yield direct
    direct.close()


def test_a_commit_whose_answer_was_lost_stands_and_is_not_done_twice(
    store: SqlRunStore, direct: SqlRunStore, proxy: FaultyProxy
) -> None:
    run = claimed(store)
    proxy.slam_after_commit.set()

    report = store.commit([by(run, a_step("run", "s"))])

    assert proxy.slammed.is_set()
    assert report.committed == {_RUN: 3}
    assert [step.step_id for step in direct.list_steps(_RUN)] == ["s"]
    assert direct.get_run(_RUN).seq == 3


def test_a_commit_that_never_arrived_is_made_again(
    store: SqlRunStore, direct: SqlRunStore, proxy: FaultyProxy
) -> None:
    run = claimed(store)
    proxy.slam_before_commit.set()

    report = store.commit([by(run, a_step("run", "s"))])

    assert proxy.slammed.is_set()
    assert report.committed == {_RUN: 3}
    assert [step.step_id for step in direct.list_steps(_RUN)] == ["s"]


@pytest.mark.parametrize("when", ["slam_before_commit", "slam_after_commit"])
def test_a_run_is_made_once_when_the_connection_drops_around_its_commit(
    store: SqlRunStore, direct: SqlRunStore, proxy: FaultyProxy, when: str
) -> None:
    getattr(proxy, when).set()

    made = store.create_run(a_run(), a_plan())

    assert made is not None
    assert direct.get_run(_RUN) == made
    assert [event.kind for event in direct.list_events(_RUN)] == ["submitted"]


def test_reads_and_writes_go_on_after_connections_dropped(
    store: SqlRunStore, proxy: FaultyProxy
) -> None:
    run = claimed(store)
    store.changes()
    proxy.drop_all()

    assert store.get_run(_RUN).id == _RUN
    proxy.drop_all()
    assert _RUN in store.commit([by(run, a_step("run", "s"))]).committed
    proxy.drop_all()
    assert store.renew(an_owner(), LEASE_S)
    proxy.drop_all()
    before = store.changes()
    store.request_cancel(_RUN)
    assert store.changes() != before


@pytest.mark.parametrize("way", ["write", "write_ahead"])
def test_connection_that_drops_between_rows_is_told_of_once(
    store: SqlRunStore, proxy: FaultyProxy, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver would say beside it that it could not end a pipeline of several rows."""
    tries: list[int] = []

    def work(transaction: Transaction) -> int:
        tries.append(len(tries))
        if len(tries) == 1:
            proxy.drop_all()
        rows = [(f"blake3:{number}", 0) for number in range(2)]
        transaction.insert(store._statements.insert_condemned, rows)
        return len(transaction.rows(store._statements.list_condemned))

    found = getattr(store.database, way)(work)

    assert (found, len(tries)) == (2, 2)
    assert {record.name for record in caplog.records} <= {postgres_database.__name__}


def test_a_server_that_is_gone_is_a_clear_error(store: SqlRunStore, proxy: FaultyProxy) -> None:
    run = claimed(store)
    proxy.close()

    with pytest.raises(StoreUnavailable, match=r"does not answer.*pg_isready"):
        store.commit([by(run, a_step("run", "s"))])


def test_a_server_that_was_never_there_is_a_clear_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(StoreUnavailable, match="does not answer") as refused:
        open_run_store(f"postgresql://user:secret@127.0.0.1:{port}/db")

    assert "secret" not in str(refused.value)
    assert "user" not in str(refused.value).replace("this user", "")


def test_a_database_that_is_not_there_is_told_with_what_makes_it(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(database="runs of mine")

    with pytest.raises(StoreUnavailable, match=r"is not there.*`createdb 'runs of mine'`"):
        open_run_store(url.render_as_string(hide_password=False))


@pytest.fixture
def ascii_database(postgres_server: str) -> Iterator[str]:
    """Yield the URL of a database that knows bytes, and no characters."""
    name = f"ascii_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII'"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        yield urlsplit(postgres_server)._replace(path=f"/{name}").geturl()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_of_another_encoding_is_refused_with_the_command_that_makes_one(
    ascii_database: str,
) -> None:
    with pytest.raises(StoreError, match=r"is SQL_ASCII.*`createdb -T template0 -E UTF8 NAME`"):
        open_run_store(ascii_database)


def test_the_shown_url_has_no_credentials(postgres_url: str) -> None:
    store = open_run_store(postgres_url)

    assert "postgres@" not in store.url
    assert store.url.startswith("postgresql://")
    store.close()


def test_leases_follow_the_clock_of_the_database(postgres_url: str) -> None:
    """A machine whose clocks are wrong does not change who holds what."""
    clock = ManualClock()
    store = open_run_store(postgres_url, clock=clock)
    claimed(store)

    clock.advance(100 * LEASE_S)
    assert store.get_run(_RUN).lease_live
    store.renew(an_owner(), 0.0)

    assert not store.get_run(_RUN).lease_live
    store.close()


def test_a_lease_of_another_host_stands(postgres_url: str) -> None:
    store = open_run_store(postgres_url)
    far = an_owner("far", boot_id="another boot", host="far")
    claimed(store, owner=far)

    assert store.get_run(_RUN).lease_live
    assert store.claim_run(_RUN, an_owner()) is None
    assert store.claimable() == []
    store.close()


def test_a_request_through_another_connection_is_noticed(postgres_url: str) -> None:
    store, other = open_run_store(postgres_url), open_run_store(postgres_url)
    created(store)
    database: Any = store._database
    store.changes()
    heard = database._heard

    other.request_cancel(_RUN)
    # The server delivers when it likes, which is soon; the test's time-out is the limit.
    while database._heard == heard:
        store.changes()

    assert database._heard == heard + 1
    store.close()
    other.close()


def test_runs_made_at_once_with_one_id_are_one(postgres_url: str) -> None:
    stores = [open_run_store(postgres_url) for _ in range(4)]
    made: list[object] = []

    def make(number: int, store: SqlRunStore) -> None:
        plan = a_plan("p", "b")
        made.append(store.create_run(a_run(workflow=f"w{number}", plan=plan), plan))

    threads = [threading.Thread(target=make, args=pair) for pair in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(run is not None for run in made) == 1
    for store in stores:
        store.close()


@pytest.mark.parametrize("receiver", ["run", None])
def test_a_release_and_a_send_at_once_miss_nothing_and_do_not_lock_each_other_out(
    postgres_url: str, receiver: str | None
) -> None:
    store, other = open_run_store(_named(postgres_url)), open_run_store(_named(postgres_url))
    run = claimed(store)
    kind = "event" if receiver is None else "signal"
    store.commit([by(run, waits=(a_wait("run", "w", kind=kind),))])
    doings: list[Callable[[], object]] = [
        lambda: store.release_run(run, to=RunStatus.WAITING),
        lambda: other.send(a_message(receiver)),
    ]
    threads = [threading.Thread(target=doing) for doing in doings]
    with psycopg.connect(postgres_url) as holder:
        holder.execute("SELECT id FROM run FOR UPDATE")
        for number, thread in enumerate(threads, 1):
            thread.start()
            _await_waiting(postgres_url, number)
        # Whoever waits for the run has the messages already: nobody waits the other way round.
        assert _advisory_locks(postgres_url) == [("ExclusiveLock", False), ("ShareLock", True)]
    for thread in threads:
        thread.join()

    assert [each.id for each in store.claimable()] == [_RUN]
    store.close()
    other.close()


_ME = f"test-{os.getpid()}"
"""What connections are called that are told from those of tests beside: they have one database."""


def _named(url: str) -> str:
    return f"{url}&application_name={_ME}"


def _advisory_locks(url: str) -> list[tuple[str, bool]]:
    """Return the modes of the advisory locks that somebody of ours has, or waits for."""
    locks = """
        SELECT mode, granted FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND application_name = %s ORDER BY granted
    """
    with psycopg.connect(url) as connection:
        return connection.execute(locks, (_ME,)).fetchall()


def test_a_claim_that_waited_for_another_claim_sees_its_lease(postgres_url: str) -> None:
    """What is joined to a row that was waited for must not be older than the wait."""
    store, other = open_run_store(_named(postgres_url)), open_run_store(_named(postgres_url))
    created(store)
    other.register(an_owner("two"), LEASE_S)
    claims: list[object] = []
    with psycopg.connect(postgres_url) as holder:
        holder.execute("SELECT id FROM run FOR UPDATE")
        late = threading.Thread(
            target=lambda: claims.append(other.claim_run(_RUN, an_owner("two")))
        )
        late.start()
        _await_waiting(postgres_url)
        store.register(an_owner("one"), LEASE_S)
        holder.execute(
            "UPDATE run SET owner = %s, owner_token = 'one', epoch = 1, status = 'RUNNING'",
            (pack_owner(an_owner("one")),),
        )

    late.join()

    assert claims == [None]
    assert store.get_run(_RUN).epoch == 1
    store.close()
    other.close()


def _await_waiting(url: str, number: int = 1) -> None:
    waiting = """
        SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = %s
    """
    with psycopg.connect(url, autocommit=True) as watcher:
        while len(watcher.execute(waiting, (_ME,)).fetchall()) < number:
            pass


def test_claim_of_many_leaves_out_a_run_that_somebody_works_on(postgres_url: str) -> None:
    store = open_run_store(postgres_url)
    for name in ("a", "b", "c"):
        created(store, name)
    ids = [RunId(name) for name in ("a", "b", "c")]
    store.register(an_owner(), LEASE_S)
    with psycopg.connect(postgres_url) as holder:
        holder.execute("SELECT id FROM run WHERE id = 'b' FOR UPDATE")

        runs = store.claim_runs(ids, an_owner())

    assert [run.id for run in runs] == ["a", "c"]
    assert [run.id for run in store.claim_runs(ids, an_owner())] == ["b"]
    store.close()


def test_coordinators_that_race_for_many_runs_take_each_once(postgres_url: str) -> None:
    stores = [open_run_store(postgres_url) for _ in range(4)]
    ids = [RunId(f"run-{number:02}") for number in range(20)]
    for run_id in ids:
        created(stores[0], run_id)
    claims: list[RunId] = []
    barrier = threading.Barrier(len(stores))

    def claim(number: int, store: SqlRunStore) -> None:
        me = an_owner(f"c{number}")
        store.register(me, LEASE_S)
        barrier.wait()
        while any(store.get_run(run_id).owner is None for run_id in ids):
            claims.extend(run.id for run in store.claim_runs(ids, me))

    threads = [threading.Thread(target=claim, args=pair) for pair in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claims) == ids
    assert {stores[0].get_run(run_id).epoch for run_id in ids} == {1}
    for store in stores:
        store.close()


def test_coordinators_that_race_for_runs_take_each_once(postgres_url: str) -> None:
    stores = [open_run_store(postgres_url) for _ in range(4)]
    names = [f"run-{number}" for number in range(20)]
    for name in names:
        created(stores[0], name)
    claims: list[object] = []

    def claim(number: int, store: SqlRunStore) -> None:
        me = an_owner(f"c{number}")
        store.register(me, LEASE_S)
        for name in names:
            claims.append(store.claim_run(RunId(name), me))

    threads = [threading.Thread(target=claim, args=pair) for pair in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(run is not None for run in claims) == len(names)
    assert {stores[0].get_run(RunId(name)).epoch for name in names} == {1}
    for store in stores:
        store.close()


def test_blobs_are_never_condemned_and_referred_to_at_once(postgres_url: str) -> None:
    """Whoever is second sees the first: the mark, or the reference."""
    first, second = open_run_store(postgres_url), open_run_store(postgres_url)
    outcomes: list[tuple[bool, bool]] = []

    for number in range(20):
        plan = a_plan(f"p{number}", f"b{number}")
        results: dict[str, bool] = {}
        barrier = threading.Barrier(2)

        def refer(plan: Any = plan, results: Any = results, barrier: Any = barrier) -> None:
            barrier.wait()
            try:
                first.create_run(a_run(f"r-{plan.digest}", plan=plan), plan)
                results["referred"] = True
            except StoreUnavailable:
                results["referred"] = False

        def condemn(plan: Any = plan, results: Any = results, barrier: Any = barrier) -> None:
            barrier.wait()
            results["condemned"] = bool(second.condemn(plan.blobs))

        threads = [threading.Thread(target=work) for work in (refer, condemn)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcomes.append((results["referred"], results["condemned"]))

    assert (True, True) not in outcomes
    first.close()
    second.close()


def test_a_database_without_a_store_is_not_made_into_one_unasked(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="no store"):
        open_run_store(postgres_url, create=False)


# --- a server that says nothing ---------------------------------------------------------------
@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_database, "SILENT_S", 1.0)
    monkeypatch.setattr(postgres_database, "SILENT_BEAT_S", 0.3)


@pytest.mark.usefixtures("impatient")
def test_commit_to_a_server_that_says_nothing_is_made_once_when_it_speaks_again(
    store: SqlRunStore, direct: SqlRunStore, proxy: FaultyProxy
) -> None:
    run = claimed(store)
    proxy.cut()
    mending = threading.Timer(2.0, proxy.mend)
    mending.start()

    report = store.commit([by(run, a_step("run", "s"))])

    mending.join()
    assert report.committed == {_RUN: 3}
    assert [step.step_id for step in direct.list_steps(_RUN)] == ["s"]


@pytest.mark.usefixtures("impatient")
def test_renewal_to_a_server_that_says_nothing_ends_in_time_to_be_tried_again(
    store: SqlRunStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed(store)
    monkeypatch.setattr(postgres_database, "CONNECT_S", 2)
    store.renew(an_owner(), LEASE_S)
    proxy.cut()
    begun = time.monotonic()

    with pytest.raises(StoreUnavailable):
        store.renew(an_owner(), LEASE_S)
    took_s = time.monotonic() - begun
    proxy.mend()

    assert store.renew(an_owner(), LEASE_S)
    assert took_s < LEASE_S


def test_threads_share_a_few_connections(postgres_url: str) -> None:
    store = open_run_store(postgres_url)
    created(store)
    most: list[int] = []
    mine = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"

    def read() -> None:
        for _ in range(3):
            store.get_run(_RUN)
            most.append(store.database.read(lambda t: t._connection.execute(mine).fetchone()[0]))

    before = store.database.read(lambda t: t._connection.execute(mine).fetchone()[0])
    threads = [threading.Thread(target=read) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(most) == 120
    assert max(most) - before <= postgres_database.POOL_SIZE + postgres_database.POOL_MORE
    store.close()


def test_commits_are_on_the_disk_though_the_server_would_not_wait_for_it(
    postgres_url: str, postgres_server: str
) -> None:
    lazy = postgres_url.replace("options=", "options=-csynchronous_commit%3Doff%20")
    store = open_run_store(lazy)
    created(store)

    said: list[str] = []
    asked = "SHOW synchronous_commit"
    store.database.write(lambda t: said.append(t._connection.execute(asked).fetchone()[0]))

    assert said == ["on"]
    store.close()
