"""Actors in a graph: the order of their calls, what a failure leaves, where they are restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import actor_steps as steps
from tests.acceptance.actor_steps import Journal, Stats

import perdure
from perdure import method, workflow
from perdure.client import Perdure
from perdure.errors import DefinitionError, ReplayDiffers, RunFailed
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import RunId, StepRecord


def rows(client: Perdure, run_id: str) -> dict[str, StepRecord]:
    return {row.step_id: row for row in client.runtime.store.list_steps(RunId(run_id))}


# --- order --------------------------------------------------------------------------------------
def test_actor_gives_the_same_eagerly_and_durably(client: Perdure) -> None:
    assert steps.running() == steps.RUNNING
    assert client.run(steps.running) == steps.RUNNING


def test_constructing_the_class_gives_a_plain_object() -> None:
    stats = Stats(1.0)

    assert stats.add(2.0) == 3.0
    assert Journal("").lines == []  # type: ignore[abstract]


@workflow
def by_place() -> Any:
    stats = Stats.bind()
    slow = stats.add.bind(steps.double.bind(steps.double.bind(1.0)))
    quick = stats.add.bind(100.0)
    return [quick, slow]


def test_calls_come_in_the_order_in_which_they_were_bound(client: Perdure) -> None:
    assert client.run(by_place) == [104.0, 4.0]


@workflow
def two_readers() -> Any:
    stats = Stats.bind()
    before = stats.add.bind(1.0)
    first, spoilt, second = stats.mean.bind(), stats.spoil.bind(), stats.mean.bind()
    after = stats.add.bind(2.0)
    return [before, first, spoilt, second, after]


def test_reader_sees_what_comes_before_it_and_changes_nothing(client: Perdure) -> None:
    wanted = [1.0, 1.0, -1.0, 1.0, 3.0]

    assert two_readers() == wanted
    assert client.run(two_readers) == wanted


@workflow
def with_failure() -> Any:
    stats = Stats.bind(1.0)
    failed = stats.refuse.options(catch=True).bind(5.0)
    return [failed, stats.add.bind(1.0)]


def test_failed_call_leaves_the_state_as_it_was(client: Perdure) -> None:
    eager = with_failure()
    failure, total = client.run(with_failure)

    assert failure.message == "no 5.0"
    assert total == 2.0
    assert eager[1] == 2.0


@workflow
def with_branch(add: bool) -> Any:
    stats = Stats.bind(1.0)
    chosen = perdure.when(add, stats.add.bind(10.0), steps.double.bind(1.0))
    return [chosen, stats.add.bind(1.0)]


@pytest.mark.parametrize(("add", "wanted"), [(True, [11.0, 12.0]), (False, [2.0, 2.0])])
def test_skipped_call_leaves_the_state_as_it_was(
    client: Perdure, add: bool, wanted: list[float]
) -> None:
    assert client.run(with_branch, inputs={"add": add}) == wanted
    assert with_branch(add) == wanted


class Turnstile(perdure.Actor):
    def __init__(self) -> None:
        self.passed: list[str] = []

    @method
    def enter(self, who: str) -> list[str]:
        if who == "late" and len(refused) == 0:
            refused.append(who)
            raise ValueError("closed")
        self.passed.append(who)
        return self.passed


refused: list[str] = []


@workflow
def failing_between() -> Any:
    turnstile: Any = Turnstile.bind()
    turnstile.enter.bind("first")
    turnstile.enter.bind("late")
    return [turnstile.enter.bind("last"), steps.double.bind(4.0)]


def test_calls_after_one_that_failed_wait_for_a_resume_and_the_rest_goes_on(
    inline: Perdure,
) -> None:
    refused.clear()
    with pytest.raises(RunFailed, match="closed"):
        inline.run(failing_between, run_id="r", on_failure="finish")
    ended = rows(inline, "r")

    result = inline.resume("r").result()

    assert ended["double"].status is StepStatus.SUCCEEDED
    assert "Turnstile.enter#3" not in ended
    assert result == [["first", "late", "last"], 8.0]


# --- state --------------------------------------------------------------------------------------
def test_result_and_state_are_in_one_row(inline: Perdure) -> None:
    inline.run(steps.running, run_id="r")

    found = rows(inline, "r")
    assert all(found[name].states for name in ("Stats", "Stats.add", "Stats.add#2", "Stats.add#4"))
    assert not found["Stats.mean"].states


@workflow
def journal(folder: str) -> Any:
    kept = Journal.bind(folder)  # type: ignore[attr-defined]
    a = kept.write.bind("a")
    b = kept.write.bind("b")
    return [a, b, kept.die_once.bind("c"), kept.write.bind("d"), kept.read.bind()]


LINES = [["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b", "c", "d"]]


def test_killed_actor_is_restored_and_no_committed_call_is_made_again(
    processes: Perdure, tmp_path: Path
) -> None:
    assert processes.run(journal, inputs={"folder": str(tmp_path)}) == LINES

    assert steps.done(tmp_path) == ["a", "b", "dies:c", "c", "d"]


@pytest.mark.parametrize("snapshot", [2, 3, "end"])
def test_calls_since_the_snapshot_are_replayed_in_order(
    processes: Perdure, tmp_path: Path, snapshot: Any
) -> None:
    @workflow
    def sparsely(folder: str) -> Any:
        kept = Journal.options(snapshot=snapshot).bind(folder)  # type: ignore[attr-defined]
        lines = [kept.write.bind(line) for line in "abcd"]
        return [*lines, kept.die_once.bind("e"), kept.read.bind()]

    result = processes.run(sparsely, inputs={"folder": str(tmp_path)})

    assert result[-2:] == [list("abcde")] * 2
    told = steps.done(tmp_path)
    assert told[:5] == [*"abcd", "dies:e"]
    assert told[5:] == [*{2: "", 3: "d", "end": "abcd"}[snapshot], "e"]


def test_call_that_is_tried_again_begins_from_the_state_before_it(
    client: Perdure, tmp_path: Path
) -> None:
    @workflow
    def again(folder: str) -> Any:
        kept = Journal.bind(folder)  # type: ignore[attr-defined]
        first = kept.write.bind("a")
        return [first, kept.fail_once.options(retries=1, backoff=perdure.Backoff(0)).bind("b")]

    assert client.run(again, inputs={"folder": str(tmp_path)}) == [["a"], ["a", "b"]]


def test_call_whose_time_is_up_leaves_the_state_as_it_was(
    processes: Perdure, tmp_path: Path
) -> None:
    @workflow
    def hanging(folder: str) -> Any:
        kept = Journal.bind(folder)  # type: ignore[attr-defined]
        kept.write.bind("a")
        late = kept.hang.options(timeout=0.3, catch=True).bind("b")
        return [late, kept.write.bind("c")]

    late, lines = processes.run(hanging, inputs={"folder": str(tmp_path)})

    assert late.type.endswith("StepTimeout")
    assert lines == ["a", "c"]


# --- again --------------------------------------------------------------------------------------
def test_resumed_run_goes_on_from_the_state_of_its_last_call(
    client: Perdure, tmp_path: Path
) -> None:
    @workflow
    def failing(folder: str) -> Any:
        kept = Journal.bind(folder)  # type: ignore[attr-defined]
        kept.write.bind("a")
        return [kept.fail_once.bind("b"), kept.write.bind("c")]

    with pytest.raises(RunFailed):
        client.run(failing, inputs={"folder": str(tmp_path)}, run_id="r")

    assert client.resume("r").result() == [["a", "b"], ["a", "b", "c"]]
    assert steps.done(tmp_path) == ["a", "fails:b", "b", "c"]


def test_lost_result_is_made_again_without_another_effect(client: Perdure, tmp_path: Path) -> None:
    large = 100_000
    folder = {"folder": str(tmp_path)}

    @workflow
    def lossy(folder: str) -> Any:
        kept = Journal.bind(folder)  # type: ignore[attr-defined]
        first = kept.write.bind("a" * large)
        second = kept.write.bind("b")
        return [first, second, kept.fail_once.bind("c"), steps_after.bind(first)]

    with pytest.raises(RunFailed):
        client.run(lossy, inputs=folder, run_id="r")
    value = rows(client, "r")["Journal.write"].value
    assert value is not None
    client.runtime.blobs.delete(value.integrity)

    result = client.resume("r").result()

    assert result[2] == ["a" * large, "b", "c"]
    assert result[3] == large
    assert rows(client, "r")["Journal.write"].generation == 2
    assert client.runtime.store.list_steps(RunId("r"))


@perdure.task
def steps_after(lines: list[str]) -> int:
    return len(lines[0])


def add_up(xs: list[float]) -> Any:
    @workflow
    def adding() -> Any:
        stats = Stats.bind()
        return [stats.add.bind(x) for x in xs]

    return adding


def test_calls_before_a_change_are_taken_over_and_those_after_it_run(inline: Perdure) -> None:
    inline.run(add_up([1.0, 2.0, 3.0]), run_id="a")

    assert inline.run(add_up([1.0, 5.0, 3.0]), reuse="a", run_id="b") == [1.0, 6.0, 9.0]

    found = rows(inline, "b")
    assert [found[n].attempt for n in ("Stats", "Stats.add", "Stats.add#2", "Stats.add#3")] == [
        0, 0, 1, 1,
    ]  # fmt: skip


# --- refusals -----------------------------------------------------------------------------------
def test_direct_call_in_a_step_is_refused_with_what_to_return(inline: Perdure) -> None:
    with pytest.raises(RunFailed, match=r"return actor\.add\.bind"):
        inline.run(steps.call_at_once.bind(Stats.bind()))


def test_direct_call_in_a_workflow_is_refused() -> None:
    @workflow
    def direct() -> Any:
        return Stats.bind().add(1.0)

    with pytest.raises(DefinitionError, match=r"add\.bind"):
        direct.dag()


def test_unknown_method_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(DefinitionError, match=r"no method 'ad'.*add"):
        Stats.bind().ad.bind(1.0)  # type: ignore[attr-defined]


def test_wrong_arguments_of_a_method_are_refused_where_they_are_bound() -> None:
    with pytest.raises(DefinitionError, match="missing a required argument"):
        Stats.bind().add.bind(y=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options",
    [
        {"snapshot": 0}, {"snapshot": "never"}, {"state": "kept"}, {"pool": 2},
        {"checkpoint": False}, {"volatile": True}, {"catch": True}, {"speed": 1},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        Stats.options(**options)


def test_all_steps_have_succeeded(client: Perdure) -> None:
    client.run(steps.running, run_id="r")

    assert {row.status for row in rows(client, "r").values()} == {StepStatus.SUCCEEDED}


# --- states of other kinds ----------------------------------------------------------------------
@perdure.actor(state="rebuild")
class Model:
    """Is costly to make, and remembers nothing."""

    def __init__(self, folder: str, factor: float) -> None:
        steps.note(folder, "made")
        self.factor = factor

    def scale(self, x: float) -> float:
        return self.factor * x


@workflow
def scaled(folder: str, factor: float) -> Any:
    model = Model.bind(folder, factor)  # type: ignore[attr-defined]
    return [model.scale.bind(1.0), model.scale.map([2.0, 3.0])]


def test_rebuilt_actor_is_made_by_its_constructor_and_keeps_no_state(
    client: Perdure, tmp_path: Path
) -> None:
    wanted = [2.0, [4.0, 6.0]]
    inputs = {"folder": str(tmp_path), "factor": 2.0}

    assert scaled(str(tmp_path), 2.0) == wanted
    assert client.run(scaled, inputs=inputs, run_id="r") == wanted

    assert not any(row.states for row in rows(client, "r").values())


class Shelf(perdure.Actor):
    """Keeps its state in a folder, a file a book."""

    def __init__(self) -> None:
        self.books: dict[str, str] = {}

    @perdure.method
    def put(self, name: str, text: str) -> int:
        self.books[name] = text
        return len(self.books)

    @perdure.method
    def refuse(self) -> None:
        self.books.clear()
        raise ValueError("no")

    def save(self, folder: str) -> None:
        for name, text in self.books.items():
            (Path(folder) / name).write_text(text)

    def load(self, folder: str) -> None:
        self.books = {path.name: path.read_text() for path in Path(folder).iterdir()}

    @perdure.method(readonly=True)
    def read(self) -> dict[str, str]:
        return dict(sorted(self.books.items()))


@workflow
def shelving() -> Any:
    shelf = Shelf.bind()
    shelf.put.bind("a", "a" * 50_000)
    shelf.put.bind("b", "b")
    shelf.refuse.options(catch=True).bind()
    shelf.put.bind("c", "c")
    return shelf.read.bind()


def test_state_that_is_saved_into_a_folder_is_restored_from_it(client: Perdure) -> None:
    wanted = {"a": "a" * 50_000, "b": "b", "c": "c"}

    assert shelving() == wanted
    assert client.run(shelving) == wanted


class Twins(perdure.Actor):
    """One list under two names."""

    def __init__(self) -> None:
        self.one: list[int] = []
        self.other = self.one

    @perdure.method
    def add(self, n: int) -> int:
        self.one.append(n)
        return len(self.other)

    @perdure.method(catch=True)
    def fail(self) -> None:
        raise ValueError("no")


@workflow
def twins() -> Any:
    both = Twins.bind()
    return [both.add.bind(1), both.fail.bind(), both.add.bind(2)][::2]


def test_what_is_one_object_in_a_state_is_one_when_it_is_restored(client: Perdure) -> None:
    assert client.run(twins) == [1, 2]


def counter(step: int, shown: str) -> Any:
    scope: dict[str, Any] = {"__name__": "__main__"}
    source = f"""
