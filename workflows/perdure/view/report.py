"""All that a page tells of a run, read from its store at one time. Nothing is unpickled for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from perdure.bundle import recorded_sources
from perdure.errors import PerdureError
from perdure.fingerprint import noted_versions
from perdure.plan import is_built_in
from perdure.runs import status_of
from perdure.story import Siblings
from perdure.view.details import view_detail
from perdure.view.graph import view_graph
from perdure.view.model import (
    AncestorView,
    DriverView,
    EventView,
    FunctionView,
    ReportView,
    StepView,
)
from perdure.view.runs import view_run
from perdure.view.timeline import view_timeline
from perdure_storage.records import Digest, RunId
from perdure_storage.shapes import readable

if TYPE_CHECKING:
    from perdure.runs import Run, Step
    from perdure_storage.records import AttemptRecord, EventRecord, RunRecord

TOLD_UP_TO = 1200
"""Steps that are told of in full; of more, those that are of most interest."""
LOGS_UP_TO = 200
"""Steps whose last printed lines are read."""
LOG_BYTES = 4096
_ANCESTORS = 10
_EVENTS = 200


def view_report(run: Run) -> ReportView:
    """Return all that a page tells of a run, as its store has it now."""
    now = run.runtime.clock.now()
    record = run.record
    siblings = Siblings(run)
    steps = siblings.steps
    view = view_run(run, siblings)
    order = _in_order_of_interest(steps, view.steps)
    told = order[:TOLD_UP_TO]
    events = run.events()
    return ReportView(
        run=view,
        at=now,
        graph=view_graph(steps),
        timeline=view_timeline(steps, begin=record.started_at, end=record.finished_at or now),
        details=tuple(view_detail(step, siblings) for step, _ in told),
        untold=_count_names(each for _, each in order[TOLD_UP_TO:]),
        logs=_last_printed(run, [step for step, _ in told[:LOGS_UP_TO]]),
        drivers=_drivers(events),
        ancestors=_ancestors(run, record),
        events=tuple(_event(event) for event in events[-_EVENTS:]),
        functions=_functions(steps),
        sources={**_texts(steps), **_sources(run)},
        packages=_packages(steps),
        made_with=run.plan.made_with,
        policy=_policy(record, run),
    )


_Pair = tuple["Step", StepView]
_INTEREST = {
    "FAILED": 0,
    "caught": 1,
    "RUNNING": 2,
    "READY": 3,
    "WAITING": 4,
    "not finished": 5,
    "PENDING": 7,
    "not begun": 8,
}


def _in_order_of_interest(steps: Sequence[Step], views: Sequence[StepView]) -> list[_Pair]:
    """Return steps as a person wants to read of them: failed ones, those that go on, slow ones."""

    def interest(pair: _Pair) -> tuple[int, float]:
        step, view = pair
        rank = _INTEREST.get(view.standing, 6)
        # Of items there may be very many that are alike: the other steps of their kind come first.
        return rank * 2 + (step.plan.item is not None and rank > 4), -(view.duration_s or 0.0)

    return sorted(zip(steps, views), key=interest)


def _count_names(steps: Iterable[StepView]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.name] = counts.get(step.name, 0) + 1
    return counts


def _last_printed(run: Run, steps: Iterable[Step]) -> dict[str, str]:
    found: dict[str, str] = {}
    for step in steps:
        if step.attempts:
            try:
                data = _tail(run, step.attempts[-1])
            except PerdureError:  # logs are a help, not a truth
                break
            if data:
                found[step.id] = data.decode(errors="replace")
    return found


def _tail(run: Run, attempt: AttemptRecord) -> bytes:
    return run.runtime.logs.read(
        attempt.run_id, attempt.step_id, attempt.generation, attempt.attempt, offset=-LOG_BYTES
    )


def _drivers(events: Iterable[EventRecord]) -> tuple[DriverView, ...]:
    return tuple(
        DriverView(
            host=str(event.detail.get("host", "?")),
            pid=int(event.detail.get("pid", 0)),
            at=event.at,
            took_over=event.kind == "taken over",
        )
        for event in events
        if event.kind in ("claimed", "taken over")
    )


def _event(event: EventRecord) -> EventView:
    return EventView(at=event.at, kind=event.kind, step=event.step_id or "", detail=event.detail)


def _ancestors(run: Run, record: RunRecord) -> tuple[AncestorView, ...]:
    store = run.runtime.store
    found: dict[str, AncestorView] = {}
    at: RunRecord | None = record
    while at is not None and len(found) < _ANCESTORS:
        links = (
            ("takes steps over from", at.reuse_from),
            ("made from", at.forked_from),
            ("started by", at.parent),
        )
        link, above = next(((link, each) for link, each in links if each), ("", None))
        if above is None or above in found:
            break
        at = store.find_run(RunId(above))
        status = str(status_of(at)) if at is not None else ""
        found[above] = AncestorView(id=above, link=link, status=status)
    return tuple(found.values())


def _functions(steps: Iterable[Step]) -> tuple[FunctionView, ...]:
    found: dict[str, FunctionView] = {}
    for step in steps:
        function = step.graph.functions[step.plan.function]
        key = f"{function.qualname} {function.code}"
        if key not in found and not is_built_in(function):
            found[key] = FunctionView(
                name=readable(f"{function.module}.{function.qualname}"),
                where=function.where,
                code=function.code,
            )
    return tuple(found.values())


def _packages(steps: Iterable[Step]) -> dict[str, str]:
    noted: dict[str, str] = {}
    for function in {f.id: f for s in steps for f in s.graph.functions.values()}.values():
        if not is_built_in(function):
            noted.update(noted_versions(function.manifest))
    return dict(sorted(noted.items()))


def _texts(steps: Iterable[Step]) -> dict[str, str]:
    """Return what was written in scripts and cells, by name; an earlier one is as good."""
    found: dict[str, str] = {}
    for function in {f.id: f for s in steps for f in s.graph.functions.values()}.values():
        found.update(function.texts)
    return found


def _sources(run: Run) -> dict[str, str]:
    plan = run.plan
    if plan.bundle is None:
        return {}
    try:
        return recorded_sources(run.runtime.blobs.open(Digest(plan.bundle), plan.bundle_size))
    except PerdureError:  # gone, damaged or out of reach: a page is no place to fail for it
        return {}


def _policy(record: RunRecord, run: Run) -> dict[str, str]:
    policy = record.policy
    return {
        "executor": policy.executor or run.runtime.settings.executor,
        "durability": policy.durability,
        "on failure": policy.on_failure,
        "on change": policy.on_change,
        "code": policy.code,
        **({"queue": record.queue} if record.queue else {}),
        **({"priority": str(record.priority)} if record.priority else {}),
    }
