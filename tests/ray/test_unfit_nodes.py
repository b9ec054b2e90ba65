"""Nodes that cannot run what perdure sends them: the run fails, and says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster

SCRIPT = """
import sys
import perdure

@perdure.task
def one() -> int:
    return 1

@perdure.workflow
def flow() -> int:
    return one.bind()

store, address, path = sys.argv[1:]
env = {"env_vars": {"PYTHONPATH": path}}
with perdure.open(store, executor="ray", ray_address=address, ray_runtime_env=env) as opened:
    opened.run(flow)
"""


def test_run_on_nodes_where_perdure_cannot_be_imported_fails_and_says_why(
    ray_cluster: LocalCluster, tmp_path: Path
) -> None:
    node = ray_cluster.add(cpus=1)
    broken = tmp_path / "broken" / "perdure"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('not the one that was meant')\n")
    (tmp_path / "script.py").write_text(SCRIPT)

    ended = subprocess.run(
        [sys.executable, "script.py", "perdure.db", ray_cluster.address, str(broken.parent)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    ray_cluster.remove(node)

    assert ended.returncode == 1
    assert "not the one that was meant" in ended.stderr
    assert "\x1b[36mray::" not in ended.stderr


def test_runtime_env_that_ray_refuses_is_not_told_as_a_cluster_that_does_not_answer(
    ray_cluster: LocalCluster, tmp_path: Path
) -> None:
    program = (
        "import sys; from perdure.executors.ray_cluster import RayTerms, connect; "
        "connect(RayTerms(address=sys.argv[1], runtime_env={'env_vars': {'TOKEN': 3}}))"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program, ray_cluster.address],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert "PERDURE_RAY_RUNTIME_ENV: runtime_env['env_vars'] must be" in ended.stderr
