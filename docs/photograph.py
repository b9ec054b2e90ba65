"""Take the pictures of the documents: the page of a run, and a cell that runs, in Chromium.

    python docs/photograph.py             writes docs/report.png and docs/notebook.png
    python docs/photograph.py /tmp        writes them there

Nothing in them is drawn by hand: the run is the one that docs/howto/see-a-run.md begins with, and
the cell is one of a real notebook in JupyterLab.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))  # a script has its own folder there

from tests.acceptance.test_jupyterlab import Lab  # noqa: E402
from tests.browsers import chromium  # noqa: E402

PATIENCE_MS = 120_000
STUDY = """
import time
from perdure import task, workflow

@task
def load(rows: int) -> list[float]:
    return [n / 10 for n in range(rows)]

@task
def clean(rows: list[float]) -> list[float]:
    return [row for row in rows if row]

@task
def fit(rows: list[float], rate: float) -> float:
    for epoch in range(1, 61):
        print("epoch", epoch, "loss", round(1 / (1 + epoch), 3))
        time.sleep(0.12)
    return sum(rows) * rate

@task
def plot(rows: list[float]) -> int:
    return len(rows)

@task
def score(model: float, fold: int) -> float:
    return model / (1 + fold)

@task
def report(scores: list[float], plotted: int) -> str:
    return f"{max(scores):.2f} of {plotted} rows"

@workflow
def study(rate: float = 0.1) -> str:
    rows = clean.bind(load.bind(90))
    model = fit.bind(rows, rate)
    return report.bind([score.bind(model, fold) for fold in range(4)], plot.bind(rows))
"""
CELLS = (STUDY, "study.run()", 'study.run(rate=0.2, reuse="last")')


def photograph_report(browser: Any, to: Path) -> None:
    """Write the page of the run of which see-a-run.md tells."""
    text = (DOCS / "howto" / "see-a-run.md").read_text()
    block = re.search(r"```python file=prices.py\n(.*?)```", text, re.DOTALL)
    assert block is not None
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "prices.py").write_text(block[1])
        perdure = Path(sys.executable).with_name("perdure")
        for words in (["run", "--id", "monday", "prices.py"], ["report", "monday"]):
            subprocess.run([perdure, *words], cwd=folder, check=False)
        page.goto((Path(folder) / "monday.html").as_uri())
        page.screenshot(path=to)


def photograph_cell(browser: Any, to: Path) -> None:
    """Write the last cell of a notebook in JupyterLab, while one of its steps runs."""
    page = browser.new_page(viewport={"width": 1250, "height": 1400})
    page.set_default_timeout(PATIENCE_MS)
    with tempfile.TemporaryDirectory() as folder:
        cells = [nbformat.v4.new_code_cell(text.strip()) for text in CELLS]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(notebook, Path(folder) / "study.ipynb")
        lab = Lab(Path(folder)).wait()
        try:
            page.goto(lab.url("doc/tree/study.ipynb"))
            page.locator(".jp-NotebookPanel .jp-CodeCell").first.click()
            page.wait_for_selector("text=| Idle")
            for _ in CELLS:
                page.keyboard.press("Shift+Enter")
            cell = page.locator(".jp-CodeCell", has_text="reuse=")
            cell.locator("text=epoch 2").first.wait_for()
            cell.screenshot(path=to)
        finally:
            lab.end_kernels()
            lab.stop()


def main(words: Sequence[str]) -> int:
    """Take the pictures, into the folder that is given or where the documents show them."""
    folder = Path(words[0]) if words else DOCS
    with chromium() as browser:
        photograph_report(browser, folder / "report.png")
        photograph_cell(browser, folder / "notebook.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
