"""Whether this process lives, and whether it could do its work now."""

from __future__ import annotations

import os
from http import HTTPStatus

import msgspec

from perdure.http.operations import Asked, Nothing, Operation, Proof, Room, Said
from perdure.http.problems import Refused
from perdure.http.service import Service


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` is ``"ok"``: what is not is a problem."""

    status: str
    pid: int


def live(service: Service, asked: Asked[Nothing, Nothing]) -> Said:
    """Say that this process answers, whatever the store does."""
    return Said(value=Health(status="ok", pid=os.getpid()))


def ready(service: Service, asked: Asked[Nothing, Nothing]) -> Said:
    """Say that the store answers, and that somebody drives its runs."""
    owners = service.client.runtime.store.coordinators()
    if not any(alive and owner.serves for owner, alive in owners):
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, "NobodyDrives", "nobody drives the runs of this store"
        )
    return Said(value=Health(status="ok", pid=os.getpid()))


OPERATIONS = (
    Operation(
        name="getHealth",
        method="GET",
        path="/health",
        summary="Whether this process lives; asks no store.",
        act=live,
        says=Health,
        room=Room.NOTHING,
        proof=Proof.NONE,
    ),
    Operation(
        name="getReadiness",
        method="GET",
        path="/health/ready",
        summary="Whether the store answers and its runs are driven.",
        act=ready,
        says=Health,
        room=Room.READINESS,
        proof=Proof.NONE,
    ),
)
