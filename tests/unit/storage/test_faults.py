"""Crash points: nothing outside tests, exact inside them."""

from __future__ import annotations

import pytest

from perdure_storage.errors import InternalError
from perdure_storage.faults import CRASH_POINTS, InjectedCrash, armed, crash_point


def test_crash_point_does_nothing_when_nothing_is_armed() -> None:
    for name in CRASH_POINTS:
        crash_point(name)


def test_crash_point_fires_at_its_hit_only() -> None:
    with armed("blob.after-rename:3:raise"):
        crash_point("blob.after-rename")
        crash_point("blob.opened")
        crash_point("blob.after-rename")
        with pytest.raises(InjectedCrash, match=r"blob\.after-rename"):
            crash_point("blob.after-rename")
        crash_point("blob.after-rename")


def test_crash_point_fires_at_every_hit_when_asked_to() -> None:
    with armed("commit.before:*:raise"):
        for _ in range(3):
            with pytest.raises(InjectedCrash):
                crash_point("commit.before")


def test_injected_crash_is_not_an_exception_that_code_may_swallow() -> None:
    assert not issubclass(InjectedCrash, Exception)


def test_several_entries_are_armed_together() -> None:
    with armed("claim.before:1:raise; claim.after:1:raise"):
        for name in ("claim.before", "claim.after"):
            with pytest.raises(InjectedCrash):
                crash_point(name)


def test_armed_ends_with_its_block() -> None:
    with armed("claim.before:*:raise"):
        pass

    crash_point("claim.before")


def test_crash_point_refuses_a_name_that_is_not_registered_while_armed() -> None:
    with armed("claim.before:9:raise"), pytest.raises(InternalError, match="not registered"):
        crash_point("no.such-point")


@pytest.mark.parametrize(
    "text",
    [
        "claim.before",
        "claim.before:1",
        "claim.before:x:raise",
        "no.such:1:raise",
        "claim.before:1:boil",
    ],
)
def test_malformed_entries_are_refused(text: str) -> None:
    with pytest.raises(InternalError), armed(text):
        pass


def test_there_are_crash_points_for_every_durable_change() -> None:
    assert len(CRASH_POINTS) >= 40
    assert all(meaning for meaning in CRASH_POINTS.values())
