"""perdure in a notebook's kernel: under its event loop, interrupted, restarted, edited."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.acceptance.conftest import CommandLine
from tests.acceptance.kernels import Kernel

from perdure.client import open_store
from perdure.view.runs import view_run
from perdure_storage.clock import SystemClock

CELLS = """
import asyncio, threading, time
from pathlib import Path
import perdure
from perdure import task, workflow

@task
def plus(x):
    return x + 1

@task(cpus=0)  # two at once, where there is one CPU too
def hang(x, name):
    Path(name).touch()
    threading.Event().wait(3600)

@workflow
def adds(n: int = 1):
    return plus.bind(plus.bind(n))

@workflow
def hangs(name: str = "begun"):
    return hang.bind(plus.bind(1), name)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def kernel(folder: Path) -> Iterator[Kernel]:
    kernel = Kernel(folder)
    assert not kernel(CELLS).error
    yield kernel
    kernel.shut_down()


def descendants(kernel: Kernel) -> list[psutil.Process]:
    return psutil.Process(kernel.manager.provisioner.pid).children(recursive=True)


def test_run_blocks_its_cell_under_the_kernels_event_loop(kernel: Kernel) -> None:
    ended = kernel("adds.run(n=1)")

    assert ended.text == "3", ended.error


def test_started_run_is_awaited_for_its_result(kernel: Kernel) -> None:
    ended = kernel("await adds.start(n=2)")

    assert ended.text == "4", ended.error


def test_several_runs_are_awaited_at_once(kernel: Kernel) -> None:
    ended = kernel("await asyncio.gather(*(adds.start(n=n) for n in range(9)))")

    assert ended.text == str([n + 2 for n in range(9)]), ended.error


def test_interrupt_leaves_the_run_resumable_and_says_so_in_python(
    kernel: Kernel, folder: Path
) -> None:
    ended = kernel('hangs.run(run_id="hangs", name="one")', interrupt_when=(folder / "one").exists)

    assert ended.error.splitlines()[-1] == "KeyboardInterrupt"
    assert "driving.py" not in ended.error
    assert 'Go on with: perdure.resume("hangs")' in ended.streams
    assert kernel('perdure.get_run("hangs").status.value').text == "'INTERRUPTED'"
    assert not [each for each in descendants(kernel) if "perdure" in " ".join(each.cmdline())]


def test_interrupt_of_one_cell_lets_runs_go_on_that_others_started(
    kernel: Kernel, folder: Path
) -> None:
    kernel('other = hangs.start(run_id="other", name="two")')

    ended = kernel(
        'hangs.run(run_id="mine", name="three")',
        interrupt_when=lambda: (folder / "two").exists() and (folder / "three").exists(),
    )

    assert "KeyboardInterrupt" in ended.error
    assert 'interrupted. Go on with: perdure.resume("mine"); ' in ended.streams
    assert "what other cells started goes on: other" in ended.streams
    assert kernel("len(other['hang'].attempts), other.is_driven").text == "(1, True)"
    assert kernel("perdure.get_run('mine').status.value").text == "'INTERRUPTED'"
    (folder / "three").unlink()
    kernel('mine = perdure.resume("mine")')
    kernel("while not Path('three').exists(): pass")
    assert kernel("mine.cancel().wait().status.value").text == "'CANCELLED'"
    assert kernel("other.cancel().wait().status.value").text == "'CANCELLED'"
    assert kernel("len(other['hang'].attempts)").text == "1"


def test_interrupt_of_an_await_comes_at_once_and_the_run_goes_on(
    kernel: Kernel, folder: Path
) -> None:
    began = time.monotonic()

    ended = kernel(
        'await hangs.start(run_id="awaited", name="four")',
        interrupt_when=(folder / "four").exists,
    )

    assert ended.error.splitlines()[-2] == "CancelledError"
    assert "runs.py" not in ended.error
    assert "interrupted: run awaited goes on. " in ended.error
    assert 'end it: perdure.cancel("awaited")' in ended.error
    assert time.monotonic() - began < 30
    assert kernel('perdure.get_run("awaited").cancel().status.value').text != "'INTERRUPTED'"
    assert kernel('perdure.get_run("awaited").wait().status.value').text == "'CANCELLED'"


def test_time_out_of_an_await_that_is_expected_says_nothing(kernel: Kernel) -> None:
    ended = kernel(
        "try:\n    await asyncio.wait_for(hangs.start(run_id='late', name='late'), 0.1)\n"
        "except TimeoutError: pass\nperdure.cancel('late')"
    )

    assert not ended.error
    assert "interrupted" not in ended.streams


def _is_older(path: Path, seconds: float) -> bool:
    """Say whether a file was there so long ago: what a cell does next, it is in the middle of."""
    now = SystemClock().now().timestamp()
    return path.exists() and now - path.stat().st_mtime > seconds


