"""Schedules and their ticks as the verbs show them: plain data, for tables and ``--json`` alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from perdure import words
from perdure.cli.tables import columns, console, facts_table, plain, status
from perdure.view.model import Preview
from perdure.view.runs import read_preview, statuses_of
from perdure_scheduler.calendars import Calendar
from perdure_scheduler.changes import state_of
from perdure_scheduler.cron import Cron
from perdure_scheduler.decide import ScheduleState, standing
from perdure_scheduler.definition import Definition
from perdure_scheduler.durations import text_of
from perdure_scheduler.schedule import NominalTime, Schedule
from perdure_scheduler.zones import rendered
from perdure_storage.lifecycle import RUN_LIVE
from perdure_storage.records import RunQuery
from perdure_storage.schedule_records import ScheduleQuery, ScheduleRecord, TickQuery, TickRecord

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from rich.table import Table

    from perdure.runtime import Runtime
    from perdure_scheduler.by_hand import Wish

ACTIVE, PAUSED, ENDED = "active", "paused", "ended"
NEXT, LATELY = 5, 10
"""How many times and ticks ``show`` shows."""


class TimeView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A nominal time: as the clock of the schedule's zone shows it, and in UTC."""

    local: datetime
    utc: datetime
    text: str
    remark: str = ""
    schedule: str = ""


class TickView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a nominal time, or of a row of them; ``status`` is that of its run."""

    at: datetime
    last: datetime | None = None
    count: int = 1
    text: str
    decision: str
    why: str
    reason: str
    decided_at: datetime
    run: str | None = None
    status: str | None = None
    code: str = ""


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as a list has it; ``because`` says why it is paused or has ended."""

    name: str
    workflow: str
    when: str
    tz: str
    state: str
    because: str
    module: str | None
    next: TimeView | None
    last: TickView | None


