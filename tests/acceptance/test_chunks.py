"""Several items of a map in one step, and children called by a key."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.acceptance import chunk_steps as steps
from tests.acceptance.growing_steps import ran

from perdure.client import Perdure, open_store
from perdure.errors import DefinitionError, RunFailed
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import Cause, RunId


def ids(client: Perdure, run_id: str) -> list[str]:
    return sorted(row.step_id for row in client.runtime.store.list_steps(RunId(run_id)))


@pytest.mark.parametrize("n", [0, 1, 7, 8])
def test_map_in_chunks_gives_what_a_map_gives(client: Perdure, n: int) -> None:
    wanted = [x * x for x in range(n)]

    assert client.run(steps.chunked, n=n, chunk=4) == wanted
    assert steps.chunked(n=n, chunk=4) == wanted


def test_chunks_are_named_by_their_slices(inline: Perdure) -> None:
    inline.run(steps.chunked, n=5, chunk=2, run_id="c")

    assert ids(inline, "c") == [
        "numbers", "square", "square[0:2]", "square[2:4]", "square[4:5]", "square~1",
    ]  # fmt: skip


def test_items_of_a_chunk_have_ids_and_keys_of_their_own(inline: Perdure) -> None:
    found = inline.run(steps.named.options(chunk=10).map([0, 1]))

    assert found == ["named[0] named[0]/1", "named[1] named[1]/1"]


def test_items_of_chunks_reach_the_next_stage(client: Perdure) -> None:
    wanted = [x**8 for x in range(7)]

    assert client.run(steps.two_stages, n=7) == wanted
    assert steps.two_stages(n=7) == wanted


def test_item_that_fails_is_retried_alone_and_its_first_try_counts(
    client: Perdure, tmp_path: Path
) -> None:
    from perdure import Backoff

    tried = steps.second_time.options(chunk=10, retries=1, backoff=Backoff(0))
    dag = tried.map(list(range(7)), folder=str(tmp_path))

    assert client.run(dag, run_id="r") == list(range(7))

    assert ran(tmp_path).count("second_time[3]") == 2
    assert ran(tmp_path) == []
    step = client.get_run("r")["second_time[3]"]
    assert [attempt.cause for attempt in step.attempts] == [Cause.USER_ERROR, Cause.SUCCEEDED]


def test_item_that_fails_after_its_chunk_died_counts_on_from_that_try(tmp_path: Path) -> None:
    dag = steps.number_of_try.options(chunk=10).map([0, 1, 2], folder=str(tmp_path))

    with open_store(str(tmp_path / "store" / "perdure.db"), executor="processes") as client:
        assert client.run(dag, run_id="r") == [2, 2, 3]

        tries = client.get_run("r")["number_of_try[2]"].attempts
    assert [(each.attempt, each.cause) for each in tries] == [
        (2, Cause.USER_ERROR),
        (3, Cause.SUCCEEDED),
    ]


def test_item_that_fails_for_good_fails_the_run_and_is_run_alone_again(
    client: Perdure, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    terms = {"n": 6, "chunk": 6, "folder": str(tmp_path), "gate": str(gate)}
    with pytest.raises(RunFailed, match=r"step square\[3\].*three is not ready"):
        client.run(steps.chunked, inputs=terms, run_id="f")
    assert len(ran(tmp_path)) == 6
    gate.touch()

    assert client.resume("f").result() == [0, 1, 4, 9, 16, 25]

    assert ran(tmp_path) == ["square[3]"]


def test_item_that_fails_and_is_caught_is_a_failure_in_its_place(client: Perdure) -> None:
    caught = steps.square.options(chunk=4, catch=True)
    dag = steps.kinds.bind(caught.map([1, 3, 5], gate="/nowhere/at/all"))

    assert client.run(dag, run_id="k") == [1, "builtins.ValueError at 1", 25]
    assert client.execute(dag) == [1, "builtins.ValueError at 1", 25]
    assert client.get_run("k")["square[1]"].status is StepStatus.SUCCEEDED


def test_items_of_an_async_task_go_on_side_by_side(client: Perdure) -> None:
    assert client.run(steps.square_later.options(chunk=3).map([1, 2, 3, 4])) == [1, 4, 9, 16]


def test_unchanged_chunks_are_taken_over(inline: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)
    inline.run(steps.chunked, n=6, chunk=2, folder=folder, run_id="one")
    ran(tmp_path)

    assert inline.run(steps.chunked, n=7, chunk=2, folder=folder, reuse="one")[-1] == 36

    assert ran(tmp_path) == ["square[6]"]


# --- keys -------------------------------------------------------------------------------------
def test_children_are_called_by_their_keys(inline: Perdure) -> None:
    inline.run(steps.lower, words=["Ab", "cd", "Ab", "x/y"], run_id="k")

    assert [step for step in ids(inline, "k") if "[" in step] == [
        "to_lower[AB#2]", "to_lower[AB]", "to_lower[CD]", "to_lower[X_Y]",
    ]  # fmt: skip
    assert len(inline.get_run("k").steps(name="to_lower[*]")) == 4


def test_failed_child_says_its_place_and_what_it_was_given(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match=r"step to_lower\[BAD_WORD\] \(item 1, given 'bad/word'\)"):
        inline.run(steps.lower, words=["fine", "bad/word"])


def test_failure_of_a_child_with_a_key_knows_its_place(client: Perdure) -> None:
    keyed = steps.to_lower.options(key=str.upper, catch=True)

    dag = steps.kinds.bind(keyed.map(["fine", "bad/word"]))
    assert client.run(dag) == ["fine", "builtins.ValueError at 1"]
    assert client.execute(dag) == ["fine", "builtins.ValueError at 1"]


def test_options_of_maps_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(DefinitionError, match="chunk= and key="):
        steps.square.options(chunk=2, key=str)
    with pytest.raises(DefinitionError, match="chunk=0"):
        steps.square.options(chunk=0)
    with pytest.raises(DefinitionError, match=r"key='x'.* of an item"):
        steps.square.options(key="x")  # type: ignore[arg-type]
