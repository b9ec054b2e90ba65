"""How a command ends: what is said, what to type next, and the exit code."""

from __future__ import annotations

import shlex
import sys
import traceback
from enum import IntEnum

from perdure.errors import (
    CodeChanged,
    DefinitionError,
    InternalError,
    NondeterminismError,
    NotSerializable,
    PerdureError,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotDriven,
    RunNotFound,
    StoreError,
    ValueDamaged,
)
from perdure_storage.errors import StoreUnavailable


class ExitCode(IntEnum):
    """What a shell sees."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SUSPENDED = 3
    CANCELLED = 130


class UsageError(PerdureError):
    """The command line itself makes no sense; ``hint`` is the line below it."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class Interrupted(PerdureError):
    """Ctrl-C while a run was driven here. Typer would swallow the KeyboardInterrupt itself."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"interrupted; run {run_id} stays as far as it came")


_ENDED = RunFailed | RunCancelled | RunNotDriven
_USAGE = (UsageError, DefinitionError, NotSerializable, RunConflict, RunNotFound, StoreError)
"""What somebody can mend by typing something else; a store that does not answer is not of it."""


def report(error: Exception, *, run_id: str | None, show_traceback: bool) -> ExitCode:
    """Say on stderr what went wrong and what to type next; return the exit code."""
    if show_traceback:
        traceback.print_exception(error)
    if isinstance(error, Interrupted):
        say(str(error))
    elif isinstance(error, PerdureError):
        _say_error(error)
    elif isinstance(error, OSError):  # the machine's, not ours: no such folder, no right, no room
        say(f"error: {error}")
    else:
        say(f"error: perdure is wrong, not you: {type(error).__name__}: {error}")
        if not show_traceback:
            say("please report it with what --traceback prints")
    command = next_command(error, run_id)
    if command is not None and command not in str(error):
        say(f"next: {command}")
    return exit_code(error)


def exit_code(error: Exception) -> ExitCode:
    """Return the exit code that an error stands for."""
    if isinstance(error, Interrupted | RunCancelled):
        return ExitCode.CANCELLED
    if isinstance(error, RunNotDriven) and error.status == "PAUSED":
        return ExitCode.SUSPENDED
    if isinstance(error, _USAGE) and not isinstance(error, StoreUnavailable):
        return ExitCode.USAGE
    return ExitCode.FAILED


def next_command(error: Exception, run_id: str | None) -> str | None:
    """Return the command that fits the cause, in full; None where the message has it, or none does.

    The errors of a run that has ended name their command themselves: they know its record.
    """
    run_id = getattr(error, "run_id", None) or run_id
    if isinstance(error, RunNotFound):
        return "perdure ls"
    if run_id is None or isinstance(error, _ENDED | UsageError | InternalError | RunConflict):
        return None
    command = f"perdure resume {shlex.quote(run_id)}"
    if isinstance(error, CodeChanged):
        return f"{command} --code current"
    if isinstance(error, Interrupted | NondeterminismError | StoreUnavailable | ValueDamaged):
        return command
    return None


def say(text: str) -> None:
    """Print a line for people: stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)


def _say_error(error: PerdureError) -> None:
    say(f"error: {error}")
    hint = getattr(error, "hint", "")
    if hint:
        say(hint)