def test_interrupt_of_a_wait_for_a_run_of_another_cell_says_that_it_goes_on(
    kernel: Kernel, folder: Path
) -> None:
    kernel('hangs.start(run_id="waited", name="five")')
    kernel("while not Path('five').exists(): pass")

    ended = kernel(
        'Path("waits").touch()\nperdure.get_run("waited").result()',
        interrupt_when=lambda: _is_older(folder / "waits", 0.5),
    )

    assert ended.error.splitlines()[-1] == "KeyboardInterrupt"
    assert "driving.py" not in ended.error
    assert 'Look at it: perdure.get_run("waited"); end it: perdure.cancel("waited")' in (
        ended.streams
    )
    assert kernel("len(perdure.get_run('waited')['hang'].attempts)").text == "1"
    assert kernel('perdure.cancel("waited").wait().status.value').text == "'CANCELLED'"


@pytest.mark.parametrize(
    ("cell", "run_id"),
    [
        ('hangs.start(run_id="begun", name="six").result()', "begun"),
        ('perdure.resume("begun").result()', "begun"),
    ],
)
def test_interrupt_of_a_cell_that_starts_a_run_and_waits_for_it_ends_both(
    kernel: Kernel, folder: Path, cell: str, run_id: str
) -> None:
    began = folder / "six"
    began.unlink(missing_ok=True)

    ended = kernel(cell, interrupt_when=began.exists)

    assert f'interrupted. Go on with: perdure.resume("{run_id}")' in ended.streams
    assert "driving.py" not in ended.error
    assert kernel(f'perdure.get_run("{run_id}").status.value').text == "'INTERRUPTED'"


def test_error_says_what_to_type_in_python(kernel: Kernel) -> None:
    kernel("@task\ndef fails(x):\n    raise ValueError('no')")
    kernel("@workflow\ndef failing(n: int = 1):\n    return fails.bind(plus.bind(n))")

    ended = kernel('failing.run(run_id="fails")')

    assert 'Mend it, then: perdure.resume("fails", code="current")' in ended.error


def test_run_that_is_driven_elsewhere_is_found_and_ends_in_the_notebook(
    perdure: CommandLine,
) -> None:
    kernel = Kernel(perdure.folder)
    try:
        kernel(CELLS)
        kernel('run = adds.submit(n=5, run_id="elsewhere")')
        perdure.start("up", "--executor", "inline")
        kernel("while run.record.owner is None and run.status == 'QUEUED': pass")

        ended = kernel("await run")

        assert ended.text == "7", ended.error
    finally:
        kernel.shut_down()


