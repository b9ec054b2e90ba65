"""Worker processes under real signals: time-outs, crashes, orphans, and the coordinator's death."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from perdure.bundle import make_bundle
from perdure.calls import StepCall
from perdure.executors import processes
from perdure.executors.contract import Bench
from perdure.executors.process_tree import is_alive, kill_processes, process_id
from perdure.executors.processes import ProcessExecutor
from perdure.executors.protocol import Capacity
from perdure.worker import tickets
from perdure_storage.records import Cause, ProcessId

# Workers import the steps by name, so their folder has to be on the path that they are given.
sys.path.append(str(Path(__file__).parent))
import process_steps as steps

GRACE_S = 0.5
SLACK_S = 1.0


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(Capacity(cpus=2, slots=4), timeout_grace_s=GRACE_S)
    yield executor
    executor.close()


@pytest.fixture
def bench(executor: ProcessExecutor, tmp_path: Path) -> Bench:
    return Bench(executor, tmp_path / "blobs")


def prepared(bench: Bench, function: Callable[..., Any], *args: Any, **options: Any) -> StepCall:
    constants = [bench.constant(arg) for arg in args]
    name = bench.function(function)
    bench.open()
    return bench.call(name, *constants, **options)


def wait_until(condition: Callable[[], Any], *, poll: Callable[[], object] = lambda: None) -> Any:
    """Return what ``condition`` gives once it is true; real processes need real time."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        poll()
        found = condition()
        if found:
            return found
        os.sched_yield()
    raise AssertionError("it did not come true")


def pids_in(folder: Path) -> list[int]:
    """Return the pids that steps have written down, when the file is complete."""
    path = folder / "pids"
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text.split()] if text.endswith("\n\n") else []


def are_gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and _runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- ends by force ------------------------------------------------------------------------------
@pytest.mark.parametrize("function", [steps.compute_natively, steps.ignore_sigterm])
def test_timeout_ends_a_step_that_does_not_listen(
    bench: Bench, function: Callable[..., Any]
) -> None:
    call = prepared(bench, function, timeout_s=0.3)

    since = time.monotonic()
    [outcome] = bench.run(call)

    assert outcome.cause is Cause.TIMEOUT
    assert outcome.error is not None
    assert outcome.error.type == "perdure.errors.StepTimeout"
    assert time.monotonic() - since < 0.3 + GRACE_S + SLACK_S + 1


def test_timeout_interrupts_a_python_step_so_that_its_finally_runs(bench: Bench) -> None:
    call = prepared(bench, steps.sleep_with_finally, timeout_s=0.3)

    [outcome] = bench.run(call)

    assert outcome.cause is Cause.TIMEOUT
    assert bench.output(call.id) == "cleaned up\n"


def test_timeout_lets_a_step_that_watches_should_stop_end_by_itself(
    bench: Bench, tmp_path: Path
) -> None:
    call = prepared(bench, steps.stop_when_asked, str(tmp_path), timeout_s=0.3)

    [outcome] = bench.run(call)

    assert bench.value(outcome) == "saved"


@pytest.mark.parametrize(("admitted", "expected"), [(KeyError, False), (Exception, True)])
def test_timeout_is_retryable_when_retry_on_admits_it(
    bench: Bench, admitted: type, expected: bool
) -> None:
    index = bench.constant(admitted).index
    call = prepared(bench, steps.compute_natively, timeout_s=0.2, retry_on=index)

    [outcome] = bench.run(call)

    assert outcome.cause is Cause.TIMEOUT
    assert outcome.retryable is expected


def test_kill_ends_a_step_with_all_that_it_has_started(bench: Bench, tmp_path: Path) -> None:
    call = prepared(bench, steps.start_descendants, str(tmp_path))
    bench.executor.submit([call])
    pids = wait_until(lambda: pids_in(tmp_path), poll=lambda: bench.executor.poll(0.01))

    bench.executor.kill([call.id], grace_s=GRACE_S, cause=Cause.CANCELLED)
    since = time.monotonic()
    [outcome] = bench.outcomes(call)

    assert outcome.cause is Cause.CANCELLED
    assert time.monotonic() - since < GRACE_S + SLACK_S
    assert len(pids) == 3
    assert are_gone(pids)


