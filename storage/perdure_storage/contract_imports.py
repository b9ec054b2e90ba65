"""What every run store does with whole runs that go out of it and come into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from perdure_storage.contract_samples import (
    NOW,
    a_message,
    a_plan,
    a_step,
    a_wait,
    a_whole_run,
    an_event,
    an_owner,
    claimed,
    created,
    digest,
    ended,
    watched,
)
from perdure_storage.errors import BlobsCondemned, RunNotFound, StoreError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import EventRecord, History, RunId, RunRecord, StepId, WholeRun

_RUN = RunId("run")
_TOLD = {"from": "elsewhere"}
_replace = msgspec.structs.replace


def _with(whole: WholeRun, **rows: Any) -> WholeRun:
    return _replace(whole, history=_replace(whole.history, **rows))


def _imported(store: RunStore, whole: WholeRun | None = None) -> RunRecord:
    run = store.import_run(whole or a_whole_run(), _TOLD)
    assert run is not None
    return run


class ImportContract:
    """Whole runs: out with every row, in all or nothing, and nothing goes on by itself."""

    def test_whole_run_is_what_was_imported(self, store: RunStore) -> None:
        whole = a_whole_run()
        numbers = {11: 1, 12: 2, 13: 3}

        run = _imported(store, whole)

        told = EventRecord(kind="imported", at=NOW, detail=_TOLD, seq=41)
        waits = tuple(
            _replace(wait, message=numbers.get(wait.message or 0)) for wait in whole.history.waits
        )
        first, signalled, lost = whole.history.events
        signalled = _replace(signalled, detail={"name": "go", "message": 1})
        messages = tuple(_replace(each, id=numbers[each.id]) for each in whole.messages)
        event_to_it = _replace(messages[1], run_id=_RUN, dedup_key=None)
        expected = _replace(
            _with(whole, waits=waits, events=(first, signalled, lost, told)),
            run=_replace(whole.run, seq=41),
            messages=(messages[0], event_to_it, messages[2]),
        )
        assert run == expected.run
        assert store.get_run(_RUN) == expected.run
        assert store.whole_run(_RUN) == expected

    def test_whole_run_of_no_run_is_not_found(self, store: RunStore) -> None:
        with pytest.raises(RunNotFound):
            store.whole_run(_RUN)

    def test_whole_run_leaves_out_what_is_of_others(self, store: RunStore) -> None:
        created(store)
        store.send(a_message(None))
        created(store, "other", plan=a_plan("another"))
        store.send(a_message("other"))

        whole = store.whole_run(_RUN)

        assert [plan.digest for plan in whole.plans] == [a_plan().digest]
        assert whole.messages == ()
        assert [event.kind for event in whole.history.events] == ["submitted"]

    def test_import_run_changes_nothing_where_the_id_is_taken(self, store: RunStore) -> None:
        before = created(store)

        assert store.import_run(a_whole_run(), _TOLD) is None

        assert store.get_run(_RUN) == before
        assert store.list_steps(_RUN, current_only=False) == []
        assert store.unreferenced([digest("large")]) == [digest("large")]

    def test_import_run_waits_until_a_deleted_id_is_free(self, store: RunStore) -> None:
        ended(store)
        store.delete_run(_RUN)

        assert store.import_run(a_whole_run(), _TOLD) is None
        store.free_id(_RUN)
        assert store.import_run(a_whole_run(), _TOLD) is not None

    def test_import_run_refers_to_every_blob_but_lost_ones(self, store: RunStore) -> None:
        _imported(store)
        names = ("input", "code", "old code", "child code", "history", "large", "state")
        more = ("default", "file", "sent")

        free = store.unreferenced(map(digest, (*names, *more, "lost")))

        assert free == [digest("lost")]

    def test_import_run_that_names_a_condemned_blob_makes_nothing(self, store: RunStore) -> None:
        store.condemn([digest("file"), digest("lost")])

        with pytest.raises(BlobsCondemned) as refused:
            store.import_run(a_whole_run(), _TOLD)

        assert refused.value.digests == (digest("file"),)
        assert store.find_run(_RUN) is None

    def test_delete_run_removes_all_of_an_imported_run(self, store: RunStore) -> None:
        _imported(store)
        names = ("input", "code", "old code", "child code", "history", "large", "state")
        more = ("default", "file", "sent")

        store.delete_run(_RUN)
        store.free_id(_RUN)

        assert len(store.unreferenced(map(digest, (*names, *more)))) == len(names) + len(more)
        _imported(store)

    @pytest.mark.parametrize(
        "status", [RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PAUSED]
    )
    def test_import_run_pauses_a_live_run(self, store: RunStore, status: RunStatus) -> None:
        whole = a_whole_run()
        live = _replace(
            whole.run, status=status, owner=an_owner(), takeovers=2, wake_at=NOW, lease_live=True
        )

        _imported(store, _replace(whole, run=live))

        found = store.get_run(_RUN)
        assert (found.status, found.owner, found.takeovers) == (RunStatus.PAUSED, None, 0)
        assert (found.wake_at, found.reuse_from) == (None, None)
        assert store.claimable() == []
        assert store.next_wake() is None
        assert store.reset_run(_RUN).status is RunStatus.QUEUED

    def test_import_run_is_of_no_schedule_and_no_trigger(self, store: RunStore) -> None:
        whole = a_whole_run()
        run = _replace(whole.run, schedule="nightly", by_hand=True, trigger="landed")

        _imported(store, _replace(whole, run=run))

        found = store.get_run(_RUN)
        assert (found.schedule, found.by_hand, found.trigger) == (None, False, None)

    def test_import_run_tells_no_trigger_of_an_end(self, store: RunStore) -> None:
        watched(store, watches_runs=True)

        _imported(store)

        assert store.triggers.ends() == []

    def test_a_message_after_an_import_has_a_number_of_its_own(self, store: RunStore) -> None:
        store.send(a_message(None))
        _imported(store)

        sent = store.send(a_message(None, name="other"))

        assert sent is not None
        assert sent.id == 5
        assert {m.id for m in store.whole_run(_RUN).messages} == {2, 3, 4}

    def test_an_event_that_it_consumed_is_for_nobody_else(self, store: RunStore) -> None:
        claimed(store, "other")

        _imported(store)

        assert store.messages(RunId("other"), ["landed", "go"]) == []

    def test_a_signal_that_it_has_not_had_is_still_for_it(self, store: RunStore) -> None:
        _imported(store)

        assert [m.name for m in store.messages(_RUN, ["landed", "go", "more"])] == ["more"]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda w: _with(w, steps=(*w.history.steps, a_step("other", "b", seq=10))),
            lambda w: _with(w, steps=(*w.history.steps, w.history.steps[-1])),
            lambda w: _with(w, steps=(*w.history.steps, a_step("run", "a", 9, seq=10))),
            lambda w: _with(w, steps=(a_step("run", "b", seq=41),)),
            lambda w: _with(w, attempts=w.history.attempts * 2),
            lambda w: _with(w, events=(an_event("x", seq=1), an_event("y", seq=1))),
            lambda w: _with(
                w, events=(_replace(an_event("x", seq=1), at=NOW.replace(tzinfo=None)),)
            ),
            lambda w: _with(w, waits=(a_wait("run", "s", message=99),)),
            lambda w: _with(w, waits=tuple(_replace(wt, message=11) for wt in w.history.waits)),
            lambda w: _with(w, saves=w.history.saves * 2),
            lambda w: _with(w, expansions=w.history.expansions * 2),
            lambda w: _replace(w, plans=w.plans[:1]),
            lambda w: _replace(w, plans=w.plans[1:]),
            lambda w: _replace(w, plans=w.plans * 2),
            lambda w: _replace(w, messages=(a_message("other", id=11), *w.messages[1:])),
        ],
    )
    def test_import_run_refuses_rows_that_do_not_fit_together(
        self, store: RunStore, damage: Callable[[WholeRun], WholeRun]
    ) -> None:
        with pytest.raises(StoreError, match="do not fit together"):
            store.import_run(damage(a_whole_run()), _TOLD)

        assert store.find_run(_RUN) is None

    def test_a_step_of_an_imported_run_can_be_committed_on(self, store: RunStore) -> None:
        _imported(store)
        store.reset_run(_RUN)
        store.register(an_owner(), 10.0)

        run = store.claim_run(_RUN, an_owner())

        assert run is not None
        assert run.epoch == 5
        assert StepId("bad") in {s.step_id for s in store.list_steps(_RUN)}


def unset_fields(whole: WholeRun) -> list[str]:
    """Return the fields of records that no row of the run sets to anything but their default."""
    history: History = whole.history
    kinds = [getattr(history, name) for name in history.__struct_fields__]
    found = []
    for rows in ((whole.run,), whole.plans, *kinds, whole.messages):
        for field in msgspec.structs.fields(type(rows[0])):
            if all(getattr(row, field.name) in _blank(field) for row in rows):
                found.append(f"{type(rows[0]).__name__}.{field.name}")
    return found


def _blank(field: msgspec.structs.FieldInfo) -> tuple[object, ...]:
    if field.default_factory is not msgspec.NODEFAULT:
        return (field.default_factory(),)
    return () if field.required else (field.default,)
