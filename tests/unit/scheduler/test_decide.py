from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from perdure_scheduler.decide import (
    Outcome,
    Runs,
    ScheduleState,
    TickDecision,
    Verdict,
    decide,
    pause,
    register_again,
    registered,
    resume,
    standing,
)
from perdure_scheduler.declaration import declared
from perdure_scheduler.policies import CatchupAll
from perdure_scheduler.schedule import Schedule

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
IDLE = Runs()


def hourly(**options: Any) -> Schedule:
    return declared("h", cron="0 * * * *", **options)


def at(hours: float) -> datetime:
    return NOON + hours * HOUR


def busy(*hours: float) -> Runs:
    return Runs(live=tuple(f"h-{at(hour):%Y%m%dT%H%M%SZ}" for hour in hours))


def told(decisions: Iterable[TickDecision]) -> list[str]:
    """Return decisions in short: hours from noon, verdict, why, and the number of a row."""
    return [
        f"{(each.at - NOON) / HOUR:g} {each.verdict}: {each.why}"
        + (f" x{each.count}" if each.count > 1 else "")
        for each in decisions
    ]


def ask(
    schedule: Schedule, hours: float, state: ScheduleState | None = None, runs: Runs = IDLE
) -> Outcome:
    return decide(schedule, state or registered(schedule, NOON), at(hours), runs)


def test_nothing_is_due_before_its_time() -> None:
    outcome = ask(hourly(), 0.99)

    assert outcome.decisions == ()
    assert outcome.wake_at == at(1)


def test_a_due_tick_fires_and_names_its_run() -> None:
    outcome = ask(hourly(), 1)

    (fire,) = outcome.decisions
    assert (fire.verdict, fire.at, fire.run_id) == (Verdict.FIRE, at(1), "h-20260101T130000Z")
    assert outcome.state.fired == 1
    assert outcome.wake_at == at(2)


def test_a_tick_at_the_instant_of_registration_is_past() -> None:
    assert ask(hourly(), 0).decisions == ()


def test_asking_again_decides_nothing() -> None:
    outcome = ask(hourly(), 3.5)

    again = decide(hourly(), outcome.state, at(3.5), busy(3))

    assert again.decisions == ()
    assert again.state == outcome.state


def test_a_clock_that_goes_back_doubles_nothing_and_says_why_nothing_fires() -> None:
    ahead = ask(hourly(), 48)

    back = ask(hourly(), 1, ahead.state)

    assert back.decisions == ()
    assert back.state == ahead.state
    assert back.wake_at == at(49)
    assert "the clock went back" in standing(hourly(), back.state, at(1))


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("skip", ["1 skip: overlap"]),
        ("queue", ["1 defer: waits"]),
        ("queue_all(2)", ["1 defer: waits"]),
        ("cancel_running", ["1 defer: waits"]),
        ("allow(2)", ["1 fire: on time"]),
        ("allow(1)", ["1 skip: overlap"]),
    ],
)
def test_a_tick_while_a_run_goes_on(overlap: str, expected: list[str]) -> None:
    outcome = ask(hourly(overlap=overlap), 1, runs=busy(0))

    assert told(outcome.decisions) == expected
    if outcome.decisions[0].verdict is not Verdict.FIRE:
        assert "h-20260101T120000Z" in outcome.decisions[0].reason


def test_a_waiting_tick_fires_when_the_run_has_ended() -> None:
    waiting = ask(hourly(), 1, runs=busy(0))

    outcome = ask(hourly(), 1.25, waiting.state)

    assert told(outcome.decisions) == ["1 fire: turn came"]
    assert outcome.decisions[0].reason == "waited 15m for its turn"
    assert outcome.state.waiting == ()


def test_waiting_ticks_take_their_turns_in_order() -> None:
    schedule = hourly(overlap="queue(2)")
    state = ask(schedule, 2, ask(schedule, 1, runs=busy(0)).state, busy(0)).state

    outcome = ask(schedule, 2.5, state)

    assert told(outcome.decisions) == ["1 fire: turn came"]
    assert outcome.state.waiting == (at(2),)


