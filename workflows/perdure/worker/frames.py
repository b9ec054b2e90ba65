"""What a coordinator and a worker process say to each other, and how it is cut into frames.

A frame is eight bytes of length, big-endian, and a msgpack message. Downwards go ``Define``,
``Work``, ``Stop``, ``HandOver``, ``Kept`` and ``Forget``; upwards ``Ready``, ``Judged``, ``Keep``,
``Tell`` and ``Done``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import msgspec

from perdure.calls import CallContext, CallId, Outcome, Saving, StepCall, Told
from perdure.plan import Function
from perdure.worker.inputs import SharedInput, put_back
from perdure_storage.records import Refusal, StoredValue

_HEAD = struct.Struct("!Q")


class Define(msgspec.Struct, frozen=True, tag="define", tag_field="m"):
    """Parts of a run that the calls after it need; ``context`` comes once, without these parts."""

    run_id: str
    context: CallContext | None = None
    functions: dict[str, Function] = {}
    constants: dict[int, StoredValue] = {}


class Work(msgspec.Struct, frozen=True, tag="work", tag_field="m"):
    """Calls to run, in order; an async worker runs them together.

    Attributes:
        lot: of which tickets these calls need one each before they begin (``tickets.py``).
        shared: inputs that several of them have, which are not in theirs.
    """

    calls: tuple[StepCall, ...]
    lot: int = 0
    shared: tuple[SharedInput, ...] = ()

    def whole_calls(self) -> tuple[StepCall, ...]:
        """Return the calls of a message that has come, each with all of its inputs."""
        put_back(self.calls, self.shared)
        return self.calls


class Stop(msgspec.Struct, frozen=True, tag="stop", tag_field="m"):
    """Asks for the end of calls: async workers cancel their coroutines."""

    calls: tuple[CallId, ...]


class HandOver(msgspec.Struct, frozen=True, tag="hand over", tag_field="m"):
    """Tells calls that their run is paused: those that look may end early. Nobody ends them."""

    calls: tuple[CallId, ...]


class Kept(msgspec.Struct, frozen=True, tag="kept", tag_field="m"):
    """The answer to the ``Keep`` of that number: None, or why it is not kept."""

    number: int
    refusal: Refusal | None


class Forget(msgspec.Struct, frozen=True, tag="forget", tag_field="m"):
    """A run is over: what was kept of it may go."""

    run_id: str


class Ready(msgspec.Struct, frozen=True, tag="ready", tag_field="m"):
    """The worker is up and reads."""

    pid: int


class Judged(msgspec.Struct, frozen=True, tag="judged", tag_field="m"):
    """What ``retry_on`` would say to a time-out of this call; told ahead, by the only process
    that may run the user's predicate.
    """

    call: CallId
    timeout_is_retryable: bool


class Keep(msgspec.Struct, frozen=True, tag="keep", tag_field="m"):
    """Asks for a save to be made durable; the call waits for the answer.

    Attributes:
        number: of the question, among those of this worker.
    """

    number: int
    saving: Saving


class Tell(msgspec.Struct, frozen=True, tag="tell", tag_field="m"):
    """Says how far a call is."""

    told: Told


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="m"):
    """Outcomes, and how long the worker's output file was when each of them was made.

    Async workers write the logs of their calls themselves and leave ``printed`` empty.
    """

    outcomes: tuple[Outcome, ...]
    printed: tuple[int, ...] = ()


Down = Define | Work | Stop | HandOver | Kept | Forget
Up = Ready | Judged | Keep | Tell | Done

_encoder = msgspec.msgpack.Encoder()
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode


def encode_frames(messages: Iterable[Down | Up]) -> bytes:
    """Return the messages as frames, one after the other."""
    parts: list[bytes] = []
    for message in messages:
        body = _encoder.encode(message)
        parts += (_HEAD.pack(len(body)), body)
    return b"".join(parts)


class FrameBuffer:
    """Puts frames together from the pieces that a stream delivers."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Add a piece; return the bodies that are now complete."""
        self._data += data
        found: list[bytes] = []
        at, size = 0, len(self._data)
        while size - at >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._data, at)
            end = at + _HEAD.size + length
            if size < end:
                break
            found.append(bytes(memoryview(self._data)[at + _HEAD.size : end]))
            at = end
        if at:
            del self._data[:at]
        return found
