"""A graph that a running step gave: its steps under the ids and names of the run.

A step ``f`` gives a graph whose last step answers for it. That step is ``f~1``; should it give a
graph in turn, the step that answers then is ``f~2``, so that a chain of any length stays flat. The
other steps are ``f/name``. Children of a map are ``f[0]``, ``f[1]``, ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import msgspec

from perdure.graph.dag import Dag, shorten
from perdure.graph.node import Call

MAX_LABEL_BYTES = 80
_ITEM = re.compile(r"\[(?P<label>[^\[\]]*)\]\Z")
_LINK = re.compile(r"(?P<root>.+)~(?P<number>[1-9][0-9]*)", re.DOTALL)


def link_of(step_id: str) -> tuple[str, int]:
    """Return the step for which a step answers, and its number in the chain; 0 if for none."""
    found = _LINK.fullmatch(step_id)
    return (found["root"], int(found["number"])) if found else (step_id, 0)


def answer_id(step_id: str) -> str:
    """Return the id of the step that answers for the one that gave a graph."""
    root, number = link_of(step_id)
    return shorten(f"{root}~{number + 1}")


def first_answer_id(step_id: str) -> str:
    """Return the id of the step that answers, where a chain begins anew."""
    return shorten(f"{step_id}~1")


def child_id(step_id: str, label: int | str) -> str:
    """Return the id of a child of a map: by its place, its key, or the slice of its items."""
    return shorten(f"{step_id}[{label}]")


def label_of(step_id: str) -> str | None:
    """Return how a child of a map is told apart from the others, or None."""
    found = _ITEM.search(step_id)
    return found["label"] if found else None


def safe_label(key: object) -> str:
    """Return a key as a part of a step id: printable, without the marks of ids, not too long."""
    text = "".join("_" if c in "/#[]~" or not c.isprintable() else c for c in str(key))
    return text.encode()[:MAX_LABEL_BYTES].decode(errors="ignore") or "_"


class Place(NamedTuple):
    """Where a step of a graph belongs whose id is given.

    Attributes:
        id: the id.
        item: of a child of a map, which item it is for, or its first one.
        width: of a child that takes several items, how many.
    """

    id: str
    item: int | None = None
    width: int = 0


def place_below(
    dag: Dag, parent: str, names: str, answer: Call, fixed: Mapping[Call, Place]
) -> Dag:
    """Return the graph with the ids that its steps have below ``parent``.

    Args:
        dag: the graph as its own.
        parent: id of the step that gave it.
        names: what the names of its steps begin with, so that they are found again over edits.
        answer: the step that answers; it is named as a neighbour of ``parent``, so that names
            do not grow along a chain.
        fixed: places that are given: of the step that answers, of a map's children.
    """
    places = {c: fixed.get(c) or Place(shorten(f"{parent}/{own}")) for c, own in dag.ids.items()}
    ids = {call: place.id for call, place in places.items()}
    beside = names.rpartition("/")[0]
    by_own = {own: ids[call] for call, own in dag.ids.items()}
    steps = tuple(
        msgspec.structs.replace(
            step,
            id=ids[step.call],
            item=places[step.call].item,
            width=places[step.call].width,
            scope=_join(beside if step.call is answer else names, step.scope),
            after=tuple(by_own[each] for each in step.after),
        )
        for step in dag.steps
    )
    return replace(dag, steps=steps, ids=ids)


def _join(names: str, scope: str) -> str:
    return f"{names}/{scope}" if names and scope else names or scope
