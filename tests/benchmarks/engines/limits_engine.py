"""What the machine allows: the same rows, bytes and work without any engine around them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

from common import Figures, main

ROWS = "SELECT * FROM step ORDER BY run_id, seq"


def _rows(name: str, size: int, folder: Path, rows_a_commit: int) -> Figures:
    """Write the rows of perdure's run of this workload, with the same durability."""
    made, target = folder / "made", folder / "raw.db"
    made.mkdir()
    _perdure(name, size, made)
    source = sqlite3.connect(made / "perdure.db")
    ddl = source.execute("SELECT sql FROM sqlite_master WHERE name IN ('step', 'ix_step_current')")
    tables = [sql.replace('FOREIGN KEY("run_id") REFERENCES "run" ("id")', "") for (sql,) in ddl]
    rows = iter(source.execute(ROWS).fetchall())
    with sqlite3.connect(target) as database:
        database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        database.executescript(";".join(tables))
    database = sqlite3.connect(target)
    database.execute("PRAGMA synchronous = FULL")
    begin = time.perf_counter()
    while due := list(islice(rows, rows_a_commit)):
        places = ", ".join("?" * len(due[0]))
        database.executemany(f"INSERT INTO step VALUES ({places})", due)
        database.commit()
    return {"seconds": time.perf_counter() - begin}


def _perdure(name: str, size: int, folder: Path) -> None:
    """Let perdure run a workload into a folder."""
    engine = Path(__file__).with_name("perdure_engine.py")
    environ = {**os.environ, "ENGINE_EXECUTOR": "inline"}
    environ.pop("ENGINE_POSTGRES", None)
    command = [sys.executable, str(engine), name, str(size), str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr, env=environ)


def chain(size: int, folder: Path) -> Figures:
    return _rows("W1", size, folder, 1)


def fan_out(size: int, folder: Path) -> Figures:
    return _rows("W2", size, folder, 1000)


def many_runs(size: int, folder: Path) -> Figures:
    """Five rows a run, each in a commit of its own for a whole row of runs."""
    return _rows("W3", size, folder, size)


def large(size: int, folder: Path) -> Figures:
    """Write and sync bytes that lie in memory, as the value of a step does."""
    data = memoryview(os.urandom(1 << 20) * size)
    begin = time.perf_counter()
    with open(folder / "large", "wb") as file:
        for at in range(0, len(data), 1 << 20):
            file.write(data[at : at + (1 << 20)])
        file.flush()
        os.fsync(file.fileno())
    return {"seconds": time.perf_counter() - begin}


def cold(size: int, folder: Path) -> Figures:
    """Start an interpreter that commits one row to a new database."""
    program = (
        "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]);"
        "d.executescript('PRAGMA journal_mode = WAL; CREATE TABLE t (a)');"
        "d.execute('INSERT INTO t VALUES (42)'); d.commit()"
    )
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, str(folder / "cold.db")], check=True)
    return {"seconds": time.perf_counter() - begin}


def started_again(size: int, folder: Path) -> Figures:
    """Start an interpreter that reads the rows of half of such a run, all of them."""
    made = folder / "made"
    made.mkdir()
    _perdure("W2", size // 2, made)  # the rows are alike, and sooner made
    program = (
        "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]);"
        "assert len(d.execute('SELECT * FROM step').fetchall()) > 0"
    )
    command = [sys.executable, "-c", program, str(made / "perdure.db")]
    begin = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "first_new_step_s": seconds}


def spread(size: int, folder: Path) -> Figures:
    """The same work by as many processes as there are CPUs, each of which has its share."""
    count = os.cpu_count() or 1
    program = "import sys, common; [common.burn() for _ in range(int(sys.argv[1]))]"
    words = [sys.executable, "-c", program, str(-(-size // count))]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    begin = time.perf_counter()
    workers = [subprocess.Popen(words, env=environ) for _ in range(count)]
    codes = [worker.wait() for worker in workers]
    if any(codes):
        raise SystemExit("a process failed")
    return {"seconds": time.perf_counter() - begin}


def asleep(size: int, folder: Path) -> Figures:
    """A process that looks ten times a second whether a database has changed."""
    program = (
        "import sqlite3, sys, time\n"
        "d = sqlite3.connect(sys.argv[1])\n"
        "for _ in range(50): d.execute('PRAGMA data_version').fetchone(); time.sleep(0.1)\n"
        "print(time.process_time())"
    )
    command = [sys.executable, "-c", program, str(folder / "idle.db")]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"seconds": 0.1, "idle_cpu_share": float(ended.stdout) / 5.0}


def synced(size: int, folder: Path) -> Figures:
    """Append 4 KiB to a file and sync it, time after time: the least that a durable step takes."""
    with open(folder / "log", "wb", buffering=0) as file:
        begin = time.perf_counter()
        for _ in range(size):
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
        return {"seconds": time.perf_counter() - begin}


def round_trips(size: int, folder: Path) -> Figures:
    """Send 64 bytes to a process and have them back, time after time: the least for a worker."""
    program = "import os\nwhile data := os.read(0, 64): os.write(1, data)"
    command = [sys.executable, "-c", program]
    echo = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    with echo:
        assert echo.stdin is not None
        assert echo.stdout is not None
        there, back = echo.stdin.fileno(), echo.stdout.fileno()
        os.write(there, bytes(64))
        os.read(back, 64)  # it has started
        begin = time.perf_counter()
        for _ in range(size):
            os.write(there, bytes(64))
            os.read(back, 64)
        seconds = time.perf_counter() - begin
        echo.stdin.close()
    return {"seconds": seconds}


if __name__ == "__main__":
    main(
        {
            "fsync": synced,
            "pipe": round_trips,
            "W1": chain,
            "W2": fan_out,
            "W3": many_runs,
            "W4": large,
            "W5": started_again,
            "W6": cold,
            "W7": spread,
            "W9": asleep,
        },
        {"store": "SQLite, WAL, synchronous=FULL"},
    )
