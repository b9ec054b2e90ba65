"""What things look like in a notebook, and how that follows a run, in a kernel and in process."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import reported_steps as steps
from tests.acceptance.kernels import Ended, Kernel
from tests.unit.perdure.view.test_page import Page

from perdure import Backoff, Static, current, task, workflow
from perdure.client import Perdure
from perdure.errors import DefinitionError, RunFailed
from perdure.notebook.live import View
from perdure.runs import Runs
from perdure.showing import Bundle, bundle_of, lines_of
from perdure.workflow import Workflow

WIDGET = "application/vnd.jupyter.widget-view+json"
CELLS = """
import threading
from pathlib import Path
import perdure
from perdure import task, workflow

@task
def first(x):
    print("a line of", x)
    return x + 1

@task
def gated(x, name):
    Path(name + " begun").touch()
    while not Path(name).exists():
        threading.Event().wait(0.02)
    return x

@workflow
def flow(name: str = "gate"):
    return gated.bind(first.bind(1), name)

@workflow
def quick(n: int = 1):
    return first.bind(n)
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


def shown(ended: Ended) -> dict[str, Any]:
    """Return the only thing that a cell displays, as it is now."""
    assert len(ended.displays) == 1, ended
    return ended.displays[0]


def statuses(look: dict[str, Any]) -> set[str]:
    return set(re.findall(r"pill s-([a-z-]+)", look["text/html"]))


def until_over(kernel: Kernel, ended: Ended) -> None:
    """Take in what the kernel tells without another cell, until the picture is the last one."""
    while WIDGET in shown(ended) or statuses(shown(ended)) & {"queued", "running"}:
        message = kernel.client.get_iopub_msg(timeout=30)
        ended.take(message["msg_type"], message["content"])


PAGES = {
    "no anywidget": "import sys; sys.modules['perdure.notebook.widget'] = None",
    "Jupyter": "import sys; sys.modules.pop('perdure.notebook.widget', None)",
    "VS Code": "__vsc_ipynb_file__ = 'a.ipynb'",
}


@pytest.mark.parametrize("page", PAGES)
def test_picture_of_a_started_run_goes_on_after_its_cell_and_ends_as_static_html(
    kernel: Kernel, folder: Path, page: str
) -> None:
    kernel(PAGES[page])

    ended = kernel(f"flow.start(name={page!r})")

    assert (WIDGET in shown(ended)) is (page == "VS Code")
    assert "text/html" in shown(ended)
    (folder / page).touch()
    until_over(kernel, ended)
    assert statuses(shown(ended)) == {"succeeded"}
    assert set(shown(ended)) == {"text/plain", "text/html"}
    kernel("globals().pop('__vsc_ipynb_file__', None)")


def test_picture_that_a_notebook_keeps_follows_its_run(kernel: Kernel, folder: Path) -> None:
    kernel("import perdure.notebook.widget as widget; widget.KEEP_EVERY_S = 0.0")

    ended = kernel("flow.start(name='kept gate')")

    while not re.search(r's-running"[^>]*data-step="gated"', shown(ended)["text/html"]):
        message = kernel.client.get_iopub_msg(timeout=30)
        ended.take(message["msg_type"], message["content"])
    (folder / "kept gate").touch()
    until_over(kernel, ended)
    kernel("widget.KEEP_EVERY_S = 10.0")


@pytest.mark.parametrize("wait", ["run.result()", "await run"])
def test_result_is_there_no_sooner_than_the_last_picture_of_its_run(
    kernel: Kernel, wait: str
) -> None:
    kernel("import perdure.notebook.live as live; live.DRAW_EVERY_S = live.IDLE_EVERY_S = 3600.0")

    ended = kernel(f"run = quick.start(n=5); display(run); {wait}")

    assert ended.text == "6"
    assert statuses(ended.displays[0]) == {"succeeded"}
    kernel("live.DRAW_EVERY_S, live.IDLE_EVERY_S = 0.5, 2.0")


def test_run_that_a_cell_waits_for_leaves_its_last_picture_and_its_value(kernel: Kernel) -> None:
    ended = kernel("quick.run(n=4)")

    assert ended.text == "5"
    assert statuses(shown(ended)) == {"succeeded"}
    assert set(shown(ended)) == {"text/plain", "text/html"}


def test_cell_with_a_loop_of_runs_shows_few_pictures_and_tells_of_the_others(
    kernel: Kernel,
) -> None:
    ended = kernel("for n in range(6): quick.run(n=n)")

    assert len(ended.displays) == 3
    assert len(re.findall(r"succeeded", ended.streams)) == 3


