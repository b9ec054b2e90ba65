"""Blobs that are partial, corrupted, swapped or missing, and storage that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.crash import steps
from tests.crash.here import Here
from tests.crash.ledger import Ledger, Undisturbed, check, executing, wait_until
from tests.crash.scenarios import blob_of

import perdure
from perdure import task, workflow
from perdure.client import Perdure, open_store
from perdure.errors import NondeterminismError, RunFailed
from perdure.worker.context import current
from perdure_storage.checking import check_store
from perdure_storage.records import RunId

RUN = "damaged"


@task
def source(n: int) -> int:
    with executing():
        return n


@task
def first(n: int) -> bytes:
    with executing():
        return steps.bytes_of(f"first {n}")


@task
def second(data: bytes) -> bytes:
    with executing():
        return steps.bytes_of(f"second {data[:8]!r}")


@task
def aside(n: int) -> bytes:
    with executing():
        return steps.bytes_of(f"aside {n}")


@task
def unrelated(data: bytes) -> str:
    with executing():
        return steps.text_of(data)


@workflow
def values() -> list[Any]:
    """Two large values in a row, a gate before who reads them, and a branch that has no part."""
    n = source.bind(1)
    made = second.bind(first.bind(n))
    return [steps.gated_size.bind(made), unrelated.bind(aside.bind(n))]


@pytest.fixture
def client(tmp_path: Path, here: Here) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "store" / "perdure.db"), executor=here.executor) as opened:
        yield opened


@pytest.fixture
def undisturbed(here: Here, tmp_path: Path) -> Undisturbed:
    here.gate.touch()
    with open_store(str(tmp_path / "other" / "perdure.db"), executor=here.executor) as other:
        other.run(values, run_id=RUN)
        found = Undisturbed.of(other, RUN)
    here.clear()
    return found


def cut(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path, other: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def swap(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def remove(path: Path, other: Path) -> None:
    path.unlink()


DAMAGES = [cut, flip, swap, remove]
ON_RAY = pytest.param("ray", flip, marks=[pytest.mark.ray, pytest.mark.timeout(180)])
"""A sample: all are done there by PERDURE_TEST_EXECUTOR."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_value_is_rebuilt_on_resume_by_its_own_step_only(
    damage: Callable[[Path, Path], None],
    client: Perdure,
    here: Here,
    undisturbed: Undisturbed,
) -> None:
    with pytest.raises(RunFailed):
        client.run(values, run_id=RUN, on_failure="finish")
    damage(blob_of(client, RUN, "second"), blob_of(client, RUN, "aside"))
    here.gate.touch()

    client.resume(RUN).result()

    check(here.ledger, client, RUN, undisturbed)
    assert counts(here.ledger) == {"source": 1, "first": 1, "second": 2, "aside": 1, "unrelated": 1}
    assert "rebuilt" in client.why(RUN, "second")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_lineage_is_rebuilt_as_far_up_as_it_is_damaged(
    damage: Callable[[Path, Path], None],
    client: Perdure,
    here: Here,
    undisturbed: Undisturbed,
) -> None:
    with pytest.raises(RunFailed):
        client.run(values, run_id=RUN, on_failure="finish")
    for step in ("first", "second"):
        damage(blob_of(client, RUN, step), blob_of(client, RUN, "aside"))
    here.gate.touch()

    client.resume(RUN).result()

    check(here.ledger, client, RUN, undisturbed)
    assert counts(here.ledger) == {"source": 1, "first": 2, "second": 2, "aside": 1, "unrelated": 1}


@pytest.mark.parametrize(
    ("executor", "damage"), [*product(["inline", "processes"], DAMAGES), ON_RAY]
)
def test_damaged_value_is_rebuilt_in_a_live_run(
    damage: Callable[[Path, Path], None],
    executor: str,
    here: Here,
    undisturbed: Undisturbed,
    tmp_path: Path,
) -> None:
    """The step above the reader damages what the reader is about to read."""
    here.gate.touch()
    with open_store(str(tmp_path / "store" / "perdure.db"), executor=executor) as client:
        result = client.run(damaging, run_id=RUN, how=damage.__name__, folder=client.settings.blobs)

        assert result == undisturbed.result[0]
        assert client.get_run(RUN)["second"].generation == 2
    assert counts(here.ledger) == {"source": 1, "first": 1, "second": 2, "damaged": 1}


@task
def damaged(how: str, folder: str, data: bytes) -> int:
    """Damage the value that it has read, for the others that will read it."""
    with executing():
        paths = [p for p in Path(folder).rglob("blobs/*/blake3-*") if p.stat().st_size < 100_000]
        bodies = {path: path.read_bytes() for path in paths}
        (mine,) = (path for path, body in bodies.items() if data in body)
        other = next(path for path in bodies if path != mine)
        {each.__name__: each for each in DAMAGES}[how](mine, other)
        return 1


@workflow
def damaging(how: str, folder: str) -> str:
    made = second.bind(first.bind(source.bind(1)))
    return steps.gated_size.options(after=[damaged.bind(how, folder, made)]).bind(made)


def counts(record: Ledger) -> dict[str, int]:
    """Return how often each step began, the gated one left out."""
    began = record.began(RUN)
    return {step: began.count(step) for step in dict.fromkeys(began) if step != "gated_size"}