def test_a_full_queue_skips() -> None:
    waiting = ask(hourly(), 1, runs=busy(0))

    outcome = ask(hourly(), 2, waiting.state, busy(0))

    assert told(outcome.decisions) == ["2 skip: queue full"]


def test_a_full_queue_of_all_holds_the_schedule_and_loses_nothing() -> None:
    schedule = hourly(overlap="queue_all(1)")
    state = ask(schedule, 1, runs=busy(0)).state

    held = ask(schedule, 2, state, busy(0))
    still_held = ask(schedule, 5.5, held.state, busy(0))
    freed = ask(schedule, 5.6, still_held.state)
    later = ask(schedule, 5.7, freed.state)
    last = ask(schedule, 6, ask(schedule, 5.8, ask(schedule, 5.8, later.state).state).state)

    assert told(held.decisions) == ["2 defer: queue full"]
    assert held.wake_at is None
    assert "stands still" in standing(schedule, held.state, at(3))
    assert still_held.decisions == ()
    assert told(freed.decisions) == ["1 fire: turn came", "2 defer: waits", "3 defer: queue full"]
    assert told(later.decisions) == ["2 fire: turn came", "3 defer: waits", "4 defer: queue full"]
    assert last.state.fired == 5
    assert last.state.waiting == (at(6),)


def test_cancel_running_asks_for_the_cancel_and_starts_when_the_run_is_gone() -> None:
    schedule = hourly(overlap="cancel_running")

    first = ask(schedule, 1, runs=busy(0))
    second = ask(schedule, 2, first.state, busy(0))
    third = ask(schedule, 2.1, second.state)

    assert first.decisions[0].cancels == busy(0).live
    assert told(second.decisions) == ["1 skip: replaced", "2 defer: waits"]
    assert second.decisions[1].cancels == busy(0).live
    assert told(third.decisions) == ["2 fire: turn came"]


def test_ticks_that_one_call_fires_count_as_going_on_for_the_next() -> None:
    schedule = hourly(catchup="all(3)", overlap="queue(2)")

    outcome = ask(schedule, 3.5)

    assert told(outcome.decisions) == ["1 fire: caught up", "2 defer: waits", "3 defer: waits"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"catchup": "none"}, ["1 miss: late x5"]),
        ({"catchup": "latest"}, ["1 miss: superseded x4", "5 fire: caught up"]),
        (
            {"catchup": "all(2)", "overlap": "allow(9)"},
            ["1 miss: superseded x3", "4 fire: caught up", "5 fire: caught up"],
        ),
        (
            {"catchup": "all(9, window=3h)", "overlap": "allow(9)"},
            ["1 miss: superseded x2", *(f"{n} fire: caught up" for n in (3, 4, 5))],
        ),
        ({"catchup": "all(9, window=1m)", "overlap": "allow(9)"}, ["1 miss: late x5"]),
    ],
)
def test_after_an_outage_late_ticks_are_caught_up_by_policy(
    options: dict[str, Any], expected: list[str]
) -> None:
    outcome = ask(hourly(grace="5m", **options), 5.5)

    assert told(outcome.decisions) == expected
    assert outcome.state.decided_through == at(5)


def test_a_tick_on_time_takes_the_place_of_late_ones() -> None:
    outcome = ask(hourly(grace="5m"), 5)

    assert told(outcome.decisions) == ["1 miss: superseded x4", "5 fire: on time"]


def test_late_ticks_that_are_all_caught_up_come_before_the_one_on_time() -> None:
    outcome = ask(hourly(grace="5m", catchup="all(2)", overlap="allow(9)"), 3)

    assert told(outcome.decisions) == [
        "1 fire: caught up",
        "2 fire: caught up",
        "3 fire: on time",
    ]


