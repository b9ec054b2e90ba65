"""Schedules in a store: how a declared one gets there, and what is held of it afterwards."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from perdure.run_templates import stored_template
from perdure.runs import Run
from perdure.runtime import Runtime
from perdure.schedules import Schedule
from perdure_scheduler.by_hand import (
    ByHand,
    Reprocess,
    Wish,
    made_by_others,
    reprocess_of,
    times_within,
)
from perdure_scheduler.changes import state_of
from perdure_scheduler.decide import Why, standing
from perdure_scheduler.declaration import Instant, end_of, instant_of
from perdure_scheduler.definition import Definition
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.moments import Moment, Placeholder
from perdure_scheduler.registered import Registered
from perdure_scheduler.registry import Registry
from perdure_scheduler.schedule import NominalTime, stamp
from perdure_storage.lifecycle import RUN_LIVE
from perdure_storage.records import RunId
from perdure_storage.schedule_records import ScheduleRecord, TickQuery, TickRecord

if TYPE_CHECKING:
    from perdure.client import Perdure

MOST_AT_ONCE = 100
"""Runs that a person may ask for with one word: each quarter of an hour of a day."""
_LOOK_EVERY_S = 0.2


def register(runtime: Runtime, schedule: Schedule, *, module: str | None = None) -> Registered:
    """Make a schedule in the store, or let the one of its name be as this one.

    Raises:
        DefinitionError: an option of its workflow is of no use here, or its code cannot be found
            again.
    """
    [register_it] = prepared(runtime, [schedule])
    return register_it(module=module)


def prepared(runtime: Runtime, schedules: Sequence[Schedule]) -> list[Callable[..., Registered]]:
    """Return what registers each of some schedules, and takes ``module=``; none is so far.

    Raises:
        DefinitionError: one of them cannot be registered, as ``register`` says.
    """
    return [_prepared(runtime, each) for each in schedules]


def _prepared(runtime: Runtime, schedule: Schedule) -> Callable[..., Registered]:
    times = {name: value for name, value in schedule.inputs.items() if isinstance(value, Moment)}
    stored = stored_template(
        runtime,
        schedule.workflow,
        {name: value for name, value in schedule.inputs.items() if name not in times},
        pending=times,
        code=schedule.code,
        what=f"schedule {schedule.name!r}",
    )
    placeholders = {
        name: Placeholder(moment=moment, form=schedule.form_of(name))
        for name, moment in times.items()
    }
    run = msgspec.structs.replace(stored.run, placeholders=placeholders)
    return partial(
        registry_of(runtime).register,
        Definition(schedule=schedule.times, run=run),
        plan=stored.plan,
        blobs=stored.blobs,
    )


class ScheduleHandle:
    """A schedule in a store: how it stands, what became of its ticks, and verbs."""

    def __init__(self, client: Perdure, name: str) -> None:
        self._client = client
        self._runtime = client.runtime
        self._schedules = client.runtime.store.schedules
        self.name = name

    def __repr__(self) -> str:
        return f"<schedule {self.name}: {self.standing}>"

    @property
    def record(self) -> ScheduleRecord:
        """Return its row. Raises ScheduleNotFound."""
        return self._schedules.get_schedule(self.name)

    @property
    def definition(self) -> Definition:
        """Return when it is due, and what runs then."""
        return Definition.from_json(self.record.definition)

    @property
    def standing(self) -> str:
        """Say what comes next, or why nothing does."""
        record = self.record
        schedule = Definition.from_json(record.definition).schedule
        return standing(schedule, state_of(record), self._runtime.clock.now())

    def next(self, count: int = 5) -> tuple[NominalTime, ...]:
        """Return the next times, as its zone shows them and in UTC."""
        record = self.record
        schedule = Definition.from_json(record.definition).schedule
        since = max(state_of(record).decided_through, self._runtime.clock.now())
        return schedule.upcoming(since, count)

    def ticks(self, limit: int = 100) -> list[TickRecord]:
        """Return what became of its times, newest first, each with the reason."""
        return self._schedules.list_ticks(TickQuery(schedule=self.name, limit=limit))

    def pause(self, reason: str = "by hand") -> None:
        """Let no tick fire until it is resumed; runs go on."""
        self._registry.pause(self.name, reason)

    def resume(self) -> None:
        """Let ticks fire again, from now on: what was due meanwhile is skipped."""
        self._registry.resume(self.name)

    def remove(self) -> bool:
        """Remove it with its ticks; its runs stay. Returns whether it was there."""
        return self._schedules.remove(self.name)

    # --- runs by hand -------------------------------------------------------------------------
    def trigger(self) -> Run:
        """Make a run now, whatever the policies say, and whether or not it is paused.

        Its ``fire_time`` is now, its id ``NAME-manual-<UTC time>``. Like all runs by hand it
        waits for no run of the schedule, and no tick waits for it.
        """
        run_id = self._by_hand.trigger(self.name)
        self._client.tell_if_unserved(run_id)
        return Run(run_id, self._client)

    def run_at(self, day: Instant) -> list[Run]:
        """Make the run of each nominal time of a day now, whatever the policies say.

        They have the ids that the ticks give: a time that has a run keeps it. Times that have yet
        to come are left to their ticks.

        Args:
            day: a date, or one instant; naive ones and text are read in the schedule's zone.

        Returns:
            The runs of these times, made now or there before.

        Raises:
            ScheduleError: no time of the schedule that has come is there, the error names the
                nearest; or there are more than ``MOST_AT_ONCE``, which are for ``backfill``.
        """
        schedule, now = self.definition.schedule, self._runtime.clock.now()
        first = instant_of(day, schedule.zone, what="day")
        if first > now:
            raise ScheduleError(
                f"{schedule.nominal(first).text} has yet to come, and the ticks of schedule "
                f"{self.name} make the runs of then; for a run of now write "
                f"`perdure schedule trigger {self.name}`"
            )
        last = min(now, end_of(day, schedule.zone, what="day"))
        times = times_within(schedule, first, last)
        if len(times) > MOST_AT_ONCE:
            raise ScheduleError(
                f"{self.name} has {len(times):,} times in there, more than {MOST_AT_ONCE} at once. "
                f"Some of them at a time makes `perdure schedule backfill {self.name} --from "
                f"{shlex.quote(str(day))}`, and --dry-run says which"
            )
        wishes = self._by_hand.wishes(schedule, times, Reprocess.NONE, "")
        for wish in wishes:
            if wish.is_made:
                self._by_hand.grant(self.name, wish, Why.BY_HAND)
        self._client.tell_if_unserved(wishes[0].run_id)
        return [Run(RunId(wish.run_id), self._client) for wish in wishes]

    def backfill(
        self,
        start: Instant,
        end: Instant | None = None,
        *,
        reprocess: Reprocess | str = "none",
        max_active: int | None = 4,
        dry_run: bool = False,
        id: str | None = None,
        tell: Callable[[Wish], object] = lambda wish: None,
    ) -> list[Wish]:
        """Make the runs that the times of a range have not had; returns when all of them are made.

        To interrupt it and to begin it again is safe: what is made is not made again. Each run is
        noted in the ledger.

        Args:
            start: first instant; naive ones and text are read in the schedule's zone.
            end: last instant, of a date the end of its day; never later than now.
            reprocess: which times get another run though theirs is over: ``"none"``, ``"failed"``
                or ``"all"``. These have ids of their own, ``...-again-ID``.
            max_active: at most so many of its runs go on at one time; None: any number.
            dry_run: only say what would be made.
            id: names the backfill, where ``reprocess`` is not ``"none"``: an interrupted one is
                begun again by its id. By default the time, in UTC.
            tell: called with each wish when its run has been made.

        Returns:
            Of each time what becomes of it, and why; in the order of the times.

        Raises:
            ScheduleError: there is no time in the range, or there are too many.
        """
        schedule, now = self.definition.schedule, self._runtime.clock.now()
        if max_active is not None and max_active < 1:
            raise ScheduleError(f"max_active={max_active} makes no run: write at least 1, or None")
        first = instant_of(start, schedule.zone, what="start")
        last = now if end is None else min(now, end_of(end, schedule.zone, what="end"))
        times = times_within(schedule, first, last)
        name = id if id is not None else stamp(now.replace(microsecond=0))
        wishes = self._by_hand.wishes(schedule, times, reprocess_of(reprocess), name)
        return wishes if dry_run else self._fulfilled(wishes, max_active, tell)

    def _fulfilled(
        self, wishes: list[Wish], max_active: int | None, tell: Callable[[Wish], object]
    ) -> list[Wish]:
        """Make the runs of wishes, in order, as those that go on leave room.

        Returns:
            What became of each: also somebody else may make what is wished for here.
        """
        active = {wish.run_id for wish in wishes if wish.goes_on}
        became: list[Wish] = []
        for wish in wishes:
            if not wish.is_made:
                became.append(wish)
                continue
            while max_active is not None and len(active) >= max_active:
                self._client.tell_if_unserved(min(active))
                self._client.wait_a_moment(_LOOK_EVERY_S)
                active = {each for each in active if self._is_live(each)}
            is_ours = self._by_hand.grant(self.name, wish, Why.BACKFILL)
            active.add(wish.run_id)
            became.append(wish if is_ours else made_by_others(wish))
            if is_ours:
                tell(wish)
        if active:
            self._client.tell_if_unserved(min(active))
        return became

    def _is_live(self, run_id: str) -> bool:
        record = self._runtime.store.find_run(RunId(run_id))
        return record is not None and record.status in RUN_LIVE

    @property
    def _registry(self) -> Registry:
        return registry_of(self._runtime)

    @property
    def _by_hand(self) -> ByHand:
        return ByHand(self._runtime.store, self._registry)


def registry_of(runtime: Runtime) -> Registry:
    """Return the verbs that change schedules of a store."""
    return Registry(runtime.store.schedules, runtime.values, runtime.clock)
