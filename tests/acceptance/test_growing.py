"""Graphs that grow while a run goes on: maps, returned nodes, tail calls; how they are resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import growing_steps as steps

import perdure
from perdure import task, workflow
from perdure.client import Perdure, open_store
from perdure.errors import DefinitionError, NotSerializable, RunFailed
from perdure.story import Siblings
from perdure.target import load_target
from perdure.view.details import view_detail
from perdure.view.runs import group_steps, view_step
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import RunId


def ids(client: Perdure, run_id: str) -> list[str]:
    return sorted(row.step_id for row in client.runtime.store.list_steps(RunId(run_id)))


def test_grown_graphs_give_the_same_eagerly_and_durably(client: Perdure) -> None:
    assert steps.everything() == steps.EVERYTHING
    assert client.run(steps.everything) == steps.EVERYTHING


@pytest.mark.parametrize("durability", ["step", "group"])
def test_grown_graphs_give_the_same_at_any_durability(inline: Perdure, durability: str) -> None:
    assert inline.run(steps.everything, durability=durability) == steps.EVERYTHING


def test_steps_of_a_map_are_named_by_their_place(inline: Perdure) -> None:
    inline.run(steps.scale.map(steps.numbers.bind(3)), run_id="m")

    assert ids(inline, "m") == ["numbers", "scale", "scale[0]", "scale[1]", "scale[2]", "scale~1"]


@task
def two_calls() -> Any:
    return [steps.numbers.bind(1), steps.numbers.bind(2)]


def test_list_of_nodes_is_no_result_and_says_what_is(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match=r"nodes inside.*gather\.bind"):
        inline.run(two_calls.bind())


def test_item_that_cannot_be_stored_is_named_as_it_was_written(inline: Perdure) -> None:
    with pytest.raises(NotSerializable, match=r"scale\.map\(\*iterables\)\[0\]\[0\]") as caught:
        inline.run(steps.scale.map([(each for each in "ab")]))

    assert not any("mapping.py" in note for note in getattr(caught.value, "__notes__", ()))


def no_key(item: int) -> str:
    return item.name  # type: ignore[attr-defined, no-any-return]


def test_key_that_raises_is_blamed_and_perdure_is_not(inline: Perdure) -> None:
    run = inline.start(steps.scale.options(key=no_key).map([1, 2]))

    with pytest.raises(RunFailed):
        run.result()

    error = run["scale"].error
    assert error is not None
    assert "in key=, which was asked what the child of item 0 is called" in error.traceback
    assert "mapping.py" not in error.traceback


def test_steps_of_a_map_are_summed_up_by_their_ids(inline: Perdure) -> None:
    inline.run(steps.scale.map(steps.numbers.bind(3)), run_id="m")

    siblings = Siblings(inline.get_run("m"))
    views = (view_step(step, siblings) for step in siblings.steps)
    groups = group_steps(views)

    assert [(group.name, group.total) for group in groups] == [
        ("numbers", 1), ("scale", 1), ("scale[*]", 3), ("scale~", 1),
    ]  # fmt: skip


def test_steps_of_a_returned_graph_lie_below_the_step_that_returned_it(inline: Perdure) -> None:
    inline.run(steps.fib.bind(2), run_id="f")

    assert ids(inline, "f") == ["fib", "fib/fib", "fib/fib#2", "fib~1"]


def test_tail_calls_keep_the_length_of_their_ids_and_one_link(inline: Perdure) -> None:
    assert inline.run(steps.countdown.bind(300), run_id="c", durability="group") == "done"

    assert ids(inline, "c") == ["countdown", "countdown~300"]
    links = inline.runtime.store.list_expansions(RunId("c"))
    assert len(links) == 300
    assert abs(len(links[-1].plan.body) - len(links[9].plan.body)) < 10


def test_map_with_a_new_item_at_the_front_runs_one_step(client: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert client.run(steps.shouting, text="b c d", folder=folder, run_id="one") == "B C D"
    assert len(steps.ran(tmp_path)) == 3

    result = client.run(steps.shouting, text="a b c d", folder=folder, reuse="one")

    assert result == "A B C D"
    assert steps.ran(tmp_path) == ["shout[0]"]


def test_map_over_the_same_items_is_taken_over_whole(inline: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)
    inline.run(steps.shouting, text="b c", folder=folder, run_id="one")
    steps.ran(tmp_path)

    inline.run(steps.shouting, text="b  c", folder=folder, reuse="one", run_id="two")

    assert steps.ran(tmp_path) == []
    assert ids(inline, "two") == ["items", "join", "shout"]


def test_items_of_a_map_that_was_taken_over_whole_are_found_where_they_ran(
    inline: Perdure, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    inline.run(steps.shouting, text="b c", folder=folder, run_id="one")
    inline.run(steps.shouting, text="b c", folder=folder, reuse="one", run_id="two")
    inline.run(steps.shouting, text="b c", folder=folder, reuse="two", run_id="three")
    steps.ran(tmp_path)

    assert inline.run(steps.shouting, text="a b c", folder=folder, reuse="three") == "A B C"

    assert steps.ran(tmp_path) == ["shout[0]"]


def test_workflow_that_contains_itself_is_refused_by_name() -> None:
    @workflow
    def endless() -> int:
        return endless.bind()

    with pytest.raises(DefinitionError, match="endless' contains itself"):
        endless.dag()


def test_failed_item_names_its_place_and_is_the_only_one_to_run_again(
    client: Perdure, tmp_path: Path
) -> None:
    folder, gate = str(tmp_path), str(tmp_path / "gate")
    with pytest.raises(RunFailed, match=r"step shout\[1\] \(item 1, given 'bad'\): ValueError"):
        client.run(steps.shouting, text="a bad c", folder=folder, gate=gate, run_id="r")
    before = steps.ran(tmp_path)
    Path(gate).touch()

    assert client.resume("r").result() == "A BAD C"
    again = steps.ran(tmp_path)

    assert "shout[1]" in before
    assert again == sorted({"shout[0]", "shout[1]", "shout[2]"} - (set(before) - {"shout[1]"}))


def test_iterables_of_different_lengths_are_refused(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match=r"scale.map: its .* equally long: #0 has 2, #1 has 3"):
        inline.run(steps.scale.map([1, 2], steps.numbers.bind(3)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: steps.scale.map(), "nothing to map over"),
        (lambda: steps.scale.map("text"), "one value, of type str"),
        (lambda: steps.scale.map({1, 2}), "whose order is not its own"),
        (lambda: steps.scale.map({"a": 1}), "whose order is not its own"),
        (lambda: steps.scale.map(5), "cannot be iterated"),
        (lambda: perdure.each(5), "cannot be iterated"),
        (lambda: perdure.product([1], "ab"), "of type str"),
    ],
)
def test_what_cannot_be_mapped_over_is_refused_where_it_is_written(
    wrong: object, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        wrong()  # type: ignore[operator]


def test_step_of_a_grown_graph_that_fits_nowhere_fails_the_run_with_its_name(
    inline: Perdure,
) -> None:
    with pytest.raises(RunFailed, match=r"too_large~1, which too_large gave, can never run here"):
        inline.run(steps.too_large.bind(1))


def test_map_with_an_unknown_argument_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match=r"scale\.map\(\): got an unexpected keyword"):
        steps.scale.map([1], colour="red")


def test_lost_value_of_a_map_is_rebuilt_from_the_items_that_are_there(
    inline: Perdure, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    inline.run(steps.shouting, text=f"{'x' * 40_000} b c", folder=folder, run_id="r")
    steps.ran(tmp_path)
    blobs = sorted(Path(inline.settings.blobs).rglob("blobs/*/blake3-*"))
    rows = {row.step_id: row for row in inline.runtime.store.list_steps(RunId("r"))}
    lost = {rows["shout"].value.integrity, rows["join"].value.integrity}  # type: ignore[union-attr]
    for path in blobs:
        if any(digest.rpartition(":")[2] in path.name for digest in lost):
            path.unlink()

    result = inline.resume("r").result()

    assert result == f"{'X' * 40_000} B C"
    assert steps.ran(tmp_path) == []
    states = {row.step_id: row.status for row in inline.runtime.store.list_steps(RunId("r"))}
    assert set(states.values()) == {StepStatus.SUCCEEDED}


def test_show_tells_of_a_grown_step_what_it_took(inline: Perdure, tmp_path: Path) -> None:
    inline.run(steps.scale.map(steps.numbers.bind(3), y=7), run_id="m")

    run = inline.get_run("m")
    detail = view_detail(run["scale[2]"], Siblings(run))

    assert detail.task.endswith("growing_steps.scale")
    assert [(taken.name, taken.of) for taken in detail.inputs] == [
        ("[0]", "constant"),
        ("y", "constant"),
    ]
    assert [str(taken.preview["repr"]) for taken in detail.inputs if taken.preview] == ["2", "7"]


def test_steps_of_a_map_are_found_by_a_pattern(inline: Perdure) -> None:
    inline.run(steps.scale.map(steps.numbers.bind(12)), run_id="m")

    found = [step.id for step in inline.get_run("m").steps(name="scale[*]")]

    assert found == [f"scale[{index}]" for index in range(12)]


SCRIPT = """\
from perdure import task, workflow


