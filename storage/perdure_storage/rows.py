"""Records as rows and back: packed columns, microseconds, signatures. No SQL and no I/O.

Rows are lists in the order of their table's columns, so that they go to the driver as they are.
Readers verify what is signed before they give anything back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from perdure_storage.errors import InternalError
from perdure_storage.lifecycle import RunStatus, StepStatus
from perdure_storage.records import (
    AttemptRecord,
    Cause,
    Digest,
    ErrorRecord,
    EventRecord,
    ExpansionRecord,
    MessageRecord,
    Owner,
    Place,
    PlanRecord,
    ProcessId,
    Progress,
    RunId,
    RunPolicy,
    RunRecord,
    SaveRecord,
    StepId,
    StepRecord,
    StoredValue,
    WaitRecord,
)
from perdure_storage.signing import Seal, Signer

Row = Sequence[Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NOTHING = "[]"
# Asked for each of 100,000 rows: the call of an enumeration takes as long as half of the rest.
_STATUSES = {str(status): status for status in StepStatus}
_PLACES = {str(place): place for place in Place}
_LARGEST = 2**63 - 1

_pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode
_unpack_inputs = msgspec.msgpack.Decoder(dict[str, StoredValue]).decode
_unpack_values = msgspec.msgpack.Decoder(dict[str, StoredValue]).decode
_unpack_error = msgspec.msgpack.Decoder(ErrorRecord).decode
_parse_progress = msgspec.json.Decoder(Progress).decode
_unpack_value = msgspec.msgpack.Decoder(StoredValue).decode
_parse_owner = msgspec.json.Decoder(Owner).decode
_parse_policy = msgspec.json.Decoder(RunPolicy).decode
_parse_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_parse_map = msgspec.json.Decoder(dict[str, str]).decode
_parse_amounts = msgspec.json.Decoder(dict[str, float]).decode
_parse_any = msgspec.json.Decoder(dict[str, Any]).decode
_parse_processes = msgspec.json.Decoder(tuple[ProcessId, ...]).decode

SEQ = 1
"""Where a step row keeps its sequence number, which is known only under the run's lock."""


def to_us(at: datetime | None) -> int | None:
    """Return microseconds since 1970. Raises InternalError for a naive datetime."""
    if at is None:
        return None
    if at.tzinfo is None:
        raise InternalError(f"a naive datetime came to a store: {at!r}")
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int | None) -> datetime | None:
    """Return the datetime of microseconds since 1970, aware and in UTC."""
    return None if us is None else required_time(us)


def required_time(us: int) -> datetime:
    """Return the datetime of a column that is never empty; the nearest there is."""
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:  # a time in year 1 or 9999 of another zone, which is none in UTC
        return (datetime.max if us > 0 else datetime.min).replace(tzinfo=UTC)


def _text_of(value: object) -> str:
    return _json(value).decode()


def _check(signer: Signer | None, seals: Iterator[Seal]) -> None:
    if signer is not None:
        for seal in seals:
            signer.check(seal)


