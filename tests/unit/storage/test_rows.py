"""Records become rows and come back the same, and signatures cover what they should."""

from __future__ import annotations

import hashlib
import hmac
import os
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure_storage.boots import boot_id, parse_boottime
from perdure_storage.contract_samples import a_run, a_step, a_value
from perdure_storage.errors import InternalError, StoreError
from perdure_storage.records import Cause, Place
from perdure_storage.rows import RunRows, StepRows, from_us, to_us
from perdure_storage.signing import Signer, key_id_of, parse_key
from perdure_storage.tables import run, step

moments = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)
)


@given(moments)
def test_times_come_back_to_the_microsecond(at: datetime) -> None:
    assert from_us(to_us(at)) == at


def test_times_of_other_zones_come_back_in_utc() -> None:
    at = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    back = from_us(to_us(at))

    assert back == at
    assert back is not None
    assert back.tzinfo is UTC


def test_a_time_that_is_none_in_utc_comes_back_as_the_nearest_one() -> None:
    first = datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))
    last = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))

    back = from_us(to_us(first)), from_us(to_us(last))

    assert back == (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(InternalError, match="naive"):
        to_us(datetime(2026, 1, 1))


def test_rows_have_the_columns_of_their_tables() -> None:
    assert len(RunRows(None).pack(a_run())) == len(run.c)
    assert len(StepRows(None).pack(a_step("run", "s"))) == len(step.c)


@given(st.text(), st.binary(), st.sampled_from(list(Place)))
def test_steps_come_back_or_are_refused(text: str, data: bytes, place: Place) -> None:
    value = msgspec.structs.replace(a_value(), place=place, data=data, preview=text)
    record = a_step("run", "s", value=value, reason=text, worker=text)
    rows = StepRows(Signer(b"k" * 32, "store"))

    if "\0" in text:
        with pytest.raises(ValueError, match="NUL"):
            rows.pack(record)
    else:
        assert rows.unpack(rows.pack(record)) == record


@given(st.binary(min_size=16, max_size=200), st.text(), st.integers(0, 2**60))
def test_a_signature_is_hmac_sha256(key: bytes, text: str, number: int) -> None:
    facts = (text, number, None, True, b"x")
    message = msgspec.msgpack.encode(("store", "kind", facts))

    assert Signer(key, "store").sign("kind", facts) == hmac.digest(key, message, hashlib.sha256)


def test_a_signature_tells_stores_kinds_and_boundaries_apart() -> None:
    signer = Signer(b"k" * 32, "store")
    made = {
        signer.sign("kind", ("ab", "c")),
        signer.sign("kind", ("a", "bc")),
        signer.sign("other", ("ab", "c")),
        Signer(b"k" * 32, "another").sign("kind", ("ab", "c")),
        Signer(b"l" * 32, "store").sign("kind", ("ab", "c")),
        signer.sign("kind", ("ab", "c", None)),
    }

    assert len(made) == 6


def test_a_missing_signature_is_no_signature() -> None:
    with pytest.raises(StoreError, match="row x was tampered"):
        Signer(b"k" * 32, "store").require("kind", (), None, "row x")


def test_a_key_is_known_by_an_id_that_does_not_show_it() -> None:
    key = os.urandom(32)

    assert key_id_of(key) == key_id_of(key)
    assert key_id_of(key) not in key.hex()
    assert parse_key(f" {key.hex()}\n", "here") == key


def test_every_cause_fits_a_row() -> None:
    assert all(cause.value.isprintable() for cause in Cause)


def test_this_boot_has_one_id() -> None:
    assert boot_id() == boot_id() != ""
    assert parse_boottime("{ sec = 1700000000, usec = 5 } Tue") == "boottime-1700000000"
    with pytest.raises(ValueError, match="no boot time"):
        parse_boottime("")
