"""What really happened: a file that perdure does not know, and the comparison with what it says.

Steps append a line when they begin and when they end, each synced to the disk before they go on.
Between a death and the resume the test itself notes what was committed by then. ``check`` compares
this with the rows, the blobs and the processes of the store afterwards; the names I1, I2, ... are
those of RELIABILITY.md.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from perdure.plan import FromStep, decode_plan, references
from perdure.worker.context import current
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import Place, RunId, StepRecord

if TYPE_CHECKING:  # Every worker that runs our steps imports this module: it is killed young.
    from perdure.client import Perdure

VARIABLE = "PERDURE_TEST_LEDGER"
GONE_WITHIN_S = 6.0
PATIENCE_S = float(os.environ.get("PERDURE_TEST_PATIENCE_S", "90"))
"""How long a program of the tests may take; all that is waited for may take in proportion."""
_TERMINAL_EVENTS = ("succeeded", "failed", "cancelled")

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened, to one attempt of one generation of one step."""

    event: str  # began, ended, raised; committed: noted by the test
    run: str
    step: str
    generation: int
    attempt: int
    nonce: str
    pid: int
    at: float
    note: str = ""

    @property
    def key(self) -> Key:
        return (self.run, self.step, self.generation)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The file of what happened."""

    path: Path

    def append(self, line: Line) -> None:
        """Write a line through to the disk: no kill after it takes it back."""
        self._append(line, sync=True)

    def _append(self, line: Line, *, sync: bool) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(fd, json.dumps(asdict(line)).encode() + b"\n")
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def lines(self, run: str | None = None) -> list[Line]:
        """Return what happened, to one run or to all, in order."""
        if not self.path.exists():
            return []
        lines = [Line(**json.loads(text)) for text in self.path.read_text().splitlines()]
        return [line for line in lines if run is None or line.run == run]

    def count(self, step: str, event: str = "began") -> int:
        """Return how often a step began (or ended), in all runs."""
        return sum(line.step == step and line.event == event for line in self.lines())

    def began(self, run: str | None = None) -> list[str]:
        """Return the steps that began, in order, as often as they did."""
        return [line.step for line in self.lines(run) if line.event == "began"]

    def note_committed(self, client: Perdure, run_id: str) -> int:
        """Note what is committed while nobody drives: none of it may begin again. Return it."""
        rows = client.runtime.store.list_steps(RunId(run_id), current_only=False)
        done = [row for row in rows if row.status is StepStatus.SUCCEEDED]
        for row in done:
            line = Line(
                event="committed",
                run=run_id,
                step=row.step_id,
                generation=row.generation,
                attempt=row.attempt,
                nonce="",
                pid=0,
                at=time.monotonic(),
            )
            self._append(line, sync=False)
        return len(done)


@contextmanager
def executing(note: str = "") -> Iterator[None]:
    """Note that this step begins and how it ends; in a process without a ledger, do nothing.

    Args:
        note: what it was given, in a word that the test knows.
    """
    path = os.environ.get(VARIABLE)
    if path is None:
        yield
        return
    ledger, nonce = Ledger(Path(path)), secrets.token_hex(4)
    ledger.append(_line("began", nonce, note))
    try:
        yield
    except BaseException:
        ledger.append(_line("raised", nonce, note))
        raise
    ledger.append(_line("ended", nonce, note))


def _line(event: str, nonce: str, note: str) -> Line:
    here = current()
    return Line(
        event=event,
        run=here.run_id,
        step=here.step_id,
        generation=here.generation,
        attempt=here.attempt,
        nonce=nonce,
        pid=os.getpid(),
        at=time.monotonic(),
        note=note,
    )


# --- the undisturbed run ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a run comes to if nothing happens to it."""

    result: Any
    digests: Mapping[str, str] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()

    @classmethod
    def of(cls, client: Perdure, run_id: str) -> Undisturbed:
        """Return what a finished run has come to."""
        run = client.get_run(run_id)
        rows = client.runtime.store.list_steps(RunId(run_id))
        digests = {row.step_id: row.value.value_digest for row in rows if row.value is not None}
        failed = frozenset(row.step_id for row in rows if row.status is StepStatus.FAILED)
        skipped = frozenset(row.step_id for row in rows if row.status is StepStatus.SKIPPED)
        ended = frozenset(row.step_id for row in rows if row.status is StepStatus.CANCELLED)
        return cls(run.result(), digests, failed, skipped, ended)


