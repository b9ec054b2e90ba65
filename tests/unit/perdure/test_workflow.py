from __future__ import annotations

from typing import Any

import pytest

from perdure import DefinitionError, Static, session, task, workflow
from perdure.session import use_driver


@task
def bump(x: int, by: int = 1) -> int:
    return x + by


@task
def total(xs: list[int]) -> int:
    return sum(xs)


@workflow(name="grow")
def grow(x: int, k: Static[int] = 3) -> int:
    return total.bind([bump.bind(x, i) for i in range(k)])


class Recorder:
    """A driver that records what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []

    def run(self, dag: Any, **options: Any) -> Any:
        self.asked.append(("run", dag, options))

    def start(self, dag: Any, **options: Any) -> Any:
        self.asked.append(("start", dag, options))

    def submit(self, dag: Any, **options: Any) -> Any:
        self.asked.append(("submit", dag, options))

    def execute(self, dag: Any, **options: Any) -> Any:
        self.asked.append(("execute", dag, options))


def test_calling_a_workflow_executes_it() -> None:
    assert grow(1) == 1 + 2 + 3
    assert grow.execute(x=1, k=1) == 1


def test_a_static_parameter_is_a_real_value_while_tracing() -> None:
    assert len(grow.dag().steps) == 4
    assert len(grow.dag(k=5).steps) == 6
    assert grow.dag(k=5).statics == {"k": 5}


def test_a_static_parameter_is_found_under_every_spelling() -> None:
    import perdure

    @workflow
    def w(a: perdure.Static[int], b: "perdure.Static[Missing]", c: int) -> Any:  # type: ignore[name-defined]  # noqa: F821, UP037
        return [a, b, c]

    assert [field.static for field in w.schema.fields] == [True, True, False]


def test_the_value_of_a_dynamic_parameter_is_not_given_to_dag() -> None:
    with pytest.raises(DefinitionError, match="no Static"):
        grow.dag(x=3)


def test_a_static_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(DefinitionError, match="parameter 'k': expected int, got str"):
        grow.dag(k="3")


def test_a_result_may_hold_nodes_and_constants_in_containers() -> None:
    @workflow
    def w(x: int) -> Any:
        return {"a": [bump.bind(x), 7], "x": x, "none": None}

    assert w(1) == {"a": [2, 7], "x": 1, "none": None}


def test_a_result_may_be_a_constant() -> None:
    @workflow
    def w() -> Any:
        bump.bind(1)
        return "done"

    assert w() == "done"


def test_run_options_are_told_from_parameters() -> None:
    driver = Recorder()

    with use_driver(driver):
        grow.run(4, k=2, run_id="r", tags={"a": "b"})
        grow.options(run_id="s", queue="q").start(x=1, run_id="t")
        grow.submit(inputs={"x": 2})

    assert driver.asked[0] == (
        "run",
        grow,
        {"run_id": "r", "tags": {"a": "b"}, "inputs": {"x": 4, "k": 2}},
    )
    assert driver.asked[1][2] == {"run_id": "t", "queue": "q", "inputs": {"x": 1}}
    assert driver.asked[2][2] == {"inputs": {"x": 2}}


def test_an_inner_driver_gives_way_to_the_outer_one() -> None:
    outer, inner = Recorder(), Recorder()

    with use_driver(outer):
        with use_driver(inner):
            assert session.current_driver() is inner
        assert session.current_driver() is outer


def test_options_give_a_copy_and_refuse_unknown_ones() -> None:
    assert grow.options(name="other").name == "other"
    assert grow.name == "grow"
    with pytest.raises(DefinitionError, match="did you mean 'run_id'"):
        grow.options(runid="x")


def test_a_parameter_with_the_name_of_an_option_is_refused() -> None:
    with pytest.raises(DefinitionError, match="parameter 'tags'"):

        @workflow
        def w(tags: str) -> Any: ...


@pytest.mark.parametrize("name", ["args", "kwargs", "positional"])
def test_parameters_without_a_name_of_their_own_are_refused(name: str) -> None:
    def args(*xs: int) -> None: ...
    def kwargs(**xs: int) -> None: ...
    def positional(x: int, /) -> None: ...

    with pytest.raises(DefinitionError, match="schema"):
        workflow(locals()[name])


def test_a_default_that_does_not_fit_its_annotation_is_refused() -> None:
    with pytest.raises(DefinitionError, match="parameter 'k': expected int, got str"):

        @workflow
        def w(k: int = "3") -> Any: ...  # type: ignore[assignment]


def test_what_cannot_be_traced_is_refused() -> None:
    async def coroutine() -> Any: ...

    def rows() -> Any:
        yield 1

    for wrong in (coroutine, rows, int, bump, grow, 3):
        with pytest.raises(DefinitionError):
            workflow(wrong)  # type: ignore[call-overload]


def test_running_a_workflow_in_a_traced_body_says_what_to_write() -> None:
    @workflow
    def w() -> Any:
        return grow(1)

    with pytest.raises(DefinitionError, match=r"write `grow\.bind\(\.\.\.\)`"):
        w.dag()


def test_mapping_a_workflow_says_what_to_write() -> None:
    with pytest.raises(DefinitionError, match=r"return grow\.bind\(item\)"):
        grow.map([1, 2])


def test_a_sub_workflow_checks_constants_against_its_schema() -> None:
    with pytest.raises(DefinitionError, match="parameter 'x': expected int, got str"):
        grow.bind("1")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"parameter 'x'.* is missing"):
        grow.bind()  # type: ignore[call-arg]


def test_a_static_parameter_of_a_sub_workflow_takes_no_node() -> None:
    @workflow
    def w() -> Any:
        return grow.bind(1, k=bump.bind(1))

    with pytest.raises(DefinitionError, match="Static parameter"):
        w.dag()


def test_a_constant_argument_of_a_sub_workflow_is_a_placeholder_there() -> None:
    @workflow
    def sub(k: int) -> Any:
        return bump.bind(1) if k > 2 else bump.bind(2)

    @workflow
    def w() -> Any:
        return sub.bind(3)

    with pytest.raises(DefinitionError, match="parameter 'k'"):
        w.dag()


def test_the_result_of_a_sub_workflow_projects_what_it_returned() -> None:
    @workflow
    def sub(x: int) -> dict[str, Any]:
        return {"node": bump.bind(x), "const": [1, {"k": 2}], "pair": (x, bump.bind(x, 5))}

    @workflow
    def w(x: int) -> Any:
        made = sub.bind(x)
        return [made["node"], made["const"][1]["k"], made["pair"][1], made]

    assert w(1) == [2, 2, 6, {"node": 2, "const": [1, {"k": 2}], "pair": (1, 6)}]


def test_the_pair_that_a_sub_workflow_returns_unpacks() -> None:
    @workflow
    def sub() -> tuple[int, int]:
        return bump.bind(1), bump.bind(2)

    @workflow
    def w() -> Any:
        first, second = sub.bind()
        return total.bind([first, second])

    assert w() == 5


def test_a_projection_that_a_sub_workflow_does_not_have_is_refused() -> None:
    @workflow
    def sub() -> dict[str, int]:
        return {"a": bump.bind(1)}

    @workflow
    def w() -> Any:
        return bump.bind(sub.bind()["b"])

    with pytest.raises(DefinitionError, match=r"no \['b'\] in it"):
        w.dag()


def test_a_workflow_bound_outside_of_a_body_is_a_graph_of_its_own() -> None:
    from perdure import execute

    assert execute(bump.bind(grow.bind(1, k=2))) == 1 + 2 + 1
