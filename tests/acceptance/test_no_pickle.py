"""Stores without pickle: usable for what has another form; nothing in them is ever unpickled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.acceptance import plain_steps
from tests.acceptance.plain_steps import Colour, Day, Place, Price

import perdure
from perdure import task, workflow
from perdure.client import Perdure
from perdure.errors import DefinitionError, NotSerializable, RunFailed, StepFailed, StoreError
from perdure.settings import load_settings
from perdure_storage.errors import RunFileRefused


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Perdure]:
    with perdure.open(tmp_path / "perdure.db", allow_pickle=False, executor="inline") as store:
        yield store


def _everything() -> dict[str, Any]:
    place = Place(UUID(int=7), Path("/somewhere"))
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        "days": [Day(2 * n, date(2026, 1, 1 + n)) for n in range(3)],
        "total": 16,
        "things": (Price(amount=Decimal("1.5")), place, Colour.RED, moment, timedelta(days=1)),
        "array": [0, 1, 2],
    }


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_data_classes_maps_actors_and_classes_need_no_pickle(tmp_path: Path, executor: str) -> None:
    with perdure.open(tmp_path / "perdure.db", allow_pickle=False, executor=executor) as store:
        value = store.run(plain_steps.everything, run_id="r")
        again = store.run(plain_steps.everything, run_id="r")

    assert value == again == _everything()
    assert _codecs(tmp_path) <= {"json/1", "json+types/1"}
    assert b"\x80\x05" not in (tmp_path / "perdure.db").read_bytes()  # how a pickle begins


def test_a_value_that_needs_pickle_is_refused_where_it_is_made(store: Perdure) -> None:
    with pytest.raises(RunFailed, match=r'result\["a"\]\[1\] cannot be stored without') as refused:
        store.run(plain_steps.lumps)

    said = str(refused.value)
    assert "plain_steps.Lump has no JSON form" in said
    assert "allow_pickle=False, which takes" in said
    assert "__getstate__" not in said


def test_a_function_that_would_be_pickled_is_refused_before_the_run_exists(store: Perdure) -> None:
    @task
    def inner() -> int:
        return 1

    @workflow
    def local() -> int:
        return inner.bind()

    with pytest.raises(NotSerializable, match=r"inner cannot be imported.*move it into a module"):
        store.run(local)

    assert store.list_runs() == []


def test_an_exception_is_told_in_words_and_stored_as_no_pickle(
    store: Perdure, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match="the user's own") as failed:
        store.run(plain_steps.failing)

    assert isinstance(failed.value.__cause__, StepFailed)
    assert b"\x80\x05" not in (tmp_path / "perdure.db").read_bytes()


def test_what_was_pickled_before_is_not_read(tmp_path: Path) -> None:
    with perdure.open(tmp_path / "perdure.db", executor="inline") as trusting:
        trusting.run(plain_steps.lumps, run_id="lumps")

    with perdure.open(tmp_path / "perdure.db", allow_pickle=False, executor="inline") as store:
        with pytest.raises(StoreError, match=r"pickle/1.*allow_pickle=False"):
            store.get_run("lumps").result()
        assert "lump" in [step.id for step in store.get_run("lumps").steps()]


@pytest.mark.parametrize(("word", "allowed"), [("false", False), ("0", False), ("TRUE", True)])
def test_the_environment_says_whether_there_is_pickle(
    tmp_path: Path, word: str, allowed: bool
) -> None:
    settings = load_settings(environ={"PERDURE_ALLOW_PICKLE": word}, start=tmp_path)

    assert settings.allow_pickle is allowed


def test_a_word_that_is_no_truth_value_is_refused_not_taken_for_yes(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"allow_pickle='no'.*write true or false"):
        load_settings(environ={"PERDURE_ALLOW_PICKLE": "no"}, start=tmp_path)


def _codecs(folder: Path) -> set[str]:
    connection = sqlite3.connect(folder / "perdure.db")
    found = {codec for (codec,) in connection.execute("SELECT codec FROM step") if codec}
    connection.close()
    return found


def test_a_run_file_with_pickles_is_refused_whether_it_is_trusted_or_not(
    store: Perdure, tmp_path: Path
) -> None:
    with perdure.open(tmp_path / "other" / "perdure.db", executor="inline") as trusting:
        trusting.run(plain_steps.lumps, run_id="lumps")
        trusting.export_run("lumps", tmp_path / "lumps.perdure")

    with pytest.raises(RunFileRefused, match="allow_pickle=False"):
        store.import_run(tmp_path / "lumps.perdure", trust=True)

    assert store.list_runs() == []
