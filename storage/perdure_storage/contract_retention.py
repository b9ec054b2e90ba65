"""What every run store must do for gc, and every blob root: a part of their contracts."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

import pytest

from perdure_storage.blobs import BlobRoot
from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    NOW,
    a_plan,
    a_run,
    a_step,
    a_value,
    by,
    claimed,
    created,
    digest,
    ended,
)
from perdure_storage.errors import BlobsCondemned, RunConflict, StoreError, ValueDamaged
from perdure_storage.hashing import integrity_digest
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Digest, PinRecord, Place, RunEnd, RunId, StepId, StepKey

_RUN = RunId("run")
_DAY = timedelta(days=1)


class RetentionContract:
    """What nothing refers to can go, and nothing else; marks and pins."""

    def test_unreferenced_leaves_out_whatever_anything_refers_to(self, store: RunStore) -> None:
        inputs = {"x": a_value(place=Place.BLOB, name="input")}
        run = claimed(store, plan=a_plan("plan", "function"), inputs=inputs)
        store.commit([by(run, a_step("run", "s", value=a_value(place=Place.BLOB, name="result")))])
        names = ("input", "function", "result", "orphan", "another", "orphan")

        free = store.unreferenced(map(digest, names))

        assert free == [digest("another"), digest("orphan")]
        assert store.list_condemned() == {}

    def test_unreferenced_counts_history_as_a_reference(self, store: RunStore) -> None:
        run = claimed(store)
        for generation, name in enumerate(("first", "second", "third"), 1):
            value = a_value(place=Place.BLOB, name=name)
            key = StepKey(StepId("s"), generation - 1)
            retired = {"lost": (key,)} if generation == 2 else {"superseded": (key,)}
            step = a_step("run", "s", generation, value=value)
            store.commit([by(run, step, **(retired if generation > 1 else {}))])
        old, new = a_plan("old", "old code"), a_plan("new", "new code")
        created(store, "edited", plan=old)
        store.reset_run(RunId("edited"), plan=new)

        names = ("first", "second", "third", "old code", "new code")
        assert store.unreferenced(map(digest, names)) == []
        assert store.condemn(map(digest, names)) == []

    def test_unreferenced_besides_runs_is_what_is_free_once_they_are_deleted(
        self, store: RunStore
    ) -> None:
        shared, own = a_plan("shared", "both"), a_plan("own", "alone")
        for name, plan in (("a", shared), ("b", shared), ("c", own)):
            run = claimed(
                store, name, plan=plan, inputs={"x": a_value(place=Place.BLOB, name=name)}
            )
            store.commit([by(run, end=RunEnd(status=RunStatus.SUCCEEDED))])
        names = [digest(name) for name in ("a", "b", "c", "alone", "both", "orphan")]

        free = store.unreferenced(names, besides=[RunId("a"), RunId("c")])

        store.delete_run(RunId("a"))
        store.delete_run(RunId("c"))
        assert free == store.unreferenced(names)
        assert free == [digest(name) for name in ("a", "alone", "c", "orphan")]

    def test_the_mark_stays_until_it_is_lifted_with_its_time(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        store.condemn([digest("one"), digest("two")])
        clock.advance(60)
        store.condemn([digest("two"), digest("three")])

        later = NOW + timedelta(seconds=60)
        marks = {digest("one"): NOW, digest("two"): later, digest("three"): later}
        assert store.list_condemned() == marks
        two = store.list_condemned([digest("two"), digest("never marked")])
        assert two == {digest("two"): later}
        store.absolve(two)
        assert store.list_condemned().keys() == {digest("one"), digest("three")}

    def test_a_mark_that_was_made_anew_is_not_lifted_by_who_saw_the_old_one(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        store.condemn([digest("blob")])
        seen = store.list_condemned()
        clock.advance(1)
        store.condemn([digest("blob")])

        store.absolve(seen)

        assert store.list_condemned().keys() == {digest("blob")}

    def test_forget_condemned_removes_old_marks_only(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        store.condemn([digest("old"), digest("again")])
        clock.advance(60)
        store.condemn([digest("again")])

        assert store.forget_condemned(NOW) == 0
        assert store.forget_condemned(NOW + timedelta(seconds=60)) == 1

        assert store.list_condemned().keys() == {digest("again")}
        created(store, plan=a_plan("plan", "old"))
        with pytest.raises(BlobsCondemned):
            created(store, "other", plan=a_plan("other plan", "again"))

    def test_tombstones_are_listed_until_the_id_is_freed(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        for name in ("b", "a"):
            ended(store, name)
            store.delete_run(RunId(name))
        clock.advance(60)
        ended(store, "late")
        store.delete_run(RunId("late"))

        assert store.list_tombstones(NOW) == []
        assert store.list_tombstones(NOW + timedelta(seconds=60)) == ["a", "b"]
        store.free_id(RunId("a"))
        assert store.list_tombstones(NOW + _DAY) == ["b", "late"]

    def test_delete_refuses_a_run_whose_results_a_live_run_takes_over(
        self, store: RunStore
    ) -> None:
        ended(store)
        taker = claimed(store, "taker", reuse_from=_RUN)

        with pytest.raises(RunConflict, match=r"taker.*takes its results over"):
            store.delete_run(_RUN)
        store.commit([by(taker, end=RunEnd(status=RunStatus.SUCCEEDED))])
        store.delete_run(_RUN)

        assert store.find_run(_RUN) is None

    def test_a_run_may_take_over_from_one_that_is_gone(self, store: RunStore) -> None:
        assert store.create_run(a_run(reuse_from=RunId("gone")), a_plan()) is not None

    # --- pins ---------------------------------------------------------------------------------
    def test_a_pin_keeps_what_was_referred_to_when_it_was_made(self, store: RunStore) -> None:
        plan = a_plan("plan", "function")
        run = claimed(store, plan=plan, inputs={"x": a_value(place=Place.BLOB, name="input")})
        blob = a_value(place=Place.BLOB, name="result")
        end = RunEnd(status=RunStatus.SUCCEEDED)
        store.commit([by(run, a_step("run", "s", value=blob), end=end)])
        names = sorted(map(digest, ("function", "input", "result")))

        store.pin(PinRecord(id="backup", at=NOW, note="/backups/one.db"))
        store.delete_run(_RUN)

        assert store.condemn([*names, digest("orphan")]) == [digest("orphan")]
        assert store.unreferenced(names, besides=[_RUN]) == []
        assert store.unpin("backup")
        assert store.condemn(names) == names

    def test_pins_do_not_pin_each_other(self, store: RunStore) -> None:
        ended(store)
        other = claimed(store, "other", plan=a_plan("other plan", "function"))
        store.pin(PinRecord(id="one", at=NOW))
        store.commit([by(other, end=RunEnd(status=RunStatus.CANCELLED))])
        store.delete_run(RunId("other"))

        store.pin(PinRecord(id="two", at=NOW))
        store.unpin("one")

        assert store.unreferenced([digest("function")]) == [digest("function")]

    def test_pins_are_listed_oldest_first(self, store: RunStore) -> None:
        pins = [PinRecord(id=name, at=NOW + n * _DAY, note=name) for n, name in enumerate("cab")]
        for pin in reversed(pins):
            store.pin(pin)

        assert store.list_pins() == pins
        assert not store.unpin("never made")
        assert store.unpin("a")
        assert [pin.id for pin in store.list_pins()] == ["c", "b"]

    def test_a_pin_of_the_same_id_is_refused(self, store: RunStore) -> None:
        store.pin(PinRecord(id="one", at=NOW, note="first"))

        with pytest.raises(StoreError, match="pin 'one'"):
            store.pin(PinRecord(id="one", at=NOW, note="second"))

        assert [pin.note for pin in store.list_pins()] == ["first"]


class RootArea(Protocol):
    """A place for blobs whose age a test can set."""

    def open(self) -> BlobRoot:
        """Return a root over the place, as a new process would have it."""
        ...

    def age(self, digest: Digest) -> float:
        """Make a blob some hours old, behind the store's back; return a time after that, before
        now, in seconds since 1970.
        """
        ...

    def overwrite(self, digest: Digest, data: bytes) -> None:
        """Put other bytes under a blob's name, behind the store's back."""
        ...

    def leave(self, area: str, name: str) -> None:
        """Leave a file there, in ``incoming`` or ``quarantine``."""
        ...


class BlobUpkeepContract:
    """What every blob root does for gc."""

    @pytest.fixture
    def root(self, root_area: RootArea) -> BlobRoot:
        """Return an empty root."""
        return root_area.open()

    def test_survey_tells_size_and_age(self, root: BlobRoot, root_area: RootArea) -> None:
        old, new = root.put([b"old"]), root.put([b"newer"])
        then = root_area.age(old)

        found = {blob.digest: blob for blob in root.survey()}

        assert {digest: blob.size_bytes for digest, blob in found.items()} == {old: 3, new: 5}
        assert found[old].changed_at < then < found[new].changed_at

    def test_collect_takes_what_is_old(self, root: BlobRoot, root_area: RootArea) -> None:
        digest = root.put([b"data"])
        then = root_area.age(digest)

        assert root.collect(digest, then)
        assert root.collect(digest, then)

        assert list(root.survey()) == []

    def test_collect_leaves_what_is_young(self, root: BlobRoot, root_area: RootArea) -> None:
        digest = root.put([b"data"])
        then = root_area.age(digest)
        assert root.renew(digest)

        assert not root.collect(digest, then)

        assert bytes(root_area.open().open(digest, 4)) == b"data"

    def test_renew_says_whether_a_blob_is_there(self, root: BlobRoot) -> None:
        digest = root.put([b"data"])

        assert root.renew(digest)
        assert not root.renew(integrity_digest([b"other"]))

        assert bytes(root.open(digest, 4)) == b"data"
        assert [blob.digest for blob in root.survey()] == [digest]

    def test_leftovers_are_seen_and_removed_one_by_one(
        self, root: BlobRoot, root_area: RootArea
    ) -> None:
        digest = root.put([b"data"])
        spooled = root.spool("run/1").put([b"spooled"])
        for area in ("incoming", "quarantine"):
            root_area.leave(area, "left.tmp")

        found = {leftover.area: leftover for leftover in root.leftovers()}

        assert found.keys() == {"incoming", "quarantine", "spool"}
        assert [found[area].size_bytes for area in ("incoming", "quarantine")] == [4, 4]
        assert all(leftover.changed_at > 0 for leftover in found.values())
        root.remove_leftover(found["incoming"])
        root.remove_leftover(found["incoming"])
        assert root.spool("run/1").contains(spooled, 7)
        root.remove_leftover(found["spool"])
        root.remove_leftover(found["quarantine"])
        assert not root.spool("run/1").contains(spooled, 7)
        assert root.contains(digest, 4)

    def test_verify_reads_the_bytes_themselves(self, root: BlobRoot, root_area: RootArea) -> None:
        digest = root.put([b"data"])
        root.verify(digest, 4)
        root_area.overwrite(digest, b"dat?")

        with pytest.raises(ValueDamaged):
            root.verify(digest, 4)
