"""The Ray executor under the executors' contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.executors.contract import Bench, ExecutorContract
from perdure.executors.contract_steps import add
from perdure.executors.protocol import Executor
from perdure.executors.ray_executor import RayExecutor
from perdure.worker.saving import NoDesk


class KeptExecutor(RayExecutor):
    """Serves one test after the other: each new one would start a process of Ray's for itself."""

    def close(self) -> None:
        self.attend(NoDesk())
        for run_id in list(self._contexts):
            self.close_run(run_id)


@pytest.fixture(scope="module")
def kept(ray_here: None) -> Iterator[KeptExecutor]:
    executor = KeptExecutor()
    yield executor
    RayExecutor.close(executor)


class TestRayExecutor(ExecutorContract):
    @pytest.fixture(autouse=True)
    def use_kept(self, kept: KeptExecutor) -> None:
        self.kept = kept

    def make_executor(self) -> Executor:
        return self.kept

    def test_close_ends_calls_that_were_given_to_a_worker_and_have_not_begun(
        self, tmp_path: Path
    ) -> None:
        bench = Bench(RayExecutor(), tmp_path)

        super().test_close_ends_calls_that_were_given_to_a_worker_and_have_not_begun(bench)

    def test_close_is_idempotent(self, tmp_path: Path) -> None:
        executor = RayExecutor()
        Bench(executor, tmp_path).run_one(add, 1)

        executor.close()
        executor.close()

        assert executor.workers() == ()
