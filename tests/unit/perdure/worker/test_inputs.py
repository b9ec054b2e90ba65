"""What several calls of one message take goes along once, and each call has it again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perdure.calls import CallId, StepCall
from perdure.worker.frames import FrameBuffer, Work, decode_down, encode_frames
from perdure.worker.inputs import take_out
from perdure_storage.hashing import digest_of
from perdure_storage.records import Digest, Place, StoredValue


def stored(data: bytes, digest: Digest | None = None) -> StoredValue:
    return StoredValue(
        codec="bytes/1",
        place=Place.INLINE,
        size_bytes=len(data),
        integrity=digest or digest_of(data),
        value_digest="v1:0",
        data=data,
    )


def call(number: int, **values: StoredValue) -> StepCall:
    return StepCall(id=CallId("run", f"step{number}", 1, 1), function="f", values=values)


def message(*calls: StepCall) -> bytes:
    lighter, shared = take_out(calls)
    return encode_frames([Work(lighter, 1, shared)])


def come(data: bytes) -> tuple[StepCall, ...]:
    """Return the calls of a message as a worker has them."""
    [body] = FrameBuffer().feed(data)
    work = decode_down(body)
    assert isinstance(work, Work)
    return work.whole_calls()


def test_input_of_many_calls_travels_once() -> None:
    large = stored(bytes(20_000))
    calls = [call(n, table=large, item=stored(b"%d" % n)) for n in range(100)]

    data = message(*calls)

    assert len(data) < 2 * 20_000 + 100 * 500
    assert come(data) == tuple(calls)


def test_calls_that_are_kept_here_keep_their_inputs() -> None:
    calls = [call(n, table=stored(bytes(20_000))) for n in range(2)]
    shared = [call(n, table=calls[0].values["table"]) for n in range(2)]

    message(*shared)

    assert shared == calls


def test_value_of_a_damaged_row_is_not_taken_for_the_one_whose_digest_it_has() -> None:
    right = stored(bytes(1000))
    damaged = stored(b"\1" * 1000, right.integrity)
    calls = (call(1, a=right), call(2, a=damaged), call(3, a=right), call(4, a=damaged))

    assert come(message(*calls)) == calls


VALUES = [stored(bytes([n]) * size) for n, size in enumerate((10, 600, 5000, 5000))]


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(VALUES)), min_size=1)
)
def test_calls_come_with_all_of_their_inputs(taken: list[dict[str, StoredValue]]) -> None:
    calls = tuple(call(number, **values) for number, values in enumerate(taken))

    assert come(message(*calls)) == calls
