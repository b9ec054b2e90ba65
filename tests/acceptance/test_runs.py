"""Runs as users meet them: ids, reuse, failure, cancel, pause and who drives, with real workers."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest

from perdure import Static, runs
from perdure.client import Perdure, open_store
from perdure.errors import (
    DefinitionError,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotDriven,
    RunNotFound,
    WaitTimeout,
)
from perdure.executors.capacity import detect_capacity
from perdure.runs import Run
from perdure.task import task
from perdure.workflow import workflow
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import AttemptRecord, Cause, RunRecord


def note(folder: str, name: str) -> int:
    """Count the executions of a step in a file that perdure does not know."""
    path = Path(folder) / name
    with path.open("a") as file:
        file.write("x")
    return len(path.read_text())


@task
def double(x: int, folder: str) -> int:
    note(folder, f"double-{x}")
    return 2 * x


@task
def total(xs: list[int], folder: str) -> int:
    note(folder, "total")
    return sum(xs)


@workflow
def doubled(n: int, folder: str) -> int:
    """Double a few numbers and add them up."""
    return total.bind([double.bind(i, folder) for i in range(3)] + [n], folder)


@workflow(name="doubled")
def with_one_more(n: int, folder: str) -> int:
    doubles = [double.bind(i, folder) for i in range(3)]
    return total.bind([*doubles, after.bind("x", n), n], folder)


@workflow(name="doubled")
def with_one_less(n: int, folder: str) -> int:
    return double.bind(0, folder)


@task
def fragile(folder: str) -> str:
    if not (Path(folder) / "mended").exists():
        raise ValueError("not mended yet")
    return "fine"


@workflow(name="doubled")
def badly_edited(n: int, folder: str) -> int:
    return total.bind([fragile.bind(folder)], folder)


@task
def after(text: str, x: int) -> str:
    return f"{text} {x}"


@workflow
def breaks(folder: str) -> str:
    return after.bind(fragile.bind(folder), double.bind(1, folder))


@task
def waits_for(path: str) -> str:
    Path(f"{path}-began").touch()
    while not Path(path).exists():
        threading.Event().wait(0.01)
    return "seen"


@workflow
def patient(path: str) -> str:
    return waits_for.bind(path)


@task
def then(text: str) -> str:
    return text + " then"


@workflow
def two(path: str) -> str:
    return then.bind(waits_for.bind(path))


@task
def speaks(x: int) -> list[int]:
    print("hello from", x)
    return [x] * 3


def executions(folder: Path, name: str) -> int:
    path = folder / name
    return len(path.read_text()) if path.exists() else 0


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        (with_one_more, r"reused 3 of 5; total runs: .*; after is new\)"),
        (with_one_less, r"reused 1 of 1; double#2, double#3 are gone\)"),
    ],
    ids=["a call more", "calls less"],
)
def test_refusal_of_another_graph_under_the_id_of_a_run_names_what_differs(
    inline: Perdure, tmp_path: Path, edited: Any, told: str
) -> None:
    inline.run(doubled, run_id="r", n=1, folder=str(tmp_path))

    with pytest.raises(RunConflict, match=told):
        inline.run(edited, run_id="r", n=1, folder=str(tmp_path))


def test_run_returns_the_result_and_the_same_id_returns_the_recorded_one(
    client: Perdure, tmp_path: Path
) -> None:
    first = client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1")
    second = client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1")

    assert first == second == 10
    assert executions(tmp_path, "total") == 1


def test_same_id_with_other_inputs_is_a_conflict_that_names_reuse(
    client: Perdure, tmp_path: Path
) -> None:
    client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1")

    with pytest.raises(RunConflict, match=r"inputs n.*reuse='d-1'"):
        client.run(doubled, n=5, folder=str(tmp_path), run_id="d-1")


def test_reuse_takes_over_what_has_not_changed(client: Perdure, tmp_path: Path) -> None:
    client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1")

    result = client.run(doubled, n=5, folder=str(tmp_path), run_id="d-2", reuse="last")

    assert result == 11
    assert executions(tmp_path, "double-1") == 1
    assert executions(tmp_path, "total") == 2
    assert client.get_run("d-2").parent == "d-1"
    assert "taken over from d-1" in client.why("d-2", "double")


def test_last_is_the_last_success_where_a_failure_since_has_less_to_give(
    client: Perdure, tmp_path: Path
) -> None:
    client.run(doubled, n=4, folder=str(tmp_path))
    with pytest.raises(RunFailed):
        client.run(badly_edited, n=4, folder=str(tmp_path), reuse="last")

    client.run(doubled, n=4, folder=str(tmp_path), reuse="last")

    assert executions(tmp_path, "total") == 1


def test_setting_lets_each_new_run_take_over_what_has_not_changed(
    client: Perdure, tmp_path: Path
) -> None:
    client.settings = replace(client.settings, reuse="last")

    client.run(doubled, n=4, folder=str(tmp_path))
    client.run(doubled, n=4, folder=str(tmp_path))
    client.run(doubled, n=4, folder=str(tmp_path), reuse="off")

    assert executions(tmp_path, "total") == 2


def test_if_exists_fail_refuses_an_id_that_exists(client: Perdure, tmp_path: Path) -> None:
    client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1")

    with pytest.raises(RunConflict, match="if_exists"):
        client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1", if_exists="fail")


def test_failure_raises_the_users_exception_as_cause_and_the_same_id_goes_on(
    client: Perdure, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match="perdure resume b-1 --code current") as caught:
        client.run(breaks, folder=str(tmp_path), run_id="b-1")
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.step_id == "fragile"
    (tmp_path / "mended").touch()

    assert client.run(breaks, folder=str(tmp_path), run_id="b-1") == "fine 2"

    assert executions(tmp_path, "double-1") == 1


def test_failure_prints_the_line_of_the_users_that_raised(client: Perdure, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as caught:
        client.run(breaks, folder=str(tmp_path), run_id="b-1")

    lines = [line.strip() for line in "".join(format_exception(caught.value)).splitlines()]
    assert lines.count('raise ValueError("not mended yet")') == 1
    assert any(line.startswith(f'File "{__file__}"') and "in fragile" in line for line in lines)


def test_resume_by_id_goes_on_with_the_recorded_plan(client: Perdure, tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        client.run(breaks, folder=str(tmp_path), run_id="b-1")
    (tmp_path / "mended").touch()

    run = client.resume("b-1")

    assert run.result(timeout=30) == "fine 2"
    assert run.status == "SUCCEEDED"
    assert run["fragile"].generation == 2


def test_resume_all_takes_failed_runs_only_if_asked(client: Perdure, tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        client.run(breaks, folder=str(tmp_path), run_id="b-1")
    (tmp_path / "mended").touch()

    assert client.resume_all() == []
    (run,) = client.resume_all(failed=True)

    assert run.result(timeout=30) == "fine 2"


def test_start_drives_in_the_background_and_the_run_can_be_awaited(
    client: Perdure, tmp_path: Path
) -> None:
    import asyncio

    run = client.start(doubled, n=1, folder=str(tmp_path))

    async def wait() -> Any:
        return await run

    assert asyncio.run(wait()) == 7


def test_result_waits_no_longer_than_its_timeout(processes: Perdure, tmp_path: Path) -> None:
    run = processes.start(patient, path=str(tmp_path / "go"))

    with pytest.raises(WaitTimeout):
        run.result(timeout=0.3)
    (tmp_path / "go").touch()

    assert run.result(timeout=30) == "seen"


def test_cancel_ends_a_running_step_and_the_run(processes: Perdure, tmp_path: Path) -> None:
    run = processes.start(patient, path=str(tmp_path / "never"))
    until(lambda: run["waits_for"].status is StepStatus.RUNNING)

    processes.cancel(run.id)

    with pytest.raises(RunCancelled, match=f"perdure resume {run.id}"):
        run.result(timeout=30)
    assert run["waits_for"].status is StepStatus.CANCELLED


def test_cancelled_run_can_be_resumed(processes: Perdure, tmp_path: Path) -> None:
    run = processes.start(patient, path=str(tmp_path / "go"))
    until(lambda: run["waits_for"].status is StepStatus.RUNNING)
    run.cancel()
    run.wait(timeout=30)
    (tmp_path / "go").touch()

    assert run.resume().result(timeout=30) == "seen"


def test_cancel_of_a_run_that_nobody_drives_ends_it_here(
    processes: Perdure, tmp_path: Path
) -> None:
    run = processes.submit(patient, path=str(tmp_path / "never"), run_id="q-1")

    processes.cancel("q-1")

    assert run.status is RunStatus.CANCELLED


def test_cancel_of_a_finished_run_says_what_it_is(client: Perdure, tmp_path: Path) -> None:
    client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1")

    with pytest.raises(RunConflict, match="SUCCEEDED"):
        client.cancel("d-1")


def test_pause_lets_running_steps_commit_and_resume_goes_on(
    processes: Perdure, tmp_path: Path
) -> None:
    run = processes.start(two, path=str(tmp_path / "go"), run_id="p-1")
    until((tmp_path / "go-began").exists)
    run.pause()
    until(lambda: run.record.pause_requested)
    threading.Event().wait(0.4)
    (tmp_path / "go").touch()
    until(lambda: run.status is RunStatus.PAUSED)
    assert run["waits_for"].status is StepStatus.SUCCEEDED
    assert run["then"].status is StepStatus.PENDING

    assert run.resume().result(timeout=30) == "seen then"


def test_run_that_is_given_back_while_it_is_looked_at_is_not_told_to_be_interrupted(
    processes: Perdure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = processes.start(two, path=str(tmp_path / "go"), run_id="p-1")
    until(lambda: run["waits_for"].status is StepStatus.RUNNING)

    def owner_leaves(_record: RunRecord) -> bool:
        run.pause()
        (tmp_path / "go").touch()
        until(lambda: run.record.status is RunStatus.PAUSED)
        return False

    monkeypatch.setattr(runs, "is_driven", owner_leaves)

    assert run.status is RunStatus.PAUSED


def test_submitted_run_that_nobody_drives_is_said_so(client: Perdure, tmp_path: Path) -> None:
    run = client.submit(doubled, n=1, folder=str(tmp_path), run_id="s-1")

    assert run.status is RunStatus.QUEUED
    with pytest.raises(RunNotDriven, match="perdure resume s-1"):
        run.result()


def test_that_nobody_drives_the_store_is_said_once(
    client: Perdure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        client.submit(doubled, n=n, folder=str(tmp_path), run_id=f"s-{n}")

    assert [record.args[1] for record in caplog.records if "nobody drives" in record.msg] == ["s-0"]


def test_submitted_run_is_driven_by_a_serving_process(processes: Perdure, tmp_path: Path) -> None:
    stop = threading.Event()
    serving = threading.Thread(target=processes.serve, args=(stop,))
    serving.start()
    try:
        run = processes.submit(doubled, n=1, folder=str(tmp_path))

        assert run.result(timeout=30) == 7
    finally:
        stop.set()
        serving.join()


def test_deleted_run_is_gone_and_its_id_free(client: Perdure, tmp_path: Path) -> None:
    client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1")

    client.delete("d-1")

    with pytest.raises(RunNotFound, match="no run 'd-1'"):
        client.get_run("d-1")
    assert client.run(doubled, n=4, folder=str(tmp_path), run_id="d-1") == 10


def test_unknown_id_names_the_store_and_what_is_near(client: Perdure, tmp_path: Path) -> None:
    client.run(doubled, n=4, folder=str(tmp_path), run_id="doubled-1")

    with pytest.raises(RunNotFound, match=r"perdure\.db.*Did you mean 'doubled-1'"):
        client.get_run("doubledd-1")


@pytest.mark.parametrize("run_id", ["", "x" * 201, "a\nb", "a\0b", "\ud800", " a", "-", "--x"])
def test_malformed_id_is_refused_before_anything_exists(
    client: Perdure, tmp_path: Path, run_id: str
) -> None:
    with pytest.raises(DefinitionError):
        client.run(doubled, n=4, folder=str(tmp_path), run_id=run_id)

    assert client.list_runs() == []


def test_unsatisfiable_request_is_refused_before_the_run_exists(client: Perdure) -> None:
    huge = double.options(cpus=10_000)

    with pytest.raises(DefinitionError, match="cpus=10000 asked"):
        client.run(huge.bind(1, "."))

    assert client.list_runs() == []


def test_timeout_inline_is_refused_unless_said(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "perdure.db"), executor="inline") as client:
        with pytest.raises(DefinitionError, match="allow_unenforced"):
            client.run(double.options(timeout=5).bind(1, str(tmp_path)))
        allowed = double.options(timeout=5, allow_unenforced=True)

        assert client.run(allowed.bind(1, str(tmp_path))) == 2


def test_step_past_its_timeout_is_killed(processes: Perdure, tmp_path: Path) -> None:
    started = time.monotonic()

    with pytest.raises(RunFailed, match=r"ran longer than its timeout of 0\.5 s"):
        processes.run(waits_for.options(timeout=0.5).bind(str(tmp_path / "never")))

    assert time.monotonic() - started < 20


def test_deadline_ends_the_run(processes: Perdure, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="deadline"):
        processes.run(patient, path=str(tmp_path / "never"), deadline=0.5)


def test_logs_and_previews_are_there_for_each_step(client: Perdure) -> None:
    client.run(speaks.bind(7), run_id="l-1")
    step = client.get_run("l-1")["speaks"]

    assert step.logs() == "hello from 7\n"
    assert step.preview is not None
    assert step.preview["length"] == 3
    assert step.result() == [7, 7, 7]
    assert [attempt.cause for attempt in step.attempts] == ["succeeded"]


def test_runs_are_listed_by_status_workflow_tags_and_age(client: Perdure, tmp_path: Path) -> None:
    client.run(doubled, n=1, folder=str(tmp_path), run_id="d-1", tags={"team": "a"})
    client.run(doubled, n=2, folder=str(tmp_path), run_id="d-2")
    with pytest.raises(RunFailed):
        client.run(breaks, folder=str(tmp_path), run_id="b-1")

    assert [run.id for run in client.list_runs()] == ["b-1", "d-2", "d-1"]
    assert [run.id for run in client.list_runs(status="FAILED")] == ["b-1"]
    assert [run.id for run in client.list_runs(workflow="doubled")] == ["d-2", "d-1"]
    assert [run.id for run in client.list_runs(tags={"team": "a"})] == ["d-1"]
    assert [run.id for run in client.list_runs(limit=1, after="d-2")] == ["d-1"]
    assert client.list_runs(since="1h") != []


def tries_of(run: Run) -> list[list[AttemptRecord]]:
    return [step.attempts for step in run.steps()]


def until(condition: Any, within_s: float = 30.0) -> None:
    """Wait for a condition of another process or thread. Raises AssertionError."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        threading.Event().wait(0.02)


