"""Fault case 18: whoever may not run code here does not get to, and is refused before unpickling.

Each attack has a pickle that leaves a mark if it is ever read. What each part does in detail is
held where that part is: test_signed_rows, test_hooks, test_http, test_markup, test_transfers.
"""

from __future__ import annotations

import ast
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.acceptance.asking import BASE

import perdure
from perdure import task, workflow
from perdure.client import Perdure
from perdure.errors import DefinitionError, PerdureError, RunConflict, StoreError
from perdure.http.app import make_app
from perdure.http.door import Door
from perdure.http.service import Service
from perdure.http.signatures import SignatureWrong, sign, verify
from perdure.view.writing import page_of
from perdure_scheduler.conditions import Webhook
from perdure_storage.codecs import Codecs
from perdure_storage.errors import KeyMissing, RunFileRefused, ValueDamaged
from perdure_storage.hashing import integrity_digest
from perdure_storage.signing import KeyFile
from perdure_storage.statement import Statement

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("PERDURE_TEST_NAMES", "25"))
EVIL = "<img src=x onerror=alert(1)>"


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


@dataclass(frozen=True)
class Target:
    """A store with a run that has succeeded, and the mark that no attack may leave."""

    folder: Path

    @property
    def mark(self) -> Path:
        return self.folder / "unpickled"

    def open(self) -> Perdure:
        return perdure.open(self.folder / "perdure.db", executor="inline")

    def bomb(self) -> bytes:
        """Return a pickle as perdure would store it."""
        return b"".join(Codecs().encode(Bomb(self.mark)).buffers)

    def tamper(self, sql: str, *given: object) -> None:
        with sqlite3.connect(self.folder / "perdure.db") as connection:
            assert connection.execute(sql, given).rowcount > 0
        connection.close()


@task
def small() -> str:
    return "small"


@task
def large(said: str) -> bytes:
    return said.encode() * 20_000


@workflow
def two() -> bytes:
    return large.bind(small.bind())


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    target = Target(tmp_path)
    with target.open() as store:
        store.run(two, run_id="r")
    yield target
    assert not target.mark.exists(), "something was unpickled"


def test_the_bomb_goes_off_where_it_is_read(tmp_path: Path) -> None:
    target = Target(tmp_path)

    Codecs().unpickle(target.bomb()).close()

    assert target.mark.exists()


# --- rows ----------------------------------------------------------------------------------------
def test_a_tampered_row_is_refused(target: Target) -> None:
    bomb = target.bomb()
    target.tamper(
        "UPDATE step SET place = 'inline', codec = 'pickle/1', data = ?, size_bytes = ?,"
        " integrity = ? WHERE step_id = 'large'",
        *(bomb, len(bomb), integrity_digest([bomb])),
    )

    with target.open() as store, pytest.raises(StoreError, match=r"step 'large'.*tampered"):
        store.get_run("r").result()


def test_a_tampered_exception_is_refused(target: Target) -> None:
    target.tamper("UPDATE run SET status = 'FAILED', error = ?", target.bomb())

    with target.open() as store, pytest.raises(StoreError, match="error of run 'r' was tampered"):
        store.get_run("r").result()


def test_a_swapped_reference_is_refused(target: Target) -> None:
    with target.open() as store:
        digest = store.runtime.blobs.put([target.bomb()])
    target.tamper(
        "UPDATE step SET codec = 'pickle/1', size_bytes = ?, integrity = ? WHERE step_id = 'large'",
        *(len(target.bomb()), digest),
    )

    with target.open() as store, pytest.raises(StoreError, match=r"step 'large'.*tampered"):
        store.get_run("r").result()


def test_a_row_of_another_step_in_its_place_is_refused(target: Target) -> None:
    other = "(SELECT {0} FROM step AS s WHERE s.step_id = 'small')"
    columns = ("place", "codec", "data", "size_bytes", "integrity", "value_digest", "mac")
    swapped = ", ".join(f"{name} = {other.format(name)}" for name in columns)
    target.tamper(f"UPDATE step SET {swapped} WHERE step_id = 'large'")

    with target.open() as store, pytest.raises(StoreError, match=r"step 'large'.*tampered"):
        store.get_run("r").result()


