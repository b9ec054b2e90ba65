"""What a step pays for an input, and what it would save if workers kept the encoded bytes.

    python -m tests.benchmarks.inputs
    python -m tests.benchmarks.inputs --sizes 1000 100000 --rounds 1

All of it is CPU time, in microseconds. *Sent*: the value's way to a worker process, in a message
for one call and, of each call, in one for 256 that all take it; less what the message takes without
the value. *Read*: until the step's function has it, of the row or the blob as it is now, and of
bytes that were kept, which nobody hashes again; where the value keeps its bytes (an array), of a
copy of them, as no two steps may share what they can change. Then what a whole step takes,
coordinator and workers, in a chain in which each value is made of the one before, and in a fan-out
whose steps take one value and have nothing else to do; and which part of that would be saved in a
step that is in the worker which made its input.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import psutil
from tests.benchmarks.rounds import circumstances

import perdure
from perdure import Static, task, workflow
from perdure.calls import CallId, StepCall
from perdure.worker.frames import FrameBuffer, Work, decode_down, encode_frames
from perdure.worker.inputs import take_out
from perdure_storage.blobs import open_blobs
from perdure_storage.codecs import Codecs
from perdure_storage.records import Place, StoredValue
from perdure_storage.values import Values

SIZES = (100, 1_000, 10_000, 31_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
_TOGETHER = 256
_PIECE_BYTES = 1 << 18
_ENOUGH_BYTES = 50_000_000
_KEPT_BY_THE_VALUE = ("numpy", "pickle", "arrow")
Figures = dict[str, float]


# --- the steps --------------------------------------------------------------------------------
@task
def make(kind: str, size: int) -> Any:
    """Return a text or an array of so many bytes."""
    if kind == "array":
        return np.random.default_rng().random(size // 8)
    return os.urandom(size // 2).hex()


@task
def change(value: Any, number: int) -> Any:
    """Return another value of the same size."""
    return f"{number:09}{value[9:]}" if isinstance(value, str) else value + 1


@task
def look(value: Any, number: int) -> float:
    """Take a value, all of it."""
    return look_at(value) + number


@task
def total(numbers: list[float]) -> float:
    """Need all of them."""
    return sum(numbers)


@task
def begin(kind: str, number: int) -> float:
    """Import what values of the kind need, and take so long that every worker has one of these."""
    threading.Event().wait(0.5)
    return look_at(make.function(kind, 1000)) + number


@workflow
def warm_up(kind: Static[str]) -> float:
    """Have all workers there."""
    return total.bind([begin.bind(kind, number) for number in range(4 * (os.cpu_count() or 1))])


@workflow
def chain(kind: Static[str], size: Static[int], steps: Static[int]) -> float:
    """Make each value of the one before."""
    value = make.bind(kind, size)
    for number in range(steps):
        value = change.bind(value, number)
    return look.bind(value, 0)


@workflow
def fan_out(kind: Static[str], size: Static[int], steps: Static[int]) -> float:
    """Make one value that all others take."""
    value = make.bind(kind, size)
    return total.bind([look.bind(value, number) for number in range(steps)])


def look_at(value: Any) -> float:
    """Read all of an array; of a text nothing, which was read when it was decoded."""
    return len(value) if isinstance(value, str) else float(value.sum())


def whole_steps(kind: str, size: int, most_steps: int) -> Figures:
    """Return the CPU of a step in each workflow, over worker processes that are warm."""
    steps = min(most_steps, max(4, 200_000_000 // size))
    found: Figures = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        perdure.open(f"{folder}/perdure.db", executor="processes"),
    ):
        warm_up.run(kind)
        for name, flow in {"chain": chain, "fan out": fan_out}.items():
            flow.run(kind, 1000, 20)  # so that its functions are known to be brief
            before = cpu_s_of_all()
            flow.run(kind, size, steps)
            found[name] = (cpu_s_of_all() - before) / steps * 1e6
    return found


def cpu_s_of_all() -> float:
    """Return what this process and those below it have had of the CPUs."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


