from __future__ import annotations

from perdure.engine.paces import AHEAD_S, BRIEF_S, MOST_AHEAD, Paces


def test_function_that_was_never_called_is_not_brief() -> None:
    assert Paces().most_ahead("f") == 0


def test_more_brief_calls_wait_the_briefer_they_are() -> None:
    paces = Paces()
    paces.note("f", 0.002)
    paces.note("g", 0.004)

    assert paces.most_ahead("f") == AHEAD_S / 0.002
    assert paces.most_ahead("g") == AHEAD_S / 0.004
    paces.note("h", 0.0)
    assert paces.most_ahead("h") == MOST_AHEAD


def test_one_long_call_ends_it_for_some_time() -> None:
    paces = Paces()
    paces.note("f", 0.001)

    paces.note("f", 10 * BRIEF_S)
    brief_after = 0
    while paces.most_ahead("f") == 0:
        paces.note("f", 0.001)
        brief_after += 1

    assert 10 < brief_after < 50


def test_time_that_runs_backwards_does_no_harm() -> None:
    paces = Paces()

    paces.note("f", -3.0)

    assert paces.most_ahead("f") == MOST_AHEAD


def test_what_was_called_lately_is_known_however_many_functions_there_are() -> None:
    paces = Paces()

    for number in range(10_000):
        paces.note(f"f{number}", 0.001)
        paces.note("often", 0.001)

    assert paces.most_ahead("often") > 0
    assert paces.most_ahead("f0") == 0
    assert paces.most_ahead("f9999") > 0