@task
def items(n: int) -> list[int]:
    return list(range(n))


@task
def risky(i: int) -> int:
    with open("ran", "a") as file:
        file.write(f"{i}\\n")
    if i == BAD:
        raise ValueError("bad item")
    return i * i


@task
def total(xs: list[int]) -> int:
    return sum(xs)


@workflow
def w(n: int = 5) -> int:
    return total.bind(risky.map(items.bind(n)))
"""


def test_mended_task_of_a_map_runs_only_for_the_items_that_had_not_committed(
    inline: Perdure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "w.py"
    script.write_text(SCRIPT.replace("BAD", "3"))
    with pytest.raises(RunFailed, match=r"risky\[3\].*bad item"):
        inline.run(load_target("w.py"), run_id="r")
    done = {row.step_id for row in inline.runtime.store.list_steps(RunId("r")) if row.value}
    (tmp_path / "ran").unlink()
    script.write_text(SCRIPT.replace("BAD", "99"))

    assert inline.resume("r", code="current").result() == 30

    again = {f"risky[{line}]" for line in (tmp_path / "ran").read_text().split()}
    assert again == {f"risky[{index}]" for index in range(5)} - done
    assert "risky[3]" in again
    assert "code changed" in inline.why("r", "risky[3]")


def test_items_reach_the_next_stage_before_the_first_is_over(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "s.db"), executor="processes", workers=2) as client:
        assert client.run(steps.two_stages, folder=str(tmp_path)) == 9


def test_map_over_a_map_is_resumed_with_the_items_that_are_missing(
    client: Perdure, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    run = client.start(steps.three_stages, n=4, folder=str(tmp_path), gate=str(gate), run_id="t")
    with pytest.raises(RunFailed, match="not yet"):
        run.result()
    before = steps.ran(tmp_path)
    gate.touch()

    assert client.resume("t").result() == 18

    after = steps.ran(tmp_path)
    assert "second[1]" in before
    assert "second[1]" in after
    repeated = [step for step in after if step in before]
    assert repeated == ["second[1]"]
    assert set(before) | set(after) == {
        f"{stage}[{item}]" for stage in ("first", "second", "third") for item in range(4)
    }


def test_stage_below_a_map_that_is_done_goes_on_by_itself(inline: Perdure, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    terms = {"n": 4, "folder": str(tmp_path), "gate": str(gate)}
    run = inline.start(steps.three_stages, run_id="t", on_failure="finish", inputs=terms)
    with pytest.raises(RunFailed, match="not yet"):
        run.result()
    done = {row.step_id for row in inline.runtime.store.list_steps(RunId("t"))}
    assert "first" in done
    assert {"second", "third"}.isdisjoint(done)
    steps.ran(tmp_path)
    gate.touch()

    assert inline.resume("t").result() == 18

    assert steps.ran(tmp_path) == ["second[1]", "third[1]"]


def test_map_over_a_map_runs_what_a_new_item_needs(inline: Perdure, tmp_path: Path) -> None:
    folder = str(tmp_path)
    inline.run(steps.three_stages, n=3, folder=folder, run_id="t")
    steps.ran(tmp_path)

    assert inline.run(steps.three_stages, n=4, folder=folder, reuse="t") == 18

    assert steps.ran(tmp_path) == ["first[3]", "second[3]", "third[3]"]


def test_map_over_a_map_that_was_taken_over_whole(inline: Perdure, tmp_path: Path) -> None:
    folder, gate = str(tmp_path), tmp_path / "gate"
    gate.touch()
    inline.run(steps.three_stages, n=3, folder=folder, run_id="t")
    steps.ran(tmp_path)

    terms = {"n": 3, "folder": folder, "gate": str(gate)}
    assert inline.run(steps.three_stages, inputs=terms, reuse="t") == 12

    assert steps.ran(tmp_path) == ["second[0]", "second[1]", "second[2]"]


def test_maps_over_maps_pair_their_items_and_take_products(client: Perdure) -> None:
    xs = steps.scale.map(steps.numbers.bind(3))
    zipped = steps.add.map(xs, xs)
    pairs = steps.total.map(perdure.product(xs, zipped))

    assert client.run([zipped, pairs]) == [[0, 4, 8], [0, 4, 8, 2, 6, 10, 4, 8, 12]]


def test_map_over_a_map_of_nothing(client: Perdure) -> None:
    assert client.run(steps.scale.map(steps.scale.map(steps.numbers.bind(0)))) == []


def test_map_over_a_map_whose_items_are_not_kept(client: Perdure) -> None:
    unkept = steps.scale.options(checkpoint=False).map(steps.numbers.bind(4))

    assert client.run(steps.total.bind(steps.scale.map(unkept))) == 24


def test_failure_of_an_item_is_the_input_of_the_next_stage(client: Perdure) -> None:
    kinds = steps.kind_of.map(steps.picky.map(steps.numbers.bind(4)))

    assert client.run(kinds) == ["0", "1", "builtins.ValueError in picky[2], item 2", "3"]


def test_maps_of_different_lengths_are_refused_before_their_items_run(inline: Perdure) -> None:
    xs = steps.scale.map(steps.numbers.bind(3))

    with pytest.raises(RunFailed, match="#0 has 3, #1 has 2"):
        inline.run(steps.add.map(xs, [1, 2]))


def test_reference_to_no_step_of_the_run_fails_the_step_that_returned_it(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match="refers to nowhere, which is no step of this run"):
        inline.run(steps.lost_reference.bind())


def test_reference_in_a_graph_that_is_not_run_yet_is_refused(inline: Perdure) -> None:
    with pytest.raises(DefinitionError, match="in its own run only"):
        inline.run(perdure.get([perdure.StepRef("nowhere")]))


def test_map_with_arguments_that_do_not_fit_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match=r"shout\.map\(\): missing a required .*'folder'"):
        steps.shout.map(["a"])


def test_graph_over_a_step_that_reads_the_world_takes_over_what_comes_out_the_same(
    inline: Perdure, tmp_path: Path
) -> None:
    words, folder = tmp_path / "words", str(tmp_path)
    words.write_text("a b")
    dag = steps.look_twice.options(volatile=True).bind(str(words), folder)
    assert inline.run(dag, run_id="one") == "A B"
    assert len(steps.ran(tmp_path)) == 2

    assert inline.run(dag, run_id="two", reuse="one") == "A B"
    assert steps.ran(tmp_path) == []

    words.write_text("a c")
    assert inline.run(dag, reuse="two") == "A C"
    assert steps.ran(tmp_path) == ["look_twice/shout[1]"]
