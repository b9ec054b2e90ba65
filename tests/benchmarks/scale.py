"""What runs cost a store: rows, bytes, transactions, statements, and requests to S3, a run.

    python -m tests.benchmarks.scale                        SQLite, and values in a bucket
    python -m tests.benchmarks.scale postgresql://...       the same on a server

Records and drives runs of one shape, as many again as before, and counts what the second half has
added: so what a new store takes once is not counted. Counts, not times: no load changes them. Then
gc removes all runs, and what that takes is counted too. Needs moto[server] and s3fs.
"""

from __future__ import annotations

import argparse
import logging
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.s3 import FaultyS3, make_bucket

from perdure import task, workflow
from perdure.client import Perdure, open_store
from perdure_storage.database import Transaction
from perdure_storage.postgres_database import PostgresDatabase
from perdure_storage.sqlite_database import SqliteDatabase
from perdure_storage.tables import metadata

STEPS = 5
LARGE_BYTES = 100_000


@task
def add(x: int) -> int:
    """Return one more."""
    return x + 1


@task
def make(n: int) -> bytes:
    """Return a value that is too large for a row, another one for each ``n``."""
    return n.to_bytes(8, "big") * (LARGE_BYTES // 8)


@task
def size(data: bytes) -> int:
    """Return how long it is."""
    return len(data)


@workflow
def small(n: int) -> int:
    """Five steps one after the other, each with a value that fits into its row."""
    value: Any = n
    for _ in range(STEPS):
        value = add.bind(value)
    return value  # type: ignore[no-any-return]


@workflow
def large(n: int) -> int:
    """Two steps, the first of which has a value of 100 KB of its own."""
    return size.bind(make.bind(n))


@dataclass
class Counts:
    """What has been counted so far."""

    seen: Counter[str]

    def wrap(self, patch: pytest.MonkeyPatch, kind: type, name: str, what: str) -> None:
        """Count the calls of a method."""
        original = getattr(kind, name)

        def counted(*arguments: Any, **more: Any) -> Any:
            self.seen[what] += 1
            return original(*arguments, **more)

        patch.setattr(kind, name, counted)


@contextmanager
def counting() -> Iterator[Counts]:
    """Count transactions and statements of this process meanwhile."""
    counts = Counts(Counter())
    with pytest.MonkeyPatch.context() as patch:
        counts.wrap(patch, SqliteDatabase, "_transact", "transactions that write")
        counts.wrap(patch, PostgresDatabase, "_write_once", "transactions that write")
        counts.wrap(patch, PostgresDatabase, "_write_ahead_once", "transactions that write")
        for name in ("run", "rows", "stream", "insert", "ask", "notify"):
            counts.wrap(patch, Transaction, name, "statements")
        yield counts


class Sizes:
    """Looks at the database itself, beside perdure."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._is_postgres = store.startswith("postgresql://")
        url = store.replace("postgresql://", "postgresql+psycopg://")
        self._engine = sa.create_engine(url if self._is_postgres else f"sqlite:///{store}")

    def of(self) -> Counter[str]:
        """Return rows by table, and bytes."""
        found: Counter[str] = Counter()
        with self._engine.connect() as connection:
            for table in metadata.sorted_tables:
                count = sa.select(sa.func.count()).select_from(table)
                found[f"rows of {table.name}"] = connection.execute(count).scalar_one()
            if self._is_postgres:
                names = [table.name for table in metadata.sorted_tables]
                sized = sa.text(
                    "SELECT sum(pg_total_relation_size(c)) FROM unnest(:t ::regclass[]) c"
                )
                found["bytes"] = int(connection.execute(sized, {"t": names}).scalar_one())
        if not self._is_postgres:
            with sqlite3.connect(self._store) as raw:
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                pages = raw.execute("PRAGMA page_count").fetchone()[0]
                free = raw.execute("PRAGMA freelist_count").fetchone()[0]
                found["bytes"] = (pages - free) * raw.execute("PRAGMA page_size").fetchone()[0]
        return found


def cost_of(flow: Any, runs: int, client: Perdure, sizes: Sizes, seen: list[str]) -> Counter[str]:
    """Return what so many runs have added, after as many of before."""

    def drive(first: int) -> None:
        for n in range(first, first + runs):
            client.run(flow, n=n, run_id=f"{flow.name}-{n:07}")

    drive(0)
    before = sizes.of()
    del seen[:]
    with counting() as counts:
        drive(runs)
    added = sizes.of()
    added.subtract(before)
    found = Counter({name: count for name, count in added.items() if count})
    found.update(counts.seen)
    found.update(f"{method} requests" for method in _methods(seen))
    return found


def _methods(seen: list[str]) -> list[str]:
    return [line.split()[0] for line in seen]


def measure(store: str, runs: int) -> dict[str, Counter[str]]:
    """Return what runs of each shape cost, and what it costs to remove as many."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = FaultyS3(f"http://{host}:{port}")
    try:
        with pytest.MonkeyPatch.context() as patch:
            bucket = make_bucket(proxy.url, patch)
            sizes, found = Sizes(store), {}
            with open_store(store, blobs=bucket, executor="inline") as client:
                for flow in (small, large):
                    found[flow.name] = cost_of(flow, runs, client, sizes, proxy.seen)
                del proxy.seen[:]
                with counting() as counts:
                    client.gc(keep_last=0, grace="0s")
            # gc took what was counted, and as many runs that came before, of both shapes
            each = Counter({what: count / 4 for what, count in counts.seen.items()})
            each.update({f"{m} requests": n / 4 for m, n in Counter(_methods(proxy.seen)).items()})
            found["gc"] = each
            return found
    finally:
        proxy.close()
        server.stop()


def main() -> None:
    """Count, and print a table: what a run costs, and a million of them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", nargs="?", help="PostgreSQL URL; default: a new SQLite file")
    parser.add_argument("--runs", type=int, default=500, help="so many are counted (default: 500)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = asked.store or str(Path(folder, "perdure.db"))
        found = measure(store, asked.runs)
    for name, counts in found.items():
        print(f"\n**{name}**, {asked.runs} runs\n")
        print("| what | a run | 1,000,000 runs |\n|---|---|---|")
        for what, count in sorted(counts.items()):
            each = count / asked.runs
            print(f"| {what} | {each:.4g} | {each * 1_000_000:,.0f} |")


if __name__ == "__main__":
    main()
