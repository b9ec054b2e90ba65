"""Forks of runs whose graphs grew: maps, chunks, maps of maps, graphs that steps returned."""

from __future__ import annotations

import contextlib
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import perdure
from perdure.client import Perdure
from perdure.errors import DefinitionError, RunFailed
from perdure.explaining import Explanation, Verdict
from perdure.target import load_target

SCRIPT = dedent(
    """
    import pathlib
    import perdure
    from perdure import task, workflow

    GATE = pathlib.Path(__file__).with_name("mended")
    FACTOR = {factor}

    @task
    def items(n: int) -> list[int]:
        return list(range(n))

    @task
    def square(x: int) -> int:
        if x in {bad} and not GATE.exists():
            raise ValueError(f"bad {{x}}")
        return x * x * FACTOR

    @task
    def half(x: object) -> object:
        return x // 2 if isinstance(x, int) else None

    @task
    def total(xs: list[object]) -> int:
        return sum(x for x in xs if isinstance(x, int))

    @task
    def row(n: int) -> list[int]:
        return square.options(catch=True).map([n * 3, n * 3 + 1, n * 3 + 2])

    @task
    def flat(rows: list[list[object]]) -> int:
        return sum(x for row in rows for x in row if isinstance(x, int))

    @task
    def parts(n: int) -> int:
        return total.bind([square.bind(1), square.options(name="third").bind(3), square.bind(n)])

    @workflow
    def caught(n: int = 6) -> int:
        return total.bind(square.options(catch=True).map(items.bind(n)))

    def is_sixteen(x: int) -> bool:
        return x == 16 * FACTOR

    @workflow
    def enough(n: int = 6) -> int:
        return total.bind(square.options(catch=True, stop_when=is_sixteen).map(items.bind(n)))

    @workflow
    def raced() -> int:
        late = half.options(name="late", after=perdure.sleep(60)).bind(6)
        done, _ = perdure.wait([half.bind(10), late], cancel_rest=True)
        return total.bind(perdure.get(done))

    @workflow
    def plain(n: int = 6) -> int:
        return total.bind(square.map(items.bind(n)))

    @workflow
    def keyed(n: int = 6) -> int:
        called = square.options(catch=True, key=lambda x: f"n{{x}}")
        return total.bind(called.map(items.bind(n)))

    @workflow
    def chunked(n: int = 6) -> int:
        return total.bind(square.options(catch=True, chunk=2).map(items.bind(n)))

    @workflow
    def over(n: int = 6) -> int:
        return total.bind(half.map(square.options(catch=True).map(items.bind(n))))

    @workflow
    def strict(n: int = 6) -> int:
        return total.bind(square.options(chunk=2).map(items.bind(n)))

    @workflow
    def stages(xs: list[int]) -> list[object]:
        return half.map(square.map(xs))

    @workflow
    def nested(n: int = 3) -> int:
        return flat.bind(row.map(items.bind(n)))

    @workflow
    def given(n: int = 5) -> object:
        return parts.options(catch=True).bind(n)
    """
)
SUM = 0 + 1 + 4 + 9 + 16 + 25


@pytest.fixture
def client(inline: Perdure) -> Perdure:
    return inline


class Project:
    """A script of the user's that is edited and mended."""

    def __init__(self, folder: Path, client: Perdure) -> None:
        self.path = folder / "grown.py"
        self.client = client
        self.edit()

    def edit(self, factor: int = 1, bad: tuple[int, ...] = (3, 5)) -> None:
        self.path.write_text(SCRIPT.format(factor=factor, bad=bad))

    def mend(self) -> None:
        (self.path.parent / "mended").touch()

    def run(self, workflow: str, run_id: str = "a", **options: Any) -> Any:
        return self.client.run(load_target(f"{self.path}:{workflow}"), run_id=run_id, **options)

    def ran(self, run_id: str) -> set[str]:
        """Return the steps that ran in a run, or gave a graph; the others were taken over."""
        tries = self.client.runtime.store.list_attempts(self.client.get_run(run_id).record.id)
        return {each.step_id for each in tries}


