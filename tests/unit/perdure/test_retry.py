from __future__ import annotations

from typing import Any

import pytest

from perdure import plan
from perdure.errors import DefinitionError
from perdure.retry import Backoff, check_retry_on, delay_s


def test_a_backoff_is_planned_in_seconds() -> None:
    planned = Backoff("500ms", factor=3, max="1m", jitter=0).planned()

    assert planned == plan.Backoff(first_s=0.5, factor=3.0, max_s=60.0, jitter=0.0)


@pytest.mark.parametrize(
    "options", [{"first": "x"}, {"factor": 0.5}, {"max": -1}, {"jitter": 2}, {"jitter": -0.1}]
)
def test_a_backoff_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="Backoff"):
        Backoff(**options)


def test_delays_grow_by_the_factor_up_to_the_longest() -> None:
    backoff = Backoff("1s", factor=2, max="10s", jitter=0).planned()

    assert [delay_s(backoff, n, 0.5) for n in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]


def test_a_factor_that_no_float_holds_grows_to_the_longest_at_once() -> None:
    backoff = Backoff("1s", factor=10**400, max="10s", jitter=0).planned()

    assert [delay_s(backoff, n, 0.5) for n in (1, 2, 3)] == [1, 10, 10]


def test_jitter_spreads_a_delay_to_both_sides() -> None:
    backoff = Backoff("10s", jitter=0.1).planned()

    assert delay_s(backoff, 1, 0.0) == pytest.approx(9)
    assert delay_s(backoff, 1, 1.0) == pytest.approx(11)


def test_retry_on_takes_classes_and_predicates() -> None:
    predicate = bool

    assert check_retry_on(ValueError) is ValueError
    assert check_retry_on([ValueError, KeyError]) == (ValueError, KeyError)
    assert check_retry_on(lambda error: predicate(error))(ValueError())  # type: ignore[operator]


@pytest.mark.parametrize("value", ["ValueError", 3, int, (ValueError, 3), ()])
def test_retry_on_refuses_anything_else(value: Any) -> None:
    with pytest.raises(DefinitionError, match="retry_on"):
        check_retry_on(value)