def test_a_wrong_key_is_refused_at_the_door(target: Target) -> None:
    KeyFile(target.folder / "key").replace([b"w" * 32])

    with pytest.raises(StoreError, match="put the right one into"), target.open() as store:
        store.get_run("r")


def test_an_absent_key_is_an_error_and_no_downgrade(target: Target) -> None:
    (target.folder / "key").unlink()

    with pytest.raises(KeyMissing, match="Copy it from where"), target.open() as store:
        store.get_run("r")

    assert not (target.folder / "key").exists()


# --- blobs ---------------------------------------------------------------------------------------
def test_a_tampered_blob_is_refused_and_made_again_by_a_resume(target: Target) -> None:
    with target.open() as store:
        (row,) = [s for s in store.runtime.store.list_steps(_id("r")) if s.step_id == "large"]
        assert row.value is not None
        (blob,) = target.folder.rglob(f"*{row.value.integrity.partition(':')[2]}*")
        blob.chmod(0o644)
        blob.write_bytes(target.bomb().ljust(row.value.size_bytes, b"\0"))

    with target.open() as store:
        with pytest.raises(ValueDamaged):
            store.get_run("r").result()
        assert store.resume("r").result() == b"small" * 20_000


# --- files ---------------------------------------------------------------------------------------
def test_a_run_file_with_pickles_is_refused_without_trust(target: Target, tmp_path: Path) -> None:
    @task
    def inner() -> int:
        return 1

    with target.open() as store:
        store.run(inner.bind(), run_id="pickled")
        store.export_run("pickled", tmp_path / "r.perdure")

    with perdure.open(tmp_path / "other" / "perdure.db") as other:
        with pytest.raises(RunFileRefused, match=r"pickled functions?.*--trust"):
            other.import_run(tmp_path / "r.perdure")
        assert not (tmp_path / "other").exists()
        assert other.list_runs() == []


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "blobs/../../escaped"])
def test_no_name_in_a_run_file_becomes_a_path(target: Target, tmp_path: Path, name: str) -> None:
    with target.open() as store:
        store.export_run("r", tmp_path / "r.perdure")
    with zipfile.ZipFile(tmp_path / "r.perdure", "a") as file:
        file.writestr(name, b"evil")

    with (
        perdure.open(tmp_path / "deep" / "er" / "perdure.db") as other,
        pytest.raises(RunFileRefused),
    ):
        other.import_run(tmp_path / "r.perdure", trust=True)

    assert not list(tmp_path.rglob("*escaped*"))


# --- names ---------------------------------------------------------------------------------------
def test_markup_in_names_is_text_on_every_page(tmp_path: Path) -> None:
    @task(name=EVIL)
    def named() -> dict[str, str]:
        print(EVIL)
        return {EVIL: EVIL}

    @workflow(name=EVIL)
    def flow(x: str = EVIL) -> dict[str, str]:
        return named.bind()

    with perdure.open(tmp_path / "perdure.db", executor="inline") as store:
        store.run(flow, run_id=EVIL, tags={EVIL: EVIL}, metadata={EVIL: EVIL})
        page = page_of(store.get_run(EVIL))
        answer = TestClient(make_app(Service(store), Door()), base_url=BASE).get("/v1/runs")

    assert EVIL not in page
    assert "&lt;img src=x" in page
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


_names = st.one_of(
    st.sampled_from(
        ["../../escaped", "/etc/escaped", "..", "a/../../escaped", "escaped\\..\\x", "%2e%2e%2f"]
    ),
    st.sampled_from(
        ["'; DROP TABLE run; --", '" OR 1=1 --', "escaped\n", "%s", "?", ":of_run", "\u202eevil"]
    ),
    st.text(min_size=1, max_size=40),
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Perdure]]:
    folder = tmp_path_factory.mktemp("names") / "deep" / "er"
    folder.mkdir(parents=True)
    with perdure.open(folder / "perdure.db", executor="inline") as store:
        yield folder, store


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=_names, tag=_names)
def test_names_of_users_are_neither_paths_nor_sql(
    watched: tuple[Path, Perdure], name: str, tag: str
) -> None:
    folder, store = watched
    marked = f"q7{name}"
    asking = TestClient(make_app(Service(store), Door()), base_url=BASE)

    with suppress(DefinitionError, RunConflict, StoreError):  # refused in words is as good
        store.run(small.bind(), run_id=marked, tags={tag: marked})
        store.list_runs(tags={tag: marked}, workflow=marked)
        page_of(store.get_run(marked))
    with suppress(DefinitionError, RunConflict, StoreError):
        store.run(small.options(name=marked).bind())
    answer = asking.get(f"/v1/runs/{_quoted(marked)}")

    assert answer.status_code < 500
    assert _statements_of(store), "statements are kept where this test looks for them"
    assert not [sql for sql in _statements_of(store) if "q7" in sql]
    outside = [path for path in folder.parents[1].rglob("*") if folder not in path.parents]
    assert sorted(path.name for path in outside) == ["deep", "er"]
    assert not [path for path in folder.rglob("*") if "q7" in path.name]


