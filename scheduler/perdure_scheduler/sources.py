"""The contract of sources, which listen to the world; ``contract_sources.py`` tests it.

All sources run in the listener process. A source decides nothing and writes nothing of perdure's:
it says what arrived, as often as it likes. That each arrival counts once is up to the keys, and to
the transaction that writes arrival, run and cursor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from perdure_scheduler.arrival import Arrival


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Arrivals that are written in one transaction, with the cursor that stands after them.

    Attributes:
        arrivals: in their order; none: the cursor alone moves on.
        cursor: from where to go on; None: the cursor stays where it is.
    """

    arrivals: tuple[Arrival, ...] = ()
    cursor: str | None = None


class Source(Protocol):
    """Listens to something outside.

    A source of one's own is an object at the top level of a module, with this one method; written
    as an async generator it is a loop with a ``yield``. It may be listened to by several triggers
    at once, so what belongs to one listening lives in the method, not in the object.
    """

    def listen(self, cursor: str | None) -> AsyncIterator[Batch | Arrival]:
        """Give what arrived after ``cursor``, then wait for more. Where it ends it is begun again.

        Args:
            cursor: what was given with the last batch that was committed, unchanged; None at the
                very beginning. Text of the source's own, of at most ``LONGEST_CURSOR`` characters.

        Yields:
            A batch; or one arrival, which is a batch of one that moves no cursor. An asynchronous
            generator is asked for the next one when this one is committed, not before: what
            follows the ``yield`` may acknowledge it. An empty batch without a cursor writes
            nothing and is a sign of life: what was told of an earlier failure is over.

        - *Nothing is missed*: what was not committed is given again by ``listen`` of the cursor
          that was. To give more again is no error: known keys are left out.
        - *A key is a name for ever*: equal keys mean the same arrival, also after a restart; two
          things that happened never share one. Within a batch no key comes twice.
        - *Order*: arrivals are decided in the order in which they are given.
        - *Facts are JSON*: text, finite numbers, booleans, None, lists, objects with text as keys.
        - *It can be ended*: cancelled at any ``await``, it lets go of what it holds, soon; and it
          never swallows ``asyncio.CancelledError``. What blocks, such as a driver without
          ``async``, belongs into a thread (``asyncio.to_thread``). Each source has an event loop
          of its own: who blocks it holds up nobody else, but cannot be ended.
        - *It may raise*: then it is told, and listened to again from the last cursor, later and
          later while it goes on raising. What passes by itself it may also wait for by itself.

        If the process dies, at any moment, nothing is called: the next ``listen`` is in another
        process, perhaps on another machine.
        """
        ...


LONGEST_CURSOR = 10_000
"""Characters: it lies in the trigger's row, which is written with every batch."""


@runtime_checkable
class Acknowledging(Protocol):
    """A source that wants to know what has been committed, as queues do that keep it till then."""

    async def committed(self, arrivals: Sequence[Arrival]) -> None:
        """Take note that these arrivals are committed and need not be given again.

        Called after the transaction of a batch, before the next one is asked for. Not called if
        the process dies in between; then they are given again, are known, and it is called. So it
        may be called twice, and what it does must not mind. Whatever it raises is told, and ends
        this listening as if ``listen`` had raised it.
        """
        ...


def batch_of(given: Batch | Arrival) -> Batch:
    """Return what a source gave as a batch."""
    return given if isinstance(given, Batch) else Batch(arrivals=(given,))
