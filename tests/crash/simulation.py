"""A world in one thread: virtual time, seeded faults, several coordinators over one memory store.

The real ``decide``, coordinators and store contract; only workers, time and death are pretended.
A seed says everything that happens, so a failing seed can be replayed:
``python tests/crash/simulation.py SEED``.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from perdure.calls import CallContext, CallId, Desk, Growth, Instance, Outcome, StepCall, Wait
from perdure.engine.coordinator import Coordinator
from perdure.engine.restore import MAX_TAKEOVERS
from perdure.executors.protocol import Capacity
from perdure.graph.growth import answer_id, link_of
from perdure.plan import (
    Backoff,
    FromStep,
    Function,
    ItemsOf,
    ListArg,
    Plan,
    RefTo,
    StepOptions,
    StepPlan,
    encode_plan,
)
from perdure.reference import StepRef
from perdure_storage.blobs import open_blobs
from perdure_storage.clock import ManualClock
from perdure_storage.codecs import Codecs
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus, StepStatus
from perdure_storage.memory import MemoryRunStore
from perdure_storage.records import (
    Cause,
    CommitReport,
    Digest,
    ErrorRecord,
    Owner,
    Place,
    PlanRecord,
    ProcessId,
    RunCommit,
    RunId,
    RunPolicy,
    RunRecord,
    StepRecord,
    StoredValue,
)
from perdure_storage.values import Values

RUN = RunId("sim")
MAX_ROUNDS = 20_000
RACE = "race"
LEASE_S = 10.0
"""Of the coordinators: up to a second goes by between beats, of which each has one in three."""


def value_of(text: str, *, kept: bool = True) -> StoredValue:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return StoredValue(
        codec="json/1",
        place=Place.INLINE if kept else Place.SPOOL,
        size_bytes=len(text),
        integrity=Digest(f"blake3:{digest}"),
        value_digest=f"v1:{digest}",
        data=text.encode() if kept else None,
    )


FUNCTIONS = {
    name: Function(id=name, module="m", qualname=name, code=name, counts_as=name)
    for name in ("computes", "grows", "maps", "follows", "chooses", "selects", "races")
}
OPTIONS = (
    StepOptions(lost_retries=-1),
    StepOptions(lost_retries=-1, checkpoint=False),
    StepOptions(lost_retries=-1, cpus=2),
    StepOptions(lost_retries=-1, retries=1000, backoff=Backoff(0.5, 1.5, 4.0, 0.1)),
)
MAX_DEPTH = 3
MAPS = ("maps", "follows")


def random_step(rng: random.Random, step_id: str, above: Sequence[StepPlan]) -> StepPlan:
    """Return a call of mixed options; one in four gives a graph, unless it is deep in one.

    A map that only takes what another map gives takes it item by item.
    """
    depth = step_id.count("/") + step_id.count("~") + step_id.count("[")
    function, width = "computes", rng.randint(0, 4)
    if rng.random() < 1 / 4 and depth < MAX_DEPTH:
        function = rng.choice(["grows", "maps"])
    args: tuple[FromStep | ItemsOf, ...] = tuple(FromStep(step=dep.id) for dep in above)
    if len(above) == 1 and above[0].function in MAPS and depth < MAX_DEPTH:
        function, args, width = "follows", (ItemsOf(step=above[0].id),), width_of(above[0])
    return StepPlan(
        id=step_id,
        name=f"{step_id}*{width}",
        function=function,
        given="given",
        own=f"own-{step_id}",
        args=args,
        options=rng.randrange(len(OPTIONS)),
    )


def random_plan(rng: random.Random) -> Plan:
    """Return a DAG of up to 30 steps, some of which will give graphs."""
    steps: list[StepPlan] = []
    for number in range(rng.randint(1, 30)):
        deps = rng.sample(range(len(steps)), k=min(len(steps), rng.choice([0, 1, 1, 2, 3])))
        above = [steps[dep] for dep in sorted(deps)]
        steps.append(random_step(rng, f"s{number}", above))
        if len(above) > 1 and rng.random() < 1 / 2:
            steps[-1:] = branch_between(rng, f"s{number}", above)
    outputs = rng.sample(steps, k=min(3, len(steps)))
    return Plan(
        workflow="sim",
        steps=(*steps, race_between(steps)),
        output=ListArg(items=tuple(FromStep(step=step.id) for step in outputs)),
        functions=FUNCTIONS,
        options=OPTIONS,
    )


def branch_between(rng: random.Random, step_id: str, above: Sequence[StepPlan]) -> list[StepPlan]:
    """Return a step that chooses between others, and the one that has the value of the chosen."""
    choice, select = (random_step(rng, name, ()) for name in (f"{step_id}-choice", step_id))
    choice = msgspec.structs.replace(choice, function="chooses", options=0)
    return [
        choice,
        msgspec.structs.replace(
            select,
            function="selects",
            args=tuple(FromStep(step=each.id) for each in (choice, *above)),
            branches=tuple(each.id for each in above),
        ),
    ]


def race_between(steps: Sequence[StepPlan]) -> StepPlan:
    """Return a step that waits for some of others, and leaves the rest; nobody takes its value."""
    rng = random.Random(f"race between {len(steps)}")
    targets = rng.sample(steps, k=min(len(steps), rng.randint(1, 4)))
    return msgspec.structs.replace(
        random_step(rng, RACE, ()),
        function="races",
        args=tuple(RefTo(step=target.id) for target in targets),
        options=0,
    )


def terms_of(race: StepPlan | StepCall) -> Wait:
    """Return how a race is run: one of its targets is enough, or two if there are many."""
    targets = tuple(StepRef(arg.step) for arg in race.args if isinstance(arg, RefTo))
    return Wait(kind="steps", steps=targets, wanted=1 + len(targets) // 3, cancel_rest=True)


def losable_of(plan: Plan) -> set[str]:
    """Return the steps that may be ended when the race is over: only it, and they, need them."""
    needs: dict[str, set[str]] = {step.id: set() for step in plan.steps}
    users: dict[str, set[str]] = {step.id: set() for step in plan.steps}
    wanted = wanted_of(plan)
    for step in plan.steps:
        names = [arg.step for arg in step.args]  # type: ignore[union-attr]
        for name in names if step.id in wanted else ():
            users[name].add(step.id)
            if not step.branches or name in taken_of(step):
                needs[name].add(step.id)
    assert isinstance(plan.output, ListArg)
    kept = {arg.step for arg in plan.output.items if isinstance(arg, FromStep)}
    losable = {RACE}
    for step in reversed(plan.steps):
        if step.id not in kept and users[step.id] & losable and needs[step.id] <= losable:
            losable.add(step.id)
    return losable - {RACE}


def chosen_of(select: StepPlan) -> int:
    """Return which branch is chosen: it is in the name of the choice."""
    (choice, *branches) = select.args
    assert isinstance(choice, FromStep)
    return random.Random(choice.step).randrange(len(branches))


def wanted_of(plan: Plan) -> set[str]:
    """Return the steps of a plan that run: those that somebody needs, but for other branches."""
    users: dict[str, list[StepPlan]] = {step.id: [] for step in plan.steps}
    for step in plan.steps:
        for arg in step.args:
            users[arg.step].append(step)  # type: ignore[union-attr]
    assert isinstance(plan.output, ListArg)
    wanted = {arg.step for arg in plan.output.items if isinstance(arg, FromStep)}
    for step in reversed(plan.steps):
        needed = any(
            user.id in wanted and (not user.branches or step.id in taken_of(user))
            for user in users[step.id]
        )
        if needed or not users[step.id]:
            wanted.add(step.id)
    return wanted


def taken_of(select: StepPlan) -> list[str]:
    """Return what a select takes: its choice, and the branch that this says."""
    names = [arg.step for arg in select.args if isinstance(arg, FromStep)]
    return [names[0], names[chosen_of(select) + 1]]


def graph_of(step: StepPlan | StepCall) -> Plan:
    """Return the graph that a step gives: always the same one; all of it is above its answer."""
    step_id = step.id if isinstance(step, StepPlan) else step.id.step_id
    rng = random.Random(step_id)
    steps: list[StepPlan] = []
    if step.function in MAPS:
        steps = children_of(step, step_id)
        answer = msgspec.structs.replace(
            random_step(rng, answer_id(step_id), ()),
            function="computes",
            args=tuple(FromStep(step=child.id) for child in steps),
        )
    else:
        for number in range(rng.randint(0, 4)):
            deps = rng.sample(steps, k=min(len(steps), rng.choice([0, 1, 2])))
            steps.append(random_step(rng, f"{step_id}/m{number}", deps))
        answer = random_step(rng, answer_id(step_id), steps)
    return Plan(
        workflow="sim",
        steps=(*steps, answer),
        output=FromStep(step=answer.id),
        functions=FUNCTIONS,
        options=OPTIONS,
    )


def children_of(step: StepPlan | StepCall, step_id: str) -> list[StepPlan]:
    """Return the children of a map; each takes its item of the map above, if there is one.

    Where the items of that map are not to be had any more the items are constants, so a child
    takes nothing.
    """
    rng = random.Random(f"children of {step_id}")
    children = [random_step(rng, f"{step_id}[{n}]", ()) for n in range(width_of(step))]
    if step.function == "maps" or (isinstance(step, StepCall) and not has_items(step)):
        return children
    (items,) = step.args
    assert isinstance(items, ItemsOf)
    return [
        msgspec.structs.replace(child, args=(FromStep(step=f"{items.step}[{n}]"),))
        for n, child in enumerate(children)
    ]


def width_of(step: StepPlan | StepCall) -> int:
    """Return how many children a map has: its name says so."""
    name = step.name if isinstance(step, StepPlan) else step.names
    return int(name.rpartition("*")[2])


def has_items(call: StepCall) -> bool:
    return any(key.startswith("items:") for key in call.values)


class Undisturbed:
    """What a plan comes to, computed without any engine.

    Attributes:
        texts: the text of every step's value.
        steps: the calls, those of graphs included.
        passed: links in the middle of chains, which end without a row.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.texts: dict[str, str] = {}
        self.steps: dict[str, StepPlan] = {}
        self.passed: set[str] = set()
        wanted = wanted_of(plan)
        self.skipped = {step.id for step in plan.steps} - wanted
        for step in plan.steps:
            if step.id in wanted and step.function != "races":
                self._compute(step)

    def texts_of(self, step: StepPlan | StepCall) -> list[str]:
        """Return the texts of what a step takes, of a map above it the text of the whole."""
        return [self.texts[arg.step] for arg in step.args]  # type: ignore[union-attr]

    def _compute(self, step: StepPlan) -> None:
        self.steps[step.id] = step
        if step.function == "chooses":
            selects = [each for each in self.plan.steps if each.args[:1] == (FromStep(step.id),)]
            self.texts[step.id] = str(chosen_of(next(e for e in selects if e.branches)))
            return
        if step.function == "selects":
            self.texts[step.id] = self.texts[taken_of(step)[1]]
            return
        if step.function == "computes":
            self.texts[step.id] = text_of(step.id, self.texts_of(step))
            return
        graph = graph_of(step)
        for inner in graph.steps:
            self._compute(inner)
        assert isinstance(graph.output, FromStep)
        self.texts[step.id] = self.texts[graph.output.step]
        if link_of(step.id)[1]:
            self.passed.add(step.id)


