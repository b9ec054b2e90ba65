"""Steps of stores without pickle: everything that such a store takes, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pydantic

from perdure import actor, method, task, workflow


class Colour(Enum):
    RED = "red"


@dataclass
class Day:
    number: int
    date: date


class Price(pydantic.BaseModel):
    amount: Decimal


class Place(msgspec.Struct):
    id: UUID
    path: Path


class Lump:
    """Neither data class nor JSON: only pickle can write it."""


@actor
class Sum:
    def __init__(self, start: int) -> None:
        self.total = start

    @method
    def add(self, days: list[Day]) -> int:
        self.total += sum(day.number for day in days)
        return self.total


@task(retries=1, retry_on=(ValueError, KeyError))
def days(count: int) -> list[Day]:
    return [Day(n, date(2026, 1, 1 + n)) for n in range(count)]


@task
def doubled(day: Day, by: int) -> Day:
    return Day(day.number * by, day.date)


@task
def gathered(found: list[Day], total: int, price: Price, place: Place, colour: Colour) -> Any:
    return {
        "days": found,
        "total": total,
        "things": (price, place, colour, datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1)),
        "array": np.arange(3).tolist(),
    }


@workflow
def everything(count: int = 3) -> Any:
    found = doubled.options(retries=2).map(days.bind(count), by=2)
    total = Sum.bind(10).add.bind(found)
    place = Place(UUID(int=7), Path("/somewhere"))
    return gathered.bind(found, total, Price(amount=Decimal("1.5")), place, Colour.RED)


@task
def lump() -> Any:
    return {"a": [1, Lump()]}


@workflow
def lumps() -> Any:
    return lump.bind()


@task
def refusing() -> None:
    raise ValueError("the user's own")


@workflow
def failing() -> None:
    return refusing.bind()
