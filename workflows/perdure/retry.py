"""When a step is tried again: delays between attempts, and which errors are worth another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from perdure import plan
from perdure.errors import DefinitionError
from perdure.resources import Duration, parse_duration

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Exception classes, or a predicate that is called with the exception in the worker."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between attempts: ``first * factor**n``, at most ``max``, +- ``jitter`` share.

    Attributes:
        first: delay before the second attempt, a duration.
        factor: growth from one delay to the next, at least 1.
        max: longest delay, a duration.
        jitter: share by which a delay may differ, 0 to 1.
    """

    first: Duration = "1s"
    factor: float = 2.0
    max: Duration = "60s"
    jitter: float = 0.1

    def __post_init__(self) -> None:
        parse_duration(self.first, what="Backoff(first)")
        parse_duration(self.max, what="Backoff(max)")
        if isinstance(self.factor, bool) or not self.factor >= 1:
            raise DefinitionError(f"Backoff(factor={self.factor!r}): must be at least 1")
        if not 0 <= self.jitter <= 1:
            raise DefinitionError(f"Backoff(jitter={self.jitter!r}): must be within 0 and 1")

    def planned(self) -> plan.Backoff:
        """Return it as it is written into a plan, in seconds."""
        return plan.Backoff(
            first_s=parse_duration(self.first),
            factor=float(min(self.factor, sys.float_info.max)),  # ints have no greatest
            max_s=parse_duration(self.max),
            jitter=float(self.jitter),
        )


def delay_s(backoff: plan.Backoff, failures: int, share: float) -> float:
    """Return how long to wait before the next attempt, in seconds.

    Args:
        backoff: the step's delays.
        failures: attempts that have failed, from 1.
        share: where in the jitter's range it falls, 0 to 1: chance comes from outside.
    """
    # The power may pass what a float holds long before the cap is compared.
    exponent = min(max(failures - 1, 0), 1000)
    try:
        grown = backoff.first_s * backoff.factor**exponent
    except OverflowError:
        grown = backoff.max_s
    base = min(grown, backoff.max_s)
    return base * (1 + backoff.jitter * (2 * share - 1))


def check_retry_on(value: object) -> RetryOn:
    """Return ``retry_on`` if it is exception classes or a predicate.

    Raises:
        DefinitionError: it is neither.
    """
    if isinstance(value, list | set | frozenset):
        value = tuple(value)
    kinds = value if isinstance(value, tuple) else (value,)
    if kinds and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        return value  # type: ignore[return-value]
    if callable(value) and not isinstance(value, type):
        return cast("Callable[[BaseException], bool]", value)
    raise DefinitionError(
        f"retry_on={value!r}: write exception classes, or a function from the exception to a bool"
    )
