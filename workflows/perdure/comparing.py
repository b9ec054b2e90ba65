"""``diff``: two runs side by side, or two generations of one; nothing is decoded or run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from perdure.columns import columns
from perdure.current_code import recorded_inputs
from perdure.engine.edits import changed_parts
from perdure.engine.matching import family_of
from perdure.engine.state import OPAQUE, output_steps
from perdure.grown import Grown, grown_steps
from perdure.plan import Function, StepPlan
from perdure.runs import Run
from perdure.runtime import Runtime
from perdure.showing import Bundle, bundle_of
from perdure.words import count, count_of, duration, shown
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import StepId, StepRecord, StoredValue

_WIDTH = 32
_EACH_UP_TO = 8
"""Alike steps that are listed one by one; of more the first ones, and how many more there are."""
_FIRST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One value on both sides.

    Attributes:
        name: a parameter's name or a step's id.
        same: whether the values are equal; None where that cannot be known.
        a, b: what they looked like when they were stored; "" where there is none.
    """

    name: str
    same: bool | None
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePair:
    """A function that is another one on the other side.

    Attributes:
        function: its name.
        steps: ids of the steps that call it.
        parts: what of its code differs: ``"scale (prep.py:40)"``; empty if it is not known.
    """

    function: str
    steps: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSide:
    """A step on one side."""

    status: str
    duration_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPair:
    """A step on both sides; None where it is not there.

    Attributes:
        value: the values; None if neither side has one.
        is_output: the run's result is made of it.
        name: what its id has in common with those of alike steps: ``square[*]``.
    """

    id: str
    a: StepSide | None
    b: StepSide | None
    value: Pair | None
    is_output: bool = False
    name: str = ""

    @property
    def is_same(self) -> bool:
        """Say whether both sides came to the same, however long it took."""
        if self.a is None or self.b is None or self.a.status != self.b.status:
            return False
        return self.value is None or self.value.same is True


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two runs side by side. Printed, it is a table of what differs.

    Attributes:
        a, b: what is compared: run ids, or generations of one run.
        parameters: every parameter of either.
        code: functions that differ.
        steps: every step of either, in plan order.
    """

    a: str
    b: str
    parameters: tuple[Pair, ...] = ()
    code: tuple[CodePair, ...] = ()
    steps: tuple[StepPair, ...] = ()

    def _repr_mimebundle_(self, **kinds: Any) -> Bundle:
        return bundle_of(self)

    def __str__(self) -> str:
        blocks = [self._parameters(), self._code(), self._steps()]
        return "\n\n".join([self._title(), *(block for block in blocks if block)])

    def _title(self) -> str:
        if self.a == self.b:
            return f"{self.a} and itself: no step was computed again"
        differing = sum(not step.is_same for step in self.steps)
        outputs = [step for step in self.steps if step.is_output]
        result = ""
        if outputs:
            result = ", same result" if all(s.is_same for s in outputs) else ", another result"
        total = count_of(len(self.steps), "step")
        return f"{self.a} and {self.b}: {count(differing)} of {total} differ{result}"

    def _parameters(self) -> str:
        rows = [(pair.name, pair.a, pair.b) for pair in self.parameters if not pair.same]
        return columns(("PARAMETER", self.a, self.b), rows) if rows else ""

    def _code(self) -> str:
        rows = [(each.function, ", ".join(each.parts) or "it is another") for each in self.code]
        return columns(("CODE", "CHANGED"), rows) if rows else ""

    def _steps(self) -> str:
        families: dict[str, list[StepPair]] = {}
        for step in self.steps:
            if not step.is_same:
                families.setdefault(step.name or step.id, []).append(step)
        rows = [row for name, steps in families.items() for row in self._family(name, steps)]
        header = ("STEP", "STATUS", self.a, self.b, "TOOK", f"WHY ({self.b})")
        return columns(header, rows) if rows else ""

    def _family(self, name: str, steps: list[StepPair]) -> list[tuple[str, ...]]:
        """Return the rows of alike steps: of very many the first ones, and what the others are."""
        shown = steps if len(steps) <= _EACH_UP_TO else steps[:_FIRST]
        rows: list[tuple[str, ...]] = [
            (
                step.id,
                _both(step, lambda side: side.status),
                *_values(step),
                _both(step, lambda side: duration(side.duration_s)),
                step.b.reason if step.b is not None else "",
            )
            for step in shown
        ]
        if rest := steps[len(shown) :]:
            kinds = Counter(self._kind(step) for step in rest)
            text = ", ".join(f"{count(number)} {kind}" for kind, number in kinds.items())
            rows.append((name, f"and {count(len(rest))} more", "", "", "", text))
        return rows

    def _kind(self, step: StepPair) -> str:
        if step.a is None:
            return f"only in {self.b}"
        if step.b is None:
            return f"only in {self.a}"
        if step.a.status != step.b.status:
            return _both(step, lambda side: side.status)
        is_unknown = step.value is not None and step.value.same is None
        return "cannot be compared" if is_unknown else "with another value"


def _both(step: StepPair, tell: Callable[[StepSide], str]) -> str:
    a, b = ((side and tell(side)) or "-" for side in (step.a, step.b))
    return a if a == b else f"{a} -> {b}"


def _values(step: StepPair) -> tuple[str, str]:
    if step.value is None:
        return "", ""
    unknown = " (cannot be compared)" if step.value.same is None else ""
    return step.value.a, step.value.b + unknown


# --- two runs ---------------------------------------------------------------------------------
def diff_runs(runtime: Runtime, a: Run, b: Run) -> Difference:
    """Compare two runs; a run with itself: the two newest generations of its steps.

    Args:
        runtime: the stores.
        a: the earlier one, for people.
        b: the later one.
    """
    if a.id == b.id:
        return _diff_generations(runtime, a)
    ours, theirs = _found(runtime, a), _found(runtime, b)
    return Difference(
        a=a.id,
        b=b.id,
        parameters=_parameters(runtime, a, b),
        code=_code(ours, theirs),
        steps=_steps(ours, theirs, output_steps(a.plan) | output_steps(b.plan)),
    )


def _parameters(runtime: Runtime, a: Run, b: Run) -> tuple[Pair, ...]:
    ours, theirs = recorded_inputs(runtime, a.record), recorded_inputs(runtime, b.record)
    return tuple(
        _pair(name, ours.get(name), theirs.get(name)) for name in dict.fromkeys([*ours, *theirs])
    )


def _code(a: Mapping[str, _Found], b: Mapping[str, _Found]) -> tuple[CodePair, ...]:
    changed: dict[str, list[str]] = {}
    pairs: dict[str, tuple[Function, Function]] = {}
    for step_id, found in b.items():
        old, new = a[step_id].function if step_id in a else None, found.function
        if old is not None and new is not None and old.counts_as != new.counts_as:
            pairs[new.id] = (old, new)
            changed.setdefault(new.id, []).append(step_id)
    return tuple(
        CodePair(
            function=new.qualname.rpartition("<locals>.")[2],
            steps=tuple(changed[key]),
            parts=tuple(changed_parts(old, new)),
        )
        for key, (old, new) in pairs.items()
    )


def _steps(
    a: Mapping[str, _Found], b: Mapping[str, _Found], outputs: Collection[str]
) -> tuple[StepPair, ...]:
    return tuple(
        _step_pair(
            step_id,
            a[step_id].side if step_id in a else None,
            b[step_id].side if step_id in b else None,
            is_output=step_id in outputs,
            name=family_of((b.get(step_id) or a[step_id]).plan),
        )
        for step_id in dict.fromkeys([*b, *a])
    )


Side = tuple[StepSide, StoredValue | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A step of a run: its call, its function where that is known, what became of it."""

    plan: StepPlan
    function: Function | None
    side: Side