def test_a_tick_within_its_grace_is_on_time() -> None:
    schedule = declared("d", cron="@daily")
    state = registered(schedule, NOON)

    in_time = decide(schedule, state, at(13) - SECOND, IDLE)
    late = decide(schedule, state, at(13), IDLE)

    assert told(in_time.decisions) == ["12 fire: on time"]
    assert told(late.decisions) == ["12 fire: caught up"]
    assert late.decisions[0].reason == "1h late: catchup=latest"


def test_a_grace_from_before_those_were_bounded_is_as_long_as_one_may_be() -> None:
    schedule = msgspec.structs.replace(hourly(), grace=99_999_999 * DAY)

    outcome = ask(schedule, 1.5)

    assert told(outcome.decisions) == ["1 fire: on time"]


def test_a_window_from_before_those_were_bounded_is_as_long_as_one_may_be() -> None:
    catchup = CatchupAll(max=9, window=99_999_999 * DAY)
    schedule = msgspec.structs.replace(hourly(grace="5m", overlap="allow(9)"), catchup=catchup)

    outcome = ask(schedule, 2.5)

    assert told(outcome.decisions) == ["1 fire: caught up", "2 fire: caught up"]


def test_a_catch_up_that_fills_the_queue_stops_at_the_first_tick_without_a_place() -> None:
    schedule = hourly(catchup="all(4)", overlap="queue_all(1)")

    outcome = ask(schedule, 5.5, runs=busy(0))
    freed = ask(schedule, 5.6, outcome.state)

    assert told(outcome.decisions) == ["1 defer: waits", "2 defer: queue full"]
    assert outcome.state.held == at(2)
    assert told(freed.decisions) == ["1 fire: turn came", "2 defer: waits", "3 defer: queue full"]


def test_an_outage_of_years_is_one_row_and_takes_no_time() -> None:
    schedule = declared("s", interval="1s")

    outcome = decide(schedule, registered(schedule, NOON), NOON + 3650 * DAY, IDLE)

    missed, *fired = outcome.decisions
    assert (missed.verdict, missed.at, missed.count + len(fired)) == (
        Verdict.MISS,
        NOON + SECOND,
        3650 * 86400,
    )


def test_an_outage_of_years_is_one_row_for_a_cron_of_each_minute_too() -> None:
    schedule = declared("m", cron="* * * * *", tz="Europe/Berlin")

    outcome = decide(schedule, registered(schedule, NOON), NOON + 3650 * DAY, IDLE)

    missed, *fired = outcome.decisions
    assert missed.count + len(fired) == 3650 * 1440


def test_ticks_on_time_that_are_skipped_for_one_reason_are_one_row() -> None:
    schedule = declared("s", interval="10s", grace="1h", overlap="skip")

    outcome = decide(schedule, registered(schedule, NOON), NOON + 50 * MINUTE, busy(0))

    assert told(outcome.decisions) == ["0.00277778 skip: overlap x300"]
    assert outcome.decisions[0].last == NOON + 50 * MINUTE


def test_a_tick_waits_for_its_jitter() -> None:
    schedule = hourly(jitter="30m")
    due = schedule.due(at(1))
    state = registered(schedule, NOON)

    early = decide(schedule, state, due - SECOND, IDLE)

    assert at(1) < due
    assert early.decisions == ()
    assert early.wake_at == due
    assert told(decide(schedule, early.state, due, IDLE).decisions) == ["1 fire: on time"]


def test_a_fire_tells_what_the_clocks_did() -> None:
    schedule = declared("n", cron="30 2 * * *", tz="Europe/Berlin")
    night = datetime(2026, 3, 29, 1, tzinfo=UTC)

    outcome = decide(schedule, registered(schedule, night - HOUR), night, IDLE)

    assert outcome.decisions[0].reason == (
        "on time; moved to where the clocks went forward: its wall time did not exist"
    )


