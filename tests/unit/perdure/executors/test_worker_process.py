from __future__ import annotations

from perdure.calls import CallId, StepCall
from perdure.executors.worker_process import WorkerKey, needed_constants
from perdure.plan import Const, DictArg, FromStep, ListArg, ObjectArg


def test_needed_constants_are_found_at_any_depth() -> None:
    call = StepCall(
        id=CallId("r", "s", 1, 1),
        function="f",
        args=(ListArg((Const(0), FromStep("x"))),),
        kwargs={
            "d": DictArg((Const(1),), (Const(2),)),
            "o": ObjectArg(Const(3), {"field": Const(4)}),
        },
        retry_on=5,
    )

    assert needed_constants(call) == {0, 1, 2, 3, 4, 5}


def test_worker_keys_are_compared_by_value() -> None:
    assert WorkerKey(is_async=True) == WorkerKey(is_async=True, folder=None)
    assert WorkerKey(is_async=True) != WorkerKey(is_async=True, folder="/recorded")
    assert len({WorkerKey(is_async=False), WorkerKey(is_async=False)}) == 1