def test_pictures_leave_no_thread_once_their_runs_are_over(kernel: Kernel) -> None:
    kernel("quick.start().result()")

    ended = kernel(
        "import time\nwhile any(t.name == 'perdure-views' for t in threading.enumerate()):\n"
        "    time.sleep(0.05)\n'gone'"
    )

    assert ended.text == "'gone'"


def test_error_shows_the_traceback_of_the_step_first_with_its_cell(kernel: Kernel) -> None:
    kernel("@task\ndef fails(x):\n    wrong = 0\n    return x / wrong")
    kernel("@workflow\ndef failing(): return fails.bind(1)")

    ended = kernel("failing.run()")

    lines = ended.error.splitlines()
    assert lines[:2] == ["In step fails:", "Traceback (most recent call last):"]
    assert re.fullmatch(r"  Cell In\[\d+\], line 4, in fails", lines[2])
    assert lines[3].strip() == "return x / wrong"
    assert "workflows/perdure" not in ended.error


def test_error_without_a_traceback_names_the_cell_of_its_step(kernel: Kernel) -> None:
    kernel("import os, signal\n@task\ndef dies(): os.kill(os.getpid(), signal.SIGKILL)")
    kernel("@task\ndef unstorable(): return threading.Lock()")

    died = kernel("perdure.run(dies.options(lost_retries=0).bind())")
    refused = kernel("perdure.run(unstorable.bind())")

    assert re.search(r"step dies \(cell \d+, line 2\): ", died.error), died.error
    assert re.search(r"step unstorable \(cell \d+, line 1\): ", refused.error), refused.error
    assert "ipykernel_" not in died.error + refused.error


def test_traceback_of_a_file_that_is_not_there_ends_in_the_users_line(kernel: Kernel) -> None:
    kernel('@task\ndef opens():\n    return open("/not/there").read()')

    ended = kernel("perdure.run(opens.bind())")

    lines = ended.error.splitlines()
    assert lines[3].strip() == 'return open("/not/there").read()'
    assert "_modified_open" not in ended.error


def test_restarted_kernel_shows_a_run_by_its_id(kernel: Kernel) -> None:
    kernel('quick.run(run_id="kept")')

    kernel.restart()

    look = kernel('import perdure; perdure.get_run("kept")').value
    assert statuses(look) == {"succeeded"}
    kernel(CELLS)


# --- the magic ----------------------------------------------------------------------------------
def test_magic_shows_what_the_command_line_tells(kernel: Kernel) -> None:
    kernel('quick.run(run_id="magic")')
    kernel("%load_ext perdure")

    assert "magic" in kernel("%perdure ls").value["text/html"]
    assert kernel("%perdure ls").text.startswith("ID ")
    assert statuses(kernel("%perdure show magic").value) == {"succeeded"}
    assert "first" in kernel("%perdure show - first").value["text/html"]
    assert kernel("%perdure why magic first").streams.startswith("first ran")
    assert "a line of 1" in kernel("%perdure logs magic").streams
    assert "run, 1 step: 1 run" in kernel("%perdure explain quick --n 7").text
    assert "SUCCEEDED" in shown(kernel("%perdure ls --status succeeded"))["text/plain"]


def test_magic_says_what_there_is_to_an_unknown_word(kernel: Kernel) -> None:
    kernel("%load_ext perdure")

    told = kernel("%perdure shwo").streams

    assert "did you mean 'show'" in told
    assert "explain" in told


def test_magic_says_that_a_workflow_is_not_known_here(kernel: Kernel) -> None:
    kernel("%load_ext perdure")

    told = kernel("%perdure explain quikc --n 6").streams

    assert "no workflow of that name is here" in told
    assert "did you mean 'quick'" in told


def test_magic_says_which_word_is_missing(kernel: Kernel) -> None:
    kernel('quick.run(run_id="missing")')
    kernel("%load_ext perdure")

    told = kernel("%perdure why missing").streams
    few = kernel("%perdure diff missing").streams

    assert "%perdure why missing STEP: which step? missing has first" in told
    assert "%perdure diff ID ID" in few
    assert "%perdure show" not in few


def test_magic_lets_new_runs_of_the_kernel_take_over_what_has_not_changed(kernel: Kernel) -> None:
    kernel("%load_ext perdure")
    kernel("%perdure reuse last")
    kernel("quick.run(n=30)")

    again = kernel("quick.run(n=30)")
    kernel("%perdure reuse off")
    afresh = kernel("quick.run(n=30)")

    assert "reused 1 of 1" in again.streams
    assert "reused" not in afresh.streams


