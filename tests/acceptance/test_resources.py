"""GPUs that a step sees, and memory that it may take: in worker processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from perdure.calls import Outcome, StepCall
from perdure.executors.contract import Bench
from perdure.executors.processes import ProcessExecutor
from perdure.executors.protocol import Capacity
from perdure_storage.records import Cause

# Workers import the steps by name, so their folder has to be on the path that they are given.
sys.path.append(str(Path(__file__).parent))
import resource_steps as steps

MIB = 1 << 20


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(Capacity(cpus=2, gpu_ids=("3", "5"), slots=4))
    yield executor
    executor.close()


@pytest.fixture
def bench(executor: ProcessExecutor, tmp_path: Path) -> Bench:
    return Bench(executor, tmp_path / "blobs")


class Calls:
    """Makes calls of one function, all of one run."""

    def __init__(self, bench: Bench, function: Callable[..., Any], *args: Any) -> None:
        self._bench = bench
        self._args = [bench.constant(arg) for arg in args]
        self._name = bench.function(function)
        bench.open()

    def make(self, **options: Any) -> StepCall:
        return self._bench.call(self._name, *self._args, **options)

    def run(self, **options: Any) -> Outcome:
        (outcome,) = self._bench.run(self.make(**options))
        return outcome

    def value(self, **options: Any) -> Any:
        outcome = self.run(**options)
        assert outcome.value is not None, outcome.error
        return self._bench.values.load(outcome.value)


def test_step_sees_its_gpus_alone_before_its_module_is_imported(bench: Bench) -> None:
    at_import, now, _ = Calls(bench, steps.see_gpus).value(gpu_ids=("5",))

    assert (at_import, now) == ("5", "5")


def test_step_that_asks_for_no_gpu_sees_none(bench: Bench) -> None:
    assert Calls(bench, steps.see_gpus).value()[:2] == ("", "")


def test_async_step_sees_its_gpus_alone(bench: Bench) -> None:
    calls = Calls(bench, steps.see_gpus_async)

    (first, one), (second, other) = calls.value(gpu_ids=("3",)), calls.value(gpu_ids=("5",))

    assert (first, second) == ("3", "5")
    assert one != other


def test_steps_see_what_the_coordinator_does_where_no_gpus_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    executor = ProcessExecutor(Capacity(cpus=1, slots=1))

    seen = Calls(Bench(executor, tmp_path / "blobs"), steps.see_gpus).value()
    executor.close()

    assert seen[0] == "7"


def test_worker_that_had_other_gpus_is_not_used_again(bench: Bench) -> None:
    calls = Calls(bench, steps.see_gpus)

    pids = [calls.value(gpu_ids=ids)[2] for ids in (("3",), ("5",), ("5",), ("3",))]

    assert pids[1] == pids[2]
    assert pids[0] == pids[3]
    assert pids[0] != pids[1]


def test_idle_worker_that_holds_a_gpu_is_gone_before_it_is_given_to_another_kind(
    bench: Bench,
) -> None:
    calls = Calls(bench, steps.see_gpus)
    had_both = calls.value(gpu_ids=("3", "5"))[2]

    _, seen, pid = calls.value(gpu_ids=("3",))

    assert seen == "3"
    assert pid != had_both
    assert not psutil.pid_exists(had_both)


def test_step_with_a_whole_gpu_finds_no_other_worker_on_it(bench: Bench) -> None:
    calls = Calls(bench, steps.see_gpus)
    together = [calls.make(gpu_ids=("3",), shares_gpu=True) for _ in range(2)]
    outcomes = bench.run(*together)
    before = {bench.values.load(outcome.value)[2] for outcome in outcomes if outcome.value}

    after = calls.value(gpu_ids=("3",))[2]

    assert [pid for pid in before if psutil.pid_exists(pid)] == [after]


def test_attempt_beyond_its_memory_is_ended_as_out_of_memory(bench: Bench) -> None:
    calls = Calls(bench, steps.take_memory, 300)

    outcome = calls.run(memory_bytes=100 * MIB)

    assert outcome.cause is Cause.OUT_OF_MEMORY
    assert outcome.error is not None
    assert "asked for memory=100.0 MiB" in outcome.error.message


def test_memory_of_processes_below_a_step_counts(bench: Bench) -> None:
    outcome = Calls(bench, steps.take_memory_below, 300).run(memory_bytes=100 * MIB)

    assert outcome.cause is Cause.OUT_OF_MEMORY


def test_memory_that_forks_share_counts_once(bench: Bench) -> None:
    calls = Calls(bench, steps.share_memory_with_children, 150, 0.7)

    assert calls.value(memory_bytes=200 * MIB) == 150


def test_attempt_within_its_memory_runs_to_its_end(bench: Bench) -> None:
    calls = Calls(bench, steps.take_memory_briefly, 80)

    assert [calls.value(memory_bytes=100 * MIB) for _ in range(3)] == [80, 80, 80]


def test_worker_in_which_too_much_was_left_is_not_used_again(bench: Bench) -> None:
    calls = Calls(bench, steps.keep_memory, 150)

    first = calls.value(memory_bytes=300 * MIB)
    same = calls.value(memory_bytes=400 * MIB)
    other = calls.value(memory_bytes=200 * MIB)

    assert first == same
    assert other != first
