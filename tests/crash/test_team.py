"""Hosts that share a PostgreSQL: who dies, stops or is cut off loses nothing, doubles nothing."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.crash import busy_steps, steps
from tests.crash.hosts import LEASE_S, Host, Team, need_hosts
from tests.crash.ledger import Undisturbed, check, check_nothing_is_left, wait_until
from tests.crash.stage import Stage
from tests.crash.steps import text_of
from tests.faulty_proxy import SOCKET
from tests.postgres import Server, empty_schema
from tests.reliability.figures import tell_figures

from perdure.client import Perdure
from perdure_storage.connect import open_run_store
from perdure_storage.records import RunId, RunRecord

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

RUN = "held"
DROPS = int(os.environ.get("PERDURE_TEST_DROPS", "20"))
DROPS_SEED = int(os.environ.get("PERDURE_TEST_DROPS_SEED", "1"))
GRAPH_STEPS = 25
TAKEOVERS = int(os.environ.get("PERDURE_TEST_TAKEOVERS", "1"))
"""Hosts that die, one after the other."""
STOPS = int(os.environ.get("PERDURE_TEST_STOPS", "1"))
"""How often a holder is stopped past its lease, or cut off, in each of the ways."""
WITHIN_S = 2.0
"""How long after a lease is over its run has a new owner, at the latest."""
OUTAGE_S = LEASE_S + 1.0


@pytest.fixture
def team(tmp_path: Path, own_postgres: Server) -> Iterator[Team]:
    """Yield a store on a server of its own, and no hosts yet."""
    need_hosts()
    with empty_schema(own_postgres.url) as url:
        made = Team(Stage(tmp_path, url), own_postgres.socket)
        yield made
        made.end()
        check_nothing_is_left(made.stage.ledger)


@pytest.fixture
def client(team: Team) -> Iterator[Perdure]:
    with team.stage.open() as client:
        yield client


def begin_slowly(team: Team, client: Perdure, host: Host) -> None:
    """Let a host begin a step that goes on until the test lets it end."""
    client.submit(busy_steps.slowly, run_id=RUN)
    host.serve()
    wait_until(lambda: began(team) == 1, 30, "the step did not begin")


def began(team: Team) -> int:
    return team.stage.ledger.count("slow")


def release(team: Team, attempt: int) -> None:
    """Let an attempt of the slow step end."""
    (team.stage.folder / f"release-{attempt}").touch()


def finish(client: Perdure) -> RunRecord:
    wait_until(lambda: client.get_run(RUN).status == "SUCCEEDED", 60, "it does not end")
    assert client.get_run(RUN).result() == text_of([text_of(1)])
    return client.get_run(RUN).record


def check_first_attempt_stands(team: Team, client: Perdure) -> None:
    """Say whether the step ran once, under its first owner."""
    record = finish(client)
    assert (began(team), record.epoch, record.takeovers) == (1, 1, 0)
    assert client.get_run(RUN)["slow"].row.attempt == 1  # type: ignore[union-attr]


def check_second_attempt_stands(team: Team, client: Perdure) -> None:
    """Say whether the second owner's result is the only one."""
    record = finish(client)
    assert (began(team), record.epoch) == (2, 2)
    assert client.get_run(RUN)["slow"].row.attempt == 2  # type: ignore[union-attr]
    assert client.get_run(RUN)["slow"].attempts[0].cause == "abandoned"


# --- death --------------------------------------------------------------------------------------
def test_runs_of_a_host_that_dies_have_another_owner_soon_after_its_lease(
    team: Team, client: Perdure
) -> None:
    waits = []
    holder = team.host("host-0")
    holder.serve()

    for number in range(1, TAKEOVERS + 1):
        run = client.submit(busy_steps.slowly, run_id=f"{RUN}-{number}")
        wait_until(lambda: began(team) == 2 * number - 1, 30, "the step did not begin")  # noqa: B023
        other = team.host(f"host-{number}")
        other.serve()
        wait_until(lambda: serving(client) == 2, 30, "the other one does not serve")
        holder.die()
        died_at = client.runtime.clock.now()
        wait_until(lambda: began(team) == 2 * number, 30, "nobody took the run over")  # noqa: B023
        (taken,) = [event for event in run.events() if event.kind == "taken over"]
        assert taken.detail["host"] == other.name
        waits.append((taken.at - died_at).total_seconds())
        release(team, 2)
        wait_until(lambda: run.status == "SUCCEEDED", 30, "it does not end")  # noqa: B023
        (team.stage.folder / "release-2").unlink()
        holder = other

    holder.end()
    assert max(waits) <= LEASE_S + WITHIN_S
    waits.sort()
    print(
        f"{TAKEOVERS} takeovers from a host that died, lease {LEASE_S:g} s: median "
        f"{waits[len(waits) // 2]:.2f} s, longest {waits[-1]:.2f} s"
    )