@pytest.fixture
def project(tmp_path: Path, client: Perdure) -> Project:
    return Project(tmp_path, client)


# --- what failed --------------------------------------------------------------------------------
AROUND = {"square", "square~1", "total"}


@pytest.mark.parametrize(
    ("workflow", "again"),
    [
        ("caught", {"square[3]", "square[5]", *AROUND}),
        ("keyed", {"square[n3]", "square[n5]", *AROUND}),
        (
            "over",
            {"square[3]", "square[5]", "half[3]", "half[5]", "half", "half~1", *AROUND},
        ),
        (
            "nested",
            {
                "row[1]",
                "row[1]~1",
                "row[1]~2",
                "row[1]~1[0]",
                "row[1]~1[2]",
                "row",
                "row~1",
                "flat",
            },
        ),
        ("given", {"parts", "parts~1", "parts/third", "parts/square#2"}),
    ],
)
@pytest.mark.parametrize("edits", [False, True], ids=["as it was", "edited"])
def test_fork_of_what_failed_redoes_those_items_and_what_needs_them(
    client: Perdure, project: Project, workflow: str, again: set[str], edits: bool
) -> None:
    project.run(workflow)
    if edits:
        project.edit(factor=100)
    project.mend()

    run = client.fork("a", force="failed", on_change="reuse", new_id="b")

    run.result()
    assert project.ran("b") == again


@pytest.mark.parametrize(
    ("workflow", "steps"), [("caught", ("square", "square[0]")), ("chunked", ("square",))]
)
def test_reasons_of_a_map_and_its_items_name_what_changed_of_what_it_calls(
    client: Perdure, project: Project, workflow: str, steps: tuple[str, ...]
) -> None:
    project.run(workflow)
    project.edit(factor=100)

    run = client.fork("a", new_id="b")

    assert run.result() == 100 * (SUM - 9 - 25)
    for step in steps:
        assert "its code changed (grown.FACTOR (grown.py:7))" in client.why("b", step)


def test_what_stop_when_ended_is_no_failure_that_a_fork_redoes(
    client: Perdure, project: Project
) -> None:
    project.run("enough")
    project.mend()

    run = client.fork("a", force="failed", on_change="reuse", new_id="b")

    assert run.result() == 0 + 1 + 4 + 9 + 16
    assert project.ran("b") == {"square[3]", *AROUND}
    assert "not needed: stop_when held for square[4]" in client.why("b", "square[5]")


def test_what_stop_when_ended_runs_where_the_child_that_was_enough_runs_again(
    client: Perdure, project: Project
) -> None:
    project.run("enough")
    project.edit(factor=1, bad=(3, 4))

    run = client.fork("a", force="square[4]", on_change="reuse", new_id="b")

    assert run.result() == 0 + 1 + 4 + 25
    assert {"square[4]", "square[5]"} <= project.ran("b")


def test_what_a_wait_ended_is_no_failure_that_a_fork_redoes(
    client: Perdure, project: Project
) -> None:
    assert project.run("raced") == 5

    run = client.fork("a", force="failed", new_id="b")

    assert run.result() == 5
    assert run["late"].status == "CANCELLED"
    assert project.ran("b") == {"sleep", "wait"}


@pytest.mark.parametrize("on_failure", ["stop", "finish"])
@pytest.mark.parametrize("workflow", ["plain", "chunked"])
def test_fork_of_a_run_that_failed_keeps_what_was_done_though_the_code_was_mended(
    client: Perdure, project: Project, on_failure: str, workflow: str
) -> None:
    if workflow == "plain":
        with pytest.raises(RunFailed):
            project.run("plain", on_failure=on_failure)
    else:
        project.run("chunked", on_failure=on_failure)
    rows = client.runtime.store.list_steps(client.get_run("a").record.id)
    done = {row.step_id for row in rows if row.status == "SUCCEEDED"}
    project.edit(factor=1, bad=())

    run = client.fork("a", force="failed", on_change="reuse", new_id="b")

    assert run.result() == SUM
    assert not {i for i in done if i in ("items", "square[0]", "square[4]", "square[0:2]")} & (
        project.ran("b")
    )


