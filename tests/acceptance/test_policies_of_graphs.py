"""``on_change`` and today's code where steps made graphs: items, chunks, rounds, tail calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perdure as p
from perdure.client import Perdure
from perdure.errors import RunConflict, RunFailed
from perdure.task import Task, task
from perdure.workflow import Workflow, workflow

Flow = Workflow[..., Any]


@pytest.fixture
def client(inline: Perdure) -> Perdure:
    return inline


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def note(folder: str, what: str) -> None:
    """Tell of an execution in a file that perdure does not know."""
    with (Path(folder) / "ran").open("a") as file:
        file.write(f"{what}\n")


def what_ran(folder: str) -> list[str]:
    """Return what ran since the last look, sorted."""
    path = Path(folder) / "ran"
    lines = sorted(path.read_text().splitlines()) if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


# --- one function, before and after it was mended -------------------------------------------------
def broken(x: int, folder: str) -> int:
    note(folder, f"fit {x}")
    if x == 1:
        raise ValueError("not this one")
    return x + 1


def mended(x: int, folder: str) -> int:
    note(folder, f"fit {x}")
    return x + 1


@task
def first(x: int, folder: str) -> int:
    note(folder, f"first {x}")
    return x


@task
def gather(values: Any) -> Any:
    return values


def a_map(fit: Task[..., Any], items: tuple[int, ...] = (0, 1, 2), **options: Any) -> Flow:
    @workflow(name="flow")
    def flow(folder: str) -> Any:
        return gather.bind(fit.options(**options).map(list(items), folder=folder))

    return flow


def chunks(fit: Task[..., Any]) -> Flow:
    return a_map(fit, (0, 1, 2, 3), chunk=2)


def two_stages(fit: Task[..., Any]) -> Flow:
    @workflow(name="flow")
    def flow(folder: str) -> Any:
        return gather.bind(fit.map(first.map([0, 1, 2], folder=folder), folder=folder))

    return flow


def fit(function: Callable[..., int], **options: Any) -> Task[..., Any]:
    return task(function).options(name="fit", **options)


def fail(client: Perdure, flow: Flow, folder: str, **options: Any) -> None:
    """Make a run "r" that fails, and forget what ran."""
    with pytest.raises(RunFailed):
        client.run(flow, run_id="r", folder=folder, on_failure="finish", **options)
    what_ran(folder)


SHAPES = {a_map: ["fit 1"], two_stages: ["fit 1"], chunks: ["fit 0", "fit 1"]}
"""What is to run of each graph after its item 1 was mended: of a chunk that failed, all items."""


@pytest.mark.parametrize("shape", SHAPES)
def test_mended_item_alone_runs_with_current_code(
    shape: Callable[..., Flow], client: Perdure, folder: str
) -> None:
    fail(client, shape(fit(broken)), folder)

    resumed = client.resume("r", code="current", dag=shape(fit(mended)))

    assert resumed.result(30)[:3] == [1, 2, 3]
    assert what_ran(folder) == SHAPES[shape]


@pytest.mark.parametrize("shape", SHAPES)
def test_run_that_was_mended_with_current_code_is_the_run_of_todays_definition(
    shape: Callable[..., Flow], client: Perdure, folder: str
) -> None:
    fail(client, shape(fit(broken)), folder)
    result = client.resume("r", code="current", dag=shape(fit(mended))).result(30)
    what_ran(folder)

    assert client.run(shape(fit(mended)), run_id="r", folder=folder) == result

    assert what_ran(folder) == []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("verb", ["run", "fork", "reuse"])
def test_items_are_kept_though_their_code_changed_on_demand(
    verb: str, shape: Callable[..., Flow], client: Perdure, folder: str
) -> None:
    fail(client, shape(fit(broken)), folder)
    today = shape(fit(mended))

    result = {
        "run": lambda: client.run(today, run_id="r", folder=folder, on_change="reuse"),
        "reuse": lambda: client.run(today, reuse="r", folder=folder, on_change="reuse"),
        "fork": lambda: client.fork("r", dag=today, force="failed", on_change="reuse").result(30),
    }[verb]()

    assert result[:3] == [1, 2, 3]
    assert what_ran(folder) == SHAPES[shape]


@pytest.mark.parametrize("verb", ["fork", "reuse"])
@pytest.mark.parametrize("shape", [a_map, two_stages])
def test_new_run_takes_over_the_items_of_one_that_failed(
    shape: Callable[..., Flow], verb: str, client: Perdure, folder: str
) -> None:
    flow = shape(fit(broken))
    fail(client, flow, folder)

    again = {
        "fork": lambda: client.fork("r", dag=flow),
        "reuse": lambda: client.start(flow, reuse="r", folder=folder),
    }[verb]()
    again.wait(30)

    assert what_ran(folder) == ["fit 1"]


def test_items_whose_error_was_caught_are_redone_alone(client: Perdure, folder: str) -> None:
    flow = a_map(fit(broken, catch=True))
    client.run(flow, run_id="r", folder=folder)
    what_ran(folder)
    today = a_map(fit(mended, catch=True))

    forked = client.fork("r", dag=today, force="failed", on_change="reuse")

    assert forked.result(30) == [1, 2, 3]
    assert what_ran(folder) == ["fit 1"]


def test_items_whose_error_was_caught_are_redone_also_by_a_fork_of_a_fork(
    client: Perdure, folder: str
) -> None:
    client.run(a_map(fit(broken, catch=True)), run_id="r", folder=folder)
    client.fork("r", dag=a_map(fit(broken, catch=True)), force="gather", new_id="s").result(30)
    what_ran(folder)

    forked = client.fork("s", dag=a_map(fit(mended, catch=True)), force="failed", on_change="reuse")

    assert forked.result(30) == [1, 2, 3]
    assert what_ran(folder) == ["fit 1"]


@pytest.mark.parametrize("verb", ["fork", "reuse"])
def test_map_does_not_take_the_list_of_another_one_that_is_as_long(
    verb: str, client: Perdure, folder: str
) -> None:
    def two_maps(function: Callable[..., int]) -> Flow:
        @workflow(name="flow")
        def flow(folder: str) -> Any:
            items = [0, 1, 2]
            return [first.map(items, folder=folder), fit(function).map(items, folder=folder)]

        return flow

    fail(client, two_maps(broken), folder)

    again = {
        "fork": lambda: client.fork("r", dag=two_maps(mended), on_change="reuse"),
        "reuse": lambda: client.start(
            two_maps(mended), reuse="r", folder=folder, on_change="reuse"
        ),
    }[verb]()

    assert again.result(30) == [[0, 1, 2], [1, 2, 3]]
    assert what_ran(folder) == ["fit 1"]


def test_kept_result_of_an_item_stays_with_its_item(client: Perdure, folder: str) -> None:
    fail(client, a_map(fit(broken), (0, 1, 2)), folder)
    today = a_map(fit(mended), (-1, 0, 1, 2))

    result = client.run(today, run_id="r", folder=folder, on_change="reuse")

    assert result == [0, 1, 2, 3]
    assert what_ran(folder) == ["fit -1", "fit 1"]


# --- on_change="fail" -----------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
def test_items_are_no_change_by_themselves(
    shape: Callable[..., Flow], client: Perdure, folder: str
) -> None:
    flow = shape(fit(broken))
    fail(client, flow, folder)

    with pytest.raises(RunFailed):
        client.run(flow, run_id="r", folder=folder, on_change="fail")

    assert what_ran(folder) == ["fit 1"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("verb", ["run", "fork", "reuse"])
def test_items_whose_code_changed_are_refused_on_demand(
    verb: str, shape: Callable[..., Flow], client: Perdure, folder: str
) -> None:
    fail(client, shape(fit(broken)), folder)
    today = shape(fit(mended))

    refused = {
        "run": lambda: client.run(today, run_id="r", folder=folder, on_change="fail"),
        "reuse": lambda: client.run(today, reuse="r", folder=folder, on_change="fail"),
        "fork": lambda: client.fork("r", dag=today, on_change="fail"),
    }[verb]

    with pytest.raises(RunConflict, match="fit: its code, or what it consumes, changed"):
        refused()

    assert what_ran(folder) == []


def test_current_code_gives_nothing_up_so_it_is_not_refused(client: Perdure, folder: str) -> None:
    fail(client, a_map(fit(broken)), folder)

    resumed = client.resume("r", code="current", dag=a_map(fit(mended)), on_change="fail")

    assert resumed.result(30) == [1, 2, 3]


def one_after_the_other(function: Callable[..., int], *, inserted: bool = False) -> Flow:
    @workflow(name="flow")
    def flow(folder: str) -> Any:
        value = first.bind(1, folder)
        more = [first.bind(7, folder)] if inserted else []
        return gather.bind([fit(function).bind(value, folder), *more])

    return flow


@pytest.mark.parametrize("verb", ["run", "fork", "reuse"])
@pytest.mark.parametrize("inserted", [False, True])
def test_mended_failure_and_an_inserted_call_give_nothing_up(
    verb: str, client: Perdure, folder: str, inserted: bool
) -> None:
    fail(client, one_after_the_other(broken), folder)
    today = one_after_the_other(mended, inserted=inserted)

    result = {
        "run": lambda: client.run(today, run_id="r", folder=folder, on_change="fail"),
        "reuse": lambda: client.run(today, reuse="r", folder=folder, on_change="fail"),
        "fork": lambda: client.fork("r", dag=today, on_change="fail").result(30),
    }[verb]()

    assert result[0] == 2
    assert what_ran(folder) == (["first 7", "fit 1"] if inserted else ["fit 1"])


# --- rounds and tail calls ------------------------------------------------------------------------
def is_enough(x: int) -> bool:
    return x >= 3


def a_loop(function: Callable[..., int], folder: str) -> Flow:
    def body(x: int) -> int:
        return function(x, folder)

    @workflow(name="flow")
    def flow() -> Any:
        return p.loop(task(body).options(name="fit"), 0, until=is_enough, max_iterations=9)

    return flow


def test_mended_round_of_a_loop_goes_on_with_current_code(client: Perdure, folder: str) -> None:
    with pytest.raises(RunFailed):
        client.run(a_loop(broken, folder), run_id="r")
    what_ran(folder)

    resumed = client.resume("r", code="current", dag=a_loop(mended, folder))

    assert resumed.result(30) == 3
    assert what_ran(folder) == ["fit 1", "fit 2"]


def apply(function: Callable[..., int], x: int, folder: str) -> int:
    return function(x, folder)


def test_function_that_is_passed_as_an_argument_is_code_of_the_step(
    client: Perdure, folder: str
) -> None:
    applied = task(apply).options(name="applied")
    with pytest.raises(RunFailed):
        client.run(applied.bind(broken, 1, folder), run_id="r")
    what_ran(folder)

    resumed = client.resume("r", code="current", dag=applied.bind(mended, 1, folder))

    assert resumed.result(30) == 2
    assert "its code changed" in client.why("r", "applied")
