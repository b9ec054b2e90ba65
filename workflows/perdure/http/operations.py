"""What an operation is: a route, what it takes, what it gives, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import msgspec

from perdure.http.problems import Refused
from perdure.http.service import Service

B = TypeVar("B")
Q = TypeVar("Q")


class Proof(Enum):
    """What lets a request in."""

    TOKEN = "token"  # the server's, where it has one
    SIGNATURE = "signature"  # over the body: the operation checks it
    NONE = "none"


class Room(Enum):
    """What an operation waits for; each has threads of its own."""

    NOTHING = "nothing"
    READINESS = "readiness"
    STORE = "store"
    CHILD = "child"  # which imports the user's modules


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or a query without anything in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Generic[B, Q]):
    """A request that was let in.

    Attributes:
        path: the values of the parts of the route that vary, decoded.
        query: what stands behind the question mark.
        body: what the body says.
        raw: the body as it came.
        headers: by lower-case name.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Q
    body: B
    raw: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is said in return: a value for JSON."""

    value: Any
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that may be asked.

    Attributes:
        name: names it in the document; unique.
        method, path: the route, ``/v1/runs/{id}``; a part that varies is percent-encoded.
        summary: a line for people.
        act: does it, in a thread; raises what verbs raise, or ``Refused``.
        says: type of the value that is said.
        status: of a request that succeeded.
        body: type of what the body says; None: there is none, or ``act`` reads it itself.
        query: type of what stands behind the question mark.
        headers: names of headers that it reads, with what they are for.
        errors: the statuses of problems beside those that any request may meet.
        proof: what lets a request in.
        room: where it waits, so that what is slow holds up nothing else.
    """

    name: str
    method: str
    path: str
    summary: str
    act: Callable[[Service, Asked[Any, Any]], Said]
    says: Any
    status: HTTPStatus = HTTPStatus.OK
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] = Nothing
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[HTTPStatus, ...] = ()
    proof: Proof = Proof.TOKEN
    room: Room = Room.STORE


def unfit(detail: str) -> Refused:
    """Return the refusal of a request that JSON can say and that makes no sense."""
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "DefinitionError", detail)


IDEMPOTENCY_KEY = "idempotency-key"
_KEY_MAX = 200


def idempotency_key(asked: Asked[Any, Any], also: str | None = None) -> str | None:
    """Return the key by which the same request counts once, from its header or its body.

    Raises:
        Refused: it is no key, or there are two.
    """
    given = asked.headers.get(IDEMPOTENCY_KEY)
    if given is None:
        return also
    if not 1 <= len(given) <= _KEY_MAX or not given.isprintable() or given != given.strip():
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            "BadIdempotencyKey",
            f"Idempotency-Key has 1 to {_KEY_MAX} printable characters: write one that names what "
            "you ask for, such as an order's number",
        )
    if also is not None and also != given:
        raise unfit("Idempotency-Key and dedup_key differ: one of them is enough")
    return given
