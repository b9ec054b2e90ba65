"""Ids of grown steps: short along a chain, apart from one another, told apart again."""

from __future__ import annotations

import pytest

from perdure.graph.growth import answer_id, child_id, first_answer_id, label_of, link_of, safe_label


def test_answers_of_a_chain_are_numbered_under_its_first_step() -> None:
    assert answer_id("f") == "f~1"
    assert answer_id("f~1") == "f~2"
    assert answer_id("a/f#2~41") == "a/f#2~42"


def test_a_chain_that_begins_anew_is_numbered_under_its_own_first_step() -> None:
    assert first_answer_id("f~3") == "f~3~1"
    assert answer_id("f~3~1") == "f~3~2"


@pytest.mark.parametrize(
    ("step_id", "link"),
    [("f", ("f", 0)), ("f~7", ("f", 7)), ("f~1/g", ("f~1/g", 0)), ("f[3]", ("f[3]", 0))],
)
def test_link_says_for_whom_a_step_answers(step_id: str, link: tuple[str, int]) -> None:
    assert link_of(step_id) == link


def test_children_of_a_map_are_told_apart_by_their_labels() -> None:
    assert child_id("parse", 12) == "parse[12]"
    assert label_of("parse[12]") == "12"
    assert label_of("parse~1[a.csv#2]") == "a.csv#2"
    assert label_of("parse[0:100]") == "0:100"
    assert label_of("parse") is None
    assert label_of("parse[0]/load") is None


@pytest.mark.parametrize(
    ("key", "label"),
    [("a.csv", "a.csv"), ("a/b#c[d]~e", "a_b_c_d__e"), ("\n", "_"), ("", "_"), (3, "3")],
)
def test_keys_become_labels_that_ids_can_hold(key: object, label: str) -> None:
    assert safe_label(key) == label
    assert label_of(child_id("f", safe_label(key))) == label


def test_long_keys_are_cut_between_characters() -> None:
    assert safe_label("ä" * 100) == "ä" * 40


def test_long_ids_are_shortened_and_stay_apart() -> None:
    long = "x" * 199

    ids = {child_id(long, index) for index in range(50)}

    assert len(ids) == 50
    assert all(len(each.encode()) <= 200 for each in ids)
