"""What becomes of arrivals: a function of the trigger, its state, what came, and time.

``intake`` calls ``decide`` and has what it returns written in one transaction, guarded by the state
that was read. Nothing here raises, whatever the facts are: what cannot be decided otherwise is
refused, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from perdure_scheduler.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Event,
    Files,
    Listen,
    RunFinished,
    Single,
    Webhook,
)
from perdure_scheduler.durations import text_of
from perdure_scheduler.facts import FactMissing, Path, ask, read
from perdure_scheduler.registered import Pause
from perdure_scheduler.trigger import Trigger
from perdure_storage.hashing import combine
from perdure_storage.records import StoredValue
from perdure_storage.trigger_records import LONGEST_KEY_BYTES

MOST_WAITING = 1_000
"""Arrivals of one condition that wait for those of others: more are refused."""
LONGEST_CHAIN = 100
_READABLE = 40
_UNREADABLE = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


class Verdict(StrEnum):
    """What becomes of an arrival. All but ``HELD`` and ``DEFERRED`` are final."""

    FIRED = "fired"  # it made a run
    USED = "used"  # it has a part in a run that a later one made
    HELD = "held"  # it waits for those of other conditions
    EXPIRED = "expired"  # they did not come within the window
    FILTERED = "filtered"  # where= said no
    REFUSED = "refused"  # no run can be made of it
    DEFERRED = "deferred"  # it is decided when the trigger is resumed
    SKIPPED = "skipped"  # a person said so, when the trigger was resumed
    BASELINE = "baseline"  # it was there before, and existing="skip"


class Why(StrEnum):
    """The reason for a verdict, for programs; ``Decision.reason`` is for people."""

    MET = "met"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    WINDOW_OVER = "window over"
    CHANGED = "changed"  # the trigger has no such condition any more
    WHERE = "where"
    FACT_MISSING = "fact missing"
    NO_FACTS = "no facts"  # what came with it are none that can be kept
    CIRCLE = "circle"
    TOO_MANY = "too many"
    PAUSED = "paused"
    EXISTED = "existed"


class Came(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival as its row has it.

    Attributes:
        key: as ``stored_key`` gives it.
        condition: which it is for.
        at: when it was received.
        text: the facts, as they are kept.
        problem: why its facts cannot be kept; "" if they can.
    """

    key: str
    condition: str = ""
    at: datetime
    facts: dict[str, Any] = {}
    text: str = "{}"
    payload: StoredValue | None = None
    existed: bool = False
    problem: str = ""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival that waits for those of other conditions."""

    key: str
    condition: str
    at: datetime


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Since when, and why, a source cannot be listened to."""

    since: datetime
    message: str


class TriggerState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a trigger has come.

    Attributes:
        cursors: how far its sources have come, by condition, in their own words.
        troubles: of sources that cannot be listened to now, by condition.
        waiting: arrivals that wait for others, in the order in which they came.
        paused: since when and why, if it is.
        made: when the trigger was made, for the ids of its runs: one that is removed and declared
            again makes runs of its own. None of those that an older version made.
    """

    cursors: dict[str, str] = {}
    troubles: dict[str, Trouble] = {}
    waiting: tuple[Waiting, ...] = ()
    paused: Pause | None = None
    made: datetime | None = None

    def to_json(self) -> str:
        """Return it as JSON, equal for equal states."""
        return msgspec.json.encode(self, order="deterministic").decode()


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is to be made.

    Attributes:
        run_id: its id.
        inputs: arguments that are facts, or payloads.
        chain: names of the triggers that led to it one after the other, the trigger itself last.
        keys: of the arrivals that it is made of.
    """

    run_id: str
    inputs: dict[str, Any] = {}
    chain: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one arrival.

    Attributes:
        came: the arrival.
        verdict, why: what, and the reason for programs.
        reason: the reason for people.
        run_id: the run that it makes, or has a part in.
        run: that run, if it makes it.
    """

    came: Came
    verdict: Verdict
    why: Why
    reason: str
    run_id: str | None = None
    run: Planned | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written, together, and when to ask again.

    Attributes:
        decisions: of what came, in its order.
        revised: of earlier ones that waited.
        state: the new state.
        wake_at: the time at which the next decision is due, if time alone brings one.
    """

    decisions: tuple[Decision, ...] = ()
    revised: tuple[Decision, ...] = ()
    state: TriggerState
    wake_at: datetime | None = None


