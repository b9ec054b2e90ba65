"""A Ray cluster on this machine: each node is a raylet with its workers, and dies by itself."""

from __future__ import annotations

import os
import socket
import time
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
SEEN_DEAD_WITHIN_S = 60.0

CONFIG = {
    # A killed raylet refuses connections and is dead within 2 s; one that is only slow is not.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "400",
    "RAY_health_check_failure_threshold": "5",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "600",
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
        self._environment = {**CONFIG, **environment}
        self._agent_port = free_port()
        self._cluster = Cluster()
        self.head = self.add(cpus=0)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

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
        object_store_bytes: int = OBJECT_STORE_BYTES,
    ) -> LocalNode:
        """Start a node, and return it once the cluster knows it."""
        with light_nodes(), variables(self._environment):
            node = self._cluster.add_node(
                num_cpus=cpus,
                num_gpus=gpus,
                labels=dict(labels or {}),
                resources=dict(resources or {}),
                object_store_memory=object_store_bytes,
                include_dashboard=False,
                include_log_monitor=False,
                no_monitor=True,  # it would start and stop machines
                runtime_env_agent_port=self._agent_port,
            )
        offer = {"cpus": cpus, "gpus": gpus, "labels": labels, "resources": resources}
        return LocalNode(node, {**offer, "object_store_bytes": object_store_bytes})

    def replace(self, node: LocalNode) -> LocalNode:
        """Lose a node, and start another like it."""
        self.kill(node)
        return self.add(**node.offer)

    def kill(self, node: LocalNode) -> None:
        """Kill all processes of a node at the same time, as when its machine is lost."""
        for process in (node.raylet, *node.processes()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(node.handle, allow_graceful=False)

    def remove(self, node: LocalNode) -> None:
        """Lose a node, and wait until nobody would send anything there."""
        self.kill(node)
        until = time.monotonic() + SEEN_DEAD_WITHIN_S
        while node.id in self._cluster.global_state._live_node_ids():
            if time.monotonic() > until:
                raise TimeoutError(f"the cluster takes node {node.id} for alive")
            time.sleep(0.05)

    def nodes(self) -> list[LocalNode]:
        """Return all nodes, the head first."""
        return [LocalNode(handle, {}) for handle in self._cluster.list_all_nodes()]

    def kill_all(self) -> None:
        """Kill every node, the head at last."""
        for node in reversed(self.nodes()):
            self.kill(node)

    def end(self) -> None:
        """End what is left; who is connected to it from this process, is not any more."""
        if self._cluster.head_node is None:
            return
        if ray.is_initialized() and ray.get_runtime_context().gcs_address == self.address:
            ray.shutdown()
        self.kill_all()
        self._cluster.shutdown()


class LocalNode:
    """One raylet, and the workers below it."""

    def __init__(self, handle: Any, offer: Mapping[str, Any]) -> None:
        self.handle = handle
        self.offer = offer
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
    """Have nodes start without what dashboards need, and with one agent for what workers need.

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
        idle = ["--dashboard_agent_command="]
        if "--head" not in command:
            idle.append("--runtime_env_agent_command=")  # that of the head is asked by all
        words = [
            f"{word.partition('=')[0]}=cat" if word.startswith(tuple(idle)) else word
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


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Have variables in the environment while something is started: Ray hands on what it finds."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
