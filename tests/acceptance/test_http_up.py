"""HTTP as `perdure up` serves it: where, to whom, and what it says about that."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.acceptance.conftest import CommandLine
from tests.crash.ledger import wait_until

from perdure.http.server import Address, _listen

TOKEN = "the-token-of-this-server"
FLOWS = """
from perdure import task, wait_signal, workflow

@task
def double(n: int) -> int:
    return 2 * n

@workflow
def flow(n: int) -> int:
    return double.bind(n)

@workflow
def asks() -> int:
    return wait_signal("answer", schema=int)
"""


def started(perdure: CommandLine, *words: str, **environment: str) -> list[dict[str, Any]]:
    """Start `perdure up`; return what it told until it serves."""
    process = perdure.start("up", *words, "--json", **environment)
    assert process.stdout is not None
    told: list[dict[str, Any]] = []
    while not told or told[-1]["event"] != "serving":
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        told.append(json.loads(line))
    return told


def url_of(told: list[dict[str, Any]]) -> str:
    (event,) = [each for each in told if each["event"] == "http"]
    return str(event["url"])


@contextmanager
def taken() -> Iterator[int]:
    """A port at which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]


def end(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    return process.returncode


def test_run_is_started_driven_signalled_and_cancelled_over_http(perdure: CommandLine) -> None:
    perdure.write("flows.py", FLOWS)
    url = url_of(started(perdure, "flows.py", "--port", "0"))

    def status(run_id: str) -> str:
        return str(httpx.get(f"{url}/v1/runs/{run_id}").json()["run"]["status"])

    with httpx.Client(base_url=url) as http:  # one connection, which stays open
        # That it serves is told before it has registered as one that takes runs on.
        wait_until(lambda: http.get("/health/ready").is_success, 60, "nobody drives the runs")
        run = http.post("/v1/runs", json={"workflow": "flow", "inputs": {"n": 4}}).json()
        for name in ("answered", "cancelled"):
            http.post("/v1/runs", json={"workflow": "asks", "id": name})
        wait_until(lambda: status("answered") == "WAITING", 60, "it does not wait")
        http.post("/v1/runs/answered/signals/answer", json={"value": 7})
        wait_until(lambda: status("cancelled") == "WAITING", 60, "it does not wait")
        asked = http.post("/v1/runs/cancelled/cancel", json={})

        assert asked.status_code == 202
        wait_until(lambda: status(run["run_id"]) == "SUCCEEDED", 60, "it does not run")
        wait_until(lambda: status("answered") == "SUCCEEDED", 60, "it is not answered")
        wait_until(lambda: status("cancelled") == "CANCELLED", 60, "it is not cancelled")
        assert end(perdure.started[-1]) == 0, "an open connection keeps nothing alive"


def test_answers_do_not_wait_until_their_beginning_is_acknowledged() -> None:
    listening = _listen(Address(host="127.0.0.1", port=0))
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()

        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_port_that_is_taken_is_said_and_an_error_only_where_it_was_asked_for(
    perdure: CommandLine,
) -> None:
    with taken() as port:
        asked = perdure("up", "--port", str(port))
        set_ = perdure("up", PERDURE_HTTP_PORT=str(port))

    assert (asked.code, set_.code) == (1, 1)
    assert f"port {port} of 127.0.0.1 is taken by another process" in asked.err
    assert "--no-http" in set_.err


def test_default_port_that_is_taken_stops_nothing(perdure: CommandLine) -> None:
    # Another server of this machine may have it already: then that is what takes it.
    started(perdure)
    told = started(perdure)

    (event,) = [each for each in told if each["event"] == "no-http"]
    assert "port 7373 of 127.0.0.1 is taken" in event["why"]


def test_no_http_serves_none(perdure: CommandLine) -> None:
    told = started(perdure, "--no-http")

    assert [each["event"] for each in told] == ["serving"]


@pytest.mark.parametrize(
    ("words", "environment", "says"),
    [
        (["--host", "0.0.0.0"], {}, "set PERDURE_TOKEN or say --token-file FILE"),
        (["--host", "0.0.0.0"], {"PERDURE_TOKEN": "short"}, "at least 16 ASCII characters"),
        (["--host", "no.such.host.invalid"], {}, "is no address of this machine"),
        (["--token-file", "absent"], {}, "--token-file absent cannot be read"),
        ([], {"PERDURE_HTTP_PORT": "70000"}, "is not from 0 to 65535"),
    ],
)
def test_what_would_let_strangers_in_is_refused(
    perdure: CommandLine, words: list[str], environment: dict[str, str], says: str
) -> None:
    refused = perdure("up", *words, **environment)

    assert refused.code == 2
    assert says in refused.err


def test_token_opens_beyond_this_machine_and_is_shown_nowhere(
    perdure: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    told = started(perdure, "--host", "0.0.0.0", "--port", "0", "--token-file", "token")
    url = url_of(told).replace("0.0.0.0", "127.0.0.1")

    without = httpx.get(f"{url}/v1/runs")
    right = httpx.get(f"{url}/v1/runs", headers={"authorization": f"Bearer {TOKEN}"})
    perdure.started[-1].terminate()
    printed = "".join(perdure.started[-1].communicate())
    shown = perdure("config", "show", PERDURE_TOKEN=TOKEN)

    assert (without.status_code, right.status_code) == (401, 200)
    assert TOKEN not in printed + json.dumps(told) + shown.out
    assert "(set, not shown)" in shown.out
