"""One step in full, as ``show ID STEP`` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from perdure import words
from perdure.view.model import AskedView, AttemptView, DetailView, GenerationView

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from perdure.cli.columns import Columns

_SHOWN = 20
_DIGEST = 12


def print_detail(detail: DetailView, out: Console | None = None) -> None:
    """Print what is known of a step: facts, what it takes, each attempt, its error."""
    from perdure.cli.tables import console, plain

    out = out or console()
    out.print(_facts(detail))
    if detail.generations:
        out.print()
        out.print(_lives(detail.generations))
    if detail.attempts:
        out.print()
        out.print(_attempts(detail.attempts))
    if detail.error is not None and detail.error.traceback:
        out.print()
        out.print(plain(detail.error.traceback.rstrip()))


def _facts(detail: DetailView) -> Table:
    from perdure.cli.tables import facts_table, plain, status

    table = facts_table()
    table.add_row("step", plain(f"{detail.id} of run {detail.run}"))
    table.add_row("status", status(detail.status))
    table.add_row("task", plain(f"{detail.task}{f' ({detail.where})' if detail.where else ''}"))
    table.add_row("why", plain(detail.why.splitlines()[0] if detail.why else ""))
    if detail.duration_s is not None:
        table.add_row("took", words.duration(detail.duration_s))
    table.add_row("memory", _memory(detail))
    for name, text in _asked_text(detail.asked):
        table.add_row(name, text)
    if detail.fingerprint:
        table.add_row("fingerprint", f"{_short(detail.fingerprint)}, code {_short(detail.code)}")
    for taken in detail.inputs[:_SHOWN]:
        seen = f" = {words.shown(taken.preview)}" if taken.preview else ""
        table.add_row("takes", plain(f"{taken.name}: {taken.of}{taken.part}{seen}"))
    if len(detail.inputs) > _SHOWN:
        table.add_row("", f"and {len(detail.inputs) - _SHOWN:,} more: --json lists all")
    if detail.preview is not None:
        table.add_row("value", plain(words.shown(detail.preview)))
    return table


def _memory(detail: DetailView) -> str:
    asked, used = detail.asked.memory_bytes, detail.peak_memory_bytes
    parts = [f"asked for {words.size(asked)}" if asked is not None else "not asked for"]
    if used is not None:
        parts.append(f"held {words.size(used)} at most")
    return ", ".join(parts)


def _asked_text(asked: AskedView) -> Iterator[tuple[str, str]]:
    if asked.cpus != 1:
        yield "cpus", f"{asked.cpus:g}"
    if asked.gpus:
        yield "gpus", f"{asked.gpus:g}"
    for name, amount in asked.resources.items():
        yield name, f"{amount:g}"
    if asked.timeout_s is not None:
        yield "timeout", words.duration(asked.timeout_s)
    if asked.retries:
        yield "retries", str(asked.retries)


def _lives(lives: list[GenerationView]) -> Columns:
    from perdure.cli.tables import columns, plain, status

    table = columns("GENERATION", "STATUS", "VALUE", "WHY")
    for life in lives:
        table.add_row(
            f"{life.generation}{' (counts)' if life.current else ''}",
            status(life.status),
            plain(words.shown(life.preview)),
            plain(words.one_line(life.reason or "it had not run before", 120)),
        )
    return table


def _attempts(attempts: list[AttemptView]) -> Columns:
    from perdure.cli.tables import columns, describe, plain
    from perdure.view.rows import how_ended

    has_generations = any(attempt.generation > 1 for attempt in attempts)
    table = columns("ATTEMPT", "ENDED", "STARTED", "TOOK", "MEMORY", "WORKER", "ERROR")
    for attempt in attempts:
        again = f"{attempt.generation}/" if has_generations else ""
        started, peak = attempt.started_at, attempt.peak_memory_bytes
        table.add_row(
            f"{again}{attempt.attempt}",
            how_ended(attempt),
            f"{started:%H:%M:%S}" if started is not None else "",
            words.duration(attempt.duration_s),
            words.size(peak) if peak is not None else "",
            plain(attempt.worker),
            plain(words.one_line(describe(attempt.error), 120)) if attempt.error else "",
        )
    return table


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:_DIGEST]
