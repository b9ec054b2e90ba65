"""What every run store must do with many runs at once; part of ``RunStoreContract``."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure_storage.clock import ManualClock
from perdure_storage.contract_samples import (
    LEASE_S,
    NOW,
    a_message,
    a_plan,
    a_step,
    a_value,
    a_wait,
    an_attempt,
    an_expansion,
    an_owner,
    by,
    claimed,
    created,
    ended,
    kinds,
)
from perdure_storage.errors import InternalError
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import History, Release, RunId


class ManyRunsContract:
    """Taking, giving back and reading many runs at once."""

    def test_claim_of_many_takes_those_that_are_free_and_leaves_the_others(
        self, store: RunStore
    ) -> None:
        held = claimed(store, "held")
        over = ended(store, "over")
        for name in ("c", "a", "b"):
            created(store, name, inputs={"x": a_value()})
        store.register(an_owner("two"), LEASE_S)

        names = ("c", "a", "held", "over", "none", "a")
        runs = store.claim_runs([RunId(name) for name in names], an_owner("two"))

        assert [run.id for run in runs] == ["a", "c"]
        assert runs == [store.get_run(RunId("a")), store.get_run(RunId("c"))]
        assert {(run.status, run.epoch, run.lease_live) for run in runs} == {
            (RunStatus.RUNNING, 1, True)
        }
        assert {run.owner for run in runs} == {an_owner("two")}
        assert kinds(store, "a") == ["submitted", "claimed"]
        assert store.get_run(RunId("b")).owner is None
        assert (store.get_run(held.id), store.get_run(over.id)) == (held, over)

    def test_claim_of_none_takes_none(self, store: RunStore) -> None:
        assert store.claim_runs([], an_owner()) == []

    def test_claim_of_many_takes_over_from_owners_that_were_seen_dead(
        self, store: RunStore
    ) -> None:
        for name in ("one", "two", "three"):
            claimed(store, name, an_owner(name))
        ids = [RunId(name) for name in ("one", "two", "three")]

        runs = store.claim_runs(ids, an_owner("new"), seen_dead=["one", "two"])

        assert [(run.id, run.takeovers, run.epoch) for run in runs] == [
            ("one", 1, 2),
            ("two", 1, 2),
        ]
        assert kinds(store, "one")[-1] == "taken over"
        assert store.get_run(RunId("three")).owner == an_owner("three")

    def test_claim_that_was_on_its_way_takes_nothing_from_who_has_had_the_run_since(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        """As over a server that stood still for longer than a lease."""
        late, soon = created(store, "late"), created(store, "soon")
        store.register(an_owner("two"), LEASE_S * 3)
        store.register(an_owner("faster"), LEASE_S)
        faster = store.claim_run(late.id, an_owner("faster"))
        assert faster is not None
        clock.advance(LEASE_S * 2)
        assert not store.get_run(late.id).lease_live
        seen = {late.id: late.epoch, soon.id: soon.epoch}

        taken = store.claim_runs([late.id, soon.id], an_owner("two"), epochs=seen)
        again = store.claim_run(late.id, an_owner("two"), epoch=late.epoch)

        assert [run.id for run in taken] == [soon.id]
        assert again is None
        assert store.get_run(late.id).owner == an_owner("faster")
        looked = store.claim_run(late.id, an_owner("two"), epoch=faster.epoch)
        assert looked is not None
        assert looked.takeovers == 1

    def test_release_of_many_gives_back_those_that_are_held(self, store: RunStore) -> None:
        runs = [claimed(store, name) for name in ("a", "b", "c")]
        taken = store.claim_run(runs[1].id, an_owner("two"), seen_dead="one")
        wake_at = NOW + timedelta(hours=1)
        first, lost, last = runs

        given = store.release_runs(
            [
                Release(run=last, to=RunStatus.QUEUED),
                Release(run=lost, to=RunStatus.WAITING),
                Release(run=first, to=RunStatus.WAITING, wake_at=wake_at),
            ]
        )

        assert set(given) == {first.id, last.id}
        rows = [store.get_run(run.id) for run in (first, last)]
        assert [(run.status, run.owner, run.wake_at) for run in rows] == [
            (RunStatus.WAITING, None, wake_at),
            (RunStatus.QUEUED, None, None),
        ]
        assert taken is not None
        assert store.get_run(lost.id).owner == an_owner("two")

    def test_release_of_none_gives_none_back(self, store: RunStore) -> None:
        assert store.release_runs([]) == []

    def test_release_of_many_changes_nothing_when_one_status_is_no_hand_back(
        self, store: RunStore
    ) -> None:
        one, two = claimed(store, "one"), claimed(store, "two")

        with pytest.raises(InternalError):
            store.release_runs(
                [
                    Release(run=one, to=RunStatus.QUEUED),
                    Release(run=two, to=RunStatus.FAILED),
                ]
            )

        assert store.get_run(one.id) == one

    def test_histories_give_what_the_lists_of_each_run_give(self, store: RunStore) -> None:
        for name in ("a", "b"):
            run = claimed(store, name)
            steps = (a_step(name, "s"), a_step(name, "r"))
            waits = (a_wait(name, "w"),)
            tries = (an_attempt(name, "s"), an_attempt(name, "r"))
            grown = (an_expansion(name, "g"),)
            store.commit([by(run, *steps, waits=waits, attempts=tries, expansions=grown)])
        created(store, "unasked")

        histories = store.histories([RunId("b"), RunId("a"), RunId("none")])

        assert histories == {
            RunId(name): History(
                steps=tuple(store.list_steps(RunId(name), current_only=False)),
                attempts=tuple(store.list_attempts(RunId(name))),
                expansions=tuple(store.list_expansions(RunId(name))),
                waits=tuple(store.list_waits(RunId(name))),
                events=tuple(store.list_events(RunId(name))),
            )
            for name in ("a", "b", "none")
        }
        assert [step.step_id for step in histories[RunId("a")].steps] == ["s", "r"]
        assert histories[RunId("none")] == History()

    def test_only_those_of_many_are_due_at_once_that_were_sent_something_meanwhile(
        self, store: RunStore
    ) -> None:
        runs = [claimed(store, name) for name in ("a", "b", "c")]
        store.commit([by(run, waits=(a_wait(run.id, "w", kind="event"),)) for run in runs])
        first, second = store.send(a_message(None)), store.send(a_message(None))
        assert first is not None
        assert second is not None
        later = NOW + timedelta(hours=1)

        store.release_runs(
            [
                Release(run=run, to=RunStatus.WAITING, wake_at=later, heard=heard)
                for run, heard in zip(runs, (second.id, first.id, second.id), strict=True)
            ]
        )

        assert [run.id for run in store.claimable()] == ["b"]
        assert store.get_run(RunId("a")).wake_at == later

    # --- hosts of different kinds ---------------------------------------------------------------
    @pytest.mark.parametrize(
        ("offer", "fitting"),
        [
            (None, ["plain", "cpus", "gpu", "licensed"]),
            ({"cpus": 2, "gpus": 0}, ["plain"]),
            ({"cpus": 8, "gpus": 0}, ["plain", "cpus"]),
            ({"cpus": 8, "gpus": 1.0}, ["plain", "cpus", "gpu"]),
            ({"cpus": 1, "gpus": 1, "licence/a": 0.30000000000000004}, ["plain", "licensed"]),
        ],
    )
    def test_claimable_leaves_out_what_needs_more_than_is_offered(
        self, store: RunStore, offer: dict[str, float] | None, fitting: list[str]
    ) -> None:
        needs = {
            "plain": {},
            "cpus": {"cpus": 4.0, "memory": 0.0},
            "gpu": {"cpus": 4.0, "gpus": 1.0},
            "licensed": {"licence/a": 0.3},
        }
        for name, needed in needs.items():
            created(store, name, plan=a_plan(f"plan-{name}", needs=needed))

        found = store.claimable(offer=offer)

        assert sorted(run.id for run in found) == sorted(fitting)

    def test_needs_of_a_plan_are_read_as_they_were_written(self, store: RunStore) -> None:
        plan = a_plan(needs={"gpus": 0.5, "zone=a": 1.0})
        created(store, plan=plan)

        assert store.get_plan(plan.digest) == plan

    def test_claimable_leaves_out_runs_with_graphs_that_need_more_than_is_offered(
        self, store: RunStore, clock: ManualClock
    ) -> None:
        run = claimed(store)
        grown = an_expansion(run.id, "g", plan=a_plan("grown", needs={"gpus": 1.0}))
        store.commit([by(run, expansions=(grown,))])
        clock.advance(LEASE_S + 5)

        without = store.claimable(offer={"cpus": 8.0})

        assert without == []
        assert [each.id for each in store.claimable(offer={"gpus": 1.0})] == [run.id]

    def test_runs_to_be_cancelled_are_claimable_for_everybody(self, store: RunStore) -> None:
        run = created(store, plan=a_plan(needs={"gpus": 1.0}))
        store.request_cancel(run.id)

        assert [each.id for each in store.claimable(offer={"cpus": 1.0})] == [run.id]

    def test_next_wake_is_that_of_runs_that_fit(self, store: RunStore) -> None:
        wakes = {"gpu": NOW + timedelta(hours=1), "plain": NOW + timedelta(hours=2)}
        for name, at in wakes.items():
            needs = {"gpus": 1.0} if name == "gpu" else {}
            run = claimed(store, name, plan=a_plan(f"plan-{name}", needs=needs))
            store.release_run(run, to=RunStatus.WAITING, wake_at=at)

        assert store.next_wake() == wakes["gpu"]
        assert store.next_wake({"gpus": 1.0}) == wakes["gpu"]
        assert store.next_wake({"cpus": 1.0}) == wakes["plain"]
