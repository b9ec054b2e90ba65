from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from perdure.engine.restore import MAX_TAKEOVERS
from perdure.remedies import Cell, Shell, sentence, shell_of
from perdure.settings import Settings
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Cause, Digest, ErrorRecord, RunId, RunRecord

RECORD = RunRecord(
    id=RunId("iris-1"),
    workflow="iris",
    status=RunStatus.FAILED,
    plan_digest=Digest("blake3:0"),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def failed(type: str, cause: Cause, step_id: str | None = "fit", takeovers: int = 0) -> RunRecord:
    error = ErrorRecord(type=type, message="no", cause=cause, step_id=step_id)
    return replace(RECORD, error=error, takeovers=takeovers)


@pytest.mark.parametrize(
    ("record", "options"),
    [
        (failed("builtins.ValueError", Cause.USER_ERROR), "--code current"),
        (failed("perdure_storage.errors.NotSerializable", Cause.USER_ERROR), "--code current"),
        (failed("perdure.errors.StepTimeout", Cause.TIMEOUT), "--code current"),
        (failed("builtins.TimeoutError", Cause.TIMEOUT, None), ""),
        (failed("perdure.errors.WorkerLost", Cause.WORKER_LOST), ""),
        (failed("perdure.errors.WorkerLost", Cause.OUT_OF_MEMORY), "--code current"),
        (
            failed("perdure.errors.WorkerLost", Cause.WORKER_LOST, takeovers=MAX_TAKEOVERS),
            "--code current",
        ),
        (failed("perdure.errors.CodeChanged", Cause.SETUP_ERROR), "--code current"),
        (failed("perdure.errors.SecretMissing", Cause.SETUP_ERROR), ""),
        (failed("builtins.ModuleNotFoundError", Cause.SETUP_ERROR), ""),
        (failed("builtins.ModuleNotFoundError", Cause.USER_ERROR), "--code current"),
        (failed("builtins.AttributeError", Cause.SETUP_ERROR), "--code current"),
        (failed("perdure_storage.errors.ValueDamaged", Cause.INPUT_LOST), ""),
        (failed("perdure_storage.errors.ValueUnavailable", Cause.INPUT_UNAVAILABLE), ""),
        (
            failed("perdure.errors.NondeterminismError", Cause.ENGINE_ERROR),
            "--on-divergence recompute",
        ),
        (failed("perdure.errors.DefinitionError", Cause.ENGINE_ERROR, None), ""),
        (RECORD, ""),
    ],
)
def test_command_fits_the_cause(record: RunRecord, options: str) -> None:
    said = sentence(record, Shell())

    assert said.endswith(f": perdure resume iris-1 {options}".rstrip())


def test_storage_that_does_not_answer_is_to_be_looked_at_first() -> None:
    record = failed("perdure_storage.errors.ValueUnavailable", Cause.INPUT_UNAVAILABLE)

    assert "`perdure doctor --store /a.db`" in sentence(record, Shell(store="/a.db"))


def test_command_leads_to_the_store_that_a_program_opened() -> None:
    settings = Settings(
        store="sqlite:////data/my runs.db",
        blobs="s3://bucket/x",
        origin={"store": "argument", "blobs": "argument"},
    )

    command = shell_of(settings).resume("a b")

    assert command == (
        "PERDURE_BLOBS=s3://bucket/x perdure resume 'a b' --store '/data/my runs.db'"
    )


@pytest.mark.parametrize("origin", ["environment", "default", "/p/pyproject.toml"])
def test_command_says_nothing_of_a_store_that_the_settings_find_again(origin: str) -> None:
    settings = Settings(
        store="sqlite:////data/p.db", blobs="/data/b", origin={"store": origin, "blobs": "default"}
    )

    assert shell_of(settings).resume("iris-1") == "perdure resume iris-1"


def test_command_shows_no_password() -> None:
    settings = Settings(
        store="postgresql://ann:hunter2@db/x", blobs="/b", origin={"store": "argument"}
    )

    assert "hunter2" not in shell_of(settings).command("ls")
    assert "ann:***@db" in shell_of(settings).command("ls")


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("resume", "iris-1", "--code", "current"), 'perdure.resume("iris-1", code="current")'),
        (
            ("fork", "a", "--force", "failed", "--on-change", "reuse"),
            'perdure.fork("a", force="failed", on_change="reuse")',
        ),
        (("fork", "a", "--from", "fit"), 'perdure.fork("a", from_step="fit")'),
        (("signal", "a", "go"), 'perdure.signal("a", "go")'),
        (("signal", "a", "go", "--value", "..."), 'perdure.signal("a", "go", value=...)'),
        (("show", "a"), 'perdure.get_run("a")'),
        (("show", "a", "fit"), 'perdure.get_run("a")["fit"]'),
        (("logs", "a", "fit"), 'perdure.get_run("a")["fit"].logs()'),
        (("ls",), "perdure.list_runs()"),
        (("resume", 'say "a"'), "perdure.resume('say \"a\"')"),
        (("up",), "perdure up"),
    ],
)
def test_command_in_a_notebook_is_the_call_that_does_the_same(
    words: tuple[str, ...], call: str
) -> None:
    assert Cell().command(*words) == call


def test_command_in_a_notebook_leads_to_the_store_that_was_opened() -> None:
    cell = Cell(store="/a.db", blobs="s3://b/x")

    assert cell.resume("r") == 'perdure.open("/a.db", blobs="s3://b/x").resume("r")'
