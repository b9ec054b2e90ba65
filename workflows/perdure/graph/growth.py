"""A graph that a running step gave: its steps under the ids and names of the run.

A step ``f`` gives a graph whose last step answers for it. That step is ``f~1``; should it give a
graph in turn, the step that answers then is ``f~2``, so that a chain of any length stays flat. The
other steps are ``f/name``. Children of a map are ``f[0]``, ``f[1]``, ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from perdure.graph.dag import Dag, shorten
from perdure.graph.node import Call

_ITEM = re.compile(r"\[(?P<index>[0-9]+)\]\Z")
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


def child_id(step_id: str, index: int) -> str:
    """Return the id of a child of a map."""
    return shorten(f"{step_id}[{index}]")


def index_of(step_id: str) -> int | None:
    """Return which item of a map a step is for, or None."""
    found = _ITEM.search(step_id)
    return int(found["index"]) if found else None


def place_below(dag: Dag, parent: str, names: str, answer: Call, fixed: Mapping[Call, str]) -> Dag:
    """Return the graph with the ids that its steps have below ``parent``.

    Args:
        dag: the graph as its own.
        parent: id of the step that gave it.
        names: what the names of its steps begin with, so that they are found again over edits.
        answer: the step that answers; it is named as a neighbour of ``parent``, so that names
            do not grow along a chain.
        fixed: ids that are given: of the step that answers, of a map's children.
    """
    ids = {call: fixed.get(call) or shorten(f"{parent}/{own}") for call, own in dag.ids.items()}
    beside = names.rpartition("/")[0]
    by_own = {own: ids[call] for call, own in dag.ids.items()}
    steps = tuple(
        replace(
            step,
            id=ids[step.call],
            scope=_join(beside if step.call is answer else names, step.scope),
            after=tuple(by_own[each] for each in step.after),
        )
        for step in dag.steps
    )
    return replace(dag, steps=steps, ids=ids)


def _join(names: str, scope: str) -> str:
    return f"{names}/{scope}" if names and scope else names or scope
