"""The steps of a run as rows that open: the brief in one line, the rest inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from perdure import words
from perdure.view.drawing import standing_text, status_class
from perdure.view.markup import Content, Element, element
from perdure.view.model import AskedView, AttemptView, DetailView, ErrorView, InputView, StepView
from perdure.view.values import draw_value

_BRIEF = 110
_TAKEN = 12
_LOG_LINES = 20
_ATTEMPTS = 20
_SUCCEEDED = "succeeded"


def draw_steps(
    details: Iterable[DetailView],
    views: Mapping[str, StepView],
    logs: Mapping[str, str],
    anchors: Mapping[str, str],
    at: datetime,
) -> Element:
    """Return a row for each step.

    Args:
        details: the steps, in the order in which they are shown.
        views: of each step its brief, by step id.
        logs: what steps printed last, by step id.
        anchors: the id of each row, by step id.
        at: when it was looked at: so long have those run that still do.
    """
    details = list(details)
    took = {each.id: _took(each, views[each.id], at) for each in details}
    longest = max([seconds or 0.0 for seconds in took.values()], default=0.0)
    return element(
        "div",
        (
            _row(detail, views[detail.id], logs.get(detail.id, ""), anchors, took, longest)
            for detail in details
        ),
        class_="steps",
    )


def _took(detail: DetailView, view: StepView, at: datetime) -> float | None:
    """Return the seconds that a step took, or has been running for."""
    began = detail.attempts[-1].started_at if detail.attempts else None
    if view.standing == "RUNNING" and view.duration_s is None and began is not None:
        return max(0.0, (at - began).total_seconds())
    return view.duration_s


def _row(
    detail: DetailView,
    view: StepView,
    log: str,
    anchors: Mapping[str, str],
    took: Mapping[str, float | None],
    longest: float,
) -> Element:
    return element(
        "details",
        element(
            "summary",
            element("span", class_="dot"),
            element("code", view.id, class_="id"),
            element("span", standing_text(view.standing), class_="standing"),
            element("span", words.duration(took[view.id]), class_="took"),
            _meter(took[view.id], longest),
            element("span", _brief(view), class_="brief"),
        ),
        element("div", _inside(detail, view, log, anchors), class_="inside"),
        class_=f"step {status_class(view.standing)}",
        id=anchors[view.id],
        data_step=view.id,
    )


def _meter(duration_s: float | None, longest: float) -> Element:
    share = 100 * (duration_s or 0.0) / longest if longest else 0.0
    bar = element("rect", width=round(share, 1), height=4, rx=1)
    return element("svg", bar, class_="meter", viewBox="0 0 100 4", preserveAspectRatio="none")


def _brief(view: StepView) -> str:
    tries = f"{view.attempts} attempts: " if view.attempts > 1 else ""
    if view.error is not None:
        return tries + words.one_line(error_line(view.error), _BRIEF)
    seen = words.shown(view.preview, _BRIEF)
    if seen and view.standing != "reused":
        return tries + seen
    return tries + words.one_line(view.reason, _BRIEF)


def _inside(
    detail: DetailView, view: StepView, log: str, anchors: Mapping[str, str]
) -> Iterator[Content]:
    why, *tries = detail.why.splitlines() or [""]
    yield element("p", why, class_="why")
    if view.error is not None:
        yield draw_error(view.error)
    if view.preview is not None:
        yield element("h4", "value")
        yield element("div", draw_value(view.preview))
    if log:
        yield element("h4", "last printed")
        yield element("pre", _last_lines(log), class_="log")
    if len(detail.attempts) > 1 or any(each.cause != _SUCCEEDED for each in detail.attempts):
        yield element("h4", "attempts")
        yield draw_attempts(detail.attempts)
    elif len(tries) > 1:
        yield element("pre", "\n".join(tries))
    if detail.generations:
        yield element("h4", "lives of its result")
        yield element(
            "ul",
            (
                element(
                    "li",
                    f"{life.generation}: {life.status.lower()}"
                    f"{', which counts' if life.current else ''}: "
                    f"{life.reason or 'it had not run before'} {words.shown(life.preview)}",
                )
                for life in detail.generations
            ),
        )
    # What perdure's own steps are made of, of a map or a wait, is nothing that a user wrote.
    is_own = detail.task.startswith("perdure.")
    taken = [each for each in detail.inputs if not (is_own and each.of == "constant")]
    if taken:
        yield element("h4", "takes")
        yield _taken(taken, anchors)
    yield facts(_about(detail, is_own=is_own))


def _last_lines(log: str) -> str:
    return "\n".join(words.printable(line) for line in log.splitlines()[-_LOG_LINES:])


def _taken(inputs: list[InputView], anchors: Mapping[str, str]) -> Element:
    rows = []
    for each in inputs[:_TAKEN]:
        anchor = anchors.get(each.of.removeprefix("step "))
        of: Content = element("a", each.of, href=f"#{anchor}") if anchor else each.of
        seen = f" = {words.shown(each.preview)}" if each.preview else ""
        rows.append(
            element("li", element("code", each.name), ": ", of, element("code", each.part), seen)
        )
    if len(inputs) > _TAKEN:
        rows.append(element("li", f"and {len(inputs) - _TAKEN:,} more"))
    return element("ul", rows)


def draw_attempts(attempts: Sequence[AttemptView]) -> Element:
    """Return a table of a step's attempts, the last ones of many."""
    has_lives = any(attempt.generation > 1 for attempt in attempts)
    names = ("attempt", "ended", "started", "took", "memory", "worker", "error")
    rows = []
    for each in attempts[-_ATTEMPTS:]:
        peak = each.peak_memory_bytes
        cells = (
            f"{each.generation}/{each.attempt}" if has_lives else str(each.attempt),
            how_ended(each),
            f"{each.started_at:%H:%M:%S}" if each.started_at is not None else "",
            words.duration(each.duration_s),
            words.size(peak) if peak is not None else "",
            each.worker,
            words.one_line(error_line(each.error), _BRIEF) if each.error is not None else "",
        )
        rows.append(element("tr", (element("td", cell) for cell in cells)))
    heads = element("tr", (element("th", name) for name in names))
    return element(
        "div",
        element("table", element("thead", heads), element("tbody", rows)),
        class_="rows",
    )


