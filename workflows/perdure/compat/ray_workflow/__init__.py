"""The names of Ray Workflows 2.47 over perdure's store.

``from perdure.compat import ray_workflow as workflow`` in place of ``from ray import workflow``.
Graphs are made of ``@ray.remote(...)`` functions, or, where Ray is not installed, of tasks.
"""

from perdure.compat.ray_workflow import exceptions
from perdure.compat.ray_workflow.api import (
    cancel,
    continuation,
    delete,
    get_metadata,
    get_output,
    get_output_async,
    get_status,
    init,
    list_all,
    resume,
    resume_all,
    resume_async,
    run,
    run_async,
    sleep,
)
from perdure.compat.ray_workflow.event_listener import (
    Event,
    EventListener,
    HTTPListener,
    TimerListener,
    wait_for_event,
)
from perdure.compat.ray_workflow.exceptions import (
    WorkflowCancellationError,
    WorkflowError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
)
from perdure.compat.ray_workflow.futures import WorkflowFuture
from perdure.compat.ray_workflow.statuses import WorkflowStatus
from perdure.compat.ray_workflow.task_options import options

__all__ = [
    "Event",
    "EventListener",
    "HTTPListener",
    "TimerListener",
    "WorkflowCancellationError",
    "WorkflowError",
    "WorkflowExecutionError",
    "WorkflowFuture",
    "WorkflowNotFoundError",
    "WorkflowNotResumableError",
    "WorkflowStatus",
    "WorkflowStillActiveError",
    "cancel",
    "continuation",
    "delete",
    "exceptions",
    "get_metadata",
    "get_output",
    "get_output_async",
    "get_status",
    "init",
    "list_all",
    "options",
    "resume",
    "resume_all",
    "resume_async",
    "run",
    "run_async",
    "sleep",
    "wait_for_event",
]
