"""What steps see of a real GPU, and that its memory is free once they are gone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.client import Perdure, open_store
from perdure.executors.gpus import usable_gpus

# Workers import the steps by name, so their folder has to be on the path that they are given.
sys.path.append(str(Path(__file__).parent))
import gpu_steps as steps

pytestmark = pytest.mark.gpu

HELD_MIB = 2048


def why_not() -> str:
    """Return why nothing can be tried here, or ""."""
    gpus = usable_gpus()
    if not gpus.found:
        return gpus.why_none or "no GPU is found here (nvidia-ml-py looks for it: perdure[gpu])"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else "torch is built without CUDA, or sees no GPU"


@pytest.fixture(scope="module", autouse=True)
def needs_a_gpu() -> None:
    if why := why_not():
        pytest.skip(why)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "perdure.db"), workers=4) as opened:
        yield opened


def test_step_computes_on_the_one_gpu_that_it_sees(client: Perdure) -> None:
    told, seen, product = client.run(steps.device.bind())

    assert told in [gpu.id for gpu in usable_gpus().found]
    assert seen == 1
    assert product == 64.0**3


def test_step_that_asks_for_no_gpu_sees_none(client: Perdure) -> None:
    assert client.run(steps.without.bind()) == (False, "")


def test_two_halves_share_a_gpu(client: Perdure) -> None:
    halves = client.run([steps.half.bind(n, 64) for n in range(2)])

    assert [mib for _, mib in halves] == [64, 64]
    assert len({told for told, _ in halves}) == 1


def test_memory_that_an_idle_worker_held_is_free_for_the_next_step(client: Perdure) -> None:
    before = client.run(steps.free_mib.bind())
    client.run([steps.half.bind(n, HELD_MIB) for n in range(2)])

    after = client.run(steps.free_mib.bind())

    # One process of two is used again, with what torch keeps there; the other one is gone.
    assert after > before - 1.5 * HELD_MIB


def test_pool_keeps_a_gpu_for_each_instance_and_gives_all_back_for_a_task_that_wants_them(
    client: Perdure,
) -> None:
    count = len(usable_gpus().found)
    model = steps.Holder.options(pool=count).bind(HELD_MIB)  # type: ignore[attr-defined]
    all_of_them = steps.free_of_all.options(gpus=count)
    before = client.run(all_of_them.bind())

    told = model.gpu.map(list(range(4 * count)))
    seen, after = client.run([told, all_of_them.options(after=told).bind()])

    assert set(seen) <= {gpu.id for gpu in usable_gpus().found}
    assert all(now > then - HELD_MIB / 2 for then, now in zip(before, after, strict=True))
