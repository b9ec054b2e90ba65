"""The module's functions: the verbs of ``Perdure``, against the store in force.

Inside ``with perdure.open(...)`` that is the one that was opened, else the one of the settings.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from perdure.client import Perdure, open_store
from perdure.runs import Run
from perdure.session import current_driver
from perdure.workflow import Workflow

if TYPE_CHECKING:
    from perdure.comparing import Difference
    from perdure.explaining import Explanation
    from perdure.queueing import QueueHandle
    from perdure.queues import Limits, Queue
    from perdure.scheduling import ScheduleHandle
    from perdure.triggering import TriggerHandle

R = TypeVar("R")
Duration = float | timedelta | str


def _client() -> Perdure:
    return cast(Perdure, current_driver())


@overload
def run(dag: Workflow[..., R], **options: Any) -> R: ...
@overload
def run(dag: R, **options: Any) -> R: ...
def run(
    dag: Any,
    *,
    run_id: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    reuse: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    executor: str | None = None,
    durability: str = "step",
    on_change: str = "recompute",
    on_failure: str = "stop",
    on_divergence: str = "fail",
    deadline: Duration | datetime | None = None,
    queue: str | Queue | None = None,
    priority: int = 0,
    delay: Duration | datetime | None = None,
    limit_key: str | None = None,
    dedup_key: str | None = None,
    if_duplicate: str = "raise",
    if_exists: str = "resume",
    **more_inputs: Any,
) -> Any:
    """Run a DAG durably in this process and return its result.

    The same id again resumes the run, or returns what is recorded.

    Args:
        dag: a workflow, a node, or a list, tuple or dict of nodes.
        run_id: 1-200 printable characters, ``/`` allowed; made if not given.
        inputs: arguments by name, for names that are options of this function too.
        reuse: a run id, or ``"last"``: a new run that takes over what has not changed;
            ``"off"``: nothing. A setting by default.
        tags: text by text, to find the run by.
        metadata: anything that is JSON, kept with the run.
        executor: ``"processes"``, ``"inline"`` or ``"ray"``; a setting by default.
        durability: ``"step"``: a result is on disk before anything that uses it starts;
            ``"group"``: dependants may start while results are being written, in order.
        on_change: what a resumed run does with committed steps whose code or inputs changed:
            ``"recompute"`` them, ``"reuse"`` them, or ``"fail"``.
        on_failure: ``"stop"``: running steps finish, none start; ``"finish"``: everything that
            does not depend on the failure goes on first.
        on_divergence: what happens if a rebuilt value differs from one that committed steps
            consumed: ``"fail"``, ``"recompute"`` those steps, or ``"keep"`` the mix.
        deadline: the run fails if it has not ended by then: an aware datetime, or a duration
            from now (seconds, timedelta or ``"2h"``).
        queue: a ``Queue`` or its name: the run waits in it until its limits let it begin.
        priority: higher ones leave their queue, and get their steps placed, first.
        delay: it begins no earlier: a duration from now (seconds, timedelta or ``"2h"``), or an
            aware datetime.
        limit_key: what its queue's ``limit_per_key`` counts it under; keys take turns.
        dedup_key: names it among the live runs of its queue.
        if_duplicate: what becomes of it if one of its ``dedup_key`` is there: ``"raise"``, or
            ``"return"`` that run.
        if_exists: ``"resume"``, or ``"fail"`` to refuse an id that exists.
        **more_inputs: arguments of the workflow.

    Returns:
        The value that the DAG stands for.

    Raises:
        RunFailed: a step failed for good; the user's exception is ``__cause__``.
        RunConflict: the id is taken by another definition, or its state does not allow this.
        DuplicateRun: its queue has a live run of its ``dedup_key``.
        DefinitionError: the graph, an argument or an option makes no sense.
    """
    return _client().run(dag, **_options(locals()))


def start(
    dag: Any,
    *,
    run_id: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    reuse: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    executor: str | None = None,
    durability: str = "step",
    on_change: str = "recompute",
    on_failure: str = "stop",
    on_divergence: str = "fail",
    deadline: Duration | datetime | None = None,
    queue: str | Queue | None = None,
    priority: int = 0,
    delay: Duration | datetime | None = None,
    limit_key: str | None = None,
    dedup_key: str | None = None,
    if_duplicate: str = "raise",
    if_exists: str = "resume",
    **more_inputs: Any,
) -> Run:
    """Run durably, driven by this process in the background; return the run at once.

    Arguments as ``run``. At interpreter exit started runs are waited for.
    """
    return _client().start(dag, **_options(locals()))


def submit(
    dag: Any,
    *,
    run_id: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    reuse: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    executor: str | None = None,
    durability: str = "step",
    on_change: str = "recompute",
    on_failure: str = "stop",
    on_divergence: str = "fail",
    deadline: Duration | datetime | None = None,
    queue: str | Queue | None = None,
    priority: int = 0,
    delay: Duration | datetime | None = None,
    limit_key: str | None = None,
    dedup_key: str | None = None,
    if_duplicate: str = "raise",
    if_exists: str = "resume",
    **more_inputs: Any,
) -> Run:
    """Record a run for some ``perdure up`` to drive, and return it. Arguments as ``run``."""
    return _client().submit(dag, **_options(locals()))


_DEFAULTS: dict[str, Any] = {
    "durability": "step",
    "on_change": "recompute",
    "on_failure": "stop",
    "on_divergence": "fail",
    "if_exists": "resume",
    "if_duplicate": "raise",
    "priority": 0,
}


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given to a verb; what was not leaves the workflow's own options in force."""
    more: dict[str, Any] = given["more_inputs"]
    named = {n: v for n, v in given.items() if n not in ("dag", "more_inputs")}
    return {n: v for n, v in named.items() if v is not None and v != _DEFAULTS.get(n)} | more


