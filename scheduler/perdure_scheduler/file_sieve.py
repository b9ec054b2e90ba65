"""Which of the files that lie there are new, and finished: pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from perdure_scheduler.files import FoundFile


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    """A file that may still be written: how it looked, and since when it has looked so."""

    signature: str
    since: float


class FileSieve:
    """Remembers what was let through, and what waits until it is finished.

    A file is finished when it has looked the same for ``stable_for``; or when it was written last
    so long ago, where its time of writing is of this machine's clock.

    Args:
        stable_for: how long; nothing: a file is finished as soon as it is seen.
        change: whether a file that looks different from before is new again.
        trusts_times: whether files say by this machine's clock when they were written.
    """

    def __init__(self, stable_for: timedelta, *, change: bool, trusts_times: bool) -> None:
        self._stable_for = stable_for
        self._change = change
        self._trusts_times = trusts_times
        self._passed: dict[str, str] = {}
        self._waiting: dict[str, _Waiting] = {}

    @property
    def waiting(self) -> frozenset[str]:
        """Return the paths of files that may still be written."""
        return frozenset(self._waiting)

    @property
    def there(self) -> frozenset[str]:
        """Return the paths of all files that were there when somebody looked last."""
        return frozenset(self._passed) | self.waiting

    def is_current(self, path: str, version: str) -> bool:
        """Say whether a version of a file is there now, or may be: it is still written."""
        return path in self._waiting or self._passed.get(path) == version

    def look_again_at(self) -> float | None:
        """Return when the next of them may be finished, by the clock of ``sift``."""
        if not self._waiting:
            return None
        since = min(each.since for each in self._waiting.values())
        return since + self._stable_for.total_seconds()

    def version(self, file: FoundFile) -> str:
        """Return what tells a file from an earlier one of its path; nothing if nothing does."""
        return file.signature if self._change else ""

    def sift(self, files: Iterable[FoundFile], now: datetime, clock: float) -> list[FoundFile]:
        """Return those that are new and finished; remember those that are not finished."""
        return [
            file for file in files if self._is_new(file) and self._is_finished(file, now, clock)
        ]

    def _is_new(self, file: FoundFile) -> bool:
        return self._passed.get(file.path) != self.version(file)

    def _is_finished(self, file: FoundFile, now: datetime, clock: float) -> bool:
        if not self._stable_for or (
            self._trusts_times
            and file.modified is not None
            and file.modified <= now - self._stable_for
        ):
            return True
        before, signature = self._waiting.get(file.path), file.signature
        if before is None or before.signature != signature:
            self._waiting[file.path] = _Waiting(signature, clock)
            return False
        return clock >= before.since + self._stable_for.total_seconds()

    def passed(self, files: Iterable[FoundFile]) -> None:
        """Remember that these need not be seen again."""
        for file in files:
            self._passed[file.path] = self.version(file)
            self._waiting.pop(file.path, None)

    def forget(self, gone: Iterable[str]) -> None:
        """Forget what is not there any more: the folder of an inbox is emptied day by day."""
        for path in gone:
            self._passed.pop(path, None)
            self._waiting.pop(path, None)

    def forget_all_but(self, there: Iterable[FoundFile]) -> None:
        """Forget all that is not there any more."""
        self.forget((self._passed.keys() | self._waiting.keys()) - {file.path for file in there})
