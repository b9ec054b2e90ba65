"""Decisions, one behaviour each: real plans, outcomes made by hand, no clock and no I/O."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from tests.unit.perdure.engine.bench import START, Bench, plan_of, stored, with_selects

from perdure.calls import Instance, Outcome, StepCall
from perdure.engine.commands import Kill, Retire
from perdure.engine.events import CancelRequested, Ended, OwnershipLost, PauseRequested, RenewedLate
from perdure.engine.restore import MAX_TAKEOVERS
from perdure.errors import Failure
from perdure.executors.protocol import Capacity
from perdure.plan import ActorStep, Backoff, Plan, StepOptions
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import Cause, Place, RunId, RunPolicy

NO_JITTER = Backoff(1.0, 2.0, 60.0, 0.0)


@pytest.fixture
def diamond() -> Plan:
    return plan_of({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})


def test_diamond_runs_in_order_and_ends_with_its_last_checkpoint(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    ran = bench.all_succeed()

    assert ran == ["a", "b", "c", "d"]
    assert bench.ended_as is RunStatus.SUCCEEDED
    assert [row.step_id for row in bench.commits[-1].steps] == ["d"]


def test_row_remembers_the_digests_it_consumed(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    bench.all_succeed()

    assert bench.current("d").inputs == ("v1:b-value", "v1:c-value")


def test_start_of_a_step_rides_in_the_commit_that_makes_it_ready(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    turn = bench.succeed("a")

    (commit,) = turn.commits
    assert [row.step_id for row in commit.steps] == ["a"]
    assert [attempt.step_id for attempt in commit.attempts] == ["b", "c"]


def test_placement_never_exceeds_the_capacity() -> None:
    bench = Bench(plan_of({f"s{i}": [] for i in range(10)}), capacity=Capacity(cpus=3)).start()

    assert len(bench.in_flight) == 3
    bench.succeed("s0")
    assert len(bench.in_flight) == 3


def test_large_request_is_not_starved_by_small_ones() -> None:
    options = {"big": StepOptions(cpus=2)}
    edges: dict[str, list[str]] = {f"s{i}": [] for i in range(40)}
    bench = Bench(plan_of({"s": [], "big": ["s"], **edges}, options=options)).start()
    bench.succeed("s")
    assert "big" not in bench.in_flight

    bench.pass_time(6)
    for step in list(bench.in_flight):
        bench.succeed(step)

    assert list(bench.in_flight) == ["big"]


def test_user_error_is_retried_after_its_backoff_and_then_fails_the_run() -> None:
    options = {"a": StepOptions(retries=1, backoff=NO_JITTER)}
    bench = Bench(plan_of({"a": [], "b": ["a"]}, options=options)).start()

    bench.end("a", Cause.USER_ERROR)
    assert bench.in_flight == {}
    bench.pass_time(0.5)
    assert bench.in_flight == {}
    bench.pass_time(0.6)
    assert bench.in_flight["a"].id.attempt == 2
    bench.end("a", Cause.USER_ERROR)

    assert bench.ended_as is RunStatus.FAILED
    assert bench.current("a").status is StepStatus.FAILED


def test_backoff_deadline_survives_the_coordinator() -> None:
    options = {"a": StepOptions(retries=3, backoff=Backoff(100.0, 2.0, 1000.0, 0.0))}
    bench = Bench(plan_of({"a": []}, options=options)).start()
    bench.end("a", Cause.USER_ERROR)

    again = Bench(bench.plan, rows=bench.rows, attempts=bench.attempts, now=bench.now)
    again.start()

    assert again.in_flight == {}
    again.pass_time(101)
    assert again.in_flight["a"].id.attempt == 2


def test_error_that_retry_on_does_not_admit_is_final() -> None:
    options = {"a": StepOptions(retries=5)}
    bench = Bench(plan_of({"a": []}, options=options)).start()

    bench.end("a", Cause.USER_ERROR, retryable=False)

    assert bench.ended_as is RunStatus.FAILED


def test_lost_worker_never_spends_the_retries_of_the_user() -> None:
    bench = Bench(plan_of({"a": []}, options={"a": StepOptions(lost_retries=2)})).start()

    bench.end("a", Cause.WORKER_LOST)
    bench.end("a", Cause.WORKER_LOST)
    assert bench.in_flight["a"].id.attempt == 3
    bench.end("a", Cause.WORKER_LOST)

    assert bench.ended_as is RunStatus.FAILED


def test_out_of_memory_is_tried_again_once() -> None:
    bench = Bench(plan_of({"a": []})).start()

    bench.end("a", Cause.OUT_OF_MEMORY)
    assert bench.ended_as is None
    bench.end("a", Cause.OUT_OF_MEMORY)

    assert bench.ended_as is RunStatus.FAILED


def test_setup_error_is_final_at_once() -> None:
    bench = Bench(plan_of({"a": []}, options={"a": StepOptions(retries=5)})).start()

    bench.end("a", Cause.SETUP_ERROR)

    assert bench.ended_as is RunStatus.FAILED


def test_siblings_finish_and_commit_after_a_failure(diamond: Plan) -> None:
    bench = Bench(diamond).start()
    bench.succeed("a")

    bench.end("b", Cause.USER_ERROR)
    assert bench.ended_as is None
    bench.succeed("c")

    assert bench.ended_as is RunStatus.FAILED
    assert bench.current("c").status is StepStatus.SUCCEEDED


def test_finish_policy_runs_all_that_is_independent_of_the_failure() -> None:
    plan = plan_of({"a": [], "b": ["a"], "x": [], "y": ["x"], "z": ["y", "b"]})
    bench = Bench(plan, policy=RunPolicy(on_failure="finish")).start()

    bench.end("a", Cause.USER_ERROR)
    ran = bench.all_succeed()

    assert ran == ["x", "y"]
    assert bench.ended_as is RunStatus.FAILED


def test_caught_failure_is_a_value_and_the_run_goes_on() -> None:
    plan = plan_of({"a": [], "b": ["a"]}, options={"a": StepOptions(catch=True)})
    bench = Bench(plan).start()

    bench.end("a", Cause.USER_ERROR)
    bench.all_succeed()

    assert bench.ended_as is RunStatus.SUCCEEDED
    assert bench.current("a").caught
    assert bench.current("b").inputs == ("v1:failure-builtins.ValueError",)


def test_caught_failure_is_the_same_value_when_owners_died_around_it() -> None:
    plan = plan_of({"a": [], "b": ["a"]}, options={"a": StepOptions(catch=True)})
    undisturbed, disturbed = Bench(plan).start(), Bench(plan).start()
    again = Bench(plan, rows=disturbed.rows, attempts=disturbed.attempts).start()
    caught: list[Failure] = []

    for bench in (undisturbed, again):
        bench.engine.encode = lambda failure: caught.append(failure) or stored("f")
        bench.end("a", Cause.USER_ERROR)

    assert again.current("a").attempt == 2
    assert caught[0] == caught[1]


def test_cancel_kills_what_runs_and_ends_when_it_is_gone(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    turn = bench.turn(CancelRequested("r"))
    assert [call.step_id for kill in turn.kill for call in kill.calls] == ["a"]
    assert bench.ended_as is None
    bench.end("a", Cause.CANCELLED)

    assert bench.ended_as is RunStatus.CANCELLED


def test_cancel_of_an_idle_run_ends_it_at_once() -> None:
    options = {"a": StepOptions(retries=1, backoff=NO_JITTER)}
    bench = Bench(plan_of({"a": []}, options=options)).start()
    bench.end("a", Cause.USER_ERROR)

    bench.turn(CancelRequested("r"))

    assert bench.ended_as is RunStatus.CANCELLED


def test_deadline_ends_the_run_as_failed() -> None:
    bench = Bench(
        plan_of({"a": []}), record_fields={"deadline": START + timedelta(seconds=10)}
    ).start()

    turn = bench.pass_time(11)
    assert turn.kill
    bench.end("a", Cause.CANCELLED)

    assert bench.ended_as is RunStatus.FAILED


def test_pause_lets_running_steps_commit_and_starts_none(diamond: Plan) -> None:
    bench = Bench(diamond).start()
    bench.turn(PauseRequested("r", True))

    turn = bench.succeed("a")

    assert turn.parked == ("r",)
    assert bench.in_flight == {}
    assert bench.ended_as is None


def test_lost_ownership_drops_the_run_and_kills_its_attempts(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    turn = bench.turn(OwnershipLost("r", "somebody else"))

    assert turn.dropped == ("r",)
    assert turn.kill[0].cause is Cause.ABANDONED
    assert bench.engine.pools["processes"].free.cpus == 1
    bench.end("a", Cause.ABANDONED)
    assert bench.engine.pools["processes"].free.cpus == 2


def test_lease_that_was_over_for_a_while_is_told_in_the_story_of_the_run(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    turn = bench.turn(RenewedLate(14.96))

    ((event,),) = [commit.events for commit in turn.commits]
    assert (event.kind, event.detail) == ("lease late", {"silent_s": 15.0})
    assert bench.in_flight == {"a": bench.in_flight["a"]}


# --- resume -----------------------------------------------------------------------------------
def test_committed_steps_do_not_run_again_after_the_owner_died(diamond: Plan) -> None:
    bench = Bench(diamond).start()
    bench.succeed("a")
    bench.succeed("b")

    again = Bench(diamond, rows=bench.rows, attempts=bench.attempts).start()
    ran = again.all_succeed()

    assert ran == ["c", "d"]
    assert again.ended_as is RunStatus.SUCCEEDED


def test_attempt_cut_off_by_a_dead_owner_charges_nobody(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    again = Bench(diamond, rows=bench.rows, attempts=bench.attempts).start()

    assert again.in_flight["a"].id.attempt == 2
    run = again.engine.runs["r"]
    assert (run.steps["a"].user_errors, run.steps["a"].losses) == (0, 0)
    assert [a.cause for a in again.attempts.values()] == [Cause.ABANDONED, None]


def test_run_that_kills_its_owners_fails_and_names_the_suspect(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    again = Bench(
        diamond,
        rows=bench.rows,
        attempts=bench.attempts,
        record_fields={"takeovers": MAX_TAKEOVERS},
    ).start()

    assert again.ended_as is RunStatus.FAILED
    end = again.commits[-1].end
    assert end is not None
    assert end.error is not None
    assert end.error.step_id == "a"


def test_steps_that_were_given_back_before_they_began_are_not_blamed(diamond: Plan) -> None:
    bench = Bench(diamond).start()
    bench.turn(PauseRequested("r", paused=True))
    bench.end("a", Cause.ABANDONED)

    again = Bench(
        diamond,
        rows=bench.rows,
        attempts=bench.attempts,
        record_fields={"takeovers": MAX_TAKEOVERS},
    ).start()

    assert again.ended_as is None
    assert again.in_flight["a"].id.attempt == 2


def test_run_whose_owners_died_while_nothing_ran_is_not_blamed(diamond: Plan) -> None:
    bench = Bench(diamond, record_fields={"takeovers": MAX_TAKEOVERS + 5}).start()

    bench.all_succeed()

    assert bench.ended_as is RunStatus.SUCCEEDED


def test_run_that_lost_three_owners_goes_one_step_at_a_time(diamond: Plan) -> None:
    bench = Bench(diamond).start()

    again = Bench(
        diamond, rows=bench.rows, attempts=bench.attempts, record_fields={"takeovers": 3}
    ).start()
    again.succeed("a")

    assert list(again.in_flight) == ["b"]


def test_failed_step_runs_again_as_a_new_generation_with_fresh_budgets(diamond: Plan) -> None:
    bench = Bench(diamond).start()
    bench.end("a", Cause.USER_ERROR)
    rows = [msgspec.structs.replace(row, current=False) for row in bench.rows]

    again = Bench(diamond, rows=rows, attempts=bench.attempts).start()

    assert again.in_flight["a"].id.generation == 2
    assert again.in_flight["a"].id.attempt == 1


# --- lineage ----------------------------------------------------------------------------------
def test_unchecked_step_runs_again_only_if_its_value_is_needed() -> None:
    plan = plan_of(
        {"a": [], "b": ["a"], "c": ["b"], "d": ["c", "b"]},
        options={"b": StepOptions(checkpoint=False)},
    )
    bench = Bench(plan).start()
    for step in "abc":
        bench.succeed(step)
    assert bench.current("b").value is not None
    assert bench.current("b").value.place is Place.NONE

    again = Bench(plan, rows=bench.rows, attempts=bench.attempts).start()
    ran = again.all_succeed()

    assert ran == ["b", "d"]
    assert again.current("b").generation == 2
    assert again.current("c").generation == 1


def test_lost_input_is_rebuilt_in_a_live_run_with_only_the_needed_ancestors() -> None:
    plan = plan_of({"a": [], "x": [], "b": ["a", "x"], "c": ["b"], "d": ["c"]})
    bench = Bench(plan).start()
    for step in "axb":
        bench.succeed(step, place=Place.BLOB)

    turn = bench.end("c", Cause.INPUT_LOST, culprit="step:b")
    assert turn.quarantine == ("blake3:b-value",)
    ran = bench.all_succeed()

    assert ran == ["b", "c", "d"]
    assert bench.current("b").generation == 2


def test_branch_is_skipped_where_another_owner_makes_the_choice_of_a_done_select_again() -> None:
    edges = {"choice": [], "yes": [], "no": [], "select": ["choice", "yes", "no"]}
    plan = plan_of({**edges, "other": ["choice"], "last": ["select", "other"]})
    plan = with_selects(plan, select=("yes", "no"))
    bench = Bench(plan).start()
    bench.succeed("choice", "0")
    bench.succeed("yes")
    bench.end("other", Cause.INPUT_LOST, culprit="step:choice")

    again = Bench(plan, rows=bench.rows, attempts=bench.attempts).start()
    again.succeed("choice", "0")

    assert again.all_succeed() == ["other", "last"]
    assert again.ended_as is RunStatus.SUCCEEDED
    assert again.current("select").generation == 1
    assert again.current("no").status is StepStatus.SKIPPED


def test_choice_of_a_select_that_was_skipped_chooses_nothing() -> None:
    edges = {"outer-choice": [], "inner-choice": [], "yes": [], "no": [], "other": []}
    edges |= {"inner": ["inner-choice", "yes", "no"], "outer": ["outer-choice", "other", "inner"]}
    plan = plan_of({**edges, "last": ["outer", "inner-choice"]})
    plan = with_selects(plan, inner=("yes", "no"), outer=("other", "inner"))
    bench = Bench(plan).start()
    bench.succeed("outer-choice", "0")
    bench.succeed("inner-choice", "0")

    assert bench.all_succeed() == ["other", "last"]
    skipped = {row.step_id for row in bench.rows if row.status is StepStatus.SKIPPED}
    assert skipped == {"inner", "yes", "no"}


def test_value_lost_again_and_again_fails_the_step_instead_of_looping() -> None:
    bench = Bench(plan_of({"a": [], "b": ["a"]})).start()
    for _ in range(20):
        if bench.ended_as is not None:
            break
        bench.succeed("a")
        bench.end("b", Cause.INPUT_LOST, culprit="step:a")

    assert bench.ended_as is RunStatus.FAILED


def test_unavailable_input_is_waited_for_and_never_rebuilt() -> None:
    bench = Bench(plan_of({"a": [], "b": ["a"]})).start()
    bench.succeed("a")

    bench.end("b", Cause.INPUT_UNAVAILABLE, culprit="step:a")
    assert bench.in_flight == {}
    bench.pass_time(60)

    assert list(bench.in_flight) == ["b"]
    assert bench.current("a").generation == 1


def _with_rebuilt(policy: RunPolicy, *, opaque: bool = False) -> Bench:
    """a is not checkpointed; c has consumed it; d needs it again after a restart."""
    plan = plan_of(
        {"a": [], "c": ["a"], "d": ["a", "c"]}, options={"a": StepOptions(checkpoint=False)}
    )
    first = Bench(plan, policy=policy).start()
    first.succeed("a", "one", opaque=opaque)
    first.succeed("c")
    return Bench(plan, policy=policy, rows=first.rows, attempts=first.attempts).start()


def test_rebuilt_value_that_differs_beside_a_committed_consumer_is_reported() -> None:
    bench = _with_rebuilt(RunPolicy())

    bench.succeed("a", "two")

    assert bench.ended_as is RunStatus.FAILED
    error = bench.current("a").error
    assert error is not None
    assert error.type.endswith("NondeterminismError")
    assert "c" in error.message


def _taken_on_by_another(bench: Bench, policy: RunPolicy) -> Bench:
    """Load the run anew; as a resume has it, what failed is history."""
    rows = [
        msgspec.structs.replace(row, current=row.current and row.status is not StepStatus.FAILED)
        for row in bench.rows
    ]
    return Bench(bench.plan, policy=policy, rows=rows, attempts=bench.attempts).start()


def test_value_rebuilt_by_another_owner_than_the_one_that_missed_it_is_compared_too() -> None:
    bench = _with_rebuilt(RunPolicy())
    assert bench.rows[0].status == StepStatus.LOST

    again = _taken_on_by_another(bench, RunPolicy())
    again.succeed("a", "two")

    assert again.ended_as is RunStatus.FAILED
    assert again.current("a").error is not None


def test_run_that_failed_by_a_divergence_does_not_pass_over_it_when_it_is_resumed() -> None:
    bench = _with_rebuilt(RunPolicy())
    bench.succeed("a", "two")

    again = _taken_on_by_another(bench, RunPolicy())
    again.succeed("a", "three")

    assert again.ended_as is RunStatus.FAILED


def test_run_that_failed_by_a_divergence_runs_the_consumers_again_when_asked() -> None:
    bench = _with_rebuilt(RunPolicy())
    bench.succeed("a", "two")

    again = _taken_on_by_another(bench, RunPolicy(on_divergence="recompute"))
    again.succeed("a", "three")
    ran = again.all_succeed()

    assert ran == ["c", "d"]
    assert again.current("c").inputs == ("v1:three",)


def test_rebuilt_value_that_is_equal_goes_on() -> None:
    bench = _with_rebuilt(RunPolicy())

    bench.succeed("a", "one")
    bench.all_succeed()

    assert bench.ended_as is RunStatus.SUCCEEDED


def test_rebuilt_opaque_value_proves_nothing_and_goes_on() -> None:
    bench = _with_rebuilt(RunPolicy(), opaque=True)

    bench.succeed("a", "two", opaque=True)
    bench.all_succeed()

    assert bench.ended_as is RunStatus.SUCCEEDED


def test_divergence_policy_recompute_opens_new_generations_of_exactly_the_consumers() -> None:
    bench = _with_rebuilt(RunPolicy(on_divergence="recompute"))

    bench.succeed("a", "two")
    ran = bench.all_succeed()

    assert ran == ["c", "d"]
    assert bench.current("c").generation == 2
    assert bench.current("c").inputs == ("v1:two",)


def test_divergence_policy_keep_records_the_mix() -> None:
    bench = _with_rebuilt(RunPolicy(on_divergence="keep"))

    bench.succeed("a", "two")
    bench.all_succeed()

    assert bench.ended_as is RunStatus.SUCCEEDED
    assert bench.current("c").generation == 1
    assert "diverged" in [event.kind for commit in bench.commits for event in commit.events]


def test_spooled_value_is_forgotten_when_its_last_consumer_has_committed() -> None:
    plan = plan_of(
        {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]},
        options={"a": StepOptions(checkpoint=False)},
    )
    bench = Bench(plan).start()
    bench.succeed("a", place=Place.SPOOL)

    assert bench.succeed("b").forget == ()
    assert bench.succeed("c").forget == (("r", "blake3:a-value"),)


# --- change-aware reuse -----------------------------------------------------------------------
def _finished(plan: Plan) -> Bench:
    bench = Bench(plan).start()
    bench.all_succeed()
    assert bench.ended_as is RunStatus.SUCCEEDED
    return bench


EDGES = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "x": ["a"]}


def test_mended_step_and_its_cone_run_and_nothing_else() -> None:
    before = _finished(plan_of(EDGES, output="d"))

    after = Bench(plan_of(EDGES, output="d", code={"c": "new"}), rows=before.rows)
    after.start()
    after.succeed("c", "another")
    ran = after.all_succeed()

    assert ran == ["d"]
    assert after.current("c").generation == 2
    assert after.current("a").generation == 1


def test_cone_stops_where_the_value_comes_out_unchanged() -> None:
    before = _finished(plan_of(EDGES, output="d"))

    after = Bench(plan_of(EDGES, output="d", code={"b": "new"}), rows=before.rows)
    after.start()
    ran = after.all_succeed()

    assert ran == ["b"]
    assert after.ended_as is RunStatus.SUCCEEDED
    assert after.current("c").attempt == 0
    assert "unchanged" in after.current("c").reason


def test_inserted_call_runs_alone_when_a_new_run_takes_over() -> None:
    donor = _finished(plan_of(EDGES, output="d"))
    edges = {"a": [], "b": ["a"], "new": ["b"], "c": ["new"], "d": ["c"], "x": ["a"]}

    after = Bench(plan_of(edges, output="d"))
    after.load(donor=donor.rows)
    after.turn()
    after.succeed("new", "b-value")

    assert after.ended_as is RunStatus.SUCCEEDED
    assert [row.step_id for row in after.rows if row.attempt] == ["new"]


def test_volatile_step_is_never_taken_over_from_another_run() -> None:
    options = {"a": StepOptions(volatile=True)}
    donor = _finished(plan_of({"a": [], "b": ["a"]}, options=options))

    after = Bench(plan_of({"a": [], "b": ["a"]}, options=options))
    after.load(donor=donor.rows)
    after.turn()
    assert list(after.in_flight) == ["a"]
    after.succeed("a")

    assert after.ended_as is RunStatus.SUCCEEDED
    assert after.current("b").attempt == 0


def test_edit_taken_back_gets_the_old_result_back() -> None:
    before = _finished(plan_of({"a": [], "b": ["a"]}))
    edited = Bench(plan_of({"a": [], "b": ["a"]}, code={"b": "new"}), rows=before.rows).start()
    edited.all_succeed()

    back = Bench(plan_of({"a": [], "b": ["a"]}), rows=edited.rows).start()

    assert back.ended_as is RunStatus.SUCCEEDED
    assert back.in_flight == {}


def test_opaque_input_with_other_bytes_counts_as_changed() -> None:
    plan = plan_of({"a": [], "b": ["a"]})
    before = Bench(plan).start()
    before.succeed("a", "one", opaque=True)
    before.succeed("b")

    after = Bench(plan_of({"a": [], "b": ["a"]}, code={"a": "new"}), rows=before.rows).start()
    after.succeed("a", "two", opaque=True)

    assert list(after.in_flight) == ["b"]


# --- processes of actors ------------------------------------------------------------------------
def of_a_pool(edges: dict[str, list[str]], size: int) -> Plan:
    """Return a plan whose first step makes a model, of which the others are calls."""
    plan = plan_of(edges)
    made = plan.steps[0].id
    steps = tuple(
        msgspec.structs.replace(
            step,
            actor=ActorStep(
                actor=made,
                cls=made,
                method="" if step.id == made else "call",
                role="new" if step.id == made else "write",
                state="rebuild",
                pool=size,
            ),
        )
        for step in plan.steps
    )
    return msgspec.structs.replace(plan, steps=steps)


def test_processes_of_a_pool_are_ended_when_another_coordinator_has_taken_their_run() -> None:
    edges: dict[str, list[str]] = {"m": [], "a": ["m"], "b": ["m"], "end": ["a", "b"]}
    bench = Bench(of_a_pool(edges, 2)).start()
    bench.succeed("m")
    call = bench.in_flight["a"]
    bench.succeed("m")

    bench.succeed("b")
    dropped = bench.turn(OwnershipLost("r", "taken over"))
    ended = bench.turn(Ended(Outcome(id=call.id, cause=Cause.ABANDONED)))

    assert dropped.retire == (Retire("processes", (Instance("r", "m", 1),)),)
    assert ended.retire == (Retire("processes", (Instance("r", "m", 0),)),)
    assert bench.engine.pools["processes"].free.cpus == 2


POOL: dict[str, list[str]] = {"m": [], "a": ["m"], "b": ["m"], "end": ["a", "b"]}


def number_of(call: StepCall) -> int:
    assert call.actor is not None
    return call.actor.number


def test_call_goes_to_whichever_instance_of_a_pool_is_free_first() -> None:
    bench = Bench(of_a_pool(POOL, 2)).start()
    bench.succeed("m")
    begun = list(bench.in_flight)

    bench.succeed("a")

    assert begun == ["a", "m"]
    assert number_of(bench.in_flight["m"]) == 1
    assert number_of(bench.in_flight["b"]) == 0


def test_instance_that_is_made_for_a_call_asks_for_what_that_call_does() -> None:
    plan = of_a_pool(POOL, 2)
    asking = tuple(msgspec.structs.replace(each, cpus=0.25) for each in plan.options)
    bench = Bench(msgspec.structs.replace(plan, options=asking)).start()

    bench.succeed("m")

    assert number_of(bench.in_flight["m"]) == 1
    assert bench.in_flight["m"].cpus == bench.in_flight["a"].cpus == 0.25


def test_instance_that_could_not_be_made_is_made_by_the_next_call() -> None:
    bench = Bench(of_a_pool(POOL, 2)).start()
    bench.succeed("m")

    bench.end("m", Cause.USER_ERROR)

    assert number_of(bench.in_flight["b"]) == 1
    assert list(bench.in_flight) == ["a", "b"]


def test_instance_that_was_lost_with_its_call_is_made_while_another_one_has_the_call() -> None:
    bench = Bench(of_a_pool({**POOL, "c": ["m"]}, 2)).start()
    bench.succeed("m")
    bench.succeed("m")

    bench.end("a", Cause.WORKER_LOST)
    bench.succeed("b")

    assert number_of(bench.in_flight["m"]) == 0
    assert number_of(bench.in_flight["a"]) == 1


def test_instance_in_the_making_is_ended_with_its_run() -> None:
    bench = Bench(of_a_pool(POOL, 2)).start()
    bench.succeed("m")
    making = bench.in_flight["m"].id

    bench.succeed("a")
    bench.succeed("b")
    last = bench.succeed("end")
    gone = bench.turn(Ended(Outcome(id=making, cause=Cause.ABANDONED)))

    assert last.ended == ("r",)
    assert last.kill == (Kill("processes", (making,), Cause.ABANDONED),)
    assert Instance("r", "m", 1) in gone.retire[0].instances
    assert bench.engine.pools["processes"].free.cpus == 2
    assert bench.engine.is_empty


def test_run_is_cancelled_once_nobody_makes_an_instance_for_it_any_more() -> None:
    bench = Bench(of_a_pool(POOL, 2)).start()
    bench.succeed("m")

    asked = bench.turn(CancelRequested(RunId("r")))
    bench.end("a", Cause.CANCELLED)
    before = bench.ended_as
    bench.end("m", Cause.CANCELLED)

    assert len(asked.kill[0].calls) == 2
    assert before is None
    assert bench.ended_as is RunStatus.CANCELLED
