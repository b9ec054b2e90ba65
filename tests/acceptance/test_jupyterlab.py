"""Pictures of runs in JupyterLab, as Chromium shows them: they go on without a cell being run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import nbformat
import pytest
from tests.browsers import chromium, missing

from perdure.client import open_store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

TOKEN = "of-a-test"
WAIT_MS = 60_000
DEFINITIONS = """
import threading
from pathlib import Path
import perdure
from perdure import task, workflow

@task
def load(n):
    return list(range(n))

@task
def fit(rows, gate):
    while not Path(gate).exists():
        threading.Event().wait(0.05)
    return sum(rows)

@workflow
def study(gate: str = "gate"):
    return fit.bind(load.bind(9), gate)
"""


class Lab:
    """JupyterLab on the loopback, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        own = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        places = {name: str(folder / "jupyter" / place) for name, place in own.items()}
        self._be_quiet(folder / "jupyter" / "settings" / "@jupyterlab" / "apputils-extension")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}"),
                *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"),
                "--ServerApp.terminals_enabled=False",
            ],
            cwd=folder,
            env={**os.environ, **places},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _be_quiet(self, settings: Path) -> None:
        settings.mkdir(parents=True)
        wishes = {"fetchNews": "false", "checkForUpdates": False}
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(wishes))

    def wait(self) -> Lab:
        """Wait until it answers."""
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url('api/status')}", timeout=1).close()
                return self
            except OSError:
                assert self._process.poll() is None, "JupyterLab has ended"
                Event().wait(0.2)
        raise TimeoutError("JupyterLab does not answer")

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}?token={TOKEN}"

    def end_kernels(self) -> None:
        """Shut all its kernels down, as somebody does in its list of what runs."""
        with urllib.request.urlopen(self.url("api/sessions"), timeout=30) as answer:
            sessions = [each["id"] for each in json.load(answer)]
        for each in sessions:
            asked = urllib.request.Request(self.url(f"api/sessions/{each}"), method="DELETE")
            urllib.request.urlopen(asked, timeout=60).close()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reason := missing():
        pytest.skip(reason)
    if find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed: pip install jupyterlab")
    folder = tmp_path_factory.mktemp("lab")
    (folder / ".perdure").mkdir()
    lab = Lab(folder)
    try:
        yield lab.wait()
    finally:
        lab.stop()


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Any]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(WAIT_MS)
        yield page


def open_notebook(lab: Lab, page: Any, name: str, *cells: str) -> None:
    """Open a new notebook, its kernel ready, and run its cells in their order."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in (DEFINITIONS, *cells)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, lab.folder / f"{name}.ipynb")
    page.goto(lab.url(f"doc/tree/{name}.ipynb"))
    page.locator(".jp-NotebookPanel .jp-CodeCell").first.click()
    page.wait_for_selector("text=| Idle")
    for _ in range(1 + len(cells)):
        page.keyboard.press("Shift+Enter")


def test_picture_of_a_started_run_goes_from_pending_to_done_by_itself(lab: Lab, page: Any) -> None:
    open_notebook(lab, page, "started", 'study.start(gate="go on")')
    page.wait_for_selector(".perdure .node.s-running[data-step=fit]")
    was = page.locator(".perdure .graph").bounding_box()

    (lab.folder / "go on").touch()

    page.wait_for_selector(".perdure header .s-succeeded")
    assert page.locator(".perdure .node.s-succeeded").count() == 2
    now = page.locator(".perdure .graph").bounding_box()
    assert (was["width"], was["height"]) == (now["width"], now["height"])


NOTE_HEIGHTS = """
window.heights = [];
const output = document.querySelector(".jp-OutputArea:has(.perdure)");
new ResizeObserver(([each]) => heights.push(each.contentRect.height)).observe(output);
"""


def test_output_keeps_its_height_and_what_was_opened_from_one_picture_to_the_next(
    lab: Lab, page: Any
) -> None:
    keep_all = "import perdure.notebook.widget as widget; widget.KEEP_EVERY_S = 0.0"
    open_notebook(lab, page, "steady", keep_all, 'study.start(gate="steady gate")')
    page.wait_for_selector(".perdure .node.s-running[data-step=fit]")
    page.wait_for_selector(".perdure .now >> text=1 s")
    # In one task of the page: a press of the mouse that is let go of after the page has put another
    # output there is no click to a browser, and here it does so twice a second.
    page.locator(".perdure details summary").evaluate("each => each.click()")
    page.evaluate(NOTE_HEIGHTS)
    page.wait_for_selector(".perdure .now >> text=3 s")
    while_running = page.evaluate("heights")

    (lab.folder / "steady gate").touch()

    page.wait_for_selector(".perdure header .s-succeeded")
    page.wait_for_selector(".perdure .now >> text=slowest")
    heights = page.evaluate("heights")
    assert len(set(while_running)) == 1, while_running
    assert max(heights) - min(heights) <= 2, heights
    assert page.locator(".perdure.cell").count() == 1
    assert page.locator(".perdure details[open]").count() == 1


def test_notebook_that_was_shut_while_a_run_went_on_shows_its_end_when_it_is_opened_again(
    lab: Lab, page: Any
) -> None:
    open_notebook(lab, page, "shut", 'study.start(gate="shut gate", run_id="shut")')
    page.wait_for_selector(".perdure .node.s-running[data-step=fit]")
    with page.expect_response(lambda each: each.request.method == "PUT"):
        page.keyboard.press("Control+s")
    page.goto("about:blank")

    (lab.folder / "shut gate").touch()
    with open_store(str(lab.folder / ".perdure" / "perdure.db")) as store:
        store.get_run("shut").wait(timeout=60)
    page.goto(lab.url("doc/tree/shut.ipynb"))

    page.wait_for_selector(".perdure header .s-succeeded")
    assert "model not found" not in page.content()


def test_notebook_that_was_saved_while_a_run_went_on_shows_its_picture_without_that_kernel(
    lab: Lab, page: Any
) -> None:
    open_notebook(lab, page, "kept", 'study.start(gate="kept gate")')
    page.wait_for_selector(".perdure .node.s-running[data-step=fit]")
    with page.expect_response(lambda each: each.request.method == "PUT"):
        page.keyboard.press("Control+s")

    page.goto("about:blank")
    lab.end_kernels()
    page.goto(lab.url("doc/tree/kept.ipynb"))

    page.wait_for_selector(".perdure .node[data-step=fit]")
    page.wait_for_selector("text=| Idle")
    assert page.locator(".perdure").first.is_visible()
    assert "model not found" not in page.content()
    from nbconvert import HTMLExporter  # comes with JupyterLab

    exported, _ = HTMLExporter().from_filename(str(lab.folder / "kept.ipynb"))
    assert 'data-step="fit"' in exported
    assert "model not found" not in exported


def test_run_that_a_cell_waits_for_leaves_its_last_picture_in_the_saved_notebook(
    lab: Lab, page: Any
) -> None:
    open_notebook(lab, page, "waited", 'study.run(gate="gate")')
    page.wait_for_selector(".perdure .node.s-running[data-step=fit]")

    (lab.folder / "gate").touch()

    page.wait_for_selector(".jp-OutputArea-executeResult >> text=36")
    with page.expect_response(lambda each: each.request.method == "PUT"):
        page.keyboard.press("Control+s")
    saved = nbformat.read(lab.folder / "waited.ipynb", as_version=4)
    looks = [each["data"] for each in saved.cells[1].outputs if each.output_type == "display_data"]
    assert [set(look) for look in looks] == [{"text/plain", "text/html"}]
    assert "s-succeeded" in looks[0]["text/html"]
