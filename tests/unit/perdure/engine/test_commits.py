"""Group commit: what waits, what is joined, and patience with a store that is away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest

from perdure.engine.commits import PARK_S, PATIENCE_S, Commits, merge
from perdure.engine.outages import SAY_AGAIN_S
from perdure_storage.clock import ManualClock
from perdure_storage.errors import StoreUnavailable
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import (
    AttemptRecord,
    CommitReport,
    Delivery,
    Digest,
    EventRecord,
    ExpansionRecord,
    PlanRecord,
    RunCommit,
    RunId,
    StepId,
    StepKey,
    StepRecord,
    WaitRecord,
)

RUN = RunId("r")


class Store:
    """Takes commits, after failing as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.batches: list[Sequence[RunCommit]] = []

    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        self.batches.append(batch)
        return CommitReport(committed={part.run_id: 1 for part in batch})


def commits(store: Store, clock: ManualClock) -> Commits:
    return Commits(store, clock, clock.advance)  # type: ignore[arg-type]


def part(step: str, *, lost: tuple[StepKey, ...] = ()) -> RunCommit:
    row = StepRecord(run_id=RUN, step_id=StepId(step), generation=1, status=StepStatus.SUCCEEDED)
    return RunCommit(run_id=RUN, owner="o", epoch=1, steps=(row,), lost=lost)


def steps_of(batch: Sequence[RunCommit]) -> list[str]:
    return [row.step_id for commit in batch for row in commit.steps]


def test_flush_writes_what_waits_before_what_is_new_in_one_transaction() -> None:
    store, clock = Store(), ManualClock()
    waiting = commits(store, clock)
    waiting.defer((part("a"),))
    waiting.defer((part("b"),))

    waiting.flush((part("c"),))

    assert [steps_of(batch) for batch in store.batches] == [["a", "b", "c"]]
    assert not waiting.is_waiting


def test_commit_that_retires_rows_comes_after_the_rows_that_wait() -> None:
    store, clock = Store(), ManualClock()
    waiting = commits(store, clock)
    waiting.defer((part("a"),))

    waiting.flush((part("b", lost=(StepKey(StepId("a"), 1),)),))

    assert [steps_of(batch) for batch in store.batches] == [["a"], ["b"]]


def test_what_waits_falls_due() -> None:
    clock = ManualClock()
    waiting = commits(Store(), clock)
    waiting.defer((part("a"),))
    assert not waiting.is_due

    clock.advance(1)

    assert waiting.is_due


def test_write_waits_for_a_store_that_comes_back() -> None:
    store, clock = Store(failures=5), ManualClock()

    report = commits(store, clock).write((part("a"),))

    assert report.committed == {RUN: 1}


def test_write_gives_up_after_its_patience() -> None:
    store, clock = Store(failures=10**6), ManualClock()

    with pytest.raises(StoreUnavailable):
        commits(store, clock).write((part("a"),))

    assert clock.monotonic() >= PATIENCE_S


def test_who_serves_waits_longer_than_who_waits_for_a_run() -> None:
    store, clock = Store(failures=int(2 * PATIENCE_S / PARK_S)), ManualClock()
    serving = Commits(store, clock, clock.advance, serves=True)  # type: ignore[arg-type]

    report = serving.write((part("a"),))

    assert report.committed == {RUN: 1}
    assert clock.monotonic() > PATIENCE_S


def test_who_gives_up_waits_no_longer() -> None:
    store, clock = Store(failures=10**6), ManualClock()
    waiting = commits(store, clock)
    waiting.give_up(0.0)

    with pytest.raises(StoreUnavailable):
        waiting.write((part("a"),))

    assert clock.monotonic() == 0


def test_store_that_is_away_is_spoken_of_at_the_beginning_rarely_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, clock = Store(failures=int(2 * SAY_AGAIN_S / PARK_S) + 2), ManualClock()
    waiting = commits(store, clock)

    waiting.write((part("a"),))
    waiting.write((part("b"),))

    assert [line.partition(",")[0] for line in caplog.messages] == [
        *["store does not take the commit"] * 3,
        "the store takes commits again",
    ]


def test_store_that_comes_and_goes_is_not_spoken_of_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, clock = Store(), ManualClock()
    waiting = commits(store, clock)

    for _ in range(8):
        store.failures = 1
        waiting.write((part("a"),))

    assert len(caplog.messages) == 2


def test_merge_keeps_all_that_both_commits_write() -> None:
    grown = ExpansionRecord(
        run_id=RUN,
        step_id=StepId("a"),
        generation=1,
        count=1,
        plan=PlanRecord(digest=Digest("p"), body=b"{}"),
    )
    event = EventRecord(kind="note", at=datetime(2026, 1, 1, tzinfo=UTC))
    try_of = AttemptRecord(run_id=RUN, step_id=StepId("b"), generation=1, attempt=1)
    full = msgspec.structs.replace(
        part("a"),
        expansions=(grown,),
        attempts=(try_of,),
        events=(event,),
        lost=(StepKey(StepId("c"), 1),),
        superseded=(StepKey(StepId("d"), 1),),
        waits=(WaitRecord(run_id=RUN, step_id=StepId("e"), generation=1, kind="signal"),),
        deliveries=(Delivery(1, StepId("e"), 1),),
        spent=(StepId("f"),),
    )
    twice = {name for name in RunCommit.__struct_fields__ if isinstance(getattr(full, name), tuple)}

    (joined,) = merge([(full,), (full,)])

    assert twice == {
        *("steps", "expansions", "attempts", "events", "lost", "superseded"),
        *("waits", "deliveries", "spent"),
    }
    for name in twice:
        assert getattr(joined, name) == getattr(full, name) * 2, name


def test_merge_drops_a_start_row_that_its_own_end_overtook() -> None:
    start = AttemptRecord(run_id=RUN, step_id=StepId("a"), generation=1, attempt=1)
    first = RunCommit(run_id=RUN, owner="o", epoch=1, attempts=(start,))

    (joined,) = merge([(first,), (part("a"),)])

    assert joined.attempts == ()
