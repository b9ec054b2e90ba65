from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Dag, Input, execute, task, when, workflow
from perdure.errors import DefinitionError
from perdure.graph.arguments import freeze
from perdure.graph.dag import MAX_ID_BYTES, make_dag
from perdure.graph.node import Call, source_of


@task
def load(path: str) -> str:
    return path


@task
def join(*parts: Any) -> str:
    return "+".join(map(str, parts))


@task
def bump(x: int) -> int:
    return x + 1


def ids(dag: Dag) -> list[str]:
    return [step.id for step in dag.steps]


def test_steps_of_one_name_are_numbered_in_the_order_of_binding() -> None:
    a, b, c = load.bind("a"), load.bind("b"), load.bind("c")

    dag = make_dag(join.bind(c, b, a))

    assert ids(dag) == ["load", "load#2", "load#3", "join"]
    assert dag.ids[source_of(a)] == "load"  # type: ignore[index]


def test_a_graph_has_only_what_its_output_needs() -> None:
    load.bind("unused")

    assert ids(make_dag([load.bind("a"), {"k": bump.bind(1)}])) == ["load", "bump"]


def test_every_node_bound_in_a_body_belongs_to_the_graph() -> None:
    @workflow
    def save(path: str) -> None:
        load.bind(path)
        bump.bind(1)

    assert ids(save.dag()) == ["load", "bump"]


def test_a_node_used_twice_is_one_step() -> None:
    shared = bump.bind(1)

    assert ids(make_dag(join.bind(shared, [shared, shared]))) == ["bump", "join"]


def test_names_lose_locals_and_can_be_given() -> None:
    @task
    def local() -> None: ...

    dag = make_dag([local.bind(), bump.options(name="my step").bind(1)])

    assert ids(dag) == ["test_names_lose_locals_and_can_be_given.local", "my step"]


def test_a_long_id_is_shortened_by_its_digest() -> None:
    long = bump.options(name="ä" * 300)

    first, second = ids(make_dag([long.bind(1), long.bind(2)]))

    assert first != second
    assert all(len(each.encode()) <= MAX_ID_BYTES for each in (first, second))
    assert first.startswith("ää")


def test_steps_of_a_sub_workflow_are_named_under_it() -> None:
    @workflow(name="prep")
    def prep(path: str) -> str:
        return join.bind(load.bind(path))

    @workflow(name="outer")
    def outer(path: str) -> Any:
        load.bind("first")
        return [prep.bind(path), prep.bind("b"), prep.options(name="again").bind("c")]

    dag = outer.dag()

    assert ids(dag) == [
        "load",
        "prep/load",
        "prep/join",
        "prep#2/load",
        "prep#2/join",
        "again/load",
        "again/join",
    ]
    assert [step.scope for step in dag.steps][1:4] == ["prep", "prep", "prep"]
    assert outer("a") == ["a", "b", "c"]


def test_a_step_and_a_sub_workflow_of_one_name_are_numbered_together() -> None:
    @workflow(name="load")
    def sub() -> int:
        return bump.bind(1)

    @workflow
    def outer() -> Any:
        return [load.bind("a"), sub.bind()]

    assert ids(outer.dag()) == ["load", "load#2/bump"]


def test_workflows_nest_to_any_depth() -> None:
    @workflow(name="inner")
    def inner(x: int) -> int:
        return bump.bind(x)

    @workflow(name="middle")
    def middle(x: int) -> int:
        return inner.bind(inner.bind(x))

    @workflow(name="outer")
    def outer(x: int) -> int:
        return middle.bind(x)

    assert ids(outer.dag()) == ["middle/inner/bump", "middle/inner#2/bump"]
    assert outer(1) == 3


def test_order_without_data_is_an_edge_and_no_argument() -> None:
    first = load.bind("a")
    second = bump.options(after=[first]).bind(1)

    dag = make_dag(second)

    assert ids(dag) == ["load", "bump"]
    assert dag.steps[1].after == ("load",)


def test_after_a_sub_workflow_means_after_all_its_steps() -> None:
    @workflow(name="prep")
    def prep() -> int:
        load.bind("side effect")
        return bump.bind(1)

    @workflow
    def outer() -> Any:
        return join.options(after=prep.bind()).bind()

    assert outer.dag().steps[-1].after == ("prep/load", "prep/bump")


def test_a_sub_workflow_after_a_node_starts_all_its_steps_after_it() -> None:
    @workflow(name="prep")
    def prep() -> int:
        return bump.bind(1)

    @workflow
    def outer() -> Any:
        return prep.options(after=load.bind("a")).bind()

    assert outer.dag().steps[-1].after == ("load",)


def test_a_hundred_thousand_steps_in_a_row_are_no_recursion() -> None:
    node: Any = bump.bind(0)
    for _ in range(99_999):
        node = bump.bind(node)

    assert len(make_dag(node).steps) == 100_000


def test_a_hundred_nested_aliases_are_no_recursion() -> None:
    @workflow(name="same")
    def same(x: int) -> int:
        return x

    @workflow
    def outer(x: int) -> int:
        for _ in range(5_000):
            x = same.bind(x)
        return bump.bind(x)

    assert outer(1) == 2


