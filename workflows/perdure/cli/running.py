"""Verbs that drive runs: ``run``, ``resume``, ``up``."""

from __future__ import annotations

import pprint
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.endings import ExitCode, Interrupted, say
from perdure.cli.session import (
    ExecutorOption,
    IdArgument,
    JsonOption,
    Session,
    StoreOption,
    TracebackOption,
    WorkersOption,
    session_of,
)
from perdure.errors import RunFailed
from perdure_storage.lifecycle import is_terminal
from perdure_storage.shapes import readable

if TYPE_CHECKING:
    from perdure.runs import Run


def run(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="FILE.py[:workflow] or package.module:workflow.")
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="--PARAMETER VALUE",
            help="The workflow's parameters; TARGET --help lists them.",
        ),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The run's id. One that exists is resumed."),
    ] = None,
    reuse: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Take over what has not changed since that run; 'last': the newest."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A tag; may be repeated.")
    ] = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    durability: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="step (default) or group.")
    ] = None,
    on_change: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="For a changed step of this id: recompute (default), reuse, fail."
        ),
    ] = None,
    on_failure: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="stop (default), or finish what does not depend on the failure."
        ),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="The run fails after it, such as 2h.")
    ] = None,
    if_exists: Annotated[
        str | None, typer.Option(metavar="WHAT", help="For an id that exists: resume or fail.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Record the run for `perdure up`; exit code 3.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Run a workflow durably and print its result."""
    from perdure.cli.opening import open_store
    from perdure.cli.parameters import read_tags
    from perdure.cli.targets import describe_parameters, read_inputs
    from perdure.target import load_target

    workflow = load_target(target)
    if parameters and parameters[-1] == "--help":
        print(describe_parameters(workflow, target))
        return ExitCode.OK
    options = {
        "run_id": run_id,
        "reuse": reuse,
        "tags": read_tags(tag) if tag else None,
        "executor": executor,
        "durability": durability,
        "on_change": on_change,
        "on_failure": on_failure,
        "deadline": deadline,
        "if_exists": if_exists,
    }
    given = {name: value for name, value in options.items() if value is not None}
    inputs = read_inputs(workflow, parameters or [])
    with open_store(store, executor=executor, workers=workers):
        if detach:
            submitted = workflow.submit(inputs=inputs, **given)
            say(f"run {submitted.id} is recorded; `perdure up` drives it")
            return ExitCode.SUSPENDED
        return _finish(workflow.start(inputs=inputs, **given), session_of(context), as_json=as_json)


def resume(
    context: typer.Context,
    run_id: IdArgument,
    code: Annotated[
        str,
        typer.Option(
            metavar="WHICH", help="recorded (with the run), or current for what has not committed."
        ),
    ] = "recorded",
    on_change: Annotated[
        str, typer.Option(metavar="WHAT", help="For changed steps: recompute, reuse, fail.")
    ] = "recompute",
    on_divergence: Annotated[
        str,
        typer.Option(metavar="WHAT", help="For rebuilt values that differ: fail, recompute, keep."),
    ] = "fail",
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Go on with a run that was interrupted, killed, cancelled, paused or that failed."""
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store, workers=workers) as perdure:
        found = find(perdure, run_id)
        session_of(context).run_id = found.id
        resumed = perdure.resume(
            found.id,
            code=code,
            on_change=on_change,
            on_divergence=on_divergence,
            executor=executor,
        )
        return _finish(resumed, session_of(context), as_json=as_json)


def up(
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    store: StoreOption = None,
    traceback: TracebackOption = False,
) -> int:
    """Drive the store's runs that nobody drives, until Ctrl-C or SIGTERM."""
    from perdure.cli.opening import open_store

    stop = threading.Event()
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    with open_store(store, executor=executor, workers=workers) as perdure:
        say(f"driving the runs of {perdure.runtime.store.url}; Ctrl-C stops, runs stay resumable")
        perdure.serve(stop)
    say("stopped")
    return ExitCode.CANCELLED if signal.SIGINT in received else ExitCode.OK


def _finish(run: Run, session: Session, *, as_json: bool) -> int:
    """Wait for the run's end and print its result."""
    session.run_id = run.id
    if not is_terminal(run.record.status):
        say(f"run {run.id} (if this process dies: {run.resume_command})")
    try:
        value = run.result()
    except KeyboardInterrupt:
        raise Interrupted(run.id) from None
    except RunFailed:
        error = run.record.error
        if error is not None and "  File " in error.traceback:
            say(error.traceback.rstrip())
        raise
    if as_json:
        from msgspec.structs import replace

        from perdure.cli.views import to_json, value_to_json, view_run

        print(to_json(replace(view_run(run), result=value_to_json(value))))
    elif value is not None:
        print(value if isinstance(value, str) else readable(pprint.pformat(value)))
    return ExitCode.OK
