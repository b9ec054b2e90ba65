"""From a definition to a run that exists: compiling, storing, and the rules for existing ids."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import msgspec

from perdure.changes import refuse_changes
from perdure.compile import Prepared, compile_dag, plan_record, prepare
from perdure.engine.edits import Edits
from perdure.engine.loading import Born
from perdure.engine.matching import Matching, match_rows
from perdure.engine.ownership import driver_of, is_driven, is_seen_dead
from perdure.engine.placement import lacking, shortage
from perdure.engine.takeover import match_donor
from perdure.errors import DefinitionError, RunConflict, RunNotFound, did_you_mean, known_names
from perdure.executors.capacity import capacity_of
from perdure.executors.process_tree import kill_processes
from perdure.executors.ray_presence import require_executor
from perdure.fingerprint import fingerprints
from perdure.fork_plan import carried_over, with_takeover
from perdure.plan import (
    Plan,
    Takeover,
    functions_by_code,
    options_in,
    placed,
    recorded_plan,
    request_of,
)
from perdure.queueing import require_queue
from perdure.queues import Queue, check_name
from perdure.remedies import Shell, shell_of
from perdure.resources import parse_duration
from perdure.runtime import Runtime
from perdure.settings import EXECUTORS, Settings
from perdure.tracing import current_trace
from perdure_storage.errors import BlobsCondemned, DuplicateRun, ValueDamaged
from perdure_storage.faults import crash_point
from perdure_storage.guards import reopened
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import (
    Owner,
    Place,
    PlanRecord,
    RunId,
    RunPolicy,
    RunQuery,
    RunRecord,
    StepRecord,
    StoredValue,
)
from perdure_storage.values import Values, inputs_digest

MAX_RUN_ID = 200
_FIRST_YEAR, _LAST_YEAR = 2, 9997
"""What is in them is a time in every zone, and so is what is a day before or after it."""
_TOLD = 2
"""Steps that are named in a line, of each kind."""
_CHOICES = {
    "durability": ("step", "group"),
    "on_change": ("recompute", "reuse", "fail"),
    "on_failure": ("stop", "finish"),
    "on_divergence": ("fail", "recompute", "keep"),
    "if_exists": ("resume", "fail"),
    "if_duplicate": ("raise", "return"),
    "executor": (None, *EXECUTORS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The options of ``run``, ``start`` and ``submit``, checked; ``given`` are the inputs."""

    given: Mapping[str, Any]
    run_id: str | None = None
    reuse: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    executor: str | None = None
    durability: str = "step"
    on_change: str = "recompute"
    on_failure: str = "stop"
    on_divergence: str = "fail"
    deadline: Any = None
    queue: str | Queue | None = None
    priority: int = 0
    delay: Any = None
    limit_key: str | None = None
    dedup_key: str | None = None
    if_duplicate: str = "raise"
    if_exists: str = "resume"
    find_last: Callable[[str], Sequence[RunId]] = lambda workflow: ()

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], *, find_last: Callable[[str], Sequence[RunId]]
    ) -> Wishes:
        """Tell options from inputs: whatever is no option is an input of the workflow."""
        names = set(cls.__dataclass_fields__) - {"given", "find_last"}
        own = {n: v for n, v in options.items() if n in names and v is not None}
        more = {n: v for n, v in options.items() if n not in names and n != "inputs"}
        inputs = dict(options.get("inputs") or {})
        if doubled := inputs.keys() & more.keys():
            raise DefinitionError(
                f"{', '.join(sorted(doubled))} given twice: in inputs= and by name"
            )
        wishes = cls(given={**inputs, **more}, find_last=find_last, **own)
        wishes.check()
        return wishes

    def check(self) -> None:
        """Raise DefinitionError for a value that an option cannot have."""
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                known = [c for c in choices if c is not None]
                raise DefinitionError(f"{name}={value!r}{known_names(str(value), known)}")
        if self.run_id is not None:
            check_run_id(self.run_id)
        for name, value in self.tags.items():
            if not all(isinstance(text, str) for text in (name, value)):
                raise DefinitionError(
                    f"tags are text by text, not {name!r}: {value!r}. Write tags={{'team': 'a'}}"
                )
        _check_json(self.metadata)
        self._check_queue()

    def _check_queue(self) -> None:
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise DefinitionError(f"priority={self.priority!r:.40}: write a whole number")
        if abs(self.priority) >= 2**63:
            raise DefinitionError(
                f"priority={self.priority!r:.40}: no store holds so large a number: write one "
                "within 2**63"
            )
        if self.queue is not None and not isinstance(self.queue, Queue):
            check_name(self.queue, "queue=")
        for name in ("limit_key", "dedup_key"):
            if (value := getattr(self, name)) is None:
                continue
            check_name(value, f"{name}=")
            if self.queue is None:
                raise DefinitionError(f"{name}= is of a queue: give queue= too")
        if self.if_duplicate != "raise" and self.dedup_key is None:
            raise DefinitionError(
                f"if_duplicate={self.if_duplicate!r} is about a dedup_key=, and none is given: "
                "give dedup_key= too (--dedup-key KEY)"
            )

    def policy(self) -> RunPolicy:
        """Return how the run is to be driven."""
        return RunPolicy(
            durability=self.durability,
            on_failure=self.on_failure,
            on_change=self.on_change,
            on_divergence=self.on_divergence,
            executor=self.executor,
        )


