"""Which ready steps start now, and the calls that start them."""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, NamedTuple

import msgspec

from perdure.calls import (
    ActorCall,
    CallId,
    Replay,
    StepCall,
    encode_items,
    input_key,
    items_key,
    step_key,
)
from perdure.engine.actors import is_live, keeps_state, way_to
from perdure.engine.backlog import Want
from perdure.engine.commands import Dispatch, Retire
from perdure.engine.matching import match_name
from perdure.engine.paces import MOST_UNSEEN
from perdure.engine.placement import (
    NOTHING,
    PATIENCE,
    Choice,
    Line,
    Pool,
    Waiting,
    choose,
    is_impatient,
    make_room,
)
from perdure.engine.saves import saves_for
from perdure.engine.state import EngineState, RunState, StepState, line_of, starts_chain
from perdure.graph.growth import first_answer_id
from perdure.plan import (
    Arg,
    FromInput,
    FromStep,
    ItemsOf,
    ListArg,
    RefTo,
    StateOf,
    StepOptions,
    StepPlan,
    secrets_in,
)
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import AttemptRecord, StepId, StoredValue

MOST_AHEAD = 64
"""So many items of a pipeline may wait before a stage: then the one before it pauses."""
MOST_BYTES_AHEAD = 1 << 28
"""... or so much, encoded."""


class Placed(NamedTuple):
    """What is to start, and which processes of actors are to end first."""

    retire: tuple[Retire, ...]
    dispatch: tuple[Dispatch, ...]


def place(engine: EngineState, now: datetime) -> Placed:
    """Start what is ready and fits, in order of rank.

    All changed runs are among those that the engine has touched.
    """
    placing = _Placing(engine, now)
    placing.note_changes()
    for priority in engine.backlog.priorities:
        placing.go_through(priority)
    return Placed(tuple(placing.retire), tuple(placing.dispatch))


