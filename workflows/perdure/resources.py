"""Units as people write them: ``"4GiB"``, ``"10m"``; and what an attempt may ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta

from perdure.errors import DefinitionError
from perdure_storage.durations import LONGEST

Duration = float | int | str | timedelta
"""Seconds, a ``timedelta``, or text such as ``"90s"``, ``"5m"``, ``"1h30m"``."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d|w)(?![a-z])", re.ASCII)

_BYTES = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)


def parse_duration(value: Duration, *, what: str = "duration") -> float:
    """Return ``value`` in seconds.

    Args:
        value: seconds, a ``timedelta``, or text with units ms, s, m (min), h, d, w.
        what: the option's name, for the message.

    Raises:
        DefinitionError: it is none of these, negative, not finite, or longer than ``LONGEST``.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _duration_from_text(value, what)
    else:
        seconds = _number(value, f"{what}={value!r}: write seconds, a timedelta, or text ('5m')")
    if math.isnan(seconds) or seconds < 0:
        raise DefinitionError(f"{what}={value!r}: a duration is a number and not negative")
    if seconds > LONGEST.total_seconds():
        raise DefinitionError(f"{what}={value!r:.40}: a duration is {LONGEST.days}d at most")
    return seconds


def _number(value: object, message: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DefinitionError(message)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _duration_from_text(text: str, what: str) -> float:
    total, position = 0.0, 0
    stripped = text.strip().lower()
    while match := _DURATION_PART.match(stripped, position):
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if position == 0 or stripped[position:].strip():
        raise DefinitionError(
            f"{what}={text!r} is not a duration: write seconds, or units such as "
            "'500ms', '30s', '5m', '1h30m', '3d'"
        )
    return total


def parse_memory(value: int | str, *, what: str = "memory") -> int:
    """Return ``value`` in bytes: an int, or text such as ``"8GiB"``, ``"500 MB"``.

    Raises:
        DefinitionError: it is neither, or not above 0.
    """
    if isinstance(value, str):
        match = _MEMORY.fullmatch(value)
        unit = _BYTES.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise DefinitionError(f"{what}={value!r} is not a size: write bytes, or '8GiB'")
        size = float(match[1]) * unit
    else:
        size = _number(value, f"{what}={value!r}: write bytes as an int, or text ('8GiB')")
    if not 1 <= size < 2**63:
        raise DefinitionError(f"{what}={value!r:.40}: must be above 0 and below 8 EiB")
    return int(size)


def check_amount(value: object, *, what: str) -> float:
    """Return a resource amount as float: a number, finite, not negative.

    Raises:
        DefinitionError: it is not.
    """
    amount = _number(value, f"{what}={value!r}: must be a number")
    if not math.isfinite(amount) or amount < 0:
        raise DefinitionError(f"{what}={value!r:.40}: must be finite and not negative")
    return amount


def check_gpus(value: object) -> float:
    """Return a number of GPUs: whole, or a fraction below 1.

    Raises:
        DefinitionError: it is neither.
    """
    gpus = check_amount(value, what="gpus")
    if gpus > 1 and gpus != int(gpus):
        raise DefinitionError(f"gpus={value!r}: whole GPUs, or a fraction of one below 1")
    return gpus


def check_resources(value: object) -> dict[str, float]:
    """Return custom resources as ``{name: amount}``.

    Raises:
        DefinitionError: it is no mapping from names to amounts, or names an own option.
    """
    if not isinstance(value, Mapping):
        raise DefinitionError(f"resources={value!r}: write a dict such as {{'licence': 1}}")
    checked: dict[str, float] = {}
    for name, amount in value.items():
        if not isinstance(name, str) or not name:
            raise DefinitionError(f"resources: {name!r} is not a name")
        if name in ("cpus", "gpus", "memory"):
            raise DefinitionError(f"resources: {name!r} is an option of its own: {name}={amount!r}")
        checked[name] = check_amount(amount, what=f"resources[{name!r}]")
    return checked
