"""Views as text: columns, no frames; lines are folded on a terminal only."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from perdure import words
from perdure.view.model import ErrorView, GroupView, RunView, StepView
from perdure.view.runs import group_steps

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from perdure.cli.columns import Columns

_COLOURS = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "INTERRUPTED": "yellow",
    "PAUSED": "yellow",
    "RUNNING": "cyan",
    "WAITING": "cyan",
    "QUEUED": "blue",
}
_PIPE_WIDTH, _PIPE_TEXT = 1000, 200
_NARROW = 60
_SHORT = frozenset({"STATUS", "ATTEMPT", "ATTEMPTS", "TOOK", "WAITED", "STARTED", "MEMORY"})
EACH_UP_TO = 50
"""Steps that are listed one by one; of more a summary is more use."""
_REMARKABLE = ("FAILED", "RUNNING", "READY")
_REMARKABLE_UP_TO = 20


def console() -> Console:
    """Return a console for stdout. A pipe gets whole lines, whatever their width."""
    from rich.console import Console

    if _is_terminal():
        return Console(width=shutil.get_terminal_size().columns, highlight=False)
    return Console(width=_PIPE_WIDTH, highlight=False, color_system=None)


def text_of(printing: Callable[[Console], None]) -> str:
    """Return what a function prints, in a terminal's width if there is one, without colours."""
    from rich.console import Console

    page = io.StringIO()
    width = console().width
    # In a kernel Rich would take any console for the notebook, and display what is printed.
    printing(
        Console(file=page, width=width, highlight=False, color_system=None, force_jupyter=False)
    )
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().split("\n"))


def print_runs(runs: list[RunView], now: datetime, out: Console | None = None) -> None:
    """Print one line a run, newest first."""
    failed = ["ERROR"] if any(run.error for run in runs) and not _is_narrow() else []
    waits = ["NOT DRIVEN"] if any(run.waits_for_host for run in runs) and not _is_narrow() else []
    table = columns("ID", "WORKFLOW", "STATUS", "CREATED", "TOOK", *failed, *waits)
    for run in runs:
        error = words.one_line(describe(run.error), _text_width()) if run.error else ""
        table.add_row(
            plain(run.id),
            plain(run.workflow),
            status(run.status),
            words.age(run.created_at, now),
            words.duration(_took(run)),
            *(plain(error) for _ in failed),
            *(plain(words.one_line(run.waits_for_host, _text_width())) for _ in waits),
        )
    (out or console()).print(table)


def _in_queue(run: RunView) -> str:
    key = [f"key {run.limit_key}"] if run.limit_key else []
    priority = [f"priority {run.priority}"] if run.priority else []
    return ", ".join([run.queue or "", *key, *priority])


def print_run(
    run: RunView,
    now: datetime,
    steps: list[StepView] | None = None,
    out: Console | None = None,
) -> None:
    """Print a run's facts and its steps; of very many of them a summary, failed ones first.

    Args:
        run: the run.
        now: the time.
        steps: the steps to list, however many; by default as fits.
        out: where to; None: stdout.
    """
    out = out or console()
    out.print(_facts(run, now))
    if run.error is not None:
        out.print(plain(words.beginning(describe(run.error))), style="red")
    if not run.steps:
        return
    out.print()
    if steps is not None or len(run.steps) <= EACH_UP_TO:
        out.print(_steps(run.steps if steps is None else steps))
        return
    out.print(_groups(group_steps(run.steps)))
    remarkable = [step for status in _REMARKABLE for step in run.steps if step.status == status]
    if remarkable:
        out.print()
        out.print(_steps(remarkable[:_REMARKABLE_UP_TO]))


def status(text: str) -> str:
    """Return a status with its colour."""
    colour = _COLOURS.get(text)
    return f"[{colour}]{text}[/{colour}]" if colour else text


def describe(error: ErrorView) -> str:
    """Return an error as Python would print its last line, with the step that raised it."""
    at = [f"step {error.step}" if error.step else "", error.item]
    where = f" ({', '.join(filter(None, at))})" if any(at) else ""
    return f"{words.failure(error.type, error.message, error.step)}{where}"


