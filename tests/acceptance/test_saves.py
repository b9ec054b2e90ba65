"""What steps save while they run: by what it survives, how it is shared, and who sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.acceptance import saving_steps as steps
from tests.crash.ledger import wait_until

import perdure
from perdure.client import Perdure
from perdure.errors import RunFailed
from perdure.story import Siblings
from perdure.view.runs import view_step
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Cause, RunId, SaveRecord


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "mine").mkdir()
    return str(tmp_path / "mine")


def notes(folder: str) -> list[str]:
    return (Path(folder) / "notes").read_text().splitlines()


def saves_of(client: Perdure, run_id: str = "r") -> list[SaveRecord]:
    return client.runtime.store.list_saves(RunId(run_id))


def test_retry_goes_on_from_what_was_saved(client: Perdure, folder: str) -> None:
    assert client.run(steps.count.bind(folder, 4, (2, 3)), run_id="r") == 10

    assert notes(folder) == ["from None", "from 2", "from 3"]


def test_coroutine_goes_on_from_what_was_saved(client: Perdure, folder: str) -> None:
    assert client.run(steps.count_async.bind(folder, 4, (2, 3)), run_id="r") == 10

    assert notes(folder) == ["from None", "from 2", "from 3"]


def test_failed_step_says_what_it_has_saved(inline: Perdure, folder: str) -> None:
    with pytest.raises(RunFailed):
        inline.run(steps.count_once.bind(folder, 4, (2,)), run_id="r")

    step = inline.get_run("r")["count_once"]

    assert "\n  saved at 2, " in step.why()
    assert view_step(step, Siblings(step.run)).saved == [2]


def test_many_coroutines_save_beside_each_other(client: Perdure, tmp_path: Path) -> None:
    folders = [str(tmp_path / f"f{n}") for n in range(8)]
    for each in folders:
        Path(each).mkdir()

    values = client.run([steps.count_async.bind(each, 5, (3,)) for each in folders], run_id="r")

    assert values == [15] * 8


def test_eager_execution_goes_on_from_what_was_saved(folder: str) -> None:
    import perdure

    assert perdure.execute(steps.count.bind(folder, 4, (2, 3))) == 10

    assert notes(folder) == ["from None", "from 2", "from 3"]


def test_eager_execution_saves_folders(folder: str) -> None:
    import perdure

    assert perdure.execute(steps.in_folders.bind(folder)) == f"2 2 {steps.LARGE}"


def test_step_whose_worker_dies_after_each_save_loses_nothing(
    processes: Perdure, folder: str
) -> None:
    assert processes.run(steps.count_and_die.bind(folder, 5), run_id="r") == 15

    assert notes(folder) == ["from None", "from 1", "from 2", "from 3", "from 4"]


def test_resume_goes_on_from_what_a_failed_step_has_saved(client: Perdure, folder: str) -> None:
    with pytest.raises(RunFailed):
        client.run(steps.count_once.bind(folder, 4, (2,)), run_id="r")
    assert [save.at for save in saves_of(client)] == [2]

    assert client.resume("r").result() == 10

    assert notes(folder) == ["from None", "from 2"]


def test_what_is_saved_goes_when_the_step_has_its_value(client: Perdure, folder: str) -> None:
    client.run(steps.count.bind(folder, 3, (), steps.LARGE), run_id="r")

    assert saves_of(client) == []
    digests = list(client.runtime.blobs.list_digests())
    assert client.runtime.store.unreferenced(digests) != []


def test_rerun_begins_anew(inline: Perdure, folder: str) -> None:
    with pytest.raises(RunFailed):
        inline.run(steps.count_once.bind(folder, 4, (2,)), run_id="r")

    inline.rerun("r", dag=steps.count_once.bind(folder, 4, (2,))).result()

    assert notes(folder) == ["from None", "from None"]


def test_folder_is_saved_and_only_what_changed_is_stored(client: Perdure, folder: str) -> None:
    assert client.run(steps.in_folders.bind(folder), run_id="r") == f"2 2 {steps.LARGE}"

    sizes = sorted(blob.size_bytes for blob in client.runtime.blobs.survey())
    assert sizes.count(steps.LARGE) == 1


def test_keep_last_says_how_many_saves_stand(client: Perdure, folder: str) -> None:
    value = client.run(steps.keeps_three.bind(folder), run_id="r")

    assert value == [None, None, 3, 4, 5]


def test_items_of_a_chunk_have_saves_of_their_own(client: Perdure, folder: str) -> None:
    mapped = steps.item.options(chunk=3).map([folder] * 6, [1, 2, 3, 4, 5, 6])

    assert client.run(mapped, run_id="r") == [1, 2, 3, 4, 5, 6]


def test_paused_step_hands_over_and_goes_on_when_resumed(client: Perdure, folder: str) -> None:
    run = client.start(steps.hands_over.bind(folder), run_id="r")
    steps.wait_for(Path(folder) / "begun")

    client.pause("r")
    wait_until(lambda: run.record.status is RunStatus.PAUSED, 20, "it is not paused")

    assert client.resume("r").result() == "went on from 1"
    causes = [attempt.cause for attempt in client.runtime.store.list_attempts(RunId("r"))]
    assert causes[0] is Cause.ABANDONED


def test_cancelled_step_saves_within_its_grace_and_goes_on_when_resumed(
    client: Perdure, folder: str
) -> None:
    run = client.start(steps.hands_over.bind(folder), run_id="r")
    steps.wait_for(Path(folder) / "begun")

    client.cancel("r")
    wait_until(lambda: run.record.status is RunStatus.CANCELLED, 20, "it is not cancelled")

    assert client.resume("r").result() == "went on from 1"


def test_stop_is_refused_where_nobody_asked(client: Perdure) -> None:
    with pytest.raises(RunFailed, match="nobody asked"):
        client.run(steps.stops_unasked.bind())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("lock", "NotSerializable: "),
        ("link", "symbolic link"),
        ("file", "is none. Save a file by the folder"),
        ("at", "DefinitionError: save(..., at='one')"),
    ],
)
def test_what_cannot_be_saved_is_told_to_the_step(
    inline: Perdure, folder: str, what: str, said: str
) -> None:
    assert said in inline.run(steps.saves_badly.bind(folder, what))


def test_progress_is_seen_from_outside_while_the_step_runs(client: Perdure, folder: str) -> None:
    client.start(steps.tells.bind(folder), run_id="r")
    steps.wait_for(Path(folder) / "told")

    def told() -> tuple[object, ...]:
        [attempt] = client.runtime.store.list_attempts(RunId("r"))
        come = attempt.progress
        return () if come is None else (come.done, come.total, come.message)

    wait_until(lambda: told() == (2, 4, "loss 0.5"), 20, "nothing is told")
    step = client.get_run("r")["tells"]
    assert step.why() == "tells runs (attempt 1): 2 of 4, loss 0.5"
    assert view_step(step, Siblings(step.run)).reason == "2 of 4, loss 0.5"
    (Path(folder) / "go").touch()
    assert client.get_run("r").result() == "done"
    [attempt] = client.runtime.store.list_attempts(RunId("r"))
    assert attempt.progress is not None


@pytest.mark.parametrize("message", [{"loss": 0.1}, 5, None])
def test_progress_whose_message_is_no_text_fails_its_step_alone(
    processes: Perdure, message: object
) -> None:
    with pytest.raises(RunFailed, match=r"progress\(\) takes a few words"):
        processes.run(steps.tells_badly.bind(message))


def test_progress_with_a_name_that_is_no_unicode_is_told(client: Perdure) -> None:
    assert client.run(steps.tells_badly.bind("\udcff.csv"), run_id="r") == "done"


def test_damaged_save_is_told_and_the_step_begins_where_it_can(
    inline: Perdure, folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    node = steps.count.options(retries=0).bind(folder, 4, (2,), steps.LARGE)
    with pytest.raises(RunFailed):
        inline.run(node, run_id="r")
    [save] = saves_of(inline)
    inline.runtime.blobs.delete(save.value.integrity)

    assert inline.resume("r").result() == 10

    assert notes(folder) == ["from None", "from None"]
    assert "what was saved at 2 is lost" in "".join(inline.get_run("r").logs())


@perdure.task
def saves_at(place: Any) -> int:
    here = perdure.current()
    here.save("x", at=place)
    saved = here.load()
    assert saved is not None
    return saved.at


def test_place_is_any_whole_number_that_a_store_can_keep(inline: Perdure) -> None:
    assert inline.run(saves_at.bind(np.int64(3))) == 3
    for refused, said in ((10**30, "more than the store can keep"), (1.5, "a whole number")):
        with pytest.raises(RunFailed, match=said):
            inline.run(saves_at.bind(refused))