def execute(dag: Any, *, inputs: Mapping[str, Any] | None = None, **more_inputs: Any) -> Any:
    """Run eagerly: in this process, nothing stored. Returns the value."""
    return _client().execute(dag, inputs=inputs, **more_inputs)


def resume(
    run_id: str,
    *,
    code: str = "recorded",
    on_change: str = "recompute",
    on_divergence: str = "fail",
    executor: str | None = None,
    dag: Any = None,
) -> Run:
    """Go on with a run by its id, driven by this process; return it at once.

    Args:
        run_id: the run.
        code: ``"recorded"``: the code that was recorded with it; ``"current"``: today's, for the
            steps that have not committed. The graph stays as recorded.
        on_change: as in ``run``.
        on_divergence: as in ``run``.
        executor: drive it on another executor.
        dag: today's definition, where ``code="current"`` cannot find it by the run's origin.

    Raises:
        RunNotFound: there is no such run in the store.
        RunConflict: today's definition has another graph.
    """
    return _client().resume(
        run_id,
        code=code,
        on_change=on_change,
        on_divergence=on_divergence,
        executor=executor,
        dag=dag,
    )


def resume_all(*, failed: bool = False) -> list[Run]:
    """Resume every run of the store that nobody drives; with ``failed`` the failed ones too."""
    return _client().resume_all(failed=failed)


def rerun(
    run_id: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    new_id: str | None = None,
    dag: Any = None,
) -> Run:
    """Run a run again from the start, with today's code, as a new run; return that at once.

    Nothing is reused. The new run is linked to the earlier one: its ``parent`` names it.

    Args:
        run_id: the run to run again.
        inputs: other values, by parameter name; all else is as it was.
        new_id: id of the new run; made if not given.
        dag: today's definition, where the run's recorded origin does not lead to it.

    Raises:
        RunNotFound: there is no such run in the store.
        RunConflict: there is a run of ``new_id``.
        DefinitionError: its definition cannot be found again, or takes other inputs today.
    """
    return _client().rerun(run_id, inputs=inputs, new_id=new_id, dag=dag)


