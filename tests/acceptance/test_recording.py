"""The scripts that make the pictures of the documents, and what they made."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.browsers import chromium, missing

DOCS = Path(__file__).resolve().parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("pyte")
    monkeypatch.syspath_prepend(str(DOCS))
    for name in ("film", "record"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import record

    return record


def film_of(record: ModuleType, terminal: Any) -> str:
    frames = list(record.frames_of(terminal.chunks, terminal.columns, terminal.lines))
    return record.draw(frames, columns=terminal.columns, title="a title", description="more")


def screens(svg: str) -> list[list[str]]:
    """Return the text of each frame of a film, line by line."""
    root = ElementTree.fromstring(svg)
    lines = {
        f"#{group.get('id')}": " ".join(text.text or "" for text in group.iter(f"{SVG}text"))
        for group in root.find(f"{SVG}defs") or []
    }
    strip = root.find(f".//{SVG}g[@class='film']")
    assert strip is not None
    return [[lines[use.get("href", "")] for use in frame] for frame in strip]


def test_film_shows_what_a_command_printed_in_its_colours(record: Any, tmp_path: Path) -> None:
    with record.Terminal(tmp_path, columns=60, lines=8) as terminal:
        terminal.enter(r"printf 'plain \033[31mred <&>\033[0m\n'")
        terminal.wait_until(terminal.is_ready)

    svg = film_of(record, terminal)

    assert screens(svg)[-1][-2:] == ["plain red <&>", "$"]
    assert len(screens(svg)) > 3
    assert "#ff7b72" in svg


def test_film_stands_at_its_last_frame_where_nothing_moves(record: Any, tmp_path: Path) -> None:
    with record.Terminal(tmp_path, columns=40, lines=4) as terminal:
        terminal.enter("echo end")
        terminal.wait_until(terminal.is_ready)

    svg = film_of(record, terminal)
    strip = ElementTree.fromstring(svg).find(f".//{SVG}g[@class='film']")

    assert strip is not None
    assert strip.get("transform") == strip[-1].get("transform", "").replace("(0 ", "(0 -")
    assert "<script" not in svg
    assert "@media (prefers-reduced-motion: no-preference)" in svg


def test_recorded_command_is_killed_with_what_it_started(record: Any, tmp_path: Path) -> None:
    with record.Terminal(tmp_path, columns=60, lines=8) as terminal:
        terminal.enter("bash -c 'touch here; sleep 60; true'")
        terminal.wait_until((tmp_path / "here").exists)
        record.kill_below(terminal.pid)
        terminal.wait_until(terminal.is_ready)

    assert "Killed" in terminal.text


def test_long_silence_is_cut_short(record: Any) -> None:
    frames = list(record.frames_of([(0.0, b"a"), (99.0, b"b")], 10, 2))

    assert [frame.at_s for frame in frames] == [0.0, 1.0]


def test_picture_of_readme_shows_run_kill_and_resume() -> None:
    path = DOCS / "run.svg"
    last = "\n".join(screens(path.read_text())[-1])

    assert path.stat().st_size < 300_000
    assert last.index("$ perdure run") < last.index("Killed") < last.index("$ perdure resume")
    assert "drawn by perdure" in last
    assert "docs/run.svg" in (DOCS.parent / "README.md").read_text()


@pytest.mark.browser
def test_picture_of_a_report_is_taken_of_the_run_that_its_page_tells_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if reason := missing():
        pytest.skip(reason)
    monkeypatch.syspath_prepend(str(DOCS))
    import photograph

    with chromium() as browser:
        photograph.photograph_report(browser, tmp_path / "report.png")

    taken, shown = ((each / "report.png").read_bytes() for each in (tmp_path, DOCS))
    assert taken.startswith(b"\x89PNG")
    assert taken[16:24] == shown[16:24]  # its width and height