@pytest.mark.parametrize("before", [[], ["good"]], ids=["alone", "from another run"])
def test_run_that_succeeded_shows_nothing_of_what_the_failed_code_had_given(
    client: Perdure, project: Project, before: list[str]
) -> None:
    project.edit(bad=())
    for run_id in before:
        project.run("strict", run_id)
    project.edit()
    with pytest.raises(RunFailed):
        project.run("strict", "a", reuse=before[0] if before else None)
    if before:
        with pytest.raises(RunFailed):
            client.resume("a").result()
    project.edit(bad=())

    run = client.resume("a", code="current")

    assert run.result() == SUM
    assert {step.status for step in run.steps()} == {"SUCCEEDED"}


def test_item_that_was_redone_is_not_failed_in_a_later_fork(
    client: Perdure, project: Project
) -> None:
    project.run("caught")
    project.mend()
    client.fork("a", force="failed", new_id="b").wait()

    run = client.fork("b", force=["failed", "square[0]"], new_id="c")

    assert run.result() == SUM
    assert project.ran("c") == {"square", "square[0]"}
    assert client.get_run("c")["square[3]"].result() == 9


def test_failed_items_of_a_map_that_was_taken_over_whole_are_found(
    client: Perdure, project: Project
) -> None:
    project.run("caught")
    client.fork("a", new_id="b").wait()
    project.mend()

    run = client.fork("b", force="failed", new_id="c")

    assert run.result() == SUM
    assert project.ran("b") == set()
    assert project.ran("c") == {"square[3]", "square[5]", *AROUND}


# --- steps of graphs by name --------------------------------------------------------------------
@pytest.mark.parametrize("row", [0, 6], ids=["in front", "at the end"])
def test_new_item_runs_alone_in_each_stage_after_the_first_stage_was_taken_over_whole(
    client: Perdure, project: Project, row: int
) -> None:
    numbers = [0, 1, 2, 4, 6, 7]
    project.run("stages", xs=numbers)
    project.path.write_text(project.path.read_text().replace("x // 2", "x // (1 + 1)"))
    project.run("stages", "b", xs=numbers, reuse="a")
    numbers.insert(row, 9)

    result = project.run("stages", "c", xs=numbers, reuse="b")

    assert result == [x * x // 2 for x in numbers]
    stages = {"square", "square~1", "half", "half~1"}
    assert project.ran("c") == {*stages, f"square[{row}]", f"half[{row}]"}


def test_forced_item_runs_alone_when_its_value_comes_out_the_same(
    client: Perdure, project: Project
) -> None:
    project.run("caught")

    client.fork("a", force="square[1]", new_id="b").wait()

    assert project.ran("b") == {"square", "square[1]"}
    assert "asked to run it again" in client.why("b", "square[1]")
    assert "the graph again that square[1] is in" in client.why("b", "square")
    assert "unchanged" in client.why("b", "total")


def test_pattern_means_all_items_of_a_map_and_nothing_else(
    client: Perdure, project: Project
) -> None:
    project.run("caught")

    client.fork("a", force="square[*]", new_id="b").wait()

    assert project.ran("b") == {"square", *(f"square[{n}]" for n in range(6))}


def test_fork_from_an_item_runs_what_follows_from_it_and_no_other_item(
    client: Perdure, project: Project
) -> None:
    project.run("over")

    client.fork("a", from_step="square[1]", new_id="b").wait()

    assert project.ran("b") == {"square[1]", "half[1]", "half", "half~1", *AROUND}


def test_fork_from_a_map_runs_all_its_items_and_theirs(client: Perdure, project: Project) -> None:
    project.run("over")

    client.fork("a", from_step="square", new_id="b").wait()

    items = {f"{name}[{n}]" for n in range(6) for name in ("square", "half")}
    assert project.ran("b") == {*items, "half", "half~1", *AROUND}


def test_step_of_a_returned_graph_is_forced_by_its_id(client: Perdure, project: Project) -> None:
    project.mend()
    project.run("given")

    client.fork("a", force="parts/square", new_id="b").wait()

    assert project.ran("b") == {"parts", "parts/square"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"force": "square[6]"}, r"did you mean 'square\[5\]'"),
        ({"from_step": "sqare[1]"}, r"did you mean 'square\[1\]'"),
        ({"overrides": {"square[1]": 2}}, r"--override square=JSON"),
        ({"overrides": {"square": [2]}, "force": "square[1]"}, "not both"),
    ],
)
def test_what_makes_no_sense_of_an_item_is_refused(
    client: Perdure, project: Project, options: dict[str, Any], said: str
) -> None:
    project.run("caught")

    with pytest.raises(DefinitionError, match=said):
        client.fork("a", **options)

    assert len(client.list_runs()) == 1


