"""Collecting blobs that nothing refers to, safely beside live runs and other collectors.

A value is stored before the row that names it, so a blob without a reference may be about to get
one. Three things keep it: its age, since a put makes it young; the *mark*, without which no file
goes, and which has whoever names the blob refused; and ``reclaim``, by which the refused make sure
that the blob is there, and young, before they lift the mark.

    condemn (a transaction) -> remove the file, unless it is young -> the mark stays for a month

A death anywhere leaves marks, and the next gc, or whoever needs the blob, goes on from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from perdure_storage.blobs import BlobRoot
from perdure_storage.protocols import RunStore
from perdure_storage.records import BlobFile, Digest, RunId

MARKS_KEPT = timedelta(days=30)
"""How long a blob that is gone is refused: longer than any value waits for its row to be written,
a laptop that was shut over the holidays included."""

_AT_ONCE = 500
"""Blobs that are condemned in one transaction, and removed before the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection removed, or would remove, and what it left.

    Attributes:
        blobs: how many.
        size_bytes: of all of them.
        young: blobs without a reference that are younger than the grace, or became so.
    """

    blobs: int = 0
    size_bytes: int = 0
    young: int = 0


def find_garbage(
    store: RunStore, blobs: BlobRoot, before: datetime, *, besides: Collection[RunId] = ()
) -> Collected:
    """Say what ``collect_garbage`` would remove, if the runs ``besides`` were deleted first."""
    found = Collected()
    for batch in _batches(blobs.survey()):
        free = set(store.unreferenced((blob.digest for blob in batch), besides=besides))
        orphans = [blob for blob in batch if blob.digest in free]
        found = _add(found, orphans, [blob for blob in orphans if _is_old(blob, before)])
    return found


def collect_garbage(store: RunStore, blobs: BlobRoot, before: datetime) -> Collected:
    """Remove the blobs that nothing refers to and that were neither put nor renewed since.

    Args:
        store: what refers to blobs.
        blobs: where they are.
        before: blobs younger than this stay.
    """
    found = Collected()
    for batch in _batches(blobs.survey()):
        free = set(store.unreferenced(blob.digest for blob in batch))
        orphans = [blob for blob in batch if blob.digest in free]
        old = [blob for blob in orphans if _is_old(blob, before)]
        condemned = set(store.condemn(blob.digest for blob in old)) if old else set()
        # Its age is asked again by whoever removes it: a run may have put it just now.
        gone = [
            blob
            for blob in old
            if blob.digest in condemned and blobs.collect(blob.digest, before.timestamp())
        ]
        found = _add(found, orphans, gone)
    return found


def forget_old_marks(store: RunStore, now: datetime) -> int:
    """Remove marks that nobody can need any more; return how many."""
    return store.forget_condemned(now - MARKS_KEPT)


def reclaim(store: RunStore, blobs: BlobRoot, digests: Iterable[Digest]) -> bool:
    """Take condemned blobs back for whoever was refused because of them.

    Each is made young first and absolved after: a gc that is under way then leaves it alone, and
    the mark of one that came after that stays.

    Returns:
        Whether all are there, so that the refused may try again; if not, they are to be put again
        first.
    """
    wanted = list(digests)
    marks = store.list_condemned(wanted)
    there = {digest for digest in wanted if blobs.renew(digest)}
    store.absolve({digest: at for digest, at in marks.items() if digest in there})
    return len(there) == len(wanted)


def _batches(found: Iterator[BlobFile]) -> Iterator[tuple[BlobFile, ...]]:
    while batch := tuple(islice(found, _AT_ONCE)):
        yield batch


def _is_old(blob: BlobFile, before: datetime) -> bool:
    return blob.changed_at < before.timestamp()


def _add(sum_: Collected, orphans: list[BlobFile], gone: list[BlobFile]) -> Collected:
    return Collected(
        blobs=sum_.blobs + len(gone),
        size_bytes=sum_.size_bytes + sum(blob.size_bytes for blob in gone),
        young=sum_.young + len(orphans) - len(gone),
    )
