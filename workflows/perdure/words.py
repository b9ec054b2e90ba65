"""Durations, ages, sizes and values in words short enough for a column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_LINES, _CHARS = 8, 600
"""So much of an error's message is read where its traceback is at hand."""
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
"""What programs colour their output with, and the titles that they give to windows."""


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


def beginning(text: str) -> str:
    """Return the beginning of a long text that stands elsewhere too, and how much is left out."""
    kept = "\n".join(text.split("\n")[:_LINES])[:_CHARS]
    left = len(text) - len(kept)
    return f"{kept}… ({count_of(left, 'more character')})" if left > 0 else text


def failure(kind: str, message: str, step_id: str | None = None) -> str:
    """Return what was raised as its reader needs it: ``"ValueError: no"``.

    Errors of perdure's own speak for themselves: neither their class nor the step before the
    message is said again.

    Args:
        kind: qualified name of the class, ``"builtins.ValueError"``.
        message: its text.
        step_id: the step, where it is named beside this.
    """
    if kind.startswith(("perdure.", "perdure_storage.")) and message:
        return message.removeprefix(f"{step_id}: ")
    name = kind.removeprefix("builtins.")
    return f"{name}: {message}" if message else name


def count(number: int) -> str:
    """Return ``"10,000"``."""
    return f"{number:,}"


def count_of(number: int, noun: str) -> str:
    """Return ``"1 step"``, ``"10,000 steps"``; plurals are those in -s, and ``retries``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def rate(per_second: float, noun: str) -> str:
    """Return ``"410 steps/s"``, ``"2.5 steps/s"``, or ``"12 steps/min"`` for what is slow."""
    if per_second >= 10:
        return f"{per_second:,.0f} {noun}/s"
    if per_second >= 1:
        return f"{per_second:.1f} {noun}/s"
    return f"{per_second * _MINUTE_S:.1f} {noun}/min"


def amount(name: str, number: float) -> str:
    """Return how much of something: ``"memory=4.0 GiB"``, ``"gpus=0.5"``; a label by itself."""
    if "=" in name:
        return name if number else f"no {name}"
    return f"{name}={size(int(number)) if name == 'memory' and number else f'{number:g}'}"


def had(name: str, number: float) -> str:
    """Return the number of ``amount`` alone."""
    return amount(name, number).partition("=")[2] if "=" not in name else "none"


def size(size_bytes: int) -> str:
    """Return ``"512 B"``, ``"1.5 KiB"``, ``"4.0 GiB"``."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    amount = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def printable(text: str) -> str:
    """Return ``text`` without what a terminal would obey: its colours go, the rest is marked."""
    text = _ESCAPES.sub("", text).replace("\t", "    ")
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)


def shown(preview: Mapping[str, Any] | None, width: int = 60) -> str:
    """Return what a value looked like in one line; that was noted when it was stored."""
    if not preview:
        return ""
    if "repr" in preview:
        return one_line(str(preview["repr"]), width)
    shape = " x ".join(str(length) for length in preview.get("shape", ()))  # arrays and tables
    facts = (preview.get("type"), shape, preview.get("dtype"))
    return one_line(" ".join(str(fact) for fact in facts if fact), width)


def triggered(trigger: str, arrivals: Sequence[str], led_by: Sequence[str]) -> str:
    """Return which trigger made a run, of what, and what led to that."""
    of = f", for {' and '.join(arrivals)}" if arrivals else ""
    return " -> ".join([*led_by, trigger]) + of