# --- spin ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("workflow", "step", "value"),
    [
        ("caught", "square[4]", 1600),
        ("caught", "square~1", [0, 1, 4]),
        ("over", "half[4]", 8),
        ("chunked", "square[0:2]", [0, 100]),
        ("nested", "row[0]~1[2]", 400),
        ("given", "parts/square", 100),
    ],
)
def test_spin_runs_a_step_of_a_graph_with_todays_code(
    client: Perdure, project: Project, workflow: str, step: str, value: Any
) -> None:
    project.run(workflow)
    project.edit(factor=100)

    spun = client.spin("a", step)

    assert (spun[: len(value)] if isinstance(value, list) else spun) == value


def test_spin_raises_what_an_item_raises(client: Perdure, project: Project) -> None:
    project.run("caught")

    with pytest.raises(ValueError, match="bad 3"):
        client.spin("a", "square[3]")


def test_spin_of_an_item_in_a_chunk_names_the_chunk(client: Perdure, project: Project) -> None:
    project.run("chunked")

    with pytest.raises(DefinitionError, match=r"Item 1 is in the chunk square\[0:2\]"):
        client.spin("a", "square[1]")


def test_spin_of_an_item_that_was_taken_over_with_its_map_names_the_run_that_has_it(
    client: Perdure, project: Project
) -> None:
    project.run("caught")
    client.fork("a", new_id="b").wait()

    with pytest.raises(DefinitionError, match=r"taken over whole from a: `perdure spin a 'square"):
        client.spin("b", "square[4]")


# --- diff ---------------------------------------------------------------------------------------
def test_diff_of_runs_with_maps_names_the_function_and_stacks_many_items(
    client: Perdure, project: Project
) -> None:
    project.mend()
    project.run("plain", n=12)
    project.edit(factor=100)
    client.fork("a", new_id="b").wait()

    difference = client.diff("a", "b")

    (code,) = [each for each in difference.code if each.function == "square"]
    assert len(code.steps) == 12
    assert any("FACTOR" in part or "square" in part for part in code.parts)
    lines = str(difference).splitlines()
    assert sum(line.startswith("square[") for line in lines) == 4
    assert any("1" in line and "100" in line for line in lines if line.startswith("square[1]"))
    assert any(
        line.startswith("square[*]") and "and 8 more" in line and "8 with another value" in line
        for line in lines
    )


def test_items_of_a_map_that_was_taken_over_whole_do_not_differ(
    client: Perdure, project: Project
) -> None:
    project.run("caught")
    client.fork("a", new_id="b").wait()

    assert str(client.diff("a", "b")) == "a and b: 0 of 10 steps differ, same result"


