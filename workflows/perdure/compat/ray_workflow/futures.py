"""What ``run_async`` and its kin give: a value that comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any


class WorkflowFuture:
    """The outcome of a workflow or of one of its tasks, to be waited for.

    Attributes:
        workflow_id: the workflow.
    """

    def __init__(
        self, workflow_id: str, wait: Callable[[float | None], Any], is_done: Callable[[], bool]
    ) -> None:
        self.workflow_id = workflow_id
        self._wait = wait
        self._is_done = is_done

    def result(self, timeout: float | None = None) -> Any:
        """Return the value, waiting for it at most ``timeout`` seconds.

        Raises:
            WorkflowExecutionError: the workflow failed.
            WorkflowCancellationError: it was cancelled.
            TimeoutError: it goes on, but not within ``timeout``.
        """
        return self._wait(timeout)

    def done(self) -> bool:
        """Say whether ``result`` would return, or raise, at once."""
        return self._is_done()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what ``result`` raises, or None."""
        try:
            self.result(timeout)
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the workflow came to
            return error
        return None

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.to_thread(self.result).__await__()

    def __repr__(self) -> str:
        return f"<WorkflowFuture of {self.workflow_id}>"
