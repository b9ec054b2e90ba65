"""Values that others gave, as one value: what a graph comes to, and what references stand for."""

from __future__ import annotations

from typing import Any

from perdure.task import task


def get(refs: Any) -> Any:
    """Make a node of the values behind references, which waits for their steps.

    Args:
        refs: a node whose value is a ``StepRef``, or lists, tuples, dicts, sets and dataclasses of
            them, such as ``done`` of ``done, pending = perdure.wait(...)``; other values in it stay
            as they are.

    Returns:
        The same with a value in place of each reference.
    """
    return _get.bind(refs)


@task(name="get", cpus=0)
def _get(refs: Any) -> Any:
    return collect.bind(refs)


@task(cpus=0)
def join(chunks: list[list[Any]], until: Any = None) -> list[Any]:
    """Return what the chunks of a map gave, as one list."""
    return [item for chunk in chunks for item in chunk]


@task
def collect(value: Any, until: Any = None) -> Any:
    """Return what the steps of a graph gave, as one value."""
    return value
