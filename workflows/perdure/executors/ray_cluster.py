"""A Ray cluster as the executor sees it: connecting, what there is, what a call asks for there."""

from __future__ import annotations

import ctypes
import logging
import math
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from perdure.calls import StepCall
from perdure.errors import DefinitionError
from perdure.executors.capacity import ENOUGH
from perdure.executors.protocol import Capacity
from perdure.executors.ray_presence import require_ray
from perdure.settings import Settings
from perdure.worker.mailbox import Mailbox
from perdure.worker.ray_worker import SOURCES

_SLOTS = 256
"""So many attempts may be under way, whatever they ask for: each is a process of Ray's."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_SIGACTION_BYTES = 256
"""More than a ``struct sigaction`` has anywhere."""
_NAMES = {"CPU": "cpus", "GPU": "gpus"}


class RayTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Which cluster, and how it is spoken to.

    Attributes:
        address: as ``ray.init`` takes it; None: what ``RAY_ADDRESS`` names, one that runs on this
            machine, or else one that is started here and ends with this process.
        namespace: of this coordinator's actors.
        runtime_env: what Ray is to prepare for the workers.
        cpus: how many of the cluster's CPUs steps may use at one time; None: all.
    """

    address: str | None = None
    namespace: str | None = None
    runtime_env: Mapping[str, Any] = {}
    cpus: float | None = None


def terms_of(settings: Settings) -> RayTerms:
    """Return what the settings say of Ray."""
    return RayTerms(
        address=settings.ray_address,
        namespace=settings.ray_namespace,
        runtime_env=settings.ray_runtime_env,
        cpus=settings.cpus if settings.cpus is not None else settings.workers,
    )


def connect(terms: RayTerms) -> Any:
    """Return the module ``ray``, connected to a cluster; a program that is connected stays so.

    Raises:
        DefinitionError: Ray is not installed, or the cluster cannot be reached.
    """
    require_ray()
    import ray  # pyright: ignore[reportMissingImports]

    with _connecting:
        if not ray.is_initialized():
            _init(ray, terms)
    return ray


_connecting = threading.Lock()


