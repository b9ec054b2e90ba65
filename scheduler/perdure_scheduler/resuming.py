"""What becomes of what arrived while a trigger was paused, when it goes on: by values alone.

It goes on piece by piece: it stays paused until the last one, so that nothing newer comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from perdure_scheduler.arriving import (
    Came,
    Decision,
    Outcome,
    TriggerState,
    Verdict,
    Why,
    decide,
    outcome_of,
)
from perdure_scheduler.conditions import Files
from perdure_scheduler.file_source import passing_over
from perdure_scheduler.trigger import Trigger

_replace = msgspec.structs.replace


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some of what arrived meanwhile.

    Attributes:
        deferred: in the order in which it came.
        is_last: whether nothing else is left.
        held: what waited before the pause, by key.
    """

    deferred: Sequence[Came]
    is_last: bool
    held: Mapping[str, Came]


def resumed(trigger: Trigger, state: TriggerState, piece: Piece, now: datetime) -> Outcome:
    """Decide a piece, and let the trigger go on if it is the last one."""
    # Windows are over by the time at which what is left has come.
    upto = now if piece.is_last else piece.deferred[-1].at
    going = _replace(state, paused=None)
    return _paused_until_last(
        state, piece, decide(trigger, going, piece.deferred, upto, piece.held)
    )


def skipped(trigger: Trigger, state: TriggerState, piece: Piece, now: datetime) -> Outcome:
    """Let a piece make no runs, nor, if it is the last one, what landed and was not listened to."""
    going = _replace(state, paused=None)
    if piece.is_last:
        over = {
            name: passing_over(now)
            for name, part in trigger.parts.items()
            if isinstance(part, Files)
        }
        going = _replace(going, cursors={**going.cursors, **over})
    reason = "the trigger was paused, and what came meanwhile was left out"
    told = tuple(
        Decision(came=each, verdict=Verdict.SKIPPED, why=Why.PAUSED, reason=reason)
        for each in piece.deferred
    )
    return _paused_until_last(state, piece, _replace(outcome_of(trigger, going), decisions=told))


def _paused_until_last(state: TriggerState, piece: Piece, outcome: Outcome) -> Outcome:
    """Return an outcome that decides earlier arrivals anew, of a trigger that may stay paused."""
    outcome = _replace(outcome, decisions=(), revised=(*outcome.revised, *outcome.decisions))
    if piece.is_last:
        return outcome
    return _replace(outcome, state=_replace(outcome.state, paused=state.paused), wake_at=None)
