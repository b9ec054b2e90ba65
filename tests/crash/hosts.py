"""Hosts that are pretended: namespaces of their own, and a way of their own to the database.

What runs on one sees no process of another, has another host name, and reaches PostgreSQL through
a door that can be shut. Linux lets root make such a thing; elsewhere the tests skip.
"""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from tests.crash.ledger import living_below, wait_until
from tests.crash.stage import Stage
from tests.faulty_proxy import FaultyProxy

LEASE_S = 3.0
"""Of the hosts: shorter than what is usual, or the tests would mostly wait."""

_UP = """
import sys
from perdure.engine import heartbeat
heartbeat.LEASE_S = float(sys.argv.pop(1))
from perdure.cli import main
sys.argv = ["perdure", "up", "--no-http", *sys.argv[1:]]
main()
"""
_NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts")


@functools.cache
def can_be_pretended() -> bool:
    """Say whether this machine lets us make namespaces."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*_NAMESPACES, "hostname", "other"], capture_output=True, check=False)
    return done.returncode == 0


def need_hosts() -> None:
    """Skip the test where hosts cannot be pretended."""
    if not can_be_pretended():
        pytest.skip("no namespaces here (`unshare --pid --uts` as root)")


@dataclass
class Host:
    """A host on which ``perdure up`` drives runs.

    Args:
        stage: where its processes play.
        name: its host name.
        door: its way to the database.
    """

    stage: Stage
    name: str
    door: FaultyProxy
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def serve(self, *words: str, lease_s: float = LEASE_S, **environment: str) -> None:
        """Start a coordinator on this host, as its first process."""
        process = self.stage.start(
            "-c",
            _UP,
            str(lease_s),
            "--workers",
            "2",
            *words,
            before=(*_NAMESPACES, "sh", "-c", f'hostname {self.name}; exec "$@"', "sh"),
            PERDURE_STORE=self.door.url(self.stage.store),
            **environment,
        )
        self.processes.append(process)

    @property
    def coordinator(self) -> psutil.Process:
        """Return its newest coordinator, as we see it from outside."""
        above = psutil.Process(self.processes[-1].pid)
        wait_until(lambda: above.children(), 10, f"{self.name} does not start")
        return above.children()[0]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its coordinator, alone."""
        self.coordinator.send_signal(number)

    def die(self) -> None:
        """End the host with all that runs on it."""
        self.processes[-1].kill()
        self.processes[-1].wait()

    def end(self) -> str:
        """End its coordinator, as a service is stopped; return what it said."""
        if self.processes[-1].poll() is None:
            self.send(signal.SIGTERM)
        return self.stage.finish(self.processes[-1])[1]

    def workers(self) -> list[psutil.Process]:
        """Return what lives below its coordinator."""
        return living_below(self.coordinator.pid)


@dataclass
class Team:
    """A store, and hosts that share its work."""

    stage: Stage
    server: Path
    hosts: dict[str, Host] = field(default_factory=dict)

    def host(self, name: str) -> Host:
        """Return a new host, on which nothing runs yet."""
        made = Host(self.stage, name, FaultyProxy(self.server))
        self.hosts[name] = made
        return made

    def end(self) -> None:
        """Shut all doors, and kill what still runs."""
        for host in self.hosts.values():
            host.door.mend()
        self.stage.end()
        for host in self.hosts.values():
            host.door.close()
