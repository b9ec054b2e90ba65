"""Verbs that drive runs: ``run``, ``resume``, ``up``."""

from __future__ import annotations

import os
import pprint
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.completion import choices, queue_names, run_ids
from perdure.cli.endings import ExitCode, Interrupted, say
from perdure.cli.session import (
    CpusOption,
    ExecutorOption,
    GpusOption,
    IdArgument,
    JsonOption,
    LabelOption,
    MemoryOption,
    ResourceOption,
    Session,
    StoreOption,
    TracebackOption,
    WorkersOption,
    session_of,
)
from perdure.errors import PerdureError, RunFailed
from perdure_storage.lifecycle import is_terminal
from perdure_storage.shapes import readable

if TYPE_CHECKING:
    from perdure.client import Perdure
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
            metavar="ID",
            help="Take over what has not changed since that run; 'last': the newest one of this "
            "workflow; 'off': nothing, whatever the settings say.",
            autocompletion=run_ids,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A tag; may be repeated.")
    ] = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    durability: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="step (default) or group.",
            autocompletion=choices("durability"),
        ),
    ] = None,
    on_change: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="For a changed step of this id: recompute (default), reuse, fail.",
            autocompletion=choices("on_change"),
        ),
    ] = None,
    on_divergence: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="For rebuilt values that differ: fail, recompute, keep.",
            autocompletion=choices("on_divergence"),
        ),
    ] = None,
    on_failure: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="stop (default), or finish what does not depend on the failure.",
            autocompletion=choices("on_failure"),
        ),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="The run fails after it, such as 2h.")
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The queue in which it waits until its limits let it begin.",
            autocompletion=queue_names,
        ),
    ] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="N", help="Higher ones are first; default: 0.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="DURATION", help="It begins no earlier, such as 10m.")
    ] = None,
    limit_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="What its queue counts it under, too.")
    ] = None,
    dedup_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="One live run of its queue has it.")
    ] = None,
    if_duplicate: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="For a --dedup-key that is there: raise (default), or return that run.",
            autocompletion=choices("if_duplicate"),
        ),
    ] = None,
    if_exists: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="For an id that exists: resume or fail.",
            autocompletion=choices("if_exists"),
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Record the run for `perdure up`; exit code 3.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Run a workflow durably and print its result.

    Options of perdure stand before TARGET, parameters of the workflow after it, typed by its
    signature: --k 5, --xs 1 --xs 2 for a list, --shuffle and --no-shuffle for a bool, --cfg.lr 0.1
    for a field, or JSON for a list, a dict or a record. TARGET --help lists them.

    What a step returned is stored before anything uses it. After a kill, a crash or Ctrl-C
    `perdure resume ID` goes on from there. With --json the run is printed, also one that failed.
    """
    from perdure.cli.naming import find_id
    from perdure.cli.opening import open_store
    from perdure.cli.parameters import read_tags
    from perdure.cli.targets import describe_parameters, read_inputs, refuse_missing
    from perdure.settings import REUSES
    from perdure.target import load_target

    workflow = load_target(target)
    if parameters and parameters[-1] in ("--help", "-h"):
        print(describe_parameters(workflow, target))
        return ExitCode.OK
    options = {
        "run_id": run_id,
        "reuse": reuse,
        "tags": read_tags(tag) if tag else None,
        "executor": executor,
        "durability": durability,
        "on_change": on_change,
        "on_divergence": on_divergence,
        "on_failure": on_failure,
        "deadline": deadline,
        "queue": queue,
        "priority": priority,
        "delay": delay,
        "limit_key": limit_key,
        "dedup_key": dedup_key,
        "if_duplicate": if_duplicate,
        "if_exists": if_exists,
    }
    given = {name: value for name, value in options.items() if value is not None}
    own = {name for parameter in context.command.params for name in parameter.opts}
    inputs = read_inputs(workflow, parameters or [], options=own)
    refuse_missing(workflow, inputs, target)
    with open_store(store, executor=executor, workers=workers) as perdure:
        if reuse is not None and reuse not in REUSES:
            given["reuse"] = find_id(perdure.runtime.store, reuse)
        if detach:
            left = workflow.submit(inputs=inputs, **given)
            if not is_terminal(left.record.status):
                return _leave(perdure, left, as_json=as_json)
            return finish(perdure, left, session_of(context), as_json=as_json)
        made = perdure.begin(workflow, inputs=inputs, **given)
        return finish(perdure, made, session_of(context), as_json=as_json)


def resume(
    context: typer.Context,
    run_id: IdArgument,
    code: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="recorded (with the run), or current for what has not committed.",
            autocompletion=choices("code"),
        ),
    ] = "recorded",
    on_change: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="For changed steps: recompute, reuse, fail.",
            autocompletion=choices("on_change"),
        ),
    ] = "recompute",
    on_divergence: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="For rebuilt values that differ: fail, recompute, keep.",
            autocompletion=choices("on_divergence"),
        ),
    ] = "fail",
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Go on with a run that was interrupted, killed, cancelled, paused or that failed.

    What has committed does not run again. The code is the one that was recorded with the run;
    --code current takes today's for the steps that have not committed, after you have mended it.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing

    with open_existing(store, workers=workers) as perdure:
        found = find(perdure, run_id)
        session_of(context).run_id = found.id
        reopened = perdure.reopen(
            found.id,
            code=code,
            on_change=on_change,
            on_divergence=on_divergence,
            executor=executor,
        )
        return finish(perdure, reopened, session_of(context), as_json=as_json)


def up(
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE]...",
            help="FILE.py or package.module: register first the schedules and triggers that they "
            "declare.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where HTTP is served; default: 127.0.0.1."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="And its port; default: 7373."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Requests have to carry the token in it; else PERDURE_TOKEN."
        ),
    ] = None,
    max_body: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="The longest body of a request, a webhook's too; default: 1MiB."
        ),
    ] = None,
    no_http: Annotated[bool, typer.Option("--no-http", help="Serve nothing over HTTP.")] = False,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    cpus: CpusOption = None,
    gpus: GpusOption = None,
    memory: MemoryOption = None,
    resource: ResourceOption = None,
    label: LabelOption = None,
    drain: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How long steps may go on after SIGTERM; default: 10s."
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Drive the store's runs that nobody drives, and make those of schedules and triggers.

    It takes on what `perdure run --detach` and `submit` recorded, what drivers that died left
    behind, what schedules make when they are due, and what triggers make of what happens. It
    registers what modules declare before it serves, those that are named here and those of the
    setting `modules`, and pauses what they no longer declare; it ends if one of them cannot be
    imported. With --json it prints one line an event.

    SIGTERM ends it once the steps that run have ended, --drain at the most; its runs go to whoever
    else serves. A second one, or Ctrl-C, ends it at once.

    It takes runs on that ask for no more than there is here; others wait for a host that has it.

    Installed with its extra `http` it serves the same verbs, and webhooks, over HTTP on this
    machine: GET /openapi.json lists them. Beyond this machine it asks for a token.
    """
    from perdure.cli.http import served
    from perdure.cli.opening import open_store
    from perdure.executors.ray_presence import require_executor

    stop, hurry = threading.Event(), threading.Event()
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT or received:
            hurry.set()
        received.append(number)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    tell = _tell_json if as_json else _tell_text
    with open_store(
        store,
        executor=executor,
        workers=workers,
        cpus=cpus,
        gpus=gpus,
        memory=memory,
        resources=",".join(resource) if resource else None,
        labels=",".join(label) if label else None,
        http_host=host,
        http_port=port,
        drain=drain,
        http_max_body=max_body,
    ) as perdure:
        require_executor(perdure.settings.executor)
        url = perdure.runtime.store.url
        declared = dict.fromkeys([*perdure.settings.modules, *(modules or ())])
        if declared and (failed := _register(list(declared), perdure, tell)):
            return failed
        http = nullcontext() if no_http else served(perdure, list(declared), token_file, tell)
        with http:
            tell("serving", store=url)
            perdure.serve(stop, hurry=hurry)
        tell("stopped", store=url)
    return ExitCode.CANCELLED if signal.SIGINT in received else ExitCode.OK


