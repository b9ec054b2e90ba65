"""How processes end that have run steps on Ray: orderly, as without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.crash.stage import Stage

if TYPE_CHECKING:
    from examples.local_ray import LocalCluster, LocalNode

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

_SCRIPT = """
import perdure
from tests.crash.busy_steps import join
print("joined", perdure.run(join.bind(["a"])))
"""


@pytest.fixture
def stage(tmp_path: Path, ray_cluster: LocalCluster, ray_node: LocalNode) -> Iterator[Stage]:
    made = Stage(tmp_path, cluster=ray_cluster)
    yield made
    made.end()


def test_script_that_has_run_steps_on_ray_ends_without_a_word(stage: Stage) -> None:
    script = stage.start("-c", _SCRIPT, PERDURE_STORE=stage.store)

    code, said = stage.finish(script)

    assert code == 0, said
    assert "joined" in said
    assert "atexit" not in said
