"""Both executors under the one contract."""

from __future__ import annotations

from perdure.executors import contract_steps as steps
from perdure.executors.contract import Bench, ExecutorContract
from perdure.executors.inline import InlineExecutor
from perdure.executors.processes import ProcessExecutor
from perdure.executors.protocol import Capacity, Executor
from perdure_storage.records import Cause


class TestInlineExecutor(ExecutorContract):
    def make_executor(self) -> Executor:
        return InlineExecutor()

    def test_calls_come_back_when_their_run_is_handed_over(self, bench: Bench) -> None:
        one, name = bench.constant(1), bench.function(steps.add)
        bench.open()
        calls = [bench.call(name, one) for _ in range(3)]

        bench.executor.submit(calls)
        bench.executor.hand_over([call.id for call in calls[1:]])

        ran, *back = bench.outcomes(*calls)
        assert ran.cause is Cause.SUCCEEDED
        assert [outcome.cause for outcome in back] == [Cause.ABANDONED] * 2


class TestProcessExecutor(ExecutorContract):
    def make_executor(self) -> Executor:
        return ProcessExecutor(Capacity(cpus=2, slots=2))
