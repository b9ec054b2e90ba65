"""The blobs: whether their root is there, is this store's, and can be written."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from perdure.doctor.disks import check_room, judge_writing
from perdure.doctor.finding import Finding, Verdict, ok, problem, warning
from perdure.remedies import Shell, shell_of
from perdure.settings import Settings
from perdure.words import count_of, size
from perdure_storage.blob_cache import BlobCache
from perdure_storage.blobs import BlobRoot, LocalBlobStore, open_blobs
from perdure_storage.clock import Clock
from perdure_storage.errors import PerdureError, StoreError
from perdure_storage.guards import require_bound
from perdure_storage.records import CacheTerms
from perdure_storage.roots import is_folder, public_url
from perdure_storage.sql_runs import SqlRunStore

_PROBE_BYTES = 64 << 10
_SLOW_SERVICE_S = 1.0
_DELETING = timedelta(minutes=10)
"""A deletion that began longer ago than this will not be finished by who began it."""
_DISK = "check the disk, or the service that holds the blobs"


def check_blobs(settings: Settings, store: SqlRunStore, clock: Clock) -> Iterator[Finding]:
    """Yield what is to be said of the values that are too large for their rows."""
    if is_folder(settings.blobs):
        yield check_room("disk of the blobs", Path(settings.blobs))
    elif settings.cache is not None:
        yield judge_cache(settings.cache)
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
    if isinstance(blobs, LocalBlobStore):
        return judge_writing("writing of blobs", Path(blobs.url), took_s)
    return judge_service(blobs.url, took_s)


def judge_service(url: str, took_s: float) -> Finding:
    """Say whether a service may take so long for a small value."""
    said = f"a write to {url} took {took_s * 1000:.0f} ms"
    if took_s > _SLOW_SERVICE_S:
        remedy = "every large value waits that long: is the bucket in this machine's region?"
        return warning("writing of blobs", said, remedy)
    return ok("writing of blobs", said)


def judge_cache(terms: CacheTerms) -> Finding:
    """Say what of the bucket's values this host keeps, and whether its disk has room for more."""
    check, cache = "cache of the blobs", BlobCache(terms)
    if not cache.is_usable():
        return warning(
            check,
            f"{terms.folder} cannot be written: every read of a value is a download",
            "set PERDURE_BLOBS_CACHE to a folder on a local disk of this user",
        )
    held = cache.size_bytes()
    said = f"{size(held)} of at most {size(terms.limit_bytes)} in {terms.folder}"
    room = check_room(check, Path(terms.folder))
    free = shutil.disk_usage(terms.folder).free
    if room.verdict is not Verdict.OK:
        return room
    if free < terms.limit_bytes - held:
        return warning(
            check,
            f"{said}, and only {size(free)} free there",
            f"set PERDURE_BLOBS_CACHE_SIZE to less than {size(held + free)}",
        )
    return ok(check, said)


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
