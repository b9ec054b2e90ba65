"""What one process keeps of a run: its functions and constants, its values, its logs."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from perdure.calls import CallContext
from perdure.errors import CodeChanged
from perdure.fingerprint import plain_digest
from perdure.foreign import undecorated
from perdure.interactive import note_cells
from perdure.plan import Function
from perdure.worker.failures import Refusal
from perdure.worker.secrets import Redactor
from perdure_storage.blobs import open_blobs
from perdure_storage.codecs import Codecs
from perdure_storage.directories import Directories
from perdure_storage.errors import ValueDamaged, ValueUnavailable
from perdure_storage.logs import open_logs
from perdure_storage.protocols import LogStore
from perdure_storage.records import Buffer, CacheTerms, Cause, Digest, RunId, StepId, StoredValue
from perdure_storage.values import Values

_SHAREABLE = (type(None), bool, int, float, complex, str, bytes)
"""Immutable leaves: decoded once. Anything else every consumer decodes for itself."""


class RunScope:
    """A run as a worker knows it. Owned by one thread.

    Functions and constants may come in parts: the coordinator sends each before the first call
    that needs it.

    Attributes:
        actors: instances of actors, by actor, each with the call after which it is as it is.
    """

    def __init__(self, context: CallContext) -> None:
        self.run_id = context.run_id
        self.redactor = Redactor()
        note_cells(context.cells)
        blobs = LateBlobs(context.blobs_url, context.store_id, context.blobs_cache)
        self.spool = LateSpool(blobs, context.run_id)
        # Of each value that is an object: a run's classes do not change, so once is enough.
        codecs = Codecs(
            code_digest=plain_digest,
            class_digest=cache(plain_digest),
            allow_pickle=context.allow_pickle,
        )
        self.values = Values(codecs, blobs, self.spool)
        self.directories = Directories(self.values)
        self.logs: LogStore = LateLogs(context.blobs_url, context.store_id)
        self._functions: dict[str, Function] = dict(context.functions)
        self._constants: dict[int, StoredValue] = dict(context.constants)
        self._callables: dict[str, Callable[..., Any]] = {}
        self._shared: dict[int, Any] = {}
        self.actors: dict[str, tuple[str, Any]] = {}

    def learn(
        self, functions: Mapping[str, Function], constants: Mapping[int, StoredValue]
    ) -> None:
        """Add functions and constants that calls will need."""
        self._functions.update(functions)
        self._constants.update(constants)

    def close(self) -> None:
        """Drop the run's spool, if this process has used it: the run is over everywhere."""
        self.spool.drop()

    def is_async(self, function: str) -> bool:
        """Say whether the function of this id is an ``async def``."""
        return self._functions[function].is_async

    def function(self, function: str) -> Callable[..., Any]:
        """Return the function of this id, resolved once.

        Raises:
            Refusal: it cannot be imported or decoded, or is not the code that was recorded.
        """
        found = self._callables.get(function)
        if found is None:
            found = self._resolve(self._functions[function])
            self._callables[function] = found
        return found

    def travels(self, function: str) -> bool:
        """Say whether the function of this id was sent, not imported."""
        return self._functions[function].value is not None

    def _resolve(self, function: Function) -> Callable[..., Any]:
        if function.value is None:
            return import_function(function)
        return plain_function(self._load_recorded(function.value, "the code of", function.id))

    def constant(self, index: int) -> Any:
        """Return constant ``index`` of the plan; a copy of its own if it is mutable.

        Raises:
            Refusal: its bytes are lost or out of reach, or cannot be decoded here.
        """
        if index in self._shared:
            return self._shared[index]
        value = self._load_recorded(self._constants[index], "constant", index)
        if type(value) in _SHAREABLE:
            self._shared[index] = value
        return value

    def _load_recorded(self, stored: StoredValue, what: str, which: object) -> Any:
        """Decode what was recorded with the plan: nothing upstream could rebuild it."""
        try:
            return self.values.load(stored)
        except ValueUnavailable as error:
            raise Refusal(Cause.INPUT_UNAVAILABLE, error) from error
        except Exception as error:
            error.add_note(f"while decoding {what} {which} of the plan")
            is_lost = isinstance(error, ValueDamaged)
            raise Refusal(Cause.INPUT_LOST if is_lost else Cause.SETUP_ERROR, error) from error


def _as_recorded(found: Any) -> Any:
    """Return what was imported; a class of Ray's as an actor, which a graph made it elsewhere."""
    plain = undecorated(found)
    if plain is not found and isinstance(plain, type):
        from perdure.actor import actor, is_actor

        if not is_actor(plain):
            actor(plain)
    return found


_STANDS_S = 1.0
_looked_at: dict[tuple[str, str], tuple[Any, str, float]] = {}


