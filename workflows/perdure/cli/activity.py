"""The verb that shows what goes on: ``top``."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from bisect import bisect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.endings import ExitCode, say
from perdure.cli.keyboard import END, typed_keys
from perdure.cli.session import MOST, JsonOption, StoreOption, TracebackOption

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from perdure.client import Perdure
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
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=MOST, help="At most so many runs.")
    ] = 30,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How often it looks.")
    ] = 1.0,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show the runs that go on and who drives them, live, until q or Ctrl-C.

    Those that run come first, then those that are queued, paused or wait, then what has ended in
    the last ten minutes. Below are the processes that drive runs, with their workers. Where there
    is no store yet it waits for one. With --once, with --json, and where the output is no
    terminal, it shows that once.
    """
    is_live = not (once or as_json) and sys.stdout.isatty()
    wait = threading.Event().wait
    try:
        perdure = _await_store(store, wait, every) if is_live else _find_store(store)
        if perdure is None:
            _show_nothing(as_json=as_json)
            return ExitCode.OK
        with perdure:
            return _show(perdure, limit, as_json=as_json, every_s=every, is_live=is_live)
    except KeyboardInterrupt:
        return ExitCode.CANCELLED


def _find_store(store: str | None) -> Perdure | None:
    """Open the store; say so and return None if there is none yet."""
    from perdure.cli.opening import NoStoreYet, open_existing

    try:
        return open_existing(store)
    except NoStoreYet as nothing:
        say(f"no runs: {nothing}")
        return None


def _await_store(store: str | None, wait: Callable[[float], object], every_s: float) -> Perdure:
    """Open the store, as soon as there is one."""
    from perdure.cli.opening import NoStoreYet, open_existing

    perdure = _find_store(store)
    while perdure is None:
        wait(every_s)
        with contextlib.suppress(NoStoreYet):
            perdure = open_existing(store)
    return perdure


def _show_nothing(*, as_json: bool) -> None:
    from perdure.cli.views import to_json
    from perdure.view.model import ActivityView
    from perdure_storage.clock import SystemClock

    if as_json:
        print(to_json(ActivityView(at=SystemClock().now())))


def _show(
    perdure: Perdure,
    limit: int,
    *,
    as_json: bool,
    every_s: float,
    is_live: bool,
) -> int:
    from perdure.cli.views import to_json
    from perdure.view.activity import Activity

    activity = Activity(perdure.runtime, limit)
    if as_json:
        print(to_json(activity.look()))
    elif is_live:
        with typed_keys() as typed:
            _watch(activity, lambda pause_s: bool({"q", END} & {*typed(pause_s)}), every_s)
    else:
        _print(activity.look())
    return ExitCode.OK


def _print(view: ActivityView) -> None:
    from perdure.cli.tables import console

    console().print(_picture(view))


def _watch(activity: Activity, is_over: Callable[[float], bool], every_s: float) -> None:
    """Draw it again and again in place; what was seen last stays on the terminal.

    Args:
        activity: what goes on.
        is_over: waits for so many seconds, and says whether it is to end.
        every_s: how long to wait at least.
    """
    from rich.live import Live

    from perdure.cli.tables import console

    screen = console()
    with Live(_fitting(activity.look(), screen), console=screen, auto_refresh=False) as live:
        pause_s = every_s
        while not is_over(pause_s):
            began = time.monotonic()
            live.update(_fitting(activity.look(), screen), refresh=True)
            pause_s = max(every_s, _PAUSE_SHARE * (time.monotonic() - began))


def _fitting(view: ActivityView, screen: Console) -> RenderableType:
    """Return the picture with as many runs as the terminal has room for: the first ones.

    Where there is room for none beside the processes, runs are shown and the processes are not.
    """
    screen.width = shutil.get_terminal_size().columns
    room = screen.height - 1

    def fits(picture: RenderableType) -> bool:
        return len(screen.render_lines(picture)) <= room

    everything = _picture(view)
    if fits(everything):
        return everything
    for draw in (_picture, _picture_of_runs):
        numbers = range(1, len(view.runs))
        if number := bisect(numbers, False, key=lambda n: not fits(draw(*_first(view, n)))):
            return draw(*_first(view, number))
    return _picture_of_runs(*_first(view, 1))


def _first(view: ActivityView, number: int) -> tuple[ActivityView, int]:
    """Return what goes on with its first runs alone, and how many are left out."""
    from msgspec.structs import replace

    return replace(view, runs=view.runs[:number]), len(view.runs) - number


# --- as text ------------------------------------------------------------------------------------
def _picture(view: ActivityView, left_out: int = 0) -> RenderableType:
    """Return it as text.

    Args:
        view: what goes on.
        left_out: how many runs more there would be, if the terminal were higher.
    """
    from rich.console import Group

    return Group(_picture_of_runs(view, left_out), "", _coordinators(view))


def _picture_of_runs(view: ActivityView, left_out: int = 0) -> RenderableType:
    from rich.console import Group

    from perdure.words import count_of

    parts: list[RenderableType] = [_runs(view) if view.runs or left_out else "no runs go on"]
    if left_out:
        parts.append(f"and {count_of(left_out, 'more run')}: make the terminal higher")
    elif not view.are_all:
        parts.append("and more: --limit shows them")
    return Group(*parts)


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
    done = run.done or 0
    filled = round(_BAR * done / run.total)
    bar = f"[green]{'━' * filled}[/green][dim]{'─' * (_BAR - filled)}[/dim]"
    failed = f" [red]{run.failed:,} failed[/red]" if run.failed else ""
    return f"{bar} {done:,}/{run.total:,}{failed}"


def _now(run: ActiveRunView) -> str:
    """Return which steps run and for how long, or what the run waits for."""
    from perdure import words

    if not run.steps:
        return words.one_line(run.waits, _STEPS_WIDTH)
    others = (run.running or 0) - 1
    more = f" +{others}" if others > 0 else ""
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
