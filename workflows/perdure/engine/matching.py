"""Which committed results still hold for a plan: the rule of reuse, in one place.

A committed step is taken over if its fingerprint is unchanged. If only something upstream
changed, its row becomes a *candidate*: should the upstream values turn out equal to those it
consumed, it is taken over then (early cut-off). Ids may have shifted under an edit, so steps are
matched by (scope, name, fingerprint), ties in plan order.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

import msgspec

from perdure.engine.edits import Edits
from perdure.engine.roots import Roots
from perdure.graph.dag import MAX_ID_BYTES
from perdure.plan import GIVEN, Plan, StepPlan, function_of_user, step_code
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Place, StepRecord, StoredValue


class Matching(msgspec.Struct, frozen=True, kw_only=True):
    """How an older set of committed rows relates to a plan.

    Attributes:
        kept: rows that hold under their own step id.
        adopted: rows that hold, by the step id under which the plan has them now.
        candidates: rows whose code and constants hold, to be compared by consumed inputs.
        reasons: why a step that had a row of its name runs, by step id.
        obsolete: rows that hold for nothing, or under another id.
    """

    kept: dict[str, StepRecord]
    adopted: dict[str, StepRecord]
    candidates: dict[str, tuple[StepRecord, ...]]
    reasons: dict[str, str]
    obsolete: tuple[StepRecord, ...]


def match_name(step: StepPlan) -> str:
    """Return the name under which rows of the step are matched over edits."""
    return f"{step.scope}/{step.name}" if step.scope else step.name


def family_of(step: StepPlan) -> str:
    """Return what the ids of alike steps have in common: ``f[*]`` for ``f[0]``, ``f~`` for ``f~1``.

    The name for people where steps are summed up: it looks like the ids that it stands for.
    """
    if len(step.id.encode()) > MAX_ID_BYTES - 4:  # its end may be a digest, and in no id alike
        return match_name(step)
    return _NUMBER.sub("", _LINK.sub("~", _ITEM.sub("[*]", step.id)))


# Names contain none of these characters, so what looks like a mark is one.
_ITEM, _LINK, _NUMBER = re.compile(r"\[[^\[\]]*\]"), re.compile(r"~[0-9]+"), re.compile(r"#[0-9]+")


def is_whole(row: StepRecord) -> bool:
    """Say whether a row can stand for its step elsewhere, without the graph that the step gave.

    It cannot if only the rows of that graph say how it left an actor.
    """
    return not any(
        state.place is Place.NONE and not state.value_digest for state in row.states.values()
    )


def match_rows(
    plan: Plan,
    fingerprints: Mapping[str, str],
    rows: Iterable[StepRecord],
    *,
    keep_changed: bool = False,
    edits: Edits | None = None,
    inputs: Mapping[str, StoredValue] | None = None,
) -> Matching:
    """Match succeeded ``rows`` with the steps of ``plan``.

    Rows that are history are matched too, after the current ones: whoever takes an edit back gets
    the old result back. (Values that were lost or proven stale are LOST, not SUCCEEDED.)

    Args:
        plan: today's plan.
        fingerprints: of the plan's steps, by step id.
        rows: all rows of a run.
        keep_changed: ``on_change="reuse"``: a row under the same id holds whatever has changed,
            but for children of a map.
        edits: of the code since, for reasons that name the helper that changed.
        inputs: the run's inputs today, for reasons that name the parameter that changed.
    """
    rows = list(rows)
    usable = [row for row in rows if row.status is StepStatus.SUCCEEDED]
    failed: dict[str, _Namesakes] = defaultdict(_Namesakes)
    for row in rows:
        if row.status is StepStatus.FAILED:
            failed[row.name].add(row)
    by_id: dict[str, StepRecord] = {}
    for row in usable:
        if row.current:
            # Of several runs the first one counts: it went on from the others.
            by_id.setdefault(row.step_id, row)
    kept = {
        step.id: by_id[step.id]
        for step in plan.steps
        if step.id in by_id
        # A child of a map is known by its item: its place may be another's today.
        and (
            (keep_changed and step.item is None)
            or by_id[step.id].fingerprint == fingerprints[step.id]
        )
    }
    left = [row for row in usable if row.current and kept.get(row.step_id) is not row]
    history = [row for row in reversed(usable) if not row.current]
    reasons = _Reasons(plan, edits or Edits(), Roots(inputs))
    return _match_rest(plan, fingerprints, kept, left, history, failed, reasons)


def _match_rest(
    plan: Plan,
    fingerprints: Mapping[str, str],
    kept: dict[str, StepRecord],
    left: list[StepRecord],
    history: list[StepRecord],
    failed: Mapping[str, _Namesakes],
    why: _Reasons,
) -> Matching:
    same: dict[tuple[str, str], deque[StepRecord]] = defaultdict(deque)
    named: dict[str, _Namesakes] = defaultdict(_Namesakes)
    for row in filter(is_whole, (*left, *history)):
        same[row.name, row.fingerprint].append(row)
        named[row.name].add(row)
    adopted: dict[str, StepRecord] = {}
    candidates: dict[str, tuple[StepRecord, ...]] = {}
    reasons: dict[str, str] = {}
    for step in plan.steps if named or failed else ():
        if step.id in kept:
            continue
        name = match_name(step)
        if equal := same.get((name, fingerprints[step.id])):
            adopted[step.id] = equal.popleft()
        elif step.own.startswith(GIVEN):
            reasons[step.id] = "its value is given"
            why.roots.note(step, f"the given value of {step.id}")
        elif others := named.get(name):
            if alike := others.by_own.get(step.own):
                candidates[step.id] = tuple(alike)
            reasons[step.id] = why.changed(step, others.nearest(step))
        elif failure := _failure_of(step, failed.get(name)):
            reasons[step.id] = why.again(step, failure)
        else:
            why.roots.note(step, f"{step.id} is new")
    return Matching(
        kept=kept,
        adopted=adopted,
        candidates=candidates,
        reasons=reasons,
        obsolete=tuple(left),
    )


class _Namesakes:
    """Rows of one name: of a map the items, which may be very many. Not empty."""

    def __init__(self) -> None:
        self.by_own: dict[str, list[StepRecord]] = {}
        self.by_id: dict[str, StepRecord] = {}
        self.last: StepRecord | None = None

    def add(self, row: StepRecord) -> None:
        """Add a row; the first one counts where several have one id."""
        self.by_own.setdefault(row.own, []).append(row)
        self.by_id.setdefault(row.step_id, row)
        self.last = row

    def nearest(self, step: StepPlan) -> StepRecord:
        """Return the row of a step's id, or else the first one."""
        return self.by_id.get(step.id) or next(iter(self.by_id.values()))


