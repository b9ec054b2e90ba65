"""A queue as its user writes it: a value, without effect until it is registered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypedDict

from perdure.errors import DefinitionError
from perdure.resources import Duration, parse_duration
from perdure.target import file_being_imported

MAX_NAME = 100


class Limits(TypedDict, total=False):
    """The limits of a queue, as ``Queue`` takes them."""

    limit: int | None
    limit_per_key: int | None
    rate: tuple[int, Duration] | None


class Queue:
    """How many runs go on at a time: a value, without effect until it is registered.

    ``perdure up MODULE`` registers what modules hold; so does a run that is given it as its
    ``queue=``. Limits hold over all processes and hosts of a store.

    Args:
        name: names it: ``queue="gpu"``.
        limit: how many of its runs go on at a time.
        limit_per_key: the same of those with one ``limit_key=``.
        rate: how many runs begin within a time, ``(100, "1m")``, wherever that window is put.

    Raises:
        DefinitionError: a limit is no whole number from 0 on, or the name is none.
    """

    def __init__(
        self,
        name: str,
        *,
        limit: int | None = None,
        limit_per_key: int | None = None,
        rate: tuple[int, Duration] | None = None,
    ) -> None:
        check_name(name)
        self.name = name
        self.limit = _limit(name, "limit", limit)
        self.limit_per_key = _limit(name, "limit_per_key", limit_per_key)
        self.rate, self.window = _rate(name, rate)
        self.made_in = file_being_imported()

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"


def check_name(name: object, what: str = "a queue's name") -> str:
    """Raise DefinitionError unless a word can be typed and seen; return it."""
    if not isinstance(name, str) or not name.isprintable() or name != name.strip():
        raise DefinitionError(f"{what} is a word, such as 'gpu', not {name!r:.80}")
    if not 1 <= len(name) <= MAX_NAME or name.startswith("-"):
        raise DefinitionError(
            f"{what} has 1 to {MAX_NAME} characters and no '-' in front: {name!r:.120}"
        )
    return name


def _limit(name: str, what: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise DefinitionError(
            f"queue {name!r}: {what}={value!r:.40}: write a whole number, such as {what}=2; 0 lets "
            "none begin, None any number"
        )
    return value


def _rate(name: str, rate: Any) -> tuple[int | None, timedelta | None]:
    if rate is None:
        return None, None
    if not isinstance(rate, tuple) or len(rate) != 2:
        raise DefinitionError(
            f"queue {name!r}: rate={rate!r:.60}: write how many runs begin within which time, such "
            "as rate=(100, '1m')"
        )
    number, window = rate
    seconds = parse_duration(window, what="rate")
    if seconds < 0.001:
        raise DefinitionError(f"queue {name!r}: rate={rate!r:.60}: the time is 1 ms at least")
    return _limit(name, "rate", number), timedelta(seconds=seconds)
