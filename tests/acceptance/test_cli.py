from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

SUM = dedent(
    """
    from perdure import task, workflow

    @task
    def double(n: int) -> int:
        print("doubling", n)
        return 2 * n

    @task
    def add(a: int, b: int) -> int:
        return a + b

    @workflow
    def total(k: int = 3, xs: list[int] = [1], shout: bool = False) -> int:
        return add.bind(double.bind(k), 1)
    """
)
FAILS = dedent(
    """
    from perdure import task, workflow

    @task
    def good() -> int:
        open("good.ledger", "a").write("x")
        return 1

    @task
    def bad(n: int) -> int:
        raise ValueError("no rows")

    @workflow
    def fails() -> int:
        return bad.bind(good.bind())
    """
)
WAITS = dedent(
    """
    import pathlib, signal
    from perdure import task, workflow

    @task
    def begin() -> int:
        open("begin.ledger", "a").write("x")
        return 1

    @task
    def stay(n: int) -> int:
        pathlib.Path("staying").touch()
        if not pathlib.Path("go").exists():
            signal.pause()
        return n + 1

    @workflow
    def waits() -> int:
        return stay.bind(begin.bind())
    """
)


POLLS = (
    WAITS.replace("if not", "while not")
    .replace("signal.pause()", "pass")
    .replace("return stay.bind(begin.bind())", "return stay.options(name='then').bind(staying)")
    .replace("def waits() -> int:", "def waits() -> int:\n    staying = stay.bind(begin.bind())")
)


@pytest.fixture
def total(perdure: Any) -> Any:
    perdure.write("sums.py", SUM)
    return perdure


# --- running -------------------------------------------------------------------------------------
def test_run_prints_the_result_to_stdout_and_its_id_to_stderr(total: Any) -> None:
    ended = total("run", "--id", "one", "sums.py")

    assert (ended.code, ended.out) == (0, "7\n")
    assert "one" in ended.err
    assert "perdure resume one" in ended.err


def test_run_takes_typed_parameters_after_the_target(total: Any) -> None:
    ended = total("run", "--id", "one", "sums.py", "--k", "5", "--xs", "1", "--xs", "2", "--shout")

    assert (ended.code, ended.out) == (0, "11\n")


def test_run_takes_the_workflow_by_name_from_a_file_and_from_a_module(total: Any) -> None:
    assert total("run", "sums.py:total").out == "7\n"
    assert total("run", "sums:total", PYTHONPATH=str(total.folder)).out == "7\n"


def test_run_of_the_same_id_returns_what_was_recorded(seen: Any) -> None:
    again = seen("run", "--id", "one", "sums.py")

    assert (again.code, again.out) == (0, "7\n")
    assert "recorded" in again.err


def test_run_of_the_same_id_with_other_inputs_is_refused(seen: Any) -> None:
    again = seen("run", "--id", "one", "sums.py", "--k", "4")

    assert again.code == 2
    assert "one" in again.err
    assert "Traceback" not in again.err


def test_run_takes_over_unchanged_steps_of_another_run(seen: Any) -> None:
    second = seen("run", "--id", "two", "--reuse", "one", "sums.py")

    assert (second.code, second.out) == (0, "7\n")
    assert "one" in seen("why", "two", "double").out


def test_run_lists_the_workflows_parameters_when_asked_for_help(total: Any) -> None:
    ended = total("run", "sums.py", "--help")

    assert ended.code == 0
    assert "--k" in ended.out
    assert "int" in ended.out
    assert "3" in ended.out


def test_run_prints_json_when_asked(total: Any) -> None:
    ended = total("run", "--id", "one", "--json", "sums.py")

    assert json.loads(ended.out)["status"] == "SUCCEEDED"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, command_line_in: Any) -> Any:
    """A folder in which `one` has run: tests that only look, or are refused, share it."""
    command_line = command_line_in(tmp_path_factory.mktemp("seen"))
    command_line.write("sums.py", SUM)
    assert command_line("run", "--id", "one", "sums.py").code == 0
    return command_line


