"""Branches, loops and waits: what they come to, for type checkers."""

from typing import assert_type

import perdure
from perdure import StepRef, task, workflow


@task
def size(text: str) -> int:
    return len(text)


@task
def shout(text: str) -> str:
    return text.upper()


def is_long(text: str) -> bool:
    return len(text) > 10


@workflow
def flow(text: str) -> int | str:
    only = perdure.when(text, size.bind(text))
    assert_type(only, int | None)
    found = perdure.switch(text, {"a": size.bind(text), "b": size.bind("b")})
    assert_type(found, int)
    looped = perdure.loop(shout, text, until=is_long, max_iterations=3)
    assert_type(looped, str)
    done, pending = perdure.wait([size.bind(text), shout.bind(text)], timeout="5m")
    assert_type(done, list[StepRef])
    assert_type(pending, list[StepRef])
    return perdure.when(text, size.bind(text), shout.bind(text))
