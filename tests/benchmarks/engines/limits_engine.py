"""What the machine allows: the same rows, bytes and work without any engine around them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

from common import Figures, burn, main

ROWS = "SELECT * FROM step ORDER BY run_id, seq"


def _rows(name: str, size: int, folder: Path, rows_a_commit: int) -> Figures:
    """Write the rows of perdure's run of this workload, with the same durability."""
    made, target = folder / "made", folder / "raw.db"
    made.mkdir()
    engine = Path(__file__).with_name("perdure_engine.py")
    environ = {**os.environ, "ENGINE_EXECUTOR": "inline"}
    environ.pop("ENGINE_POSTGRES", None)
    command = [sys.executable, str(engine), name, str(size), str(made)]
    subprocess.run(command, check=True, capture_output=True, env=environ)
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


def chain(size: int, folder: Path) -> Figures:
    return _rows("W1", size, folder, 1)


def fan_out(size: int, folder: Path) -> Figures:
    return _rows("W2", size, folder, 1000)


def many_runs(size: int, folder: Path) -> Figures:
    """Five rows a run, each in a commit of its own for a whole row of runs."""
    return _rows("W3", size, folder, size)


def large(size: int, folder: Path) -> Figures:
    """Write and sync the bytes, and map them."""
    block = os.urandom(1 << 20)
    begin = time.perf_counter()
    with open(folder / "large", "wb") as file:
        for _ in range(size):
            file.write(block)
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


def spread(size: int, folder: Path) -> Figures:
    """The work of all steps on the CPUs that there are, but for one step of it."""
    begin = time.perf_counter()
    burn()
    return {"seconds": (time.perf_counter() - begin) * size / (os.cpu_count() or 1)}


if __name__ == "__main__":
    main(
        {
            "W1": chain,
            "W2": fan_out,
            "W3": many_runs,
            "W4": large,
            "W6": cold,
            "W7": spread,
        },
        {"store": "SQLite, WAL, synchronous=FULL"},
    )
