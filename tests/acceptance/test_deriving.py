"""Runs made from runs: what is taken over, what runs again, what is given, and what is refused."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import perdure
from perdure.client import Perdure, open_store
from perdure.errors import (
    DefinitionError,
    NotSerializable,
    RunConflict,
    RunFailed,
    RunNotFound,
)
from perdure.target import load_target
from perdure.task import task
from perdure.workflow import workflow
from perdure_storage.lifecycle import RunStatus

SCRIPT = dedent(
    """
    import perdure
    from pathlib import Path

    HERE = Path(__file__).parent

    def scale(x):
        return {factor} * x

    @perdure.task
    def load(n: int) -> list[int]:
        return list(range(n))

    @perdure.task
    def mean(rows: list[int]) -> float:
        return scale(sum(rows) / len(rows))

    @perdure.task(catch=True)
    def fragile(rows: list[int]) -> int:
        if not (HERE / "mended").exists():
            raise ValueError("not mended yet")
        return len(rows)

    @perdure.task(outputs=2)
    def ends(rows: list[int]) -> tuple[int, int]:
        return rows[0], rows[-1]

    @perdure.task
    def report(mean: float, count: object, last: int) -> str:
        kind = count if isinstance(count, int) else "none"
        return f"{{mean:g}} of {{kind}} up to {{last}}"

    @perdure.workflow
    def flow({parameters}) -> str:
        rows = load.bind(n)
        first, last = ends.bind(rows)
        return report.bind(mean.bind(rows), fragile.bind(rows), last)
    """
)


@pytest.fixture
def client(inline: Perdure) -> Perdure:
    return inline


class Project:
    """A script of the user's that is edited, and a run of it that has ended."""

    def __init__(self, folder: Path, client: Perdure) -> None:
        self.path = folder / "flow.py"
        self.client = client

    def edit(self, factor: int = 1, parameters: str = "n: int = 5") -> None:
        self.path.write_text(SCRIPT.format(factor=factor, parameters=parameters))

    def mend(self) -> None:
        (self.path.parent / "mended").touch()

    def run(self, run_id: str, **inputs: Any) -> str:
        result: str = self.client.run(load_target(str(self.path)), run_id=run_id, **inputs)
        return result

    def ran(self, run_id: str) -> list[str]:
        """Return the steps that ran in a run; the others were taken over or given."""
        rows = self.client.runtime.store.list_steps(self.client.get_run(run_id).record.id)
        return sorted(row.step_id for row in rows if row.attempt)


@pytest.fixture
def project(tmp_path: Path, client: Perdure) -> Project:
    made = Project(tmp_path, client)
    made.edit()
    assert made.run("a") == "2 of none up to 4"
    return made


# --- rerun ------------------------------------------------------------------------------------
def test_rerun_is_a_linked_run_of_todays_code_that_reuses_nothing(
    client: Perdure, project: Project
) -> None:
    project.edit(factor=10)

    run = client.rerun("a", new_id="b")

    assert run.result() == "20 of none up to 4"
    assert project.ran("b") == ["ends", "fragile", "load", "mean", "report"]
    assert run.parent == "a"
    assert client.why("b", "load") == "load ran (attempt 1): a is run again from the start"


def test_rerun_takes_changed_inputs_and_keeps_tags(client: Perdure, project: Project) -> None:
    project.run("tagged", n=3, tags={"team": "x"})

    run = client.rerun("tagged", inputs={"n": 9})

    assert run.result() == "4 of none up to 8"
    assert run.tags == {"team": "x"}
    assert run.id != "tagged"


def test_rerun_refuses_an_id_that_exists_and_names_the_command(
    client: Perdure, project: Project
) -> None:
    with pytest.raises(RunConflict, match=r"exists \(SUCCEEDED\).*perdure resume a"):
        client.rerun("a", new_id="a")


def test_rerun_leaves_out_an_input_that_is_no_parameter_any_more(tmp_path: Path) -> None:
    said: list[str] = []
    store = str(tmp_path / "store" / "perdure.db")
    with Perdure(open_store(store, executor="inline").settings, said.append) as client:
        project = Project(tmp_path, client)
        project.edit(parameters="n: int = 5, old: int = 1")
        project.run("a")
        project.edit()

        client.rerun("a", new_id="b").wait()

    assert "takes no old any more" in said[-1]


