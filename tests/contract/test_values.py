"""Values in and out of storage."""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.codecs import Codecs
from perdure_storage.errors import NotSerializable, StoreUnavailable, ValueDamaged
from perdure_storage.records import Place, StoredValue
from perdure_storage.values import INLINE_LIMIT_BYTES, Values
from perdure_storage.wrappers import Fault, FaultyFS


@pytest.fixture(params=["local", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobRoot:
    url = str(tmp_path) if request.param == "local" else f"memory://v-{secrets.token_hex(4)}"
    return open_blobs(url, "store", bind=True)


@pytest.fixture
def values(blobs: BlobRoot) -> Values:
    return Values(Codecs(), blobs, blobs.spool("run"))


LARGE: list[Any] = [
    np.arange(100_000.0),
    {"weights": np.arange(100_000.0)},
    "x" * 100_000,
    b"x" * 100_000,
    list(range(100_000)),
    {f"key {n}": (n,) for n in range(5_000)},
]


@pytest.mark.parametrize("value", [None, 1, "text", [1, {"a": 2.5}], (1, {2}), np.arange(3)])
def test_small_value_is_in_the_row(values: Values, blobs: BlobRoot, value: Any) -> None:
    stored = values.store(value)

    assert stored.place is Place.INLINE
    assert stored.data is not None
    assert stored.size_bytes == len(stored.data)
    assert str(values.load(stored)) == str(value)
    assert list(blobs.list_digests()) == []


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_large_value_is_in_a_blob_of_its_integrity_digest(
    values: Values, blobs: BlobRoot, value: Any
) -> None:
    stored = values.store(value)

    assert stored.place is Place.BLOB
    assert stored.data is None
    assert list(blobs.list_digests()) == [stored.integrity]
    assert str(values.load(stored)) == str(value)


def test_limit_of_the_row_is_exact(values: Values) -> None:
    assert values.store(b"x" * INLINE_LIMIT_BYTES).place is Place.INLINE
    assert values.store(b"x" * (INLINE_LIMIT_BYTES + 1)).place is Place.BLOB


def test_value_without_a_checkpoint_is_in_the_spool(values: Values, blobs: BlobRoot) -> None:
    stored = values.store(np.arange(100_000.0), checkpoint=False)

    assert stored.place is Place.SPOOL
    assert list(blobs.list_digests()) == []
    assert values.load(stored)[5] == 5.0
    blobs.drop_spool("run")
    with pytest.raises(ValueDamaged) as raised:
        values.load(stored)
    assert raised.value.missing


def test_small_value_without_a_checkpoint_is_in_the_row(values: Values) -> None:
    assert values.store(1, checkpoint=False).place is Place.INLINE


def test_value_that_was_not_kept_is_missing(values: Values) -> None:
    stored = msgspec.structs.replace(values.store(1), place=Place.NONE, data=None)

    with pytest.raises(ValueDamaged, match="checkpoint=False") as raised:
        values.load(stored)

    assert raised.value.missing


@pytest.mark.parametrize("data", [None, b"", b"2", b"11"])
def test_row_with_other_bytes_is_damaged(values: Values, data: bytes | None) -> None:
    stored = msgspec.structs.replace(values.store(1), data=data)

    with pytest.raises(ValueDamaged):
        values.load(stored)


@pytest.mark.parametrize("size", [10, 100_000])
def test_arrays_are_writable_at_every_size_and_change_nobody_else_s(
    values: Values, size: int
) -> None:
    stored = values.store([np.zeros(size), {"a": np.zeros(size)}])

    one, two = values.load(stored), values.load(stored)
    one[0][:] = 1
    one[1]["a"][:] = 1

    assert not two[0].any()
    assert not two[1]["a"].any()
    assert not values.load(stored)[0].any()


def test_consumers_never_share_an_object(values: Values) -> None:
    stored = values.store({"rows": [1]})

    values.load(stored)["rows"].append(2)

    assert values.load(stored) == {"rows": [1]}


def test_parts_have_value_digests_of_their_own(values: Values) -> None:
    value = {"train": np.arange(10), "note": "x"}

    stored = values.store(value, parts={"['train']": value["train"], "['note']": "x"})

    assert stored.parts["['train']"] == values.store(np.arange(10)).value_digest
    assert stored.parts["['note']"] == values.store("x").value_digest


@pytest.mark.parametrize("value", [1, [1, 2], np.arange(5), {"x": np.arange(5)}, b"x" * 100_000])
def test_value_digest_is_the_same_wherever_it_is_made(values: Values, value: Any) -> None:
    assert values.store(value).value_digest == values.codecs.digest(value)
    assert values.codecs.digest(values.load(values.store(value))) == values.codecs.digest(value)


def test_stored_value_travels_as_json(values: Values) -> None:
    stored = values.store((1, {"a"}), parts={"[0]": 1})

    back = msgspec.json.decode(msgspec.json.encode(stored), type=StoredValue)

    assert back == stored
    assert values.load(back) == (1, {"a"})
    assert json.loads(back.preview)["type"] == "tuple"


def test_message_names_the_value_as_the_caller_does(values: Values) -> None:
    with pytest.raises(NotSerializable, match=r"input 'model'\[0\] cannot be stored"):
        values.store([threading.Lock()], name="input 'model'")


def test_same_content_is_one_blob(values: Values, blobs: BlobRoot) -> None:
    one = values.store(np.arange(100_000.0))
    two = values.store(np.arange(100_000.0).copy())

    assert one == two
    assert len(list(blobs.list_digests())) == 1


def test_full_disk_is_told_and_the_value_can_be_stored_later() -> None:
    import fsspec

    fs = FaultyFS(fsspec.filesystem("memory"))
    blobs = open_blobs(f"memory://v-{secrets.token_hex(4)}", "store", bind=True, fs=fs)
    values = Values(Codecs(), blobs)
    fs.inject(Fault(kind="no-space", on="write", path=".tmp"))
    with pytest.raises(StoreUnavailable):
        values.store("x" * 100_000)

    fs.heal()

    assert values.load(values.store("x" * 100_000)) == "x" * 100_000
