"""The verb that shows what goes on: ``top``."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.endings import ExitCode, say
from perdure.cli.session import JsonOption, StoreOption, TracebackOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perdure.view.activity import Activity
    from perdure.view.model import ActiveRunView, ActivityView

_STEPS_WIDTH = 44
_BAR = 10
_PAUSE_SHARE = 4
"""To look takes at most one part in five of the time, however much goes on."""


def top(
    once: Annotated[
        bool, typer.Option("--once", help="Show it once and end, as where there is no terminal.")
    ] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many runs.")] = 30,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How often it looks.")
    ] = 1.0,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show the runs that go on and who drives them, live, until Ctrl-C.

    Those that run come first, then those that are queued, paused or wait, then what has ended in
    the last ten minutes. Below are the processes that drive runs, with their workers. With --once,
    with --json, and where the output is no terminal, it shows that once.
    """
    from perdure.cli.opening import NoStoreYet, open_existing
    from perdure.cli.views import to_json
    from perdure.view.activity import Activity

    try:
        perdure = open_existing(store)
    except NoStoreYet as nothing:
        print("{}") if as_json else say(f"no runs: {nothing}")
        return ExitCode.OK
    with perdure:
        activity = Activity(perdure.runtime, limit)
        if as_json:
            print(to_json(activity.look()))
        elif once or not sys.stdout.isatty():
            _print(activity.look())
        else:
            return _watch(activity, threading.Event().wait, every)
    return ExitCode.OK


def _print(view: ActivityView) -> None:
    from perdure.cli.tables import console

    console().print(_picture(view))


def _watch(activity: Activity, wait: Callable[[float], object], every_s: float) -> int:
    """Draw it again and again in place; what was seen last stays on the terminal."""
    from rich.live import Live

    from perdure.cli.tables import console

    with Live(
        _picture(activity.look()),
        console=console(),
        auto_refresh=False,
        vertical_overflow="crop",
    ) as live:
        pause_s = every_s
        try:
            while True:
                wait(pause_s)
                began = time.monotonic()
                live.update(_picture(activity.look()), refresh=True)
                pause_s = max(every_s, _PAUSE_SHARE * (time.monotonic() - began))
        except KeyboardInterrupt:
            return ExitCode.CANCELLED


# --- as text ------------------------------------------------------------------------------------
def _picture(view: ActivityView) -> RenderableType:
    from rich.console import Group

    parts: list[RenderableType] = [_runs(view) if view.runs else "no runs go on"]
    if not view.are_all:
        parts.append("and more: --limit shows them")
    return Group(*parts, "", _coordinators(view))


def _runs(view: ActivityView) -> RenderableType:
    from perdure.cli.tables import columns, plain, status
    from perdure.words import duration

    table = columns("RUN", "WORKFLOW", "STATUS", "STEPS", "NOW", "FOR", "DRIVEN BY")
    for run in view.runs:
        table.add_row(
            plain(run.id),
            plain(run.workflow),
            status(run.status),
            _progress(run),
            plain(_now(run)),
            f"{duration(run.age_s)}{' ago' if run.status in _ENDED else ''}",
            plain(run.driver),
        )
    return table


_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


def _progress(run: ActiveRunView) -> str:
    if not run.total:
        return ""
    filled = round(_BAR * run.done / run.total)
    bar = f"[green]{'━' * filled}[/green][dim]{'─' * (_BAR - filled)}[/dim]"
    failed = f" [red]{run.failed:,} failed[/red]" if run.failed else ""
    return f"{bar} {run.done:,}/{run.total:,}{failed}"


def _now(run: ActiveRunView) -> str:
    """Return which steps run and for how long, or what the run waits for."""
    from perdure import words

    if not run.steps:
        return words.one_line(run.waits, _STEPS_WIDTH)
    more = f" +{run.running - 1}" if run.running > 1 else ""
    name = words.one_line(run.steps[0], _STEPS_WIDTH - 12)
    return f"{name} {words.duration(run.step_s)}{more}"


def _coordinators(view: ActivityView) -> RenderableType:
    from perdure.cli.tables import columns, plain

    if not view.coordinators:
        return "nobody drives runs: `perdure up` does"
    table = columns("PROCESS", "HOST", "WORKERS", "RUNS", "")
    for each in view.coordinators:
        serves = "takes on what nobody drives" if each.serves else "drives its own runs"
        table.add_row(str(each.pid), plain(each.host), str(each.workers), str(each.runs), serves)
    return table
