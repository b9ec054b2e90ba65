"""What changed of the code of functions between plans, in words: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from perdure.fingerprint import noted_versions
from perdure.plan import Function, decode_plan, functions_by_code
from perdure_storage.records import ExpansionRecord


class Edits:
    """What was edited of functions since the plans before.

    Args:
        before: the functions of those plans, by code digest.
        today: those of the run's plan, by code digest too.
        graphs: what steps of those plans gave in place of their values; read only if a function
            is asked for that is in none of the plans.
    """

    def __init__(
        self,
        before: Mapping[str, Function] = {},
        today: Mapping[str, Function] = {},
        graphs: Sequence[ExpansionRecord] = (),
    ) -> None:
        self._graphs = graphs
        self._before = before
        self._today = today
        self._names_before = _by_name(before.values())
        self._names_today = _by_name(today.values())
        self._told: dict[tuple[str, str], str] = {}

    def difference(self, code: str, function: Function) -> str:
        """Say which parts of a function's code changed, or "" if that is not known.

        Args:
            code: the digest of the code that it had before.
            function: what it is today.
        """
        key = code, function.id
        if key not in self._told:  # once for all items of a map
            parts = self._parts(code, function)
            more = ", ..." if len(parts) > 3 else ""
            self._told[key] = f" ({', '.join(parts[:3])}{more})" if parts else ""
        return self._told[key]

    def _parts(self, code: str, function: Function) -> list[str]:
        old, new = self._before.get(code), self._today.get(function.counts_as, function)
        if old is None:
            # Where a function travels by value, a graph is compiled in a worker that has not its
            # text: another digest, and parts without cells. The plans have the same by its name.
            name = _name(function)
            old, new = self._names_before.get(name), self._names_today.get(name, function)
        if old is None:
            old, new = self._in_graphs.get(code) or self._names_in_graphs.get(name), function
        return changed_parts(old, new) if old is not None else []

    @cached_property
    def _in_graphs(self) -> dict[str, Function]:
        plans = (decode_plan(each.plan.body) for each in self._graphs[:_GRAPHS_UP_TO])
        return {code: each for plan in plans for code, each in functions_by_code(plan).items()}

    @cached_property
    def _names_in_graphs(self) -> dict[tuple[str, str], Function]:
        return _by_name(self._in_graphs.values())


_GRAPHS_UP_TO = 200
"""Graphs that are read for a reason: a chain of tail calls has thousands, alike but for values."""


def _by_name(functions: Iterable[Function]) -> dict[tuple[str, str], Function]:
    """Return functions by their names, but for those that share one, as lambdas do."""
    found: dict[tuple[str, str], dict[str, Function]] = {}
    for function in functions:
        found.setdefault(_name(function), {})[function.id] = function
    return {name: next(iter(alike.values())) for name, alike in found.items() if len(alike) == 1}


def _name(function: Function) -> tuple[str, str]:
    return function.module, function.qualname


def noted_changes(old: Mapping[str, Function], new: Mapping[str, Function]) -> dict[str, str]:
    """Return which noted versions differ of functions that count as the same, for reasons.

    Args:
        old: functions of an older plan by the digest that they count as.
        new: functions of today's plan by id; the answer is by this id too.
    """
    found: dict[str, str] = {}
    for function_id, function in new.items():
        before = old.get(function.counts_as)
        then = noted_versions(before.manifest) if before is not None else {}
        changes = [
            f"{package} {then[package]} then, {now} now"
            for package, now in noted_versions(function.manifest).items()
            if then.get(package, now) != now
        ]
        if changes:
            found[function_id] = f"; noted: {', '.join(changes)}"
    return found


def changed_parts(old: Function, new: Function) -> list[str]:
    """Return the parts of a function's code that differ, as its manifest names them, sorted.

    What only stands elsewhere now is none of them: of a part that does both, today's place is told.
    What is not reached any more was not edited by itself: it is told only where nothing else is.
    """
    before, after = _by_label(old), _by_label(new)
    changed: list[str] = []
    gone: list[str] = []
    for label in {**before, **after}:
        then, now = before.get(label, {}), after.get(label, {})
        fresh = [part for digest, part in now.items() if digest not in then]
        left = [part for digest, part in then.items() if digest not in now]
        changed += fresh or (left if now else [])
        gone += left
    return sorted(changed or gone)


def _by_label(function: Function) -> dict[str, dict[str, str]]:
    """Return the parts of a function's code by their names without the place, then by digest."""
    found: dict[str, dict[str, str]] = {}
    for part, digest in function.manifest.items():
        found.setdefault(part.rpartition(" (")[0] or part, {})[digest] = part
    return found
