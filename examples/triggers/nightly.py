"""A summary of each day, made in the night after it, and for days that were missed too.

    perdure up examples/triggers/nightly.py                  # at 02:00 in Berlin, for good
    EVERY=2s perdure up examples/triggers/nightly.py         # to watch it now

    perdure schedule ls
    perdure schedule ticks nightly
    perdure schedule backfill nightly --from 2026-01-01 --to 2026-01-31

While nothing serves, nights pass: when `perdure up` is there again, the week before is made up for.
"""

import math
import os
from datetime import datetime, timedelta
from pathlib import Path

from perdure import Schedule, interval_end, interval_start, task, workflow

FOLDER = Path(os.environ.get("NIGHTLY_FOLDER", "summaries"))
EVERY = os.environ.get("EVERY")


@task(retries=3)
def read(begin: datetime, end: datetime) -> list[float]:
    """Read what a sensor sent between two times; here it is a wave, so that nothing is needed."""
    step = (end - begin) / 24
    moments = [(begin + n * step).timestamp() for n in range(24)]
    return [15 + 5 * math.sin(moment / timedelta(days=1).total_seconds()) for moment in moments]


@task
def write(begin: datetime, readings: list[float]) -> str:
    """Write the summary under the day's name: the same file again if the step runs again."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{begin:%Y-%m-%dT%H%M%S}.txt"
    path.write_text(f"{min(readings):.1f} to {max(readings):.1f} degrees\n")
    return str(path)


@workflow
def summary(begin: datetime, end: datetime) -> str:
    """Summarise what was measured between two times."""
    return write.bind(begin, read.bind(begin, end))


nightly = Schedule(
    "nightly",
    summary.options(tags={"team": "climate"}),
    cron=None if EVERY else "0 2 * * *",
    interval=EVERY,
    tz="Europe/Berlin",
    inputs={"begin": interval_start, "end": interval_end},
    overlap="queue_all(max=7)",
    catchup="all(max=7, window=7d)",
    on_failure="pause_after(3)",
)
