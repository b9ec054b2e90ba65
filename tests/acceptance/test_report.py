"""The page of a run: of real runs of every kind, read as a browser reads it."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import reported_steps as steps
from tests.unit.perdure.view.test_page import Page

from perdure import DefinitionError, RunFailed
from perdure.client import Perdure, open_store
from perdure.view.graph import view_graph
from perdure.view.report import TOLD_UP_TO, view_report
from perdure.view.writing import default_name


def run(client: Perdure, workflow: Any, **inputs: Any) -> None:
    try:
        client.run(workflow, run_id="r", inputs=inputs)
    except RunFailed:
        pass


def page_of(client: Perdure, folder: Path) -> Page:
    return Page(client.get_run("r").report(folder / "page.html").read_text())


def nodes(client: Perdure) -> dict[str, Any]:
    return {node.title: node for node in view_graph(client.get_run("r").steps()).nodes}


def test_page_of_a_run_that_succeeded_tells_what_it_came_to(
    inline: Perdure, tmp_path: Path
) -> None:
    inline.run(steps.three, run_id="r", inputs={"n": 7}, tags={"team": "blue"})

    page = page_of(inline, tmp_path)

    for told in (
        "succeeded",
        "3 of 3 done",
        "team",
        "blue",
        "making 7",  # what a step printed
        "pandas.DataFrame",
        "2 × 2",
        "speed",  # a column of its table
        "def halve(x: int) -> float:",  # the recorded source
        "reported_steps.py:",
        "recompute",
    ):
        assert told in page.text, told
    assert [row["data-step"] for row in page.named("details") if "data-step" in row] == [
        step.id for step, _ in by_duration(inline)
    ]


def by_duration(client: Perdure) -> list[tuple[Any, float]]:
    found = [(s, s.duration.total_seconds()) for s in client.get_run("r").steps() if s.duration]
    return sorted(found, key=lambda pair: -pair[1])


def test_page_of_a_run_that_failed_begins_with_why(inline: Perdure, tmp_path: Path) -> None:
    run(inline, steps.broken)

    page = page_of(inline, tmp_path)

    assert page.of_class("failure")
    for told in (
        "ValueError: no column 'speed' in item 3",
        "item 3, given 3",
        "raise ValueError(",
        "opening item 3",
        "perdure resume r --code current",
        "1 of 5 items failed",
    ):
        assert told in page.text, told
    first = next(row for row in page.named("details") if "data-step" in row)
    assert first["data-step"] == "parse[3]"
    assert nodes(inline)["parse"].status == "FAILED"


def test_failures_that_were_caught_come_first_and_say_how_to_redo_them(
    inline: Perdure, tmp_path: Path
) -> None:
    run(inline, steps.caught)

    page = page_of(inline, tmp_path)

    assert "1 failed, caught" in page.text
    assert "perdure fork r --force failed" in page.text
    assert nodes(inline)["parse"].statuses == {"SUCCEEDED": 4, "caught": 1}


def test_map_is_one_node_however_many_items_it_has(inline: Perdure, tmp_path: Path) -> None:
    run(inline, steps.mapped, n=2_000)

    page = page_of(inline, tmp_path)

    drawn = nodes(inline)
    assert list(drawn) == ["numbers", "halve", "total"]
    assert drawn["halve"].count == 2_000
    assert len(page.of_class("node")) == 3
    assert "2,000 of 2,000" in page.text
    assert len(page.of_class("step")) == TOLD_UP_TO
    assert f"and {2_004 - TOLD_UP_TO:,} more steps" in page.text
    assert (tmp_path / "page.html").stat().st_size < 4_000_000


def test_map_that_was_taken_over_says_how_many_items_it_has(inline: Perdure) -> None:
    inline.run(steps.mapped, run_id="first", inputs={"n": 40})
    inline.run(steps.mapped, run_id="r", inputs={"n": 40}, reuse="first")

    halve = nodes(inline)["halve"]

    assert (halve.status, halve.count, halve.statuses) == ("reused", 40, {"reused": 40})


def test_long_error_is_told_by_its_beginning_and_whole_in_its_traceback(
    inline: Perdure, tmp_path: Path
) -> None:
    run(inline, steps.verbose)

    page = page_of(inline, tmp_path)

    assert "more characters)" in page.text
    assert page.text.count("the end") == 2  # of the two tracebacks: of the run, of its step


def test_graph_that_a_step_gave_is_inside_of_it(inline: Perdure) -> None:
    run(inline, steps.growing)

    (outer,) = nodes(inline).values()
    assert outer.title == "grow"
    assert [node.title for node in outer.inside.nodes] == ["numbers", "grow", "total ~1"]
    inner = outer.inside.nodes[1]
    assert [node.title for node in inner.inside.nodes] == ["numbers", "grow", "total ~1"]


def test_loop_of_many_rounds_is_one_node(inline: Perdure) -> None:
    run(inline, steps.looping)

    loop = nodes(inline)["loop"]
    assert loop.kind == "loop"
    assert loop.inside is None
    assert loop.count >= 29


def test_branches_are_named_and_what_was_not_chosen_is_skipped(inline: Perdure) -> None:
    run(inline, steps.choosing)

    graph = view_graph(inline.get_run("r").steps())
    assert {(e.source, e.label) for e in graph.edges if e.kind == "branch"} == {
        ("few", "then"),
        ("many", "otherwise"),
    }
    assert {n.title: n.status for n in graph.nodes}["many"] == "SKIPPED"


def test_of_very_many_arrows_those_are_drawn_that_give_nodes_their_layers(
    inline: Perdure, tmp_path: Path
) -> None:
    run(inline, steps.all_before(95))

    graph = view_graph(inline.get_run("r").steps())
    page = page_of(inline, tmp_path)

    assert {(edge.source, edge.target) for edge in graph.edges} == {
        (f"step_{at:04}", f"step_{at + 1:04}") for at in range(94)
    }
    assert f"{95 * 94 // 2 - 94:,} more arrows are not drawn" in page.text


def test_many_steps_of_one_task_are_one_node(inline: Perdure) -> None:
    run(inline, steps.alike)

    drawn = nodes(inline)
    assert [(node.title, node.kind, node.count) for node in drawn.values()] == [
        ("halve", "alike", 20),
        ("total", "task", 0),
    ]


def test_page_of_a_run_that_waits_says_for_what(inline: Perdure, tmp_path: Path) -> None:
    started = inline.start(steps.waiting, run_id="r")
    inline.wait_for(lambda: started.status == "WAITING")

    page = page_of(inline, tmp_path)

    assert "waiting" in page.text
    assert "waits for signal 'approve'" in page.text
    assert "perdure signal r approve" in page.text
    assert len(page.of_class("waited")) == 2
    inline.cancel("r")


def test_page_of_a_run_that_goes_on_shows_what_runs_now(inline: Perdure, tmp_path: Path) -> None:
    live = tmp_path / "live.html"
    run(inline, steps.watched, store=inline.settings.store, path=str(live))

    page = Page(live.read_text())

    assert "1 running" in page.text
    assert "1 of 2 done" in page.text
    assert "driven by process" in page.text
    assert page.of_class("pill")[0]["class"] == "pill s-running"
    assert "watch, attempt 1: running" in page.text


def test_page_of_a_run_without_a_plan_says_that_it_has_none(
    inline: Perdure, tmp_path: Path
) -> None:
    inline.schedule("nightly", steps.three, cron="0 2 * * *", tz="UTC")
    made = inline.get_schedule("nightly").trigger()

    page = Page(inline.get_run(made.id).report(tmp_path / "page.html").read_text())

    assert "It has no plan yet" in page.text
    assert "nightly, by hand" in page.text
    assert not page.of_class("step")


def test_run_that_takes_steps_over_says_from_whom(inline: Perdure, tmp_path: Path) -> None:
    inline.run(steps.three, run_id="first")
    inline.run(steps.three, run_id="r", reuse="first")

    page = page_of(inline, tmp_path)

    assert "takes steps over from" in page.text
    assert "first (succeeded)" in page.text
    assert "3 reused" in page.text
    assert "3 steps did not run again" in page.text


def test_hostile_names_values_and_prints_are_text(inline: Perdure, tmp_path: Path) -> None:
    inline.start(steps.hostile, run_id="r", tags={steps.EVIL: steps.EVIL}).wait()

    page = page_of(inline, tmp_path)

    assert len(page.named("script")) == 1
    assert page.text.count(steps.EVIL) >= 6
    assert "\x1b" not in page.text


def test_page_needs_no_class_of_the_values_and_runs_nothing_of_them(
    perdure: Any, tmp_path: Path
) -> None:
    perdure.write(
        "own.py",
        "import pathlib\nfrom perdure import task, workflow\n"
        "class Own:\n"
        "    def __reduce__(self): return (pathlib.Path.touch, (pathlib.Path('ran'),))\n"
        "@task\ndef make() -> Own: return Own()\n"
        "@workflow\ndef w() -> Own: return make.bind()\n",
    )
    perdure("run", "--id", "r", "--executor", "inline", "own.py")
    (perdure.folder / "own.py").unlink()
    (perdure.folder / "ran").unlink(missing_ok=True)

    ended = perdure("report", "r")

    assert ended.code == 0, ended.err
    assert "own.Own" in (perdure.folder / "r.html").read_text()
    assert not (perdure.folder / "ran").exists()


def test_report_of_the_command_line_says_where_it_is_and_replaces_its_own(perdure: Any) -> None:
    perdure.write(
        "w.py",
        "from perdure import task, workflow\n@task\ndef f() -> int: return 1\n"
        "@workflow\ndef w() -> int: return f.bind()\n",
    )
    perdure("run", "--id", "team/a", "--executor", "inline", "w.py")

    first = perdure("report", "-")
    again = perdure("report", "team", "--json")
    perdure.write("mine.html", "<p>mine</p>")
    refused = perdure("report", "-", "-o", "mine.html")
    printed = perdure("report", "-", "-o", "-")

    [page] = perdure.folder.glob("team-a-*.html")
    assert f"to {page.name}: open it in a browser" in first.err
    told = json.loads(again.out)
    assert told["file"] == str(page)
    assert told["size_bytes"] == page.stat().st_size
    assert refused.code == 2
    assert "--force overwrites it" in refused.err
    assert printed.out.startswith("<!doctype html>")


SLOW = """import time
from perdure import task, workflow
@task
def slow(path: str) -> int:
    open(path, "w").close()
    while True: time.sleep(0.02)
