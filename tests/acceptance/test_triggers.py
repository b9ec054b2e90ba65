"""Triggers end to end: declared, registered, met by a real `perdure up`, of today's code."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.acceptance.conftest import CommandLine
from tests.crash.ledger import wait_until

import perdure
from perdure import Event, Files, RunFinished, Trigger, event
from perdure.client import Perdure, open_store
from perdure_scheduler.errors import TriggerError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunQuery

SOURCE = """
from datetime import date
from pathlib import Path
from perdure import Event, Files, Trigger, event, task, workflow

@task
def note(path: Path, day: date, k: int) -> str:
    return f"{path.name} {day.year} {k} %s"

@workflow
def flow(path: Path, day: date = date(2026, 1, 2), k: int = 3) -> str:
    return note.bind(path, day, k)

@task
def shown(of):
    return str(of)

@workflow
def after(of):
    return shown.bind(of)

landed = Trigger(
    "landed", flow.options(tags={"team": "a"}), on=Files("in/*.csv"), where=event.size > 0,
    inputs={"path": event.path, "k": 4},
)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own with a module that declares a trigger, and the folder on the path."""
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


def runs_of(client: Perdure, workflow: str, status: RunStatus = RunStatus.SUCCEEDED) -> list[str]:
    query = RunQuery(status=(status,), workflow=workflow)
    return [run.id for run in client.runtime.store.list_runs(query)]


@pytest.fixture
def serving(client: Perdure, project: Path) -> Iterator[CommandLine]:
    command_line = CommandLine(project)
    command_line.start("up", "--executor", "processes")
    yield command_line
    command_line.end()


def on_day(client: Perdure, name: str = "said", **options: Any) -> Any:
    """Register a trigger of the event ``go`` that gives its payload as a path."""
    inputs = {"path": event.payload, "day": event.match.day}
    return client.trigger(name, flows().flow, on=Event("go"), inputs=inputs, **options)


# --- registering ---------------------------------------------------------------------------------
def test_declared_trigger_has_no_effect_until_it_is_registered(client: Perdure) -> None:
    flows()

    assert client.list_triggers() == []
    assert [each.became for each in client.register({"flows": flows()})] == ["new"]
    assert [each.became for each in client.register({"flows": flows()})] == ["unchanged"]


def test_up_registers_what_modules_declare_and_pauses_what_they_declare_no_more(
    client: Perdure, project: Path
) -> None:
    told = []
    for source in (SOURCE % "first", SOURCE % "first", ""):
        (project / "flows.py").write_text(source)
        process = CommandLine(project).start("up", "--json", "flows")
        assert process.stdout is not None
        for line in process.stdout:
            told.append(json.loads(line))
            if told[-1]["event"] == "serving":
                process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    became = [(each["kind"], each["became"]) for each in told if each["event"] == "registered"]
    assert became == [("trigger", "new"), ("trigger", "unchanged"), ("trigger", "paused")]
    assert client.get_trigger("landed").standing.endswith("does not declare it any more")


def test_triggers_that_would_start_each_other_for_ever_are_refused(client: Perdure) -> None:
    flow, after = flows().flow, flows().after
    given = {"inputs": {"path": event.run_id}}
    client.trigger("first", flow, on=RunFinished("after"), **given)

    with pytest.raises(TriggerError, match="first"):
        client.trigger("second", after, on=RunFinished(flow), inputs={"of": event.run_id})

    assert [each.name for each in client.list_triggers()] == ["first"]


def test_workflow_of_no_file_is_refused_unless_it_is_pinned(client: Perdure) -> None:
    @perdure.workflow
    def local(k):  # type: ignore[no-untyped-def]
        return flows().shown.bind(k)

    with pytest.raises(perdure.DefinitionError, match="local is in no file"):
        client.trigger("said", local, on=Event("go"), inputs={"k": event.payload})
    handle = client.trigger("said", local, on=Event("go"), inputs={"k": 1}, code="pinned")

    assert handle.record.plan_digest


def test_trigger_that_is_not_there_is_named_with_one_that_is_like_it(client: Perdure) -> None:
    on_day(client)

    with pytest.raises(perdure.PerdureError, match="did you mean 'said'"):
        client.get_trigger("siad")


# --- runs ----------------------------------------------------------------------------------------
def test_facts_become_what_the_parameters_take(client: Perdure, serving: CommandLine) -> None:
    handle = on_day(client)

    client.emit("go", "in/a.csv", match={"day": "2027-05-06"})

    wait_until(lambda: bool(runs_of(client, "flow")), 30, "no run came")
    [arrival] = handle.arrivals()
    run = client.get_run(runs_of(client, "flow")[0])
    assert (arrival.decision, arrival.run_id) == ("fired", run.id)
    assert run.inputs["path"] == Path("in/a.csv")
    assert run.result() == "a.csv 2027 3 first"


def test_files_that_land_before_and_while_up_serves_have_one_run_each(
    client: Perdure, project: Path, serving: CommandLine
) -> None:
    (project / "in").mkdir()
    (project / "in" / "early.csv").write_text("1")
    (project / "in" / "empty.csv").touch()

    client.register({"flows": flows()})
    wait_until(lambda: len(runs_of(client, "flow")) == 1, 30, "no run came")
    (project / "in" / "late.csv").write_text("2")
    wait_until(lambda: len(runs_of(client, "flow")) == 2, 30, "the second does not come")

    results = {client.get_run(run_id).result() for run_id in runs_of(client, "flow")}
    assert results == {"early.csv 2026 4 first", "late.csv 2026 4 first"}
    [filtered] = client.get_trigger("landed").arrivals(decision="filtered")
    assert filtered.key.endswith("/in/empty.csv")
    assert "it is 0" in filtered.reason


def test_each_run_is_of_the_code_as_it_is_then(
    client: Perdure, serving: CommandLine, project: Path
) -> None:
    handle = on_day(client)
    (project / "flows.py").write_text(SOURCE % "second")

    receipt = handle.fire({"payload": "a", "match": {"day": "2027-05-06"}})

    wait_until(lambda: bool(runs_of(client, "flow")), 30, "no run came")
    assert client.get_run(receipt.run_id).result() == "a 2027 3 second"


def test_pinned_trigger_runs_the_code_that_was_registered(
    client: Perdure, serving: CommandLine, project: Path
) -> None:
    inputs = {"of": event.payload}
    handle = client.trigger("kept", flows().after, on=Event("go"), inputs=inputs, code="pinned")
    (project / "flows.py").write_text(SOURCE.replace("str(of)", "'another'") % "second")

    receipt = handle.fire({"payload": [1, "b"]})

    wait_until(lambda: bool(runs_of(client, "after")), 30, "no run came")
    assert client.get_run(receipt.run_id).result() == "[1, 'b']"


def test_fact_that_no_parameter_takes_leaves_a_run_that_says_why_it_waits(
    client: Perdure, serving: CommandLine, project: Path
) -> None:
    receipt = on_day(client).fire({"payload": "a", "match": {"day": "tomorrow"}})

    def told() -> list[str]:
        events = client.runtime.store.list_events(receipt.run_id)
        return [each.detail["why"] for each in events if each.kind == "unplanned"]

    wait_until(lambda: bool(told()), 30, "nobody says why")
    assert "parameter 'day': expected date, got str 'tomorrow'" in told()[0]


def test_run_tells_which_trigger_and_arrival_made_it(client: Perdure, project: Path) -> None:
    receipt = on_day(client).fire({"payload": "a", "match": {"day": "2027-05-06"}}, key="seven")

    shown = CommandLine(project)("show", str(receipt.run_id))
    told = json.loads(CommandLine(project)("show", "--json", str(receipt.run_id)).out)

    assert "said, for seven" in shown.out
    assert (told["trigger"], told["arrivals"]) == ("said", ["seven"])
    assert "metadata" not in told or not told["metadata"]


# --- by hand -------------------------------------------------------------------------------------
def test_arrival_by_hand_with_a_key_counts_once(client: Perdure) -> None:
    handle = on_day(client)
    facts = {"payload": "a", "match": {"day": "2027-05-06"}}

    first, again = handle.fire(facts, key="1"), handle.fire(facts, key="1")

    assert (first.is_new, again.is_new) == (True, False)
    assert first.run_id == again.run_id
    assert len(runs_of(client, "flow", RunStatus.QUEUED)) == 1


def test_what_arrives_while_it_is_paused_is_decided_when_it_is_resumed(client: Perdure) -> None:
    handle = on_day(client)
    handle.pause("the disk moves")
    facts = {"payload": "a", "match": {"day": "2027-05-06"}}

    receipt = handle.fire(facts, key="1")
    standing = handle.standing
    handle.resume()

    assert (receipt.decision, receipt.run_id) == ("deferred", None)
    assert standing.endswith(": the disk moves")
    assert handle.arrivals()[0].decision == "fired"
    assert len(runs_of(client, "flow", RunStatus.QUEUED)) == 1


def test_what_arrived_meanwhile_may_be_passed_over(client: Perdure) -> None:
    handle = on_day(client)
    handle.pause()
    handle.fire({"payload": "a", "match": {"day": "2027-05-06"}}, key="1")

    handle.resume(skip=True)

    assert handle.arrivals()[0].decision == "skipped"
    assert runs_of(client, "flow", RunStatus.QUEUED) == []
    assert handle.remove()
    assert client.list_triggers() == []


def test_what_would_become_of_files_is_told_and_nothing_is_written(
    client: Perdure, project: Path
) -> None:
    (project / "in").mkdir()
    (project / "in" / "a.csv").write_text("1")
    (project / "in" / "empty.csv").touch()
    client.register({"flows": flows()})

    decisions = client.get_trigger("landed").foresee_listing()

    assert [str(each.verdict) for each in decisions] == ["fired", "filtered"]
    assert client.get_trigger("landed").arrivals() == []
    assert runs_of(client, "flow", RunStatus.QUEUED) == []


def test_two_triggers_of_one_name_are_refused(client: Perdure, project: Path) -> None:
    (project / "more.py").write_text(
        "from flows import flow\nfrom perdure import Event, Trigger, event\n"
        "landed = Trigger('landed', flow, on=Event('go'), inputs={'path': event.payload})\n"
    )
    more = importlib.import_module("more")

    with pytest.raises(perdure.DefinitionError, match="two triggers are called 'landed'"):
        client.register({"flows": flows(), "more": more})

    assert client.list_triggers() == []
    del sys.modules["more"]


def test_trigger_may_be_declared_of_files_of_another_place(client: Perdure) -> None:
    trigger = Trigger("far", flows().after, on=Files("memory://in/*"), inputs={"of": event.url})

    assert [each.became for each in client.register({"x": _module(far=trigger)})] == ["new"]
    assert client.get_trigger("far").standing == "waits for files memory://in/*"


def _module(**names: Any) -> ModuleType:
    module = ModuleType("x")
    vars(module).update(names)
    return module


def test_fire_by_hand_says_which_conditions_there_are_and_exits_1_if_no_run_can_be_made(
    client: Perdure, project: Path
) -> None:
    both = perdure.all_of(a=Event("a"), b=Event("b"), within="1h")
    client.trigger("both", flows().after, on=both, inputs={"of": event.a.payload})
    client.trigger("one", flows().after, on=Event("a"), inputs={"of": event.payload})
    command_line = CommandLine(project)

    without = command_line("trigger", "fire", "both")
    other = command_line("trigger", "test", "both", "--facts", "{}", "--condition", "c")
    needless = command_line("trigger", "fire", "one", "--condition", "a")
    refused = command_line("trigger", "fire", "one")
    held = command_line("trigger", "fire", "both", "--condition", "a", "--facts", '{"payload": 1}')

    assert (without.code, other.code, needless.code) == (2, 2, 2)
    assert "waits for several conditions: say for which one it is" in without.err
    assert "(--condition a or b)" in without.err
    assert "has no condition 'c'" in other.err
    assert "leave out condition='a'" in needless.err
    assert (refused.code, held.code) == (1, 0)
    assert held.err.startswith("held: ")


def test_run_that_was_fired_by_hand_says_so_in_its_id(client: Perdure) -> None:
    client.trigger("one", flows().after, on=Event("a"), inputs={"of": event.number})

    receipt = client.get_trigger("one").fire({"number": 1})

    assert str(receipt.run_id).startswith("one-by-hand-2")


def test_modules_of_which_one_trigger_is_refused_register_nothing(client: Perdure) -> None:
    two = flows().after.options(tags={"two": "yes"})
    one = perdure.Trigger("one", flows().after, on=Event("a"), inputs={"of": event.number})
    circle = perdure.Trigger(
        "round", two, on=RunFinished("after", tags={"two": "yes"}), inputs={"of": event.run_id}
    )

    with pytest.raises(TriggerError, match="start each other for ever: round"):
        client.register({"x": _module(one=one, circle=circle)})

    assert client.list_triggers() == []


def test_triggers_that_turn_round_together_are_no_circle(client: Perdure) -> None:
    first, second = (flows().after.options(tags={"by": each}) for each in ("first", "second"))
    by_first = RunFinished("after", tags={"by": "first"})
    by_second = RunFinished("after", tags={"by": "second"})
    of = {"of": event.run_id}
    before = _module(
        a=perdure.Trigger("a", first, on=Event("go"), inputs={"of": event.number}),
        b=perdure.Trigger("b", second, on=by_first, inputs=of),
    )
    since = _module(
        a=perdure.Trigger("a", first, on=by_second, inputs=of),
        b=perdure.Trigger("b", second, on=Event("go"), inputs={"of": event.number}),
    )
    client.register({"x": before})

    assert [each.became for each in client.register({"x": since})] == ["changed", "changed"]


def test_module_that_imports_a_trigger_does_not_take_it_from_the_one_that_made_it(
    client: Perdure, project: Path
) -> None:
    importer = project / "importer.py"
    importer.write_text("from flows import landed")
    command_line = CommandLine(project)

    both = command_line("trigger", "register", "flows.py", "importer.py")
    alone = command_line("trigger", "register", "importer.py")
    importer.write_text("")
    without = command_line("trigger", "register", "importer.py")

    assert (both.code, alone.code, without.code) == (0, 0, 0)
    assert both.err.startswith("new       landed: ")
    assert alone.err.startswith("unchanged landed: ")
    assert "declares nothing" in without.err
    assert client.get_trigger("landed").record.module == str(project / "flows.py")
    assert not client.get_trigger("landed").record.paused


def test_files_of_an_unknown_protocol_are_refused_when_they_are_registered(
    client: Perdure,
) -> None:
    with pytest.raises(TriggerError, match="fsspec knows no s4://"):
        client.trigger("far", flows().after, on=Files("s4://in/*.csv"), inputs={"of": event.path})

    assert client.list_triggers() == []
