"""The notebooks of ``examples/notebooks``, cell by cell in a kernel, with what they come to.

A cell with the tag ``restart`` is run after its kernel has been restarted in the middle of what it
did. What a cell is to raise it says by the tag ``raises-exception``, as Jupyter does.
"""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


async def _execute(notebook: Any, folder: Path) -> None:
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=90, resources=resources, kernel_name="python3")
    async with client.async_setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            if "restart" in cell.metadata.get("tags", ()):
                await client.km.restart_kernel(now=True)
                await client.kc.wait_for_ready(timeout=60)
            await client.async_execute_cell(cell, index)


def executed(name: str, folder: Path) -> dict[str, Any]:
    """Run a notebook in a folder of its own; return the values of its last lines, by name.

    A cell that ends in ``x`` alone shows the value of ``x`` as text.
    """
    (folder / ".perdure").mkdir()
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    asyncio.run(_execute(notebook, folder))
    nbformat.write(notebook, folder / f"{name}.ipynb")
    found: dict[str, Any] = {"notebook": notebook}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = output.get("data", {}).get("text/plain", "")
            last = cell.source.rstrip().rsplit("\n", 1)[-1]
            if output.output_type == "execute_result":
                found[last] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def printed(notebook: Any) -> str:
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
    return "".join(each.text for each in outputs if each.output_type == "stream")


@pytest.fixture(autouse=True)
def quiet_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    assert "python3" in KernelSpecManager().find_kernel_specs()


def test_first_run_gives_what_it_says(tmp_path: Path) -> None:
    found = executed("first_run", tmp_path)

    assert found['prices.run(run_id="monday")'] == "2026-01-05: 7.50"
    assert found["await asyncio.gather(*week)"] == [f"2026-01-0{n}: 7.50" for n in (6, 7, 8)]
    assert found['monday["mean"].result()'] == 7.5
    assert re.match(r"run +monday\nworkflow +prices\nstatus +SUCCEEDED\n", found["monday"])
    assert "recorded result" in printed(found["notebook"])


def test_killed_workers_and_a_killed_kernel_cost_what_was_in_flight(tmp_path: Path) -> None:
    found = executed("break_and_resume", tmp_path)

    assert found["result"] == sum(number * number for number in range(12))
    told = printed(found["notebook"])
    assert "12 parts" in told
    assert "killed 0" not in told
    assert "lost" in told or "SIGKILL" in told


def test_edit_of_one_cell_runs_its_cone_alone(tmp_path: Path) -> None:
    found = executed("change_one_cell", tmp_path)

    assert found["first"] == ["load", "fit", "score"]
    assert found["unchanged"] == []
    assert found["edited"] == ["fit", "score"]
    assert found["same_values"] == ["fit"]
    assert found["mended"] == ["score"]
    assert found["result"] == 160


def test_waits_and_schedules_go_on_without_their_cells(tmp_path: Path) -> None:
    found = executed("schedules_and_events", tmp_path)

    assert found["approved"] == "a transfer of 100 was made"
    assert found["heard"] == ["a transfer of 250"] * 2
    assert len(found["newest"]) == len("12:00:00")


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_stored_without_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert not [cell.source for cell in code if cell.outputs or cell.execution_count]
    assert "widgets" not in notebook.metadata


def test_each_notebook_is_among_those_that_are_run() -> None:
    text = Path(__file__).read_text()

    assert [name for name in NAMES if f'executed("{name}"' not in text] == []