def _digest_of(found: Any, function: Function) -> str:
    """Return the code digest of what was imported; a look at it stands for a second.

    Else a thousand runs that wake together would digest one function a thousand times. What was
    reloaded is another object, and looked at anew; what a function reaches may change under it
    only in the process that runs steps inline, whose own submissions digest it each time.
    """
    name, now = (function.module, function.qualname), time.monotonic()
    known = _looked_at.get(name)
    if known is None or known[0] is not found or now - known[2] > _STANDS_S:
        known = _looked_at[name] = (found, plain_digest(found), now)
    return known[1]


def import_function(function: Function) -> Callable[..., Any]:
    """Import a function by reference and see that it is the code that was recorded.

    Raises:
        Refusal: it is not there, its module does not import, or its code digest is another.
    """
    try:
        found: Any = importlib.import_module(function.module)
        for name in function.qualname.split("."):
            found = getattr(undecorated(found), name)
        found_code = _digest_of(_as_recorded(found), function)
    except Exception as error:
        error.add_note(f"while importing {function.module}:{function.qualname}")
        raise Refusal(Cause.SETUP_ERROR, error) from error
    if found_code != function.code:
        name = f"{function.module}:{function.qualname}"
        where = f" ({function.where})" if function.where else ""
        changed = CodeChanged(
            f"{name}{where} is not the code that this run recorded, and what was recorded is not "
            'to be had here: resume with code="current" to take today\'s',
            function=name,
            recorded=function.code,
            found=found_code,
        )
        raise Refusal(Cause.SETUP_ERROR, changed)
    return plain_function(found)


def plain_function(found: Any) -> Callable[..., Any]:
    """Return the user's function from what its name is bound to: a task, or itself."""
    # Not imported for the question's sake: where nobody has, nothing is a task.
    module = sys.modules.get("perdure.task")
    function: Callable[..., Any] = undecorated(found)
    if module is not None and isinstance(found, module.Task):
        function = found.function
    return function


class LateBlobs:
    """A blob store that is opened when the first large value asks for it."""

    def __init__(self, url: str, store_id: str, cache: CacheTerms | None = None) -> None:
        self._url = url
        self._store_id = store_id
        self._cache = cache
        self._opened: Any = None

    @property
    def url(self) -> str:
        return str(self.opened.url)

    @property
    def opened(self) -> Any:
        """Return the store itself, opening it once."""
        if self._opened is None:
            self._opened = open_blobs(self._url, self._store_id, known=True, cache=self._cache)
        return self._opened

    def put(self, buffers: Sequence[Buffer], *, digest: Digest | None = None) -> Digest:
        return Digest(self.opened.put(buffers, digest=digest))

    def open(self, digest: Digest, size_bytes: int) -> memoryview:
        found: memoryview = self.opened.open(digest, size_bytes)
        return found

    def copy_out(self, digest: Digest, size_bytes: int, fd: int) -> None:
        self.opened.copy_out(digest, size_bytes, fd)

    def contains(self, digest: Digest, size_bytes: int) -> bool:
        return bool(self.opened.contains(digest, size_bytes))

    def quarantine(self, digest: Digest) -> None:
        self.opened.quarantine(digest)

    def delete(self, digest: Digest) -> None:
        self.opened.delete(digest)

    def list_digests(self) -> Iterator[Digest]:
        yield from self.opened.list_digests()


class LateSpool(LateBlobs):
    """The unsynced spool of one run, opened when first used."""

    def __init__(self, blobs: LateBlobs, run_id: str) -> None:
        super().__init__("", "")
        self._blobs = blobs
        self._run_id = run_id

    @property
    def opened(self) -> Any:
        if self._opened is None:
            self._opened = self._blobs.opened.spool(self._run_id)
        return self._opened

    def drop(self) -> None:
        """Remove the spool with all that is in it, if this process has used it."""
        if self._opened is not None:
            self._blobs.opened.drop_spool(self._run_id)
            self._opened = None


class LateLogs:
    """A log store that is opened when something is printed."""

    def __init__(self, url: str, store_id: str) -> None:
        self._url = url
        self._store_id = store_id
        self._opened: LogStore | None = None

    @property
    def opened(self) -> LogStore:
        """Return the store itself, opening it once."""
        if self._opened is None:
            self._opened = open_logs(self._url, self._store_id)
        return self._opened

    def append(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, data: bytes
    ) -> None:
        self.opened.append(run_id, step_id, generation, attempt, data)

    def read(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, *, offset: int = 0
    ) -> bytes:
        return self.opened.read(run_id, step_id, generation, attempt, offset=offset)

    def pieces(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int
    ) -> Iterator[bytes]:
        return self.opened.pieces(run_id, step_id, generation, attempt)

    def delete(self, run_id: RunId) -> None:
        self.opened.delete(run_id)
