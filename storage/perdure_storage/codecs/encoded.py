"""What an encoder gives, and the contract of a codec that a user registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from perdure_storage.errors import StoreError
from perdure_storage.records import Buffer


class Encoded(msgspec.Struct, frozen=True, kw_only=True):
    """A value as bytes that are not yet in one piece.

    Attributes:
        codec: name and version: ``"json/1"``.
        buffers: the bytes, in order; may refer to the value's own memory, or be made while they
            are iterated, so the value must not change until they are stored.
        size_bytes: their length.
        canonical: not empty if equal values have equal bytes in this encoding; then the value
            digest follows from the integrity digest, and nothing is hashed twice.
    """

    codec: str
    buffers: Sequence[Buffer]
    size_bytes: int
    canonical: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCodec:
    """A codec for one type of the user's.

    Attributes:
        name: name and version, ``"mesh/1"``: what is in the row; the same name must always mean
            the same bytes.
        type_name: of the type, with its module.
        encode: gives the bytes, in one or several buffers.
        decode: makes the value from one writable view of them, which it may keep.
        canonical: whether equal values give equal bytes in any process.
    """

    name: str
    type_name: str
    encode: Callable[[Any], Sequence[Buffer]]
    decode: Callable[[memoryview], Any]
    canonical: bool = False


_by_type: dict[type, UserCodec] = {}
_by_name: dict[str, UserCodec] = {}


def register_codec(
    cls: type,
    name: str,
    *,
    encode: Callable[[Any], Sequence[Buffer]],
    decode: Callable[[memoryview], Any],
    canonical: bool = False,
) -> None:
    """Use a codec of your own for values of exactly this type; call it where the type is defined.

    Args:
        cls: the type; subclasses are not included.
        name: name and version, ``"mesh/1"``.
        encode: gives the bytes of a value, in one or several buffers.
        decode: makes the value from a writable view of the bytes.
        canonical: whether equal values give equal bytes in any process.

    Raises:
        StoreError: the name is taken by a codec of perdure or by one for another type.
    """
    prefix, _, version = name.partition("/")
    if not prefix or not version.isdigit():
        raise StoreError(f"codec name {name!r}: write a name and a version, like 'mesh/1'")
    if prefix in _RESERVED:
        raise StoreError(f"codec name {name!r} belongs to perdure")
    # By its name: a notebook's cell that is run again defines the class again.
    type_name = f"{cls.__module__}.{cls.__qualname__}"
    if name in _by_name and _by_name[name].type_name != type_name:
        raise StoreError(f"codec name {name!r} is registered for {_by_name[name].type_name}")
    codec = UserCodec(
        name=name, type_name=type_name, encode=encode, decode=decode, canonical=canonical
    )
    _by_type[cls] = _by_name[name] = codec


def user_codec_for(cls: type) -> UserCodec | None:
    """Return the user's codec for exactly this type."""
    return _by_type.get(cls)


def user_codec_named(name: str) -> UserCodec | None:
    """Return the user's codec of that name and version."""
    return _by_name.get(name)


_RESERVED = frozenset({"json", "json+types", "bytes", "numpy", "torch", "arrow", "pickle"})
