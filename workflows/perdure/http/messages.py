"""Operations that tell runs something: signals to one, events for any."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from perdure.http.beside import Signal, Signalled
from perdure.http.operations import (
    IDEMPOTENCY_KEY,
    Asked,
    Nothing,
    Operation,
    Room,
    Said,
    idempotency_key,
)
from perdure.http.service import Service


class SendSignal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run is told.

    Attributes:
        value: as the schema of the wait takes it.
        dedup_key: of several signals with one key the first counts.
    """

    value: Any = None
    dedup_key: str | None = None


class EmitEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What anybody is told who waits for it.

    Attributes:
        payload: what the waits have as their value.
        match: what it says about itself, by which waits select.
        dedup_key: of several events with one key the first counts.
    """

    payload: Any = None
    match: dict[str, Any] = {}
    dedup_key: str | None = None


class Sent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a signal or an event.

    Attributes:
        name: which.
        sent: whether it was sent now; not if one of its key was before.
        run_id: whom a signal was for.
        is_awaited: whether a step of that run waits for this name, now or later on.
    """

    name: str
    sent: bool
    run_id: str | None = None
    is_awaited: bool | None = None


def send_signal(service: Service, asked: Asked[SendSignal, Nothing]) -> Said:
    """Send a signal to a run; one that nobody waits for is kept."""
    run_id, name = asked.path["id"], asked.path["name"]
    question = Signal(
        run_id=run_id,
        name=name,
        value=asked.body.value,
        dedup_key=idempotency_key(asked, asked.body.dedup_key),
    )
    came = service.beside(question, Signalled)
    value = Sent(name=name, sent=came.sent, run_id=run_id, is_awaited=came.is_awaited)
    return Said(value=value, status=HTTPStatus.ACCEPTED)


def emit_event(service: Service, asked: Asked[EmitEvent, Nothing]) -> Said:
    """Send an event to every run that waits for it, and to triggers."""
    event, name = asked.body, asked.path["name"]
    key = idempotency_key(asked, event.dedup_key)
    sent = service.client.emit(name, event.payload, match=event.match, dedup_key=key)
    return Said(value=Sent(name=name, sent=sent), status=HTTPStatus.ACCEPTED)


_KEY = {IDEMPOTENCY_KEY: "The same as dedup_key: of several with one key the first counts."}
OPERATIONS = (
    Operation(
        name="sendSignal",
        method="POST",
        path="/v1/runs/{id}/signals/{name}",
        summary="Send a signal to a run; one that nobody waits for is kept.",
        act=send_signal,
        body=SendSignal,
        says=Sent,
        status=HTTPStatus.ACCEPTED,
        headers=_KEY,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
        room=Room.CHILD,
    ),
    Operation(
        name="emitEvent",
        method="POST",
        path="/v1/events/{name}",
        summary="Send an event to every run that waits for it, and to triggers.",
        act=emit_event,
        body=EmitEvent,
        says=Sent,
        status=HTTPStatus.ACCEPTED,
        headers=_KEY,
    ),
)
