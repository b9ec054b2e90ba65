"""What Prometheus scrapes: a text of its own, so no operation of the document."""

from __future__ import annotations

from http import HTTPStatus

from perdure.http.operations import Asked, Nothing, Operation, Room, Said
from perdure.http.problems import Refused
from perdure.http.service import Service

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics(service: Service, asked: Asked[Nothing, Nothing]) -> Said:
    """Return everything that is counted here."""
    if service.metrics is None:
        raise Refused(
            HTTPStatus.NOT_FOUND,
            "NotCounted",
            "nothing is counted here: `pip install 'perdure[metrics]'`, then `perdure up` again",
        )
    return Said(value=service.metrics())


METRICS = Operation(
    name="getMetrics",
    method="GET",
    path="/metrics",
    summary="What is counted, for Prometheus.",
    act=metrics,
    says=bytes,
    room=Room.STORE,
)
