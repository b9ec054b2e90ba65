"""Schedules end to end: declared, registered, made due by a real `perdure up`, of today's code."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.acceptance.conftest import CommandLine
from tests.crash.ledger import wait_until

import perdure
from perdure.client import Perdure, open_store
from perdure.errors import DefinitionError, RunNotDriven
from perdure_scheduler.errors import ScheduleError
from perdure_storage.clock import SystemClock
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunQuery

SOURCE = """
from datetime import date, datetime
from perdure import Schedule, fire_time, interval_start, task, workflow

@task
def note(at: datetime, day: date, k: int) -> str:
    return f"{at.year} {k} %s"

@workflow
def flow(at: datetime, day: date, k: int = 3) -> str:
    return note.bind(at, day, k)

soon = Schedule("soon", flow, interval="1s", inputs={"at": fire_time, "day": interval_start})
"""

TIMES = {"at": perdure.fire_time, "day": perdure.interval_start}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own with a module that declares a schedule, and the folder on the path."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flows.py").write_text(SOURCE % "first")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("flows", None)


@pytest.fixture
def client(project: Path) -> Iterator[Perdure]:
    with open_store(str(project / ".perdure" / "perdure.db"), executor="inline") as opened:
        yield opened


def flows() -> ModuleType:
    return importlib.import_module("flows")


def succeeded(client: Perdure) -> list[str]:
    query = RunQuery(status=(RunStatus.SUCCEEDED,))
    return [run.id for run in client.runtime.store.list_runs(query)]


@pytest.fixture
def serving(client: Perdure, project: Path) -> Iterator[CommandLine]:
    command_line = CommandLine(project)
    command_line.start("up", "--executor", "processes")
    yield command_line
    command_line.end()


def test_declared_schedule_has_no_effect_until_it_is_registered(client: Perdure) -> None:
    flows()

    assert client.list_schedules() == []
    assert [(each.name, each.became) for each in client.register({"flows": flows()})] == [
        ("soon", "new")
    ]
    assert [each.became for each in client.register({"flows": flows()})] == ["unchanged"]
    assert client.get_schedule("soon").standing.startswith("next ")


def test_runs_are_made_by_up_with_the_times_of_their_ticks(
    client: Perdure, serving: CommandLine
) -> None:
    client.register({"flows": flows()})

    wait_until(lambda: len(succeeded(client)) >= 2, 30, "no runs came")

    run = client.get_run(succeeded(client)[-1])
    (tick,) = [each for each in client.get_schedule("soon").ticks() if each.run_id == run.id]
    assert (tick.decision, tick.code) == ("fire", "flows:flow")
    assert run.inputs["at"] == tick.at
    assert run.inputs["day"] == (tick.at - timedelta(seconds=1)).date()
    assert run.inputs["k"] == 3, "the default of the code is filled in"
    assert run.result() == f"{tick.at.year} 3 first"


def test_each_run_is_of_the_code_as_it_is_then(
    client: Perdure, serving: CommandLine, project: Path
) -> None:
    client.register({"flows": flows()})
    wait_until(lambda: bool(succeeded(client)), 30, "no run came")

    (project / "flows.py").write_text(SOURCE % "second")

    def is_new() -> bool:
        return client.get_run(succeeded(client)[0]).result().endswith("second")

    wait_until(is_new, 30, "the edit is not seen")


def test_run_whose_code_is_gone_waits_and_says_why(
    client: Perdure, serving: CommandLine, project: Path
) -> None:
    client.register({"flows": flows()})
    (project / "flows.py").write_text("flow = None\n")

    def told() -> list[str]:
        runs = client.runtime.store.list_runs(RunQuery(status=(RunStatus.QUEUED,)))
        events = [e for run in runs for e in client.runtime.store.list_events(run.id)]
        return [e.detail["why"] for e in events if e.kind == "unplanned"]

    wait_until(lambda: bool(told()), 30, "nobody says why")
    command_line = CommandLine(project)
    run_id = client.runtime.store.list_runs(RunQuery(status=(RunStatus.QUEUED,)))[-1].id
    shown, why = command_line("show", run_id), command_line("why", run_id, "note")
    (project / "flows.py").write_text(SOURCE % "mended")

    assert "no workflow 'flow'" in shown.out
    assert f"soon, for {run_id[5:9]}-" in shown.out
    assert "Mend flows:flow: `perdure up` tries again" in shown.err
    assert why.code == 2
    assert "has no plan yet, and so no steps: " in why.err
    assert "no workflow 'flow'" in why.err
    wait_until(lambda: bool(succeeded(client)), 40, "it does not go on")


def test_pinned_schedule_runs_the_code_that_was_registered(
    client: Perdure, serving: CommandLine, project: Path
) -> None:
    module = flows()
    inputs = {"at": perdure.fire_time, "day": date(2026, 1, 2)}
    client.schedule("kept", module.flow, interval="1s", inputs=inputs, code="pinned")

    (project / "flows.py").write_text(SOURCE % "second")
    wait_until(lambda: bool(succeeded(client)), 30, "no run came")

    assert client.get_run(succeeded(client)[-1]).result().endswith(" 3 first")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cron": "0 2 * *"}, "write five"),
        ({"cron": "@daily", "interval": "1h"}, "cron= and interval= say twice when"),
        ({"cron": "@daily", "inputs": {"at": perdure.fire_time, "day": 3}}, "expected date"),
        ({"cron": "@daily", "inputs": {"att": perdure.fire_time}}, "did you mean 'at'"),
        ({"cron": "@daily", "inputs": {"at": perdure.fire_time}}, "parameter 'day'.* is missing"),
        (
            {"cron": "@daily", "inputs": {"at": perdure.fire_time, "day": date(2026, 1, 1),
             "k": perdure.fire_time}},
            "write datetime, date or str there",
        ),
        ({"cron": "@daily", "tz": "Europe/Berlinn"}, "Europe/Berlin"),
    ],
)  # fmt: skip
def test_schedule_that_makes_no_sense_is_refused_where_it_is_written(
    client: Perdure, options: dict[str, Any], message: str
) -> None:
    inputs = {"at": perdure.fire_time, "day": perdure.interval_start}

    with pytest.raises((DefinitionError, perdure.ScheduleError), match=message):
        perdure.Schedule("x", flows().flow, **{"inputs": inputs, **options})


def test_workflow_of_no_file_is_refused_unless_it_is_pinned(client: Perdure) -> None:
    @perdure.workflow
    def local() -> int:
        return perdure.task(lambda: 1).bind()

    with pytest.raises(DefinitionError, match="code='pinned'"):
        client.schedule("x", local, cron="@daily")


def test_schedule_is_paused_resumed_and_removed_by_its_name(client: Perdure) -> None:
    client.register({"flows": flows()})
    handle = client.get_schedule("soon")

    handle.pause("the source is down")
    paused = handle.standing
    handle.resume()

    assert "the source is down" in paused
    assert handle.standing.startswith("next ")
    assert [each.at > datetime.now(UTC) for each in handle.next(3)] == [True] * 3  # noqa: TID251
    assert handle.remove()
    assert client.list_schedules() == []


# --- `perdure up MODULE...` ----------------------------------------------------------------------
def serve(project: Path, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    """Let `perdure up` come to where it serves, end it; return its code, its events, its errors."""
    command_line = CommandLine(project)
    process = command_line.start("up", "--json", *words)
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "serving":
            process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    return process.returncode, events, errors


def test_up_registers_what_modules_declare_and_pauses_what_they_declare_no_more(
    client: Perdure, project: Path
) -> None:
    (project / "pyproject.toml").write_text('[tool.perdure]\nmodules = ["flows"]\n')
    (project / "more.py").write_text("from flows import flow, soon")

    first = serve(project, "more.py")
    second = serve(project, "more.py")
    (project / "flows.py").write_text("")
    third = serve(project)

    told = [
        [(each["became"], each["name"]) for each in events if each["event"] == "registered"]
        for _, events, _ in (first, second, third)
    ]
    assert told == [[("new", "soon")], [("unchanged", "soon")], [("paused", "soon")]]
    assert {code for code, _, _ in (first, second, third)} == {0}
    assert client.get_schedule("soon").standing.endswith("does not declare it any more")


def test_up_ends_before_it_serves_if_a_module_cannot_be_imported(project: Path) -> None:
    (project / "broken.py").write_text("import nowhere_to_be_found")

    code, events, errors = serve(project, "flows", "broken")

    assert (code, events) == (2, [])
    assert "importing broken failed" in errors
    assert "nowhere_to_be_found" in errors
    assert "Traceback" not in errors


def test_backfill_goes_on_where_it_was_interrupted(client: Perdure, serving: CommandLine) -> None:
    handle = client.schedule("daily", flows().flow, cron="@daily", inputs=TIMES)

    def interrupt(wish: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        handle.backfill("2026-01-01", "2026-01-05", max_active=2, tell=interrupt)
    wishes = handle.backfill("2026-01-01", "2026-01-05", max_active=2)

    assert [wish.is_made for wish in wishes] == [False, True, True, True, True]
    wait_until(lambda: len(succeeded(client)) == 5, 30, "they do not end")
    assert {tick.why for tick in handle.ticks()} == {"backfill"}
    (run,) = handle.run_at("2026-01-03")
    assert run.result() == "2026 3 first"
    assert len(succeeded(client)) == 5


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--from", "xx"], "--from='xx' is no time"),
        (["--from", "2026-01-01", "--to", "x"], "--to='x' is no time"),
        (["--from", "2026-01-01", "--reprocess", "some"], "--reprocess some"),
        (["--from", "2026-01-01", "--id", "b"], "--id names a backfill with --reprocess"),
    ],
)
def test_backfill_refuses_options_by_their_names(
    client: Perdure, project: Path, options: list[str], told: str
) -> None:
    client.schedule("daily", flows().flow, cron="@daily", inputs=TIMES)

    refused = CommandLine(project)("schedule", "backfill", "daily", "--dry-run", *options)

    assert refused.code == 2
    assert told in refused.err


def test_backfill_says_that_it_ends_before_what_has_yet_to_come(
    client: Perdure, project: Path
) -> None:
    client.schedule("daily", flows().flow, cron="@daily", inputs=TIMES)
    now = SystemClock().now()
    bounds = ["--from", f"{now - timedelta(days=3):%Y-%m-%d}", "--dry-run", "--to"]
    command_line = CommandLine(project)

    later = command_line("schedule", "backfill", "daily", *bounds, f"{now.year + 1}-12-30")
    today = command_line("schedule", "backfill", "daily", *bounds, f"{now:%Y-%m-%d}")

    assert (later.code, today.code) == (0, 0)
    assert "has yet to come: the backfill ends with the last time before now" in later.err
    assert "has yet to come" not in today.err


def test_runs_of_a_day_are_of_the_times_that_have_come(client: Perdure) -> None:
    handle = client.schedule("hourly", flows().flow, cron="@hourly", inputs=TIMES)
    now = SystemClock().now()

    handle.run_at(now.date())

    assert now - timedelta(hours=1) < handle.ticks()[0].at < now + timedelta(minutes=1)
    for later in (now + timedelta(hours=2), now.date() + timedelta(days=2)):
        with pytest.raises(ScheduleError, match="has yet to come, and the ticks of schedule"):
            handle.run_at(later)


def test_runs_of_a_day_that_are_very_many_are_left_to_a_backfill(client: Perdure) -> None:
    handle = client.schedule("often", flows().flow, interval="10s", inputs=TIMES)

    with pytest.raises(ScheduleError, match="8,640 times in there, more than 100 at once"):
        handle.run_at("2026-01-03")

    assert handle.ticks() == []


def test_triggered_run_is_of_now_whatever_its_schedule_does(
    client: Perdure, serving: CommandLine
) -> None:
    handle = client.schedule("daily", flows().flow, cron="@daily", inputs=TIMES)
    handle.pause()

    run = handle.trigger()

    wait_until(lambda: succeeded(client) == [run.id], 30, "it does not end")
    assert run.id.startswith("daily-manual-")
    assert handle.ticks()[0].at == run.inputs["at"]


def test_resume_of_a_run_whose_code_is_gone_leaves_it_queued_and_says_why(
    client: Perdure, project: Path
) -> None:
    client.register({"flows": flows()})
    run_id = client.get_schedule("soon").trigger().id
    (project / "flows.py").unlink()
    command_line = CommandLine(project)

    refused, shown = command_line("resume", run_id), command_line("show", run_id)
    (project / "flows.py").write_text(SOURCE % "mended")
    mended = command_line("resume", run_id)

    assert refused.code == 1
    assert f"run {run_id} is QUEUED and nobody drives it: it has no plan yet: " in refused.err
    assert "Mend flows:flow" in refused.err
    assert "QUEUED" in shown.out
    assert "no module 'flows'" in shown.out
    assert mended.code == 0


@perdure.workflow
def waits() -> str:
    return perdure.wait_signal("go")


def test_run_whose_code_is_gone_disturbs_no_run_that_is_driven_beside_it(
    client: Perdure, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.register({"flows": flows()})
    beside = client.start(waits, run_id="beside")
    queued = client.get_schedule("soon").trigger()
    (project / "flows.py").unlink()
    sys.modules.pop("flows")
    # Whatever a test before has left on the path.
    path = [each for each in sys.path if not Path(each, "flows.py").exists()]
    monkeypatch.setattr(sys, "path", path)

    with pytest.raises(RunNotDriven, match="no module 'flows'"):
        client.resume(queued.id).wait(nobody_after_s=0)

    client.signal("beside", "go", "on it goes")
    assert beside.result(timeout=30) == "on it goes"
    assert queued.status is RunStatus.QUEUED