# --- bad input -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "sums.py", "--k", "three"], "k"),
        (["run", "sums.py", "--kk", "3"], "did you mean '--k'"),
        (["run", "sums.py", "3"], "--name value"),
        (["run", "sums.py", "--k"], "--k needs a value"),
        (["run", "sums.py:totl"], "did you mean 'total'"),
        (["run", "sumz.py"], "sumz.py"),
        (["run", "no.such.module:w"], "no module 'no'"),
        (["run", "sums.py:double"], "double"),
        (["run", "--id", "a\nb", "sums.py"], "id"),
        (["run", "--id", "x" * 201, "sums.py"], "200"),
        (["run", "--id", "", "sums.py"], "id"),
        (["run", "--executor", "proceses", "sums.py"], "did you mean 'processes'"),
        (["run", "--reuse", "nothing", "sums.py"], "nothing"),
        (["run", "--tag", "novalue", "sums.py"], "novalue"),
        (["run"], "TARGET"),
        (["frobnicate"], "frobnicate"),
        (["show", "nothing"], "nothing"),
        (["show"], "ID"),
        (["resume", "nothing"], "nothing"),
        (["logs", "nothing"], "nothing"),
        (["why", "nothing", "step"], "nothing"),
        (["cancel", "nothing"], "nothing"),
        (["delete", "--yes", "nothing"], "nothing"),
        (["ls", "--status", "DONE"], "SUCCEEDED"),
        (["ls", "--since", "yesterday"], "yesterday"),
        (["ls", "--limit", "0"], "limit"),
    ],
    ids=lambda value: " ".join(value)[:40].replace("\n", "?") if isinstance(value, list) else "",
)
def test_bad_input_is_refused_with_exit_code_2_and_no_traceback(
    seen: Any, words: list[str], said: str
) -> None:
    ended = seen(*words)

    assert ended.code == 2, ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_file_with_a_syntax_error_is_refused_with_its_place(perdure: Any) -> None:
    perdure.write("broken.py", "def f(:\n    pass\n")

    ended = perdure("run", "broken.py")

    assert ended.code == 2
    assert "broken.py" in ended.err
    assert "line 1" in ended.err or ":1" in ended.err
    assert "perdure/cli" not in ended.err


def test_file_that_raises_when_imported_is_refused_with_its_own_error(perdure: Any) -> None:
    perdure.write("raises.py", "import nothing_of_that_name\n")

    ended = perdure("run", "raises.py")

    assert ended.code == 2
    assert "nothing_of_that_name" in ended.err
    assert "perdure/cli" not in ended.err


def test_file_with_several_workflows_asks_which(perdure: Any) -> None:
    perdure.write("two.py", SUM + "\n@workflow\ndef other() -> int:\n    return add.bind(1, 2)\n")

    ended = perdure("run", "two.py")

    assert ended.code == 2
    assert "two.py:" in ended.err
    assert "total" in ended.err
    assert "other" in ended.err


def test_constant_that_cannot_be_pickled_is_refused_with_its_path(perdure: Any) -> None:
    perdure.write(
        "locks.py",
        "import threading\nfrom perdure import task, workflow\n"
        "@task\ndef f(x: object) -> int:\n    return 1\n"
        "@workflow\ndef w() -> int:\n    return f.bind({'lock': threading.Lock()})\n",
    )

    ended = perdure("run", "locks.py")

    assert ended.code == 2
    assert "lock" in ended.err
    assert "Traceback" not in ended.err


def test_traceback_is_shown_when_asked_for(total: Any) -> None:
    ended = total("show", "--traceback", "nothing")

    assert ended.code == 2
    assert "Traceback" in ended.err


def test_corrupt_database_is_named_and_left_as_it_is(total: Any) -> None:
    total("run", "--id", "one", "sums.py")
    database = total.folder / ".perdure" / "perdure.db"
    for beside in database.parent.glob("perdure.db-*"):
        beside.unlink()
    database.write_bytes(b"this is no database" * 1000)

    ended = total("ls")

    assert ended.code == 2
    assert "perdure.db" in ended.err
    assert "Traceback" not in ended.err
    assert database.read_bytes().startswith(b"this is no database")


def test_deleted_store_is_not_made_again_by_looking(perdure: Any) -> None:
    assert perdure("ls").code == 0
    assert perdure("show", "one").code == 2
    assert not (perdure.folder / ".perdure").exists()


def test_store_of_an_unknown_kind_is_named(total: Any) -> None:
    ended = total("run", "--store", "mysql://me:secret@host/db", "sums.py", PERDURE_BLOBS="blobs")

    assert ended.code == 2
    assert "mysql" in ended.err
    assert "secret" not in ended.err


def test_lost_key_is_named(total: Any) -> None:
    total("run", "--id", "one", "sums.py")
    (total.folder / ".perdure" / "key").unlink()

    ended = total("show", "one")

    assert ended.code == 2
    assert "key" in ended.err


def test_wrong_blob_root_is_named(total: Any, tmp_path: Path) -> None:
    total("run", "--id", "one", "sums.py")

    ended = total("show", "one", PERDURE_BLOBS=str(tmp_path / "elsewhere"))

    assert ended.code == 2
    assert "elsewhere" in ended.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_named(total: Any) -> None:
    total.folder.chmod(0o500)

    ended = total("run", "sums.py")

    total.folder.chmod(0o700)
    assert ended.code in {1, 2}
    assert ".perdure" in ended.err