def test_no_statement_is_put_together_but_of_constants() -> None:
    """Every text that goes to a driver by itself is a literal, or has CONSTANTS alone in it."""
    found = []
    for path in sorted((ROOT / "storage" / "perdure_storage").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _goes_to_a_driver(node) and node.args:
                found += [
                    f"{path.name}: {ast.unparse(part)}"
                    for part in ast.walk(node.args[0])
                    if isinstance(part, ast.FormattedValue)
                    and not (isinstance(part.value, ast.Name) and part.value.id.isupper())
                ]

    # Names of savepoints are counted.
    assert sorted(set(found)) == ["database.py: {name}"]


# --- what is secret ------------------------------------------------------------------------------
def test_a_password_in_a_url_is_in_no_message(tmp_path: Path) -> None:
    url = "postgresql://me:hunter2hunter2@127.0.0.1:9/nowhere"

    with (
        pytest.raises(PerdureError) as refused,
        perdure.open(url, blobs=str(tmp_path / "blobs")) as store,
    ):
        store.list_runs()

    told: BaseException | None = refused.value
    while told is not None:
        assert "hunter2" not in str(told)
        told = told.__cause__


def test_credentials_of_blobs_are_not_in_the_store(tmp_path: Path) -> None:
    from perdure_storage.connect import open_run_store

    store = open_run_store(tmp_path / "perdure.db")
    store.bind_blobs("s3://key:hunter2hunter2@host/bucket?token=hunter2")
    store.close()

    assert b"hunter2" not in (tmp_path / "perdure.db").read_bytes()


# --- webhooks ------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", ["body", "id", "time", "key"])
def test_a_forged_webhook_is_refused(change: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    headers, body, key = _signed(now)
    forged: dict[str, Any] = {"headers": headers, "body": body, "keys": [key]}
    forged |= {
        "body": {"body": b"{}"},
        "id": {"headers": {**headers, "webhook-id": "d2"}},
        "time": {"headers": {**headers, "webhook-timestamp": "9999999999"}},
        "key": {"keys": [b"another"]},
    }[change]

    with pytest.raises(SignatureWrong):
        verify(Webhook(keys=["HOOK"]), now=now, **forged)


def test_a_replayed_webhook_is_refused_once_it_is_old() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    headers, body, key = _signed(now)
    webhook = Webhook(keys=["HOOK"])

    assert verify(webhook, [key], headers, body, now + timedelta(minutes=4)) == "d1"
    with pytest.raises(SignatureWrong, match="s ago"):
        verify(webhook, [key], headers, body, now + timedelta(minutes=6))


def _signed(now: datetime) -> tuple[dict[str, str], bytes, bytes]:
    key, body, at = b"the key of the hook", b'{"n": 1}', str(int(now.timestamp()))
    names = {"webhook-id": "d1", "webhook-timestamp": at}
    return {**names, "webhook-signature": sign(key, "d1", at, body)}, body, key


def _goes_to_a_driver(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("execute", "exec_driver_sql", "notify", "ask", "text", "Statement")


def _statements_of(store: Perdure) -> list[str]:
    statements = store.runtime.rows.database.statements
    found = [*vars(statements).values(), *statements._shapes.values()]
    return [each.sql for each in found if isinstance(each, Statement)]


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _id(text: str) -> Any:
    return text
