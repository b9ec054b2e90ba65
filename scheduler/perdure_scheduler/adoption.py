"""Triggers of APScheduler as declarations: for schedules that have been APScheduler's so far.

Read by their attributes, so nothing of APScheduler is imported. What such a trigger leaves to the
moment (a start that is "now", jitter by chance) is not taken over: times follow from values here.

Source: APScheduler 3.11, ``apscheduler.triggers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from perdure_scheduler.errors import ScheduleError

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TAKEN = "an IntervalTrigger, a DateTrigger or a CronTrigger"
_COLUMNS = ("minute", "hour", "day", "month", "day_of_week")


def adopted(trigger: Any) -> dict[str, Any]:
    """Return the options that declare the times of a trigger of APScheduler 3.

    Raises:
        ScheduleError: it is no such trigger, or has times that cannot be declared.
    """
    read = _READERS.get(type(trigger).__name__)
    if read is None or not type(trigger).__module__.startswith("apscheduler.triggers."):
        raise ScheduleError(f"trigger={trigger!r:.80}: write {_TAKEN} of APScheduler")
    options = read(trigger)
    for name, attribute in (("start", "start_date"), ("end", "end_date")):
        options[name] = getattr(trigger, attribute, None)
    if jitter := getattr(trigger, "jitter", None):
        options["jitter"] = jitter
    return {name: value for name, value in options.items() if value is not None}


def _interval(trigger: Any) -> dict[str, Any]:
    length: timedelta = trigger.interval
    return {"interval": length}


def _date(trigger: Any) -> dict[str, Any]:
    return {"at": trigger.run_date}


def _cron(trigger: Any) -> dict[str, Any]:
    fields = {field.name: field for field in trigger.fields}
    for name, plain in (("year", "*"), ("week", "*"), ("second", "0")):
        if str(fields[name]) != plain:
            raise ScheduleError(
                f"trigger={trigger}: cron has no {name} field: write a calendar=, or start= and "
                "end= for years"
            )
    if str(fields["day"]) != "*" and str(fields["day_of_week"]) != "*":
        raise ScheduleError(
            f"trigger={trigger}: APScheduler means days that fit both day and day_of_week, cron "
            "those that fit either: write a calendar="
        )
    # A nth weekday is a day there, and a weekday in cron.
    days: list[str] = []
    weekdays: list[str] = []
    for expression in fields["day"].expressions:
        nth = type(expression).__name__ == "WeekdayPositionExpression"
        (weekdays if nth else days).append(_text(expression, "day"))
    if days and weekdays:
        raise ScheduleError(f"trigger={trigger}: days and n-th weekdays together: write two")
    columns = {name: [_text(each, name) for each in fields[name].expressions] for name in _COLUMNS}
    columns["day"] = days or ["*"]
    if weekdays:
        columns["day_of_week"] = weekdays
    return {
        "cron": " ".join(",".join(columns[name]) for name in _COLUMNS),
        "tz": str(trigger.timezone),
    }


def _text(expression: Any, field: str) -> str:
    """Return one part of a field as cron writes it; weekdays by name: 0 is Monday there."""
    kind = type(expression).__name__
    if kind == "LastDayOfMonthExpression":
        return "L"
    if kind == "WeekdayPositionExpression":
        name = _WEEKDAYS[expression.weekday]
        return f"{name}L" if expression.option_num == 5 else f"{name}#{expression.option_num + 1}"
    step = f"/{expression.step}" if expression.step else ""
    if kind == "AllExpression":
        return f"*{step}"
    first, last = expression.first, expression.last
    if last == first:
        step = ""
    if field != "day_of_week":
        return f"{first}{step}" if last in (None, first) else f"{first}-{last}{step}"
    last = 6 if last is None else last
    return ",".join(_WEEKDAYS[day] for day in range(first, last + 1, expression.step or 1))


_READERS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "IntervalTrigger": _interval,
    "DateTrigger": _date,
    "CronTrigger": _cron,
}
