"""Programs that were written for ``ray.workflow``, after the change that the page describes."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs Ray: pip install 'perdure[ray]'")

SCRIPTS = Path(__file__).parent / "scripts"
PRINTED = {
    "basic_dag": "84\nSUCCESSFUL 3\n",
    "factorial": "720\n720\n[('factorial', <WorkflowStatus.SUCCESSFUL: 'SUCCESSFUL'>)]\n",
    "events": "('hello', None, None)\nhello\n",
    "metadata": (
        "failed: division by zero\n"
        "SUCCESSFUL {'owner': 'ada'} True\n"
        "['source'] True\n"
        "{'kind': 'source'}\n"
    ),
    "resume": (
        "Workflow[id=resume] failed during execution. RuntimeError\nFAILED\n42\nSUCCESSFUL x\n"
    ),
}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", sorted(PRINTED))
def test_a_program_of_ray_workflows_runs(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path)])

    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")

    assert capsys.readouterr().out == PRINTED[name]


def test_every_script_is_run() -> None:
    assert {each.stem for each in SCRIPTS.glob("*.py")} == set(PRINTED)