@workflow
def w(path: str) -> int:
    return slow.bind(path)
"""


def test_what_was_cut_off_by_a_cancel_or_a_kill_is_on_its_page(perdure: Any) -> None:
    perdure.write("w.py", SLOW)
    for run_id in ("killed", "cancelled"):
        driver = perdure.start("run", "--id", run_id, "w.py", "--path", run_id)
        perdure.wait_for_file(run_id, driver)
        if run_id == "killed":
            driver.kill()
        else:
            perdure("cancel", run_id)
        driver.wait(60)
        perdure("report", run_id)
    perdure("report", "killed", "-o", "left.html")
    perdure("cancel", "killed")
    perdure("report", "killed")

    with open_store(str(perdure.folder / ".perdure" / "perdure.db")) as client:
        view = view_report(client.get_run("killed"))
    left, killed, cancelled = (
        Page((perdure.folder / f"{each}.html").read_text())
        for each in ("left", "killed", "cancelled")
    )

    for each in (left, killed):
        assert "slow, attempt 1 was cut off, and nobody saw when" in each.text
        [bar] = each.of_class("s-cut-off")
        assert float(bar["width"] or 0) > 1
    assert view.timeline is not None
    assert view.run.finished_at is not None
    assert view.timeline.seconds == (view.run.finished_at - view.timeline.begin).total_seconds()
    assert "slow, attempt 1: cancelled, " in cancelled.text
    assert "attempts" in killed.text
    [bar] = cancelled.of_class("span")[-1:]
    assert float(bar["width"] or 0) > 1


SCRIPT = """from perdure import task, workflow