def stored_key(on: Condition, condition: str, key: str) -> str:
    """Return the key of an arrival's row.

    Files, events and ends of runs are the same whatever condition they meet, so that one of them
    counts once for any of several conditions; keys of webhooks and sources are their own. What
    waits for others is told apart by condition, for one event may meet two.
    """
    is_own = isinstance(on, AnyOf) and isinstance(on.of.get(condition), Webhook | Listen)
    if is_own or isinstance(on, AllOf):
        key = f"{condition}:{key}"
    encoded = key.encode("utf-8", "backslashreplace")
    if len(encoded) <= LONGEST_KEY_BYTES and key.isprintable():
        return key
    digest = combine("key", encoded).hex()[:32]
    return f"{_readable(key)}~{digest}"


def run_id_of(name: str, *keys: str, made: datetime | None = None) -> str:
    """Return the id of the run of arrivals: the same whoever asks, and whenever.

    Args:
        name: of the trigger.
        *keys: of the arrivals.
        made: when the trigger was made.
    """
    parts = [name.encode(), *(key.encode("utf-8", "backslashreplace") for key in keys)]
    if made is not None:
        parts.append(made.isoformat().encode())
    digest = combine("arrival", *(b"%d:%b" % (len(part), part) for part in parts))
    # Of 64 bits: keys that read alike are many, and two with one id would make one run.
    return "-".join(filter(None, (name, _readable(keys[-1]), digest.hex()[:16])))


def _readable(key: str) -> str:
    last = re.split(r"[/:\\]", key[:2_000].rstrip("/"))[-1]
    return _UNREADABLE.sub("-", last)[:_READABLE].strip("-._")


def decide(
    trigger: Trigger,
    state: TriggerState,
    came: Sequence[Came],
    now: datetime,
    held: Mapping[str, Came] | None = None,
) -> Outcome:
    """Decide what becomes of arrivals, and of those whose window is over.

    Args:
        trigger: the trigger.
        state: as it was read.
        came: what came, in its order; none of it was decided before, and no key is in it twice.
        now: the time.
        held: what waits, by key; None if ``needs_held`` says that it is not needed.
    """
    deciding = _Deciding(trigger, state, held)
    for each in came:
        deciding.take(each)
    deciding.expire(now)
    return deciding.outcome()


def needs_held(trigger: Trigger, state: TriggerState, came: Sequence[Came], now: datetime) -> bool:
    """Say whether something that waits may be decided now."""
    if not isinstance(trigger.on, AllOf) or not state.waiting or state.paused is not None:
        return False
    there = {each.condition for each in state.waiting} | {each.condition for each in came}
    wake_at = _wake_at(trigger, state)
    is_over = wake_at is not None and any(at >= wake_at for at in (now, *(c.at for c in came)))
    return is_over or there >= trigger.on.of.keys()


def paused(state: TriggerState, now: datetime, reason: str) -> TriggerState:
    """Return the state of a trigger that is paused; one that is paused stays so for its reason."""
    if state.paused is not None:
        return state
    return msgspec.structs.replace(state, paused=Pause(since=now, reason=reason))


def outcome_of(trigger: Trigger, state: TriggerState) -> Outcome:
    """Return a state of which nothing is to be decided now, as it is to be written."""
    return Outcome(state=state, wake_at=_wake_at(trigger, state))


