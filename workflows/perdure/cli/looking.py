"""Verbs that read and never run anything: ``ls``, ``show``, ``logs``, ``why``."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.completion import statuses, step_ids, step_statuses, workflows
from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.parameters import read_tags
from perdure.cli.session import (
    MOST,
    IdArgument,
    JsonOption,
    StepArgument,
    StoreOption,
    TracebackOption,
)

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.runs import Run, Step
    from perdure.view.model import RunView


def ls(
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS", help="Only these; may be repeated.", autocompletion=statuses
        ),
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only runs of this workflow.", autocompletion=workflows),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only with all these tags.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Only runs made within it, such as 2d.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=MOST, help="At most so many.")
    ] = 100,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """List runs, newest first."""
    from perdure.cli.opening import NoStoreYet, open_existing

    try:
        perdure = open_existing(store)
    except NoStoreYet as nothing:
        print("[]") if as_json else say(f"no runs: {nothing}")
        return ExitCode.OK
    with perdure:
        runs = perdure.list_runs(
            status=[each.upper() for each in status] if status else None,
            workflow=workflow,
            tags=read_tags(tag or []),
            since=since,
            limit=limit,
        )
        _list(perdure, runs, as_json=as_json)
    return ExitCode.OK


def show(
    run_id: IdArgument,
    step_id: StepArgument = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS",
            help="Only steps of these; may be repeated.",
            autocompletion=step_statuses,
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="List every step, however many there are.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show a run and its steps, or one step: its attempts, what it took, asked for and held.

    Of more than 50 steps a summary is shown: how many of each name, then those that failed, that
    run and that wait for another attempt. --all lists all, --status some. Values are shown as
    they looked when they were committed; nothing is decoded.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.story import Siblings
    from perdure.view.runs import view_run

    wanted = _step_statuses(status)
    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        if step_id is not None:
            _show_step(run[step_id], as_json=as_json)
        else:
            view = view_run(run, Siblings(run))
            now = perdure.runtime.clock.now()
            _show_run(view, now, wanted=wanted, every=every, as_json=as_json)
    return ExitCode.OK


def logs(
    run_id: IdArgument,
    step_id: StepArgument = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Print what steps printed, to their standard output, their standard error and their logs.

    Of a run each line comes after the step that printed it. What is there already comes attempt
    by attempt, as they started; with -f what is printed from then on comes as it is written, new
    attempts included, until the run has ended or Ctrl-C. With --json a line is an object.
    """
    from perdure.cli import transcripts
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.runs import status_of
    from perdure_storage.lifecycle import RUN_LIVE

    write = transcripts.write_run if step_id is None else transcripts.write_step
    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        transcript = transcripts.Transcript(perdure, run, step_id)
        printed = transcript.read()
        if follow:
            printed = transcripts.follow(
                transcript, lambda: status_of(run.record) in RUN_LIVE, threading.Event().wait
            )
        try:
            (transcripts.write_json if as_json else write)(printed)
        except KeyboardInterrupt:
            return ExitCode.CANCELLED
    return ExitCode.OK


def why(
    run_id: IdArgument,
    step_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[STEP]",
            help="The step's id; without it, why the run waits, or how far it came.",
            autocompletion=step_ids,
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Say why a step ran, was taken over, is retried or waits; or how a whole run stands."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        if step_id is None:
            reason = run.why()
            told = {"run": run.id, "status": run.status, "why": reason}
            print(to_json(told) if as_json else reason)
            return ExitCode.OK
        step = run[step_id]
        reason = step.why()
        print(
            to_json({"step": step.id, "status": step.status, "why": reason}) if as_json else reason
        )
    return ExitCode.OK


def _list(perdure: Perdure, runs: list[Run], *, as_json: bool) -> None:
    from perdure.cli.tables import print_runs
    from perdure.cli.views import to_json
    from perdure.view.runs import view_runs

    views = view_runs(runs)
    if as_json:
        print(to_json(views))
    elif views:
        print_runs(views, perdure.runtime.clock.now())
    else:
        say(f"no such runs in {perdure.runtime.store.url}")


def _step_statuses(given: list[str] | None) -> set[str]:
    from perdure.errors import known_names
    from perdure_storage.lifecycle import StepStatus

    names = {name.upper() for name in given or ()}
    for name in names:
        if name not in StepStatus.__members__:
            raise UsageError(f"no status {name!r}{known_names(name, StepStatus.__members__)}")
    return names


def _show_run(
    view: RunView, now: datetime, *, wanted: set[str], every: bool, as_json: bool
) -> None:
    from msgspec.structs import replace

    from perdure.cli.tables import EACH_UP_TO, print_run
    from perdure.cli.views import to_json

    steps = [step for step in view.steps if not wanted or step.status in wanted]
    if as_json:
        print(to_json(replace(view, steps=steps)))
        return
    print_run(view, now, steps if wanted or every else None)
    if wanted and not steps:
        say(f"no step is {' or '.join(sorted(wanted))}")
    if len(view.steps) > EACH_UP_TO and not (wanted or every):
        say(f"--all lists all {len(view.steps):,} steps, --status FAILED those that failed")
    if view.next:
        say(view.next)


def _show_step(step: Step, *, as_json: bool) -> None:
    from perdure.cli.details import print_detail
    from perdure.cli.views import to_json
    from perdure.story import Siblings
    from perdure.view.details import view_detail

    detail = view_detail(step, Siblings(step.run))
    if as_json:
        print(to_json(detail))
    else:
        print_detail(detail)
