"""Runs and attempts as OpenTelemetry spans, where a program has set OpenTelemetry up.

A span is a run while one coordinator drives it, and below it one an attempt; what a step's own
code traces is below that. Who goes on with a run of another coordinator links to its span, whose
name is in the run's story: it rides in the first commit. Nothing is imported, and nothing traced,
in a process in which nobody has loaded the SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.calls import CallId, Outcome, StepCall
from perdure_storage.clock import Clock
from perdure_storage.records import Cause, EventRecord, RunCommit, RunRecord

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, Tracer

SDK = "opentelemetry.sdk.trace"
"""Is loaded by who exports spans: a program, or ``opentelemetry-instrument`` around it."""
TRACED = "traced"
"""Kind of the event that says in which span a run was driven."""

_replace = msgspec.structs.replace
_FLUSH_WITHIN_MS = 2_000


def current_trace() -> str | None:
    """Return the span around what runs here, as W3C's ``traceparent``; None if there is none."""
    if SDK not in sys.modules:
        return None
    carrier: dict[str, str] = {}
    _w3c().inject(carrier)
    return carrier.get("traceparent")


def go_on_in(trace: str) -> None:
    """Have what this context traces from now on be below a span of another process."""
    try:
        # Whether or not the SDK is loaded here yet: the step's module may be what loads it.
        from opentelemetry import context
    except ImportError:
        return  # whoever drives the run has it, this environment has not

    context.attach(_w3c().extract({"traceparent": trace}))


def flush_spans() -> None:
    """Send what was traced here, before a process ends without further ado."""
    if SDK not in sys.modules:
        return
    from opentelemetry import trace

    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(_FLUSH_WITHIN_MS)


def find_traces(clock: Clock) -> Traces | None:
    """Return what traces runs, or None where nobody has set OpenTelemetry up."""
    if SDK not in sys.modules:
        return None
    from importlib.metadata import version

    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        return None  # loaded by whoever, and not set up: nobody would get the spans

    return Traces(trace.get_tracer("perdure", version("perdure")), clock)


class Traces:
    """Spans of the runs of one coordinator. An ``Observer``.

    Args:
        tracer: makes them.
        clock: the time of what is remembered.
    """

    wants_story = True

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock
        self._runs: dict[str, Span] = {}
        self._calls: dict[CallId, Span] = {}
        self._untold: set[str] = set()

    def taken_on(self, run: RunRecord, story: Sequence[EventRecord]) -> None:
        parent = run.policy.trace
        self._runs[run.id] = self._tracer.start_span(
            f"run {run.workflow}",
            context=_w3c().extract({"traceparent": parent}) if parent else _nowhere(),
            links=_links(story),
            attributes={
                "perdure.run.id": run.id,
                "perdure.run.epoch": run.epoch,
                "perdure.workflow.name": run.workflow,
            },
        )
        self._untold.add(run.id)

    def sent(self, call: StepCall) -> StepCall:
        run = self._runs.get(call.id.run_id)
        if run is None:
            return call
        from opentelemetry import trace

        span = self._tracer.start_span(
            f"step {call.names or call.id.step_id}",
            context=trace.set_span_in_context(run, _nowhere()),
            attributes={
                "perdure.run.id": call.id.run_id,
                "perdure.step.id": call.id.step_id,
                "perdure.step.generation": call.id.generation,
                "perdure.step.attempt": call.id.attempt,
                "code.function.name": call.function.partition("@")[0].replace(":", "."),
            },
        )
        self._calls[call.id] = span
        return _replace(call, trace=_traceparent(span))

    def came(self, outcome: Outcome) -> None:
        span = self._calls.pop(outcome.id, None)
        if span is None:
            return
        span.set_attribute("perdure.attempt.outcome", outcome.cause.value)
        if outcome.worker:
            span.set_attribute("perdure.worker", outcome.worker)
        if outcome.started_at is not None:
            span.add_event("perdure.attempt.started", timestamp=_ns(outcome.started_at))
        is_given_back = outcome.cause is Cause.ABANDONED and outcome.started_at is None
        if outcome.cause is not Cause.SUCCEEDED and not is_given_back:
            _fail(span, outcome)
        span.end(None if outcome.finished_at is None else _ns(outcome.finished_at))

    def about_to_commit(self, commits: tuple[RunCommit, ...]) -> tuple[RunCommit, ...]:
        if not self._untold:
            return commits
        return tuple(self._told(commit) for commit in commits)

    def _told(self, commit: RunCommit) -> RunCommit:
        if commit.run_id not in self._untold:
            return commit
        self._untold.discard(commit.run_id)
        detail = {"traceparent": _traceparent(self._runs[commit.run_id])}
        event = EventRecord(kind=TRACED, at=self._clock.now(), detail=detail)
        return _replace(commit, events=(event, *commit.events))

    def written(self, seconds: float) -> None: ...

    def committed(self, commit: RunCommit) -> None:
        span = self._runs.get(commit.run_id)
        if span is None or commit.end is None:
            return
        span.set_attribute("perdure.run.status", commit.end.status.value)
        if commit.end.error is not None:
            from opentelemetry.trace import Status, StatusCode

            span.set_attribute("error.type", commit.end.error.type)
            span.set_status(Status(StatusCode.ERROR, commit.end.error.type))

    def let_go(self, run_id: str) -> None:
        for call in [call for call in self._calls if call.run_id == run_id]:
            self._calls.pop(call).end()
        self._untold.discard(run_id)
        span = self._runs.pop(run_id, None)
        if span is not None:
            span.end()


def _w3c() -> Any:
    """Return what writes and reads ``traceparent``, whatever else a program propagates by."""
    from opentelemetry.trace.propagation import tracecontext

    return tracecontext.TraceContextTextMapPropagator()


def _nowhere() -> Any:
    """Return an empty context: what the driving thread does is no part of any span."""
    from opentelemetry.context import Context

    return Context()


def _links(story: Sequence[EventRecord]) -> list[Link]:
    from opentelemetry import trace

    found = []
    for event in story:
        if event.kind == TRACED:
            there = trace.get_current_span(_w3c().extract(event.detail)).get_span_context()
            found.append(trace.Link(there, {"perdure.link": "driven before"}))
    return found[-1:]


def _traceparent(span: Span) -> str:
    from opentelemetry import trace

    carrier: dict[str, str] = {}
    _w3c().inject(carrier, trace.set_span_in_context(span, _nowhere()))
    return carrier.get("traceparent", "")


def _fail(span: Span, outcome: Outcome) -> None:
    from opentelemetry.trace import Status, StatusCode

    error = outcome.error
    if error is None:
        span.set_status(Status(StatusCode.ERROR, outcome.cause.value))
        return
    span.set_attribute("error.type", error.type)
    span.set_status(Status(StatusCode.ERROR, error.type))
    # As it stands in the store: the worker has masked secrets.
    told = {"exception.type": error.type, "exception.message": error.message}
    span.add_event("exception", {**told, "exception.stacktrace": error.traceback})


def _ns(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
