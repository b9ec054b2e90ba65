"""A timeline as SVG: a row for each step, or, of very many, for each thing that runs at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from perdure import words
from perdure.view.drawing import standing_text, status_class
from perdure.view.markup import Content, Element, element
from perdure.view.model import CUT_OFF, SpanView, TimelineView

ROWS_UP_TO = 60
"""Steps with a row of their own; of more, the rows are the workers'."""
_WIDTH, _LABEL, _RIGHT = 1080.0, 210.0, 14.0
_ROW, _BAR, _TOP = 20.0, 11.0, 22.0
_LANES = 64
_LEAST = 1.0
"""Stretches shorter than this, in pixels, are drawn as wide; neighbours closer are one."""
_LABEL_CHARS = 27


def draw_timeline(timeline: TimelineView, anchors: Mapping[str, str]) -> Element:
    """Return the picture of a timeline.

    Args:
        timeline: what is to be drawn.
        anchors: where in the page a step is told of, by step id.
    """
    by_step: dict[str, list[SpanView]] = {}
    for span in timeline.spans:
        by_step.setdefault(span.step, []).append(span)
    rows = list(by_step.items()) if len(by_step) <= ROWS_UP_TO else _lanes(timeline)
    scale = (_WIDTH - _LABEL - _RIGHT) / (timeline.seconds or 1e-3)
    height = _TOP + len(rows) * _ROW + 6
    return element(
        "svg",
        element("g", _grid(timeline.seconds, scale, height), class_="grid"),
        [_row(n, name, spans, scale, anchors) for n, (name, spans) in enumerate(rows)],
        class_="timeline",
        viewBox=f"0 0 {_WIDTH:.0f} {height:.0f}",
        width=_WIDTH,
        height=round(height),
        role="img",
        aria_label="who ran when",
    )


def _row(
    at: int, name: str, spans: Sequence[SpanView], scale: float, anchors: Mapping[str, str]
) -> Content:
    y = _TOP + at * _ROW
    label = name if len(name) <= _LABEL_CHARS else f"{name[: _LABEL_CHARS - 1]}…"
    text = element("text", element("title", name), label, x=4, y=y + 13.5, class_="label")
    anchor = anchors.get(name)
    return element(
        "g",
        element("rect", x=0, y=y, width=_WIDTH, height=_ROW, class_="stripe"),
        element("a", text, href=f"#{anchor}") if anchor else text,
        [_bar(span, count, y, scale) for span, count in _merged(spans, scale)],
        class_="row",
        data_step=name,
    )


def _bar(span: SpanView, count: int, y: float, scale: float) -> Element:
    is_thin = span.kind in ("queued", "waited")
    height = 3.0 if is_thin else _BAR
    return element(
        "rect",
        element("title", _told(span, count)),
        x=round(_LABEL + span.start * scale, 2),
        y=y + (_ROW - height) / 2,
        width=round(max((span.end - span.start) * scale, _LEAST), 2),
        height=height,
        rx=0 if is_thin else 2,
        class_=f"span {span.kind}" if is_thin else f"span {status_class(span.kind)}",
    )


def _told(span: SpanView, count: int) -> str:
    took = words.duration(span.end - span.start)
    if count > 1:
        return f"{words.count_of(count, 'attempt')}, {took} in all"
    if span.kind in ("queued", "waited"):
        what = "waited to begin" if span.kind == "queued" else "waited for what it needs"
        return f"{span.step} {what} for {took}"
    if span.kind == CUT_OFF:
        return (
            f"{span.step}, attempt {span.attempt} was cut off, and nobody saw when: within {took}"
        )
    where = f" on {span.worker}" if span.worker else ""
    return f"{span.step}, attempt {span.attempt}: {standing_text(span.kind)}, {took}{where}"


def _merged(spans: Sequence[SpanView], scale: float) -> Iterator[tuple[SpanView, int]]:
    """Yield what is drawn: alike neighbours that no eye could part are one, with their number."""
    held: SpanView | None = None
    count = 0
    for span in spans:
        is_next = held is not None and held.kind == span.kind
        if (
            is_next
            and held is not None
            and (span.start - held.end) * scale < _LEAST / 2
            and (min(span.end - span.start, held.end - held.start) * scale < 3 * _LEAST)
        ):
            held = SpanView(held.step, held.kind, held.start, max(held.end, span.end))
            count += 1
            continue
        if held is not None:
            yield held, count
        held, count = span, 1
    if held is not None:
        yield held, count


def _lanes(timeline: TimelineView) -> list[tuple[str, list[SpanView]]]:
    """Return the attempts of many steps, by the worker that ran them, none over another."""
    lanes: dict[str, list[list[SpanView]]] = {}
    runs = (span for span in timeline.spans if span.attempt)
    for span in sorted(runs, key=lambda span: span.start):
        own = lanes.setdefault(span.worker, [])
        free = next((lane for lane in own if lane[-1].end <= span.start), None)
        if free is None and len(own) < _LANES:
            own.append([span])
        else:
            (free if free is not None else own[-1]).append(span)
    return [
        (worker if n == 0 else "", lane)
        for worker in sorted(lanes)
        for n, lane in enumerate(lanes[worker])
    ]


def _grid(seconds: float, scale: float, height: float) -> Iterable[Element]:
    for mark in _marks(seconds):
        x = round(_LABEL + mark * scale, 2)
        yield element("path", d=f"M{x} {_TOP - 4}V{height}")
        yield element("text", _mark_text(mark), x=x, y=12, text_anchor="middle")


def _marks(seconds: float) -> list[float]:
    """Return some round times, from nothing to the end."""
    if seconds <= 0:
        return [0.0]
    rough = seconds / 6
    power = 10 ** math.floor(math.log10(rough))
    steps = [n * power for n in (1, 2, 5, 10)] if rough < 60 else [60, 120, 300, 600, 1800]
    steps += [3600.0 * n for n in (1, 2, 6, 12, 24, 72, 168, 720)]
    step = next((each for each in steps if each >= rough), rough)
    return [n * step for n in range(int(seconds / step) + 1)]


def _mark_text(seconds: float) -> str:
    if seconds == 0:
        return "0"
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    return f"{seconds:g} s" if seconds < 60 else words.duration(seconds)
