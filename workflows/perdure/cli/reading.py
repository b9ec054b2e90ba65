"""Verbs that read values: ``cat`` shows how they looked, ``get`` takes them out into a file."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.session import (
    IdArgument,
    JsonOption,
    StepArgument,
    StoreOption,
    TracebackOption,
    session_of,
)

if TYPE_CHECKING:
    from perdure.cli.formats import Writer
    from perdure.cli.previews import ValueView
    from perdure.client import Perdure
    from perdure.runs import Run

_SHOWN = 20


def cat(
    run_id: IdArgument,
    step_id: StepArgument = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show a value as it looked when it was committed: type, shape, first rows.

    It reads what was noted then: no value is loaded, decoded or unpickled, and no code runs.
    `perdure get` takes the value itself.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.previews import view_result, view_step_value
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        views = view_result(run) if step_id is None else [view_step_value(run[step_id])]
    if as_json:
        print(to_json({"run": run.id, "values": views}))
    else:
        _print(views)
    return ExitCode.OK


def get(
    context: typer.Context,
    run_id: IdArgument,
    step_id: StepArgument = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; - is the standard output."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Write a value into a file, in the format of its suffix.

    .json what JSON can say; .csv, .parquet, .arrow tables and frames; .npy arrays; .txt text;
    .bin bytes; .pkl anything (by cloudpickle). Text and bytes go into files of any other suffix
    as they are. To the standard output (-o -) text and bytes go as they are, all else as JSON.

    Only values that were pickled when they were stored are unpickled, which runs the code in
    them: `perdure cat` shows the codec of each. The file is there whole or not at all.
    """
    from perdure.cli.files import target_of
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    target = target_of(output, force=force)
    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        session_of(context).run_id = run.id
        value = _value(perdure, run, step_id)
        if target is None:
            _to_stdout(value, as_json=as_json)
        else:
            _to_file(value, target, as_json=as_json)
    return ExitCode.OK


def _print(views: list[ValueView]) -> None:
    from perdure.cli.previews import print_value

    for index, view in enumerate(views[:_SHOWN]):
        if index:
            print()
        print_value(view)
    if len(views) > _SHOWN:
        say(f"and {len(views) - _SHOWN:,} more: --json lists all")


def _value(perdure: Perdure, run: Run, step_id: str | None) -> Any:
    from perdure.results import read_result

    if step_id is not None:
        return run[step_id].result()
    if run.status != "SUCCEEDED":
        raise UsageError(
            f"run {run.id} is {run.status}: it has no result",
            f"its steps, which may have values: perdure show {run.id}",
        )
    return read_result(perdure.runtime, run.record)


def _to_stdout(value: Any, *, as_json: bool) -> None:
    from perdure.cli.formats import FORMATS, write, writer_for_stdout

    writer = FORMATS[".json"] if as_json else writer_for_stdout(value)
    whole = io.BytesIO()  # nothing is written of what cannot be written to its end
    write(value, writer, whole, "JSON")
    sys.stdout.buffer.write(whole.getbuffer())
    sys.stdout.buffer.flush()


def _to_file(value: Any, target: Path, *, as_json: bool) -> None:
    from perdure.cli.formats import writer_for
    from perdure.cli.views import to_json
    from perdure.words import size

    writer = writer_for(target.suffix, value)
    size_bytes = _write_whole(value, writer, target)
    if as_json:
        print(to_json({"file": str(target.absolute()), "size_bytes": size_bytes}))
    else:
        say(f"wrote {size(size_bytes)} to {target}")


def _write_whole(value: Any, writer: Writer, target: Path) -> int:
    """Write beside the target and put it in place when all of it is on the disk."""
    from perdure.cli.files import unwritable
    from perdure.cli.formats import write
    from perdure_storage.durable_files import DISK, temporary_name

    temporary = target.with_name(temporary_name())
    try:
        with temporary.open("xb") as file:
            write(value, writer, file, target.suffix)
            size_bytes = _flushed(file)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too
            temporary.unlink()
        if isinstance(error, OSError):  # it names a file that nobody typed
            raise unwritable(target, error) from error
        raise
    DISK.folder(target.parent)
    return size_bytes


def _flushed(file: IO[bytes]) -> int:
    from perdure_storage.durable_files import DISK

    file.flush()
    DISK.file(file.fileno())
    return os.fstat(file.fileno()).st_size
