from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.perdure.view.test_page import Page

from perdure.view.bars import ROWS_UP_TO, draw_timeline
from perdure.view.model import SpanView, TimelineView

START = datetime(2026, 1, 5, 12, tzinfo=UTC)


def drawn(spans: list[SpanView]) -> Page:
    end = max(span.end for span in spans)
    timeline = TimelineView(begin=START, seconds=end, spans=tuple(spans))
    return Page(str(draw_timeline(timeline, {"s0": "step-0"})))


def test_steps_have_rows_in_which_what_they_waited_is_thinner_than_what_they_ran() -> None:
    page = drawn(
        [
            SpanView("s0", "queued", 0.0, 1.0),
            SpanView("s0", "FAILED", 1.0, 2.0, 1, "host/1"),
            SpanView("s0", "SUCCEEDED", 3.0, 4.0, 2, "host/1"),
            SpanView("s1", "SUCCEEDED", 4.0, 8.0, 1, "host/2"),
            SpanView("s1", "waited", 8.0, 9.0),
        ]
    )

    assert [row["data-step"] for row in page.of_class("row")] == ["s0", "s1"]
    heights = {(bar["class"] or ""): float(bar["height"] or 0) for bar in page.of_class("span")}
    assert heights["span queued"] < heights["span s-succeeded"]
    assert len(page.of_class("s-failed")) == 1
    assert "s0, attempt 1: failed, 1.0 s on host/1" in page.text
    assert "s0 waited to begin for 1.0 s" in page.text
    assert [link["href"] for link in page.named("a")] == ["#step-0"]


def test_of_very_many_steps_the_rows_are_those_of_workers() -> None:
    spans = [
        SpanView(f"s{n}", "SUCCEEDED", n * 0.5, n * 0.5 + 1.0, 1, f"host/{n % 2}")
        for n in range(ROWS_UP_TO + 1)
    ]

    page = drawn(spans)

    assert [row["data-step"] for row in page.of_class("row")] == ["host/0", "host/1"]


def test_what_one_worker_ran_at_one_time_is_not_drawn_over_each_other() -> None:
    page = drawn([SpanView(f"s{n}", "SUCCEEDED", 0.0, 1.0, 1, "host/1") for n in range(100)])

    assert len(page.of_class("row")) == 64


def test_ten_thousand_short_attempts_are_few_bars() -> None:
    spans = [
        SpanView(f"s{n}", "SUCCEEDED", n * 1e-3, n * 1e-3 + 9e-4, 1, "host/1")
        for n in range(10_000)
    ]

    page = drawn([*spans, SpanView("last", "FAILED", 10.0, 10.1, 1, "host/1")])

    assert len(page.of_class("span")) < 10
    assert "10,000 attempts" in page.text
    assert len(page.of_class("s-failed")) == 1  # it is no neighbour that is alike


@given(st.floats(1e-4, 1e8))
def test_times_are_marked_at_a_few_even_places(seconds: float) -> None:
    page = drawn([SpanView("s0", "SUCCEEDED", 0.0, seconds, 1)])

    marks = [float(m["x"] or 0) for m in page.named("text") if m.get("text-anchor")]
    assert 1 <= len(marks) <= 8
    gaps = [right - left for left, right in pairwise(marks)]
    assert not gaps or max(gaps) - min(gaps) < 0.1
