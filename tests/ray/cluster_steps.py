"""Steps that the tests on Ray run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import perdure
from perdure import actor, method, task


def note(folder: str, name: str) -> None:
    (Path(folder) / f"{name}.tmp").write_text(str(os.getpid()))
    (Path(folder) / f"{name}.tmp").rename(Path(folder) / name)


@task
def add(left: int, right: int = 1) -> int:
    return left + right


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task(lost_retries=0)
def die(folder: str) -> None:
    os.kill(os.getpid(), 9)


@task
def die_once(folder: str, by: int = 9) -> str:
    if perdure.current().attempt == 1:
        os.kill(os.getpid(), by)
        time.sleep(60)
    return "alive"


def sleep_with_children(folder: str) -> None:
    """Sleep, interruptibly, with a child and a child of a child."""
    subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60; true"], start_new_session=True)
    note(folder, "begun")
    try:
        time.sleep(60)
    finally:
        note(folder, "cleaned")


def compute_with_children(folder: str) -> None:
    """Be in native code for a minute, deaf, with a child and a child of a child."""
    subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60; true"], start_new_session=True)
    note(folder, "begun")
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 100_000_000)


def exit_in_the_middle(number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


def wait_for(folder: str, name: str) -> str:
    while not (Path(folder) / name).exists():
        time.sleep(0.01)
    return name


def touch(folder: str, name: str) -> str:
    note(folder, name)
    return name


async def sleep_long(folder: str) -> None:
    import asyncio

    note(folder, "begun")
    await asyncio.sleep(60)


@actor
class Counter:
    def __init__(self, start: int) -> None:
        self.count = start

    def up(self, by: int = 1) -> int:
        self.count += by
        return self.count

    def up_or_die(self, folder: str) -> int:
        if not (Path(folder) / "died").exists():
            note(folder, "died")
            os.kill(os.getpid(), 9)
        self.count += 1
        return self.count

    @method(readonly=True)
    def pid(self) -> int:
        return os.getpid()