def fork(
    run_id: str,
    *,
    from_step: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    force: str | Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    on_change: str = "recompute",
    new_id: str | None = None,
    dag: Any = None,
) -> Run:
    """Make a new run that takes over what is not downstream of a change; return it at once.

    The code is today's. A committed step is taken over if neither its code nor what it consumed
    has changed. The new run is linked to the earlier one: its ``parent`` names it.

    Args:
        run_id: the run to fork.
        from_step: id of a step that runs again together with everything downstream of it.
        inputs: other values, by parameter name; all else is as it was.
        force: ids, names or patterns (``"parse[*]"``) of steps that run again whatever was
            committed; ``"failed"`` means those that failed, caught errors included.
        overrides: values in place of steps, by id: the step does not run, what consumes it sees
            the value.
        on_change: ``"recompute"`` what changed, ``"reuse"`` committed steps though their code or
            arguments changed, or ``"fail"``.
        new_id: id of the new run; made if not given.
        dag: today's definition, where the run's recorded origin does not lead to it.

    Raises:
        RunNotFound: there is no such run in the store.
        RunConflict: there is a run of ``new_id``; or something changed under ``"fail"``.
        DefinitionError: its definition cannot be found again, or has no such step today.
    """
    return _client().fork(
        run_id,
        from_step=from_step,
        inputs=inputs,
        force=force,
        overrides=overrides,
        on_change=on_change,
        new_id=new_id,
        dag=dag,
    )


def spin(run_id: str, step: str, *, dag: Any = None) -> Any:
    """Run one step of a run alone, in this process, and return its value; nothing is stored.

    It takes the inputs that the run has recorded for it, and today's code. An error is raised as
    it is, neither retried nor caught, so that a debugger is of use.

    Args:
        run_id: the run.
        step: the step's id.
        dag: today's definition, where the run's recorded origin does not lead to it.

    Raises:
        RunNotFound: there is no such run in the store.
        DefinitionError: there is no such step, then or today, or what it took is not stored.
        NotSerializable: a run could not keep its value.
    """
    return _client().spin(run_id, step, dag=dag)


def explain(dag_or_run_id: Any, **options: Any) -> Explanation:
    """Say of each step whether it would run or be reused, and why. Runs and writes nothing.

    Print what it returns: it is a table.

    Args:
        dag_or_run_id: a definition, for what ``run`` would do with it; or a run's id.
        **options: for a definition those of ``run``, inputs included. For an id ``verb=``,
            ``"resume"``, ``"rerun"`` or ``"fork"``, and the options of that verb; without
            ``verb`` it is a fork, if options of one are given, else a resume.

    Raises:
        RunNotFound: there is no such run in the store.
        RunConflict: what the verb itself would raise.
    """
    return _client().explain(dag_or_run_id, **options)


def diff(a: str, b: str) -> Difference:
    """Compare two runs: parameters, code, steps and their values.

    Print what it returns: it is a table of what differs. A run and itself: its steps' values
    before and after they were computed again.

    Args:
        a: a run's id.
        b: another one's, or the same.

    Raises:
        RunNotFound: there is no such run in the store.
    """
    return _client().diff(a, b)


def get_run(run_id: str) -> Run:
    """Return a run by its id. Raises RunNotFound, naming the store and similar ids."""
    return _client().get_run(run_id)


def list_runs(
    *,
    status: str | Sequence[str] | None = None,
    workflow: str | None = None,
    tags: Mapping[str, str] | None = None,
    since: datetime | timedelta | str | None = None,
    limit: int = 100,
    after: str | None = None,
) -> list[Run]:
    """Return runs, newest first; a notebook shows the list as a table.

    Args:
        status: one status or several.
        workflow: the workflow's name.
        tags: tags that a run must have, all of them.
        since: made after this aware time, or within this duration (``"2d"``).
        limit: at most so many.
        after: the id of the last run of the page before.
    """
    return _client().list_runs(
        status=status, workflow=workflow, tags=tags, since=since, limit=limit, after=after
    )


def cancel(run_id: str) -> Run:
    """End a run as CANCELLED: nothing new starts, its processes end within their grace of 5 s."""
    return _client().cancel(run_id)


