"""A Ray cluster on this machine: each node is a raylet with its workers, and dies by itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray
from ray import _raylet
from ray._private import services
from ray._private.node import Node
from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 80_000_000  # Ray's least

CONFIG = {
    # A killed raylet refuses connections and is dead within 2 s; one that is only slow is not.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "400",
    "RAY_health_check_failure_threshold": "5",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # pretended GPUs: what a step asks for counts, no device is there to be seen
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class LocalCluster:
    """A head without CPUs, to which drivers connect, and nodes that come and go."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start the head.

        Args:
            environment: more variables for all workers, on every node.
        """
        self._before = {name: os.environ.get(name) for name in (*CONFIG, *environment)}
        os.environ.update({**CONFIG, **environment})
        self._cluster = Cluster()
        self.head = self.add(cpus=0)

    @property
    def address(self) -> str:
        """Return where the cluster is, as ``ray.init`` takes it."""
        return str(self._cluster.address)

    def add(
        self,
        *,
        cpus: int = 1,
        gpus: int = 0,
        labels: Mapping[str, str] | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> LocalNode:
        """Start a node, and return it once the cluster knows it."""
        with light_nodes():
            node = self._cluster.add_node(
                num_cpus=cpus,
                num_gpus=gpus,
                labels=dict(labels or {}),
                resources=dict(resources or {}),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                include_log_monitor=False,
                no_monitor=True,  # it would start and stop machines
                runtime_env_agent_port=free_port(),
            )
        return LocalNode(node)

    def kill(self, node: LocalNode) -> None:
        """Kill all processes of a node at the same time, as when its machine is lost."""
        for process in (node.raylet, *node.processes()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(node.handle, allow_graceful=False)

    def end(self) -> None:
        """End what is left; who is connected to it from this process, is not any more."""
        ray.shutdown()
        with suppress(AssertionError, psutil.Error):
            for node in self._cluster.list_all_nodes():
                for process in LocalNode(node).processes():
                    process.kill()
        self._cluster.shutdown()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class LocalNode:
    """One raylet, and the workers below it."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.id = str(handle.node_id)

    @property
    def raylet(self) -> psutil.Process:
        [process] = self.handle.all_processes["raylet"]
        return psutil.Process(process.process.pid)

    def processes(self) -> list[psutil.Process]:
        """Return the workers, with what they have started, and the agents."""
        try:
            return self.raylet.children(recursive=True)
        except (psutil.NoSuchProcess, KeyError, ValueError):
            return []


@contextmanager
def light_nodes() -> Iterator[None]:
    """Have nodes start without what only dashboards and runtime environments need.

    A raylet waits 15 s for its two agents to say their ports, then aborts; on a busy machine their
    imports alone take longer. In their places runs what only waits for the raylet's end.
    """
    start_raylet, start_process = Node.start_raylet, services.start_ray_process
    start_api_server = services.start_api_server

    def say_ports_and_start(node: Any, *args: Any, **kwargs: Any) -> Any:
        for name in (
            _raylet.METRICS_AGENT_PORT_NAME,
            _raylet.METRICS_EXPORT_PORT_NAME,
            _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
        ):
            _raylet.persist_port(node._session_dir, node._node_id, name, -1)
        return start_raylet(node, *args, **kwargs)

    def start_without_agents(command: list[str], *args: Any, **kwargs: Any) -> Any:
        words = [
            f"{word.partition('=')[0]}=cat" if "_agent_command=" in word else word
            for word in command
        ]
        return start_process(words, *args, **kwargs)

    Node.start_raylet = say_ports_and_start
    services.start_ray_process = start_without_agents
    services.start_api_server = lambda *args, **kwargs: (None, None)
    try:
        yield
    finally:
        Node.start_raylet = start_raylet
        services.start_ray_process = start_process
        services.start_api_server = start_api_server


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
