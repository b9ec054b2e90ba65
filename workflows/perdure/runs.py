"""What a user holds of a run: ``Run`` and ``Step``, views by id that read the store when asked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import msgspec

from perdure import story
from perdure.engine.ownership import is_driven
from perdure.errors import DefinitionError, RunNotDriven, WaitTimeout, did_you_mean
from perdure.grown import newest_graphs
from perdure.hosts import serving_hosts, waits_for_host
from perdure.interactive import is_kernel
from perdure.plan import FromStep, Plan, StepPlan, recorded_plan, upstream
from perdure.queueing import waits_in_line
from perdure.remedies import Shell, shell_of
from perdure.results import error_of, inputs_of, load_value, read_result, what_to_type
from perdure.runtime import Runtime
from perdure.showing import Bundle, bundle_of, show_end, show_live
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus, StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    Digest,
    ErrorRecord,
    EventRecord,
    RunRecord,
    SaveRecord,
    StepId,
    StepRecord,
    WaitRecord,
)

_LOOK_EVERY_S = 0.05
_SHOWN = 5
_NOBODY_AFTER_S = 3.0
"""How long a wait leaves others the time to take a run on before it says that nobody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, in steps: ``str`` of it is ``"3/12"``.

    Attributes:
        done: steps that are committed, or skipped.
        running: steps of which an attempt runs now.
        failed: steps that failed for good.
        total: all steps.
    """

    done: int
    running: int
    failed: int
    total: int

    @property
    def waiting(self) -> int:
        """Return how many steps are neither done, nor running, nor failed."""
        return self.total - self.done - self.running - self.failed

    def __str__(self) -> str:
        return f"{self.done}/{self.total}"


class Client(Protocol):
    """What a run asks of the one that it came from."""

    @property
    def runtime(self) -> Runtime:
        """Return the opened stores."""
        ...

    def drives(self, run_id: str) -> bool:
        """Say whether the run is driven by this process."""
        ...

    def wait_for(self, until: Callable[[], bool]) -> None:
        """Wait until ``until()`` holds, driving what this process drives."""
        ...

    def wait_a_moment(self, seconds: float) -> None:
        """Wait until something changed in this process, at most ``seconds``."""
        ...

    def tell_interrupted(self, run: Run, interrupt: BaseException) -> None:
        """Say what becomes of a run that somebody no longer waits for."""
        ...

    def note_cancelled(self, run: Run, cancelled: BaseException) -> None:
        """Note on the error what becomes of a run that a task of the event loop waited for."""
        ...

    def watching(self, run: Run) -> AbstractContextManager[None]:
        """Show how the run goes on while the block runs, if there is anybody to see it."""
        ...

    def cancel(self, run_id: str) -> Run:
        """Cancel a run."""
        ...

    def signal(
        self, run_id: str, name: str, value: Any = None, *, dedup_key: str | None = None
    ) -> bool:
        """Send a signal to a run."""
        ...

    def pause(self, run_id: str) -> Run:
        """Pause a run."""
        ...

    def report(
        self, run_id: str, path: str | os.PathLike[str] | None = None, *, force: bool = False
    ) -> Path:
        """Write a page that shows a run."""
        ...

    @property
    def resume(self) -> Callable[..., Run]:
        """Return the verb that goes on with a run."""
        ...


class Run:
    """A durable execution, by its id. Everything is read from the store when it is asked for.

    Attributes:
        id: the run's id.
    """

    def __init__(
        self,
        run_id: str,
        client: Client,
        plan: Plan | None = None,
        plan_digest: Digest | None = None,
    ) -> None:
        self.id = run_id
        self._client = client
        self._plan = plan
        self._plan_digest = plan_digest

    @property
    def record(self) -> RunRecord:
        """Return the row as it is now."""
        return self._client.runtime.store.get_run(self.id)  # type: ignore[arg-type]

    @property
    def status(self) -> RunStatus:
        """Return the status; INTERRUPTED if it was RUNNING and its owner is gone."""
        status = status_of(self.record)
        # Its owner may have given it back, and have ended, since the row was read.
        return status if status is not RunStatus.INTERRUPTED else status_of(self.record)

    @property
    def is_driven(self) -> bool:
        """Say whether somebody alive drives it."""
        return is_driven(self.record)

    @property
    def runtime(self) -> Runtime:
        """Return the stores that it is in."""
        return self._client.runtime

    @property
    def workflow(self) -> str:
        """Return the workflow's name."""
        return self.record.workflow

    @property
    def inputs(self) -> dict[str, Any]:
        """Return the arguments, decoded."""
        return inputs_of(self._client.runtime, self.record.inputs)

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags."""
        return self.record.tags

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the metadata that it was given."""
        return metadata_of(self.record)

    @property
    def origin(self) -> str | None:
        """Return the entry point that makes the definition again, or None."""
        return self.record.origin

    @property
    def parent(self) -> str | None:
        """Return the run that this one was forked or takes over from, or that started it."""
        record = self.record
        return record.parent or record.forked_from

    @property
    def created_at(self) -> datetime:
        """Return when it was accepted, in UTC."""
        return self.record.created_at

    @property
    def error(self) -> ErrorRecord | None:
        """Return what ended it, as data, or None."""
        return self.record.error

    @property
    def plan(self) -> Plan:
        """Return its DAG as data; without a step while it has none, see ``unplanned``."""
        return self._plan_of(self.record) if self._plan is None else self._plan

    def _plan_of(self, record: RunRecord) -> Plan:
        """Return the plan that a row of the run names; it may have got another one since."""
        if self._plan is None or self._plan_digest != record.plan_digest:
            plan = recorded_plan(self._client.runtime.store, record)
            if record.plan_digest is None:  # who takes it on builds it
                return plan
            self._plan, self._plan_digest = plan, record.plan_digest
        return self._plan

    @property
    def unplanned(self) -> str:
        """Return why it has no plan yet; "" where it has one, or needs none any more."""
        record = self.record
        if record.plan_digest is not None or record.status in RUN_TERMINAL:
            return ""
        told = [event.detail["why"] for event in self.events() if event.kind == "unplanned"]
        return told[-1] if told else "who takes it on builds it, of the code as it is then"

    @property
    def waits_for_host(self) -> str:
        """Return why it waits for a host that has more than those that are up; "" if not."""
        return waits_for_host(self._client.runtime.store, self.record)

    @property
    def waits_in_line(self) -> str:
        """Return why it does not begin, or go on: its queue, or its delay; "" if not for that."""
        runtime = self._client.runtime
        return waits_in_line(runtime.store, self.record, runtime.clock.now())

    def why(self) -> str:
        """Return why it does not go on, if it does not; else how far it is or came."""
        return story.of_run(self)

    @property
    def progress(self) -> Progress:
        """Return how many steps are done, running and failed."""
        statuses = [step.status for step in self.steps()]
        return Progress(
            done=sum(s in (StepStatus.SUCCEEDED, StepStatus.SKIPPED) for s in statuses),
            running=statuses.count(StepStatus.RUNNING),
            failed=statuses.count(StepStatus.FAILED),
            total=len(statuses),
        )

    # --- waiting ----------------------------------------------------------------------------
    def result(self, timeout: float | timedelta | None = None) -> Any:
        """Return the result, waiting for the end of the run.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            RunFailed: with the user's exception as ``__cause__``.
            RunCancelled: it was cancelled.
            RunNotDriven: nobody drives it; the message has the command.
            WaitTimeout: it goes on, but not within ``timeout``.
        """
        return self._outcome(self._waited_for(timeout, _NOBODY_AFTER_S))

    def _outcome(self, record: RunRecord) -> Any:
        if record.status is RunStatus.SUCCEEDED:
            return read_result(self._client.runtime, record, self._plan_of(record))
        raise error_of(self._client.runtime, record)

    def wait(
        self,
        timeout: float | timedelta | None = None,
        *,
        nobody_after_s: float = _NOBODY_AFTER_S,
    ) -> Run:
        """Wait until the run has ended, however it ends.

        Args:
            timeout: seconds to wait; None waits for ever.
            nobody_after_s: how long somebody is given to take it on, if nobody drives it.

        Raises:
            RunNotDriven: nobody drives it.
            WaitTimeout: it goes on, but not within ``timeout``.
        """
        self._waited_for(timeout, nobody_after_s)
        return self

    def _waited_for(self, timeout: float | timedelta | None, nobody_after_s: float) -> RunRecord:
        try:
            return self.await_end(timeout, nobody_after_s=nobody_after_s)
        except KeyboardInterrupt as interrupt:
            self._client.tell_interrupted(self, interrupt)
            raise

    def await_end(
        self, timeout: float | timedelta | None = None, *, nobody_after_s: float
    ) -> RunRecord:
        """Do what ``wait`` does, for callers that say themselves what an interrupt does.

        Returns:
            The row as it is in the end.
        """
        with self._client.watching(self):
            record = self._wait(timeout, nobody_after_s)
        show_end(self)
        return record

    def _wait(
        self,
        timeout: float | timedelta | None,
        nobody_after_s: float,
        is_given_up: Callable[[], bool] = lambda: False,
    ) -> RunRecord:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        until = None if seconds is None else time.monotonic() + seconds
        unseen_since: float | None = None
        while True:
            if self._client.drives(self.id):
                self._client.wait_for(lambda: self._is_over_here(until) or is_given_up())
            record = self.record
            if record.status in RUN_TERMINAL or is_given_up():
                return record
            now = time.monotonic()
            if until is not None and now >= until:
                raise WaitTimeout(
                    f"run {self.id} is {record.status} after {seconds:g} s and goes on; see how "
                    f"far it is with `{self._shell.command('show', self.id)}`"
                )
            if self._client.drives(self.id):
                continue
            unseen_since = None if self._has_driver(record) else unseen_since or now
            if record.status is RunStatus.PAUSED or (
                unseen_since is not None and now - unseen_since >= nobody_after_s
            ):
                raise _not_driven(record, self._shell, self.unplanned)
            self._client.wait_a_moment(_LOOK_EVERY_S)

    def _is_over_here(self, until: float | None) -> bool:
        late = until is not None and time.monotonic() >= until
        return late or not self._client.drives(self.id)

    def _has_driver(self, record: RunRecord) -> bool:
        if record.owner is not None:
            return is_driven(record)
        store = self._client.runtime.store
        return bool(serving_hosts(store))

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait without blocking the event loop; gives what ``result()`` returns.

        Who waits may be cancelled: the run goes on.
        """
        return self._ended().__await__()

    async def _ended(self) -> Any:
        import asyncio  # here: who waits so has it already, and all others do without

        given_up = threading.Event()
        waiting = asyncio.ensure_future(
            asyncio.to_thread(self._wait, None, _NOBODY_AFTER_S, given_up.is_set)
        )
        try:
            while not waiting.done():
                # A notebook's kernel cancels from within a signal's handler, which does not wake
                # an event loop: it has to look by itself.
                await asyncio.wait([waiting], timeout=_LOOK_EVERY_S)
        except asyncio.CancelledError as cancelled:
            if is_kernel():
                self._client.note_cancelled(self, cancelled)
            raise
        finally:
            given_up.set()  # or the thread would outlive who waits, and keep the process waiting
        record = waiting.result()
        show_end(self)
        return self._outcome(record)

    # --- steps ------------------------------------------------------------------------------
    def steps(
        self, *, status: StepStatus | str | None = None, name: str | None = None
    ) -> list[Step]:
        """Return the steps in plan order.

        Args:
            status: only those of this status.
            name: only those whose id matches this pattern: ``"load*"``, ``"parse[*]"``.
        """
        steps = _views(self, self._client)
        if name is not None:
            # Brackets are part of the ids of a map's steps, and no set of characters.
            pattern = name.replace("[", "[[]")
            steps = [step for step in steps if fnmatchcase(step.id, pattern)]
        return [step for step in steps if status is None or step.status == status]

    def __getitem__(self, step_id: str) -> Step:
        """Return a step by its id. Raises DefinitionError with similar ids."""
        steps = {step.id: step for step in _views(self, self._client)}
        if not steps and (why := self.unplanned):
            raise DefinitionError(f"run {self.id} has no plan yet, and so no steps: {why}")
        if step_id not in steps:
            near = did_you_mean(step_id, steps)
            raise DefinitionError(
                f"run {self.id} has no step {step_id!r}{near or _some(steps) + '.'} All of them: "
                f"`{self._shell.command('show', self.id)}`"
            )
        return steps[step_id]

    def logs(self) -> str:
        """Return what all attempts printed, in plan order, each under its step's id."""
        texts = [(step.id, step.logs()) for step in self.steps()]
        return "".join(f"--- {step_id} ---\n{text}" for step_id, text in texts if text)

    def events(self, *, after: int = 0) -> list[EventRecord]:
        """Return the run's story beyond its steps, from sequence number ``after`` on."""
        return self._client.runtime.store.list_events(self.id, after=after)  # type: ignore[arg-type]

    def report(self, path: str | os.PathLike[str] | None = None, *, force: bool = False) -> Path:
        """Write a page that shows it, as it stands now: one file, complete by itself.

        Nothing is decoded for it: values are shown as they looked when they were committed.

        Args:
            path: where to; None: ``<run id>.html`` in the working folder. A page of a run that is
                there is replaced.
            force: whether any other file that is there is replaced too.

        Returns:
            Where it is.

        Raises:
            DefinitionError: no file can be there, or another one would be lost.
            OSError: it cannot be written there.
        """
        return self._client.report(self.id, path, force=force)

    # --- asking -----------------------------------------------------------------------------
    def cancel(self) -> Run:
        """End it as CANCELLED; see ``perdure.cancel``."""
        return self._client.cancel(self.id)

    def signal(self, name: str, value: Any = None, *, dedup_key: str | None = None) -> bool:
        """Send it a signal; see ``perdure.signal``."""
        return self._client.signal(self.id, name, value, dedup_key=dedup_key)

    def pause(self) -> Run:
        """Let running steps finish and start none."""
        return self._client.pause(self.id)

    def resume(self, **options: Any) -> Run:
        """Go on with it; see ``perdure.resume``."""
        return self._client.resume(self.id, **options)

    @property
    def next_command(self) -> str:
        """Return a sentence with the command that goes on with it."""
        return what_to_type(self._client.runtime, self.record)

    @property
    def plan_command(self) -> str:
        """Return a sentence with the command that lets it have a plan."""
        up = self._shell.command("up")
        if any(event.kind == "unplanned" for event in self.events()):
            return f"Mend {self.record.origin}: `{up}` tries again every few seconds"
        return f"Let it be driven: {up}"

    @property
    def resume_command(self) -> str:
        """Return the command that goes on with it, as a shell takes it."""
        return self._shell.resume(self.id)

    @property
    def end_command(self) -> str:
        """Return sentences with the commands that look at it and that end it."""
        look, end = self._shell.command("show", self.id), self._shell.command("cancel", self.id)
        return f"Look at it: {look}; end it: {end}"

    @property
    def mend_command(self) -> str:
        """Return the command that redoes what failed, in a new run that keeps the rest."""
        return self._shell.command("fork", self.id, "--force", "failed", "--on-change", "reuse")

    def signal_command(self, name: str) -> str:
        """Return the command that sends it a signal; the value is left to whoever types it."""
        return self._shell.command("signal", self.id, name, "--value", "...")

    @property
    def _shell(self) -> Shell:
        return shell_of(self._client.runtime.settings)

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.status}>"

    def _repr_mimebundle_(self, **kinds: Any) -> Bundle:
        return bundle_of(self)

    def _ipython_display_(self) -> None:
        if not show_live(self):
            raise NotImplementedError  # IPython then asks for the bundle