def pause(run_id: str) -> Run:
    """Let a run's running steps finish and start none; ``resume`` goes on."""
    return _client().pause(run_id)


def signal(run_id: str, name: str, value: Any = None, *, dedup_key: str | None = None) -> bool:
    """Send a signal to a run, for its ``wait_signal(name)``.

    Args:
        run_id: the run.
        name: which signal.
        value: what the step that waits for it has as its value.
        dedup_key: of several signals with one key, the first counts.

    Returns:
        Whether it was kept; False if one of this key was sent before.

    Raises:
        RunNotFound, RunConflict: there is no such run, or it is over.
        DefinitionError: the value does not fit the schema that the step asks for.
    """
    return _client().signal(run_id, name, value, dedup_key=dedup_key)


def emit(
    name: str,
    payload: Any = None,
    *,
    match: Mapping[str, Any] | None = None,
    dedup_key: str | None = None,
) -> bool:
    """Send an event, for the ``wait_event(name)`` of every run.

    Args:
        name: which event.
        payload: what the steps that wait for it have as their value.
        match: what it says about itself; waits select by it.
        dedup_key: of several events with one key, the first counts.

    Returns:
        Whether it was kept; False if one of this key was sent before.
    """
    return _client().emit(name, payload, match=match, dedup_key=dedup_key)


def trigger(name: str, workflow: Workflow[..., Any], **options: Any) -> TriggerHandle:
    """Have a workflow run when something happens; register at once what ``Trigger`` declares.

    The same name again lets the trigger be as it is given now. Some ``perdure up`` has to be
    there to listen and to make its runs.

    Args:
        name: names it and its runs.
        workflow: what runs.
        **options: as of ``Trigger``: ``on=Files("in/*.csv")``, ``where=``, ``inputs=``, ``code=``.

    Raises:
        TriggerError: something that it waits for or asks is no such thing, or it would start
            itself for ever.
        DefinitionError: an input does not fit the workflow, or its code cannot be found again.
    """
    return _client().trigger(name, workflow, **options)


def get_trigger(name: str) -> TriggerHandle:
    """Return the trigger of that name: how it stands, what arrived, and verbs.

    Raises:
        TriggerNotFound: there is none; the error names a similar one.
    """
    return _client().get_trigger(name)


def list_triggers(*, paused: bool | None = None) -> list[TriggerHandle]:
    """Return the triggers of the store by name.

    Args:
        paused: only those that are, or are not.
    """
    return _client().list_triggers(paused=paused)


def schedule(name: str, workflow: Workflow[..., Any], **options: Any) -> ScheduleHandle:
    """Have a workflow run by itself from now on; register at once what ``Schedule`` declares.

    The same name again lets the schedule be as it is given now. Some ``perdure up`` has to be
    there to make its runs.

    Args:
        name: names it and its runs.
        workflow: what runs.
        **options: as of ``Schedule``: ``cron="0 2 * * *"``, ``tz=``, ``inputs=``, ``overlap=``.

    Raises:
        ScheduleError: something about the times is no such thing, or contradicts another.
        DefinitionError: an input does not fit the workflow, or its code cannot be found again.
    """
    return _client().schedule(name, workflow, **options)


def get_schedule(name: str) -> ScheduleHandle:
    """Return the schedule of that name.

    Raises:
        ScheduleNotFound: there is none; the error names the store that was asked.
    """
    return _client().get_schedule(name)


def list_schedules(*, paused: bool | None = None) -> list[ScheduleHandle]:
    """Return the schedules of the store by name; only paused ones, or none of them, if asked."""
    return _client().list_schedules(paused=paused)


def set_queue(name: str, **limits: Unpack[Limits]) -> QueueHandle:
    """Set limits of a queue, or make it with them; those that are not named stay as they are.

    They hold from the next run that begins, on every host. What a module declares takes their
    place when its declaration changes.

    Args:
        name: names it: ``queue="gpu"``.
        **limits: as of ``Queue``: ``limit=2``, ``limit_per_key=1``, ``rate=(100, "1m")``; None
            lifts one.

    Raises:
        DefinitionError: a limit is no whole number from 0 on, or the name is none.
    """
    return _client().set_queue(name, **limits)


