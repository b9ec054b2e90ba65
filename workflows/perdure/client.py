"""The verbs, against one store: what ``perdure.run`` and its kin do."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from perdure.driving import Driving
from perdure.errors import (
    DefinitionError,
    PerdureError,
    RunConflict,
    RunNotDriven,
    RunNotFound,
    did_you_mean,
    known_names,
)
from perdure.interactive import is_kernel
from perdure.progress.displays import FindMedium, in_sight
from perdure.remedies import shell_of
from perdure.resources import parse_duration
from perdure.runs import Run, Runs
from perdure.runtime import Runtime
from perdure.session import use_driver
from perdure.settings import Settings, load_settings
from perdure.showing import shorten
from perdure.watching import Watching
from perdure.workflow import Workflow
from perdure_storage.errors import ScheduleNotFound, TriggerNotFound
from perdure_storage.lifecycle import RUN_LIVE, RunStatus
from perdure_storage.records import RunId, RunQuery, RunRecord

if TYPE_CHECKING:
    from perdure.comparing import Difference
    from perdure.deriving import Derived
    from perdure.engine.coordinator import Coordinator
    from perdure.explaining import Explanation
    from perdure.queueing import QueueHandle
    from perdure.queues import Limits
    from perdure.registering import Became
    from perdure.retention import GcReport
    from perdure.scheduling import ScheduleHandle
    from perdure.submission import Wishes
    from perdure.triggering import TriggerHandle

log = logging.getLogger(__name__)


class Perdure:
    """The same verbs as the module's, against one store. Made by ``perdure.open``.

    Inside its ``with`` block module functions and workflow verbs use this store too.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None] | None = None,
        *,
        find_medium: FindMedium = in_sight,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            settings: where and how.
            say: takes the lines for people; by default they go to stderr on a terminal, and
                below the cell in a notebook.
            find_medium: finds where to show the progress of runs that are waited for; by default
                in a notebook and on a terminal only.
        """
        self.settings = settings
        self._say = say or say_to_people
        self._runtime: Runtime | None = None
        self._watching = Watching(self._say, find_medium)
        self._told_unserved = False
        self._driving = Driving(self._coordinator)
        self._lock = threading.Lock()
        self._stack = ExitStack()

    @property
    def runtime(self) -> Runtime:
        """Return the opened stores; they are opened when first needed."""
        with self._lock:
            if self._runtime is None:
                self._runtime = Runtime(self.settings)
            return self._runtime

    def _coordinator(self, on_change: Callable[[str], None]) -> Coordinator:
        from perdure.planning import build_or_note

        return self.runtime.coordinator(
            plan_for=lambda record: build_or_note(self.runtime, record),
            on_change=on_change,
            on_commit=self._watching.overhear,
        )

    def __enter__(self) -> Perdure:
        self._stack.enter_context(use_driver(self))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        self.close()

    def close(self) -> None:
        """Stop driving (runs stay resumable) and close the stores. Idempotent."""
        self._driving.stop()
        with self._lock:
            if self._runtime is not None:
                self._runtime.close()
                self._runtime = None

    # --- making runs ------------------------------------------------------------------------
    def run(self, dag: Any, **options: Any) -> Any:
        """Run durably and return the result; resumes, or returns what is recorded, by id.

        Raises:
            RunFailed: a step failed for good; its exception is ``__cause__``.
            RunConflict: the id belongs to another run, or its state does not allow it.
        """
        run = self._submit(dag, options, say=True, is_driven=True)
        try:
            return self.drive(run)
        except KeyboardInterrupt as interrupt:
            self.tell_interrupted(run, interrupt)
            raise

    def start(self, dag: Any, **options: Any) -> Run:
        """Run durably, driven by this process in the background; returns the run at once."""
        run = self._submit(dag, options, say=False, is_driven=True)
        self._driving.drive_in_background(run.id)
        return run

    def begin(self, dag: Any, **options: Any) -> Run:
        """Make the run, or find it by its id, and return it; it goes on with ``drive``."""
        return self._submit(dag, options, say=False)

    def submit(self, dag: Any, **options: Any) -> Run:
        """Record the run for some ``perdure up`` to drive; warns, once, while none is alive."""
        run = self._submit(dag, options, say=False, is_for_others=True)
        if run.record.status in RUN_LIVE:
            self.tell_if_unserved(run.id)
            if why := run.waits_for_host:
                log.warning("run %s %s", run.id, why)
        return run

    def tell_if_unserved(self, run_id: str) -> None:
        """Warn that a run waits, once, while no ``perdure up`` is alive."""
        coordinators = self.runtime.store.coordinators()
        is_served = any(alive for owner, alive in coordinators if owner.serves)
        if not is_served and not self._told_unserved:
            up = shell_of(self.settings).command("up")
            log.warning("nobody drives this store now: start `%s` to run %s", up, run_id)
        self._told_unserved = not is_served

    def execute(self, dag: Any, *, inputs: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """Run eagerly in this process; nothing is stored."""
        from perdure.compile import prepare
        from perdure.eager import execute

        prepared = prepare(dag, {**(inputs or {}), **more})
        return execute(prepared.dag, prepared.inputs)

    def _submit(
        self,
        dag: Any,
        options: dict[str, Any],
        *,
        say: bool,
        is_driven: bool = False,
        is_for_others: bool = False,
    ) -> Run:
        """Make the run, or find it; if it ``is_driven`` here, a new one is claimed at once."""
        from perdure.submission import Submission

        wishes = self._wishes(dag, options)
        submission = Submission(
            self.runtime, self.settings, dag, wishes, is_for_others=is_for_others
        )
        record, note = submission.submit(self._driving.owner() if is_driven else None)
        if submission.born is not None:
            self._driving.adopt(submission.born)
        if note or (say and not is_kernel()):  # there its picture tells the id
            self._say(note or f"run {record.id}")
        if record.plan_digest != submission.body.digest:
            return Run(record.id, self)
        return Run(record.id, self, submission.plan, record.plan_digest)

    def _wishes(self, dag: Any, options: dict[str, Any]) -> Wishes:
        from perdure.submission import Wishes

        if isinstance(dag, Workflow):
            options = {**dag.run_options, **options}
        if options.get("reuse") is None:
            options = {**options, "reuse": self.settings.reuse}
        return Wishes.from_options(options, find_last=self._find_last)

    def _find_last(self, workflow: str) -> list[RunId]:
        """Return the newest run of the workflow, and the newest that succeeded."""
        found: list[RunId] = []
        for status in ((), (RunStatus.SUCCEEDED,)):
            query = RunQuery(workflow=workflow, status=status, limit=1)
            found += [record.id for record in self.runtime.store.list_runs(query)]
        return list(dict.fromkeys(found))

    # --- going on ---------------------------------------------------------------------------
    def resume(
        self,
        run_id: str,
        *,
        code: str = "recorded",
        on_change: str = "recompute",
        on_divergence: str = "fail",
        executor: str | None = None,
        dag: Any = None,
    ) -> Run:
        """Go on with a run that was interrupted, failed, cancelled or paused; drives it here.

        Args:
            run_id: the run.
            code: ``"recorded"``, or ``"current"`` to take today's code for the steps that have
                not committed.
            on_change: what happens to committed steps that changed; see ``run``.
            on_divergence: ``"fail"``, ``"recompute"`` or ``"keep"``.
            executor: drive it on another executor.
            dag: the definition, where ``code="current"`` cannot find it by itself.

        Raises:
            RunNotFound: no such run.
            RunConflict: it is driven by a live owner, or its graph is another today.
        """
        run = self.reopen(
            run_id,
            code=code,
            on_change=on_change,
            on_divergence=on_divergence,
            executor=executor,
            dag=dag,
        )
        if run.record.status in RUN_LIVE:
            self._driving.drive_in_background(run.id)
        return run

    def reopen(
        self,
        run_id: str,
        *,
        code: str = "recorded",
        on_change: str = "recompute",
        on_divergence: str = "fail",
        executor: str | None = None,
        dag: Any = None,
    ) -> Run:
        """Make a run ready to go on, as ``resume`` does, and return it; it goes on with ``drive``.

        Arguments as ``resume``.
        """
        from perdure.resumption import reopen_run

        run = self.get_run(run_id)
        note = reopen_run(
            self.runtime,
            RunId(run.id),
            code=code,
            on_change=on_change,
            on_divergence=on_divergence,
            executor=executor,
            dag=dag,
        )
        if note:
            self._say(note)
        return run

    def resume_all(self, *, failed: bool = False) -> list[Run]:
        """Resume every interrupted run of the store, with ``failed`` also the failed ones."""
        wanted = [RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING]
        if failed:
            wanted.append(RunStatus.FAILED)
        runs = []
        for record in self._all(RunQuery(status=tuple(wanted))):
            run = Run(record.id, self)
            if run.status is RunStatus.INTERRUPTED or record.status in (
                RunStatus.QUEUED,
                RunStatus.FAILED,
            ):
                runs.append(self.resume(record.id))
        return runs

    # --- runs from runs ---------------------------------------------------------------------
    def rerun(
        self,
        run_id: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        new_id: str | None = None,
        dag: Any = None,
    ) -> Run:
        """Make a new run of the same workflow, with today's code, and drive it here.

        Nothing is reused. It is linked to the earlier run: ``parent`` names that one.

        Args:
            run_id: the run to run again.
            inputs: other values, by parameter name; all else is as it was.
            new_id: id of the new run; made if not given.
            dag: today's definition, where the run's recorded origin does not lead to it.

        Raises:
            RunNotFound: no such run.
            RunConflict: there is a run of ``new_id``.
            DefinitionError: its definition cannot be found again, or takes other inputs today.
        """
        return self._started(self.begin_rerun(run_id, inputs=inputs, new_id=new_id, dag=dag))

    def begin_rerun(self, run_id: str, **options: Any) -> Run:
        """Make the run that ``rerun`` makes, and return it; it goes on with ``drive``."""
        from perdure.deriving import derive_rerun

        source = RunId(self.get_run(run_id).id)
        return self._made(lambda: derive_rerun(self.runtime, source, **options))

    def fork(
        self,
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
        """Make a new run that takes over what is not downstream of a change, and drive it here.

        The code is today's. A committed step is taken over if neither its code nor what it
        consumed has changed. It is linked to the earlier run: ``parent`` names that one.

        Args:
            run_id: the run to fork.
            from_step: id of a step that runs again together with everything downstream of it.
            inputs: other values, by parameter name; all else is as it was.
            force: ids, names or patterns (``"parse[*]"``) of steps that run again whatever was
                committed; ``"failed"`` means those that failed, caught errors included.
            overrides: values in place of steps, by id: the step does not run, what consumes it
                sees the value.
            on_change: ``"recompute"`` what changed, ``"reuse"`` committed steps though their code
                or arguments changed, or ``"fail"``.
            new_id: id of the new run; made if not given.
            dag: today's definition, where the run's recorded origin does not lead to it.

        Raises:
            RunNotFound: no such run.
            RunConflict: there is a run of ``new_id``; or something changed under ``"fail"``.
            DefinitionError: its definition cannot be found again, or has no such step today.
        """
        begun = self.begin_fork(
            run_id,
            from_step=from_step,
            inputs=inputs,
            force=force,
            overrides=overrides,
            on_change=on_change,
            new_id=new_id,
            dag=dag,
        )
        return self._started(begun)

    def begin_fork(self, run_id: str, **options: Any) -> Run:
        """Make the run that ``fork`` makes, and return it; it goes on with ``drive``."""
        from perdure.deriving import derive_fork

        source = RunId(self.get_run(run_id).id)
        return self._made(lambda: derive_fork(self.runtime, source, **options))

    def _made(self, derive: Callable[[], Derived]) -> Run:
        from perdure.deriving import create_derived

        derived = create_derived(self.runtime, derive)
        self._say(derived.note)
        return Run(derived.record.id, self, derived.plan, derived.record.plan_digest)

    def _started(self, run: Run) -> Run:
        self._driving.drive_in_background(run.id)
        return run

    def _all(self, query: RunQuery) -> Iterator[RunRecord]:
        import msgspec

        while True:
            page = self.runtime.store.list_runs(query)
            yield from page
            if len(page) < query.limit:
                return
            query = msgspec.structs.replace(query, after=page[-1].id)

    def _drive(self, run: Run) -> None:
        self._driving.submit(run.id)

    def drive(self, run: Run) -> Any:
        """Drive the run in this thread to its end, showing its progress; return its result.

        Raises as ``run``; RunNotDriven if it is paused.
        """
        with self.watching(run):
            while run.record.status in RUN_LIVE:
                self._drive(run)
                try:
                    run.await_end(nobody_after_s=0)
                except RunNotDriven:
                    # Another process drove it and is gone: it is taken over here.
                    # One that has no plan even now will have none in the next turn either.
                    if run.record.status is RunStatus.PAUSED or run.unplanned:
                        raise
        return run.result()

    def watching(self, run: Run) -> AbstractContextManager[None]:
        """Show how the run goes on while the block runs, if there is anybody to see it."""
        return self._watching.watch(run, self.runtime, self.drives)

    def wait_for(self, until: Callable[[], bool]) -> None:
        """Wait until ``until()`` holds, driving what this process drives."""
        self._driving.drive(until)

    def wait_a_moment(self, seconds: float) -> None:
        """Wait until something changed in this process, at most ``seconds``."""
        self._driving.wait_a_moment(seconds)

    def tell_interrupted(self, run: Run, interrupt: BaseException) -> None:
        """Say what becomes of a run that somebody no longer waits for."""
        shorten(interrupt)
        ended, others = (sorted(each - {run.id}) for each in self._driving.take_interruption())
        too = f"; interrupted too: {', '.join(ended)}" if ended else ""
        too += f"; what other cells started goes on: {', '.join(others)}" if others else ""
        with suppress(PerdureError):  # the store is away: the interrupt is what counts
            if self._goes_on(run):
                self._say(f"interrupted: run {run.id} goes on. {run.end_command}{too}")
            elif run.record.status in RUN_LIVE:
                self._say(f"interrupted. Go on with: {run.resume_command}{too}")

    def note_cancelled(self, run: Run, cancelled: BaseException) -> None:
        """Note on the error what becomes of a run that a task of the event loop waited for.

        Whoever cancels that task, as a time-out does, often expects the error and sees no note.
        """
        shorten(cancelled)
        with suppress(PerdureError):
            if self._goes_on(run):
                cancelled.add_note(f"interrupted: run {run.id} goes on. {run.end_command}")

    def _goes_on(self, run: Run) -> bool:
        return self._driving.goes_on(run.id) or run.is_driven

    def drives(self, run_id: str) -> bool:
        """Say whether the run is driven by this process."""
        return self._driving.drives(run_id)

    # --- looking ----------------------------------------------------------------------------
    def get_run(self, run_id: str) -> Run:
        """Return the run. Raises RunNotFound, which names the store and similar ids."""
        if not isinstance(run_id, str):
            raise DefinitionError(f"the id of a run is text, not {run_id!r:.80}")
        record = self.runtime.store.find_run(RunId(run_id))
        if record is None:
            raise RunNotFound(run_id, self.runtime.store.url, self._hint(run_id))
        return Run(record.id, self)

    def _hint(self, run_id: str) -> str:
        known = [record.id for record in self.runtime.store.list_runs(RunQuery(limit=200))]
        if not known:
            return "There are no runs in it yet"
        return did_you_mean(run_id, known).replace("; did", "Did", 1)

    def list_runs(
        self,
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
            since: made after this time (aware), or within this duration (``"2d"``).
            limit: at most so many.
            after: the id of the last run of the page before.
        """
        query = RunQuery(
            status=_statuses(status),
            workflow=workflow,
            tags=dict(tags or {}),
            since=self._since(since),
            limit=min(limit, 2**63 - 1),  # as many as a store can count
            after=RunId(after) if after is not None else None,
        )
        return Runs(Run(record.id, self) for record in self.runtime.store.list_runs(query))

    def _since(self, since: datetime | timedelta | str | None) -> datetime | None:
        if since is None or isinstance(since, datetime):
            if since is not None and since.tzinfo is None:
                raise DefinitionError("since= needs a time zone: datetime.now(UTC), not naive")
            return since
        return self.runtime.clock.now() - timedelta(seconds=parse_duration(since, what="since"))

    def spin(self, run_id: str, step: str, *, dag: Any = None) -> Any:
        """Run one step alone, in this process, and return its value; nothing is stored.

        It takes the inputs that the run has recorded for it, and today's code. An error is raised
        as it is: neither retried nor caught.

        Args:
            run_id: the run.
            step: the step's id.
            dag: today's definition, where the run's recorded origin does not lead to it.

        Raises:
            DefinitionError: there is no such step, then or today, or what it took is not stored.
            NotSerializable: a run could not keep its value.
        """
        from perdure.spinning import spin

        return spin(self.runtime, RunId(self.get_run(run_id).id), step, dag=dag)

    def explain(self, dag_or_run_id: Any, **options: Any) -> Explanation:
        """Say of each step whether it would run or be reused, and why. Runs and writes nothing.

        Args:
            dag_or_run_id: a definition, for what ``run`` would do with it; or a run's id.
            **options: for a definition those of ``run``, inputs included. For an id ``verb=``,
                ``"resume"``, ``"rerun"`` or ``"fork"``, and the options of that verb; without
                ``verb`` it is a fork, if options of one are given, else a resume.

        Raises:
            RunConflict: what the verb itself would raise.
        """
        from perdure.explaining import explain_id, explain_run

        if isinstance(dag_or_run_id, str):
            run = self.get_run(dag_or_run_id)
            return explain_id(self.runtime, RunId(run.id), **options)
        return explain_run(self.runtime, dag_or_run_id, self._wishes(dag_or_run_id, options))

    def diff(self, a: str, b: str) -> Difference:
        """Compare two runs: parameters, code, steps and their values; printed it is a table.

        A run and itself: its steps' values before and after they were computed again.

        Args:
            a: a run's id.
            b: another one's, or the same.
        """
        from perdure.comparing import diff_runs

        return diff_runs(self.runtime, self.get_run(a), self.get_run(b))

    def why(self, run_id: str, step: str) -> str:
        """Return the recorded reason why a step ran, was reused, is retried or waits."""
        return self.get_run(run_id)[step].why()

    def report(
        self, run_id: str, path: str | os.PathLike[str] | None = None, *, force: bool = False
    ) -> Path:
        """Write a page that shows a run, and return where it is; see ``Run.report``."""
        from perdure.view.writing import write_report

        return write_report(self.get_run(run_id), path, force=force)

    # --- asking -----------------------------------------------------------------------------
    def cancel(self, run_id: str) -> Run:
        """Cancel a run: nothing new starts, its processes end, then it is CANCELLED.

        A run without a live owner is ended here and now.
        """
        run = self.request_cancel(run_id)
        if not run.is_driven:
            self._drive(run)
            self.wait_for(lambda: run.record.status not in RUN_LIVE)
        return run

    def request_cancel(self, run_id: str) -> Run:
        """Ask for the end of a run, and leave that to who drives it or to some ``perdure up``."""
        run = self.get_run(run_id)
        self.runtime.store.request_cancel(RunId(run.id))
        return run

    def pause(self, run_id: str) -> Run:
        """Let running steps finish and start none; ``resume`` goes on."""
        run = self.get_run(run_id)
        self.runtime.store.request_pause(RunId(run.id), True)
        return run

    def signal(
        self, run_id: str, name: str, value: Any = None, *, dedup_key: str | None = None
    ) -> bool:
        """Send a signal to a run; see ``perdure.signal``."""
        from perdure.signalling import send_signal

        run = self.get_run(run_id)
        sent = send_signal(self.runtime, run.id, name, value, dedup_key=dedup_key)
        return sent is not None

    def emit(
        self,
        name: str,
        payload: Any = None,
        *,
        match: Mapping[str, Any] | None = None,
        dedup_key: str | None = None,
    ) -> bool:
        """Send an event to every run that waits for it; see ``perdure.emit``."""
        from perdure.signalling import send_event

        sent = send_event(self.runtime, name, payload, match=match, dedup_key=dedup_key)
        return sent is not None

    def delete(self, run_id: str) -> None:
        """Remove a finished run with its steps, events and logs."""
        run = self.get_run(run_id)
        self.runtime.store.delete_run(RunId(run.id))
        self.runtime.sweep_deleted(RunId(run.id))

    def export_run(
        self, run_id: str, path: str | os.PathLike[str], *, overwrite: bool = False
    ) -> Path:
        """Write a run into one file, for another store, and return where it is.

        All of it: rows, values, functions, logs. A run that somebody drives is refused; one that is
        paused, waits or was interrupted goes as it stands.

        Args:
            run_id: the run.
            path: the file to make; whole, or not at all.
            overwrite: take the place of a file that is there.

        Raises:
            RunConflict: somebody drives it.
            StoreError: the file is there already.
            ValueDamaged: a value of it is missing or damaged.
        """
        from perdure.moving import export_to, told_of_export

        target = Path(path)
        run = self.get_run(run_id)
        contents = export_to(self.runtime, RunId(run.id), target, overwrite=overwrite)
        if told_of_export(contents):
            self._say(told_of_export(contents))
        return target

    def import_run(
        self, path: str | os.PathLike[str], *, new_id: str | None = None, trust: bool = False
    ) -> Run:
        """Make a run of a file that ``export_run`` wrote: all of it, or nothing.

        Nothing of it runs; one that was not over is PAUSED, and goes on with ``resume``. The same
        file again changes nothing.

        Args:
            path: the file.
            new_id: its id here; that which it had by default.
            trust: take pickled values and functions too. To read them, later, runs code that
                whoever made the file has chosen.

        Raises:
            RunFileRefused: a StoreError: it is no exported run, is damaged, or holds pickles.
            RunConflict: there is another run of that id.
        """
        from perdure.moving import import_run, told_of_import

        imported = import_run(self, Path(path), new_id=new_id, trust=trust)
        self._say(told_of_import(imported))
        return Run(imported.run.id, self)

    def gc(
        self,
        *,
        keep: float | timedelta | str | None = None,
        keep_last: int | None = None,
        tags: Mapping[str, str] | None = None,
        grace: float | timedelta | str = "24h",
        dry_run: bool = False,
    ) -> GcReport:
        """Remove what nothing refers to, and, if told to, finished runs first.

        Safe beside live runs: their values, and those of runs that they take over, stay.

        Args:
            keep: delete finished runs, but for those that ended within this time (``"30d"``).
            keep_last: delete finished runs, but for the newest so many of each workflow; with
                ``keep`` a run stays if either keeps it.
            tags: only runs with all these tags are deleted.
            grace: what is younger is left alone, for values that are stored before their row is.
            dry_run: say what would go, and remove nothing.
        """
        from perdure.retention import collect, parse_policy

        policy = parse_policy(keep, keep_last, tags)
        return collect(self.runtime, policy, grace=grace, dry_run=dry_run)

    # --- schedules ------------------------------------------------------------------------------
    def schedule(self, name: str, workflow: Any, **options: Any) -> ScheduleHandle:
        """Register a schedule at once; options as of ``perdure.Schedule``."""
        from perdure.schedules import Schedule
        from perdure.scheduling import ScheduleHandle, register

        register(self.runtime, Schedule(name, workflow, **options))
        return ScheduleHandle(self, name)

    def get_schedule(self, name: str) -> ScheduleHandle:
        """Return the schedule of that name. Raises ScheduleNotFound, which names a similar one."""
        from perdure.scheduling import ScheduleHandle

        schedules = self.runtime.store.schedules
        if schedules.find_schedule(name) is None:
            known = [each.name for each in self.list_schedules()]
            raise ScheduleNotFound(name, self.runtime.store.url, did_you_mean(name, known))
        return ScheduleHandle(self, name)

    def list_schedules(self, *, paused: bool | None = None) -> list[ScheduleHandle]:
        """Return the schedules of the store by name."""
        from perdure.scheduling import ScheduleHandle, registry_of
        from perdure_storage.schedule_records import ScheduleQuery

        found = registry_of(self.runtime).all(ScheduleQuery(paused=paused))
        return [ScheduleHandle(self, record.name) for record in found]

    # --- queues ---------------------------------------------------------------------------------
    def set_queue(self, name: str, **limits: Unpack[Limits]) -> QueueHandle:
        """Set limits of a queue, or make it with them; see ``perdure.set_queue``."""
        from perdure.queueing import QueueHandle, set_declared

        set_declared(self.runtime.store, name, self.runtime.clock.now(), **limits)
        return QueueHandle(self.runtime.store, name)

    def get_queue(self, name: str) -> QueueHandle:
        """Return the queue of that name. Raises DefinitionError, which names a similar one."""
        from perdure.queueing import QueueHandle, get_queue

        return QueueHandle(self.runtime.store, get_queue(self.runtime.store, name).name)

    def list_queues(self) -> list[QueueHandle]:
        """Return the queues of the store by name."""
        from perdure.queueing import QueueHandle

        store = self.runtime.store
        return [QueueHandle(store, each.name) for each in store.queues.list_queues()]

    # --- triggers -------------------------------------------------------------------------------
    def trigger(self, name: str, workflow: Any, **options: Any) -> TriggerHandle:
        """Register a trigger at once; options as of ``perdure.Trigger``."""
        from perdure.triggering import TriggerHandle, register
        from perdure.triggers import Trigger

        register(self.runtime, Trigger(name, workflow, **options))
        return TriggerHandle(self, name)

    def get_trigger(self, name: str) -> TriggerHandle:
        """Return the trigger of that name. Raises TriggerNotFound, which names a similar one."""
        from perdure.triggering import TriggerHandle

        triggers = self.runtime.store.triggers
        if triggers.find_trigger(name) is None:
            known = [each.name for each in self.list_triggers()]
            raise TriggerNotFound(name, self.runtime.store.url, did_you_mean(name, known))
        return TriggerHandle(self, name)

    def list_triggers(self, *, paused: bool | None = None) -> list[TriggerHandle]:
        """Return the triggers of the store by name."""
        from perdure.triggering import TriggerHandle
        from perdure_scheduler.hearing import every_trigger
        from perdure_storage.trigger_records import TriggerQuery

        found = every_trigger(self.runtime.store.triggers, TriggerQuery(paused=paused))
        return [TriggerHandle(self, record.name) for record in found]

    def register(self, modules: Mapping[str, Any]) -> list[Became]:
        """Register what modules declare and pause what they do not declare any more.

        Args:
            modules: the imported modules, by the names under which they were asked for.

        Returns:
            What became of each: new, changed, unchanged, resumed or paused.
        """
        from perdure.registering import register_all

        return register_all(self.runtime, modules)

    def serve(self, stop: threading.Event, *, hurry: threading.Event | None = None) -> None:
        """Drive what nobody drives and make the runs of schedules, until ``stop`` is set.

        Steps that run then may end, for as long as the setting ``drain`` says, or until ``hurry``
        is set.
        """
        from perdure.serving import serve

        serve(self.runtime, stop, hurry or threading.Event())


def say_to_people(line: str) -> None:
    """Write a line, if a person is there to read it: to stderr on a terminal, or below a cell."""
    # What notebooks show of stderr looks like a failure.
    stream = sys.stdout if is_kernel() else sys.stderr
    if stream is not None and (is_kernel() or stream.isatty()):
        stream.write(f"perdure: {line}\n")


def _statuses(status: str | Sequence[str] | None) -> tuple[RunStatus, ...]:
    names = [status] if isinstance(status, str) else list(status or ())
    for name in names:
        if name.upper() not in RunStatus.__members__:
            raise DefinitionError(
                f"no status {name!r}{known_names(name.upper(), RunStatus.__members__)}"
            )
    return tuple(RunStatus(name.upper()) for name in names)


def open_store(
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
    """Return the verbs against a store, a context manager. What is not given is a setting.

    Args:
        store: a folder's file or URL: ``sqlite:///...``, ``postgresql://...``.
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
    return Perdure(
        load_settings(
            store=store,
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
    )


def default_client() -> Perdure:
    """Return the client of the settings, made once and closed at exit."""
    client = Perdure(load_settings())
    atexit.register(client.close)
    return client


__all__ = ["Perdure", "RunConflict", "default_client", "open_store"]