@task
def hold(number: int, folder: str) -> int:
    """Fail if somebody else holds what there is one of."""
    held = Path(folder) / "held"
    held.touch(exist_ok=False)
    threading.Event().wait(0.002)
    held.unlink()
    return number


@task
def slow_from_200_on(number: int, folder: str) -> int:
    """Return at once, but for later ones: those say that they began, and wait for the word."""
    if number >= 200:
        with (Path(folder) / "began").open("a") as file:
            file.write(f"{number}\n")
        while not (Path(folder) / "go").exists():
            threading.Event().wait(0.01)
    return number


@workflow
def turns_slow(folder: str) -> int:
    return total.bind([slow_from_200_on.bind(number, folder) for number in range(400)], folder)


@task
def meet(folder: str, number: int) -> int:
    """Return once both workers are there."""
    (Path(folder) / f"met-{number}").touch()
    while len(list(Path(folder).glob("met-*"))) < 2:
        threading.Event().wait(0.01)
    return number


@workflow
def both_workers(folder: str) -> list[int]:
    return [meet.bind(folder, number) for number in range(2)]


@workflow
def holders(options: Static[dict[str, Any]], folder: str) -> int:
    numbers = [hold.options(**options).bind(number, folder) for number in range(200)]
    return total.bind(numbers, folder)


