from __future__ import annotations

import threading
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.crash.programs import Program, programs, workflow_of

from perdure import DefinitionError, Input, NotSerializable, Secret, Static, task, workflow
from perdure.compile import compile_dag, prepare
from perdure.graph.dag import make_dag
from perdure.plan import (
    Attr,
    Const,
    DictArg,
    FromInput,
    FromSecret,
    FromStep,
    Function,
    Item,
    ListArg,
    ObjectArg,
    Plan,
    StepPlan,
    decode_plan,
    encode_plan,
)
from perdure_storage.values import Values

Pair = namedtuple("Pair", ["a", "b"])


@dataclass
class Config:
    rows: Any
    k: int = 3


@task
def load(path: str) -> list[int]:
    return [len(path)]


@task
def use(*values: Any, **more: Any) -> Any:
    return values


def compiled(definition: Any, values: Values, **given: Any) -> Plan:
    prepared = prepare(definition, given)
    return compile_dag(prepared.dag, values, origin=prepared.origin)


def only_step(plan: Plan, name: str = "use") -> StepPlan:
    return next(step for step in plan.steps if step.name == name)


def constant(plan: Plan, arg: Any, values: Values) -> Any:
    assert isinstance(arg, Const)
    return values.load(plan.constants[arg.index])


def test_arguments_become_templates(values: Values) -> None:
    inp = Input()
    node = load.bind("a")

    plan = compiled(
        use.bind(node, node[0].name, inp.x["k"], Secret("TOKEN"), 7, [1, node], k={"n": (node,)}),
        values,
        x={"k": 1},
    )

    step = only_step(plan)
    assert step.args[:4] == (
        FromStep("load"),
        FromStep("load", (Item(0), Attr("name"))),
        FromInput("x", (Item("k"),)),
        FromSecret("TOKEN"),
    )
    assert constant(plan, step.args[4], values) == 7
    assert isinstance(step.args[5], ListArg)
    assert step.args[5].items[1] == FromStep("load")
    kwarg = step.kwargs["k"]
    assert isinstance(kwarg, DictArg)
    assert constant(plan, kwarg.keys[0], values) == "n"
    assert kwarg.values[0] == ListArg((FromStep("load"),), "tuple")


def test_records_keep_their_class(values: Values) -> None:
    node = load.bind("a")

    plan = compiled(use.bind(Config(node), Pair(node, 2)), values)

    first, second = only_step(plan).args
    assert isinstance(first, ObjectArg)
    assert isinstance(second, ObjectArg)
    assert constant(plan, first.cls, values) is Config
    assert constant(plan, second.cls, values) is Pair
    assert first.fields["rows"] == FromStep("load")
    assert constant(plan, first.fields["k"], values) == 3


def test_a_container_without_nodes_is_one_constant(values: Values) -> None:
    plan = compiled(use.bind({"a": [1, 2, (3,)]}), values)

    assert constant(plan, only_step(plan).args[0], values) == {"a": [1, 2, (3,)]}


def test_one_object_is_one_constant(values: Values) -> None:
    shared = list(range(10))

    plan = compiled([use.bind(shared), use.bind(shared, shared), use.bind(list(shared))], values)

    assert len(plan.constants) == 1


def test_equal_constants_of_different_types_are_told_apart(values: Values) -> None:
    plan = compiled(use.bind(1, 1.0, True, "1"), values)

    found = [constant(plan, arg, values) for arg in only_step(plan).args]
    assert [type(each) for each in found] == [int, float, bool, str]


def test_later_mutation_of_a_constant_is_invisible(values: Values) -> None:
    rows = [1]
    plan = compiled(use.bind(rows), values)

    rows.append(2)

    assert constant(plan, only_step(plan).args[0], values) == [1]


def test_local_functions_and_lambdas_travel_by_value(values: Values) -> None:
    @task
    def local() -> int:
        return 2

    plan = compiled([local.bind(), task(lambda: 3).bind()], values)

    functions = list(plan.functions.values())
    assert all(each.value is not None for each in functions)
    assert values.load(functions[1].value)() == 3  # type: ignore[arg-type]


