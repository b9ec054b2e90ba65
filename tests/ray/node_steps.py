"""Steps that note on which node they run, for clusters that lose nodes: imported by workers."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.crash.ledger import executing
from tests.crash.steps import bytes_of, text_of

import perdure
from perdure import Static, task, workflow

LARGE_BYTES = 1_000_000  # more than Ray sends along with a task
PATIENCE_S = 120.0
DOOMED = {"doomed": 0.1}
"""What the node has that is going to be lost."""
SAFE = {"safe": 0.1}


def node_id() -> str:
    """Return the node on which this runs; "" where it is none of Ray's."""
    try:
        import ray
    except ImportError:
        return ""
    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


@task(lost_retries=5)
def make(n: int) -> bytes:
    with executing(node_id()):
        return bytes_of(str(n), LARGE_BYTES)


@task(lost_retries=5)
def derive(data: bytes) -> bytes:
    with executing(node_id()):
        return bytes_of(digest(data), LARGE_BYTES)


@task(lost_retries=5)
def hold(gate: str, answer: int = 0) -> int:
    """Run until the gate is open."""
    with executing(node_id()):
        until = time.monotonic() + PATIENCE_S
        while not Path(gate).exists():
            assert time.monotonic() < until, "the gate stays closed"
            threading.Event().wait(0.02)
        return answer


@task(lost_retries=5)
def measure(*parts: Any) -> str:
    with executing(node_id()):
        return text_of(squeezed(parts))


def squeezed(values: Iterable[Any]) -> list[Any]:
    """Return values with the digests of large ones in their place."""
    return [digest(each) if isinstance(each, bytes) else each for each in values]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@workflow
def losing_a_node(gate: str) -> str:
    """Large values of two nodes, some of them not kept, one of which is lost while a step runs."""
    source = make.options(name="source", resources=SAFE).bind(0)
    kept = make.options(name="kept", resources=DOOMED).bind(1)
    first = derive.options(name="first", checkpoint=False, resources=DOOMED).bind(source)
    second = derive.options(name="second", checkpoint=False, resources=DOOMED).bind(first)
    held = hold.options(name="held", resources=DOOMED, after=[kept, second]).bind(gate)
    return measure.options(name="last", resources=SAFE, after=held).bind(kept, second)


class Tally(perdure.Actor, snapshot=3):
    """Adds up; notes each call, also those that are made again."""

    def __init__(self) -> None:
        self.total = 0

    @perdure.method
    def add(self, n: int) -> int:
        with executing(node_id()):
            self.total += n
            return self.total


@workflow
def losing_an_actor(gate: str) -> int:
    """Five calls on a node, which is lost then, and two more."""
    tally = Tally.options(resources=DOOMED, lost_retries=5).bind()  # type: ignore[attr-defined]
    for n in range(5):
        last = tally.add.options(name=f"add-{n}").bind(n)
    held = hold.options(name="held", resources=SAFE, after=last).bind(gate)
    tally.add.options(name="add-5", after=held).bind(5)
    return tally.add.options(name="add-6").bind(6)


@perdure.actor(state="rebuild", gpus=1, lost_retries=5)
class Model:
    """Is made again from its constructor where there is a GPU."""

    def __init__(self, factor: int) -> None:
        with executing(node_id()):
            self.factor = factor

    def infer(self, n: int) -> int:
        with executing(node_id()):
            return self.factor * n


@workflow
def losing_a_model(gate: str) -> int:
    model = Model.bind(3)  # type: ignore[attr-defined]
    before = model.infer.options(name="before").bind(1)
    held = hold.options(name="held", resources=SAFE, after=before).bind(gate)
    return model.infer.options(name="after", after=held).bind(2)


# --- a pipeline over unequal nodes --------------------------------------------------------------
@task(cpus=1)
def decode(n: int) -> bytes:
    with executing(node_id()):
        return bytes_of(f"frame {n}", LARGE_BYTES)


@task(cpus=0, gpus=1)
def infer(frame: bytes) -> str:
    with executing(node_id()):
        return digest(frame)


@task(cpus=1, resources={"disk": 1})
def write(label: str) -> str:
    with executing(node_id()):
        return text_of(label)


@task(cpus=0, resources={"zone=b": 1})
def report(labels: list[str]) -> str:
    with executing(node_id()):
        return text_of(labels)


@workflow
def pipeline(count: Static[int] = 4) -> str:
    """CPU to GPU to CPU, and a step for nodes of one label."""
    return report.bind([write.bind(infer.bind(decode.bind(n))) for n in range(count)])


# --- any graph ----------------------------------------------------------------------------------
@task(lost_retries=-1, cpus=0.5)
def mix(number: int, inputs: list[Any]) -> str:
    with executing(node_id()):
        return text_of(
            number, [digest(each) if isinstance(each, bytes) else each for each in inputs]
        )


@task(lost_retries=-1, cpus=0.5)
def mix_large(number: int, inputs: list[Any]) -> bytes:
    with executing(node_id()):
        return bytes_of(text_of(number, squeezed(inputs)), LARGE_BYTES)


@workflow
def tangle(seed: Static[int], size: Static[int]) -> str:
    """A graph by chance: small values, large ones, and large ones that are not kept."""
    rng, nodes = random.Random(seed), []
    kinds = (mix, mix, mix_large, mix_large.options(checkpoint=False))
    for number in range(size):
        inputs = rng.sample(nodes[-12:], k=min(len(nodes), rng.choice([0, 1, 2, 3])))
        nodes.append(rng.choice(kinds).bind(number, inputs))
    return mix.options(name="last").bind(-1, nodes[-4:])
