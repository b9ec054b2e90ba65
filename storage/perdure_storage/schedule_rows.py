"""Schedules and ticks as rows and back. No SQL and no I/O.

Who could write a schedule's row could have any code run: definition and state are signed, each on
its own, as a tick rewrites the state alone. A tick that has made a run is as powerful as the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from perdure_storage.records import Digest
from perdure_storage.rows import from_us, required_time, to_us
from perdure_storage.schedule_records import ScheduleRecord, TickRecord
from perdure_storage.signing import Seal, Signer

Row = Sequence[Any]

_parse_texts = msgspec.json.Decoder(tuple[str, ...]).decode

STATE = (
    "state",
    "next_at_us",
    "wakes_below",
    "waits_since_us",
    "paused",
    "ended",
    "version",
    "state_mac",
)
"""The columns that a tick rewrites."""

_DEFINITION = slice(0, 7)
_MAC = 7
_STATE_FACTS = slice(8, 15)
_STATE_MAC = 15


class ScheduleRows:
    """Rows of ``schedule``."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, schedule: ScheduleRecord) -> list[Any]:
        """Return the row of a schedule, in the order of the table."""
        row: list[Any] = [
            schedule.name,
            schedule.module,
            schedule.definition,
            schedule.digest,
            schedule.plan_digest,
            msgspec.json.encode(schedule.blobs).decode(),
            schedule.concurrency,
            None,
            schedule.state,
            to_us(schedule.next_at),
            schedule.wakes_below,
            to_us(schedule.waits_since),
            schedule.paused,
            schedule.ended,
            schedule.version,
            None,
            to_us(schedule.created_at),
            to_us(schedule.updated_at),
        ]
        if self._signer is not None:
            row[_MAC] = self._signer.sign("schedule", tuple(row[_DEFINITION]))
            row[_STATE_MAC] = self._signer.sign("schedule state", _state_facts(row))
        return row

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signatures of a row of the table."""
        named = f"schedule {row[0]!r}"
        state = f"the state of {named}"
        yield Seal("mac", "schedule", tuple(row[_DEFINITION]), row[_MAC], named)
        yield Seal("state_mac", "schedule state", _state_facts(row), row[_STATE_MAC], state)

    def unpack(self, row: Row) -> ScheduleRecord:
        """Return the schedule of a row. Raises StoreError if a signature does not fit."""
        if self._signer is not None:
            for seal in self.seals(row):
                self._signer.check(seal)
        return ScheduleRecord(
            name=row[0],
            module=row[1],
            definition=row[2],
            digest=row[3],
            plan_digest=row[4],
            blobs=tuple(map(Digest, _parse_texts(row[5]))),
            concurrency=row[6],
            state=row[8],
            next_at=from_us(row[9]),
            wakes_below=row[10],
            waits_since=from_us(row[11]),
            paused=bool(row[12]),
            ended=bool(row[13]),
            version=row[14],
            created_at=from_us(row[16]),
            updated_at=from_us(row[17]),
        )


def _state_facts(row: Row) -> tuple[object, ...]:
    *facts, paused, ended, version = row[_STATE_FACTS]
    return (row[0], *facts, bool(paused), bool(ended), version)


class TickRows:
    """Rows of ``tick``; all of a row is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, tick: TickRecord) -> list[Any]:
        """Return the row of a tick, in the order of the table."""
        row: list[Any] = [
            tick.schedule,
            to_us(tick.at),
            to_us(tick.last),
            tick.count,
            tick.decision,
            tick.why,
            tick.reason,
            to_us(tick.decided_at),
            tick.run_id,
            tick.code,
        ]
        return [*row, None if self._signer is None else self._signer.sign("tick", tuple(row))]

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table."""
        named = f"the tick of {required_time(row[1]):%Y-%m-%d %H:%M:%S} UTC of schedule {row[0]!r}"
        yield Seal("mac", "tick", tuple(row[:10]), row[10], named)

    def unpack(self, row: Row) -> TickRecord:
        """Return the tick of a row. Raises StoreError if its signature does not fit."""
        at: datetime = required_time(row[1])
        if self._signer is not None:
            for seal in self.seals(row):
                self._signer.check(seal)
        return TickRecord(
            schedule=row[0],
            at=at,
            last=from_us(row[2]),
            count=row[3],
            decision=row[4],
            why=row[5],
            reason=row[6],
            decided_at=required_time(row[7]),
            run_id=row[8],
            code=row[9],
        )
