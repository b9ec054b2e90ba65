"""What a user may write in a trigger, and what is said of what makes no sense."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import (
    Event,
    Files,
    Listen,
    RunFinished,
    Static,
    Trigger,
    Webhook,
    all_of,
    any_of,
    event,
    task,
    workflow,
)
from perdure_scheduler.arrival import Arrival


@task
def note(path: Path, k: int) -> str:
    return f"{path} {k}"


@workflow
def flow(path: Path, k: int = 3) -> str:
    return note.bind(path, k)


@workflow
def dated(day: date, at: datetime | None = None) -> str:
    return note.bind(Path("a"), 1)


@workflow
def repeated(path: str, n: Static[int] = 1) -> list[str]:
    return [note.bind(Path(path), each) for each in range(n)]


@workflow
def loose(path, k: int = 3):  # type: ignore[no-untyped-def]
    return note.bind(path, k)


class Rows:
    """A source."""

    async def listen(self, cursor: str | None) -> AsyncIterator[Arrival]:
        yield Arrival(key="1")


rows = Rows()
LANDED = Files("in/*.csv")


def test_facts_and_constants_are_told_apart() -> None:
    trigger = Trigger("landed", flow, on=LANDED, inputs={"path": event.path, "k": 4})

    assert trigger.definition.inputs == {"path": ("path",)}
    assert trigger.constants == {"k": 4}
    assert repr(trigger).startswith("<Trigger landed of flow: files ")


def test_local_path_is_one_from_where_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert Files("in/*.csv").url == f"{tmp_path}/in/*.csv"
    assert Files(Path("in/") / "**").url == f"{tmp_path}/in/**"
    assert Files("in/").url == f"{tmp_path}/in/"
    assert Files("~/in/*").url == f"{os.path.expanduser('~')}/in/*"
    assert Files("s3://bucket/in/*.csv").url == "s3://bucket/in/*.csv"
    assert Files("zip://*.csv::s3://b/a.zip").url == "zip://*.csv::s3://b/a.zip"


def test_durations_are_given_as_text_everywhere() -> None:
    files = Files("in/*", stable_for="5s", every="1m")

    assert (files.stable_for, files.every) == (timedelta(seconds=5), timedelta(minutes=1))
    assert Webhook(keys=["K"], window="10m").window == timedelta(minutes=10)
    assert all_of(a=Event("a"), b=Event("b"), within="1h").within == timedelta(hours=1)


def test_run_finished_takes_a_workflow_or_its_name_and_one_state_or_several() -> None:
    assert RunFinished(flow) == RunFinished("flow", states=["SUCCEEDED"])


def test_conditions_of_any_of_are_called_by_position_or_name() -> None:
    assert list(any_of(Event("a"), b=Event("b")).of) == ["0", "b"]


def test_source_is_found_again_by_the_name_that_holds_it() -> None:
    assert Listen(rows).source == f"{__name__}:rows"
    assert Listen("queues:orders").source == "queues:orders"


def test_source_of_a_script_is_found_again_by_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("__main__")
    vars(module).update(__file__="/somewhere/queues.py", Listen=Listen, mine=Rows())
    monkeypatch.setitem(sys.modules, "__main__", module)

    exec("heard = Listen(mine)", vars(module))

    assert vars(module)["heard"].source == "/somewhere/queues.py:mine"


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (lambda: Trigger("t", flow, on=LANDED), "parameter 'path': Path is missing"),
        (
            lambda: Trigger("t", flow, on=LANDED, inputs={"path": event.path, "k": "4"}),
            "parameter 'k': expected int, got str '4'",
        ),
        (
            lambda: Trigger("t", flow, on=LANDED, inputs={"paht": event.path}),
            "no parameter 'paht'; did you mean 'path'?",
        ),
        (
            lambda: Trigger("t", flow, on=LANDED, inputs={"path": event.pth}),
            "did you mean",
        ),
        (
            lambda: Trigger("t", flow, on=LANDED, inputs={"path": [event.path]}),
            "event.path is within a list: give it as an input of its own",
        ),
        (lambda: Trigger("t", note, on=LANDED), "is no workflow: write @workflow above it"),
        (lambda: Trigger("t", flow, on="in/*.csv"), "is nothing to wait for: write Files("),
        (
            lambda: Trigger("t", flow, on=LANDED, where=True, inputs={"path": event.path}),
            "where=True is no filter: write a comparison",
        ),
        (
            lambda: Trigger("t", flow, on=LANDED, inputs={"path": event.path}, code="new"),
            "code='new'",
        ),
        (
            lambda: Trigger("t", flow, on=LANDED, inputs={"path": event.path}, code="pinned"),
            "'path' takes Path, and with code='pinned' nobody makes one of a fact",
        ),
        (
            lambda: Trigger(
                "t", repeated, on=LANDED, inputs={"path": "a", "n": event.size}, code="pinned"
            ),
            "'n' is Static, part of the graph",
        ),
        (
            lambda: Trigger("t", dated, on=LANDED, inputs={"day": event.modified}),
            "'day' takes date, and event.modified is such as '2026-03-01T09:30:00+00:00': write "
            "datetime or str there",
        ),
        (
            lambda: Trigger(
                "t",
                dated,
                on=all_of(a=LANDED, b=Event("b"), within="1h"),
                inputs={"day": event.a.size},
            ),
            "'day' takes date, and event.a.size is such as 1",
        ),
        (lambda: Trigger("a b", flow, on=LANDED, inputs={"path": event.path}), "a name is made"),
        (lambda: Webhook(keys="HOOK_KEY"), "keys='HOOK_KEY': write a list of texts"),
        (lambda: RunFinished(flow, states="SUCEEDED"), "did you mean 'SUCCEEDED'"),
        (lambda: Files("in/*", every="often"), "every='often' is not a duration"),
        (lambda: Listen(object()), "it has no method listen"),
        (lambda: Listen(Rows()), "it is at the top level of no module"),
        (lambda: any_of(Event("a"), all_of(b=Event("b"), c=Event("c"), within=9)), "no single"),
        (lambda: bool(event.size > 0), "not known yet"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(
    declare: Callable[[], Any], told: str
) -> None:
    with pytest.raises(perdure.PerdureError) as refused:
        declare()

    assert told in str(refused.value)


def test_pinned_trigger_gives_facts_to_parameters_that_take_anything() -> None:
    trigger = Trigger("t", loose, on=LANDED, inputs={"path": event.path}, code="pinned")

    assert trigger.code == "pinned"


def test_fact_may_go_where_its_text_can_be_made_what_is_taken() -> None:
    facts = {"day": event.payload, "at": event.at}

    trigger = Trigger("t", dated, on=Event("go"), inputs=facts)

    assert list(trigger.definition.inputs) == ["day", "at"]
