"""Row signatures: who may not write the store may not make a row that is believed.

HMAC-SHA256 over what decides what is decoded, run and reused: the store's id, the row's key, its
digests, codec, size and place. A blob is its digest, so signing the row covers the blob, and a
reference that was swapped for another row's does not pass. Workers get digests and need no key.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perdure_storage.errors import KeyMissing, StoreError

KEY_BYTES = 32
_BLOCK_BYTES = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


@dataclass(frozen=True, slots=True)
class Seal:
    """A signature as it stands in a row.

    Attributes:
        column: where it stands.
        kind, facts: what it is of.
        mac: what stands there.
        named: what messages call the row.
    """

    column: str
    kind: str
    facts: tuple[object, ...]
    mac: bytes | None
    named: str


@dataclass(frozen=True, slots=True)
class KeyNames:
    """Under which keys a store says that its rows are signed.

    Attributes:
        current: id of the key that signs.
        before: id of the one that signed before, until all rows are signed anew.
    """

    current: str
    before: str | None = None


class _Stamp:
    """One key, ready to sign."""

    def __init__(self, key: bytes) -> None:
        # HMAC written out (RFC 2104), because the two padded blocks are the same for every row:
        # copying their states halves the cost of a signature, and a wide commit makes thousands.
        block = (key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(
            _BLOCK_BYTES, b"\0"
        )
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))

    def sign(self, message: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def fits(self, message: bytes, mac: bytes) -> bool:
        return hmac.compare_digest(mac, self.sign(message))


class Signer:
    """Makes and checks the signatures of one store's rows. Safe to use from many threads.

    While a key takes another's place both are believed, and the new one signs. Processes that were
    there before learn of that from the store: at the start of each transaction that writes, and
    when a row's signature does not fit.

    Args:
        key: at least 16 bytes.
        store_id: enters each signature, so that a row of another store does not pass.
        before: the key that signed before, if there are still rows of it.
        find: returns the keys that are at hand now, to find the one that a store names.
    """

    def __init__(
        self,
        key: bytes,
        store_id: str,
        *,
        before: bytes | None = None,
        find: Callable[[], Sequence[bytes]] = tuple,
    ) -> None:
        self._store_id = store_id
        self._find = find
        self._encode = msgspec.msgpack.Encoder().encode
        self._use(key, before)
        self.look: Callable[[], KeyNames | None] = lambda: None
        """Asks the store for the names of its keys, where a row does not fit."""

    def _use(self, key: bytes, before: bytes | None) -> None:
        self._before = None if before is None else _Stamp(before)
        self._stamp = _Stamp(key)
        self._names = KeyNames(key_id_of(key), None if before is None else key_id_of(before))

    @property
    def names(self) -> KeyNames:
        """Return under which keys this signer works."""
        return self._names

    def follow(self, names: KeyNames) -> bool:
        """Sign and check under the keys of these names from now on; say whether that is news.

        Raises:
            KeyMissing: a key of that name is not at hand.
        """
        if names == self._names:
            return False
        ring = {key_id_of(key): key for key in self._find()}
        for name in filter(None, (names.current, names.before)):
            if name not in ring:
                raise KeyMissing(
                    f"rows are signed with key {name} since this process began, and it is not at"
                    " hand: put it into .perdure/key or PERDURE_KEY, and start again"
                )
        self._use(ring[names.current], ring[names.before] if names.before else None)
        return True

    def sign(self, kind: str, facts: tuple[object, ...]) -> bytes:
        """Return the signature of a row: 32 bytes. ``facts`` are scalars, texts and bytes."""
        return self._stamp.sign(self._encode((self._store_id, kind, facts)))

    def fits(self, kind: str, facts: tuple[object, ...], mac: bytes | None) -> bool:
        """Say whether ``mac`` is the signature of ``facts`` by the key that signs now.

        Should it not be, ``check`` says whether it is one all the same.
        """
        return mac is not None and self._stamp.fits(
            self._encode((self._store_id, kind, facts)), bytes(mac)
        )

    def require(self, kind: str, facts: tuple[object, ...], mac: bytes | None, row: str) -> None:
        """Raise StoreError naming ``row`` unless ``mac`` is the signature of ``facts``."""
        message = self._encode((self._store_id, kind, facts))
        if mac is not None and (self._fits(message, bytes(mac)) or self._fits_now(message, mac)):
            return
        raise StoreError(
            f"{row} was tampered with, or was signed with another key: its signature does"
            " not fit. Restore the store from a backup, or delete that run"
        )

    def check(self, seal: Seal) -> None:
        """Raise StoreError naming the row unless a seal fits."""
        self.require(seal.kind, seal.facts, seal.mac, seal.named)

    def renewed(self, seal: Seal) -> bytes | None:
        """Return a seal's signature with the current key, or None if it is one already.

        Raises:
            StoreError: the seal fits no key: what it is on is not signed anew.
        """
        message = self._encode((self._store_id, seal.kind, seal.facts))
        if seal.mac is not None and self._stamp.fits(message, bytes(seal.mac)):
            return None
        self.check(seal)
        return self._stamp.sign(message)

    def _fits(self, message: bytes, mac: bytes) -> bool:
        before = self._before
        return self._stamp.fits(message, mac) or (before is not None and before.fits(message, mac))

    def _fits_now(self, message: bytes, mac: bytes) -> bool:
        names = self.look()
        return names is not None and self.follow(names) and self._fits(message, bytes(mac))


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


def parse_keys(text: str, where: str) -> tuple[bytes, ...]:
    """Return the keys of a text, older ones first, between commas or lines. Raises StoreError."""
    parts = [part for part in text.replace(",", "\n").splitlines() if part.strip()]
    return tuple(parse_key(part, where) for part in parts or [""])


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file that holds a store's key: hexadecimal digits, readable by its owner only.

    While another key takes its place it holds two, the older one first.
    """

    path: Path

    def load(self) -> bytes | None:
        """Return the newest key, or None if there is none. Raises StoreError if it is no key."""
        keys = self.load_all()
        return keys[-1] if keys else None

    def load_all(self) -> tuple[bytes, ...]:
        """Return the keys, older ones first. Raises StoreError if the file holds something else."""
        try:
            text = self.path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StoreError(
                f"cannot read the key {self.path}: {error.strerror}. Look at its rights:"
                f" `ls -l {self.path}`"
            ) from error
        return parse_keys(text, str(self.path))

    def replace(self, keys: Sequence[bytes]) -> None:
        """Hold these keys from now on, durably: whoever reads sees all of the old or of the new."""
        aside = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        try:
            _write_synced(aside, "".join(f"{key.hex()}\n" for key in keys).encode())
            os.replace(aside, self.path)
        except OSError as error:
            raise StoreError(f"cannot write the key {self.path}: {error.strerror}") from error
        finally:
            aside.unlink(missing_ok=True)
        _sync_folder(self.path.parent)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody else change the file. Raises StoreError if somebody does already."""
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise StoreError(
                f"another process is at work on {self.path.parent}: try again when it is done"
            ) from None
        finally:
            os.close(descriptor)

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