def test_ten_thousand_nodes_side_by_side_are_one_argument() -> None:
    dag = make_dag(join.bind([bump.bind(i) for i in range(10_000)]))

    assert dag.steps[-1].id == "join"
    assert dag.steps[9_999].id == "bump#10000"


def test_a_cycle_made_by_force_is_refused_with_its_names() -> None:
    loose = load.bind("a")
    first = bump.bind(loose)
    second = load.bind(first)
    object.__setattr__(loose, "_source", source_of(second))

    with pytest.raises(DefinitionError, match=r"cycle: .*bump -> load|cycle: .*load -> bump"):
        make_dag(first)


def test_a_graph_whose_order_was_changed_by_force_is_sorted_again() -> None:
    loose = load.bind("b")
    early, late = bump.bind(loose), load.bind("a")
    object.__setattr__(loose, "_source", source_of(late))

    assert ids(make_dag(early)) == ["load", "bump"]


def test_a_node_of_another_trace_is_refused() -> None:
    leaked: list[Any] = []

    @workflow(name="first")
    def first() -> int:
        leaked.append(bump.bind(1))
        return leaked[0]

    @workflow(name="second")
    def second() -> int:
        return bump.bind(leaked[0])

    first.dag()

    with pytest.raises(DefinitionError, match="does not belong to workflow 'second'"):
        second.dag()
    with pytest.raises(DefinitionError, match="does not belong to this graph"):
        make_dag(leaked[0])


def test_a_parameter_of_another_workflow_is_refused() -> None:
    leaked: list[Any] = []

    @workflow(name="first")
    def first(x: int) -> int:
        leaked.append(x)
        return bump.bind(x)

    @workflow(name="second")
    def second() -> int:
        return bump.bind(leaked[0])

    first.dag()

    with pytest.raises(DefinitionError, match="parameter 'x' of 'first'"):
        second.dag()


def test_a_free_input_inside_a_workflow_is_refused() -> None:
    inp = Input()

    @workflow(name="w")
    def w() -> int:
        return bump.bind(inp.x)

    with pytest.raises(DefinitionError, match="make it a parameter"):
        w.dag()


def test_a_free_node_may_be_used_in_a_workflow() -> None:
    free = bump.bind(1)

    @workflow
    def w() -> int:
        return bump.bind(free)

    assert w() == 3


def test_two_inputs_in_one_graph_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"more than one Input\(\)"):
        make_dag([bump.bind(Input().x), bump.bind(Input().x)])


def test_inputs_are_listed_in_the_order_of_use() -> None:
    inp = Input()

    dag = make_dag([load.bind(inp.path), bump.bind(inp["k"]), bump.bind(inp[0])])

    assert dag.inputs == ("path", "k", "0")
    assert execute(dag, inputs={"path": "p", "k": 1, 0: 2}) == ["p", 2, 3]


def test_a_graph_is_drawn_as_text_and_as_mermaid() -> None:
    @workflow(name="w")
    def w(path: str, k: int = 3) -> Any:
        rows = load.bind(path)
        return {"n": bump.options(after=rows).bind(k), "parts": join.bind(rows, "x")}

    dag = w.dag()

    assert str(dag).splitlines() == [
        "w(path, k=3)",
        "|- load(path)",
        "|- bump(k) after load",
        "|- join(load, 'x')",
        "`- result: [bump, join]",
    ]
    assert dag.mermaid().splitlines() == [
        "flowchart TD",
        '  ipath(["path"])',
        '  ik(["k"])',
        '  s0["load"]',
        '  s1["bump"]',
        '  s2["join"]',
        "  ipath --> s0",
        "  ik --> s1",
        "  s0 -.-> s1",
        "  s0 --> s2",
    ]


def test_maps_and_branches_are_drawn_as_they_are_written() -> None:
    inp = Input()
    lengths = bump.map(load.map(inp.paths))
    dag = make_dag(when(inp.cond, lengths, bump.bind(0)))

    assert dag.text().splitlines()[1:-1] == [
        "|- load.map(paths)",
        "|- bump.map(load)",
        "|- bump#2(0)",
        "|- when.choice(cond)",
        "|- when(when.choice: then=bump, otherwise=bump#2)",
    ]
    assert dag.mermaid().splitlines()[-3:] == [
        "  s3 --> s4",
        "  s1 -->|then| s4",
        "  s2 -->|otherwise| s4",
    ]


def test_mermaid_text_cannot_be_broken_by_a_name() -> None:
    dag = make_dag(bump.options(name='a" --> <b> & c').bind(1))

    assert 's0["a&quot; --&gt; &lt;b&gt; &amp; c"]' in dag.mermaid()


@given(st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=30))
def test_any_graph_is_in_topological_order_with_ids_of_its_own(edges: list[list[int]]) -> None:
    nodes: list[Any] = []
    for needs in edges:
        nodes.append(join.bind(*(nodes[i % len(nodes)] for i in needs if nodes)))

    dag = make_dag(nodes)

    place = {step.call: index for index, step in enumerate(dag.steps)}
    assert len(set(ids(dag))) == len(dag.steps) == len(nodes)
    for step in dag.steps:
        for node in step.call.uses:
            need = source_of(node)
            assert isinstance(need, Call)
            assert place[need] < place[step.call]


def test_freezing_an_output_keeps_constants_as_they_are() -> None:
    value = {"a": [1, 2]}

    assert freeze(value, "x", []) is value