def test_kill_of_one_step_leaves_its_neighbour_alone(bench: Bench, tmp_path: Path) -> None:
    folder = bench.constant(str(tmp_path))
    name, other = bench.function(steps.start_descendants), bench.function(steps.stop_when_asked)
    bench.open()
    busy, neighbour = bench.call(name, folder), bench.call(other, folder)
    bench.executor.submit([busy, neighbour])
    wait_until(
        lambda: pids_in(tmp_path) and (tmp_path / "begun").exists(),
        poll=lambda: bench.executor.poll(0.01),
    )

    bench.executor.kill([busy.id], grace_s=0, cause=Cause.CANCELLED)
    [ended] = bench.outcomes(busy)

    assert ended.cause is Cause.CANCELLED
    assert len(bench.executor.workers()) == 1
    assert bench.executor.poll(0) == []


def test_outcome_of_a_call_that_ends_by_itself_after_the_kill_is_its_own(
    bench: Bench, tmp_path: Path
) -> None:
    call = prepared(bench, steps.stop_when_asked, str(tmp_path))
    bench.executor.submit([call])
    wait_until((tmp_path / "begun").exists, poll=lambda: bench.executor.poll(0.01))

    bench.executor.kill([call.id], grace_s=5, cause=Cause.CANCELLED)
    [outcome] = bench.outcomes(call)

    assert bench.value(outcome) == "saved"


# --- deaths told apart --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "text"),
    [
        (steps.crash, "segmentation fault"),
        (steps.exit_at_once, "exited with status 3: something in it called os._exit()"),
        (steps.kill_itself, "killed by SIGKILL"),
        (steps.abort, "aborted"),
    ],
)
def test_death_of_a_worker_is_told_by_its_cause(
    bench: Bench, function: Callable[..., Any], text: str
) -> None:
    [outcome] = bench.run(prepared(bench, function))

    assert outcome.cause is Cause.WORKER_LOST
    assert outcome.error is not None
    assert text in outcome.error.message


@pytest.mark.parametrize("function", [steps.terminate_itself, steps.terminate_itself_later])
def test_sigterm_that_nobody_asked_for_counts_as_a_lost_worker(
    bench: Bench, function: Callable[..., Any]
) -> None:
    [outcome] = bench.run(prepared(bench, function))

    assert outcome.cause is Cause.WORKER_LOST
    assert outcome.error is not None
    assert outcome.error.type == "perdure.errors.WorkerLost"
    assert "SIGTERM" in outcome.error.message


def test_sigterm_to_an_idle_worker_costs_no_call(bench: Bench) -> None:
    name = bench.function(steps.own_pid)
    bench.open()
    [first] = bench.run(bench.call(name))
    gone = bench.executor.workers()[0]

    os.kill(bench.value(first), signal.SIGTERM)
    wait_until(lambda: not bench.executor.workers(), poll=lambda: bench.executor.poll(0.01))
    [second] = bench.run(bench.call(name))

    assert bench.value(second) != bench.value(first)
    assert not is_alive(gone)


@pytest.mark.parametrize("function", [steps.interrupt_itself, steps.interrupt_itself_later])
def test_sigint_leaves_a_worker_alone(bench: Bench, function: Callable[..., Any]) -> None:
    [outcome] = bench.run(prepared(bench, function))

    assert bench.value(outcome) == 7


def test_death_of_a_worker_leaves_its_output_and_a_traceback(bench: Bench) -> None:
    call = prepared(bench, steps.crash)

    bench.run(call)

    output = bench.output(call.id)
    assert output.startswith("before the crash\n")
    assert "process_steps.py" in output


def test_death_of_a_worker_charges_its_own_call_only(bench: Bench) -> None:
    name, other = bench.function(steps.kill_itself), bench.function(steps.nap)
    bench.open()

    outcomes = bench.run(bench.call(name), bench.call(other), bench.call(other))

    assert [o.cause for o in outcomes] == [Cause.WORKER_LOST, Cause.SUCCEEDED, Cause.SUCCEEDED]


