"""What a wait leaves: it ends unless somebody needs it, and a resume keeps to that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance import waiting_for_steps as steps
from tests.acceptance.growing_steps import ran
from tests.crash.ledger import wait_until

import perdure
from perdure.client import Perdure, open_store
from perdure.errors import RunFailed
from perdure_storage.contract_samples import LEASE_S, an_owner, by
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import Release, RunId, StepId, StepKey


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "store" / "perdure.db"), workers=2) as opened:
        yield opened


def cancelled(client: Perdure, run_id: str) -> set[str]:
    rows = client.runtime.store.list_steps(RunId(run_id))
    return {row.step_id for row in rows if row.status is StepStatus.CANCELLED}


def waits(client: Perdure, run_id: str) -> int:
    """Return how many steps have begun to wait."""
    return len(client.runtime.store.list_waits(RunId(run_id)))


def lose(client: Perdure, run_id: str, step: str) -> None:
    """Note that a value is gone, as a process does that dies before it is made again."""
    store, owner = client.runtime.store, an_owner()
    store.reset_run(RunId(run_id))
    store.register(owner, LEASE_S)
    run = store.claim_run(RunId(run_id), owner)
    assert run is not None
    store.commit([by(run, lost=(StepKey(StepId(step), 1),))])
    store.release_runs([Release(run=run, to=RunStatus.QUEUED, wake_at=None, heard=0)])


def test_what_a_wait_leaves_is_killed_and_stays_so(client: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)

    assert client.run(steps.first, folder=folder, run_id="r") == [["a"], ["b"], [1]]

    assert cancelled(client, "r") == {"b"}
    assert client.get_run("r").status is RunStatus.SUCCEEDED
    ran(tmp_path)
    assert client.resume("r").result() == [["a"], ["b"], [1]]
    assert ran(tmp_path) == []
    assert client.why("r", "b").startswith("b was cancelled: not needed: wait had enough")


def test_step_that_others_need_goes_on(client: Perdure, tmp_path: Path) -> None:
    assert client.run(steps.needed, folder=str(tmp_path), run_id="r") == [["a"], ["b"], 2]

    assert cancelled(client, "r") == set()


def test_items_of_a_map_that_are_not_needed_end_with_it(client: Perdure, tmp_path: Path) -> None:
    result = client.run(steps.items, folder=str(tmp_path), xs=[1, 2, 3], run_id="r")

    assert result == [["either[1]"], ["either[0]", "either[2]"], [2]]
    assert cancelled(client, "r") >= {"either", "either[0]", "either[2]"}
    ran(tmp_path)
    assert client.resume("r").result() == result
    assert ran(tmp_path) == []


def test_caught_failure_counts_as_ended(client: Perdure, tmp_path: Path) -> None:
    assert client.run(steps.caught, folder=str(tmp_path)) == ["builtins.ValueError"]


def test_nobody_in_time_leaves_all_pending(inline: Perdure, tmp_path: Path) -> None:
    result = inline.run(steps.late, folder=str(tmp_path), run_id="r")

    assert result == [[], ["wait_signal"]]
    assert cancelled(inline, "r") == {"wait_signal"}


def test_waits_in_graphs_and_for_references(client: Perdure, inline: Perdure) -> None:
    result = [[[3, 4], []], [2], [1, 2]]

    assert client.run(steps.nested) == result
    assert steps.nested() == result


def test_all_have_ended_where_everything_runs_in_order(inline: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)
    (tmp_path / "open").touch()

    assert steps.first(folder=folder) == [["b", "a"], [], [2, 1]]


def test_failure_fails_the_run_as_ever(inline: Perdure, tmp_path: Path) -> None:
    done, _ = perdure.wait([steps.fails.bind(str(tmp_path))])

    with pytest.raises(RunFailed, match="on purpose"):
        inline.run(perdure.get(done))


def test_run_fails_where_nobody_is_left_that_can_end(inline: Perdure, tmp_path: Path) -> None:
    done, _ = perdure.wait([steps.fails.bind(str(tmp_path))])

    with pytest.raises(RunFailed, match="on purpose"):
        inline.run(perdure.get(done), on_failure="finish")


def test_branch_that_is_waited_for_runs_though_it_is_not_chosen(
    inline: Perdure, tmp_path: Path
) -> None:
    result = inline.run(steps.unchosen, folder=str(tmp_path), run_id="r")

    assert result == [["only", "when"], []]


def test_loser_that_is_part_of_the_result_goes_on(inline: Perdure, tmp_path: Path) -> None:
    assert inline.run(steps.result, folder=str(tmp_path))[1] == 2


def test_what_only_a_loser_needs_is_not_needed(client: Perdure, tmp_path: Path) -> None:
    assert client.run(steps.chain, folder=str(tmp_path), run_id="r") == [1]

    assert cancelled(client, "r") == {"above", "b"}


def test_value_that_is_no_list_cannot_be_waited_for(inline: Perdure) -> None:
    done, _ = perdure.wait(steps.quick.bind(1))

    with pytest.raises(RunFailed, match="the value of quick is of type int"):
        inline.run(perdure.get(done))


def test_loser_that_waits_for_steps_of_its_own_is_ended(inline: Perdure) -> None:
    run = inline.start(steps.loser_that_races, run_id="r")
    wait_until(lambda: waits(inline, "r") == 5, 20, "not everything waits")

    run.signal("go", 1)

    assert run.result(timeout=60) == [["wait_signal"], ["races_within"]]
    assert cancelled(inline, "r") >= {"races_within"}


def test_item_whose_value_was_lost_does_not_hold_up_who_asks_for_another(
    inline: Perdure, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed):
        inline.run(steps.one_item, folder=str(tmp_path), run_id="r")
    lose(inline, "r", "quick[0]")
    (tmp_path / "open").touch()

    assert inline.resume("r").result(timeout=60) == 2