def registered_again(
    old: Trigger, new: Trigger, state: TriggerState, held: Mapping[str, Came]
) -> Outcome:
    """Take over a changed trigger of the same name.

    A source that is the same goes on where it was; what waits for conditions that are gone is told
    so.
    """
    names = _names_since(old, new)
    stays = isinstance(new.on, AllOf)
    waiting = [
        each for each in state.waiting if stays and names.get(each.condition) == each.condition
    ]
    reason = "the trigger was changed, and does not wait for it any more"
    gone = tuple(
        Decision(came=held[each.key], verdict=Verdict.EXPIRED, why=Why.CHANGED, reason=reason)
        for each in state.waiting
        if each not in waiting and each.key in held
    )
    state = msgspec.structs.replace(
        state,
        cursors={names[name]: text for name, text in state.cursors.items() if name in names},
        troubles={},
        waiting=tuple(waiting),
    )
    return Outcome(revised=gone, state=state, wake_at=_wake_at(new, state))


def standing(trigger: Trigger, state: TriggerState) -> str:
    """Return how a trigger stands, for people: what it waits for, or why it does not."""
    if state.paused is not None:
        since = f"{state.paused.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"paused since {since}: {state.paused.reason}"
    if state.troubles:
        return trouble_of(trigger, state)
    if not state.waiting:
        return f"waits for {trigger.on}"
    there = {each.condition for each in state.waiting}
    missing = [name for name in trigger.parts if name not in there]
    has = ", ".join(name for name in trigger.parts if name in there)
    return f"has {has}; waits for {', '.join(missing)}"


def trouble_of(trigger: Trigger, state: TriggerState) -> str:
    """Return why not all can be taken in that a trigger waits for, for people; "" if it can."""
    for name, trouble in state.troubles.items():
        at = f"{trouble.since:%Y-%m-%d %H:%M:%S} UTC: {trouble.message}"
        if isinstance(trigger.parts.get(name), Webhook):
            return f"refused {f'by {name} ' if name else ''}at {at}"
        return f"cannot listen {f'to {name} ' if name else ''}since {at}"
    return ""