def test_death_of_a_worker_ends_the_orphans_it_leaves(bench: Bench, tmp_path: Path) -> None:
    call = prepared(bench, steps.start_descendants_and_die, str(tmp_path))

    [outcome] = bench.run(call)

    assert outcome.cause is Cause.WORKER_LOST
    assert len(pids_in(tmp_path)) == 3
    assert are_gone(pids_in(tmp_path))


def test_death_of_the_keeper_ends_the_worker_and_is_told(bench: Bench, tmp_path: Path) -> None:
    call = prepared(bench, steps.start_descendants, str(tmp_path))
    bench.executor.submit([call])
    pids = wait_until(lambda: pids_in(tmp_path), poll=lambda: bench.executor.poll(0.01))

    os.kill(bench.executor.workers()[0].pid, signal.SIGKILL)
    [outcome] = bench.outcomes(call)

    assert outcome.cause is Cause.WORKER_LOST
    # The one that has left the session is out of reach without the keeper that adopts orphans.
    assert are_gone(pids[:2])
    for pid in pids[2:]:
        os.kill(pid, signal.SIGKILL)


def test_memory_error_of_python_is_the_users_error(bench: Bench) -> None:
    [outcome] = bench.run(prepared(bench, steps.allocate_beyond_its_limit))

    assert outcome.cause is Cause.USER_ERROR
    assert outcome.error is not None
    assert outcome.error.type == "builtins.MemoryError"


def test_fork_bomb_is_ended_with_its_step(bench: Bench, tmp_path: Path) -> None:
    call = prepared(bench, steps.fork_a_lot, str(tmp_path), timeout_s=1.0)

    [outcome] = bench.run(call)

    assert outcome.cause is Cause.TIMEOUT
    assert not _processes_that_mention(str(tmp_path))


EARLY_DEATH = """
import os, socket
from perdure.worker.keeper import STATUS, Keeper

ours, theirs = socket.socketpair()
worker = os.fork()
if worker == 0:
    os._exit(7)
os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
Keeper(os.getppid(), worker, theirs.fileno()).keep()
print(STATUS.unpack(ours.recv(64))[0])
"""


def test_worker_that_ends_before_its_keeper_listens_is_noticed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", EARLY_DEATH], capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout == "7\n"


def test_worker_that_cannot_start_is_told_and_does_not_go_on_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_CRASH_POINTS", "worker.start:1:kill")
    call = prepared(bench, steps.nap)

    [outcome] = bench.run(call)

    assert outcome.cause is Cause.WORKER_LOST
    assert outcome.error is not None
    assert "before it could begin" in outcome.error.message


@pytest.mark.parametrize(
    "point",
    ["before-user-code", "after-user-code", "after-encode", "before-outcome"],
)
def test_worker_killed_at_a_crash_point_is_told_as_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setenv("PERDURE_CRASH_POINTS", f"worker.{point}:1:kill")

    [outcome] = bench.run(prepared(bench, steps.nap))

    assert outcome.cause is Cause.WORKER_LOST


def test_worker_killed_after_its_outcome_keeps_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_CRASH_POINTS", "worker.after-outcome:1:kill")

    [outcome] = bench.run(prepared(bench, steps.nap))

    assert outcome.cause is Cause.SUCCEEDED


# --- workers ------------------------------------------------------------------------------------
def test_workers_are_warm_and_no_more_than_needed(bench: Bench) -> None:
    name = bench.function(steps.own_pid)
    bench.open()

    pids = {bench.value(bench.run(bench.call(name))[0]) for _ in range(5)}

    assert len(pids) == 1


def test_step_finds_its_worker_as_the_step_before_has_found_it(bench: Bench) -> None:
    look, mess = bench.function(steps.look_around), bench.function(steps.leave_a_mess)
    bench.open()

    [before], [between], [after] = (bench.run(bench.call(name)) for name in (look, mess, look))

    pid, found = bench.value(before)
    assert bench.value(between) == pid
    assert bench.value(after) == (pid, found)