# --- what must hold -----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How much ran, and how often in vain."""

    steps: int
    executions: int
    cut_off: int

    def __str__(self) -> str:
        return f"{self.steps} steps, {self.executions} executions, {self.cut_off} cut off"


def check(
    ledger: Ledger,
    client: Perdure,
    run_id: str,
    undisturbed: Undisturbed,
    *,
    durability: str = "step",
) -> Figures:
    """Compare ledger, rows, blobs and processes after a run that has succeeded in the end.

    Raises AssertionError that names the invariant and the step.
    """
    lines = ledger.lines(run_id)
    rows = client.runtime.store.list_steps(RunId(run_id), current_only=False)
    check_end(client, run_id, undisturbed)
    check_rows(client, run_id, rows, undisturbed)
    check_executions(lines, rows, durability)
    check_order(client, run_id, lines, rows, durability)
    check_blobs(client, run_id, rows)
    begun = [line.nonce for line in lines if line.event == "began"]
    finished = {line.nonce for line in lines if line.event in ("ended", "raised")}
    return Figures(
        steps=len(undisturbed.digests),
        executions=len(begun),
        cut_off=len(set(begun) - finished),
    )


def check_end(client: Perdure, run_id: str, undisturbed: Undisturbed) -> None:
    """I1, I2, I14: it is there, it ended once since it was last opened, with the same result."""
    from perdure.results import read_result

    store = client.runtime.store
    record = store.find_run(RunId(run_id))
    assert record is not None, f"I1: the run {run_id} is lost"
    assert record.status is RunStatus.SUCCEEDED, f"I14: {run_id} is {record.status}: {record.error}"
    kinds = [event.kind for event in store.list_events(record.id)]
    last_open = max((at for at, kind in enumerate(kinds) if kind == "reset"), default=-1)
    ends = [kind for kind in kinds[last_open + 1 :] if kind in _TERMINAL_EVENTS]
    assert ends == ["succeeded"], f"I2: {run_id} ended as {ends}"
    result = read_result(client.runtime, record)
    assert result == undisturbed.result, f"I14: {run_id} gives {result!r:.200}"


def check_rows(
    client: Perdure, run_id: str, rows: Sequence[StepRecord], undisturbed: Undisturbed
) -> None:
    """I4, I14: one row a generation, one current row a step, with the undisturbed value."""
    keys = [(row.step_id, row.generation) for row in rows]
    assert len(keys) == len(set(keys)), f"I4: {run_id} has a generation twice"
    now = {row.step_id: row for row in rows if row.current}
    assert len(now) == sum(row.current for row in rows), f"I4: {run_id} has two current rows"
    failed = {step_id for step_id, row in now.items() if row.status is StepStatus.FAILED}
    assert failed == undisturbed.failed, f"I14: failed {failed}, not {undisturbed.failed}"
    skipped = {step_id for step_id, row in now.items() if row.status is StepStatus.SKIPPED}
    assert skipped == undisturbed.skipped, f"I14: skipped {skipped}, not {undisturbed.skipped}"
    cancelled = {step_id for step_id, row in now.items() if row.status is StepStatus.CANCELLED}
    assert cancelled == undisturbed.cancelled, f"I14: cancelled {cancelled}"
    wanted = undisturbed.digests.keys() | failed | skipped | cancelled
    assert now.keys() == wanted, f"I1: steps are missing, or too many: {now.keys() ^ wanted}"
    for step_id in undisturbed.digests:
        row = now[step_id]
        assert row.status is StepStatus.SUCCEEDED, f"I14: {step_id} is {row.status}"
        assert row.value is not None, f"I14: {step_id} has no value"
        same = row.value.value_digest == undisturbed.digests[step_id]
        assert same, f"I14: {step_id} has another value than the undisturbed run"


def check_executions(
    lines: Sequence[Line], rows: Sequence[StepRecord], durability: str = "step"
) -> None:
    """I3: nothing begins again that was noted as committed, or that its row says ended earlier."""
    committed: set[Key] = set()
    for line in lines:
        if line.event == "committed":
            committed.add(line.key)
        elif line.event == "began":
            assert line.key not in committed, f"I3: {line.key} began after its commit"
    ended_by = {(r.run_id, r.step_id, r.generation): r.attempt for r in rows if r.attempt}
    for line in lines:
        last = ended_by.get(line.key)
        if line.event == "began" and last is not None:
            assert line.attempt <= last, f"I3: {line} began, attempt {last} was committed"
    if durability == "step":
        # A start is durable before the worker is told, so no number is given twice.
        tries = [(line.key, line.attempt) for line in lines if line.event == "began"]
        assert len(tries) == len(set(tries)), "I3: one attempt began twice"


