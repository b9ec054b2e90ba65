"""Steps in graphs that grew while a run went on, as people name them in that run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from perdure.engine.loading import MAX_DONORS
from perdure.plan import Plan, StepPlan, decode_plan
from perdure_storage.lifecycle import StepStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import ExpansionRecord, RunId, RunRecord, StepRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """The steps of all graphs that stand in a run, each graph by the step that gave it.

    Attributes:
        steps: the calls, by step id.
        roots: the step that gave the graph that each is in.
        rows: the row of each that has one.
    """

    steps: dict[str, StepPlan] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    rows: dict[str, StepRecord] = field(default_factory=dict)

    def around(self, step_id: str) -> Iterator[str]:
        """Yield the steps in whose graphs a step is, from the inside out."""
        while step_id in self.roots:
            step_id = self.roots[step_id]
            yield step_id

    def top(self, step_id: str) -> str:
        """Return the step of the run's own plan below which a step has grown, or itself."""
        return next(reversed([step_id, *self.around(step_id)]))


def caught_failures(
    rows: Iterable[StepRecord], around: Callable[[str], Iterable[str]]
) -> tuple[str, ...]:
    """Return the steps whose final failure was caught: by themselves, or around them.

    Of one that took the failure of a step of its graph as its value, that step. What was ended as
    nobody needed it any more has not failed.

    Args:
        rows: the steps' rows.
        around: finds the steps in whose graphs a step is.
    """
    found = [r.step_id for r in rows if r.caught and r.status is not StepStatus.CANCELLED]
    outer = {root for step_id in found for root in around(step_id)}
    return tuple(step_id for step_id in found if step_id not in outer)


def newest_graphs(expansions: Iterable[ExpansionRecord]) -> dict[str, list[Plan]]:
    """Return the graphs that steps gave in their newest life; of a chain those of each link."""
    return {
        step_id: [decode_plan(link.plan.body) for link in links]
        for step_id, links in _newest(expansions).items()
    }


def grown_steps(
    store: RunStore, record: RunRecord, steps: Sequence[StepRecord] | None = None
) -> Grown:
    """Return the steps in graphs that stand in a run.

    What it took over whole left its graph in the run that it was taken over from, or before.

    Args:
        store: where it is.
        record: the run.
        steps: its rows, where they have been read already.
    """
    found = Grown()
    run: RunRecord | None = record
    wanted: set[str] | None = None  # None: all that is there
    for _ in range(MAX_DONORS):
        if run is None:
            break
        read = store.list_steps(run.id) if steps is None or run is not record else steps
        rows: dict[str, StepRecord] = {row.step_id: row for row in read}
        links = _standing(store.list_expansions(run.id), rows)
        _add(found, links, rows, links if wanted is None else wanted)
        before = store.find_run(RunId(run.reuse_from)) if run.reuse_from else None
        if before is not None:
            theirs: dict[str, StepRecord] = {r.step_id: r for r in store.list_steps(before.id)}
            ids = rows if wanted is None else wanted
            wanted = {i for i in ids if i in rows and i not in links and _is_taken(rows[i], theirs)}
        run = before if wanted else None
    return found


def _newest(expansions: Iterable[ExpansionRecord]) -> dict[str, list[ExpansionRecord]]:
    newest: dict[str, list[ExpansionRecord]] = {}
    for expansion in expansions:  # in the order of generation and link
        links = newest.setdefault(expansion.step_id, [])
        if links and links[-1].generation != expansion.generation:
            links.clear()
        links.append(expansion)
    return newest


def _standing(
    expansions: Iterable[ExpansionRecord], rows: Mapping[str, StepRecord]
) -> dict[str, list[ExpansionRecord]]:
    """Return the newest graphs, but for those of steps that have a later value."""
    return {
        step_id: links
        for step_id, links in _newest(expansions).items()
        if step_id not in rows or rows[step_id].generation == links[-1].generation
    }


def _add(
    found: Grown,
    links: Mapping[str, list[ExpansionRecord]],
    rows: Mapping[str, StepRecord],
    roots: Iterable[str],
) -> None:
    waiting = [root for root in roots if root in links]
    seen: set[str] = set()
    while waiting:
        root = waiting.pop()
        if root in seen:
            continue
        seen.add(root)
        for link in links[root]:
            for step in decode_plan(link.plan.body).steps:
                found.steps[step.id], found.roots[step.id] = step, root
                if step.id in rows:
                    found.rows[step.id] = rows[step.id]
                if step.id in links:
                    waiting.append(step.id)


def _is_taken(row: StepRecord, theirs: Mapping[str, StepRecord]) -> bool:
    """Say whether a row was taken over whole from one of the same id."""
    other = theirs.get(row.step_id)
    return (
        row.attempt == 0
        and row.status is StepStatus.SUCCEEDED
        and other is not None
        and row.value is not None
        and other.value is not None
        and row.value.integrity == other.value.integrity
    )
