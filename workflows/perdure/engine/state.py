"""A run in memory, and all the runs of a coordinator: what the decisions are about.

States are mutable and owned by one coordinator; only the decisions change them. They can be
thrown away and built again from rows at any time (``restore.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from heapq import heappush
from itertools import count
from typing import Any

import msgspec

from perdure.calls import CallId
from perdure.engine.again import Again
from perdure.engine.backlog import Backlog
from perdure.engine.commands import Extend, HandOver, Kill, Retire
from perdure.engine.edits import Edits
from perdure.engine.paces import Paces
from perdure.engine.placement import Line, Pool, Seat, Shape, shape_of
from perdure.plan import (
    ActorStep,
    FromInput,
    FromStep,
    ItemsOf,
    Path,
    Plan,
    Reference,
    RefTo,
    StateOf,
    StepOptions,
    StepPlan,
    collect,
    path_text,
    references,
    step_code,
)
from perdure.reference import StepRef
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    Delivery,
    Digest,
    ErrorRecord,
    EventRecord,
    ExpansionRecord,
    Place,
    Progress,
    RunCommit,
    RunEnd,
    RunId,
    RunRecord,
    SaveRecord,
    StepId,
    StepKey,
    StepRecord,
    StoredValue,
    WaitRecord,
)

OPAQUE = "opaque:"
"""Prefix of value digests whose difference proves nothing."""

DONE = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED})


class StepState(msgspec.Struct, eq=False):
    """One step of a run in memory: its newest generation and what it waits for."""

    plan: StepPlan
    options: StepOptions
    position: int
    shape: Shape
    code: str
    id: str = ""
    rank: tuple[int, ...] = ()
    depth: int = 0
    refs: tuple[Reference, ...] = ()
    branches: tuple[str, ...] = ()
    deps: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    consumers: list[StepState] = []
    # Of a map: who takes its items, as a map; and how many such maps are before it.
    followers: list[StepState] = []
    parts: tuple[Path, ...] = ()
    status: StepStatus = StepStatus.PENDING
    generation: int = 1
    attempt: int = 0
    user_errors: int = 0
    losses: int = 0
    out_of_memory: int = 0
    missing: int = 0
    open_consumers: int = 0
    value: StoredValue | None = None
    inputs: tuple[str, ...] = ()
    not_before: datetime | None = None
    ready_at: datetime | None = None
    reason: str = ""
    rebuilt: int = 0
    unavailable: int = 0
    candidates: tuple[StepRecord, ...] = ()
    # Of a step that gave a graph: who answers for it, and all that is in the last link.
    answer: str = ""
    members: tuple[str, ...] = ()
    # Of a map that has expanded: what its items are.
    items: tuple[StepRef, ...] | None = None
    started_at: datetime | None = None
    worker: str = ""
    # Of its attempt: when it was started here, and how far it said that it was.
    begun_at: datetime | None = None
    progress: Progress | None = None
    # Of a step in such a graph: whom it answers for, and who waits for the graph.
    answers: StepState | None = None
    below: StepState | None = None
    given: StoredValue | None = None
    # Of a step that waits for a time or a message: for which.
    wait: WaitRecord | None = None
    # Of a step in a plan with branches: who refers to it, and whether it is to run at all. Of
    # one that has the value of a branch: which one.
    users: list[StepState] = []
    wanted: bool = True
    chosen: int | None = None
    # Of a call that changed an actor's state: that it did, under which name its process knows
    # this, and what was kept of the state. Of a step that was given actors: the last in its
    # graph that concerns each, and what the states are after it. A lost result changes nothing.
    applied: bool = False
    at: str = ""
    states: dict[str, StoredValue] = {}
    lasts: dict[str, str] = {}
    # Cancelled because nobody needs it: others do without its value.
    unneeded: bool = False

    def __post_init__(self) -> None:
        plan = self.plan
        self.id, self.branches, self.rank = plan.id, plan.branches, (self.position,)
        self.refs = refs = tuple(references(plan))
        if refs or plan.after:
            needed = [r.step for r in refs[: 1 if plan.branches else None] if type(r) is FromStep]
            self.deps = tuple(dict.fromkeys([*needed, *plan.after]))
            self.opens = tuple(dict.fromkeys(r.step for r in refs if type(r) is ItemsOf))

    @property
    def is_done(self) -> bool:
        """Say whether consumers may count on it."""
        return self.status in DONE or self.unneeded

    @property
    def is_open(self) -> bool:
        """Say whether those that take its items may count on it."""
        return self.items is not None or self.is_done

    @property
    def has_value(self) -> bool:
        """Say whether its bytes are somewhere, as far as is known."""
        return self.value is not None and self.value.place is not Place.NONE

    def open_generation(self, reason: str) -> None:
        """Begin a new life: nothing of the old one counts, budgets are fresh."""
        self.generation += 1
        self.status = StepStatus.PENDING
        self.attempt = self.user_errors = self.losses = self.out_of_memory = 0
        self.value = None
        self.answer, self.members, self.items = "", (), None
        self.not_before = None
        self.wait = None
        self.chosen = None
        self.unneeded = False
        if self.plan.actor is None:  # a call's effect stands, though its result is gone
            self.states, self.lasts = {}, {}
        self.reason = reason


class Race:
    """A step that waits for the first of some others to end.

    Attributes:
        step: who waits.
        left: how many more have to end, at the least, before it can be over.
    """

    __slots__ = ("left", "step")

    def __init__(self, step: StepState) -> None:
        self.step = step
        self.left = 0


class RunState:
    """One run in memory. Changed by ``decide`` only.

    Attributes:
        ready: heaps of (rank, generation, step id) by line: what could start now.
        delayed: heap of (not_before, position, step id): retries that wait.
        waits: steps that wait for a time or a message, in the order in which they began to.
        deadlines: heap of (deadline, position, step id): waits that end by themselves.
        unclaimed: names of messages that recorded waits ask for which no step makes any more.
        heard: number of the newest message that was looked at.
        unheard: whether messages that were sent before may be for a wait.
        running: attempts in flight.
        unfinished: number of steps that are not done.
        failure: the first final failure, which ends the run.
        ending: how the run will end once nothing runs any more; set by cancel and deadline.
        handed_back: it is left to another host, which may have what is missing here; or to any,
            as this coordinator ends.
        lacked_by: tokens of coordinators that left it, since code or environment lacks something.
        suspects: steps that were running when an owner died, for a run that kills its owners.
        one_at_a_time: such a run is driven with care.
        executor: name of the executor that runs its steps.
        number: its place in the order in which runs have their turn to start a step.
        paces: how long its functions take, as far as that has been seen in it.
        outputs: steps of which the result is made; their values are always stored.
        races: who waits for the first of some steps to end, by each of these.
        arrivals: of these, whom a step that has just ended concerns.
        decided: waits that ended what they left, by the step that waited.
        ended: rows by which steps were ended before that nobody needed, of those not seen yet.
        ordered: whether the order of steps beyond their values matters to branches.
        skipped: rows by which steps were skipped before, of steps that are not wanted so far.
        grown: rows of graphs that steps gave in earlier lives, by the step that waited.
        begun: while the run is loaded, the newest generation that steps had begun: one that has
            not ended goes on.
        taken: from then on, the newest that they had begun: what comes into a graph now begins
            another one.
        placed: ids of the graphs that a step gives in its life of now, where older rows are left.
        again: which steps run again whatever the run that this one was made from had.
        donated: rows of such graphs of the run that this one was made from, by their name.
        dormant: graphs that are recorded and not part of the state, by the step that gave them:
            it is done, and nobody has asked for their steps so far.
        readers: who reads what in those graphs from outside of them, once somebody has asked.
        prints_away: by who gave them, the fingerprints in those that somebody has asked about.
        extensions: what executors have to know of graphs that were recorded before.
        answered: steps that wait for another one's value, which has come.
        reopened: steps that run again as they have to say how they left an actor, or whose graph
            has come back without their value: whoever moves others on moves these as well.
        edits: of the code since the plans before, for reasons that name what changed.
        noted: by function, how the versions of installed packages differ that were noted when
            what may be reused ran.
        live: after which call the live instance of an actor is, as far as is known.
        saves: what steps have saved while they ran, oldest first, by step.
        gone: bytes that were found missing or damaged, and have not been made again.
        seen: blobs that were written, or found whole, since the run was taken on.
    """

    def __init__(self, record: RunRecord, plan: Plan, fingerprints: Mapping[str, str]) -> None:
        self.id: RunId = record.id
        self.record = record
        self.plan = plan
        self.fingerprints: dict[str, str] = {}
        self.steps: dict[str, StepState] = {}
        self.unfinished = 0
        self.positions = 0
        self.grown: dict[str, list[StepRecord]] = {}
        self.skipped: dict[str, StepRecord] = {}
        self.ordered = False
        self.races: dict[str, list[Race]] = {}
        self.arrivals: list[Race] = []
        self.decided: dict[str, WaitRecord] = {}
        self.ended: dict[str, StepRecord] = {}
        self.begun: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.placed: dict[str, set[str]] = {}
        self.again = Again(plan.takeover)
        self.again.within(plan)
        self.donated: dict[str, list[StepRecord]] = {}
        self.answered: list[StepState] = []
        self.reopened: list[StepState] = []
        self.edits = Edits()
        self.noted: Mapping[str, str] = {}
        self.gone: set[Digest] = set()
        self.seen: set[Digest] = set()
        self.live: dict[str, str] = {}
        self.saves: dict[str, list[SaveRecord]] = {}
        self.readers: dict[str, list[tuple[str, StepPlan]]] | None = None
        self.prints_away: dict[str, dict[str, str]] = {}
        self.extensions: list[Extend] = []
        self.dormant: dict[str, ExpansionRecord] = {}
        self.ready: dict[Line, list[tuple[tuple[int, ...], int, str]]] = {}
        self.delayed: list[tuple[datetime, int, str]] = []
        self.waits: dict[str, StepState] = {}
        self.deadlines: list[tuple[datetime, int, str]] = []
        self.unclaimed: set[str] = set()
        self.heard = 0
        self.unheard = False
        self.running: dict[CallId, StepState] = {}
        self.failure: ErrorRecord | None = None
        self.ending: RunEnd | None = None
        self.paused = record.pause_requested
        self.handed_back = False
        self.lacked_by: set[str] = set()
        self.suspects: tuple[str, ...] = ()
        self.one_at_a_time = False
        self.executor = record.policy.executor or "processes"
        self.number = 0
        self.paces = Paces()
        self.outputs = output_steps(plan)
        self.outbox = Outbox()
        add_steps(self, plan, fingerprints)

    def enqueue(self, step: StepState) -> None:
        """Let a ready step wait for its turn to start."""
        heap = self.ready.setdefault(line_of(self, step), [])
        heappush(heap, (step.rank, step.generation, step.id))

    def arrive(self, step: StepState) -> None:
        """Tell those who wait for the first of some steps that this one has ended."""
        self.arrivals += self.races.get(step.id, ())

    def end_wait(self, step: StepState) -> None:
        """Let a step wait no more."""
        self.waits.pop(step.id, None)
        step.wait = None

    @property
    def is_stopping(self) -> bool:
        """Say whether no new step may start."""
        return (
            self.ending is not None
            or self.paused
            or self.handed_back
            or (self.failure is not None and self.record.policy.on_failure == "stop")
        )

    def stores(self, step: StepState) -> bool:
        """Say whether the step's value is kept: a result's values always are."""
        return (
            step.options.checkpoint
            or step.id in self.outputs
            or (step.answers is not None and self.stores(step.answers))
            or any(has_chosen(user, step) for user in step.users)
        )

    def input_digests(self, step: StepState) -> tuple[str, ...]:
        """Return the value digests of what the step would consume now, in reference order.

        Of branches only that of the chosen one counts.
        """
        if step.branches:
            counts = (0, -1 if step.chosen is None else step.chosen + 1)
            return tuple(self._digest(r) if n in counts else "" for n, r in enumerate(step.refs))
        return tuple(map(self._digest, step.refs))

    def count_missing(self, step_ids: Iterable[str]) -> None:
        """Count what these steps wait for, and who waits for them."""
        for step_id in step_ids:
            step = self.steps[step_id]
            step.missing = self.missing_of(step)
            step.open_consumers = len([each for each in step.consumers if not each.is_done])

    def missing_of(self, step: StepState) -> int:
        """Count what a step waits for now."""
        if not step.deps and not step.opens:
            return 0
        steps = self.steps
        closed = [opened for opened in step.opens if not steps[opened].is_open]
        undone = [dep for dep in step.deps if not steps[dep].is_done]
        return len(closed) + len(undone)

    def _digest(self, ref: Reference) -> str:
        if isinstance(ref, RefTo):
            # Its value is not known yet: whether it is the same step, its fingerprint says.
            return f"ref:{ref.step}:{self.fingerprints[ref.step]}"
        if isinstance(ref, StateOf):
            return mark_of(position(self, ref), ref.actor)
        if isinstance(ref, FromInput):
            value: StoredValue | None = self.record.inputs[ref.name]
        else:
            step = self.steps[ref.step]
            if step.plan.actor is not None and step.plan.actor.role == "new":
                # With it what its methods reach through `self`: they have no other input for that.
                return f"actor:{step.id}:{step.code}"
            value = step.value
        return part_digest(value, ref.path) if value is not None else ""


class Outbox:
    """Rows that the next commit of the run is to carry."""

    __slots__ = (
        "attempts",
        "deliveries",
        "end",
        "events",
        "expansions",
        "lost",
        "spent",
        "steps",
        "superseded",
        "waits",
    )

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []
        self.expansions: list[ExpansionRecord] = []
        self.waits: list[WaitRecord] = []
        self.deliveries: list[Delivery] = []
        self.attempts: dict[CallId, AttemptRecord] = {}
        self.events: list[EventRecord] = []
        self.lost: list[StepKey] = []
        self.superseded: list[StepKey] = []
        self.spent: list[StepId] = []
        self.end: RunEnd | None = None

    def lose(self, key: StepKey) -> None:
        """Take a row out of force whose value is gone; one that is not written yet is not."""
        if not self._withdraw(key):
            self.lost.append(key)

    def supersede(self, key: StepKey) -> None:
        """Take a row out of force that no longer counts; one that is not written yet is not."""
        if not self._withdraw(key):
            self.superseded.append(key)

    def _withdraw(self, key: StepKey) -> bool:
        kept = [r for r in self.steps if (r.step_id, r.generation) != (key.step_id, key.generation)]
        is_here = len(kept) < len(self.steps)
        self.steps = kept
        return is_here

    def take(self, run: RunState) -> RunCommit | None:
        """Empty the box into a commit, or return None if there is nothing to write."""
        written = (self.steps, self.attempts, self.events, self.lost, self.superseded)
        if self.end is None and not any(written) and not (self.expansions or self.waits):
            return None
        owner = run.record.owner
        commit = RunCommit(
            run_id=run.id,
            owner=owner.token if owner else "",
            epoch=run.record.epoch,
            steps=tuple(self.steps),
            expansions=tuple(self.expansions),
            waits=tuple(self.waits),
            deliveries=tuple(self.deliveries),
            attempts=tuple(self.attempts.values()),
            events=tuple(self.events),
            lost=tuple(self.lost),
            superseded=tuple(self.superseded),
            spent=tuple(self.spent),
            end=self.end,
        )
        self.__init__()  # type: ignore[misc]
        return commit


class EngineState:
    """All runs that one coordinator drives, and what is free on its executors.

    Attributes:
        runs: in the order in which they were taken on.
        backlog: those of which something is ready, as of the last look at what may start.
        pools: free resources by executor name.
        paces: how long functions take, in any run, as far as that has been seen.
        timers: heap of (time, run id): when a run next has something to do by itself.
        orphans: attempts of runs that are no longer ours; they hold resources until they end.
        in_making: calls of constructors that make another instance of a pool, by executor and what
            they hold. They are no attempts of a step.
        encode: stores what the engine itself makes a value of: a ``Failure``, the end of a race.
        serves: runs are driven that were left to whoever has what they need, as by ``perdure up``:
            one that turns out to need more is left to another host, instead of failing.
        token: of this coordinator.
        place: where it is, as people are told.
        elsewhere: tokens of the others that take runs on, as far as was looked for.
    """

    def __init__(
        self,
        pools: dict[str, Pool],
        encode: Callable[[Any], StoredValue],
        *,
        serves: bool = False,
        token: str = "",
        place: str = "",
    ) -> None:
        self.serves = serves
        self.token = token
        self.place = place
        self.elsewhere: frozenset[str] = frozenset()
        self.runs: dict[str, RunState] = {}
        self._numbers = count(1)
        self.backlog = Backlog()
        self.pools = pools
        self.paces = Paces()
        self.timers: list[tuple[datetime, str]] = []
        self.orphans: dict[CallId, tuple[str, Shape]] = {}
        self.in_making: dict[CallId, tuple[str, Shape]] = {}
        self.encode = encode
        self.touched: dict[str, None] = {}
        self.extensions: list[Extend] = []
        self.kills: list[Kill] = []
        self.hand_overs: list[HandOver] = []
        self.quarantine: list[Digest] = []
        self.forget: list[tuple[str, Digest]] = []
        self.dropped: list[str] = []

    @property
    def unheard(self) -> list[RunState]:
        """Return the runs for whose waits messages may be there."""
        return [run for run in self.runs.values() if run.unheard]

    @property
    def is_empty(self) -> bool:
        """Say whether no run is here, and nothing is left to be done of one that was."""
        left = (
            self.touched,
            self.extensions,
            self.kills,
            self.hand_overs,
            self.quarantine,
            self.forget,
        )
        return not (self.runs or self.orphans or self.in_making or self.dropped or any(left))

    def next_number(self) -> int:
        """Return the number of a run that has its turn after all others."""
        return next(self._numbers)

    def made_for(self, run_id: str) -> tuple[CallId, ...]:
        """Return the calls that make instances of a run's pools now."""
        return tuple(call for call in self.in_making if call.run_id == run_id)

    def end_run(self, run_id: str) -> None:
        """Forget a run; processes of its actors hold nothing any more, once they are idle."""
        run = self.runs.pop(run_id)
        self.backlog.leave(run_id)
        if unneeded := self.made_for(run_id):
            self.kills.append(Kill(run.executor, unneeded, Cause.ABANDONED))
        self.pools[run.executor].end_run(run_id)

    def take_left(self) -> list[Retire]:
        """Return the processes of actors to end whose runs are no longer here."""
        left = {name: pool.take_left() for name, pool in self.pools.items()}
        return [Retire(name, instances) for name, instances in left.items() if instances]

    def next_wakeup(self) -> datetime | None:
        """Return when something falls due without any event, or None."""
        return self.timers[0][0] if self.timers else None