class _Deciding:
    """One call of ``decide`` in the making."""

    def __init__(
        self, trigger: Trigger, state: TriggerState, held: Mapping[str, Came] | None
    ) -> None:
        self._trigger = trigger
        self._state = state
        # What has no row any more has nobody to be told, and nothing to make a run of.
        self._waiting = [each for each in state.waiting if held is None or each.key in held]
        self._known = dict(held or {})
        self._decisions: dict[str, Decision] = {}
        self._revised: dict[str, Decision] = {}
        self._new: set[str] = set()

    def outcome(self) -> Outcome:
        state = msgspec.structs.replace(self._state, waiting=tuple(self._waiting))
        return Outcome(
            decisions=tuple(self._decisions.values()),
            revised=tuple(self._revised.values()),
            state=state,
            wake_at=_wake_at(self._trigger, state),
        )

    def take(self, came: Came) -> None:
        self._new.add(came.key)
        self._known[came.key] = came
        part = self._trigger.parts.get(came.condition)
        if part is None:
            named = f"no condition {came.condition!r}" if came.condition else "several conditions"
            self._tell(came, Verdict.REFUSED, Why.CHANGED, f"the trigger has {named} now")
        elif came.problem:
            self._tell(came, Verdict.REFUSED, Why.NO_FACTS, came.problem)
        elif came.existed:
            skips = isinstance(part, Files) and part.existing == "skip"
            said = ": existing='skip'" if skips else ""
            self._tell(came, Verdict.BASELINE, Why.EXISTED, f"it was there before{said}")
        elif self._state.paused is not None:
            reason = f"the trigger is paused: {self._state.paused.reason}"
            self._tell(came, Verdict.DEFERRED, Why.PAUSED, reason)
        elif circle := _circle(self._trigger.name, part, _chain(part, came)):
            self._tell(came, Verdict.REFUSED, Why.CIRCLE, circle)
        elif isinstance(self._trigger.on, AllOf):
            self._take_part(came, self._trigger.on)
        else:
            facts = came.facts
            if isinstance(self._trigger.on, AnyOf):
                facts = {**facts, "condition": came.condition}
            self._fire((came,), facts, Why.MET, str(part))

    # One of several conditions, all of which have to be met

    def _take_part(self, came: Came, on: AllOf) -> None:
        facts = {came.condition: came.facts}
        where = self._trigger.where
        # What others say is not known yet: only a no that stands whatever they say is one.
        if where is not None and (answer := ask(where, facts)).holds is False:
            self._tell(came, Verdict.FILTERED, Why.WHERE, answer.reason)
            return
        own = {k: path for k, path in self._trigger.inputs.items() if path[:1] == (came.condition,)}
        try:
            _inputs(own, facts, {came.condition: came})
        except FactMissing as missing:
            self._tell(came, Verdict.REFUSED, Why.FACT_MISSING, str(missing))
            return
        self.expire(came.at)
        if sum(each.condition == came.condition for each in self._waiting) >= MOST_WAITING:
            reason = f"{MOST_WAITING:,} arrivals of {came.condition} wait already"
            self._tell(came, Verdict.REFUSED, Why.TOO_MANY, reason)
            return
        self._waiting.append(Waiting(key=came.key, condition=came.condition, at=came.at))
        self._tell(came, Verdict.HELD, Why.INCOMPLETE, f"waits for {self._missing()}")
        self._join(on)

    def _join(self, on: AllOf) -> None:
        while True:
            heads: dict[str, Waiting] = {}
            for each in self._waiting:
                heads.setdefault(each.condition, each)
            if heads.keys() != on.of.keys():
                return
            oldest = min(heads.values(), key=lambda each: each.at)
            if max(each.at for each in heads.values()) - oldest.at >= on.within:
                self._expire_one(oldest, on)
                continue
            # In the order in which they came: the last one is what makes the run.
            joined = [each for each in self._waiting if heads[each.condition] is each]
            self._waiting = [each for each in self._waiting if heads[each.condition] is not each]
            self._complete([self._known[each.key] for each in joined])

    def _complete(self, joined: Sequence[Came]) -> None:
        facts = {each.condition: each.facts for each in joined}
        listed = ", ".join(f"{each.key:.80}" for each in joined)
        self._fire(joined, facts, Why.COMPLETE, f"complete: {listed}")

    def expire(self, upto: datetime) -> None:
        """Let go what has waited longer than the window by then."""
        on = self._trigger.on
        if not isinstance(on, AllOf) or self._state.paused is not None:
            return
        for each in [each for each in self._waiting if upto - each.at >= on.within]:
            self._expire_one(each, on)

    def _expire_one(self, waiting: Waiting, on: AllOf) -> None:
        self._waiting.remove(waiting)
        there = {each.condition for each in self._waiting} | {waiting.condition}
        missing = " and no ".join(name for name in on.of if name not in there)
        span = f"within {text_of(on.within)}"
        reason = f"no {missing} came {span}" if missing else f"they did not all come {span}"
        self._tell(self._known[waiting.key], Verdict.EXPIRED, Why.WINDOW_OVER, reason)

    def _missing(self) -> str:
        there = {each.condition for each in self._waiting}
        return ", ".join(name for name in self._trigger.parts if name not in there)

    # What is complete

    def _fire(
        self, joined: Sequence[Came], facts: Mapping[str, Any], why: Why, reason: str
    ) -> None:
        where = self._trigger.where
        if where is not None and not (answer := ask(where, facts)).holds:
            for each in joined:
                self._tell(each, Verdict.FILTERED, Why.WHERE, answer.reason)
            return
        try:
            inputs = _inputs(self._trigger.inputs, facts, _payloads(self._trigger.on, joined))
        except FactMissing as missing:
            for each in joined:
                self._tell(each, Verdict.REFUSED, Why.FACT_MISSING, str(missing))
            return
        name = self._trigger.name
        keys = tuple(each.key for each in joined)
        run_id = run_id_of(name, *keys, made=self._state.made)
        chains = [_chain(self._trigger.parts.get(each.condition), each) for each in joined]
        # The longest one as it is: by its length it is seen that they come to no end.
        led = max(chains, key=len)
        others = dict.fromkeys(link for chain in chains for link in chain if link not in led)
        planned = Planned(run_id=run_id, inputs=inputs, chain=(*others, *led, name), keys=keys)
        for each in joined[:-1]:
            self._tell(each, Verdict.USED, why, reason, run_id=run_id)
        self._tell(joined[-1], Verdict.FIRED, why, reason, run_id=run_id, run=planned)

    def _tell(
        self,
        came: Came,
        verdict: Verdict,
        why: Why,
        reason: str,
        *,
        run_id: str | None = None,
        run: Planned | None = None,
    ) -> None:
        lacks = came.payload is not None and "payload" not in came.facts
        if lacks and why in (Why.WHERE, Why.FACT_MISSING) and ".payload" in reason:
            reason += ". A payload that is no JSON, or no small one, only travels whole"
        told = self._decisions if came.key in self._new else self._revised
        told[came.key] = Decision(
            came=came, verdict=verdict, why=why, reason=reason, run_id=run_id, run=run
        )


