"""Which files are meant: ``in/*/2026-??-*.csv``, ``in/**/*.csv``; half-written ones are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase, translate

IGNORED = (".*", "*~", "~$*", "*.part", "*.partial", "*.tmp", "*.crdownload", "*.swp")
"""Names under which programs write what is not finished, or hide what is their own."""
_MAGIC = frozenset("*?[")

Places = frozenset[int]
"""Parts of a pattern that the next name of a path may answer."""


class FilePattern:
    """A path with wildcards, taken apart: a folder without any, and what lies below it.

    ``*``, ``?`` and ``[...]`` stand for characters of one name, ``**`` for any number of folders,
    none included. A name that is ignored is met by no wildcard, neither as a file nor as a folder,
    unless the pattern asks for such names: ``in/*.part``.

    Args:
        path: of a file system, without its protocol. With a slash at the end: all files in there.
        ignore: patterns of names.
    """

    def __init__(self, path: str, ignore: Sequence[str] = IGNORED) -> None:
        names = (path + "*" if path.endswith("/") else path).split("/")
        fixed = next((at for at, name in enumerate(names) if _MAGIC & set(name)), len(names) - 1)
        fixed = min(fixed, len(names) - 1)
        self.folder = "/".join(names[:fixed]) or ("/" if path.startswith("/") else "")
        self._parts = [name for name in names[fixed:] if name]
        self._names = [re.compile(translate(part)) for part in self._parts]
        ignored = [
            each for each in ignore if not any(fnmatchcase(part, each) for part in self._parts)
        ]
        self._ignored = re.compile("|".join(map(translate, ignored))) if ignored else None
        self._end = len(self._parts)

    @property
    def is_deep(self) -> bool:
        """Say whether what it means may lie in folders below its own."""
        return self._end > 1 or self._parts[0] == "**"

    @property
    def begin(self) -> Places:
        """Return where a name in the pattern's own folder stands."""
        return self._with_skipped({0})

    def after(self, places: Places, name: str) -> Places:
        """Return where a name below ``name`` stands; nowhere: nothing below it is meant."""
        if self._ignored is not None and self._ignored.match(name):
            return frozenset()
        reached: set[int] = set()
        for place in places:
            if place == self._end:
                continue
            if self._parts[place] == "**":
                reached.add(place)
            elif self._names[place].match(name):
                reached.add(place + 1)
        return self._with_skipped(reached)

    def _with_skipped(self, places: set[int]) -> Places:
        """Add where it goes on after a ``**`` that stands for no folder at all."""
        for place in sorted(places):
            while place < self._end and self._parts[place] == "**":
                place += 1
                places.add(place)
        return frozenset(places)

    def reached(self, path: str) -> Places:
        """Return where a path in full stands; nowhere: nothing of it is meant."""
        folder = self.folder.rstrip("/") + "/" if self.folder else ""
        if not path.startswith(folder):
            return frozenset()
        places = self.begin
        for name in path[len(folder) :].split("/"):
            places = self.after(places, name)
        return places

    def is_met(self, places: Places) -> bool:
        """Say whether a path that has come to these places is meant."""
        return self._end in places
