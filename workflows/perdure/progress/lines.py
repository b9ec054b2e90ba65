"""A glance at a run as lines for a terminal: pure, of a given width, and never wider."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from perdure import words
from perdure.progress.board import Glance, Running
from perdure.progress.causes import how_far, of_wait
from perdure_storage.records import StepId

Span = tuple[str, str]
"""Some text, and its style: ``bold``, ``dim``, ``red``, ``green``, ``yellow``, ``cyan`` or none."""
Line = tuple[Span, ...]

_BAR_MOST, _BAR_LEAST = 40, 10
_GAP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """The characters that are not letters."""

    done: str = "━"
    rest: str = "─"
    dot: str = " · "
    ellipsis: str = "…"


UNICODE = Glyphs()
ASCII = Glyphs(done="#", rest="-", dot=", ", ellipsis="...")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """The last line that a running step printed."""

    step_id: StepId
    text: str


def frame(
    run_id: str,
    glance: Glance,
    spoken: Spoken | None,
    *,
    width: int,
    height: int,
    glyphs: Glyphs = UNICODE,
    send: Callable[[str], str] | None = None,
) -> list[Line]:
    """Return the live view: what is known goes first, what does not fit goes.

    Args:
        run_id: the run's id.
        glance: where it stands.
        spoken: what a step has just printed.
        width: columns; no line takes more.
        height: lines; there are never more.
        glyphs: the characters to draw with.
        send: returns the command that sends the run a signal, given the signal's name.
    """
    lines = [
        _head(run_id, glance, width, glyphs),
        _joined(_counts(glance), width, glyphs),
        _joined(_pace(glance), width, glyphs),
        *_slowest(glance, width, glyphs),
        *_waits(glance, width, glyphs, send),
    ]
    if spoken is not None:
        text = f"  {words.printable(spoken.step_id)} | {words.printable(spoken.text)}"
        lines.append(((_fit(text, width, glyphs), "dim"),))
    return [line for line in lines if line][:height]


def _head(run_id: str, glance: Glance, width: int, glyphs: Glyphs) -> Line:
    share = glance.done / glance.total if glance.total else 1.0
    numbers = f" {words.count(glance.done)}/{words.count(glance.total)} {share:4.0%}"
    numbers = _fit(numbers, width, glyphs)
    name, room = words.printable(run_id), width - cell_len(numbers)
    bar = min(_BAR_MOST, max(_BAR_LEAST, room - cell_len(name) - _GAP))
    if bar + _GAP + _BAR_LEAST > room:
        bar = 0  # there is room for a name or for a bar
    name = _fit(name, room - bar - (_GAP if bar else 0), glyphs)
    return ((name, "bold"), *_bar(glance, bar, glyphs), (numbers, ""))


def _bar(glance: Glance, width: int, glyphs: Glyphs) -> Line:
    if not width:
        return ()
    total = max(1, glance.total)
    failed = min(width, -(-glance.failed * width // total))  # one failure of thousands is seen
    done = min(width - failed, glance.done * width // total)
    return (
        (" " * _GAP, ""),
        (glyphs.done * done, "green"),
        (glyphs.done * failed, "red"),
        (glyphs.rest * (width - done - failed), "dim"),
    )


def _counts(glance: Glance) -> list[Span]:
    found = [(f"{words.count(glance.done)} done", "green")]
    if glance.failed:
        found.append((f"{words.count(glance.failed)} failed", "red"))
    found.append((f"{words.count(glance.running)} running", "cyan"))
    found.append((f"{words.count(glance.waiting)} waiting", ""))
    if glance.retries:
        soon = glance.retry_in_s
        when = f", next in {words.duration(soon)}" if soon is not None and soon >= 1 else ""
        found.append((f"{words.count_of(glance.retries, 'retry')}{when}", "yellow"))
    if glance.reused:
        found.append((f"{words.count(glance.reused)} reused", "dim"))
    if glance.skipped:
        found.append((f"{words.count(glance.skipped)} skipped", "dim"))
    if glance.unneeded:
        found.append((f"{words.count(glance.unneeded)} not needed", "dim"))
    return found


def _pace(glance: Glance) -> list[Span]:
    found = [(words.duration(glance.elapsed_s), "dim")]
    if glance.rate is not None:
        found.append((words.rate(glance.rate, "steps"), "dim"))
    if glance.left_s is not None:
        found.append((f"{words.duration(glance.left_s)} left", "dim"))
    return found


def _slowest(glance: Glance, width: int, glyphs: Glyphs) -> list[Line]:
    lines = [_running(attempt, glance, width, glyphs) for attempt in glance.slowest]
    more = glance.running - len(glance.slowest)
    if more > 0:
        lines.append(((_fit(f"  {glyphs.ellipsis} and {more:,} more", width, glyphs), "dim"),))
    return lines


def _waits(
    glance: Glance, width: int, glyphs: Glyphs, send: Callable[[str], str] | None
) -> list[Line]:
    lines: list[Line] = []
    for wait in glance.waits:
        what = f"  {words.printable(wait.step_id)} waits for {of_wait(wait, send)}"
        lines.append(((_fit(what, width, glyphs), "yellow"),))
    more = glance.asleep - len(glance.waits)
    if more > 0:
        text = f"  {glyphs.ellipsis} and {words.count_of(more, 'step')} more"
        lines.append(((_fit(f"{text} that wait", width, glyphs), "dim"),))
    return lines


def _running(attempt: Running, glance: Glance, width: int, glyphs: Glyphs) -> Line:
    took = words.duration(max(0.0, (glance.at - attempt.since).total_seconds()))
    told = glance.told.get(attempt.step_id)
    far = f"  {how_far(told)}" if told is not None else ""
    tail = f"{far}  {took}" + (f"  attempt {attempt.attempt}" if attempt.attempt > 1 else "")
    tail = _fit(tail, max(0, width - 10), glyphs)
    name = _fit("  " + words.printable(attempt.step_id), width - cell_len(tail), glyphs)
    return ((name, ""), (tail, "cyan"))


def _joined(parts: Iterable[Span], width: int, glyphs: Glyphs) -> Line:
    """Return what fits of ``parts`` in one line, from the first on."""
    line: list[Span] = [("  ", "")]
    used = 2
    for text, style in parts:
        dot = glyphs.dot if len(line) > 1 else ""
        used += cell_len(dot) + cell_len(text)
        if used > width:
            break
        line += [(dot, "dim"), (text, style)] if dot else [(text, style)]
    return tuple(line) if len(line) > 1 else ()


def _fit(text: str, width: int, glyphs: Glyphs) -> str:
    """Return ``text`` in at most ``width`` columns; characters may take two."""
    if cell_len(text) <= width:
        return text
    end = glyphs.ellipsis
    if width <= cell_len(end):
        return end[: max(0, width)]
    return set_cell_size(text, width - cell_len(end)).rstrip() + end


def plain(line: Sequence[Span]) -> str:
    """Return a line without its styles."""
    return "".join(text for text, _ in line)
