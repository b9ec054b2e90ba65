"""Both executors under the one contract."""

from __future__ import annotations

from perdure.executors.contract import ExecutorContract
from perdure.executors.inline import InlineExecutor
from perdure.executors.processes import ProcessExecutor
from perdure.executors.protocol import Capacity, Executor


class TestInlineExecutor(ExecutorContract):
    def make_executor(self) -> Executor:
        return InlineExecutor()


class TestProcessExecutor(ExecutorContract):
    def make_executor(self) -> Executor:
        return ProcessExecutor(Capacity(cpus=2, slots=2))
