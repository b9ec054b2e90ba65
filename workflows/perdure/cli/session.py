"""What the verbs of one command line share, and the options that all of them have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from perdure.cli.completion import choices, run_ids, step_ids


@dataclass
class Session:
    """One command: what its ending has to know. Mutable, used by one thread."""

    show_traceback: bool = False
    run_id: str | None = None
    store: str | None = None


def session_of(context: typer.Context) -> Session:
    """Return the session of the command that runs."""
    session = context.find_object(Session)
    assert session is not None  # invoke() put it there
    return session


def _show_traceback(context: typer.Context, value: bool) -> bool:
    if value:
        session_of(context).show_traceback = True
    return value


def _remember_store(context: typer.Context, value: str | None) -> str | None:
    session_of(context).store = value
    return value


MOST = 1_000_000_000
"""The greatest number of rows, or of times, that can be asked for."""
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        callback=_remember_store,
        metavar="URL",
        help="sqlite:///..., postgresql://... or a file; default: the nearest .perdure/.",
    ),
]
TracebackOption = Annotated[
    bool,
    typer.Option(
        "--traceback",
        callback=_show_traceback,
        is_eager=True,
        help="With an error, show where in perdure it came from.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="Where steps run: processes, inline or ray.",
        autocompletion=choices("executor"),
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="How many CPUs steps may use at one time."),
]
CpusOption = Annotated[
    float | None,
    typer.Option("--cpus", metavar="N", help="CPUs that steps may use; default: --workers."),
]
GpusOption = Annotated[
    int | None,
    typer.Option(
        "--gpus", metavar="N", help="GPUs that steps may use; default: those that are found."
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", help="Memory that steps may ask for at one time, as 64GiB."
    ),
]
ResourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="NAME=AMOUNT",
        help="What else steps may ask for, and how much there is; may be repeated.",
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME=VALUE",
        help='What steps may ask for as resources={"NAME=VALUE": 1}; may be repeated.',
    ),
]
IdArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="A run's id, a unique prefix of it, or - for the last run.",
        autocompletion=run_ids,
    ),
]
StepArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STEP]",
        help="A step's id; without it all of the run.",
        autocompletion=step_ids,
    ),
]