def check_run_id(run_id: object) -> None:
    """Raise DefinitionError unless it is 1-200 characters without control characters."""
    if not isinstance(run_id, str):
        raise DefinitionError(f"a run id is text, not {type(run_id).__name__}")
    if not 1 <= len(run_id) <= MAX_RUN_ID:
        raise DefinitionError(f"a run id has 1 to {MAX_RUN_ID} characters, not {len(run_id)}")
    try:
        run_id.encode()
    except UnicodeEncodeError:
        raise DefinitionError(
            f"run id {run_id!r} is no Unicode text: write letters and digits"
        ) from None
    if not run_id.isprintable():
        raise DefinitionError(
            f"run id {run_id!r} has characters that cannot be seen: write letters and digits"
        )
    if run_id != run_id.strip() or run_id.startswith("-"):
        raise DefinitionError(
            f"run id {run_id!r} cannot be typed on a command line: no spaces at its ends, "
            "no '-' in front"
        )


def _check_json(metadata: object) -> None:
    try:
        msgspec.json.encode(metadata)
    except (TypeError, ValueError, OverflowError) as error:
        raise DefinitionError(f"metadata= is to be JSON: {error}") from None


def make_run_id(workflow: str, now: datetime) -> str:
    """Return a readable id that sorts by time: ``iris-20260401-120301-4f2a``."""
    stem = "".join(c if c.isalnum() or c in "._" else "-" for c in workflow)[:60].strip("-")
    return f"{stem or 'run'}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Action(Enum):
    """What a submission or a resume comes to."""

    MAKE = "make"  # a run that is not there yet
    KEEP = "keep"  # it is there, and goes on or has ended without us
    REOPEN = "reopen"  # it is there, and is driven again


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is about to happen to a run; nothing is written yet.

    Attributes:
        record: the run as it will be.
        plan: its plan as it will be; None: as it is recorded.
        note: a line for people.
    """

    action: Action
    record: RunRecord
    plan: Plan | None
    note: str


class Submission:
    """One call of ``run``, ``start`` or ``submit``.

    Args:
        runtime: the stores.
        settings: where and how.
        dag: the definition.
        wishes: the options.
        values: where constants and inputs are stored; those of the runtime by default.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        dag: Any,
        wishes: Wishes,
        values: Values | None = None,
        is_for_others: bool = False,
    ) -> None:
        self._is_for_others = is_for_others
        self.runtime = runtime
        self.store = runtime.store
        self.settings = settings
        self.wishes = wishes
        self._values = values or runtime.values
        self._known_prints: tuple[Plan, dict[str, str]] | None = None
        self.born: Born | None = None
        self.prepared: Prepared = prepare(dag, wishes.given)
        self._put()
        crash_point("plan.stored")

    def _put(self) -> None:
        """Store what the plan and the inputs are made of; no row names it yet."""
        self.plan = compile_dag(self.prepared.dag, self._values, origin=self.prepared.origin)
        refuse_unenforceable(
            self.plan, self.settings, self.wishes.executor, is_for_others=self._is_for_others
        )
        self.inputs = store_inputs(self.prepared.inputs, self._values)
        self.body = plan_record(self.plan, self.inputs)

    def submit(self, owner: Owner | None = None) -> tuple[RunRecord, str]:
        """Make the run, or find it under its id. Returns the row and a line about what it is.

        Args:
            owner: claims the run if it is made; it is ``born`` then, for who drives it.
        """
        try:
            return self._submit(owner)
        except BlobsCondemned:
            # gc has taken what was put a moment ago: it comes by once, not twice.
            self._put()
            return self._submit(owner)

    def _submit(self, owner: Owner | None) -> tuple[RunRecord, str]:
        intent = self.intend()
        if intent.action is Action.REOPEN:
            return self._reopen(intent), intent.note
        if intent.action is Action.KEEP:
            return intent.record, intent.note
        if self.wishes.queue is not None:
            require_queue(self.store, self.wishes.queue, self.runtime.clock.now())
        try:
            made = self.store.create_run(intent.record, self.body, owner=owner)
        except DuplicateRun as duplicate:
            return self._duplicate(duplicate)
        if made is not None:
            self.born = Born(made, self.plan) if made.owner is not None else None
            return made, intent.note
        if self.store.find_run(intent.record.id) is None:
            # Whoever deleted the run of this id died before the end of it.
            self.runtime.sweep_deleted(intent.record.id)
        return self._submit(owner)

    def _duplicate(self, duplicate: DuplicateRun) -> tuple[RunRecord, str]:
        """Return the run that is there in place of the one that was asked for, if so wished."""
        there = self.store.find_run(RunId(duplicate.run_id))
        if self.wishes.if_duplicate == "raise" or there is None:
            raise duplicate
        return there, f"{there.id} has the dedup_key {self.wishes.dedup_key!r} already: returned"

    def intend(self) -> Intent:
        """Return what ``submit`` would do now; writes nothing.

        Raises:
            RunConflict: the id belongs to another run, or its state does not allow it.
        """
        known = self.wishes.run_id
        existing = self.store.find_run(RunId(known)) if known is not None else None
        if existing is not None:
            return self._existing(existing)
        reuse = self._reused()
        if reuse is not None:
            self._apply_on_change(reuse)
        record = self._record(reuse)
        return Intent(
            action=Action.MAKE, record=record, plan=self.plan, note=self._note_reuse(record)
        )

    def _apply_on_change(self, reuse: RunId) -> None:
        """Let ``on_change=`` hold for what is taken over from another run too."""
        donor = self.store.get_run(reuse)
        if self.wishes.on_change == "fail":
            refuse_changes(self.store, donor, self.plan, self.inputs)
        elif self.wishes.on_change == "reuse":
            self.plan = with_takeover(self.plan, Takeover(keep_changed=True), {})
            self.body = plan_record(self.plan, self.inputs)

    def _record(self, reuse: RunId | None) -> RunRecord:
        wishes, now = self.wishes, self.runtime.clock.now()
        return RunRecord(
            id=RunId(wishes.run_id or make_run_id(self.plan.workflow, now)),
            workflow=self.plan.workflow,
            status=RunStatus.QUEUED,
            plan_digest=self.body.digest,
            origin=self.plan.origin,
            inputs=self.inputs,
            inputs_digest=inputs_digest(self.inputs),
            policy=msgspec.structs.replace(wishes.policy(), trace=current_trace()),
            tags=dict(wishes.tags),
            metadata=dict(wishes.metadata),
            forked_from=reuse,
            reuse_from=reuse,
            queue=wishes.queue.name if isinstance(wishes.queue, Queue) else wishes.queue,
            priority=wishes.priority,
            not_before=instant(wishes.delay, now, "delay"),
            limit_key=wishes.limit_key or "",
            dedup_key=wishes.dedup_key,
            deadline=instant(wishes.deadline, now, "deadline"),
            created_at=now,
        )

    def _reused(self) -> RunId | None:
        name = self.wishes.reuse
        if name in (None, "off"):
            return None
        if name == "last":
            return self._most_alike(self.wishes.find_last(self.plan.workflow))
        if self.store.find_run(RunId(name)) is None:
            known = [each.id for each in self.store.list_runs(RunQuery(limit=200))]
            near = did_you_mean(name, known)
            raise RunNotFound(name, self.store.url, f"reuse= takes a run id or 'last'{near}")
        return RunId(name)

    def _most_alike(self, candidates: Sequence[RunId]) -> RunId | None:
        """Return the run that has most to give; of equal ones the first.

        A run that failed early has less than the success before it, once its edit is taken back.
        """
        if len(candidates) < 2:
            return candidates[0] if candidates else None

        def held(run_id: RunId) -> int:
            donor = self.store.get_run(run_id)
            return _held(self._match_donor(donor, self._plan_of(donor)))

        return max(candidates, key=held)

    def _match_donor(self, donor: RunRecord, old: Plan) -> Matching:
        return match_donor(
            self.plan,
            self._prints(),
            self.store.list_steps(donor.id),
            functions=functions_by_code(old),
            inputs=self.inputs,
        )

    def _note_reuse(self, record: RunRecord) -> str:
        donor = self.store.find_run(record.reuse_from) if record.reuse_from is not None else None
        if donor is None:
            return ""
        old = self._plan_of(donor)
        told = summary(self._match_donor(donor, old), self.plan, old)
        return f"run {record.id} takes over from {donor.id}: {told}"

    def _match(self, old: Plan, rows: list[StepRecord], *, keep_changed: bool = False) -> Matching:
        return match_rows(
            self.plan,
            self._prints(),
            rows,
            keep_changed=keep_changed,
            edits=Edits(functions_by_code(old)),
            inputs=self.inputs,
        )

    def _plan_of(self, record: RunRecord) -> Plan:
        # A plan's digest is that of all its bytes: of 100,000 steps they take a while to read.
        is_this = record.plan_digest == self.body.digest
        return self.plan if is_this else recorded_plan(self.store, record)

    def _prints(self) -> dict[str, str]:
        """Return the fingerprints of today's plan, computed once."""
        if self._known_prints is None or self._known_prints[0] is not self.plan:
            self._known_prints = (self.plan, fingerprints(self.plan, self.inputs))
        return self._known_prints[1]

    # --- an id that exists --------------------------------------------------------------------
    def _existing(self, record: RunRecord) -> Intent:
        if self.wishes.if_exists == "fail":
            raise RunConflict(
                f"run {record.id!r} exists ({record.status}) and if_exists='fail': give a new "
                f"id, or look at it with `{self._shell.command('show', record.id)}`"
            )
        self._stay_a_fork(self._plan_of(record))
        equal = self._is_equal(record)
        match record.status:
            case RunStatus.SUCCEEDED:
                return self._recorded(record, equal)
            case RunStatus.FAILED:
                return self._reopened(record, equal)
            case RunStatus.PAUSED | RunStatus.CANCELLED:
                raise RunConflict(
                    f"run {record.id!r} is {record.status}: go on with it by "
                    f"`{self._shell.resume(record.id)}`, run it again from the start under an id "
                    f"of its own by `{self._shell.command('rerun', record.id)}`, or give a new "
                    "id"
                )
        if is_driven(record) or record.status is not RunStatus.RUNNING:
            return self._attached(record, equal)
        return self._reopened(record, equal)

    def _stay_a_fork(self, recorded: Plan) -> None:
        """Let what a fork was asked for, once, hold for as long as the run is there."""
        if recorded.takeover is not None:
            self.plan = carried_over(self.plan, recorded)
            self.body = plan_record(self.plan, self.inputs)

    def _keep(self, record: RunRecord, note: str) -> Intent:
        plan = self._plan_of(record)
        return Intent(action=Action.KEEP, record=record, plan=plan, note=note)

    @property
    def _shell(self) -> Shell:
        return shell_of(self.settings)

    def _is_equal(self, record: RunRecord) -> bool:
        old = self._plan_of(record)
        return record.inputs_digest == inputs_digest(self.inputs) and (
            old is self.plan
            or (
                fingerprints(old, record.inputs) == self._prints()
                and old.output == self.plan.output
            )
        )

    def _recorded(self, record: RunRecord, equal: bool) -> Intent:
        if not equal:
            raise RunConflict(
                f"run {record.id!r} has succeeded with other code or inputs "
                f"({self._difference(record)}). To take over what has not changed into a new run "
                f"pass reuse={record.id!r} (--reuse {shlex.quote(record.id)}) without its id, or "
                "give a new id"
            )
        if not values_are_there(self.runtime, record):
            return self._reopened(record, equal)
        when = record.finished_at
        return self._keep(
            record, f"{record.id} finished {when:%Y-%m-%d %H:%M} UTC: recorded result"
        )

    def _difference(self, record: RunRecord) -> str:
        if record.inputs_digest != inputs_digest(self.inputs):
            names = [
                name
                for name in {**record.inputs, **self.inputs}
                if name not in record.inputs
                or name not in self.inputs
                or record.inputs[name].value_digest != self.inputs[name].value_digest
            ]
            return f"inputs {', '.join(names)}"
        old = self._plan_of(record)
        told = summary(self._match(old, self.store.list_steps(record.id)), self.plan, old)
        gone = _only_in(old, self.plan)
        if gone:
            return f"{told}; {', '.join(gone[:_TOLD])} {'is' if len(gone) == 1 else 'are'} gone"
        return told if old.output == self.plan.output else f"{told}; its result is another value"

    def _attached(self, record: RunRecord, equal: bool) -> Intent:
        if not equal:
            raise RunConflict(
                f"run {record.id!r} is {record.status} with other code or inputs "
                f"({self._difference(record)}): wait for it, stop it with "
                f"`{self._shell.command('cancel', record.id)}`, or give a new id"
            )
        by = f" and driven by {driver_of(record)}" if is_driven(record) else ""
        return self._keep(record, f"{record.id} is {record.status}{by}: attached")

    def _reopened(self, record: RunRecord, equal: bool) -> Intent:
        rows = self.store.list_steps(record.id, current_only=False)
        old = self._plan_of(record)
        matching = self._match(old, rows, keep_changed=self.wishes.on_change == "reuse")
        if self.wishes.on_change == "fail":
            refuse_changes(self.store, record, self.plan, self.inputs)
        opened = reopened(record, self._other_body(record), self.wishes.policy())
        if not equal:
            opened = msgspec.structs.replace(
                opened, inputs=self.inputs, inputs_digest=inputs_digest(self.inputs)
            )
        note = f"{record.id} goes on: {summary(matching, self.plan, old)}"
        return Intent(action=Action.REOPEN, record=opened, plan=self.plan, note=note)

    def _other_body(self, record: RunRecord) -> PlanRecord | None:
        # Options such as memory= and timeout= are no part of what makes plans equal.
        return None if record.plan_digest == self.body.digest else self.body

    def _reopen(self, intent: Intent) -> RunRecord:
        record = self.store.get_run(intent.record.id)
        bury_owner(self.store, record)
        is_same = intent.record.inputs_digest == record.inputs_digest
        return self.store.reset_run(
            record.id,
            plan=self._other_body(record),
            inputs=None if is_same else intent.record.inputs,
            inputs_digest=intent.record.inputs_digest,
            policy=intent.record.policy,
            reason="run",
        )


