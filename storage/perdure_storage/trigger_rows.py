"""Triggers, arrivals and ends of runs as rows and back. No SQL and no I/O.

Who could write a trigger's row could have any code run: definition and state are signed, each on
its own, as an arrival rewrites the state alone. An arrival that is put off is as powerful as the
run that will be made of it. The end of a run is not signed, as the status of a run is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Digest, RunId
from perdure_storage.rows import from_us, pack_value, required_time, to_us, unpack_value
from perdure_storage.signing import Seal, Signer
from perdure_storage.trigger_records import ArrivalRecord, EndRecord, TriggerRecord

Row = Sequence[Any]

_text_of = msgspec.json.Encoder().encode
_parse_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_parse_map = msgspec.json.Decoder(dict[str, str]).decode

STATE = ("state", "heard", "next_at_us", "paused", "version", "state_mac")
"""The columns that an arrival rewrites, if it moves the trigger."""

DECISION = ("decision", "why", "reason", "decided_at_us", "run_id", "code", "mac")
"""The columns of an arrival that another decision rewrites."""

NEWEST = 17
"""Where a trigger's row has the number of its newest arrival."""

_DEFINITION = slice(0, 9)
_STATE_FACTS = slice(10, 15)


class TriggerRows:
    """Rows of ``trigger``."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, trigger: TriggerRecord, newest: int = 0) -> list[Any]:
        """Return the row of a trigger, in the order of the table."""
        row: list[Any] = [
            trigger.name,
            trigger.module,
            trigger.definition,
            trigger.digest,
            trigger.plan_digest,
            _text_of(trigger.blobs).decode(),
            _text_of(trigger.events).decode(),
            trigger.watches_runs,
            trigger.listens,
            None,
            trigger.state,
            trigger.heard,
            to_us(trigger.next_at),
            trigger.paused,
            trigger.version,
            None,
            trigger.listener,
            newest,
            to_us(trigger.created_at),
            to_us(trigger.updated_at),
        ]
        if self._signer is not None:
            row[9] = self._signer.sign("trigger", _definition_facts(row))
            row[15] = self._signer.sign("trigger state", _state_facts(row))
        return row

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signatures of a row of the table."""
        named = f"trigger {row[0]!r}"
        state = f"the state of {named}"
        yield Seal("mac", "trigger", _definition_facts(row), row[9], named)
        yield Seal("state_mac", "trigger state", _state_facts(row), row[15], state)

    def unpack(self, row: Row) -> TriggerRecord:
        """Return the trigger of a row. Raises StoreError if a signature does not fit."""
        if self._signer is not None:
            for seal in self.seals(row):
                self._signer.check(seal)
        return TriggerRecord(
            name=row[0],
            module=row[1],
            definition=row[2],
            digest=row[3],
            plan_digest=row[4],
            blobs=tuple(map(Digest, _parse_texts(row[5]))),
            events=_parse_texts(row[6]),
            watches_runs=bool(row[7]),
            listens=bool(row[8]),
            state=row[10],
            heard=row[11],
            next_at=from_us(row[12]),
            paused=bool(row[13]),
            version=row[14],
            listener=row[16],
            created_at=from_us(row[18]),
            updated_at=from_us(row[19]),
        )


def _definition_facts(row: Row) -> tuple[object, ...]:
    *texts, watches_runs, listens = row[_DEFINITION]
    return (*texts, bool(watches_runs), bool(listens))


def _state_facts(row: Row) -> tuple[object, ...]:
    state, heard, next_at, paused, version = row[_STATE_FACTS]
    return (row[0], state, heard, next_at, bool(paused), version)


class ArrivalRows:
    """Rows of ``arrival``; all of a row is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, arrival: ArrivalRecord) -> list[Any]:
        """Return the row of an arrival, in the order of the table."""
        row: list[Any] = [
            arrival.trigger,
            arrival.key,
            arrival.seq,
            arrival.condition,
            to_us(arrival.at),
            arrival.facts,
            pack_value(arrival.payload),
            arrival.decision,
            arrival.why,
            arrival.reason,
            to_us(arrival.decided_at),
            arrival.run_id,
            arrival.code,
        ]
        return [*row, None if self._signer is None else self._signer.sign("arrival", tuple(row))]

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table."""
        payload = None if row[6] is None else bytes(row[6])
        facts = (*row[:6], payload, *row[7:13])
        yield Seal(
            "mac", "arrival", facts, row[13], f"the arrival {row[1]!r} of trigger {row[0]!r}"
        )

    def unpack(self, row: Row) -> ArrivalRecord:
        """Return the arrival of a row. Raises StoreError if its signature does not fit."""
        if self._signer is not None:
            for seal in self.seals(row):
                self._signer.check(seal)
        return ArrivalRecord(
            trigger=row[0],
            key=row[1],
            seq=row[2],
            condition=row[3],
            at=required_time(row[4]),
            facts=row[5],
            payload=unpack_value(row[6]),
            decision=row[7],
            why=row[8],
            reason=row[9],
            decided_at=required_time(row[10]),
            run_id=row[11],
            code=row[12],
        )


def holder_of(arrival: ArrivalRecord) -> str:
    """Return as whom an arrival refers to its payload; its number is the last word of it."""
    return f"{arrival.trigger} {arrival.seq}"


def unpack_end(row: Row) -> EndRecord:
    """Return the end of a run of a row."""
    return EndRecord(
        id=row[0],
        run_id=RunId(row[1]),
        seq=row[2],
        status=RunStatus(row[3]),
        workflow=row[4],
        tags=_parse_map(row[5]),
        trigger=row[6],
        schedule=row[7],
        at=required_time(row[8]),
        created_at=from_us(row[9]),
    )