def check_order(
    client: Perdure,
    run_id: str,
    lines: Sequence[Line],
    rows: Sequence[StepRecord],
    durability: str = "step",
) -> None:
    """I6: a step begins after its inputs have ended; I3: what was consumed never begins again."""
    inputs = inputs_of_steps(client, run_id)
    adopted = {row.step_id for row in rows if row.attempt == 0}
    last_ended: dict[str, int] = {}
    consumed: set[Key] = set()
    for line in lines:
        if line.event in ("ended", "raised"):
            last_ended[line.step] = line.generation
        elif line.event == "began":
            assert line.key not in consumed, f"I3: {line.key} began after it was consumed"
            for dep in inputs.get(line.step, set()) - adopted:
                assert dep in last_ended, f"I6: {line.step} began before {dep} ended"
                if durability == "step":
                    consumed.add((line.run, dep, last_ended[dep]))


def inputs_of_steps(client: Perdure, run_id: str) -> dict[str, set[str]]:
    """Return which of the test's own steps each step needs, those of graphs that grew included.

    Steps that perdure itself put in between note nothing: what they need is needed instead.
    """
    expansions = client.runtime.store.list_expansions(RunId(run_id))
    grown = {each.step_id: decode_plan(each.plan.body) for each in expansions}
    plans = [client.get_run(run_id).plan, *(decode_plan(each.plan.body) for each in expansions)]
    direct: dict[str, set[str]] = {}
    silent: set[str] = set()
    for plan in plans:
        for step in plan.steps:
            direct[step.id] = {r.step for r in references(step) if isinstance(r, FromStep)}
            if plan.functions[step.function].module.startswith("perdure."):
                silent.add(step.id)
    for step_id, plan in grown.items():
        if step_id in silent:
            assert isinstance(plan.output, FromStep)
            direct[step_id].add(plan.output.step)

    def noted(step_id: str) -> set[str]:
        if step_id not in silent:
            return {step_id}
        return {each for dep in direct[step_id] for each in noted(dep)}

    return {
        step_id: {each for dep in deps for each in noted(dep)} for step_id, deps in direct.items()
    }


def check_blobs(client: Perdure, run_id: str, rows: Sequence[StepRecord]) -> None:
    """I5, I13: every row's blob is there and verified; no temporary file is left by a sweep."""
    blobs = client.runtime.blobs
    record = client.runtime.store.get_run(RunId(run_id))
    plan = client.get_run(run_id).plan
    values = [row.value for row in rows if row.value is not None and row.current]
    for value in (*values, *plan.constants, *record.inputs.values()):
        if value.place is Place.BLOB:
            blobs.open(value.integrity, value.size_bytes).release()
    blobs.sweep_temporaries(older_than_s=-1)
    folder = Path(client.settings.blobs)
    left = list(folder.rglob("*.tmp"))
    assert not left, f"I13: temporary files are left: {left}"


# --- processes ----------------------------------------------------------------------------------
def processes_of(ledger: Ledger) -> list[psutil.Process]:
    """Return the living processes that were started with this ledger, ours left out."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get(VARIABLE) == str(ledger.path)
            if mine and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def living_below(pid: int) -> list[psutil.Process]:
    """Return the living processes that a process has started, and those that these have."""
    return [each for each in psutil.Process(pid).children(recursive=True) if _lives(each)]


def _lives(process: psutil.Process) -> bool:
    """Say whether a process runs, or would if it were not stopped."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False  # it went meanwhile


def check_nothing_is_left(ledger: Ledger, within_s: float = GONE_WITHIN_S) -> None:
    """I16: no process of the run lives, within the grace of its keeper."""
    wait_until(lambda: not processes_of(ledger), within_s, "I16: processes are left")


def wait_until(condition: Any, within_s: float, what: str) -> None:
    """Return when ``condition()`` holds. Real processes need real time; raises AssertionError."""
    end = time.monotonic() + within_s * PATIENCE_S / 90
    while not condition():
        assert time.monotonic() < end, what
        threading.Event().wait(0.02)
