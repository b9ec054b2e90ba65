"""The one way in for what happens: events, ends of runs, files, what sources yield, and webhooks.

It reads the trigger, drops what is known, decides (``arriving``: pure), and writes arrivals, runs,
cursor and state in one transaction, guarded by what it read. Any number of them may work at once,
and each may die at any moment: whoever brings the same again is told what became of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.arriving import (
    Came,
    Decision,
    Outcome,
    TriggerState,
    Trouble,
    decide,
    needs_held,
    stored_key,
)
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_changes import came_back, came_of, change_of, state_of
from perdure_storage.clock import Clock
from perdure_storage.errors import StoreError
from perdure_storage.records import RunId
from perdure_storage.trigger_protocol import TriggerStore
from perdure_storage.trigger_records import ArrivalRecord, TriggerRecord
from perdure_storage.values import Values

log = logging.getLogger(__name__)

_TRIES = 100
"""How often it begins again because others were first: each of them is soon done."""
_REJECTED = "rejected"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an arrival.

    Attributes:
        key: as it was brought.
        decision: as its row says it: ``"fired"``, ``"filtered"``, ...
        why: the reason for programs.
        reason: the reason for people.
        run_id: the run that it made, or has a part in.
        is_new: whether it was decided now; False: it was known.
    """

    key: str
    decision: str
    why: str = ""
    reason: str = ""
    run_id: RunId | None = None
    is_new: bool


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be taken in together.

    Attributes:
        arrivals: each with the name of its condition.
        cursors: how far sources have come with them, by condition.
        troubles: why sources cannot be listened to, by condition; "": they can be again.
        heard: number of the last event that was looked at.
        problem: why the arrivals cannot be taken in as they are: they are refused.
        digest: of the definition for which it was brought; None: of whichever there is.
    """

    arrivals: tuple[tuple[str, Arrival], ...] = ()
    cursors: dict[str, str] = {}
    troubles: dict[str, str] = {}
    heard: int = 0
    problem: str = ""
    digest: str | None = None


class TriggerChanged(TriggerError):
    """The trigger is not any more the one for which something was brought: nothing was written."""


class TriggerBusy(StoreError):
    """Others were faster again and again: nothing was written, bring it once more."""


class Intake:
    """Takes in what happens.

    Args:
        triggers: the store.
        values: where inputs go that are facts.
        clock: wall time.
    """

    def __init__(self, triggers: TriggerStore, values: Values, clock: Clock) -> None:
        self._triggers = triggers
        self._values = values
        self._clock = clock
        self._definitions: dict[str, Trigger] = {}

    def receive(
        self,
        name: str,
        arrivals: Sequence[Arrival],
        *,
        condition: str = "",
        cursor: str | None = None,
        digest: str | None = None,
    ) -> list[Receipt]:
        """Take in arrivals of one condition, in one transaction; returns what became of each.

        Once it has returned they count, and the cursor stands. If it raises, or the process dies,
        that may be so or not: bring them again.

        Args:
            name: of the trigger.
            arrivals: in the order in which they happened.
            condition: which they are for: its name in ``all_of`` or ``any_of``.
            cursor: how far the source has come with them; None: it stays where it is.
            digest: of the definition as it was when the source was opened; a source of another
                one must not move its cursor.

        Raises:
            TriggerNotFound: there is no such trigger any more.
            TriggerChanged: it has another definition now.
            TriggerError: its row cannot be read.
            TriggerBusy: others were faster again and again; bring them again.
            StoreUnavailable: the store does not answer; bring them again.
            StoreError: rows of it were tampered with, or the database refuses them.
        """
        named = tuple((condition, each) for each in arrivals)
        cursors = {} if cursor is None else {condition: cursor}
        return self.take(name, Brought(arrivals=named, cursors=cursors, digest=digest))

    def note_trouble(
        self, name: str, condition: str, message: str, *, digest: str | None = None
    ) -> None:
        """Let it be known why a source cannot be listened to, or with "" that it can be again.

        Raises as ``receive`` does.
        """
        readable = message.encode("utf-8", "backslashreplace").decode()
        self.take(name, Brought(troubles={condition: readable}, digest=digest))

    def settle(self, name: str) -> None:
        """Decide what time alone has decided: arrivals whose window is over."""
        self.take(name, Brought())

    def foresee(
        self, name: str, arrivals: Sequence[Arrival], *, condition: str = ""
    ) -> list[Decision]:
        """Return what would become of arrivals if they came now; writes nothing.

        What is known already is left out. Raises as ``receive`` does.
        """
        named = tuple((condition, each) for each in arrivals)
        return list(self._read(name, Brought(arrivals=named)).outcome.decisions)

    def take(self, name: str, brought: Brought) -> list[Receipt]:
        """Take in what was brought, in one transaction; returns what became of each arrival.

        Raises as ``receive`` does.
        """
        for _ in range(_TRIES):
            read = self._read(name, brought)
            change = change_of(
                read.record,
                read.trigger,
                read.outcome,
                read.now,
                self._values,
                read.rows,
                brought.heard,
            )
            if not change.moves and not change.arrivals:
                return read.receipts({})
            report = self._triggers.accept([change])
            for run_id in report.made:
                log.info("run %s was made by trigger %s", run_id, name, extra={"run_id": run_id})
            if name in report.accepted:
                known = {key: row for (_, key), row in report.known.items()}
                new = {row.key: row for row in change.arrivals if row.key not in known}
                return msgspec.structs.replace(read, rows={**read.rows, **known}).receipts(new)
            refusal = report.refused[name]
            if refusal.kind == _REJECTED:
                return self._piecewise(name, brought, refusal.message)
            # Somebody else was first, a value has to be put again, or the trigger is gone.
            log.debug("trigger %s was not taken on: %s", name, refusal.message)
        raise TriggerBusy(
            f"trigger {name!r} was changed by others {_TRIES} times while arrivals were to be "
            "taken in: try again"
        )

    def _piecewise(self, name: str, brought: Brought, message: str) -> list[Receipt]:
        """Take in one by one what the database refuses together; what it refuses alone is told."""
        if not brought.arrivals or brought.problem:
            raise StoreError(f"trigger {name!r}: the database refuses its rows: {message}")
        replace = msgspec.structs.replace
        if len(brought.arrivals) == 1:
            return self.take(name, replace(brought, problem=f"the database refuses it: {message}"))
        receipts: list[Receipt] = []
        for each in brought.arrivals:
            receipts += self.take(name, Brought(arrivals=(each,), digest=brought.digest))
        self.take(name, replace(brought, arrivals=()))
        return receipts

    def _read(self, name: str, brought: Brought) -> _Read:
        record = self._triggers.get_trigger(name)
        if brought.digest not in (None, record.digest):
            raise TriggerChanged(f"trigger {name!r} is another one since this was seen for it")
        trigger, state = self.definition(record), state_of(record)
        now = self._clock.now()
        came: dict[str, tuple[str, Arrival]] = {}
        for condition, arrival in brought.arrivals:
            came.setdefault(stored_key(trigger.on, condition, arrival.key), (condition, arrival))
        rows = self._triggers.known(name, came.keys()) if came else {}
        new = [
            came_of(trigger.on, *each, now, brought.problem)
            for key, each in came.items()
            if key not in rows
        ]
        held = self._held(trigger, state, new, now)
        state = msgspec.structs.replace(
            state,
            cursors={**state.cursors, **brought.cursors},
            troubles=_troubles(state.troubles, brought.troubles, now),
        )
        waited = None if held is None else {key: came_back(row) for key, row in held.items()}
        return _Read(
            brought=brought,
            record=record,
            trigger=trigger,
            outcome=decide(trigger, state, new, now, waited),
            rows={**rows, **(held or {})},
            now=now,
        )

    def _held(
        self, trigger: Trigger, state: TriggerState, came: Sequence[Came], now: datetime
    ) -> dict[str, ArrivalRecord] | None:
        """Return the rows of what waits, by key, if something of it may be decided now."""
        if not needs_held(trigger, state, came, now):
            return None
        return self._triggers.known(trigger.name, [each.key for each in state.waiting])

    def definition(self, record: TriggerRecord) -> Trigger:
        """Return what a row says, read once."""
        found = self._definitions.get(record.digest)
        if found is None:
            found = self._definitions[record.digest] = Trigger.from_json(record.definition)
        return found


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, and what follows from it.

    Attributes:
        rows: of arrivals that were there: what was brought again, and what waits.
    """

    brought: Brought
    record: TriggerRecord
    trigger: Trigger
    outcome: Outcome
    rows: dict[str, ArrivalRecord]
    now: datetime

    def receipts(self, written: Mapping[str, ArrivalRecord]) -> list[Receipt]:
        """Return what became of each arrival.

        Args:
            written: the new rows, by key; of two arrivals with one key the first one's.
        """
        rows = {**self.rows, **written}
        told: set[str] = set()
        receipts: list[Receipt] = []
        for condition, arrival in self.brought.arrivals:
            key = stored_key(self.trigger.on, condition, arrival.key)
            row = rows[key]
            receipts.append(
                Receipt(
                    key=arrival.key,
                    decision=row.decision,
                    why=row.why,
                    reason=row.reason,
                    run_id=row.run_id,
                    is_new=key in written and key not in told,
                )
            )
            told.add(key)
        return receipts


def _troubles(
    known: Mapping[str, Trouble], told: Mapping[str, str], now: datetime
) -> dict[str, Trouble]:
    """Return troubles as they are now; one that is told of again is no news."""
    new = {
        name: Trouble(since=now, message=message)
        for name, message in told.items()
        if name not in known or known[name].message != message
    }
    return {name: each for name, each in {**known, **new}.items() if told.get(name) != ""}
