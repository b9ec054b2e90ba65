"""Graphs of ``ray.dag`` as nodes of perdure's, and workflows of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'perdure[ray]'")
from ray.dag import InputNode, MultiOutputNode  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

import perdure  # noqa: E402
from perdure import DefinitionError, from_ray  # noqa: E402
from perdure.compat import ray_workflow as workflow  # noqa: E402
from perdure.ray_dag import NOTE, as_data  # noqa: E402

HERE = __name__
pytestmark = pytest.mark.usefixtures("store")


@ray.remote
def add(a: int, b: int = 1) -> int:
    return a + b


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote(max_retries=2, retry_exceptions=[ValueError])
def counted(folder: str, failures: int, error: type[Exception] = ValueError) -> int:
    file = Path(folder, "calls")
    calls = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(calls))
    if calls <= failures:
        raise error(f"call {calls}")
    return calls


@ray.remote
def factorial(n: int, so_far: int = 1) -> Any:
    if n == 1:
        return so_far
    return workflow.continuation(factorial.bind(n - 1, n * so_far))


@ray.remote
def two() -> tuple[int, int]:
    return 1, 2


@ray.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, k: int) -> int:
        self.n += k
        return self.n

    @ray.method(num_returns=2)
    def both(self) -> tuple[int, int]:
        return self.n, -self.n


@dataclass
class Box:
    inside: Any


def options_of(node: Any) -> Any:
    from perdure.graph.node import source_of

    return source_of(node).spec.options


# --- nodes --------------------------------------------------------------------------------------
def test_functions_become_tasks() -> None:
    assert perdure.run(from_ray(add.bind(1, add.bind(2, b=3)))) == 6


def test_a_node_of_several_parents_stays_one() -> None:
    shared = add.bind(1)

    run = perdure.start(from_ray(add.bind(shared, shared)))

    assert run.result() == 4
    assert len(run.steps()) == 2


def test_nodes_in_containers_arrive_as_values() -> None:
    given = {"a": [add.bind(1)], "b": (add.bind(2), 5), "c": Box(add.bind(3))}

    found = perdure.run(from_ray(same.bind(given)))

    assert found == {"a": [2], "b": (3, 5), "c": Box(4)}


def test_a_chain_of_thousands_is_read_without_recursion() -> None:
    node = add.bind(0)
    for _ in range(3000):
        node = add.bind(node)

    assert from_ray(node) is not None


def test_one_input_is_the_input_itself() -> None:
    with InputNode() as given:
        dag = add.bind(given)

    assert perdure.run(from_ray(dag), input=3) == 4


def test_workflow_of_a_dag_whose_input_is_missing_is_told_so_in_words_of_workflow_run() -> None:
    with InputNode() as given:
        dag = add.bind(given)

    with pytest.raises(TypeError, match=r"for the DAG's input: workflow\.run\(dag, value"):
        workflow.run(dag)
    assert workflow.run(add.bind(1), 5) == 2, "without an input any value will do"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(perdure.RayInput((1,), {"b": 5}), 6), (type("Given", (dict,), {"b": 7})({0: 1}), 8)],
)
def test_parts_of_inputs_are_taken_by_place_and_name(value: Any, expected: int) -> None:
    with InputNode() as given:
        dag = add.bind(given[0], given.b)

    assert perdure.execute(from_ray(dag), input=value) == expected


def test_several_outputs_are_a_list() -> None:
    assert perdure.run(from_ray(MultiOutputNode([add.bind(1), add.bind(2)]))) == [2, 3]


def test_several_returns_are_outputs() -> None:
    first, second = from_ray(two.options(num_returns=2).bind())

    assert perdure.run([second, first]) == [2, 1]


def test_arguments_are_checked_when_the_graph_is_read() -> None:
    with pytest.raises(DefinitionError, match="add"):
        from_ray(add.bind(1, 2, 3))


def test_other_things_are_refused() -> None:
    with pytest.raises(DefinitionError, match="from_ray takes"):
        from_ray(3)


# --- options ------------------------------------------------------------------------------------
def test_options_are_what_a_step_holds_and_data() -> None:
    asked = add.options(
        num_cpus=2,
        num_gpus=0.5,
        memory=1000,
        resources={"license": 1},
        label_selector={"zone": "a"},
        max_retries=5,
        scheduling_strategy=NodeAffinitySchedulingStrategy("ab" * 28, soft=True),
    )

    options = options_of(from_ray(asked.bind(1)))

    assert (options.cpus, options.gpus, options.memory_bytes) == (2, 0.5, 1000)
    assert options.resources == {"license": 1, "zone=a": 1}
    assert (options.lost_retries, options.retries) == (5, 0)
    noted = options.metadata[NOTE]
    assert noted["max_retries"] == 5
    assert noted["scheduling_strategy"]["node_id"] == "ab" * 28


def test_retries_are_for_the_errors_that_are_listed(tmp_path: Path) -> None:
    assert perdure.run(from_ray(counted.bind(str(tmp_path), 2))) == 3

    options = options_of(from_ray(counted.bind(str(tmp_path), 2)))
    assert (options.retries, options.lost_retries) == (2, 2)


def test_another_error_than_those_listed_is_not_retried(tmp_path: Path) -> None:
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(counted.bind(str(tmp_path), 2, KeyError))

    assert (tmp_path / "calls").read_text() == "1"


def test_minus_one_retries_for_ever(tmp_path: Path) -> None:
    patient = counted.options(max_retries=-1, retry_exceptions=True)

    assert workflow.run(patient.bind(str(tmp_path), 20)) == 21


def test_errors_are_not_retried_by_default(tmp_path: Path) -> None:
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(counted.options(retry_exceptions=False).bind(str(tmp_path), 1))


def test_an_option_of_any_class_has_a_form() -> None:
    assert as_data({"a": (1, ValueError), "b": Box(2)}) == {
        "a": [1, "builtins:ValueError"],
        "b": {"type": f"{HERE}:Box", "inside": 2},
    }


# --- actors -------------------------------------------------------------------------------------
def test_classes_become_actors_and_calls_come_in_the_order_of_binding() -> None:
    counter = Counter.bind(10)
    first = counter.add.bind(1)
    counter.add.bind(2)  # its value is not wanted, its effect is
    last = counter.add.bind(3)

    assert perdure.run(from_ray(same.bind([last, first]))) == [16, 11]


def test_an_actor_runs_in_a_process_of_its_own() -> None:
    counter = Counter.bind(10)

    assert perdure.run(from_ray(counter.add.bind(1)), executor="processes") == 11


def test_a_call_of_several_returns_unpacks() -> None:
    positive, negative = from_ray(Counter.bind(3).both.bind())

    assert perdure.run([positive, negative]) == [3, -3]


def test_an_actor_with_a_gpu_is_made_again_by_its_constructor() -> None:
    from perdure.graph.node import source_of

    def state(cls: Any, **options: Any) -> str:
        return str(source_of(from_ray(cls.bind().add.bind(1), **options)).spec.actor.state)

    assert state(Counter) == "durable"
    assert state(Counter.options(num_gpus=1)) == "rebuild"
    assert state(Counter, state="rebuild") == "rebuild"


def test_an_actor_that_outlives_its_run_is_refused() -> None:
    with pytest.raises(DefinitionError, match="lifetime"):
        from_ray(Counter.options(lifetime="detached", name="c").bind().add.bind(1))


def test_a_live_actor_is_refused_with_the_reason() -> None:
    from ray.dag import ClassMethodNode

    alive = object()
    node = ClassMethodNode("add", (1,), {}, {}, {"parent_class_node": alive})

    with pytest.raises(DefinitionError, match="live actor"):
        from_ray(node)


# --- workflows ----------------------------------------------------------------------------------
def test_a_single_argument_is_the_input_itself() -> None:
    with InputNode() as given:
        dag = add.bind(given)

    assert workflow.run(dag, 3) == 4


def test_a_continuation_of_ray_s_functions() -> None:
    assert workflow.run(factorial.bind(5), workflow_id="a") == 120

    assert workflow.get_output("a", task_id=f"{HERE}.factorial_3") == 120
    assert workflow.continuation(factorial.bind(4)) == 24


def test_a_function_may_return_a_node_of_ray_s() -> None:
    @ray.remote
    def plain(n: int) -> Any:
        return add.bind(n)

    assert workflow.run(plain.bind(4)) == 5


def test_a_workflow_s_task_has_one_return() -> None:
    @ray.remote(num_returns="streaming")
    def streams() -> Any:
        yield 1

    for node in (two.options(num_returns=2).bind(), streams.bind()):
        with pytest.raises(ValueError, match=r"Workflow task can only have one return\."):
            workflow.run(node)


def test_wrong_arguments_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="add"):
        workflow.run(add.bind(1, 2, 3))


def test_options_travel_with_ray_s_functions() -> None:
    @workflow.options(task_id="first", catch_exceptions=True)
    @ray.remote(num_cpus=0.5)
    def refuses(x: int) -> int:
        raise ValueError("no")

    noted = refuses.options(**workflow.options(metadata={"kind": "a"}), max_retries=7)
    value, error = workflow.run(noted.bind(1), workflow_id="a")

    assert value is None
    assert isinstance(error, ValueError)
    told = workflow.get_metadata("a", "first")
    assert told["user_metadata"] == {"kind": "a"}
    assert told["task_options"]["max_retries"] == 7
    assert told["task_options"]["catch_exceptions"]
    assert told["task_options"]["ray_options"] == {"num_cpus": 0.5}


def test_sleeps_and_events_are_arguments_of_ray_s_functions() -> None:
    assert workflow.run(same.bind([workflow.sleep(0), add.bind(1)])) == [None, 2]


def test_a_changed_helper_of_ray_s_is_noticed() -> None:
    from perdure.fingerprint import code_digest

    namespace: dict[str, Any] = {"add": add}
    exec("def uses(x):\n    return add.bind(x)", namespace)
    before = code_digest(namespace["uses"]).digest

    namespace["add"] = same

    assert code_digest(namespace["uses"]).digest != before
