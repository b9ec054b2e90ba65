"""`perdure show` and `why`: what became of a run and of each step, and how."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.acceptance.terminals import Terminal

RUNS = dedent(
    """
    import pathlib
    from perdure import Backoff, Secret, Static, task, workflow

    @task
    def load(path: str) -> list[int]:
        return [1, 2, 3]

    @task(memory="64MiB", cpus=0.5, timeout="10m", retries=2, backoff=Backoff("10ms"))
    def fit(rows: list[int], k: int, scale: float) -> int:
        tries = pathlib.Path("tries")
        tries.open("a").write("x")
        if len(tries.read_text()) < 3:
            raise ValueError("no rows")
        return k

    @workflow
    def tries(path: str = "iris.csv", k: int = 3) -> int:
        return fit.bind(load.bind(path), k=k, scale=0.5)

    @task
    def item(n: int) -> int:
        if n == 41:
            raise ValueError("bad item")
        return n

    @task
    def gather(items: list[int]) -> int:
        return sum(items)

    @workflow
    def wide(count: Static[int] = 60) -> int:
        return gather.bind([item.bind(n) for n in range(count)])

    @task
    def names(count: int) -> list[str]:
        return [f"{n}.csv" for n in range(count)]

    @task
    def parse(name: str) -> int:
        if name in ("3.csv", "5.csv"):
            raise ValueError(f"bad {name}")
        return 1

    @workflow
    def mapped(count: int = 6) -> int:
        return gather.bind(parse.options(key=lambda name: name).map(names.bind(count)))

    @workflow
    def caught(count: int = 6) -> int:
        return parse.options(catch=True).map(names.bind(count))

    def is_two(n: int) -> bool:
        return n == 2

    @workflow
    def enough() -> list[int]:
        return item.options(stop_when=is_two).map([1, 2, 3])

    @task
    def outer() -> int:
        return item.bind(41)

    @workflow
    def guarded() -> int:
        return outer.options(catch=True).bind()
    """
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, command_line_in: Any) -> Any:
    """A folder with `one`, of which a step was tried thrice, and `wide`, one of 61 steps."""
    command_line = command_line_in(tmp_path_factory.mktemp("seen"))
    command_line.write("runs.py", RUNS)
    assert command_line("run", "--id", "one", "runs.py:tries").code == 0
    wide = command_line("run", "--id", "wide", "--executor", "inline", "runs.py:wide")
    assert wide.code == 1
    ended = command_line("run", "--id", "mapped", "--executor", "inline", "runs.py:mapped")
    assert ended.code == 1
    ended = command_line("run", "--id", "caught", "--executor", "inline", "runs.py:caught")
    assert ended.code == 0
    for name in ("enough", "guarded"):
        ended = command_line("run", "--id", name, "--executor", "inline", f"runs.py:{name}")
        assert ended.code == 0
    return command_line


# --- a run ---------------------------------------------------------------------------------------
def test_wide_run_is_summed_up_by_name_with_what_failed_below(seen: Any) -> None:
    shown = seen("show", "wide")
    lines = [line.split() for line in shown.out.splitlines() if line.strip()]

    assert ["STEPS", "ALL", "DONE", "FAILED", "RUNNING", "WAITING", "TYPICALLY"] in lines
    assert any(line[:4] == ["item", "60", "59", "1"] for line in lines)
    assert any(line[:3] == ["gather", "1", "1"] for line in lines)
    assert [line[0] for line in lines if "FAILED" in line[1:2]] == ["status", "item#42"]
    assert "--all lists all 61 steps" in shown.err


def test_all_lists_every_step_of_a_wide_run(seen: Any) -> None:
    lines = seen("show", "--all", "wide").out.splitlines()

    assert sum(line.startswith(("item", "gather")) for line in lines) == 61


def test_status_lists_only_steps_of_it(seen: Any) -> None:
    failed = json.loads(seen("show", "--json", "--status", "failed", "wide").out)
    text = seen("show", "--status", "failed", "wide").out

    assert [step["id"] for step in failed["steps"]] == ["item#42"]
    assert failed["total"] == 61
    assert re.search(r"^item#42 +FAILED", text, re.MULTILINE)
    assert "SUCCEEDED" not in text


def test_status_that_no_step_can_have_is_refused_with_the_nearest(seen: Any) -> None:
    ended = seen("show", "--status", "faild", "wide")

    assert ended.code == 2
    assert "FAILED" in ended.err


def test_status_that_no_step_has_is_said_to_be_so(seen: Any) -> None:
    ended = seen("show", "--status", "running", "wide")

    assert ended.code == 0
    assert "no step is RUNNING" in ended.err


def test_failed_run_names_the_next_command_as_text_and_as_json(seen: Any) -> None:
    command = "perdure resume wide --code current"

    assert command in seen("show", "wide").err
    assert command in json.loads(seen("show", "--json", "wide").out)["next"]


def test_who_drives_a_run_and_its_deadline_are_shown(perdure: Any) -> None:
    perdure.write(
        "stays.py",
        "import pathlib, time\nfrom perdure import task, workflow\n"
        "@task\ndef stay() -> int:\n"
        "    pathlib.Path('staying').touch()\n"
        "    while not pathlib.Path('go').exists():\n        time.sleep(0.02)\n    return 1\n"
        "@workflow\ndef stays() -> int:\n    return stay.bind()\n",
    )
    run = perdure.start("run", "--id", "one", "--deadline", "1h", "stays.py")
    perdure.wait_for_file("staying", run)

    shown = json.loads(perdure("show", "--json", "one").out)
    text = perdure("show", "one").out
    (perdure.folder / "go").touch()
    run.communicate(timeout=60)

    assert shown["driver"].startswith(f"process {run.pid} on ")
    assert (shown["running"], shown["total"]) == (1, 1)
    assert "deadline" in shown
    assert f"process {run.pid}" in text
    assert "0 of 1 done, 1 running" in text
    assert "next" not in shown


# --- a map of which items failed -----------------------------------------------------------------
FAILED_ITEMS = (
    "2 of 6 items failed, 4 done: "
    "parse[3.csv] (item 3, given '3.csv'); parse[5.csv] (item 5, given '5.csv')"
)


def test_failed_map_tells_which_items_failed_with_what_they_were_given(seen: Any) -> None:
    text = seen("show", "mapped").out

    assert "6 of 10 done" not in text
    assert "5 of 10 done, 2 failed, 3 not finished" in text
    assert "ValueError: bad 3.csv (step parse[3.csv], item 3, given '3.csv')" in text
    assert re.search(rf"^parse +not finished +1 .*{re.escape(FAILED_ITEMS)}$", text, re.MULTILINE)
    assert re.search(r"^parse\[5.csv\] +FAILED .*bad 5.csv \(item 5, given '5.csv'\)", text, re.M)
    assert re.search(
        r"^gather +not begun +it takes the value of parse, which has none: 2 of 6 items failed,",
        text,
        re.M,
    )
    assert "CANCELLED" not in text


def test_why_of_a_failed_map_and_of_what_needs_it(seen: Any) -> None:
    parse, gather = (seen("why", "mapped", step).out for step in ("parse", "gather"))

    told, attempt = parse.splitlines()
    assert told == f"parse has no value: {FAILED_ITEMS}"
    assert attempt.startswith("  attempt 1 gave its items after ")
    assert re.search(r"^1 +gave its items ", seen("show", "mapped", "parse").out, re.M)
    assert gather == (
        "gather did not run: it takes the value of parse, which has none: "
        "2 of 6 items failed, 4 done\n"
    )


def test_why_of_a_run_that_has_ended_tells_how_far_it_came_and_what_to_type(seen: Any) -> None:
    failed, caught = (seen("why", run).out.splitlines() for run in ("mapped", "caught"))

    assert re.match(
        "mapped is FAILED: 5 of 10 steps done, 2 failed, 1 not finished, 2 not begun, in .+s$",
        failed[0],
    )
    assert failed[1].startswith("  step parse[3.csv]: ValueError: bad 3.csv")
    assert failed[2].endswith("perdure resume mapped --code current")
    assert re.match("caught is SUCCEEDED: 9 of 9 steps done, 2 failed and caught, in", caught[0])


def test_list_of_runs_says_what_failed(seen: Any) -> None:
    lines = seen("ls").out.splitlines()

    assert lines[0].split()[-1] == "ERROR"
    assert any("ValueError: bad 3.csv (step parse[3.csv])" in line for line in lines)


def test_caught_failures_are_counted_with_the_command_that_redoes_them(seen: Any) -> None:
    said = seen("show", "caught").err

    assert "2 failures were caught" in said
    assert "perdure fork caught --force failed --on-change reuse" in said


def test_what_stop_when_ended_is_not_counted_as_failed(seen: Any) -> None:
    assert "CANCELLED" in seen("show", "enough").out
    assert "caught" not in seen("show", "enough").err


def test_failure_that_a_step_around_it_caught_is_counted_once(seen: Any) -> None:
    assert "1 failure was caught; redo" in seen("show", "guarded").err


# --- a step --------------------------------------------------------------------------------------
def test_step_shows_what_it_takes_and_from_where(seen: Any) -> None:
    text = seen("show", "one", "fit").out

    assert "[0]: step load = [1, 2, 3]" in text
    assert "k: parameter k = 3" in text
    assert "scale: constant = 0.5" in text
    assert re.search(r"task +runs.fit \(.*runs.py:\d+\)", text)


def test_step_shows_what_it_asked_for_and_held(seen: Any) -> None:
    text = seen("show", "one", "fit").out

    assert re.search(r"memory +asked for 64.0 MiB, held [\d.]+ MiB at most", text)
    assert re.search(r"cpus +0.5", text)
    assert re.search(r"timeout +10 min", text)
    assert re.search(r"retries +2", text)


def test_step_shows_each_attempt_with_its_cause_and_memory(seen: Any) -> None:
    detail = json.loads(seen("show", "--json", "one", "fit").out)

    assert [each["cause"] for each in detail["attempts"]] == [
        "user error", "user error", "succeeded"
    ]  # fmt: skip
    assert all(each["peak_memory_bytes"] > 1 << 20 for each in detail["attempts"])
    assert all(each["worker"] and each["started_at"] for each in detail["attempts"])
    assert detail["inputs"][0] == {
        "name": "[0]", "of": "step load", "preview": detail["inputs"][0]["preview"]
    }  # fmt: skip


def test_failed_step_shows_the_traceback_of_the_users_code(seen: Any) -> None:
    text = seen("show", "wide", "item#42").out

    assert "runs.py" in text
    assert text.rstrip().endswith("ValueError: bad item")


def test_why_tells_each_attempt_and_its_cause(seen: Any) -> None:
    lines = seen("why", "one", "fit").out.splitlines()

    assert lines[0] == "fit ran (3 attempts): it had not run before"
    assert re.fullmatch(r"  attempt 1 failed after .*: ValueError: no rows", lines[1])
    assert re.fullmatch(r"  attempt 3 succeeded after .*", lines[3])


def test_why_names_the_parameter_that_changed_also_downstream(seen: Any) -> None:
    ended = seen("run", "--id", "two", "--reuse", "one", "runs.py:tries", "--path", "other.csv")

    assert ended.code == 0
    assert "parameter path changed" in seen("why", "two", "load").out
    # load gave the same rows again: fit was spared though something above it had changed.
    assert "its inputs turned out unchanged" in seen("why", "two", "fit").out


# --- terminals -----------------------------------------------------------------------------------
@pytest.mark.parametrize("words", [["wide"], ["one"], ["one", "fit"]], ids=" ".join)
def test_nothing_is_wider_than_a_terminal_of_40_columns(seen: Any, words: list[str]) -> None:
    folder: Path = seen.folder
    terminal = Terminal(["-m", "perdure", "show", *words], folder, columns=40, NO_COLOR="1")

    code = terminal.wait()
    terminal.close()

    assert code == 0
    text = re.sub(rb"\x1b\[[0-9;]*m", b"", terminal.sent).decode()
    tables = [line for line in text.splitlines() if not line.startswith(("Mend", "--all"))]
    assert len(tables) > 5
    assert [line for line in tables if len(line) > 40] == []
    assert not re.search(rb"\x1b\[3\dm", terminal.sent)


LIVES = dedent(
    """
    from perdure import task, workflow

    @task
    def load() -> list[int]:
        return {rows}

    @task
    def fit(rows: list[int]) -> int:
        return {left}

    @workflow
    def lives() -> int:
        return fit.bind(load.bind())
    """
)


def test_lives_of_a_result_are_shown_one_below_the_other(
    command_line_in: Any, tmp_path: Any
) -> None:
    command_line = command_line_in(tmp_path)
    words = ("run", "--id", "one", "--executor", "inline", "lives.py")
    command_line.write("lives.py", LIVES.format(rows=[1], left="fails"))
    command_line(*words)
    command_line.write("lives.py", LIVES.format(rows=[2], left="1"))
    ended = command_line(*words)

    text = command_line("show", "one", "load").out
    lives = json.loads(command_line("show", "--json", "one", "load").out)["generations"]

    assert ended.code == 0, ended.err
    assert re.search(r"^1 +SUCCEEDED +\[1\] +it had not run before *$", text, re.MULTILINE)
    assert re.search(r"^2 \(counts\) +SUCCEEDED +\[2\] +its code changed", text, re.MULTILINE)
    assert re.search(r"^1/1 +succeeded", text, re.MULTILINE), "it does not run any more"
    assert [life["preview"]["repr"] for life in lives] == ["[1]", "[2]"]
