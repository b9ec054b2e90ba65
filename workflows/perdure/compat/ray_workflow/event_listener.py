"""Events: what a workflow waits for, as ``ray.workflow`` writes it."""

from __future__ import annotations

from typing import Any

from perdure.pausing import Pause
from perdure.ray_dag import from_ray, is_ray_node, let_nodes_pass
from perdure.task import task
from perdure.waits import wait_signal
from perdure.worker.context import current
from perdure_storage.clock import SystemClock

Event = Any
"""What a listener gives: any value that can be stored."""


class EventListener:
    """Waits for one event. Made anew, without arguments, wherever it is needed.

    The event is stored before ``event_checkpointed`` is called: after that nobody polls again;
    ``event_checkpointed`` itself may be called twice.
    """

    async def poll_for_event(self, *args: Any, **kwargs: Any) -> Event:
        """Return the event once it has come."""
        raise NotImplementedError

    async def event_checkpointed(self, event: Event) -> None:
        """Hear that the event is stored: its source may forget it."""


class TimerListener(EventListener):
    """A moment: ``wait_for_event(TimerListener, timestamp)``; a row of the store waits, no code."""


class HTTPListener(EventListener):
    """A message over HTTP: ``wait_for_event(HTTPListener, event_key="k")`` gives key and payload.

    It is the run's signal of that name: ``perdure up`` with its HTTP interface takes the place of
    ``HTTPEventProvider``, and so do ``perdure signal`` and ``perdure.signal``.
    """


def wait_for_event(event_listener_type: type[EventListener], *args: Any, **kwargs: Any) -> Any:
    """Make a node whose value is the event that a listener waits for.

    Args:
        event_listener_type: a subclass of ``EventListener``.
        *args: of its ``poll_for_event``.
        **kwargs: of the same.

    Raises:
        TypeError: it is no such class.
    """
    kind: Any = event_listener_type
    if not isinstance(kind, type) or not issubclass(kind, EventListener):
        raise TypeError(
            f"Event listener type is {kind!r:.100}, which is not a subclass of "
            "workflow.EventListener"
        )
    let_nodes_pass()
    args = tuple(from_ray(each) if is_ray_node(each) else each for each in args)
    if kind is TimerListener:
        return _until.bind(*args, **kwargs)
    if kind is HTTPListener:
        return _message.bind(*args, **kwargs)
    return _message_committed.bind(kind, _get_message.bind(kind, args, kwargs))


@task(name="wait_for_event.get_message", volatile=True)
async def _get_message(kind: type[EventListener], args: Any, kwargs: dict[str, Any]) -> Event:
    return await kind().poll_for_event(*args, **kwargs)


@task(name="wait_for_event.message_committed", volatile=True)
async def _message_committed(kind: type[EventListener], event: Event) -> Event:
    await kind().event_checkpointed(event)
    return event


@task(name="wait_for_event.timer", cpus=0, volatile=True)
def _until(timestamp: float) -> Any:
    left = timestamp - SystemClock().now().timestamp()
    return Pause(kind="sleep", timeout_s=max(0.0, left), default=None)


@task(name="wait_for_event.message", cpus=0, volatile=True)
def _message(event_key: str | None = None) -> Any:
    key = event_key or current().step_id
    return _keyed.bind(key, wait_signal(key))


@task(name="wait_for_event.keyed", cpus=0)
def _keyed(key: str, payload: Any) -> tuple[str, Any]:
    return key, payload