def top_of(step_id: str) -> str:
    """Return the step of the plan below which a step is."""
    return re.split(r"[/~\[]", step_id)[0]


def text_of(step_id: str, inputs: Sequence[str]) -> str:
    return hashlib.sha256(f"{step_id}({','.join(inputs)})".encode()).hexdigest()[:12]


def record_of(plan: Plan) -> PlanRecord:
    body = encode_plan(plan)
    return PlanRecord(digest=Digest(f"blake3:{hashlib.sha256(body).hexdigest()}"), body=body)


@dataclass
class World:
    """Everything that outlives a coordinator, and the ledger that the product does not know."""

    seed: int
    durability: str = "step"
    rng: random.Random = field(init=False)
    clock: ManualClock = field(default_factory=ManualClock)
    dispatched: list[tuple[CallId, int]] = field(default_factory=list)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    tick: int = 0
    deaths: int = 0
    takeovers: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.store = WatchedStore(self)
        url = f"memory://sim-{self.seed}-{self.durability}"
        self.blobs = open_blobs(url, self.store.store_id, bind=True)
        self.values = Values(Codecs(), self.blobs)
        self.plan = random_plan(self.rng)
        self.wanted = Undisturbed(self.plan)
        self.drivers: list[Driver] = []

    def submit(self) -> None:
        plan = record_of(self.plan)
        record = RunRecord(
            id=RUN,
            workflow="sim",
            status=RunStatus.QUEUED,
            plan_digest=plan.digest,
            policy=RunPolicy(durability=self.durability, executor="processes"),
            created_at=self.clock.now(),
        )
        assert self.store.create_run(record, plan) is not None

    # --- the run of the world -----------------------------------------------------------------
    def live(self) -> RunStatus:
        """Let things happen until the run has ended; return how."""
        self.submit()
        for self.tick in range(MAX_ROUNDS):
            if self.store.get_run(RUN).status in RUN_TERMINAL:
                break
            self._change_drivers()
            self.clock.advance(self.rng.choice([0.0, 0.01, 0.2, 1.0]))
            driver = self.rng.choice(self.drivers)
            if not driver.is_frozen:
                driver.beat()
                driver.coordinator.turn(0)
        for driver in self.drivers:
            driver.coordinator.close()
        return self.store.get_run(RUN).status

    def _change_drivers(self) -> None:
        chance = self.rng.random()
        # One death more in a row without a commit, and the run would rightly be given up.
        is_spared = self.store.get_run(RUN).takeovers >= MAX_TAKEOVERS - 1
        if chance < 0.01 and self.drivers and self.deaths < 30 and not is_spared:
            # A kill -9: workers go with it, nothing is released, the lease runs out by itself.
            self.drivers.remove(self.rng.choice(self.drivers))
            self.deaths += 1
        if not self.drivers or (chance < 0.03 and len(self.drivers) < 3):
            self.drivers.append(Driver(self, self.tick))
        elif chance < 0.05 and not is_spared:
            frozen = self.rng.choice(self.drivers)
            frozen.is_frozen = not frozen.is_frozen
        if chance > 0.99 or all(driver.is_frozen for driver in self.drivers):
            for driver in self.drivers:
                driver.is_frozen = False

    # --- what must hold -----------------------------------------------------------------------
    def check(self) -> None:
        """Compare the store with the undisturbed run and with the ledger."""
        status = self.store.get_run(RUN).status
        assert status is RunStatus.SUCCEEDED, f"ended as {status}: {self.store.get_run(RUN).error}"
        rows = {row.step_id: row for row in self.store.list_steps(RUN)}
        skipped = {step_id for step_id, row in rows.items() if row.status is StepStatus.SKIPPED}
        losers = self._check_race(rows)
        # A branch that only losers would have chosen is skipped, as one that nobody chooses.
        assert skipped ^ self.wanted.skipped <= losers | losable_of(self.plan)
        ended = {step_id for step_id in rows if top_of(step_id) in losers}
        due = self.wanted.texts.keys() - self.wanted.passed
        due = {step_id for step_id in due if top_of(step_id) not in losers | skipped}
        assert rows.keys() - skipped - ended - {RACE} == due
        for step_id in rows.keys() - skipped - ended - {RACE}:
            row = rows[step_id]
            assert row.status is StepStatus.SUCCEEDED
            assert row.value is not None
            wanted = self.wanted.texts[step_id]
            assert row.value.value_digest == value_of(wanted).value_digest
            taken = self._taken(self.wanted.steps[step_id])
            is_item = bool(taken) and "[" in step_id and not row.inputs
            assert list(row.inputs) == taken or is_item, "it consumed what was not committed"
        for call, tick in self.dispatched:
            done = self.committed.get((call.step_id, call.generation))
            assert done is None or tick <= done, f"{call} started after its commit"

    def _check_race(self, rows: Mapping[str, StepRecord]) -> set[str]:
        """Check what the race has found, and return the steps of the plan that it has ended."""
        assert rows[RACE].status is StepStatus.SUCCEEDED
        stored = rows[RACE].value
        assert stored is not None
        done, pending = self.values.load(stored)
        race = terms_of(self.plan.steps[-1])
        assert sorted(map(str, done + pending)) == sorted(map(str, race.steps))
        assert len(done) >= race.wanted or all(
            rows[ref.step_id].status in (StepStatus.CANCELLED, StepStatus.SKIPPED)
            for ref in pending
        )
        losers = {name for name, row in rows.items() if row.status is StepStatus.CANCELLED}
        losers = {top_of(name) for name in losers}
        may_be = losable_of(self.plan) | self.wanted.skipped
        # Whoever else needed a step may have had its value, which was lost and no more needed then.
        were_done = {
            step_id
            for step_id, generation in self.committed
            if step_id in losers and generation < rows[step_id].generation
        }
        assert losers <= may_be | were_done, "somebody else needs it"
        return losers

    def _taken(self, step: StepPlan) -> list[str]:
        """Return the digests of what a step takes; of a select's other branches none."""
        names = [arg.step for arg in step.args]  # type: ignore[union-attr]
        counts = [0, chosen_of(step) + 1] if step.branches else range(len(names))
        return [
            value_of(self.wanted.texts[name]).value_digest if number in counts else ""
            for number, name in enumerate(names)
        ]