class _Placing:
    """One round of placing. Used once."""

    def __init__(self, engine: EngineState, now: datetime) -> None:
        self._engine = engine
        self._now = now
        self._kept: dict[str, frozenset[str]] = {}
        """By executor, what is kept for large requests that have waited for long enough."""
        self._full: set[Want] = set()
        """What nothing starts of now."""
        self._lined_up: set[Want] = set()
        """What one of those that want it has its turn for."""
        self.retire: list[Retire] = []
        self.dispatch: list[Dispatch] = []

    def note_changes(self) -> None:
        """Let each run wait for what it wants now."""
        runs, backlog = self._engine.runs, self._engine.backlog
        for run_id in (*self._engine.touched, *backlog.due(self._now)):
            if run_id in runs:
                self._note(runs[run_id])

    def _note(self, run: RunState) -> Want | None:
        backlog = self._engine.backlog
        if not run.ready or run.is_stopping:
            backlog.leave(run.id)
            return None
        want = Want(run.record.priority, self._what(run))
        backlog.put(run.id, run.number, want)
        return want

    def _what(self, run: RunState) -> Hashable:
        """Return what a run waits for with others, as a rule; its id, if it is asked for itself."""
        if len(run.ready) > 1 or run.one_at_a_time:
            return run.id
        [(line, heap)] = run.ready.items()
        step = first_ready(run, heap)
        if step is None or line.seat is not None or line.stage is not None:
            return run.id
        waits_long = is_impatient(step.ready_at, self._now)
        if step.ready_at is not None and not waits_long:
            self._engine.backlog.look_again(run.id, step.ready_at + PATIENCE)
        function, has_timeout = step.plan.function, step.options.timeout_s is not None
        own = int(run.paces.most_ahead(function)) if run.paces.has_seen(function) else None
        return run.executor, line, waits_long, function, has_timeout, own

    def go_through(self, priority: int) -> None:
        """Start what can start now of the runs of a priority, one step of each in turn.

        First of that which has not started a step for longest: neither does a wide run keep a
        narrow one waiting, nor do small steps take each time what a large one needs.
        """
        backlog = self._engine.backlog
        heads: list[tuple[tuple[int, str], Want]] = []
        for want in backlog.wants(priority):
            self._line_up(want, heads)
        while heads:
            (_, run_id), want = heappop(heads)
            self._lined_up.remove(want)
            run = self._engine.runs[run_id]
            is_alone = not heads and backlog.is_alone(run_id)
            if not self._place_one(run):
                self._full.add(want)
                continue
            while is_alone and run.ready and self._place_one(run):
                pass
            run.number = self._engine.next_number()
            wants_now = self._note(run)
            self._line_up(want, heads)
            if wants_now is not None:
                self._line_up(wants_now, heads)

    def _line_up(self, want: Want, heads: list[tuple[tuple[int, str], Want]]) -> None:
        """Let the first of the runs that want this have its turn, if none of them is to have it."""
        if want in self._full or want in self._lined_up:
            return
        if first := self._engine.backlog.first(want):
            heappush(heads, (first, want))
            self._lined_up.add(want)

    def _place_one(self, run: RunState) -> bool:
        """Start one step of the run, or make room for one; False if nothing of it can start."""
        if run.one_at_a_time and run.running:
            return False
        pool = self._engine.pools[run.executor]
        first = _first_of_lines(run)
        if self._engine.in_making and (in_making := self._engine.made_for(run.id)):
            first = {
                line: step
                for line, step in first.items()
                if not _is_provided_for(run, pool, line, in_making)
            }
        waiting = [
            Waiting(line, step.rank, step.ready_at, _most_ahead(self._engine, run, step))
            for line, step in first.items()
        ]
        kept = self._kept.get(run.executor, NOTHING)
        choice = choose(pool, waiting, self._now, kept)
        self._kept[run.executor] = choice.kept
        if choice.start is None:
            return self._make_room(run, pool, waiting, choice.kept)
        line = choice.start.line
        call = _make_instance(self._engine, run, line, first[line])
        if call is None:
            heap = run.ready[line]
            heappop(heap)
            if not heap:
                del run.ready[line]
            call = _start(self._engine, run, choice, first[line], self._now)
        self.dispatch.append(Dispatch(run.executor, call))
        return True

    def _make_room(
        self, run: RunState, pool: Pool, waiting: list[Waiting], kept: frozenset[str]
    ) -> bool:
        ended = make_room(pool, waiting, self._now, kept)
        if not ended:
            return False
        self._full.clear()
        self.retire.append(Retire(run.executor, ended))
        for instance in ended:
            if instance.run_id in self._engine.runs and instance.number == 0:
                self._engine.runs[instance.run_id].live.pop(instance.actor, None)
        return True


def _first_of_lines(run: RunState) -> dict[Line, StepState]:
    """Return the first step of each queue that may start, if it fits."""
    first: dict[Line, StepState] = {}
    for line, heap in list(run.ready.items()):
        step = first_ready(run, heap)
        if step is None:
            del run.ready[line]
        elif line.stage is None or not _is_ahead(run, step):
            first[line] = step
    return first


def _is_ahead(run: RunState, item: StepState) -> bool:
    """Say whether those that take the items of a map have enough of them to go on with.

    These are ready, and so will start whatever becomes of this one: nobody waits for anybody.
    """
    assert item.below is not None
    for follower in item.below.followers:
        if follower.items:
            line = line_of(run, run.steps[follower.members[0]])
            if _is_long(run, run.ready.get(line, ())):
                return True
    return False


def _is_long(run: RunState, heap: Sequence[tuple[object, object, str]]) -> bool:
    if len(heap) >= MOST_AHEAD:
        return True
    items = (run.steps[dep] for *_, name in heap for dep in run.steps[name].deps)
    sizes = (each.value.size_bytes for each in items if each.value and each.below)
    return sum(sizes) >= MOST_BYTES_AHEAD


def _hold(pool: Pool, choice: Choice, line: Line, call: CallId) -> tuple[str, ...]:
    """Take what the call asks for, or send it ahead; return the ids of its GPUs."""
    if not choice.is_ahead:
        return pool.take(line, call)
    pool.send_ahead(line.shape)
    return ()