@pytest.mark.parametrize(
    ("line", "word"),
    [("%perdure sh", "show"), ("%perdure reuse ", "last"), ("%perdure explain qu", "quick")],
)
def test_magic_is_completed(kernel: Kernel, line: str, word: str) -> None:
    kernel("%load_ext perdure")

    reply = kernel.client.complete(line, reply=True, timeout=30)

    assert word in reply["content"]["matches"]


# --- in process ---------------------------------------------------------------------------------
@pytest.fixture
def client(inline: Perdure) -> Perdure:
    return inline


class Tattling:
    """Says so where it is unpickled or asked how it looks."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        Path(self.path).touch()


@task
def tattles(path: str) -> Tattling:
    print("<script>alert('printed')</script>")
    return Tattling(path)


@workflow
def tattling(path: str, text: str = "<script>alert('given')</script>") -> Tattling:
    return tattles.bind(path)


def test_looking_unpickles_nothing_and_lets_no_markup_in(client: Perdure, tmp_path: Path) -> None:
    told = tmp_path / "told"
    run = client.start(tattling, path=str(told)).wait()
    told.unlink(missing_ok=True)

    looks = [bundle_of(each) for each in (run, run["tattles"], client.list_runs(), tattling)]

    assert not told.exists()
    assert not any("<script" in look["text/html"] for look in looks)
    assert "alert(&#39;printed&#39;)" in looks[1]["text/html"]
    pickle.loads(pickle.dumps(Tattling(str(told))))
    assert told.exists()  # it would have told


@task
def talks() -> None:
    print("one")
    print("two\x1b[31m red\x07")


def test_lines_that_a_step_printed_are_lines(client: Perdure) -> None:
    run = client.start(talks.bind(), run_id="r").wait()

    look = bundle_of(run["talks"])

    assert '<pre class="log">one\ntwo red\N{REPLACEMENT CHARACTER}</pre>' in look["text/html"]


@task(retries=2, backoff=Backoff("1ms"))
def comes_third() -> int:
    print("trying")
    if current().attempt < 3:
        raise ValueError("not yet")
    return 42


def test_step_shows_its_attempts_its_value_and_why_it_ran(client: Perdure) -> None:
    run = client.start(comes_third.bind(), run_id="r").wait()

    page = Page(bundle_of(run["comes_third"])["text/html"])

    assert "comes_third ran (3 attempts): it had not run before" in page.text
    assert [page.text.count(each) for each in ("user error", "not yet")] == [2, 2]
    assert "42 int" in page.text
    assert "trying" in page.text


def test_step_of_a_run_that_took_it_over_says_so(client: Perdure) -> None:
    client.run(comes_third.bind(), run_id="before")
    client.run(comes_third.bind(), run_id="r", reuse="before")

    look = bundle_of(client.get_run("r")["comes_third"])

    assert "comes_third was taken over from before" in Page(look["text/html"]).text
    assert "taken over from before" in look["text/plain"]


def test_explanation_of_many_steps_says_how_many_are_left_out(client: Perdure) -> None:
    plan = client.explain([talks.bind() for _ in range(50)])

    text = Page(bundle_of(plan)["text/html"]).text

    assert "run, 50 steps: 50 run" in text
    assert "and 10 more steps" in text


def test_text_of_a_run_and_of_a_step_is_what_the_command_line_prints(client: Perdure) -> None:
    run = client.submit(comes_third.bind(), run_id="r")
    client.cancel("r")

    texts = [bundle_of(each)["text/plain"] for each in (run, run["comes_third"], Runs([run]))]

    assert "status    CANCELLED" in texts[0]
    assert run.next_command in texts[0]
    assert "comes_third of run r" in texts[1]
    assert texts[2].splitlines()[0].split() == ["ID", "WORKFLOW", "STATUS", "CREATED", "TOOK"]


def test_looking_never_raises(client: Perdure, tmp_path: Path) -> None:
    run = client.start(tattling, path=str(tmp_path / "told")).wait()
    runs = client.list_runs()
    client.delete(run.id)

    assert set(bundle_of(run)) == {"text/plain"}
    assert "text/plain" in bundle_of(runs)
    assert "text/plain" in bundle_of(object())


class Noting:
    """An output that notes what it is shown."""

    def __init__(self, *, is_wanted: bool) -> None:
        self.is_wanted = is_wanted
        self.shown: list[Bundle] = []
        self.left: list[Bundle] = []

    def show(self, look: Bundle) -> None:
        self.shown.append(look)

    def leave(self, look: Bundle) -> None:
        self.left.append(look)


@pytest.mark.parametrize("is_wanted", [True, False])
def test_picture_is_drawn_while_it_is_wanted_and_in_the_end(
    client: Perdure, tmp_path: Path, is_wanted: bool
) -> None:
    page = Noting(is_wanted=is_wanted)
    run = client.submit(tattling, path=str(tmp_path / "told"))
    view = View(run, lambda: bundle_of(run), page)

    went_on = view.turn()
    client.resume(run.id).wait()
    view.next_at = 0.0

    assert went_on
    assert not view.turn()
    assert len(page.shown) == is_wanted
    assert statuses(page.left[0]) == {"succeeded"}


def test_end_of_a_run_is_drawn_at_once_however_long_drawing_takes(
    client: Perdure, tmp_path: Path
) -> None:
    page = Noting(is_wanted=True)
    run = client.submit(tattling, path=str(tmp_path / "told"))
    view = View(run, lambda: bundle_of(run), page)
    view.turn()
    view.draw_at = float("inf")
    client.resume(run.id).wait()
    view.next_at = 0.0

    assert not view.turn()
    assert not view.turn()
    assert len(page.left) == 1


def test_picture_of_a_run_that_is_deleted_is_drawn_no_more(client: Perdure, tmp_path: Path) -> None:
    page = Noting(is_wanted=True)
    run = client.start(tattling, path=str(tmp_path / "told")).wait()
    client.delete(run.id)

    assert not View(run, lambda: bundle_of(run), page).turn()
    assert page.left == []


def test_id_that_is_no_text_is_refused_in_a_line(client: Perdure) -> None:
    with pytest.raises(DefinitionError, match="the id of a run is text, not None"):
        client.get_run(None)  # type: ignore[arg-type]


def test_run_compared_with_itself_says_that_nothing_was_computed_again(client: Perdure) -> None:
    client.run(talks.bind(), run_id="r")

    assert str(client.diff("r", "r")) == "r and itself: no step was computed again"


def test_runs_are_listed_by_a_status_in_small_letters(client: Perdure) -> None:
    client.run(talks.bind(), run_id="r")

    assert [run.id for run in client.list_runs(status="succeeded")] == ["r"]
    assert client.list_runs(status=["failed"]) == []


def test_listed_runs_are_a_list_still(client: Perdure, tmp_path: Path) -> None:
    client.run(tattling, path=str(tmp_path / "told"))

    runs = client.list_runs()

    assert isinstance(runs, Runs)
    assert isinstance(runs, list)
    assert [run.workflow for run in runs] == ["tattling"]


def test_node_is_shown_with_what_it_needs_also_by_ipython_itself(kernel: Kernel) -> None:
    look = kernel("first.bind(first.bind(1))").value

    assert look["text/plain"] == "<Node the result of 'first'>"
    assert 'data-step="first#2"' in look["text/html"]


def test_graph_that_no_cell_has_room_for_is_squares_of_a_bounded_size() -> None:
    html = bundle_of(steps.different(1000).dag())["text/html"]

    assert len(Page(html).of_class("square")) == 1000
    assert "step_0999" in html
    assert len(html) < 250_000


def test_graph_is_shown_before_it_has_run() -> None:
    look = bundle_of(tattling.dag())

    assert "|- tattles(path)" in look["text/plain"]
    assert 'data-step="tattles"' in look["text/html"]


def test_workflow_is_shown_with_its_graph() -> None:
    html = bundle_of(tattling)["text/html"]

    assert 'data-step="tattles"' in html
    assert "PARAMETER" in html


@workflow
def fans_out(count: Static[int], path: str = "") -> object:
    return [tattles.bind(path) for _ in range(count)]


@workflow
def wrong(path: str = "") -> str:
    return f"{tattles.bind(path)}"


@pytest.mark.parametrize(
    ("shown", "said"),
    [(fans_out, "fans_out.dag(count=...) shows its graph"), (wrong, "its graph cannot be made")],
)
def test_workflow_without_a_graph_says_why(shown: Workflow[..., object], said: str) -> None:
    html = bundle_of(shown)["text/html"]

    assert said in html
    assert "data-step" not in html


def test_error_of_no_step_shows_where_it_was_met() -> None:
    try:
        raise RunFailed("it failed", run_id="r")
    except RunFailed as error:
        lines = lines_of(error)

    assert lines[-1] == "RunFailed: it failed"
    assert any("test_notebook_display.py" in line for line in lines)