import perdure
class Counter(perdure.Actor):
    def __init__(self):
        self.n = 0
    @perdure.method
    def add(self):
        self.n += {step}
        return self.n
    @perdure.method(readonly=True)
    def show(self):
        return f"{shown} {{self.n}}"
@perdure.workflow
def counting():
    counter = Counter.bind()
    return [counter.add.bind(), counter.show.bind()]
"""
    exec(compile(source, "<counter>", "exec"), scope)
    return scope["counting"]


def test_edit_of_a_mutating_method_begins_at_the_constructor(inline: Perdure) -> None:
    inline.run(counter(1, "at"), run_id="a")

    assert inline.run(counter(2, "at"), reuse="a", run_id="b") == [2, "at 2"]
    assert rows(inline, "b")["Counter"].attempt == 1


def test_edit_of_a_reader_makes_its_own_calls_run_again(inline: Perdure) -> None:
    inline.run(counter(1, "at"), run_id="a")

    assert inline.run(counter(1, "now"), reuse="a", run_id="b") == [1, "now 1"]
    found = rows(inline, "b")
    assert [found[n].attempt for n in ("Counter", "Counter.add", "Counter.show")] == [0, 0, 1]


def test_resume_with_todays_code_calls_the_mended_method(inline: Perdure) -> None:
    calls = "till.add.bind(1); till.add.bind(2)"
    bug = "def price(self, x): return {1: 1}[x]"
    with pytest.raises(RunFailed):
        inline.run(priced(more=bug, calls=calls), run_id="a")
    mended = priced(more="def price(self, x): return 100 * x", calls=calls)

    assert inline.resume("a", code="current", dag=mended).result() == "sum 201"


def test_resume_with_todays_code_maps_what_methods_reach_today(inline: Perdure) -> None:
    bug = "def price(self, x): return {1: 1}[x]"
    with pytest.raises(RunFailed):
        inline.run(priced(more=bug), run_id="a")
    mended = priced(more="def price(self, x): return 100 * x")

    assert inline.resume("a", code="current", dag=mended).result() == "sum 201"
    assert rows(inline, "a")["Till.add[0]"].generation == 1


@pytest.mark.parametrize(
    "second", ["till.draw.{}.bind(2)", "till.draw.{}.map([2])", "hands_on.{}.bind(till)"]
)
def test_replay_that_differs_is_accepted_as_its_error_says(inline: Perdure, second: str) -> None:
    calls = "between = late.options(after=till.draw.bind(1)).bind(); "
    calls += second.format("options(after=between)")
    with pytest.raises(RunFailed):
        inline.run(priced(calls=calls, kept="snapshot=9", late="raise OSError"), run_id="a")
    with pytest.raises(ReplayDiffers) as differs:
        inline.resume("a", code="current", dag=priced(calls=calls, kept="snapshot=9")).result()
    accepting = priced(calls=calls, kept='snapshot=9, nondeterminism="warn"')

    assert inline.resume("a", code="current", dag=accepting).result() == "sum 3"
    assert "restore the actor Till, and" in str(differs.value)
    assert "Accept it, then: perdure resume a --code current" in str(differs.value)


PRICED = {
    "kept": "snapshot=1",
    "late": "pass",
    "price": "x",
    "rate": "1",
    "label": "sum",
    "more": "pass",
    "calls": "till.add.map([1, 2])",
}


def priced(**edit: str) -> Any:
    scope: dict[str, Any] = {"__name__": "__main__"}
    source = """