# --- storage that does not answer -------------------------------------------------------------
def test_unavailable_storage_is_waited_for_and_nothing_is_rebuilt(
    client: Perdure, here: Here, undisturbed: Undisturbed
) -> None:
    """Without its marker the root proves nothing about what is missing in it."""
    with pytest.raises(RunFailed):
        client.run(values, run_id=RUN, on_failure="finish")
    here.gate.touch()
    (folder,) = (p.parent for p in Path(client.settings.blobs).rglob("marker.json"))
    away = folder.with_name("unmounted")
    folder.rename(away)
    run = client.resume(RUN)
    wait_until(lambda: unavailable(client), 20, "nobody noticed")

    assert run.status == "RUNNING"
    away.rename(folder)
    run.result()

    check(here.ledger, client, RUN, undisturbed)
    assert set(counts(here.ledger).values()) == {1}, "what was only out of reach was made again"


def unavailable(client: Perdure) -> bool:
    attempts = client.runtime.store.list_attempts(RunId(RUN))
    return any(attempt.cause == "input unavailable" for attempt in attempts)


# --- values that are not kept and not the same twice ----------------------------------------
@task(checkpoint=False)
def moody() -> bytes:
    """Give other bytes each time."""
    with executing():
        return steps.bytes_of(f"{current().generation} {threading.get_ident()}")


@workflow
def mixing() -> list[Any]:
    """One consumer of the moody value commits, the other fails at the gate after it."""
    value = moody.bind()
    kept = unrelated.bind(value)
    return [kept, steps.gated_size.options(after=[kept]).bind(value)]


def fail_beside_a_committed_consumer(client: Perdure, here: Here) -> None:
    with pytest.raises(RunFailed):
        client.run(mixing, run_id=RUN, on_failure="finish")
    assert client.get_run(RUN)["unrelated"].status == "SUCCEEDED"
    here.gate.touch()


def test_rebuilt_value_that_differs_beside_a_committed_consumer_is_reported(
    client: Perdure, here: Here
) -> None:
    fail_beside_a_committed_consumer(client, here)

    with pytest.raises(NondeterminismError, match=r"moody.*unrelated"):
        client.resume(RUN).result()

    assert here.ledger.count("unrelated") == 1, "what was committed ran again"


def test_rebuilt_value_that_differs_makes_its_consumers_run_again_when_asked(
    client: Perdure, here: Here
) -> None:
    fail_beside_a_committed_consumer(client, here)

    result = client.resume(RUN, on_divergence="recompute").result()

    run = client.get_run(RUN)
    digests = {
        row.value.value_digest
        for row in client.runtime.store.list_steps(RunId(RUN))
        if row.step_id == "moody" and row.value is not None
    }
    consumed = {digest for step in ("unrelated", "gated_size") for digest in run[step].row.inputs}  # type: ignore[union-attr]
    assert digests == consumed, "consumers of different values stand side by side"
    assert result[0] == run["unrelated"].result()


# --- values of the result that nobody reads -------------------------------------------------------
@task
def in_a_graph(n: int, noise: int) -> Any:
    return first.bind(n)


@task
def without_noise(noise: int) -> int:
    return 1


@workflow
def from_a_graph(noise: int) -> Any:
    return in_a_graph.bind(1, noise)


@workflow
def from_a_branch(noise: int) -> Any:
    return perdure.when(without_noise.bind(noise), first.bind(1), source.bind(1))


@workflow
def from_equal_inputs(noise: int) -> Any:
    return first.bind(without_noise.bind(noise))


@pytest.mark.parametrize("definition", [from_a_graph, from_a_branch, from_equal_inputs])
def test_lost_value_that_is_taken_over_into_the_result_alone_is_made_again(
    client: Perdure, definition: Any
) -> None:
    """It is taken over while the run goes on: whoever loads a run could not know."""
    wanted = client.run(definition, noise=1, run_id=RUN)
    for path in Path(client.settings.blobs).rglob("blobs/*/blake3-*"):
        path.unlink()

    assert client.run(definition, noise=2, run_id="again", reuse=RUN) == wanted

    assert check_store(client.runtime.rows, client.runtime.blobs).problems == ()


# --- bytes that nothing can make again ------------------------------------------------------------
@task(catch=True)
def forgiving(data: bytes) -> int:
    return len(data)


@workflow
def with_input(data: bytes) -> Any:
    return forgiving.bind(data)


@pytest.mark.parametrize("definition", [with_input, forgiving.bind(steps.bytes_of("constant"))])
def test_lost_input_is_no_failure_to_go_on_with_and_counts_again_once_it_is_back(
    client: Perdure, definition: Any
) -> None:
    inputs = {"data": steps.bytes_of("constant")} if definition is with_input else {}
    client.submit(definition, run_id=RUN, **inputs)
    blobs = Path(client.settings.blobs).rglob("blobs/*/blake3-*")
    (path,) = [each for each in blobs if each.read_bytes() == steps.bytes_of("constant")]
    away = path.rename(path.with_name("away"))

    with pytest.raises(RunFailed, match="is missing"):
        client.resume(RUN).result()
    away.rename(path)

    assert client.resume(RUN).result() == len(steps.bytes_of("constant"))