# --- the way to a worker, and the reading ---------------------------------------------------------
def sent(stored: StoredValue, together: int) -> Callable[[], None]:
    """Return what sends a value to calls in one message and receives them, once."""
    calls = [
        StepCall(
            id=CallId("run-1", f"look[{number}]", 1, 1),
            function="tests.benchmarks.inputs:look",
            values={"step:make": stored},
            idempotency_key=f"run-1/look[{number}]/1",
        )
        for number in range(together)
    ]

    def send() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            lighter, shared = take_out(calls)
            data = memoryview(encode_frames([Work(lighter, 1, shared)]))
            ours.setblocking(False)
            frames, bodies = FrameBuffer(), list[bytes]()
            while not bodies:
                if data:
                    try:
                        data = data[ours.send(data) :]
                    except BlockingIOError:
                        pass  # until something has been received
                bodies += frames.feed(theirs.recv(_PIECE_BYTES))
            work = decode_down(bodies[0])
            assert isinstance(work, Work)
            work.whole_calls()

    return send


def ways(values: Values, kind: str, size: int) -> tuple[StoredValue, dict[str, Callable[[], Any]]]:
    """Return a value as it was stored, and what is to be timed of it."""
    stored = values.store(make.function(kind, size))
    encoded = b"".join(values.codecs.encode(values.load(stored)).buffers)
    copies = stored.codec.startswith(_KEPT_BY_THE_VALUE)

    def read_kept() -> float:
        data = memoryview(bytearray(encoded) if copies else encoded)
        return look_at(values.codecs.decode(stored.codec, data))

    found: dict[str, Callable[[], Any]] = {
        "read": lambda: look_at(values.load(stored)),
        "read kept": read_kept,
    }
    if stored.place is Place.INLINE:
        without = msgspec.structs.replace(stored, data=None)
        found |= {
            "alone": sent(stored, 1),
            "alone, without": sent(without, 1),
            "together": sent(stored, _TOGETHER),
            "together, without": sent(without, _TOGETHER),
        }
    return stored, found


def cpu_us(do: Callable[[], Any], times: int) -> float:
    """Return what it takes of the CPU, once."""
    began = time.process_time()
    for _ in range(times):
        do()
    return (time.process_time() - began) / times * 1e6


def one_case(kind: str, size: int, rounds: int, most_steps: int, folder: Path) -> Figures:
    """Return the figures of values of a kind and size; of each the median of rounds in turn."""
    blobs = open_blobs(folder, "inputs", bind=True)
    stored, timed = ways(Values(Codecs(), blobs), kind, size)
    times = min(200, max(1, _ENOUGH_BYTES // size))
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for name in list(timed)[:: 1 if number % 2 else -1]:
            many = name.startswith("together")
            took = cpu_us(timed[name], max(1, times // (10 if many else 1)))
            found.setdefault(name, []).append(took / (_TOGETHER if many else 1))
        for name, took in whole_steps(kind, size, most_steps).items():
            found.setdefault(name, []).append(took)
    figures = {name: median(took) for name, took in found.items()}
    figures["bytes"] = len(stored.data or b"")
    return figures


def line(kind: str, size: int, figures: Mapping[str, float]) -> str:
    """Return a row of the table."""
    alone = figures.get("alone", 0.0) - figures.get("alone, without", 0.0)
    together = figures.get("together", 0.0) - figures.get("together, without", 0.0)
    kept = figures["read"] - figures["read kept"]
    of_chain, of_fan = (alone + kept) / figures["chain"], (together + kept) / figures["fan out"]
    shown = f"{alone:.1f} | {together:.1f}" if figures["bytes"] else "- | -"
    return (
        f"| {kind}, {size:,} | {shown} | {figures['read']:,.1f} | {figures['read kept']:,.1f} | "
        f"{figures['chain']:,.0f} | {of_chain:.1%} | {figures['fan out']:,.0f} | {of_fan:.1%} |"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.inputs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="BYTES")
    parser.add_argument("--kinds", nargs="+", default=["text", "array"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500, help="of a workflow at most")
    given = parser.parse_args(words)
    print(
        "| value, bytes | sent alone | sent to 256 | read | read kept | step of a chain | saved | "
        "step of a fan-out | saved |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in given.kinds:
        for size in given.sizes:
            with tempfile.TemporaryDirectory() as folder:
                figures = one_case(kind, size, given.rounds, given.steps, Path(folder))
            print(line(kind, size, figures), flush=True)
    print(f"\n{circumstances(given.rounds)}")


if __name__ == "__main__":
    main()
