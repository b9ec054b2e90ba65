"""What ``perdure up`` serves over HTTP, and what it says about that."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.errors import DefinitionError

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.http.server import Address, Server

Tell = Callable[..., None]


@contextmanager
def served(
    perdure: Perdure, modules: Sequence[str], token_file: Path | None, tell: Tell
) -> Generator[None, None, None]:
    """Serve a store over HTTP while the block runs, as far as that can be.

    Where nobody asked for it in particular it is left out, with a line that says why, if it is not
    installed or its port is taken.

    Args:
        perdure: the verbs; its settings say where.
        modules: whose workflows may be started.
        token_file: holds the token, in place of the setting.
        tell: says what became of it.

    Raises:
        DefinitionError: what was asked for cannot be.
        PortTaken: another process has the port that was asked for.
    """
    server = _open(perdure, modules, token_file, tell)
    if server is None:
        yield
        return
    tell("http", url=server.url)
    server.start()
    try:
        yield
    finally:
        server.close()


def _open(
    perdure: Perdure, modules: Sequence[str], token_file: Path | None, tell: Tell
) -> Server | None:
    origin = perdure.settings.origin
    is_asked = token_file is not None or any(
        origin.get(name, "default") != "default" for name in ("http_host", "http_port", "token")
    )
    missing = [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        are = "are" if len(missing) > 1 else "is"
        why = f"{' and '.join(missing)} {are} not installed: `pip install 'perdure[http]'`"
        if is_asked:
            raise DefinitionError(f"nothing can be served over HTTP: {why}")
        tell("no-http", why=why)
        return None
    from perdure.http.server import PortTaken, Server
    from perdure.http.service import Service

    address = _address(perdure, token_file)
    try:
        return Server(Service(perdure, modules, metrics=_counted(perdure)), address)
    except PortTaken as taken:
        if origin.get("http_port", "default") != "default":
            raise
        tell("no-http", why=str(taken))
        return None


def _counted(perdure: Perdure) -> Callable[[], bytes] | None:
    """Have what is driven here counted, if prometheus-client is installed."""
    if not importlib.util.find_spec("prometheus_client"):
        return None
    from perdure.metrics import Metrics

    perdure.runtime.metrics = metrics = Metrics(perdure.runtime)
    return metrics.text


def _address(perdure: Perdure, token_file: Path | None) -> Address:
    from perdure.http.server import Address

    settings = perdure.settings
    token = settings.token if token_file is None else _read(token_file)
    return Address(host=settings.http_host, port=settings.http_port, token=token)


def _read(token_file: Path) -> str:
    try:
        return token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DefinitionError(f"--token-file {token_file} cannot be read: {reason}") from None
