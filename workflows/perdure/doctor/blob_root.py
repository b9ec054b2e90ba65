"""The blobs: whether their root is there, is this store's, and can be written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from perdure.doctor.disks import check_room, judge_writing
from perdure.doctor.finding import Finding, ok, problem, warning
from perdure.remedies import Shell, shell_of
from perdure.settings import Settings
from perdure.words import count_of
from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.clock import Clock
from perdure_storage.errors import PerdureError, StoreError
from perdure_storage.guards import require_bound
from perdure_storage.roots import is_folder, public_url
from perdure_storage.sql_runs import SqlRunStore

_PROBE_BYTES = 64 << 10
_DELETING = timedelta(minutes=10)
"""A deletion that began longer ago than this will not be finished by who began it."""
_DISK = "check the disk, or the service that holds the blobs"


def check_blobs(settings: Settings, store: SqlRunStore, clock: Clock) -> Iterator[Finding]:
    """Yield what is to be said of the values that are too large for their rows."""
    if is_folder(settings.blobs):
        yield check_room("disk of the blobs", Path(settings.blobs))
    blobs = yield from _open(settings, store)
    if blobs is not None:
        yield _probe(blobs, clock)
        yield from _check_leftovers(settings, store, blobs)
        yield judge_deletions(store.list_tombstones(clock.now() - _DELETING), shell_of(settings))


def _open(settings: Settings, store: SqlRunStore) -> Generator[Finding, None, BlobRoot | None]:
    bound = store.blobs_url()
    if bound is None:
        yield ok("blobs", f"none yet: the first run makes {public_url(settings.blobs)}")
        return None
    try:
        require_bound(store.url, bound, public_url(settings.blobs_name))
        blobs = open_blobs(settings.blobs, store.store_id)
    except StoreError as error:
        yield problem("blobs", str(error))
        return None
    except PerdureError as error:
        yield problem("blobs", str(error), _DISK)
        return None
    yield ok("blobs", f"{blobs.url} is this store's")
    return blobs


def _probe(blobs: BlobRoot, clock: Clock) -> Finding:
    """Put a value, read it, remove it: as a worker would."""
    data, began = os.urandom(_PROBE_BYTES), clock.monotonic()
    try:
        digest = blobs.put([data])
        took_s = clock.monotonic() - began
        same = bytes(blobs.open(digest, len(data))) == data
        blobs.delete(digest)
    except PerdureError as error:
        return problem("writing of blobs", str(error), _DISK)
    if not same:
        return problem("writing of blobs", f"{blobs.url} gave back other bytes", _DISK)
    return judge_writing("writing of blobs", Path(blobs.url), took_s)


def judge_deletions(left: Sequence[str], shell: Shell) -> Finding:
    """Say whether runs are deleted and not all gone: their ids cannot be used again."""
    if not left:
        return ok("deleted runs", "all that they left is gone")
    said = f"{count_of(len(left), 'run')} deleted, with logs or spools that are still there"
    return warning("deleted runs", said, f"`{shell.command('gc')}` finishes it")


def _check_leftovers(settings: Settings, store: SqlRunStore, blobs: BlobRoot) -> Iterator[Finding]:
    try:
        areas = Counter(leftover.area for leftover in blobs.leftovers())
    except PerdureError as error:
        yield problem("damaged blobs", str(error), _DISK)
        return
    if quarantined := areas["quarantine"]:
        said = f"{count_of(quarantined, 'blob')} found damaged and put aside: a disk may be failing"
        yield warning("damaged blobs", said, f"`{shell_of(settings).command('gc')}` removes them")
    else:
        yield ok("damaged blobs", "none were found")
