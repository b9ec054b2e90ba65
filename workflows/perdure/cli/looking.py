"""Verbs that read and never run anything: ``ls``, ``show``, ``logs``, ``why``."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.completion import statuses, step_ids, workflows
from perdure.cli.endings import ExitCode, say
from perdure.cli.parameters import read_tags
from perdure.cli.session import IdArgument, JsonOption, StepArgument, StoreOption, TracebackOption

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.runs import Run, Step


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
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many.")] = 100,
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
    step_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[STEP]", help="Show this step's attempts.", autocompletion=step_ids
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show a run and its steps, or the attempts of one step."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        if step_id is None:
            _show_run(run, perdure.runtime.clock.now(), as_json=as_json)
        else:
            _show_attempts(run[step_id], as_json=as_json)
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
        str, typer.Argument(metavar="STEP", help="The step's id.", autocompletion=step_ids)
    ],
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Say why a step ran, was taken over, is retried or waits."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        step = find(perdure, run_id)[step_id]
        reason = step.why()
        print(
            to_json({"step": step.id, "status": step.status, "why": reason}) if as_json else reason
        )
    return ExitCode.OK


def _list(perdure: Perdure, runs: list[Run], *, as_json: bool) -> None:
    from perdure.cli.tables import print_runs
    from perdure.cli.views import to_json, view_run

    views = [view_run(run) for run in runs]
    if as_json:
        print(to_json(views))
    elif views:
        print_runs(views, perdure.runtime.clock.now())
    else:
        say(f"no such runs in {perdure.runtime.store.url}")


def _show_run(run: Run, now: datetime, *, as_json: bool) -> None:
    from perdure.cli.tables import print_run
    from perdure.cli.views import to_json, view_run

    view = view_run(run, steps=True)
    if as_json:
        print(to_json(view))
        return
    print_run(view, now)
    if view.status in ("FAILED", "CANCELLED", "INTERRUPTED", "PAUSED"):
        say(run.next_command)


def _show_attempts(step: Step, *, as_json: bool) -> None:
    from perdure.cli.tables import print_attempts
    from perdure.cli.views import to_json, view_attempt

    views = [view_attempt(attempt) for attempt in step.attempts]
    if as_json:
        print(to_json(views))
    else:
        print_attempts(views)