class Runs(list[Run]):
    """Runs, as a list; a notebook shows it as a table."""

    def _repr_mimebundle_(self, **kinds: Any) -> Bundle:
        return bundle_of(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Write the table: IPython would print a list as it prints all lists."""
        printer.text(bundle_of(self)["text/plain"])


def metadata_of(record: RunRecord) -> dict[str, Any]:
    """Return the metadata that a run was given: what perdure notes there is told otherwise."""
    return {n: value for n, value in record.metadata.items() if not n.startswith("perdure.")}


def status_of(record: RunRecord) -> RunStatus:
    """Return the status as people see it: RUNNING without a live owner is INTERRUPTED."""
    if record.status is RunStatus.RUNNING:
        alive = is_driven(record)
        return RunStatus.RUNNING if alive else RunStatus.INTERRUPTED
    return record.status


def _not_driven(record: RunRecord, shell: Shell, unplanned: str) -> RunNotDriven:
    status = status_of(record)
    why = f": it has no plan yet: {unplanned}" if unplanned else ""
    first = f"Mend {record.origin}, then drive" if unplanned else "Drive"
    return RunNotDriven(
        f"run {record.id} is {status} and nobody drives it{why}. {first} it here by "
        f"`{shell.resume(record.id)}`, or start `{shell.command('up')}`",
        run_id=record.id,
        status=status,
    )


class Step:
    """One step of a run as it stood when it was asked for.

    Attributes:
        run: the run that it is of.
        id: the step's id.
        status: where it stood.
        plan: the call.
        graph: what the call is a part of: the run's DAG, or a graph that another step gave.
        root: the step that gave the graph that it is in; None: it is in the run's DAG.
        wait: the time or message that it waits for, if it does.
        saves: what it has saved for its next attempt, oldest first; nothing once it has a value.
    """

    def __init__(
        self,
        run: Run,
        client: Client,
        plan: StepPlan,
        graph: Plan,
        lives: list[StepRecord],
        tries: list[AttemptRecord],
        status: StepStatus,
        wait: WaitRecord | None = None,
        root: str | None = None,
        saves: Sequence[SaveRecord] = (),
    ) -> None:
        self.run = run
        self.saves = saves
        self.id = plan.id
        self.plan = plan
        self.graph = graph
        self.status = status
        self.row = next((row for row in lives if row.current), None)
        self.root = root
        self.wait = wait if status is StepStatus.WAITING else None
        self._client = client
        self._tries = tries
        self._lives = lives

    @property
    def generation(self) -> int:
        """Return which life of the step's result this is, from 1."""
        if self.row is not None:
            return self.row.generation
        return max((attempt.generation for attempt in self._tries), default=1)

    @property
    def generations(self) -> list[Generation]:
        """Return every life of its result that ended, oldest first, to look at side by side.

        A value that was computed again (its code or what it consumes changed, or it was lost) is
        a later life; the last one counts.
        """
        return [Generation(row, self.run) for row in self._lives]

    @property
    def inputs(self) -> list[str]:
        """Return the ids of the steps whose values it takes."""
        return upstream(self.plan)

    @property
    def is_left(self) -> bool:
        """Say whether its run has ended without an end of the step."""
        return self.row is None and self.status is StepStatus.CANCELLED

    @property
    def metadata(self) -> dict[str, Any]:
        """Return what its task notes about it."""
        noted = self.graph.options[self.plan.options].metadata
        return {name: value for name, value in noted.items() if not name.startswith("perdure.")}

    @property
    def children(self) -> list[Step]:
        """Return the steps that take its value."""
        return [step for step in self.run.steps() if self.id in step.inputs]

    @property
    def preview(self) -> dict[str, Any] | None:
        """Return what the value looks like, made when it was stored; decodes nothing."""
        return _preview(self.row)

    @property
    def duration(self) -> timedelta | None:
        """Return how long the attempt that ended it ran."""
        if self.row is None or self.row.started_at is None or self.row.finished_at is None:
            return None
        return self.row.finished_at - self.row.started_at

    @property
    def error(self) -> ErrorRecord | None:
        """Return the error of the last attempt that failed, or None."""
        if self.row is not None and self.row.error is not None:
            return self.row.error
        errors = [attempt.error for attempt in self._tries if attempt.error is not None]
        return errors[-1] if errors and self.status is not StepStatus.SUCCEEDED else None

    @property
    def attempts(self) -> list[AttemptRecord]:
        """Return every try, the one that succeeded included, oldest first."""
        return list(self._tries)

    def result(self) -> Any:
        """Return the step's value. Raises ValueDamaged if it is not, or no longer, stored."""
        value = self.row.value if self.row is not None else None
        if self.row is None or self.row.status is not StepStatus.SUCCEEDED:
            raise DefinitionError(
                f"step {self.id} of run {self.run.id} is {self.status} and has no result: "
                f"{self.why()}"
            )
        return load_value(self._client.runtime, value, self.run.id, self.id)

    def logs(self, attempt: int | None = None) -> str:
        """Return what its attempts printed (or one of them), oldest first."""
        logs = self._client.runtime.logs
        tries = [a for a in self.attempts if attempt is None or a.attempt == attempt]
        data = b"".join(logs.read(a.run_id, a.step_id, a.generation, a.attempt) for a in tries)
        return data.decode(errors="replace")

    def why(self) -> str:
        """Return the recorded reason why it ran, was reused, is retried or waits."""
        return story.why(self, story.Siblings(self.run))

    def __repr__(self) -> str:
        return f"<Step {self.id} {self.status} of {self.run.id}>"

    def _repr_mimebundle_(self, **kinds: Any) -> Bundle:
        return bundle_of(self)


class Generation:
    """One life of a step's result, as it was recorded.

    Attributes:
        number: which life, from 1.
        status: how it ended; LOST: its value was missing or damaged, and was made again.
        is_current: whether this is the one that counts.
        reason: why it ran, or was taken over; "" where it had not run before.
    """

    def __init__(self, row: StepRecord, run: Run) -> None:
        self._row = row
        self._run = run
        self.number = row.generation
        self.status = row.status
        self.is_current = row.current
        self.reason = row.reason

    @property
    def preview(self) -> dict[str, Any] | None:
        """Return what the value looked like, made when it was stored; decodes nothing."""
        return _preview(self._row)

    def result(self) -> Any:
        """Return the value. Raises ValueDamaged if it is not, or no longer, stored."""
        if self._row.value is None:
            raise DefinitionError(
                f"generation {self.number} of step {self._row.step_id} of run {self._run.id} is "
                f"{self.status} and has no result"
            )
        return load_value(self._run.runtime, self._row.value, self._run.id, self._row.step_id)

    def __repr__(self) -> str:
        return f"<Generation {self.number} of {self._row.step_id}, {self.status}>"


def _preview(row: StepRecord | None) -> dict[str, Any] | None:
    if row is None or row.value is None or not row.value.preview:
        return None
    preview: dict[str, Any] = msgspec.json.decode(row.value.preview)
    return preview


def _some(names: Collection[str]) -> str:
    """Return the first names of several, for a message."""
    shown = ", ".join(list(names)[:_SHOWN])
    return f" (it has {shown}{', ...' if len(names) > _SHOWN else ''})" if names else ""


def _views(run: Run, client: Client) -> list[Step]:
    store = client.runtime.store
    record = run.record
    lives: dict[str, list[StepRecord]] = {}
    for life in store.list_steps(record.id, current_only=False):
        lives.setdefault(life.step_id, []).append(life)
    tries: dict[str, list[AttemptRecord]] = {}
    for attempt in store.list_attempts(record.id):
        tries.setdefault(attempt.step_id, []).append(attempt)
    grown = newest_graphs(store.list_expansions(record.id))
    waits = {each.step_id: each for each in store.list_waits(record.id)}  # the newest of each
    saves: dict[str, list[SaveRecord]] = {}
    for save in store.list_saves(record.id):
        saves.setdefault(save.step_id, []).append(save)
    views: list[Step] = []
    rows = {i: row for i, each in lives.items() for row in each if row.current}
    driven = is_driven(record)
    gone = _leftovers(record, grown, rows)
    for root, graph, step in _in_order(run.plan, grown, gone):
        ended = sorted(lives.get(step.id, []), key=lambda row: row.generation)
        row = rows.get(step.id)
        own = list(_completed(tries.get(step.id, []), ended, is_driven=driven))
        status = _step_status(record, row, own, waits=step.id in grown or step.id in waits)
        wait = waits.get(StepId(step.id))
        kept = saves.get(step.id, ())
        views.append(Step(run, client, step, graph, ended, own, status, wait, root, kept))
    return views


def _leftovers(
    record: RunRecord, grown: dict[str, list[Plan]], rows: Mapping[str, StepRecord]
) -> set[str]:
    """Return the steps of graphs that their steps' values are not from, as far as they never ended.

    All of a graph has ended when the run succeeded, unless a failure in it was caught. What has
    not is of a graph of earlier code: the step has its value without one, or from another run.
    """
    if record.status is not RunStatus.SUCCEEDED:
        return set()
    return {
        step.id
        for root, links in grown.items()
        if root in rows and not rows[root].caught
        for link in links
        for step in link.steps
        if step.id not in rows
    }


def _in_order(
    plan: Plan, grown: dict[str, list[Plan]], gone: Collection[str]
) -> Iterator[tuple[str | None, Plan, StepPlan]]:
    """Yield the steps of a plan, each followed by those of the graphs that it gave.

    With each comes who gave the graph that it is in, and that graph.

    What is ``gone`` is left out, with all below it. Of a chain of tail calls the links in the
    middle answer for nothing: they are left out.
    """
    passed = {
        link.output.step
        for links in grown.values()
        for link in links[:-1]
        if isinstance(link.output, FromStep)
    }
    stack: list[tuple[str | None, Plan, StepPlan]]
    stack = [(None, plan, step) for step in reversed(plan.steps)]
    while stack:
        root, graph, step = stack.pop()
        if step.id in gone:
            continue
        if step.id not in passed:
            yield root, graph, step
        stack += [
            (step.id, link, below)
            for link in reversed(grown.get(step.id, []))
            for below in link.steps[::-1]
        ]


def _step_status(
    record: RunRecord, row: StepRecord | None, tries: list[AttemptRecord], *, waits: bool
) -> StepStatus:
    if row is not None:
        return row.status
    if record.status in RUN_TERMINAL:
        return StepStatus.CANCELLED
    if waits:
        return StepStatus.WAITING
    last = tries[-1] if tries else None
    if last is None or last.cause is Cause.SUCCEEDED:  # that value is gone
        return StepStatus.PENDING
    if last.cause is None:
        return StepStatus.RUNNING
    return StepStatus.CANCELLED if last.cause is Cause.CANCELLED else StepStatus.READY


def _completed(
    tries: list[AttemptRecord], lives: list[StepRecord], *, is_driven: bool
) -> Iterator[AttemptRecord]:
    """Yield the tries; one that succeeded is told by the step's row, not by one of its own.

    One without an end runs only while somebody drives the run, and in the newest life of the step.
    """
    untold = {
        (row.generation, row.attempt): row
        for row in lives
        if row.status in (StepStatus.SUCCEEDED, StepStatus.LOST) and row.attempt
    }
    numbers = [each.generation for each in tries] + [life.generation for life in lives]
    newest = max(numbers, default=1)
    told = []
    for attempt in tries:
        row = untold.pop((attempt.generation, attempt.attempt), None)
        if attempt.cause is not None:
            told.append(attempt)
        elif row is not None:
            told.append(_successful(row))
        elif is_driven and attempt.generation == newest:
            told.append(attempt)
        else:
            told.append(msgspec.structs.replace(attempt, cause=Cause.ABANDONED))
    told += map(_successful, untold.values())
    yield from sorted(told, key=lambda attempt: (attempt.generation, attempt.attempt))


def _successful(row: StepRecord) -> AttemptRecord:
    return AttemptRecord(
        run_id=row.run_id,
        step_id=row.step_id,
        generation=row.generation,
        attempt=row.attempt,
        cause=Cause.SUCCEEDED,
        worker=row.worker,
        started_at=row.started_at,
        finished_at=row.finished_at,
        peak_memory_bytes=row.peak_memory_bytes,
    )
