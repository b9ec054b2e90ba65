"""Runs that go from store to store: all rows, every blob that they name, and what was printed.

Values first, then the rows in one transaction, as wherever a row names a blob; logs, which are a
help and no truth, come after that. A death before the rows leaves blobs that gc takes; one after
them leaves the run without some of its logs, and whoever imports the file again brings them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from perdure_storage import guards
from perdure_storage.blobs import BlobRoot
from perdure_storage.errors import RunConflict, ValueDamaged
from perdure_storage.hashing import integrity_digest
from perdure_storage.protocols import LogStore, RunStore
from perdure_storage.records import Digest, MessageRecord, RunId, RunRecord, WholeRun
from perdure_storage.run_files import Contents, RunFile, RunFileWriter

_PIECE_BYTES = 1 << 20
_replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a run is in: a store, and what lies beside it."""

    store: RunStore
    blobs: BlobRoot
    logs: LogStore


# --- out ------------------------------------------------------------------------------------
def write_run(place: Place, run: RunRecord, file: IO[bytes], contents: Contents) -> Contents:
    """Write a run that nobody drives into a file, in bounded memory but for its rows.

    Args:
        place: where it is.
        run: as it was found.
        file: takes the bytes.
        contents: who writes, and when.

    Raises:
        RunConflict: it went on meanwhile.
        ValueDamaged: a blob that a row names is not there, or is another.
    """
    whole = place.store.whole_run(run.id)
    with RunFileWriter(file) as writer:
        writer.add_rows(_replace(whole, run=_replace(whole.run, owner=None, lease_live=False)))
        _write_blobs(writer, place.blobs, whole, _folder_of(file))
        history = whole.history
        printed = {(a.step_id, a.generation, a.attempt) for a in history.attempts}
        printed |= {(s.step_id, s.generation, s.attempt) for s in history.steps}
        for key in sorted(printed):
            writer.add_log(*key, place.logs.pieces(run.id, *key))
        after = place.store.get_run(run.id)
        if (after.status, after.seq, after.epoch) != (run.status, run.seq, run.epoch):
            raise RunConflict(f"run {run.id!r} went on while it was exported: try again")
        return writer.finish(contents)


def _write_blobs(
    writer: RunFileWriter, blobs: BlobRoot, whole: WholeRun, folder: Path | None
) -> None:
    with tempfile.TemporaryFile(dir=folder) as scratch:
        for digest in sorted(guards.blobs_of_whole(whole)):
            size_bytes = blobs.size_of(digest)
            if size_bytes is None:
                raise _missing(whole.run.id, digest)
            writer.add_blob(digest, size_bytes, _verified(blobs, digest, size_bytes, scratch))


def _folder_of(file: IO[bytes]) -> Path | None:
    """Return the folder of a file that has a name: as much has room there as is exported."""
    return Path(file.name).parent if isinstance(getattr(file, "name", None), str) else None


def _verified(
    blobs: BlobRoot, digest: Digest, size_bytes: int, scratch: IO[bytes]
) -> Iterator[memoryview | bytes]:
    """Yield the bytes of a blob once all of them are known to be right."""
    if size_bytes <= _PIECE_BYTES:
        yield blobs.open(digest, size_bytes)
        return
    scratch.seek(0)
    scratch.truncate()
    blobs.copy_out(digest, size_bytes, scratch.fileno())
    at = 0
    while piece := os.pread(scratch.fileno(), _PIECE_BYTES, at):
        at += len(piece)
        yield piece


def _missing(run_id: RunId, digest: Digest) -> ValueDamaged:
    return ValueDamaged(
        f"run {run_id!r} cannot be exported: its blob {digest} is missing. `perdure db check` says"
        f" whose it is; a step's value is rebuilt by `perdure resume {run_id}`",
        digest=digest,
        missing=True,
    )


