"""Views as text on a terminal: columns, no frames; nothing is cut when the output is a pipe."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from perdure import words
from perdure.cli.views import AttemptView, ErrorView, Preview, RunView, StepView

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

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
_PIPE_WIDTH = 1000


def console() -> Console:
    """Return a console for stdout. A pipe gets whole lines, whatever their width."""
    from rich.console import Console

    if _is_terminal():
        return Console(width=shutil.get_terminal_size().columns, highlight=False)
    return Console(width=_PIPE_WIDTH, highlight=False, color_system=None)


def print_runs(runs: list[RunView], now: datetime) -> None:
    """Print one line a run, newest first."""
    table = _columns("ID", "WORKFLOW", "STATUS", "CREATED", "TOOK")
    for run in runs:
        table.add_row(
            _plain(run.id),
            _plain(run.workflow),
            status(run.status),
            words.age(run.created_at, now),
            words.duration(_took(run)),
        )
    console().print(table)


def print_run(run: RunView, now: datetime) -> None:
    """Print a run's facts and its steps."""
    out = console()
    out.print(_facts(run, now))
    if run.error is not None:
        out.print(_plain(describe(run.error)), style="red")
    if run.steps:
        out.print()
        out.print(_steps(run.steps))


def print_attempts(attempts: list[AttemptView]) -> None:
    """Print one line a try."""
    table = _columns("GENERATION", "ATTEMPT", "ENDED", "WORKER", "TOOK", "ERROR")
    for attempt in attempts:
        table.add_row(
            str(attempt.generation),
            str(attempt.attempt),
            attempt.cause or "not yet",
            _plain(attempt.worker),
            words.duration(attempt.duration_s),
            _plain(words.one_line(describe(attempt.error), 120)) if attempt.error else "",
        )
    console().print(table)


def status(text: str) -> str:
    """Return a status with its colour."""
    colour = _COLOURS.get(text)
    return f"[{colour}]{text}[/{colour}]" if colour else text


def describe(error: ErrorView) -> str:
    """Return an error as Python would print its last line, with the step that raised it."""
    kind = error.type.removeprefix("builtins.")
    where = f" (step {error.step})" if error.step else ""
    return f"{kind}: {error.message}{where}" if error.message else f"{kind}{where}"


def show_preview(preview: Preview | None, width: int = 60) -> str:
    """Return a preview in one line; it was made when the value was stored."""
    if not preview:
        return ""
    if "repr" in preview:
        return words.one_line(str(preview["repr"]), width)
    shape = " x ".join(str(length) for length in preview.get("shape", ()))  # arrays and tables
    facts = (preview.get("type"), shape, preview.get("dtype"))
    return words.one_line(" ".join(str(fact) for fact in facts if fact), width)


def _facts(run: RunView, now: datetime) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("run", _plain(run.id))
    table.add_row("workflow", _plain(run.workflow))
    table.add_row("status", status(run.status))
    if run.origin:
        table.add_row("origin", _plain(run.origin))
    table.add_row(
        "created", f"{run.created_at:%Y-%m-%d %H:%M:%S} UTC ({words.age(run.created_at, now)})"
    )
    if run.total is not None:
        table.add_row("steps", f"{run.done} of {run.total} done")
    if _took(run) is not None:
        table.add_row("took", words.duration(_took(run)))
    for name, preview in run.inputs.items():
        table.add_row("input", _plain(f"{name} = {show_preview(preview)}"))
    for name, tag in run.tags.items():
        table.add_row("tag", _plain(f"{name}={tag}"))
    if run.forked_from:
        table.add_row("made from", _plain(run.forked_from))
    if run.parent:
        table.add_row("parent", _plain(run.parent))
    return table


def _steps(steps: list[StepView]) -> Table:
    table = _columns("STEP", "STATUS", "ATTEMPTS", "TOOK", "VALUE", "WHY")
    for step in steps:
        value = (
            words.one_line(describe(step.error), _text_width())
            if step.error
            else show_preview(step.preview)
        )
        table.add_row(
            _plain(step.id),
            status(step.status),
            str(step.attempts or ""),
            words.duration(step.duration_s),
            _plain(value),
            _plain(words.one_line(step.reason, _text_width())),
        )
    return table


def _columns(*names: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=name in {"STATUS", "ATTEMPTS", "TOOK"}, overflow="fold")
    return table


def _took(run: RunView) -> float | None:
    if run.started_at is None or run.finished_at is None:
        return None
    return (run.finished_at - run.started_at).total_seconds()


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None: it was closed by our caller


def _text_width() -> int:
    """Return how much of a sentence fits a column; a pipe gets all of it."""
    return 60 if _is_terminal() else _PIPE_WIDTH


def _plain(text: str) -> str:
    """Escape what Rich would take for markup, and control characters that a terminal would obey."""
    from rich.markup import escape

    return escape("".join(char if char.isprintable() or char == "\n" else "�" for char in text))
