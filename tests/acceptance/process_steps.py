"""Steps that misbehave, for tests of worker processes."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from perdure.worker.context import current

FOR_EVER_S = 3600


def compute_natively() -> None:
    """Stay in native code for hours: no Python handler runs meanwhile."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def sleep_with_finally() -> None:
    try:
        threading.Event().wait(FOR_EVER_S)
    finally:
        print("cleaned up")


def stop_when_asked(folder: str) -> str:
    here = current()
    (Path(folder) / "begun").touch()
    while not here.should_stop():
        threading.Event().wait(0.01)
    return "saved"


def start_descendants(folder: str) -> None:
    """Start a child, a grandchild in the session, and a daemon that leaves it; then hang."""
    _start_descendants(Path(folder))
    threading.Event().wait(FOR_EVER_S)


def start_descendants_and_die(folder: str) -> None:
    _start_descendants(Path(folder))
    os._exit(1)


def _start_descendants(folder: Path) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "grandchild = subprocess.Popen(['sleep', '3600'])\n"
        "daemon = subprocess.Popen(['setsid', 'sleep', '3600'])\n"
        "print(os.getpid(), grandchild.pid, daemon.pid, flush=True)\n"
        "time.sleep(3600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pids = child.stdout.readline().split()
    (folder / "pids").write_text("\n".join(pids) + "\n\n")


def crash() -> None:
    print("before the crash")
    ctypes.string_at(0)


def exit_at_once() -> None:
    os._exit(3)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def abort() -> None:
    os.abort()


def terminate_itself() -> int:
    """Get a SIGTERM that nobody at perdure has sent."""
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(1)
    return 7


async def terminate_itself_later() -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(1)
    return 7


def interrupt_itself() -> int:
    """Get what a terminal sends at Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(0.01)
    return 7


async def interrupt_itself_later() -> int:
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.01)
    return 7


def nap() -> None:
    threading.Event().wait(0.05)


def own_pid() -> int:
    return os.getpid()


def leave_a_mess() -> int:
    """Change what belongs to the whole process, and end in a folder that is gone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    os.environ["PROCESS_STEPS_MESS"] = "1"
    sys.path.insert(0, "/nowhere")
    os.umask(0o007)
    signal.alarm(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return os.getpid()


def look_around() -> tuple[int, dict[str, Any]]:
    """Return the pid and what belongs to the whole process."""
    return os.getpid(), {
        "folder": os.getcwd(),
        "mess": os.environ.get("PROCESS_STEPS_MESS"),
        "path": list(sys.path),
        "mask": os.umask(0o022),
        "alarm": signal.alarm(0),
        "ignores_ctrl_c": signal.getsignal(signal.SIGINT) is not signal.SIG_DFL,
    }


def meet_another(folder: str) -> int:
    """Return the pid, once another call is in this function too."""
    (Path(folder) / f"met-{os.getpid()}").touch()
    until = time.monotonic() + 20
    while len(list(Path(folder).glob("met-*"))) < 2:
        assert time.monotonic() < until, "nobody else came"
        threading.Event().wait(0.01)
    return os.getpid()


def allocate_beyond_its_limit() -> int:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, before[1]))
    try:
        return len(bytearray(4 << 30))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def fork_a_lot(folder: str) -> None:
    """Let processes start processes, up to some hundreds at a time, until they are ended.

    If nobody ends them they give up by themselves: a test that fails shall not take the rest along.
    """
    code = (
        "import subprocess, sys, time\n"
        "until = time.monotonic() + 10\n"
        "while time.monotonic() < until:\n"
        "    depth = int(sys.argv[2])\n"
        "    if depth:\n"
        "        subprocess.Popen(['sh', '-c', 'sleep 5 & sleep 5', sys.argv[1]])\n"
        "        subprocess.Popen([sys.executable, '-c', sys.argv[3], sys.argv[1], "
        "str(depth - 1), sys.argv[3]])\n"
        "    time.sleep(0.2)\n"
    )
    subprocess.Popen([sys.executable, "-c", code, folder, "3", code])
    threading.Event().wait(FOR_EVER_S)


def touch_memory(size: int) -> int:
    return len(bytes(size).replace(b"\0", b"\1"))


def make_array(length: int) -> Any:
    import numpy

    return numpy.ones(length)


def speak_and_wait() -> None:
    print("python")
    subprocess.run(["echo", "child"], check=True)
    threading.Event().wait(FOR_EVER_S)


async def speak_and_wait_later() -> None:
    print("coroutine")
    await asyncio.sleep(FOR_EVER_S)


def speak_in_c() -> None:
    """Print through C's own buffers, which Python knows nothing of."""
    ctypes.CDLL(None).printf(b"from C\n")


def misuse_the_streams(how: str) -> None:
    """Do to the standard streams what a step should not."""
    print("before")
    if how == "close":
        sys.stdout.close()
    elif how == "close the number":
        os.close(1)
    elif how == "redirect":
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    else:
        sys.stdout = sys.stderr = None


def speak() -> None:
    print("as usual")


def number_of_inherited_descriptors() -> int:
    """Return how many descriptors a program that a step starts has beyond the standard ones."""
    script = "import os; print(len([fd for fd in os.listdir('/proc/self/fd') if int(fd) > 2]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, close_fds=False
    )
    return int(done.stdout) - 1  # the folder's own


async def nap_later() -> int:
    await asyncio.sleep(0.05)
    return os.getpid()


async def wait_for_ever() -> None:
    await asyncio.sleep(FOR_EVER_S)


async def block_the_loop() -> None:
    await asyncio.sleep(0)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)


def note(folder: str, name: str, wait_for: str = "", die: bool = False) -> str:
    """Write down that a call has begun, and in which process; wait for a file, or die."""
    with (Path(folder) / "begun").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    if die:
        os._exit(1)
    while wait_for and not (Path(folder) / wait_for).exists():
        threading.Event().wait(0.01)
    return name
