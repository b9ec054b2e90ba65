"""Races by the decisions alone: when a wait for steps is over, and who is not needed then."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from tests.unit.perdure.engine.bench import START, Bench, plan_of, with_selects

from perdure.calls import Outcome, Wait
from perdure.engine.events import Ended
from perdure.executors.protocol import Capacity
from perdure.plan import Plan, RefTo
from perdure.reference import StepRef
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import Cause, RunPolicy

WIDE = Capacity(cpus=8, slots=64)


def race_of(edges: dict[str, list[str]], names: list[str], **given: Any) -> Plan:
    """Return a plan with a step ``wait`` that names others, and one that takes its value."""
    plan = plan_of({**edges, "wait": [], "end": ["wait"]}, output="end", **given)
    wait = next(step for step in plan.steps if step.id == "wait")
    named = msgspec.structs.replace(wait, args=tuple(RefTo(name) for name in names))
    steps = tuple(named if step is wait else step for step in plan.steps)
    return msgspec.structs.replace(plan, steps=steps)


def begin(bench: Bench, names: list[str], **wait: Any) -> None:
    """Let the step ``wait`` begin to wait."""
    bench.turn(
        Ended(
            Outcome(
                id=bench.in_flight.pop("wait").id,
                cause=Cause.SUCCEEDED,
                wait=Wait(kind="steps", steps=tuple(map(StepRef, names)), **wait),
            )
        )
    )


def racing(
    edges: dict[str, list[str]], names: list[str], policy: RunPolicy | None = None, **wait: Any
) -> Bench:
    bench = Bench(race_of(edges, names), policy=policy or RunPolicy(), capacity=WIDE)
    bench.start()
    begin(bench, names, **wait)
    return bench


def found(bench: Bench) -> str:
    value = bench.current("wait").value
    assert value is not None
    assert value.data is not None
    return bytes(value.data).decode()


def statuses(bench: Bench) -> dict[str, StepStatus]:
    return {row.step_id: row.status for row in bench.rows if row.current}


def test_race_is_over_when_enough_are_done_in_the_order_of_the_arguments() -> None:
    bench = racing({"a": [], "b": [], "c": []}, ["c", "a", "b"], wanted=2)
    bench.succeed("a")
    assert "end" not in bench.in_flight

    bench.succeed("c")

    assert found(bench) == "c a | b"
    assert "end" in bench.in_flight
    bench.succeed("end")
    assert bench.ended_as is None  # the loser goes on
    bench.succeed("b")
    assert bench.ended_as is RunStatus.SUCCEEDED


def test_race_is_over_at_once_when_enough_were_done_before() -> None:
    bench = Bench(race_of({"a": [], "b": []}, ["a", "b"]), capacity=WIDE)
    bench.start()
    bench.succeed("a")
    bench.succeed("b")

    begin(bench, ["a", "b"])

    assert found(bench) == "a b | "


def test_race_is_over_with_what_is_done_when_its_time_is() -> None:
    bench = racing({"a": []}, ["a"])
    late = racing({"a": []}, ["a"], deadline=START + timedelta(seconds=5))

    bench.pass_time(10)
    late.pass_time(10)

    assert "end" not in bench.in_flight
    assert found(late) == " | a"


def test_loser_is_killed_with_what_only_it_needs() -> None:
    edges = {"a": [], "above": [], "b": ["above"], "other": []}
    bench = racing(edges, ["a", "b"], cancel_rest=True)

    turn = bench.succeed("a")

    assert [call.step_id for kill in turn.kill for call in kill.calls] == ["above"]
    assert statuses(bench)["b"] is statuses(bench)["above"] is StepStatus.CANCELLED
    assert "other" not in statuses(bench)
    assert bench.current("b").reason == "not needed: wait had enough"


def test_loser_that_somebody_else_needs_goes_on() -> None:
    bench = racing({"a": [], "b": [], "user": ["b"]}, ["a", "b"], cancel_rest=True)

    turn = bench.succeed("a")

    assert not turn.kill
    bench.all_succeed()
    assert bench.ended_as is RunStatus.SUCCEEDED
    assert statuses(bench)["user"] is StepStatus.SUCCEEDED


def test_branch_of_a_loser_ends_with_it_where_another_select_has_chosen_otherwise() -> None:
    edges = {"winner": [], "own": [], "shared": [], "choice": [], "losers-choice": []}
    edges |= {"select": ["choice", "own", "shared"], "loser": ["losers-choice", "shared"]}
    plan = race_of(edges, ["winner", "loser"])
    plan = with_selects(plan, select=("own", "shared"), loser=("shared",))
    bench = Bench(plan, capacity=WIDE)
    bench.start()
    begin(bench, ["winner", "loser"], cancel_rest=True)
    bench.succeed("choice", "0")

    bench.succeed("winner")

    assert statuses(bench)["loser"] is statuses(bench)["shared"] is StepStatus.CANCELLED
    bench.end("losers-choice", Cause.CANCELLED)
    assert set(bench.all_succeed()) == {"own", "end"}
    assert bench.ended_as is RunStatus.SUCCEEDED


def test_value_that_others_had_is_made_again_to_its_end() -> None:
    edges = {"a": [], "above": [], "other": ["above"], "b": ["above"]}
    bench = racing(edges, ["a", "b"], cancel_rest=True)
    bench.succeed("above")
    bench.succeed("other")
    bench.end("b", Cause.INPUT_LOST, culprit="step:above")

    bench.succeed("a")

    assert "above" in bench.in_flight
    assert statuses(bench)["b"] is StepStatus.CANCELLED
    bench.succeed("above")
    bench.succeed("end")
    assert bench.ended_as is RunStatus.SUCCEEDED
    assert statuses(bench)["above"] is StepStatus.SUCCEEDED


def test_cancelled_loser_whose_end_comes_late_is_not_committed() -> None:
    bench = racing({"a": [], "b": []}, ["a", "b"], cancel_rest=True)
    bench.succeed("a")

    bench.succeed("b")  # it had ended before it was killed
    bench.succeed("end")

    assert statuses(bench)["b"] is StepStatus.CANCELLED
    assert bench.ended_as is RunStatus.SUCCEEDED


def test_losers_stay_ended_in_the_next_life() -> None:
    bench = racing({"a": [], "b": []}, ["a", "b"], cancel_rest=True)
    bench.succeed("a")
    count = len(bench.rows)

    again = Bench(bench.plan, rows=bench.rows, attempts=bench.attempts, waits=bench.waits).start()

    assert list(again.in_flight) == ["end"]
    again.succeed("end")
    assert again.ended_as is RunStatus.SUCCEEDED
    assert statuses(again)["b"] is StepStatus.CANCELLED
    assert len(again.rows) == count + 1


def test_loser_that_is_needed_in_the_next_life_runs_then() -> None:
    bench = racing({"a": [], "b": []}, ["a", "b"], cancel_rest=True)
    bench.succeed("a")
    edited = race_of({"a": [], "b": [], "user": ["b"]}, ["a", "b"])

    again = Bench(edited, rows=bench.rows, attempts=bench.attempts, waits=bench.waits).start()

    assert "b" in again.in_flight
    again.all_succeed()
    assert again.ended_as is RunStatus.SUCCEEDED
    assert again.current("b").status is StepStatus.SUCCEEDED


def test_race_goes_on_in_the_next_life_with_its_deadline() -> None:
    bench = racing({"a": []}, ["a"], deadline=START + timedelta(seconds=5))

    again = Bench(bench.plan, rows=bench.rows, attempts=bench.attempts, waits=bench.waits)
    again.start()
    again.pass_time(10)

    assert found(again) == " | a"


def test_run_fails_where_nobody_is_left_who_could_win() -> None:
    bench = racing({"a": []}, ["a"], policy=RunPolicy(on_failure="finish"))

    bench.end("a", Cause.USER_ERROR)

    assert bench.ended_as is RunStatus.FAILED