def _found(runtime: Runtime, run: Run) -> dict[str, _Found]:
    """Return the steps of a run, those of maps that it took over whole too, by id."""
    found = {
        step.id: _Found(
            plan=step.plan,
            function=step.graph.functions[step.plan.function],
            side=(StepSide(status=str(step.status)), None)
            if step.row is None
            else _side_of(step.row),
        )
        for step in run.steps()
    }
    record = run.record
    grown = grown_steps(runtime.store, record) if record.reuse_from is not None else Grown()
    for step_id, plan in grown.steps.items():
        if step_id not in found and step_id in grown.rows:
            side, value = _side_of(grown.rows[step_id])
            reason = f"taken over with {grown.roots[step_id]}"
            side = StepSide(status=side.status, reason=reason)
            found[step_id] = _Found(plan=plan, function=None, side=(side, value))
    return found


# --- two generations --------------------------------------------------------------------------
def _diff_generations(runtime: Runtime, run: Run) -> Difference:
    rows: dict[StepId, list[StepRecord]] = {}
    for row in runtime.store.list_steps(run.record.id, current_only=False):
        rows.setdefault(row.step_id, []).append(row)
    outputs = output_steps(run.plan)
    names = {step.id: family_of(step.plan) for step in run.steps()}
    steps = tuple(
        _step_pair(
            step_id,
            _side_of(before),
            _side_of(now),
            is_output=step_id in outputs,
            name=names.get(step_id, ""),
        )
        for step_id, (before, now) in _newest_two(rows)
    )
    if not steps:
        return Difference(a=run.id, b=run.id)
    return Difference(a=f"{run.id} before", b=f"{run.id} now", steps=steps)