def test_workers_run_calls_side_by_side(bench: Bench, tmp_path: Path) -> None:
    folder, name = bench.constant(str(tmp_path)), bench.function(steps.meet_another)
    bench.open()

    outcomes = bench.run(bench.call(name, folder), bench.call(name, folder))

    assert len({bench.value(outcome) for outcome in outcomes}) == 2


def test_workers_never_import_the_callers_main(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)

    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["main runs", "42"]


_OLD_CODE = "import sys\ndef say():\n    return 'old', sys._getframe().f_code.co_filename\n"
_NEW_CODE = "def say():\n    return 'something new', ''\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's, imported here as it is before it is edited."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "edited_later.py").write_text(_OLD_CODE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "edited_later", raising=False)
    return folder


def test_code_that_has_changed_is_run_as_it_was_recorded(bench: Bench, project: Path) -> None:
    say = importlib.import_module("edited_later").say
    name, bundle = bench.function(say), make_bundle(["edited_later"])
    bench.open(bundle)

    [before] = bench.run(bench.call(name))
    (project / "edited_later.py").write_text(_NEW_CODE)
    bench.run(bench.call(bench.function(steps.kill_itself)))  # so that the next import is fresh
    after = bench.run(*(bench.call(name) for _ in range(5)))

    # The module finds the files beside it for as long as it is the one that was recorded.
    assert bench.value(before) == ("old", str(project / "edited_later.py"))
    assert {bench.value(outcome)[0] for outcome in after} == {"old"}


def test_code_that_has_changed_is_refused_when_it_was_not_recorded(
    bench: Bench, project: Path
) -> None:
    say = importlib.import_module("edited_later").say
    name = bench.function(say)
    bench.open()
    (project / "edited_later.py").write_text(_NEW_CODE)

    [outcome] = bench.run(bench.call(name))

    assert outcome.cause is Cause.SETUP_ERROR
    assert outcome.error is not None
    assert outcome.error.type == "perdure.errors.CodeChanged"
    assert "edited_later:say" in outcome.error.message


def test_worker_reports_its_peak_memory_by_call(bench: Bench) -> None:
    large, small = bench.function(steps.touch_memory), bench.function(steps.nap)
    size = bench.constant(200 << 20)
    bench.open()

    [first] = bench.run(bench.call(large, size))
    [second] = bench.run(bench.call(small))

    assert first.peak_memory_bytes is not None
    assert second.peak_memory_bytes is not None
    assert first.peak_memory_bytes > 200 << 20
    assert second.peak_memory_bytes < first.peak_memory_bytes - (100 << 20)


def test_large_array_travels_by_blob(bench: Bench) -> None:
    numpy = pytest.importorskip("numpy")

    [outcome] = bench.run(prepared(bench, steps.make_array, 1_000_000))

    value = bench.value(outcome)
    assert value.dtype == numpy.float64
    assert value.sum() == 1_000_000


# --- output -------------------------------------------------------------------------------------
def test_output_is_readable_while_the_step_runs(bench: Bench) -> None:
    call = prepared(bench, steps.speak_and_wait)
    bench.executor.submit([call])

    def poll() -> None:
        assert bench.executor.poll(0.05) == []

    assert wait_until(lambda: bench.output(call.id), poll=poll) == "python\nchild\n"


def test_output_of_coroutines_is_readable_while_they_run(bench: Bench) -> None:
    call = prepared(bench, steps.speak_and_wait_later)
    bench.executor.submit([call])

    def poll() -> None:
        assert bench.executor.poll(0.05) == []

    assert wait_until(lambda: bench.output(call.id), poll=poll) == "coroutine\n"


def test_output_of_c_libraries_is_kept_with_the_call_that_made_it(bench: Bench) -> None:
    name = bench.function(steps.speak_in_c)
    bench.open()

    calls = [bench.call(name) for _ in range(2)]
    bench.run(calls[0])
    bench.run(calls[1])

    assert [bench.output(call.id) for call in calls] == ["from C\n", "from C\n"]


