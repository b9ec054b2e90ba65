"""A run in one file: a zip archive of rows, values and logs, each with its size and digest.

    rows/step.jsonl     rows of one kind, a record a line
    blobs/<hex>         bytes of values, functions and sources, by their integrity digest
    logs/0              what one attempt printed
    contents.json       what is in the file, and which perdure made it

Nothing in it is compressed: values are compact as they are, and what is read of a file is never
more than the file, whoever made it. No name in it becomes a path, and nothing in it is decoded but
JSON. Its digests tell damage; who made it they do not tell.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import msgspec

from perdure_storage.errors import RunFileRefused
from perdure_storage.hashing import Hasher, hex_of, is_digest
from perdure_storage.records import (
    AttemptRecord,
    Buffer,
    Digest,
    EventRecord,
    ExpansionRecord,
    History,
    MessageRecord,
    PlanRecord,
    RunRecord,
    SaveRecord,
    StepId,
    StepRecord,
    WaitRecord,
    WholeRun,
)

FORMAT = 1
"""Grows when older code would misread a file. New fields of rows come with a new schema."""

KINDS: dict[str, type[msgspec.Struct]] = {
    "run": RunRecord,
    "plan": PlanRecord,
    "step": StepRecord,
    "attempt": AttemptRecord,
    "expansion": ExpansionRecord,
    "wait": WaitRecord,
    "save": SaveRecord,
    "event": EventRecord,
    "message": MessageRecord,
}
"""Rows by the names of their tables."""

CONTENTS = "contents.json"
_ZIP = b"PK\x03\x04"
_GZIP = b"\x1f\x8b"
_PIECE_BYTES = 1 << 20
_MOST_ROWS_BYTES = 4 << 30
_OLDEST = (1980, 1, 1, 0, 0, 0)
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    msgspec.MsgspecError,
    NotImplementedError,  # a compression, or a version of the format, that zipfile does not know
    RuntimeError,  # encrypted
    RecursionError,
    OverflowError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
)
T = TypeVar("T")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a file."""

    size_bytes: int
    digest: Digest


