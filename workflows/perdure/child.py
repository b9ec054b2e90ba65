"""A process beside this one that answers questions which need the user's modules.

Who serves for weeks imports nothing of the user's: no import can take it down, and what runs is
the code of the moment. It asks a child. The child is used again while the files that it has
imported are as they were, and is replaced when one of them has changed: a thousand questions about
one module import it once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any, TypeVar

import msgspec

from perdure.settings import Settings, load_settings

PATIENCE_S = 120.0
"""How long an answer may take: importing and tracing a workflow."""
T = TypeVar("T")


class ChildLost(Exception):
    """The child died before it answered, or took too long; the next question starts another."""

    def __str__(self) -> str:
        return f"the process that was to import it died, or took more than {PATIENCE_S:g} s"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a child cannot find by itself; ``origin`` says where they were found."""

    store: str
    blobs: str
    executor: str
    workers: int | None
    cpus: float | None
    gpus: int | None
    memory: int | None
    resources: dict[str, float]
    labels: dict[str, str]
    allow_pickle: bool
    ray_address: str | None
    ray_namespace: str | None
    ray_runtime_env: dict[str, Any]
    origin: dict[str, str]

    @classmethod
    def of(cls, settings: Settings) -> Place:
        """Return what a child has to be told of settings."""
        return cls(
            store=settings.store,
            blobs=settings.blobs,
            executor=settings.executor,
            workers=settings.workers,
            cpus=settings.cpus,
            gpus=settings.gpus,
            memory=settings.memory,
            resources=dict(settings.resources),
            labels=dict(settings.labels),
            allow_pickle=settings.allow_pickle,
            ray_address=settings.ray_address,
            ray_namespace=settings.ray_namespace,
            ray_runtime_env=dict(settings.ray_runtime_env),
            origin=dict(settings.origin),
        )

    def settings(self) -> Settings:
        """Return the same settings in a child, which is in the same folder and environment."""
        found = load_settings(
            store=self.store,
            blobs=self.blobs,
            executor=self.executor,
            workers=self.workers,
            cpus=self.cpus,
            gpus=self.gpus,
            memory=self.memory,
            resources=self.resources,
            labels=self.labels,
            allow_pickle=self.allow_pickle,
            ray_address=self.ray_address,
            ray_namespace=self.ray_namespace,
            ray_runtime_env=self.ray_runtime_env,
        )
        # Commands that errors name lead to the store as they do where the question comes from.
        return replace(found, origin={**found.origin, **self.origin})


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back in one line.

    Attributes:
        answer: JSON.
        is_stale: a file that the child has imported has changed: ask a new child.
    """

    answer: msgspec.Raw = msgspec.Raw(b"null")
    is_stale: bool = False


class Child:
    """The process, seen from outside. Any thread may ask it; it answers in turn.

    Args:
        settings: where the stores are.
        module: run as ``python -m``; it calls ``serve``.
    """

    def __init__(self, settings: Settings, module: str) -> None:
        self._place = Place.of(settings)
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def ask(self, question: msgspec.Struct, answer: type[T]) -> T:
        """Return the answer to a question, of the code as it is now.

        Args:
            question: as the module takes it.
            answer: its type.

        Raises:
            ChildLost: there will be none.
        """
        with self._turn:
            reply = self._ask(question)
            if reply.is_stale:
                self.close()
                reply = self._ask(question)
        return msgspec.json.decode(reply.answer, type=answer)

    def _ask(self, question: msgspec.Struct) -> _Reply:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            process.stdin.write(msgspec.json.encode(question) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            watchdog.cancel()
        if line.endswith(b"\n"):
            return msgspec.json.decode(line, type=_Reply)
        self.close()
        raise ChildLost

    def _start(self) -> subprocess.Popen[bytes]:
        # In a session of its own: a Ctrl-C at the terminal is for who drives.
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(self._place) + b"\n")
        return process

    def close(self) -> None:
        """End the process. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not read yet is lost with it
                    pass


# --- within the child ---------------------------------------------------------------------------
def serve(
    requests: IO[bytes], answers: IO[bytes], prepare: Callable[[Settings], Callable[[bytes], Any]]
) -> None:
    """Answer questions, one a line, until there are no more.

    Args:
        requests: where they come from.
        answers: where the answers go.
        prepare: gives what answers one: JSON in, what JSON can say out. It raises nothing.
    """
    answer = prepare(msgspec.json.decode(requests.readline(), type=Place).settings())
    imported = Imported()
    for line in requests:
        if imported.has_changed():
            reply = _Reply(is_stale=True)
        else:
            reply = _Reply(answer=msgspec.Raw(msgspec.json.encode(answer(line))))
            imported.note()
        answers.write(msgspec.json.encode(reply) + b"\n")
        answers.flush()


def answer_by(prepare: Callable[[Settings], Callable[[bytes], Any]]) -> None:
    """Serve at the standard streams: the main program of a child."""
    # What the user's modules print when they are imported is not for who asked.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers, prepare)


class Imported:
    """The files of what this process has imported, as they were then."""

    def __init__(self) -> None:
        self._stamps: dict[str, tuple[int, int] | None] = {}

    def note(self) -> None:
        """Take note of what has been imported since this was called last."""
        self._stamps |= {file: _stamp(file) for file in _imported() - self._stamps.keys()}

    def has_changed(self) -> bool:
        """Say whether one of the files is another one now: this process has older code."""
        return any(_stamp(file) != stamp for file, stamp in self._stamps.items())


def _imported() -> set[str]:
    """Return the files of modules that may be edited: those of no installed package."""
    from perdure.sources import is_local_file

    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {file for file in files if file is not None and is_local_file(file)}


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
