"""What every run store does with what steps save while they run."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_save,
    a_step,
    a_value,
    an_attempt,
    an_owner,
    by,
    claimed,
    digest,
    saved,
)
from perdure_storage.errors import StoreError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    Cause,
    Digest,
    PinRecord,
    Place,
    Progress,
    RunEnd,
    RunId,
    RunRecord,
    SaveRecord,
    StepId,
    StoredValue,
)

_RUN = RunId("run")


def _blob(name: str, *files: str) -> StoredValue:
    value = a_value(name, place=Place.BLOB, name=name)
    return msgspec.structs.replace(value, files=tuple(map(digest, files)))


class SaveContract:
    """Saves: kept at once, fenced, pruned, referred to, gone with their step or run."""

    def test_save_keeps_every_field_and_numbers_it(self, store: RunStore) -> None:
        run = claimed(store)
        plain = a_save("fit", at=-3)
        full = a_save(
            "eval",
            generation=2,
            attempt=3,
            item="eval[4]",
            at=7,
            source="made of this",
            value=_blob("v", "f1", "f2"),
            saved_at=NOW + timedelta(microseconds=1),
        )

        assert saved(store, run, plain) is None
        assert saved(store, run, full) is None

        assert store.list_saves(_RUN) == [_numbered(full, 1), _numbered(plain, 1)]

    def test_saves_of_a_step_are_numbered_on_and_the_newest_stand(self, store: RunStore) -> None:
        run = claimed(store)
        for at in (1, 2, 3):
            saved(store, run, a_save("fit", at=at), keep_last=2)

        assert [(s.number, s.at) for s in store.list_saves(_RUN)] == [(2, 2), (3, 3)]

    def test_saves_of_items_and_of_other_steps_are_pruned_by_themselves(
        self, store: RunStore
    ) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit", at=1, item="fit[0]"))
        saved(store, run, a_save("fit", at=2, item="fit[1]"))
        saved(store, run, a_save("other", at=3))
        saved(store, run, a_save("fit", at=4, item="fit[0]"))

        assert [save.at for save in store.list_saves(_RUN)] == [2, 4, 3]

    def test_what_is_kept_is_referred_to_and_what_is_pruned_is_not(self, store: RunStore) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit", value=_blob("old", "shared", "gone")))
        saved(store, run, a_save("fit", value=_blob("new", "shared", "fresh")))

        free = store.unreferenced(map(digest, ("old", "gone", "new", "shared", "fresh")))

        assert free == sorted([digest("gone"), digest("old")])

    def test_a_pin_keeps_what_a_save_names(self, store: RunStore) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit", value=_blob("old", "file")))
        store.pin(PinRecord(id="backup", at=NOW))

        saved(store, run, a_save("fit", value=a_value("small")))

        assert store.unreferenced([digest("old"), digest("file")]) == []

    def test_save_that_names_a_condemned_file_is_refused(self, store: RunStore) -> None:
        run = claimed(store)
        store.condemn([digest("file")])

        refusal = saved(store, run, a_save("fit", value=_blob("v", "file", "other")))

        assert refusal is not None
        assert refusal.kind == "condemned"
        assert refusal.digests == (digest("file"),)
        assert store.list_saves(_RUN) == []

    def test_save_under_another_epoch_is_refused(self, store: RunStore, clock: ManualClock) -> None:
        old = claimed(store)
        clock.advance(LEASE_S + 10)
        store.register(an_owner("two"), LEASE_S)
        new = store.claim_run(_RUN, an_owner("two"))
        assert new is not None

        refusal = saved(store, old, a_save("fit"))

        assert refusal is not None
        assert refusal.kind == "stale"
        assert store.list_saves(_RUN) == []
        assert saved(store, new, a_save("fit")) is None

    def test_save_of_a_run_that_is_over_or_not_there_is_refused(self, store: RunStore) -> None:
        run = _over(store, claimed(store), RunStatus.CANCELLED)

        over = saved(store, run, a_save("fit"))
        unknown = saved(store, run, msgspec.structs.replace(a_save("fit"), run_id=RunId("no")))

        assert over is not None
        assert over.kind == "terminal"
        assert unknown is not None
        assert unknown.kind == "gone"

    def test_save_of_an_attempt_that_is_running_is_kept(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, attempts=(an_attempt("run", "fit", 2),))])

        assert saved(store, run, a_save("fit", attempt=2)) is None

    @pytest.mark.parametrize("cause", [Cause.WORKER_LOST, Cause.SUCCEEDED])
    def test_save_of_an_attempt_that_has_ended_is_refused(
        self, store: RunStore, cause: Cause
    ) -> None:
        run = claimed(store)
        store.commit([by(run, attempts=(an_attempt("run", "fit", 1, cause=cause),))])

        refusal = saved(store, run, a_save("fit"))

        assert refusal is not None
        assert refusal.kind == "stale"
        assert "attempt 1 of step 'fit'" in refusal.message

    @pytest.mark.parametrize(("generation", "attempt"), [(1, 2), (2, 1)])
    def test_save_of_an_attempt_that_another_has_followed_is_refused(
        self, store: RunStore, generation: int, attempt: int
    ) -> None:
        run = claimed(store)
        later = an_attempt("run", "fit", attempt, generation=generation)
        store.commit([by(run, attempts=(later,))])

        refusal = saved(store, run, a_save("fit"))

        assert refusal is not None
        assert refusal.kind == "stale"

    def test_save_of_an_attempt_after_a_later_one_has_saved_is_refused(
        self, store: RunStore
    ) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit", attempt=2, at=5))

        refusal = saved(store, run, a_save("fit", attempt=1, at=9))

        assert refusal is not None
        assert refusal.kind == "stale"
        assert [save.at for save in store.list_saves(_RUN)] == [5]

    def test_save_of_a_step_that_has_its_row_is_refused(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, a_step("run", "fit"))])

        refusal = saved(store, run, a_save("fit"))

        assert refusal is not None
        assert refusal.kind == "stale"

    def test_save_of_a_new_generation_is_kept_beside_an_old_row(self, store: RunStore) -> None:
        run = claimed(store)
        store.commit([by(run, a_step("run", "fit"))])

        assert saved(store, run, a_save("fit", generation=2)) is None

    def test_saves_of_spent_steps_go_with_the_commit_that_says_so(self, store: RunStore) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit", value=_blob("v", "file")))
        saved(store, run, a_save("other"))

        store.commit([by(run, a_step("run", "fit"), spent=(StepId("fit"),))])

        assert [save.step_id for save in store.list_saves(_RUN)] == ["other"]
        assert set(store.unreferenced([digest("v"), digest("file")])) == {
            digest("v"),
            digest("file"),
        }

    def test_a_refused_commit_spends_nothing(self, store: RunStore) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit"))
        stale = msgspec.structs.replace(run, epoch=run.epoch + 1)

        store.commit([by(stale, spent=(StepId("fit"),))])

        assert len(store.list_saves(_RUN)) == 1

    def test_saves_go_with_their_run(self, store: RunStore) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit", value=_blob("v", "file")))
        _over(store, run, RunStatus.FAILED)
        wanted: list[Digest] = [digest("v"), digest("file")]

        assert store.unreferenced(wanted) == []
        assert store.unreferenced(wanted, besides=[_RUN]) == sorted(wanted)
        store.delete_run(_RUN)

        assert store.list_saves(_RUN) == []
        assert store.unreferenced(wanted) == sorted(wanted)

    def test_saves_stand_when_a_run_is_opened_again(self, store: RunStore) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit"))
        _over(store, run, RunStatus.FAILED)

        store.reset_run(_RUN)

        assert len(store.list_saves(_RUN)) == 1

    def test_a_save_is_progress_to_whoever_counts_dead_owners(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        claimed(store)
        clock.advance(LEASE_S + 10)
        store.register(an_owner("two"), LEASE_S)
        run = store.claim_run(_RUN, an_owner("two"))
        assert run is not None
        assert run.takeovers == 1

        saved(store, run, a_save("fit"))

        assert store.get_run(_RUN).takeovers == 0

    def test_histories_hold_saves(self, store: RunStore) -> None:
        run = claimed(store)
        saved(store, run, a_save("fit"))

        assert store.histories([_RUN])[_RUN].saves == tuple(store.list_saves(_RUN))

    @pytest.mark.parametrize("bad", [{"at": 2**63}, {"item": "a\0b"}, {"item": "\ud800"}])
    def test_what_no_database_could_take_is_refused(
        self, store: RunStore, bad: dict[str, object]
    ) -> None:
        run = claimed(store)

        with pytest.raises(StoreError, match="cannot be stored"):
            saved(store, run, a_save("fit", **bad))

        assert store.list_saves(_RUN) == []

    def test_attempts_keep_how_far_they_have_come(self, store: RunStore) -> None:
        run = claimed(store)
        come = Progress(done=2, total=7.5, message="épochs", at=NOW, item="fit[1]")
        attempt = an_attempt("run", "fit", progress=come)

        store.commit([by(run, attempts=(attempt,))])

        assert store.list_attempts(_RUN) == [attempt]


def _numbered(save: SaveRecord, number: int) -> SaveRecord:
    return msgspec.structs.replace(save, number=number)


def _over(store: RunStore, run: RunRecord, status: RunStatus) -> RunRecord:
    store.commit([by(run, end=RunEnd(status=status))])
    return run
