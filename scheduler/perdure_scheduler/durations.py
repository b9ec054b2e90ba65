"""Durations as people write them in policies: ``"90s"``, ``"1h30m"``, ``"7d"``."""

from __future__ import annotations

import re
from datetime import timedelta

from perdure_scheduler.errors import ScheduleError
from perdure_storage.durations import LONGEST

Duration = timedelta | float | int | str
"""A ``timedelta``, seconds, or text with the units ms, s, m (min), h, d, w."""

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d|w)(?![a-z])", re.ASCII)


def duration(value: Duration, *, what: str) -> timedelta:
    """Return ``value`` as a ``timedelta`` of at least nothing.

    Args:
        value: a ``timedelta``, seconds, or text such as ``"90s"`` and ``"1h30m"``.
        what: the option's name, for the message.

    Raises:
        ScheduleError: it is none of these, negative, or longer than ``LONGEST``.
    """
    try:
        found = _length(value)
    except OverflowError:
        found = timedelta.max
    except (TypeError, ValueError):
        found = None
    if found is None or found < timedelta(0):
        raise ScheduleError(
            f"{what}={value!r} is not a duration: write a timedelta, seconds, or units such as "
            "'30s', '5m', '1h30m', '7d'"
        )
    if found > LONGEST:
        raise ScheduleError(f"{what}={value!r:.40}: a duration is {LONGEST.days}d at most")
    return found


def _length(value: Duration) -> timedelta | None:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return _of_text(value.strip().lower())
    if isinstance(value, bool):
        return None
    return timedelta(seconds=value)


def _of_text(text: str) -> timedelta | None:
    total, position = timedelta(0), 0
    while match := _PART.match(text, position):
        total += float(match[1]) * _UNITS["m" if match[2] == "min" else match[2]]
        position = match.end()
    return total if position and position == len(text) else None


def text_of(length: timedelta) -> str:
    """Return what ``duration`` reads back as the same: ``"1h30m"``, ``"500ms"``, ``"0s"``."""
    parts = []
    for name, unit in _UNITS.items():
        if name == "w":  # "21d" is as readable, and "1w3d" is not
            continue
        count, length = divmod(length, unit)
        if count:
            parts.append(f"{count}{name}")
    if length:  # microseconds, as a share of a millisecond
        parts.append(f"{length / _UNITS['ms']:.3f}ms")
    return "".join(parts) or "0s"