def _wake_at(trigger: Trigger, state: TriggerState) -> datetime | None:
    if not isinstance(trigger.on, AllOf) or not state.waiting or state.paused is not None:
        return None
    return min(each.at for each in state.waiting) + trigger.on.within


def _payloads(on: Condition, joined: Sequence[Came]) -> dict[str, Came]:
    return {each.condition if isinstance(on, AllOf) else "": each for each in joined}


def _inputs(
    wanted: Mapping[str, Path], facts: Mapping[str, Any], came: Mapping[str, Came]
) -> dict[str, Any]:
    """Return arguments by name: facts, or a payload as it is.

    Raises:
        FactMissing: one is not there.
    """
    found: dict[str, Any] = {}
    for name, path in wanted.items():
        *above, last = path or (None,)
        whose = came.get(str(above[0]) if above else "") if last == "payload" else None
        if whose is not None and whose.payload is not None and len(path) <= 2:
            found[name] = whose.payload
        else:
            found[name] = read(facts, path)
    return found


def _chain(part: Single | None, came: Came) -> tuple[str, ...]:
    """Return the names of the triggers that led to an arrival one after the other."""
    chain = came.facts.get("chain") if isinstance(part, RunFinished | Event) else None
    if not isinstance(chain, list):
        return ()
    return tuple(each for each in chain if isinstance(each, str))


def _circle(name: str, part: Single | None, chain: Sequence[str]) -> str:
    """Return why a chain of triggers does not go on, "" if it does.

    By ends of runs each would lead to the next one for ever. Whether an event is sent is for a step
    to say: runs may come back to their trigger by events, but not without end.
    """
    if name in chain and not isinstance(part, Event):
        shown = " -> ".join((*chain[-10:], name))
        return f"triggers would start each other for ever: {shown}"
    if len(chain) >= LONGEST_CHAIN:
        shown = " -> ".join((*chain[-3:], name))
        return f"{LONGEST_CHAIN} runs of triggers have led to it one after the other: ... {shown}"
    return ""


def _names_since(old: Trigger, new: Trigger) -> dict[str, str]:
    """Return the names of conditions that are the same, by the name that they had."""
    before = {name: _identity(part) for name, part in old.parts.items()}
    after = {name: _identity(part) for name, part in new.parts.items()}
    names = {name: name for name in before if before[name] == after.get(name)}
    renamed = {what: name for name, what in after.items() if name not in names}
    for name, what in before.items():
        if name not in names and what in renamed:
            names[name] = renamed.pop(what)
    return names


def _identity(part: Single) -> tuple[str, str]:
    """Return by what a condition is the same though it is declared otherwise now."""
    kind = type(part).__name__
    if isinstance(part, Files):
        # With other keys, what is there is to be told anew: existing= says what becomes of it.
        return kind, f"{part.url} {part.change}"
    if isinstance(part, Listen):
        return kind, part.source
    if isinstance(part, RunFinished):
        return kind, part.workflow
    return kind, part.name if isinstance(part, Event) else ""
