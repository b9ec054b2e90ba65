"""A store full of schedules through a month: how fast ticks are decided, what lists take, its size.

``python -m tests.benchmarks.schedules [SCHEDULES] [SPAN] [--full] [--dense=1m] [--each=12h]
[--keep-last=N] [--keep-runs=1d]``: SCHEDULES schedules of each 10 s over a new SQLite file, with a
clock by hand. Once each EACH of SPAN the ticks of DENSE are decided one by one, each with its run,
which a stub ends; what lies between is leapt over as if nobody had served, so that all its ticks
are one row of each schedule in the ledger, and one that is caught up. Ticks are forgotten as
``perdure up`` does it, runs deleted as by ``perdure gc``, once each EACH. With ``--full`` the
ledger has from the beginning as many ticks of each schedule as are ever kept: all that a month
leaves of its 260,000 a schedule. Prints a line a figure, and at the end what the commands take,
each in a process of its own.
"""

from __future__ import annotations

import argparse
import logging
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perdure import retention
from perdure.cli.schedule_views import view_detail, view_schedules, view_ticks
from perdure.runtime import Runtime
from perdure.settings import KEEP_TICKS_LAST, load_settings
from perdure_scheduler.declaration import declared
from perdure_scheduler.definition import Definition, RunTemplate
from perdure_scheduler.dispatcher import Dispatcher
from perdure_scheduler.durations import duration
from perdure_scheduler.registry import Registry
from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import an_owner, built, by
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunEnd, RunId, RunQuery
from perdure_storage.schedule_records import ScheduleChange, ScheduleQuery, TickRecord

EVERY = timedelta(seconds=10)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = 500
"""Runs that the stub ends in one transaction."""


