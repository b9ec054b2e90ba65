from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure_scheduler.durations import duration, text_of
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.policies import (
    Allow,
    CancelRunning,
    CatchupAll,
    CatchupLatest,
    CatchupNone,
    Continue,
    PauseAfter,
    Queue,
    QueueAll,
    Skip,
    catchup_of,
    dst_of,
    on_failure_of,
    overlap_of,
)
from perdure_scheduler.zones import Dst, Fold, Gap
from perdure_storage.durations import LONGEST

WEEK = timedelta(weeks=1)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (overlap_of, "skip", Skip()),
        (overlap_of, "queue", Queue(max=1)),
        (overlap_of, "queue()", Queue(max=1)),
        (overlap_of, "queue(3)", Queue(max=3)),
        (overlap_of, " queue( max = 3 ) ", Queue(max=3)),
        (overlap_of, "queue_all(max=100)", QueueAll(max=100)),
        (overlap_of, "cancel_running", CancelRunning()),
        (overlap_of, "allow(4)", Allow(max=4)),
        (catchup_of, "none", CatchupNone()),
        (catchup_of, "latest", CatchupLatest()),
        (catchup_of, "all(10)", CatchupAll(max=10)),
        (catchup_of, "all(max=10, window=7d)", CatchupAll(max=10, window=WEEK)),
        (catchup_of, "all(window=1w, max=10)", CatchupAll(max=10, window=WEEK)),
        (on_failure_of, "continue", Continue()),
        (on_failure_of, "pause_after(3)", PauseAfter(runs=3)),
        (dst_of, "gap=skip", Dst(gap=Gap.SKIP)),
        (dst_of, "fold=both, gap=shift", Dst(fold=Fold.BOTH)),
    ],
)
def test_a_policy_is_read_from_its_text_and_writes_it(
    read: Callable[[Any], Any], text: str, value: Any
) -> None:
    assert read(text) == value
    assert read(value) == value
    assert read(str(value)) == value


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (overlap_of, "skp", r"overlap='skp': write skip \| queue\(max=1\) \| queue_all\(max=100\)"),
        (overlap_of, None, "overlap=None: write skip"),
        (overlap_of, "latest", "overlap='latest': write skip"),
        (overlap_of, "queue(0)", "write at least 1, or overlap='skip'"),
        (overlap_of, "queue(many)", r"for example queue\(max=1\)"),
        (overlap_of, "queue(1, 2)", "it takes max=..."),
        (overlap_of, "queue(n=1)", "'n=1' is not understood: it takes max=..."),
        (overlap_of, "queue_all", r"`max`; for example queue_all\(max=100\)"),
        (overlap_of, "skip(1)", "it takes nothing in brackets"),
        (catchup_of, "all", r"for example all\(max=10, window=7d\)"),
        (catchup_of, "all(max=1, window=soon)", "window='soon' is not a duration"),
        (catchup_of, "all(max=1, window=0s)", "catches nothing up"),
        (on_failure_of, "pause_after", r"for example pause_after\(runs=3\)"),
        (on_failure_of, "stop", r"write continue \| pause_after\(runs=3\)"),
        (dst_of, "gap=jump", "write 'gap=shift' or 'gap=skip'"),
        (dst_of, "spring", "write 'gap=shift' or 'gap=skip'"),
        (dst_of, 1, "write 'gap=shift'"),
    ],
)
def test_what_is_no_policy_is_refused_with_what_to_write(
    read: Callable[[Any], Any], text: Any, message: str
) -> None:
    with pytest.raises(ScheduleError, match=message):
        read(text)


@given(st.timedeltas(timedelta(0), LONGEST))
def test_a_duration_is_read_from_its_text(length: timedelta) -> None:
    assert duration(text_of(length), what="x") == length


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("1h 30min", 5400), ("0.5d", 43200), (5, 5), (WEEK, 604800)],
)
def test_durations_as_people_write_them(value: Any, seconds: int) -> None:
    assert duration(value, what="x") == timedelta(seconds=seconds)


NO_DURATIONS = ["", "5", "5 parsecs", "1e9w", -1, float("nan"), True]


@pytest.mark.parametrize("value", [*NO_DURATIONS, None, []])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ScheduleError, match=r"grace=.*is not a duration"):
        duration(value, what="grace")


@pytest.mark.parametrize("value", ["36501d", "999999999999d", float("inf"), timedelta.max])
def test_what_is_longer_than_any_duration_is_refused_with_the_longest(value: Any) -> None:
    with pytest.raises(ScheduleError, match=r"grace=.*36500d at most"):
        duration(value, what="grace")