def test_while_it_is_paused_ticks_are_skipped_in_one_row_and_not_caught_up() -> None:
    paused = pause(registered(hourly(), NOON), at(0.5), "by anna")

    outcome = resume(hourly(), paused, at(5.5), IDLE)
    after = ask(hourly(), 6, outcome.state)

    assert told(outcome.decisions) == ["1 skip: paused x5"]
    assert "paused since Thu 2026-01-01 12:30 UTC: by anna" in outcome.decisions[0].reason
    assert outcome.state.paused is None
    assert outcome.wake_at == at(6)
    assert told(after.decisions) == ["6 fire: on time"]


def test_a_paused_schedule_starts_no_waiting_tick_until_it_is_resumed() -> None:
    waiting = ask(hourly(), 1, runs=busy(0)).state
    paused = pause(waiting, at(1.1), "by anna")

    outcome = ask(hourly(), 1.2, paused)

    assert outcome.decisions == ()
    assert outcome.wake_at is None
    assert standing(hourly(), paused, at(1.2)).startswith("paused since")
    assert told(resume(hourly(), paused, at(1.3), IDLE).decisions) == ["1 fire: turn came"]


def test_pausing_again_keeps_the_first_reason() -> None:
    paused = pause(registered(hourly(), NOON), at(0.5), "by anna")

    assert pause(paused, at(1), "by bert") == paused


def test_failures_in_a_row_pause_it_and_resuming_starts_to_count_anew() -> None:
    schedule = hourly(on_failure="pause_after(3)")
    failing = Runs(failed_in_a_row=3)

    outcome = ask(schedule, 1, runs=failing)
    resumed = resume(schedule, outcome.state, at(1.5), failing)

    assert told(outcome.decisions) == ["1 skip: paused"]
    assert "3 runs in a row failed" in outcome.decisions[0].reason
    assert told(ask(schedule, 1, runs=Runs(failed_in_a_row=2)).decisions) == ["1 fire: on time"]
    assert resumed.state.paused is None
    assert resumed.state.resumed_at == at(1.5)


def test_it_ends_after_max_runs_and_counts_those_that_wait() -> None:
    schedule = hourly(max_runs=2)

    first = ask(schedule, 1)
    second = ask(schedule, 2, first.state, busy(1))
    third = ask(schedule, 3, second.state)
    fourth = ask(schedule, 4, third.state)

    assert told(second.decisions) == ["2 defer: waits"]
    assert ask(schedule, 3, second.state, busy(1)).decisions == ()
    assert second.state.ended == "max_runs=2 is reached"
    assert second.wake_at is None
    assert told(third.decisions) == ["2 fire: turn came"]
    assert fourth.decisions == ()
    assert fourth.state.fired == 2


def test_a_catch_up_fires_no_more_than_max_runs() -> None:
    schedule = hourly(max_runs=2, catchup="all(5)", overlap="allow(5)")

    outcome = ask(schedule, 5.5)

    assert told(outcome.decisions) == ["1 fire: caught up", "2 fire: caught up"]
    assert outcome.state.ended == "max_runs=2 is reached"


def test_it_ends_when_no_time_is_left() -> None:
    schedule = declared("h", at=[at(1), at(2)])

    outcome = ask(schedule, 2, ask(schedule, 1).state, busy(1))

    assert told(outcome.decisions) == ["2 defer: waits"]
    assert outcome.state.ended == "no time is left"
    assert standing(schedule, outcome.state, at(2)).endswith("ended: no time is left")


def test_one_whose_times_are_all_past_has_ended_when_it_is_registered() -> None:
    assert registered(declared("h", at=at(-1)), NOON).ended == "no time is left"


def test_registering_the_same_again_changes_nothing() -> None:
    state = ask(hourly(), 1).state

    outcome = register_again(hourly(), hourly(), state, at(1.5), IDLE)

    assert outcome.decisions == ()
    assert outcome.state == state
    assert outcome.wake_at == at(2)


