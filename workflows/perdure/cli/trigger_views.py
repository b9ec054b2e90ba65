"""Triggers and their arrivals as the verbs show them: plain data, for tables and ``--json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure import words
from perdure.cli.tables import columns, console, facts_table, plain, status
from perdure.view.model import Preview
from perdure.view.runs import read_preview, statuses_of
from perdure_scheduler.arriving import Decision, standing, trouble_of
from perdure_scheduler.conditions import Single, Webhook
from perdure_scheduler.durations import text_of
from perdure_scheduler.facts import path_text
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_changes import state_of
from perdure_storage.trigger_records import ArrivalQuery, ArrivalRecord, TriggerRecord

if TYPE_CHECKING:
    from rich.table import Table

    from perdure.runtime import Runtime

ACTIVE, PAUSED = "active", "paused"
LATELY = 10
"""How many arrivals ``show`` shows."""


class ArrivalView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that arrived, and what became of it; ``status`` is that of its run."""

    key: str
    condition: str = ""
    at: datetime
    decision: str
    why: str
    reason: str
    decided_at: datetime
    run: str | None = None
    status: str | None = None
    code: str = ""
    facts: Any = None


class TriggerView(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger as a list has it; ``because`` says why it is paused, or what troubles it."""

    name: str
    workflow: str
    on: str
    state: str
    because: str
    module: str | None
    last: ArrivalView | None


class DetailView(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger with all that is known of it."""

    name: str
    workflow: str
    code: str
    pinned: bool
    on: dict[str, str]
    where: str | None
    inputs: dict[str, Preview | str | None]
    tags: dict[str, str]
    module: str | None
    state: str
    standing: str
    listener: str | None
    cursors: dict[str, str]
    created_at: datetime | None
    updated_at: datetime | None
    arrivals: list[ArrivalView]


class ForeseenView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would become of an arrival."""

    key: str
    decision: str
    why: str
    reason: str
    run: str | None = None


# --- from rows ------------------------------------------------------------------------------------
def view_triggers(runtime: Runtime, records: Sequence[TriggerRecord]) -> list[TriggerView]:
    """Return triggers as a list has them; however many, what became of them is read at once."""
    arrivals = runtime.store.triggers.newest_arrivals([record.name for record in records])
    statuses = statuses_of(runtime, (row.run_id for row in arrivals.values()))
    return [_view_trigger(record, arrivals.get(record.name), statuses) for record in records]


def _view_trigger(
    record: TriggerRecord, last: ArrivalRecord | None, statuses: Mapping[str, str]
) -> TriggerView:
    definition, state = Trigger.from_json(record.definition), state_of(record)
    return TriggerView(
        name=record.name,
        workflow=definition.run.workflow,
        on=str(definition.on),
        state=PAUSED if state.paused is not None else ACTIVE,
        because=(
            state.paused.reason if state.paused is not None else trouble_of(definition, state)
        ),
        module=record.module,
        last=None if last is None else _view_arrival(last, statuses),
    )


def view_detail(runtime: Runtime, record: TriggerRecord) -> DetailView:
    """Return a trigger with all that is known of it."""
    definition, state = Trigger.from_json(record.definition), state_of(record)
    run = definition.run
    inputs: dict[str, Preview | str | None] = {
        name: read_preview(value.preview) for name, value in run.inputs.items()
    }
    return DetailView(
        name=record.name,
        workflow=run.workflow,
        code=run.code,
        pinned=run.plan_digest is not None,
        on=dict(_waits_for(definition)),
        where=None if definition.where is None else str(definition.where),
        inputs=inputs | {name: path_text(path) for name, path in definition.inputs.items()},
        tags=run.tags,
        module=record.module,
        state=PAUSED if state.paused is not None else ACTIVE,
        standing=standing(definition, state),
        listener=record.listener,
        cursors=state.cursors,
        created_at=record.created_at,
        updated_at=record.updated_at,
        arrivals=view_arrivals(runtime, ArrivalQuery(trigger=record.name, limit=LATELY)),
    )


def _waits_for(definition: Trigger) -> Iterable[tuple[str, str]]:
    """Yield what it waits for, with each option that is no default, by name."""
    for name, part in definition.parts.items():
        yield name, ", ".join([str(part), *_options(definition.name, name, part)])


def _options(trigger: str, name: str, part: Single) -> Iterable[str]:
    """Yield what somebody has to know of a condition that its text does not say."""
    if isinstance(part, Webhook):
        yield f"POST /v1/hooks/{trigger}{f'/{name}' if name else ''}"
    for field in msgspec.structs.fields(part):
        value = getattr(part, field.encode_name)
        told = _told(value)
        if value and value != field.default and told not in str(part):
            yield f"{field.encode_name}={told}"


def _told(value: object) -> str:
    if isinstance(value, timedelta):
        return text_of(value)
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value).items()
        return ", ".join(f"{name}={each}" for name, each in pairs)
    if isinstance(value, tuple):
        return "|".join(map(str, cast("tuple[object, ...]", value)))
    return str(value)


def view_arrivals(
    runtime: Runtime, query: ArrivalQuery, *, with_facts: bool = False
) -> list[ArrivalView]:
    """Return what arrived for a trigger, with how the runs stand."""
    rows = runtime.store.triggers.list_arrivals(query)
    statuses = statuses_of(runtime, (row.run_id for row in rows))
    return [_view_arrival(row, statuses, with_facts=with_facts) for row in rows]


def _view_arrival(
    row: ArrivalRecord, statuses: Mapping[str, str], *, with_facts: bool = False
) -> ArrivalView:
    return ArrivalView(
        key=row.key,
        condition=row.condition,
        at=row.at,
        decision=row.decision,
        why=row.why,
        reason=row.reason,
        decided_at=row.decided_at,
        run=row.run_id,
        status=None if row.run_id is None else statuses.get(row.run_id),
        code=row.code,
        facts=msgspec.json.decode(row.facts) if with_facts else None,
    )


def view_foreseen(decision: Decision) -> ForeseenView:
    """Return what would become of an arrival."""
    return ForeseenView(
        key=decision.came.key,
        decision=str(decision.verdict),
        why=str(decision.why),
        reason=decision.reason,
        run=decision.run_id,
    )


# --- as text --------------------------------------------------------------------------------------
def print_triggers(views: Sequence[TriggerView], now: datetime) -> None:
    """Print one line a trigger, by name."""
    table = columns("NAME", "WORKFLOW", "WAITS FOR", "LAST", "STATE")
    for view in views:
        because = f": {view.because}" if view.because else ""
        last = "" if view.last is None else _outcome(view.last, now)
        row = (view.name, view.workflow, view.on, last, f"{view.state}{because}")
        table.add_row(*map(plain, row))
    console().print(table)


def _outcome(arrival: ArrivalView, now: datetime) -> str:
    """Return what became of an arrival, short enough for a column."""
    told = arrival.status if arrival.run is not None else arrival.decision
    return f"{told or 'its run is deleted'}, {words.age(arrival.decided_at, now)}"


def print_detail(view: DetailView, now: datetime) -> None:
    """Print all that is known of a trigger."""
    out = console()
    out.print(_facts(view))
    if view.arrivals:
        out.print()
        print_arrivals(view.arrivals, now)


def _facts(view: DetailView) -> Table:
    table = facts_table()
    table.add_row("trigger", plain(view.name))
    table.add_row("workflow", plain(view.workflow))
    table.add_row("code", plain(f"pinned: {view.code}" if view.pinned else f"latest: {view.code}"))
    for name, waits_for in view.on.items():
        table.add_row("waits for", plain(f"{name}: {waits_for}" if name else waits_for))
    table.add_row("stands", plain(view.standing))
    if view.where is not None:
        table.add_row("where", plain(view.where))
    for name, value in view.inputs.items():
        shown = value if isinstance(value, str) else words.shown(value)
        table.add_row("input", plain(f"{name} = {shown}"))
    for name, tag in view.tags.items():
        table.add_row("tag", plain(f"{name}={tag}"))
    if view.module is not None:
        table.add_row("declared in", plain(view.module))
    return table


def print_arrivals(views: Sequence[ArrivalView], now: datetime) -> None:
    """Print one line an arrival, the newest first: what, why, and its run."""
    named = ["FOR"] if any(view.condition for view in views) else []
    table = columns("ARRIVAL", *named, "DECISION", "WHEN", "REASON", "RUN")
    for view in views:
        run = "" if view.run is None else f"{plain(view.run)} {status(view.status or 'deleted')}"
        table.add_row(
            plain(view.key),
            *(plain(view.condition) for _ in named),
            plain(view.decision),
            words.age(view.decided_at, now),
            plain(view.reason),
            run,
        )
    console().print(table)


def print_foreseen(views: Sequence[ForeseenView]) -> None:
    """Print what would become of each arrival."""
    table = columns("ARRIVAL", "DECISION", "REASON", "RUN")
    for view in views:
        table.add_row(*map(plain, (view.key, view.decision, view.reason, view.run or "")))
    console().print(table)