def refuse_unenforceable(
    plan: Plan, settings: Settings, executor: str | None, *, is_for_others: bool = False
) -> None:
    """Refuse, before anything exists, a plan that could never run here.

    Args:
        plan: what is to run.
        settings: say what there is here.
        executor: that of the run, if it names one.
        is_for_others: who drives it need not be here: one that has more may come.

    Raises:
        DefinitionError: a step asks for more than there is, or for what the executor cannot do.
    """
    executor = executor or settings.executor
    if not is_for_others:
        require_executor(executor)
    # What a Ray cluster has, whoever drives the run asks it.
    is_elsewhere = is_for_others or executor == "ray"
    offer = None if is_elsewhere else capacity_of(settings).offer
    for step, options in options_in(plan):
        asked = request_of(options)
        name = None if offer is None else lacking(asked, offer)
        if offer is not None and name is not None:
            missing = shortage(asked, offer)
            raise DefinitionError(
                f"{placed(step, plan.functions)} can never run here: {missing}. Ask for less, "
                f"start perdure where there is more{_or_say_so(name)}"
            )
        if executor == "inline" and options.timeout_s is not None and not options.allow_unenforced:
            raise DefinitionError(
                f"{placed(step, plan.functions)} has a timeout, which executor='inline' cannot "
                "enforce. Use executor='processes', or say allow_unenforced=True in the task's "
                "options"
            )


