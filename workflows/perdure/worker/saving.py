"""What a step keeps while it runs, for its next attempt, and what it tells of how far it is.

The worker stores blobs only. That they count is a row, which the coordinator commits: it is asked
over the attempt's *desk*, and ``save`` returns when the row is durable.
"""

from __future__ import annotations

import math
import operator
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from perdure.calls import CallId, Desk, SavedValue, Saving, Told
from perdure.errors import DefinitionError
from perdure.worker.secrets import Redactor
from perdure_storage.clock import Clock, SystemClock
from perdure_storage.directories import Directories, is_directory
from perdure_storage.errors import (
    PerdureError,
    RunConflict,
    StoreError,
    StoreUnavailable,
    ValueDamaged,
    ValueUnavailable,
)
from perdure_storage.faults import crash_point
from perdure_storage.records import Progress, Refusal, StoredValue
from perdure_storage.temporary_folders import TemporaryFolder
from perdure_storage.values import Values

T = TypeVar("T")

_TRIES = 3
"""Times that a value is put again because gc took it before its row was there."""
_TELL_EVERY_S = 0.2
_MOST = 1 << 63


class NoDesk:
    """For calls that nobody's engine drives: nothing is kept."""

    def keep(self, saving: Saving) -> Refusal | None:
        """Refuse."""
        return Refusal(kind="gone", message="nobody keeps what is saved here")

    def tell(self, told: Told) -> None:
        """Do nothing."""

    def look(self, call: CallId) -> bool:
        """Nobody asks."""
        return False


@dataclass(frozen=True, slots=True)
class Saved:
    """What an attempt of this step saved last.

    Attributes:
        at: the place that it gave.
        value: the value, decoded anew; of a folder, the path of a copy that is yours to change.
    """

    at: int
    value: Any


class Saves:
    """The saves of one attempt. Used by the threads of its step."""

    def __init__(
        self,
        call: CallId,
        values: Values,
        directories: Directories,
        desk: Desk,
        given: Iterable[SavedValue] = (),
        clock: Clock | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._call = call
        self._values = values
        self._directories = directories
        self._desk = desk
        self._clock = clock or SystemClock()
        self._redactor = redactor or Redactor()
        self._saved = list(given)
        self._folders: list[TemporaryFolder] = []
        self._untold: Progress | None = None
        self._told_at = float("-inf")
        self._is_over = False
        self.unavailable: PerdureError | None = None

    def save(self, value: Any, at: int, keep_last: int, item: str) -> None:
        """Keep a value, or a folder; see ``Context.save``."""
        _check(value, keep_last)
        at = _place(at)
        refusal: Refusal | None = None
        for _ in range(_TRIES):
            if self._is_over:
                raise RunConflict("what the step saves is not kept: its attempt is over")
            crash_point("save.before-blob")
            stored = self._reaching(lambda: self._store(value))
            crash_point("save.after-blob")
            refusal = self._desk.keep(Saving(self._call, stored, at, keep_last, item))
            if refusal is None:
                mine = [each for each in self._saved if each.item == item]
                for old in mine[: max(0, len(mine) + 1 - keep_last)]:
                    self._saved.remove(old)
                self._saved.append(SavedValue(at, stored, item))
                return
            if refusal.kind != "condemned":
                break
        assert refusal is not None
        self._refused(refusal)

    def load(self, at: int | None, into: str | None, item: str) -> Saved | None:
        """Return what was saved last; see ``Context.load``."""
        for each in reversed(self._saved):
            if each.item == item and at in (None, each.at):
                try:
                    return Saved(each.at, self._reaching(partial(self._open, each, into)))
                except ValueDamaged as error:
                    sys.stderr.write(f"perdure: what was saved at {each.at} is lost: {error}\n")
        return None

    def tell(self, done: float, total: float | None, message: str, item: str) -> None:
        """Say how far the step is; see ``Context.progress``."""
        if not (math.isfinite(done) and math.isfinite(total or 0)):
            raise DefinitionError(f"progress({done}, {total}): say it with finite numbers")
        words = self._redactor.text(message)
        self._untold = Progress(
            done=done, total=total, message=words, at=self._clock.now(), item=item
        )
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._tell()

    def is_asked(self) -> bool:
        """Say whether somebody paused or cancelled the run."""
        return self._desk.look(self._call)

    def close(self) -> None:
        """Tell the last, and remove the folders that were made for what was loaded."""
        self._is_over = True
        if self._untold is not None:
            self._tell()
        for folder in self._folders:
            folder.close()

    def _tell(self) -> None:
        assert self._untold is not None
        self._desk.tell(Told(self._call, self._untold))
        self._untold, self._told_at = None, time.monotonic()

    def _store(self, value: Any) -> StoredValue:
        if isinstance(value, Path):
            return self._directories.store(value, name=str(value))
        return self._values.store(value, name="what the step saves")

    def _open(self, saved: SavedValue, into: str | None) -> Any:
        if not is_directory(saved.value):
            return self._values.load(saved.value)
        if into is None:
            folder = TemporaryFolder()
            self._folders.append(folder)
            into = str(folder.path)
        self._directories.restore(saved.value, into)
        return Path(into)

    def _reaching(self, ask: Callable[[], T]) -> T:
        """Ask storage; remember an error that says nothing about the step's own code."""
        try:
            return ask()
        except (ValueUnavailable, StoreUnavailable) as error:
            self.unavailable = error
            raise

    def _refused(self, refusal: Refusal) -> None:
        if refusal.kind in ("unavailable", "condemned"):
            self.unavailable = StoreUnavailable(refusal.message)
            raise self.unavailable
        if refusal.kind == "rejected":
            raise StoreError(refusal.message)
        raise RunConflict(f"what the step saves is not kept: {refusal.message}")


def _place(at: Any) -> int:
    """Return a place as the store keeps it; of whole numbers NumPy's are some too."""
    if isinstance(at, bool) or not hasattr(type(at), "__index__"):
        raise DefinitionError(f"save(..., at={at!r}): say with a whole number how far the step is")
    place = operator.index(at)
    if not -_MOST <= place < _MOST:
        raise DefinitionError(f"save(..., at={at!r:.40}): more than the store can keep, 2**63")
    return place


def _check(value: Any, keep_last: Any) -> None:
    if isinstance(keep_last, bool) or not isinstance(keep_last, int) or keep_last < 1:
        raise DefinitionError(f"save(..., keep_last={keep_last!r}): how many are to stand, from 1")
    if isinstance(value, Path) and not value.is_dir():
        raise DefinitionError(
            f"save({value!r}): a path is saved as the folder that it names, and this is none. Save "
            "a file by the folder it is in, or its bytes by path.read_bytes()"
        )
