"""The names of Ray Workflows over perdure's own nodes: each row of its reference, as a test."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.crash.ledger import wait_until

import perdure
from perdure import Perdure, task
from perdure.compat import ray_workflow as workflow
from perdure.compat.ray_workflow import WorkflowStatus

HERE = __name__
pytestmark = pytest.mark.usefixtures("store")


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
def factorial(n: int, so_far: int = 1) -> Any:
    if n == 1:
        return so_far
    return workflow.continuation(factorial.bind(n - 1, n * so_far))


@task
def fails() -> None:
    raise ValueError("no")


@task
def counted(folder: str, name: str, failures: int = 0) -> int:
    """Count its calls in a file; the first ones fail."""
    file = Path(folder, name)
    calls = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(calls))
    if calls <= failures:
        raise ValueError(f"call {calls}")
    return calls


def held(name: str = "go") -> Any:
    """Make a graph that waits until somebody sends it a signal."""
    return add.bind(perdure.wait_signal(name), 1)


@task
def busy(gate: str) -> int:
    """Run until the gate is there: one that waits for a signal holds no place in a queue."""
    while not Path(gate).exists():
        threading.Event().wait(0.01)
    return 1


def stands(workflow_id: str, status: str) -> bool:
    """Say whether a workflow comes to stand so."""
    wait_until(lambda: workflow.get_status(workflow_id) == status, 30, f"is never {status}")
    return True


# --- run, run_async -----------------------------------------------------------------------------
def test_run_gives_the_value() -> None:
    assert workflow.run(add.bind(1, add.bind(2, 3)), workflow_id="a") == 6

    assert workflow.get_status("a") == "SUCCESSFUL"


def test_run_gives_arguments_to_the_inputs_of_the_graph() -> None:
    inp = perdure.Input()

    assert workflow.run(add.bind(inp[0], inp.b), 1, b=2) == 3


def test_run_refuses_what_is_no_graph() -> None:
    with pytest.raises(TypeError, match=r"Input should be a DAG\."):
        workflow.run(3)


def test_values_given_to_a_dag_without_an_input_change_nothing() -> None:
    assert workflow.run(add.bind(1), 5) == 2


def test_dag_whose_input_is_missing_is_told_so_in_words_of_workflow_run() -> None:
    inp = perdure.Input()

    with pytest.raises(TypeError, match=r"'b' of the DAG's input: workflow\.run\(dag, value"):
        workflow.run(add.bind(inp[0], inp.b), 1)


def test_task_id_that_cannot_be_one_is_told_by_that_name() -> None:
    with pytest.raises(ValueError, match=r"^task_id='a/b': may not contain '/'"):
        add.options(**workflow.options(task_id="a/b"))


def test_run_async_gives_a_future_that_can_be_awaited() -> None:
    import asyncio

    future = workflow.run_async(add.bind(1, 2))

    async def awaited() -> Any:
        return await future

    assert future.result() == 3
    assert future.done()
    assert asyncio.run(awaited()) == 3


def test_run_refuses_the_id_of_a_workflow_that_runs() -> None:
    workflow.run_async(held(), workflow_id="a")

    with pytest.raises(RuntimeError, match="already running or pending"):
        workflow.run(add.bind(1), workflow_id="a")


def test_run_of_a_known_id_gives_what_is_recorded_and_ignores_the_graph() -> None:
    workflow.run(add.bind(1, 2), workflow_id="a", metadata={"first": True})

    assert workflow.run(add.bind(7, 7), workflow_id="a", metadata={"second": True}) == 3

    # Ray overwrote the metadata of what it only resumed.
    assert workflow.get_metadata("a")["user_metadata"] == {"first": True}


def test_a_workflow_without_an_id_gets_one() -> None:
    workflow.run(add.bind(1))

    ((workflow_id, _),) = workflow.list_all()
    assert workflow_id


def test_a_user_s_id_never_becomes_a_path(tmp_path: Path) -> None:
    before = {each.name for each in tmp_path.parent.iterdir()}

    workflow.run(add.bind(1), workflow_id="../../x/y")

    assert workflow.get_output("../../x/y") == 2
    assert {each.name for each in tmp_path.parent.iterdir()} == before


def test_a_task_id_of_which_no_step_id_can_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="may not contain"):
        add.options(**workflow.options(task_id="../x"))


# --- resume -------------------------------------------------------------------------------------
def test_resume_gives_the_value_of_a_workflow_that_is_over() -> None:
    workflow.run(add.bind(1), workflow_id="a")

    assert workflow.resume("a") == 2
    assert workflow.resume_async("a").result() == 2


def test_resume_refuses_an_unknown_id() -> None:
    with pytest.raises(workflow.WorkflowNotResumableError):
        workflow.resume("a")


def test_resume_refuses_a_workflow_that_runs() -> None:
    workflow.run_async(held(), workflow_id="a")

    with pytest.raises(RuntimeError, match="already running or pending"):
        workflow.resume("a")


def test_resume_goes_on_after_the_last_task_that_succeeded(tmp_path: Path) -> None:
    folder = str(tmp_path)
    first = counted.bind(folder, "first")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(add.bind(first, counted.bind(folder, "second", 1)), workflow_id="a")

    assert workflow.resume("a") == 3

    assert (tmp_path / "first").read_text() == "1"


def test_resume_runs_a_task_that_is_not_checkpointed_again_if_it_is_needed(tmp_path: Path) -> None:
    folder = str(tmp_path)
    unkept = counted.options(**workflow.options(checkpoint=False)).bind(folder, "unkept")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(add.bind(unkept, counted.bind(folder, "second", 1)), workflow_id="a")

    workflow.resume("a")

    assert (tmp_path / "unkept").read_text() == "2"


def test_resume_all_resumes_those_that_nobody_drives(reopen: Callable[[], Perdure]) -> None:
    workflow.run_async(held(), workflow_id="waits")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fails.bind(), workflow_id="fails")
    reopen()

    ((workflow_id, future),) = workflow.resume_all()

    perdure.signal("waits", "go", 2)
    assert (workflow_id, future.result()) == ("waits", 3)


def test_resume_all_resumes_failed_ones_if_asked(tmp_path: Path) -> None:
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(counted.bind(str(tmp_path), "a", 1), workflow_id="a")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(counted.bind(str(tmp_path), "b", 1), workflow_id="b")

    assert workflow.resume_all() == []
    resumed = workflow.resume_all(include_failed=True)

    assert {name: future.result() for name, future in resumed} == {"a": 2, "b": 2}


def test_resume_all_puts_those_first_that_had_begun(
    reopen: Callable[[], Perdure], tmp_path: Path
) -> None:
    workflow.init(max_running_workflows=1, executor="processes")
    for name in ("z", "a", "b"):
        workflow.run_async(busy.bind(str(tmp_path / "gate")), workflow_id=name)
        assert stands("z", "RUNNING")
    reopen()

    names = [name for name, _ in workflow.resume_all()]

    assert names[0] == "z"
    assert set(names) == {"z", "a", "b"}


# --- statuses and lists -------------------------------------------------------------------------
def test_statuses_are_texts_too() -> None:
    assert WorkflowStatus.RUNNING == "RUNNING"
    assert {each.value for each in WorkflowStatus} == {
        "NONE", "RUNNING", "PENDING", "SUCCESSFUL", "FAILED", "RESUMABLE", "CANCELED"
    }  # fmt: skip


def test_status_of_an_unknown_id_is_an_error() -> None:
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status("a")


def test_each_status_is_told(reopen: Callable[[], Perdure], tmp_path: Path) -> None:
    workflow.run(add.bind(1), workflow_id="good")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fails.bind(), workflow_id="bad")
    workflow.run_async(held(), workflow_id="ended")
    workflow.cancel("ended")
    workflow.run_async(held(), workflow_id="left")
    reopen()
    workflow.init(max_running_workflows=1, executor="processes")
    for name in ("runs", "waits"):
        workflow.run_async(busy.bind(str(tmp_path / "gate")), workflow_id=name)
        assert stands("runs", "RUNNING")

    assert dict(workflow.list_all()) == {
        "good": WorkflowStatus.SUCCESSFUL,
        "bad": WorkflowStatus.FAILED,
        "ended": WorkflowStatus.CANCELED,
        "left": WorkflowStatus.RESUMABLE,
        "runs": WorkflowStatus.RUNNING,
        "waits": WorkflowStatus.PENDING,
    }
    assert workflow.list_all("FAILED") == [("bad", "FAILED")]
    assert workflow.list_all(WorkflowStatus.PENDING) == [("waits", "PENDING")]
    assert {name for name, _ in workflow.list_all({"FAILED", "CANCELED"})} == {"bad", "ended"}


@pytest.mark.parametrize("given", [3, {3}, {"FAILED", WorkflowStatus.RUNNING}])
def test_list_all_refuses_other_types(given: Any) -> None:
    with pytest.raises(TypeError):
        workflow.list_all(given)


@pytest.mark.parametrize("given", ["NONE", "SUCCEEDED"])
def test_list_all_refuses_what_no_workflow_can_be(given: str) -> None:
    with pytest.raises(ValueError, match=given):
        workflow.list_all(given)


# --- outputs ------------------------------------------------------------------------------------
def test_output_of_a_workflow_that_runs_is_waited_for() -> None:
    workflow.run_async(held(), workflow_id="a")
    output = workflow.get_output_async("a")
    assert not output.done()

    perdure.signal("a", "go", 2)

    assert output.result() == 3


def test_output_of_a_task_is_there_while_the_workflow_runs() -> None:
    early = add.options(**workflow.options(task_id="early")).bind(1)
    workflow.run_async(add.bind(early, held()), workflow_id="a")

    assert workflow.get_output("a", task_id="early") == 2
    assert workflow.get_status("a") == "RUNNING"


def test_output_of_a_task_that_a_continuation_makes_is_waited_for() -> None:
    @task
    def goes_on(value: int) -> Any:
        late = add.options(**workflow.options(task_id="late")).bind(value)
        return workflow.continuation(late)

    workflow.run_async(goes_on.bind(perdure.wait_signal("go")), workflow_id="a")
    output = workflow.get_output_async("a", task_id="late")
    assert not output.done()

    perdure.signal("a", "go", 2)

    assert output.result() == 3


def test_output_of_a_task_that_never_comes_is_an_error_that_names_it() -> None:
    workflow.run_async(held(), workflow_id="a")
    output = workflow.get_output_async("a", task_id="never")

    perdure.signal("a", "go", 2)

    with pytest.raises(ValueError, match="never"):
        output.result()


def test_there_is_no_output_of_an_unknown_a_failed_or_a_cancelled_workflow(tmp_path: Path) -> None:
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(counted.bind(str(tmp_path), "a", 1), workflow_id="fails")
    workflow.run_async(held(), workflow_id="ended")
    workflow.cancel("ended")

    for name in ("unknown", "fails", "ended"):
        with pytest.raises(ValueError, match=name):
            workflow.get_output(name)

    assert (tmp_path / "a").read_text() == "1"


def test_waiting_for_a_workflow_that_fails_raises_what_its_task_raised() -> None:
    @task
    def refuses(value: int) -> None:
        raise ValueError(f"no {value}")

    future = workflow.run_async(refuses.bind(perdure.wait_signal("go")), workflow_id="a")
    perdure.signal("a", "go", 2)

    with pytest.raises(workflow.WorkflowExecutionError, match="a") as caught:
        future.result()

    assert isinstance(caught.value.__cause__, ValueError)
    assert isinstance(caught.value, workflow.WorkflowError)


# --- metadata -----------------------------------------------------------------------------------
def test_metadata_of_a_workflow() -> None:
    workflow.run(add.bind(1), workflow_id="a", metadata={"team": "x"})

    told = workflow.get_metadata("a")

    assert told["status"] == "SUCCESSFUL"
    assert told["user_metadata"] == {"team": "x"}
    assert told["stats"]["start_time"] <= told["stats"]["end_time"]


def test_metadata_of_a_workflow_that_runs_has_no_end() -> None:
    workflow.run_async(held(), workflow_id="a")

    assert set(workflow.get_metadata("a")["stats"]) == {"start_time"}


def test_metadata_of_a_task() -> None:
    noted = workflow.options(task_id="first", metadata={"kind": "source"}, checkpoint=False)
    first = add.options(**noted).bind(1)
    last = add.options(**workflow.options(task_id="last")).options(retries=2).bind(first)
    workflow.run(last, workflow_id="a")

    told = workflow.get_metadata("a", "first")
    after = workflow.get_metadata("a", "last")

    assert told["task_id"] == "first"
    assert told["user_metadata"] == {"kind": "source"}
    assert told["task_options"] == {
        "task_type": "FUNCTION",
        "max_retries": 3,
        "catch_exceptions": False,
        "retry_exceptions": False,
        "checkpoint": False,
        "ray_options": {"num_cpus": 1.0},
    }
    assert told["workflow_refs"] == []
    assert told["stats"]["start_time"] <= told["stats"]["end_time"]
    assert after["workflow_refs"] == ["first"]
    assert after["task_options"]["max_retries"] == 2
    assert after["task_options"]["retry_exceptions"]


def test_metadata_of_what_is_not_there_is_an_error() -> None:
    workflow.run(add.bind(1), workflow_id="a")

    with pytest.raises(ValueError, match="No such workflow_id 'b'"):
        workflow.get_metadata("b")
    with pytest.raises(ValueError, match="No such task_id 't' in workflow 'a'"):
        workflow.get_metadata("a", "t")


@pytest.mark.parametrize("given", [["x"], {"x": object()}])
def test_metadata_is_a_dict_of_json(given: Any) -> None:
    with pytest.raises(ValueError, match="metadata"):
        workflow.run(add.bind(1), metadata=given)
    with pytest.raises(ValueError, match="metadata"):
        workflow.options(metadata=given)


# --- cancel, delete -----------------------------------------------------------------------------
def test_cancel_ends_a_workflow_and_tells_who_waits() -> None:
    early = add.options(**workflow.options(task_id="early")).bind(1)
    future = workflow.run_async(add.bind(early, held()), workflow_id="a")
    workflow.get_output("a", task_id="early")

    workflow.cancel("a")

    assert workflow.get_status("a") == "CANCELED"
    with pytest.raises(workflow.WorkflowCancellationError):
        future.result()
    assert perdure.get_run("a")["early"].result() == 2


def test_cancel_of_a_pending_workflow_ends_it_at_once(tmp_path: Path) -> None:
    workflow.init(max_running_workflows=1, executor="processes")
    for name in ("runs", "waits"):
        workflow.run_async(busy.bind(str(tmp_path / "gate")), workflow_id=name)
        assert stands("runs", "RUNNING")

    workflow.cancel("waits")

    assert workflow.get_status("waits") == "CANCELED"
    assert workflow.get_status("runs") == "RUNNING"


def test_cancel_leaves_no_record_of_an_unknown_id() -> None:
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.cancel("a")

    assert workflow.list_all() == []


def test_cancel_leaves_the_output_of_what_is_over() -> None:
    workflow.run(add.bind(1), workflow_id="a")

    workflow.cancel("a")

    assert workflow.get_output("a") == 2


def test_a_cancelled_workflow_cannot_be_resumed() -> None:
    workflow.run_async(held(), workflow_id="a")
    workflow.cancel("a")

    with pytest.raises(workflow.WorkflowNotResumableError):
        workflow.resume("a")
    with pytest.raises(workflow.WorkflowNotResumableError):
        workflow.run(add.bind(1), workflow_id="a")
    assert workflow.resume_all(include_failed=True) == []


def test_delete_frees_the_id() -> None:
    workflow.run(add.bind(1), workflow_id="a")

    workflow.delete("a")

    assert workflow.list_all() == []
    assert workflow.run(add.bind(7), workflow_id="a") == 8


def test_delete_refuses_what_is_active_or_unknown() -> None:
    workflow.run_async(held(), workflow_id="a")

    with pytest.raises(workflow.WorkflowStillActiveError, match="DELETE"):
        workflow.delete("a")
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.delete("b")


def test_delete_takes_what_nobody_drives(reopen: Callable[[], Perdure]) -> None:
    workflow.run_async(held(), workflow_id="a")
    reopen()

    workflow.delete("a")

    assert workflow.list_all() == []


# --- init ---------------------------------------------------------------------------------------
def test_init_takes_keywords_only() -> None:
    with pytest.raises(TypeError):
        workflow.init(1)  # type: ignore[misc]


@pytest.mark.parametrize("name", ["max_running_workflows", "max_pending_workflows"])
def test_init_refuses_what_is_no_limit(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        workflow.init(**{name: "1"})
    with pytest.raises(ValueError, match=name):
        workflow.init(**{name: -2})


def test_init_refuses_to_let_none_run() -> None:
    with pytest.raises(ValueError, match="max_running_workflows"):
        workflow.init(max_running_workflows=0)


def test_init_again_keeps_what_is_there_and_refuses_others() -> None:
    workflow.init(max_running_workflows=2)

    workflow.init()
    workflow.init(max_running_workflows=2)
    with pytest.raises(ValueError, match="before"):
        workflow.init(max_running_workflows=3)


def test_as_many_run_and_wait_as_init_says_and_the_next_is_refused(tmp_path: Path) -> None:
    workflow.init(max_running_workflows=1, max_pending_workflows=1, executor="processes")
    gate = tmp_path / "gate"
    first = workflow.run_async(busy.bind(str(gate)), workflow_id="a")
    assert stands("a", "RUNNING")
    second = workflow.run_async(busy.bind(str(gate)), workflow_id="b")

    with pytest.raises(queue.Full, match="Workflow queue has been full"):
        workflow.run_async(busy.bind(str(gate)), workflow_id="c")
    gate.touch()

    assert first.result() == second.result() == 1
    assert workflow.run(busy.bind(str(gate)), workflow_id="c") == 1


def test_workflows_that_come_at_once_are_as_many_as_init_says(tmp_path: Path) -> None:
    workflow.init(max_running_workflows=2, max_pending_workflows=2, executor="processes")
    gate = tmp_path / "gate"

    futures = [workflow.run_async(busy.bind(str(gate)), workflow_id=name) for name in "ab"]
    at_once = [workflow.get_status(name) for name in "ab"]
    futures += [workflow.run_async(busy.bind(str(gate)), workflow_id=name) for name in "cd"]
    with pytest.raises(queue.Full, match="Workflow queue has been full"):
        workflow.run_async(busy.bind(str(gate)), workflow_id="e")
    gate.touch()

    assert at_once == ["RUNNING", "RUNNING"]
    assert [each.result() for each in futures] == [1, 1, 1, 1]


# --- ids ----------------------------------------------------------------------------------------
def test_a_task_is_called_by_its_module_and_qualified_name() -> None:
    @task
    def local() -> int:
        return 1

    workflow.run(local.bind(), workflow_id="a")

    name = "test_a_task_is_called_by_its_module_and_qualified_name.locals.local"
    assert workflow.get_output("a", task_id=f"{HERE}.{name}") == 1


def test_tasks_of_one_name_are_counted_from_the_inner_one() -> None:
    named = add.options(**workflow.options(task_id="n"))
    workflow.run(named.bind(named.bind(named.bind(1))), workflow_id="a")

    outputs = [workflow.get_output("a", task_id=name) for name in ("n", "n_1", "n_2")]

    assert outputs == [2, 3, 4]


def test_a_number_that_a_user_took_is_not_given_again() -> None:
    first = add.options(**workflow.options(task_id="n_1")).bind(0)
    named = add.options(**workflow.options(task_id="n"))
    workflow.run(named.bind(named.bind(first)), workflow_id="a")

    outputs = [workflow.get_output("a", task_id=name) for name in ("n_1", "n", "n_2")]

    assert outputs == [1, 2, 3]


# --- continuations ------------------------------------------------------------------------------
def test_a_continuation_takes_the_place_of_the_value_and_every_link_has_it() -> None:
    assert workflow.run(factorial.bind(5), workflow_id="a") == 120

    names = [f"{HERE}.factorial", *(f"{HERE}.factorial_{n}" for n in range(1, 5))]
    assert [workflow.get_output("a", task_id=name) for name in names] == [120] * 5


def test_a_task_may_return_a_node_without_continuation() -> None:
    @task
    def plain() -> Any:
        return add.bind(1)

    assert workflow.run(plain.bind()) == 2


def test_a_continuation_outside_of_a_task_runs_at_once() -> None:
    assert workflow.continuation(factorial.bind(4)) == 24
    assert workflow.list_all() == []


def test_a_continuation_is_a_node() -> None:
    with pytest.raises(TypeError):
        workflow.continuation(3)


def test_resume_of_a_chain_begins_at_its_last_link(tmp_path: Path) -> None:
    @task
    def link(folder: str, n: int) -> Any:
        counted.function(folder, str(n), 1 if n == 3 else 0)
        return n if n == 5 else workflow.continuation(link.bind(folder, n + 1))

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(link.bind(str(tmp_path), 0), workflow_id="a")

    assert workflow.resume("a") == 5

    calls = [int((tmp_path / str(n)).read_text()) for n in range(6)]
    assert calls == [1, 1, 1, 2, 1, 1]


# --- retries, errors ----------------------------------------------------------------------------
def test_options_are_the_four_known_ones() -> None:
    with pytest.raises(ValueError, match="max_retries"):
        workflow.options(max_retries=3)


def test_options_merge_by_key_but_metadata_is_replaced_whole() -> None:
    first = add.options(**workflow.options(task_id="t", metadata={"a": 1}))
    merged = first.options(**workflow.options(metadata={"b": 2}))
    workflow.run(merged.bind(1), workflow_id="a")

    assert workflow.get_metadata("a", "t")["user_metadata"] == {"b": 2}


def test_options_decorate_a_task() -> None:
    @workflow.options(task_id="t", catch_exceptions=True)
    @task
    def decorated() -> int:
        return 1

    assert workflow.run(decorated.bind(), workflow_id="a") == (1, None)
    assert workflow.get_output("a", task_id="t") == (1, None)


def test_options_decorate_nothing_else() -> None:
    with pytest.raises(ValueError, match=r"workflow\.options"):
        workflow.options(task_id="t")(len)


def test_a_caught_error_is_the_second_of_a_pair() -> None:
    caught = fails.options(**workflow.options(catch_exceptions=True))

    value, error = workflow.run(caught.bind())

    assert value is None
    assert isinstance(error, ValueError)
    assert str(error) == "no"


def test_a_caught_error_is_stored_and_its_task_never_runs_again(tmp_path: Path) -> None:
    folder = str(tmp_path)
    caught = counted.options(**workflow.options(catch_exceptions=True)).bind(folder, "caught", 9)

    @task
    def needs(pair: Any, other: int) -> str:
        return str(pair[1])

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(needs.bind(caught, counted.bind(folder, "other", 1)), workflow_id="a")

    assert workflow.resume("a") == "call 1"
    assert (tmp_path / "caught").read_text() == "1"


def test_an_error_anywhere_below_a_continuation_is_caught_by_the_task_that_gave_it() -> None:
    @task
    def gives() -> Any:
        return workflow.continuation(add.bind(fails.bind()))

    value, error = workflow.run(gives.options(**workflow.options(catch_exceptions=True)).bind())

    assert value is None
    assert isinstance(error, ValueError)


def test_a_failure_leaves_what_others_came_to() -> None:
    other = add.options(**workflow.options(task_id="other")).bind(1)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(add.bind(other, fails.bind()), workflow_id="a")

    assert workflow.get_output("a", task_id="other") == 2
    with pytest.raises(ValueError, match="FAILED") as caught:
        workflow.get_output("a", task_id=f"{HERE}.fails")
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_node_of_several_parents_runs_once(tmp_path: Path) -> None:
    shared = counted.bind(str(tmp_path), "shared")

    assert workflow.run(add.bind(add.bind(shared), add.bind(shared))) == 4

    assert (tmp_path / "shared").read_text() == "1"


def test_nodes_in_containers_arrive_as_values() -> None:
    @task
    def total(values: dict[str, list[int]]) -> int:
        return sum(values["all"])

    assert workflow.run(total.bind({"all": [add.bind(1), add.bind(2)]})) == 5


def test_an_argument_that_changes_after_the_run_began_is_not_seen() -> None:
    @task
    def total(values: list[int], until: Any) -> int:
        return sum(values)

    values = [1, 2]
    future = workflow.run_async(total.bind(values, perdure.wait_signal("go")), workflow_id="a")
    values.append(3)
    perdure.signal("a", "go")

    assert future.result() == 3


def test_exceptions_pickle() -> None:
    import pickle

    error = workflow.WorkflowExecutionError("a")
    error.__cause__ = ValueError("no")

    again = pickle.loads(pickle.dumps(error))
    active = pickle.loads(pickle.dumps(workflow.WorkflowStillActiveError("DELETE", "a")))

    assert (again.workflow_id, str(again.__cause__)) == ("a", "no")
    assert active.operation == "DELETE"
