"""The verbs of ``ray.workflow``, each by those of perdure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import perdure.waits
from perdure.client import Perdure
from perdure.compat.ray_workflow import limits
from perdure.compat.ray_workflow.exceptions import (
    WorkflowCancellationError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
)
from perdure.compat.ray_workflow.futures import WorkflowFuture
from perdure.compat.ray_workflow.statuses import ACTIVE, WorkflowStatus, status_of
from perdure.compat.ray_workflow.task_options import checked_metadata
from perdure.compat.ray_workflow.tasks import rows_of, tasks_of, upstream_ids
from perdure.errors import DefinitionError, RunCancelled, RunFailed
from perdure.graph.dag import make_dag
from perdure.graph.node import Node
from perdure.ray_dag import from_ray, is_ray_node, let_nodes_pass, ray_input, walk
from perdure.results import exception_of, load_value
from perdure.runs import Run
from perdure.session import current_driver, execute_eagerly
from perdure.worker.context import running
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus, StepStatus
from perdure_storage.records import RunId

_LOOK_EVERY_S = 0.05
_one_at_a_time = threading.Lock()
"""Held while a workflow is looked for and made: limits and ids count what is there."""


def _client() -> Perdure:
    driver = current_driver()
    assert isinstance(driver, Perdure)
    return driver


def init(
    *,
    max_running_workflows: int | None = None,
    max_pending_workflows: int | None = None,
    executor: str | None = None,
) -> None:
    """Limit how many workflows run and wait at a time; never needed otherwise.

    The store is perdure's: a setting, or that of the ``with perdure.open(...)`` around.

    Args:
        max_running_workflows: how many run at a time; -1, the default: any number.
        max_pending_workflows: how many may wait then; -1, the default: any number.
        executor: where tasks run; by default what perdure's settings say.

    Raises:
        TypeError: a limit is no int.
        ValueError: it is no limit, or other limits were set before.
    """
    limits.set_limits(_client(), max_running_workflows, max_pending_workflows, executor)


# --- making and going on ------------------------------------------------------------------------
def run(
    dag: Any,
    *args: Any,
    workflow_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Run a workflow and return its value; one whose id is there already is resumed as it is.

    Args:
        dag: a node.
        *args: values of the graph's input, by position.
        workflow_id: names it; made if not given.
        metadata: JSON, kept with a workflow that is made.
        **kwargs: values of the graph's input, by name.

    Raises:
        TypeError: ``dag`` is no node, or its arguments do not fit.
        WorkflowExecutionError: it failed; what its task raised is ``__cause__``.
    """
    return _value(_begin(dag, args, kwargs, workflow_id, metadata))


def run_async(
    dag: Any,
    *args: Any,
    workflow_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    **kwargs: Any,
) -> WorkflowFuture:
    """Do what ``run`` does, and return at once: a future with ``result()``, to be awaited too.

    Raises:
        RuntimeError: the workflow is running or pending already.
        queue.Full: as many workflows run and wait as ``init`` allows.
    """
    return _future(_begin(dag, args, kwargs, workflow_id, metadata))


def _begin(
    dag: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    workflow_id: str | None,
    metadata: dict[str, Any] | None,
) -> Run:
    client, node = _client(), _graph(dag)
    noted = {} if metadata is None else checked_metadata(metadata)
    with _one_at_a_time:
        there = None if workflow_id is None else _find(client, workflow_id)
        if there is not None:
            return _go_on(client, there)
        return client.start(
            node,
            run_id=workflow_id,
            inputs=_inputs(dag, node, args, kwargs),
            metadata=noted,
            queue=limits.admit(client),
            executor=limits.limits_of(client).executor,
        )


