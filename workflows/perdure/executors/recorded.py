"""The sources that a run recorded, on this host's disk, for workers that need them.

A worker imports today's code and takes it if its digest is the recorded one, so that a module
finds its data files beside it. Only where the code has changed do the recorded sources come first
on the path, of workers that are started for such runs.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from perdure.bundle import unpack_bundle
from perdure.calls import CallContext
from perdure.errors import PerdureError
from perdure.sources import find_module_file
from perdure_storage.hashing import integrity_digest
from perdure_storage.records import Digest

_log = logging.getLogger(__name__)


class RecordedSources:
    """Folders with the unpacked source bundles of runs. Owned by the coordinator's thread."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._folders: dict[str, str] = {}
        self._imported: dict[str, str] = {}  # what workers may have in memory, by file

    def folder_of(self, run_id: str) -> str | None:
        """Return the folder to put first on a worker's path for this run, None for none."""
        return self._folders.get(run_id)

    def use_for(self, context: CallContext) -> bool:
        """Turn a run to its recorded sources; say whether there are any to be had."""
        if context.bundle is None:
            return False
        if context.run_id not in self._folders:
            try:
                self._folders[context.run_id] = str(self._unpacked(context, context.bundle))
            except PerdureError as error:
                _log.warning("the recorded sources of %s: %s", context.run_id, error)
                return False
        return True

    def use_where_they_differ(self, context: CallContext) -> None:
        """Turn a run to its recorded sources if it needs them and today's files are others.

        Functions that travel by value import what they use by name, and nobody compares that: a
        function that is imported itself is compared by the worker.
        """
        if context.bundle is None or all(f.value is None for f in context.functions.values()):
            return
        if self.use_for(context) and self._is_imported(Path(self._folders[context.run_id])):
            self.forget(context.run_id)

    def _is_imported(self, folder: Path) -> bool:
        """Say whether workers import what is in a folder of recorded sources.

        They do not if a module was another one when a run first needed it: who edits and reloads
        it in a notebook has workers that have imported it as it was.
        """
        if not _is_todays(folder):
            return False
        now = {
            str(file.relative_to(folder)): integrity_digest((file.read_bytes(),))
            for file in folder.rglob("*.py")
        }
        self._imported = now | self._imported
        return now.items() <= self._imported.items()

    def forget(self, run_id: str) -> None:
        """Let go of a run; its folder stays for others with the same sources."""
        self._folders.pop(run_id, None)

    def close(self) -> None:
        """Remove the folders."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _unpacked(self, context: CallContext, bundle: Digest) -> Path:
        from perdure_storage.blobs import open_blobs

        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="perdure-sources-"))
        folder = self._root / bundle.partition(":")[2]
        if not folder.exists():
            blobs = open_blobs(context.blobs_url, context.store_id)
            unpack_bundle(blobs.open(bundle, context.bundle_size), folder)
        return folder


def _is_todays(folder: Path) -> bool:
    """Say whether each module in a folder of recorded sources is the one that is imported here."""
    for recorded in folder.rglob("*.py"):
        parts = recorded.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found = find_module_file(name)
        try:
            if found is None or Path(found).read_bytes() != recorded.read_bytes():
                return False
        except OSError:
            return False
    return True
