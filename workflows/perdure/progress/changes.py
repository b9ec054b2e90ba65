"""A run's facts as lines of text, one a change, for where there is no terminal to draw on.

The first changes are told one by one. A run that changes faster than anybody reads is summed up
every few seconds instead, until it is slower; what went wrong is still told by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from perdure import words
from perdure.progress.board import DONE, Board, Glance, News, Running
from perdure.progress.causes import how_ended, how_far, how_long, is_choice, of_wait
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import (
    AttemptRecord,
    ErrorRecord,
    EventRecord,
    RunCommit,
    StepRecord,
)

EACH_UP_TO = 100
"""Changes told one by one before a run counts as one that changes too fast to be read."""
TROUBLES_UP_TO = 100
"""Failures and retries told one by one, whatever else happens."""
SUM_EVERY_S = 5.0
CALM = 10
"""Changes within ``SUM_EVERY_S`` seconds below which each is told again."""
LONG_S = 5.0
"""How long an attempt runs before that is worth a line."""
_ERROR_WIDTH = 200
_TOO_MANY = f"more changes than anybody reads: a line every {SUM_EVERY_S:g} s sums them up"


class Teller:
    """Turns facts into lines. Mutable; used by one thread.

    Args:
        board: where the run stands; it takes in each fact before the fact is told.
        now: when telling begins.
        send: returns the command that sends the run a signal, given the signal's name.
    """

    def __init__(
        self, board: Board, now: datetime, send: Callable[[str], str] | None = None
    ) -> None:
        self._board = board
        self._send = send
        self._each_left = EACH_UP_TO
        self._troubles_left = TROUBLES_UP_TO
        self._window_ends = now + timedelta(seconds=SUM_EVERY_S)
        self._in_window = 0
        self._untold = 0
        self._is_summing = False
        self._long: set[Running] = set()

    def tell(self, commits: Iterable[RunCommit], now: datetime) -> list[str]:
        """Take in facts and return the lines that they are worth."""
        lines: list[str] = []
        for commit in commits:
            news = self._board.apply(commit)
            done = self._board.done - sum(row.status in DONE for row in news.committed)
            lost = [_lost(event) for event in commit.events if event.kind == "lost"]
            lines += [self._placed(line, done) for line in [*lost, *self._of_tries(news)]]
            lines += self._of_rows(news, done)
            lines += [self._placed(line, self._board.done) for line in self._of_waits(news)]
        lines += self._of_long_ones(now)
        if self._untold and not self._is_summing:
            self._is_summing = True
            lines.append(self._placed(_TOO_MANY, self._board.done))
        if now >= self._window_ends:
            lines += self._close_window(now)
        return lines

    def _of_tries(self, news: News) -> list[str]:
        return [_ended(attempt) for attempt in news.ended if self._may_tell_trouble()]

    def _of_rows(self, news: News, done: int) -> list[str]:
        lines = []
        for row in news.committed:
            done += row.status in DONE
            is_trouble = row.error is not None
            if self._may_tell_trouble() if is_trouble else self._may_tell():
                lines.append(self._placed(_committed(row), done))
        return lines

    def _of_waits(self, news: News) -> list[str]:
        return [
            f"{words.printable(wait.step_id)}: waits for {of_wait(wait, self._send)}"
            for wait in news.waits
            if self._may_tell()
        ]

    def _may_tell(self) -> bool:
        self._in_window += 1
        if self._each_left:
            self._each_left -= 1
            return True
        self._untold += 1
        return False

    def _may_tell_trouble(self) -> bool:
        if self._troubles_left:
            self._troubles_left -= 1
            return True
        return self._may_tell()

    def _placed(self, line: str, done: int) -> str:
        return f"[{done}/{self._board.total}] {line}"

    def _of_long_ones(self, now: datetime) -> list[str]:
        edge = now - timedelta(seconds=LONG_S)
        glance = self._board.look(now)
        found = [each for each in glance.slowest if each.since <= edge and each not in self._long]
        done = self._board.done
        self._long = {each for each in self._long if each in glance.slowest} | set(found)
        return [self._placed(_runs(each, glance, now), done) for each in found if self._may_tell()]

    def _close_window(self, now: datetime) -> list[str]:
        lines = [_sum(self._board.look(now))] if self._untold else []
        if self._in_window <= CALM:
            self._each_left = EACH_UP_TO
            self._is_summing = False
        self._window_ends = now + timedelta(seconds=SUM_EVERY_S)
        self._in_window = self._untold = 0
        return lines


def summary(run_id: str, glance: Glance, status: RunStatus | None) -> str:
    """Return the one line that stays: how the run ended, or how far it is."""
    took = words.duration(glance.elapsed_s)
    how_far = f"{words.count(glance.done)} of {words.count_of(glance.total, 'step')} done"
    if glance.failed:
        how_far += f", {words.count(glance.failed)} failed"
    name = f"run {words.printable(run_id)}"
    if status is RunStatus.SUCCEEDED:
        return f"{name} succeeded in {took}: {_what_was_done(glance)}"
    if status is RunStatus.FAILED:
        return f"{name} failed after {took}: {how_far}"
    if status is RunStatus.CANCELLED:
        return f"{name} was cancelled after {took}: {how_far}"
    return f"{name} stopped here after {took}: {how_far}"


def _what_was_done(glance: Glance) -> str:
    parts = []
    if glance.ran or not glance.reused:
        parts.append(f"{words.count_of(glance.ran, 'step')} ran")
    if glance.reused:
        parts.append(f"{words.count_of(glance.reused, 'step')} reused")
    if glance.skipped:
        parts.append(f"{words.count(glance.skipped)} skipped")
    if glance.unneeded:
        parts.append(f"{words.count(glance.unneeded)} not needed")
    if glance.before:
        parts.append(f"{words.count(glance.before)} done before")
    if glance.retries:
        parts.append(words.count_of(glance.retries, "retry"))
    return ", ".join(parts)


def _sum(glance: Glance) -> str:
    parts = [f"{words.count(glance.running)} running"]
    if glance.failed:
        parts.append(f"{words.count(glance.failed)} failed")
    if glance.retries:
        parts.append(words.count_of(glance.retries, "retry"))
    if glance.rate is not None:
        parts.append(words.rate(glance.rate, "steps"))
    if glance.left_s is not None:
        parts.append(f"{words.duration(glance.left_s)} left")
    return f"[{glance.done}/{glance.total}] {', '.join(parts)}"


def _committed(row: StepRecord) -> str:
    name = words.printable(row.step_id)
    if row.status is StepStatus.FAILED:
        return f"{name}: failed{_after(row)}{_because(row.error)}"
    if row.status is StepStatus.CANCELLED:
        return f"{name}: ended ({words.printable(row.reason)})"
    if row.caught and row.attempt:
        return f"{name}: failed{_after(row)}, and that was caught{_because(row.error)}"
    if row.status is StepStatus.SKIPPED:
        return f"{name}: skipped ({words.printable(row.reason)})"
    if is_choice(row):
        return f"{name}: {words.printable(row.reason)}"
    if not row.attempt:
        return f"{name}: reused ({words.printable(row.reason)})"
    took = f" in {words.duration(_seconds(row.started_at, row.finished_at))}"
    which = f", attempt {row.attempt}" if row.attempt > 1 else ""
    return f"{name}: done{took if row.started_at else ''}{which}"


def _ended(attempt: AttemptRecord) -> str:
    name = words.printable(attempt.step_id)
    how = how_ended(attempt)
    ran = how_long(attempt)
    after = f" after {words.duration(ran.total_seconds())}" if ran is not None else ""
    said = f"{name}: attempt {attempt.attempt} {how}{after}{_because(attempt.error)}"
    if attempt.not_before is None or attempt.finished_at is None:
        return said
    return f"{said}; again in {words.duration(_seconds(attempt.finished_at, attempt.not_before))}"


def _lost(event: EventRecord) -> str:
    why = words.printable(str(event.detail.get("why", "its value is gone")))
    return f"{words.printable(event.step_id or '')}: to run again: {why}"


def _after(row: StepRecord) -> str:
    if row.started_at is None:
        return ""
    return f" after {words.duration(_seconds(row.started_at, row.finished_at))}"


def _because(error: ErrorRecord | None) -> str:
    return f": {words.one_line(_text(error), _ERROR_WIDTH)}" if error is not None else ""


def _text(error: ErrorRecord) -> str:
    said = words.failure(error.type, error.message, error.step_id)
    return words.printable(" ".join(said.split()))


def _runs(attempt: Running, glance: Glance, now: datetime) -> str:
    told = glance.told.get(attempt.step_id)
    far = f": {how_far(told)}" if told is not None else ""
    return f"{_name(attempt)}: running for {words.duration(_age_s(attempt, now))}{far}"


def _name(attempt: Running) -> str:
    which = f", attempt {attempt.attempt}" if attempt.attempt > 1 else ""
    return f"{words.printable(attempt.step_id)}{which}"


def _seconds(start: datetime | None, end: datetime | None) -> float:
    if start is None or end is None:
        return 0.0
    return max(0.0, (end - start).total_seconds())


def _age_s(attempt: Running, now: datetime) -> float:
    return max(0.0, (now - attempt.since).total_seconds())
