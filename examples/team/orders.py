"""What the team runs: an order is fetched, priced and billed; a value of it is large.

Each step says in a ledger that it begins, with what, and that it has ended. perdure does not know
that file, so what ran twice can be counted honestly.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from perdure import current, task, workflow

LEDGER = "TEAM_LEDGER"
SECONDS = 0.05


def note(event: str, uses: list[str]) -> None:
    """Append a line, through to the disk; other processes append to the same file."""
    here = current()
    line = {"event": event, "run": here.run_id, "step": here.step_id, "uses": uses}
    with Path(os.environ[LEDGER]).open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")
        os.fsync(file.fileno())


@task(lost_retries=-1)
def fetch(number: int) -> bytes:
    """Return an order as it came: more than what is kept in a row of the database."""
    note("began", [])
    time.sleep(SECONDS)
    note("ended", [])
    return hashlib.sha256(str(number).encode()).digest() * 2_000


@task(lost_retries=-1)
def price(order: bytes) -> int:
    """Return what it costs, in cents."""
    note("began", ["fetch"])
    time.sleep(SECONDS)
    note("ended", ["fetch"])
    return sum(order) % 10_000


@task(lost_retries=-1)
def bill(number: int, cents: int) -> str:
    """Return the bill."""
    note("began", ["price"])
    note("ended", ["price"])
    return f"order {number}: {cents / 100:.2f}"


@workflow
def order(number: int) -> str:
    """Bill an order."""
    return bill.bind(number, price.bind(fetch.bind(number)))


def expected(number: int) -> str:
    """Return the bill by plain Python."""
    cents = sum(hashlib.sha256(str(number).encode()).digest() * 2_000) % 10_000
    return f"order {number}: {cents / 100:.2f}"