MANY = 1 << 30
"""In so many processes at once nothing is read."""


def line_of(run: RunState, step: StepState) -> Line:
    """Return in which queue a step waits for its turn to start."""
    seat = None if step.plan.actor is None else _seat_of(run, step.plan.actor)
    return Line(step.shape, seat, None if step.below is None else _stage_of(step, step.below))


def _seat_of(run: RunState, use: ActorStep) -> Seat:
    """Return in which processes of its actor a call may be made: what is written, in the first."""
    most = use.pool if use.state == "rebuild" else MANY if use.role == "read" else 1
    return Seat(run.id, use.actor, most)


def _stage_of(step: StepState, root: StepState) -> tuple[str, int] | None:
    """Return of which stage of a pipeline a step is an item.

    Not of which map: where many small pipelines go on at once they have the same stages.
    """
    if root.items is None or not (root.followers or root.opens):
        return None
    return step.plan.function, root.depth


def position(run: RunState, turn: StateOf) -> StepState:
    """Return the call that left an actor in the state in which a step finds it in its turn.

    What failed, was skipped or cancelled, or only read, left it as it was before.
    """
    *_, found = _way_back(run, turn)
    return found


def unfinished_before(run: RunState, turn: StateOf) -> StepState | None:
    """Return a step before a turn that is not done yet, and may say how an actor is then.

    That is so where what lies between was skipped or cancelled, or is done again.
    """
    return next(
        (
            step
            for step in _way_back(run, turn)
            if step.status in _UNDER_WAY
            and not step.applied
            and kept_state(step, turn.actor) is None
        ),
        None,
    )