def _init(ray: Any, terms: RayTerms) -> None:
    """Connect, in a thread that lives as long as the process.

    A local cluster's processes end with the thread that has started them.
    """
    done = threading.Event()
    failed: list[BaseException] = []

    def init_and_stay() -> None:
        try:
            with _sigterm_kept():
                ray.init(
                    address=terms.address,
                    namespace=terms.namespace,
                    runtime_env=dict(terms.runtime_env) or None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except Exception as error:  # noqa: BLE001 - told in the thread that waits
            failed.append(error)
        done.set()
        if not failed:
            threading.Event().wait()

    threading.Thread(target=init_and_stay, name="perdure-ray", daemon=True).start()
    done.wait()
    if failed:
        raise DefinitionError(_refusal(failed[0], terms)) from failed[0]


def _refusal(error: BaseException, terms: RayTerms) -> str:
    said = last_words(error)
    if isinstance(error, TypeError | ValueError) and "runtime_env" in said:
        return f"Ray refuses the setting `ray_runtime_env`, PERDURE_RAY_RUNTIME_ENV: {said}"
    where = f" at {terms.address}" if terms.address else ""
    return (
        f"no Ray cluster answers{where} (the setting `ray_address`, PERDURE_RAY_ADDRESS, says "
        f"which one is asked): {said}"
    )


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Have SIGTERM mean afterwards what it meant before.

    Ray has the whole process abort at it, so that no program could end in order. Any thread may ask
    the C library, as against Python's ``signal``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = ctypes.create_string_buffer(_SIGACTION_BYTES)
    if libc.sigaction(signal.SIGTERM, None, kept) != 0:
        raise OSError(ctypes.get_errno(), "SIGTERM's action cannot be read")
    try:
        yield
    finally:
        libc.sigaction(signal.SIGTERM, kept, None)


def last_words(error: BaseException) -> str:
    """Return what an error that Ray passes on comes to: the last line, without colours."""
    said = str(getattr(error, "cause", None) or error)
    lines = [line.strip() for line in _COLOURS.sub("", said).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def is_of_ray(error: BaseException) -> bool:
    """Say whether a task was ended by an error of Ray's own: it lost what it was talking to."""
    cause: BaseException = getattr(error, "cause", None) or error
    return type(cause).__module__.startswith("ray.")


def make_mailbox(ray: Any) -> Any:
    """Make a mailbox, and return its handle; it is gone when this process is.

    It is on the node that this process is connected to, whose loss is ours, too.
    """
    made = ray.remote(Mailbox).options(
        num_cpus=0,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=10_000,
        scheduling_strategy=on_node(ray, own_node(ray), soft=True),
    )
    return made.remote()


def own_node(ray: Any) -> str:
    """Return the id of the node that this process is connected to."""
    return str(ray.get_runtime_context().get_node_id())


def is_node_alive(ray: Any, node_id: str) -> bool:
    """Say whether the cluster takes a node for alive."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def capacity_of_cluster(ray: Any, terms: RayTerms) -> Capacity:
    """Return what the nodes that live have, each and all together."""
    places = [_offer_of(node) for node in ray.nodes() if node["Alive"]]
    total: dict[str, float] = {}
    for place in places:
        for name, amount in place.items():
            total[name] = total.get(name, 0.0) + amount
    cpus, gpus, memory = (total.pop(name, 0.0) for name in ("cpus", "gpus", "memory"))
    if terms.cpus is not None:
        cpus = min(cpus, terms.cpus)
    return Capacity(
        cpus=cpus,
        gpu_ids=tuple(str(number) for number in range(int(gpus))),
        memory_bytes=int(memory),
        resources=total,
        slots=max(_SLOTS, math.ceil(cpus)),
        places=tuple(places),
    )


def _offer_of(node: Mapping[str, Any]) -> dict[str, float]:
    """Return what a node has, by the names under which steps ask for it."""
    resources: dict[str, float] = node["Resources"]
    has = {
        _NAMES.get(name, name): amount
        for name, amount in resources.items()
        if not name.startswith("node:") and name != "object_store_memory"
    }
    return has | {f"{name}={value}": ENOUGH for name, value in node.get("Labels", {}).items()}


def request_of_call(call: StepCall) -> dict[str, Any]:
    """Return what a call asks for in Ray's words."""
    labels = {}
    resources = {}
    for name, amount in call.resources.items():
        label, is_label, value = name.partition("=")
        if is_label:
            labels[label] = value
        elif amount:
            resources[name] = amount
    options: dict[str, Any] = {"num_cpus": call.cpus}
    if call.gpus:
        options["num_gpus"] = call.gpus
    if call.memory_bytes:
        options["memory"] = call.memory_bytes
    if resources:
        options["resources"] = resources
    if labels:
        options["label_selector"] = labels
    return options


def request_of_actor(call: StepCall) -> dict[str, Any]:
    """Return what an actor asks for, one of whose calls this is, for as long as it lives.

    CPUs are held for each call, and counted by the engine; all else while it lives. Ray's own word
    for this is to ask for no number of CPUs: then it is put where there are some, as on no head
    that is to have no work. Ray takes that word only where nothing else is asked for.
    """
    options = request_of_call(call)
    if call.cpus and not options.keys() & {"num_gpus", "resources"}:
        del options["num_cpus"]
    else:
        options["num_cpus"] = 0
    return options


def sources_env(terms: RayTerms, bundle: str) -> dict[str, Any]:
    """Return options that start workers with a run's recorded sources first on their path."""
    if not bundle:
        return {}
    env = dict(terms.runtime_env)
    return {"runtime_env": {**env, "env_vars": {**env.get("env_vars", {}), SOURCES: bundle}}}


def on_node(ray: Any, node: str, *, soft: bool = False) -> Any:
    """Return the strategy that has something run on this node, or nowhere; ``soft``: or where it
    can.
    """
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=soft)
