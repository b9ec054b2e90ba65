"""Where the boxes of a graph go, and how its arrows run: layers from the top to the bottom.

The method of Sugiyama, Tagawa and Toda (1981) in its plain form: a layer for each box by the
longest path to it; the order in each layer by barycentre sweeps, of which the one with the fewest
crossings counts; places as near to those of the neighbours as the order allows. The same graph
gives the same picture in any process, and nothing but the graph has a say in it.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

GAP_X, GAP_Y = 26.0, 46.0
ROW = 14
"""Boxes side by side; a wider layer is broken into rows, of no more than that or than its root."""
_WAYPOINTS = 3000
"""An arrow over many layers has a place in each of them; beyond so many it runs straight."""
_SWEEPS = 8
_PLACING = 6
_STRAIGHT = 6.0
"""How much more a waypoint pulls than a box: long arrows run straight."""
_WAYPOINT_WIDTH = 10.0

Point = tuple[float, float]


class Box(msgspec.Struct, frozen=True):
    """What is to be placed."""

    id: str
    width: float
    height: float


class Layout(msgspec.Struct, frozen=True):
    """Where everything is, from the upper left corner.

    Attributes:
        places: the upper left corner of each box, by id.
        routes: of each arrow, in their order, the points that it runs through: it begins at the
            lower edge of a box, and ends at the upper edge of another one, below.
    """

    places: dict[str, Point]
    routes: list[list[Point]]
    width: float
    height: float


def lay_out(boxes: Sequence[Box], arrows: Sequence[tuple[str, str]]) -> Layout:
    """Place boxes in layers so that every arrow leads down.

    Args:
        boxes: in an order in which a person would read them; it decides where all else is equal.
        arrows: pairs of ids, from and to, without a cycle.
    """
    if not boxes:
        return Layout({}, [], 0.0, 0.0)
    rank, broken = _rows([box.id for box in boxes], arrows)
    net = _Net(boxes, arrows, rank, broken)
    net.order()
    return net.place()


def ranks(ids: Sequence[str], arrows: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the layer of each box: the length of the longest path to it.

    Raises:
        ValueError: there is a cycle.
    """
    below: dict[str, list[str]] = {each: [] for each in ids}
    missing = dict.fromkeys(ids, 0)
    for source, target in arrows:
        below[source].append(target)
        missing[target] += 1
    found = dict.fromkeys(ids, 0)
    ready = [each for each in ids if not missing[each]]
    for each in ready:  # it grows
        for target in below[each]:
            found[target] = max(found[target], found[each] + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    if len(ready) < len(ids):
        raise ValueError("the arrows of a graph lead in a circle")
    return found


def _rows(ids: Sequence[str], arrows: Sequence[tuple[str, str]]) -> tuple[dict[str, int], set[str]]:
    """Return the row of each box, and which are in layers that are too wide for one row.

    Sources are next to who takes them.
    """
    longest = ranks(ids, arrows)
    above = {target for _, target in arrows}
    nearest: dict[str, int] = {}
    for source, target in arrows:
        nearest[source] = min(nearest.get(source, longest[target]), longest[target])
    layers: dict[int, list[str]] = {}
    for each in ids:
        is_source = each not in above and each in nearest
        layers.setdefault(nearest[each] - 1 if is_source else longest[each], []).append(each)
    rows: dict[str, int] = {}
    broken: set[str] = set()
    first = 0
    for layer in sorted(layers):
        members = layers[layer]
        width = max(ROW, math.isqrt(len(members) - 1) + 1)
        for at, each in enumerate(members):
            rows[each] = first + at // width
        first += -(-len(members) // width)
        broken.update(members if len(members) > width else ())
    return rows, broken


class _Spot:
    """A place in a row: of a box, or of an arrow that passes through. Mutable."""

    __slots__ = ("above", "at", "below", "height", "id", "width", "x")

    def __init__(self, id: str, width: float, height: float) -> None:
        self.id, self.width, self.height = id, width, height
        self.above: list[_Spot] = []
        self.below: list[_Spot] = []
        self.at = 0
        self.x = 0.0


class _Net:
    """Rows of spots, each tied to spots of the next row only."""

    def __init__(
        self,
        boxes: Sequence[Box],
        arrows: Sequence[tuple[str, str]],
        rank: Mapping[str, int],
        broken: Set[str],
    ) -> None:
        self._rank = rank
        self._broken = broken
        self._arrows = arrows
        self._spots = {box.id: _Spot(box.id, box.width, box.height) for box in boxes}
        self._rows: list[list[_Spot]] = [[] for _ in range(max(rank.values()) + 1)]
        for box in boxes:
            self._rows[rank[box.id]].append(self._spots[box.id])
        self._paths = self._tie()
        self._number()

    def _tie(self) -> list[list[_Spot]]:
        """Return what each arrow runs through, its ends included."""
        straight = self._straight()
        paths = []
        for n, (source, target) in enumerate(self._arrows):
            path = [self._spots[source]]
            if n not in straight:
                for row in range(self._rank[source] + 1, self._rank[target]):
                    path.append(_Spot("", _WAYPOINT_WIDTH, 0.0))
                    self._rows[row].append(path[-1])
            path.append(self._spots[target])
            if n not in straight:
                for upper, lower in itertools.pairwise(path):
                    upper.below.append(lower)
                    lower.above.append(upper)
            paths.append(path)
        return paths

    def _straight(self) -> set[int]:
        """Return the arrows that have no places between their ends, the longest ones first.

        Those of a layer of many rows would push its boxes far apart.
        """
        spans = [self._rank[target] - self._rank[source] for source, target in self._arrows]
        left = _WAYPOINTS
        found = set()
        for n in sorted(range(len(spans)), key=spans.__getitem__):
            is_packed = not self._broken.isdisjoint(self._arrows[n])
            left -= 0 if is_packed else spans[n] - 1
            if spans[n] > 1 and (left < 0 or is_packed):
                found.add(n)
        return found

    def _number(self) -> None:
        for row in self._rows:
            for at, spot in enumerate(row):
                spot.at = at

    # --- order ----------------------------------------------------------------------------------
    def order(self) -> None:
        """Put the spots of each row into an order with few crossings."""
        best, fewest = [list(row) for row in self._rows], self._crossings()
        for sweep in range(_SWEEPS):
            if not fewest:
                break
            self._sweep(is_down=sweep % 2 == 0)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self._rows], crossings
        self._rows = best
        self._number()

    def _sweep(self, *, is_down: bool) -> None:
        for row in self._rows if is_down else reversed(self._rows):
            row.sort(key=lambda spot: _barycentre(spot, spot.above if is_down else spot.below))
            for at, spot in enumerate(row):
                spot.at = at

    def _crossings(self) -> int:
        return sum(_crossings_below(row) for row in self._rows)

    # --- places ---------------------------------------------------------------------------------
    def place(self) -> Layout:
        """Give every spot its place."""
        for row in self._rows:
            _spread(row, [0.0] * len(row), [1.0] * len(row))
        for turn in range(_PLACING):
            for row in self._rows if turn % 2 == 0 else reversed(self._rows):
                self._pull(row, is_down=turn % 2 == 0)
        for row in self._rows:
            self._pull(row, is_down=None)
        left = min(spot.x - spot.width / 2 for row in self._rows for spot in row)
        tops: list[float] = []
        y = 0.0
        for row in self._rows:
            tops.append(y)
            y += max((spot.height for spot in row), default=0.0) + GAP_Y
        top_of = {id(spot): top for row, top in zip(self._rows, tops) for spot in row}
        height_of = {id(spot): max(s.height for s in row) for row in self._rows for spot in row}
        for row in self._rows:
            for spot in row:
                spot.x -= left
        return Layout(
            {
                each: (spot.x - spot.width / 2, top_of[id(spot)])
                for each, spot in self._spots.items()
            },
            [_route(path, top_of, height_of) for path in self._paths],
            max(spot.x + spot.width / 2 for row in self._rows for spot in row),
            y - GAP_Y,
        )

    def _pull(self, row: list[_Spot], *, is_down: bool | None) -> None:
        wanted, weights = [], []
        for spot in row:
            near = [*spot.above, *spot.below]
            if is_down is not None:
                near = (spot.above if is_down else spot.below) or near
            wanted.append(sum(each.x for each in near) / len(near) if near else spot.x)
            weights.append(_STRAIGHT if not spot.id else 1.0 if near else 0.1)
        _spread(row, wanted, weights)


def _barycentre(spot: _Spot, near: list[_Spot]) -> float:
    return sum(each.at for each in near) / len(near) if near else float(spot.at)


def _crossings_below(row: Sequence[_Spot]) -> int:
    """Count the pairs of arrows to the next row that cross."""
    ends: list[int] = []
    crossings = 0
    for spot in row:
        own = sorted(each.at for each in spot.below)
        crossings += sum(len(ends) - bisect_right(ends, end) for end in own)
        for end in own:
            insort(ends, end)
    return crossings


def _spread(row: Sequence[_Spot], wanted: Sequence[float], weights: Sequence[float]) -> None:
    """Put spots as near to where they are wanted as their order and their widths allow.

    The sum of the squared distances is least: isotonic regression, by pooling neighbours that are
    in each other's way.
    """
    offset = 0.0
    offsets = []
    pools: list[list[float]] = []  # of each: its place, its weight, how many spots
    for at, spot in enumerate(row):
        if at:
            gap = GAP_X if spot.id or row[at - 1].id else GAP_X / 2
            offset += (row[at - 1].width + spot.width) / 2 + gap
        offsets.append(offset)
        pools.append([wanted[at] - offset, weights[at], 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            place, weight, count = pools.pop()
            whole = pools[-1][1] + weight
            pools[-1][0] = (pools[-1][0] * pools[-1][1] + place * weight) / whole
            pools[-1][1] = whole
            pools[-1][2] += count
    at = 0
    for place, _, count in pools:
        for _ in range(int(count)):
            row[at].x = place + offsets[at]
            at += 1


def _route(
    path: Sequence[_Spot], top_of: Mapping[int, float], height_of: Mapping[int, float]
) -> list[Point]:
    first, *between, last = path
    points = [(first.x, top_of[id(first)] + first.height)]
    if first.height < height_of[id(first)]:  # a lower neighbour: leave its row before turning
        points.append((first.x, top_of[id(first)] + height_of[id(first)]))
    for spot in between:
        points += [(spot.x, top_of[id(spot)]), (spot.x, top_of[id(spot)] + height_of[id(spot)])]
    points.append((last.x, top_of[id(last)]))
    return points