def test_an_interval_keeps_its_phase_however_often_it_is_registered() -> None:
    schedule = declared("i", interval="7m")
    state = registered(schedule, NOON)
    now = NOON

    fired = []
    while now < at(2):
        outcome = register_again(schedule, schedule, state, now, IDLE)
        state, now = outcome.state, now + 13 * SECOND
        fired += [each.at for each in outcome.decisions]

    assert fired == list(schedule.between(NOON, fired[-1]))
    assert len(fired) == 17


def test_a_changed_schedule_is_followed_from_now_and_doubles_nothing() -> None:
    state = ask(hourly(), 1).state
    quarters = declared("h", cron="*/15 * * * *")

    outcome = register_again(hourly(), quarters, state, at(1.9), IDLE)
    after = ask(quarters, 2, outcome.state)

    assert outcome.decisions == ()
    assert outcome.wake_at == at(2)
    assert told(after.decisions) == ["2 fire: on time"]


def test_a_change_after_the_clock_went_back_doubles_nothing() -> None:
    ahead = ask(hourly(), 5).state

    outcome = register_again(hourly(), hourly(tz="Europe/Berlin"), ahead, at(1.5), IDLE)

    assert outcome.decisions == ()
    assert outcome.wake_at == at(6)


def test_what_was_due_before_a_change_is_decided_as_it_was() -> None:
    outcome = register_again(
        hourly(), declared("h", cron="@daily"), registered(hourly(), NOON), at(1.5), IDLE
    )

    assert told(outcome.decisions) == ["1 fire: on time"]
    assert outcome.wake_at == at(12)


def test_a_tick_that_waits_for_its_jitter_survives_a_change_that_keeps_its_time() -> None:
    old = hourly(jitter="30m")
    new = hourly(jitter="30m", dst="fold=both")
    now = old.due(at(1)) - SECOND

    outcome = register_again(old, new, registered(old, NOON), now, IDLE)

    assert outcome.decisions == ()
    assert outcome.wake_at == old.due(at(1))


def test_a_tick_that_waits_for_its_jitter_is_told_when_a_change_takes_its_time_away() -> None:
    old = hourly(jitter="30m")
    now = old.due(at(1)) - SECOND

    outcome = register_again(
        old, declared("h", cron="30 * * * *"), registered(old, NOON), now, IDLE
    )

    assert told(outcome.decisions) == ["1 skip: changed"]
    assert outcome.wake_at == at(1.5)


def test_other_policies_leave_waiting_ticks_and_times_as_they_are() -> None:
    state = ask(hourly(), 1, runs=busy(0)).state

    outcome = register_again(hourly(), hourly(overlap="skip"), state, at(1.2), busy(0))

    assert outcome.state == state


@pytest.mark.parametrize("cron", ["@daily", "*/15 * * * *"])
def test_what_a_full_queue_held_is_told_when_the_times_change(cron: str) -> None:
    old = hourly(overlap="queue_all(1)")
    state = ask(old, 2, ask(old, 1, runs=busy(0)).state, busy(0)).state
    new = declared("h", cron=cron, overlap="queue_all(1)")

    outcome = register_again(old, new, state, at(5.5), busy(0))

    assert told(outcome.decisions) == ["2 skip: changed x4"]
    assert outcome.state.held is None
    assert outcome.state.waiting == (at(1),)


def test_one_that_had_ended_goes_on_when_it_is_given_more() -> None:
    state = ask(hourly(max_runs=1), 1).state

    outcome = register_again(hourly(max_runs=1), hourly(max_runs=3), state, at(1.5), IDLE)

    assert state.ended
    assert not outcome.state.ended
    assert outcome.wake_at == at(2)


def test_a_state_travels_as_json() -> None:
    state = pause(ask(hourly(), 1, runs=busy(0)).state, at(1), "by anna")

    assert msgspec.json.decode(msgspec.json.encode(state), type=ScheduleState) == state
