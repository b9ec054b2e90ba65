"""Inputs on their way to a worker: one that several calls of a message have goes along once.

Else a thousand calls that take the same 30 KB would be 30 MB to write, to read and to hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from perdure.calls import StepCall
from perdure_storage.records import StoredValue

_SHARED_FROM_BYTES = 512
"""Below, it costs more to take a value out and to put it back than to send it again."""


class SharedInput(msgspec.Struct, frozen=True, array_like=True):
    """An input of several calls.

    Attributes:
        key: under which it is in their ``values``.
        calls: their positions in the message.
    """

    key: str
    value: StoredValue
    calls: tuple[int, ...]


def take_out(calls: Sequence[StepCall]) -> tuple[tuple[StepCall, ...], tuple[SharedInput, ...]]:
    """Return the calls without the inputs that several of them have, and those inputs.

    They are told by the object, not by the digest: what a row holds may be damaged, and is then
    the trouble of those who take that row's value.
    """
    shared = tuple(
        SharedInput(key, calls[numbers[0]].values[key], tuple(numbers))
        for (key, _), numbers in _takers(calls).items()
        if len(numbers) > 1
    )
    keys: dict[int, set[str]] = {}
    for each in shared:
        for number in each.calls:
            keys.setdefault(number, set()).add(each.key)
    return tuple(_without(call, keys.get(n)) for n, call in enumerate(calls)), shared


def put_back(calls: Sequence[StepCall], shared: Iterable[SharedInput]) -> None:
    """Give calls their inputs again. They have just been decoded, and are nobody else's yet."""
    for each in shared:
        for number in each.calls:
            calls[number].values[each.key] = each.value


def sent_bytes(value: StoredValue) -> int:
    """Return how many bytes of a value travel with a call: none of one that is in a blob."""
    return 0 if value.data is None else len(value.data)


def _takers(calls: Sequence[StepCall]) -> dict[tuple[str, int], list[int]]:
    """Return the positions of the calls that take a value, by key and object."""
    found: dict[tuple[str, int], list[int]] = {}
    for number, call in enumerate(calls):
        for key, value in call.values.items():
            if sent_bytes(value) >= _SHARED_FROM_BYTES:
                found.setdefault((key, id(value)), []).append(number)
    return found


def _without(call: StepCall, keys: set[str] | None) -> StepCall:
    if keys is None:
        return call
    rest = {key: value for key, value in call.values.items() if key not in keys}
    return msgspec.structs.replace(call, values=rest)
