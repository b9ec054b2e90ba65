from __future__ import annotations

import threading

import pytest
from tests.unit.perdure.progress.facts import commit, done, end

from perdure.progress.watch import Facts, Watch
from perdure_storage.contract_samples import a_step, an_attempt, by, claimed
from perdure_storage.errors import StoreUnavailable
from perdure_storage.lifecycle import RunStatus
from perdure_storage.memory import MemoryRunStore
from perdure_storage.records import RunCommit, RunEnd, RunId, StepId, StepKey

RUN = RunId("run")


@pytest.fixture
def store() -> MemoryRunStore:
    return MemoryRunStore()


# --- facts ---------------------------------------------------------------------------------------
def test_what_this_process_drives_is_overheard_and_never_read(store: MemoryRunStore) -> None:
    facts = Facts(store, RunId("not even there"), lambda: True)
    facts.overheard.append(commit(done("a")))

    assert [row.step_id for fact in facts.take() for row in fact.steps] == ["a"]
    assert facts.take() == []


def test_run_that_has_just_left_our_hands_is_given_time_to_tell_its_end() -> None:
    drives = [True, False]
    facts = Facts(NoStore(), RUN, lambda: drives.pop(0))

    assert facts.take() == []
    assert facts.take() == []
    facts.overheard.append(end(RunStatus.SUCCEEDED))
    drives.append(False)
    assert len(facts.take()) == 1
    assert facts.take(last=True) == []


def test_run_of_another_process_is_read_only_when_something_changed(
    store: MemoryRunStore,
) -> None:
    run = claimed(store)
    facts = Facts(store, RUN, lambda: False)

    store.commit([by(run, a_step("run", "a"))])
    first = facts.take(last=True)
    second = facts.take(last=True)

    assert [[row.step_id for row in fact.steps] for fact in first] == [["a"]]
    assert second == []


def test_value_that_another_process_lost_is_told(store: MemoryRunStore) -> None:
    run = claimed(store)
    facts = Facts(store, RUN, lambda: False)
    store.commit([by(run, a_step("run", "a"))])
    facts.take(last=True)

    store.commit([by(run, lost=(StepKey(StepId("a"), 1),))])
    (fact,) = facts.take(last=True)

    assert fact.lost == (StepKey(StepId("a"), 1),)


def test_attempt_in_flight_counts_as_running_only_while_its_owner_lives(
    store: MemoryRunStore,
) -> None:
    run = claimed(store)
    store.commit([by(run, attempts=(an_attempt("run", "a"),))])
    (alive,) = Facts(store, RUN, lambda: False).take(last=True)
    assert run.owner is not None
    store.unregister(run.owner)
    (dead,) = Facts(store, RUN, lambda: False).take(last=True)

    assert [attempt.step_id for attempt in alive.attempts] == ["a"]
    assert dead.attempts == ()


def test_end_that_another_process_wrote_is_told_once(store: MemoryRunStore) -> None:
    run = claimed(store)
    facts = Facts(store, RUN, lambda: False)
    store.commit([by(run, a_step("run", "a"), end=RunEnd(status=RunStatus.SUCCEEDED))])

    (fact,) = facts.take(last=True)

    assert fact.end is not None
    assert fact.end.status is RunStatus.SUCCEEDED
    assert facts.take(last=True) == []


class NoStore(MemoryRunStore):
    """A store that is not to be asked."""

    def changes(self) -> object:
        raise AssertionError("the store was asked")


# --- the watch -----------------------------------------------------------------------------------
class Shown:
    """A display that counts, and says when it was updated for the n-th time."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.updates = 0
        self.closed = 0
        self.updated = threading.Event()

    def update(self, commits: list[RunCommit]) -> None:
        self.updates += 1
        if self.errors:
            raise self.errors.pop(0)
        self.updated.set()

    def close(self) -> None:
        self.closed += 1
        if self.errors:
            raise self.errors.pop(0)


def facts_of_nothing() -> Facts:
    return Facts(NoStore(), RUN, lambda: True)


def test_display_is_updated_while_the_block_runs_and_closed_after_it() -> None:
    shown = Shown()

    with Watch(facts_of_nothing(), shown):
        assert shown.updated.wait(10)

    assert shown.closed == 1


def test_last_facts_are_shown_though_the_block_was_short() -> None:
    shown = Shown()

    with Watch(facts_of_nothing(), shown):
        pass

    assert shown.updates == 1


def test_display_that_fails_is_left_alone_and_costs_the_block_nothing() -> None:
    shown = Shown(RuntimeError("a bug"), OSError("the terminal is gone"))

    with Watch(facts_of_nothing(), shown):
        pass
    with Watch(facts_of_nothing(), Shown()):
        pass

    assert (shown.updates, shown.closed) == (1, 1)


def test_store_that_is_away_for_a_moment_ends_no_view() -> None:
    shown = Shown(StoreUnavailable("away"))

    with Watch(facts_of_nothing(), shown):
        assert shown.updated.wait(10)

    assert shown.updates >= 2


def test_error_of_the_block_comes_through() -> None:
    with pytest.raises(KeyboardInterrupt), Watch(facts_of_nothing(), Shown()):
        raise KeyboardInterrupt
