"""Durations, ages and sizes in words short enough for a column."""

from __future__ import annotations

from datetime import datetime

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def duration(seconds: float | None) -> str:
    """Return ``"12 ms"``, ``"3.4 s"``, ``"5 min 6 s"``, ``"7 h 8 min"``, ``"9 d 1 h"``."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, part_s, part in (
        (_DAY_S, "d", _HOUR_S, "h"),
        (_HOUR_S, "h", _MINUTE_S, "min"),
        (_MINUTE_S, "min", 1, "s"),
    ):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def age(then: datetime, now: datetime) -> str:
    """Return ``"5 min ago"``; ``"now"`` within a second, also for clocks that disagree."""
    seconds = (now - then).total_seconds()
    if seconds < 1:
        return "now"
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit} ago"
    return f"{int(seconds)} s ago"


def one_line(text: str, width: int) -> str:
    """Return ``text`` without line breaks, cut to ``width`` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
