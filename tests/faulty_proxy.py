"""A door before a PostgreSQL server that can be slammed, at the worst moment, or jammed."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_COMMIT = b"COMMIT\0"
_BUFFER = 65_536
SOCKET = ".s.PGSQL.5432"


class FaultyProxy:
    """Passes bytes on between clients on TCP and a server on a socket, as long as it is let.

    Args:
        server: path of the server's socket.

    Attributes:
        slam_before_commit: drop the connection on which the next COMMIT comes, before it is sent.
        slam_after_commit: drop the one on which the next COMMIT is answered, before that is sent.
        slammed: whether that has happened.
    """

    def __init__(self, server: Path) -> None:
        self._server = str(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.slam_before_commit = threading.Event()
        self.slam_after_commit = threading.Event()
        self.slammed = threading.Event()
        self._flows = threading.Event()
        self._flows.set()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def url(self, direct: str) -> str:
        """Return the URL through this door of what ``direct`` names."""
        options = parse_qs(urlsplit(direct).query).get("options", ["-c jit=off"])[0]
        return (
            f"postgresql://postgres@127.0.0.1:{self.port}/postgres?options={quote(options)}"
            "&sslmode=disable&gssencmode=disable"
        )

    def close(self) -> None:
        """Refuse everybody from now on."""
        # Shutting down wakes the thread that accepts; closing alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flows.set()
        self.drop_all()
        self._thread.join()

    def drop_all(self) -> None:
        """Break every connection, and say so to both ends."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Let nothing pass, and tell nobody: as a network does from which a cable is pulled."""
        self._flows.clear()

    def mend(self) -> None:
        """Let everything pass again, what was held back first."""
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:  # it is away
                client.close()
                server.close()
                continue
            self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                pump = self._send if source is client else self._answer
                threading.Thread(target=pump, args=(source, target), daemon=True).start()

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_BUFFER):
                self._flows.wait()
                if _COMMIT in data and self.slam_before_commit.is_set():
                    self.slam_before_commit.clear()
                    self._slam(client, server)
                    return
                server.sendall(data)
        self._end(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_BUFFER):
                self._flows.wait()
                if _COMMIT in data and self.slam_after_commit.is_set():
                    # The server says that it is done, and nobody hears it.
                    self.slam_after_commit.clear()
                    self._slam(server, client)
                    return
                client.sendall(data)
        self._end(server, client)

    def _slam(self, *ends: socket.socket) -> None:
        self._end(*ends)
        self.slammed.set()

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
