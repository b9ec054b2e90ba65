"""Which calls go to a worker together: brief ones, as long as what they take is not much."""

from __future__ import annotations

from collections import deque

from perdure.calls import StepCall
from perdure.worker.inputs import sent_bytes

BUNDLE_BYTES = 256 << 10
"""Of inputs. More are on their way for so long that calls are taken back, as if another one held
them up, before they have arrived; and all of it is sent again."""


def take_bundle(queue: deque[StepCall], most: int) -> list[StepCall]:
    """Take the first call off a queue, and brief ones after it.

    Args:
        queue: at least one call.
        most: so many at the most.
    """
    bundle = [queue.popleft()]
    seen: set[int] = set()
    size_bytes = _added_bytes(bundle[0], seen)
    while queue and len(bundle) < most and bundle[-1].is_brief and queue[0].is_brief:
        size_bytes += _added_bytes(queue[0], seen)
        if size_bytes > BUNDLE_BYTES:
            break
        bundle.append(queue.popleft())
    return bundle


def _added_bytes(call: StepCall, seen: set[int]) -> int:
    """Return the bytes of a call's inputs that none before it has: those go along once."""
    new = [value for value in call.values.values() if id(value) not in seen]
    seen.update(map(id, new))
    return sum(map(sent_bytes, new))
