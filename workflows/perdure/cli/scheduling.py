"""``perdure schedule ...``: what runs by itself, when, and what became of each time."""

from __future__ import annotations

import heapq
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.completion import choices, schedule_names
from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.examples import epilog
from perdure.cli.flags import Verb, Verbs
from perdure.cli.registered import (
    LimitOption,
    ModulesArgument,
    PausedOption,
    YesOption,
    may_remove,
)
from perdure.cli.session import MOST, JsonOption, StoreOption, TracebackOption

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

    from perdure.client import Perdure
    from perdure.scheduling import ScheduleHandle
    from perdure_scheduler.schedule import NominalTime, Schedule

schedule = typer.Typer(
    cls=Verbs,
    help="Runs that begin by themselves: `perdure schedule ls`, `show NAME`, `ticks NAME`;"
    " `perdure up` makes them.",
    no_args_is_help=True,
)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A schedule's name, or a unique prefix of it.",
        autocompletion=schedule_names,
    ),
]
CountOption = Annotated[
    int, typer.Option("--count", "-n", metavar="N", min=1, max=MOST, help="How many.")
]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="DATE", help="From then on, as the zone's clock shows it; default: now."
    ),
]
_INSTANT = timedelta(microseconds=1)
BY_HAND = "by hand"


# --- look -----------------------------------------------------------------------------------------
@schedule.command("ls", cls=Verb, epilog=epilog("schedule ls"))
def list_schedules(
    paused: PausedOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """List schedules: when each is due next, in its zone and in UTC, and how its last run went."""
    from perdure.cli.opening import NoStoreYet, open_existing
    from perdure.cli.schedule_views import print_schedules, view_schedules
    from perdure.cli.views import to_json
    from perdure.scheduling import registry_of
    from perdure_storage.schedule_records import ScheduleQuery

    try:
        perdure = open_existing(store)
    except NoStoreYet as nothing:
        print("[]") if as_json else say(f"no schedules: {nothing}")
        return ExitCode.OK
    with perdure:
        records = registry_of(perdure.runtime).all(ScheduleQuery(paused=paused))
        views = view_schedules(perdure.runtime, records)
        if as_json:
            print(to_json(views))
        elif views:
            print_schedules(views, perdure.runtime.clock.now())
        else:
            say(f"no such schedules in {perdure.runtime.store.url}")
    return ExitCode.OK


@schedule.command("show", cls=Verb, epilog=epilog("schedule show"))
def show(
    name: NameArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show a schedule: what it runs, its policies, its next times and its last ticks."""
    from perdure.cli.opening import open_existing
    from perdure.cli.schedule_views import print_detail, view_detail
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        view = view_detail(perdure.runtime, _find(perdure, name).record)
        if as_json:
            print(to_json(view))
        else:
            print_detail(view, perdure.runtime.clock.now())
    return ExitCode.OK


@schedule.command("ticks", cls=Verb, epilog=epilog("schedule ticks"))
def ticks(
    name: NameArgument,
    limit: LimitOption = 100,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Print the ledger: each nominal time, newest first, what became of it, why, and its run."""
    from perdure.cli.opening import open_existing
    from perdure.cli.schedule_views import print_ticks, view_ticks
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        zone = handle.definition.schedule.zone
        views = view_ticks(perdure.runtime, handle.name, zone, limit=limit)
        if as_json:
            print(to_json(views))
        elif views:
            print_ticks(views, perdure.runtime.clock.now())
        else:
            say(f"no tick of {handle.name} has come yet: {handle.standing}")
    return ExitCode.OK


@schedule.command("next", cls=Verb, epilog=epilog("schedule next"))
def next_times(
    name: NameArgument,
    count: CountOption = 5,
    at: AtOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Print the next times of a schedule, as its zone shows them and in UTC."""
    from perdure.cli.opening import open_existing
    from perdure.cli.schedule_views import view_time

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        times = handle.definition.schedule
        found = handle.next(count) if at is None else times.upcoming(_from(at, times.zone), count)
        _print_times([view_time(each) for each in found], as_json=as_json)
        if not found or (at is None and handle.record.paused):
            say(f"{handle.name}: {handle.standing}")
    return ExitCode.OK


@schedule.command("test", cls=Verb, epilog=epilog("schedule test"))
def foresee(
    expression: Annotated[
        str | None,
        typer.Argument(
            metavar="[EXPRESSION]",
            help="Cron ('0 2 * * mon-fri', '@daily'), an interval ('90m') or a calendar's rule "
            "('last business day at 18:00'); without it all schedules of the store.",
        ),
    ] = None,
    tz: Annotated[str, typer.Option("--tz", metavar="ZONE", help="An IANA time zone.")] = "UTC",
    at: AtOption = None,
    count: CountOption = 5,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Print when something would be due: an expression, or all schedules of the store together.

    An expression needs no store. Nights on which the clocks change are remarked on.
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.schedule_views import view_time
    from perdure_scheduler.declaration import expressed
    from perdure_scheduler.zones import zone

    if expression is not None:
        times = expressed(expression, tz=tz)
        found = times.upcoming(_from(at, times.zone), count)
        _print_times([view_time(each) for each in found], as_json=as_json)
        return ExitCode.OK
    with open_existing(store) as perdure:
        all_of = [each.definition.schedule for each in perdure.list_schedules(paused=False)]
        since = _from(at, zone(tz))
        merged = heapq.merge(*(_named(each, since) for each in all_of), key=lambda pair: pair[0].at)
        views = [view_time(nominal, name) for nominal, name in islice(merged, count)]
        _print_times(views, as_json=as_json)
    return ExitCode.OK


def _named(times: Schedule, since: datetime) -> Iterator[tuple[NominalTime, str]]:
    return ((times.nominal(at), times.name) for at in times.after(since))


def _from(at: str | None, zone: ZoneInfo) -> datetime:
    """Return the instant after which times are looked for, so that ``at`` itself is one."""
    from perdure_scheduler.declaration import instant_of
    from perdure_storage.clock import SystemClock

    return SystemClock().now() if at is None else instant_of(at, zone, what="--at") - _INSTANT


def _print_times(views: list[Any], *, as_json: bool) -> None:
    from perdure.cli.schedule_views import print_times
    from perdure.cli.views import to_json

    if as_json:
        print(to_json(views))
    elif views:
        print_times(views)
    else:
        say("no time is left")


# --- change ---------------------------------------------------------------------------------------
@schedule.command("register", cls=Verb, epilog=epilog("schedule register"))
def register(
    modules: ModulesArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Register what modules declare, triggers too, and pause what they no longer declare.

    Imports them. To register again what is there changes nothing. `perdure up MODULE...` does it
    before it serves.
    """
    from perdure.cli.registering import register_modules

    return register_modules(modules, store, as_json=as_json)


@schedule.command("pause", cls=Verb, epilog=epilog("schedule pause"))
def pause(
    name: NameArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; it stands in the ledger.")
    ] = BY_HAND,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Let no tick of a schedule fire until it is resumed; its runs go on."""
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        was_paused = handle.record.paused
        handle.pause(reason)
        if was_paused and reason != BY_HAND:
            say(f"{name} was paused before, and keeps the reason of then")
        _tell(perdure, handle, as_json=as_json)
    return ExitCode.OK


@schedule.command("resume", cls=Verb, epilog=epilog("schedule resume"))
def resume(
    name: NameArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Let a paused schedule go on from now; what was due meanwhile is skipped, and noted so."""
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        handle.resume()
        _tell(perdure, handle, as_json=as_json)
    return ExitCode.OK


@schedule.command("trigger", cls=Verb, epilog=epilog("schedule trigger"))
def trigger(
    name: NameArgument,
    day: Annotated[
        str | None,
        typer.Option(
            "--day",
            metavar="DATE",
            help="Not now's, but the nominal times of that day; each has at most one run.",
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Make a run of a schedule now, whatever its policies say and whether or not it is paused.

    Its fire_time is now. It waits for no run of the schedule, and no tick waits for it; the ledger
    notes it as by hand.
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json
    from perdure.view.runs import view_runs

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        runs = [handle.trigger()] if day is None else handle.run_at(day)
        if as_json:
            print(to_json(view_runs(runs)))
        else:
            for run in runs:
                say(f"run {run.id} is {run.status}: `perdure show {run.id}`")
    return ExitCode.OK


@schedule.command("backfill", cls=Verb, epilog=epilog("schedule backfill"))
def backfill(
    name: NameArgument,
    start: Annotated[
        str, typer.Option("--from", metavar="DATE", help="First time, as the zone's clock has it.")
    ],
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="DATE", help="Last time, that day included; default: now."),
    ] = None,
    reprocess: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Times that had a run get another one: none, failed or all.",
            autocompletion=choices("reprocess"),
        ),
    ] = "none",
    max_active: Annotated[
        int,
        typer.Option(metavar="N", min=1, max=MOST, help="At most so many of its runs at one time."),
    ] = 4,
    backfill_id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="With --reprocess: go on with an interrupted backfill."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made; make nothing.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Make the runs that the times of a range have not had: `perdure up` runs them.

    Ends when all of them are made, which takes as long as --max-active lets it. It may be
    interrupted and begun again: a run that is made is not made again.
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.schedule_views import print_wishes
    from perdure.cli.views import to_json
    from perdure_scheduler.schedule import stamp

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        zone = handle.definition.schedule.zone
        _check_backfill(start, end, reprocess, backfill_id, zone)
        name_of_it = backfill_id or stamp(perdure.runtime.clock.now().replace(microsecond=0))
        if reprocess != "none" and not dry_run:
            say(f"backfill {name_of_it}: if it is interrupted, --id {name_of_it} goes on with it")
        try:
            wishes = handle.backfill(
                start,
                end,
                reprocess=reprocess,
                max_active=max_active,
                dry_run=dry_run,
                id=name_of_it,
                tell=lambda wish: say(f"run {wish.run_id} is made: {wish.reason}"),
            )
        except KeyboardInterrupt:
            say("interrupted: the same command goes on where it stopped")
            return ExitCode.CANCELLED
    if as_json:
        print(to_json(wishes))
    else:
        print_wishes(wishes, zone, dry_run=dry_run)
    return ExitCode.OK


def _check_backfill(
    start: str, end: str | None, reprocess: str, backfill_id: str | None, zone: ZoneInfo
) -> None:
    """Refuse what cannot be meant, by the names of the options; say where the times end."""
    from perdure.errors import known_names
    from perdure_scheduler.by_hand import Reprocess
    from perdure_scheduler.declaration import instant_of
    from perdure_storage.clock import SystemClock

    instant_of(start, zone, what="--from")
    if end is not None and instant_of(end, zone, what="--to") > SystemClock().now():
        say(f"--to {end} has yet to come: the backfill ends with the last time before now")
    known = [str(each) for each in Reprocess]
    if reprocess not in known:
        raise UsageError(f"--reprocess {reprocess}{known_names(reprocess, known)}")
    if backfill_id is not None and reprocess == Reprocess.NONE:
        raise UsageError(
            "--id names a backfill with --reprocess: without it, the same command goes on with an "
            "interrupted one"
        )


@schedule.command("rm", cls=Verb, epilog=epilog("schedule rm"))
def remove(
    name: NameArgument,
    yes: YesOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Remove a schedule with its ledger; its runs stay. There is no way back.

    What a module declares comes back when that module is registered again.
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        if not may_remove("schedule", handle.name, "ledger", yes=yes):
            return ExitCode.FAILED
        handle.remove()
    if as_json:
        print(to_json({"name": handle.name, "removed": True}))
    else:
        say(f"schedule {handle.name} is removed; its runs stay")
    return ExitCode.OK


def _tell(perdure: Perdure, handle: ScheduleHandle, *, as_json: bool) -> None:
    """Say how a schedule stands now."""
    from perdure.cli.schedule_views import view_schedules
    from perdure.cli.views import to_json

    if as_json:
        [view] = view_schedules(perdure.runtime, [handle.record])
        print(to_json(view))
    else:
        say(f"{handle.name}: {handle.standing}")


def _find(perdure: Perdure, text: str) -> ScheduleHandle:
    """Return the schedule that ``text`` names: by its name, or a unique prefix of it.

    Raises:
        ScheduleNotFound: there is none.
        UsageError: several begin with it.
    """
    from perdure.cli.naming import by_prefix
    from perdure_storage.schedule_records import ScheduleQuery

    schedules = perdure.runtime.store.schedules

    def begin_so(prefix: str, limit: int) -> list[str]:
        page = schedules.list_schedules(ScheduleQuery(name_prefix=prefix, limit=limit))
        return [each.name for each in page]

    return perdure.get_schedule(by_prefix(text, begin_so, "schedules"))