# --- failing and resuming ------------------------------------------------------------------------
def test_failed_run_shows_the_users_error_and_the_next_command(perdure: Any) -> None:
    perdure.write("fails.py", FAILS)

    ended = perdure("run", "--id", "one", "fails.py")

    assert ended.code == 1
    assert "ValueError: no rows" in ended.err
    assert "fails.py" in ended.err
    assert ended.err.splitlines()[-1].endswith("perdure resume one --code current")
    assert "perdure/cli" not in ended.err


def test_mended_run_resumes_with_current_code_and_keeps_what_was_committed(perdure: Any) -> None:
    perdure.write("fails.py", FAILS)
    perdure("run", "--id", "one", "fails.py")
    perdure.write("fails.py", FAILS.replace('raise ValueError("no rows")', "return n + 1"))

    ended = perdure("resume", "--code", "current", "one")

    assert (ended.code, ended.out) == (0, "2\n")
    assert (perdure.folder / "good.ledger").read_text() == "x"


def test_resume_of_a_finished_run_prints_its_result(seen: Any) -> None:
    assert seen("resume", "one").out == "7\n"


def test_killed_run_is_interrupted_and_resumes_without_running_anything_twice(
    perdure: Any,
) -> None:
    perdure.write("waits.py", WAITS)
    process = perdure.start("run", "--id", "one", "waits.py")
    perdure.wait_for_file("staying", process)
    process.send_signal(signal.SIGKILL)
    process.wait()

    seen = json.loads(perdure("show", "--json", "one").out)
    (perdure.folder / "go").touch()
    ended = perdure("resume", "one")

    assert (seen["status"], seen["running"]) == ("INTERRUPTED", 0)
    assert (ended.code, ended.out) == (0, "2\n")
    assert (perdure.folder / "begin.ledger").read_text() == "x"


