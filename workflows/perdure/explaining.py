"""``explain``: what a verb would run and reuse, step by step, and why. Runs and writes nothing.

There is no second set of rules: the run is derived as the verb derives it, its state is built as
a coordinator builds it, and the engine's own moves are played through with pretended values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from perdure.columns import columns
from perdure.deriving import Derived, derive_fork, derive_rerun
from perdure.engine.foresight import is_pretended, play
from perdure.engine.loading import Past, functions_of, lose_what_is_gone, read_past, state_of
from perdure.engine.matching import family_of
from perdure.engine.state import RunState, StepState
from perdure.errors import DefinitionError, did_you_mean, known_names
from perdure.foreseen import Foreseen
from perdure.plan import FromStep, recorded_plan, upstream
from perdure.resumption import intend_resume
from perdure.runtime import Runtime
from perdure.showing import Bundle, bundle_of
from perdure.submission import Action, Intent, Submission, Wishes
from perdure.words import count
from perdure_storage.lifecycle import StepStatus
from perdure_storage.protocols import BlobStore
from perdure_storage.records import RunId
from perdure_storage.scratch import ScratchBlobs
from perdure_storage.values import Values

_WAITS = "perdure.waits:"
"""What ids of functions begin with whose steps wait for a time, a message or other steps."""
_HISTORY = (StepStatus.FAILED, StepStatus.CANCELLED)


class Verdict(StrEnum):
    """What becomes of a step."""

    RUN = "run"
    REUSE = "reuse"
    GIVEN = "given"
    SKIP = "skip"  # a branch that is not chosen
    DEPENDS = "depends"  # it runs, unless what it consumes comes out as it was
    NOT_REACHED = "not reached"  # it waits for a step that has failed


@dataclass(frozen=True, slots=True, kw_only=True)
class StepExplanation:
    """What becomes of one step, and why; ``name`` is what ids of alike steps have in common."""

    id: str
    verdict: Verdict
    reason: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a verb would do. Printed, it is a table.

    Attributes:
        verb: ``"run"``, ``"resume"``, ``"rerun"`` or ``"fork"``.
        run_id: the run that it is about; the id that was given, or "" for a new run.
        note: what there is of the run, where it is only looked at: it has ended, or is driven.
        steps: every step, in plan order.
    """

    verb: str
    run_id: str
    note: str
    steps: tuple[StepExplanation, ...]

    def __getitem__(self, step_id: str) -> StepExplanation:
        """Return what becomes of one step. Raises DefinitionError with similar ids."""
        by_id = {step.id: step for step in self.steps}
        if step_id not in by_id:
            raise DefinitionError(f"no step {step_id!r}{did_you_mean(step_id, by_id)}")
        return by_id[step_id]

    def ids(self, verdict: Verdict | str) -> list[str]:
        """Return the ids of the steps of which this becomes."""
        return [step.id for step in self.steps if step.verdict == verdict]

    def __str__(self) -> str:
        rows = list(_folded(list(_stacked(self.steps))))
        left = len(rows) - _ROWS
        more = (
            f"\nand {left} more rows: `perdure explain --all`, in Python `.full`"
            if left > 0
            else ""
        )
        return f"{self._table(rows[:_ROWS])}{more}"

    @property
    def full(self) -> str:
        """Return the table with a row for each step, however many there are."""
        return self._table([(step.id, step.verdict.value, step.reason) for step in self.steps])

    def _table(self, rows: Sequence[tuple[str, str, str]]) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.title}{note}\n{columns(('STEP', 'WOULD', 'WHY'), rows)}"

    def _repr_mimebundle_(self, **kinds: Any) -> Bundle:
        return bundle_of(self)

    @property
    def title(self) -> str:
        """Return the table in a sentence: ``fork of a: 3 of 5 steps reused, 2 run``."""
        counts = {verdict: len(self.ids(verdict)) for verdict in Verdict}
        parts = [
            f"{counts[verdict]} {text}" for verdict, text in _TITLES.items() if counts[verdict]
        ]
        subject = f" of {self.run_id}" if self.run_id else ""
        total = "1 step" if len(self.steps) == 1 else f"{len(self.steps)} steps"
        return f"{self.verb}{subject}, {total}: {', '.join(parts) or 'nothing to do'}"