def _newest_two(
    rows: Mapping[StepId, list[StepRecord]],
) -> Iterator[tuple[StepId, tuple[StepRecord, StepRecord]]]:
    for step_id, lives in rows.items():
        if len(lives) > 1:
            before, now = sorted(lives, key=lambda row: row.generation)[-2:]
            yield step_id, (before, now)


# --- one step, one value ----------------------------------------------------------------------
def _side_of(row: StepRecord) -> Side:
    took: timedelta | None = None
    if row.attempt and row.started_at is not None and row.finished_at is not None:
        took = row.finished_at - row.started_at
    status = "CAUGHT" if row.caught and row.status is StepStatus.SUCCEEDED else str(row.status)
    side = StepSide(
        status=status, duration_s=took.total_seconds() if took else None, reason=row.reason
    )
    return side, row.value


def _step_pair(
    step_id: str, a: Side | None, b: Side | None, *, is_output: bool, name: str = ""
) -> StepPair:
    ours, theirs = (side[1] if side is not None else None for side in (a, b))
    return StepPair(
        id=step_id,
        name=name,
        a=a[0] if a is not None else None,
        b=b[0] if b is not None else None,
        value=_pair(step_id, ours, theirs) if ours is not None or theirs is not None else None,
        is_output=is_output,
    )


def _pair(name: str, a: StoredValue | None, b: StoredValue | None) -> Pair:
    return Pair(name=name, same=_is_same(a, b), a=_shown(a), b=_shown(b))


def _is_same(a: StoredValue | None, b: StoredValue | None) -> bool | None:
    if a is None or b is None:
        return False
    # The digest of who won a race tells one between other steps of the same names from it.
    if a.value_digest == b.value_digest or (a.codec, a.integrity) == (b.codec, b.integrity):
        return True
    # Different bytes of an opaque value prove nothing.
    opaque = a.value_digest.startswith(OPAQUE) and b.value_digest.startswith(OPAQUE)
    return None if opaque else False


def _shown(value: StoredValue | None) -> str:
    if value is None or not value.preview:
        return ""
    return shown(msgspec.json.decode(value.preview), _WIDTH)
