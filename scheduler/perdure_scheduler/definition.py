"""What a schedule's row says: when it is due, and what runs then."""

from __future__ import annotations

from datetime import datetime

import msgspec

from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.making import run_of
from perdure_scheduler.schedule import Schedule
from perdure_scheduler.template import RunTemplate
from perdure_storage.hashing import integrity_digest
from perdure_storage.records import RunId, RunRecord
from perdure_storage.values import Values


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule with what it runs."""

    schedule: Schedule
    run: RunTemplate

    def to_json(self) -> str:
        """Return it as JSON, equal for equal definitions."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @staticmethod
    def from_json(text: str) -> Definition:
        """Return what ``to_json`` wrote.

        Raises:
            ScheduleError: it is none, or one of a newer perdure.
        """
        try:
            return msgspec.json.decode(text, type=Definition)
        except msgspec.MsgspecError as error:
            raise ScheduleError(
                f"a stored schedule cannot be read ({error}): was it written by a newer perdure?"
            ) from None

    @property
    def digest(self) -> str:
        """Return a digest by which another definition is told apart."""
        return integrity_digest([self.to_json().encode()])

    def run_of(
        self, run_id: str, at: datetime, now: datetime, values: Values, *, by_hand: bool = False
    ) -> RunRecord:
        """Return a run of a nominal time, as it is made at ``now``."""
        template, nominal = self.run, self.schedule.nominal(at)
        inputs = dict(template.inputs)
        for name, placeholder in template.placeholders.items():
            inputs[name] = values.store(placeholder.value(nominal), name=name)
        name = self.schedule.name
        return run_of(template, RunId(run_id), now, inputs, schedule=name, by_hand=by_hand)
