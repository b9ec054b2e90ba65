"""perdure runs Python DAGs that survive: every step's result is durable the moment it exists.

Functions become tasks, tasks are bound into workflows, and a workflow that was killed goes on
from its last checkpoint, by its id.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perdure import session, showing
from perdure.actor import Actor, actor, method
from perdure.branching import loop, switch, when
from perdure.errors import (
    CodeChanged,
    DefinitionError,
    DuplicateRun,
    Failure,
    LoopLimit,
    NondeterminismError,
    NotSerializable,
    PerdureError,
    ReplayDiffers,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotDriven,
    RunNotFound,
    StepFailed,
    StepTimeout,
    StoreError,
    ValueDamaged,
    WaitTimeout,
    WorkerLost,
)
from perdure.getting import get
from perdure.graph.dag import Dag
from perdure.graph.node import Node
from perdure.graph.node import input_placeholder as Input
from perdure.mapping import each, product
from perdure.ray_dag import RayInput, from_ray
from perdure.reference import StepRef
from perdure.retry import Backoff
from perdure.schema import Static
from perdure.secret import Secret
from perdure.task import Task, task
from perdure.waits import sleep, wait, wait_event, wait_signal
from perdure.workflow import Workflow, workflow
from perdure_storage.garbage import all_stays

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.queues import Queue
    from perdure.runs import Run, Step
    from perdure.schedules import Schedule, fire_time, interval_end, interval_start
    from perdure.triggers import (
        Event,
        Files,
        Listen,
        RunFinished,
        Trigger,
        Webhook,
        all_of,
        any_of,
        event,
    )
    from perdure.verbs import (
        cancel,
        delete,
        diff,
        emit,
        execute,
        explain,
        export_run,
        fork,
        get_queue,
        get_run,
        get_schedule,
        get_trigger,
        import_run,
        list_queues,
        list_runs,
        list_schedules,
        list_triggers,
        open,
        pause,
        rerun,
        resume,
        resume_all,
        run,
        schedule,
        set_queue,
        signal,
        spin,
        start,
        submit,
        trigger,
        why,
    )
    from perdure.worker.context import current
    from perdure_scheduler.arrival import Arrival
    from perdure_scheduler.errors import ScheduleError, TriggerError
    from perdure_scheduler.sources import Batch, Source

__all__ = [
    "Actor",
    "Arrival",
    "Backoff",
    "Batch",
    "CodeChanged",
    "Dag",
    "DefinitionError",
    "DuplicateRun",
    "Event",
    "Failure",
    "Files",
    "Input",
    "Listen",
    "LoopLimit",
    "Node",
    "NondeterminismError",
    "NotSerializable",
    "Perdure",
    "PerdureError",
    "Queue",
    "RayInput",
    "ReplayDiffers",
    "Run",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunFinished",
    "RunNotDriven",
    "RunNotFound",
    "Schedule",
    "ScheduleError",
    "Secret",
    "Source",
    "Static",
    "Step",
    "StepFailed",
    "StepRef",
    "StepTimeout",
    "StoreError",
    "Task",
    "Trigger",
    "TriggerError",
    "ValueDamaged",
    "WaitTimeout",
    "Webhook",
    "WorkerLost",
    "Workflow",
    "actor",
    "all_of",
    "any_of",
    "cancel",
    "current",
    "delete",
    "diff",
    "each",
    "emit",
    "event",
    "execute",
    "explain",
    "export_run",
    "fire_time",
    "fork",
    "from_ray",
    "get",
    "get_queue",
    "get_run",
    "get_schedule",
    "get_trigger",
    "import_run",
    "interval_end",
    "interval_start",
    "list_queues",
    "list_runs",
    "list_schedules",
    "list_triggers",
    "loop",
    "method",
    "open",
    "pause",
    "product",
    "rerun",
    "resume",
    "resume_all",
    "run",
    "schedule",
    "set_queue",
    "signal",
    "sleep",
    "spin",
    "start",
    "submit",
    "switch",
    "task",
    "trigger",
    "wait",
    "wait_event",
    "wait_signal",
    "when",
    "why",
    "workflow",
]

# What needs the engine or a store is imported when it is first asked for.
_VERBS = (
    "cancel", "delete", "diff", "emit", "execute", "explain", "export_run", "fork", "get_queue",
    "get_run", "get_schedule", "get_trigger", "import_run", "list_queues", "list_runs",
    "list_schedules", "list_triggers", "open", "pause", "rerun", "resume", "resume_all", "run",
    "schedule", "set_queue", "signal", "spin", "start", "submit", "trigger", "why",
)  # fmt: skip
_OF_SCHEDULES = ("Schedule", "fire_time", "interval_end", "interval_start")
_OF_TRIGGERS = (
    "Event", "Files", "Listen", "RunFinished", "Trigger", "Webhook", "all_of", "any_of", "event",
)  # fmt: skip
_LATE: dict[str, str] = {
    **dict.fromkeys(_VERBS, "perdure.verbs"),
    **dict.fromkeys(_OF_SCHEDULES, "perdure.schedules"),
    **dict.fromkeys(_OF_TRIGGERS, "perdure.triggers"),
    "Arrival": "perdure_scheduler.arrival",
    "Batch": "perdure_scheduler.sources",
    "Perdure": "perdure.client",
    "Queue": "perdure.queues",
    "Run": "perdure.runs",
    "ScheduleError": "perdure_scheduler.errors",
    "Source": "perdure_scheduler.sources",
    "Step": "perdure.runs",
    "TriggerError": "perdure_scheduler.errors",
    "current": "perdure.worker.context",
}


def __getattr__(name: str) -> Any:
    module = _LATE.get(name)
    if module is None:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    with all_stays():
        value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _default_client() -> Perdure:
    with all_stays():
        from perdure.client import default_client

    return default_client()


def _execute_eagerly(definition: Any, given: Mapping[str, Any]) -> Any:
    from perdure.eager import execute_definition

    return execute_definition(definition, given)


def _notebook() -> showing.Notebook:
    from perdure.notebook import display

    return display.NOTEBOOK


def load_ipython_extension(shell: Any) -> None:
    """Add ``%perdure`` to IPython: what ``%load_ext perdure`` calls."""
    from perdure.notebook.magics import register

    register(shell)


showing.set_notebook(_notebook)
session.set_default_driver(_default_client)
session.set_eager(_execute_eagerly)