class Month:
    """The store, who works on it, and how long each kind of work took."""

    def __init__(self, folder: Path, keep_last: int, keep_runs: timedelta) -> None:
        self.clock = ManualClock(BEGIN)
        settings = load_settings(
            store=str(folder / "perdure.db"), blobs=str(folder / "blobs"), keep_ticks_last=keep_last
        )
        self.runtime = Runtime(settings, self.clock)
        self.store = self.runtime.store
        self.path = folder / "perdure.db"
        self.dispatcher = Dispatcher(self.store, self.runtime.values, self.clock)
        self.keep_last = keep_last
        self.policy = retention.Policy(keep=keep_runs)
        self.took: defaultdict[str, float] = defaultdict(float)
        self.done: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.took[what] += time.perf_counter() - began

    def register(self, number: int) -> None:
        registry = Registry(self.store.schedules, self.runtime.values, self.clock)
        run = RunTemplate(workflow="seed", origin="flows:seed")
        with self.timed("registered"):
            for each in range(number):
                times = declared(f"schedule-{each:05}", interval=EVERY)
                registry.register(Definition(schedule=times, run=run))
        self.done["registered"] = number

    def fill(self) -> None:
        """Write as many ticks of each schedule as are kept, as they were decided before."""
        with self.timed("tick of before"):
            for record in self.store.schedules.list_schedules(ScheduleQuery(limit=100_000)):
                ticks = tuple(
                    TickRecord(
                        schedule=record.name,
                        at=at,
                        decision="fire",
                        why="on time",
                        reason="on time",
                        decided_at=at,
                        run_id=RunId(f"{record.name}-{at:%Y-%m-%dT%H-%M-%S}Z"),
                        code="flows:seed",
                    )
                    for at in (BEGIN - EVERY * back for back in range(self.keep_last, 0, -1))
                )
                self.store.schedules.fire([ScheduleChange(schedule=record, ticks=ticks)])
                self.done["tick of before"] += len(ticks)

    def pass_by(self, length: timedelta, kind: str) -> None:
        """Let some time pass, decide what is due then, and end its runs."""
        self.clock.jump(length.total_seconds())
        made: list[RunId] = []
        with self.timed(kind):
            while (told := self.dispatcher.dispatch()).landed:
                made += told.made
                self.done[kind] += told.ticks
        with self.timed("run ended by the stub"):
            self.store.register(an_owner(), 1e9)
            for first in range(0, len(made), AT_ONCE):
                self._end(made[first : first + AT_ONCE])
        self.done["run ended by the stub"] += len(made)

    def _end(self, ids: list[RunId]) -> None:
        plans = dict.fromkeys(ids, built())
        runs = self.store.claim_runs(ids, an_owner(), built=plans)
        self.store.commit([by(run, end=RunEnd(status=RunStatus.SUCCEEDED)) for run in runs])

    def forget(self) -> None:
        with self.timed("tick forgotten"):
            self.done["tick forgotten"] += retention.ledger_of(self.runtime).sweep()
        with self.timed("run deleted"):
            work = retention._Collection(self.runtime, self.policy, 3600.0)
            self.done["run deleted"] += sum(map(work.delete, work.choose_runs()))

    # --- what it came to ----------------------------------------------------------------------
    def lists(self) -> dict[str, float]:
        """Return how long each of the lists takes, in seconds."""
        schedules = self.store.schedules
        records = schedules.list_schedules(ScheduleQuery(limit=100_000))
        name = records[len(records) // 2].name
        asked = {
            "schedule ls": lambda: view_schedules(self.runtime, records),
            "schedule show": lambda: view_detail(self.runtime, schedules.get_schedule(name)),
            "schedule ticks": lambda: view_ticks(self.runtime, name, UTC, limit=100),  # type: ignore[arg-type]
            "ls": lambda: self.store.list_runs(RunQuery(limit=100)),
            "ls --schedule": lambda: self.store.list_runs(RunQuery(schedule=name, limit=100)),
        }
        took = {}
        for verb, ask in asked.items():
            began = time.perf_counter()
            ask()
            took[verb] = time.perf_counter() - began
        return took

    def commands(self) -> dict[str, float]:
        """Return how long lists take that somebody asks for at the command line, in seconds."""
        schedules = self.store.schedules
        name = schedules.list_schedules(ScheduleQuery(limit=1))[0].name
        took = {}
        for verb in ("schedule ls", f"schedule show {name}", f"schedule ticks {name}", "ls"):
            command = [sys.executable, "-m", "perdure", *verb.split(), f"--store={self.path}"]
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took[verb] = time.perf_counter() - began
        return took

    def rows(self) -> tuple[int, int, float]:
        """Return how many ticks and runs there are, and the size of the database in MB."""
        with sqlite3.connect(self.path) as connection:
            ticks, runs = (
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("tick", "run")
            )
        connection.close()
        files = self.path.parent.glob(f"{self.path.name}*")
        return ticks, runs, sum(file.stat().st_size for file in files) / 1e6


def main(
    number: int,
    span: timedelta,
    is_full: bool,
    dense: timedelta,
    each: timedelta,
    keep_last: int,
    keep_runs: timedelta,
) -> None:
    """Live through a span of time, and print what it took."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        month = Month(Path(folder), keep_last, keep_runs)
        month.register(number)
        if is_full:
            month.fill()
            report(month)
        end = BEGIN + span
        told = 0
        while month.clock.now() < end:
            for _ in range(dense // EVERY):
                month.pass_by(EVERY, "tick on time")
            month.pass_by(
                each - dense, "row of ticks that nobody decided in time, or tick caught up"
            )
            month.forget()
            passed = (month.clock.now() - BEGIN) * 10 // span
            if passed > told:
                told = passed
                report(month)
        print()
        for what, seconds in month.took.items():
            count = month.done[what]
            print(f"{what}: {count:,}, {seconds / max(count, 1) * 1e3:.2f} ms each")
        for verb, seconds in month.commands().items():
            print(f"perdure {verb}: {seconds:.2f} s")
        month.runtime.close()


def report(month: Month) -> None:
    """Print how large the store is and how long its lists take."""
    ticks, runs, size_mb = month.rows()
    took = ", ".join(f"{verb} {seconds:.3f} s" for verb, seconds in month.lists().items())
    day = (month.clock.now() - BEGIN) / timedelta(days=1)
    print(f"day {day:.1f}: {ticks:,} ticks, {runs:,} runs, {size_mb:.0f} MB; {took}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int, nargs="?", default=1000)
    parser.add_argument("span", nargs="?", default="30d")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--dense", default="1m")
    parser.add_argument("--each", default="12h")
    parser.add_argument("--keep-last", type=int, default=KEEP_TICKS_LAST)
    parser.add_argument("--keep-runs", default="1d")
    asked = parser.parse_args()
    main(
        asked.number,
        duration(asked.span, what="SPAN"),
        asked.full,
        duration(asked.dense, what="--dense"),
        duration(asked.each, what="--each"),
        asked.keep_last,
        duration(asked.keep_runs, what="--keep-runs"),
    )