class LogPart(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt printed; its place among the logs is its name."""

    step_id: StepId
    generation: int
    attempt: int
    size_bytes: int
    digest: Digest


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a file.

    Attributes:
        perdure: version of the perdure that made it.
        schema: revision of the store that the run was in.
        store: id of that store.
        run, workflow, status: as people see them.
        rows: by the names of their tables.
        blobs: sizes in bytes.
    """

    format: int = FORMAT
    perdure: str
    schema: str
    store: str
    run: str
    workflow: str
    status: str
    exported_at: datetime
    rows: dict[str, Part] = {}
    blobs: dict[Digest, int] = {}
    logs: tuple[LogPart, ...] = ()


# --- writing --------------------------------------------------------------------------------
class RunFileWriter:
    """Writes a file part by part; what is written last makes it one. A context manager.

    Args:
        file: takes bytes; need not be one in which to go back.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._rows: dict[str, Part] = {}
        self._blobs: dict[Digest, int] = {}
        self._logs: list[LogPart] = []

    def __enter__(self) -> RunFileWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._zip.close()

    def add_rows(self, whole: WholeRun) -> None:
        """Write all rows of a run; the plan of an expansion lies among the plans."""
        encode = msgspec.json.Encoder().encode
        for kind, records in _by_kind(whole).items():
            lines = (encode(record) + b"\n" for record in records)
            self._rows[kind] = self._write(f"rows/{kind}.jsonl", lines)

    def add_blob(self, digest: Digest, size_bytes: int, pieces: Iterable[Buffer]) -> None:
        """Write a blob that was verified."""
        self._write(f"blobs/{hex_of(digest)}", pieces)
        self._blobs[digest] = size_bytes

    def add_log(
        self, step_id: StepId, generation: int, attempt: int, pieces: Iterator[bytes]
    ) -> None:
        """Write what an attempt printed, if it printed anything."""
        first = next(pieces, b"")
        if not first:
            return
        part = self._write(f"logs/{len(self._logs)}", chain([first], pieces))
        log = LogPart(
            step_id=step_id,
            generation=generation,
            attempt=attempt,
            size_bytes=part.size_bytes,
            digest=part.digest,
        )
        self._logs.append(log)

    def finish(self, contents: Contents) -> Contents:
        """Write what is in the file."""
        whole = msgspec.structs.replace(
            contents, rows=self._rows, blobs=self._blobs, logs=tuple(self._logs)
        )
        self._write(CONTENTS, [msgspec.json.format(msgspec.json.encode(whole), indent=1)])
        return whole

    def _write(self, name: str, pieces: Iterable[Buffer]) -> Part:
        hasher, size_bytes = Hasher(), 0
        # Of equal runs equal files, whenever they were written.
        with self._zip.open(zipfile.ZipInfo(name, _OLDEST), "w", force_zip64=True) as entry:
            for piece in pieces:
                entry.write(piece)
                hasher.update(piece)
                size_bytes += len(piece)
        return Part(size_bytes=size_bytes, digest=hasher.digest())


def _by_kind(whole: WholeRun) -> dict[str, tuple[msgspec.Struct, ...]]:
    history = whole.history
    return {
        "run": (whole.run,),
        "plan": whole.plans,
        "step": history.steps,
        "attempt": history.attempts,
        "expansion": tuple(map(_without_plan, history.expansions)),
        "wait": history.waits,
        "save": history.saves,
        "event": history.events,
        "message": whole.messages,
    }


def _without_plan(expansion: ExpansionRecord) -> ExpansionRecord:
    named = PlanRecord(digest=expansion.plan.digest, body=b"")
    return msgspec.structs.replace(expansion, plan=named)


# --- reading --------------------------------------------------------------------------------
class RunFile:
    """A file that somebody brought. Nothing in it is believed; a context manager.

    Args:
        path: the file.
        revisions: those of the schema that this code knows.

    Raises:
        RunFileRefused: it is no exported run, is damaged, or was made by a newer perdure.
    """

    def __init__(self, path: Path, revisions: Sequence[str]) -> None:
        self._path = path
        self._file = _opened(path)
        try:
            with self._explained():
                self._zip = zipfile.ZipFile(self._file)
                self._entries = self._survey()
                self.contents = self._read_contents(revisions)
                self._require_parts()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RunFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def whole_run(self) -> WholeRun:
        """Return the run's rows; their digests fit. Raises RunFileRefused."""
        with self._explained():
            rows = {kind: self._read_rows(kind) for kind in KINDS}
            (run,) = rows["run"]
            plans = {plan.digest: plan for plan in rows["plan"]}
            expansions = tuple(
                msgspec.structs.replace(each, plan=plans[each.plan.digest])
                for each in rows["expansion"]
            )
            return WholeRun(
                run=run,
                plans=rows["plan"],
                history=History(
                    steps=rows["step"],
                    attempts=rows["attempt"],
                    expansions=expansions,
                    waits=rows["wait"],
                    saves=rows["save"],
                    events=rows["event"],
                ),
                messages=rows["message"],
            )

    def blob(self, digest: Digest) -> Sequence[Buffer]:
        """Return the bytes of a blob, read anew by whoever iterates, in pieces."""
        pieces = _Pieces(self, f"blobs/{hex_of(digest)}")
        if self.contents.blobs[digest] > _PIECE_BYTES:
            return cast(Sequence[Buffer], pieces)
        return [b"".join(pieces)]

    def verify_logs(self) -> None:
        """Read all logs. Raises RunFileRefused if one is not what it was."""
        for number, log in enumerate(self.contents.logs):
            hasher = Hasher()
            for piece in self.log(number):
                hasher.update(piece)
            if hasher.digest() != log.digest:
                raise self.refused("a log in it is not what it was")

    def log(self, number: int) -> Iterator[bytes]:
        """Yield what an attempt printed, in pieces."""
        return iter(_Pieces(self, f"logs/{number}"))

    def refused(self, why: str) -> RunFileRefused:
        """Return the error for a file of which something is not as it should be."""
        return RunFileRefused(f"{self._path} cannot be imported: {why}. Export the run again")

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an entry. Raises RunFileRefused."""
        with self._explained(), self._zip.open(self._entries[name]) as entry:
            while piece := entry.read(_PIECE_BYTES):
                yield piece

    # --- looking before anything is believed --------------------------------------------------
    def _survey(self) -> dict[str, zipfile.ZipInfo]:
        """Return the entries by name: stored as they are, and together no longer than the file."""
        found = self._zip.infolist()
        entries = {entry.filename: entry for entry in found}
        is_plain = all(
            entry.compress_type == zipfile.ZIP_STORED
            and entry.file_size == entry.compress_size
            and not entry.flag_bits & 1
            for entry in found
        )
        size_bytes = os.fstat(self._file.fileno()).st_size
        if not is_plain or sum(entry.file_size for entry in found) > size_bytes:
            raise self.refused("its parts are compressed, encrypted or longer than the file")
        if len(entries) != len(found):
            raise self.refused("it has two parts of one name")
        return entries

    def _read_contents(self, revisions: Sequence[str]) -> Contents:
        if CONTENTS not in self._entries:
            raise self._no_run()
        text = b"".join(self.pieces(CONTENTS))
        version = msgspec.json.decode(text, type=_Version)
        if version.format != FORMAT or version.schema not in revisions:
            raise RunFileRefused(
                f"{self._path} was written by perdure {version.perdure[:40]!r}, which is newer"
                " than this one: upgrade with `pip install -U perdure`"
            )
        return msgspec.json.decode(text, type=Contents)

    def _require_parts(self) -> None:
        """Refuse a file in which is less, or more, than its contents say."""
        contents = self.contents
        if not all(map(is_digest, contents.blobs)) or contents.rows.keys() != KINDS.keys():
            raise self.refused("what it says of its contents is not what one says")
        sizes = {f"rows/{kind}.jsonl": part.size_bytes for kind, part in contents.rows.items()}
        if sum(sizes.values()) > _MOST_ROWS_BYTES:
            raise self.refused(f"it has more than {_MOST_ROWS_BYTES >> 30} GiB of rows")
        sizes |= {f"blobs/{hex_of(digest)}": size for digest, size in contents.blobs.items()}
        sizes |= {f"logs/{n}": log.size_bytes for n, log in enumerate(contents.logs)}
        there = {name: entry.file_size for name, entry in self._entries.items()}
        there.pop(CONTENTS)
        if sizes != there:
            raise self.refused("parts of it are missing, or are others than it says")

    def _read_rows(self, kind: str) -> tuple[Any, ...]:
        decode = msgspec.json.Decoder(KINDS[kind]).decode
        hasher, rows = Hasher(), []
        with self._zip.open(self._entries[f"rows/{kind}.jsonl"]) as entry:
            for line in entry:
                hasher.update(line)
                rows.append(decode(line))
        if hasher.digest() != self.contents.rows[kind].digest:
            raise self.refused(f"its rows of {kind}s are not what they were")
        return tuple(rows)

    def _no_run(self) -> RunFileRefused:
        return RunFileRefused(
            f"{self._path} is no exported run: `perdure export RUN -o FILE` makes one"
        )

    def _no_archive(self) -> RunFileRefused:
        self._file.seek(0)
        begins = self._file.read(len(_ZIP))
        if begins.startswith(_GZIP):
            return RunFileRefused(
                f"{self._path} is compressed: unpack it with `gunzip`, and import what that gives"
            )
        return self.refused("its end is missing") if begins == _ZIP else self._no_run()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except zipfile.BadZipFile as error:
            if hasattr(self, "contents"):
                raise self.refused(f"it is damaged ({error})") from error
            raise self._no_archive() from error
        except _BROKEN as error:
            raise self.refused(f"it is damaged ({error})") from error
        except OSError as error:
            raise self.refused(f"it cannot be read ({error.strerror or error})") from error


class _Version(msgspec.Struct, frozen=True):
    """What is asked of a file before anything else."""

    format: int
    perdure: str
    schema: str


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The bytes of an entry, never all of them at once."""

    file: RunFile
    name: str

    def __iter__(self) -> Iterator[bytes]:
        return self.file.pieces(self.name)


def _opened(path: Path) -> IO[bytes]:
    try:
        if not path.is_file():
            raise RunFileRefused(f"there is no file {path} to import")
        return path.open("rb")
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise RunFileRefused(f"{str(path)!r} cannot be read: {said}") from error
