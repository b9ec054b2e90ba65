"""``wait`` and ``stop_when``: who wins is recorded, and losers that nobody needs are ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance import racing_steps as steps
from tests.acceptance.growing_steps import ran
from tests.crash.ledger import wait_until

import perdure
from perdure.client import Perdure, open_store
from perdure.errors import DefinitionError, RunFailed
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import RunId


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Perdure]:
    path = str(tmp_path / "store" / "perdure.db")
    with open_store(path, executor="processes", workers=4) as opened:
        yield opened


def test_map_stops_when_a_value_is_good_enough(inline: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert inline.run(steps.quick_sweep, n=400, folder=folder, run_id="s") == "[0, 1]"

    # Some were under way: as many as the executor calls in a turn.
    assert len(ran(tmp_path)) < 400
    assert len(inline.get_run("s").steps(status=StepStatus.CANCELLED)) == 398
    assert "not needed: stop_when held for quick[1]" in inline.why("s", "quick[99]")
    assert steps.quick_sweep(n=100) == "[0, 1]"


def test_losers_that_run_are_killed(processes: Perdure, tmp_path: Path) -> None:
    began = time.monotonic()

    assert processes.run(steps.sweep, n=3, folder=str(tmp_path), run_id="s") == "[0, 1]"

    assert time.monotonic() - began < 30
    assert processes.get_run("s")["trial[2]"].status is StepStatus.CANCELLED


def test_stop_stands_when_the_run_is_resumed(inline: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)
    inline.run(steps.quick_sweep, n=5, folder=folder, run_id="s")
    ran(tmp_path)
    rows = len(inline.runtime.store.list_steps(RunId("s"), current_only=False))

    assert inline.resume("s").result() == "[0, 1]"

    assert ran(tmp_path) == []
    assert len(inline.runtime.store.list_steps(RunId("s"), current_only=False)) == rows


def test_items_run_that_a_stop_left_when_it_is_taken_back(inline: Perdure, tmp_path: Path) -> None:
    folder, items = str(tmp_path), list(range(100))
    tried = steps.quick.options(stop_when=steps.is_one).map(items, folder=folder)
    with pytest.raises(RunFailed):
        inline.run(steps.fails.bind(tried), run_id="s")
    ran(tmp_path)
    assert len(inline.get_run("s").steps(status=StepStatus.CANCELLED)) > 50

    whole = steps.quick.map(items, folder=folder)
    assert inline.run(steps.told.bind(whole), run_id="s") == str(items)

    assert "quick[99]" in ran(tmp_path)
    assert not inline.get_run("s").steps(status=StepStatus.CANCELLED)


def test_first_of_several_wins_and_the_rest_is_cancelled(
    processes: Perdure, tmp_path: Path
) -> None:
    result = processes.run(steps.race, folder=str(tmp_path), run_id="r")

    assert result == "[1] 1 left: slow"
    assert processes.get_run("r")["slow"].status is StepStatus.CANCELLED
    assert "not needed: wait had enough" in processes.why("r", "slow")
    assert processes.resume("r").result() == result


def test_those_that_are_not_done_go_on(client: Perdure) -> None:
    run = client.start(steps.patient, timeout=60.0)
    wait_until(lambda: run["wait"].row is not None, 20, "the race does not end")
    run.signal("late", "in time")

    assert run.result() == "[1, 2] ['in time']"


def test_wait_over_a_map_is_for_its_children(client: Perdure) -> None:
    assert client.run(steps.over_a_map, run_id="m") == "[0, 1, 2] 0 left: "
    assert client.run(steps.over_a_map, reuse="m") == "[0, 1, 2] 0 left: "
    assert steps.over_a_map() == "[0, 1, 2] 0 left: "


def test_wait_ends_with_what_is_done_when_its_time_is_over(inline: Perdure) -> None:
    assert inline.run(steps.too_late) == "[] 1 left: wait_signal"


def test_waits_that_make_no_sense_are_refused() -> None:
    node = steps.quick.bind(1)
    with pytest.raises(DefinitionError, match="num_returns=0"):
        perdure.wait([node], num_returns=0)
    with pytest.raises(DefinitionError, match="num_returns=2 of 1 nodes"):
        perdure.wait([node], num_returns=2)
    with pytest.raises(DefinitionError, match="3 is no node"):
        perdure.wait([node, 3])
    with pytest.raises(DefinitionError, match="stop_when=3"):
        steps.quick.options(stop_when=3)  # type: ignore[arg-type]


def test_children_that_were_not_needed_run_once_stop_when_was_edited(inline: Perdure) -> None:
    @perdure.task
    def same(x: int) -> int:
        return x

    def tried(limit: int) -> list[int]:
        return same.options(stop_when=lambda value: value >= limit).map([1, 2, 3])

    assert inline.run(tried(1), run_id="a") == [1]
    assert inline.run(tried(3), reuse="a", run_id="b") == [1, 2, 3]


def raced(x: int, end: perdure.Task[..., str]) -> perdure.Node[str]:
    """Return a graph whose value is that of the one step that it waits for."""
    done, _ = perdure.wait([steps.quick.bind(steps.quick.bind(x))])
    return end.bind(perdure.get(done))


def test_value_behind_a_race_is_computed_anew_when_what_it_was_made_from_is_mended(
    inline: Perdure,
) -> None:
    with pytest.raises(RunFailed):
        inline.run(raced(1, steps.fails), run_id="s")

    assert inline.run(raced(2, steps.told), run_id="s") == "[2]"


def test_outcome_of_a_race_between_other_steps_of_the_same_names_is_no_difference(
    inline: Perdure,
) -> None:
    inline.run(raced(1, steps.told), run_id="a")
    inline.run(raced(2, steps.told), run_id="b")

    difference = inline.diff("a", "b")
    same = [pair.id for pair in difference.steps if pair.value is not None and pair.value.same]
    assert same == ["wait"]
