from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure.errors import DefinitionError
from perdure.resources import (
    check_amount,
    check_gpus,
    check_resources,
    parse_duration,
    parse_memory,
)
from perdure_storage.durations import LONGEST

_HUGE = "9" * 400


def _short(value: Any) -> str:
    return f"{value!r:.20}"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (timedelta(minutes=2), 120.0),
        ("90s", 90.0),
        ("5m", 300.0),
        ("5 min", 300.0),
        ("1h30m", 5400.0),
        ("3d", 259200.0),
        ("500ms", 0.5),
        ("0.5h", 1800.0),
    ],
)
def test_a_duration_is_read_in_every_unit(value: Any, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["", "5", "5x", "m5", "5m!", -1, float("nan"), float("inf"), True, None, [1]]
)
def test_a_duration_that_makes_no_sense_is_refused_by_name(value: Any) -> None:
    with pytest.raises(DefinitionError, match="timeout="):
        parse_duration(value, what="timeout")


@pytest.mark.parametrize(
    "value",
    ["36501d", "99999999d", _HUGE + "d", 1e18, int(_HUGE), timedelta.max],
    ids=_short,
)
def test_a_duration_that_no_date_can_follow_is_refused_with_the_longest(value: Any) -> None:
    with pytest.raises(DefinitionError, match=r"delay=.*36500d at most") as refused:
        parse_duration(value, what="delay")

    assert len(str(refused.value)) < 120
    assert parse_duration("36500d") == parse_duration(LONGEST)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("4GiB", 4 * 2**30),
        ("4 gib", 4 * 2**30),
        ("1.5MB", 1_500_000),
        ("2TiB", 2 * 2**40),
    ],
)
def test_memory_is_read_in_binary_and_decimal_units(value: Any, size: int) -> None:
    assert parse_memory(value) == size


@pytest.mark.parametrize(
    "value",
    ["", "GiB", "4 bananas", 0, -5, True, None, "0", 1e19, int(_HUGE), _HUGE, float("nan")],
    ids=_short,
)
def test_memory_that_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(DefinitionError, match="memory="):
        parse_memory(value)


def test_gpus_are_whole_or_a_fraction_of_one() -> None:
    assert check_gpus(0.25) == 0.25
    assert check_gpus(2) == 2.0
    with pytest.raises(DefinitionError, match="whole GPUs"):
        check_gpus(1.5)


@pytest.mark.parametrize("value", ["2", None, True, -1, float("inf"), int(_HUGE)], ids=_short)
def test_an_amount_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(DefinitionError):
        check_amount(value, what="cpus")


@pytest.mark.parametrize("value", [["a"], {"cpus": 1}, {1: 1}, {"a": "x"}, {"": 1}])
def test_custom_resources_that_make_no_sense_are_refused(value: Any) -> None:
    with pytest.raises(DefinitionError, match="resources"):
        check_resources(value)
