"""Who may come in, and how much they may bring. Decided before any of a body is read."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from perdure.http.operations import Operation, Proof
from perdure.http.problems import Refused

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What a request has to show.

    Attributes:
        token: which it has to carry; None: anybody who reaches this machine's loopback may ask.
        hosts: names under which a browser may reach it, where there is no token.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = LOOPBACK

    def admit(self, operation: Operation, headers: Mapping[str, str]) -> None:
        """Let a request in.

        Raises:
            Refused: it does not come in.
        """
        if operation.proof is not Proof.SIGNATURE:
            self._check_origin(headers)
            self._check_host(headers)
        if operation.proof is Proof.TOKEN:
            self._check_token(headers)
        if operation.method == "POST":
            _check_content_type(headers)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse names that are not ours: a page may let its own name lead to this machine.

        With a token it need not be checked: no page has that.
        """
        host = _host_of(headers.get("host", ""))
        if self.token is None and host not in self.hosts:
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "WrongHost",
                f"this server is not {host or 'without a name'}: ask for one of "
                f"{', '.join(sorted(self.hosts))}, or give `perdure up` a token",
            )

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """Refuse what a page of another site has its reader's browser send."""
        origin = headers.get("origin")
        if origin is None:
            return
        if urlsplit(origin).netloc != headers.get("host", ""):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "ForeignOrigin",
                f"a page of {origin} asks: pages of other sites may not",
            )

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if self.token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "TokenMissing" if not given else "WrongToken",
                "write the header `Authorization: Bearer TOKEN`, with the token of `perdure up`",
                {"WWW-Authenticate": 'Bearer realm="perdure"'},
            )


def _host_of(header: str) -> str:
    """Return the name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return header


def _check_content_type(headers: Mapping[str, str]) -> None:
    """Refuse what is not said to be JSON: a form of any page may post everything else here."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "NotJson",
            "write the header `Content-Type: application/json`, also where there is no body",
        )