class WatchedStore(MemoryRunStore):
    """The memory store; the world notes when what was committed."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock, store_id=f"sim{world.seed}")
        self._world = world

    def commit(self, batch: Sequence[RunCommit]) -> CommitReport:
        report = super().commit(batch)
        for part in batch:
            if part.run_id in report.committed:
                for row in part.steps:
                    key = (row.step_id, row.generation)
                    assert key not in self._world.committed, f"{key} committed twice"
                    self._world.committed[key] = self._world.tick
        return report


class Driver:
    """A coordinator with a heartbeat of its own, which stops while it is frozen."""

    steady_s = math.inf

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.is_frozen = False
        self.owner = Owner(
            token=f"driver-{number}",
            host=f"host-{number}",
            boot_id="boot",
            pid_ns="ns",
            pid=number,
            started=0.0,
            serves=True,
        )
        self.is_started = False
        self.coordinator = Coordinator(
            store=world.store,
            blobs=world.blobs,
            values=world.values,
            executors=lambda name: SimExecutor(world, self.owner.token),
            owner=self.owner,
            clock=world.clock,
            heartbeat=self,  # type: ignore[arg-type]
        )

    def start(self) -> None:
        if not self.is_started:
            self.is_started = True
            self.world.store.register(self.owner, LEASE_S)

    def beat(self) -> None:
        if self.is_started:
            self.world.store.renew(self.owner, LEASE_S)

    def beat_now(self, workers: tuple[ProcessId, ...]) -> None:
        self.beat()

    def take_late(self) -> None: ...

    def stop(self) -> None:
        self.world.store.unregister(self.owner)


class SimExecutor:
    """Workers that compute by the ids, in any order, and die, fail or lose values by the seed."""

    name = "processes"
    can_kill = True
    runs_here = False
    capacity = Capacity(cpus=3)

    def __init__(self, world: World, token: str) -> None:
        self.world = world
        self.token = token
        self.calls: list[StepCall] = []
        self.ended: list[Outcome] = []

    def attend(self, desk: Desk) -> None:
        """Ignore it: steps of these worlds save nothing."""

    def hand_over(self, calls: Sequence[CallId]) -> None: ...

    def retire(self, instances: Sequence[Instance]) -> None: ...

    def open_run(self, context: CallContext) -> None: ...

    def extend_run(
        self, run_id: str, functions: Mapping[str, Function], constants: Mapping[int, StoredValue]
    ) -> None: ...

    def close_run(self, run_id: str) -> None:
        assert not self.calls, "a run is closed when nothing of it is in flight"

    def submit(self, calls: Sequence[StepCall]) -> None:
        owner = self.world.store.get_run(RUN).owner
        if owner is not None and owner.token == self.token:
            # Under "group" a stale owner may start what it cannot commit: that counts for nothing.
            self.world.dispatched += [(call.id, self.world.tick) for call in calls]
        self.calls += calls

    def kill(self, calls: Sequence[CallId], *, grace_s: float, cause: Cause) -> None:
        wanted = set(calls)
        self.ended += [self._failed(c, cause) for c in self.calls if c.id in wanted]
        self.calls = [call for call in self.calls if call.id not in wanted]

    def poll(self, timeout_s: float | None) -> list[Outcome]:
        outcomes, self.ended = self.ended, []
        while self.calls and self.world.rng.random() < 0.6:
            call = self.calls.pop(self.world.rng.randrange(len(self.calls)))
            outcomes.append(self._outcome(call))
        return outcomes

    def _outcome(self, call: StepCall) -> Outcome:
        chance = self.world.rng.random()
        if chance < 0.04:
            return self._failed(call, Cause.WORKER_LOST)
        if chance < 0.08 and call.id.step_id in self._retrying():
            return self._failed(call, Cause.USER_ERROR)
        if chance < 0.10:
            return self._failed(call, Cause.INPUT_UNAVAILABLE)
        stored = sorted(key for key in call.values if key.startswith("step:"))
        if chance < 0.12 and stored:
            return self._failed(call, Cause.INPUT_LOST, culprit=stored[0])
        if call.function == "races":
            return Outcome(id=call.id, cause=Cause.SUCCEEDED, wait=terms_of(call))
        if call.function not in ("computes", "chooses"):
            graph = graph_of(call)
            kind = "map" if call.function in MAPS else "graph"
            growth = Growth(kind=kind, count=len(graph.steps), plan=record_of(graph))
            return Outcome(id=call.id, cause=Cause.SUCCEEDED, growth=growth)
        return Outcome(id=call.id, cause=Cause.SUCCEEDED, value=self._value(call))

    def _value(self, call: StepCall) -> StoredValue:
        text = self.world.wanted.texts[call.id.step_id]
        return value_of(text, kept=call.checkpoint or self.world.rng.random() < 0.5)

    def _retrying(self) -> set[str]:
        steps = self.world.wanted.steps.values()
        return {step.id for step in steps if OPTIONS[step.options].retries}

    def _failed(self, call: StepCall, cause: Cause, *, culprit: str = "") -> Outcome:
        error = ErrorRecord(type="sim.Fault", message=cause.value, cause=cause)
        return Outcome(id=call.id, cause=cause, error=error, culprit=culprit)

    def wake(self) -> None: ...

    def workers(self) -> tuple[ProcessId, ...]:
        return ()

    def close(self) -> None:
        self.calls.clear()


def simulate(seed: int, durability: str = "step") -> World:
    """Live one world through and check it. Raises AssertionError with the way to replay it."""
    world = World(seed, durability)
    try:
        world.live()
        world.check()
    except AssertionError as error:
        replay = f"python tests/crash/simulation.py {seed} {durability}"
        raise AssertionError(f"{error}\nreplay: {replay}") from error
    return world


def main(arguments: Sequence[str]) -> None:
    """Replay one seed, or run a range of them: ``simulation.py 7`` or ``simulation.py 0-5000``."""
    span, durability = arguments[0], (arguments[1:] or ["step"])[0]
    first, _, last = span.partition("-")
    started = datetime.now()
    for seed in range(int(first), int(last or first) + 1):
        simulate(seed, durability)
    print(f"seeds {span} {durability}: all held, {datetime.now() - started}")


if __name__ == "__main__":
    main(sys.argv[1:])
