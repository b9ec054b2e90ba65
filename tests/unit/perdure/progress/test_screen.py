from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from typing import TextIO

import pyte
import pytest

from perdure.progress.lines import Line
from perdure.progress.screen import Screen

Opens = Callable[..., Screen]


class Terminal(io.StringIO):
    """What is written to it, and how that looks on a terminal of 80 columns."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        screen = pyte.Screen(80, 24)
        screen.set_mode(pyte.modes.LNM)
        pyte.Stream(screen).feed(self.getvalue())
        return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


@pytest.fixture
def open_screen(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Opens:
    """Opens a screen on the terminal. (In the test itself: pytest has streams of its own there.)"""

    def open_screen(stdout: TextIO = terminal) -> Screen:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", terminal)
        screen = Screen(terminal)
        screen.open()
        return screen

    return open_screen


def lines(*texts: str) -> list[Line]:
    return [((text, ""),) for text in texts]


def test_frame_is_drawn_again_in_place(open_screen: Opens, terminal: Terminal) -> None:
    screen = open_screen()
    screen.draw(lines("1/3", "slow"))
    screen.draw(lines("2/3", "slower"))

    assert terminal.shown == ["2/3", "slower"]


def test_lines_are_written_over_and_never_wiped_first(
    open_screen: Opens, terminal: Terminal
) -> None:
    screen = open_screen()
    screen.draw(lines("1/3", "slow"))
    before = len(terminal.getvalue())
    screen.draw(lines("2/3", "slow"))

    drawn = terminal.getvalue()[before:]
    assert drawn.index("slow") < drawn.index("\x1b[J")


def test_frame_never_gets_lower(open_screen: Opens, terminal: Terminal) -> None:
    screen = open_screen()
    screen.draw(lines("1/3", "slow", "slower"))
    before = len(terminal.getvalue())
    screen.draw(lines("2/3"))

    assert terminal.getvalue()[before:].count("\n") == 3
    assert terminal.shown == ["2/3"]


def test_shorter_line_leaves_nothing_of_a_longer_one(
    open_screen: Opens, terminal: Terminal
) -> None:
    screen = open_screen()
    screen.draw(lines("a long line"))
    screen.draw(lines("short"))

    assert terminal.shown == ["short"]


def test_prints_go_above_the_frame(open_screen: Opens, terminal: Terminal) -> None:
    screen = open_screen()
    screen.draw(lines("1/3", "slow"))
    print("from a step")
    print("from another", file=sys.stderr)
    screen.draw(lines("2/3", "slow"))

    assert terminal.shown == ["from a step", "from another", "2/3", "slow"]


def test_what_a_log_handler_writes_goes_above_the_frame_and_the_handler_is_given_back(
    open_screen: Opens, terminal: Terminal
) -> None:
    handler = logging.StreamHandler(terminal)
    logger = logging.getLogger("tests.screen")
    logger.addHandler(handler)
    screen = open_screen()

    screen.draw(lines("1/3", "slow"))
    logger.warning("from a handler")
    screen.draw(lines("2/3", "slow"))
    shown = terminal.shown
    screen.close()
    logger.removeHandler(handler)

    assert shown == ["from a handler", "2/3", "slow"]
    assert handler.stream is terminal


def test_line_that_somebody_has_begun_keeps_the_frame_away(
    open_screen: Opens, terminal: Terminal
) -> None:
    screen = open_screen()
    screen.draw(lines("1/3", "slow"))
    print("your name? ", end="")
    screen.draw(lines("2/3", "slow"))
    asked = terminal.shown
    print("Ada")
    screen.draw(lines("3/3", "slow"))

    assert asked == ["your name?"]
    assert terminal.shown == ["your name? Ada", "3/3", "slow"]


def test_nothing_of_the_frame_stays_when_it_is_closed(
    open_screen: Opens, terminal: Terminal
) -> None:
    screen = open_screen()
    print("kept")
    screen.draw(lines("1/3", "slow"))
    screen.close()
    print("after")

    assert terminal.shown == ["kept", "after"]
    assert sys.stdout is terminal


def test_who_kept_our_stream_can_still_write_to_it(open_screen: Opens, terminal: Terminal) -> None:
    screen = open_screen()
    kept = sys.stdout
    screen.close()

    kept.write("late\n")

    assert terminal.shown == ["late"]


def test_stream_that_somebody_else_has_replaced_meanwhile_is_left_alone(
    open_screen: Opens, terminal: Terminal
) -> None:
    screen = open_screen()
    theirs = io.StringIO()
    sys.stdout = theirs
    screen.close()

    assert sys.stdout is theirs


def test_stream_that_is_no_terminal_is_left_alone(open_screen: Opens) -> None:
    pipe = io.StringIO()
    open_screen(pipe)

    assert sys.stdout is pipe


def test_cursor_is_never_hidden(open_screen: Opens, terminal: Terminal) -> None:
    screen = open_screen()
    screen.draw(lines("1/3"))
    print("above")

    assert "\x1b[?25l" not in terminal.getvalue()


@pytest.mark.parametrize(("value", "codes"), [("", True), ("1", False)])
def test_no_color_is_obeyed(
    open_screen: Opens,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    codes: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    screen = open_screen()

    screen.draw([(("done", "green"), ("name", "bold"))])
    screen.close()

    assert ("\x1b[32m" in terminal.getvalue()) is codes
    assert "\x1b[1m" in terminal.getvalue()