class RunRows:
    """Rows of ``run``; the run's inputs, plan and origin are signed, and so is its error."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, run: RunRecord) -> list[Any]:
        """Return the row of a run, in the order of the table."""
        inputs = _pack(run.inputs)
        return [
            run.id,
            run.workflow,
            str(run.status),
            run.plan_digest,
            run.origin,
            run.inputs_digest,
            _text_of(run.policy),
            _text_of(run.tags),
            _text_of(run.metadata),
            run.parent,
            run.forked_from,
            run.reuse_from,
            run.queue,
            run.priority,
            to_us(run.not_before),
            to_us(run.deadline),
            to_us(run.created_at),
            to_us(run.started_at),
            to_us(run.finished_at),
            *self.pack_error(run.id, run.error),
            None if run.owner is None else pack_owner(run.owner),
            None if run.owner is None else run.owner.token,
            run.epoch,
            run.takeovers,
            run.seq,
            to_us(run.wake_at),
            run.cancel_requested,
            run.pause_requested,
            run.schedule,
            run.by_hand,
            run.trigger,
            run.limit_key,
            run.dedup_key,
            inputs,
            self._sign(run.id, run.plan_digest, run.origin, run.inputs_digest, inputs),
        ]

    def pack_error(
        self, run_id: RunId, error: ErrorRecord | None
    ) -> tuple[bytes | None, bytes | None]:
        """Return a run's error and its signature as columns."""
        if error is None:
            return None, None
        packed = _pack(error)
        signer = self._signer
        return packed, None if signer is None else signer.sign("run error", (run_id, packed))

    def unpack(self, row: Row) -> RunRecord:
        """Return the run of a whole row followed by ``lease_live``. Raises StoreError."""
        *columns, inputs, _, lease_live = row
        _check(self._signer, self.seals(row[:-1]))
        return self._unpack(columns, _unpack_inputs(inputs), lease_live)

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signatures of a row of the table."""
        named = f"run {row[0]!r}"
        *_, inputs, mac = row
        facts = (row[0], row[3], row[4], row[5], bytes(inputs))
        yield Seal("mac", "run", facts, mac, named)
        if row[19] is not None:
            facts_of_error = (row[0], bytes(row[19]))
            yield Seal("error_mac", "run error", facts_of_error, row[20], f"the error of {named}")

    def unpack_listed(self, row: Row) -> RunRecord:
        """Return the run of a row without inputs and signature, followed by ``lease_live``."""
        *columns, lease_live = row
        return self._unpack(columns, {}, lease_live)

    def _unpack(self, row: Row, inputs: dict[str, StoredValue], lease_live: object) -> RunRecord:
        return RunRecord(
            id=row[0],
            workflow=row[1],
            status=RunStatus(row[2]),
            plan_digest=row[3],
            origin=row[4],
            inputs=inputs,
            inputs_digest=row[5],
            policy=_parse_policy(row[6]),
            tags=_parse_map(row[7]),
            metadata=_parse_any(row[8]),
            parent=row[9],
            forked_from=row[10],
            reuse_from=row[11],
            queue=row[12],
            priority=row[13],
            not_before=from_us(row[14]),
            deadline=from_us(row[15]),
            created_at=required_time(row[16]),
            started_at=from_us(row[17]),
            finished_at=from_us(row[18]),
            error=self._unpack_error(row[0], row[19], row[20]),
            owner=None if row[21] is None else _parse_owner(row[21]),
            lease_live=bool(lease_live),
            epoch=row[23],
            takeovers=row[24],
            seq=row[25],
            wake_at=from_us(row[26]),
            cancel_requested=bool(row[27]),
            pause_requested=bool(row[28]),
            schedule=row[29],
            by_hand=bool(row[30]),
            trigger=row[31],
            limit_key=row[32],
            dedup_key=row[33],
        )

    def _unpack_error(
        self, run_id: RunId, packed: bytes | None, mac: bytes | None
    ) -> ErrorRecord | None:
        if packed is None:
            return None
        if self._signer is not None:
            facts = (run_id, bytes(packed))
            self._signer.require("run error", facts, mac, f"the error of run {run_id!r}")
        return _unpack_error(packed)

    def _sign(
        self,
        run_id: RunId,
        plan_digest: Digest | None,
        origin: str | None,
        inputs_digest: str,
        inputs: bytes,
    ) -> bytes | None:
        if self._signer is None:
            return None
        return self._signer.sign("run", (run_id, plan_digest, origin, inputs_digest, inputs))


class StepRows:
    """Rows of ``step``; all that decides what is decoded or reused is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, step: StepRecord) -> list[Any]:
        """Return the row of a step, its sequence number still 0.

        Raises ValueError, TypeError or OverflowError if no database could take it.
        """
        require_storable(step)
        value = step.value
        inputs = _text_of(step.inputs) if step.inputs else _NOTHING
        error = None if step.error is None else _pack(step.error)
        if value is None:
            of_value = _NO_VALUE
        else:
            parts = _text_of(value.parts) if value.parts else None
            of_value = (
                str(value.place),
                value.codec,
                value.size_bytes,
                value.integrity,
                value.value_digest,
                parts,
                value.preview,
                value.data,
            )
        row = [
            step.run_id,
            0,
            step.step_id,
            step.generation,
            step.current,
            str(step.status),
            step.attempt,
            step.name,
            step.own,
            step.code,
            step.fingerprint,
            inputs,
            *of_value,
            error,
            step.caught,
            to_us(step.started_at),
            to_us(step.finished_at),
            step.worker,
            step.reason,
            None,
            step.peak_memory_bytes,
            _pack(step.states) if step.states else None,
        ]
        if self._signer is not None:
            row[26] = self._signer.sign("step", _step_facts(row))
        return row

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table."""
        named = f"step {row[2]!r} (generation {row[3]}) of run {row[0]!r}"
        yield Seal("mac", "step", _step_facts(row), row[26], named)

    def unpack(self, row: Row) -> StepRecord:
        """Return the step of a row. Raises StoreError if its signature does not fit."""
        signer = self._signer
        if signer is not None and not signer.fits("step", _step_facts(row), row[26]):
            _check(signer, self.seals(row))
        return StepRecord(
            run_id=row[0],
            step_id=row[2],
            generation=row[3],
            status=_STATUSES.get(row[5]) or StepStatus(row[5]),
            current=bool(row[4]),
            attempt=row[6],
            name=row[7],
            own=row[8],
            code=row[9],
            fingerprint=row[10],
            inputs=() if row[11] == _NOTHING else _parse_texts(row[11]),
            value=None if row[12] is None else _value(row),
            error=None if row[20] is None else _unpack_error(row[20]),
            caught=bool(row[21]),
            started_at=from_us(row[22]),
            finished_at=from_us(row[23]),
            worker=row[24],
            reason=row[25],
            peak_memory_bytes=row[27],
            seq=row[1],
            states={} if row[28] is None else _unpack_values(row[28]),
        )


_NO_VALUE: tuple[Any, ...] = (None,) * 8


def _value(row: Row) -> StoredValue:
    return StoredValue(
        codec=row[13],
        place=_PLACES.get(row[12]) or Place(row[12]),
        size_bytes=row[14],
        integrity=row[15],
        value_digest=row[16],
        data=row[19],
        parts={} if row[17] is None else _parse_map(row[17]),
        preview=row[18],
    )


def _step_facts(row: Row) -> tuple[object, ...]:
    """Return what a step's signature covers: all but where and when, and what changes later.

    A LOST row was signed as the SUCCEEDED one that it was. Inline bytes are covered by their
    integrity digest, which whoever decodes them checks.
    """
    status = "SUCCEEDED" if row[5] == "LOST" else row[5]
    return (
        row[0],
        row[2],
        row[3],
        status,
        *row[6:18],
        None if row[20] is None else bytes(row[20]),
        bool(row[21]),
        # Not of other rows, whose signatures are older than this column.
        *(() if row[28] is None else (bytes(row[28]),)),
    )


def require_storable(step: StepRecord) -> None:
    """Raise ValueError if no database could take the row.

    PostgreSQL has no place for NUL in a text, UTF-8 has none for a lone surrogate, and neither
    database has one for an integer of more than 64 bits. All stores refuse alike.
    """
    value = step.value
    of_value = "" if value is None else f"{value.preview}{value.codec}{value.value_digest}"
    of_step = f"{step.step_id}{step.name}{step.own}{step.code}{step.fingerprint}"
    texts = f"{of_step}{step.worker}{step.reason}{of_value}"
    size_bytes = 0 if value is None else value.size_bytes
    if "\0" in texts or max(step.generation, step.attempt, size_bytes) > _LARGEST:
        raise ValueError(f"step {step.step_id!r} has a NUL or too large a number in its row")
    texts.encode()


class AttemptRows:
    """Rows of ``attempt``; one that carries an exception is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, attempt: AttemptRecord) -> list[Any]:
        """Return the row of an attempt, in the order of the table."""
        error = None if attempt.error is None else _pack(attempt.error)
        row = [
            attempt.run_id,
            attempt.step_id,
            attempt.generation,
            attempt.attempt,
            None if attempt.cause is None else str(attempt.cause),
            error,
            attempt.worker,
            to_us(attempt.started_at),
            None if attempt.finished_at is None else to_us(attempt.finished_at),
            None if attempt.not_before is None else to_us(attempt.not_before),
            attempt.peak_memory_bytes,
            None,
            None if attempt.progress is None else _text_of(attempt.progress),
        ]
        if self._signer is not None and error is not None:
            row[11] = self._signer.sign("attempt", (*row[:4], error))
        return row

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table, if it has one."""
        if row[5] is not None:
            named = f"attempt {row[3]} of step {row[1]!r} of run {row[0]!r}"
            yield Seal("mac", "attempt", (*row[:4], bytes(row[5])), row[11], named)

    def unpack(self, row: Row) -> AttemptRecord:
        """Return the attempt of a row. Raises StoreError if its signature does not fit."""
        packed = row[5]
        if packed is not None:
            _check(self._signer, self.seals(row))
        return AttemptRecord(
            run_id=row[0],
            step_id=row[1],
            generation=row[2],
            attempt=row[3],
            cause=None if row[4] is None else Cause(row[4]),
            error=None if packed is None else _unpack_error(packed),
            worker=row[6],
            started_at=from_us(row[7]),
            finished_at=from_us(row[8]),
            not_before=from_us(row[9]),
            peak_memory_bytes=row[10],
            progress=None if row[12] is None else _parse_progress(row[12]),
        )


class SaveRows:
    """Rows of ``save``; all of it is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, save: SaveRecord) -> list[Any]:
        """Return the row of a save, in the order of the table."""
        row: list[Any] = [
            save.run_id,
            save.step_id,
            save.number,
            save.item,
            save.generation,
            save.attempt,
            save.at,
            save.source,
            to_us(save.saved_at),
            _pack(save.value),
            None,
        ]
        if self._signer is not None:
            row[10] = self._signer.sign("save", tuple(row[:10]))
        return row

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table."""
        named = f"save {row[2]} of step {row[1]!r} of run {row[0]!r}"
        yield Seal("mac", "save", (*row[:9], bytes(row[9])), row[10], named)

    def unpack(self, row: Row) -> SaveRecord:
        """Return the save of a row. Raises StoreError if its signature does not fit."""
        _check(self._signer, self.seals(row))
        saved_at = from_us(row[8])
        assert saved_at is not None
        return SaveRecord(
            run_id=row[0],
            step_id=row[1],
            number=row[2],
            item=row[3],
            generation=row[4],
            attempt=row[5],
            at=row[6],
            source=row[7],
            value=_unpack_value(row[9]),
            saved_at=saved_at,
        )


def pack_amounts(amounts: Mapping[str, float]) -> str | None:
    """Return amounts by name as a column, which the database itself looks into."""
    return _text_of(amounts) if amounts else None


def pack_offer(offer: Mapping[str, float]) -> str:
    """Return what somebody has as a parameter of a query."""
    return _text_of(offer)


class PlanRows:
    """Rows of ``plan``: body and blobs are signed under the plan's digest."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, plan: PlanRecord) -> list[Any]:
        """Return the row of a plan, in the order of the table."""
        blobs = _text_of(plan.blobs)
        signer = self._signer
        mac = None if signer is None else signer.sign("plan", (plan.digest, blobs, plan.body))
        return [plan.digest, plan.body, blobs, mac, pack_amounts(plan.needs)]

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table."""
        digest, body, blobs, mac, _ = row
        yield Seal("mac", "plan", (digest, blobs, bytes(body)), mac, f"plan {digest}")

    def unpack(self, row: Row) -> PlanRecord:
        """Return the plan of a row. Raises StoreError if its signature does not fit."""
        digest, body, blobs, _, needs = row
        _check(self._signer, self.seals(row))
        return PlanRecord(
            digest=digest,
            body=bytes(body),
            blobs=tuple(map(Digest, _parse_texts(blobs))),
            needs={} if needs is None else _parse_amounts(needs),
        )


class ExpansionRows:
    """Rows of ``expansion``; which graph stands for which step is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer
        self._plans = PlanRows(signer)

    def pack(self, expansion: ExpansionRecord) -> list[Any]:
        """Return the row of an expansion, in the order of the table."""
        row: list[Any] = [
            expansion.run_id,
            expansion.step_id,
            expansion.generation,
            expansion.link,
            expansion.kind,
            expansion.count,
            expansion.source,
            expansion.plan.digest,
            None,
        ]
        if self._signer is not None:
            row[8] = self._signer.sign("expansion", tuple(row[:8]))
        return row

    def pack_plan(self, expansion: ExpansionRecord) -> list[Any]:
        """Return the row of an expansion's plan."""
        return self._plans.pack(expansion.plan)

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table."""
        named = f"the graph that step {row[1]!r} of run {row[0]!r} gave"
        yield Seal("mac", "expansion", tuple(row[:8]), row[8], named)

    def unpack(self, row: Row) -> ExpansionRecord:
        """Return the expansion of a row that is joined with its plan's.

        Raises StoreError if a signature does not fit.
        """
        _check(self._signer, self.seals(row))
        return ExpansionRecord(
            run_id=row[0],
            step_id=row[1],
            generation=row[2],
            link=row[3],
            kind=row[4],
            count=row[5],
            source=row[6],
            plan=self._plans.unpack(row[9:]),
        )


class WaitRows:
    """Rows of ``wait``; all but the message that ended it is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, wait: WaitRecord) -> list[Any]:
        """Return the row of a wait, in the order of the table."""
        row: list[Any] = [
            wait.run_id,
            wait.step_id,
            wait.generation,
            wait.kind,
            wait.name,
            _text_of(wait.match),
            to_us(wait.deadline),
            None if wait.default is None else _pack(wait.default),
            wait.source,
            wait.message,
            None,
        ]
        if self._signer is not None:
            row[10] = self._signer.sign("wait", tuple(row[:9]))
        return row

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table."""
        value = None if row[7] is None else bytes(row[7])
        named = f"what step {row[1]!r} of run {row[0]!r} waits for"
        yield Seal("mac", "wait", (*row[:7], value, row[8]), row[10], named)

    def unpack(self, row: Row) -> WaitRecord:
        """Return the wait of a row. Raises StoreError if its signature does not fit."""
        _check(self._signer, self.seals(row))
        return WaitRecord(
            run_id=row[0],
            step_id=row[1],
            generation=row[2],
            kind=row[3],
            name=row[4],
            match=_parse_any(row[5]),
            deadline=from_us(row[6]),
            default=None if row[7] is None else _unpack_value(row[7]),
            source=row[8],
            message=row[9],
        )


class MessageRows:
    """Rows of ``message``; all but the number that the store gives is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def pack(self, message: MessageRecord) -> list[Any]:
        """Return the row of a message without its number, in the order of the table."""
        facts: list[Any] = [
            message.run_id or "",
            message.name,
            _text_of(message.match),
            message.dedup_key,
            to_us(message.at),
            _pack(message.value),
        ]
        signed = _signed_message(facts, message.sender)
        mac = None if self._signer is None else self._signer.sign("message", signed)
        return [*facts, mac, message.sender]

    def named(self, row: Row) -> dict[str, Any]:
        """Return a packed row by the names of its columns."""
        names = ("receiver", "name", "match", "dedup_key", "at_us", "value", "mac", "sender")
        return dict(zip(names, row, strict=True))

    def numbered(self, message: MessageRecord, number: int) -> MessageRecord:
        """Return a message under the number that the store gave."""
        return msgspec.structs.replace(message, id=number)

    def seals(self, row: Row) -> Iterator[Seal]:
        """Yield the signature of a row of the table."""
        facts = _signed_message((*row[1:6], bytes(row[6])), row[8])
        yield Seal("mac", "message", facts, row[7], f"message {row[0]} ({row[2]!r})")

    def unpack(self, row: Row) -> MessageRecord:
        """Return the message of a row. Raises StoreError if its signature does not fit."""
        _check(self._signer, self.seals(row))
        return MessageRecord(
            id=row[0],
            run_id=row[1] or None,
            name=row[2],
            match=_parse_any(row[3]),
            dedup_key=row[4],
            at=required_time(row[5]),
            value=_unpack_value(row[6]),
            sender=row[8],
        )


