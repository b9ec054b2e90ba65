"""What every run store does with graphs that steps give in place of their values."""

from __future__ import annotations

import pytest

from perdure_storage.contract_samples import (
    a_plan,
    a_step,
    an_expansion,
    by,
    claimed,
    digest,
)
from perdure_storage.errors import StoreError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunCommit, RunEnd, RunId

_RUN = RunId("run")


class ExpansionContract:
    """Expansions: one row, its plan kept with it, gone with its run."""

    def test_commit_keeps_every_field_of_an_expansion(self, store: RunStore) -> None:
        run = claimed(store)
        first = an_expansion("run", "b", plan=a_plan("wide", "x"))
        second = an_expansion(
            "run", "a", generation=2, link=3, kind="map", count=10_000, source="s"
        )

        store.commit([by(run, expansions=(first, second))])

        assert store.list_expansions(_RUN) == [second, first]
        assert store.get_plan(first.plan.digest) == first.plan

    def test_expansions_are_ordered_by_step_generation_and_link(self, store: RunStore) -> None:
        run = claimed(store)
        keys = [("b", 1, 0), ("a", 2, 0), ("a", 1, 10), ("a", 1, 9)]
        made = tuple(
            an_expansion("run", step, generation=generation, link=link)
            for step, generation, link in keys
        )

        store.commit([by(run, expansions=made)])

        listed = [(e.step_id, e.generation, e.link) for e in store.list_expansions(_RUN)]
        assert listed == sorted(keys)

    def test_expansion_is_written_once(self, store: RunStore) -> None:
        run = claimed(store)
        first = an_expansion("run", "a")
        store.commit([by(run, expansions=(first,))])

        again = an_expansion("run", "a", plan=a_plan("another"))
        report = store.commit([by(run, a_step("run", "s"), expansions=(again,))])

        assert report.refused[_RUN].kind == "rejected"
        assert report.refused[_RUN].steps == ("a",)
        assert store.list_expansions(_RUN) == [first]
        assert store.list_steps(_RUN) == []

    def test_expansion_lands_with_the_end_of_a_run(self, store: RunStore) -> None:
        run, other = claimed(store), claimed(store, "other")
        shared = a_plan("child")
        parts = [
            by(
                each,
                expansions=(an_expansion(each.id, "a", plan=shared),),
                end=RunEnd(status=RunStatus.SUCCEEDED),
            )
            for each in (run, other)
        ]

        store.commit(parts)

        assert [e.plan for e in store.list_expansions(_RUN)] == [shared]
        assert [e.plan for e in store.list_expansions(other.id)] == [shared]

    def test_stale_commit_leaves_no_expansion(self, store: RunStore) -> None:
        run = claimed(store)
        stale = RunCommit(
            run_id=_RUN, owner="other", epoch=run.epoch, expansions=(an_expansion("run", "a"),)
        )

        store.commit([stale])

        assert store.list_expansions(_RUN) == []

    def test_blobs_of_an_expansion_are_referred_to(self, store: RunStore) -> None:
        run = claimed(store)
        grown = an_expansion("run", "a", plan=a_plan("child", "held"))
        store.commit([by(run, expansions=(grown,))])

        assert store.condemn([digest("held"), digest("free")]) == [digest("free")]

    def test_expansion_that_names_a_condemned_blob_is_refused(self, store: RunStore) -> None:
        run = claimed(store)
        store.condemn([digest("taken")])
        grown = an_expansion("run", "a", plan=a_plan("child", "taken"))

        report = store.commit([by(run, expansions=(grown,))])

        assert report.refused[_RUN].kind == "condemned"
        assert report.refused[_RUN].digests == (digest("taken"),)
        assert store.list_expansions(_RUN) == []

    def test_expansions_go_with_their_run(self, store: RunStore) -> None:
        run = claimed(store)
        grown = an_expansion("run", "a", plan=a_plan("child", "held"))
        end = RunEnd(status=RunStatus.SUCCEEDED)
        store.commit([by(run, expansions=(grown,), end=end)])

        store.delete_run(_RUN)

        assert store.list_expansions(_RUN) == []
        assert store.condemn([digest("held")]) == [digest("held")]
        with pytest.raises(StoreError):
            store.get_plan(grown.plan.digest)

    def test_plan_that_another_run_grew_stays(self, store: RunStore) -> None:
        shared = a_plan("child", "held")
        for name in ("run", "other"):
            run = claimed(store, name)
            end = RunEnd(status=RunStatus.SUCCEEDED)
            grown = an_expansion(name, "a", plan=shared)
            store.commit([by(run, expansions=(grown,), end=end)])

        store.delete_run(_RUN)

        assert store.get_plan(shared.digest) == shared
        assert store.condemn([digest("held")]) == []
        assert [e.plan for e in store.list_expansions(RunId("other"))] == [shared]
