"""A process that writes into a store as fast as it can, for some seconds; others do the same.

    python -m tests.crash.writers STORE NUMBER SECONDS [FILE]

It makes runs, claims them, commits steps, ends them and lists them, as a coordinator does, and
whoever looks. It prints how many runs and steps it was told are durable, and the longest wait;
into a file it writes each run of which it was told that it has ended, at once.
"""

from __future__ import annotations

import json
import os
import sys
import time

from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import LEASE_S, a_plan, a_run, a_step, an_owner, by
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunEnd, RunId, RunQuery

STEPS = 3


def main(url: str, number: int, seconds: float, told: str = os.devnull) -> dict[str, float]:
    """Write until the time is over; whatever the store refuses ends the process."""
    store = open_run_store(url)
    heard = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    owner = an_owner(f"writer-{number}")
    store.register(owner, LEASE_S)
    runs, longest_s, until = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        run_id, plan = RunId(f"run-{number}-{runs}"), a_plan("plan", "code")
        begun = time.monotonic()
        assert store.create_run(a_run(run_id, plan=plan), plan) is not None
        run = store.claim_run(run_id, owner)
        assert run is not None
        for step in range(STEPS):
            assert store.commit([by(run, a_step(run_id, f"s{step}"))]).committed
        store.renew(owner, LEASE_S)
        assert store.commit([by(run, end=RunEnd(status=RunStatus.SUCCEEDED))]).committed
        os.write(heard, f"{run_id}\n".encode())
        longest_s = max(longest_s, time.monotonic() - begun)
        assert store.list_runs(RunQuery(limit=10))
        runs += 1
    store.unregister(owner)
    store.close()
    os.close(heard)
    return {"runs": runs, "steps": runs * STEPS, "longest_s": longest_s}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])))