class DetailView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule with all that is known of it; ``beside`` has the others of its concurrency key."""

    name: str
    workflow: str
    code: str
    pinned: bool
    when: str
    tz: str
    policies: dict[str, str]
    inputs: dict[str, Preview | str | None]
    tags: dict[str, str]
    beside: list[str]
    module: str | None
    state: str
    standing: str
    waiting: list[datetime]
    fired: int
    live: list[str]
    created_at: datetime | None
    updated_at: datetime | None
    next: list[TimeView]
    ticks: list[TickView]


# --- from rows ------------------------------------------------------------------------------------
def view_schedules(runtime: Runtime, records: Sequence[ScheduleRecord]) -> list[ScheduleView]:
    """Return schedules as a list has them; however many, what became of them is read at once."""
    now = runtime.clock.now()
    ticks = runtime.store.schedules.newest_ticks([record.name for record in records])
    statuses = statuses_of(runtime, (tick.run_id for tick in ticks.values()))
    return [_view_schedule(record, ticks.get(record.name), statuses, now) for record in records]


def _view_schedule(
    record: ScheduleRecord, last: TickRecord | None, statuses: Mapping[str, str], now: datetime
) -> ScheduleView:
    definition, state = Definition.from_json(record.definition), state_of(record)
    schedule = definition.schedule
    coming = () if _standstill(state) else schedule.upcoming(_since(state, now), 1)
    return ScheduleView(
        name=record.name,
        workflow=definition.run.workflow,
        when=str(schedule.when),
        tz=schedule.tz,
        state=_state(state),
        because=state.paused.reason if state.paused is not None else state.ended,
        module=record.module,
        next=view_time(coming[0]) if coming else None,
        last=None if last is None else _view_tick(last, schedule.zone, statuses),
    )


def view_detail(runtime: Runtime, record: ScheduleRecord) -> DetailView:
    """Return a schedule with all that is known of it."""
    definition, state = Definition.from_json(record.definition), state_of(record)
    schedule, run = definition.schedule, definition.run
    now = runtime.clock.now()
    coming = schedule.upcoming(_since(state, now), NEXT) if not state.ended else ()
    inputs: dict[str, Preview | str | None] = {
        name: read_preview(value.preview) for name, value in run.inputs.items()
    }
    return DetailView(
        name=record.name,
        workflow=run.workflow,
        code=run.code,
        pinned=run.plan_digest is not None,
        when=str(schedule.when),
        tz=schedule.tz,
        policies=policies_of(schedule),
        inputs=inputs | {name: str(each.moment) for name, each in run.placeholders.items()},
        tags=run.tags,
        beside=_beside(runtime, record),
        module=record.module,
        state=_state(state),
        standing=standing(schedule, state, now),
        waiting=list(state.waiting),
        fired=state.fired,
        live=_live(runtime, record.name),
        created_at=record.created_at,
        updated_at=record.updated_at,
        next=[view_time(each) for each in coming],
        ticks=view_ticks(runtime, record.name, schedule.zone, limit=LATELY),
    )


def _beside(runtime: Runtime, record: ScheduleRecord) -> list[str]:
    if record.concurrency is None:
        return []
    query = ScheduleQuery(concurrency=record.concurrency)
    found = runtime.store.schedules.list_schedules(query)
    return [each.name for each in found if each.name != record.name]


def _live(runtime: Runtime, name: str) -> list[str]:
    """Return the runs of a schedule that go on, also those by hand, the oldest first."""
    query = RunQuery(schedule=name, status=tuple(RUN_LIVE))
    return [run.id for run in reversed(runtime.store.list_runs(query))]


def policies_of(schedule: Schedule) -> dict[str, str]:
    """Return the policies that hold, defaults included, by the names of their options."""
    told = {
        "overlap": str(schedule.overlap),
        "catchup": str(schedule.catchup),
        "grace": "one period, at most 1h" if schedule.grace is None else text_of(schedule.grace),
        "on_failure": str(schedule.on_failure),
    }
    if schedule.concurrency is not None:
        told["concurrency"] = schedule.concurrency
    if isinstance(schedule.when, Cron | Calendar):
        told["dst"] = str(schedule.meaning)
    if schedule.jitter:
        told["jitter"] = text_of(schedule.jitter)
    for bound in ("start", "end"):
        instant = getattr(schedule, bound)
        if instant is not None:
            told[bound] = rendered(instant, schedule.zone)
    if schedule.max_runs is not None:
        told["max_runs"] = str(schedule.max_runs)
    return told


def view_time(nominal: NominalTime, schedule: str = "") -> TimeView:
    """Return a nominal time, with the schedule where there are several."""
    return TimeView(
        local=nominal.local,
        utc=nominal.at,
        text=nominal.text,
        remark=nominal.remark,
        schedule=schedule,
    )


def view_ticks(runtime: Runtime, name: str, zone: ZoneInfo, *, limit: int) -> list[TickView]:
    """Return what became of a schedule's times, the newest first, with how their runs stand."""
    ticks = runtime.store.schedules.list_ticks(TickQuery(schedule=name, limit=limit))
    statuses = statuses_of(runtime, (tick.run_id for tick in ticks))
    return [_view_tick(tick, zone, statuses) for tick in ticks]


def _view_tick(tick: TickRecord, zone: ZoneInfo, statuses: Mapping[str, str]) -> TickView:
    upto = "" if tick.last is None else f" to {rendered(tick.last, zone)}"
    return TickView(
        at=tick.at,
        last=tick.last,
        count=tick.count,
        text=rendered(tick.at, zone) + upto,
        decision=tick.decision,
        why=tick.why,
        reason=tick.reason,
        decided_at=tick.decided_at,
        run=tick.run_id,
        status=None if tick.run_id is None else statuses.get(tick.run_id),
        code=tick.code,
    )


def _since(state: ScheduleState, now: datetime) -> datetime:
    """Return the time after which the next tick is: what is decided is not decided again."""
    return max(state.decided_through, now)


def _standstill(state: ScheduleState) -> bool:
    return state.paused is not None or bool(state.ended)


def _state(state: ScheduleState) -> str:
    if state.paused is not None:
        return PAUSED
    return ENDED if state.ended and not state.waiting else ACTIVE


