from __future__ import annotations

import msgspec
import pytest
from tests.unit.perdure.engine.bench import plan_of
from tests.unit.perdure.progress.facts import (
    NO_ROWS,
    START,
    at,
    commit,
    done,
    end,
    failed,
    started,
    tried,
    wide_plan,
)

from perdure.progress.board import Board
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Cause, Progress, StepId, StepKey


@pytest.fixture
def board() -> Board:
    return Board(plan_of({"a": [], "b": [], "c": ["a", "b"]}), START)


def test_fresh_board_has_everything_before_it(board: Board) -> None:
    glance = board.look(START)

    assert (glance.total, glance.done, glance.running, glance.waiting) == (3, 0, 0, 3)


def test_steps_are_counted_where_they_stand(board: Board) -> None:
    board.apply(commit(started("a"), started("b")))
    board.apply(commit(done("a")))

    glance = board.look(at(2))

    assert (glance.done, glance.running, glance.waiting, glance.ran) == (1, 1, 1, 1)
    assert [attempt.step_id for attempt in glance.slowest] == ["b"]


def test_facts_that_come_twice_count_once(board: Board) -> None:
    facts = [
        commit(started("a"), started("b")),
        commit(tried("b", Cause.USER_ERROR, error=NO_ROWS, not_before=at(1))),
        commit(done("a"), started("b", 1, attempt=2)),
        commit(failed("b", attempt=2)),
    ]
    for fact in facts:
        board.apply(fact)
    once = board.look(at(2))

    for fact in facts:
        board.apply(fact)

    assert board.look(at(2)) == once
    assert (once.done, once.failed, once.retries, once.running) == (1, 1, 1, 0)


def test_failed_attempt_is_a_retry_only_if_it_is_not_the_last(board: Board) -> None:
    news = board.apply(commit(tried("a", Cause.USER_ERROR), failed("a")))

    assert board.look(at(1)).retries == 0
    assert (news.ended, [row.step_id for row in news.committed]) == ([], ["a"])


def test_caught_failure_is_done_and_no_retry(board: Board) -> None:
    board.apply(commit(tried("a", Cause.USER_ERROR), done("a", caught=True, error=NO_ROWS)))

    glance = board.look(at(1))

    assert (glance.done, glance.failed, glance.retries) == (1, 0, 0)


def test_retry_that_waits_says_how_long(board: Board) -> None:
    board.apply(commit(tried("a", Cause.USER_ERROR, not_before=at(5))))

    assert board.look(at(2)).retry_in_s == 3.0
    board.apply(commit(started("a", 5, attempt=2)))
    assert board.look(at(6)).retry_in_s is None


def test_step_whose_value_was_lost_is_open_again_until_it_is_done_again(board: Board) -> None:
    board.apply(commit(done("a"), done("b")))

    board.apply(commit(lost=(StepKey(StepId("a"), 1),)))
    lost = board.look(at(2))
    board.apply(commit(done("a", 3, generation=2)))

    assert (lost.done, lost.waiting) == (1, 2)
    assert board.look(at(3)).done == 2


def test_what_was_there_before_is_no_news(board: Board) -> None:
    board.begin([done("a")], [tried("b", Cause.WORKER_LOST), started("b", attempt=2)])

    board.apply(commit(done("b", attempt=0)))
    glance = board.look(at(2))

    assert (glance.before, glance.reused, glance.ran, glance.retries) == (1, 1, 0, 0)
    assert (glance.done, glance.running) == (2, 0)


def test_slowest_come_first_and_are_few() -> None:
    board = Board(wide_plan(20), START)
    board.apply(commit(*(started(f"f#{n}", when=20 - n) for n in range(20))))

    glance = board.look(at(30))

    assert [attempt.step_id for attempt in glance.slowest] == [
        "f#19", "f#18", "f#17", "f#16", "f#15"
    ]  # fmt: skip
    assert glance.running == 20


def test_of_attempts_that_run_one_after_the_other_one_runs_and_since_the_last_ended() -> None:
    board = Board(wide_plan(20), START, is_serial=True)
    board.apply(commit(*(started(f"f#{n}") for n in range(20))))
    board.apply(commit(done("f#0", when=7)))

    glance = board.look(at(9))

    assert (glance.running, glance.waiting) == (1, 18)
    assert [(each.step_id, each.since) for each in glance.slowest] == [("f#1", at(7))]


def test_coroutines_run_together_also_where_all_else_runs_one_after_the_other() -> None:
    plan = plan_of({"a": [], "b": [], "c": []}, is_async=frozenset({"a", "b"}))
    board = Board(plan, START, is_serial=True)

    board.apply(commit(started("a"), started("b"), started("c")))

    assert board.look(at(1)).running == 3


def test_rate_and_rest_are_not_told_before_they_mean_something() -> None:
    board = Board(wide_plan(100), START)

    board.apply(commit(*(done(f"f#{n}", when=0.5) for n in range(20))))
    early = board.look(at(1))
    later = board.look(at(4))

    assert (early.rate, early.left_s) == (None, None)
    assert later.rate == 5.0
    assert later.left_s == 16.0


def test_rate_is_that_of_the_last_seconds() -> None:
    board = Board(wide_plan(1000), START)
    board.apply(commit(*(done(f"f#{n}", when=1) for n in range(500))))

    board.apply(commit(*(done(f"f#{n}", when=95 + n % 5) for n in range(500, 520))))

    assert board.look(at(100)).rate == 2.0


def test_rest_is_not_guessed_for_steps_of_other_kinds() -> None:
    names = {**{f"f#{n}": [] for n in range(20)}, **{f"g#{n}": [] for n in range(20)}}
    board = Board(plan_of(dict(names)), START)

    board.apply(commit(*(done(f"f#{n}", name=f"f#{n}") for n in range(20))))

    assert board.look(at(4)).rate == 5.0
    assert board.look(at(4)).left_s is None


def test_end_of_the_run_is_noted(board: Board) -> None:
    board.apply(end(RunStatus.CANCELLED))

    assert board.ended_as is RunStatus.CANCELLED


def test_board_remembers_how_far_an_attempt_says_that_it_is_until_another_begins() -> None:
    board = Board(wide_plan(1), at(0))
    come = Progress(done=3, total=10, at=at(2))
    told = msgspec.structs.replace(started("f#0"), progress=come)

    board.apply(commit(started("f#0")))
    board.apply(commit(told))
    during = board.look(at(3)).told
    board.apply(commit(started("f#0", attempt=2)))

    assert during == {"f#0": come}
    assert board.look(at(4)).told == {}