def _register(modules: list[str], perdure: Perdure, tell: Callable[..., None]) -> int:
    """Register what modules declare; return how that failed, 0 if it did not.

    In a child process: who serves for weeks imports nothing of the user's, so that each run is of
    the code as it is then, and no import can take the server down.
    """
    from msgspec import json

    settings = perdure.settings
    words = ["schedule", "register", "--json", "--store", settings.store, *modules]
    here = {"PERDURE_BLOBS": settings.blobs, "PERDURE_EXECUTOR": settings.executor}
    child = subprocess.run(
        [sys.executable, "-m", "perdure", *words],
        env={**os.environ, **here},
        stdout=subprocess.PIPE,
        check=False,
    )
    if child.returncode == 0:
        for each in json.decode(child.stdout):
            tell("registered", **each)
    # Killed by a signal: -n. Otherwise it has said why.
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _tell_json(event: str, **more: str) -> None:
    from msgspec import json

    print(json.encode({"event": event, **more, "pid": os.getpid()}).decode(), flush=True)


def _tell_text(event: str, **more: str) -> None:
    if event == "serving":
        say(f"driving the runs of {more['store']}; Ctrl-C stops, runs stay resumable")
    elif event == "http":
        say(f"serving HTTP at {more['url']}")
    elif event == "no-http":
        say(f"serving nothing over HTTP: {more['why']}")
    elif event == "registered":
        say(f"{more['became']:<9} {more['name']}: {more['standing']}")
    else:
        say(event)