def test_rerun_refuses_an_input_that_there_is_not(client: Perdure, project: Project) -> None:
    with pytest.raises(DefinitionError, match="'m'"):
        client.rerun("a", inputs={"m": 1})


def test_run_that_is_not_there_is_not_found(client: Perdure, project: Project) -> None:
    for verb in (client.rerun, client.fork, client.explain):
        with pytest.raises(RunNotFound, match="Did you mean"):
            verb("aa")


# --- fork -------------------------------------------------------------------------------------
def test_fork_runs_only_what_an_edit_reaches(client: Perdure, project: Project) -> None:
    project.edit(factor=10)

    run = client.fork("a", new_id="b")

    assert run.result() == "20 of none up to 4"
    assert project.ran("b") == ["mean", "report"]
    assert "its code changed (flow.scale" in client.why("b", "mean")
    assert client.why("b", "load") == "load was taken over from a"
    assert run.parent == "a"


def test_fork_without_a_change_runs_nothing(client: Perdure, project: Project) -> None:
    assert client.fork("a", new_id="b").result() == "2 of none up to 4"

    assert project.ran("b") == []


def test_fork_from_a_step_runs_its_cone(client: Perdure, project: Project) -> None:
    client.fork("a", from_step="mean", new_id="b").wait()

    assert project.ran("b") == ["mean", "report"]
    assert "runs again from here" in client.why("b", "mean")


def test_fork_forces_steps_by_pattern_and_stops_where_values_are_as_they_were(
    client: Perdure, project: Project
) -> None:
    client.fork("a", force="m*", new_id="b").wait()

    assert project.ran("b") == ["mean"]
    assert "asked to run it again" in client.why("b", "mean")
    assert "inputs turned out unchanged" in client.why("b", "report")


def test_fork_with_other_inputs_runs_what_takes_them(client: Perdure, project: Project) -> None:
    run = client.fork("a", inputs={"n": 7}, new_id="b")

    assert run.result() == "3 of none up to 6"
    assert "parameter n changed" in client.why("b", "load")


def test_fork_of_failed_steps_redoes_caught_ones_and_keeps_what_was_edited(
    client: Perdure, project: Project
) -> None:
    project.mend()
    project.edit(factor=10)

    run = client.fork("a", force="failed", on_change="reuse", new_id="b")

    assert run.result() == "2 of 5 up to 4"
    assert project.ran("b") == ["fragile", "report"]
    assert "its error had been caught" in client.why("b", "fragile")


def test_fork_gives_values_in_place_of_steps(client: Perdure, project: Project) -> None:
    run = client.fork("a", overrides={"mean": 7.5, "ends": (0, 99)}, new_id="b")

    assert run.result() == "7.5 of none up to 99"
    assert project.ran("b") == ["report"]
    assert client.why("b", "mean") == (
        "mean did not run: its value was given when the run was forked from a"
    )


def test_given_value_is_never_taken_for_a_computed_one(client: Perdure, project: Project) -> None:
    client.fork("a", overrides={"mean": 7.5}, new_id="b").wait()

    again = client.fork("b", new_id="c")

    assert again.result() == "2 of none up to 4"
    assert project.ran("c") == ["mean", "report"]
    assert "had been given there" in client.why("c", "mean")


def test_large_given_value_survives_and_is_what_the_fork_resumes_with(
    client: Perdure, project: Project
) -> None:
    client.fork("a", overrides={"load": list(range(50_000))}, new_id="b").wait()

    assert client.get_run("b").result() == "24999.5 of none up to 49999"
    assert len(client.get_run("b")["load"].result()) == 50_000


def test_same_id_run_again_stays_a_fork(client: Perdure, project: Project) -> None:
    client.fork("a", overrides={"mean": 7.5}, new_id="b").wait()

    assert project.run("b") == "7.5 of none up to 4"
    assert project.run("a") == "2 of none up to 4"


