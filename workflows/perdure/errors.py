"""What can go wrong, as users meet it: one root, three families.

    PerdureError
    |- DefinitionError          the graph, its arguments or its options make no sense: yours to mend
    |  `- NodeUse               a node was used as if it were the value that it stands for
    |- NotSerializable          a value has no encoding (``path`` leads to the culprit)
    |- RunFailed                the user's code failed; its exception is ``__cause__``
    |- StepFailed               stands for a step's exception that cannot be made again here
    |- RunCancelled             somebody cancelled the run
    |- RunNotFound              no run of that id in the store
    |- RunConflict              the run's state or definition does not allow the request
    |- RunNotDriven             nobody drives the run, so its result cannot be waited for
    |- StepTimeout              an attempt ran longer than its ``timeout``
    |- WaitTimeout              what was waited for did not come in time
    |- WorkerLost               the process that ran an attempt is gone
    |- SecretMissing            a step asks for a secret that is not in the environment
    |- CodeChanged              the code found is not the code recorded
    |- NondeterminismError      a rebuilt value differs from the one that others consumed
    |- StoreError               the store cannot be used as it is
    |- ValueDamaged             stored bytes are missing or are not the bytes that were committed
    |- ValueUnavailable         stored bytes cannot be reached now
    `- InternalError            perdure is wrong: please report

Facts are attributes, and every class pickles. ``Failure`` is an error as a value: what
``catch=True`` puts in the place of a result.
"""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from perdure_storage.errors import (
    InternalError,
    NotSerializable,
    PerdureError,
    RunConflict,
    RunNotFound,
    StoreError,
    ValueDamaged,
    ValueUnavailable,
)

__all__ = [
    "CodeChanged",
    "DefinitionError",
    "Failure",
    "InternalError",
    "NodeUse",
    "NondeterminismError",
    "NotSerializable",
    "PerdureError",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunNotDriven",
    "RunNotFound",
    "SecretMissing",
    "StepFailed",
    "StepTimeout",
    "StoreError",
    "ValueDamaged",
    "ValueUnavailable",
    "WaitTimeout",
    "WorkerLost",
    "did_you_mean",
]


class DefinitionError(PerdureError):
    """The graph, its arguments or its options make no sense; the message says what to write."""


class NodeUse(DefinitionError, AttributeError, TypeError):
    """A node was used as if it were the value that it stands for.

    It is an ``AttributeError`` and a ``TypeError`` too, so that code which merely asks what an
    object can do (``hasattr``, ``copy``, ``inspect``) goes on asking.
    """


class RunFailed(PerdureError):
    """A run ended with an error; the exception of the user's code is ``__cause__``.

    Attributes:
        run_id: the run.
        step_id: the step that failed first, or None if the run failed outside of any step.
    """

    def __init__(self, message: str, *, run_id: str = "", step_id: str | None = None) -> None:
        self.run_id = run_id
        self.step_id = step_id
        super().__init__(message)


class StepFailed(PerdureError):
    """Stands for a step's exception that cannot be made again here.

    Attributes:
        type: qualified name of the original's class, ``"builtins.ValueError"``.
        traceback: the original's traceback as text.
    """

    def __init__(self, message: str, *, type: str = "", traceback: str = "") -> None:
        self.type = type
        self.traceback = traceback
        super().__init__(message)


class RunCancelled(PerdureError):
    """The run was cancelled; what had committed stays readable."""

    def __init__(self, message: str, *, run_id: str = "") -> None:
        self.run_id = run_id
        super().__init__(message)


class RunNotDriven(PerdureError):
    """Nobody drives the run; the message has the command that does.

    Attributes:
        run_id: the run.
        status: how it stands: PAUSED, QUEUED or INTERRUPTED.
    """

    def __init__(self, message: str, *, run_id: str = "", status: str = "") -> None:
        self.run_id = run_id
        self.status = status
        super().__init__(message)


class StepTimeout(PerdureError):
    """An attempt ran longer than its ``timeout``.

    Attributes:
        step_id: the step.
        timeout_s: the limit that it passed, in seconds.
    """

    def __init__(
        self, message: str, *, step_id: str | None = None, timeout_s: float | None = None
    ) -> None:
        self.step_id = step_id
        self.timeout_s = timeout_s
        super().__init__(message)


class WaitTimeout(PerdureError, TimeoutError):
    """What was waited for did not come in time."""


class WorkerLost(PerdureError):
    """The process that ran an attempt is gone: killed, crashed, out of memory, or its node is.

    Attributes:
        step_id: the step whose attempt was lost.
    """

    def __init__(self, message: str, *, step_id: str | None = None) -> None:
        self.step_id = step_id
        super().__init__(message)


class SecretMissing(PerdureError, LookupError):
    """A step asks for a secret that the environment of its worker does not have.

    Attributes:
        name: the secret, which is the name of an environment variable.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the secret {name!r} is not set: put it into the environment of the process that "
            f"runs perdure ({name}=...), then resume"
        )


class CodeChanged(PerdureError):
    """The code that was found is not the code that was recorded with the plan.

    Attributes:
        function: the function, as ``module.qualname``.
        recorded: the code digest that was recorded.
        found: the code digest that was found.
    """

    def __init__(
        self, message: str, *, function: str = "", recorded: str = "", found: str = ""
    ) -> None:
        self.function = function
        self.recorded = recorded
        self.found = found
        super().__init__(message)


class NondeterminismError(PerdureError):
    """A rebuilt value provably differs from the one that committed steps have consumed.

    Attributes:
        run_id: the run.
        step_id: the step whose value was rebuilt.
        consumers: ids of the committed steps that consumed the earlier value.
    """

    def __init__(
        self,
        message: str,
        *,
        run_id: str = "",
        step_id: str | None = None,
        consumers: tuple[str, ...] = (),
    ) -> None:
        self.run_id = run_id
        self.step_id = step_id
        self.consumers = consumers
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as a value: the result of a step with ``catch=True`` that failed for good.

    Attributes:
        type: qualified name of the exception's class, ``"builtins.ValueError"``.
        message: its text.
        traceback: the traceback as text.
        step_id: the step that failed.
        index: the item of a map that failed, or None.
        attempts: how many attempts the step spent; deaths around it are not counted.
    """

    type: str
    message: str
    traceback: str = ""
    step_id: str = ""
    index: int | None = None
    attempts: int = 1

    def exception(self) -> Exception:
        """Return an exception to raise: of the original class if it is a built-in one."""
        module, _, name = self.type.rpartition(".")
        kind = getattr(builtins, name, None) if module in ("", "builtins") else None
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(self.message)
            except TypeError:  # UnicodeDecodeError and its like want more than a message
                pass
        return StepFailed(f"{name}: {self.message}", type=self.type, traceback=self.traceback)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or ``""``."""
    names = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)
    return f"; did you mean {names[near[0]]!r}?" if near else ""
