"""An S3 server for tests: moto's, over HTTP, one for a session; and a proxy that lets it fail.

Each test gets a bucket of its own. Where the server is, is in the environment, as in production, so
processes that a test starts find it too.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pytest


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Yield the URL of an S3 server."""
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs s3fs")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty bucket, which s3fs finds here and in processes of ours."""
    return make_bucket(s3_server, monkeypatch)


def make_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a bucket, and say to s3fs here and in processes of ours where it is."""
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("PERDURE_BLOBS_CACHE_SIZE", "0")  # a test that wants one, makes it
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    # Not only the environment: s3fs keeps a client for each way that it is asked for one.
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})
    name = f"bucket-{secrets.token_hex(4)}"
    fs = s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False)
    fs.call_s3("create_bucket", Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a value of some hundred kilobytes have several parts."""
    monkeypatch.setattr("perdure_storage.objects.FsspecObjects.part_bytes", 100_000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)


Answer = Callable[["Proxied"], bool]
"""Does something in place of passing a request on, and says whether it did."""


class FaultyS3:
    """A proxy before an S3 server: what ``faults`` say happens, else what the server says.

    Attributes:
        url: where it listens.
        seen: method and path of each request.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.seen: list[str] = []
        self._faults: list[list[Any]] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Proxied,), {"of": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def inject(
        self, answer: Answer, *, method: str = "", path: str = "", times: int | None = None
    ) -> None:
        """Let requests of a method, with this text in their path, be answered so."""
        self._faults.append([answer, method, path, times])

    def heal(self) -> None:
        """Be well again."""
        self._faults.clear()

    def due(self, request: Proxied) -> Answer | None:
        """Return how a request is answered, if not by the server, and count it."""
        with self._lock:
            self.seen.append(f"{request.command} {request.path}")
            for fault in self._faults:
                answer, method, path, times = fault
                if method in ("", request.command) and path in request.path and times != 0:
                    fault[3] = None if times is None else times - 1
                    return answer
        return None

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class Proxied(BaseHTTPRequestHandler):
    """One connection to the proxy."""

    of: FaultyS3
    protocol_version = "HTTP/1.1"
    body = b""

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):  # cut, by us or by whoever asked
            super().handle_one_request()

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.of.due(self)
        if answer is None or not answer(self):
            self.send(*self.passed_on())

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

    def passed_on(self) -> tuple[int, dict[str, str], bytes]:
        """Return what the server says: status, headers and body."""
        there = http.client.HTTPConnection(urlsplit(self.of.server).netloc, timeout=30)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in _OF_ONE_HOP}
        there.request(self.command, self.path, self.body, headers)
        said = there.getresponse()
        found = said.status, dict(said.getheaders()), said.read()
        there.close()
        return found

    def send(self, status: int, headers: dict[str, str], body: bytes, cut_at: int = -1) -> None:
        """Send an answer, or only so many bytes of its body."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OF_ONE_HOP:
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        length = headers.get("Content-Length", "0") if is_head else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        body = b"" if is_head else body
        self.wfile.write(body if cut_at < 0 else body[:cut_at])
        if cut_at >= 0:
            self.cut()

    def cut(self) -> None:
        """Close the connection."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


_OF_ONE_HOP = frozenset({"connection", "expect", "content-length", "transfer-encoding", "date"})


def refuses(status: int, code: str, message: str = "it says") -> Answer:
    """Return an answer with an error of S3."""

    def answer(request: Proxied) -> bool:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        request.send(status, {"Content-Type": "application/xml"}, body)
        return True

    return answer


def cuts(request: Proxied) -> bool:
    """Close the connection without an answer; the server has not heard of the request."""
    request.cut()
    return True


def cuts_after(request: Proxied) -> bool:
    """Let the server do what was asked, and close the connection without an answer."""
    request.passed_on()
    request.cut()
    return True


def truncates(request: Proxied) -> bool:
    """Send half of the body, and close the connection."""
    status, headers, body = request.passed_on()
    request.send(status, headers, body, cut_at=len(body) // 2)
    return True


def flips(request: Proxied) -> bool:
    """Send a body with another bit in it."""
    status, headers, body = request.passed_on()
    headers = {n: v for n, v in headers.items() if "checksum" not in n.lower()}
    request.send(status, headers, bytes([body[0] ^ 1]) + body[1:])
    return True


@pytest.fixture(scope="session")
def s3_proxy(s3_server: str) -> Iterator[FaultyS3]:
    """Yield a proxy to the S3 server."""
    proxy = FaultyS3(s3_server)
    yield proxy
    proxy.close()


@pytest.fixture
def faulty_s3(s3_proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """Yield a proxy to the S3 server; who asks it tries once more, not ten times."""
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    yield s3_proxy
    s3_proxy.heal()
    s3_proxy.seen.clear()
