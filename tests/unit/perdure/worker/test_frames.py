from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perdure.calls import CallId, StepCall
from perdure.plan import Const, DictArg, FromStep, Item, ListArg
from perdure.worker.frames import (
    Define,
    Down,
    Forget,
    FrameBuffer,
    Ready,
    Stop,
    Work,
    decode_down,
    decode_up,
    encode_frames,
)

AT = CallId("run", "step", 1, 2)
MESSAGES: list[Down] = [
    Define(run_id="run", constants={}),
    Work(
        (
            StepCall(
                id=AT,
                function="f",
                args=(ListArg((FromStep("a", (Item(0), Item("k"))),), "set"),),
                kwargs={"x": DictArg((Const(1),), (Const(2),))},
                timeout_s=0.5,
            ),
        )
    ),
    Stop((AT,)),
    Forget("run"),
]


@given(st.lists(st.integers(min_value=1, max_value=40), max_size=200))
def test_frames_come_out_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = encode_frames(MESSAGES)
    buffer, found, at = FrameBuffer(), [], 0

    for cut in [*cuts, len(stream)]:
        found += buffer.feed(stream[at : at + cut])
        at += cut

    assert [decode_down(body) for body in found] == MESSAGES


def test_frames_upwards_are_told_apart_by_their_tag() -> None:
    [body] = FrameBuffer().feed(encode_frames([Ready(7)]))

    assert decode_up(body) == Ready(7)
