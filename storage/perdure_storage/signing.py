"""Row signatures: who may not write the store may not make a row that is believed.

HMAC-SHA256 over what decides what is decoded, run and reused: the store's id, the row's key, its
digests, codec, size and place. A blob is its digest, so signing the row covers the blob, and a
reference that was swapped for another row's does not pass. Workers get digests and need no key.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perdure_storage.errors import StoreError

KEY_BYTES = 32
_BLOCK_BYTES = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


class Signer:
    """Makes and checks the signatures of one store's rows.

    Args:
        key: at least 16 bytes.
        store_id: enters each signature, so that a row of another store does not pass.
    """

    def __init__(self, key: bytes, store_id: str) -> None:
        # HMAC written out (RFC 2104), because the two padded blocks are the same for every row:
        # copying their states halves the cost of a signature, and a wide commit makes thousands.
        block = (key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(
            _BLOCK_BYTES, b"\0"
        )
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))
        self._store_id = store_id
        self._encode = msgspec.msgpack.Encoder().encode

    def sign(self, kind: str, facts: tuple[object, ...]) -> bytes:
        """Return the signature of a row: 32 bytes. ``facts`` are scalars, texts and bytes."""
        inner = self._inner.copy()
        inner.update(self._encode((self._store_id, kind, facts)))
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def require(self, kind: str, facts: tuple[object, ...], mac: bytes | None, row: str) -> None:
        """Raise StoreError naming ``row`` unless ``mac`` is the signature of ``facts``."""
        if mac is None or not hmac.compare_digest(bytes(mac), self.sign(kind, facts)):
            raise StoreError(
                f"{row} was tampered with, or was signed with another key: its signature does"
                " not fit. Restore the store from a backup, or delete that run"
            )


def key_id_of(key: bytes) -> str:
    """Return the public name of a key, by which a store knows which one signed its rows."""
    return hashlib.sha256(b"perdure key id\0" + key).hexdigest()[:16]


def parse_key(text: str, where: str) -> bytes:
    """Return the key that a text holds as hexadecimal digits.

    Raises:
        StoreError: it holds something else; the message names ``where``, never the text.
    """
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(text.strip())
        if len(key) >= 16:
            return key
    raise StoreError(f"{where} holds no key: expected {2 * KEY_BYTES} hexadecimal digits")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file that holds a store's key: hexadecimal digits, readable by its owner only."""

    path: Path

    def load(self) -> bytes | None:
        """Return the key, or None if the file is not there. Raises StoreError if it is no key."""
        try:
            text = self.path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"cannot read the key {self.path}: {error.strerror}. Look at its rights:"
                f" `ls -l {self.path}`"
            ) from error
        return parse_key(text, str(self.path))

    def load_or_create(self) -> bytes:
        """Return the key; make one if there is none. Ten at once get the same.

        The key is written aside and linked into place: nobody reads half of it, and a key that
        is there is never replaced.
        """
        key = self.load()
        return key if key is not None else self._create()

    def _create(self) -> bytes:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        try:
            _write_synced(aside, secrets.token_hex(KEY_BYTES).encode() + b"\n")
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        except OSError as error:
            raise StoreError(
                f"cannot make the key {self.path}: {error.strerror}. Look at its folder:"
                f" `ls -ld {self.path.parent}`"
            ) from error
        finally:
            aside.unlink(missing_ok=True)
        _sync_folder(self.path.parent)
        key = self.load()
        if key is None:
            raise StoreError(f"the key {self.path} went away while it was made: try again")
        return key


def load_or_create_key(folder: Path) -> bytes:
    """Return the key of a ``.perdure`` folder, made on first use."""
    return KeyFile(folder / "key").load_or_create()


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
