"""Calls of an actor that a step binds and leaves out of what it returns are refused, not lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.actor_steps import Stats

import perdure
from perdure import task, workflow
from perdure.client import Perdure, open_store
from perdure.errors import DefinitionError, RunFailed


@pytest.fixture
def inline(tmp_path: Path) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "store" / "perdure.db"), executor="inline") as opened:
        yield opened


def refusal_of(client: Perdure, step: Any) -> str:
    """Return how a step is refused that is given an actor, which is the same eagerly."""

    @workflow
    def given() -> Any:
        return step.bind(Stats.bind(7.0))

    with pytest.raises(DefinitionError) as eagerly:
        given()
    with pytest.raises(RunFailed) as durably:
        client.run(given)
    assert str(eagerly.value) in str(durably.value)
    return str(eagerly.value)


def value_of(client: Perdure, step: Any) -> Any:
    """Return what a step gives that is given an actor, which is the same eagerly."""

    @workflow
    def given() -> Any:
        return step.bind(Stats.bind(7.0))

    value = client.run(given)
    assert given() == value
    return value


@task
def left_out(stats: Any) -> Any:
    stats.add.bind(1.0)
    return 3


@task
def left_out_of_a_graph(stats: Any) -> Any:
    stats.add.bind(1.0)
    stats.add.map([2.0, 3.0])
    return stats.mean.bind()


@task
def left_out_of_its_own(stats: Any) -> Any:
    mine = Stats.bind(7.0)
    mine.add.bind(1.0)
    return mine.mean.bind()


@task
def add_one(stats: Any) -> Any:
    return stats.add.bind(1.0)


@task
def given_on(stats: Any) -> Any:
    add_one.bind(stats)
    return 3


@workflow
def adding() -> Any:
    return Stats.bind().add.bind(1.0)


@task
def inlined(stats: Any) -> Any:
    adding.bind()
    return 3


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (left_out, "Stats.add was bound"),
        (left_out_of_a_graph, "Stats.add, Stats.add were bound"),
        (left_out_of_its_own, "Stats.add was bound"),
        (given_on, "add_one was bound"),
        (inlined, "Stats.add was bound"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_call_that_is_bound_and_not_returned_is_refused(
    inline: Perdure, step: Any, named: str
) -> None:
    refusal = refusal_of(inline, step)

    assert named in refusal
    assert "options(after=[first])" in refusal


def test_calls_come_before_what_is_returned_by_after(inline: Perdure) -> None:
    @task
    def both(stats: Any) -> Any:
        first = stats.add.bind(1.0)
        second = stats.add.bind(2.0)
        return stats.mean.options(after=[first, second]).bind()

    assert value_of(inline, both) == 5.0


def test_reader_that_is_bound_and_not_returned_is_no_loss(inline: Perdure) -> None:
    @task
    def only_read(stats: Any) -> Any:
        stats.mean.bind()
        return 3

    assert value_of(inline, only_read) == 3


def test_branch_that_is_not_chosen_is_part_of_what_is_returned(inline: Perdure) -> None:
    @task
    def either(stats: Any) -> Any:
        return perdure.when(add_is_wanted.bind(), stats.add.bind(1.0), stats.refuse.bind(2.0))

    assert value_of(inline, either) == 8.0


@task
def add_is_wanted() -> bool:
    return True


def test_call_that_a_step_executes_by_itself_is_not_lost(inline: Perdure) -> None:
    @task
    def by_itself(stats: Any) -> float:
        return float(perdure.execute(Stats.bind(1.0).add.bind(1.0)))

    assert value_of(inline, by_itself) == 2.0


def test_calls_of_an_item_that_fails_are_not_asked_for(inline: Perdure) -> None:
    @task(retries=1, backoff=perdure.Backoff(0))
    def bound_then_raised(x: float, stats: Any) -> Any:
        call = stats.add.bind(x)
        if perdure.current().attempt == 1:
            raise OSError("the first time")
        return call

    @task
    def in_chunks(stats: Any) -> Any:
        return bound_then_raised.options(chunk=2).map([1.0], stats=stats)

    assert value_of(inline, in_chunks) == [8.0]


@task
def given_back(stats: Any) -> Any:
    return stats


@task
def given_back_among_others(stats: Any) -> Any:
    return [1, stats]


@pytest.mark.parametrize("step", [given_back, given_back_among_others])
def test_handle_is_refused_where_a_step_returns_it(inline: Perdure, step: Any) -> None:
    assert "an actor is no result" in refusal_of(inline, step)


def test_handle_is_refused_as_the_result_of_an_execution() -> None:
    with pytest.raises(DefinitionError, match="an actor is no result"):
        perdure.execute([Stats.bind()])


def test_method_of_a_plain_object_says_how_it_is_bound() -> None:
    for unbound in (Stats().add, Stats.add):
        with pytest.raises(DefinitionError, match=r"write `Stats\.bind\(\.\.\.\)\.add\.bind"):
            unbound.bind(1.0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: perdure.method(read_only=True)(lambda self: 1), "did you mean 'readonly'"),
        (lambda: Stats.options(snapshots=3), "did you mean 'snapshot'"),
        (lambda: Stats.options(state="rebuild", snapshot=3), "no state is kept"),
        (lambda: perdure.method(lambda: 1), "takes no self"),
        (lambda: perdure.actor(type("A", (), {"f": given_back})), "write @method"),
    ],
    ids=["method", "class", "snapshot", "self", "task"],
)
def test_actor_that_makes_no_sense_is_refused(make: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        make()