def serving(client: Perdure) -> int:
    return sum(alive for _, alive in client.runtime.store.coordinators())


# --- a holder that is stopped, or cut off -------------------------------------------------------
@pytest.mark.parametrize("_round", range(STOPS))
def test_host_that_was_stopped_past_its_lease_commits_nothing_when_it_wakes(
    team: Team, client: Perdure, _round: int
) -> None:
    holder, other = team.host("holder"), team.host("other")
    begin_slowly(team, client, holder)
    holder.send(signal.SIGSTOP)
    release(team, 1)  # its worker ends the step, and nobody hears
    wait_until(lambda: team.stage.ledger.count("slow", "ended") == 1, 30, "it did not end")

    other.serve()
    wait_until(lambda: began(team) == 2, 30, "nobody took the run over")
    holder.send(signal.SIGCONT)
    release(team, 2)

    check_second_attempt_stands(team, client)
    holder.end()
    other.end()


@pytest.mark.parametrize("_round", range(STOPS))
def test_stale_attempts_of_a_host_that_was_stopped_end_soon_after_it_wakes(
    team: Team, client: Perdure, _round: int
) -> None:
    holder, other = team.host("holder"), team.host("other")
    begin_slowly(team, client, holder)
    holder.send(signal.SIGSTOP)
    other.serve()
    wait_until(lambda: began(team) == 2, 30, "nobody took the run over")

    holder.send(signal.SIGCONT)
    woken = time.monotonic()
    wait_until(lambda: not holder.workers(), 10, "its attempt goes on")
    print(f"the stale attempt was gone {time.monotonic() - woken:.2f} s after its host woke")
    release(team, 2)

    check_second_attempt_stands(team, client)
    holder.end()
    other.end()


@pytest.mark.parametrize("_round", range(STOPS))
def test_host_that_is_cut_off_past_its_lease_commits_nothing(
    team: Team, client: Perdure, _round: int
) -> None:
    holder, other = team.host("holder"), team.host("other")
    begin_slowly(team, client, holder)
    other.serve()
    holder.door.cut()
    wait_until(lambda: began(team) == 2, 30, "nobody took the run over")
    release(team, 1)
    wait_until(lambda: team.stage.ledger.count("slow", "ended") == 1, 30, "it did not end")

    holder.door.mend()
    wait_until(lambda: serving(client) == 2, 30, "it does not come back")
    release(team, 2)

    check_second_attempt_stands(team, client)
    holder.end()
    other.end()


def test_host_that_is_cut_off_for_a_while_goes_on_where_nobody_took_its_run(
    team: Team, client: Perdure
) -> None:
    holder = team.host("holder")
    begin_slowly(team, client, holder)
    holder.door.cut()
    release(team, 1)
    wait_until(lambda: team.stage.ledger.count("slow", "ended") == 1, 30, "it did not end")
    wait_until(lambda: serving(client) == 0, 30, "its lease does not end")

    holder.door.mend()

    check_first_attempt_stands(team, client)
    holder.end()


# --- the database goes away ---------------------------------------------------------------------
def restarted(server: Server) -> None:
    server.stop()
    threading.Event().wait(OUTAGE_S)
    server.start()


def crashed(server: Server) -> None:
    server.stop("immediate")
    threading.Event().wait(OUTAGE_S)
    server.start()


def frozen(server: Server) -> None:
    server.freeze()
    threading.Event().wait(OUTAGE_S)
    server.thaw()


