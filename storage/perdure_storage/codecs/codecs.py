"""The choice of a codec, by exact type."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from perdure_storage.codecs.culprit import find_culprit
from perdure_storage.codecs.encoded import Encoded, user_codec_for, user_codec_named
from perdure_storage.codecs.json_codec import (
    PLAIN,
    SCALARS,
    TYPED,
    Unfit,
    decode_plain,
    decode_typed,
    encode_plain,
    encode_scalar,
    encode_typed,
)
from perdure_storage.digests import (
    CodeDigest,
    canonical_digest,
    derived_digest,
    integrity_digest,
    opaque_digest,
)
from perdure_storage.errors import NotSerializable, PerdureError, StoreError
from perdure_storage.records import Digest
from perdure_storage.shapes import readable, shown_name

BYTES = "bytes/1"

# Above these, pickle is faster or leaner than tagged JSON; a store without pickle has no limits.
_TYPED_NODES = 10_000
_TYPED_BUFFER_BYTES = 16 << 10


class Codecs:
    """Encodes values and decodes them again, exactly. Safe to use from many threads.

    Attributes:
        allow_pickle: whether values that only pickle can write are written, and pickled values
            read. Reading a pickle runs the code in it.
    """

    def __init__(
        self,
        *,
        code_digest: CodeDigest | None = None,
        class_digest: CodeDigest | None = None,
        allow_pickle: bool = True,
    ) -> None:
        self.allow_pickle = allow_pickle
        self._code_digest = code_digest
        self._class_digest = class_digest or code_digest

    def encode(self, value: Any, *, name: str = "result") -> Encoded:
        """Return the value's bytes, referring to its memory where that is possible.

        Args:
            value: anything.
            name: what messages call it.

        Raises:
            NotSerializable: it has no encoding; carries the path to the culprit.
        """
        cls = type(value)
        if cls in SCALARS:
            data = encode_scalar(value)
            if data is not None:
                return Encoded(codec=PLAIN, buffers=[data], size_bytes=len(data))
        elif cls is bytes:
            return Encoded(codec=BYTES, buffers=[value], size_bytes=len(value), canonical="bytes")
        found = self._by_user(cls, value, name) or self._by_library(cls, value)
        return found or self._general(cls, value, name)

    def decode(self, codec: str, data: memoryview) -> Any:
        """Return the value of these bytes.

        Args:
            codec: name and version.
            data: the encoded bytes, which the value may keep and refer to; writable, or arrays
                in it are not.

        Raises:
            StoreError: the codec is unknown or not allowed here, or needs what is not there.
        """
        try:
            return (_READERS.get(codec) or self._rare_reader(codec))(data)
        except (PerdureError, MemoryError, Warning):
            raise
        except Exception as error:  # decoding imports and runs the user's code
            said = readable(f"{type(error).__name__}: {error}")
            raise StoreError(
                f"a stored value cannot be read in this process: {said}. Read it with the classes "
                "and libraries that it was stored with, or run its step again"
            ) from error

    def _rare_reader(self, codec: str) -> Callable[[memoryview], Any]:
        if codec.startswith("pickle/"):
            return self._unpickler(codec)
        user = user_codec_named(codec)
        if user is None:
            raise StoreError(
                f"a value is encoded by {codec!r}, which this process does not know: import the "
                "module that registers it, or use a newer perdure"
            )
        return user.decode

    def digest(
        self, value: Any, encoded: Encoded | None = None, *, integrity: Digest | None = None
    ) -> str:
        """Return the value digest.

        Args:
            value: what to compare by.
            encoded: its encoding, if there is one already.
            integrity: digest of the encoded bytes, if they have been hashed already.
        """
        if encoded is None and user_codec_for(type(value)) is not None:
            encoded = self.encode(value)
        if encoded is not None and encoded.canonical:
            return derived_digest(encoded.canonical, integrity or integrity_digest(encoded.buffers))
        canonical = canonical_digest(value, self._code_digest, class_digest=self._class_digest)
        if canonical is not None:
            return canonical
        encoded = encoded or self.encode(value)
        return opaque_digest(integrity or integrity_digest(encoded.buffers))

    def pickle(self, value: Any, *, name: str = "value") -> bytes:
        """Return the value as one pickle, classes of ``__main__`` as in stored values.

        Raises:
            NotSerializable: it cannot be pickled, or pickle is not allowed here.
        """
        return b"".join(self._pickled(value, name).buffers)

    def unpickle(self, data: bytes) -> Any:
        """Return the value that ``pickle`` wrote.

        Raises:
            StoreError: pickle is not allowed here, or needs what is not there.
        """
        return self.decode("pickle/1", memoryview(bytearray(data)))

    def decode_exception(self, data: bytes) -> BaseException | None:
        """Return the exception that ``pickle`` wrote, or None where pickle is not allowed.

        Raises:
            StoreError: it needs what is not there.
        """
        if not self.allow_pickle:
            return None
        found = self.unpickle(data)
        return found if isinstance(found, BaseException) else None

    # --- the candidates, in order -----------------------------------------------------------
    def _by_user(self, cls: type, value: Any, name: str) -> Encoded | None:
        codec = user_codec_for(cls)
        if codec is None:
            return None
        try:
            buffers = codec.encode(value)
        except Exception as error:  # the user's own code
            said = f"{name} cannot be stored: its codec {codec.name!r} failed ({error})"
            raise NotSerializable(said, path=name) from error
        return Encoded(
            codec=codec.name,
            buffers=buffers,
            size_bytes=sum(memoryview(part).nbytes for part in buffers),
            canonical=codec.name if codec.canonical else "",
        )

    def _by_library(self, cls: type, value: Any) -> Encoded | None:
        library = cls.__module__.partition(".")[0]
        if library not in _LIBRARIES or library not in sys.modules:
            return None
        if library in ("numpy", "torch"):
            from perdure_storage.codecs.arrays import encode_numpy, encode_torch

            return encode_numpy(value) if library == "numpy" else encode_torch(value)
        from perdure_storage.codecs.arrow import encode_arrow

        # What pickle can write without a copy is left to it, if it may.
        return encode_arrow(value, frugal=self.allow_pickle)

    def _general(self, cls: type, value: Any, name: str) -> Encoded:
        plain = encode_plain(value) if cls is list or cls is dict else None
        if plain is not None:
            return Encoded(codec=PLAIN, buffers=[plain], size_bytes=len(plain))
        try:
            data = self._typed(value)
        except Unfit as unfit:
            if self.allow_pickle:
                return self._pickled(value, name)
            raise NotSerializable(_no_pickle(unfit, name), path=name + unfit.path) from None
        return Encoded(codec=TYPED, buffers=[data], size_bytes=len(data))

    def _typed(self, value: Any) -> bytes:
        if self.allow_pickle:
            return encode_typed(value, nodes=_TYPED_NODES, buffer_bytes=_TYPED_BUFFER_BYTES)
        return encode_typed(value, names=True)

    def _pickled(self, value: Any, name: str) -> Encoded:
        if not self.allow_pickle:
            said = f"{name} could only be pickled, which this store refuses"
            raise NotSerializable(said, path=name)
        from perdure_storage.codecs.pickles import encode_pickle

        try:
            return encode_pickle(value, self._code_digest)
        except MemoryError:
            raise
        except Exception as error:
            raise self._not_serializable(value, name, error) from error

    def _not_serializable(self, value: Any, name: str, error: Exception) -> NotSerializable:
        if isinstance(error.__cause__ or error, RecursionError):
            return NotSerializable(f"{name} is nested too deeply to be stored", path=name)
        path, part = find_culprit(value, name, self._encodes)
        kind = shown_name(type(part)).removeprefix("builtins.")
        return NotSerializable(f"{path} cannot be stored: a {kind} ({error})", path=path)

    def _encodes(self, value: Any) -> bool:
        from perdure_storage.codecs.pickles import encode_pickle

        try:
            encode_pickle(value, self._code_digest)
        except Exception:  # noqa: BLE001 - as above: that it fails is the answer
            return False
        return True

    def _unpickler(self, codec: str) -> Callable[[memoryview], Any]:
        if not self.allow_pickle:
            raise StoreError(
                f"a value is encoded by {codec!r}, and this store is open with allow_pickle=False"
            )
        from perdure_storage.codecs.pickles import PICKLE, decode_pickle

        if codec != PICKLE:
            raise StoreError(f"a value is encoded by {codec!r}, which needs a newer perdure")
        return lambda data: decode_pickle(data, self._code_digest)


def _no_pickle(unfit: Unfit, name: str) -> str:
    return (
        f"{name}{unfit.path} cannot be stored without pickle: {unfit.reason}; this store is open "
        "with allow_pickle=False, which takes JSON values, arrays and tables, and functions, "
        "classes and data classes of modules"
    )


def _as_bytes(data: memoryview) -> bytes:
    return bytes(data)


def _numpy(data: memoryview) -> Any:
    from perdure_storage.codecs.arrays import decode_numpy

    return decode_numpy(data)


def _torch(data: memoryview) -> Any:
    from perdure_storage.codecs.arrays import decode_torch

    return decode_torch(data)


def _arrow(data: memoryview) -> Any:
    from perdure_storage.codecs.arrow import decode_arrow

    return decode_arrow(data)


_LIBRARIES = frozenset({"numpy", "torch", "pyarrow", "pandas", "polars"})

_READERS: dict[str, Callable[[memoryview], Any]] = {
    PLAIN: decode_plain,
    TYPED: decode_typed,
    BYTES: _as_bytes,
    "numpy/1": _numpy,
    "torch/1": _torch,
    "arrow/1": _arrow,
}
