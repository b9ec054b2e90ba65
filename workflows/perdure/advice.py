"""What people are told of an error, and what to type next: the same wherever they meet it."""

from __future__ import annotations

import re
import shlex

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
from perdure.users_code import is_users, place_of
from perdure_storage.errors import (
    KeyMissing,
    RunFileRefused,
    ScheduleNotFound,
    SchemaMismatch,
    StoreUnavailable,
    TriggerNotFound,
)

REPORT = "please report it"
_ENDED = RunFailed | RunCancelled | RunNotDriven
_GOES_ON = NondeterminismError | StoreUnavailable | ValueDamaged | ValueUnavailable
_PLACES = StoreError | ValueDamaged | ValueUnavailable
"""What the store and the blobs may have, without a run: `perdure doctor` looks at both."""
_UNTIL_MENDED = SchemaMismatch | KeyMissing | RunFileRefused


def lines_about(error: Exception) -> list[str]:
    """Return what is said of an error, before what to type next."""
    if isinstance(error, DefinitionError | NotSerializable):
        return [str(error), *getattr(error, "__notes__", ()), *_place(error)]
    if isinstance(error, PerdureError):
        hint = getattr(error, "hint", "")
        return [str(error), *([hint] if hint else [])]
    if isinstance(error, OSError):  # the machine's, not ours: no such folder, no right, no room
        return [str(error), *_place(error)]
    if is_users(error):  # the body of a workflow is their code too
        return [f"{type(error).__name__}: {error}", *_place(error)]
    return [f"perdure is wrong, not you: {type(error).__name__}: {error}", REPORT]


def _place(error: Exception) -> list[str]:
    place = place_of(error)
    return [f"  at {place}"] if place else []


_COMMAND = re.compile(
    r"perdure (?:resume|rerun|fork|spin|explain|diff|cancel|pause|signal|emit|delete|show|logs|why"
    r"|get|cat|ls|gc|up|export|import|doctor|db \w+|schedule \w+|trigger \w+)\b[^`\n]*"
)


def with_store(text: str, store: str | None) -> str:
    """Return ``text`` with ``--store`` in the commands of perdure's that it names.

    Where an error arises nobody knows how its store was named on the command line.
    """
    if not store:
        return text
    option = f" --store {shlex.quote(store)}"
    return _COMMAND.sub(lambda at: at[0] if "--store" in at[0] else at[0] + option, text)


def next_command(error: Exception, run_id: str | None = None) -> str | None:
    """Return the command that fits the cause, in full; None where the message has it, or none does.

    The errors of a run that has ended name their command themselves: they know its record.
    """
    run_id = getattr(error, "run_id", None) or run_id
    if isinstance(error, RunNotFound):
        return "perdure ls"
    if isinstance(error, ScheduleNotFound):
        return "perdure schedule ls"
    if isinstance(error, TriggerNotFound):
        return "perdure trigger ls"
    if isinstance(error, _ENDED | InternalError | RunConflict):
        return None
    if isinstance(error, _UNTIL_MENDED) or (isinstance(error, StoreUnavailable) and error.is_gone):
        return None  # the message has it: what to upgrade, to copy or to put back first
    if isinstance(error, _PLACES) and (run_id is None or not isinstance(error, _GOES_ON)):
        return None if "`" in str(error) else "perdure doctor"  # to go on would end likewise
    if run_id is None:
        return None
    command = f"perdure resume {shlex.quote(run_id)}"
    if isinstance(error, CodeChanged):
        return f"{command} --code current"
    return command if isinstance(error, _GOES_ON) else None
