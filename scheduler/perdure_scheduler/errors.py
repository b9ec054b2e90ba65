"""What is wrong with a schedule or a trigger, said with what to type.

PerdureError
|- ScheduleError          its times or its policies make no sense, or contradict each other
`- TriggerError           what it waits for, its filter or its inputs make no sense
"""

from __future__ import annotations

from perdure_storage.errors import PerdureError


class ScheduleError(PerdureError):
    """A schedule's times or policies make no sense, or contradict each other.

    Likely:
        A misspelt time zone or cron field, a day that no month has, or two policies of which one
        undoes the other.

    Type:
        What the message says, where the schedule is declared; then the same command again.
    """


class TriggerError(PerdureError):
    """What a trigger waits for, its filter or its inputs make no sense, or contradict each other.

    Likely:
        A fact that such an arrival does not have, ``and`` where a filter needs ``&``, or triggers
        that would start each other for ever.

    Type:
        What the message says, where the trigger is declared; then the same command again.
    """