def _leave(perdure: Perdure, run: Run, *, as_json: bool) -> int:
    """Say that a run is recorded, and who drives it."""
    from perdure.cli.views import to_json
    from perdure.engine.ownership import is_seen_dead
    from perdure.remedies import shell_of
    from perdure.view.runs import view_run

    serving = [
        owner
        for owner, alive in perdure.runtime.store.coordinators()
        if alive and owner.serves and not is_seen_dead(owner)
    ]
    who = f" ({serving[0].place})" if serving else ", once there is one,"
    up = shell_of(perdure.settings).command("up")
    say(f"run {run.id} is recorded: `{up}`{who} drives it")
    if as_json:
        print(to_json(view_run(run)))
    return ExitCode.SUSPENDED


def finish(perdure: Perdure, run: Run, session: Session, *, as_json: bool) -> int:
    """Drive the run to its end and print its result, as JSON the run however it ended."""
    from msgspec.structs import replace

    from perdure.cli.views import to_json, value_to_json
    from perdure.view.runs import view_run

    session.run_id = run.id
    if not is_terminal(run.record.status) and not run.is_driven:
        say(f"run {run.id} (if this process dies: {run.resume_command})")
    try:
        value = perdure.drive(run)
    except KeyboardInterrupt:
        raise Interrupted(run.id) from None
    except PerdureError as error:
        if isinstance(error, RunFailed) and not session.show_traceback:  # which shows this one too
            _say_traceback(run)
        if as_json:
            print(to_json(view_run(run)))
        raise
    if as_json:
        print(to_json(replace(view_run(run), result=value_to_json(value))))
    elif value is not None:
        print(value if isinstance(value, str) else readable(pprint.pformat(value)))
    return ExitCode.OK


def _say_traceback(run: Run) -> None:
    from perdure.interactive import has_frames

    error = run.record.error
    if error is not None and has_frames(error.traceback):
        say(error.traceback.rstrip())