def test_interrupted_run_ends_with_130_and_says_how_to_go_on(perdure: Any) -> None:
    perdure.write("waits.py", WAITS)
    process = perdure.start("run", "--id", "one", "waits.py")
    perdure.wait_for_file("staying", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    (perdure.folder / "go").touch()
    ended = perdure("resume", "one")

    assert process.returncode == 130
    assert err.splitlines()[-1] == "next: perdure resume one"
    assert "Traceback" not in err
    assert (ended.code, ended.out) == (0, "2\n")


def test_cancel_from_another_process_ends_the_run_with_130(perdure: Any) -> None:
    perdure.write("waits.py", WAITS)
    process = perdure.start("run", "--id", "one", "waits.py")
    perdure.wait_for_file("staying", process)

    cancelled = perdure("cancel", "one")
    _, err = process.communicate(timeout=30)

    assert cancelled.code == 0
    assert process.returncode == 130
    assert "perdure resume one" in err
    assert json.loads(perdure("show", "--json", "one").out)["status"] == "CANCELLED"


def test_cancel_of_a_finished_run_says_what_it_is(seen: Any) -> None:
    ended = seen("cancel", "one")

    assert ended.code == 2
    assert "SUCCEEDED" in ended.err


# --- looking -------------------------------------------------------------------------------------
def test_ls_lists_runs_newest_first(total: Any) -> None:
    total("run", "--id", "one", "sums.py")
    total("run", "--id", "two", "--tag", "team=a", "sums.py")

    lines = total("ls").out.splitlines()
    tagged = json.loads(total("ls", "--json", "--tag", "team=a").out)

    assert [line.split()[0] for line in lines] == ["ID", "two", "one"]
    assert [run["id"] for run in tagged] == ["two"]


def test_ls_without_a_store_says_so(perdure: Any) -> None:
    ended = perdure("ls")

    assert (ended.code, ended.out) == (0, "")
    assert "no runs" in ended.err


def test_show_names_steps_and_values(seen: Any) -> None:
    text = seen("show", "one").out
    shown = json.loads(seen("show", "--json", "one").out)

    assert "double" in text
    assert [step["id"] for step in shown["steps"]] == ["double", "add"]
    assert {step["status"] for step in shown["steps"]} == {"SUCCEEDED"}


def test_logs_print_what_a_step_printed(seen: Any) -> None:
    assert seen("logs", "one", "double").out == "doubling 3\n"
    assert "doubling 3" in seen("logs", "one").out


def test_logs_follow_until_the_run_ends(perdure: Any) -> None:
    perdure.write(
        "waits.py",
        WAITS.replace(
            'pathlib.Path("staying")', 'print("here", flush=True); pathlib.Path("staying")'
        ),
    )
    run = perdure.start("run", "--id", "one", "waits.py")
    perdure.wait_for_file("staying", run)
    follower = perdure.start("logs", "-f", "one", "stay")
    first = follower.stdout.readline()
    run.send_signal(signal.SIGINT)
    run.wait(timeout=30)
    follower.communicate(timeout=30)

    assert first == "here\n"
    assert follower.returncode == 0


def test_why_says_the_recorded_reason(seen: Any) -> None:
    ended = seen("why", "one", "double")

    assert ended.code == 0
    assert ended.out.strip()


def test_why_of_an_unknown_step_names_the_nearest(seen: Any) -> None:
    ended = seen("why", "one", "doubl")

    assert ended.code == 2
    assert "double" in ended.err


def test_id_may_be_a_unique_prefix_or_a_dash_for_the_last_run(total: Any) -> None:
    total("run", "--id", "alpha", "sums.py")
    total("run", "--id", "beta", "sums.py")

    assert json.loads(total("show", "--json", "al").out)["id"] == "alpha"
    assert json.loads(total("show", "--json", "-").out)["id"] == "beta"


def test_ambiguous_prefix_is_refused_with_the_candidates(total: Any) -> None:
    total("run", "--id", "alpha-1", "sums.py")
    total("run", "--id", "alpha-2", "sums.py")

    ended = total("show", "alpha")

    assert ended.code == 2
    assert "alpha-1" in ended.err
    assert "alpha-2" in ended.err


def test_exact_id_wins_over_a_longer_one_that_begins_with_it(total: Any) -> None:
    total("run", "--id", "alpha", "sums.py")
    total("run", "--id", "alpha-2", "sums.py")

    assert json.loads(total("show", "--json", "alpha").out)["id"] == "alpha"


def test_looking_never_unpickles(perdure: Any) -> None:
    perdure.write(
        "trap.py",
        dedent(
            """
            import pathlib
            from perdure import task, workflow

            def spring():
                pathlib.Path("sprung").touch()
                return Trap()

            class Trap:
                def __reduce__(self):
                    return (spring, ())

            @task
            def make() -> object:
                return Trap()

            @workflow
            def trap() -> object:
                return make.bind()
            """
        ),
    )
    perdure("run", "--id", "one", "trap.py")
    (perdure.folder / "sprung").unlink(missing_ok=True)

    for words in (["ls"], ["show", "one"], ["show", "--json", "one"], ["logs", "one"]):
        assert perdure(*words).code == 0

    assert not (perdure.folder / "sprung").exists()


# --- the rest ------------------------------------------------------------------------------------
def test_delete_asks_for_a_yes_where_nobody_can_answer(total: Any) -> None:
    total("run", "--id", "one", "sums.py")

    refused = total("delete", "one")
    deleted = total("delete", "--yes", "one")

    assert refused.code == 2
    assert "--yes" in refused.err
    assert deleted.code == 0
    assert total("show", "one").code == 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_up_drives_what_was_submitted_and_stops_when_told(
    perdure: Any, number: signal.Signals, code: int
) -> None:
    perdure.write("waits.py", WAITS)
    submitted = perdure("run", "--id", "one", "--detach", "waits.py")
    up = perdure.start("up")
    perdure.wait_for_file("staying", up)
    up.send_signal(number)
    up.communicate(timeout=30)

    (perdure.folder / "go").touch()
    ended = perdure("resume", "one")

    assert submitted.code == 3
    assert "perdure up" in submitted.err
    assert up.returncode == code
    assert (ended.code, ended.out) == (0, "2\n")
    assert (perdure.folder / "begin.ledger").read_text() == "x"


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed, so nothing is missing")
def test_up_without_its_executor_says_what_to_install(perdure: Any) -> None:
    ended = perdure("up", "--executor", "ray")

    assert ended.code == 2
    assert "pip install 'perdure[ray]'" in ended.err
    assert "driving" not in ended.err


def test_version_is_printed(perdure: Any) -> None:
    ended = perdure("--version")

    assert ended.code == 0
    assert ended.out.startswith("perdure ")


def test_help_imports_nothing_that_is_slow_to_import(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "perdure", "--help"]

    report = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    imported = {line.rpartition("|")[2].strip() for line in report.stderr.splitlines()}
    assert "perdure.cli.app" in imported
    assert not imported & {"sqlalchemy", "fsspec", "numpy", "pyarrow", "cloudpickle", "pandas"}


def test_run_that_is_paused_from_outside_ends_as_suspended(perdure: Any) -> None:
    path = perdure.write("waits.py", POLLS)
    process = perdure.start("run", "--id", "p", path)
    perdure.wait_for_file("staying", process)

    assert perdure("pause", "p").code == 0
    threading.Event().wait(0.5)  # requests of other processes are heard within 200 ms
    (perdure.folder / "go").touch()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 3, err
    assert "perdure resume p" in err
    assert perdure("resume", "p").out.strip() == "3"
