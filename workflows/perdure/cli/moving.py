"""Verbs that move a run: ``export`` into one file, ``import`` out of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.endings import ExitCode, say
from perdure.cli.session import IdArgument, JsonOption, StoreOption, TracebackOption, session_of


def export(
    context: typer.Context,
    run_id: IdArgument,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; - is the standard output."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Write a run into one file: its rows, every value and function of it, its logs.

    `perdure import` makes a run of it in another store. A run that somebody drives is refused; one
    that is paused, waits or was interrupted goes as it stands, and is paused where it arrives.
    """
    from perdure.cli.files import target_of, unwritable
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json
    from perdure.moving import export_run, export_to, told_of_export
    from perdure.words import count_of, size
    from perdure_storage.records import RunId

    target = target_of(output, force=force)
    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        session_of(context).run_id = run.id
        if target is None:
            contents = export_run(perdure.runtime, RunId(run.id), sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return ExitCode.OK
        try:
            contents = export_to(perdure.runtime, RunId(run.id), target, overwrite=True)
        except OSError as error:
            raise unwritable(target, error) from error
    size_bytes = target.stat().st_size
    if as_json:
        told = {"file": str(target.absolute()), "size_bytes": size_bytes}
        print(to_json({"id": contents.run, "status": contents.status, **told}))
    else:
        beside = count_of(len(contents.blobs), "blob")
        say(f"wrote run {contents.run} to {target}: {size(size_bytes)}, {beside}")
    if told_of_export(contents):
        say(told_of_export(contents))
    return ExitCode.OK


def import_(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="What `export` wrote; - is the standard input.", show_default=False
        ),
    ],
    new_id: Annotated[
        str | None, typer.Option("--as", metavar="ID", help="Its id here, if not the same.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Take pickled values: to read them runs code of the file's maker."
        ),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Make a run of a file that `perdure export` wrote, in this store: whole, or not at all.

    It can be shown, reported, forked, run again, reused and resumed as in the store that it came
    from. Nothing of it runs, and nothing is unpickled, until you ask for that. The same file again
    changes nothing.
    """
    from perdure.cli.files import given
    from perdure.cli.opening import open_store
    from perdure.cli.views import to_json
    from perdure.moving import import_run, told_of_import

    with open_store(store) as perdure, given(file) as path:
        imported = import_run(perdure, path, new_id=new_id, trust=trust)
    run = imported.run
    session_of(context).run_id = run.id
    if as_json:
        told = {"new": imported.is_new, "pickled": imported.pickled or None}
        print(to_json({"id": run.id, "status": str(run.status), **told}))
    else:
        say(told_of_import(imported))
        if imported.is_new and imported.pickled:
            say(f"it holds {imported.pickled}, which run code of its maker's when they are read")
    return ExitCode.OK
