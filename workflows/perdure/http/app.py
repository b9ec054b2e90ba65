"""From operations to a Starlette app: reads, decodes, acts in a thread, encodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, get_origin, get_type_hints
from urllib.parse import unquote

import anyio
import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure.http import counted, health, hooks, messages, runs
from perdure.http.counted import METRICS
from perdure.http.door import Door
from perdure.http.openapi import document
from perdure.http.operations import Asked, Nothing, Operation, Room, Said
from perdure.http.problems import (
    MEDIA_TYPE,
    RETRY_AFTER_S,
    Problem,
    Refused,
    problem_of,
)
from perdure.http.service import Failed, Service

log = logging.getLogger(__name__)

OPERATIONS: tuple[Operation, ...] = (
    *runs.OPERATIONS,
    *messages.OPERATIONS,
    *hooks.OPERATIONS,
    *health.OPERATIONS,
)
BODY_WITHIN_S = 10.0
"""How long a body may take to come: who sends slowly holds a connection, and nothing else."""
READY_WITHIN_S = 2.0
_THREADS = {Room.STORE: 8, Room.CHILD: 4, Room.READINESS: 1}
_WAITING = 100
"""So many requests may wait for a thread of a room; more are sent away, to come again."""
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def make_app(service: Service, door: Door) -> ASGIApp:
    """Return the app that serves a store.

    Args:
        service: what operations work with.
        door: what requests have to show.
    """
    rooms = Rooms()
    routes = [_route(operation, service, door, rooms) for operation in OPERATIONS]
    routes.append(_route(METRICS, service, door, rooms, _text))
    routes.append(_document_route())
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _on_http_exception, Exception: _on_exception},
    )
    return RawPaths(app)


class RawPaths:
    """Lets routes be found by the path as it came: ``%2F`` is part of a run's id, and no border."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path")
        if raw is not None:
            scope = {**scope, "path": raw.decode("latin-1").partition("?")[0]}
        await self._app(scope, receive, send)


class Rooms:
    """Threads for what may wait, a bounded number for each kind of waiting."""

    def __init__(self) -> None:
        self._limiters: dict[Room, CapacityLimiter] = {}

    async def run(self, room: Room, act: Callable[[], Said]) -> Said:
        """Return what ``act`` gives, which runs in a thread of the room.

        Raises:
            Refused: too many wait there already.
        """
        if room is Room.NOTHING:
            return act()
        limiter = self._limiters.setdefault(room, CapacityLimiter(_THREADS[room]))
        if room is Room.READINESS:
            return await _in_time(act, limiter)
        if limiter.statistics().tasks_waiting >= _WAITING:
            raise _busy(f"{_WAITING} requests wait already")
        return await to_thread.run_sync(act, limiter=limiter)


async def _in_time(act: Callable[[], Said], limiter: CapacityLimiter) -> Said:
    """Return what ``act`` gives, if it does so soon; a thread that hangs is left behind."""
    with anyio.move_on_after(READY_WITHIN_S):
        return await to_thread.run_sync(act, limiter=limiter, abandon_on_cancel=True)
    raise _busy(f"the store does not answer within {READY_WITHIN_S:g} s")


def _busy(why: str) -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "Busy", f"{why}: try again")


def _route(
    operation: Operation,
    service: Service,
    door: Door,
    rooms: Rooms,
    respond: Callable[[Said], Response] | None = None,
) -> Route:
    respond = respond or _response
    max_body_bytes = service.client.settings.http_max_body

    async def endpoint(request: Request) -> Response:
        try:
            door.admit(operation, request.headers)
            asked = await _read(operation, request, max_body_bytes)
            said = await rooms.run(operation.room, lambda: operation.act(service, asked))
        except Failed as failed:
            return _problem(failed.problem)
        except Refused as refused:
            return _problem(refused.problem, refused.headers)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it
        except Exception as error:  # noqa: BLE001 - the boundary: whoever asks is told, in words
            return _failure(error, service.store_option)
        if operation.method != "GET":
            log.info("%s %s: %d", operation.method, operation.path, said.status)
        return respond(said)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


def _failure(error: Exception, store: str = "") -> Response:
    trace = error.__traceback__
    # No line of the user's is on this stack: whoever asks is told of none of the server's files.
    problem = problem_of(error.with_traceback(None), store=store)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("a request failed: %s", problem.detail, exc_info=(type(error), error, trace))
    return _problem(problem)


# --- what comes in ------------------------------------------------------------------------------
async def _read(operation: Operation, request: Request, max_body_bytes: int) -> Asked[Any, Any]:
    path = {name: _decoded(value) for name, value in request.path_params.items()}
    query = _query(operation.query, request.query_params)
    if operation.method == "GET":
        return Asked(path=path, query=query, body=Nothing(), headers=request.headers)
    raw = await _body(request, max_body_bytes)
    body = _parsed(raw, operation.body) if operation.body is not None else Nothing()
    return Asked(path=path, query=query, body=body, raw=raw, headers=request.headers)


def _decoded(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise _bad(f"the path has {part!r}, which is no text in UTF-8") from None


def _query(kind: type[msgspec.Struct], params: QueryParams) -> Any:
    hints = get_type_hints(kind)
    given = {
        name: params.getlist(name) if get_origin(hints.get(name)) is list else params[name]
        for name in params
    }
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _bad(f"in the query: {error}") from None


async def _body(request: Request, limit: int) -> bytes:
    """Return the body; of one that is too long no more than the limit is held."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_long(limit)
    pieces, size = [], 0
    with anyio.move_on_after(BODY_WITHIN_S):
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                raise _too_long(limit)
            pieces.append(piece)
        return b"".join(pieces)
    raise Refused(
        HTTPStatus.REQUEST_TIMEOUT,
        "TooSlow",
        f"the body did not come within {BODY_WITHIN_S:g} s",
        {"Connection": "close"},
    )


def _too_long(limit: int) -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "BodyTooLong",
        f"the body has more than {limit:,} bytes: write large values into a file or a bucket, and "
        "say where they are, or let `perdure up --max-body` take longer ones",
        {"Connection": "close"},
    )


def _parsed(raw: bytes, kind: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, "DefinitionError", f"in the body: {error}"
        ) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _bad(f"the body is no JSON: {error}") from None


def _bad(detail: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "BadRequest", detail)


# --- what goes out ------------------------------------------------------------------------------
def _response(said: Said) -> Response:
    return Response(
        msgspec.json.encode(said.value),
        status_code=said.status,
        media_type="application/json",
        headers={**_HEADERS, **said.headers},
    )


def _text(said: Said) -> Response:
    return Response(said.value, headers={**_HEADERS, "Content-Type": counted.MEDIA_TYPE})


def _problem(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    more = dict(headers or {})
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        more["Retry-After"] = str(RETRY_AFTER_S)
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={**_HEADERS, **more},
    )


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = {
        HTTPStatus.NOT_FOUND: f"there is no {request.url.path} here: /openapi.json lists all",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is nothing that {request.url.path} takes",
    }.get(status, status.description)
    refused = Refused(status, status.phrase.title().replace(" ", ""), detail)
    return _problem(refused.problem, error.headers)


async def _on_exception(request: Request, error: Exception) -> Response:
    return _failure(error)


def _document_route() -> Route:
    text = msgspec.json.encode(document(OPERATIONS))

    async def endpoint(request: Request) -> Response:
        return Response(text, media_type="application/json", headers=_HEADERS)

    return Route("/openapi.json", endpoint, methods=["GET"])