def how_ended(attempt: AttemptView) -> str:
    """Return how a try ended, in a table: of one that gave a graph, that it did so."""
    if attempt.gave:
        return f"gave {attempt.gave}"
    return attempt.cause or "not yet"


def _about(detail: DetailView, *, is_own: bool) -> Iterator[tuple[str, Content]]:
    if not is_own:
        yield "task", [element("code", detail.task), f" {detail.where}" if detail.where else None]
    asked = ", ".join(_asked(detail.asked))
    if asked:
        yield "asks for", asked
    if detail.peak_memory_bytes is not None:
        yield "held at most", words.size(detail.peak_memory_bytes)
    if detail.fingerprint:
        yield "fingerprint", element("code", f"{detail.fingerprint.rpartition(':')[2][:12]}")


def _asked(asked: AskedView) -> Iterator[str]:
    if asked.cpus != 1:
        yield f"{asked.cpus:g} CPUs"
    if asked.gpus:
        yield f"{asked.gpus:g} GPUs"
    if asked.memory_bytes is not None:
        yield words.size(asked.memory_bytes)
    for name, amount in asked.resources.items():
        yield f"{amount:g} {name}"
    if asked.timeout_s is not None:
        yield f"at most {words.duration(asked.timeout_s)}"
    if asked.retries:
        yield words.count_of(asked.retries, "retry")


# --- for all sections -----------------------------------------------------------------------------
def error_line(error: ErrorView) -> str:
    """Return an error as Python prints its last line, with the item of a map that it is of."""
    item = f" ({error.item})" if error.item else ""
    return f"{words.failure(error.type, error.message, error.step)}{item}"


def draw_error(error: ErrorView) -> Element:
    """Return an error with its traceback, which ends in all that it says."""
    said = error_line(error)
    return element(
        "div",
        element("p", words.beginning(said) if error.traceback else said, class_="message"),
        element("pre", error.traceback.rstrip(), class_="traceback") if error.traceback else None,
        class_="error",
    )


def facts(rows: Iterable[tuple[str, Content]]) -> Element:
    """Return names and what there is to say of each."""
    return element(
        "dl", ((element("dt", name), element("dd", text)) for name, text in rows), class_="facts"
    )