def test_fork_refuses_a_change_when_told_to(client: Perdure, project: Project) -> None:
    project.edit(factor=10)

    with pytest.raises(RunConflict, match=r"mean: its code changed \(flow.scale"):
        client.fork("a", on_change="fail")

    assert len(client.list_runs()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"from_step": "maen"}, "did you mean 'mean'"),
        ({"force": ["nothing*"]}, "no such step"),
        ({"overrides": {"nobody": 1}}, "no such step"),
        ({"overrides": {"mean": 1.0}, "force": "mean"}, "not both"),
        ({"overrides": {"ends": 3}}, "outputs=2"),
        ({"force": 3}, "force=3: write a step's name"),
        ({"overrides": [1]}, "write values by step"),
        ({"on_change": "resue"}, "did you mean 'reuse'"),
        ({"new_id": " x"}, "run id"),
    ],
)
def test_fork_refuses_what_makes_no_sense_and_makes_nothing(
    client: Perdure, project: Project, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DefinitionError, match=said):
        client.fork("a", **options)

    assert len(client.list_runs()) == 1


# --- today's code -----------------------------------------------------------------------------
@task
def one() -> int:
    return 1


def test_run_without_an_origin_says_what_to_pass(client: Perdure) -> None:
    client.run(one.bind(), run_id="loose")

    with pytest.raises(DefinitionError, match=r"perdure\.fork\('loose', dag=\.\.\.\)"):
        client.fork("loose")
    assert client.fork("loose", dag=one.bind()).result() == 1


