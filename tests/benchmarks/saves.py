"""What it costs a step to save a folder of which one file has changed.

    python -m tests.benchmarks.saves
    python -m tests.benchmarks.saves --mib 16 --rounds 1

A folder of 64 files of equal size, saved by a step that runs inline, over SQLite with full
durability: all of it for the first time, then after one file was written anew, then unchanged, and
its copy restored. The last column counts the bytes that were added to the blobs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tests.benchmarks.rounds import circumstances

import perdure
from perdure import task

FILES = 64


@task
def measured(folder: Path, blobs: Path) -> list[tuple[str, float, int]]:
    """Return for each thing that is done its name, its seconds and the bytes that it added."""
    here = perdure.current()
    found: list[tuple[str, float, int]] = []

    def timed(name: str, do: Callable[[], object]) -> None:
        before, began = size_of(blobs), time.perf_counter()
        do()
        found.append((name, time.perf_counter() - began, size_of(blobs) - before))

    timed("save all", lambda: here.save(folder, at=1))
    # What is hashed again while its time is that of the last tick of the clock is not measured.
    threading.Event().wait(0.1)
    timed("save unchanged", lambda: here.save(folder, at=2))
    for at in (3, 4, 5):
        changed = folder / "7.bin"
        changed.write_bytes(os.urandom(changed.stat().st_size))
        timed("save with one file changed", lambda at=at: here.save(folder, at=at))  # type: ignore[misc]
    timed("load", lambda: here.load(into=folder.with_name("restored")))
    return found


def size_of(folder: Path) -> int:
    """Return the bytes in all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def one_round(mib: int) -> list[tuple[str, float, int]]:
    """Make a folder and a store, and measure."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as whole:
        folder = Path(whole) / "state"
        folder.mkdir()
        for number in range(FILES):
            (folder / f"{number}.bin").write_bytes(os.urandom((mib << 20) // FILES))
        os.sync()
        threading.Event().wait(0.1)
        with perdure.open(str(Path(whole) / "store" / "perdure.db"), executor="inline") as client:
            blobs = Path(client.settings.blobs)
            found: list[tuple[str, float, int]] = client.run(measured.bind(folder, blobs))
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    added: dict[str, int] = {}
    for _ in range(given.rounds):
        for name, took, size in one_round(given.mib):
            seconds.setdefault(name, []).append(took)
            added[name] = size
    first = median(seconds["save all"])
    print(circumstances(given.rounds))
    print(f"| {given.mib} MiB in {FILES} files | ms | times the whole | MiB written |")
    print("|---|---|---|---|")
    for name, all_ in seconds.items():
        took = median(all_)
        mib = added[name] / (1 << 20)
        print(f"| {name} | {took * 1000:.1f} | {took / first:.3f} | {mib:.2f} |")


if __name__ == "__main__":
    main()
