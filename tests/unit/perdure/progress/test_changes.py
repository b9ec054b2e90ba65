from __future__ import annotations

import pytest
from tests.unit.perdure.engine.bench import plan_of
from tests.unit.perdure.progress.facts import (
    NO_ROWS,
    START,
    at,
    commit,
    done,
    failed,
    started,
    tried,
    waits,
    wide_plan,
)

from perdure.progress.board import Board
from perdure.progress.changes import Teller, summary
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import Cause, EventRecord, StepId


def teller_of(*names: str) -> Teller:
    return Teller(Board(plan_of({name: [] for name in names}), START), START)


def test_step_that_is_done_is_a_line_with_its_time_and_how_far_the_run_is() -> None:
    teller = teller_of("load", "fit")

    assert teller.tell([commit(started("load"))], at(0)) == []
    assert teller.tell([commit(done("load", 1.5))], at(2)) == ["[1/2] load: done in 1.5 s"]


def test_retry_says_what_happened_and_when_it_goes_on() -> None:
    ended = tried("fit", Cause.USER_ERROR, error=NO_ROWS, not_before=at(3))

    assert teller_of("fit").tell([commit(ended)], at(1)) == [
        "[0/1] fit: attempt 1 failed after 1.0 s: ValueError: no rows; again in 2.0 s"
    ]


def test_attempt_that_was_cut_off_is_told_without_a_time_that_nobody_knows() -> None:
    ended = tried("fit", Cause.ABANDONED)

    assert teller_of("fit").tell([commit(ended)], at(1)) == ["[0/1] fit: attempt 1 was cut off"]


def test_step_that_was_retried_says_so_when_it_is_done() -> None:
    assert teller_of("fit").tell([commit(done("fit", attempt=3))], at(1)) == [
        "[1/1] fit: done in 1.0 s, attempt 3"
    ]


def test_each_line_says_how_far_the_run_was_then() -> None:
    facts = [
        commit(tried("a", Cause.USER_ERROR)),
        commit(done("a", attempt=2), done("b")),
    ]

    lines = teller_of("a", "b", "c").tell(facts, at(1))

    assert [line.partition(" ")[0] for line in lines] == ["[0/3]", "[1/3]", "[2/3]"]


def test_final_failure_is_told_once() -> None:
    lines = teller_of("fit").tell([commit(tried("fit", Cause.USER_ERROR), failed("fit"))], at(1))

    assert lines == ["[0/1] fit: failed after 1.0 s: ValueError: no rows"]


def test_caught_failure_is_told_as_such() -> None:
    row = done("fit", caught=True, error=NO_ROWS)

    assert teller_of("fit").tell([commit(row)], at(1)) == [
        "[1/1] fit: failed after 1.0 s, and that was caught: ValueError: no rows"
    ]


def test_step_that_was_taken_over_says_from_where() -> None:
    row = done("load", attempt=0, reason="taken over from one")

    assert teller_of("load").tell([commit(row)], at(1)) == [
        "[1/1] load: reused (taken over from one)"
    ]


def test_lost_value_is_told() -> None:
    event = EventRecord(kind="lost", at=START, step_id=StepId("load"), detail={"why": "it is gone"})

    assert teller_of("load").tell([commit(events=(event,))], at(1)) == [
        "[0/1] load: to run again: it is gone"
    ]


def test_step_that_runs_for_long_is_told_once() -> None:
    teller = teller_of("train", "b")
    teller.tell([commit(started("train"))], at(0))

    assert teller.tell([], at(4)) == []
    assert teller.tell([], at(6)) == ["[0/2] train: running for 6.0 s"]
    assert teller.tell([], at(30)) == []


def test_wide_run_is_told_one_by_one_then_summed_up_then_one_by_one_when_it_is_calm() -> None:
    teller = Teller(Board(wide_plan(1000), START), START)

    burst = teller.tell([commit(*(done(f"f#{n}") for n in range(900)))], at(1))
    silent = teller.tell([commit(*(done(f"f#{n}") for n in range(900, 950)))], at(4))
    summed = teller.tell([], at(5))
    calm = teller.tell([], at(10))
    again = teller.tell([commit(done("f#950", 11))], at(11))

    assert len(burst) == 101
    assert burst[-1] == (
        "[900/1000] more changes than anybody reads: a line every 5 s sums them up"
    )
    assert silent == []
    assert len(summed) == 1
    assert summed[0].startswith("[950/1000] 0 running, ")
    assert calm == []
    assert again == ["[951/1000] f#950: done in 11.0 s"]


