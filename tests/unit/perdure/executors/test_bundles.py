"""Brief calls go to a worker together, but no more than arrive in a moment."""

from __future__ import annotations

from collections import deque

import pytest

from perdure.calls import CallId, StepCall
from perdure.executors import bundles
from perdure.executors.bundles import take_bundle
from perdure_storage.hashing import digest_of
from perdure_storage.records import Place, StoredValue


def stored(data: bytes) -> StoredValue:
    digest = digest_of(data)
    return StoredValue(
        codec="bytes/1",
        place=Place.INLINE,
        size_bytes=len(data),
        integrity=digest,
        value_digest=digest,
        data=data,
    )


def calls(*values: StoredValue, is_brief: bool = True) -> deque[StepCall]:
    return deque(
        StepCall(
            id=CallId("run", f"step{number}", 1, 1),
            function="f",
            values={"step:a": value},
            is_brief=is_brief,
        )
        for number, value in enumerate(values)
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "BUNDLE_BYTES", 3000)


def test_bundle_ends_before_the_call_whose_input_would_be_too_much() -> None:
    queue = calls(*(stored(bytes([n]) * 1000) for n in range(5)))

    bundle = take_bundle(queue, 100)

    assert [call.id.step_id for call in bundle] == ["step0", "step1", "step2"]
    assert [call.id.step_id for call in queue] == ["step3", "step4"]


def test_bundle_counts_an_input_of_several_calls_once() -> None:
    queue = calls(*[stored(bytes(2500))] * 50)

    assert len(take_bundle(queue, 40)) == 40


def test_bundle_has_one_call_however_large_its_input_is() -> None:
    queue = calls(stored(bytes(5000)), stored(bytes(10)))

    assert len(take_bundle(queue, 100)) == 1


def test_bundle_has_one_call_that_is_not_brief() -> None:
    queue = calls(stored(b"1"), stored(b"2"), is_brief=False)

    assert len(take_bundle(queue, 100)) == 1
