"""Calls of actors in a worker: the live instance, or one that snapshot and replay lead to.

What is kept here is a copy of what the run's rows say: of each actor an instance, and after which
call it is in the state that it is in. A call for another state, or after one that failed, has its
instance made anew.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import msgspec

from perdure.calls import ActorCall, Replay, StepCall
from perdure.errors import DefinitionError, ReplayDiffers
from perdure.fingerprint import plain_digest
from perdure.plan import ActorStep
from perdure.worker.arguments import Arguments
from perdure.worker.context import Context, running
from perdure.worker.failures import Refusal
from perdure.worker.scope import RunScope
from perdure.worker.state_folders import folder_with, let_go
from perdure_storage.digests import value_digest
from perdure_storage.directories import is_directory
from perdure_storage.errors import StoreError, StoreUnavailable, ValueDamaged, ValueUnavailable
from perdure_storage.faults import crash_point
from perdure_storage.records import Cause, StoredValue
from perdure_storage.temporary_folders import TemporaryFolder

_OPAQUE = "opaque:"


class ActorTurn:
    """One call of an actor: called in place of the method, once it is prepared. Used once."""

    def __init__(self, call: StepCall, scope: RunScope) -> None:
        assert call.actor is not None
        self._call = call
        self._use: ActorCall = call.actor
        self._of: ActorStep = call.actor.of
        self._scope = scope
        self._instance: Any = None
        self._cls: Any = scope.function(self._of.cls)
        if self._of.method and not scope.travels(self._of.cls):
            scope.function(call.function)  # what only reads is no part of its class's code

    def prepare(self) -> None:
        """Find the instance in the state that the call is to be made on, or make it.

        Raises:
            Refusal: its state is lost or out of reach, or a replayed call gave another value.
        """
        if self._of.method:
            self._instance = self._obtain()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the call. Raises what the method does."""
        of = self._of
        if not of.method:
            self._instance = self._cls(*args, **kwargs)
            return self._handle()
        return getattr(self._instance, of.method)(*args, **kwargs)

    def finish(self) -> dict[str, StoredValue]:
        """Keep the instance, and its state if it is to be; return that.

        Raises:
            Exception: the state cannot be encoded; the user's own code may run for it.
        """
        use, of = self._use, self._of
        if use.role not in ("new", "write"):
            return {}
        states: dict[str, StoredValue] = {}
        if use.keeps:
            name = f"the state of {of.name}"
            states[of.actor] = store_state(self._instance, self._scope, name)
            crash_point("actor.snapshot-stored")
        at = self._call.id
        self._scope.actors[of.actor] = (f"{at.step_id}/{at.generation}", self._instance)
        return states

    def refuse_growth(self, what: str) -> DefinitionError:
        """Return the error of a method that gave a graph or a wait in place of a value."""
        return refused_growth(self._of.name, what)

    def _handle(self) -> Any:
        from perdure.actor import handle_in_run
        from perdure.graph.node import ActorUse

        of = self._of
        use = ActorUse(
            cls=self._cls,
            state=of.state,
            snapshot=of.snapshot,
            nondeterminism=of.nondeterminism,
            pool=of.pool,
        )
        return handle_in_run(self._cls, use, of.name, self._use.defaults, of.actor)

    # --- the instance ---------------------------------------------------------------------------
    def _obtain(self) -> Any:
        """Return the instance for the call; one that a failure could spoil is not kept for others.

        Raises as ``prepare``.
        """
        use, of, held = self._use, self._of, self._scope.actors
        if use.role == "again":
            return self._restore()
        found = held.get(of.actor)
        if found is None or found[0] != use.base:
            if use.is_live:
                gone = ValueDamaged(f"the process of {of.actor} is gone")
                raise Refusal(Cause.INPUT_LOST, gone, culprit=f"actor:{of.actor}")
            found = held[of.actor] = (use.base, self._restore())
        if use.role == "read":
            return copy_of(found[1])
        if use.role == "write":
            del held[of.actor]
        return found[1]

    def _restore(self) -> Any:
        instance = None
        if self._use.state is not None:
            instance = self._load(self._use.state)
        for replay in self._use.replay:
            crash_point("actor.before-replay")
            instance = self._replayed(instance, replay)
        return instance

    def _load(self, state: StoredValue) -> Any:
        culprit = f"state:{self._use.state_of}"
        try:
            return load_state(self._cls, state, self._scope)
        except ValueDamaged as error:
            raise Refusal(Cause.INPUT_LOST, error, culprit=culprit) from error
        except (ValueUnavailable, StoreUnavailable) as error:
            raise Refusal(Cause.INPUT_UNAVAILABLE, error, culprit=culprit) from error
        except StoreError as error:
            raise Refusal(Cause.SETUP_ERROR, error) from error
        except Exception as error:
            error.add_note(f"while the state of {self._of.actor} was restored")
            raise Refusal(Cause.SETUP_ERROR, error) from error

    def _replayed(self, instance: Any, replay: Replay) -> Any:
        arguments = Arguments(replay, self._scope)
        args, kwargs = arguments.positional(), arguments.keywords()
        token = running.set(_context_then(replay))
        try:
            if not replay.method:
                return self._cls(*args, **kwargs)
            result = getattr(instance, replay.method)(*args, **kwargs)
        except Exception as error:
            what = f"raised {type(error).__name__}: {error}"
            raise self._differs(replay, what) from error
        finally:
            running.reset(token)
        self._compare(replay, result)
        return instance

    def _compare(self, replay: Replay, result: Any) -> None:
        if not replay.expected or replay.expected.startswith(_OPAQUE):
            return
        now = value_digest(result, code_digest=plain_digest)
        if now != replay.expected and not now.startswith(_OPAQUE):
            error = self._differs(replay, "gave another value than the one that was committed")
            if self._of.nondeterminism == "fail":
                raise error
            sys.stderr.write(f"perdure: {error.error}\n")  # into the step's log

    def _differs(self, replay: Replay, what: str) -> Refusal:
        error = ReplayDiffers(
            f"step {replay.step_id} was replayed to restore the actor {self._of.actor}, and {what}."
            ' This run goes on if you accept that: nondeterminism="warn". For runs to come make '
            "the method deterministic (pass seeds and times as arguments), or keep the state after "
            'every call (snapshot="every")'
        )
        return Refusal(Cause.ENGINE_ERROR, error, retryable=False)