def _signed_message(facts: Sequence[object], sender: object) -> tuple[object, ...]:
    """Return what is signed of a message; as before there were senders, if it has none."""
    return tuple(facts) if sender is None else (*facts, sender)


def pack_event(run_id: RunId, seq: int, event: EventRecord) -> list[Any]:
    """Return the row of an event, in the order of the table."""
    return [run_id, seq, event.kind, to_us(event.at), event.step_id, _text_of(event.detail)]


def unpack_event(row: Row) -> EventRecord:
    """Return the event of a row."""
    step_id = None if row[4] is None else StepId(row[4])
    return EventRecord(
        kind=row[2],
        at=required_time(row[3]),
        step_id=step_id,
        detail=_parse_any(row[5]),
        seq=row[1],
    )


def pack_owner(owner: Owner) -> str:
    """Return an owner as a column."""
    return _text_of(owner)


def unpack_owner(text: str) -> Owner:
    """Return the owner of a column."""
    return _parse_owner(text)


def pack_processes(processes: Sequence[ProcessId]) -> str:
    """Return worker processes as a column."""
    return _text_of(tuple(processes))


def unpack_processes(text: str) -> tuple[ProcessId, ...]:
    """Return the worker processes of a column."""
    return _parse_processes(text)


def pack_policy(policy: RunPolicy) -> str:
    """Return a policy as a column."""
    return _text_of(policy)


def pack_value(value: StoredValue | None) -> bytes | None:
    """Return a value as a column."""
    return None if value is None else _pack(value)


def unpack_value(packed: bytes | None) -> StoredValue | None:
    """Return the value of a column."""
    return None if packed is None else _unpack_value(packed)