def test_importable_functions_travel_by_reference(values: Values) -> None:
    import math
    import textwrap

    plan = compiled([task(textwrap.dedent).bind(" a"), task(math.sqrt).bind(4)], values)

    assert [(f.module, f.qualname, f.value) for f in plan.functions.values()] == [
        ("textwrap", "dedent", None),
        ("math", "sqrt", None),
    ]


def test_one_function_is_listed_once_whatever_its_options(values: Values) -> None:
    plan = compiled([load.bind("a"), load.options(retries=2, name="x").bind("b")], values)

    assert len(plan.functions) == 1
    assert len(plan.options) == 2
    assert {plan.options[step.options].retries for step in plan.steps} == {0, 2}


def test_equal_options_are_listed_once(values: Values) -> None:
    plan = compiled([load.options(retries=2).bind("a"), use.options(retries=2).bind()], values)

    assert len(plan.options) == 1


def test_retry_on_becomes_a_constant(values: Values) -> None:
    plan = compiled(load.options(retry_on=[ValueError, KeyError]).bind("a"), values)

    index = plan.options[plan.steps[0].options].retry_on
    assert index is not None
    assert values.load(plan.constants[index]) == (ValueError, KeyError)


def test_static_parameters_are_in_the_plan_with_their_value(values: Values) -> None:
    @workflow(name="w")
    def w(x: int, k: Static[int] = 2) -> Any:
        return [use.bind(x, i) for i in range(k)]

    plan = compiled(w, values, x=1, k=3)

    assert len(plan.steps) == 3
    assert [(p.name, p.annotation, p.default, p.static) for p in plan.parameters] == [
        ("x", "int", None, False),
        ("k", "int", "2", True),
    ]
    assert plan.parameters[1].value is not None
    assert values.load(plan.constants[plan.parameters[1].value]) == 3


def test_a_plan_survives_its_json(values: Values) -> None:
    plan = compiled([load.bind("a"), use.bind(Config(load.bind("b")), k={"a": {1}})], values)

    assert decode_plan(encode_plan(plan)) == plan


@settings(
    derandomize=True,
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=programs())
def test_plan_of_any_program_is_what_its_json_says(values: Values, program: Program) -> None:
    plan = compiled(workflow_of(program), values)

    assert decode_plan(encode_plan(plan)) == plan


def test_the_same_definition_gives_the_same_steps(values: Values) -> None:
    def make() -> Any:
        return [use.bind(load.bind("a"), {"x", "y"}), load.bind("b")]

    one, other = compiled(make(), values), compiled(make(), values)

    assert one.steps == other.steps
    assert one.output == other.output
    assert one.constants == other.constants


def test_an_index_into_outputs_counts_from_the_front(values: Values) -> None:
    pair = load.options(outputs=2).bind("a")

    assert only_step(compiled(use.bind(pair[-1]), values)).args == (FromStep("load", (Item(1),)),)


def test_a_constant_that_cannot_be_stored_names_the_path_and_two_remedies(values: Values) -> None:
    with pytest.raises(NotSerializable) as caught:
        compiled(use.bind({"model": [1, threading.Lock()]}), values)

    text = str(caught.value)
    assert 'use.bind(#0)["model"][1]' in text
    assert "inside the task" in text
    assert "__getstate__" in text
    assert caught.value.path == 'use.bind(#0)["model"][1]'


def test_a_constant_that_cannot_be_stored_names_the_function_and_its_place(values: Values) -> None:
    with pytest.raises(NotSerializable) as caught:
        compiled(use.bind(threading.Lock()), values)

    (note,) = caught.value.__notes__
    assert note.startswith("  in a call of use, ")
    assert "test_compile.py:" in note


