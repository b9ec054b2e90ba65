"""What the next attempt of a step is given of what earlier ones have saved."""

from __future__ import annotations

import msgspec
from tests.unit.perdure.engine.bench import START, Bench, plan_of, stored

from perdure.calls import SavedValue
from perdure.engine.events import PauseRequested, Saved
from perdure.engine.growth import source_of
from perdure.engine.saves import remember_saves, saves_for
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Cause, RunId, RunPolicy, SaveRecord, StepId


def begun(policy: RunPolicy | None = None) -> Bench:
    return Bench(plan_of({"fit": [], "after": ["fit"]}), policy or RunPolicy()).start()


def save(bench: Bench, at: int, *, keep_last: int = 1, item: str = "") -> SaveRecord:
    """Let the running attempt save, as its desk tells of it."""
    run = bench.engine.runs["r"]
    call = bench.in_flight["fit"].id
    record = SaveRecord(
        run_id=RunId("r"),
        step_id=StepId("fit"),
        generation=call.generation,
        attempt=call.attempt,
        item=item,
        at=at,
        source=source_of(run, run.steps["fit"]),
        value=stored(f"at {at}"),
        saved_at=START,
    )
    bench.turn(Saved(record, keep_last))
    return record


def given(bench: Bench) -> tuple[SavedValue, ...]:
    return bench.in_flight["fit"].saves


def test_first_attempt_is_given_nothing() -> None:
    assert given(begun()) == ()


def test_attempt_after_a_loss_is_given_what_was_saved() -> None:
    bench = begun()
    save(bench, 7)

    bench.end("fit", Cause.WORKER_LOST)

    assert given(bench) == (SavedValue(7, stored("at 7")),)


def test_older_saves_are_forgotten_by_item() -> None:
    bench = begun()
    for at in (1, 2, 3):
        save(bench, at, keep_last=2)
    save(bench, 4, item="fit[1]")

    bench.end("fit", Cause.WORKER_LOST)

    assert [(each.at, each.item) for each in given(bench)] == [(2, ""), (3, ""), (4, "fit[1]")]


def test_what_was_saved_for_other_inputs_or_code_is_not_given() -> None:
    bench = begun()
    record = save(bench, 7)
    run = bench.engine.runs["r"]
    run.saves.clear()

    remember_saves(run, [msgspec.structs.replace(record, source="of other code")])

    assert saves_for(run, run.steps["fit"]) == ()


def test_what_other_code_saved_is_given_where_changes_are_to_be_reused() -> None:
    bench = begun(RunPolicy(on_change="reuse"))
    record = save(bench, 7)
    run = bench.engine.runs["r"]
    run.saves.clear()

    remember_saves(run, [msgspec.structs.replace(record, source="of other code")])

    assert [each.at for each in saves_for(run, run.steps["fit"])] == [7]


def test_saves_are_spent_with_the_commit_of_the_value() -> None:
    bench = begun()
    save(bench, 7)

    turn = bench.succeed("fit")

    assert turn.commits[0].spent == ("fit",)
    assert bench.engine.runs["r"].saves == {}


def test_what_nobody_needs_is_spent_when_the_run_succeeds() -> None:
    bench = begun()
    bench.succeed("fit")
    run = bench.engine.runs["r"]
    run.saves["other"] = []

    turn = bench.succeed("after")

    assert turn.commits[0].end is not None
    assert turn.commits[0].end.status is RunStatus.SUCCEEDED
    assert turn.commits[0].spent == ("other",)


def test_saves_of_a_failed_step_stand() -> None:
    bench = begun()
    save(bench, 7)

    turn = bench.end("fit", Cause.USER_ERROR, retryable=False)

    assert all(commit.spent == () for commit in turn.commits)


def test_running_attempts_are_told_of_a_pause_and_not_of_its_end() -> None:
    bench = begun()

    paused = bench.turn(PauseRequested("r", True))
    resumed = bench.turn(PauseRequested("r", False))

    assert [each.calls for each in paused.hand_over] == [(bench.in_flight["fit"].id,)]
    assert resumed.hand_over == ()


def test_attempt_that_hands_over_spends_nothing_and_waits_for_the_end_of_the_pause() -> None:
    bench = begun()
    save(bench, 7)
    bench.turn(PauseRequested("r", True))

    turn = bench.end("fit", Cause.ABANDONED)

    assert turn.dispatch == ()
    assert turn.parked == ("r",)
