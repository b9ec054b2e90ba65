"""What a run came to, where it comes from and what it was made of, as elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from perdure import words
from perdure.view.drawing import standing_text, status_class, status_rank
from perdure.view.markup import Content, Element, element
from perdure.view.model import CUT_OFF, EventView, ReportView, RunView, StepView
from perdure.view.rows import draw_error, facts
from perdure.view.values import draw_value

_SOURCE_CHARS = 60_000
_LEAST = 0.004
"""The part of a bar that is seen."""
_UNTOLD = ("owner", "from")
"""Tokens of coordinators: they tell processes apart, but nobody reads them."""


def draw_head(report: ReportView) -> Content:
    """Return how the run stands: its status, its steps counted, its times, what to type."""
    run = report.run
    return [
        element(
            "header",
            element("span", run.status.lower(), class_=f"pill {status_class(run.status)}"),
            element("h1", run.workflow),
            element("code", run.id, class_="run-id"),
        ),
        draw_progress(run.steps),
        element("div", _tiles(report), class_="tiles"),
        element("p", "Next: ", element("code", run.next), class_="next") if run.next else None,
        element("p", f"It has no plan yet: {run.unplanned}", class_="next")
        if run.unplanned
        else None,
        element("p", f"It {run.waits_for_host}", class_="next") if run.waits_for_host else None,
        element("p", f"It {run.waits_in_line}", class_="next") if run.waits_in_line else None,
    ]


def draw_progress(steps: Sequence[StepView]) -> Content:
    """Return how many steps stand where, as parts of one bar, and in words."""
    counts = Counter(step.standing for step in steps)
    if not counts:
        return None
    # Of very many steps one that failed is seen as well.
    seen = {status: max(number, _LEAST * counts.total()) for status, number in counts.items()}
    whole = sum(seen.values())
    parts, legend = [], []
    x = 0.0
    for status in sorted(counts, key=status_rank):
        width = 1000 * seen[status] / whole
        parts.append(
            element("rect", x=x, width=width, height=8, class_=f"part {status_class(status)}")
        )
        legend.append(
            element(
                "li",
                element("span", class_="dot"),
                f"{counts[status]:,} {standing_text(status)}",
                class_=status_class(status),
            )
        )
        x += width
    bar = element("svg", parts, class_="progress", viewBox="0 0 1000 8", preserveAspectRatio="none")
    return [bar, element("ul", legend, class_="legend")]


def _tiles(report: ReportView) -> Iterator[Element]:
    run = report.run
    if run.started_at is not None:
        end = run.finished_at or report.at
        took = words.duration((end - run.started_at).total_seconds())
        yield _tile("took" if run.finished_at else "so far", took)
        waited = (run.started_at - run.created_at).total_seconds()
        if waited >= 1:
            yield _tile("waited to begin", words.duration(waited))
    if run.total:
        yield _tile("steps", f"{run.done or 0:,} of {run.total:,} done")
    spans = report.timeline.spans if report.timeline is not None else ()
    busy = sum(span.end - span.start for span in spans if span.attempt and span.kind != CUT_OFF)
    if busy:
        yield _tile("in steps", words.duration(busy), "how long attempts ran, all together")
    tries = sum(max(0, step.attempts - 1) for step in run.steps)
    if tries:
        yield _tile("tried again", words.count_of(tries, "time"))
    peaks = [s for s in run.steps if s.peak_memory_bytes is not None]
    if peaks:
        most = max(peaks, key=lambda step: step.peak_memory_bytes or 0)
        yield _tile("most memory", words.size(most.peak_memory_bytes or 0), f"held by {most.id}")
    yield _tile("made", f"{run.created_at:%Y-%m-%d %H:%M:%S} UTC")


def _tile(name: str, text: str, more: str = "") -> Element:
    return element(
        "div", element("span", name), element("strong", text), class_="tile", title=more or None
    )


def draw_failure(run: RunView, anchors: Mapping[str, str]) -> Content:
    """Return the error that ended the run, or None."""
    error = run.error
    if error is None:
        return None
    anchor = anchors.get(error.step or "")
    where: Content = element("code", error.step) if error.step else None
    return [
        element("h2", "Why it failed"),
        element("p", "step ", element("a", where, href=f"#{anchor}") if anchor else where)
        if where
        else None,
        draw_error(error),
    ]


def draw_parameters(report: ReportView) -> Content:
    """Return what the run was given: parameters, tags, metadata."""
    run = report.run
    if not (run.inputs or run.tags or run.metadata):
        return None
    given = ((name, draw_value(preview)) for name, preview in run.inputs.items())
    tags = ((name, value) for name, value in run.tags.items())
    notes = ((name, str(value)) for name, value in run.metadata.items())
    return [
        element("h2", "What it was given"),
        facts(given),
        [element("h3", "tags"), facts(tags)] if run.tags else None,
        [element("h3", "metadata"), facts(notes)] if run.metadata else None,
    ]


def draw_lineage(report: ReportView) -> Content:
    """Return where the run comes from, who drove it, and how."""
    return [element("h2", "Where it comes from"), facts(_lineage(report))]


def _lineage(report: ReportView) -> Iterator[tuple[str, Content]]:
    run = report.run
    if run.origin:
        yield "origin", element("code", run.origin)
    if run.schedule is not None:
        when = f", for {_at(run.nominal)}" if run.nominal is not None and not run.by_hand else ""
        yield "schedule", f"{run.schedule}{', by hand' if run.by_hand else when}"
    if run.trigger is not None:
        yield "trigger", words.triggered(run.trigger, run.arrivals, run.led_by)
    for each in report.ancestors:
        gone = each.status.lower() or "deleted since"
        yield each.link, [element("code", each.id), f" ({gone})"]
    reused = sum(step.standing == "reused" for step in run.steps)
    if reused:
        yield "taken over", f"{words.count_of(reused, 'step')} did not run again"
    for driver in report.drivers:
        did = "taken over by" if driver.took_over else "driven by"
        yield did, f"process {driver.pid} on {driver.host}, {_at(driver.at)}"
    yield "now", f"driven by {run.driver}" if run.driver else "nobody drives it"
    if run.deadline is not None:
        yield "deadline", _at(run.deadline)
    yield from report.policy.items()


def draw_code(report: ReportView) -> Content:
    """Return the functions that the run calls, the recorded sources, and the packages."""
    if not report.functions:
        return None
    return [
        element("h2", "Code"),
        facts(
            (
                each.name,
                [f"{each.where} ", element("code", each.code.rpartition(":")[2][:12])],
            )
            for each in report.functions
        ),
        [
            element(
                "details",
                element("summary", element("code", name), " as recorded"),
                element("pre", _cut(text), class_="source"),
            )
            for name, text in report.sources.items()
        ]
        or element("p", "No text of it was recorded."),
        [element("h3", "made with"), element("p", _versions(report.made_with))]
        if report.made_with
        else None,
        [element("h3", "packages that it names"), element("p", _versions(report.packages))]
        if report.packages
        else None,
    ]


def _versions(named: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in named.items())


def _cut(text: str) -> str:
    more = len(text) - _SOURCE_CHARS
    return f"{text[:_SOURCE_CHARS]}\n… {more:,} characters more" if more > 0 else text


def draw_story(report: ReportView) -> Content:
    """Return the events of the run, newest last."""
    if not report.events:
        return None
    rows = (
        element(
            "tr",
            element("td", _at(event.at)),
            element("td", event.kind),
            element("td", event.step),
            element("td", _detail(event)),
        )
        for event in report.events
    )
    table = element("div", element("table", element("tbody", rows)), class_="rows")
    return [element("h2", "Events"), table]


def _detail(event: EventView) -> str:
    told = ", ".join(f"{k}: {v}" for k, v in event.detail.items() if k not in _UNTOLD)
    return words.one_line(told, 200)


def _at(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when is not None else ""