def first_ready(run: RunState, heap: list[tuple[tuple[int, ...], int, str]]) -> StepState | None:
    """Return the first step of the heap that is still ready; entries may have gone stale."""
    while heap:
        _, generation, step_id = heap[0]
        step = run.steps[step_id]
        if step.status is StepStatus.READY and step.generation == generation:
            return step
        heappop(heap)
    return None


def _start(
    engine: EngineState,
    run: RunState,
    choice: Choice,
    step: StepState,
    now: datetime,
) -> StepCall:
    waited = choice.start
    assert waited is not None
    step.status = StepStatus.RUNNING
    step.attempt += 1
    step.inputs = run.input_digests(step)
    step.begun_at, step.progress = now, None
    run_id = run.id
    call = CallId(run_id, step.id, step.generation, step.attempt)
    run.running[call] = step
    run.outbox.attempts[call] = AttemptRecord(
        run_id=run_id,
        step_id=StepId(step.id),
        generation=step.generation,
        attempt=step.attempt,
        started_at=now,
    )
    engine.touched[run_id] = None
    plan, options = step.plan, step.options
    pool = engine.pools[run.executor]
    gpu_ids = _hold(pool, choice, waited.line, call)
    return StepCall(
        id=call,
        function=plan.function,
        args=_arguments(run, step),
        kwargs=plan.kwargs,
        values=_values(run, step),
        parts=step.parts,
        timeout_s=options.timeout_s,
        checkpoint=run.stores(step),
        outputs=options.outputs,
        retry_on=options.retry_on,
        stop_when=options.stop_when,
        idempotency_key=f"{run_id}/{step.id}/{step.generation}",
        names=match_name(plan),
        answer=first_answer_id(step.id) if starts_chain(step) else "",
        saves=saves_for(run, step),
        is_brief=waited.most_ahead > 0,
        actor=None if plan.actor is None else _on_actor(run, step, pool.home(call)),
        turns={turn.actor: turn.step for turn in plan.turns},
        gpu_ids=gpu_ids,
        **_asked(options),
    )


def _asked(options: StepOptions) -> dict[str, Any]:
    """Return what a call says of what it asks for."""
    return {
        "cpus": options.cpus,
        "gpus": options.gpus,
        "resources": options.resources,
        "shares_gpu": 0 < options.gpus < 1,
        "memory_bytes": options.memory_bytes,
    }


def _is_provided_for(run: RunState, pool: Pool, line: Line, in_making: Sequence[CallId]) -> bool:
    """Say whether as many instances of a pool are being made as calls wait for one."""
    seat = line.seat
    if seat is None or pool.has_idle(seat):
        return False
    waiting = sum(
        len(heap)
        for other, heap in run.ready.items()
        if other.seat is not None and other.seat.actor == seat.actor
    )
    return sum(call.step_id == seat.actor for call in in_making) >= waiting


def _make_instance(
    engine: EngineState, run: RunState, line: Line, step: StepState
) -> StepCall | None:
    """Return the call that makes another instance of a pool, if one is to be made first.

    That may take long. The call for whose sake it is made stays in the queue, for whichever
    instance is free first.
    """
    pool = engine.pools[run.executor]
    use = step.plan.actor
    if use is None or use.state != "rebuild" or use.role == "new" or run.one_at_a_time:
        return None
    if line.seat is None or pool.capacity.is_serial or pool.has_idle(line.seat):
        return None
    made, number = run.steps[use.actor], pool.next_number(line.seat)
    if number is None or made.at != f"{made.id}/{made.generation}":
        return None  # it is the only one; or made by a call of another name, which would not do
    call = CallId(run.id, made.id, made.generation, max(made.attempt, 1) + number)
    gpu_ids = pool.take(line, call)
    engine.in_making[call] = (run.executor, step.shape)
    return StepCall(
        id=call,
        function=made.plan.function,
        args=_arguments(run, made),
        kwargs=made.plan.kwargs,
        values=_values(run, made),
        timeout_s=made.options.timeout_s,
        checkpoint=False,
        idempotency_key=f"{run.id}/{made.id}/{made.generation}",
        names=match_name(made.plan),
        actor=msgspec.structs.replace(
            _on_actor(run, made, pool.home(call)), role="new", keeps=False
        ),
        gpu_ids=gpu_ids,
        **_asked(step.options),  # for which its process is made, and which it keeps
    )


