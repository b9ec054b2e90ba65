"""The verb that writes a run down as a page: ``report``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from perdure.cli.endings import ExitCode, say
from perdure.cli.session import IdArgument, JsonOption, StoreOption, TracebackOption


def report(
    run_id: IdArgument,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to; default: the run's id with .html, here. - is the standard output.",
        ),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that is no report.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Write a page that shows a run: its graph, who ran when, its steps, errors and values.

    It is one file, complete by itself: it opens without a network, without the store and without
    Python, and can be sent to somebody. Runs that go on, wait or have failed are shown as they
    stand; write it again for what has happened since.

    Values are shown as they looked when they were committed: nothing is unpickled. What steps
    printed last and the sources that were recorded are in it: look at it before you send it away.
    """
    from perdure.cli.files import target_of, unwritable
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json
    from perdure.view.writing import EXAMPLE, default_name, is_page, page_of, write_report
    from perdure.words import size

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        target = target_of(
            output or default_name(run.id), force=force, may_go=is_page, example=EXAMPLE
        )
        if target is None:
            sys.stdout.buffer.write(page_of(run).encode())
            return ExitCode.OK
        try:
            written = write_report(run, target, force=force)
        except OSError as error:
            raise unwritable(target, error) from error
    size_bytes = written.stat().st_size
    if as_json:
        print(to_json({"run": run.id, "file": str(written), "size_bytes": size_bytes}))
    else:
        say(f"wrote {size(size_bytes)} to {target}: open it in a browser")
    return ExitCode.OK
