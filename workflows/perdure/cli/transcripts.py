"""What the attempts of a run printed, in the order in which it was written, each byte read once.

Lines carry no times. So what is there when the first look is taken comes attempt by attempt, in
the order in which they started; from then on it comes as it is written.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from perdure import words

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.runs import Run
    from perdure_storage.records import AttemptRecord

LOOK_EVERY_S = 0.2
READ_SHARE = 5
"""Reading the rows of a wide run may take one part in so many of the time."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """Some whole lines of one attempt; the last may lack its end if the attempt has ended."""

    step: str
    generation: int
    attempt: int
    text: str


@dataclass(slots=True)
class _Tape:
    """How far an attempt's log is read, and the beginning of a line that is not whole yet."""

    offset: int = 0
    held: bytes = b""
    has_ended: bool = False


class Transcript:
    """Reads on where it stopped. Mutable; used by one thread.

    Args:
        perdure: the store's client.
        run: the run.
        step_id: only this step's attempts.
    """

    def __init__(self, perdure: Perdure, run: Run, step_id: str | None) -> None:
        self._runtime = perdure.runtime
        self._run = run
        self._step_id = step_id
        self._tapes: dict[tuple[str, int, int], _Tape] = {}
        self._attempts: list[AttemptRecord] = []
        self._changes: object = None

    def read(self) -> Iterator[Printed]:
        """Yield what was printed since the last time."""
        self._find_attempts()
        for attempt in self._attempts:
            key = (attempt.step_id, attempt.generation, attempt.attempt)
            tape = self._tapes.setdefault(key, _Tape())
            if tape.has_ended:
                continue
            # Whatever ended has written all before its row said so: this is the last read then.
            tape.has_ended = attempt.cause is not None
            text = self._read(attempt, tape)
            if text:
                yield Printed(
                    step=attempt.step_id,
                    generation=attempt.generation,
                    attempt=attempt.attempt,
                    text=text,
                )

    def _read(self, attempt: AttemptRecord, tape: _Tape) -> str:
        data = self._runtime.logs.read(
            attempt.run_id,
            attempt.step_id,
            attempt.generation,
            attempt.attempt,
            offset=tape.offset,
        )
        tape.offset += len(data)
        data = tape.held + data
        cut = len(data) if tape.has_ended else data.rfind(b"\n") + 1
        tape.held = data[cut:]
        return data[:cut].decode(errors="replace")

    def _find_attempts(self) -> None:
        changes = self._runtime.store.changes()
        if changes == self._changes:
            return
        self._changes = changes
        steps = self._run.steps() if self._step_id is None else [self._run[self._step_id]]
        found = [attempt for step in steps for attempt in step.attempts]
        self._attempts = sorted(found, key=lambda attempt: attempt.started_at or _EPOCH)


def follow(
    transcript: Transcript, goes_on: Callable[[], bool], pause: Callable[[float], object]
) -> Iterator[Printed]:
    """Yield what is printed until ``goes_on`` says no, and what was printed until then."""
    is_live = True
    while is_live:
        is_live = goes_on()  # asked before the last look, so that this one misses nothing
        began = time.monotonic()
        yield from transcript.read()
        if is_live:
            pause(max(LOOK_EVERY_S, READ_SHARE * (time.monotonic() - began)))


def write_json(printed: Iterable[Printed]) -> None:
    """Write a JSON object a line."""
    for each in printed:
        for line in each.text.splitlines():
            one = msgspec.structs.replace(each, text=line)
            print(msgspec.json.encode(one).decode(), flush=True)


def write_run(printed: Iterable[Printed]) -> None:
    """Write each line after the step that printed it, and the attempt if it is not the first."""
    for each in printed:
        again = f", {_attempt(each)}" if (each.generation, each.attempt) != (1, 1) else ""
        sys.stdout.write(
            "".join(
                f"{words.printable(each.step)}{again} | {line}\n" for line in each.text.splitlines()
            )
        )
        sys.stdout.flush()


def write_step(printed: Iterable[Printed]) -> None:
    """Write one step's output as it is; a line says where another attempt begins."""
    last: Printed | None = None
    for each in printed:
        if last is None or (last.generation, last.attempt) != (each.generation, each.attempt):
            if last is not None and not last.text.endswith("\n"):
                sys.stdout.write("\n")
            if last is not None or (each.generation, each.attempt) != (1, 1):
                sys.stdout.write(f"--- {_attempt(each)} ---\n")
        last = each
        sys.stdout.write(each.text)
        sys.stdout.flush()


def _attempt(printed: Printed) -> str:
    again = f"generation {printed.generation}, " if printed.generation > 1 else ""
    return f"{again}attempt {printed.attempt}"