def _stacked(steps: Sequence[StepExplanation]) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of a table: of very many alike steps of which the same becomes, one."""
    groups: dict[tuple[str, Verdict], list[StepExplanation]] = {}
    for step in steps:
        groups.setdefault((step.name or step.id, step.verdict), []).append(step)
    for (name, verdict), alike in groups.items():
        if len(alike) <= _EACH_UP_TO:
            yield from ((step.id, verdict.value, step.reason) for step in alike)
            continue
        reasons = Counter(step.reason for step in alike)
        why = "; ".join(
            reason if number == len(alike) else f"{count(number)}: {reason}"
            for reason, number in reasons.most_common(_EACH_UP_TO)
        )
        yield name, f"{count(len(alike))} {verdict.value}", why


def _folded(rows: Sequence[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield the rows, of a long table those of one verdict and reason as one."""
    if len(rows) <= _ROWS:
        yield from rows
        return
    groups: dict[tuple[str, str], list[str]] = {}
    for name, would, why in rows:
        groups.setdefault((would, why), []).append(name)
    for (would, why), names in groups.items():
        left = len(names) - _NAMED
        yield f"{', '.join(names[:_NAMED])}{f' and {left} more' if left > 0 else ''}", would, why


_ROWS = 24
"""Rows that a reader takes in at a glance."""
_NAMED = 3
_EACH_UP_TO = 5
"""Alike steps that are listed one by one."""
_TITLES = {
    Verdict.REUSE: "reused",
    Verdict.GIVEN: "given",
    Verdict.RUN: "run",
    Verdict.SKIP: "skipped",
    Verdict.DEPENDS: "run if what they consume changes",
    Verdict.NOT_REACHED: "not reached",
}


def explain_run(runtime: Runtime, dag: Any, wishes: Wishes) -> Explanation:
    """Say what ``run`` with these options would do.

    Raises:
        RunConflict: what ``run`` would raise.
    """
    values, blobs = _scratch(runtime)
    intent = Submission(runtime, runtime.settings, dag, wishes, values).intend()
    return _explained(runtime, "run", wishes.run_id or "", intent, values, blobs)


def explain_id(
    runtime: Runtime, run_id: RunId, *, verb: str | None = None, **options: Any
) -> Explanation:
    """Say what a verb would do with a run.

    Args:
        runtime: the stores.
        run_id: the run.
        verb: ``"resume"``, ``"rerun"`` or ``"fork"``; None: a fork if options of one are given.
        **options: those of the verb.

    Raises:
        DefinitionError: the verb has no such option, or what the verb itself would raise.
        RunConflict: what the verb itself would raise.
    """
    if verb is None:
        verb = "fork" if options.keys() & _ONLY_FORK else "resume"
    if verb not in _OPTIONS:
        raise DefinitionError(f"verb={verb!r}{known_names(str(verb), _OPTIONS)}")
    if unknown := sorted(options.keys() - _OPTIONS[verb]):
        raise DefinitionError(
            f"{verb} has no option {unknown[0]!r}{known_names(unknown[0], sorted(_OPTIONS[verb]))}"
        )
    values, blobs = _scratch(runtime)
    intent = _INTENT_OF[verb](runtime, run_id, values=values, **options)
    return _explained(runtime, verb, run_id, intent, values, blobs)


def _intend_rerun(runtime: Runtime, run_id: RunId, **options: Any) -> Intent:
    return _as_intent(derive_rerun(runtime, run_id, **options))


def _intend_fork(runtime: Runtime, run_id: RunId, **options: Any) -> Intent:
    return _as_intent(derive_fork(runtime, run_id, **options))


def _as_intent(derived: Derived) -> Intent:
    return Intent(action=Action.MAKE, record=derived.record, plan=derived.plan, note=derived.note)


_INTENT_OF: Mapping[str, Callable[..., Intent]] = {
    "resume": intend_resume,
    "rerun": _intend_rerun,
    "fork": _intend_fork,
}
_ONLY_FORK = {"from_step", "inputs", "force", "overrides"}
_OPTIONS: Mapping[str, set[str]] = {
    "resume": {"code", "on_change", "on_divergence", "executor", "dag"},
    "rerun": {"inputs", "new_id", "dag"},
    "fork": {*_ONLY_FORK, "on_change", "new_id", "dag"},
}


def _scratch(runtime: Runtime) -> tuple[Values, BlobStore]:
    """Return where today's constants go meanwhile: nowhere that lasts."""
    blobs = ScratchBlobs(runtime.blobs)
    return Values(runtime.values.codecs, blobs), blobs