def _facts(run: RunView, now: datetime) -> Table:
    table = facts_table()
    table.add_row("run", plain(run.id))
    table.add_row("workflow", plain(run.workflow))
    table.add_row("status", status(run.status))
    if run.origin:
        table.add_row("origin", plain(run.origin))
    table.add_row(
        "created", f"{run.created_at:%Y-%m-%d %H:%M:%S} UTC ({words.age(run.created_at, now)})"
    )
    if run.schedule is not None:
        table.add_row("schedule", plain(_scheduled(run)))
    if run.trigger is not None:
        told = words.triggered(run.trigger, run.arrivals, run.led_by)
        table.add_row("trigger", plain(told))
    if run.unplanned:
        table.add_row("no plan yet", plain(run.unplanned))
    if run.queue is not None:
        table.add_row("queue", plain(_in_queue(run)))
    if why := run.waits_in_line or run.waits_for_host:
        table.add_row("not driven", plain(f"it {why}"))
    if run.driver is not None:
        table.add_row("driven by", plain(run.driver))
    if run.deadline is not None:
        table.add_row("deadline", f"{run.deadline:%Y-%m-%d %H:%M:%S} UTC")
    if run.total is not None and not run.unplanned:
        table.add_row("steps", _count_steps(run))
    if _took(run) is not None:
        table.add_row("took", words.duration(_took(run)))
    for name, preview in run.inputs.items():
        table.add_row("input", plain(f"{name} = {words.shown(preview)}"))
    for name, tag in run.tags.items():
        table.add_row("tag", plain(f"{name}={tag}"))
    if run.forked_from:
        table.add_row("made from", plain(run.forked_from))
    if run.parent:
        table.add_row("parent", plain(run.parent))
    return table


def _scheduled(run: RunView) -> str:
    if run.nominal is None:
        return run.schedule or ""
    at = f"{run.nominal:%Y-%m-%d %H:%M:%S} UTC"
    return f"{run.schedule}, by hand at {at}" if run.by_hand else f"{run.schedule}, for {at}"


def _count_steps(run: RunView) -> str:
    more = [
        f"{number:,} {what}"
        for number, what in (
            (run.failed, "failed"),
            (run.running, "running"),
            (sum(step.left for step in run.steps), "not finished"),
        )
        if number
    ]
    return ", ".join([f"{run.done:,} of {run.total:,} done", *more])


def _groups(groups: list[GroupView]) -> Columns:
    table = columns("STEPS", "ALL", "DONE", "FAILED", "RUNNING", "WAITING", "TYPICALLY")
    for group in groups:
        counts = (group.total, group.done, group.failed, group.running, group.waiting)
        table.add_row(
            plain(group.name),
            *(f"{number:,}" if number else "" for number in counts),
            words.duration(group.duration_s),
        )
    return table


def _steps(steps: list[StepView]) -> Columns:
    if _is_narrow():
        return _steps_in_brief(steps)
    table = columns("STEP", "STATUS", "ATTEMPTS", "WAITED", "TOOK", "WORKER", "VALUE", "WHY")
    for step in steps:
        value = (
            words.one_line(_describe_own(step.error), _text_width())
            if step.error
            else words.shown(step.preview)
        )
        table.add_row(
            plain(step.id),
            _step_status(step),
            str(step.attempts or ""),
            words.duration(step.waited_s),
            words.duration(step.duration_s),
            plain(step.worker),
            plain(value),
            plain(words.one_line(step.reason, _text_width())),
        )
    return table


def _steps_in_brief(steps: list[StepView]) -> Columns:
    table = columns("STEP", "STATUS", "TOOK")
    for step in steps:
        table.add_row(plain(step.id), _step_status(step), words.duration(step.duration_s))
    return table


def _step_status(step: StepView) -> str:
    """Return where a step stands; nobody cancelled what was left when its run ended."""
    if step.left:
        return step.standing
    return status(step.status)


def _describe_own(error: ErrorView) -> str:
    """Return an error of a step beside the step's id."""
    item = f" ({error.item})" if error.item else ""
    return f"{words.failure(error.type, error.message, error.step)}{item}"


def facts_table() -> Table:
    """Return an empty table of names and values."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def columns(*names: str) -> Columns:
    """Return an empty table with a header and no lines."""
    from perdure.cli.columns import Columns

    return Columns(names, whole=_SHORT)


def _took(run: RunView) -> float | None:
    if run.started_at is None or run.finished_at is None:
        return None
    return (run.finished_at - run.started_at).total_seconds()


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None: it was closed by our caller


def _is_narrow() -> bool:
    return _is_terminal() and shutil.get_terminal_size().columns < _NARROW


def _text_width() -> int:
    """Return how much of a sentence fits a column."""
    return 60 if _is_terminal() else _PIPE_TEXT


def plain(text: str) -> str:
    """Return ``text`` so that neither Rich finds markup in it nor a terminal something to obey."""
    from rich.markup import escape

    return escape("".join(char if char.isprintable() or char == "\n" else "�" for char in text))
