"""Files that land somewhere, as arrivals: found by listing, and sooner where the system tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from perdure_scheduler.arrival import Arrival
from perdure_scheduler.conditions import Files
from perdure_scheduler.file_pattern import IGNORED
from perdure_scheduler.file_sieve import FileSieve
from perdure_scheduler.files import FilePlace, FoundFile
from perdure_scheduler.folder_watch import FolderWatch
from perdure_scheduler.own_thread import in_own_thread
from perdure_scheduler.sources import Batch
from perdure_storage.clock import Clock, SystemClock

log = logging.getLogger(__name__)

BEGUN = "begun"
"""The cursor: what had been there before has been told."""
_OLD_UNTIL = "old until "
"""The cursor while that is being told: what was written later is new, whoever goes on with it."""
_GRAIN = timedelta(seconds=2)
"""File systems may round times down by so much; what is in doubt is new."""
AT_ONCE = 200
"""Files a transaction: each may be a run."""
LOOK_AT_MOST = 200
"""Remote paths that are asked for one by one; beyond that a listing costs less."""
MISSING_EVERY_S = 2.0
"""How often a local folder is looked for that is not there yet, or cannot be watched."""
LISTING_SHARE = 0.1
"""Of its time, what a folder that is watched may be listed at most."""
PATIENCE_S = 60.0
"""After how long a file system that does not answer is told of."""


def source_of(files: Files, clock: Clock | None = None) -> FileSource:
    """Return a source of the files that a trigger waits for."""
    return FileSource(
        files.url,
        stable_for=files.stable_for,
        change=files.change,
        every=files.every,
        existing=files.existing,
        ignore=files.ignore,
        clock=clock,
    )


def passing_over(at: datetime) -> str:
    """Return the cursor of a listening for which all older files are only known from then on."""
    return _OLD_UNTIL + at.isoformat()


class FileSource:
    """A source of the files that a pattern means, for one trigger.

    Args:
        url: a pattern, with a protocol of fsspec or without one.
        stable_for: how long a file has to look the same before it counts as finished.
        change: whether a file that is written again arrives again.
        every: how often all is listed.
        existing: what becomes of files that are there when it is listened to for the first time:
            with "skip" they are only known from then on.
        ignore: patterns of names that are not meant.
        clock: when what is listed and looked at.
    """

    def __init__(
        self,
        url: str,
        *,
        stable_for: timedelta = timedelta(0),
        change: bool = False,
        every: timedelta = timedelta(seconds=30),
        existing: str = "run",
        ignore: Collection[str] = IGNORED,
        clock: Clock | None = None,
    ) -> None:
        self._url = url
        self._every_s = every.total_seconds()
        self._skips_existing = existing == "skip"
        self._clock = clock or SystemClock()
        # What is kept here outlives a listening that failed: only new ones are given again.
        self._place = FilePlace(url, ignore)
        self._change = change
        self._sieve = FileSieve(stable_for, change=change, trusts_times=self._place.is_local)
        self._asked: tuple[object, asyncio.Future[list[FoundFile]]] | None = None
        self._unnamable: set[str] = set()

    async def listen(self, cursor: str | None) -> AsyncIterator[Batch]:
        """Give the files that are there, then those that land."""
        if cursor is None and self._skips_existing:
            yield Batch(cursor=passing_over(self._clock.now()))
        watch = self._watch()
        try:
            while True:
                began = self._clock.monotonic()
                found = await self._look(None, watch)
                took_s = self._clock.monotonic() - began
                self._sieve.forget_all_but(found)
                if cursor != BEGUN:
                    for batch in self._batches(self._old(found, cursor), existed=True):
                        yield batch
                for batch in self._batches(self._new(found)):
                    yield batch
                # The first one tells that it listens; with nothing new it writes nothing.
                yield Batch(cursor=BEGUN if cursor != BEGUN else None)
                cursor = BEGUN
                until = self._clock.monotonic() + self._pause_s(watch, took_s)
                while paths := await self._to_look_at(watch, until):
                    found = await self._look(paths, watch)
                    self._sieve.forget(paths - {file.path for file in found})
                    for batch in self._batches(self._new(found)):
                        yield batch
        finally:
            if watch is not None:
                watch.close()

    def may_come_again(self) -> Callable[[str], bool]:
        """Return what says of the key of an arrival whether it may arrive again.

        Not if its file is gone, or is another one by now. That it is gone is only believed where
        its folder has shown other files: a disk that is not mounted looks empty, and what lies on
        it comes back. To be asked after a listing of which all is committed.
        """
        there = self._sieve.there
        shown = {path.rpartition("/")[0] for path in there}

        def may(key: str) -> bool:
            url, _, version = key.rpartition("#") if self._change else (key, "", "")
            path = self._place.path_of(url)
            if self._place.url_of(path) != url or path.rpartition("/")[0] not in shown:
                return True
            if path in there:
                return self._sieve.is_current(path, version)
            return self._place.is_link(path)

        return may

    def there(self, cursor: str | None) -> list[Arrival]:
        """Return what is there now, finished or not, as ``listen`` of a cursor would give it."""
        found = [file for file in self._place.list_all() if self._is_namable(file)]
        old = {file.path for file in self._old(found, cursor)} if cursor != BEGUN else set()
        return [self._arrival(file, existed=file.path in old) for file in found]

    def _watch(self) -> FolderWatch | None:
        if not self._place.is_local:
            return None
        pattern = self._place.pattern
        return FolderWatch(pattern.folder, is_deep=pattern.is_deep)

    def _pause_s(self, watch: FolderWatch | None, took_s: float) -> float:
        """Return how long after a listing the next one begins."""
        if watch is None:
            return self._every_s
        if not watch.is_on:
            return min(self._every_s, MISSING_EVERY_S)
        # What is watched is listed to be sure: of a huge folder that may be seldom.
        return max(self._every_s, took_s / LISTING_SHARE)

    async def _to_look_at(self, watch: FolderWatch | None, until: float) -> frozenset[str]:
        """Wait for paths that may have changed or be finished; none: it is time for a listing."""
        again_at = self._sieve.look_again_at()
        wake_at = until if again_at is None else min(until, again_at)
        wait_s = max(0.0, wake_at - self._clock.monotonic())
        changed: frozenset[str] = frozenset()
        if watch is not None:
            changed = await watch.changed(wait_s)
        else:
            await asyncio.sleep(wait_s)
        now = self._clock.monotonic()
        if now >= until:
            return frozenset()
        waiting = self._sieve.waiting if again_at is not None and now >= again_at else frozenset()
        paths = waiting | changed
        return paths if watch is not None or len(paths) <= LOOK_AT_MOST else frozenset()

    def _new(self, found: list[FoundFile]) -> list[FoundFile]:
        named = (file for file in found if self._is_namable(file))
        return self._sieve.sift(named, self._clock.now(), self._clock.monotonic())

    def _old(self, found: list[FoundFile], cursor: str | None) -> list[FoundFile]:
        """Return what is only to be known from now on."""
        if cursor is None and not self._skips_existing:
            return []
        named = [file for file in found if self._is_namable(file)]
        if cursor is None:
            return named
        until = datetime.fromisoformat(cursor.removeprefix(_OLD_UNTIL)) - _GRAIN
        return [file for file in named if file.modified is None or file.modified <= until]

    def _batches(self, files: list[FoundFile], *, existed: bool = False) -> Iterator[Batch]:
        """Give files; when the next batch is asked for, the one before is committed."""
        for at in range(0, len(files), AT_ONCE):
            given = files[at : at + AT_ONCE]
            yield Batch(arrivals=tuple(self._arrival(file, existed=existed) for file in given))
            self._sieve.passed(given)

    def _arrival(self, file: FoundFile, *, existed: bool) -> Arrival:
        url, version = self._place.url_of(file.path), self._sieve.version(file)
        facts: dict[str, Any] = {
            "path": file.path,
            "url": url,
            "name": file.path.rpartition("/")[2],
            "size": file.size,
        }
        if file.modified is not None:
            facts["modified"] = file.modified.isoformat()
        if file.etag is not None:
            facts["etag"] = file.etag
        return Arrival(key=f"{url}#{version}" if version else url, facts=facts, existed=existed)

    def _is_namable(self, file: FoundFile) -> bool:
        """Say whether a file's name is text; if it is not, that is told once."""
        try:
            file.path.encode()
        except UnicodeEncodeError:
            if file.path not in self._unnamable:
                self._unnamable.add(file.path)
                log.warning("%a is left out: its name is no text", file.path)
            return False
        return True

    async def _look(
        self, paths: frozenset[str] | None, watch: FolderWatch | None
    ) -> list[FoundFile]:
        """Return the files of these paths, or all; a look that hangs is followed by no other.

        Raises:
            TimeoutError: there is no answer yet; it is waited for on when all is asked for again.
        """
        while True:
            if self._asked is None:
                ask = partial(self._ask, paths, watch)
                self._asked = (paths, in_own_thread(ask, name="perdure-files"))
            asked, answer = self._asked
            done, _ = await asyncio.wait({answer}, timeout=PATIENCE_S)
            if not done:
                raise TimeoutError(f"{self._url} has not answered for {PATIENCE_S:g} s")
            self._asked = None
            if asked == paths:
                return answer.result()
            answer.exception()  # a listening that has ended asked for it: nobody waits for it

    def _ask(self, paths: frozenset[str] | None, watch: FolderWatch | None) -> list[FoundFile]:
        if paths is not None:
            return self._place.look_at(paths)
        if watch is not None:
            watch.ensure()
        return self._place.list_all()
