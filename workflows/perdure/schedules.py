"""A schedule as its user writes it: a value, without effect until it is registered."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, get_args

from perdure.errors import DefinitionError, known_names
from perdure.target import file_being_imported
from perdure.workflow import Workflow
from perdure_scheduler.calendars import Calendar
from perdure_scheduler.declaration import Instant, declared
from perdure_scheduler.durations import Duration
from perdure_scheduler.moments import Form, Moment
from perdure_scheduler.policies import Catchup, OnFailure, Overlap
from perdure_scheduler.schedule import Schedule as Times
from perdure_scheduler.zones import Dst

fire_time = Moment.FIRE_TIME
interval_start = Moment.INTERVAL_START
interval_end = Moment.INTERVAL_END

_CODES = ("latest", "pinned")
_FORMS = {datetime: Form.DATETIME, date: Form.DATE, str: Form.TEXT}


class Schedule:
    """When a workflow runs by itself: a value, without effect until it is registered.

    ``perdure up MODULE`` registers what modules hold; ``perdure.schedule(...)`` does at once.
    Options of its runs are the workflow's: ``iris.options(tags={"team": "a"})``.

    Args:
        name: names it and its runs, ``nightly-20260105T010000Z``.
        workflow: what runs.
        cron: five fields with their POSIX meaning, ``"0 2 * * mon-fri"``, or ``"@daily"``.
        interval: time between two ticks: seconds, a ``timedelta``, ``"90m"``; counted from
            ``start``, else from 1970.
        calendar: days that a rule names, ``"last business day at 18:00"``, ``"2nd tue at 09:30"``.
        at: one instant or several.
        trigger: one of APScheduler 3, in place of all of the above, ``start`` and ``end``.
        tz: the time zone in which all of them are read, an IANA name.
        inputs: arguments by name; ``perdure.fire_time``, ``interval_start`` and ``interval_end``
            stand for the times of each tick, as datetime, date or ISO text, by the parameter's
            type.
        start: no tick before it.
        end: no tick after it; a date is the whole of that day.
        max_runs: it ends after so many runs.
        overlap: what a tick does while a run goes on: ``"skip"``, ``"queue(max=1)"``,
            ``"queue_all(max=N)"``, ``"cancel_running"``, ``"allow(max=N)"``.
        catchup: what becomes of ticks that nobody decided in time: ``"none"``, ``"latest"``,
            ``"all(max=N, window=7d)"``.
        grace: how late a tick is still on time; by default one period, at most an hour.
        dst: wall times that do not exist or come twice: ``"gap=shift"`` or ``skip``,
            ``"fold=first"``, ``last`` or ``both``.
        jitter: the most by which ticks are delayed, each by a share of its own.
        on_failure: ``"continue"``, or ``"pause_after(N)"`` failed runs in a row.
        concurrency: a word, ``"warehouse"``: schedules that have the same one count each other's
            runs in their ``overlap``.
        code: ``"latest"``: each run is of the code as it is then; ``"pinned"``: as it is now.

    Raises:
        ScheduleError: something about the times is no such thing, or contradicts another.
        DefinitionError: an input does not fit the workflow.
    """

    def __init__(
        self,
        name: str,
        workflow: Workflow[..., Any],
        *,
        cron: str | None = None,
        interval: Duration | None = None,
        calendar: Calendar | str | None = None,
        at: Instant | Iterable[Instant] | None = None,
        trigger: Any = None,
        tz: str = "UTC",
        inputs: Mapping[str, Any] | None = None,
        start: Instant | None = None,
        end: Instant | None = None,
        max_runs: int | None = None,
        overlap: Overlap | str = "queue",
        catchup: Catchup | str = "latest",
        grace: Duration | None = None,
        dst: Dst | str | None = None,
        jitter: Duration = 0,
        on_failure: OnFailure | str = "continue",
        concurrency: str | None = None,
        code: str = "latest",
    ) -> None:
        self.times: Times = declared(
            name,
            cron=cron,
            interval=interval,
            calendar=calendar,
            at=at,
            trigger=trigger,
            tz=tz,
            start=start,
            end=end,
            max_runs=max_runs,
            overlap=overlap,
            catchup=catchup,
            grace=grace,
            dst=dst,
            jitter=jitter,
            on_failure=on_failure,
            concurrency=concurrency,
        )
        if not isinstance(workflow, Workflow):
            raise DefinitionError(
                f"schedule {name!r}: {workflow!r:.80} is no workflow: write @workflow above it"
            )
        if code not in _CODES:
            raise DefinitionError(f"schedule {name!r}: code={code!r}{known_names(code, _CODES)}")
        self.workflow = workflow
        self.code = code
        self.made_in = file_being_imported()
        self.inputs = dict(inputs or {})
        self._check_inputs()

    @property
    def name(self) -> str:
        """Return its name."""
        return self.times.name

    def __repr__(self) -> str:
        return f"<Schedule {self.name} of {self.workflow.name}>"

    def _check_inputs(self) -> None:
        schema = self.workflow.schema
        for name, value in schema.complete(self.inputs).items():
            if name not in self.inputs:
                continue
            if not isinstance(value, Moment):
                schema.check(name, value)
            elif schema.field(name).static and self.code == "pinned":
                raise DefinitionError(
                    f"schedule {self.name!r}: {name!r} is Static, part of the graph, so a pinned "
                    "graph has one value of it: give that, or code='latest'"
                )
            else:
                self.form_of(name)

    def form_of(self, name: str) -> Form:
        """Return how a parameter takes a time, by its annotation.

        Raises:
            DefinitionError: it takes something else.
        """
        annotation = self.workflow.schema.field(name).annotation
        kinds = get_args(annotation) or (annotation,)
        found = [form for kind, form in _FORMS.items() if kind in kinds]
        if found:
            return found[0]
        if annotation in (Any, inspect.Parameter.empty) or not isinstance(annotation, type):
            return Form.DATETIME
        raise DefinitionError(
            f"schedule {self.name!r}: {name!r} is given a time, and takes "
            f"{self.workflow.schema.field(name).text}: write datetime, date or str there"
        )
