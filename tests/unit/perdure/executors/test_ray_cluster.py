"""What is asked of Ray for calls and actors."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.calls import CallId, StepCall
from perdure.executors.ray_cluster import request_of_actor


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ({"cpus": 2.0}, {}),  # a place with CPUs, which is no head that is to have no work
        ({"cpus": 1.0, "resources": {"zone=b": 1.0}}, {"label_selector": {"zone": "b"}}),
        ({"cpus": 0.0}, {"num_cpus": 0}),
        ({"cpus": 1.0, "gpus": 1.0}, {"num_cpus": 0, "num_gpus": 1.0}),
        ({"cpus": 1.0, "resources": {"disk": 1.0}}, {"num_cpus": 0, "resources": {"disk": 1.0}}),
    ],
)
def test_actor_holds_no_cpus_between_its_calls_and_is_where_there_are_some(
    held: dict[str, Any], asked: dict[str, Any]
) -> None:
    call = StepCall(id=CallId("run", "Sum", 1, 1), function="f", **held)

    assert request_of_actor(call) == asked