def _inputs(dag: Any, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of a graph by name; one that has none is given what it is, as by Ray.

    Raises:
        TypeError: it has one, for which there is nothing.
    """
    wanted = make_dag(node).inputs
    if not wanted:
        return {}
    if not is_ray_node(dag):
        given = {**{str(place): value for place, value in enumerate(args)}, **kwargs}
    else:
        given = {"input": ray_input(*args, **kwargs)} if args or kwargs else {}
    if missing := [name for name in wanted if name not in given]:
        what = "the DAG's input" if is_ray_node(dag) else f"{missing[0]!r} of the DAG's input"
        raise TypeError(
            f"No value is given for {what}: workflow.run(dag, value, ...), "
            "or by name, workflow.run(dag, name=value)."
        )
    return given


def _graph(dag: Any) -> Any:
    """Return a node of perdure's, or a list of some of them.

    Raises:
        TypeError: it is none of Ray's either, or the arguments of one do not fit its function.
        ValueError: one has several values.
    """
    if isinstance(dag, Node):
        return dag
    if not is_ray_node(dag):
        raise TypeError("Input should be a DAG.")
    for node in walk(dag):
        if node._bound_options.get("num_returns", 1) not in (None, 1, "default"):
            raise ValueError("Workflow task can only have one return.")
    try:
        return from_ray(dag)
    except DefinitionError as error:
        raise TypeError(str(error)) from error


def _go_on(client: Perdure, there: Run) -> Run:
    """Have a workflow that is there go on, unless it is over.

    Raises:
        RuntimeError: it goes on already.
        WorkflowNotResumableError: it was cancelled.
    """
    status = status_of(client, there.record)
    if status in ACTIVE:
        raise RuntimeError(f"Workflow '{there.id}' is already running or pending.")
    if status is WorkflowStatus.CANCELED:
        raise WorkflowNotResumableError(there.id)
    return there if status is WorkflowStatus.SUCCESSFUL else client.resume(there.id)


def resume(workflow_id: str) -> Any:
    """Resume a workflow and return its value; of one that is over at once.

    Raises:
        WorkflowNotResumableError: there is none of that id, or it was cancelled.
        RuntimeError: it is running or pending already.
    """
    return _value(_resumed(workflow_id))


def resume_async(workflow_id: str) -> WorkflowFuture:
    """Do what ``resume`` does, and return at once."""
    return _future(_resumed(workflow_id))


def _resumed(workflow_id: str) -> Run:
    client = _client()
    with _one_at_a_time:
        there = _find(client, workflow_id)
        if there is None:
            raise WorkflowNotResumableError(workflow_id)
        return _go_on(client, there)


def resume_all(include_failed: bool = False) -> list[tuple[str, WorkflowFuture]]:
    """Resume all workflows that nobody drives, those first that had begun.

    One that cannot go on keeps no other from it: its future tells.

    Args:
        include_failed: those that failed too.
    """
    client = _client()
    wanted = {WorkflowStatus.RESUMABLE, *([WorkflowStatus.FAILED] if include_failed else [])}
    found = [each for each in _all(client) if status_of(client, each.record) in wanted]
    found.sort(key=lambda each: each.record.status is RunStatus.QUEUED)
    return [(each.id, _resumed_or_failed(each.id)) for each in found]


def _resumed_or_failed(workflow_id: str) -> WorkflowFuture:
    try:
        return resume_async(workflow_id)
    except Exception as error:  # noqa: BLE001 - whoever asks for the value is told
        return WorkflowFuture(workflow_id, partial(_raise, error), lambda: True)


def _raise(error: Exception, timeout: float | None) -> Any:
    raise error


def continuation(dag_node: Any) -> Any:
    """Return a node as what the running task comes to; outside of tasks, run it and return that.

    Raises:
        TypeError: it is no node.
    """
    node = _graph(dag_node)
    return node if running.get() is not None else execute_eagerly(node, {})


def sleep(duration: float) -> Any:
    """Make a node that ends ``duration`` seconds after it has begun, whatever happens meanwhile.

    Nothing is held: no worker, no CPU.
    """
    let_nodes_pass()
    return perdure.waits.sleep(duration)


# --- looking ------------------------------------------------------------------------------------
def list_all(
    status_filter: WorkflowStatus | str | Iterable[WorkflowStatus | str] | None = None,
) -> list[tuple[str, WorkflowStatus]]:
    """Return the workflows of the store with their statuses, the newest first.

    Args:
        status_filter: a status, or a set of some; all by default.

    Raises:
        TypeError: it is something else.
        ValueError: it is no status that a workflow can have.
    """
    client, wanted = _client(), _statuses(status_filter)
    told = ((each.id, status_of(client, each.record)) for each in _all(client))
    return [(workflow_id, status) for workflow_id, status in told if status in wanted]


def _statuses(given: Any) -> set[WorkflowStatus]:
    can_be = set(WorkflowStatus) - {WorkflowStatus.NONE}
    if given is None:
        return can_be
    if isinstance(given, str):
        named = [given]
    elif isinstance(given, set | frozenset | list | tuple):
        named = list(given)
    else:
        raise TypeError(f"status_filter is a status or a set of some, not {given!r:.80}")
    kinds = {isinstance(each, WorkflowStatus) for each in named}
    if not all(isinstance(each, str) for each in named) or len(kinds) > 1:
        raise TypeError("status_filter: all are a WorkflowStatus, or all are text")
    found = {WorkflowStatus(each) for each in named}
    if WorkflowStatus.NONE in found:
        raise ValueError("'WorkflowStatus.NONE' is not a valid filter value.")
    return found


def get_status(workflow_id: str) -> WorkflowStatus:
    """Return how a workflow stands.

    Raises:
        WorkflowNotFoundError: there is none of that id.
    """
    client = _client()
    return status_of(client, _get(client, workflow_id).record)


def get_output(workflow_id: str, *, task_id: str | None = None) -> Any:
    """Return the value of a workflow, or of a task of it; of one that runs once it is there.

    Args:
        workflow_id: the workflow.
        task_id: the task; also one that a continuation will make.

    Raises:
        ValueError: it has none: no such workflow or task, or it failed or was cancelled.
        WorkflowExecutionError: it failed while it was waited for.
    """
    return get_output_async(workflow_id, task_id=task_id).result()


def get_output_async(workflow_id: str, *, task_id: str | None = None) -> WorkflowFuture:
    """Do what ``get_output`` does, and return at once: the future raises what that raises."""
    client = _client()
    there = _find(client, workflow_id)
    if there is None:
        error = ValueError(f"There is no workflow '{workflow_id}', so it has no output.")
        return WorkflowFuture(workflow_id, partial(_raise, error), lambda: True)
    is_active = status_of(client, there.record) in ACTIVE
    if task_id is not None:
        wait = partial(_task_value, client, there, task_id)
        return WorkflowFuture(workflow_id, wait, partial(_is_task_done, there, task_id))
    return (
        _future(there)
        if is_active
        else WorkflowFuture(workflow_id, partial(_stored, client, there), lambda: True)
    )


def _stored(client: Perdure, there: Run, timeout: float | None) -> Any:
    status = status_of(client, there.record)
    if status is not WorkflowStatus.SUCCESSFUL:
        raise ValueError(f"Workflow '{there.id}' is {status}, so it has no output") from _cause_of(
            there
        )
    return _value(there)


def _cause_of(there: Run) -> BaseException | None:
    error = there.error
    return None if error is None else exception_of(there.runtime, error)


def _task_value(client: Perdure, there: Run, task_id: str, timeout: float | None) -> Any:
    """Wait for a task, which may not be there yet, and return its value."""
    until = None if timeout is None else time.monotonic() + timeout

    def is_over() -> bool:
        late = until is not None and time.monotonic() >= until
        over = status_of(client, there.record) not in ACTIVE
        return late or over or _is_task_done(there, task_id)

    while not is_over():
        if client.drives(there.id):
            client.wait_for(is_over)
        else:
            client.wait_a_moment(_LOOK_EVERY_S)
    status = status_of(client, there.record)
    if status in ACTIVE and not _is_task_done(there, task_id):
        raise TimeoutError(f"task '{task_id}' of workflow '{there.id}' goes on")
    return _value_of_task(there, task_id, status)


def _is_task_done(there: Run, task_id: str) -> bool:
    task = tasks_of(there).get(task_id)
    if task is not None and task.value_of in rows_of(there):
        return True
    return there.record.status in RUN_TERMINAL


def _value_of_task(there: Run, task_id: str, status: WorkflowStatus) -> Any:
    if status is WorkflowStatus.CANCELED:
        raise ValueError(f"Workflow '{there.id}' was cancelled.")
    task = tasks_of(there).get(task_id)
    if task is None:
        raise ValueError(f"There is no task '{task_id}' in workflow '{there.id}'.")
    row = rows_of(there).get(task.value_of)
    if row is None or row.status is not StepStatus.SUCCEEDED or row.value is None:
        stands = "has not ended" if row is None else f"is {row.status}"
        error = None if row is None or row.error is None else row.error
        cause = None if error is None else exception_of(there.runtime, error)
        raise ValueError(
            f"Cannot load output from task '{task_id}' in workflow '{there.id}': it {stands}."
        ) from cause
    return load_value(there.runtime, row.value, there.id, task.step.id)


def get_metadata(workflow_id: str, task_id: str | None = None) -> dict[str, Any]:
    """Return what is known of a workflow, or of a task of it.

    Args:
        workflow_id: the workflow.
        task_id: the task.

    Raises:
        ValueError: there is no such workflow, or no such task in it.
    """
    client = _client()
    there = _find(client, workflow_id)
    if there is None:
        raise ValueError(f"No such workflow_id '{workflow_id}'")
    if task_id is not None:
        return _metadata_of_task(there, task_id)
    record = there.record
    status = status_of(client, record)
    ended = status in (WorkflowStatus.SUCCESSFUL, WorkflowStatus.FAILED)
    times = {"start_time": record.started_at, "end_time": record.finished_at if ended else None}
    return {"status": status.value, "user_metadata": there.metadata, "stats": _stats(times)}


def _metadata_of_task(there: Run, task_id: str) -> dict[str, Any]:
    tasks = tasks_of(there)
    task = tasks.get(task_id)
    if task is None:
        raise ValueError(f"No such task_id '{task_id}' in workflow '{there.id}'")
    row = rows_of(there).get(task.step.id)
    times = {} if row is None else {"start_time": row.started_at, "end_time": row.finished_at}
    return {
        "task_id": task_id,
        "task_options": task.options,
        "user_metadata": task.metadata,
        "workflow_refs": upstream_ids(task, tasks),
        "stats": _stats(times),
    }


def _stats(times: dict[str, Any]) -> dict[str, float]:
    return {name: at.timestamp() for name, at in times.items() if at is not None}


# --- ending -------------------------------------------------------------------------------------
def cancel(workflow_id: str) -> None:
    """End a workflow as CANCELED, with what runs of it; what its tasks gave stays.

    One that is over stays as it is.

    Raises:
        WorkflowNotFoundError: there is none of that id.
    """
    client = _client()
    if _get(client, workflow_id).record.status not in RUN_TERMINAL:
        client.cancel(workflow_id).wait()


def delete(workflow_id: str) -> None:
    """Remove a workflow with all that is stored of it; its id is free again.

    Raises:
        WorkflowNotFoundError: there is none of that id.
        WorkflowStillActiveError: it is running or pending.
    """
    client = _client()
    there = _get(client, workflow_id)
    if status_of(client, there.record) in ACTIVE:
        raise WorkflowStillActiveError("DELETE", workflow_id)
    cancel(workflow_id)
    client.delete(workflow_id)


# --- what all of them do ------------------------------------------------------------------------
def _find(client: Perdure, workflow_id: str) -> Run | None:
    record = client.runtime.store.find_run(RunId(workflow_id))
    return None if record is None else Run(record.id, client)


def _get(client: Perdure, workflow_id: str) -> Run:
    there = _find(client, workflow_id)
    if there is None:
        raise WorkflowNotFoundError(workflow_id)
    return there


def _all(client: Perdure) -> Iterator[Run]:
    page = client.list_runs()
    while page:
        yield from page
        page = client.list_runs(after=page[-1].id)


def _future(there: Run) -> WorkflowFuture:
    is_done: Callable[[], bool] = lambda: there.record.status in RUN_TERMINAL  # noqa: E731
    return WorkflowFuture(there.id, partial(_value, there), is_done)


def _value(there: Run, timeout: float | None = None) -> Any:
    try:
        return there.result(timeout)
    except RunFailed as error:
        raise WorkflowExecutionError(there.id) from (error.__cause__ or error)
    except RunCancelled:
        raise WorkflowCancellationError(there.id) from None
