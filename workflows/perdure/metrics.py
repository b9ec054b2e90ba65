"""What a process that serves a store counts, for Prometheus; needs the extra ``metrics``.

Counters are of what this process drives, and begin anew with it; gauges are of the whole store,
asked for when somebody scrapes. Labels take few values: statuses, outcomes, queues, never the name
of a run or of a step.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from perdure.calls import Outcome, StepCall
from perdure.engine.ownership import is_seen_dead
from perdure_storage.counting import count_live
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.records import EventRecord, RunCommit, RunRecord

if TYPE_CHECKING:
    from prometheus_client import Metric

    from perdure.runtime import Runtime

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COMMITS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ATTEMPTS = (0.001, 0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
_MOST_QUEUES = 100
"""More queues than these are counted as one: a label with ten thousand values is no label."""
_OTHERS = "(others)"


class Metrics:
    """Counts what one process drives. An ``Observer``; scraped from any thread.

    Args:
        runtime: the opened store, asked for what is live when somebody scrapes.
    """

    wants_story = False

    def __init__(self, runtime: Runtime) -> None:
        self.registry = CollectorRegistry()
        self._runs = self._counter("runs", "Runs that ended here, by status.", "status")
        self._taken_over = self._counter("takeovers", "Runs taken over from owners that died.")
        self._attempts = self._counter("attempts", "Attempts that ended, by outcome.", "outcome")
        self._steps = self._counter("steps", "Steps committed, by status.", "status")
        self._bytes = self._counter("value_bytes", "Bytes of committed values, by place.", "place")
        self._took = Histogram(
            "perdure_attempt_seconds",
            "Run time of attempts.",
            buckets=_ATTEMPTS,
            registry=self.registry,
        )
        self._commit = Histogram(
            "perdure_commit_seconds",
            "Time that the store took for a commit.",
            buckets=_COMMITS,
            registry=self.registry,
        )
        self.registry.register(_OfStore(runtime))

    def _counter(self, name: str, said: str, *labels: str) -> Counter:
        return Counter(f"perdure_{name}", said, labels, registry=self.registry)

    def text(self) -> bytes:
        """Return everything, as Prometheus reads it. Raises StoreError."""
        return generate_latest(self.registry)

    # --- as an observer -----------------------------------------------------------------------
    def taken_on(self, run: RunRecord, story: Sequence[EventRecord]) -> None:
        if run.takeovers:
            self._taken_over.inc()

    def sent(self, call: StepCall) -> StepCall:
        return call

    def came(self, outcome: Outcome) -> None:
        self._attempts.labels(outcome.cause.value.replace(" ", "_")).inc()
        if outcome.started_at is not None and outcome.finished_at is not None:
            took = (outcome.finished_at - outcome.started_at).total_seconds()
            self._took.observe(max(0.0, took))

    def about_to_commit(self, commits: tuple[RunCommit, ...]) -> tuple[RunCommit, ...]:
        return commits

    def written(self, seconds: float) -> None:
        self._commit.observe(seconds)

    def committed(self, commit: RunCommit) -> None:
        for step in commit.steps:
            self._steps.labels(step.status.value.lower()).inc()
            if step.value is not None:
                self._bytes.labels(step.value.place.value).inc(step.value.size_bytes)
        if commit.end is not None:
            self._runs.labels(commit.end.status.value.lower()).inc()

    def let_go(self, run_id: str) -> None: ...


class _OfStore:
    """Gauges of the store, asked when somebody scrapes. A collector of prometheus_client's."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def describe(self) -> list[Metric]:
        """Return nothing: whoever registers a collector would have it collect for this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        found = count_live(self._runtime.rows)
        by_status: Tally[RunStatus] = Tally(dict.fromkeys(RUN_LIVE, 0))
        queued: Tally[str] = Tally()
        for (status, queue), count in found.items():
            by_status[status] += count
            if status is RunStatus.QUEUED:
                queued[queue or ""] += count
        live = GaugeMetricFamily(
            "perdure_live_runs", "Runs that are not over, by status.", labels=["status"]
        )
        for status, count in sorted(by_status.items()):
            live.add_metric([status.value.lower()], count)
        yield live
        depth = GaugeMetricFamily(
            "perdure_queue_depth", "Runs that wait to be taken on, by queue.", labels=["queue"]
        )
        for queue, count in _few(queued).items():
            depth.add_metric([queue], count)
        yield depth
        yield from self._processes()

    def _processes(self) -> Iterator[Metric]:
        store = self._runtime.store
        alive = [o for o, lives in store.coordinators() if lives and not is_seen_dead(o)]
        workers = sum(len(store.workers_of(owner.token)) for owner in alive)
        yield GaugeMetricFamily(
            "perdure_coordinators", "Processes that drive runs.", value=len(alive)
        )
        yield GaugeMetricFamily("perdure_workers", "Processes that run steps.", value=workers)


def _few(queued: Tally[str]) -> dict[str, int]:
    largest = dict(queued.most_common(_MOST_QUEUES))
    rest = queued.total() - sum(largest.values())
    return {**(largest or {"": 0}), **({_OTHERS: rest} if rest else {})}
