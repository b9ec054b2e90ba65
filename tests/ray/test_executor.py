"""The Ray executor under the executors' contract."""

from __future__ import annotations

import pytest

from perdure.executors.contract import ExecutorContract
from perdure.executors.protocol import Executor
from perdure.executors.ray_executor import RayExecutor


@pytest.mark.usefixtures("ray_here")
class TestRayExecutor(ExecutorContract):
    def make_executor(self) -> Executor:
        return RayExecutor()
