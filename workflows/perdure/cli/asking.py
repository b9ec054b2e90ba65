"""Verbs that ask something of a run: ``cancel``, ``pause``, ``delete``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.session import IdArgument, StoreOption, TracebackOption, session_of


def cancel(
    context: typer.Context,
    run_id: IdArgument,
    store: StoreOption = None,
    traceback: TracebackOption = False,
) -> int:
    """Cancel a run: nothing new starts, its processes end. It can be resumed."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        session_of(context).run_id = run.id
        perdure.cancel(run.id)
        say(f"run {run.id}: cancel requested; it is {run.status}")
    return ExitCode.OK


def pause(run_id: IdArgument, store: StoreOption = None, traceback: TracebackOption = False) -> int:
    """Let a run's running steps finish and start none; `perdure resume` goes on."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        perdure.pause(run.id)
        say(f"run {run.id}: pause requested; it is {run.status}")
    return ExitCode.OK


def delete(
    run_id: IdArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
    traceback: TracebackOption = False,
) -> int:
    """Delete a finished run with its steps, events and logs. There is no way back."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("nobody can be asked here: say --yes to delete the run")
            if not typer.confirm(f"Delete run {run.id} ({run.status}) and its results?", err=True):
                return ExitCode.FAILED
        perdure.delete(run.id)
        say(f"run {run.id} is deleted")
    return ExitCode.OK