@pytest.mark.parametrize("how", ["close", "close the number", "redirect", "replace"])
def test_output_survives_a_step_that_misuses_the_streams(bench: Bench, how: str) -> None:
    bad, good = bench.function(steps.misuse_the_streams), bench.function(steps.speak)
    text = bench.constant(how)
    bench.open()
    first, second = bench.call(bad, text), bench.call(good)

    bench.run(first)
    bench.run(second)

    assert bench.output(first.id) == "before\n"
    assert bench.output(second.id) == "as usual\n"


def test_programs_that_steps_start_inherit_none_of_our_descriptors(bench: Bench) -> None:
    [outcome] = bench.run(prepared(bench, steps.number_of_inherited_descriptors))

    assert bench.value(outcome) == 0


# --- coroutines ---------------------------------------------------------------------------------
def test_two_hundred_coroutines_share_one_worker(bench: Bench) -> None:
    name = bench.function(steps.nap_later)
    bench.open()

    outcomes = bench.run(*(bench.call(name) for _ in range(200)))

    assert len({bench.value(outcome) for outcome in outcomes}) == 1


def test_timeout_of_a_coroutine_cancels_it_and_nothing_else(bench: Bench) -> None:
    slow, quick = bench.function(steps.wait_for_ever), bench.function(steps.nap_later)
    bench.open()

    outcomes = bench.run(bench.call(slow, timeout_s=0.2), bench.call(quick))
    [after] = bench.run(bench.call(quick))

    assert outcomes[0].cause is Cause.TIMEOUT
    assert bench.value(outcomes[1]) == bench.value(after)


def test_timeout_of_a_coroutine_that_blocks_abandons_its_neighbours(bench: Bench) -> None:
    blocking, waiting = bench.function(steps.block_the_loop), bench.function(steps.wait_for_ever)
    bench.open()

    neighbour, blocked = bench.call(waiting), bench.call(blocking, timeout_s=0.2)
    outcomes = bench.run(neighbour, blocked)

    assert [outcome.cause for outcome in outcomes] == [Cause.ABANDONED, Cause.TIMEOUT]


# --- ends of executors --------------------------------------------------------------------------
def test_close_leaves_no_process_and_no_descriptor(tmp_path: Path) -> None:
    before, others = os.listdir("/proc/self/fd"), psutil.Process().children(recursive=True)
    executor = ProcessExecutor(Capacity(cpus=2, slots=4))
    bench = Bench(executor, tmp_path / "blobs")
    descendants, nap = bench.function(steps.start_descendants), bench.function(steps.nap_later)
    folder = bench.constant(str(tmp_path))
    bench.open()
    bench.run(bench.call(nap))
    executor.submit([bench.call(descendants, folder)])
    pids = wait_until(lambda: pids_in(tmp_path), poll=lambda: executor.poll(0.01))

    since = time.monotonic()
    executor.close()

    assert time.monotonic() - since < SLACK_S
    assert are_gone(pids)
    left = [each for each in psutil.Process().children(recursive=True) if each not in others]
    assert left == []
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_death_of_the_coordinator_ends_workers_that_are_busy_in_native_code(
    tmp_path: Path,
) -> None:
    coordinator = subprocess.Popen([sys.executable, "-c", _COORDINATOR, str(tmp_path)])
    pids = wait_until(lambda: pids_in(tmp_path))
    family = [child.pid for child in psutil.Process(coordinator.pid).children(recursive=True)]

    coordinator.kill()
    coordinator.wait()
    since = time.monotonic()
    wait_until(lambda: are_gone([*pids, *family]))

    assert len(family) >= 6  # two keepers, two workers, and what one of them has started
    assert time.monotonic() - since < SLACK_S


def test_killed_processes_of_another_coordinator_are_gone_with_their_descendants(
    bench: Bench, tmp_path: Path
) -> None:
    call = prepared(bench, steps.start_descendants, str(tmp_path))
    bench.executor.submit([call])
    pids = wait_until(lambda: pids_in(tmp_path), poll=lambda: bench.executor.poll(0.01))

    left = kill_processes(bench.executor.workers())

    assert left == []
    assert are_gone(pids)


