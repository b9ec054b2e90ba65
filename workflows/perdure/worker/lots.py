"""What a coordinator and its workers on Ray say to each other.

Downwards goes one ``Lot`` with each Ray task. Upwards goes news, over the mailbox, while a lot is
run, and ``Ended`` as what the task returns.
"""

from __future__ import annotations

import msgspec

from perdure.calls import CallContext, CallId, Outcome, StepCall, Told
from perdure.worker.frames import Done, Tell
from perdure_storage.records import ProcessId


class Lot(msgspec.Struct, frozen=True):
    """Calls that one Ray task runs, one after the other.

    Attributes:
        number: of the lot, among those of its coordinator.
        home: names the run as this coordinator has opened it: what a process keeps of it is kept
            under this name.
        context: of the run, with the functions and constants that these calls need.
        is_brief: its calls are: its begin is told with the first outcome, or if it lasts.
    """

    number: int
    home: str
    context: CallContext
    calls: tuple[StepCall, ...]
    is_brief: bool = False


class Begun(msgspec.Struct, frozen=True, tag="begun", tag_field="m"):
    """A process has begun with a lot.

    Attributes:
        call: the first one.
        worker: how the process calls itself.
        process: the process; what a step starts is below it.
        host: on which it is.
        node: id of Ray's node.
        timeout_is_retryable: what ``retry_on`` would say to a time-out of the call.
    """

    lot: int
    call: CallId
    worker: str
    process: ProcessId
    host: str
    node: str
    timeout_is_retryable: bool = True


class Back(msgspec.Struct, frozen=True, tag="back", tag_field="m"):
    """Calls that wait behind one that takes long are given back: they will not begin there."""

    lot: int
    calls: tuple[CallId, ...]


class Mark(msgspec.Struct, frozen=True, tag="mark", tag_field="m"):
    """Put in by the coordinator itself: what was said before is behind it."""

    lot: int


class Ended(msgspec.Struct, frozen=True):
    """What a Ray task returns.

    Attributes:
        outcomes: of its calls; some have been told before.
        told: how far they said last that they were.
        begun: who ran them, if that may not have been told yet.
    """

    outcomes: tuple[Outcome, ...]
    told: tuple[Told, ...] = ()
    begun: Begun | None = None


News = Begun | Done | Tell | Back | Mark

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_lot = msgspec.msgpack.Decoder(Lot).decode
decode_news = msgspec.msgpack.Decoder(News).decode
decode_ended = msgspec.msgpack.Decoder(Ended).decode
