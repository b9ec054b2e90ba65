"""What a program says at its end of runs that it started and does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perdure import driving
from perdure.driving import Driving

MESSAGE = "perdure: waiting for started runs (Ctrl-C: resumable)\n"


class Running:
    """Drives one run until ``is_over``."""

    def __init__(self, is_over: Callable[[int], bool]) -> None:
        self._is_over = is_over
        self.turns = 0

    def submit(self, run_id: str) -> None: ...

    def turn(self, max_wait_s: float) -> None:
        self.turns += 1

    @property
    def is_idle(self) -> bool:
        return self._is_over(self.turns)


def end_with(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the run, and let the program come to its end at once."""
    ended: Any = SimpleNamespace(is_alive=lambda: False)
    monkeypatch.setattr(threading, "main_thread", lambda: ended)
    driver = Driving(lambda on_change: run)  # type: ignore[arg-type,return-value]
    driver.drive_in_background("r")
    (thread,) = [t for t in threading.enumerate() if t.name == "perdure-driver"] or [None]
    if thread is not None:
        thread.join(10)
        assert not thread.is_alive()


def test_program_that_waits_for_what_it_started_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(driving, "_NOTICED_S", 0.0)
    monkeypatch.setattr(driving.sys.stderr, "write", said.append)

    end_with(Running(lambda turns: bool(said) and turns >= 5), monkeypatch)

    assert said == [MESSAGE]


def test_program_whose_runs_are_over_in_a_moment_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end_with(Running(lambda turns: turns >= 2), monkeypatch)

    assert capsys.readouterr().err == ""
