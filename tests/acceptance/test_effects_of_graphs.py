"""What a graph that a step gave has done to an actor stands, also where only its calls say so.

That is so of a graph whose last call fails after the state of the one before it was lost: the step
that gave it has no state to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import method, task, workflow
from perdure.client import Perdure, open_store
from perdure.errors import RunFailed
from perdure_storage.records import Place, RunId

GIVEN: list[str] = []
"""Which graphs were given, in order."""
READY: set[str] = set()
"""What the steps that wait for it do not fail for any more."""
LARGE = 40_000
"""Too large for a row: a state of this size is a blob."""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    GIVEN.clear()
    READY.clear()
    with open_store(str(tmp_path / "store" / "perdure.db"), executor="inline") as opened:
        yield opened


class Memory(perdure.Actor, snapshot="end"):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.padding = "x" * LARGE
        self.told: list[str] = []

    @method
    def tell(self, text: str) -> str:
        self.told.append(text)
        return text

    @method
    def refuse(self, text: str) -> None:
        self.told.append("spoilt")
        raise ValueError(text)

    @method(readonly=True)
    def recall(self) -> list[str]:
        return list(self.told)


@task
def ready(name: str, earlier: Any) -> str:
    if name not in READY:
        raise RuntimeError(f"{name} is not ready")
    return name


@task
def tell_and_fail(memory: Any, text: str) -> Any:
    GIVEN.append(text)
    told = memory.tell.bind(text)
    return memory.refuse.options(catch=True).bind(ready.bind(f"after {text}", told))


@task
def nested(memory: Any, name: str = "nested") -> Any:
    GIVEN.append(name)
    inner = tell_and_fail.bind(memory, "inner")
    return memory.tell.bind(ready.bind("outer", inner))


@workflow
def named(name: perdure.Static[str]) -> Any:
    memory = Memory.bind()
    memory.tell.bind(ready.bind("last", nested.bind(memory, name)))
    return memory.recall.bind()


@workflow
def after_another() -> Any:
    memory = Memory.bind()
    tell_and_fail.bind(memory, "first")
    nested.bind(memory)
    return memory.recall.bind()


def run_until(client: Perdure, missing: str, definition: Any, **inputs: str) -> None:
    """Run until something is not ready; let it be, with the states lost that were kept so far."""
    with pytest.raises(RunFailed, match=f"{missing} is not ready"):
        client.run(definition, run_id="r", inputs=inputs)
    READY.add(missing)
    for row in client.runtime.store.list_steps(RunId("r")):
        for state in row.states.values():
            if state.place is Place.BLOB:
                client.runtime.blobs.delete(state.integrity)


def test_graph_after_one_that_kept_no_state_is_not_asked_for_again(client: Perdure) -> None:
    READY.add("after inner")
    run_until(client, "after first", after_another)
    run_until(client, "outer", after_another)

    result = client.run(after_another, run_id="r")

    assert result == ["first", "inner", "outer"]
    assert GIVEN == ["first", "nested", "inner"]


def test_effects_of_a_graph_stand_when_the_one_around_it_is_given_again(client: Perdure) -> None:
    READY.add("last")
    run_until(client, "after inner", named, name="before")
    run_until(client, "outer", named, name="before")

    result = client.run(named, run_id="r", inputs={"name": "after"})

    assert result == ["inner", "outer", "last"]
    assert GIVEN == ["before", "inner", "after"]


def test_effects_of_a_graph_stand_when_the_state_after_the_one_around_it_is_lost(
    client: Perdure,
) -> None:
    run_until(client, "after inner", named, name="nested")
    READY.add("outer")
    run_until(client, "last", named, name="nested")

    result = client.run(named, run_id="r", inputs={"name": "nested"})

    assert result == ["inner", "outer", "last"]
    assert GIVEN == ["nested", "inner"]


@task
def chain(memory: Any) -> Any:
    GIVEN.append("chain")
    return link.bind(memory, memory.tell.bind("first"))


@task
def link(memory: Any, earlier: str) -> Any:
    GIVEN.append("link")
    return memory.tell.bind(ready.bind("second", earlier))


@workflow
def chained() -> Any:
    memory = Memory.bind()
    chain.bind(memory)
    return memory.recall.bind()


def test_chain_of_graphs_with_calls_of_an_actor_goes_on_where_it_was(client: Perdure) -> None:
    with pytest.raises(RunFailed, match="second is not ready"):
        client.run(chained, run_id="r")
    READY.add("second")

    result = client.run(chained, run_id="r")

    assert result == ["first", "second"]
    assert GIVEN == ["chain", "link"]
