"""What every store does with ticks: each is decided once, with its run, and under its key."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_tick,
    a_value,
    an_owner,
    an_unplanned_run,
    built,
    by,
    claimed,
    created,
    digest,
    fired,
    kinds,
    registered,
)
from perdure_storage.errors import (
    InternalError,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Place, RunEnd, RunId, RunQuery
from perdure_storage.schedule_records import (
    InLine,
    ScheduleChange,
    ScheduleRecord,
    ScheduleRuns,
    TickQuery,
)

_replace = msgspec.structs.replace

_RUN = RunId("run")
_SECOND = timedelta(seconds=1)
_OF_NIGHTLY = TickQuery(schedule="nightly")


class TickContract:
    """Ticks of schedules, and the runs that they make."""

    # --- firing ----------------------------------------------------------------------------------
    def test_fire_writes_state_tick_and_run_together(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        read = registered(store)
        clock.advance(1)
        new = _replace(read, state="1", next_at=None, wakes_below=1, waits_since=NOW, paused=True)
        new = _replace(new, ended=True)
        run = an_unplanned_run(inputs={"day": a_value("1")}, tags={"by": "nightly"})

        report = store.schedules.fire([fired(new, run)])

        assert report.made == (_RUN,)
        assert report.refused == {}
        stored = store.schedules.get_schedule("nightly")
        assert stored == _replace(new, version=2, updated_at=clock.now())
        assert report.fired == {"nightly": stored}
        tick = a_tick(decision="fire", run_id=_RUN)
        assert store.schedules.list_ticks(_OF_NIGHTLY) == [tick]
        assert store.get_run(_RUN) == _replace(run, schedule="nightly", seq=1)
        assert kinds(store) == ["submitted"]

    def test_fire_changes_nothing_of_the_definition(self, store: RunStore) -> None:
        read = registered(store, definition="as registered")

        store.schedules.fire([ScheduleChange(schedule=_replace(read, state="1"))])

        stored = store.schedules.get_schedule("nightly")
        assert (stored.definition, stored.state) == ("as registered", "1")

    def test_second_dispatcher_changes_nothing_and_hears_what_is_there(
        self, store: RunStore
    ) -> None:
        read = registered(store)
        store.schedules.fire([fired(_replace(read, state="first"), an_unplanned_run())])
        first = store.schedules.get_schedule("nightly")

        late = fired(_replace(read, state="second"), an_unplanned_run("other"))
        report = store.schedules.fire([late])

        assert report.fired == {}
        assert report.made == ()
        assert report.refused["nightly"].kind == "stale"
        assert "version 2" in report.refused["nightly"].message
        assert store.schedules.get_schedule("nightly") == first
        assert store.find_run(RunId("other")) is None
        assert len(store.schedules.list_ticks(_OF_NIGHTLY)) == 1

    def test_fire_of_a_schedule_that_was_removed_changes_nothing(self, store: RunStore) -> None:
        read = registered(store)
        store.schedules.remove("nightly")

        report = store.schedules.fire([fired(read, an_unplanned_run())])

        assert report.refused["nightly"].kind == "gone"
        assert store.find_run(_RUN) is None

    def test_one_schedule_of_a_batch_that_moved_leaves_the_others_be(self, store: RunStore) -> None:
        reads = {name: registered(store, name) for name in ("a", "b", "c")}
        store.schedules.fire([ScheduleChange(schedule=reads["b"])])

        batch = [fired(reads[name], an_unplanned_run(f"of {name}")) for name in ("c", "a", "b")]
        report = store.schedules.fire(batch)

        assert set(report.fired) == {"a", "c"}
        assert set(report.refused) == {"b"}
        assert report.made == ("of a", "of c")
        assert [run.id for run in store.list_runs(RunQuery())] == ["of c", "of a"]

    def test_run_whose_id_is_taken_is_not_made_again(self, store: RunStore) -> None:
        there = created(store)
        read = registered(store)

        report = store.schedules.fire([fired(read, an_unplanned_run())])

        assert report.made == ()
        assert set(report.fired) == {"nightly"}
        assert store.get_run(_RUN) == there
        assert [tick.run_id for tick in store.schedules.list_ticks(_OF_NIGHTLY)] == [_RUN]

    def test_run_that_was_deleted_is_not_made_again_while_it_leaves_anything(
        self, store: RunStore
    ) -> None:
        claimed(store)
        _end(store, "run", RunStatus.SUCCEEDED, is_claimed=True)
        store.delete_run(_RUN)

        report = store.schedules.fire([fired(registered(store), an_unplanned_run())])

        assert report.made == ()
        assert store.find_run(_RUN) is None

    def test_removed_schedule_that_is_registered_again_doubles_no_run(
        self, store: RunStore
    ) -> None:
        store.schedules.fire([fired(registered(store), an_unplanned_run())])
        store.schedules.remove("nightly")

        report = store.schedules.fire([fired(registered(store), an_unplanned_run())])

        assert report.made == ()
        assert kinds(store) == ["submitted"]

    def test_fire_cancels_runs_that_are_live_and_leaves_the_others(self, store: RunStore) -> None:
        claimed(store, "live")
        claimed(store, "over")
        _end(store, "over", RunStatus.SUCCEEDED, is_claimed=True)
        cancels = (RunId("over"), RunId("live"), RunId("never there"))

        store.schedules.fire([ScheduleChange(schedule=registered(store), cancels=cancels)])

        assert store.get_run(RunId("live")).cancel_requested
        assert kinds(store, "live")[-1] == "cancel requested"
        assert not store.get_run(RunId("over")).cancel_requested

    def test_stale_fire_cancels_nothing(self, store: RunStore) -> None:
        read = registered(store)
        claimed(store)
        store.schedules.fire([ScheduleChange(schedule=read)])

        store.schedules.fire([ScheduleChange(schedule=read, cancels=(_RUN,))])

        assert not store.get_run(_RUN).cancel_requested

    def test_fire_refuses_blobs_that_are_being_collected(self, store: RunStore) -> None:
        store.condemn([digest("taken")])
        run = an_unplanned_run(inputs={"x": a_value(place=Place.BLOB, name="taken")})
        reads = [registered(store, "a"), registered(store, "b")]

        report = store.schedules.fire(
            [fired(reads[0], run), fired(reads[1], an_unplanned_run("b-run"))]
        )

        assert report.refused["a"].kind == "condemned"
        assert report.refused["a"].digests == (digest("taken"),)
        assert store.schedules.get_schedule("a") == reads[0]
        assert report.made == ("b-run",)

    def test_inputs_of_a_run_that_fire_made_are_referred_to(self, store: RunStore) -> None:
        run = an_unplanned_run(inputs={"x": a_value(place=Place.BLOB, name="input")})

        store.schedules.fire([fired(registered(store), run)])

        assert store.unreferenced([digest("input")]) == []

    @pytest.mark.parametrize("reason", ["nul \0", "lone \ud800"])
    def test_row_that_no_database_could_keep_costs_its_own_schedule_only(
        self, store: RunStore, reason: str
    ) -> None:
        reads = {name: registered(store, name) for name in ("a", "b")}
        bad = ScheduleChange(schedule=reads["a"], ticks=(a_tick("a", reason=reason),))

        report = store.schedules.fire([bad, fired(reads["b"], an_unplanned_run())])

        assert report.refused["a"].kind == "rejected"
        assert store.schedules.get_schedule("a") == reads["a"]
        assert report.made == (_RUN,)

    def test_run_of_a_plan_that_is_not_there_costs_its_own_schedule_only(
        self, store: RunStore
    ) -> None:
        reads = {name: registered(store, name) for name in ("a", "b", "c")}
        homeless = _replace(an_unplanned_run("homeless"), plan_digest=digest("nowhere"))

        batch = [fired(reads[name], an_unplanned_run(name)) for name in ("a", "c")]
        report = store.schedules.fire([*batch, fired(reads["b"], homeless)])

        assert report.refused["b"].kind == "rejected"
        assert store.schedules.get_schedule("b") == reads["b"]
        assert report.made == ("a", "c")
        assert store.find_run(RunId("homeless")) is None

    def test_batch_holds_a_schedule_once_and_its_own_rows(self, store: RunStore) -> None:
        read = registered(store)
        twice = [ScheduleChange(schedule=read)] * 2
        others_tick = [ScheduleChange(schedule=read, ticks=(a_tick("other"),))]
        nobodys_run = [ScheduleChange(schedule=read, runs=(an_unplanned_run(),))]

        for batch in (twice, others_tick, nobodys_run):
            with pytest.raises(InternalError):
                store.schedules.fire(batch)
        assert store.schedules.fire([]).fired == {}

    def test_what_was_fired_is_seen_as_a_change(self, store: RunStore) -> None:
        read = registered(store)
        before = store.changes()

        store.schedules.fire([fired(read, an_unplanned_run())])

        assert store.changes() != before

    # --- concurrency keys ------------------------------------------------------------------------
    def test_of_two_that_fire_under_one_key_at_once_one_lands(self, store: RunStore) -> None:
        reads = [registered(store, name, concurrency="warehouse") for name in ("a", "b")]
        batch = [_fired_under_key(store, read, f"of {read.name}") for read in reads]

        for changes in ([batch[1]], [batch[0]]):
            last = store.schedules.fire(changes)

        assert store.list_runs(RunQuery(schedule="a")) == []
        assert last.refused["a"].kind == "stale"
        assert "warehouse" in last.refused["a"].message
        assert store.schedules.get_schedule("a") == reads[0]

    def test_of_two_that_fire_under_one_key_in_one_batch_one_lands(self, store: RunStore) -> None:
        reads = [registered(store, name, concurrency="warehouse") for name in ("a", "b")]

        batch = [_fired_under_key(store, read, f"of {read.name}") for read in reads]
        report = store.schedules.fire(batch)

        assert report.made == ("of a",)
        assert {name: each.kind for name, each in report.refused.items()} == {"b": "stale"}

    def test_what_makes_no_run_that_counts_overtakes_nobody(self, store: RunStore) -> None:
        reads = {name: registered(store, name, concurrency="warehouse") for name in ("a", "b", "c")}
        firing = _fired_under_key(store, reads["a"], "of a")
        by_hand = _fired_under_key(store, reads["b"], "of b", by_hand=True)
        skipping = ScheduleChange(schedule=reads["c"], ticks=(a_tick("c"),))

        reports = [store.schedules.fire([each]) for each in (by_hand, skipping, firing)]

        assert [list(report.fired) for report in reports] == [["b"], ["c"], ["a"]]

    def test_fire_that_is_refused_leaves_its_key_to_the_next(self, store: RunStore) -> None:
        reads = {name: registered(store, name, concurrency="warehouse") for name in ("a", "b")}
        store.schedules.fire([ScheduleChange(schedule=reads["a"])])

        batch = [_fired_under_key(store, reads[name], f"of {name}") for name in ("a", "b")]

        assert store.schedules.fire(batch).made == ("of b",)

    def test_keys_do_not_stand_in_each_others_way(self, store: RunStore) -> None:
        reads = [registered(store, name, concurrency=f"key of {name}") for name in ("a", "b")]

        batch = [_fired_under_key(store, read, f"of {read.name}") for read in reads]

        assert store.schedules.fire(batch).made == ("of a", "of b")

    def test_who_decided_before_another_entered_the_key_decides_again(
        self, store: RunStore
    ) -> None:
        read = registered(store, "a", concurrency="warehouse")
        decided = _fired_under_key(store, read, "of a")
        busy = registered(store, "b")
        store.schedules.fire([fired(busy, an_unplanned_run("of b"))])

        entering = _replace(store.schedules.get_schedule("b"), concurrency="warehouse")
        assert store.schedules.register(ScheduleChange(schedule=entering)) is not None

        assert store.schedules.fire([decided]).refused["a"].kind == "stale"
        assert store.schedules.runs_of("a", concurrency="warehouse").live == ("of b",)

    def test_register_makes_no_run_under_a_key_that_another_fired_under(
        self, store: RunStore
    ) -> None:
        reads = [registered(store, name, concurrency="warehouse") for name in ("a", "b")]
        changing, firing = (_fired_under_key(store, read, f"of {read.name}") for read in reads)
        store.schedules.fire([firing])

        assert store.schedules.register(changing) is None

        assert store.find_run(RunId("of a")) is None
        assert store.schedules.get_schedule("a") == reads[0]

    def test_runs_are_not_made_under_a_key_that_was_not_read(self, store: RunStore) -> None:
        read = registered(store, concurrency="warehouse")

        with pytest.raises(InternalError, match="concurrency"):
            store.schedules.fire([fired(read, an_unplanned_run())])

    def test_live_runs_of_a_key_are_those_of_all_its_schedules(self, store: RunStore) -> None:
        for name, key in (("a", "warehouse"), ("b", "warehouse"), ("c", "other"), ("d", None)):
            read = registered(store, name, concurrency=key)
            store.schedules.fire([_fired_under_key(store, read, f"of {name}")])

        of_key = store.schedules.runs_of("a", concurrency="warehouse")

        assert of_key.live == ("of a", "of b")
        assert of_key.of_others == {"of b": "b"}
        assert store.schedules.runs_of("a").live == ("of a",)

    def test_end_of_a_run_wakes_who_waits_longest_under_its_key(self, store: RunStore) -> None:
        waits = {"next_at": None, "wakes_below": 1}
        for name, key, since in (
            ("first", "warehouse", NOW),
            ("second", "warehouse", NOW),
            ("third", "warehouse", NOW + _SECOND),
            ("apart", "other", NOW + _SECOND),
        ):
            registered(store, name, concurrency=key, waits_since=since, **waits)
        busy = registered(store, "busy", next_at=None, concurrency="warehouse")
        store.schedules.fire([_fired_under_key(store, busy, "of busy")])
        assert _names(store.schedules.due(NOW)) == ["apart"]

        store.request_cancel(RunId("of busy"))

        assert _names(store.schedules.due(NOW)) == ["apart", "first"]
        ahead = store.schedules.runs_of("second", concurrency="warehouse").first
        assert ahead == InLine(since=NOW, schedule="first")
        ahead = store.schedules.runs_of("first", concurrency="warehouse").first
        assert ahead == InLine(since=NOW, schedule="second")

    def test_who_waits_behind_a_schedule_that_is_removed_is_next(self, store: RunStore) -> None:
        waits = {"next_at": None, "wakes_below": 1, "concurrency": "warehouse"}
        registered(store, "first", waits_since=NOW, **waits)
        registered(store, "second", waits_since=NOW + _SECOND, **waits)
        before = store.changes()

        store.schedules.remove("first")

        assert store.changes() != before
        assert _names(store.schedules.due(NOW)) == ["second"]

    # --- ticks -----------------------------------------------------------------------------------
    def test_ticks_are_kept_with_every_field_newest_first(self, store: RunStore) -> None:
        row = a_tick(
            at=NOW,
            last=NOW + 3 * _SECOND,
            count=4,
            decision="miss",
            why="late",
            reason="nobody decided it in time: ünï",
            decided_at=NOW + timedelta(hours=1),
        )
        one = a_tick(at=NOW + 4 * _SECOND, decision="fire", run_id=RunId("r"), code="package:flow")

        store.schedules.fire([ScheduleChange(schedule=registered(store), ticks=(row, one))])

        assert store.schedules.list_ticks(_OF_NIGHTLY) == [one, row]
        assert store.schedules.list_ticks(TickQuery(schedule="other")) == []

    def test_ticks_are_listed_by_pages_and_by_time(self, store: RunStore) -> None:
        ticks = [a_tick(at=NOW + n * _SECOND) for n in range(5)]
        store.schedules.fire([ScheduleChange(schedule=registered(store), ticks=tuple(ticks))])

        def page(**more: object) -> list[int]:
            query = TickQuery(schedule="nightly", **more)  # type: ignore[arg-type]
            return [(tick.at - NOW).seconds for tick in store.schedules.list_ticks(query)]

        assert page(limit=2) == [4, 3]
        assert page(limit=2, before=NOW + 3 * _SECOND) == [2, 1]
        assert page(since=NOW + _SECOND, before=NOW + 3 * _SECOND) == [2, 1]

    def test_newest_tick_is_found_of_each_schedule_that_has_one(self, store: RunStore) -> None:
        nightly, hourly = registered(store), registered(store, name="hourly")
        registered(store, name="new")
        for schedule, count in ((nightly, 3), (hourly, 1)):
            ticks = [a_tick(schedule=schedule.name, at=NOW + n * _SECOND) for n in range(count)]
            store.schedules.fire([ScheduleChange(schedule=schedule, ticks=tuple(ticks))])

        found = store.schedules.newest_ticks(["nightly", "hourly", "new", "gone"])

        assert {name: tick.at - NOW for name, tick in found.items()} == {
            "nightly": 2 * _SECOND,
            "hourly": timedelta(0),
        }
        assert set(store.schedules.newest_ticks(["hourly"])) == {"hourly"}

    def test_later_decision_about_a_tick_stands(self, store: RunStore) -> None:
        schedule = registered(store)
        deferred = a_tick(decision="defer", reason="waits")
        report = store.schedules.fire([ScheduleChange(schedule=schedule, ticks=(deferred,))])

        made = a_tick(decision="fire", run_id=_RUN)
        twice = ScheduleChange(schedule=report.fired["nightly"], ticks=(deferred, made))
        store.schedules.fire([twice])

        assert store.schedules.list_ticks(_OF_NIGHTLY) == [made]

    def test_tick_that_has_made_a_run_keeps_its_row(self, store: RunStore) -> None:
        made = a_tick(decision="fire", run_id=_RUN)
        change = ScheduleChange(schedule=registered(store), ticks=(made,))
        report = store.schedules.fire([change])

        again = ScheduleChange(schedule=report.fired["nightly"], ticks=(a_tick(),))
        store.schedules.fire([again])

        assert store.schedules.list_ticks(_OF_NIGHTLY) == [made]

    def test_tick_that_makes_another_run_names_that_one(self, store: RunStore) -> None:
        change = ScheduleChange(
            schedule=registered(store), ticks=(a_tick(decision="fire", run_id=_RUN),)
        )
        report = store.schedules.fire([change])
        other = a_tick(decision="fire", run_id=RunId("another"))

        again = ScheduleChange(schedule=report.fired["nightly"], ticks=(other,))
        store.schedules.fire([again])

        assert store.schedules.list_ticks(_OF_NIGHTLY) == [other]

    def test_forget_ticks_removes_the_old_ones_a_portion_at_a_time(self, store: RunStore) -> None:
        for name in ("a", "b"):
            ticks = [a_tick(name, NOW + n * _SECOND) for n in range(4)]
            row = a_tick(name, NOW - _SECOND, last=NOW + 9 * _SECOND, count=2)
            change = ScheduleChange(schedule=registered(store, name), ticks=(row, *ticks))
            store.schedules.fire([change])
        before = NOW + 2 * _SECOND

        told = [store.schedules.forget_ticks(before, limit=3) for _ in range(3)]

        assert told == [3, 1, 0]
        for name in ("a", "b"):
            ticks = store.schedules.list_ticks(TickQuery(schedule=name))
            # A row of ticks is forgotten when its last one is old.
            assert [(tick.at - NOW) // _SECOND for tick in ticks] == [3, 2, -1]

    def test_trim_ticks_keeps_the_newest_of_one_schedule(self, store: RunStore) -> None:
        for name in ("a", "b"):
            ticks = [a_tick(name, NOW + n * _SECOND) for n in range(6)]
            change = ScheduleChange(schedule=registered(store, name), ticks=tuple(ticks))
            store.schedules.fire([change])

        told = [store.schedules.trim_ticks("a", 2, limit=3) for _ in range(3)]

        assert told == [3, 1, 0]
        assert store.schedules.trim_ticks("nobody", 2) == 0
        left = [len(store.schedules.list_ticks(TickQuery(schedule=name))) for name in ("a", "b")]
        assert left == [2, 6]
        assert store.schedules.list_ticks(TickQuery(schedule="a"))[0].at == NOW + 5 * _SECOND
        assert store.schedules.trim_ticks("a", 0) == 2

    # --- runs ------------------------------------------------------------------------------------
    def test_live_runs_of_a_schedule_are_those_that_it_made_the_oldest_first(
        self, store: RunStore
    ) -> None:
        runs = [
            an_unplanned_run("new", created_at=NOW + _SECOND),
            an_unplanned_run("old", created_at=NOW),
            an_unplanned_run("over", created_at=NOW),
        ]
        store.schedules.fire([fired(registered(store), *runs)])
        created(store, "by hand")
        store.schedules.fire([fired(registered(store, "b"), an_unplanned_run("of b"))])
        store.request_cancel(RunId("over"))
        store.request_pause(RunId("new"), True)

        assert store.schedules.runs_of("nightly").live == ("old", "new")
        assert store.schedules.runs_of("nobody") == ScheduleRuns()

    def test_runs_by_hand_are_counted_neither_as_live_nor_as_failed_nor_as_succeeded(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        names = {"failed": False, "failed by hand": True, "succeeded by hand": True, "live": True}
        runs = [an_unplanned_run(name, by_hand=by_hand) for name, by_hand in names.items()]
        store.schedules.fire([fired(registered(store, wakes_below=1), *runs)])
        for name in ("failed", "failed by hand", "succeeded by hand"):
            clock.advance(1)
            _end(store, name, RunStatus[name.split()[0].upper()])

        assert store.schedules.runs_of("nightly") == ScheduleRuns(failed_in_a_row=1)
        assert _names(store.schedules.due(NOW)) == ["nightly"]
        assert store.get_run(RunId("live")).by_hand
        assert [run.by_hand for run in store.list_runs(RunQuery())].count(False) == 1

    def test_failures_count_since_the_last_success_by_when_they_ended(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        store.register(an_owner(), LEASE_S * 100)
        names = ["f1", "s1", "f2", "f3", "c1"]
        runs = [an_unplanned_run(name, created_at=NOW) for name in names]
        store.schedules.fire([fired(registered(store), *runs)])
        counts = []
        resumed_at = None

        for name in names:
            clock.advance(1)
            status = {"f": RunStatus.FAILED, "s": RunStatus.SUCCEEDED, "c": RunStatus.CANCELLED}
            _end(store, name, status[name[0]])
            counts.append(store.schedules.runs_of("nightly").failed_in_a_row)
            resumed_at = clock.now() if name == "f2" else resumed_at

        assert counts == [1, 0, 1, 2, 2]
        assert store.schedules.runs_of("nightly", since=resumed_at).failed_in_a_row == 1
        assert store.schedules.runs_of("nightly", since=clock.now()).failed_in_a_row == 0

    def test_runs_of_a_schedule_are_listed(self, store: RunStore) -> None:
        store.schedules.fire([fired(registered(store), an_unplanned_run())])
        created(store, "by hand")

        found = store.list_runs(RunQuery(schedule="nightly"))

        assert [run.id for run in found] == [_RUN]
        assert found[0].plan_digest is None


def _fired_under_key(
    store: RunStore, read: ScheduleRecord, run_id: str, *, by_hand: bool = False
) -> ScheduleChange:
    """Return what was decided about a schedule after its key was read: one run."""
    key = store.schedules.runs_of(read.name, concurrency=read.concurrency).key
    return fired(read, an_unplanned_run(run_id, by_hand=by_hand), key=key)


def _end(
    store: RunStore, name: str, status: RunStatus, *, plan: str = "plan", is_claimed: bool = False
) -> None:
    """Let a run go to its end."""
    store.register(an_owner(), LEASE_S * 100)
    run = store.get_run(RunId(name))
    if not is_claimed:
        taken = store.claim_run(run.id, an_owner(), built=built(plan))
        assert taken is not None
        run = taken
    assert run.id in store.commit([by(run, end=RunEnd(status=status))]).committed


def _names(schedules: list[ScheduleRecord]) -> list[str]:
    return [schedule.name for schedule in schedules]