def test_items_that_only_one_run_has_are_told(client: Perdure, project: Project) -> None:
    project.mend()
    project.run("caught", n=6)
    client.fork("a", inputs={"n": 7}, new_id="b").wait()

    difference = client.diff("a", "b")

    assert [step.id for step in difference.steps if step.a is None] == ["square[6]"]
    assert "square[6]" in str(difference)


# --- explain ------------------------------------------------------------------------------------
def foretold_and_happened(
    client: Perdure, foretold: Explanation, run_id: str, ran: set[str]
) -> None:
    there = {step.id for step in client.get_run(run_id).steps()}
    for step in foretold.steps:
        said = f"{step.id} was to {step.verdict}: {step.reason}"
        if step.verdict is Verdict.RUN:
            assert step.id in ran, said
        elif step.verdict is Verdict.REUSE:
            assert step.id in there - ran, said
    listed = {step.id for step in foretold.steps}
    said_open = tuple(step.id for step in foretold.steps if "known only then" in step.reason)
    untold = {step_id for step_id in ran - listed if not step_id.startswith(said_open)}
    chain_links = untold & {"row[1]~1"}  # gave the next link, and is no step any more
    assert untold == chain_links


@pytest.mark.parametrize("edits", [False, True], ids=["as it was", "edited"])
@pytest.mark.parametrize(
    ("workflow", "options"),
    [
        ("caught", {"force": "failed", "on_change": "reuse"}),
        ("caught", {"force": "square[1]"}),
        ("caught", {"inputs": {"n": 8}}),
        ("caught", {"from_step": "square[4]"}),
        ("keyed", {"force": "square[n2]"}),
        ("over", {"force": "failed", "on_change": "reuse"}),
        ("over", {"from_step": "square[1]"}),
        ("chunked", {"force": "failed", "on_change": "reuse"}),
        ("nested", {"force": "failed", "on_change": "reuse"}),
        ("given", {"force": "failed", "on_change": "reuse"}),
        ("plain", {"force": "failed", "on_change": "reuse"}),
        ("plain", {}),
    ],
)
def test_fork_of_a_run_that_grew_does_what_was_explained(
    client: Perdure, project: Project, workflow: str, options: dict[str, Any], edits: bool
) -> None:
    with contextlib.suppress(RunFailed):
        project.run(workflow)
    if edits:
        project.edit(factor=100)
    project.mend()

    foretold = client.explain("a", verb="fork", **options)
    client.fork("a", new_id="b", **options).wait()

    foretold_and_happened(client, foretold, "b", project.ran("b"))


def test_resume_of_a_failed_map_does_what_was_explained(client: Perdure, project: Project) -> None:
    with pytest.raises(RunFailed):
        project.run("plain")
    before = project.ran("a")
    project.mend()

    foretold = client.explain("a")
    client.resume("a").wait()

    assert foretold.ids("run") == ["square[3]", "square[5]", "square~1", "total"]
    assert foretold["square[3]"].reason == "it had failed"
    assert project.ran("a") - before == {"square~1", "total"}


def test_many_items_are_one_row_with_their_number(client: Perdure, project: Project) -> None:
    project.run("caught", n=50)

    lines = str(client.explain("a", force="failed")).splitlines()

    assert lines[0].startswith("fork of a, 54 steps: 49 reused, 3 run, 2 run if")
    assert any(line.split()[:3] == ["square[*]", "48", "reuse"] for line in lines)
    assert any(line.split()[:2] == ["square[3]", "run"] for line in lines)
    assert len(lines) < 10


def test_step_that_waits_is_explained_as_one(client: Perdure) -> None:
    client.run(perdure.sleep("1ms"), run_id="slept")

    foretold = client.explain("slept", verb="rerun", dag=perdure.sleep("1ms"))

    assert foretold["sleep"].reason.endswith("; the run waits there")
