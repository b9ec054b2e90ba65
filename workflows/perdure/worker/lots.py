"""What a coordinator and its workers on Ray say to each other.

Downwards goes one ``Lot`` with each Ray task. Upwards goes news, over the mailbox, while a lot is
run, and ``Ended`` as what the task returns.
"""

from __future__ import annotations

import msgspec

from perdure.calls import CallContext, CallId, Outcome, StepCall, Told
from perdure.worker.frames import Done, Tell


class Lot(msgspec.Struct, frozen=True):
    """Calls that one Ray task runs, one after the other.

    Attributes:
        number: of the lot, among those of its coordinator.
        home: names the run as this coordinator has opened it: what a process keeps of it is kept
            under this name.
        context: of the run, with the functions and constants that these calls need.
    """

    number: int
    home: str
    context: CallContext
    calls: tuple[StepCall, ...]


class Begun(msgspec.Struct, frozen=True, tag="begun", tag_field="m"):
    """A process has begun with a lot.

    Attributes:
        call: the first one.
        worker: how the process calls itself.
        node: id of Ray's node.
        timeout_is_retryable: what ``retry_on`` would say to a time-out of the call.
    """

    lot: int
    call: CallId
    worker: str
    pid: int
    node: str
    timeout_is_retryable: bool = True


class Mark(msgspec.Struct, frozen=True, tag="mark", tag_field="m"):
    """Put in by the coordinator itself: what was said before is behind it."""

    lot: int


class Ended(msgspec.Struct, frozen=True):
    """What a Ray task returns.

    Attributes:
        outcomes: of its calls; some have been told before.
        told: how far they said last that they were.
    """

    outcomes: tuple[Outcome, ...]
    told: tuple[Told, ...] = ()


News = Begun | Done | Tell | Mark

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_lot = msgspec.msgpack.Decoder(Lot).decode
decode_news = msgspec.msgpack.Decoder(News).decode
decode_ended = msgspec.msgpack.Decoder(Ended).decode