def _or_say_so(resource: str) -> str:
    """Return how to say that there is more of a resource than perdure sees by itself."""
    if resource == "cpus":
        return ", or let steps have more with `workers` (--workers, PERDURE_WORKERS)"
    if resource in ("gpus", "memory"):
        return f", or say that there is more with `{resource}` (PERDURE_{resource.upper()})"
    if "=" in resource:
        return f", or give this one the label: PERDURE_LABELS={resource}, a setting too"
    return f", or say how much there is: PERDURE_RESOURCES={resource}=AMOUNT, a setting too"


def store_inputs(inputs: Mapping[str, Any], values: Values) -> dict[str, StoredValue]:
    """Return the inputs of a run as they are stored, by parameter name."""
    return {name: values.store(value) for name, value in inputs.items()}


def summary(matching: Matching, plan: Plan, old: Plan) -> str:
    """Say in one line what is reused and why the rest runs.

    Args:
        matching: of the rows that there are with the plan.
        plan: what is to run.
        old: what ran.
    """
    line = f"reused {_held(matching)} of {len(plan.steps)}"
    given = plan.takeover.given if plan.takeover is not None else {}
    changed = {s: r for s, r in matching.reasons.items() if "upstream" not in r and s not in given}
    held = {*matching.kept, *matching.adopted, *matching.reasons, *given}
    new = [step for step in _only_in(plan, old) if step not in held]
    told = [f"{step} is given" for step in given]
    told += [f"{step} runs: {reason}" for step, reason in list(changed.items())[:_TOLD]]
    told += [f"{step} is new" for step in new[:_TOLD]]
    return "; ".join([line, *told])