def _context_then(replay: Replay) -> Context | None:
    """Return what ``current()`` said when the call was made first."""
    now = running.get()
    if now is None:
        return None
    step_id, generation = replay.step_id, replay.generation
    return msgspec.structs.replace(
        now,
        step_id=step_id,
        generation=generation,
        attempt=replay.attempt,
        idempotency_key=f"{now.run_id}/{step_id}/{generation}",
    )


# --- states -------------------------------------------------------------------------------------
def has_folders(cls: type) -> bool:
    """Say whether an actor keeps its state in a folder, by ``save`` and ``load``."""
    return callable(getattr(cls, "save", None)) and callable(getattr(cls, "load", None))


def store_state(instance: Any, scope: RunScope, name: str) -> StoredValue:
    """Store the state of an instance: its ``__getstate__``, or the folder that it saves.

    Raises:
        NotSerializable: there is no encoding for it.
    """
    if has_folders(type(instance)):
        folder = folder_with(instance)
        try:
            return scope.directories.store(str(folder.path), name=name)
        finally:
            let_go(folder, instance)
    return scope.values.store(state_of(instance), name=name)


def load_state(cls: Any, stored: StoredValue, scope: RunScope) -> Any:
    """Return an instance in a stored state."""
    if is_directory(stored):
        instance = cls.__new__(cls)
        folder = TemporaryFolder()
        try:
            scope.directories.restore(stored, str(folder.path))
            instance.load(str(folder.path))
        finally:
            let_go(folder, instance)
        return instance
    return revive(cls, scope.values.load(stored))


class Joined:
    """A state in which one object is in two places: only a pickle says that it is one."""

    def __init__(self, state: Any) -> None:
        self.state = state


def state_of(instance: Any) -> Any:
    """Return what is kept of an instance."""
    state = instance.__getstate__()
    return Joined(state) if _has_joints(state) else state


def revive(cls: Any, state: Any) -> Any:
    """Return an instance in the state that ``state_of`` gave."""
    instance = cls.__new__(cls)
    if isinstance(state, Joined):
        state = state.state
    if hasattr(instance, "__setstate__"):
        instance.__setstate__(state)
        return instance
    slots: Any = None
    if isinstance(state, tuple):
        state, slots = state
    instance.__dict__.update(state or {})
    for name, value in (slots or {}).items():
        setattr(instance, name, value)
    return instance


def copy_of(instance: Any) -> Any:
    """Return an instance in the same state, which shares nothing with it."""
    if has_folders(type(instance)):
        cls: Any = type(instance)
        made = cls.__new__(cls)
        folder = folder_with(instance)
        try:
            made.load(str(folder.path))
        finally:
            let_go(folder, instance)
        return made
    return revive(type(instance), copy.deepcopy(state_of(instance)))


def _has_joints(state: Any) -> bool:
    """Say whether something that can change is in two places of a state."""
    seen: set[int] = set()
    stack = [state]
    while stack:
        item = stack.pop()
        if isinstance(item, str | bytes | int | float | complex | bool | type(None)):
            continue
        if isinstance(item, tuple | frozenset):
            stack.extend(item)
            continue
        if id(item) in seen:
            return True
        seen.add(id(item))
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | set):
            stack.extend(item)
        elif not isinstance(item, type):
            stack.extend(getattr(item, "__dict__", {}).values())
    return False


def refused_growth(name: str, what: str) -> DefinitionError:
    """Return the error of a method that gave a graph or a wait in place of a value."""
    return DefinitionError(
        f"{name} returned {what}: a call of an actor has a value, which is kept with the state "
        "after it. Let a task that takes this value make the graph"
    )
