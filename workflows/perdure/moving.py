"""Runs that move: into one file, and out of it into another store. Nothing of them runs by that."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING

from perdure.engine.ownership import driver_of, is_driven
from perdure.errors import RunConflict, StoreError
from perdure.plan import decode_plan
from perdure.runs import status_of
from perdure.runtime import Runtime
from perdure.submission import check_run_id
from perdure.words import count_of
from perdure_storage.durable_files import DISK, temporary_name
from perdure_storage.errors import RunFileRefused
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import RUN_LIVE
from perdure_storage.records import RunId, RunRecord, StoredValue, WholeRun
from perdure_storage.run_files import Contents, RunFile
from perdure_storage.schema import CURRENT
from perdure_storage.transfers import Place, bring_run, renamed, write_run

if TYPE_CHECKING:
    from perdure.client import Perdure

_PICKLED = "pickle/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file.

    Attributes:
        contents: what the file says of itself.
        run: as it is in the store now.
        is_new: whether it was brought; it was there already otherwise.
        pickled: what in it runs code of its maker's when it is read; "" if nothing does.
    """

    contents: Contents
    run: RunRecord
    is_new: bool
    pickled: str


# --- out ------------------------------------------------------------------------------------
def export_to(runtime: Runtime, run_id: RunId, target: Path, *, overwrite: bool) -> Contents:
    """Write a run into a file: whole, or not at all.

    Raises:
        StoreError: the file is there already and is not to be overwritten.
        OSError: the file cannot be written.
    """
    if target.exists() and not overwrite:
        raise StoreError(f"{target} is there already: name another file, or overwrite it")
    temporary = target.with_name(temporary_name())
    try:
        with temporary.open("xb") as file:
            contents = export_run(runtime, run_id, file)
            file.flush()
            DISK.file(file.fileno())
        crash_point("export.before-rename")
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too
            temporary.unlink()
        raise
    DISK.folder(target.parent)
    return contents


def export_run(runtime: Runtime, run_id: RunId, file: IO[bytes]) -> Contents:
    """Write a run that nobody drives.

    Raises:
        RunNotFound: there is none of that id.
        RunConflict: somebody drives it, or it has no plan yet.
        ValueDamaged: a value of it is not there, or is another.
    """
    run = runtime.store.get_run(run_id)
    if is_driven(run):
        raise RunConflict(
            f"run {run_id!r} is {run.status} and driven by {driver_of(run)}: export it when it has"
            f" ended, or type `perdure pause {run_id}` first"
        )
    if run.plan_digest is None:
        raise RunConflict(
            f"run {run_id!r} has no plan yet, so there is nothing to export: whoever drives it"
            " first builds it"
        )
    contents = Contents(
        perdure=version("perdure"),
        schema=CURRENT.head,
        store=runtime.store.store_id,
        run=run.id,
        workflow=run.workflow,
        status=str(status_of(run)),
        exported_at=runtime.clock.now(),
    )
    return write_run(_place_of(runtime), run, file, contents)


def told_of_export(contents: Contents) -> str:
    """Return what is said of a run that is not over and goes into a file, or ""."""
    if contents.status not in (*RUN_LIVE, "INTERRUPTED"):
        return ""
    return (
        f"run {contents.run} is {contents.status}, so it can go on here and where it is imported:"
        " let it go on in one of them"
    )


# --- in -------------------------------------------------------------------------------------
def import_run(store: Perdure, path: Path, *, new_id: str | None, trust: bool) -> Imported:
    """Make a run of a file one of a store: all of it, or nothing.

    Args:
        store: it is opened, or made, for a file that is taken.
        path: the file.
        new_id: its id here; that which it had if None.
        trust: take pickled values and functions, too.

    Raises:
        RunFileRefused: it is no exported run, is damaged, or holds pickles and is not trusted.
        RunConflict: the id is another run's here.
    """
    with RunFile(path, CURRENT.revisions) as file:
        whole = file.whole_run()
        if new_id is not None:
            whole = renamed(whole, RunId(new_id))
        check_run_id(whole.run.id)
        pickled = _pickled_in(path, whole)
        if pickled and not store.settings.allow_pickle:
            raise RunFileRefused(
                f"{path} holds {pickled}, and this store is open with allow_pickle=False: nobody"
                " could read them here. Import it into a store that has pickle"
            )
        if pickled and not trust:
            raise RunFileRefused(
                f"{path} holds {pickled}: to read them runs code that whoever made the file has"
                " chosen. If you trust them, say so: `perdure import --trust FILE`, trust=True"
            )
        runtime = store.runtime
        is_new = bring_run(_place_of(runtime), file, whole)
        run = runtime.store.get_run(whole.run.id)
        return Imported(contents=file.contents, run=run, is_new=is_new, pickled=pickled)


def told_of_import(imported: Imported) -> str:
    """Return what became of a file, for people."""
    contents, run = imported.contents, imported.run
    if not imported.is_new:
        return f"run {run.id} is there already: nothing was changed"
    name = "" if run.id == contents.run else f", there {contents.run}"
    said = f"run {run.id} is imported ({run.status}{name})"
    if run.status in RUN_LIVE:
        said += f"; it was {contents.status}. Go on with: perdure resume {run.id}"
    return said


def _pickled_in(path: Path, whole: WholeRun) -> str:
    """Return how many values, functions and exceptions in a run are pickled, in words."""
    try:
        plans = [decode_plan(plan.body) for plan in whole.plans]
    except (ValueError, RecursionError) as error:
        raise RunFileRefused(f"{path} cannot be imported: a plan in it is none") from error
    functions = sum(f.value is not None for plan in plans for f in plan.functions.values())
    constants = [constant for plan in plans for constant in plan.constants]
    values = sum(v.codec.startswith(_PICKLED) for v in (*constants, *_values_in(whole)))
    history = whole.history
    of_rows = (*(s.error for s in history.steps), *(a.error for a in history.attempts))
    errors = (whole.run.error, *of_rows)
    exceptions = sum(error is not None and error.pickled is not None for error in errors)
    found = {"value": values, "function": functions, "exception": exceptions}
    parts = [f"{count_of(number, f'pickled {what}')}" for what, number in found.items() if number]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)


def _values_in(whole: WholeRun) -> Iterator[StoredValue]:
    """Yield every value of a run that is stored in its rows."""
    history = whole.history
    yield from whole.run.inputs.values()
    for step in history.steps:
        yield from step.states.values()
        if step.value is not None:
            yield step.value
    for save in history.saves:
        yield save.value
    for message in whole.messages:
        yield message.value
    for wait in history.waits:
        if wait.default is not None:
            yield wait.default


def _place_of(runtime: Runtime) -> Place:
    return Place(store=runtime.store, blobs=runtime.blobs, logs=runtime.logs)
