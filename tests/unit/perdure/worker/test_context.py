from __future__ import annotations

import asyncio
import contextvars

import pytest

from perdure.calls import CallId
from perdure.eager import EagerDesk
from perdure.errors import DefinitionError
from perdure.worker.context import Context, StopSignal, current, running


class Nowhere:
    def write(self, text: str) -> None:
        raise AssertionError(text)


def context(step: str = "step") -> Context:
    return Context(
        "run",
        step,
        1,
        2,
        "key",
        StopSignal(),
        Nowhere(),
        EagerDesk().saves(CallId("run", step, 1, 2)),
    )


def test_current_outside_of_a_step_says_where_it_belongs() -> None:
    with pytest.raises(DefinitionError, match="inside a task's function"):
        current()


def test_current_is_each_coroutines_own() -> None:
    async def step(name: str) -> str:
        running.set(context(name))
        await asyncio.sleep(0)
        return current().step_id

    async def together() -> list[str]:
        return list(await asyncio.gather(step("a"), step("b")))

    assert asyncio.run(together()) == ["a", "b"]


def test_should_stop_says_what_was_asked_and_notes_that_somebody_looked() -> None:
    def step() -> tuple[bool, bool]:
        here = context()
        running.set(here)
        before = current().should_stop()
        here.signal.asked = True
        return before, current().should_stop()

    here = context()

    assert contextvars.copy_context().run(step) == (False, True)
    assert not here.signal.watched
    assert not here.should_stop()
    assert here.signal.watched
