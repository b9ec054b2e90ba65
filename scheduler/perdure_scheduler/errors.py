"""What is wrong with a schedule, said with what to type.

PerdureError
`- ScheduleError          its times or its policies make no sense, or contradict each other
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
