"""One step in full, as ``show ID STEP`` and its ``--json`` show it; nothing is decoded for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from perdure import words
from perdure.cli.views import (
    AttemptView,
    ErrorView,
    Preview,
    read_preview,
    view_attempt,
    view_error,
)
from perdure.plan import (
    Arg,
    Const,
    DictArg,
    FromInput,
    FromSecret,
    FromStep,
    ItemsOf,
    ListArg,
    ObjectArg,
    Plan,
    RefTo,
    StepPlan,
    path_text,
)
from perdure_storage.shapes import readable

if TYPE_CHECKING:
    from rich.table import Table

    from perdure.runs import Step
    from perdure_storage.records import StoredValue

_SHOWN = 20
_DIGEST = 12


class InputView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value that a step takes.

    Attributes:
        name: the argument, ``[0]`` or ``rows``, with the place inside it.
        of: where it comes from: ``step load``, ``parameter k``, ``constant``, ``secret TOKEN``.
        part: which part of that value is taken, ``["rows"]``; empty if all of it.
        preview: what that value looked like when it was stored.
    """

    name: str
    of: str
    part: str = ""
    preview: Preview | None = None


class AskedView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one attempt may hold, and how failure is met."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    resources: dict[str, float] = {}
    timeout_s: float | None = None
    retries: int = 0


class GenerationView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One life of a step's result; ``current`` is the one that counts."""

    generation: int
    status: str
    current: bool
    reason: str = ""
    preview: Preview | None = None


class DetailView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step.

    Attributes:
        task: its function, ``module.name``, and ``where`` that was written.
        asked: what it asks for; ``peak_memory_bytes`` is what it held at most, over all attempts.
        generations: every life of its result, if there were several.
        fingerprint: equal ones mean equal results; ``code`` is the digest of the code it ran.
    """

    run: str
    id: str
    status: str
    generation: int
    task: str
    where: str = ""
    why: str = ""
    duration_s: float | None = None
    asked: AskedView = AskedView()
    peak_memory_bytes: int | None = None
    code: str = ""
    fingerprint: str = ""
    inputs: list[InputView] = []
    preview: Preview | None = None
    generations: list[GenerationView] = []
    attempts: list[AttemptView] = []
    error: ErrorView | None = None


def view_detail(step: Step) -> DetailView:
    """Return a step as it stood when it was asked for."""
    run, row = step.run, step.row
    function = step.graph.functions[step.plan.function]
    attempts = [view_attempt(attempt) for attempt in step.attempts]
    peaks = [each.peak_memory_bytes for each in attempts if each.peak_memory_bytes is not None]
    return DetailView(
        run=run.id,
        id=step.id,
        status=str(step.status),
        generation=step.generation,
        task=readable(f"{function.module}.{function.qualname}"),
        where=f"{function.file}:{function.line}" if function.file else "",
        why=step.why(),
        duration_s=step.duration.total_seconds() if step.duration is not None else None,
        asked=_asked(step.graph, step.plan),
        peak_memory_bytes=max(peaks, default=None),
        code=row.code if row is not None else "",
        fingerprint=row.fingerprint if row is not None else "",
        inputs=_inputs(step),
        preview=step.preview,
        generations=_generations(step) if step.generation > 1 else [],
        attempts=attempts,
        error=view_error(step.error),
    )


def _generations(step: Step) -> list[GenerationView]:
    return [
        GenerationView(
            generation=life.number,
            status=str(life.status),
            current=life.is_current,
            reason=life.reason,
            preview=life.preview,
        )
        for life in step.generations
    ]


def _asked(plan: Plan, step: StepPlan) -> AskedView:
    options = plan.options[step.options]
    return AskedView(
        cpus=options.cpus,
        gpus=options.gpus,
        memory_bytes=options.memory_bytes,
        resources=options.resources,
        timeout_s=options.timeout_s,
        retries=options.retries,
    )


# --- what it takes ------------------------------------------------------------------------------
def _inputs(step: Step) -> list[InputView]:
    call, run = step.plan, step.run
    named = [(f"[{at}]", arg) for at, arg in enumerate(call.args)] + list(call.kwargs.items())
    leaves = [leaf for name, arg in named for leaf in _leaves(name, arg)]
    wanted = {leaf.step for _, leaf in leaves if isinstance(leaf, FromStep | ItemsOf)}
    values = {each.id: each.row.value for each in run.steps() if each.id in wanted and each.row}
    return [_input(step, values, name, leaf) for name, leaf in leaves]


def _leaves(name: str, arg: Arg) -> Iterator[tuple[str, Arg]]:
    match arg:
        case ListArg(items):
            for at, item in enumerate(items):
                yield from _leaves(f"{name}[{at}]", item)
        case DictArg(_, values):
            for at, item in enumerate(values):
                yield from _leaves(f"{name}{{{at}}}", item)
        case ObjectArg(_, fields):
            for field, item in fields.items():
                yield from _leaves(f"{name}.{field}", item)
        case _:
            yield name, arg


def _input(step: Step, values: dict[str, StoredValue | None], name: str, leaf: Arg) -> InputView:
    match leaf:
        case FromStep(upstream, path):
            of, value = f"step {upstream}", values.get(upstream)
        case ItemsOf(upstream):
            of, value, path = f"items of {upstream}", values.get(upstream), ()
        case RefTo(upstream, path):
            of, value = f"a reference to {upstream}", None
        case FromInput(parameter, path):
            of, value = f"parameter {parameter}", step.run.record.inputs.get(parameter)
        case FromSecret(secret):
            return InputView(name=name, of=f"secret {secret}")
        case Const(index):
            of, value, path = "constant", step.graph.constants[index], ()
        case _:
            raise TypeError(f"no leaf: {leaf!r}")
    preview = read_preview(value.preview) if value is not None else None
    return InputView(name=name, of=of, part=path_text(path), preview=preview)


# --- as text ------------------------------------------------------------------------------------
def print_detail(detail: DetailView) -> None:
    """Print what is known of a step: facts, what it takes, each attempt, its error."""
    from perdure.cli.tables import console, plain

    out = console()
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


def _lives(lives: list[GenerationView]) -> Table:
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


def _attempts(attempts: list[AttemptView]) -> Table:
    from perdure.cli.tables import columns, describe, plain

    has_generations = any(attempt.generation > 1 for attempt in attempts)
    table = columns("ATTEMPT", "ENDED", "STARTED", "TOOK", "MEMORY", "WORKER", "ERROR")
    for attempt in attempts:
        again = f"{attempt.generation}/" if has_generations else ""
        started, peak = attempt.started_at, attempt.peak_memory_bytes
        table.add_row(
            f"{again}{attempt.attempt}",
            attempt.cause or "not yet",
            f"{started:%H:%M:%S}" if started is not None else "",
            words.duration(attempt.duration_s),
            words.size(peak) if peak is not None else "",
            plain(attempt.worker),
            plain(words.one_line(describe(attempt.error), 120)) if attempt.error else "",
        )
    return table


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:_DIGEST]
