"""The steps and workflows that are killed: each notes in the ledger when it runs.

Imported by name in workers, so that a kill meets real processes on the usual way.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.crash.ledger import executing

import perdure
from perdure import Failure, Static, task, workflow
from perdure.retry import Backoff
from perdure.worker.context import current

BLOB_BYTES = 40_000
LARGE_BYTES = 8_400_000  # more than is written in one piece
AT_ONCE = Backoff(0.01, 1.0, 0.01, 0.0)
STORE = "PERDURE_TEST_STORE"
GATE = "PERDURE_TEST_GATE"


def text_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def bytes_of(text: str, size: int = BLOB_BYTES) -> bytes:
    """Return bytes that hash to something else for each text."""
    block = hashlib.sha256(text.encode()).digest()
    return block * (size // len(block))


# --- one run with something of everything -------------------------------------------------------
@task
def start(n: int) -> int:
    with executing():
        return n + 1


@task
def make_blob(n: int, size: int) -> bytes:
    with executing():
        print("making a blob")
        return bytes_of(str(n), size)


@task(checkpoint=False)
def unkept(n: int) -> bytes:
    with executing():
        return bytes_of(f"unkept {n}")


@task(retries=3, backoff=AT_ONCE, lost_retries=-1)
def flaky(n: int) -> int:
    with executing():
        if current_attempt() == 1:
            raise ConnectionError("try again")
        return n * 10


@task(catch=True)
def hopeless(n: int) -> int:
    with executing():
        raise ValueError(f"never {n}")


@task
def measure(data: bytes) -> str:
    with executing():
        return hashlib.sha256(data).hexdigest()


@task
def gather(parts: list[Any], failure: Any) -> str:
    with executing():
        return text_of(parts, type(failure).__name__)


@workflow
def everything(n: int = 1) -> str:
    """Small and large values, the same large value twice, an unkept one, a retry and a catch."""
    first = start.bind(n)
    large = make_blob.bind(first, LARGE_BYTES)
    same = make_blob.options(name="same").bind(first, LARGE_BYTES)
    kept = make_blob.options(name="kept").bind(flaky.bind(first), BLOB_BYTES)
    parts = [measure.bind(large), measure.bind(same), measure.bind(unkept.bind(first))]
    return gather.bind([*parts, measure.bind(kept)], hopeless.bind(first))


def current_attempt() -> int:
    """Return the number of this attempt; outside of a run, as ``execute`` is, a later one."""
    return current().attempt if "PERDURE_TEST_LEDGER" in os.environ else 2


# --- a step that saves --------------------------------------------------------------------------
EPOCHS = 4


def weights_after(epoch: int) -> str:
    """Return what so many epochs lead to."""
    weights = ""
    for n in range(1, epoch + 1):
        weights = text_of(weights, n)
    return weights


@task(lost_retries=-1)
def train(epochs: int) -> str:
    """Go on from what was saved: right, and never less than what was said to be durable."""
    with executing():
        here = current()
        saved = here.load()
        at = saved.at if saved is not None else 0
        weights = (saved.value / "weights").read_text() if saved is not None else ""
        assert weights == weights_after(at), "I20: what was saved is not what comes back"
        told = _told()
        assert at >= _last(told), "I20: what was durable is lost"
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "data").write_bytes(bytes_of("data", BLOB_BYTES))
            for epoch in range(at + 1, epochs + 1):
                weights = text_of(weights, epoch)
                (Path(folder) / "weights").write_text(weights)
                here.save(Path(folder), at=epoch)
                if told is not None:
                    with open(told, "a") as file:
                        file.write(f"{epoch}\n")
        return weights


def _told() -> Path | None:
    """Return where steps note what was said to be durable; None where no ledger is kept."""
    ledger = os.environ.get("PERDURE_TEST_LEDGER")
    return None if ledger is None else Path(ledger).with_name(f"told-{current().run_id}")


def _last(told: Path | None) -> int:
    if told is None or not told.exists():
        return 0
    return int(told.read_text().split()[-1])


@workflow
def training(epochs: int = EPOCHS) -> str:
    return measure_text.bind(train.bind(epochs))


# --- an actor ---------------------------------------------------------------------------------
class Tally(perdure.Actor, snapshot=3):
    """Adds up. What fails leaves no instance, so that the next call has one made by replay."""

    def __init__(self) -> None:
        self.total = 0

    @perdure.method
    def add(self, n: int) -> int:
        self.total += n
        return self.total

    @perdure.method(catch=True)
    def refuse(self, n: int) -> int:
        self.total -= n
        raise ValueError(n)


@workflow
def acting(n: int = 1) -> int:
    tally = Tally.bind()
    tally.add.bind(start.bind(n))
    tally.add.bind(2)
    tally.refuse.bind(5)
    tally.add.bind(4)
    return tally.add.bind(8)


# --- steps that ask for something ---------------------------------------------------------------
@task
def ask(wish: str) -> str:
    """Ask the store to cancel or pause this very run, in the first attempt only."""
    with executing():
        if current_attempt() == 1:
            from perdure_storage.connect import open_run_store
            from perdure_storage.signing import KeyFile

            place = os.environ[STORE]  # those of tests on PostgreSQL are not signed
            key = None if "://" in place else KeyFile(Path(place).with_name("key"))
            store = open_run_store(place, key=key)
            if wish == "cancel":
                store.request_cancel(current().run_id)  # type: ignore[arg-type]
            else:
                store.request_pause(current().run_id, True)  # type: ignore[arg-type]
            store.close()
            # Longer than the time between two looks of the coordinator at requests.
            threading.Event().wait(0.2)
        return wish


@workflow
def wishing(wish: Static[str]) -> str:
    asked = ask.bind(wish)
    return measure_text.bind(measure_text.bind(asked))


@task
def measure_text(text: str) -> str:
    with executing():
        return text_of(text)


@task
def gated(text: str) -> str:
    """Fail until the gate is open."""
    with executing():
        gate = os.environ.get(GATE)
        if gate is not None and not Path(gate).exists():
            raise ValueError("not mended yet")
        return text_of(text)


@workflow
def mending(text: str = "x") -> str:
    return measure_text.bind(gated.bind(measure_text.bind(text)))


@workflow
def measuring(text: str = "x") -> str:
    """One short step after another one."""
    return measure_text.bind(measure_text.bind(text))


@workflow
def sleeping(seconds: float) -> str:
    return measure_text.options(after=perdure.sleep(seconds)).bind("awake")


# --- random graphs ------------------------------------------------------------------------------
@task(lost_retries=-1)
def mix(number: int, inputs: list[Any]) -> str:
    with executing():
        return text_of(number, [squeeze(value) for value in inputs])


@task(lost_retries=-1)
def mix_large(number: int, inputs: list[Any]) -> bytes:
    with executing():
        return bytes_of(text_of(number, [squeeze(value) for value in inputs]))


@task(lost_retries=-1, checkpoint=False)
def mix_unkept(number: int, inputs: list[Any]) -> bytes:
    with executing():
        return bytes_of(text_of(number, [squeeze(value) for value in inputs]))


@task(lost_retries=-1, retries=100, backoff=AT_ONCE)
def mix_flaky(number: int, inputs: list[Any]) -> str:
    with executing():
        if current_attempt() == 1:
            raise ConnectionError("try again")
        return text_of(number, [squeeze(value) for value in inputs])


@task(lost_retries=-1)
async def mix_later(number: int, inputs: list[Any]) -> str:
    import asyncio

    with executing():
        await asyncio.sleep(0.005)
        return text_of(number, [squeeze(value) for value in inputs])


def squeeze(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


KINDS = (mix, mix, mix_large, mix_unkept, mix_flaky, mix_later)


@workflow
def random_graph(seed: Static[int], size: Static[int]) -> list[Any]:
    """A graph of ``size`` steps of mixed kinds, the same for the same seed."""
    rng = random.Random(seed)
    return ends_of(rng, size, KINDS)


@workflow
def plain_random_graph(seed: Static[int], size: Static[int]) -> list[Any]:
    """As above without retries, which cannot be executed eagerly the same way."""
    return ends_of(random.Random(seed), size, (mix, mix, mix_large))


def ends_of(rng: random.Random, size: int, kinds: Sequence[Any]) -> list[Any]:
    nodes: list[Any] = []
    for number in range(size):
        reach = nodes[-12:]
        inputs = rng.sample(reach, k=min(len(reach), rng.choice([0, 1, 1, 2, 3])))
        nodes.append(rng.choice(kinds).bind(number, inputs))
    return nodes[-4:]


# --- graphs that grow ---------------------------------------------------------------------------
@task(lost_retries=-1)
def numbers(n: int) -> list[int]:
    with executing():
        return list(range(n))


@task(lost_retries=-1)
def note(number: int, salt: str) -> str:
    with executing():
        return text_of(number, salt)


@task(lost_retries=-1)
def note_large(number: int) -> bytes:
    with executing():
        return bytes_of(f"large {number}")


@task(lost_retries=-1)
def down(number: int, text: str = "") -> str:
    """A chain of tail calls, each with a step beside it."""
    with executing():
        if number == 0:
            return text_of(text)
        return down.bind(number - 1, note.bind(number, text))


@task(lost_retries=-1)
def split(low: int, high: int) -> str:
    """Divide and conquer: recursion that is no tail call."""
    with executing():
        if high - low < 2:
            return text_of(low)
        middle = (low + high) // 2
        return measure_text.options(lost_retries=-1).bind(
            join.bind(split.bind(low, middle), split.bind(middle, high))
        )


@task(lost_retries=-1)
def join(left: str, right: str) -> str:
    with executing():
        return text_of(left, right)


@task(lost_retries=-1, catch=True)
def guarded(n: int) -> str:
    """Its graph fails, which is its value."""
    with executing():
        first = note.bind(n, "guarded")
        return join.bind(first, fails.bind(first))


@task(lost_retries=-1)
def fails(text: str) -> str:
    with executing():
        raise ValueError(f"never {text}")


@task(lost_retries=-1)
def mapped_within(numbers: list[int]) -> list[str]:
    """A map inside a graph inside a run."""
    with executing():
        return note.map(numbers, salt="within")


@task(lost_retries=-1)
def gather_all(*parts: Any) -> str:
    with executing():
        return text_of([squeeze_all(part) for part in parts])


def squeeze_all(value: Any) -> Any:
    if isinstance(value, list):
        return [squeeze_all(item) for item in value]
    return type(value).__name__ if isinstance(value, Failure) else squeeze(value)


@workflow
def growing(n: int = 3) -> str:
    """Maps, over maps too, of large values, tail calls, recursion, a failure caught below."""
    xs = numbers.bind(n)
    larges = note_large.map(xs)
    noted = note.map(xs, salt="s")
    return gather_all.bind(
        noted,
        note.options(name="onward").map(note.options(name="twice").map(noted, salt="t"), salt="u"),
        note.options(name="chunked", chunk=2).map([*range(3)], salt="c"),
        larges,
        measure.options(lost_retries=-1).bind(larges[1]),
        down.bind(n),
        split.bind(0, n),
        guarded.bind(n),
        mapped_within.bind(xs),
    )


@task
def take(x: Any) -> Any:
    with executing():
        return x


@task
def counted(x: int) -> int:
    with executing():
        return x + 1


def is_three(x: int) -> bool:
    return x >= 3


def endless(n: int) -> Any:
    """Return a node that nobody will ever see the end of, with one that only it needs."""
    return take.options(name="loser", after=perdure.wait_signal("nobody sends this")).bind(n)


@workflow
def deciding(n: int = 2) -> str:
    """Branches within branches, one of them a map, a loop, and waits that are over at once."""
    odd = take.options(name="odd").bind(n)
    maps = note.map([1, 2], salt="s")
    inner = perdure.when(odd, maps, take.options(name="never").bind(1))
    cases = {1: take.options(name="one").bind(0), 2: inner}
    return gather_all.bind(
        perdure.switch(take.options(name="key").bind(n), cases, default=down.bind(2)),
        perdure.loop(counted, 0, until=is_three, max_iterations=5),
        perdure.wait_signal("never", timeout=0.0, default="late"),
        perdure.get(perdure.wait([odd, maps, inner], num_returns=3)[0]),
        perdure.get(perdure.wait([odd, endless(n)], cancel_rest=True)[0]),
        perdure.sleep(0.0),
    )


@workflow
def asking(n: int = 2) -> str:
    """A time, a signal and an event, each waited for after a step."""
    first = take.options(name="first").bind(n)
    answer = perdure.wait_signal("go", int, after=first)
    event = perdure.wait_event("landed", match={"n": 1}, after=answer)
    nap = perdure.sleep(0.05, after=event)
    return gather_all.bind(first, answer, take.options(name="last", after=nap).bind(event))


# --- values that get lost -----------------------------------------------------------------------
@task
def gated_size(data: bytes) -> str:
    """As ``gated``, over a large value."""
    with executing():
        gate = os.environ.get(GATE)
        if gate is not None and not Path(gate).exists():
            raise ValueError("not mended yet")
        return hashlib.sha256(data).hexdigest()


@workflow
def losing(n: int = 1) -> str:
    return gated_size.bind(make_blob.bind(start.bind(n), BLOB_BYTES))


@task
def unwrap(value: Any) -> str:
    """Squeeze a value, so that results stay small."""
    with executing():
        return squeeze(value)
