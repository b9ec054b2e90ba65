"""Verbs that ask something of runs, or tell them: ``cancel``, ``pause``, ``signal``, ``emit``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.session import (
    IdArgument,
    JsonOption,
    StoreOption,
    TracebackOption,
    session_of,
)

if TYPE_CHECKING:
    from perdure.runs import Run


def cancel(
    context: typer.Context,
    run_id: IdArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Cancel a run: nothing new starts, its processes end. It can be resumed.

    What has committed stays. A run that another process drives is ended there; one that nobody
    drives is ended here.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        session_of(context).run_id = run.id
        perdure.cancel(run.id)
        _tell(run, f"run {run.id}: cancel requested; it is {run.status}", as_json=as_json)
    return ExitCode.OK


def pause(
    context: typer.Context,
    run_id: IdArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Let a run's running steps finish and start none; `perdure resume` goes on."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        session_of(context).run_id = run.id
        perdure.pause(run.id)
        _tell(run, f"run {run.id}: pause requested; it is {run.status}", as_json=as_json)
    return ExitCode.OK


def signal(
    context: typer.Context,
    run_id: IdArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which signal the run waits for.")],
    value: Annotated[
        str | None,
        typer.Option(metavar="VALUE", help="JSON, or text as the schema of the wait takes it."),
    ] = None,
    dedup_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Of several signals with one key the first counts."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Send a signal to a run, for its `wait_signal(NAME)`. One that nobody waits for is kept.

    The value is checked against the schema of the wait, if it has one. A run that sleeps is woken
    where `perdure up` runs, or by whoever drives it.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json
    from perdure.conversion import from_text_or_json
    from perdure.signalling import is_waited_for, send_signal

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        session_of(context).run_id = run.id
        given = None if value is None else _parsed(value)
        sent = send_signal(
            perdure.runtime, run.id, name, given, dedup_key=dedup_key, fit=from_text_or_json
        )
        is_awaited = is_waited_for(perdure.runtime, run.record.id, name)
    if as_json:
        print(to_json({"run_id": run.id, "name": name, "sent": sent is not None}))
    elif sent is None:
        say(f"run {run.id}: a signal {name!r} with key {dedup_key!r} was sent before; not again")
    else:
        kept = "" if is_awaited else "; no step of its graph waits for that name so far, it is kept"
        say(f"run {run.id}: signal {name!r} sent{kept}")
    return ExitCode.OK


def emit(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which event.")],
    payload: Annotated[
        str | None, typer.Option(metavar="JSON", help="What the waits have as their value.")
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="What it says about itself, JSON or text; repeatable."
        ),
    ] = None,
    dedup_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Of several events with one key the first counts."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Send an event to every run that waits for it, by `wait_event(NAME)`.

    Runs that exist already and come to wait for it later get it too.
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    pairs = [each.partition("=") for each in match or []]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise UsageError(f"--match {key!r} says nothing", "write --match NAME=VALUE")
    said = {key: _parsed(text) for key, _, text in pairs}
    given = None if payload is None else _payload(payload)
    with open_existing(store) as perdure:
        sent = perdure.emit(name, given, match=said, dedup_key=dedup_key)
    if as_json:
        print(to_json({"name": name, "sent": sent}))
    elif sent:
        say(f"event {name!r} sent")
    else:
        say(f"an event {name!r} with key {dedup_key!r} was sent before; not again")
    return ExitCode.OK


def _payload(text: str) -> object:
    """Return what JSON says. Raises UsageError for anything else: everybody would get a text."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"--payload {text}: it is no JSON ({error})",
            f"text is written in quotes: --payload '{json.dumps(text)}'",
        ) from None


def _parsed(text: str) -> object:
    """Return JSON as what it says, and any other text as itself."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def delete(
    run_id: IdArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Delete a finished run with its steps, events and logs. There is no way back.

    Its large values go with the next `perdure gc`, unless other runs hold them too.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        run = find(perdure, run_id)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("nobody can be asked here: say --yes to delete the run")
            if not typer.confirm(f"Delete run {run.id} ({run.status}) and its results?", err=True):
                return ExitCode.FAILED
        perdure.delete(run.id)
    if as_json:
        print(to_json({"id": run.id, "deleted": True}))
    else:
        say(f"run {run.id} is deleted")
    return ExitCode.OK


def _tell(run: Run, line: str, *, as_json: bool) -> None:
    """Say what became of the request: as the run stands now, or in a line."""
    from perdure.cli.views import to_json
    from perdure.view.runs import view_run

    if as_json:
        print(to_json(view_run(run)))
    else:
        say(line)
