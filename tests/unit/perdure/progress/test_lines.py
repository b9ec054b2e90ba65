from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len
from tests.unit.perdure.progress.facts import at, waits

from perdure.progress.board import Glance, Running
from perdure.progress.lines import ASCII, Spoken, frame, plain
from perdure_storage.records import Progress, StepId


def glance(**more: Any) -> Glance:
    fields: dict[str, Any] = {
        "total": 10_000,
        "done": 3_120,
        "before": 0,
        "reused": 12,
        "ran": 3_108,
        "running": 8,
        "failed": 2,
        "waiting": 6_870,
        "retries": 5,
        "retry_in_s": 3.2,
        "slowest": tuple(Running(StepId(f"train[{n}]"), 1, n, at(n)) for n in range(1, 6)),
        "rate": 410.4,
        "left_s": 17.3,
        "elapsed_s": 7.6,
        "at": at(13),
        **more,
    }
    return Glance(**fields)


def text(look: Glance, spoken: Spoken | None = None, **more: Any) -> list[str]:
    size = {"width": 100, "height": 24, **more}
    return [plain(line) for line in frame("iris-1", look, spoken, **size)]


def test_frame_says_how_far_how_fast_and_what_is_slow() -> None:
    lines = text(glance(), Spoken(step_id=StepId("train[1]"), text="epoch 3"))

    assert lines[0].startswith("iris-1  ━")
    assert lines[0].endswith(" 3,120/10,000  31%")
    assert lines[1].split(" · ") == [
        "  3,120 done", "2 failed", "8 running", "6,870 waiting", "5 retries, next in 3.2 s",
        "12 reused",
    ]  # fmt: skip
    assert lines[2] == "  7.6 s · 410 steps/s · 17.3 s left"
    assert lines[3:5] == ["  train[1]  12.0 s", "  train[2]  11.0 s  attempt 2"]
    assert lines[-2:] == ["  … and 3 more", "  train[1] | epoch 3"]


def test_frame_says_how_far_a_step_says_that_it_is() -> None:
    come = Progress(done=3, total=10, message="loss 0.25", at=at(12))

    lines = text(glance(told={StepId("train[1]"): come}))

    assert lines[3:5] == ["  train[1]  3 of 10, loss 0.25  12.0 s", "  train[2]  11.0 s  attempt 2"]


def test_frame_says_what_steps_wait_for() -> None:
    asked = waits("ask", name="approve")
    look = glance(slowest=(), running=0, skipped=2, asleep=3, waits=(waits("nap", "sleep"), asked))

    lines = text(look, width=120, send=lambda name: f"perdure signal iris-1 {name} --value ...")

    assert lines[1].endswith(" · 12 reused · 2 skipped")
    assert lines[3:] == [
        "  nap waits for its time",
        "  ask waits for signal 'approve': `perdure signal iris-1 approve --value ...`",
        "  … and 1 step more that wait",
    ]


def test_frame_says_nothing_of_what_is_not_known() -> None:
    lines = text(glance(rate=None, left_s=None, retries=0, reused=0, failed=0))

    assert lines[1] == "  3,120 done · 8 running · 6,870 waiting"
    assert lines[2] == "  7.6 s"


@pytest.mark.parametrize("width", [200, 80, 60, 40, 30, 20, 10, 3, 1])
@pytest.mark.parametrize(
    "name", ["train", "数据" * 40, "a\x1b[2Jb\tc\x07", "👩‍👩‍👧‍👦 family", "é" * 100], ids=range(5)
)
def test_no_line_is_wider_than_the_terminal(width: int, name: str) -> None:
    look = glance(slowest=(Running(StepId(name), 1, 12, at(0)),))

    lines = text(look, Spoken(step_id=StepId(name), text=name * 3), width=width)

    assert lines
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)


def test_narrow_terminal_still_says_how_many_are_done_and_failed() -> None:
    lines = text(glance(), width=40)

    assert "3,120/10,000" in lines[0]
    assert "3,120 done · 2 failed" in lines[1]
    assert lines[3] == "  train[1]  12.0 s"


def test_frame_is_never_higher_than_the_terminal() -> None:
    assert len(text(glance(), height=3)) == 3


def test_one_failure_of_thousands_is_seen_in_the_bar() -> None:
    spans = frame("r", glance(failed=1), None, width=80, height=5)[0]

    assert [len(part) for part, style in spans if style == "red"] == [1]


def test_full_bar_is_full() -> None:
    look = glance(done=10_000, failed=0, running=0, waiting=0, slowest=())

    bar = {style: part for part, style in frame("r", look, None, width=80, height=5)[0]}

    assert len(bar["green"]) == 40
    assert bar["dim"] == ""


def test_terminal_without_unicode_gets_letters_it_has() -> None:
    lines = text(glance(), glyphs=ASCII)

    assert all(line.isascii() for line in lines)
    assert "###" in lines[0]


def test_colours_of_what_a_step_printed_do_not_reach_the_frame() -> None:
    lines = text(glance(), Spoken(step_id=StepId("t"), text="\x1b[31;1mred\x1b[0m\x1b]0;title\x07"))

    assert lines[-1] == "  t | red"
