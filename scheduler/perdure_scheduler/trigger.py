"""A trigger as a value: what it waits for, what it lets through, and what runs then."""

from __future__ import annotations

import msgspec

from perdure_scheduler import facts
from perdure_scheduler.conditions import AllOf, Condition, Single, facts_known, parts
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.facts import AnyFilter, Path
from perdure_scheduler.names import NAME_RULE, is_name
from perdure_scheduler.template import RunTemplate
from perdure_storage.hashing import integrity_digest


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What starts runs when something happens.

    Attributes:
        name: names the trigger, its arrivals and its runs.
        on: what it waits for.
        where: what has to hold of it besides.
        inputs: the facts that become arguments of a run, by parameter name.
        run: what runs, with the arguments that are the same for all runs.
    """

    name: str
    on: Condition
    where: AnyFilter | None = None
    inputs: dict[str, Path] = {}
    run: RunTemplate

    def __post_init__(self) -> None:
        try:
            _check(self)
        except TriggerError as error:
            raise TriggerError(f"trigger {self.name!r}: {error}") from None

    @property
    def digest(self) -> str:
        """Return a digest by which another definition is told apart."""
        return integrity_digest([self.to_json().encode()])

    @property
    def parts(self) -> dict[str, Single]:
        """Return what it waits for, by name; one condition alone has the name ``""``."""
        return parts(self.on)

    def to_json(self) -> str:
        """Return it as JSON, equal for equal triggers."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @staticmethod
    def from_json(text: str) -> Trigger:
        """Return what ``to_json`` wrote.

        Raises:
            TriggerError: it is none, or one of a newer perdure.
        """
        try:
            return msgspec.json.decode(text, type=Trigger)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise TriggerError(
                f"a stored trigger cannot be read ({error}): was it written by a newer perdure?"
            ) from None


def _check(trigger: Trigger) -> None:
    if not is_name(trigger.name):
        raise TriggerError(NAME_RULE)
    if trigger.where is not None:
        facts.check_filter(trigger.where)
    twice = trigger.inputs.keys() & trigger.run.inputs.keys()
    if twice:
        raise TriggerError(f"input {min(twice)!r} is both a fact and a constant")
    known = facts_known(trigger.on)
    asked = list(trigger.inputs.values())
    if trigger.where is not None:
        asked += facts.paths_of(trigger.where)
    for path in asked:
        if known is not None:
            facts.check_known(path, known)
        if isinstance(trigger.on, AllOf) and len(path) > 1:
            part = trigger.on.of[str(path[0])]
            if part.facts is not None:
                facts.check_known(path, part.facts, under=path[:1])