# --- as text --------------------------------------------------------------------------------------
def print_schedules(views: Sequence[ScheduleView], now: datetime) -> None:
    """Print one line a schedule, by name."""
    table = columns("NAME", "WHEN", "NEXT", "LAST", "STATE")
    for view in views:
        coming = "" if view.next is None else view.next.text
        because = f": {view.because}" if view.because else ""
        last = "" if view.last is None else _outcome(view.last, now)
        when = view.when if view.tz == "UTC" else f"{view.when} {view.tz}"
        table.add_row(*map(plain, (view.name, when, coming, last, f"{view.state}{because}")))
    console().print(table)


def _outcome(tick: TickView, now: datetime) -> str:
    """Return what became of a tick, short enough for a column."""
    told = tick.status if tick.run is not None else tick.decision
    return f"{told or 'its run is deleted'}, {words.age(tick.decided_at, now)}"


def print_detail(view: DetailView, now: datetime) -> None:
    """Print all that is known of a schedule."""
    out = console()
    out.print(_facts(view))
    if view.next:
        out.print()
        print_times(view.next, heading="NEXT")
    if view.ticks:
        out.print()
        print_ticks(view.ticks, now)


def _facts(view: DetailView) -> Table:
    table = facts_table()
    table.add_row("schedule", plain(view.name))
    table.add_row("workflow", plain(view.workflow))
    table.add_row("code", plain(f"pinned: {view.code}" if view.pinned else f"latest: {view.code}"))
    table.add_row("when", plain(f"{view.when} in {view.tz}"))
    table.add_row("stands", plain(view.standing))
    for name, policy in view.policies.items():
        beside = f", with {', '.join(view.beside)}" if name == "concurrency" and view.beside else ""
        table.add_row(name, plain(policy + beside))
    for name, value in view.inputs.items():
        shown = f"the {value} of each tick" if isinstance(value, str) else words.shown(value)
        table.add_row("input", plain(f"{name} = {shown}"))
    for name, tag in view.tags.items():
        table.add_row("tag", plain(f"{name}={tag}"))
    if view.module is not None:
        table.add_row("declared in", plain(view.module))
    if view.live:
        more = f" and {len(view.live) - 3} more" if len(view.live) > 3 else ""
        table.add_row("goes on", plain(", ".join(view.live[:3]) + more))
    return table


def print_times(views: Sequence[TimeView], heading: str = "TIME") -> None:
    """Print one line a nominal time, in its zone and in UTC."""
    names = ["SCHEDULE"] if any(view.schedule for view in views) else []
    remarks = ["REMARK"] if any(view.remark for view in views) else []
    table = columns(heading, *names, *remarks)
    for view in views:
        more = [view.schedule for _ in names] + [view.remark for _ in remarks]
        table.add_row(*map(plain, (view.text, *more)))
    console().print(table)


def print_ticks(views: Sequence[TickView], now: datetime) -> None:
    """Print one line a tick, the newest first: what, why, and its run."""
    table = columns("TICK", "DECISION", "WHEN", "REASON", "RUN")
    for view in views:
        times = f" ({view.count} times)" if view.count > 1 else ""
        run = "" if view.run is None else f"{plain(view.run)} {status(view.status or 'deleted')}"
        table.add_row(
            plain(view.text),
            plain(f"{view.decision}{times}"),
            words.age(view.decided_at, now),
            plain(view.reason),
            run,
        )
    console().print(table)


def print_wishes(wishes: Sequence[Wish], zone: ZoneInfo, *, dry_run: bool) -> None:
    """Print what became of each time of a backfill, and the sum of it."""
    table = columns("TIME", "RUN", "REASON")
    made = "would be made" if dry_run else "made"
    for wish in wishes:
        reason = f"{made}: {wish.reason}" if wish.is_made else f"left: {wish.reason}"
        table.add_row(*map(plain, (rendered(wish.at, zone), wish.run_id, reason)))
    console().print(table)
    number = sum(wish.is_made for wish in wishes)
    print(f"{words.count_of(number, 'run')} {made}, {words.count(len(wishes) - number)} left")
