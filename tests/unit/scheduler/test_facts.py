"""Paths and filters: what they are written as, what they say, and that nothing makes them raise."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure_scheduler import facts
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.facts import (
    AnyFilter,
    Fact,
    FactMissing,
    Filter,
    ask,
    check_filter,
    event,
    path_of,
    path_text,
    read,
    read_back,
    written,
)

PUSH = {
    "size": 3,
    "name": "a.csv",
    "draft": False,
    "none": None,
    "body": {"repo": {"full name": "o/r"}, "items": [{"n": 1}, {"n": 2}]},
}


@pytest.mark.parametrize(
    ("fact", "text", "found"),
    [
        (event, "event", PUSH),
        (event.size, "event.size", 3),
        (event.body.repo["full name"], "event.body.repo['full name']", "o/r"),
        (event.body["items"][-1].n, "event.body.items[-1].n", 2),
    ],
)
def test_path_leads_from_the_outside_in(fact: Fact, text: str, found: Any) -> None:
    assert repr(fact) == text
    assert read(PUSH, path_of(fact)) == found


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        (
            event.no,
            "event.no is missing: event has 'size', 'name', 'draft', 'none', 'body'",
        ),
        (event.body["items"][2], "event.body.items[2] is missing: event.body.items has 2 items"),
        (event.name.first, "event.name.first is missing: event.name is text"),
        (event.none.x, "event.none.x is missing: event.none is null"),
        (event.body[0], "event.body[0] is missing: event.body has 'repo', 'items'"),
        (event.name[0], "event.name[0] is missing: event.name is text"),
    ],
)
def test_missing_fact_says_how_far_its_path_came(fact: Fact, told: str) -> None:
    with pytest.raises(FactMissing) as refused:
        read(PUSH, path_of(fact))

    assert str(refused.value) == told


def test_no_attribute_of_a_python_object_is_reached() -> None:
    for name in ("keys", "__class__", "items"):
        with pytest.raises(FactMissing):
            read({"a": {}}, ("a", name))


@pytest.mark.parametrize(
    ("filter_", "holds"),
    [
        (event.size == 3, True),
        (event.size == 3.0, True),
        (event.size == "3", False),
        (event.draft == 0, False),
        (event.draft == False, True),  # noqa: E712
        (event.none == None, True),  # noqa: E711
        (event.size != "3", True),
        (event.body != "3", True),
        (event.size > 2, True),
        (event.size >= 4, False),
        (event.name < "b", True),
        (event.size < "b", None),
        (event.draft > 0, None),
        (event.none <= 1, None),
        (event.gone == 1, None),
        (event.gone != 1, None),
        (event.name.is_in(["a.csv", 1]), True),
        (event.body.is_in([]), False),
        (event.name.matches("*.csv"), True),
        (event.name.matches("*.CSV"), False),
        (event.size.matches("*"), None),
        (~(event.size == 3), False),
        (~(event.gone == 3), None),
        ((event.size == 3) & (event.name == "b"), False),
        ((event.gone == 3) & (event.name == "b"), False),
        ((event.gone == 3) & (event.name == "a.csv"), None),
        ((event.gone == 3) | (event.name == "a.csv"), True),
        ((event.gone == 3) | (event.name == "b"), None),
        ((event.size == 4) | (event.name == "b"), False),
    ],
)
def test_filter_says_yes_no_or_neither(filter_: AnyFilter, holds: bool | None) -> None:
    answer = ask(filter_, PUSH)

    assert answer.holds is holds
    assert bool(answer.reason) is not holds


def test_filter_that_does_not_hold_says_what_it_saw() -> None:
    both = (event.size > 2) & ~event.name.matches("*.csv")
    either = (event.size > 5) | (event.name == "b")

    assert ask(both, PUSH).reason == "~(event.name.matches('*.csv')) does not hold"
    assert ask(either, PUSH).reason == (
        "event.size > 5 does not hold: it is 3; event.name == 'b' does not hold: it is 'a.csv'"
    )
    assert ask(event.size > "b", PUSH).reason == ("event.size > 'b' does not hold: it is a number")


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda: (event.a == 1) and (event.b == 2), "join filters by &"),
        (lambda: not (event.a == 1), "join filters by &"),  # noqa: SIM201
        (lambda: 0 < event.a < 5, "join filters by &"),
        (lambda: event.a == 1 & event.b, "write each comparison in parentheses"),
        (lambda: (event.a == 1) & event.b, "which is no filter"),
        (lambda: ~event.a, "is no filter"),
        (lambda: bool(event.a), "is not known yet"),
        (lambda: event.a == event.b, "compare it with a constant"),
        (lambda: event.a == [1], "write text, a number"),
        (lambda: event.a > None, "is ordered against None"),
        (lambda: event.a > math.nan, "write a finite number"),
        (lambda: event.a == math.inf, "write a finite number"),
        (lambda: event.a == "x" * 10_001, "at most 10000"),
        (lambda: event.a.is_in("abc"), "write a list"),
        (lambda: event.a.matches(3), "write a pattern"),
        (lambda: event[1.5], "write a name or a position"),
        (lambda: setattr(event, "a", 1), "cannot be set"),
        (lambda: check_filter(event.a.is_in(range(501))), "more than 500 terms"),
        (lambda: path_of(Fact(("a",) * 33)), "deeper than 32 names"),
    ],
)
def test_what_cannot_be_a_filter_is_refused_with_what_to_write(write: Any, told: str) -> None:
    with pytest.raises(TriggerError, match=told):
        write()


def test_event_is_neither_a_row_of_things_nor_a_dictionary_key() -> None:
    for misuse in (lambda: list(event.rows), lambda: 1 in event.rows, lambda: {event: 1}):
        with pytest.raises(TypeError):
            misuse()
    with pytest.raises(AttributeError, match='write event\\["_x"\\]'):
        event._x  # noqa: B018


def test_long_rows_of_filters_are_flat_and_deep_ones_are_refused() -> None:
    row: Filter = event.a == 0
    deep: Filter = event.a == 0
    for number in range(400):
        row = row | (event.a == number)
        deep = (deep & (event.a == number)) | (event.b == number)

    check_filter(row)
    with pytest.raises(TriggerError, match="nested deeper than 32"):
        check_filter(deep)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
hostile_values: st.SearchStrategy[Any] = json_values | st.sampled_from(
    [10**400, -(10**400), 10**4200, math.nan, math.inf, "\ud800", "\x00", "x" * 20_000, b"x", {1}]
)
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
paths = st.lists(st.sampled_from("abc") | st.integers(-2, 2), min_size=1, max_size=3)
terms: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda path, value: _at(path) == value, paths, scalars),
    st.builds(lambda path, value: _at(path) >= value, paths, st.integers() | st.text(max_size=3)),
    st.builds(lambda path, values: _at(path).is_in(values), paths, st.lists(scalars, max_size=3)),
    st.builds(lambda path, text: _at(path).matches(text), paths, st.text("*?[ab]", max_size=6)),
)
filters: st.SearchStrategy[Any] = st.recursive(
    terms,
    lambda inner: (
        st.builds(lambda a: ~a, inner)
        | st.builds(lambda a, b: a & b, inner, inner)
        | st.builds(lambda a, b: a | b, inner, inner)
    ),
    max_leaves=6,
)


def _at(path: list[str | int]) -> Fact:
    found = event
    for step in path:
        found = found[step]
    return found


@given(filters, st.dictionaries(st.sampled_from("abc"), hostile_values, max_size=3))
def test_filter_answers_whatever_the_facts_are(filter_: Any, known: dict[str, Any]) -> None:
    answer = ask(filter_, known)

    assert answer.holds in (True, False, None)
    answer.reason.encode("utf-8", "backslashreplace")
    assert ask(~filter_, known).holds == (None if answer.holds is None else not answer.holds)


def test_number_of_thousands_of_digits_is_compared_and_told_as_such() -> None:
    answer = ask(event.a == 1, {"a": 10**5000})

    assert answer == facts.Answer(
        False, "event.a == 1 does not hold: it is a number of thousands of digits"
    )


@given(filters)
def test_filter_comes_back_from_json_as_it_was(filter_: Any) -> None:
    text = msgspec.json.encode(filter_)

    assert msgspec.json.decode(text, type=AnyFilter) == filter_  # type: ignore[arg-type]
    assert all(path_text(path) in str(filter_) for path in facts.paths_of(filter_))


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=3))
def test_facts_come_back_from_their_row_as_they_were(known: dict[str, Any]) -> None:
    try:
        text = written(known)
    except TriggerError:  # lone surrogates, infinity
        return

    assert read_back(text) == known


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "no JSON"),
        (b"x", "no JSON"),
        ({1, 2}, "no JSON"),
        ("\ud800", "no JSON"),
        pytest.param(10**5000, "no JSON", id="digits"),
        pytest.param("x" * (facts.LARGEST_FACTS_BYTES + 1), "bytes, more than", id="large"),
    ],
)
def test_facts_that_cannot_be_kept_are_refused(value: Any, told: str) -> None:
    with pytest.raises(TriggerError, match=told):
        written({"a": value})


@pytest.mark.parametrize("depth", [facts.DEEPEST_FACTS + 1, 500, 100_000])
def test_facts_that_are_too_deep_are_refused(depth: int) -> None:
    nest: Any = []
    for _ in range(depth):
        nest = [nest]

    with pytest.raises(TriggerError, match=r"deeper than|no JSON"):
        written({"a": nest})
    assert ask(event.a == 1, {"a": nest}).holds is False


@pytest.mark.parametrize("text", [lambda: f"{event.path}.txt", lambda: str(event.path)])
def test_fact_cannot_be_made_part_of_a_text(text: Any) -> None:
    with pytest.raises(TriggerError, match=r"event\.path is not known yet"):
        text()
