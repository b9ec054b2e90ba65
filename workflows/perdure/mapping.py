"""Fan-out over values that are known only when the run has come to them.

``f.map(xs, c=1)`` is a step which, once ``xs`` is there, gives the graph of one call of ``f`` for
each item. It is a step like others: recorded, retried, taken over where nothing has changed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from perdure.chunks import chunk_task
from perdure.errors import DefinitionError
from perdure.graph.growth import label_of, safe_label
from perdure.graph.node import Mention, Node, TaskSpec
from perdure.plan import Function
from perdure.reference import StepRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Each:
    """A keyword argument of ``map`` that is mapped over."""

    values: Any


@dataclass(frozen=True, slots=True)
class Product:
    """All combinations of several iterables, the last one changing fastest."""

    factors: list[Any]


@dataclass(frozen=True, slots=True)
class Children:
    """What the step of a map returns: a node for each item, or each chunk of items, in order.

    Attributes:
        labels: what each is called in its id.
        starts: of each the first item.
        widths: of each how many items it takes; 0 for one that is no chunk.
    """

    nodes: Sequence[Any]
    labels: Sequence[int | str]
    starts: Sequence[int]
    widths: Sequence[int]


class Bindable(Protocol):
    """What is mapped: a task."""

    @property
    def spec(self) -> TaskSpec:
        """Return the task as data."""
        ...

    def bind(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return a node."""
        ...


def each(values: Iterable[T]) -> T:
    """Map a keyword argument over ``values``: ``f.map(xs, weight=perdure.each(ws))``.

    Keyword arguments of ``map`` are constants otherwise, even if they are lists. For type
    checkers it is one of the values.
    """
    return Each(iterable(values, "each(...)"))  # type: ignore[return-value]


def product(*factors: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Map over all combinations: ``f.map(perdure.product(sizes, rates))`` takes tuples.

    The last factor changes fastest, as in ``itertools.product``. Factors may be nodes.
    """
    listed = [iterable(factor, f"product(#{n})") for n, factor in enumerate(factors)]
    return Product(listed)  # type: ignore[return-value]


def iterable(values: Any, where: str) -> Any:
    """Return what can be mapped over as it is stored: a node, a product, a sequence.

    Of a node that is a map the items are wanted, each as soon as it is there.

    Raises:
        DefinitionError: it cannot be mapped over, or has no order.
    """
    if isinstance(values, Node):
        return Mention(values, items=True)
    if isinstance(values, Each | Product | list | tuple | range):
        return values
    refuse_unordered(values, where)
    return list(values) if isinstance(values, Iterator) else values


def refuse_unordered(values: Any, where: str) -> None:
    """Refuse what cannot be mapped over item by item in an order that is always the same.

    Raises:
        DefinitionError: a text, a set, a mapping, or no iterable at all.
    """
    kind = type(values).__name__
    if isinstance(values, str | bytes | bytearray):
        raise DefinitionError(f"{where} is one value, of type {kind}: write a list of them")
    if isinstance(values, Set | Mapping):
        raise DefinitionError(
            f"{where} is of type {kind}, whose order is not its own: write a list, or sorted(...)"
        )
    if not isinstance(values, Iterable) and not hasattr(values, "__getitem__"):
        raise DefinitionError(f"{where} is of type {kind}, which cannot be iterated: write a list")


def expand(
    mapped: Bindable, counts_as: tuple[Any, ...], columns: list[Any], constants: dict[str, Any]
) -> Children:
    """Return a call of ``mapped`` for each item of the columns.

    Args:
        mapped: the task.
        counts_as: what else of the task enters its results; only its digest is of use.
        columns: the iterables, each as long as the others.
        constants: keyword arguments; those that are an ``Each`` are iterables too.

    Raises:
        DefinitionError: the iterables differ in length, or one cannot be iterated.
    """
    varying = {name: given for name, given in constants.items() if isinstance(given, Each)}
    fixed = {name: given for name, given in constants.items() if name not in varying}
    where = f"{getattr(mapped, '__name__', 'the task')}.map"
    listed = {f"#{n}": _items(column, f"{where}(#{n})") for n, column in enumerate(columns)}
    listed |= {name: _items(given.values, f"{where}({name}=)") for name, given in varying.items()}
    _require_equal_lengths(where, listed)
    rows = list(zip(*listed.values(), strict=True))
    if mapped.spec.chunk is not None:
        return _chunks(mapped, mapped.spec.chunk, rows, tuple(varying), fixed)
    nodes = []
    for items in rows:
        args, rest = items[: len(columns)], items[len(columns) :]
        nodes.append(mapped.bind(*args, **dict(zip(varying, rest, strict=True)), **fixed))
    labels = _labels(mapped.spec.key, rows)
    return Children(nodes, labels, range(len(rows)), [0] * len(rows))


def _chunks(
    mapped: Any,
    size: int,
    rows: list[tuple[Any, ...]],
    varying: tuple[str, ...],
    fixed: dict[str, Any],
) -> Children:
    task = chunk_task(mapped, size)
    starts = range(0, len(rows), size)
    parts = [rows[start : start + size] for start in starts]
    nodes = [task.bind(mapped, at, part, varying, fixed) for at, part in zip(starts, parts)]
    labels = [f"{at}:{at + len(part)}" for at, part in zip(starts, parts)]
    return Children(nodes, labels, starts, [len(part) for part in parts])


def _labels(key: Callable[..., object] | None, rows: list[tuple[Any, ...]]) -> list[int | str]:
    """Return what the children are called: by place, or by the key of their items."""
    if key is None:
        return list(range(len(rows)))
    counts: Counter[str] = Counter()
    labels: list[int | str] = []
    for index, items in enumerate(rows):
        label = _label(key, index, items)
        counts[label] += 1
        labels.append(label if counts[label] == 1 else f"{label}#{counts[label]}")
    return labels


def _label(key: Callable[..., object], index: int, items: tuple[Any, ...]) -> str:
    refs = [item for item in items if isinstance(item, StepRef)]
    if refs:  # the item is not there yet: it is called as the one that it is made from
        return label_of(refs[0].step_id) or str(index)
    try:
        return safe_label(key(*items))
    except Exception as error:
        error.add_note(f"in key=, which was asked what the child of item {index} is called")
        raise


def _items(values: Any, where: str) -> list[Any]:
    if isinstance(values, Product):
        factors = [_items(factor, f"{where}, a factor") for factor in values.factors]
        return list(itertools.product(*factors))
    refuse_unordered(values, where)
    return list(values)


def _require_equal_lengths(where: str, listed: Mapping[str, Sequence[Any]]) -> None:
    if len({len(items) for items in listed.values()}) > 1:
        told = ", ".join(f"{name} has {len(items)}" for name, items in listed.items())
        raise DefinitionError(
            f"{where}: its iterables are zipped, so they must be equally long: {told}"
        )


def is_map(function: Function) -> bool:
    """Say whether a step of this function is a map."""
    return function.module == expand.__module__ and function.qualname == expand.__qualname__
