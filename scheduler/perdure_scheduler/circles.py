"""Triggers that would start each other for ever: found before they are registered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from perdure_scheduler.conditions import watched
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.trigger import Trigger


def refuse_circle(trigger: Trigger, others: Iterable[Trigger]) -> None:
    """Raise TriggerError, drawing it, if a trigger's runs would lead back to the trigger.

    What happens besides runs that end is nobody's to foresee: a run that emits the event for which
    it is started is not found.

    Args:
        trigger: which is to be registered.
        others: all that wait for ends of runs, but for this one.
    """
    all_of_them = (trigger, *others)
    came_from: dict[str, Trigger] = {}
    ahead = deque([trigger])
    while ahead:
        each = ahead.popleft()
        for following in all_of_them:
            if following.name in came_from or not _starts(each, following):
                continue
            came_from[following.name] = each
            if following.name == trigger.name:
                raise TriggerError(_told(trigger, came_from))
            ahead.append(following)


def _starts(first: Trigger, second: Trigger) -> bool:
    """Say whether the end of a run that the first one makes may start the second one."""
    run = first.run
    return any(
        each.workflow == run.workflow and each.tags.items() <= run.tags.items()
        for each in watched(second.on)
    )


def _told(trigger: Trigger, came_from: dict[str, Trigger]) -> str:
    links = [trigger]
    while (before := came_from[links[-1].name]).name != trigger.name:
        links.append(before)
    drawn = " -> ".join(
        f"{each.name} -> runs of {each.run.workflow}" for each in (trigger, *reversed(links[1:]))
    )
    return (
        f"trigger {trigger.name!r}: triggers would start each other for ever: {drawn} -> "
        f"{trigger.name}. Let one of them wait for runs with tags= that those of the others do not "
        "have, or leave one out"
    )