# --- in -------------------------------------------------------------------------------------
def renamed(whole: WholeRun, run_id: RunId) -> WholeRun:
    """Return the same rows as those of a run of another id."""
    history = whole.history
    rows: dict[str, Any] = {
        name: tuple(_replace(row, run_id=run_id) for row in getattr(history, name))
        for name in ("steps", "attempts", "expansions", "waits", "saves")
    }

    def sent_to(message: MessageRecord) -> MessageRecord:
        sender = run_id if message.sender == whole.run.id else message.sender
        receiver = None if message.run_id is None else run_id
        return _replace(message, run_id=receiver, sender=sender)

    return _replace(
        whole,
        run=_replace(whole.run, id=run_id),
        history=_replace(history, **rows),
        messages=tuple(map(sent_to, whole.messages)),
    )


def bring_run(place: Place, file: RunFile, whole: WholeRun) -> bool:
    """Make a run of a file one of this store: all of it, or nothing that anybody sees.

    Args:
        place: where it goes.
        file: holds its blobs and logs.
        whole: its rows, as the file has them or under another id.

    Returns:
        Whether it is new; False if this very run is there already.

    Raises:
        RunFileRefused: the file is damaged, or does not hold what its rows name.
        RunConflict: the id is another run's, or this one went on elsewhere.
    """
    _require_complete(file, whole)
    file.verify_logs()
    run_id = whole.run.id
    is_there = _is_there(place.store, whole)
    if not is_there:
        for digest in file.contents.blobs:
            if place.blobs.put(file.blob(digest)) != digest:
                raise file.refused("a value in it is not what it was")
        made = place.store.import_run(whole, _told(file.contents, whole.run))
        # Somebody was faster; else the id was deleted, and is not free yet.
        if made is None and not _is_there(place.store, whole):
            raise RunConflict(
                f"a run {run_id!r} was deleted, and what it left is not all gone yet: type"
                " `perdure gc --grace 0s`, or import it under another id with --as ID"
            )
        is_there = made is None
    for number, log in enumerate(file.contents.logs):
        key = (run_id, log.step_id, log.generation, log.attempt)
        has_bytes = sum(map(len, place.logs.pieces(*key)))
        for piece in _from(has_bytes, file.log(number)):
            place.logs.append(*key, piece)
    return not is_there


def _from(at: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what pieces hold from a byte on."""
    for piece in pieces:
        if rest := piece[at:]:
            yield rest
        at = max(0, at - len(piece))


def _require_complete(file: RunFile, whole: WholeRun) -> None:
    """Refuse a file without a blob that a row names, or with one that none does."""
    guards.require_whole(whole)
    if guards.blobs_of_whole(whole) != file.contents.blobs.keys():
        raise file.refused("its values are others than those of its rows")
    if any(integrity_digest([plan.body]) != plan.digest for plan in whole.plans):
        raise file.refused("a plan in it is not what it was")


def _is_there(store: RunStore, whole: WholeRun) -> bool:
    """Say whether the store has this very run, at least as far as the file.

    Raises:
        RunConflict: it has another one of that id, or one that knows less.
    """
    run = whole.run
    found = store.find_run(run.id)
    if found is None:
        return False
    another = f"--as ID imports it under another id (new_id= in Python): --as {run.id}-2"
    if _identity(found) != _identity(run):
        raise RunConflict(f"there is another run {run.id!r} in {store.url}. {another}")
    mine = store.list_steps(run.id, current_only=False)
    results = {(s.step_id, s.generation, s.value and s.value.integrity) for s in mine}
    others = {(s.step_id, s.generation, s.value and s.value.integrity) for s in whole.history.steps}
    if not others <= results:
        raise RunConflict(
            f"run {run.id!r} is in {store.url} and went on elsewhere: the file has results that it"
            f" lacks. {another}"
        )
    return True


def _identity(run: RunRecord) -> tuple[object, ...]:
    """Return what no two runs have in common."""
    return run.created_at, run.workflow, run.inputs_digest


def _told(contents: Contents, run: RunRecord) -> dict[str, Any]:
    """Return what the story of an imported run tells of where it came from."""
    known = {
        "store": contents.store,
        "run": contents.run,
        "was": contents.status,
        "perdure": contents.perdure,
        "schedule": run.schedule,
        "trigger": run.trigger,
    }
    return {name: value for name, value in known.items() if value}
