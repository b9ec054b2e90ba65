"""How a command ends: what is said, what to type next, and the exit code."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from enum import IntEnum

from perdure.cli.users_code import is_users, place_of
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
    ValueUnavailable,
)
from perdure_scheduler.errors import ScheduleError
from perdure_storage.errors import (
    KeyMissing,
    ScheduleNotFound,
    SchemaMismatch,
    StoreUnavailable,
)


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


_ENDED = RunFailed | RunCancelled | RunNotDriven
_GOES_ON = Interrupted | NondeterminismError | StoreUnavailable | ValueDamaged | ValueUnavailable
_PLACES = StoreError | ValueDamaged | ValueUnavailable
"""What the store and the blobs may have, without a run: `perdure doctor` looks at both."""
_UNTIL_MENDED = SchemaMismatch | KeyMissing
_USAGE = (
    UsageError,
    DefinitionError,
    NotSerializable,
    RunConflict,
    RunNotFound,
    ScheduleError,
    ScheduleNotFound,
    StoreError,
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
    if isinstance(error, DefinitionError | NotSerializable):
        return [f"error: {error}", *getattr(error, "__notes__", ()), *_place(error)]
    if isinstance(error, PerdureError):
        hint = getattr(error, "hint", "")
        return [f"error: {error}", *([hint] if hint else [])]
    if isinstance(error, OSError):  # the machine's, not ours: no such folder, no right, no room
        return [f"error: {error}", *_place(error)]
    if is_users(error):  # the body of a workflow is their code too
        return [f"error: {type(error).__name__}: {error}", *_place(error)]
    said = f"error: perdure is wrong, not you: {type(error).__name__}: {error}"
    return [said] if show_traceback else [said, "please report it with what --traceback prints"]


def _place(error: Exception) -> list[str]:
    place = place_of(error)
    return [f"  at {place}"] if place else []


_COMMAND = re.compile(
    r"perdure (?:resume|rerun|fork|spin|explain|diff|cancel|pause|signal|emit|delete|show|logs|why"
    r"|get|cat|ls|gc|up|doctor|db \w+|schedule \w+)\b[^`\n]*"
)


def with_store(text: str, store: str | None) -> str:
    """Return ``text`` with ``--store`` in the commands of perdure's that it names.

    Where an error arises nobody knows how its store was named on the command line.
    """
    if store is None:
        return text
    option = f" --store {shlex.quote(store)}"
    return _COMMAND.sub(lambda at: at[0] if "--store" in at[0] else at[0] + option, text)


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
    if isinstance(error, ScheduleNotFound):
        return "perdure schedule ls"
    if isinstance(error, _ENDED | UsageError | InternalError | RunConflict):
        return None
    if isinstance(error, _UNTIL_MENDED) or (isinstance(error, StoreUnavailable) and error.is_gone):
        return None  # the message has it: what to upgrade, to copy or to put back first
    if run_id is None and isinstance(error, _PLACES):
        return None if "`" in str(error) else "perdure doctor"
    if run_id is None:
        return None
    command = f"perdure resume {shlex.quote(run_id)}"
    if isinstance(error, CodeChanged):
        return f"{command} --code current"
    return command if isinstance(error, _GOES_ON | StoreError) else None


def say(text: str) -> None:
    """Print a line for people: stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)
