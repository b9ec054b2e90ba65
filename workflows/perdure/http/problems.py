"""How an error looks over HTTP: one form (RFC 9457), with the words of the command line."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from perdure.advice import lines_about, next_command, with_store
from perdure.errors import (
    DefinitionError,
    NotSerializable,
    RunConflict,
    RunNotFound,
    ValueUnavailable,
)
from perdure_scheduler.errors import ScheduleError, TriggerError
from perdure_scheduler.intake import TriggerBusy, TriggerChanged
from perdure_storage.errors import ScheduleNotFound, StoreUnavailable, TriggerNotFound

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

_STATUS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (RunNotFound, HTTPStatus.NOT_FOUND),
    (ScheduleNotFound, HTTPStatus.NOT_FOUND),
    (TriggerNotFound, HTTPStatus.NOT_FOUND),
    (TriggerBusy, HTTPStatus.SERVICE_UNAVAILABLE),
    (TriggerChanged, HTTPStatus.SERVICE_UNAVAILABLE),
    (TriggerError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RunConflict, HTTPStatus.CONFLICT),
    (DefinitionError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NotSerializable, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ScheduleError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (StoreUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (ValueUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request came to nothing.

    Attributes:
        type: which error, for programs: a name of the reference of errors, or of HTTP.
        title: the status in words.
        status: the status, as in the first line of the response.
        detail: what happened, why likely, and what to do.
        next: a command that fits the cause, for who has a shell where perdure runs.
    """

    type: str
    title: str
    status: int
    detail: str
    next: str = ""


class Refused(Exception):
    """Ends a request with a problem that has nothing to do with the store."""

    def __init__(
        self, status: HTTPStatus, type: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(type=type, title=status.phrase, status=status, detail=detail)
        self.headers = headers or {}


def problem_of(error: Exception, *, store: str = "") -> Problem:
    """Return how an error looks.

    Args:
        error: what a verb raised.
        store: what ``--store`` has to say in the commands that are named; "" for nothing.
    """
    if isinstance(error, Refused):
        return error.problem
    status = next(
        (status for kind, status in _STATUS if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    detail = "\n".join(lines_about(error))
    return Problem(
        type=type(error).__name__,
        title=status.phrase,
        status=status,
        detail=with_store(detail, store),
        next=with_store(next_command(error) or "", store),
    )