_UNDER_WAY = (StepStatus.PENDING, StepStatus.READY, StepStatus.RUNNING, StepStatus.WAITING)


def _way_back(run: RunState, turn: StateOf) -> Iterator[StepState]:
    """Yield what comes before a step in the order of an actor, back to what left it as it is."""
    step = run.steps[turn.step]
    yield step
    while not step.applied and kept_state(step, turn.actor) is None:
        last = step.lasts.get(turn.actor)
        before = last if last is not None and last in run.steps else before_of(step, turn.actor)
        if before is None:
            return  # the constructor
        step = run.steps[before]
        yield step


def kept_state(step: StepState, actor: str) -> StoredValue | None:
    """Return the snapshot of an actor that is kept with a step, if there is one."""
    state = step.states.get(actor)
    return None if state is None or state.place is Place.NONE else state


def before_of(step: StepState, actor: str) -> str | None:
    """Return what comes before a step in the order of an actor; None before the constructor."""
    return next((turn.step for turn in step.plan.turns if turn.actor == actor), None)


def mark_of(step: StepState, actor: str) -> str:
    """Return what tells the state after a call from others: its digest, or how it came about.

    A snapshot that is lost has been there: what rests on it rests on the same state.
    """
    state = step.states.get(actor)
    if state is not None and state.value_digest:
        return f"state:{state.value_digest}"
    text = "\0".join((step.plan.own, *step.inputs))
    return f"at:{blake2b(text.encode(), digest_size=16).hexdigest()}"