@pytest.mark.parametrize("happens", [restarted, crashed, frozen])
def test_outage_of_the_database_that_is_longer_than_a_lease_ends_no_step(
    team: Team, client: Perdure, own_postgres: Server, happens: Callable[[Server], None]
) -> None:
    hosts = [team.host("one"), team.host("two")]
    begin_slowly(team, client, hosts[0])
    hosts[1].serve()
    wait_until(lambda: serving(client) == 2, 30, "the other one does not serve")

    happens(own_postgres)
    back_at = time.monotonic()
    wait_until(lambda: serving(client) == 2, 30, "they do not come back")
    print(f"both hold their leases {time.monotonic() - back_at:.2f} s after the outage")
    release(team, 1)

    check_first_attempt_stands(team, client)
    for host in hosts:
        host.end()


def test_step_that_ends_while_the_database_is_away_is_committed_when_it_is_back(
    team: Team, client: Perdure, own_postgres: Server
) -> None:
    host = team.host("one")
    begin_slowly(team, client, host)

    own_postgres.stop()
    release(team, 1)
    wait_until(lambda: team.stage.ledger.count("slow", "ended") == 1, 30, "it did not end")
    own_postgres.start()

    check_first_attempt_stands(team, client)
    host.end()


@pytest.mark.timeout(120 + DROPS)
def test_connections_that_break_around_commits_lose_nothing_and_double_nothing(
    team: Team, client: Perdure
) -> None:
    rng = random.Random(DROPS_SEED)
    host = team.host("one")
    host.serve(lease_s=10.0)
    wait_until(lambda: serving(client) == 1, 30, "it does not serve")
    door, seeds = host.door, []
    faults = {
        "before COMMIT": door.slam_before_commit,
        "after COMMIT": door.slam_after_commit,
        "all at once": None,
    }
    done = dict.fromkeys(faults, 0)
    for _ in range(DROPS):
        live = [seed for seed in seeds if client.get_run(f"r-{seed}").status != "SUCCEEDED"]
        if not live:
            seeds.append(rng.randrange(1 << 30))
            client.submit(
                steps.random_graph, seed=seeds[-1], size=GRAPH_STEPS, run_id=f"r-{seeds[-1]}"
            )
        kind = rng.choice(list(faults))
        door.slammed.clear()
        if (fault := faults[kind]) is None:
            door.drop_all()
            door.slammed.set()
        else:
            fault.set()
        # The coordinator commits whenever a step ends; where none is left the next run brings one.
        done[kind] += door.slammed.wait(2.0)
    door.slam_before_commit.clear()
    door.slam_after_commit.clear()

    for seed in seeds:
        run_id = f"r-{seed}"
        wait_until(lambda: client.get_run(run_id).status == "SUCCEEDED", 60, "it does not end")  # noqa: B023
        expected = client.execute(steps.random_graph, seed=seed, size=GRAPH_STEPS)
        rows = client.runtime.store.list_steps(RunId(run_id))
        digests = {row.step_id: row.value.value_digest for row in rows if row.value is not None}
        check(team.stage.ledger, client, run_id, Undisturbed(expected, digests))
        assert client.get_run(run_id).record.epoch == 1, "a connection that broke cost it its owner"
    host.end()
    print(f"{done} connections dropped in {len(seeds)} runs of {GRAPH_STEPS} steps")
    tell_figures(drops=sum(done.values()))


def test_server_that_may_lose_commits_is_warned_of(
    own_postgres: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with empty_schema(own_postgres.url) as url, psycopg.connect(url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET full_page_writes = off")
        admin.execute("SELECT pg_reload_conf()")
        wait_until(
            lambda: admin.execute("SHOW full_page_writes").fetchone() == ("off",), 10, "it is on"
        )

        open_run_store(url).close()

        admin.execute("ALTER SYSTEM RESET full_page_writes")
        admin.execute("SELECT pg_reload_conf()")
    assert "full_page_writes = off" in caplog.text
    assert "ALTER SYSTEM SET full_page_writes = on" in caplog.text


def test_sockets_of_servers_are_where_the_doors_look_for_them(own_postgres: Server) -> None:
    assert own_postgres.socket.name == SOCKET
    assert own_postgres.socket.exists()