RATE = 3

def scaled(x):
    # by a rate that nobody remembers
    return x * RATE

class Scale:
    def of(self, x):
        return scaled(x)

@task(retries=2)
def f(x: int) -> int:
    return Scale().of(x)  # the whole of it

@workflow
def w() -> int:
    return f.bind(1)
"""


def test_page_of_a_script_has_the_text_of_what_ran_and_what_it_ran_with(perdure: Any) -> None:
    perdure.write("w.py", SCRIPT)
    perdure("run", "--id", "r", "--executor", "inline", "w.py")
    (perdure.folder / "w.py").write_text("raise SystemExit('never run again')")

    perdure("report", "r")

    page = Page((perdure.folder / "r.html").read_text())
    assert "@task(retries=2)\ndef f(x: int) -> int:\n" in page.text
    assert "return Scale().of(x)  # the whole of it" in page.text
    assert "class Scale:\n    def of(self, x):" in page.text
    assert "# by a rate that nobody remembers" in page.text
    assert f"Python {platform.python_version()}" in page.text


def test_map_that_waits_for_its_items_says_how_far_they_are_and_which_run(
    inline: Perdure,
) -> None:
    told = inline.run(steps.asking, run_id="r", inputs={"store": str(inline.settings.store)})

    assert told[0][0] == "ask waits for its 5 items: 5 running (ask[0], ask[1], ask[2] and 2 more)"
    # Items as brief as these are committed together: one that is done may not be yet.
    done = int(told[4][0].partition(": ")[2][0])
    running = [f"ask[{nth}]" for nth in range(done, 5)]
    assert 2 <= done <= 4
    assert told[4][0] == (
        f"ask waits for its 5 items: {done} done, {5 - done} running ({', '.join(running)})"
    )
    assert told[4][1].splitlines() == [
        f"r is RUNNING: {1 + done} of 8 steps done, {5 - done} running",
        f"  {', '.join(running)} {'runs' if done == 4 else 'run'}",
    ]


def test_fan_in_of_a_map_of_which_one_item_failed_names_that_one_only(inline: Perdure) -> None:
    run(inline, steps.broken, n=12)

    why = {step.id: step.why() for step in inline.get_run("r").steps()}

    told = [
        each for each in why.values() if "it takes the value of" in each and "which failed" in each
    ]
    assert told
    assert all(each.count("[") <= 1 for each in told), told


def test_report_replaces_a_page_and_keeps_any_other_file(inline: Perdure, tmp_path: Path) -> None:
    run(inline, steps.different(2))
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    view = inline.get_run("r")

    with pytest.raises(DefinitionError, match=r"mine.html exists; force=True overwrites it"):
        view.report(mine)

    assert mine.read_text() == "<p>mine</p>"
    assert view.report(mine, force=True) == view.report(mine) == mine


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nodir/y.html", "there is no folder .*nodir; make it: mkdir -p .*nodir"),
        (".", "is a folder; name a file in it, such as .*run.html"),
        ("", "is a folder"),
        ("/", "/ is a folder; name a file in it, such as /run.html"),
    ],
)
def test_place_that_can_have_no_page_is_refused_in_a_line(
    inline: Perdure, path: str, said: str
) -> None:
    run(inline, steps.different(2))

    with pytest.raises(DefinitionError, match=said):
        inline.get_run("r").report(path)


def test_pages_of_different_runs_have_different_names() -> None:
    ids = ["数据一", "数据二", ".", "ünï", "a/b", "a-b", "é" * 90, "é" * 91, "run", "..", "x" * 300]

    names = [default_name(each) for each in ids]

    assert len(set(names)) == len(ids)
    assert names[0] == "数据一.html"
    assert not any("/" in each or each.startswith(".") for each in names)
    assert max(len(each.encode()) for each in names) < 130


def test_report_of_a_thousand_steps_reads_the_store_a_few_times_only(inline: Perdure) -> None:
    run(inline, steps.different(300))
    view = inline.get_run("r")
    asked: list[str] = []
    store = view.runtime.store

    class Counting:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(store, name)

    view.runtime.store = Counting()  # type: ignore[assignment]
    view_report(view)
    view.runtime.store = store

    assert len(asked) < 40