def test_live_workflow_of_a_notebook_is_found_by_its_name(
    client: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    @workflow
    def cell() -> int:
        return one.bind()

    main = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    client.run(cell, run_id="cell-1")

    main.cell = cell  # type: ignore[attr-defined]

    assert client.rerun("cell-1").result() == 1


def test_moved_file_is_told_with_what_to_pass(client: Perdure, project: Project) -> None:
    project.path.rename(project.path.with_name("moved.py"))

    with pytest.raises(DefinitionError, match=r"there is no file.*dag=\.\.\."):
        client.rerun("a")


# --- texts that name the verbs ----------------------------------------------------------------
def test_cancelled_run_of_the_same_id_names_a_rerun_that_works(
    client: Perdure, project: Project
) -> None:
    client.submit(load_target(str(project.path)), run_id="c")
    client.cancel("c")

    with pytest.raises(RunConflict, match="perdure rerun c"):
        project.run("c")
    assert client.rerun("c").wait().status is RunStatus.SUCCEEDED


# --- spin -------------------------------------------------------------------------------------
def dump(folder: Path) -> tuple[str, list[str]]:
    """Return all rows, and every file beside them."""
    connection = sqlite3.connect(folder / "perdure.db")
    rows = "\n".join(connection.iterdump())
    connection.close()
    return rows, sorted(str(path) for path in folder.rglob("*") if path.suffix not in (".db-shm",))


def test_spin_runs_one_step_with_todays_code_and_stores_nothing(
    client: Perdure, project: Project, tmp_path: Path
) -> None:
    project.edit(factor=10)
    before = dump(tmp_path / "store")

    assert client.spin("a", "mean") == 20.0
    assert client.spin("a", "ends") == (0, 4)

    assert dump(tmp_path / "store") == before


def test_explaining_writes_nothing(client: Perdure, project: Project, tmp_path: Path) -> None:
    project.edit(factor=10)
    before = dump(tmp_path / "store")

    client.explain("a", overrides={"load": list(range(50_000))}, inputs={"n": 10**6})
    client.explain(load_target(str(project.path)), reuse="last", n=8)
    client.explain("a", verb="rerun")
    client.explain("a", code="current")

    assert dump(tmp_path / "store") == before


def test_spin_raises_what_the_step_raises_though_the_run_caught_it(
    client: Perdure, project: Project
) -> None:
    with pytest.raises(ValueError, match="not mended yet"):
        client.spin("a", "fragile")


@task
def asks(x: int) -> tuple[str, str]:
    here = perdure.current()
    return here.run_id, here.step_id


@task
async def later(x: int) -> int:
    return x + 1


@task(checkpoint=False)
def fleeting(x: int) -> int:
    return x


@task
def lock(x: int) -> Any:
    import threading

    return threading.Lock() if x else None


@task
def whispers(secret: str, x: int) -> int:
    return len(secret) + x


@workflow
def kinds(x: int = 1) -> tuple[Any, ...]:
    secret = perdure.Secret("SPIN_SECRET")
    return (
        asks.bind(x),
        later.bind(fleeting.bind(x)),
        whispers.bind(secret, x),
        lock.options(catch=True).bind(x),
    )


def test_spin_serves_context_coroutines_and_secrets_and_says_what_it_cannot(
    client: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIN_SECRET", "abc")
    client.run(kinds, run_id="k")

    assert client.spin("k", "asks") == ("spin", "asks")
    assert client.spin("k", "whispers") == 4
    with pytest.raises(
        DefinitionError, match=r"fleeting.*not stored.*perdure fork k --from fleeting"
    ):
        client.spin("k", "later")
    with pytest.raises(NotSerializable, match="the result of lock"):
        client.spin("k", "lock")
    with pytest.raises(DefinitionError, match="did you mean 'lock'"):
        client.spin("k", "lokc")
    monkeypatch.delenv("SPIN_SECRET")
    with pytest.raises(DefinitionError, match="SPIN_SECRET"):
        client.spin("k", "whispers")


def test_spin_of_a_step_whose_input_failed_says_so(client: Perdure) -> None:
    @workflow
    def flow(x: int = 0) -> int:
        return later.bind(fails.bind(x))

    with pytest.raises(RunFailed):
        client.run(flow, run_id="f")

    with pytest.raises(DefinitionError, match="value of fails, which is FAILED"):
        client.spin("f", "later", dag=flow)


@task
def fails(x: int) -> int:
    raise ValueError(x)


# --- diff -------------------------------------------------------------------------------------
def test_diff_shows_parameters_code_steps_and_values(client: Perdure, project: Project) -> None:
    project.edit(factor=10)
    client.fork("a", inputs={"n": 7}, new_id="b").wait()

    difference = client.diff("a", "b")

    assert [(p.name, p.a, p.b) for p in difference.parameters] == [("n", "5", "7")]
    (code,) = difference.code
    assert (code.function, code.steps) == ("mean", ("mean",))
    assert "scale" in code.parts[0]
    by_id = {step.id: step for step in difference.steps}
    assert by_id["mean"].value is not None
    assert (by_id["mean"].value.a, by_id["mean"].value.b) == ("2.0", "30.0")
    assert by_id["report"].is_output
    text = str(difference)
    for part in ("PARAMETER", "CODE", "scale", "WHY (b)", "another result", "30.0"):
        assert part in text


def test_diff_of_equal_runs_has_nothing_to_show(client: Perdure, project: Project) -> None:
    client.rerun("a", new_id="b").wait()

    assert str(client.diff("a", "b")) == "a and b: 0 of 5 steps differ, same result"


def test_diff_of_a_run_with_itself_shows_values_before_and_after(
    client: Perdure, tmp_path: Path
) -> None:
    def edited(version: str, value: int) -> Any:
        return then.bind(steady.options(name="steady", version=version).bind(value), str(tmp_path))

    with pytest.raises(RunFailed):
        client.run(edited("1", 1), run_id="g")
    (tmp_path / "gate").touch()
    client.run(edited("2", 2), run_id="g")

    difference = client.diff("g", "g")

    shown = {step.id: step.value for step in difference.steps}
    assert shown["steady"] is not None
    assert (shown["steady"].a, shown["steady"].b) == ("1", "2")
    assert "g before" in str(difference)


@task
def steady(x: int) -> int:
    return x


@task
def then(x: int, folder: str) -> int:
    if not (Path(folder) / "gate").exists():
        raise ValueError("closed")
    return x


def test_lives_of_a_result_are_seen_side_by_side_with_their_reasons(
    client: Perdure, tmp_path: Path
) -> None:
    def edited(version: str, value: int) -> Any:
        return then.bind(steady.options(name="steady", version=version).bind(value), str(tmp_path))

    with pytest.raises(RunFailed):
        client.run(edited("1", 1), run_id="g")
    (tmp_path / "gate").touch()
    client.run(edited("2", 2), run_id="g")

    step = client.get_run("g")["steady"]

    assert [life.number for life in step.generations] == [1, 2]
    assert [life.result() for life in step.generations] == [1, 2]
    assert [life.is_current for life in step.generations] == [False, True]
    assert step.generations[1].reason.startswith("its code changed")
    assert step.why().splitlines()[-2:] == [
        "  generation 1 ended as SUCCEEDED with 1: it had not run before",
        f"  generation 2 ended as SUCCEEDED with 2, which counts: {step.generations[1].reason}",
    ]
