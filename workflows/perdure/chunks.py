"""Several items of a map in one step: ``options(chunk=n)``.

The step of a chunk calls the mapped function for one item after the other. What fails of it becomes
a step of its own, whose first try this was: retries, ``catch`` and failure are each item's.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from perdure import effects
from perdure.graph.growth import child_id
from perdure.graph.node import TaskSpec

item_index: ContextVar[int | None] = ContextVar("perdure_item", default=None)
"""Which item of its map the step that runs here works on, if it takes several."""


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item whose function raised."""

    index: int
    error: Exception
    node: Any


@dataclass(frozen=True, slots=True)
class PartlyFailed:
    """What a chunk gives of which items failed: a value, or a failed item, in each place."""

    results: Sequence[Any]

    @property
    def failed(self) -> list[FailedItem]:
        """Return the items that failed."""
        return [each for each in self.results if isinstance(each, FailedItem)]


def chunk_task(mapped: Any, size: int) -> Any:
    """Return the task that calls ``mapped`` for up to ``size`` items."""
    options = mapped.spec.options
    timeout = None if options.timeout_s is None else options.timeout_s * size
    spec = TaskSpec(
        function=run_chunk_async if mapped.spec.is_async else run_chunk,
        name=mapped.spec.name,
        options=msgspec.structs.replace(
            options, retries=0, catch=False, outputs=1, timeout_s=timeout
        ),
        is_async=mapped.spec.is_async,
    )
    return type(mapped)(spec.function, spec)


def is_chunk(spec: TaskSpec) -> bool:
    """Say whether a step takes several items of a map."""
    return spec.function in (run_chunk, run_chunk_async)


def unchunked(mapped: Any) -> Any:
    """Return a task that is mapped item by item."""
    return type(mapped)(mapped.function, replace(mapped.spec, chunk=None))


def run_chunk(
    mapped: Any,
    start: int,
    rows: list[tuple[Any, ...]],
    varying: tuple[str, ...],
    fixed: dict[str, Any],
) -> Any:
    """Call the mapped function for each row; return the list of results.

    Args:
        mapped: the task.
        start: index of the first item in the map.
        rows: positional arguments and then those of ``varying``, of each item.
        varying: names of the keyword arguments that differ.
        fixed: keyword arguments of every item.
    """
    results = []
    for index, row in enumerate(rows, start):
        args, kwargs = _arguments(row, varying, fixed)
        token = item_index.set(index)
        try:
            with effects.apart():
                results.append(_checked(mapped, mapped.function(*args, **kwargs)))
        except Exception as error:  # noqa: BLE001 - the user's: it is the item's failure
            results.append(FailedItem(index, error, mapped.bind(*args, **kwargs)))
        finally:
            item_index.reset(token)
    return _outcome(results)


async def run_chunk_async(
    mapped: Any,
    start: int,
    rows: list[tuple[Any, ...]],
    varying: tuple[str, ...],
    fixed: dict[str, Any],
) -> Any:
    """As ``run_chunk``, for a task that is ``async def``: the items go on side by side."""
    import asyncio  # not for those who import perdure and never wait

    async def one(index: int, row: tuple[Any, ...]) -> Any:
        args, kwargs = _arguments(row, varying, fixed)
        item_index.set(index)
        try:
            with effects.apart():
                result = mapped.function(*args, **kwargs)
                return _checked(mapped, await result if inspect.isawaitable(result) else result)
        except Exception as error:  # noqa: BLE001 - the user's: it is the item's failure
            return FailedItem(index, error, mapped.bind(*args, **kwargs))

    results = await asyncio.gather(*(one(index, row) for index, row in enumerate(rows, start)))
    return _outcome(list(results))


def _outcome(results: list[Any]) -> Any:
    failed = any(isinstance(each, FailedItem) for each in results)
    return PartlyFailed(results) if failed else results


def _arguments(
    row: tuple[Any, ...], varying: tuple[str, ...], fixed: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    count = len(row) - len(varying)
    return row[:count], {**fixed, **dict(zip(varying, row[count:], strict=True))}


def _checked(mapped: Any, result: Any) -> Any:
    wanted = mapped.spec.options.outputs
    if wanted > 1 and not (isinstance(result, tuple | list) and len(result) == wanted):
        raise TypeError(f"outputs={wanted}, but the function returned {result!r:.80}")
    return result


def item_id(chunk_id: str, index: int) -> str:
    """Return the id that a step of this item alone has, as that of an item that failed."""
    return child_id(map_of(chunk_id), index)


def map_of(chunk_id: str) -> str:
    """Return the id of the map that a chunk belongs to."""
    return chunk_id.rpartition("[")[0]
