"""What ``ray.workflow`` raised, by the same names."""

from __future__ import annotations

from typing import Any


class WorkflowError(Exception):
    """Base of all of them."""


class _OfWorkflow(WorkflowError):
    """One that names a workflow, and pickles."""

    _text = "{}"

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(self._text.format(workflow_id))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.workflow_id,), {"__cause__": self.__cause__}

    def __setstate__(self, state: Any) -> None:
        self.__cause__ = state["__cause__"]


class WorkflowExecutionError(_OfWorkflow):
    """The workflow failed; what its task raised is ``__cause__``."""

    _text = "Workflow[id={}] failed during execution."


class WorkflowCancellationError(_OfWorkflow):
    """The workflow was cancelled."""

    _text = "Workflow[id={}] is cancelled during execution."


class WorkflowNotResumableError(_OfWorkflow):
    """The workflow is not there, or was cancelled."""

    _text = "Workflow[id={}] is not resumable."


class WorkflowTaskNotRecoverableError(WorkflowNotResumableError):
    """A task cannot be run again. Kept for ``except`` clauses: perdure names the step itself."""

    _text = "Workflow task[id={}] is not recoverable"


class WorkflowNotFoundError(_OfWorkflow):
    """There is no workflow of that id."""

    _text = "Workflow[id={}] was referenced but doesn't exist."


class WorkflowStillActiveError(WorkflowError):
    """The workflow is running or pending.

    Attributes:
        operation: what was asked: ``"DELETE"``.
        workflow_id: the workflow.
    """

    def __init__(self, operation: str, workflow_id: str) -> None:
        self.operation = operation
        self.workflow_id = workflow_id
        super().__init__(
            f"{operation} couldn't be completed because Workflow[id={workflow_id}] is still "
            "running or pending."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.operation, self.workflow_id)
