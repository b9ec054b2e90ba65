from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from perdure.cli import tables
from perdure.view.model import ErrorView, RunView, StepView
from perdure.view.runs import group_steps

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
RUN = RunView(
    id="iris-1",
    workflow="iris",
    status="FAILED",
    created_at=NOW - timedelta(minutes=5),
    started_at=NOW - timedelta(minutes=5),
    finished_at=NOW - timedelta(minutes=4),
    inputs={"k": {"type": "int", "repr": "3"}},
    tags={"team": "a"},
    done=2,
    total=5,
    error=ErrorView(type="builtins.ValueError", message="no rows", step="fit"),
    steps=[
        StepView(
            id="load", status="SUCCEEDED", attempts=1, duration_s=0.2, preview={"repr": "[1]"}
        ),
        StepView(
            id="fit",
            status="FAILED",
            error=ErrorView(type="builtins.ValueError", message="no rows"),
        ),
    ],
)


def test_runs_are_listed_one_a_line_with_progress_and_age(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.print_runs([RUN], NOW)

    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["ID", "WORKFLOW", "STATUS", "CREATED", "TOOK", "ERROR"]
    assert line.split()[:8] == ["iris-1", "iris", "FAILED", "5", "min", "ago", "1", "min"]
    assert line.rstrip().endswith("ValueError: no rows (step fit)")


def test_long_error_makes_no_wide_list_where_the_output_is_a_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ErrorView(type="builtins.ValueError", message="word " * 1_000, step="fit")

    tables.print_runs([msgspec.structs.replace(RUN, error=error), RUN], NOW)

    header, long, short = capsys.readouterr().out.splitlines()
    assert len(long) < 300
    assert not any(line.endswith(" ") for line in (header, long, short))


def test_run_is_shown_with_inputs_error_and_steps(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_run(RUN, NOW)

    out = capsys.readouterr().out
    assert "k = 3" in out
    assert "team=a" in out
    assert "2 of 5 done" in out
    assert "ValueError: no rows (step fit)" in out
    assert "load" in out


def test_long_ids_are_not_cut_when_the_output_is_a_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = RunView(id="x" * 200, workflow="w" * 90, status="QUEUED", created_at=NOW)

    tables.print_runs([long], NOW)

    assert "x" * 200 in capsys.readouterr().out


def test_user_text_is_neither_markup_nor_terminal_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sly = RunView(id="[red]a\x1b[2J", workflow="w", status="QUEUED", created_at=NOW)

    tables.print_runs([sly], NOW)

    out = capsys.readouterr().out
    assert "[red]a" in out
    assert "\x1b" not in out


def many(count: int) -> RunView:
    steps = [
        StepView(
            id=f"item#{number}",
            name="item",
            status="FAILED" if number == 7 else "SUCCEEDED",
            duration_s=float(number),
        )
        for number in range(count)
    ]
    return msgspec.structs.replace(
        RUN, steps=[*steps, StepView(id="g", name="g", status="PENDING")]
    )


def test_steps_are_counted_by_name() -> None:
    item, gather = group_steps(many(100).steps)

    assert (item.name, item.total, item.done, item.failed, item.waiting) == ("item", 100, 99, 1, 0)
    assert item.duration_s == 50.0
    assert (gather.waiting, gather.duration_s) == (1, None)


def test_few_steps_are_listed_and_many_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_run(many(tables.EACH_UP_TO - 1), NOW)
    few = capsys.readouterr().out
    tables.print_run(many(tables.EACH_UP_TO), NOW)
    summed_up = capsys.readouterr().out

    assert few.count("item#") == tables.EACH_UP_TO - 1
    assert summed_up.count("item#") == 1
    assert "item#7" in summed_up


def test_thousands_of_failures_are_not_all_listed(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [StepView(id=f"item#{n}", name="item", status="FAILED") for n in range(3000)]
    tables.print_run(msgspec.structs.replace(RUN, steps=failed), NOW)

    assert capsys.readouterr().out.count("item#") == 20