def _on_actor(run: RunState, step: StepState, number: int) -> ActorCall:
    """Return on what a call of an actor is made: on the live instance, or how to come to it."""
    use = step.plan.actor
    assert use is not None
    way = way_to(run, step)
    live = is_live(run, step, way)
    role = "use" if use.state == "rebuild" and use.role != "new" else use.role
    made = run.steps[use.actor].plan.actor if use.actor in run.steps else None
    # A resume with today's code says it to the constructor's step: handles are as they were.
    accepts = use.nondeterminism if made is None else made.nondeterminism
    return ActorCall(
        of=msgspec.structs.replace(use, nondeterminism=accepts),
        role="again" if step.applied else role,
        base="" if way.base is None else way.base.at,
        is_live=live,
        state=None if live or way.start is None else way.start.states[use.actor],
        state_of="" if way.start is None else way.start.id,
        replay=() if live else tuple(_replay(run, each) for each in way.replay),
        keeps=keeps_state(step, way),
        defaults=step.options,
        number=number,
        secrets=() if made is None else _secrets(run.steps[use.actor].plan),
    )


def _secrets(made: StepPlan) -> tuple[str, ...]:
    return tuple(sorted(secrets_in((*made.args, *made.kwargs.values()))))


def _replay(run: RunState, step: StepState) -> Replay:
    assert step.plan.actor is not None
    return Replay(
        step_id=step.id,
        generation=step.generation,
        attempt=max(step.attempt, 1),
        method=step.plan.actor.method,
        args=_arguments(run, step),
        kwargs=step.plan.kwargs,
        values=_values(run, step),
        expected="" if step.value is None else step.value.value_digest,
    )


def _arguments(run: RunState, step: StepState) -> tuple[Arg, ...]:
    """Return a step's arguments; of a method's without the actor: its instance stands there."""
    args = _without_unneeded(run, step)
    return args[1:] if step.plan.actor is not None and step.plan.actor.method else args


def _most_ahead(engine: EngineState, run: RunState, step: StepState) -> float:
    """Return how many calls like this one may wait behind one that runs.

    None with a time-out, which begins to count when the call does.
    """
    function = step.plan.function
    if step.options.timeout_s is not None:
        return 0
    if run.paces.has_seen(function):
        return run.paces.most_ahead(function)
    return min(MOST_UNSEEN, engine.paces.most_ahead(function))


def _without_unneeded(run: RunState, step: StepState) -> tuple[Arg, ...]:
    """Return the arguments of a step, lists without what was ended because nobody needs it."""
    if not step.refs:
        return step.plan.args
    gone = {
        ref.step for ref in step.refs if isinstance(ref, FromStep) and run.steps[ref.step].unneeded
    }
    return tuple(_without(arg, gone) for arg in step.plan.args) if gone else step.plan.args


def _without(arg: Arg, gone: Container[str]) -> Arg:
    if not isinstance(arg, ListArg):
        return arg
    left = (item for item in arg.items if not (isinstance(item, FromStep) and item.step in gone))
    return ListArg(tuple(_without(item, gone) for item in left), arg.kind)


def _values(run: RunState, step: StepState) -> dict[str, StoredValue]:
    values = {}
    for ref in step.refs:
        if isinstance(ref, FromInput):
            values[input_key(ref.name)] = run.record.inputs[ref.name]
        elif (
            isinstance(ref, RefTo | StateOf)
            or run.steps[ref.step].unneeded
            or (step.plan.actor is not None and ref.step == step.plan.actor.actor)
        ):
            continue
        elif isinstance(ref, ItemsOf) and run.steps[ref.step].items is not None:
            values[items_key(ref.step)] = encode_items(run.steps[ref.step].items or ())
        else:
            value = run.steps[ref.step].value
            assert value is not None
            values[step_key(ref.step)] = value
    return values