# --- the run as it would begin ----------------------------------------------------------------
def _explained(
    runtime: Runtime, verb: str, run_id: str, intent: Intent, values: Values, blobs: BlobStore
) -> Explanation:
    past, now = _past(runtime, intent), runtime.clock.now()
    plan = intent.plan or recorded_plan(runtime.store, intent.record)
    record = msgspec.structs.replace(intent.record, epoch=intent.record.epoch + 1)

    def begun() -> RunState:
        run = state_of(record, plan, past, now)
        if intent.action is not Action.KEEP:
            lose_what_is_gone(run, record, blobs, now)
        return run

    run = begun()
    conditional = {step.id for step in run.steps.values() if not step.wanted}
    grow = Foreseen(values, [*past.donor_expansions, *past.expansions])
    worst = play(run, now, grow, as_before=False)
    best = play(begun(), now, grow, as_before=True)
    current = {row.step_id for row in past.rows if row.current}
    kept = {
        step.id: f"committed in this run{run.noted.get(step.plan.function, '')}"
        for step in run.steps.values()
        if step.id in current
    }
    open_choices = _open_choices(run, conditional)
    steps = tuple(_step(step, worst, best, kept, open_choices) for step in _in_order(run))
    steps = tuple(_with_open_graph(step) if step.id in grow.open else step for step in steps)
    note = intent.note if intent.action is Action.KEEP else ""
    return Explanation(verb=verb, run_id=run_id, note=note, steps=steps)


def _open_choices(run: RunState, conditional: Collection[str]) -> dict[str, str]:
    """Return under which condition steps of branches run whose choice nobody knows before."""
    found: dict[str, str] = {}
    for select in [step for step in run.steps.values() if step.branches]:
        choice, *branches = [ref.step for ref in select.refs if isinstance(ref, FromStep)]
        value = run.steps[choice].value
        if value is not None and not is_pretended(value):
            continue
        for name, branch in zip(select.branches, branches):
            stack = [branch]
            while stack:
                step_id = stack.pop()
                if step_id in conditional and step_id not in found:
                    found[step_id] = f"{choice} comes out so that {name!r} is chosen"
                    stack += upstream(run.steps[step_id].plan)
    return found


def _in_order(run: RunState) -> Iterator[StepState]:
    """Yield the steps of the run's plan, each followed by those of the graph that it gives."""
    stack = [step.id for step in reversed(run.plan.steps)]
    while stack:
        step = run.steps.get(stack.pop())  # None: the link of a chain that gave the next one
        if step is not None:
            yield step
            stack += reversed(step.members)


def _past(runtime: Runtime, intent: Intent) -> Past:
    """Return what the run goes on from, as opening it again would leave it."""
    past = read_past(runtime.store, intent.record)
    if intent.action is not Action.REOPEN:
        return past
    before = runtime.store.get_run(intent.record.id).plan_digest
    closed = (
        msgspec.structs.replace(row, current=False) if row.status in _HISTORY else row
        for row in past.rows
    )
    functions = past.functions
    if before != intent.record.plan_digest:
        functions = functions_of(runtime.store, before)
    return replace(past, rows=tuple(closed), functions=functions)


def _with_open_graph(step: StepExplanation) -> StepExplanation:
    """Say of a step that steps follow from it which nobody knows yet."""
    if step.verdict not in (Verdict.RUN, Verdict.DEPENDS):
        return step
    return replace(step, reason=f"{step.reason}; the steps that it gives are known only then")


def _step(
    step: StepState,
    worst: Mapping[str, str],
    best: Mapping[str, str],
    kept: Mapping[str, str],
    open_choices: Mapping[str, str],
) -> StepExplanation:
    verdict, reason = _verdict(step, worst, best, kept, open_choices)
    if verdict in (Verdict.RUN, Verdict.DEPENDS) and step.plan.function.startswith(_WAITS):
        reason += "; the run waits there"
    return StepExplanation(id=step.id, verdict=verdict, reason=reason, name=family_of(step.plan))


def _verdict(
    step: StepState,
    worst: Mapping[str, str],
    best: Mapping[str, str],
    kept: Mapping[str, str],
    open_choices: Mapping[str, str],
) -> tuple[Verdict, str]:
    if step.id in worst and step.id in open_choices:
        return Verdict.DEPENDS, f"it runs only if {open_choices[step.id]}"
    if step.status is StepStatus.SKIPPED:
        return Verdict.SKIP, step.reason or "it is not needed"
    if step.id in best:
        return Verdict.RUN, worst.get(step.id) or _unfinished(step)
    if step.id in worst:
        why = worst[step.id] or _unfinished(step)
        return Verdict.DEPENDS, f"{why}; reused if what it consumes comes out alike"
    if not step.is_done:
        failed = step.status is StepStatus.FAILED
        return Verdict.NOT_REACHED, "it failed" if failed else "it waits for what failed"
    if step.given is not None:
        return Verdict.GIVEN, "its value is given"
    if step.id in kept:
        return Verdict.REUSE, kept[step.id]
    if step.value is not None and is_pretended(step.value) and step.branches:
        return Verdict.DEPENDS, "it has the value of the branch that is chosen"
    return Verdict.REUSE, step.reason or "its graph is there"


def _unfinished(step: StepState) -> str:
    """Return why a step runs of which there is no result and no error."""
    return "it began and has not ended" if step.attempt else "it has not run"