def test_restarted_kernel_leaves_started_runs_at_once_and_finds_them_again(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    try:
        kernel(CELLS)
        kernel(
            'run = hangs.start(run_id="lost", name="five")\n'
            'while not Path("five").exists(): time.sleep(0.02)'
        )
        workers = descendants(kernel)

        kernel.restart()

        assert not any(each.is_running() and each.status() != "zombie" for each in workers)
        found = kernel('import perdure\nperdure.get_run("lost").status.value')
        assert found.text == "'INTERRUPTED'", found.error
        assert kernel('perdure.get_run("lost")["plus"].result()').text == "2"
        assert kernel('perdure.resume("lost").cancel().wait().status.value').text == "'CANCELLED'"
    finally:
        kernel.shut_down()


def test_resume_of_an_interrupted_run_says_that_it_was_interrupted(
    kernel: Kernel, folder: Path
) -> None:
    kernel('hangs.run(run_id="left", name="seven")', interrupt_when=(folder / "seven").exists)

    ended = kernel('perdure.resume("left").cancel().wait().status.value')

    assert "left was INTERRUPTED: goes on" in ended.streams


EDITED = """
from functools import partial
from types import SimpleNamespace
RATE = 3
class Step:
    size = 1
    held = SimpleNamespace(value=1)
rest = partial(divmod, 7)
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("RATE = 3", "RATE = 4", r"scaled runs: its code changed \(RATE \(cell {}\)\)"),
        ("size = 1", "size = 2", r"scaled runs: its code changed \(Step \(cell {}\)\)"),
        ("value=1", "value=2", r"scaled runs: its code changed \(Step \(cell {}\)\)"),
        ("divmod, 7", "divmod, 9", r"scaled runs: its code changed \(rest \(cell {}\)\)"),
        ("divmod, 7", "pow, 7", r"scaled runs: its code changed \(rest \(cell {}\)\)"),
        ("rest = partial(divmod, 7)", "def rest(x): return x", r"changed \(rest \(cell {}\)\)"),
        ("", "def abs(x): return 5", r"scaled runs: its code changed \(abs \(cell {}\)\)"),
    ],
    ids=["constant", "class", "held by a class", "partial", "of what", "other kind", "shadowed"],
)
def test_edited_cell_is_named_and_not_the_one_that_reads_it(
    kernel: Kernel, old: str, new: str, told: str
) -> None:
    kernel(
        "@task\ndef scaled(x): return times(x) + Step.size + Step.held.value, rest(2), abs(x)\n"
        "times = lambda x: x * RATE"
    )
    kernel(EDITED)
    kernel('perdure.run(scaled.bind(1), reuse="off")')

    kernel(EDITED.replace(old, new) if old else new)
    edited = int(kernel("len(In)").text) - 2
    ended = kernel('perdure.run(scaled.bind(1), reuse="last")')

    assert re.search(told.format(edited), ended.streams), ended


def test_name_that_was_not_there_before_is_told_and_not_who_reads_it(kernel: Kernel) -> None:
    kernel("@task\ndef reads(x): return x + missing\n@workflow\ndef miss(): return reads.bind(1)")
    kernel('miss.run(run_id="missing", reuse="off")')

    kernel("missing = 4")
    cell = int(kernel("len(In)").text) - 2
    kernel('perdure.resume("missing", code="current").result()')

    why = kernel('perdure.why("missing", "reads")').text
    assert f"its code changed (missing (cell {cell}))" in why


@pytest.mark.parametrize(
    ("graph", "step", "told"),
    [
        ("grown.map([1, 2])", "grown[1]", "GROWTH (cell {})"),
        ("grown.options(chunk=2).map([1, 2, 3])", "grown[0:2]", "GROWTH (cell {})"),
        # That graph is made in a worker, which has not the text of the cells.
        ("gives.bind(1)", "gives/grown", "GROWTH, read by grown"),
    ],
    ids=["item", "chunk", "returned"],
)
def test_steps_of_graphs_that_grew_name_what_was_edited(
    kernel: Kernel, graph: str, step: str, told: str
) -> None:
    kernel("@task\ndef grown(x): return x * GROWTH")
    kernel("@task\ndef gives(x): return plus.bind(grown.bind(x))")
    kernel("GROWTH = 3")
    kernel(f'perdure.run({graph}, run_id="few {step}")')

    kernel("GROWTH = 4")
    edited = int(kernel("len(In)").text) - 2
    ended = kernel(f'perdure.run({graph}, reuse="few {step}", run_id="more {step}")')
    why = kernel(f'perdure.why("more {step}", "{step}")').text

    assert not ended.error
    assert f"its code changed ({told.format(edited)}" in why


def test_recorded_traceback_names_the_cell_for_whoever_looks_from_outside(
    kernel: Kernel, folder: Path
) -> None:
    kernel("def deep(x):\n    return 1 / x")
    kernel("@task\ndef fails(x):\n    return deep(x)")
    first = int(kernel("len(In)").text) - 3
    kernel('perdure.run(fails.bind(0), run_id="gone", reuse="off")')

    with open_store(str(folder / ".perdure" / "perdure.db")) as store:
        told = view_run(store.get_run("gone")).error

    assert told is not None
    assert f"Cell In[{first}], line 2, in deep\n    return 1 / x" in told.traceback
    assert "ipykernel" not in told.traceback


def test_steps_that_a_worker_made_name_their_cell_to_whoever_looks_from_outside(
    kernel: Kernel, folder: Path, command_line_in: Callable[[Path], CommandLine]
) -> None:
    kernel("@task\ndef inner(x):\n    return x")
    kernel("@task\ndef outer(x):\n    return inner.bind(x)")
    last = int(kernel("len(In)").text) - 2
    kernel('perdure.run([inner.map([1, 2]), outer.bind(1)], run_id="grew", reuse="off")')

    perdure = command_line_in(folder)
    told = [perdure("show", "grew", name).out for name in ("outer~1", "inner[0]")]

    assert all(f"__main__.inner (cell {last - 1}, line 1)" in each for each in told), told


def test_failure_of_a_run_that_goes_on_elsewhere_names_the_cell(
    kernel: Kernel, folder: Path, command_line_in: Callable[[Path], CommandLine]
) -> None:
    kernel("@task\ndef divides(x):\n    return 1 / x")
    last = int(kernel("len(In)").text) - 2
    kernel('perdure.run(divides.bind(0), run_id="afar", reuse="off")')

    ended = command_line_in(folder)("resume", "afar")

    assert f"Cell In[{last}], line 3, in divides" in ended.err
    assert "ipykernel" not in ended.err


def test_module_that_was_edited_and_loaded_anew_is_what_the_next_run_computes_with(
    kernel: Kernel, folder: Path
) -> None:
    (folder / "reloaded.py").write_text("RATE = 1\n")
    kernel("import importlib, reloaded")
    kernel("@task\ndef rated(x): return x * reloaded.RATE")
    first = kernel('perdure.run(rated.bind(2), reuse="off")').text

    (folder / "reloaded.py").write_text("RATE = 100\n")
    kernel("importlib.reload(reloaded)")
    second = kernel('perdure.run(rated.bind(2), reuse="off")').text

    assert (first, second) == ("2", "200")
