"""The clock: against the rows that were written last, and against the database's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from perdure.doctor.finding import Finding, ok, problem, warning
from perdure.settings import Settings
from perdure.words import duration
from perdure_storage.clock import Clock
from perdure_storage.connect import database_time
from perdure_storage.errors import PerdureError
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunQuery

MOST_AHEAD = timedelta(seconds=60)
"""Rows of other machines may be as much ahead without anybody's clock being wrong."""
MOST_SKEW = timedelta(seconds=5)
_SET_IT = "set the clock: `timedatectl`"


def check_clock(settings: Settings, store: RunStore, clock: Clock) -> Iterator[Finding]:
    """Yield what is to be said of the time."""
    newest = store.list_runs(RunQuery(limit=1))
    yield judge_rows(newest[0].created_at if newest else None, clock.now())
    try:
        theirs = database_time(settings.store)
    except PerdureError as error:
        yield problem("clock of the database", str(error))
        return
    if theirs is not None:
        yield judge_skew(theirs, clock.now())


def judge_rows(newest: datetime | None, now: datetime) -> Finding:
    """Say whether the newest run was made in the future."""
    ahead = newest - now if newest is not None else timedelta()
    if ahead > MOST_AHEAD:
        said = (
            f"the newest run was made {duration(ahead.total_seconds())} from now: this clock was "
            "set back, or another machine's is ahead. Deadlines and the order of runs suffer"
        )
        return warning("clock", said, _SET_IT)
    return ok("clock", f"it is {now:%Y-%m-%d %H:%M:%S} UTC, and no run was made later")


def judge_skew(theirs: datetime, now: datetime) -> Finding:
    """Say whether the database's server has another time."""
    apart = abs(theirs - now)
    said = f"{duration(apart.total_seconds())} apart from this machine's"
    if apart > MOST_SKEW:
        return warning("clock of the database", said, f"{_SET_IT}, here or there")
    return ok("clock of the database", said)
