"""Programs in processes that are forked from an interpreter which has imported the product.

To import it takes most of a second, and the tests run thousands of programs. Each is a process of
its own all the same: in a session of its own, with its folder, environment and streams, and ended
by Python as any other. What must begin with a fresh interpreter starts one.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, TextIO

from perdure_storage import faults

ROOT = Path(__file__).parents[1]
LEAN = ROOT / "tests" / "ray" / "lean"
"""First on the path of whatever imports Ray: what makes that slow is not found."""
_MOST_BYTES = 1 << 17
_IMPORTED_LATER = (
    "alembic",
    "perdure.changes",
    "perdure.client",
    "perdure.engine.coordinator",
    "perdure.executors.processes",
    "perdure.observing",
    "perdure.serving",
    "perdure.submission",
    "perdure.turns",
    "psycopg",
    "rich.markdown",
    "typer._adapters",
    "typer.rich_utils",
)
"""What programs import while they run."""


@cache
def prepared_interpreter() -> PreparedInterpreter:
    """Return that of this process; it ends with it."""
    interpreter = PreparedInterpreter()
    atexit.register(interpreter.close)
    return interpreter


def python_path(*folders: Path) -> str:
    """Return the ``PYTHONPATH`` of a process that imports from folders before ours."""
    ours = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, folders), *([ours] if ours else [])])


class PreparedInterpreter:
    """Runs ``python -m MODULE`` without the time that the product's imports take."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = f"from tests.prepared import serve; serve({theirs.fileno()})"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONPATH": python_path(LEAN, ROOT)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def run(
        self,
        module: str,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[int, str, str]:
        """Return a program's exit code, as ``subprocess`` writes it, and what it printed."""
        with contextlib.ExitStack() as closing:
            out, their_out = _pipe(closing)
            err, their_err = _pipe(closing)
            told, their_told = _pipe(closing)
            order = json.dumps([module, list(words), str(folder), dict(environment)]).encode()
            theirs = [their_out, their_err, their_told]
            socket.send_fds(self._line, [order], [each.fileno() for each in theirs])
            for each in theirs:
                each.close()
            pid = int(told.readline())
            printed: dict[str, str] = {}
            readers = [
                threading.Thread(target=_read, args=(printed, name, stream), daemon=True)
                for name, stream in (("out", out), ("err", err))
            ]
            overtime = threading.Timer(timeout_s, os.killpg, (pid, signal.SIGKILL))
            overtime.start()
            for reader in readers:
                reader.start()
            status = int(told.readline())
            for reader in readers:
                reader.join(timeout_s)
            if not overtime.is_alive():
                raise subprocess.TimeoutExpired([module, *words], timeout_s, *printed.values())
            overtime.cancel()
            return status, printed["out"], printed["err"]

    def close(self) -> None:
        """End it; what it has started runs on."""
        self._line.close()
        self._process.wait()


def _pipe(closing: contextlib.ExitStack) -> tuple[IO[str], IO[str]]:
    reader, writer = os.pipe()
    return (
        closing.enter_context(open(reader, encoding="utf-8")),
        closing.enter_context(open(writer, "w", encoding="utf-8")),
    )


def _read(printed: dict[str, str], name: str, stream: IO[str]) -> None:
    printed[name] = stream.read()


# --- in the interpreter itself --------------------------------------------------------------------
def serve(fd: int) -> None:
    """Fork a process for each program that comes; returns, or exits, in those processes only."""
    _import_the_product()
    gc.freeze()
    line = socket.socket(fileno=fd)
    while True:
        order, fds, _, _ = socket.recv_fds(line, _MOST_BYTES, 3)
        if not order:
            os._exit(0)
        if os.fork() == 0:
            line.close()
            _run_and_tell(json.loads(order), *fds)
            return
        for each in fds:
            os.close(each)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _run_and_tell(order: tuple[str, list[str], str, dict[str, str]], *fds: int) -> None:
    """Run the program in a child, and tell its pid and then how it ended."""
    out, err, told = fds
    pid = os.fork()
    if pid:
        os.close(out)
        os.close(err)
        os.write(told, b"%d\n" % pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(told, b"%d\n" % status)
        os._exit(0)
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    for fd in fds:
        os.close(fd)
    # The old ones believe that they lead where they led in the interpreter: to a file, say.
    sys.stdout = _stream(1, errors="strict")
    sys.stderr = _stream(2, errors="backslashreplace", buffering=1)
    module, words, folder, environment = order
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv = [module, *words]
    # Read when the product is imported, which has happened.
    crash = environment.get(faults.VARIABLE)
    with faults.armed(crash) if crash else contextlib.nullcontext():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _stream(fd: int, *, errors: str, buffering: int = -1) -> TextIO:
    return open(fd, "w", buffering, encoding="utf-8", errors=errors, closefd=False)


def _import_the_product() -> None:
    """Import what programs import, and nothing that starts threads: a fork would lose them."""
    commands = import_module("perdure.cli")
    for module in pkgutil.iter_modules(commands.__path__, "perdure.cli."):
        import_module(module.name)
    for name in _IMPORTED_LATER:
        with contextlib.suppress(ModuleNotFoundError):  # not all of them are everywhere
            import_module(name)
