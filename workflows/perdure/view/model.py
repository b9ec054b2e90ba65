"""What is shown of runs, as plain data: the same for tables, ``--json``, pages and notebooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

Preview = dict[str, Any]
"""What a value looked like when it was stored: ``type``, ``repr``, and what else makes sense."""


class ErrorView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it was recorded; nothing is unpickled to show it.

    ``item`` says of which item of a map: its index, and what it looked like.
    """

    type: str
    message: str
    cause: str = ""
    step: str | None = None
    item: str = ""
    traceback: str = ""


class ProgressView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far an attempt said that it was, last; ``item`` of a step that takes several."""

    done: float
    total: float | None = None
    message: str = ""
    at: datetime
    item: str = ""


class AttemptView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try of a step.

    Attributes:
        cause: how it ended; None if it has not.
        gave: what it gave in place of a value that is not there yet, or never came: its graph.
    """

    step: str
    generation: int
    attempt: int
    cause: str | None = None
    gave: str = ""
    worker: str = ""
    started_at: datetime | None = None
    duration_s: float | None = None
    peak_memory_bytes: int | None = None
    progress: ProgressView | None = None
    error: ErrorView | None = None


class StepView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step.

    Attributes:
        standing: its status as people say it, see ``standing_of``.
        name: what many calls of one task have in common.
        waited_s: from when nothing it needs was missing to the beginning of its first attempt.
        worker: who ran its last attempt: host and process.
        peak_memory_bytes: what its last attempt held at most.
        progress: how far its last attempt said that it was.
        saved: the places of what it has saved, which its next attempt goes on from.
        preview: what its value looked like when it was committed.
        left: whether its run has ended without an end of it.
    """

    id: str
    status: str
    standing: str = ""
    name: str = ""
    attempts: int = 0
    waited_s: float | None = None
    duration_s: float | None = None
    worker: str = ""
    peak_memory_bytes: int | None = None
    progress: ProgressView | None = None
    saved: list[int] = []
    preview: Preview | None = None
    reason: str = ""
    left: bool = False
    error: ErrorView | None = None


class GroupView(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one name, counted; ``duration_s`` is the median of those that ended."""

    name: str
    total: int
    done: int
    failed: int
    running: int
    waiting: int
    duration_s: float | None


class RunView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run; ``result`` comes with ``run``, ``steps`` and what is about them with ``show``.

    Attributes:
        schedule: which made it, and ``nominal`` for which time.
        by_hand: whether that was asked for, and is no time of the schedule.
        trigger: which made it, of which ``arrivals``, by key; ``led_by``: the triggers that led to
            that one after the other.
        unplanned: why it has no plan yet.
        waits_for_host: why no host that is up takes it on.
        waits_in_line: why its queue, or its delay, keeps it from going on; where it is shown alone.
        driver: who drives it now: process and host; None if nobody does.
        next: what to type to go on with it, where nobody drives it.
    """

    id: str
    workflow: str
    status: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    origin: str | None = None
    inputs: dict[str, Preview | None] = {}
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    parent: str | None = None
    forked_from: str | None = None
    schedule: str | None = None
    nominal: datetime | None = None
    by_hand: bool = False
    trigger: str | None = None
    arrivals: list[str] = []
    led_by: list[str] = []
    unplanned: str = ""
    queue: str | None = None
    limit_key: str = ""
    priority: int = 0
    waits_for_host: str = ""
    waits_in_line: str = ""
    deadline: datetime | None = None
    driver: str | None = None
    next: str = ""
    done: int | None = None
    running: int | None = None
    failed: int | None = None
    waiting: int | None = None
    total: int | None = None
    error: ErrorView | None = None
    result: Any = None
    steps: list[StepView] = []


class InputView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value that a step takes.

    Attributes:
        name: the argument, ``[0]`` or ``rows``, with the place inside it.
        of: where it comes from: ``step load``, ``parameter k``, ``constant``, ``secret TOKEN``.
        part: which part of that value is taken, ``["rows"]``; empty if all of it.
        preview: what that value looked like when it was stored.
    """

    name: str
    of: str
    part: str = ""
    preview: Preview | None = None


class AskedView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one attempt may hold, and how failure is met."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    resources: dict[str, float] = {}
    timeout_s: float | None = None
    retries: int = 0


class GenerationView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One life of a step's result; ``current`` is the one that counts."""

    generation: int
    status: str
    current: bool
    reason: str = ""
    preview: Preview | None = None


class DetailView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step.

    Attributes:
        task: its function, ``module.name``, and ``where`` that was written.
        asked: what it asks for; ``peak_memory_bytes`` is what it held at most, over all attempts.
        generations: every life of its result, if there were several.
        fingerprint: equal ones mean equal results; ``code`` is the digest of the code it ran.
    """

    run: str
    id: str
    status: str
    generation: int
    task: str
    where: str = ""
    why: str = ""
    duration_s: float | None = None
    asked: AskedView = AskedView()
    peak_memory_bytes: int | None = None
    code: str = ""
    fingerprint: str = ""
    inputs: list[InputView] = []
    preview: Preview | None = None
    generations: list[GenerationView] = []
    attempts: list[AttemptView] = []
    error: ErrorView | None = None


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the picture.

    Attributes:
        id: the step's, or that of the first of several that are alike.
        title: what it is called: the step's id, without that of the step that it is inside of;
            or ``load[*]`` of several.
        kind: task, map, graph (it gave one in place of its value), loop, choice, wait, or alike.
        count: how many steps it stands for, itself not counted; 0: for itself only.
        statuses: of these, or of itself, how many stand where.
        status: where it stands as a whole.
        duration_s: from its start to its end, with what it waited for; of several, of all of them.
        inside: the graph that it gave, if that is small.
    """

    id: str
    title: str
    kind: str
    status: str
    count: int = 0
    statuses: dict[str, int] = {}
    duration_s: float | None = None
    inside: GraphView | None = None


