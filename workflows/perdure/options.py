"""Options of tasks: their names, units and checks, the same wherever they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypedDict

import msgspec

from perdure.errors import DefinitionError, did_you_mean
from perdure.graph.node import TaskSpec
from perdure.resources import (
    Duration,
    check_amount,
    check_gpus,
    check_resources,
    parse_duration,
    parse_memory,
)
from perdure.retry import Backoff, RetryOn, check_retry_on

FORBIDDEN_IN_NAMES = "/#[]~"
MAX_NAME_BYTES = 1000


class BaseOptions(TypedDict, total=False):
    """Options of a task, except ``catch``, which changes the type of its result.

    Attributes:
        name: step name; default: the function's qualified name.
        version: declared code version; replaces the code digest.
        cpus: CPUs that one attempt holds while it runs; an ``async def`` none by default.
        gpus: GPUs that it holds: whole ones, or a fraction of one. It sees no others.
        memory: memory that is set aside for it, in bytes or as ``"8GiB"``; an attempt that takes
            more is ended.
        resources: how much it holds of what the settings name: ``{"license": 1}``.
        retries: further attempts after the user's code raised.
        retry_on: exception classes or a predicate; default ``Exception``.
        backoff: delays between attempts.
        lost_retries: further attempts after the system lost one; -1: for ever.
        timeout: run time of one attempt, a duration.
        allow_unenforced: let an executor that cannot kill run it without enforcing ``timeout``.
        checkpoint: False: the value is not stored, and rebuilt from lineage when needed.
        outputs: n > 1: ``a, b = f.bind()``.
        volatile: reads the outside world: never taken over from another run.
        stop_when: of a task that is mapped, a function of a child's value: once it holds, the
            other children are not needed, and cancelled.
        key: of a task that is mapped, what a child is called, a function of its items.
        chunk: of a task that is mapped, how many items one step takes; retries, ``catch`` and
            failure stay each item's, ``timeout`` is that of an item times their number.
        metadata: what you want to note about it: JSON, kept with the step.
        after: nodes that must end before it, without giving it data.
    """

    name: str | None
    version: str | None
    cpus: float
    gpus: float
    memory: int | str | None
    resources: Mapping[str, float]
    retries: int
    retry_on: RetryOn | list[type[BaseException]] | None
    backoff: Backoff
    lost_retries: int
    timeout: Duration | None
    allow_unenforced: bool
    checkpoint: bool
    outputs: int
    volatile: bool
    stop_when: Callable[[Any], object] | None
    key: Callable[..., object] | None
    chunk: int | None
    metadata: Mapping[str, Any]
    after: Any


class Options(BaseOptions, total=False):
    """Options of a task.

    Attributes:
        catch: True: a final failure becomes a checkpointed ``Failure``; the run may succeed.
    """

    catch: bool


def check_name(name: object, *, what: str = "name") -> str:
    """Return a step's or workflow's name if ids can be made of it.

    Raises:
        DefinitionError: empty, too long, with control characters or one of ``/ # [ ] ~``.
    """
    if not isinstance(name, str) or not name or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise DefinitionError(f"{what}={name!r}: must be text of 1 to {MAX_NAME_BYTES} bytes")
    bad = sorted({char for char in name if char in FORBIDDEN_IN_NAMES or not char.isprintable()})
    if bad:
        raise DefinitionError(
            f"{what}={name!r}: may not contain {' '.join(map(repr, bad))}: step ids are made of it"
        )
    return name


def _flag(name: str) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise DefinitionError(f"{name}={value!r}: must be True or False")
        return value

    return check


def _count(name: str, least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DefinitionError(f"{name}={value!r}: must be an int of at least {least}")
        return value

    return check


def _timeout(value: Any) -> float | None:
    if value is None:
        return None
    seconds = parse_duration(value, what="timeout")
    if seconds == 0:
        raise DefinitionError("timeout=0: no attempt could end in time; leave it out")
    return seconds


def _backoff(value: Any) -> Any:
    if not isinstance(value, Backoff):
        raise DefinitionError(f"backoff={value!r}: write perdure.Backoff('1s', factor=2)")
    return value.planned()


def check_metadata(value: Any) -> dict[str, Any]:
    """Return what is noted about a run or a step, as JSON has it.

    Raises:
        DefinitionError: it is no dict, or no JSON.
    """
    if not isinstance(value, Mapping):
        raise DefinitionError(f"metadata={value!r:.80}: write a dict, metadata={{'team': 'a'}}")
    try:
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(value)))
    except (TypeError, ValueError, OverflowError) as error:
        raise DefinitionError(f"metadata= is to be JSON: {error}") from None
    return found


_PLANNED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "cpus": ("cpus", lambda value: check_amount(value, what="cpus")),
    "gpus": ("gpus", check_gpus),
    "memory": ("memory_bytes", lambda value: None if value is None else parse_memory(value)),
    "resources": ("resources", check_resources),
    "retries": ("retries", _count("retries", 0)),
    "backoff": ("backoff", _backoff),
    "lost_retries": ("lost_retries", _count("lost_retries", -1)),
    "timeout": ("timeout_s", _timeout),
    "allow_unenforced": ("allow_unenforced", _flag("allow_unenforced")),
    "checkpoint": ("checkpoint", _flag("checkpoint")),
    "catch": ("catch", _flag("catch")),
    "outputs": ("outputs", _count("outputs", 1)),
    "volatile": ("volatile", _flag("volatile")),
    "metadata": ("metadata", check_metadata),
}
"""Option -> field of ``plan.StepOptions`` and its check."""

OPTION_NAMES = (*_PLANNED, "name", "version", "retry_on", "stop_when", "key", "chunk", "after")


def apply_options(spec: TaskSpec, options: Mapping[str, Any], default_name: str) -> TaskSpec:
    """Return ``spec`` with ``options`` in place of its own; ``after`` is not of the spec.

    Raises:
        DefinitionError: an option is unknown or its value makes no sense.
    """
    changed: dict[str, Any] = {}
    planned: dict[str, Any] = {}
    for name, value in options.items():
        if name in _PLANNED:
            field, check = _PLANNED[name]
            planned[field] = check(value)
        elif name == "name":
            changed["name"] = check_name(default_name if value is None else value)
        elif name == "version":
            changed["version"] = _version(value)
        elif name == "retry_on":
            changed["retry_on"] = None if value is None else check_retry_on(value)
        elif name == "stop_when":
            changed["stop_when"] = _function("stop_when", value)
        elif name == "key":
            changed["key"] = _function("key", value)
        elif name == "chunk":
            changed["chunk"] = None if value is None else _count("chunk", 1)(value)
        elif name != "after":
            raise DefinitionError(
                f"unknown option {name!r}{did_you_mean(name, OPTION_NAMES)} "
                f"(known: {', '.join(OPTION_NAMES)})"
            )
    if planned:
        changed["options"] = msgspec.structs.replace(spec.options, **planned)
    made = replace(spec, **changed) if changed else spec
    _refuse_mixture(made)
    return made


def _function(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        of = "an item" if name == "key" else "a child's value"
        raise DefinitionError(f"{name}={value!r:.80}: must be a function of {of}")
    return value


def _refuse_mixture(spec: TaskSpec) -> None:
    """Refuse options of maps that contradict each other."""
    for other in ("key", "stop_when"):
        if spec.chunk is not None and getattr(spec, other) is not None:
            raise DefinitionError(
                f"chunk= and {other}= do not go together: a chunk is one step for several items"
            )


def _version(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise DefinitionError(f"version={value!r}: must be text")
    if value is not None and not value.isprintable():
        raise DefinitionError(f"version={value!r}: may have no control characters in it")
    return value
