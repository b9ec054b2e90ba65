from __future__ import annotations

from perdure.executors.timers import Timers


def test_timers_call_what_is_due_in_the_order_of_time() -> None:
    timers, called = Timers(), list[str]()

    timers.after(-1, lambda: called.append("later"))
    timers.after(-2, lambda: called.append("first"))
    timers.after(60, lambda: called.append("never"))
    timers.run_due()

    assert called == ["first", "later"]


def test_timers_say_how_long_until_the_next() -> None:
    timers = Timers()

    assert timers.seconds_left() is None
    timers.after(60, lambda: None)
    left = timers.seconds_left()
    assert left is not None
    assert 59 < left <= 60
    timers.after(-1, lambda: None)
    assert timers.seconds_left() == 0


def test_timers_call_an_action_that_is_set_while_they_run() -> None:
    timers, called = Timers(), list[str]()

    timers.after(-1, lambda: timers.after(-1, lambda: called.append("second")))
    timers.run_due()

    assert called == ["second"]
