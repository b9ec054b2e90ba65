"""JSON encodings: exact, or not used."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest
from hypothesis import given
from tests.unit.storage.examples import (
    Access,
    Caching,
    Checked,
    Color,
    Frozen,
    Model,
    MyDict,
    MyInt,
    MyList,
    OwnState,
    Packed,
    Pair,
    Plain,
    Point,
    same,
    values,
)

from perdure_storage.codecs import Codecs
from perdure_storage.errors import NotSerializable, StoreError

_NO_PICKLE = Codecs(allow_pickle=False)


def round_trip(value: Any, codecs: Codecs = _NO_PICKLE) -> Any:
    encoded = codecs.encode(value)
    data = b"".join(encoded.buffers)
    assert len(data) == encoded.size_bytes
    return codecs.decode(encoded.codec, memoryview(data))


@given(values)
def test_values_come_back_exactly(value: Any) -> None:
    assert same(round_trip(value, Codecs()), value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64,
        -0.0,
        5e-324,
        "",
        "\x00é😀",
        [],
        {},
        [[], {}, None],
        {"a": [1, 2.0, {"b": None}], "$": 1, "": "x"},
        [0.1 + 0.2, 1e308],
    ],
)
def test_plain_values_are_plain_json_that_anyone_reads(value: Any) -> None:
    encoded = _NO_PICKLE.encode(value)

    assert encoded.codec == "json/1"
    assert same(json.loads(b"".join(encoded.buffers)), value)
    assert same(round_trip(value), value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        (),
        (1, (2, "x"), [3]),
        {2: "a", (2, 3): "b", None: "c", True: "d", 1.5: "e"},
        {"$": (1,)},
        {1, "a", (2,), frozenset({3})},
        set(),
        [b"\x00\xff"],
        bytearray(b"ab"),
        1 + 2j,
        range(1, 10, 3),
        ...,
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, fold=1),
        timezone(timedelta(hours=-3, minutes=-30)),
        PurePosixPath("a/b"),
        Color.GREEN,
        Access.READ | Access.WRITE,
        Point(1, [Point(2)]),
        Frozen("a", frozenset({"x"})),
        Pair((1,), {2}),
        Packed(1, [Packed(2)]),
        Model(name="m", scores=[1.5]),
    ],
)
def test_typed_values_are_tagged_json(value: Any) -> None:
    encoded = _NO_PICKLE.encode(value)

    assert encoded.codec == "json+types/1"
    json.loads(b"".join(encoded.buffers))
    assert same(round_trip(value), value)


def test_bits_of_a_nan_are_kept() -> None:
    import struct

    odd = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]

    assert struct.pack(">d", round_trip(odd)).hex() == "fff8000000000123"


@pytest.mark.parametrize("value", [MyInt(3), MyDict(a=1), MyList([1]), [MyInt(3)], {"a": MyList()}])
def test_look_alikes_are_not_taken_for_plain_values(value: Any) -> None:
    encoded = Codecs().encode(value)

    assert encoded.codec == "pickle/1"
    assert same(round_trip(value, Codecs()), value)
    with pytest.raises(NotSerializable):
        _NO_PICKLE.encode(value)


def test_one_list_twice_stays_one_list() -> None:
    row: list[Any] = [1, 2]

    back = round_trip({"a": row, "b": [row, Point(row, row)]})

    assert back == {"a": row, "b": [row, Point(row, row)]}
    assert back["a"] is back["b"][0] is back["b"][1].x


def test_deeply_shared_value_is_written_once() -> None:
    value: list[Any] = [0]
    for _ in range(60):
        value = [value, value]

    encoded = _NO_PICKLE.encode(value)

    assert encoded.size_bytes < 10_000
    back = round_trip(value)
    assert back[0] is back[1]
    assert back[0][1][0] is back[1][0][1]


def test_value_that_contains_itself_needs_pickle() -> None:
    value: list[Any] = [1]
    value.append(value)

    back = round_trip(value, Codecs())

    assert back[1] is back
    with pytest.raises(NotSerializable, match="contains itself"):
        _NO_PICKLE.encode(value)


def test_data_class_is_read_without_running_its_code() -> None:
    checked = Checked(1)
    assert checked.value == 2

    assert round_trip(checked).value == 2


def test_data_class_that_keeps_more_than_its_fields_is_pickled() -> None:
    value = Caching(2)
    assert Codecs().encode(value).codec == "json+types/1"
    assert value.double == 4

    back = round_trip(value, Codecs())

    assert Codecs().encode(value).codec == "pickle/1"
    assert back.__dict__ == {"x": 2, "double": 4}


def test_data_class_with_its_own_idea_of_state_is_pickled() -> None:
    assert Codecs().encode(OwnState(3)).codec == "pickle/1"
    assert round_trip(OwnState(3), Codecs()) == OwnState(3)


def test_pydantic_model_keeps_which_fields_were_set() -> None:
    back = round_trip(Model(name="m"))

    assert back.model_fields_set == {"name"}
    assert back.model_dump(exclude_unset=True) == {"name": "m"}


def test_unencodable_part_is_named_when_pickle_is_refused() -> None:
    with pytest.raises(NotSerializable) as raised:
        _NO_PICKLE.encode({"model": [1, Point(Plain(3))]})

    assert raised.value.path == 'result["model"][1].x'
    assert "allow_pickle=False" in str(raised.value)
    assert "Plain" in str(raised.value)


def test_set_has_the_same_bytes_in_any_order_of_insertion() -> None:
    one, two = {f"k{n}" for n in range(50)}, {f"k{n}" for n in reversed(range(50))}

    assert _NO_PICKLE.encode(one).buffers == _NO_PICKLE.encode(two).buffers


def test_deep_nesting_is_a_clear_error() -> None:
    value: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 100):
        value = [value]

    with pytest.raises(NotSerializable, match="nested too deeply"):
        Codecs().encode(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"$":"data","t":"no.such.module:Thing","v":{}}',
        '{"$":"data","t":"os:nothing","v":{}}',
        '{"$":"data","t":"os:getcwd","v":{}}',
        '{"$":"data","t":"subprocess:Popen","v":{"args":"true"}}',
        '{"$":"struct","t":"tests.unit.storage.examples:Packed","v":{"no":1}}',
        '{"$":"boom","v":1}',
    ],
)
def test_tagged_json_names_data_classes_only(text: str) -> None:
    with pytest.raises(StoreError):
        _NO_PICKLE.decode("json+types/1", memoryview(text.encode()))


def test_unknown_codec_is_a_clear_error() -> None:
    with pytest.raises(StoreError, match=r"'mesh/7'.*import the module"):
        _NO_PICKLE.decode("mesh/7", memoryview(b""))


def test_pickled_value_is_refused_where_pickle_is() -> None:
    encoded = Codecs().encode(Plain(1))

    with pytest.raises(StoreError, match="allow_pickle=False"):
        _NO_PICKLE.decode(encoded.codec, memoryview(b"".join(encoded.buffers)))


def test_plain_json_of_a_long_list_is_what_msgspec_writes() -> None:
    value = [float(n) for n in range(100_000)]

    assert _NO_PICKLE.encode(value).buffers == [msgspec.json.encode(value)]