class EdgeView(msgspec.Struct, frozen=True, kw_only=True):
    """An arrow: ``kind`` is value, order (without a value) or branch, which ``label`` names."""

    source: str
    target: str
    kind: str = "value"
    label: str = ""


class GraphView(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes in the order of the plan, and the arrows between them.

    Attributes:
        left_out: how many nodes there would be, where they are too many to be drawn.
        arrows_left_out: how many arrows are not there, where they are too many.
    """

    nodes: tuple[NodeView, ...] = ()
    edges: tuple[EdgeView, ...] = ()
    left_out: int = 0
    arrows_left_out: int = 0


CUT_OFF = "cut off"
"""What a stretch is of an attempt whose end nobody saw."""


class SpanView(msgspec.Struct, frozen=True):
    """A stretch of time of one step.

    Attributes:
        kind: ``queued`` (it could begin, and did not yet), ``waited`` (for a time, a message, or
            the graph that it gave), or, of an attempt, how that ended.
        start, end: in seconds since the beginning of the timeline; the end of an attempt that was
            cut off is when that was found out: it ended at some time before.
    """

    step: str
    kind: str
    start: float
    end: float
    attempt: int = 0
    worker: str = ""


class TimelineView(msgspec.Struct, frozen=True, kw_only=True):
    """All stretches, step by step in the order in which the steps first did something."""

    begin: datetime
    seconds: float
    spans: tuple[SpanView, ...] = ()


class DriverView(msgspec.Struct, frozen=True, kw_only=True):
    """Who took a run on, and when."""

    host: str
    pid: int
    at: datetime
    took_over: bool = False


class AncestorView(msgspec.Struct, frozen=True, kw_only=True):
    """A run that this one was made from, or that started it.

    Attributes:
        link: how they belong together: ``made from``, ``takes steps over from``, ``started by``.
        status: where it stands now; "" if it was deleted.
    """

    id: str
    link: str
    status: str = ""


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a run's story."""

    at: datetime
    kind: str
    step: str = ""
    detail: dict[str, Any] = {}


class FunctionView(msgspec.Struct, frozen=True, kw_only=True):
    """A function of the user's that the run calls: where it was written, and its code digest."""

    name: str
    where: str
    code: str


class ReportView(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one time.

    Attributes:
        at: when it was looked at.
        details: of the steps that are told of in full, in order of interest.
        untold: how many of each name are not.
        logs: the last that steps printed, by step id.
        drivers: who drove it, oldest first.
        ancestors: the runs that it comes from, nearest first.
        functions: the user's functions that it calls.
        sources: texts of the user's modules as they were recorded, by name.
        packages: versions of installed packages that its code names.
        made_with: versions of Python and of perdure, and the machine, when its plan was made.
        policy: how it is driven.
    """

    run: RunView
    at: datetime
    graph: GraphView
    timeline: TimelineView | None = None
    details: tuple[DetailView, ...] = ()
    untold: dict[str, int] = {}
    logs: dict[str, str] = {}
    drivers: tuple[DriverView, ...] = ()
    ancestors: tuple[AncestorView, ...] = ()
    events: tuple[EventView, ...] = ()
    functions: tuple[FunctionView, ...] = ()
    sources: dict[str, str] = {}
    packages: dict[str, str] = {}
    made_with: dict[str, str] = {}
    policy: dict[str, str] = {}


class ActiveRunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run among those that go on.

    Attributes:
        done, running, failed, total: steps; None where they are not looked at: while it has no
            plan, and when it has ended.
        steps: those that have been running for longest, longest first.
        step_s: how long the first of them has been running.
        since: when it began, or, of one that has not begun, when it was made; of one that has
            ended, when it ended.
        age_s: how long that is ago.
        driver: who drives it, process and host; "" if nobody does.
        waits: what it waits for, where all of it waits.
    """

    id: str
    workflow: str
    status: str
    done: int | None = None
    running: int | None = None
    failed: int | None = None
    total: int | None = None
    steps: tuple[str, ...] = ()
    step_s: float | None = None
    since: datetime
    age_s: float
    driver: str = ""
    waits: str = ""


class CoordinatorView(msgspec.Struct, frozen=True, kw_only=True):
    """A process that drives runs.

    Attributes:
        serves: takes on any run that nobody drives, as ``perdure up`` does.
        workers: how many worker processes it has.
        runs: how many of the runs that are shown it drives.
    """

    host: str
    pid: int
    serves: bool
    workers: int
    runs: int


class ActivityView(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on in a store at one time.

    Attributes:
        runs: those that go on, those that run before those that wait, and a few that have ended.
        are_all: whether no run that goes on is left out.
        coordinators: those that are alive.
    """

    at: datetime
    runs: tuple[ActiveRunView, ...] = ()
    are_all: bool = True
    coordinators: tuple[CoordinatorView, ...] = ()