def test_kill_leaves_alone_a_process_that_has_the_number_now() -> None:
    other = subprocess.Popen(["sleep", "60"])
    identity = process_id(other.pid)
    assert identity is not None
    earlier = ProcessId(pid=identity.pid, started=identity.started - 1000)

    left = kill_processes([earlier])

    assert left == []
    assert is_alive(identity)
    other.kill()
    other.wait()


def _processes_that_mention(text: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(text in part for part in process.cmdline()) and _runs(process.pid):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


_COORDINATOR = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import process_steps as steps
from perdure.executors.contract import Bench
from perdure.executors.processes import ProcessExecutor
from perdure.executors.protocol import Capacity

executor = ProcessExecutor(Capacity(cpus=2, slots=2))
bench = Bench(executor, Path(sys.argv[1]) / "blobs")
folder = bench.constant(sys.argv[1])
native = bench.function(steps.compute_natively)
descendants = bench.function(steps.start_descendants)
bench.open()
executor.submit([bench.call(native), bench.call(descendants, folder)])
executor.poll(None)
"""

_SCRIPT = """
import sys
from pathlib import Path
from perdure.executors.contract import Bench
from perdure.executors.processes import ProcessExecutor
from perdure.executors.protocol import Capacity

print("main runs", flush=True)

def double(number):
    return number * 2

executor = ProcessExecutor(Capacity(cpus=1, slots=1))
bench = Bench(executor, Path(sys.argv[1]) / "blobs")
number = bench.constant(21)
stored = bench.values.store(double)
name = bench.function(double, value=stored)
bench.open()
[outcome] = bench.run(bench.call(name, number))
print(bench.value(outcome))
executor.close()
"""


# --- brief calls: several in one worker -----------------------------------------------------------
def bundle(bench: Bench, folder: Path, *rest: tuple[Any, ...]) -> list[StepCall]:
    """Return calls of ``note`` that may share a worker, with these arguments after their names."""
    name, place = bench.function(steps.note), bench.constant(str(folder))
    arguments = [[bench.constant(each) for each in (f"call{n}", *r)] for n, r in enumerate(rest)]
    bench.open()
    return [bench.call(name, place, *args, is_brief=True) for args in arguments]


def begun(folder: Path) -> list[tuple[str, int]]:
    """Return which calls have begun, in order, each with the process that it was in."""
    path = folder / "begun"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, int(pid)) for name, pid in map(str.split, lines)]


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Bench]:
    executor = ProcessExecutor(Capacity(cpus=1, slots=1))
    yield Bench(executor, tmp_path / "blobs")
    executor.close()


def test_brief_calls_share_a_worker_in_their_order(single: Bench, tmp_path: Path) -> None:
    calls = bundle(single, tmp_path, *[()] * 50)

    outcomes = single.run(*calls)

    assert [single.value(each) for each in outcomes] == [f"call{n}" for n in range(50)]
    assert [name for name, _ in begun(tmp_path)] == [f"call{n}" for n in range(50)]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still, as if it were given no time of a core."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_brief_calls_are_made_once_each_by_a_worker_that_stood_still_for_long(
    single: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_BUNDLE_S", 1e-4)  # a fraction of a second is long then
    monkeypatch.setattr(tickets, "LOTS", 8)
    first, *rest = bundle(single, tmp_path, *[()] * 9)
    single.run(first)
    [(_, pid)] = begun(tmp_path)

    with stopped(pid):
        single.executor.submit(rest[:3])
        nothing = single.executor.poll(0.3)
        single.executor.submit(rest[3:])
        nothing += single.executor.poll(0.3)
    values = [single.value(each) for each in single.outcomes(*rest)]

    assert nothing == []
    assert values == [f"call{n}" for n in range(1, 9)]
    assert [name for name, _ in begun(tmp_path)] == ["call0", *values]


def test_worker_is_given_work_after_one_of_the_brief_calls_that_it_had_not_begun_was_killed(
    single: Bench, tmp_path: Path
) -> None:
    first, killed, *rest = bundle(single, tmp_path, *[()] * 5)
    single.run(first)
    [(_, pid)] = begun(tmp_path)

    with stopped(pid):
        single.executor.submit([killed, *rest])
        single.executor.kill([killed.id], grace_s=5.0, cause=Cause.CANCELLED)
    causes = [each.cause for each in single.outcomes(killed, *rest)]

    assert causes == [Cause.CANCELLED, *[Cause.SUCCEEDED] * 3]


def test_outcome_of_a_brief_call_comes_though_the_next_one_takes_long(
    single: Bench, tmp_path: Path
) -> None:
    calls = bundle(single, tmp_path, (), ("go",), ())

    single.executor.submit(calls)
    [first] = single.outcomes(calls[0])
    (tmp_path / "go").touch()

    assert single.value(first) == "call0"
    assert [single.value(each) for each in single.outcomes(*calls[1:])] == ["call1", "call2"]


def test_brief_calls_behind_a_long_one_are_run_by_whoever_is_idle(
    bench: Bench, tmp_path: Path
) -> None:
    calls = bundle(bench, tmp_path, ("go",), *[()] * 20)

    bench.executor.submit(calls)
    others = bench.outcomes(*calls[1:])
    (tmp_path / "go").touch()

    assert all(each.cause is Cause.SUCCEEDED for each in others)
    assert bench.value(*bench.outcomes(calls[0])) == "call0"
    assert sorted(name for name, _ in begun(tmp_path)) == sorted(f"call{n}" for n in range(21))


def test_death_of_a_worker_is_charged_to_the_call_that_ran(single: Bench, tmp_path: Path) -> None:
    calls = bundle(single, tmp_path, (), (), ("", True), (), ())

    outcomes = single.run(*calls)

    causes = [each.cause for each in outcomes]
    assert causes == [*[Cause.SUCCEEDED] * 2, Cause.WORKER_LOST, *[Cause.SUCCEEDED] * 2]
    pids = [pid for _, pid in begun(tmp_path)]
    assert len(pids) == 5
    assert len(set(pids)) == 2


def test_kill_of_a_brief_call_that_waits_leaves_the_others_alone(
    single: Bench, tmp_path: Path
) -> None:
    calls = bundle(single, tmp_path, ("go",), (), (), ())
    single.executor.submit(calls)
    wait_until(lambda: begun(tmp_path), poll=lambda: single.executor.poll(0.01))

    single.executor.kill([calls[2].id], grace_s=0, cause=Cause.CANCELLED)
    (tmp_path / "go").touch()

    causes = [each.cause for each in single.outcomes(*calls)]
    assert causes == [Cause.SUCCEEDED, Cause.SUCCEEDED, Cause.CANCELLED, Cause.SUCCEEDED]
    assert [name for name, _ in begun(tmp_path)] == ["call0", "call1", "call3"]


def test_brief_calls_that_wait_behind_a_long_one_come_back_when_they_are_handed_over(
    single: Bench, tmp_path: Path
) -> None:
    calls = bundle(single, tmp_path, ("go",), (), (), ())
    single.executor.submit(calls)
    wait_until(lambda: begun(tmp_path), poll=lambda: single.executor.poll(0.01))

    single.executor.hand_over([each.id for each in (calls[0], calls[1], calls[3])])

    back = [each.cause for each in single.outcomes(calls[1], calls[3])]
    assert back == [Cause.ABANDONED] * 2
    (tmp_path / "go").touch()
    assert [each.cause for each in single.outcomes(calls[0], calls[2])] == [Cause.SUCCEEDED] * 2
    assert [name for name, _ in begun(tmp_path)] == ["call0", "call2"]


def test_kill_of_the_brief_call_that_runs_leaves_those_behind_it_alone(
    single: Bench, tmp_path: Path
) -> None:
    calls = bundle(single, tmp_path, (), ("never",), (), ())
    single.executor.submit(calls)
    single.outcomes(calls[0])
    wait_until(lambda: len(begun(tmp_path)) == 2)

    single.executor.kill([calls[1].id], grace_s=0, cause=Cause.CANCELLED)

    causes = [each.cause for each in single.outcomes(*calls[1:])]
    assert causes == [Cause.CANCELLED, Cause.SUCCEEDED, Cause.SUCCEEDED]
    assert [name for name, _ in begun(tmp_path)] == ["call0", "call1", "call2", "call3"]
