"""What becomes of arrivals: decided by values alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.dispatching import HOUR, MINUTE, NOON, SECOND, trigger

from perdure_scheduler.arriving import (
    LONGEST_CHAIN,
    MOST_WAITING,
    Came,
    Outcome,
    TriggerState,
    Trouble,
    Waiting,
    decide,
    needs_held,
    paused,
    registered_again,
    run_id_of,
    standing,
    stored_key,
)
from perdure_scheduler.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Event,
    Files,
    Listen,
    RunFinished,
    Webhook,
)
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.facts import event
from perdure_scheduler.trigger import Trigger
from perdure_storage.contract_samples import a_value
from perdure_storage.trigger_records import LONGEST_KEY_BYTES

ROWS = Listen(source="mine:rows")
HOOK = Webhook(keys=("K",))
BOTH = AllOf(of={"orders": Files(url="in/*.csv"), "rates": ROWS}, within=HOUR)


def came(key: str, condition: str = "", at: datetime = NOON, **facts: Any) -> Came:
    return Came(key=key, condition=condition, at=at, facts=facts)


def told(outcome: Outcome) -> dict[str, str]:
    """Return what became of what, in short."""
    all_of_them = (*outcome.decisions, *outcome.revised)
    return {each.came.key: f"{each.verdict}: {each.why}" for each in all_of_them}


class Course:
    """A trigger in the course of time, as intakes carry it on."""

    def __init__(self, one: Trigger) -> None:
        self.trigger = one
        self.state = TriggerState()
        self.known: dict[str, Came] = {}
        self.told: dict[str, str] = {}
        self.outcome = Outcome(state=self.state)

    def take(self, *new: Came, now: datetime | None = None) -> dict[str, str]:
        now = now or max((each.at for each in new), default=NOON)
        held: dict[str, Came] | None = None
        if needs_held(self.trigger, self.state, new, now):
            held = {each.key: self.known[each.key] for each in self.state.waiting}
        self.outcome = decide(self.trigger, self.state, new, now, held)
        self.state = self.outcome.state
        self.known.update({each.key: each for each in new})
        self.told.update(told(self.outcome))
        return told(self.outcome)

    @property
    def made(self) -> list[str]:
        decisions = (*self.outcome.decisions, *self.outcome.revised)
        return [each.run.run_id for each in decisions if each.run is not None]


# --- one condition --------------------------------------------------------------------------------
def test_what_comes_fires_with_its_facts() -> None:
    one = trigger(where=event.size > 0, inputs={"path": event.path, "all": event})

    outcome = decide(one, TriggerState(), [came("in/a.csv", path="in/a.csv", size=1)], NOON)

    (decision,) = outcome.decisions
    assert told(outcome) == {"in/a.csv": "fired: met"}
    assert decision.run is not None
    assert decision.run_id == decision.run.run_id == run_id_of("t", "in/a.csv")
    assert decision.run.inputs == {"path": "in/a.csv", "all": {"path": "in/a.csv", "size": 1}}
    assert outcome.state == TriggerState()
    assert outcome.wake_at is None


@pytest.mark.parametrize(
    ("more", "facts", "verdict", "reason"),
    [
        ({"where": event.size > 0}, {"size": 0}, "filtered: where", "event.size > 0 does not hold"),
        ({"where": event.size > 0}, {}, "filtered: where", "event.size is missing: event is empty"),
        ({"where": event.a == 1}, {"a": []}, "filtered: where", "it is a list"),
        (
            {"inputs": {"x": event.a.b}},
            {"a": {"c": 1}},
            "refused: fact missing",
            "event.a.b is missing: event.a has 'c'",
        ),
        ({"inputs": {"x": event.payload}}, {}, "refused: fact missing", "payload is missing"),
    ],
)
def test_what_makes_no_run_says_why(
    more: dict[str, Any], facts: dict[str, Any], verdict: str, reason: str
) -> None:
    outcome = decide(trigger(**more), TriggerState(), [came("k", **facts)], NOON)

    assert told(outcome) == {"k": verdict}
    assert reason in outcome.decisions[0].reason
    assert outcome.decisions[0].run_id is None


def test_payload_travels_whole_and_its_parts_are_facts() -> None:
    payload = a_value()
    on = Event(name="price")
    one = trigger(on=on, inputs={"value": event.payload, "symbol": event.payload.symbol})
    arrival = Came(key="k", at=NOON, facts={"payload": {"symbol": "X"}}, payload=payload)

    outcome = decide(one, TriggerState(), [arrival], NOON)

    (decision,) = outcome.decisions
    assert decision.run is not None
    assert decision.run.inputs == {"value": payload, "symbol": "X"}


def test_facts_that_cannot_be_kept_are_refused_whatever_else_is_so() -> None:
    state = paused(TriggerState(), NOON, "by hand")
    broken = Came(key="k", at=NOON, problem="its facts are no JSON")

    outcome = decide(trigger(), state, [broken], NOON)

    assert told(outcome) == {"k": "refused: no facts"}


def test_what_comes_while_paused_is_deferred() -> None:
    state = paused(TriggerState(), NOON, "by hand")

    outcome = decide(trigger(where=event.size > 0), state, [came("k", size=0)], NOON)

    assert told(outcome) == {"k": "deferred: paused"}
    assert outcome.decisions[0].reason == "the trigger is paused: by hand"


def test_what_a_source_says_existed_makes_no_run() -> None:
    before = Came(key="k", at=NOON, existed=True)

    assert told(decide(trigger(on=ROWS), TriggerState(), [before], NOON)) == {
        "k": "baseline: existed"
    }


@pytest.mark.parametrize("existing", ["run", "skip"])
def test_files_that_existed_make_no_run(existing: Any) -> None:
    one = trigger(on=Files(url="in/*", existing=existing))
    before = Came(key="k", at=NOON, existed=True)

    assert told(decide(one, TriggerState(), [before], NOON)) == {"k": "baseline: existed"}


def test_what_a_condition_was_that_is_gone_is_refused() -> None:
    anything = AnyOf(of={"a": ROWS, "b": HOOK})

    of_before = decide(trigger(on=anything), TriggerState(), [came("k")], NOON)
    of_none = decide(trigger(), TriggerState(), [came("k", "c")], NOON)

    assert told(of_before) == told(of_none) == {"k": "refused: changed"}


# --- any of several -------------------------------------------------------------------------------
def test_any_of_several_fires_and_is_named() -> None:
    anything = AnyOf(of={"a": ROWS, "b": HOOK})
    one = trigger(on=anything, where=event.condition == "b", inputs={"x": event.condition})

    outcome = decide(one, TriggerState(), [came("k", "a"), came("l", "b")], NOON)

    assert told(outcome) == {"k": "filtered: where", "l": "fired: met"}
    assert outcome.decisions[1].run is not None
    assert outcome.decisions[1].run.inputs == {"x": "b"}


# --- all of several -------------------------------------------------------------------------------
def test_all_of_several_make_one_run_when_the_last_one_comes() -> None:
    inputs = {"path": event.orders.path, "row": event.rates.row}
    course = Course(trigger(on=BOTH, inputs=inputs))

    first = course.take(came("o", "orders", path="in/a.csv"))
    assert course.outcome.wake_at == NOON + HOUR
    second = course.take(came("r", "rates", NOON + MINUTE, row=3))

    assert first == {"o": "held: incomplete"}
    assert second == {"o": "used: complete", "r": "fired: complete"}
    assert course.made == [run_id_of("t", "o", "r")]
    assert {each.run_id for each in (*course.outcome.decisions, *course.outcome.revised)} == {
        run_id_of("t", "o", "r")
    }
    fired = course.outcome.decisions[0].run
    assert fired is not None
    assert fired.inputs == {"path": "in/a.csv", "row": 3}
    assert course.state == TriggerState()
    assert course.outcome.wake_at is None


def test_all_of_several_may_come_together() -> None:
    course = Course(trigger(on=BOTH))

    course.take(came("o1", "orders"), came("o2", "orders"), came("r1", "rates"))
    last = course.take(came("r2", "rates"))

    assert course.told == {
        "o1": "used: complete",
        "o2": "used: complete",
        "r1": "fired: complete",
        "r2": "fired: complete",
    }
    assert last.keys() == {"o2", "r2"}


def test_what_has_waited_for_the_window_is_let_go() -> None:
    course = Course(trigger(on=BOTH))
    course.take(came("o1", "orders"), came("o2", "orders", NOON + MINUTE))

    early = course.take(now=NOON + HOUR - SECOND)
    due = course.take(now=NOON + HOUR)

    assert early == {}
    assert due == {"o1": "expired: window over"}
    assert course.outcome.revised[0].reason == "no rates came within 1h"
    assert course.outcome.wake_at == NOON + HOUR + MINUTE
    assert course.take(came("r", "rates", NOON + HOUR + SECOND)).keys() == {"o2", "r"}


def test_arrivals_are_never_joined_that_are_further_apart_than_the_window() -> None:
    course = Course(trigger(on=BOTH))
    course.take(came("o", "orders", NOON + 2 * HOUR))  # before the clock was put back

    course.take(came("r", "rates", NOON), now=NOON)

    assert course.told == {"o": "held: incomplete", "r": "expired: window over"}
    assert [each.key for each in course.state.waiting] == ["o"]


def test_one_that_is_certain_to_be_filtered_does_not_wait() -> None:
    where = (event.orders.size > 0) & (event.rates.kind == "x")
    course = Course(trigger(on=BOTH, where=where))

    course.take(came("empty", "orders", size=0), came("o", "orders", size=1))
    course.take(came("r", "rates", kind="x"))

    assert course.told == {
        "empty": "filtered: where",
        "o": "used: complete",
        "r": "fired: complete",
    }


def test_one_without_a_fact_that_is_wanted_spoils_no_other() -> None:
    course = Course(trigger(on=BOTH, inputs={"path": event.orders.path}))

    course.take(came("bad", "orders"), came("r", "rates"), came("o", "orders", path="p"))

    assert course.told == {
        "bad": "refused: fact missing",
        "r": "used: complete",
        "o": "fired: complete",
    }


def test_what_is_filtered_together_is_told_each() -> None:
    where = (event.orders.size > 0) | (event.rates.kind == "x")
    course = Course(trigger(on=BOTH, where=where))

    course.take(came("o", "orders", size=0))
    course.take(came("r", "rates", kind="y"))

    assert course.told == {"o": "filtered: where", "r": "filtered: where"}
    assert course.state.waiting == ()


def test_more_than_can_wait_are_refused() -> None:
    waiting = tuple(
        Waiting(key=f"o{number}", condition="orders", at=NOON) for number in range(MOST_WAITING)
    )
    state = TriggerState(waiting=waiting)

    outcome = decide(trigger(on=BOTH), state, [came("more", "orders")], NOON)

    assert told(outcome) == {"more": "refused: too many"}
    assert outcome.state == state


def test_pause_keeps_what_waits_and_wakes_nobody() -> None:
    course = Course(trigger(on=BOTH))
    course.take(came("o", "orders"))
    course.state = paused(course.state, NOON, "by hand")

    later = course.take(came("r", "rates", NOON + 2 * HOUR))

    assert later == {"r": "deferred: paused"}
    assert [each.key for each in course.state.waiting] == ["o"]
    assert course.outcome.wake_at is None


# --- ends of runs ---------------------------------------------------------------------------------
LOADED = RunFinished(workflow="load")


def test_run_knows_which_triggers_led_to_it() -> None:
    outcome = decide(trigger(on=LOADED), TriggerState(), [came("k", chain=["a", "b"])], NOON)

    assert outcome.decisions[0].run is not None
    assert outcome.decisions[0].run.chain == ("a", "b", "t")


@pytest.mark.parametrize(
    ("chain", "told_"),
    [
        (["a", "t", "b"], "triggers would start each other for ever: a -> t -> b -> t"),
        ([f"a{n}" for n in range(LONGEST_CHAIN)], "100 runs of triggers have led to it"),
    ],
)
def test_chain_of_triggers_that_comes_back_or_has_no_end_is_refused(
    chain: list[str], told_: str
) -> None:
    outcome = decide(trigger(on=LOADED), TriggerState(), [came("k", chain=chain)], NOON)

    assert told(outcome) == {"k": "refused: circle"}
    assert told_ in outcome.decisions[0].reason


def test_chain_that_is_none_stops_nothing() -> None:
    for chain in ("t", {"t": 1}, None, [["t"]]):
        outcome = decide(trigger(on=LOADED), TriggerState(), [came("k", chain=chain)], NOON)
        assert told(outcome) == {"k": "fired: met"}
    of_a_source = decide(trigger(), TriggerState(), [came("k", chain=["t"])], NOON)
    assert told(of_a_source) == {"k": "fired: met"}


# --- whatever comes -------------------------------------------------------------------------------
hostile: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from([10**400, 10**4200, "\ud800", "x" * 20_000, ["t"] * 200, b"x", {1}]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "size", "path", "chain"]), inner, max_size=3)
    ),
    max_leaves=6,
)
comings = st.builds(
    Came,
    key=st.sampled_from([f"k{number}" for number in range(9)]),
    condition=st.sampled_from(["", "orders", "rates", "gone"]),
    at=st.integers(-3, 3).map(lambda half_hours: NOON + half_hours * HOUR / 2),
    facts=st.dictionaries(st.sampled_from(["a", "size", "path", "chain"]), hostile, max_size=3),
    existed=st.booleans(),
    problem=st.sampled_from(["", "", "", "no facts"]),
)
ANY = AnyOf(of={"orders": LOADED, "rates": ROWS})
WANTED: list[Trigger] = [
    trigger(where=event.a.b > 3, inputs={"x": event.a[0].c}),
    trigger(on=LOADED, inputs={"x": event.chain}),
    trigger(on=ANY, where=(event.size > 0) | event.a.matches("*x*"), inputs={"x": event}),
    trigger(on=BOTH, where=(event.orders.size > 0) & (event.rates.a != 1)),
    trigger(on=BOTH, inputs={"x": event.orders.path, "y": event.rates.a.b}),
]


@given(
    st.sampled_from(WANTED),
    st.lists(st.lists(comings, max_size=4, unique_by=lambda each: each.key), max_size=5),
    st.booleans(),
)
def test_each_arrival_has_one_decision_with_its_reason_whatever_its_facts_are(
    one: Trigger, batches: list[list[Came]], is_paused: bool
) -> None:
    course = Course(one)
    if is_paused:
        course.state = paused(course.state, NOON, "by hand")

    for batch in batches:
        new = [each for each in batch if each.key not in course.known]
        course.take(*new, now=NOON)

        assert [each.came.key for each in course.outcome.decisions] == [each.key for each in new]
        for each in (*course.outcome.decisions, *course.outcome.revised):
            assert each.reason.encode()
            assert (each.run is not None) == (each.verdict == "fired")
            assert (each.run_id is not None) == (each.verdict in ("fired", "used"))
        waiting = {key for key, said in course.told.items() if said.startswith("held")}
        assert waiting == {each.key for each in course.state.waiting}
        there = {each.condition for each in course.state.waiting}
        assert len(there) < 2, "what is complete waits"


# --- names ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("on", "condition", "key"),
    [
        (ROWS, "", "k"),
        (AnyOf(of={"a": ROWS, "b": HOOK}), "a", "a:k"),
        (AnyOf(of={"a": ROWS, "b": HOOK}), "b", "b:k"),
        (AnyOf(of={"a": Event(name="x"), "b": Event(name="y")}), "a", "k"),
        (AllOf(of={"a": Event(name="x"), "b": Event(name="y")}, within=HOUR), "a", "a:k"),
    ],
)
def test_key_says_its_condition_where_another_one_may_have_the_same(
    on: Condition, condition: str, key: str
) -> None:
    assert stored_key(on, condition, "k") == key


@pytest.mark.parametrize("key", ["x" * 3_000, "é" * 1_500, "a\x00b", "a\nb", "\udc80.csv", ""])
def test_any_text_is_made_a_key_that_a_row_can_have(key: str) -> None:
    stored = stored_key(ROWS, "", key)

    assert len(stored.encode()) <= LONGEST_KEY_BYTES
    assert stored.isprintable()
    assert stored == stored_key(ROWS, "", key) != stored_key(ROWS, "", key + "\x00")


@pytest.mark.parametrize(
    ("keys", "begins"),
    [
        (["s3://bucket/in/rows 1.csv"], "t-rows-1.csv-"),
        (["orders:in/a.csv", "rates:evt_1"], "t-evt_1-"),
        (["../../etc/passwd"], "t-passwd-"),
        (["///"], "t-"),
        (["é"], "t-"),
        (["x" * 100], "t-" + "x" * 40 + "-"),
        ([""], "t-"),
    ],
)
def test_run_is_named_after_its_trigger_and_what_can_be_read_of_the_key(
    keys: list[str], begins: str
) -> None:
    run_id = run_id_of("t", *keys)

    assert run_id == begins + run_id[-16:]
    assert run_id.isascii()


def test_other_keys_make_other_runs() -> None:
    ids = {run_id_of("t", *keys) for keys in (["a"], ["b"], ["a", "b"], ["ab"], ["a", "", "b"])}

    assert len(ids) == 5
    assert run_id_of("t", "k") != run_id_of("t2", "k")


# --- changed, and told of -------------------------------------------------------------------------
def changed(
    before: Condition, after: Condition, state: TriggerState, held: Iterable[Came] = ()
) -> Outcome:
    known = {each.key: each for each in held}
    return registered_again(trigger(on=before), trigger(on=after), state, known)


def test_source_that_is_the_same_goes_on_from_its_cursor() -> None:
    state = TriggerState(cursors={"": "7"})
    there, elsewhere = Files(url="in/*"), Files(url="other/*")

    slower = changed(there, Files(url="in/*", every=timedelta(minutes=5)), state)
    part = changed(there, AnyOf(of={"a": elsewhere, "b": there}), state)
    other = changed(there, elsewhere, state)

    assert slower.state.cursors == {"": "7"}
    assert part.state.cursors == {"b": "7"}
    assert other.state.cursors == {}


def test_what_waits_goes_on_waiting_unless_its_condition_is_gone() -> None:
    course = Course(trigger(on=BOTH))
    course.take(came("o", "orders"), came("o2", "orders"))
    renamed = AllOf(of={"orders_": BOTH.of["orders"], "rates": ROWS}, within=HOUR)
    longer = AllOf(of=BOTH.of, within=2 * HOUR)

    stays = changed(BOTH, longer, course.state, course.known.values())
    gone = changed(BOTH, renamed, course.state, course.known.values())

    assert told(stays) == {}
    assert stays.wake_at == NOON + 2 * HOUR
    assert told(gone) == {"o": "expired: changed", "o2": "expired: changed"}
    assert gone.state.waiting == ()


def test_two_conditions_that_are_alike_go_on_each_under_its_name() -> None:
    alike = {"a": Event(name="x"), "b": Event(name="x", match={"k": 1})}
    course = Course(trigger(on=AllOf(of=alike, within=HOUR)))
    course.take(came("k", "a"))

    again = changed(
        AllOf(of=alike, within=HOUR),
        AllOf(of=alike, within=2 * HOUR),
        course.state,
        course.known.values(),
    )

    assert told(again) == {}
    assert again.state == course.state


def test_trigger_says_what_it_waits_for() -> None:
    course = Course(trigger(on=BOTH))
    assert standing(course.trigger, course.state).startswith("waits for all of orders: files in/")

    course.take(came("o", "orders"))
    assert standing(course.trigger, course.state) == "has orders; waits for rates"

    stopped = paused(course.state, NOON, "by hand")
    assert paused(stopped, NOON + HOUR, "again") == stopped
    assert standing(course.trigger, stopped) == "paused since 2026-01-01 12:00:00 UTC: by hand"


# --- declarations ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: trigger("a b"), "a name is made of letters"),
        (lambda: trigger(on=Files(url="")), "write a path or a URL"),
        (lambda: Files(url="x", every=timedelta(0)), "from 1s to 3650d, such as '30s'"),
        (lambda: Files(url="x", stable_for=-SECOND), "stable_for='-1s': write a duration from 0s"),
        (lambda: Files(url="x", existing="no"), "write run or skip"),  # type: ignore[arg-type]
        (lambda: Webhook(keys=()), "names of environment variables"),
        (lambda: Webhook(keys=("K",), scheme="x"), "write standard or github"),  # type: ignore[arg-type]
        (
            lambda: Webhook(keys=("K",), window=timedelta(0)),
            "window='0s': write a duration from 1s",
        ),
        (lambda: Event(name=""), "write the name"),
        (lambda: RunFinished(workflow=""), "write the workflow"),
        (lambda: RunFinished(workflow="w", states=()), "write some of CANCELLED"),
        (lambda: Listen(source="mine"), "package.module:NAME"),
        (lambda: AllOf(of={"a": ROWS}, within=HOUR), "at least two"),
        (lambda: AllOf(of={"a": ROWS, "b": HOOK}, within=timedelta(0)), "such as '1h'"),
        (lambda: AllOf(of={"a": ROWS, "b": HOOK}, within=timedelta.max), "to 3650d"),
        (lambda: AnyOf(of={"a b": ROWS, "c": HOOK}), "is no name for a condition"),
        (
            lambda: trigger(on=Files(url="x"), where=event.nam == "x"),
            "event.nam is no fact that it has, did you mean event.name",
        ),
        (
            lambda: trigger(on=BOTH, inputs={"x": event.path}),
            r"Known: event.orders, event.rates",
        ),
        (
            lambda: trigger(on=BOTH, inputs={"x": event.orders.pat}),
            "did you mean event.orders.path",
        ),
        (
            lambda: trigger(on=Webhook(keys=("K",)), inputs={"x": event.payload}),
            "event.payload is no fact",
        ),
    ],
)
def test_declaration_that_makes_no_sense_is_refused_with_what_to_write(
    declare: Any, says: str
) -> None:
    with pytest.raises(TriggerError, match=says):
        declare()


@pytest.mark.parametrize(
    "on",
    [
        Files(url="in/*", change=True, stable_for=5 * SECOND),
        Webhook(keys=("A", "B"), scheme="github", headers=("X-Kind",)),
        Event(name="price", match={"symbol": "X", "n": 1, "b": True, "none": None}),
        RunFinished(workflow="w", tags={"team": "a"}),
        ROWS,
        BOTH,
        AnyOf(of={"a": ROWS, "b": BOTH.of["orders"]}),
    ],
)
def test_trigger_comes_back_from_json_as_it_was(on: Condition) -> None:
    one = trigger(on=on)

    again = Trigger.from_json(one.to_json())

    assert again == one
    assert again.digest == one.digest
    assert str(on)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"name":"x","on":{"type":"moon"}}', "[" * 9_999])
def test_trigger_of_a_newer_perdure_is_told_as_such(text: str) -> None:
    with pytest.raises(TriggerError, match="newer perdure"):
        Trigger.from_json(text)


def test_trigger_whose_source_fails_says_since_when_and_why() -> None:
    one = trigger(on=ROWS)
    trouble = Trouble(since=NOON, message="ConnectionError: no route to host")

    assert (
        standing(one, TriggerState(troubles={"": trouble}))
        == "cannot listen since 2026-01-01 12:00:00 UTC: ConnectionError: no route to host"
    )


def test_changed_trigger_has_no_troubles_of_what_it_was() -> None:
    state = TriggerState(troubles={"": Trouble(since=NOON, message="away")})

    assert registered_again(trigger(on=ROWS), trigger(on=HOOK), state, {}).state.troubles == {}


def test_files_begin_anew_when_changes_begin_to_count() -> None:
    plain, changing = Files(url="in/*.csv"), Files(url="in/*.csv", change=True)
    state = TriggerState(cursors={"": "begun"})

    assert registered_again(trigger(on=plain), trigger(on=changing), state, {}).state.cursors == {}


def test_delivery_that_was_refused_is_told_with_its_trigger_until_one_is_taken_in() -> None:
    one = trigger(on=Webhook(keys=("K",)))
    trouble = Trouble(since=NOON, message="delivery msg_1: event.body.repo is missing")

    told = standing(one, TriggerState(troubles={"": trouble}))

    assert told == "refused at 2026-01-01 12:00:00 UTC: " + trouble.message


def test_two_of_one_condition_are_refused_where_one_arrival_would_be_both() -> None:
    with pytest.raises(TriggerError, match="'x' and 'y' are the same, so one arrival would be"):
        AllOf(of={"x": Event(name="s"), "y": Event(name="s")}, within=HOUR)

    differing = AllOf(of={"x": Event(name="s"), "y": Event(name="s", match={"k": 1})}, within=HOUR)
    assert list(differing.of) == ["x", "y"]