def has_chosen(select: StepState, branch: StepState) -> bool:
    """Say whether a step has the value of this branch."""
    return select.chosen is not None and select.refs[select.chosen + 1] == FromStep(branch.id)


def starts_chain(step: StepState) -> bool:
    """Say whether a step that answers for another one waits for its own graph all the same.

    It does if it takes failures as values: those of its graph are its own to take.
    """
    return step.answers is not None and step.options.catch


def part_digest(value: StoredValue, path: Path) -> str:
    """Return the value digest of a projection.

    Where the part's own digest was not recorded the answer is opaque: equal ones are equal, but
    different ones prove nothing.
    """
    if not path:
        return value.value_digest
    text = path_text(path)
    return value.parts.get(text) or f"{OPAQUE}{value.value_digest}{text}"


def add_steps(
    run: RunState,
    plan: Plan,
    fingerprints: Mapping[str, str],
    *,
    besides: Container[str] = (),
) -> list[StepState]:
    """Add the steps of a plan to the run, but for those that stay as they are; return the new."""
    shapes = {
        (index, is_async): shape_of(options, is_async=is_async)
        for index, options in enumerate(plan.options)
        for is_async in (False, True)
    }
    added = []
    for step in plan.steps:
        if step.id in besides:
            continue
        function = plan.functions[step.function]
        shape = shapes[step.options, function.is_async]
        options = plan.options[step.options]
        code = step_code(function.counts_as, step.passed)
        state = StepState(step, options, run.positions, shape, code)
        run.positions += 1
        run.steps[step.id] = state
        added.append(state)
    run.unfinished += len(added)
    run.fingerprints.update(fingerprints)
    for state in added:
        for dep in state.deps:
            run.steps[dep].consumers.append(state)
        for opened in state.opens:
            run.steps[opened].followers.append(state)
            state.depth = max(state.depth, run.steps[opened].depth + 1)
    _collect_parts(plan, run.steps)
    if plan.takeover is not None:
        for step_id, constant in plan.takeover.given.items():
            run.steps[step_id].given = plan.constants[constant]
    return added


def _collect_parts(plan: Plan, steps: Mapping[str, StepState]) -> None:
    parts: dict[str, dict[str, Path]] = {}
    output: list[Reference] = []
    collect([plan.output], output)
    for ref in (*output, *(ref for step in plan.steps for ref in steps[step.id].refs)):
        if isinstance(ref, FromStep) and ref.path:
            parts.setdefault(ref.step, {})[path_text(ref.path)] = ref.path
    for step_id, paths in parts.items():
        # Of a step outside of the graph others may want parts too.
        steps[step_id].parts = tuple(dict.fromkeys((*steps[step_id].parts, *paths.values())))


def output_steps(plan: Plan) -> frozenset[str]:
    """Return the ids of the steps of which the run's result is made."""
    found: list[Reference] = []
    collect([plan.output], found)
    return frozenset(ref.step for ref in found if isinstance(ref, FromStep))
