"""Steps that save while they run: each notes what it found and did in a file."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import perdure
from perdure import task, workflow
from perdure.retry import Backoff

AT_ONCE = Backoff(0.01, 1.0, 0.01, 0.0)
LARGE = 100_000


def note(folder: str, text: str) -> None:
    with open(Path(folder) / "notes", "a") as file:
        file.write(text + "\n")


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not come"
        threading.Event().wait(0.01)


def _count(folder: str, upto: int, fails_at: tuple[int, ...], size: int) -> int:
    here = perdure.current()
    saved = here.load()
    note(folder, f"from {saved.at if saved else None}")
    total = saved.value["total"] if saved else 0
    for n in range(saved.at + 1 if saved else 1, upto + 1):
        total += n
        here.save({"total": total, "ballast": b"x" * size}, at=n)
        flag = Path(folder) / f"failed-{n}"
        if n in fails_at and not flag.exists():
            flag.touch()
            raise OSError(f"at {n}")
    return total


@task(retries=5, backoff=AT_ONCE)
def count(folder: str, upto: int, fails_at: tuple[int, ...] = (), size: int = 0) -> int:
    return _count(folder, upto, fails_at, size)


@task
def count_once(folder: str, upto: int, fails_at: tuple[int, ...] = ()) -> int:
    return _count(folder, upto, fails_at, 0)


@task(retries=5, backoff=AT_ONCE)
async def count_async(folder: str, upto: int, fails_at: tuple[int, ...] = ()) -> int:
    here = perdure.current()
    saved = here.load()
    note(folder, f"from {saved.at if saved else None}")
    total = saved.value if saved else 0
    for n in range(saved.at + 1 if saved else 1, upto + 1):
        await asyncio.sleep(0)
        total += n
        if n % 2:
            here.save(total, at=n)
        else:
            await asyncio.to_thread(here.save, total, at=n)
        flag = Path(folder) / f"failed-{n}"
        if n in fails_at and not flag.exists():
            flag.touch()
            raise OSError(f"at {n}")
    return total


@task(lost_retries=-1)
def count_and_die(folder: str, upto: int) -> int:
    here = perdure.current()
    saved = here.load()
    note(folder, f"from {saved.at if saved else None}")
    total = saved.value if saved else 0
    for n in range(saved.at + 1 if saved else 1, upto + 1):
        total += n
        here.save(total, at=n)
        if n < upto:
            os._exit(1)
    return total


@task(retries=2, backoff=AT_ONCE)
def in_folders(folder: str) -> str:
    here = perdure.current()
    saved = here.load()
    if saved is None:
        state = Path(folder) / "state"
        state.mkdir()
        (state / "large").write_bytes(b"x" * LARGE)
        (state / "at").write_text("1")
        here.save(state, at=1)
        (state / "at").write_text("2")
        here.save(state, at=2)
        raise OSError("after the second save")
    (saved.value / "large").write_bytes(b"changed by the second attempt")
    again = here.load(into=Path(folder) / "again")
    assert again is not None
    return f"{saved.at} {(saved.value / 'at').read_text()} {(again.value / 'large').stat().st_size}"


@task(retries=1, backoff=AT_ONCE)
def keeps_three(folder: str) -> list[int | None]:
    here = perdure.current()
    if here.load() is None:
        for at in range(1, 6):
            here.save(at, at=at, keep_last=3)
        raise OSError("again")
    found = [here.load(at=at) for at in range(1, 6)]
    return [each and each.value for each in found]


@task(retries=1, backoff=AT_ONCE)
def item(folder: str, n: int) -> int:
    here = perdure.current()
    saved = here.load()
    if saved is None:
        here.save(n * 10, at=n)
    return n if saved is None else saved.value


@task
def hands_over(folder: str) -> str:
    here = perdure.current()
    saved = here.load()
    if saved is not None:
        return f"went on from {saved.at}"
    (Path(folder) / "begun").touch()
    until = time.monotonic() + 30
    while not here.should_stop():
        assert time.monotonic() < until, "nobody asks"
        threading.Event().wait(0.01)
    here.save("half", at=1)
    here.stop()


@task
def stops_unasked() -> None:
    perdure.current().stop()


@task
def tells(folder: str) -> str:
    here = perdure.current()
    here.progress(1, 4, "loading")
    threading.Event().wait(1.1)
    here.progress(2, 4, "loss 0.5")
    (Path(folder) / "told").touch()
    wait_for(Path(folder) / "go")
    return "done"


@task
def saves_badly(folder: str, what: str) -> str:
    here = perdure.current()
    try:
        if what == "lock":
            here.save(threading.Lock(), at=1)
        elif what == "link":
            (Path(folder) / "state").mkdir()
            (Path(folder) / "state" / "link").symlink_to("/etc/passwd")
            here.save(Path(folder) / "state", at=1)
        elif what == "file":
            (Path(folder) / "file").touch()
            here.save(Path(folder) / "file", at=1)
        else:
            here.save(1, at="one")  # type: ignore[arg-type]
    except perdure.PerdureError as error:
        return f"{type(error).__name__}: {error}"
    return "saved"


@workflow
def counting(folder: str, upto: int = 3, fails_at: list[int] | None = None, size: int = 0) -> int:
    return count.bind(folder, upto, fails_at, size)


@task
def tells_badly(message: Any) -> str:
    perdure.current().progress(1, 2, message)
    return "done"
