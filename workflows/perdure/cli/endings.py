"""How a command ends: what is said, what to type next, and the exit code."""

from __future__ import annotations

import shlex
import sys
import traceback
from enum import IntEnum

from perdure import advice
from perdure.advice import REPORT, lines_about, with_store
from perdure.errors import (
    DefinitionError,
    NotSerializable,
    PerdureError,
    RunCancelled,
    RunConflict,
    RunNotDriven,
    RunNotFound,
    StoreError,
)
from perdure_scheduler.errors import ScheduleError, TriggerError
from perdure_storage.errors import ScheduleNotFound, StoreUnavailable, TriggerNotFound


class ExitCode(IntEnum):
    """What a shell sees."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SUSPENDED = 3
    CANCELLED = 130


class UsageError(PerdureError):
    """The command line itself makes no sense; ``hint`` is the line below it.

    Likely:
        A misspelt option or parameter, or a prefix that fits several runs.

    Type:
        ``perdure --help``, or ``perdure VERB --help``; ``perdure run TARGET --help`` lists a
        workflow's parameters.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class Interrupted(PerdureError):
    """Ctrl-C while a run was driven here. Typer would swallow the KeyboardInterrupt itself.

    Likely:
        You pressed Ctrl-C. Running steps were ended, what was finished is kept.

    Type:
        ``perdure resume ID``
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"interrupted; run {run_id} stays as far as it came")


_USAGE = (
    UsageError,
    DefinitionError,
    NotSerializable,
    RunConflict,
    RunNotFound,
    ScheduleError,
    ScheduleNotFound,
    StoreError,
    TriggerError,
    TriggerNotFound,
)
"""What somebody can mend by typing something else; a store that does not answer is not of it."""


def report(
    error: Exception,
    *,
    run_id: str | None = None,
    store: str | None = None,
    show_traceback: bool = False,
) -> ExitCode:
    """Say on stderr what went wrong and what to type next; return the exit code.

    Args:
        error: what ended the command.
        run_id: the run that it was about, if there is one.
        store: what its ``--store`` said; commands that are named say it too.
        show_traceback: whether to show where in perdure it came from.
    """
    if show_traceback:
        traceback.print_exception(error)
    for line in _lines(error, show_traceback=show_traceback):
        say(with_store(line, store))
    command = next_command(error, run_id)
    if command is not None and command not in str(error):
        say(f"next: {with_store(command, store)}")
    return exit_code(error)


def _lines(error: Exception, *, show_traceback: bool) -> list[str]:
    """Return what is said of an error before the next command."""
    if isinstance(error, Interrupted):
        return [str(error)]
    first, *more = lines_about(error)
    if more == [REPORT]:
        more = [] if show_traceback else [f"{REPORT} with what --traceback prints"]
    return [f"error: {first}", *more]


def next_command(error: Exception, run_id: str | None) -> str | None:
    """Return the command that fits the cause, in full, if one does."""
    if isinstance(error, UsageError):
        return None
    if isinstance(error, Interrupted):
        return f"perdure resume {shlex.quote(error.run_id)}"
    return advice.next_command(error, run_id)


def exit_code(error: Exception) -> ExitCode:
    """Return the exit code that an error stands for."""
    if isinstance(error, Interrupted | RunCancelled):
        return ExitCode.CANCELLED
    if isinstance(error, RunNotDriven) and error.status == "PAUSED":
        return ExitCode.SUSPENDED
    if isinstance(error, _USAGE) and not isinstance(error, StoreUnavailable):
        return ExitCode.USAGE
    return ExitCode.FAILED


def say(text: str) -> None:
    """Print a line for people: stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)
