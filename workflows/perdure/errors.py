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
    |  `- DuplicateRun          another live run of its queue has its ``dedup_key``
    |- RunNotDriven             nobody drives the run, so its result cannot be waited for
    |- StepTimeout              an attempt ran longer than its ``timeout``
    |- WaitTimeout              what was waited for did not come in time
    |- LoopLimit                a loop had all its rounds and was not done
    |- WorkerLost               the process that ran an attempt is gone
    |- SecretMissing            a step asks for a secret that is not in the environment
    |- CodeChanged              the code found is not the code recorded
    |- NondeterminismError      a rebuilt value differs from the one that others consumed
    |  `- ReplayDiffers         a replayed call of an actor gave another value than it had
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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perdure import showing
from perdure_storage.errors import (
    DuplicateRun,
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
    "DuplicateRun",
    "Failure",
    "InternalError",
    "LoopLimit",
    "NodeUse",
    "NondeterminismError",
    "NotSerializable",
    "PerdureError",
    "ReplayDiffers",
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
    "known_names",
]


# IPython asks an error how it is shown. The floor below, where the root is, knows of no notebooks.
PerdureError._render_traceback_ = showing.lines_of  # type: ignore[attr-defined]


class DefinitionError(PerdureError):
    """The graph, its arguments or its options make no sense; the message says what to write.

    Likely:
        An argument that does not fit the signature, a misspelt option or name, a call where
        ``bind`` was meant, a request that this machine can never fulfil.

    Type:
        What the message says, at the line of yours that it names; then the same command again.
    """


class NodeUse(DefinitionError, AttributeError, TypeError):
    """A node was used as if it were the value that it stands for.

    It is an ``AttributeError`` and a ``TypeError`` too, so that code which merely asks what an
    object can do (``hasattr``, ``copy``, ``inspect``) goes on asking.

    Likely:
        The body of a workflow is traced: it runs before any step does, so the results of steps and
        the parameters do not exist yet and can be passed on only.

    Type:
        ``perdure.Static[int]`` as the parameter's annotation, if its value shapes the graph; else
        do it inside a task.
    """


class RunFailed(PerdureError):
    """A run ended with an error; the exception of the user's code is ``__cause__``.

    Likely:
        Your code raised, a step ran out of time or memory, or its process was lost more often than
        ``lost_retries`` allows. The message names the step and the cause.

    Type:
        What its last line says: after an error of your code mend it, then ``perdure resume ID
        --code current``; after a loss ``perdure resume ID``. What was finished is kept.

    Attributes:
        run_id: the run.
        step_id: the step that failed first, or None if the run failed outside of any step.
        traceback: what the step's own code printed of it in its worker; "" if it raised nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        run_id: str = "",
        step_id: str | None = None,
        traceback: str = "",
    ) -> None:
        self.run_id = run_id
        self.step_id = step_id
        self.traceback = traceback
        super().__init__(message)


class StepFailed(PerdureError):
    """Stands for a step's exception that cannot be made again here.

    Likely:
        The exception's class cannot be imported here, or cannot be pickled.

    Type:
        ``perdure show ID STEP`` has the original's class, message and traceback.

    Attributes:
        type: qualified name of the original's class, ``"builtins.ValueError"``.
        traceback: the original's traceback as text.
    """

    def __init__(self, message: str, *, type: str = "", traceback: str = "") -> None:
        self.type = type
        self.traceback = traceback
        super().__init__(message)


class RunCancelled(PerdureError):
    """The run was cancelled; what had committed stays readable.

    Likely:
        ``perdure cancel ID``, or a program of yours.

    Type:
        ``perdure resume ID`` goes on from what was finished.
    """

    def __init__(self, message: str, *, run_id: str = "") -> None:
        self.run_id = run_id
        super().__init__(message)


class RunNotDriven(PerdureError):
    """Nobody drives the run; the message has the command that does.

    Likely:
        It was recorded with ``--detach`` or ``submit`` and no ``perdure up`` is alive, it is
        paused, or the process that drove it is gone.

    Type:
        ``perdure resume ID`` to drive it here, or ``perdure up`` to drive all that wait.

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

    Likely:
        It waits for something that does not come, or it needs longer than you thought.

    Type:
        A longer ``timeout=`` or mended code, then ``perdure resume ID --code current``, which takes
        today's options too.

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
    """What was waited for did not come in time.

    Likely:
        The run needs longer than the ``timeout`` of ``result()`` or ``wait()``. It goes on.

    Type:
        ``perdure show ID`` to see how far it is; ``perdure.get_run("ID").result()`` to wait on.
    """


class LoopLimit(PerdureError):
    """A loop had its ``max_iterations`` rounds, and ``until`` did not hold after any of them.

    Likely:
        ``until`` asks for more than ``body`` comes to, or the limit is too low.

    Type:
        Mend ``until`` or give it more rounds, then ``perdure resume ID --code current``.
    """


class WorkerLost(PerdureError):
    """The process that ran an attempt is gone: killed, crashed, out of memory, or its node is.

    Likely:
        Native code crashed (a segmentation fault), something called ``os._exit``, the kernel ran
        out of memory, or somebody killed it. The message tells which.

    Type:
        ``perdure logs ID STEP`` for what it printed last. Then ``perdure resume ID``. If it was
        memory, ``@task(memory="8GiB")`` lets fewer run at once; ``lost_retries=`` is how often a
        loss is made up for.

    Attributes:
        step_id: the step whose attempt was lost.
    """

    def __init__(self, message: str, *, step_id: str | None = None) -> None:
        self.step_id = step_id
        super().__init__(message)


class SecretMissing(PerdureError, LookupError):
    """A step asks for a secret that the environment of its worker does not have.

    Likely:
        It is set in another shell, or not where ``perdure up`` was started.

    Type:
        ``export NAME=...`` where perdure runs, then ``perdure resume ID``.

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

    Likely:
        The files were edited or another version was installed since the run was made, and what was
        recorded could not travel with it.

    Type:
        ``perdure resume ID --code current`` takes today's code for what has not finished.

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

    Likely:
        The step depends on chance, time or the outside world, and its value was lost or not kept
        (``checkpoint=False``).

    Type:
        ``perdure resume ID --on-divergence recompute`` runs those steps again; ``--on-divergence
        keep`` accepts the mix. For the future: a fixed seed, or ``checkpoint=True``.

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


class ReplayDiffers(NondeterminismError):
    """A call that was made again to restore an actor gave another value than the committed one.

    Likely:
        The method depends on chance, time or the outside world.

    Type:
        Let ``nondeterminism`` of the actor's class be ``"warn"``, then ``perdure resume ID --code
        current``: the run goes on with the state as it is now. For runs to come: pass seeds and
        times as arguments, or keep the state after every call.
    """


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
    near = difflib.get_close_matches(name.lower(), list(names), n=3, cutoff=0.6)
    return f"; did you mean {names[_nearest(name.lower(), near)]!r}?" if near else ""


def _nearest(name: str, near: Sequence[str]) -> str:
    """Return the likeliest of ``near``, which are in order: if it goes on after the whole name, the
    shortest that does, or that only ends otherwise.

    ``retry`` has more letters in common with ``retry_on`` than with ``retries``, which is meant.
    """
    if not near[0].startswith(name):
        return near[0]
    return min((each for each in near if each.startswith(name[:-1])), key=len)


def known_names(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about a name that is none of ``known``: the nearest, and all.

    It is empty if none is known.
    """
    listed = list(known)
    if not listed:
        return ""
    return f"{did_you_mean(name, listed) or '.'} Known: {', '.join(map(repr, listed))}"
