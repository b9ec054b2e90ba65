"""``catch_exceptions``: a pair of value and error in place of a value, both stored."""

from __future__ import annotations

from typing import Any

from perdure.errors import Failure
from perdure.task import Task, task


@task(name="pair", cpus=0)
def pair(outcome: Any) -> tuple[Any, BaseException | None]:
    """Return ``(value, None)``, or ``(None, error)`` of a failure that was caught."""
    if isinstance(outcome, Failure):
        return None, outcome.exception()
    return outcome, None


class CatchingTask(Task[Any, Any]):
    """A task whose nodes stand for pairs."""

    def bind(self, /, *args: Any, **kwargs: Any) -> Any:
        """Make a node of the call, and of the pair that it comes to."""
        return pair.bind(super().bind(*args, **kwargs))