def _only_in(plan: Plan, other: Plan) -> list[str]:
    """Return the ids of the steps of a plan that another one has not."""
    theirs = {step.id for step in other.steps}
    return [step.id for step in plan.steps if step.id not in theirs]


def _held(matching: Matching) -> int:
    """Return how many steps need not run."""
    return len(matching.kept) + len(matching.adopted)


def bury_owner(store: RunStore, record: RunRecord) -> None:
    """End what is left of an owner that was seen dead here: a store waits for its lease.

    Its workers go first, as the row that names them goes with it.
    """
    if record.owner is not None and is_seen_dead(record.owner):
        kill_processes(store.workers_of(record.owner.token))
        store.unregister(record.owner)


def values_are_there(runtime: Runtime, record: RunRecord) -> bool:
    """Say whether every value that the run has stored can be read, verified."""
    for row in runtime.store.list_steps(record.id):
        if row.value is not None and row.value.place is Place.BLOB:
            try:
                runtime.blobs.open(row.value.integrity, row.value.size_bytes)
            except ValueDamaged:
                return False
    return True


def instant(value: Any, now: datetime, option: str) -> datetime | None:
    """Return the time that an option names: an aware datetime, or a duration from now."""
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise DefinitionError(f"{option}= needs a time zone: datetime.now(UTC), not naive")
        if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
            raise DefinitionError(
                f"{option}={value.isoformat()} is too far away: write a year from {_FIRST_YEAR} "
                f"to {_LAST_YEAR}"
            )
        return value
    return now + timedelta(seconds=parse_duration(value, what=option))