def get_queue(name: str) -> QueueHandle:
    """Return the queue of that name: its limits, who has its slots, and who waits.

    Raises:
        DefinitionError: there is none; the error names a similar one.
    """
    return _client().get_queue(name)


def list_queues() -> list[QueueHandle]:
    """Return the queues of the store by name."""
    return _client().list_queues()


def delete(run_id: str) -> None:
    """Remove a finished run with its steps, events and logs."""
    _client().delete(run_id)


def export_run(
    run_id: str, path: str | os.PathLike[str], *, overwrite: bool = False
) -> pathlib.Path:
    """Write a run into one file, for another store, and return where it is.

    Args:
        run_id: a run that nobody drives.
        path: the file to make; whole, or not at all.
        overwrite: take the place of a file that is there.

    Raises:
        RunConflict: somebody drives it.
        StoreError: the file is there already.
        ValueDamaged: a value of it is missing or damaged.
    """
    return _client().export_run(run_id, path, overwrite=overwrite)


def import_run(
    path: str | os.PathLike[str], *, new_id: str | None = None, trust: bool = False
) -> Run:
    """Make a run of a file that ``export_run`` wrote: all of it, or nothing.

    Nothing of it runs; one that was not over is PAUSED, and goes on with ``resume``. The same file
    again changes nothing.

    Args:
        path: the file.
        new_id: its id here; that which it had by default.
        trust: take pickled values and functions too. To read them, later, runs code that whoever
            made the file has chosen.

    Raises:
        StoreError: it is no exported run, is damaged, or holds pickles and is not trusted.
        RunConflict: there is another run of that id.
    """
    return _client().import_run(path, new_id=new_id, trust=trust)


def why(run_id: str, step: str) -> str:
    """Return the recorded reason why a step ran, was reused, is retried or waits."""
    return _client().why(run_id, step)


def open(
    store: str | None = None,
    *,
    blobs: str | None = None,
    executor: str | None = None,
    workers: int | None = None,
    cpus: float | None = None,
    gpus: int | None = None,
    memory: int | str | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    allow_pickle: bool | None = None,
    ray_address: str | None = None,
    ray_namespace: str | None = None,
    ray_runtime_env: Mapping[str, Any] | None = None,
) -> Perdure:
    """Return the verbs against a store: ``with perdure.open("sqlite:///team.db") as p:``.

    Inside the block module functions and workflow verbs use that store too.

    Args:
        store: a file or URL, ``sqlite:///...`` or ``postgresql://...``; a setting by default.
        blobs: folder or fsspec URL of large values.
        executor: ``"processes"``, ``"inline"`` or ``"ray"``.
        workers: how many CPUs steps may use at one time.
        cpus: the same, where it is not the number of worker processes too.
        gpus: how many GPUs steps may use; those that are found by default.
        memory: how much memory steps may ask for at one time, in bytes or as ``"64GiB"``.
        resources: what else steps may ask for, and how much there is: ``{"license": 2}``.
        labels: what else there is to say of this machine: ``{"zone": "a"}``; steps ask for it
            by ``resources={"zone=a": 1}``.
        allow_pickle: False refuses what only pickle can write, and reads no pickle.
        ray_address: of ``executor="ray"``, which cluster, as ``ray.init`` takes it.
        ray_namespace: Ray's namespace of what perdure makes there.
        ray_runtime_env: what Ray prepares for the workers, as ``ray.init`` takes it.
    """
    return open_store(
        store,
        blobs=blobs,
        executor=executor,
        workers=workers,
        cpus=cpus,
        gpus=gpus,
        memory=memory,
        resources=resources,
        labels=labels,
        allow_pickle=allow_pickle,
        ray_address=ray_address,
        ray_namespace=ray_namespace,
        ray_runtime_env=ray_runtime_env,
    )