def test_pause_gives_back_what_was_sent_ahead_and_has_not_begun(
    processes: Perdure, tmp_path: Path
) -> None:
    run = processes.start(turns_slow, folder=str(tmp_path))
    began = tmp_path / "began"
    until(began.exists)

    run.pause()
    until(lambda: any(tries and tries[-1].cause is Cause.ABANDONED for tries in tries_of(run)))
    (tmp_path / "go").touch()
    until(lambda: run.status is RunStatus.PAUSED)

    assert len(began.read_text().split()) <= detect_capacity().slots
    given_back = [step for step in run.steps() if step.status is StepStatus.READY and step.attempts]
    assert "attempt 1 was given back before it began" in given_back[-1].why()
    assert run.resume().result(timeout=60) == sum(range(400))
    assert len(began.read_text().split()) == 200


@pytest.mark.parametrize(
    "options", [{"resources": {"license": 1}}, {"cpus": 2}, {"memory": "600MiB"}], ids=str
)
def test_brief_steps_never_hold_more_at_a_time_than_there_is(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    offer: dict[str, Any] = {"workers": 2, "memory": "1GiB", "resources": {"license": 1}}
    with open_store(str(tmp_path / "perdure.db"), executor="processes", **offer) as client:
        client.run(both_workers.bind(str(tmp_path)))

        assert client.run(holders.bind(options, str(tmp_path))) == sum(range(200))