def test_a_closure_that_cannot_be_stored_names_the_variable(values: Values) -> None:
    lock = threading.Lock()

    @task(name="locked")
    def locked() -> bool:
        return lock.locked()

    with pytest.raises(NotSerializable, match="lock"):
        compiled(locked.bind(), values)


def test_a_node_in_a_closure_of_a_task_is_refused(values: Values) -> None:
    hidden = [load.bind("a")]

    @task(name="sees")
    def sees() -> Any:
        return hidden

    with pytest.raises(DefinitionError, match="node"):
        compiled(sees.bind(), values)


def test_wrong_arguments_are_refused_before_anything_is_stored(values: Values) -> None:
    @workflow(name="w")
    def w(x: int) -> Any:
        return use.bind(x)

    with pytest.raises(DefinitionError, match="parameter 'x': expected int, got str"):
        prepare(w, {"x": "1"})
    with pytest.raises(DefinitionError, match="did you mean"):
        prepare(w, {"X1": 1, "x": 1})
    with pytest.raises(DefinitionError, match="which does not exist yet"):
        prepare(w, {"x": load.bind("a")})
    with pytest.raises(DefinitionError, match="inputs are stored"):
        prepare(w, {"x": Secret("T")})
    with pytest.raises(DefinitionError, match=r"load\.bind"):
        prepare(load, {})


def test_defaults_are_inputs_of_the_run() -> None:
    @workflow(name="w")
    def w(x: int, k: int = 5) -> Any:
        return use.bind(x, k)

    prepared = prepare(w, {"x": 1})

    assert prepared.inputs == {"x": 1, "k": 5}
    assert prepared.name == "w"
    assert prepared.origin is None


def test_inputs_of_a_free_graph_may_be_positions() -> None:
    inp = Input()
    node = use.bind(inp[0], inp[1])

    assert prepare(node, [7, 8]).inputs == {"0": 7, "1": 8}  # type: ignore[arg-type]
    assert prepare(node, {0: 7, 1: 8}).inputs == {"0": 7, "1": 8}


def test_wide_and_deep_plans_compile(values: Values) -> None:
    wide = compile_dag(make_dag(use.bind([load.bind(str(i)) for i in range(10_000)])), values)
    node: Any = use.bind(0)
    for _ in range(20_000):
        node = use.bind(node)
    deep = compile_dag(make_dag(node), values)

    assert len(wide.steps) == 10_001
    assert len(deep.steps) == 20_001
    assert decode_plan(encode_plan(wide)) == wide


@pytest.mark.parametrize(
    "node",
    [
        use.bind(**{"k\udcff": 1}),
        use.bind(load.bind("x")["k\udcff"]),
        use.bind(Secret("K\udcff")),
    ],
)
def test_name_that_is_no_unicode_is_refused_where_it_cannot_be_written(
    node: Any, values: Values
) -> None:
    plan = compiled(node, values)

    with pytest.raises(DefinitionError, match="no Unicode text"):
        encode_plan(plan)


def test_same_graph_is_the_same_plan_wherever_its_functions_lie_in_memory(values: Values) -> None:
    def made() -> Any:
        @task
        def local(n: int) -> int:
            return n

        return local

    one, other = made(), made()

    first, second = (compiled([each.bind(1)], values) for each in (one, other))

    assert one.function is not other.function
    assert encode_plan(first) == encode_plan(second)


@pytest.mark.parametrize(
    ("file", "cell", "where"),
    [
        ("flow.py", "", "flow.py:7"),
        ("/tmp/ipykernel_123/4122593576.py", "3", "cell 3, line 7"),
        ("/tmp/ipykernel_123/4122593576.py", "", "a notebook's cell, line 7"),
        ("<ipython-input-3-0123abcd>", "", "a notebook's cell, line 7"),
        ("", "", ""),
    ],
)
def test_place_of_a_function_is_told_as_a_person_knows_it(file: str, cell: str, where: str) -> None:
    function = Function(
        id="f", module="m", qualname="f", code="", counts_as="", file=file, line=7, cell=cell
    )

    assert function.where == where