def test_failures_are_told_also_where_all_else_is_summed_up() -> None:
    teller = Teller(Board(wide_plan(1000), START), START)
    teller.tell([commit(*(done(f"f#{n}") for n in range(900)))], at(1))

    assert teller.tell([commit(failed("f#950"))], at(2)) == [
        "[900/1000] f#950: failed after 1.0 s: ValueError: no rows"
    ]


def test_thousands_of_failures_are_not_told_one_by_one() -> None:
    teller = Teller(Board(wide_plan(5000), START), START)

    lines = teller.tell([commit(*(failed(f"f#{n}") for n in range(5000)))], at(1))

    assert len(lines) == 201


def test_what_users_named_or_raised_takes_one_line_and_moves_no_cursor() -> None:
    error = type(NO_ROWS)(type="E", message="first\nsecond\x1b[2J\rthird")

    (line,) = teller_of("a\x1b[2J\nb").tell([commit(failed("a\x1b[2J\nb", error=error))], at(1))

    assert line.isprintable()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (RunStatus.SUCCEEDED, "run r succeeded in 2.0 s: 1 step ran, 1 step reused, 1 done before"),
        (RunStatus.FAILED, "run r failed after 2.0 s: 3 of 4 steps done, 1 failed"),
        (RunStatus.CANCELLED, "run r was cancelled after 2.0 s: 3 of 4 steps done, 1 failed"),
    ],
)
def test_last_line_says_how_the_run_ended(status: RunStatus, said: str) -> None:
    board = Board(plan_of({name: [] for name in "abcd"}), START)
    board.begin([done("a")], [])
    board.apply(commit(done("b"), done("c", attempt=0), failed("d")))

    assert summary("r", board.look(at(2)), status) == said


def test_step_that_waits_says_for_what_and_how_to_end_that() -> None:
    board = Board(plan_of({"ask": []}), START)
    teller = Teller(board, START, lambda name: f"perdure signal r {name} --value ...")
    asked = waits("ask", name="approve", deadline=at(60))

    lines = teller.tell([commit(tried("ask", Cause.SUCCEEDED), asked)], at(1))

    assert lines == [
        "[0/1] ask: waits for signal 'approve' until 2026-01-05 12:01:00 UTC: "
        "`perdure signal r approve --value ...`"
    ]
    assert teller.tell([commit(asked)], at(2)) == []


def test_branch_that_was_not_chosen_is_told_as_skipped_and_the_choice_as_what_it_is() -> None:
    board = Board(plan_of({"yes": [], "no": [], "when": []}), START)
    skipped = done("no", status=StepStatus.SKIPPED, attempt=0, reason="not chosen")
    chose = done("when", attempt=0, reason="has the value of yes: 'then' was chosen")

    lines = Teller(board, START).tell([commit(done("yes", attempt=1), skipped, chose)], at(2))

    assert lines == [
        "[1/3] yes: done in 1.0 s",
        "[2/3] no: skipped (not chosen)",
        "[3/3] when: has the value of yes: 'then' was chosen",
    ]
    said = summary("r", board.look(at(2)), RunStatus.SUCCEEDED)
    assert said == "run r succeeded in 2.0 s: 1 step ran, 1 skipped"


def test_loser_is_told_as_ended_and_counted_as_not_needed() -> None:
    board = Board(plan_of({"a": [], "b": [], "c": []}), START)
    why = "not needed: wait had enough"
    losers = [
        done("b", status=StepStatus.CANCELLED, attempt=1, caught=True, reason=why),
        done("c", status=StepStatus.CANCELLED, attempt=0, caught=True, reason=why),
    ]

    lines = Teller(board, START).tell([commit(done("a", attempt=1), *losers)], at(2))

    assert lines[1:] == [f"[1/3] b: ended ({why})", f"[1/3] c: ended ({why})"]
    assert board.look(at(2)).waiting == 0
    said = summary("r", board.look(at(2)), RunStatus.SUCCEEDED)
    assert said == "run r succeeded in 2.0 s: 1 step ran, 2 not needed"
