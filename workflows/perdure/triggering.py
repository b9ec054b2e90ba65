"""Triggers in a store: how a declared one gets there, and what is held of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.errors import did_you_mean
from perdure.run_templates import Stored, stored_template
from perdure.runtime import Runtime
from perdure.triggers import Trigger
from perdure_scheduler.arrival import Arrival
from perdure_scheduler.arriving import Decision, TriggerState, standing
from perdure_scheduler.conditions import Files
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.file_source import source_of
from perdure_scheduler.intake import Intake, Receipt
from perdure_scheduler.registered import Registered
from perdure_scheduler.trigger import Trigger as Definition
from perdure_scheduler.trigger_changes import state_of
from perdure_scheduler.trigger_registry import TriggerRegistry
from perdure_storage.trigger_records import ArrivalQuery, ArrivalRecord, TriggerRecord

if TYPE_CHECKING:
    from perdure.client import Perdure


def register(runtime: Runtime, trigger: Trigger, *, module: str | None = None) -> Registered:
    """Make a trigger in the store, or let the one of its name be as this one.

    Raises:
        DefinitionError: an option of its workflow is of no use here, or its code cannot be found
            again.
        TriggerError: with others that are there it would start runs for ever.
    """
    [register_it] = prepared(runtime, [trigger])
    return register_it(module=module)


def prepared(runtime: Runtime, triggers: Sequence[Trigger]) -> list[Callable[..., Registered]]:
    """Return what registers each of some triggers, and takes ``module=``; none is so far.

    Raises:
        DefinitionError, TriggerError: one of them cannot be registered, as ``register`` says.
    """
    registry, stored = registry_of(runtime), [_stored(runtime, each) for each in triggers]
    definitions = [
        msgspec.structs.replace(each.definition, run=template.run)
        for each, template in zip(triggers, stored, strict=True)
    ]
    registry.refuse_circles(definitions)
    return [
        partial(
            registry.register,
            definition,
            plan=template.plan,
            blobs=template.blobs,
            along=definitions,
        )
        for definition, template in zip(definitions, stored, strict=True)
    ]


def _stored(runtime: Runtime, trigger: Trigger) -> Stored:
    for part in trigger.definition.parts.values():
        if isinstance(part, Files):
            _check_protocol(trigger.name, part.url)
    return stored_template(
        runtime,
        trigger.workflow,
        trigger.constants,
        pending=trigger.definition.inputs,
        code=trigger.code,
        what=f"trigger {trigger.name!r}",
    )


def _check_protocol(name: str, url: str) -> None:
    """Raise TriggerError if nothing reads files of such a URL, installed or not."""
    protocol, colon, _ = url.partition("://")
    if not colon or "::" in url:
        return
    from fsspec import available_protocols

    known = available_protocols()
    if protocol not in known:
        raise TriggerError(
            f"trigger {name!r}: Files({url!r}): fsspec knows no {protocol}://"
            f"{did_you_mean(protocol, known)}"
        )


class TriggerHandle:
    """A trigger in a store: how it stands, what arrived and what became of it, and verbs."""

    def __init__(self, client: Perdure, name: str) -> None:
        self._client = client
        self._runtime = client.runtime
        self._triggers = client.runtime.store.triggers
        self.name = name

    def __repr__(self) -> str:
        return f"<trigger {self.name}: {self.standing}>"

    @property
    def record(self) -> TriggerRecord:
        """Return its row. Raises TriggerNotFound."""
        return self._triggers.get_trigger(self.name)

    @property
    def definition(self) -> Definition:
        """Return what it waits for, and what runs then."""
        return Definition.from_json(self.record.definition)

    @property
    def state(self) -> TriggerState:
        """Return how far it has come."""
        return state_of(self.record)

    @property
    def standing(self) -> str:
        """Say what it waits for, or why it does not."""
        record = self.record
        return standing(Definition.from_json(record.definition), state_of(record))

    def arrivals(self, limit: int = 100, *, decision: str | None = None) -> list[ArrivalRecord]:
        """Return what arrived, newest first, each with what became of it and why.

        Args:
            limit: at most so many.
            decision: only those of which this became: ``"fired"``, ``"filtered"``, ...
        """
        query = ArrivalQuery(trigger=self.name, decision=decision, limit=limit)
        return self._triggers.list_arrivals(query)

    def pause(self, reason: str = "by hand") -> None:
        """Let no run be made until it is resumed; what arrives meanwhile is kept for then."""
        registry_of(self._runtime).pause(self.name, reason)

    def resume(self, *, skip: bool = False) -> None:
        """Let it go on: what arrived meanwhile is decided now, in order.

        Args:
            skip: make no runs of that.
        """
        registry_of(self._runtime).resume(self.name, skip=skip)

    def remove(self) -> bool:
        """Remove it with its arrivals; its runs stay. Returns whether it was there."""
        return self._triggers.remove(self.name)

    # --- by hand ------------------------------------------------------------------------------
    def fire(
        self, facts: Mapping[str, Any], *, key: str | None = None, condition: str = ""
    ) -> Receipt:
        """Bring an arrival by hand, as if it had happened: filter and inputs apply to it.

        Args:
            facts: JSON.
            key: names it: the same one counts once. By default the time, in UTC.
            condition: the name of the one that it is for, in ``all_of`` and ``any_of``.
        """
        self._require_condition(condition)
        now = self._runtime.clock.now()
        named = key if key is not None else f"by-hand-{now:%Y%m%dT%H%M%S.%f}Z"
        arrival = Arrival(key=named, facts=dict(facts))
        [receipt] = self._intake.receive(self.name, [arrival], condition=condition)
        if receipt.run_id is not None:
            self._client.tell_if_unserved(receipt.run_id)
        return receipt

    def foresee(self, arrivals: Sequence[Arrival], *, condition: str = "") -> list[Decision]:
        """Say what would become of arrivals if they came now; nothing is written.

        What is known already is left out.
        """
        self._require_condition(condition)
        return self._intake.foresee(self.name, arrivals, condition=condition)

    def _require_condition(self, condition: str) -> None:
        """Refuse a condition that the trigger has not, and none where it has several.

        Raises:
            TriggerError: it says which there are.
        """
        names = list(self.definition.parts)
        if condition in names:
            return
        if "" in names:
            raise TriggerError(
                f"trigger {self.name!r} waits for one thing alone: leave out condition="
                f"{condition!r} (--condition)"
            )
        told = f"has no condition {condition!r}" if condition else "waits for several conditions"
        listed = " or ".join(names)
        raise TriggerError(
            f"trigger {self.name!r} {told}: say for which one it is, condition={names[0]!r} "
            f"(--condition {listed})"
        )

    def foresee_listing(self) -> list[Decision]:
        """Say what would become of the files that are there now; nothing is written.

        Raises:
            TriggerError: it waits for no files.
        """
        definition, state = self.definition, self.state
        parts = {n: part for n, part in definition.parts.items() if isinstance(part, Files)}
        if not parts:
            raise TriggerError(
                f"trigger {self.name!r} waits for no files that could be listed: it waits for "
                f"{definition.on}; say of which facts"
            )
        return [
            decision
            for name, part in parts.items()
            for decision in self.foresee(
                source_of(part).there(state.cursors.get(name)), condition=name
            )
        ]

    @property
    def _intake(self) -> Intake:
        return Intake(self._triggers, self._runtime.values, self._runtime.clock)


def registry_of(runtime: Runtime) -> TriggerRegistry:
    """Return the verbs that change triggers of a store."""
    return TriggerRegistry(runtime.store, runtime.values, runtime.clock)
