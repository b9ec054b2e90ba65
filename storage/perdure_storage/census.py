"""What rows say of blobs, and which blobs are there: compared on the disk, not in memory.

A store may have millions of blobs, and so much about each that it would be gigabytes. What is
noted goes into tables of a database of SQLite's own that is a temporary file, which has no name
and is gone when it is closed: it holds a few MiB in memory, however much it is given.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from perdure_storage.records import Digest, Place, RunId, StoredValue

Holder = tuple[str, str, str, int]
"""Who refers to a blob, as a row of ``blob_ref`` has it: kind, id, step, generation."""

Reference = tuple[str, str, str, int, Digest]
"""A row of ``blob_ref``: a holder, and the blob to which it refers."""

_CACHE_KIB = 8192
_TABLES = """
CREATE TABLE named (
    digest TEXT PRIMARY KEY, size_bytes INTEGER, user TEXT, is_spare INTEGER
) WITHOUT ROWID;
CREATE TABLE needed (
    holder TEXT, holder_id TEXT, step_id TEXT, generation INTEGER, digest TEXT, user TEXT,
    PRIMARY KEY (holder, holder_id, step_id, generation, digest)
) WITHOUT ROWID;
CREATE TABLE reference (
    holder TEXT, holder_id TEXT, step_id TEXT, generation INTEGER, digest TEXT,
    PRIMARY KEY (holder, holder_id, step_id, generation, digest)
) WITHOUT ROWID;
CREATE TABLE lost (digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE there (digest TEXT PRIMARY KEY, size_bytes INTEGER) WITHOUT ROWID;
CREATE TABLE referenced (digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE kept (digest TEXT PRIMARY KEY) WITHOUT ROWID;
"""
# The first who cannot do without a blob is told of; who knows its size may come later.
_NAME = """
INSERT INTO named VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET
    size_bytes = coalesce(excluded.size_bytes, size_bytes),
    user = CASE WHEN excluded.is_spare < is_spare THEN excluded.user ELSE user END,
    is_spare = min(excluded.is_spare, is_spare)
"""
# That a lost value is gone is what its row says; another row may need the same bytes.
_TO_CHECK = """
SELECT
    digest, there.size_bytes, coalesce(named.size_bytes, there.size_bytes),
    named.user, coalesce(named.is_spare, 0)
FROM referenced LEFT JOIN there USING (digest) LEFT JOIN named USING (digest)
WHERE named.user IS NOT NULL OR digest NOT IN (SELECT digest FROM lost)
ORDER BY digest
"""
_NEED = "INSERT OR IGNORE INTO needed VALUES (?, ?, ?, ?, ?, ?)"
# That others refer to a blob keeps it only as long as they are there.
_UNPROTECTED = """
SELECT digest, user, holder, holder_id, step_id, generation FROM needed
WHERE NOT EXISTS (
    SELECT 1 FROM reference WHERE (holder, holder_id, step_id, generation, digest)
    = (needed.holder, needed.holder_id, needed.step_id, needed.generation, needed.digest)
)
ORDER BY digest, holder, holder_id, step_id, generation
"""
_IS_NEEDED = """
SELECT 1 FROM needed
WHERE (holder, holder_id, step_id, generation, digest) = (?, ?, ?, ?, ?)
"""
_COUNTED = "SELECT count(*), coalesce(sum(there.size_bytes), 0) FROM"


class Expected(NamedTuple):
    """A blob that somebody names: its size there, None if it is not, and as it should be.

    It is spare if whoever names it can do without.
    """

    digest: Digest
    size_bytes: int | None
    wanted_bytes: int | None
    user: str | None
    is_spare: bool


class Unprotected(NamedTuple):
    """A blob that a row names, and that no reference of that row keeps from gc."""

    digest: Digest
    user: str
    holder: Holder


class Count(NamedTuple):
    """How many blobs there are of a kind, and how large those are together that are there."""

    blobs: int
    size_bytes: int


class Census:
    """What a check has read. Of one thread; to be closed."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        # It is nobody's once this process is gone, and nothing in it is ever undone.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Remove what was noted."""
        self._database.close()

    # --- what is read -------------------------------------------------------------------------
    def note(
        self, value: StoredValue | None, run_id: RunId | None, what: str, holder: Holder
    ) -> None:
        """Note a value of a run, or of an event, which has none."""
        self._note_value(value, _whose(what, run_id), holder, is_spare=False)

    def note_spare(self, value: StoredValue | None, run_id: RunId, what: str, of: Holder) -> None:
        """Note a value of a run that is made again where it is wanted and not there."""
        self._note_value(value, _whose(what, run_id), of, is_spare=True)

    def note_all(self, blobs: Iterable[Digest], what: str, holder: Holder) -> None:
        """Note blobs of which no row says the size."""
        for blob in blobs:
            self._note(blob, None, what, holder, is_spare=False)

    def _note_value(
        self, value: StoredValue | None, user: str, holder: Holder, *, is_spare: bool
    ) -> None:
        if value is None:
            return
        if value.place is Place.BLOB:
            self._note(value.integrity, value.size_bytes, user, holder, is_spare=is_spare)
        for blob in value.files or ():
            self._note(blob, None, user, holder, is_spare=is_spare)

    def _note(
        self,
        blob: Digest,
        size_bytes: int | None,
        user: str,
        holder: Holder,
        *,
        is_spare: bool,
    ) -> None:
        self._database.execute(_NAME, (blob, size_bytes, user, is_spare))
        self._database.execute(_NEED, (*holder, blob, user))

    def note_lost(self, blobs: Iterable[Digest]) -> None:
        """Note blobs of which their row says that they are gone."""
        insert = "INSERT OR IGNORE INTO lost VALUES (?)"
        self._database.executemany(insert, ((blob,) for blob in blobs))

    def note_there(self, blobs: Iterable[tuple[Digest, int]]) -> None:
        """Note which blobs there are, with their sizes."""
        self._database.executemany("INSERT OR REPLACE INTO there VALUES (?, ?)", blobs)

    def note_referenced(self, digests: Iterable[Digest]) -> None:
        """Note to which blobs somebody refers who is there."""
        insert = "INSERT OR IGNORE INTO referenced VALUES (?)"
        self._database.executemany(insert, ((digest,) for digest in digests))

    def note_references(self, references: Iterable[Reference]) -> None:
        """Note which row refers to which blob."""
        insert = "INSERT OR IGNORE INTO reference VALUES (?, ?, ?, ?, ?)"
        self._database.executemany(insert, references)

    def note_kept(self, digests: Iterable[Digest]) -> None:
        """Note to which blobs anything refers, though it be gone itself."""
        insert = "INSERT OR IGNORE INTO kept VALUES (?)"
        self._database.executemany(insert, ((digest,) for digest in digests))

    # --- what that means ----------------------------------------------------------------------
    def expected(self) -> Iterator[Expected]:
        """Yield the blobs that have to be there, by digest."""
        for digest, size_bytes, wanted_bytes, user, is_spare in self._rows(_TO_CHECK):
            yield Expected(digest, size_bytes, wanted_bytes, user, bool(is_spare))

    def unprotected(self) -> Iterator[Unprotected]:
        """Yield blobs that rows name and no reference of theirs keeps from gc, by digest."""
        for digest, user, holder, holder_id, step_id, generation in self._rows(_UNPROTECTED):
            yield Unprotected(digest, user, (holder, holder_id, step_id, generation))

    def needs(self, holder: Holder, digest: Digest) -> bool:
        """Say whether a row names a blob."""
        return any(self._rows(_IS_NEEDED, *holder, digest))

    def referenced(self) -> Count:
        """Count the blobs to which somebody refers."""
        return Count(*next(self._rows(f"{_COUNTED} referenced LEFT JOIN there USING (digest)")))

    def orphans(self) -> Count:
        """Count the blobs to which nothing refers."""
        besides = "digest NOT IN (SELECT digest FROM kept)"
        return Count(*next(self._rows(f"{_COUNTED} there WHERE {besides}")))

    def _rows(self, sql: str, *arguments: object) -> Iterator[tuple[Any, ...]]:
        with closing(self._database.execute(sql, arguments)) as cursor:
            yield from cursor


def _whose(what: str, run_id: RunId | None) -> str:
    return what if run_id is None else f"{what} of run {run_id!r}"
