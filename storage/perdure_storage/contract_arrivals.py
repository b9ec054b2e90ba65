"""What every store does with arrivals: each counts once, with its run and its cursor."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_trigger,
    a_value,
    an_arrival,
    an_owner,
    an_unplanned_run,
    arrived,
    built,
    by,
    created,
    digest,
    watched,
)
from perdure_storage.errors import (
    InternalError,
)
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Place, RunEnd, RunId, RunQuery, RunRecord
from perdure_storage.trigger_records import (
    LONGEST_KEY_BYTES,
    ArrivalQuery,
    ArrivalRecord,
    TriggerChange,
)

_replace = msgspec.structs.replace

_SECOND = timedelta(seconds=1)
_OF_LANDED = ArrivalQuery(trigger="landed")


class ArrivalContract:
    """Arrivals for triggers, and the runs that they make."""

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