def _failure_of(step: StepPlan, rows: _Namesakes | None) -> StepRecord | None:
    """Return the row by which a step failed; of an item of a map not that of another item."""
    if rows is None:
        return None
    alike = rows.by_id.get(step.id) or next(iter(rows.by_own.get(step.own, ())), None)
    return alike or (rows.last if step.item is None else None)


class _Reasons:
    """Why the steps of a plan run though there are rows of their names."""

    def __init__(self, plan: Plan, edits: Edits, roots: Roots) -> None:
        self._plan = plan
        self._edits = edits
        self.roots = roots

    def changed(self, step: StepPlan, row: StepRecord) -> str:
        """Return why a step does not take over a row that succeeded; "": the step is new."""
        if row.own == step.own:
            return self.roots.why(step, row)
        if row.own.startswith(GIVEN):
            self.roots.note(step, f"the value of {step.id}, which had been given")
            return "its value had been given there, not computed"
        return self._own_change(step, row)

    def again(self, step: StepPlan, row: StepRecord) -> str:
        """Return why a step that had failed runs."""
        if row.own != step.own and (change := self._own_change(step, row)):
            return f"it had failed, and {change}"
        self.roots.why(step, row)
        return "it had failed"

    def _own_change(self, step: StepPlan, row: StepRecord) -> str:
        function = self._plan.functions[step.function]
        if row.code == step_code(function.counts_as, step.passed):
            if row.step_id != step.id:  # an item or a call more, or one that was cut off
                self.roots.note(step, f"{step.id} is new")
                return ""
            self.roots.note(step, f"the arguments of {step.id}")
            return "its arguments changed"
        self.roots.note(step, f"the code of {step.id}")
        today = function_of_user(self._plan, step)
        return f"its code changed{self._edits.difference(row.code, today)}"
