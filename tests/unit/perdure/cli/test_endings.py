from __future__ import annotations

import pytest

from perdure.advice import with_store
from perdure.cli.endings import (
    ExitCode,
    Interrupted,
    UsageError,
    exit_code,
    next_command,
    report,
)
from perdure.errors import (
    CodeChanged,
    DefinitionError,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotFound,
    StoreError,
    ValueDamaged,
    ValueUnavailable,
)
from perdure_storage.errors import KeyMissing, SchemaMismatch, StoreUnavailable


def failed(cause: Exception) -> RunFailed:
    error = RunFailed("step fit failed", run_id="iris-1", step_id="fit")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (failed(ValueError("no")), ExitCode.FAILED),
        (UsageError("what"), ExitCode.USAGE),
        (DefinitionError("cycle"), ExitCode.USAGE),
        (RunConflict("other inputs"), ExitCode.USAGE),
        (RunNotFound("x", "sqlite:///s"), ExitCode.USAGE),
        (StoreError("no"), ExitCode.USAGE),
        (StoreUnavailable("disk full"), ExitCode.FAILED),
        (PermissionError(13, "Permission denied", "/x"), ExitCode.FAILED),
        (RunCancelled("by you", run_id="iris-1"), ExitCode.CANCELLED),
        (Interrupted("iris-1"), ExitCode.CANCELLED),
        (ZeroDivisionError("ours"), ExitCode.FAILED),
    ],
)
def test_error_ends_with_its_exit_code(error: Exception, code: ExitCode) -> None:
    assert exit_code(error) is code


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (CodeChanged("prep.scale"), "perdure resume iris-1 --code current"),
        (Interrupted("iris-1"), "perdure resume iris-1"),
        (StoreUnavailable("locked"), "perdure resume iris-1"),
        (StoreUnavailable("it went away", is_gone=True), None),
        (RunNotFound("x", "sqlite:///s"), "perdure ls"),
        (UsageError("what"), None),
    ],
)
def test_next_command_fits_the_cause(error: Exception, command: str | None) -> None:
    assert next_command(error, "iris-1") == command


def test_next_command_quotes_an_id_that_a_shell_would_split() -> None:
    assert next_command(Interrupted("team a/iris; rm"), None) == "perdure resume 'team a/iris; rm'"


def test_report_shows_no_traceback_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    report(failed(ValueError("no")), run_id=None, show_traceback=False)
    plain = capsys.readouterr().err
    report(failed(ValueError("no")), run_id=None, show_traceback=True)
    full = capsys.readouterr().err

    assert "Traceback" not in plain
    assert plain == "error: step fit failed\n"
    assert "RunFailed" in full


def test_report_does_not_repeat_a_command_that_the_error_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = StoreUnavailable("locked; type: perdure resume iris-1")

    report(error, run_id="iris-1", show_traceback=False)

    assert capsys.readouterr().err.count("perdure resume iris-1") == 1


def test_report_does_not_blame_perdure_for_the_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report(PermissionError(13, "Permission denied", "/x"), run_id=None, show_traceback=False)

    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: '/x'\n"


def test_report_asks_for_a_report_when_the_error_is_not_the_users(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report(ZeroDivisionError("ours"), run_id=None, show_traceback=False)

    assert "perdure is wrong, not you" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (ValueDamaged("gone"), "perdure resume iris-1"),
        (ValueUnavailable("no answer"), "perdure resume iris-1"),
        (KeyMissing("signed"), None),
        (SchemaMismatch("older: type `perdure db upgrade`"), None),
        (StoreError("tampered"), "perdure doctor"),
    ],
)
def test_next_command_for_a_run_whose_storage_has_something(
    error: Exception, command: str | None
) -> None:
    assert next_command(error, "iris-1") == command


@pytest.mark.parametrize("error", [StoreError("no"), ValueUnavailable("no answer")])
def test_storage_that_has_something_is_looked_at_when_no_run_is_meant(error: Exception) -> None:
    assert next_command(error, None) == "perdure doctor"


def test_commands_that_are_named_lead_to_the_store_that_was_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = RunConflict("it is RUNNING. Type `perdure cancel x` first, or `perdure run TARGET`")

    report(error, store="/data/my.db")
    report(Interrupted("iris-1"), store="/data/my.db")

    said = capsys.readouterr().err
    assert "`perdure cancel x --store /data/my.db` first, or `perdure run TARGET`" in said
    assert "next: perdure resume iris-1 --store /data/my.db\n" in said


def test_command_that_leads_to_its_store_already_stays_as_it_is() -> None:
    text = "Mend it, then: perdure resume x --code current --store /a.db"

    assert with_store(text, "/a.db") == text