import os
import perdure
class Base(perdure.Actor):
    rate = {rate}
    def __init__(self):
        self.n = 0
    def price(self, x):
        return {price} * self.rate
    @perdure.method
    def add(self, x):
        self.n += self.price(x)
        return self.n
    @perdure.method
    def draw(self, x):
        self.n += x
        return os.urandom(8)
    @perdure.method(readonly=True)
    def show(self):
        return self.label()
    def label(self):
        return f"{label} {{self.n}}"
class Till(Base, {kept}):
    {more}
@perdure.task
def late():
    {late}
@perdure.task
def hands_on(till):
    return till.draw.bind(2)
@perdure.workflow
def pricing():
    till = Till.bind()
    {calls}
    return till.show.bind()
"""
    exec(compile(source.format(**{**PRICED, **edit}), "<priced>", "exec"), scope)
    return scope["pricing"]


@pytest.mark.parametrize(
    ("edit", "shown"),
    [
        ({"price": "10 * x"}, "sum 30"),
        ({"rate": "5"}, "sum 15"),
        ({"label": "total"}, "total 3"),
        ({"more": "def price(self, x): return 7"}, "sum 14"),
        ({}, "sum 3"),
    ],
    ids=["helper", "attribute", "helper of a reader", "override", "nothing"],
)
def test_edit_of_what_methods_reach_through_self_makes_the_calls_run_again(
    inline: Perdure, edit: dict[str, str], shown: str
) -> None:
    assert inline.run(priced(), run_id="a") == "sum 3"

    assert inline.run(priced(**edit), reuse="a", run_id="b") == shown
    assert rows(inline, "b")["Till.show"].attempt == bool(edit)


def test_damaged_snapshot_is_made_again_from_an_earlier_one(inline: Perdure) -> None:
    large = 50_000

    @workflow
    def shelf_that_waits() -> Any:
        shelf = Shelf.bind()
        first = shelf.put.bind("a", "a" * large)
        return [first, waited.bind(shelf.put.bind("b", "b")), shelf.read.bind()]

    with pytest.raises(RunFailed):
        inline.run(shelf_that_waits, run_id="r")
    for row in rows(inline, "r").values():
        for state in row.states.values():
            for blob in state.files:
                inline.runtime.blobs.delete(blob)

    inline.resume("r").result()


seen: list[int] = []


@perdure.task
def waited(n: int) -> int:
    seen.append(n)
    if len(seen) == 1:
        raise RuntimeError("the first time")
    return n


def test_actor_that_is_given_to_an_actor_is_refused(inline: Perdure) -> None:
    with pytest.raises(DefinitionError, match="handle of an actor is for tasks"):
        inline.run(Stats.bind().add.bind(Stats.bind()))  # type: ignore[arg-type]


def test_call_of_an_actor_cannot_be_spun_without_its_state(inline: Perdure) -> None:
    inline.run(steps.running, run_id="r")

    with pytest.raises(DefinitionError, match="fork the run from this step"):
        inline.spin("r", "Stats.add", dag=steps.running)


def test_fork_from_a_call_begins_from_the_state_before_it(inline: Perdure) -> None:
    inline.run(steps.running, run_id="r")

    forked = inline.fork("r", from_step="Stats.add#2", new_id="f", dag=steps.running)

    assert forked.result() == steps.RUNNING
    found = rows(inline, "f")
    assert [found[n].attempt for n in ("Stats.add", "Stats.add#2")] == [0, 1]


def test_handle_is_no_result(inline: Perdure) -> None:
    with pytest.raises(DefinitionError, match="no result"):
        inline.run([Stats.bind()])
