"""What every run store must do with checkpoints: a part of ``RunStoreContract``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_step,
    a_value,
    an_attempt,
    an_event,
    an_owner,
    by,
    claimed,
    created,
    digest,
    ended,
    kinds,
)
from perdure_storage.errors import InternalError
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    Cause,
    CommitReport,
    ErrorRecord,
    Place,
    RunCommit,
    RunEnd,
    RunId,
    RunRecord,
    StepId,
    StepKey,
    StepRecord,
)

_RUN = RunId("run")
_ERROR = ErrorRecord(
    type="builtins.ValueError",
    message="no\0 such \N{SNOWMAN}",
    traceback="File ...",
    cause=Cause.USER_ERROR,
    step_id="s",
    pickled=b"\x80\x05\x00",
)


def _steps(store: RunStore, *, current_only: bool = True) -> list[tuple[str, int, str]]:
    rows = store.list_steps(_RUN, current_only=current_only)
    return [(row.step_id, row.generation, row.status.value) for row in rows]


def _refused(report: CommitReport, kind: str, *, run: str = "run") -> Any:
    assert RunId(run) not in report.committed
    refusal = report.refused[RunId(run)]
    assert refusal.kind == kind
    return refusal


class CommitContract:
    """Checkpoints: what lands, what is refused, and that nothing lands by halves."""

    def test_commit_keeps_every_field_of_a_step(self, store: RunStore) -> None:
        run = claimed(store)
        full = StepRecord(
            run_id=_RUN,
            step_id="fit#2",  # type: ignore[arg-type]
            generation=3,
            status=StepStatus.FAILED,
            attempt=4,
            name="fit",
            own="v1:own",
            code="v1:code",
            fingerprint="v1:print",
            inputs=("v1:a", "opaque:b"),
            error=_ERROR,
            caught=True,
            started_at=NOW,
            finished_at=NOW + timedelta(microseconds=1),
            worker="w-1",
            reason="its code changed",
            peak_memory_bytes=5_000_000_000,
            states={"actor": a_value(), "another \N{SNOWMAN}": a_value()},
        )

        store.commit([by(run, full)])

        (kept,) = store.list_steps(_RUN)
        assert kept == msgspec.structs.replace(full, seq=3)

    @pytest.mark.parametrize("place", list(Place))
    def test_commit_keeps_every_field_of_a_value(self, store: RunStore, place: Place) -> None:
        run = claimed(store)
        value = a_value("1", place=place)
        full = type(value)(
            codec=value.codec,
            place=place,
            size_bytes=5_000_000_000,
            integrity=value.integrity,
            value_digest=value.value_digest,
            data=bytes(range(256)) if place is Place.INLINE else None,
            parts={"['a']": "v1:a", ".b": "opaque:b"},
            preview='{"shape": [3, 4], "repr": "ünï"}',
        )

        store.commit([by(run, a_step("run", "s", value=full))])

        assert store.list_steps(_RUN)[0].value == full

    def test_steps_are_listed_among_those_that_are_asked_for(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, *(a_step("run", name) for name in "cab"))])

        found = store.list_steps(_RUN, among=[StepId("b"), StepId("c"), StepId("x")])

        assert [step.step_id for step in found] == ["c", "b"]
        assert store.list_steps(_RUN, among=[], current_only=False) == []

    def test_commit_numbers_steps_then_events_then_the_end(self, store: RunStore) -> None:
        run = claimed(store)
        first = by(run, a_step("run", "b"), a_step("run", "a"), events=(an_event("note"),))

        assert store.commit([first]).committed == {_RUN: 5}
        end = RunEnd(status=RunStatus.SUCCEEDED)
        assert store.commit([by(run, a_step("run", "c"), end=end)]).committed == {_RUN: 7}

        assert [(s.step_id, s.seq) for s in store.list_steps(_RUN)] == [
            ("b", 3),
            ("a", 4),
            ("c", 6),
        ]
        assert [(e.kind, e.seq) for e in store.list_events(_RUN)] == [
            ("submitted", 1),
            ("claimed", 2),
            ("note", 5),
            ("succeeded", 7),
        ]
        assert [e.seq for e in store.list_events(_RUN, after=2)] == [5, 7]
        assert store.get_run(_RUN).seq == 7

    def test_commit_keeps_every_field_of_an_event(self, store: RunStore) -> None:
        run = claimed(store)
        event = an_event("rebuilt", step_id="s", detail={"of": ["a", 1, None], "deep": {"x": 0.5}})

        store.commit([by(run, events=(event,))])

        last = store.list_events(_RUN)[-1]
        assert (last.kind, last.at, last.step_id, last.detail) == (
            "rebuilt",
            NOW,
            "s",
            event.detail,
        )

    def test_commit_overwrites_an_attempt_by_its_key(self, store: RunStore) -> None:
        run = claimed(store)
        started = an_attempt("run", "s", worker="w", started_at=NOW)
        lost = an_attempt(
            "run",
            "s",
            cause=Cause.WORKER_LOST,
            error=_ERROR,
            started_at=NOW,
            finished_at=NOW,
            not_before=NOW,
            peak_memory_bytes=2**40,
        )

        store.commit([by(run, attempts=(started, an_attempt("run", "r", 2)))])
        store.commit([by(run, attempts=(lost, an_attempt("run", "r", 1)))])

        assert store.list_attempts(_RUN, lost.step_id) == [lost]
        tries = [(a.step_id, a.attempt) for a in store.list_attempts(_RUN)]
        assert tries == [("r", 1), ("r", 2), ("s", 1)]

    def test_commit_takes_runs_of_one_batch_apart(self, store: RunStore) -> None:
        good, other = claimed(store, "good"), claimed(store, "other")
        stale = RunCommit(run_id=other.id, owner="one", epoch=9)
        unknown = RunCommit(run_id=RunId("none"), owner="one", epoch=1)

        report = store.commit([stale, by(good, a_step("good", "s")), unknown])

        assert report.committed == {good.id: 3}
        assert {run: refusal.kind for run, refusal in report.refused.items()} == {
            other.id: "stale",
            RunId("none"): "gone",
        }
        assert store.list_steps(other.id) == []

    def test_commit_of_nothing_reports_nothing(self, store: RunStore) -> None:
        assert store.commit([]) == CommitReport()

    def test_commit_refuses_a_batch_that_holds_a_run_twice(self, store: RunStore) -> None:
        run = claimed(store)

        with pytest.raises(InternalError):
            store.commit([by(run), by(run)])

    def test_commit_is_stale_after_a_takeover(self, store: RunStore) -> None:
        old = claimed(store)
        store.claim_run(_RUN, an_owner("two"), seen_dead="one")

        _refused(store.commit([by(old, a_step("run", "s"))]), "stale")

        assert _steps(store) == []

    def test_commit_is_stale_after_a_hand_back(self, store: RunStore) -> None:
        run = claimed(store)
        store.release_run(run, to=RunStatus.QUEUED)

        _refused(store.commit([by(run, a_step("run", "s"))]), "stale")

    def test_commit_is_stale_in_an_older_epoch_of_the_same_owner(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        old = claimed(store)
        clock.advance(LEASE_S)
        store.claim_run(_RUN, an_owner())

        _refused(store.commit([by(old, a_step("run", "s"))]), "stale")

    def test_nothing_commits_once_the_run_is_over(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, end=RunEnd(status=RunStatus.CANCELLED))])
        late = by(run, a_step("run", "s"), end=RunEnd(status=RunStatus.SUCCEEDED))

        _refused(store.commit([late]), "terminal")

        assert _steps(store) == []
        assert store.get_run(_RUN).status is RunStatus.CANCELLED
        assert kinds(store)[-1] == "cancelled"

    def test_the_end_lands_with_the_last_step(self, store: RunStore, clock: ManualClock) -> None:
        run = claimed(store)
        clock.advance(3)
        end = RunEnd(status=RunStatus.FAILED, error=_ERROR)

        store.commit([by(run, a_step("run", "s"), end=end)])

        over = store.get_run(_RUN)
        assert (over.status, over.error, over.owner) == (RunStatus.FAILED, _ERROR, None)
        assert over.finished_at == clock.now()
        assert _steps(store) == [("s", 1, "SUCCEEDED")]
        assert kinds(store)[-1] == "failed"

    def test_commit_rejects_an_end_that_is_no_transition(self, store: RunStore) -> None:
        created(store)
        store.request_pause(_RUN, True)
        store.register(an_owner(), LEASE_S)
        run = store.claim_run(_RUN, an_owner())
        assert run is not None

        _refused(store.commit([by(run, end=RunEnd(status=RunStatus.SUCCEEDED))]), "rejected")
        _refused(store.commit([by(run, end=RunEnd(status=RunStatus.QUEUED))]), "rejected")

        assert store.get_run(_RUN).status is RunStatus.PAUSED

    def test_a_step_resets_takeovers_and_an_attempt_does_not(self, store: RunStore) -> None:
        claimed(store)
        run = store.claim_run(_RUN, an_owner("two"), seen_dead="one")
        assert run is not None

        store.commit([by(run, attempts=(an_attempt("run", "s"),))])
        assert store.get_run(_RUN).takeovers == 1
        store.commit([by(run, a_step("run", "s"))])

        assert store.get_run(_RUN).takeovers == 0

    def test_commit_sets_and_clears_the_wake_up(self, store: RunStore) -> None:
        run = claimed(store)

        store.commit([by(run, wake_at=NOW)])
        assert store.get_run(_RUN).wake_at == NOW
        store.commit([by(run)])

        assert store.get_run(_RUN).wake_at is None

    # --- rows that a store refuses ------------------------------------------------------------
    def test_a_generation_is_committed_once(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, a_step("run", "a", worker="first"))])

        report = store.commit([by(run, a_step("run", "b"), a_step("run", "a", worker="second"))])

        assert _refused(report, "rejected").steps == ("a",)
        assert _steps(store) == [("a", 1, "SUCCEEDED")]
        assert store.list_steps(_RUN)[0].worker == "first"
        assert store.get_run(_RUN).seq == 3

    def test_a_batch_cannot_hold_a_generation_twice(self, store: RunStore) -> None:
        run = claimed(store)

        report = store.commit([by(run, a_step("run", "a"), a_step("run", "a"))])

        assert _refused(report, "rejected").steps == ("a",)
        assert _steps(store) == []

    def test_two_generations_are_never_current_at_once(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, a_step("run", "a"))])

        report = store.commit([by(run, a_step("run", "a", 2))])

        assert _refused(report, "rejected").steps == ("a",)

    def test_rows_that_cannot_be_stored_are_named_and_the_others_go_in_later(
        self, store: RunStore
    ) -> None:
        run, other = claimed(store), claimed(store, "other")
        nul = a_step("run", "nul", reason="a\0b")
        lone = a_step("run", "lone", name="\ud800")
        huge = a_step("run", "huge", attempt=2**70)
        good = [a_step("run", f"s{n}") for n in range(9)]

        report = store.commit(
            [by(run, *good[:4], nul, *good[4:7], lone, huge, *good[7:]), by(other)]
        )

        assert set(_refused(report, "rejected").steps) == {"nul", "lone", "huge"}
        assert report.committed == {other.id: 2}
        assert _steps(store) == []
        assert store.commit([by(run, *good)]).committed == {_RUN: 11}

    def test_many_rows_are_refused_one_by_one(self, store: RunStore) -> None:
        run = claimed(store)
        there = [a_step("run", f"s{n}") for n in range(0, 40, 7)]
        store.commit([by(run, *there)])

        report = store.commit([by(run, *(a_step("run", f"s{n}") for n in range(40)))])

        assert _refused(report, "rejected").steps == tuple(step.step_id for step in there)

    # --- generations --------------------------------------------------------------------------
    def test_a_lost_value_makes_room_for_a_new_generation(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, a_step("run", "a"), a_step("run", "b"))])

        store.commit([by(run, a_step("run", "a", 2), lost=(StepKey("a", 1),))])  # type: ignore[arg-type]

        assert _steps(store) == [("b", 1, "SUCCEEDED"), ("a", 2, "SUCCEEDED")]
        assert _steps(store, current_only=False) == [
            ("a", 1, "LOST"),
            ("b", 1, "SUCCEEDED"),
            ("a", 2, "SUCCEEDED"),
        ]

    def test_a_superseded_row_becomes_history_as_it_was(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, a_step("run", "a"))])

        store.commit([by(run, superseded=(StepKey("a", 1),))])  # type: ignore[arg-type]

        assert _steps(store) == []
        (old,) = store.list_steps(_RUN, current_only=False)
        assert (old.status, old.current) == (StepStatus.SUCCEEDED, False)

    @pytest.mark.parametrize("which", ["lost", "superseded"])
    @pytest.mark.parametrize("key", [("a", 2), ("none", 1)])
    def test_rows_that_are_not_current_cannot_be_retired(
        self, store: RunStore, which: str, key: tuple[str, int]
    ) -> None:
        run = claimed(store)
        store.commit([by(run, a_step("run", "a"))])

        more: dict[str, Any] = {which: (StepKey(*key),)}  # type: ignore[arg-type]
        report = store.commit([by(run, a_step("run", "b"), **more)])

        assert _refused(report, "rejected").steps == (key[0],)
        assert _steps(store) == [("a", 1, "SUCCEEDED")]

    def test_only_a_succeeded_row_can_be_lost(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, a_step("run", "a", status=StepStatus.SKIPPED))])

        report = store.commit([by(run, lost=(StepKey("a", 1),))])  # type: ignore[arg-type]

        _refused(report, "rejected")

    # --- blobs --------------------------------------------------------------------------------
    def test_commit_refuses_blobs_that_are_being_collected(self, store: RunStore) -> None:
        run, other = claimed(store), claimed(store, "other")
        store.condemn([digest("b"), digest("c")])
        steps = [a_step("run", name, value=a_value(place=Place.BLOB, name=name)) for name in "abc"]
        fine = a_step("other", "s", value=a_value(place=Place.BLOB, name="a"))

        report = store.commit([by(run, *steps), by(other, fine)])

        assert _refused(report, "condemned").digests == (digest("b"), digest("c"))
        assert other.id in report.committed
        assert _steps(store) == []

    def test_blobs_of_committed_steps_are_not_condemned(self, store: RunStore) -> None:
        run = claimed(store)
        blob = a_value(place=Place.BLOB, name="b")
        spooled = a_value(place=Place.SPOOL, name="s")
        store.commit([by(run, a_step("run", "a", value=blob), a_step("run", "b", value=spooled))])

        assert store.condemn([digest("b"), digest("s")]) == [digest("s")]

    # --- reading ------------------------------------------------------------------------------
    def test_steps_of_a_run_that_is_not_there_are_none(self, store: RunStore) -> None:
        assert store.list_steps(_RUN) == []
        assert store.list_attempts(_RUN) == []
        assert store.list_events(_RUN) == []

    def test_steps_are_kept_apart_by_run(self, store: RunStore) -> None:
        one, two = claimed(store, "a"), claimed(store, "b")

        store.commit([by(one, a_step("a", "s", worker="1")), by(two, a_step("b", "s", worker="2"))])

        assert [step.worker for step in store.list_steps(one.id)] == ["1"]
        assert [step.worker for step in store.list_steps(two.id)] == ["2"]

    def test_a_finished_run_keeps_its_rows(self, store: RunStore) -> None:
        run: RunRecord = ended(store)

        assert store.list_steps(run.id) == []
        assert not run.lease_live
