"""Steps that hold a worker in native code, with children of their own, for the kills of others."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.crash.ledger import executing
from tests.crash.steps import GATE, text_of

from perdure import task, workflow
from perdure.worker.context import current

_BEATS = """
import os, sys, time
while True:
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (repr(time.monotonic()) + " " + str(os.getpid()) + "\\n").encode())
    os.close(fd)
    time.sleep(0.005)
"""


@task
def hold(number: int) -> str:
    """Hang in native code beneath beating children, until the gate is open."""
    with executing():
        gate = Path(os.environ[GATE])
        if not gate.exists():
            beats = gate.with_name(f"beats-{number}-{current().attempt}")
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for words in ([], ["setsid"]):
                subprocess.Popen([*words, sys.executable, "-S", "-E", "-c", _BEATS, str(beats)])
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
        return text_of(number)


@task
def join(texts: list[str]) -> str:
    with executing():
        return text_of(texts)


@workflow
def holding() -> str:
    """Two steps that hold, and one after them."""
    return join.bind([hold.bind(1), hold.bind(2)])


@task
def slow(number: int) -> str:
    """Take until the file of this attempt is there."""
    with executing():
        gate = Path(os.environ[GATE])
        release = gate.with_name(f"release-{current().attempt}")
        while not release.exists():
            subprocess.run(["sleep", "0.02"], check=True)
        return text_of(number)


@workflow
def slowly() -> str:
    return join.bind([slow.bind(1)])
