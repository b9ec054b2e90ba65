"""What every store does with triggers: arrivals count once, with their runs and their cursor.

And with the events and the ends of runs of which triggers want to know.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_message,
    a_plan,
    a_trigger,
    a_value,
    an_arrival,
    an_owner,
    an_unplanned_run,
    arrived,
    built,
    by,
    claimed,
    created,
    digest,
    ended,
    watched,
)
from perdure_storage.errors import (
    BlobsCondemned,
    InternalError,
    StoreError,
    TriggerNotFound,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Place, PlanRecord, RunEnd, RunId, RunQuery, RunRecord
from perdure_storage.trigger_records import (
    LONGEST_KEY_BYTES,
    ArrivalQuery,
    ArrivalRecord,
    TriggerChange,
    TriggerQuery,
    TriggerRecord,
)

_replace = msgspec.structs.replace

_RUN = RunId("run")
_SECOND = timedelta(seconds=1)
_OF_LANDED = ArrivalQuery(trigger="landed")


class TriggerContract:
    """Triggers, their arrivals and their runs."""

    # --- registering -----------------------------------------------------------------------------
    def test_trigger_is_kept_with_every_field(self, store: RunStore, clock: ManualClock) -> None:
        plan = a_plan("pinned", "code")
        full = a_trigger(
            definition='{"on":"files"}',
            digest="v1:full",
            module="package.module",
            plan_digest=plan.digest,
            blobs=(digest("bundle"),),
            events=("price", "rate"),
            heard=7,
            watches_runs=True,
            listens=True,
            state='{"cursors":{}}',
            next_at=NOW + timedelta(microseconds=1),
            paused=True,
        )

        made = store.triggers.register(TriggerChange(trigger=full), plan)

        at = clock.now()
        assert made == _replace(full, version=1, created_at=at, updated_at=at)
        assert store.triggers.get_trigger("landed") == made
        assert store.triggers.find_trigger("landed") == made
        assert store.get_plan(plan.digest) == plan

    def test_trigger_of_a_name_that_is_taken_is_not_registered_as_new(
        self, store: RunStore
    ) -> None:
        first = watched(store)

        again = TriggerChange(trigger=a_trigger(definition="another"), arrivals=(an_arrival(),))

        assert store.triggers.register(again) is None
        assert store.triggers.get_trigger("landed") == first
        assert store.triggers.list_arrivals(_OF_LANDED) == []

    def test_register_replaces_the_definition_of_the_version_that_was_read(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        first = watched(store, listens=True, events=("old",))
        clock.advance(5)

        new = _replace(first, definition="new", digest="v1:new", module="m", state="moved")
        new = _replace(new, listens=False, events=("new",), watches_runs=True)
        second = store.triggers.register(TriggerChange(trigger=new, arrivals=(an_arrival(),)))

        assert second == _replace(new, version=2, updated_at=clock.now())
        assert store.triggers.get_trigger("landed") == second
        assert [a.key for a in store.triggers.list_arrivals(_OF_LANDED)] == ["a.csv"]
        assert store.triggers.register(TriggerChange(trigger=new)) is None

    def test_registering_a_trigger_that_was_removed_meanwhile_changes_nothing(
        self, store: RunStore
    ) -> None:
        read = watched(store)
        store.triggers.remove("landed")

        assert store.triggers.register(TriggerChange(trigger=read)) is None
        assert store.triggers.find_trigger("landed") is None

    def test_register_makes_the_runs_of_new_arrivals_alone(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "known", run="first")])
        trigger = store.triggers.get_trigger("landed")

        both = arrived(trigger, "known", "new", run="second")
        second = store.triggers.register(both)

        assert second is not None
        assert {run.id for run in store.list_runs(RunQuery(trigger="landed"))} == {
            "first-known",
            "second-new",
        }
        known = store.triggers.known("landed", ["known"])["known"]
        assert known.run_id == "first-known"

    def test_plan_of_a_trigger_goes_when_another_takes_its_place(self, store: RunStore) -> None:
        old, new = a_plan("old", "old code"), a_plan("new", "new code")
        first = _watched_with(store, old)

        pinned = _replace(first, plan_digest=new.digest)
        second = store.triggers.register(TriggerChange(trigger=pinned), new)

        assert second is not None
        assert store.get_plan(new.digest) == new
        with pytest.raises(StoreError):
            store.get_plan(old.digest)
        assert store.unreferenced([digest("old code"), digest("new code")]) == [digest("old code")]

    def test_plan_of_a_trigger_stays_while_a_run_has_it(self, store: RunStore) -> None:
        plan = a_plan("pinned", "code")
        trigger = _watched_with(store, plan)
        change = arrived(trigger, "a.csv")
        planned = tuple(_replace(run, plan_digest=plan.digest) for run in change.runs)
        assert store.triggers.accept([_replace(change, runs=planned)]).made == ("run-a.csv",)

        store.triggers.remove("landed")

        assert store.get_plan(plan.digest) == plan
        assert store.unreferenced([digest("code")]) == []

    def test_plan_of_a_trigger_outlives_its_runs(self, store: RunStore) -> None:
        plan = a_plan("pinned", "code")
        trigger = _watched_with(store, plan)
        change = arrived(trigger, "a.csv")
        planned = tuple(_replace(run, plan_digest=plan.digest) for run in change.runs)
        store.triggers.accept([_replace(change, runs=planned)])
        _end(store, "run-a.csv", RunStatus.SUCCEEDED)

        store.delete_run(RunId("run-a.csv"))

        assert store.get_plan(plan.digest) == plan
        assert store.unreferenced([digest("code")]) == []

    def test_register_takes_no_other_plan_than_the_trigger_names(self, store: RunStore) -> None:
        for trigger, plan in (
            (a_trigger(), a_plan()),
            (a_trigger(plan_digest=digest("pinned")), None),
            (a_trigger(plan_digest=digest("pinned")), a_plan("other")),
        ):
            with pytest.raises(InternalError):
                store.triggers.register(TriggerChange(trigger=trigger), plan)

    def test_blobs_of_a_trigger_are_kept_as_long_as_it_names_them(self, store: RunStore) -> None:
        trigger = watched(store, blobs=(digest("a"), digest("b")))
        both = [digest("a"), digest("b")]
        assert store.unreferenced(both) == []

        second = store.triggers.register(
            TriggerChange(trigger=_replace(trigger, blobs=(digest("b"),)))
        )
        assert second is not None
        assert store.unreferenced(both) == [digest("a")]
        store.triggers.remove("landed")

        assert store.unreferenced(both) == both

    def test_register_of_a_trigger_refuses_blobs_that_are_being_collected(
        self, store: RunStore
    ) -> None:
        store.condemn([digest("taken")])
        plan = a_plan("pinned", "taken")
        by_name = TriggerChange(trigger=a_trigger(blobs=(digest("taken"),)))
        by_plan = TriggerChange(trigger=a_trigger(plan_digest=plan.digest))
        by_payload = TriggerChange(trigger=a_trigger(), arrivals=(_carrying("taken"),))

        for change, its_plan in ((by_name, None), (by_plan, plan), (by_payload, None)):
            with pytest.raises(BlobsCondemned) as refused:
                store.triggers.register(change, its_plan)
            assert refused.value.digests == (digest("taken"),)

        assert store.triggers.find_trigger("landed") is None

    @pytest.mark.parametrize("field", ["name", "definition", "state", "module", "digest"])
    @pytest.mark.parametrize("text", ["nul \0", "lone \ud800"])
    def test_trigger_that_no_database_could_keep_is_refused(
        self, store: RunStore, field: str, text: str
    ) -> None:
        trigger = a_trigger(**{field: text})

        with pytest.raises(StoreError):
            store.triggers.register(TriggerChange(trigger=trigger))

        assert store.triggers.list_triggers(TriggerQuery()) == []

    def test_removed_trigger_leaves_its_runs_and_nothing_else(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "a.csv")])

        assert store.triggers.remove("landed")
        assert not store.triggers.remove("landed")

        assert store.triggers.find_trigger("landed") is None
        assert store.triggers.list_arrivals(_OF_LANDED) == []
        assert store.get_run(RunId("run-a.csv")).trigger == "landed"
        with pytest.raises(TriggerNotFound, match="landed"):
            store.triggers.get_trigger("landed")

    def test_trigger_of_a_removed_name_makes_none_of_the_runs_again(self, store: RunStore) -> None:
        store.triggers.accept([arrived(watched(store), "a.csv")])
        store.triggers.remove("landed")

        report = store.triggers.accept([arrived(watched(store), "a.csv")])

        assert report.made == ()
        assert report.known == {}
        assert store.triggers.known("landed", ["a.csv"])["a.csv"].run_id == "run-a.csv"

    # --- accepting -------------------------------------------------------------------------------
    def test_arrival_its_run_and_the_state_land_together(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        trigger = watched(store)
        clock.advance(5)
        moved = _replace(trigger, state="moved", heard=4, next_at=NOW + _SECOND)

        report = store.triggers.accept([arrived(moved, "a.csv")])

        now = clock.now()
        new = _replace(moved, version=2, updated_at=now)
        assert report.accepted == {"landed": new}
        assert store.triggers.get_trigger("landed") == new
        assert report.made == ("run-a.csv",)
        run = store.get_run(RunId("run-a.csv"))
        assert (run.status, run.trigger, run.plan_digest) == ("QUEUED", "landed", None)
        assert run in [_replace(r, inputs=run.inputs) for r in store.claimable()]

    def test_accept_changes_nothing_of_the_definition(self, store: RunStore) -> None:
        trigger = watched(store, module="m", events=("price",), listens=True)
        other = _replace(trigger, definition="x", digest="v1:x", module="n", events=())
        other = _replace(other, listens=False, watches_runs=True, state="moved")

        store.triggers.accept([arrived(other, "a.csv")])

        stored = store.triggers.get_trigger("landed")
        kept = _replace(trigger, state="moved", version=2, updated_at=stored.updated_at)
        assert stored == kept

    def test_arrival_is_kept_with_every_field(self, store: RunStore) -> None:
        trigger = watched(store)
        full = an_arrival(
            "a.csv",
            condition="orders",
            at=NOW - _SECOND,
            facts='{"path":"a.csv"}',
            payload=a_value("whole"),
            decision="fired",
            why="new",
            reason="it is new",
            decided_at=NOW + _SECOND,
            run_id=RunId("run"),
            code="package:flow",
        )

        store.triggers.accept([TriggerChange(trigger=trigger, arrivals=(full,))])

        assert store.triggers.list_arrivals(_OF_LANDED) == [_replace(full, seq=1)]
        assert store.triggers.known("landed", ["a.csv"]) == {"a.csv": _replace(full, seq=1)}

    def test_accept_on_another_version_writes_nothing(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "a.csv")])

        report = store.triggers.accept([arrived(_replace(trigger, state="late"), "b.csv")])

        assert report.refused["landed"].kind == "stale"
        assert "version 2" in report.refused["landed"].message
        assert (report.accepted, report.made, report.known) == ({}, (), {})
        assert store.triggers.get_trigger("landed").state == "{}"
        assert [a.key for a in store.triggers.list_arrivals(_OF_LANDED)] == ["a.csv"]

    def test_arrivals_alone_land_whatever_the_version_is(self, store: RunStore) -> None:
        trigger = watched(store)
        moved = store.triggers.accept([arrived(_replace(trigger, state="moved"), "a.csv")])

        report = store.triggers.accept([arrived(trigger, "b.csv", moves=False)])

        assert report.made == ("run-b.csv",)
        assert report.accepted == moved.accepted
        assert store.triggers.get_trigger("landed") == moved.accepted["landed"]
        assert [a.key for a in store.triggers.list_arrivals(_OF_LANDED)] == ["b.csv", "a.csv"]

    @pytest.mark.parametrize("pausing", [True, False])
    def test_arrivals_alone_do_not_land_once_the_trigger_is_paused_or_resumed(
        self, store: RunStore, pausing: bool
    ) -> None:
        read = watched(store, paused=not pausing)
        turned = TriggerChange(trigger=_replace(read, paused=pausing))
        assert store.triggers.accept([turned]).accepted

        report = store.triggers.accept([arrived(read, "a.csv", moves=False)])

        assert report.refused["landed"].kind == "stale"
        assert store.triggers.list_arrivals(_OF_LANDED) == []
        assert store.find_run(RunId("run-a.csv")) is None

    def test_trigger_does_not_go_on_without_what_was_put_off_meanwhile(
        self, store: RunStore
    ) -> None:
        read = watched(store, paused=True)
        put_off = TriggerChange(
            trigger=read, moves=False, arrivals=(an_arrival(decision="deferred"),)
        )

        another = _replace(put_off, arrivals=(an_arrival("b.csv", decision="deferred"),))
        decided = tuple(an_arrival(key, decision="skipped") for key in ("a.csv", "b.csv"))
        going = TriggerChange(trigger=_replace(read, paused=False), revised=decided[:1])

        assert store.triggers.accept([put_off]).refused == {}
        assert store.triggers.accept([another]).refused == {}
        assert store.triggers.accept([going]).refused["landed"].kind == "stale"
        assert store.triggers.register(going) is None
        assert store.triggers.get_trigger("landed") == read
        assert store.triggers.accept([_replace(going, revised=decided)]).refused == {}

    def test_arrivals_alone_do_not_land_once_the_trigger_is_another_one(
        self, store: RunStore
    ) -> None:
        read = watched(store)
        again = _replace(read, definition="other", digest="v1:other")
        assert store.triggers.register(TriggerChange(trigger=again))

        report = store.triggers.accept([arrived(read, "a.csv", moves=False)])

        assert report.refused["landed"].kind == "stale"
        assert store.triggers.list_arrivals(_OF_LANDED) == []

    def test_arrival_whose_key_is_there_is_told_as_known_and_makes_no_run(
        self, store: RunStore
    ) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "a.csv", moves=False, run="first")])
        first = store.triggers.known("landed", ["a.csv"])["a.csv"]

        report = store.triggers.accept(
            [arrived(trigger, "a.csv", "b.csv", moves=False, run="second")]
        )

        assert report.known == {("landed", "a.csv"): first}
        assert report.made == ("second-b.csv",)
        assert report.accepted == {"landed": trigger}
        assert store.triggers.known("landed", ["a.csv"])["a.csv"] == first
        assert store.find_run(RunId("second-a.csv")) is None

    def test_key_that_is_there_leaves_out_what_rests_on_its_being_new(
        self, store: RunStore
    ) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "a.csv", moves=False)])

        report = store.triggers.accept([arrived(_replace(trigger, state="x"), "a.csv", "b.csv")])

        assert report.refused["landed"].kind == "stale"
        assert list(report.known) == [("landed", "a.csv")]
        assert store.triggers.get_trigger("landed") == trigger
        assert store.find_run(RunId("run-b.csv")) is None

    def test_keys_of_two_triggers_have_nothing_to_do_with_each_other(self, store: RunStore) -> None:
        one, other = watched(store), watched(store, "other")
        store.triggers.accept([arrived(one, "a.csv", run="one")])

        report = store.triggers.accept([arrived(other, "a.csv", run="other")])

        assert report.made == ("other-a.csv",)
        assert report.known == {}

    def test_arrival_without_a_run_is_kept_with_its_reason(self, store: RunStore) -> None:
        trigger = watched(store)
        filtered = an_arrival(decision="filtered", why="where", reason="size is 0")

        store.triggers.accept([TriggerChange(trigger=trigger, moves=False, arrivals=(filtered,))])

        assert store.triggers.list_arrivals(_OF_LANDED) == [_replace(filtered, seq=1)]
        assert store.list_runs(RunQuery()) == []

    def test_earlier_arrival_is_decided_anew_with_the_run_that_it_has_a_part_in(
        self, store: RunStore
    ) -> None:
        trigger = watched(store)
        held = an_arrival("a.csv", decision="held", reason="waits for b.csv", payload=a_value("a"))
        store.triggers.accept([TriggerChange(trigger=trigger, arrivals=(held,))])
        trigger = store.triggers.get_trigger("landed")

        used = an_arrival(
            "a.csv",
            facts="other",
            decision="used",
            why="part",
            reason="with b.csv",
            decided_at=NOW + _SECOND,
            run_id=RunId("run-b.csv"),
            code="package:flow",
        )
        change = _replace(arrived(_replace(trigger, state="done"), "b.csv"), revised=(used,))
        report = store.triggers.accept([change])

        assert report.made == ("run-b.csv",)
        stored = store.triggers.known("landed", ["a.csv"])["a.csv"]
        assert stored == _replace(used, seq=1, facts=held.facts, payload=held.payload, at=held.at)

    def test_deferred_arrival_makes_its_run_when_it_is_decided(self, store: RunStore) -> None:
        trigger = watched(store, paused=True)
        deferred = an_arrival(decision="deferred", reason="it is paused")
        store.triggers.accept([TriggerChange(trigger=trigger, moves=False, arrivals=(deferred,))])

        fired = arrived(_replace(trigger, paused=False), "a.csv")
        report = store.triggers.accept([_replace(fired, arrivals=(), revised=fired.arrivals)])

        assert report.made == ("run-a.csv",)
        assert store.triggers.known("landed", ["a.csv"])["a.csv"].decision == "fired"
        assert not store.triggers.get_trigger("landed").paused

    def test_run_whose_id_is_taken_is_not_made_again_and_the_arrival_names_it(
        self, store: RunStore
    ) -> None:
        trigger = watched(store)
        there = created(store, "run-a.csv")

        report = store.triggers.accept([arrived(trigger, "a.csv")])

        assert report.made == ()
        assert report.refused == {}
        assert store.get_run(there.id) == there
        assert store.triggers.known("landed", ["a.csv"])["a.csv"].run_id == there.id

    def test_run_that_was_deleted_is_not_made_again(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "a.csv")])
        _end(store, "run-a.csv", RunStatus.SUCCEEDED)
        store.delete_run(RunId("run-a.csv"))
        store.triggers.forget_arrivals("landed", NOW + _SECOND)

        report = store.triggers.accept([arrived(trigger, "a.csv", moves=False)])

        assert report.made == ()
        assert store.find_run(RunId("run-a.csv")) is None

    def test_changes_of_a_batch_land_each_by_its_own_guard(self, store: RunStore) -> None:
        late, fine = watched(store, "late"), watched(store, "fine")
        store.triggers.accept([TriggerChange(trigger=late)])
        lost = _replace(a_trigger("lost"), version=1)

        report = store.triggers.accept(
            [arrived(each, "a", run=each.name) for each in (lost, late, fine)]
        )

        assert {name: r.kind for name, r in report.refused.items()} == {
            "late": "stale",
            "lost": "gone",
        }
        assert list(report.accepted) == ["fine"]
        assert report.made == ("fine-a",)

    def test_accept_refuses_blobs_that_are_being_collected_and_lands_the_rest(
        self, store: RunStore
    ) -> None:
        one, other, fine = watched(store, "one"), watched(store, "other"), watched(store, "fine")
        store.condemn([digest("taken")])
        by_run = arrived(one, "a", run="one")
        blob = {"x": a_value("v", place=Place.BLOB, name="taken")}
        by_run = _replace(by_run, runs=(_replace(by_run.runs[0], inputs=blob),))
        by_payload = TriggerChange(trigger=other, arrivals=(_carrying("taken", "other"),))

        report = store.triggers.accept([by_run, by_payload, arrived(fine, "a", run="fine")])

        assert {name: r.kind for name, r in report.refused.items()} == {
            "one": "condemned",
            "other": "condemned",
        }
        assert report.refused["one"].digests == (digest("taken"),)
        assert report.made == ("fine-a",)
        assert store.triggers.list_arrivals(ArrivalQuery(trigger="other")) == []

    def test_arrival_that_no_database_could_keep_is_rejected_and_the_rest_lands(
        self, store: RunStore
    ) -> None:
        bad, fine = watched(store, "bad"), watched(store, "fine")
        nul = TriggerChange(trigger=bad, arrivals=(an_arrival("k", trigger="bad", why="\0"),))

        report = store.triggers.accept([nul, arrived(fine, "a")])

        assert report.refused["bad"].kind == "rejected"
        assert report.made == ("run-a",)
        assert store.triggers.list_arrivals(ArrivalQuery(trigger="bad")) == []

    def test_run_whose_plan_is_not_there_is_rejected_and_the_rest_lands(
        self, store: RunStore
    ) -> None:
        bad, fine = watched(store, "bad"), watched(store, "fine")
        planned = arrived(bad, "a", run="bad")
        planned = _replace(planned, runs=(_replace(planned.runs[0], plan_digest=digest("no")),))

        report = store.triggers.accept([planned, arrived(fine, "a")])

        assert report.refused["bad"].kind == "rejected"
        assert report.made == ("run-a",)
        assert store.triggers.get_trigger("bad") == bad

    def test_key_may_be_long_but_not_longer_than_an_index_takes(self, store: RunStore) -> None:
        trigger = watched(store)
        # Nothing that could be compressed, as an index does before it measures.
        text = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(LONGEST_KEY_BYTES // 3))
        fits = TriggerChange(trigger=trigger, moves=False, arrivals=(an_arrival(text),))
        longer = an_arrival(text + "abc")
        too_long = TriggerChange(trigger=trigger, moves=False, arrivals=(longer,))

        assert store.triggers.accept([fits]).refused == {}
        assert store.triggers.accept([too_long]).refused["landed"].kind == "rejected"

        assert list(store.triggers.known("landed", [text, longer.key])) == [text]

    def test_accept_takes_only_changes_whose_parts_belong_together(self, store: RunStore) -> None:
        trigger, other = watched(store), watched(store, "other")
        mine, twice = an_arrival(), (an_arrival(), an_arrival())
        nobodys = an_unplanned_run(trigger="landed")

        for change in (
            TriggerChange(trigger=other, arrivals=(mine,)),
            TriggerChange(trigger=trigger, arrivals=twice),
            TriggerChange(trigger=trigger, arrivals=(mine,), revised=(mine,)),
            TriggerChange(trigger=trigger, moves=False, revised=(mine,)),
            TriggerChange(trigger=trigger, arrivals=(mine,), runs=(nobodys,)),
            TriggerChange(trigger=trigger, runs=(an_unplanned_run(),)),
        ):
            with pytest.raises(InternalError):
                store.triggers.accept([change])
        with pytest.raises(InternalError):
            store.triggers.accept([TriggerChange(trigger=trigger)] * 2)

    def test_accept_and_remove_are_seen_as_changes(self, store: RunStore) -> None:
        trigger = watched(store)
        before = store.changes()

        store.triggers.accept([arrived(trigger, "a.csv")])
        between = store.changes()
        store.triggers.remove("landed")

        assert before != between
        assert between != store.changes()

    # --- arrivals --------------------------------------------------------------------------------
    def test_arrivals_are_paged_from_either_end(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, *"abcde", moves=False)])

        newest = store.triggers.list_arrivals(_replace(_OF_LANDED, limit=2))
        then = store.triggers.list_arrivals(_replace(_OF_LANDED, limit=2, beyond=newest[-1].seq))
        oldest = store.triggers.list_arrivals(_replace(_OF_LANDED, limit=2, oldest_first=True))
        later = _replace(_OF_LANDED, oldest_first=True, beyond=oldest[-1].seq)

        assert [a.key for a in newest + then] == ["e", "d", "c", "b"]
        assert [a.key for a in oldest] == ["a", "b"]
        assert [a.key for a in store.triggers.list_arrivals(later)] == ["c", "d", "e"]

    def test_newest_arrival_is_found_of_each_trigger_that_has_one(self, store: RunStore) -> None:
        store.triggers.accept([arrived(watched(store), "b", "a")])
        store.triggers.accept([arrived(watched(store, name="other"), "c")])
        watched(store, name="new")

        found = store.triggers.newest_arrivals(["landed", "other", "new", "gone"])

        assert {name: arrival.key for name, arrival in found.items()} == {
            "landed": "a",
            "other": "c",
        }
        assert set(store.triggers.newest_arrivals(["other"])) == {"other"}

    def test_arrivals_are_found_by_what_was_decided(self, store: RunStore) -> None:
        trigger = watched(store)
        decided = zip("abcd", ("held", "deferred", "held", "filtered"), strict=True)
        arrivals = tuple(an_arrival(key, decision=decision) for key, decision in decided)
        store.triggers.accept([TriggerChange(trigger=trigger, arrivals=arrivals)])

        held = _replace(_OF_LANDED, decision="held", oldest_first=True)

        assert [a.key for a in store.triggers.list_arrivals(held)] == ["a", "c"]
        newest = _replace(_OF_LANDED, decision="held", beyond=3)
        assert [a.key for a in store.triggers.list_arrivals(newest)] == ["a"]

    def test_known_finds_those_that_are_there_among_many(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, *map(str, range(0, 3000, 2)), moves=False)])

        known = store.triggers.known("landed", [str(n) for n in range(3000)])

        assert set(known) == {str(n) for n in range(0, 3000, 2)}
        assert store.triggers.known("other", ["0"]) == {}
        assert store.triggers.known("landed", []) == {}

    def test_payload_is_kept_while_its_arrival_is_there(self, store: RunStore) -> None:
        trigger = watched(store)
        both = (_carrying("one", key="a"), _carrying("two", key="b", decided_at=NOW + _SECOND))
        store.triggers.accept([TriggerChange(trigger=trigger, arrivals=both)])
        blobs = [digest("one"), digest("two")]
        assert store.unreferenced(blobs) == []

        store.triggers.forget_arrivals("landed", NOW + _SECOND)
        assert store.unreferenced(blobs) == [digest("one")]
        store.triggers.remove("landed")

        assert store.unreferenced(blobs) == blobs

    def test_payload_of_one_arrival_is_not_let_go_with_that_of_another_trigger(
        self, store: RunStore
    ) -> None:
        one, other = watched(store, "a"), watched(store, "a 1")
        for trigger in (one, other):
            carrying = _carrying("same", trigger.name)
            store.triggers.accept([TriggerChange(trigger=trigger, arrivals=(carrying,))])

        store.triggers.remove("a")

        assert store.unreferenced([digest("same")]) == []

    def test_old_arrivals_are_forgotten_but_for_those_to_be_decided_or_kept(
        self, store: RunStore
    ) -> None:
        trigger = watched(store)
        old = [
            an_arrival("old"),
            an_arrival("held", decision="held"),
            an_arrival("deferred", decision="deferred"),
            an_arrival("there"),
            an_arrival("young", decided_at=NOW + _SECOND),
        ]
        store.triggers.accept([TriggerChange(trigger=trigger, arrivals=tuple(old))])

        gone = store.triggers.forget_arrivals("landed", NOW + _SECOND, keep="there".__eq__)

        left = store.triggers.list_arrivals(_replace(_OF_LANDED, oldest_first=True))
        assert gone == 1
        assert [a.key for a in left] == ["held", "deferred", "there", "young"]

    def test_arrivals_are_forgotten_in_portions_past_those_that_are_kept(
        self, store: RunStore
    ) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, *"abcdefg", moves=False)])
        after = NOW + _SECOND

        told = [
            store.triggers.forget_arrivals("landed", after, keep="abc".__contains__, limit=3)
            for _ in range(3)
        ]

        assert told == [3, 1, 0]
        left = store.triggers.list_arrivals(_replace(_OF_LANDED, oldest_first=True))
        assert [a.key for a in left] == ["a", "b", "c"]

    def test_number_of_a_forgotten_arrival_is_not_given_again(self, store: RunStore) -> None:
        trigger = watched(store)
        store.triggers.accept([arrived(trigger, "a", "b", moves=False)])
        store.triggers.forget_arrivals("landed", NOW + _SECOND)

        store.triggers.accept([arrived(trigger, "a", moves=False)])

        assert [a.seq for a in store.triggers.list_arrivals(_OF_LANDED)] == [3]

    # --- listening -------------------------------------------------------------------------------
    def test_sources_are_taken_by_one_live_coordinator(self, store: RunStore) -> None:
        for token in ("one", "two"):
            store.register(an_owner(token), LEASE_S)
        for name in ("a", "b", "c"):
            watched(store, name, listens=True)
        watched(store, "deaf")
        watched(store, "paused", listens=True, paused=True)

        first = store.triggers.take_sources("one", limit=2)
        second = store.triggers.take_sources("two")

        assert [(t.name, t.listener, t.version) for t in first] == [
            ("a", "one", 1),
            ("b", "one", 1),
        ]
        assert [t.name for t in second] == ["c"]
        assert [t.name for t in store.triggers.take_sources("one")] == ["a", "b"]
        assert store.triggers.get_trigger("a").listener == "one"

    def test_sources_of_who_is_dead_or_gone_are_taken_over(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        watched(store, listens=True)
        for token in ("one", "two", "three"):
            store.register(an_owner(token), LEASE_S)
        store.triggers.take_sources("one")

        assert store.triggers.take_sources("two") == []
        assert [t.name for t in store.triggers.take_sources("two", seen_dead=["one"])] == ["landed"]
        store.unregister(an_owner("two"))
        assert [t.name for t in store.triggers.take_sources("three")] == ["landed"]
        clock.advance(LEASE_S + 1)
        store.register(an_owner("four"), LEASE_S)
        assert [t.name for t in store.triggers.take_sources("four")] == ["landed"]
        assert store.triggers.take_sources("three") == []

    def test_sources_that_are_left_are_anyones(self, store: RunStore) -> None:
        watched(store, listens=True)
        for token in ("one", "two"):
            store.register(an_owner(token), LEASE_S)
        store.triggers.take_sources("one")

        store.triggers.leave_sources("two")
        assert store.triggers.take_sources("two") == []
        store.triggers.leave_sources("one")

        assert store.triggers.get_trigger("landed").listener is None
        assert [t.listener for t in store.triggers.take_sources("two")] == ["two"]

    def test_listener_loses_what_is_paused_or_registered_anew(self, store: RunStore) -> None:
        store.register(an_owner(), LEASE_S)
        paused, renewed = watched(store, "p", listens=True), watched(store, "r", listens=True)
        assert len(store.triggers.take_sources("one")) == 2

        store.triggers.accept([TriggerChange(trigger=_replace(paused, paused=True))])
        store.triggers.register(TriggerChange(trigger=renewed))

        assert store.triggers.get_trigger("p").listener is None
        assert store.triggers.get_trigger("r").listener is None
        assert [t.name for t in store.triggers.take_sources("one")] == ["r"]

    def test_listener_keeps_its_trigger_while_arrivals_move_it(self, store: RunStore) -> None:
        store.register(an_owner(), LEASE_S)
        watched(store, listens=True)
        (mine,) = store.triggers.take_sources("one")

        report = store.triggers.accept([arrived(_replace(mine, state="moved"), "a.csv")])

        assert report.accepted["landed"].listener == "one"
        assert store.triggers.get_trigger("landed").listener == "one"

    # --- when time brings a decision -------------------------------------------------------------
    def test_trigger_is_due_once_its_time_has_come(self, store: RunStore) -> None:
        watched(store, "later", next_at=NOW + _SECOND)
        watched(store, "now", next_at=NOW)
        watched(store, "never")
        watched(store, "before", next_at=NOW - _SECOND)

        assert [t.name for t in store.triggers.due_triggers(NOW)] == ["before", "now"]
        assert [t.name for t in store.triggers.due_triggers(NOW, limit=1)] == ["before"]
        assert store.triggers.next_due() == NOW - _SECOND

    def test_nothing_is_due_where_no_trigger_waits_for_a_time(self, store: RunStore) -> None:
        watched(store)

        assert store.triggers.due_triggers(NOW) == []
        assert store.triggers.next_due() is None

    def test_triggers_are_listed_by_name_and_filtered(self, store: RunStore) -> None:
        watched(store, "b", module="m", watches_runs=True)
        watched(store, "a", paused=True, listens=True)
        watched(store, "ab", module="m", listens=True)

        def names(**query: object) -> list[str]:
            return [t.name for t in store.triggers.list_triggers(TriggerQuery(**query))]  # type: ignore[arg-type]

        assert names() == ["a", "ab", "b"]
        assert names(limit=1, after="a") == ["ab"]
        assert names(module="m") == ["ab", "b"]
        assert names(paused=True) == ["a"]
        assert names(watches_runs=True) == ["b"]
        assert names(listens=True, paused=False) == ["ab"]
        assert names(name_prefix="a", paused=False) == ["ab"]

    def test_who_is_to_be_told_of_what_is_asked_for_paused_or_not(self, store: RunStore) -> None:
        watched(store, "nothing")
        watched(store, "b", events=("price",))
        watched(store, "a", events=("price",), paused=True)
        watched(store, "runs", watches_runs=True)

        assert [each.name for each in store.triggers.hearing()] == ["a", "b"]
        assert [each.name for each in store.triggers.watching()] == ["runs"]
        assert store.triggers.watching() == [store.triggers.get_trigger("runs")]


class TriggerNewsContract:
    """Events and ends of runs, of which triggers want to know."""

    # --- events ----------------------------------------------------------------------------------
    def test_events_are_read_in_order_by_who_has_heard_the_ones_before(
        self, store: RunStore
    ) -> None:
        assert store.triggers.newest_event() == 0
        created(store)
        sent = [
            store.send(a_message(run, name=name))
            for run, name in ((None, "a"), (None, "b"), ("run", "a"), (None, "c"), (None, "a"))
        ]
        numbers = [message.id for message in sent if message is not None]

        events = store.triggers.events_after(0, ["a", "b"])

        assert [event.id for event in events] == [numbers[0], numbers[1], numbers[4]]
        assert events[0] == sent[0]
        after = store.triggers.events_after(numbers[0], ["a", "b"], limit=1)
        assert [event.id for event in after] == [numbers[1]]
        assert store.triggers.events_after(numbers[4], ["a", "b"]) == []
        assert store.triggers.events_after(0, []) == []
        assert store.triggers.newest_event() == numbers[4]

    def test_event_stays_until_every_trigger_that_wants_it_has_heard_it(
        self, store: RunStore
    ) -> None:
        sent = [store.send(a_message(None, name=name)) for name in ("a", "b", "a")]
        first, _, last = (message.id for message in sent if message is not None)
        watched(store, "deaf", events=("b",), heard=last)
        slow = watched(store, "slow", events=("z", "a"), heard=first)
        watched(store, "quick", events=("a",), heard=last)

        assert store.forget_events(NOW + _SECOND) == 2
        assert [event.id for event in store.triggers.events_after(0, ["a", "b"])] == [last]
        store.triggers.accept([TriggerChange(trigger=_replace(slow, heard=last))])

        assert store.forget_events(NOW + _SECOND) == 1

    def test_event_is_kept_for_no_trigger_that_was_removed(self, store: RunStore) -> None:
        watched(store, events=("go",))
        store.send(a_message(None))
        assert store.forget_events(NOW + _SECOND) == 0

        store.triggers.remove("landed")

        assert store.forget_events(NOW + _SECOND) == 1

    def test_event_is_kept_for_no_trigger_that_wants_others_now(self, store: RunStore) -> None:
        trigger = watched(store, events=("go",))
        store.send(a_message(None))

        store.triggers.register(TriggerChange(trigger=_replace(trigger, events=("stop",))))

        assert store.forget_events(NOW + _SECOND) == 1

    # --- ends of runs ----------------------------------------------------------------------------
    @pytest.mark.parametrize("status", [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED])
    def test_end_of_a_run_is_kept_for_who_watches_runs(
        self, store: RunStore, clock: ManualClock, status: RunStatus
    ) -> None:
        watched(store, watches_runs=True)
        created(store, tags={"team": "a"}, trigger="other", schedule="nightly", workflow="load")
        clock.advance(5)

        run = _end(store, "run", status)

        (end,) = store.triggers.ends()
        assert end == msgspec.convert(
            {
                "id": end.id,
                "run_id": run.id,
                "seq": run.seq,
                "status": status,
                "workflow": "load",
                "tags": {"team": "a"},
                "trigger": "other",
                "schedule": "nightly",
                "at": run.finished_at,
                "created_at": run.created_at,
            },
            type(end),
        )

    def test_end_of_a_run_that_is_cancelled_before_it_has_a_plan_is_kept(
        self, store: RunStore
    ) -> None:
        watched(store, watches_runs=True)
        store.create_run(an_unplanned_run(), None)

        run = store.request_cancel(_RUN)

        (end,) = store.triggers.ends()
        assert (end.run_id, end.status, end.seq) == (_RUN, "CANCELLED", run.seq)
        assert end.at == run.finished_at

    def test_end_is_not_kept_where_nobody_watches(self, store: RunStore) -> None:
        watched(store)

        ended(store)

        assert store.triggers.ends() == []

    def test_end_is_kept_for_a_trigger_that_is_paused(self, store: RunStore) -> None:
        watched(store, watches_runs=True, paused=True)

        ended(store)

        assert [end.run_id for end in store.triggers.ends()] == [_RUN]

    def test_request_to_cancel_a_run_that_goes_on_is_no_end(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        claimed(store)

        store.request_cancel(_RUN)

        assert store.triggers.ends() == []

    def test_ends_of_a_batch_are_kept_for_those_that_landed(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        store.register(an_owner(), LEASE_S)
        runs = [claimed(store, name) for name in ("a", "b", "c")]
        end = RunEnd(status=RunStatus.SUCCEEDED)
        late = _replace(runs[1], epoch=runs[1].epoch + 1)

        store.commit([by(runs[0], end=end), by(late, end=end), by(runs[2])])

        assert [end.run_id for end in store.triggers.ends()] == ["a"]

    def test_run_that_is_opened_again_ends_again(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        first = ended(store, status=RunStatus.FAILED)

        store.reset_run(_RUN)
        second = _end(store, "run", RunStatus.SUCCEEDED)

        told = {(end.seq, end.status) for end in store.triggers.ends()}
        assert told == {(first.seq, RunStatus.FAILED), (second.seq, RunStatus.SUCCEEDED)}

    def test_end_outlives_its_run(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        ended(store)

        store.delete_run(_RUN)

        assert [end.run_id for end in store.triggers.ends()] == [_RUN]

    def test_ends_go_with_the_changes_that_tell_of_them(self, store: RunStore) -> None:
        trigger = watched(store, watches_runs=True)
        for name in ("a", "b"):
            ended(store, name)
        (one,) = store.triggers.ends(limit=1)

        store.triggers.accept([arrived(trigger, "a 5", moves=False)], [one.id])

        left = store.triggers.ends()
        assert {end.run_id for end in left} == {"a", "b"} - {one.run_id}

    def test_ends_stay_if_a_change_that_tells_of_them_did_not_land(self, store: RunStore) -> None:
        told, late = watched(store, "told", watches_runs=True), watched(store, "late")
        store.triggers.accept([TriggerChange(trigger=late)])
        ended(store)
        numbers = [end.id for end in store.triggers.ends()]
        mine = arrived(told, "run 5", moves=False)

        report = store.triggers.accept([mine, arrived(late, "run 5", run="late")], numbers)

        assert list(report.refused) == ["late"]
        assert [end.id for end in store.triggers.ends()] == numbers
        again = arrived(store.triggers.get_trigger("late"), "run 5", run="late")
        second = store.triggers.accept([mine, again], numbers)
        assert list(second.known) == [("told", "run 5")]
        assert second.made == ("late-run 5",)
        assert store.triggers.ends() == []

    def test_ends_go_if_nobody_wants_to_know_of_them_any_more(self, store: RunStore) -> None:
        trigger = watched(store, watches_runs=True)
        ended(store, "a")
        ended(store, "b")
        first, second = (end.id for end in store.triggers.ends())
        store.triggers.remove("landed")

        store.triggers.accept([arrived(trigger, "a 5", moves=False)], [first])
        store.triggers.accept([], [second])

        assert store.triggers.ends() == []

    def test_number_of_an_end_is_not_given_again(self, store: RunStore) -> None:
        watched(store, watches_runs=True)
        ended(store, "a")
        (first,) = store.triggers.ends()
        store.triggers.accept([], [first.id])

        ended(store, "b")

        (second,) = store.triggers.ends()
        assert second.id != first.id


def _watched_with(store: RunStore, plan: PlanRecord) -> TriggerRecord:
    change = TriggerChange(trigger=a_trigger(plan_digest=plan.digest))
    trigger = store.triggers.register(change, plan)
    assert trigger is not None
    return trigger


def _carrying(blob: str, trigger: str = "landed", **more: Any) -> ArrivalRecord:
    """Return an arrival whose payload is in a blob."""
    payload = a_value("whole", place=Place.BLOB, name=blob)
    return an_arrival(**{"trigger": trigger, "payload": payload, **more})


def _end(store: RunStore, name: str, status: RunStatus) -> RunRecord:
    run_id = RunId(name)
    store.register(an_owner(), LEASE_S)
    is_planned = store.get_run(run_id).plan_digest is not None
    run = store.claim_run(run_id, an_owner(), built=None if is_planned else built())
    assert run is not None
    assert store.commit([by(run, end=RunEnd(status=status))]).committed
    return store.get_run(run_id)
