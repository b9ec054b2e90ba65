"""The socket, and uvicorn in a thread of its own beside what drives runs."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.errors import DefinitionError, PerdureError
from perdure.http.door import LOOPBACK, Door
from perdure.http.service import Service

if TYPE_CHECKING:
    from perdure.http.quiet_server import QuietServer

log = logging.getLogger(__name__)

_BACKLOG = 512
_CONNECTIONS = 500
"""More of them are answered with 503 at once."""
_GRACE_S = 3.0
"""How long requests under way may take when the server is to end."""
_TOKEN_MIN = 16


class PortTaken(PerdureError):
    """Another process listens at the port already.

    Likely:
        Another ``perdure up`` runs on this machine; it may serve another store.

    Type:
        ``perdure up --port 8080``, or another port that is free; or ``perdure up --no-http``.

    Attributes:
        port: the port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        super().__init__(
            f"port {port} of {host} is taken by another process: say --port with one that is free, "
            "or --no-http"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen, and the token that requests have to carry, if there is one."""

    host: str
    port: int
    token: str | None = field(default=None, repr=False)

    def check(self) -> None:
        """Raise DefinitionError for what would let strangers in, or nobody."""
        if not 0 <= self.port <= 65535:
            raise DefinitionError(f"http_port={self.port} is not from 0 to 65535")
        if self.token is not None and not _is_token(self.token):
            raise DefinitionError(
                f"the token is no good: it has at least {_TOKEN_MIN} ASCII characters without "
                'spaces, such as `python -c "import secrets; print(secrets.token_urlsafe())"` gives'
            )
        if self.token is None and not _is_loopback(self.host):
            raise DefinitionError(
                f"{self.host} can be reached from other machines, and whoever reaches it may start "
                "runs: set PERDURE_TOKEN or say --token-file FILE, or listen at 127.0.0.1"
            )


def _is_token(token: str) -> bool:
    return len(token) >= _TOKEN_MIN and token.isascii() and token.isprintable() and " " not in token


def _is_loopback(host: str) -> bool:
    return all(ipaddress.ip_address(each).is_loopback for _, each in _resolved(host))


def _resolved(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """Return the addresses of a name, IPv4 first."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DefinitionError(
            f"http_host={host!r} is no address of this machine: {error}"
        ) from None
    return sorted((family, str(place[0])) for family, _, _, _, place in found)


class Server:
    """Serves a store over HTTP until it is closed.

    Listens when it is made, so that who asks right after is answered; ``start`` answers.

    Args:
        service: what operations work with; closed together with it.
        address: where.

    Raises:
        DefinitionError: the address is none, or would let strangers in.
        PortTaken: another process has the port.
    """

    def __init__(self, service: Service, address: Address) -> None:
        address.check()
        self._service = service
        self._socket = _listen(address)
        host = address.host
        self._door = Door(token=address.token, hosts=LOOPBACK | {host})
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._server: QuietServer | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perdure-http", daemon=True)

    @property
    def port(self) -> int:
        """Return the port; the one that was found, where 0 was asked for."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._server = _made(self._service, self._door)
            if not self._is_over.is_set():
                self._server.run(sockets=[self._socket])
        except Exception:
            # A thread that ends takes nothing with it: runs are driven on.
            log.exception("nothing is served over HTTP any more")

    def close(self) -> None:
        """End it; requests under way are answered first. Idempotent."""
        self._is_over.set()
        if self._server is not None:
            self._server.end()
        if self._thread.is_alive():
            self._thread.join(2 * _GRACE_S)
        self._socket.close()
        self._service.close()


def _made(service: Service, door: Door) -> QuietServer:
    # Imported here, in the server's thread: who drives runs does not wait for it.
    import uvicorn

    from perdure.http.app import make_app
    from perdure.http.quiet_server import QuietServer

    config = uvicorn.Config(
        make_app(service, door),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=int(_GRACE_S),
    )
    return QuietServer(config)


def _listen(address: Address) -> socket.socket:
    family, place = _resolved(address.host)[0]
    try:
        listening = socket.create_server((place, address.port), family=family, backlog=_BACKLOG)
        # Connections have it of the socket that they came by. Without it the end of an answer waits
        # until its beginning is acknowledged, which a client puts off for 40 ms; asyncio sets it
        # for sockets only that it made itself.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except PermissionError as error:
        raise DefinitionError(
            f"port {address.port} may not be listened at: {error.strerror}. Ports below 1024 are "
            "the system's: take a higher one"
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(address.host, address.port) from None
        raise DefinitionError(
            f"cannot listen at {address.host}:{address.port}: {error.strerror}"
        ) from None
