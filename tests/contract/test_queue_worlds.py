"""Queues in worlds by chance: many coordinators look, claim late and end runs, in any order.

Nothing here knows how turns are found: what must hold is counted anew from what was claimed. A
seed that fails is made small, and printed, by hypothesis.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import LEASE_S, a_queue, an_owner, by, queued
from perdure_storage.lifecycle import RunStatus
from perdure_storage.memory import MemoryRunStore
from perdure_storage.records import RunEnd, RunId, RunRecord

WORLDS = int(os.environ.get("PERDURE_TEST_QUEUE_WORLDS", "60"))
COORDINATORS = 4
KEYS = "abc"
WINDOW = timedelta(seconds=30)
_DONE = RunEnd(status=RunStatus.SUCCEEDED)

limits = st.fixed_dictionaries(
    {
        "limit": st.none() | st.integers(1, 4),
        "limit_per_key": st.none() | st.integers(1, 2),
        "rate": st.none() | st.integers(1, 3),
    }
)
arrivals = st.lists(
    st.tuples(st.sampled_from(["", *KEYS]), st.integers(0, 2)), min_size=1, max_size=25
)
who = st.integers(0, COORDINATORS - 1)
acts = st.lists(
    st.tuples(st.sampled_from(["look", "claim", "claim", "end", "wait", "arrive"]), who),
    max_size=120,
)


@dataclass
class World:
    """A queue, coordinators that have looked into it, and what they have begun."""

    limit: int | None
    limit_per_key: int | None
    rate: int | None
    coming: list[tuple[str, int]]
    clock: ManualClock = field(default_factory=ManualClock)
    going_on: dict[str, RunRecord] = field(default_factory=dict)
    waiting: dict[str, RunRecord] = field(default_factory=dict)
    starts: list[datetime] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryRunStore(clock=self.clock)
        self.owners = [an_owner(f"c{n}", boot_id=f"boot-{n}") for n in range(COORDINATORS)]
        self.seen: list[list[RunId]] = [[] for _ in self.owners]
        for owner in self.owners:
            self.store.register(owner, LEASE_S * 10_000)
        window = None if self.rate is None else WINDOW
        limits = (self.limit, self.limit_per_key, self.rate)
        names = ("limit", "limit_per_key", "rate")
        self.store.queues.put_queue(a_queue("q", window=window, **dict(zip(names, limits))))

    def arrive(self) -> None:
        if self.coming:
            key, priority = self.coming.pop()
            name = f"{key or 'x'}{self.made:02}"
            self.waiting[name] = queued(
                self.store, name, limit_key=key, priority=priority, created_at=self.clock.now()
            )
            self.made += 1

    def look(self, who: int, most: int = 5) -> list[RunId]:
        found = self.store.claimable(most, besides=self.owners[who].token)
        self.seen[who] = [run.id for run in found]
        return self.seen[who]

    def claim(self, who: int) -> str | None:
        """Claim what was seen first, however long ago."""
        if not self.seen[who]:
            return None
        run = self.store.claim_run(self.seen[who].pop(0), self.owners[who])
        if run is None:
            return None
        assert run.id in self.waiting, "a run was begun twice"
        self.going_on[run.id] = run
        del self.waiting[run.id]
        self.starts.append(self.clock.now())
        self.served[run.limit_key] = len(self.starts)
        return run.id

    def end(self, which: int) -> None:
        if self.going_on:
            name = sorted(self.going_on)[which % len(self.going_on)]
            assert self.store.commit([by(self.going_on.pop(name), end=_DONE)]).committed

    def check(self) -> None:
        keys = Counter(run.limit_key for run in self.going_on.values() if run.limit_key)
        recent = [at for at in self.starts if at > self.clock.now() - WINDOW]
        assert self.limit is None or len(self.going_on) <= self.limit
        assert self.limit_per_key is None or max(keys.values(), default=0) <= self.limit_per_key
        assert self.rate is None or len(recent) <= self.rate

    @property
    def may_begin(self) -> list[RunRecord]:
        """Return the waiting runs for which there is room."""
        keys = Counter(run.limit_key for run in self.going_on.values() if run.limit_key)
        recent = [at for at in self.starts if at > self.clock.now() - WINDOW]
        if self.limit is not None and len(self.going_on) >= self.limit:
            return []
        if self.rate is not None and len(recent) >= self.rate:
            return []
        per_key = self.limit_per_key
        return [
            run
            for run in self.waiting.values()
            if not run.limit_key or per_key is None or keys[run.limit_key] < per_key
        ]

    def place(self, run: RunRecord) -> tuple[int, int, int]:
        """Return what comes first, the least of it: priority, how many go on, turn of its key."""
        going_on = sum(other.limit_key == run.limit_key for other in self.going_on.values())
        return -run.priority, going_on, self.served.get(run.limit_key, 0)


@settings(max_examples=WORLDS, deadline=None)
@given(limits=limits, coming=arrivals, acts=acts)
def test_limits_hold_however_late_coordinators_claim_what_they_saw(
    limits: dict[str, int | None], coming: list[tuple[str, int]], acts: list[tuple[str, int]]
) -> None:
    world = World(**limits, coming=coming)

    for act, who in acts:
        if act == "arrive":
            world.arrive()
        elif act == "look":
            world.look(who)
        elif act == "claim":
            world.claim(who)
        elif act == "end":
            world.end(who)
        else:
            world.clock.advance(5)
        world.check()


@settings(max_examples=WORLDS, deadline=None)
@given(limits=limits, coming=arrivals, together=st.integers(1, 25), turns=st.lists(who, min_size=1))
def test_whoever_claims_takes_the_run_whose_turn_it_is_and_none_is_left(
    limits: dict[str, int | None], coming: list[tuple[str, int]], together: int, turns: list[int]
) -> None:
    world = World(**limits, coming=list(coming))
    for _ in range(together):
        world.arrive()

    for step in range(40 * len(coming)):
        who = turns[step % len(turns)]
        world.clock.advance(1)
        before = world.may_begin
        world.look(who, most=1)
        places = {run.id: world.place(run) for run in before}
        begun = world.claim(who)
        assert (begun is not None) == bool(before), "a run waits though there is room, or begins"
        if begun is None:
            world.end(who)
            world.clock.advance(WINDOW.total_seconds() / 3)
        else:
            assert places[RunId(begun)] == min(places.values())
            same = [r for r in before if r.limit_key == world.going_on[begun].limit_key]
            first = min(same, key=lambda run: (-run.priority, run.created_at, run.id))
            assert begun == first.id, "an older run of the key waits"
        world.check()
        world.arrive()
        if not world.waiting and not world.coming:
            break

    assert (world.waiting, world.coming) == ({}, [])
