"""Verbs that ask something of a run: ``cancel``, ``pause``, ``delete``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.session import (
    IdArgument,
    JsonOption,
    StoreOption,
    TracebackOption,
    session_of,
)

if TYPE_CHECKING:
    from perdure.runs import Run


def cancel(
    context: typer.Context,
    run_id: IdArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Cancel a run: nothing new starts, its processes end. It can be resumed.

    What has committed stays. A run that another process drives is ended there; one that nobody
    drives is ended here.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        session_of(context).run_id = run.id
        perdure.cancel(run.id)
        _tell(run, f"run {run.id}: cancel requested; it is {run.status}", as_json=as_json)
    return ExitCode.OK


def pause(
    context: typer.Context,
    run_id: IdArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Let a run's running steps finish and start none; `perdure resume` goes on."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        session_of(context).run_id = run.id
        perdure.pause(run.id)
        _tell(run, f"run {run.id}: pause requested; it is {run.status}", as_json=as_json)
    return ExitCode.OK


def delete(
    run_id: IdArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Delete a finished run with its steps, events and logs. There is no way back.

    Its large values go with the next `perdure gc`, unless other runs hold them too.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("nobody can be asked here: say --yes to delete the run")
            if not typer.confirm(f"Delete run {run.id} ({run.status}) and its results?", err=True):
                return ExitCode.FAILED
        perdure.delete(run.id)
    if as_json:
        print(to_json({"id": run.id, "deleted": True}))
    else:
        say(f"run {run.id} is deleted")
    return ExitCode.OK


def _tell(run: Run, line: str, *, as_json: bool) -> None:
    """Say what became of the request: as the run stands now, or in a line."""
    from perdure.cli.views import to_json, view_run

    if as_json:
        print(to_json(view_run(run)))
    else:
        say(line)
