"""Verbs that make runs from runs, ``rerun`` and ``fork``, and one that only tries: ``spin``."""

from __future__ import annotations

import contextlib
import json
import pprint
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.completion import choices, step_ids
from perdure.cli.endings import ExitCode, UsageError
from perdure.cli.session import (
    IdArgument,
    JsonOption,
    StoreOption,
    TracebackOption,
    WorkersOption,
    session_of,
)
from perdure.errors import did_you_mean
from perdure_storage.shapes import readable

if TYPE_CHECKING:
    from perdure.runs import Run

InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=VALUE",
        help="Another value for a parameter; may be repeated.",
    ),
]
NewIdOption = Annotated[
    str | None, typer.Option("--new-id", metavar="ID", help="The new run's id; made by default.")
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="STEP",
        help="That step and everything downstream of it run again.",
        autocompletion=step_ids,
    ),
]
ForceOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STEP",
        help="That step runs again whatever was committed; 'failed': those that failed, caught "
        "errors included. A pattern or a name may mean many, as 'parse[*]' all items of a map; "
        "may be repeated.",
        autocompletion=step_ids,
    ),
]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STEP=JSON", help="That step does not run, its value is this; may be repeated."
    ),
]
OnChangeOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="For committed steps whose code changed: recompute (default), reuse, fail.",
        autocompletion=choices("on_change"),
    ),
]


def rerun(
    context: typer.Context,
    run_id: IdArgument,
    inputs: InputOption = None,
    new_id: NewIdOption = None,
    workers: WorkersOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Run a run again from the start, as a new run, with today's code.

    Nothing is reused. What was given to the run is given again, but for --input.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.running import finish

    with open_existing(store, workers=workers) as perdure:
        source = find(perdure, run_id)
        options = options_of(source, "rerun", inputs=inputs, new_id=new_id)
        made = perdure.begin_rerun(source.id, **options)
        return finish(perdure, made, session_of(context), as_json=as_json)


def fork(
    context: typer.Context,
    run_id: IdArgument,
    from_step: FromOption = None,
    force: ForceOption = None,
    override: OverrideOption = None,
    inputs: InputOption = None,
    on_change: OnChangeOption = None,
    new_id: NewIdOption = None,
    workers: WorkersOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Make a new run that takes over what is not downstream of a change, with today's code.

    A committed step is taken over if neither its code nor what it consumed has changed since.
    `perdure explain` with the same words says beforehand which are, and why.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.running import finish

    with open_existing(store, workers=workers) as perdure:
        source = find(perdure, run_id)
        options = options_of(
            source,
            "fork",
            from_step=from_step,
            force=force,
            overrides=read_overrides(override),
            inputs=inputs,
            on_change=on_change,
            new_id=new_id,
        )
        made = perdure.begin_fork(source.id, **options)
        return finish(perdure, made, session_of(context), as_json=as_json)


def spin(
    run_id: IdArgument,
    step_id: Annotated[
        str, typer.Argument(metavar="STEP", help="The step's id.", autocompletion=step_ids)
    ],
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Run one step alone, with what it took in that run and with today's code.

    It runs in this process, so a breakpoint in it works. Its value is printed and nothing is
    stored; what it prints goes to the standard error.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json, value_to_json

    with open_existing(store) as perdure:
        source = find(perdure, run_id)
        with contextlib.redirect_stdout(sys.stderr):
            value = perdure.spin(source.id, step_id)
    if as_json:
        print(to_json({"run": source.id, "step": step_id, "value": value_to_json(value)}))
    else:
        print(value if isinstance(value, str) else readable(pprint.pformat(value)))
    return ExitCode.OK


# --- what was typed ---------------------------------------------------------------------------
def options_of(
    run: Run, wanted: str, /, *, inputs: Sequence[str] | None, **options: Any
) -> dict[str, Any]:
    """Return the options that were given, inputs converted to the types of today's signature.

    Raises:
        UsageError: an input makes no sense.
        DefinitionError: the run's definition cannot be found again, or a value does not fit.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if inputs:
        from perdure.cli.targets import read_inputs
        from perdure.current_code import find_definition

        definition = find_definition(run.record, None, f"perdure.{wanted}({run.id!r})")
        refuse_unknown(definition, inputs)
        given["dag"] = definition
        given["inputs"] = read_inputs(definition, input_words(inputs))
    return given


def refuse_unknown(workflow: Any, inputs: Sequence[str]) -> None:
    """Raise UsageError if an ``--input`` names no parameter of the workflow."""
    known = [field.name for field in workflow.schema.fields]
    for text in inputs:
        name = re.split("[.=]", text, maxsplit=1)[0]
        if name and name.replace("-", "_") not in known:
            raise UsageError(
                f"--input {text}: {workflow.name} has no parameter {name!r}"
                f"{did_you_mean(name, known)}",
                f"its parameters: {', '.join(known) or 'none'}",
            )


def input_words(inputs: Sequence[str]) -> list[str]:
    """Return ``NAME=VALUE`` as the words that parameters of a workflow are written with."""
    for text in inputs:
        name, found, _ = text.partition("=")
        if not found or not name:
            raise UsageError(f"--input {text}: an input is written NAME=VALUE")
    return [f"--{text}" for text in inputs]


def read_overrides(words: Sequence[str] | None) -> dict[str, Any] | None:
    """Return ``STEP=JSON`` words as values by step. Raises UsageError for another form."""
    if not words:
        return None
    values: dict[str, Any] = {}
    for word in words:
        step, found, text = word.partition("=")
        if not found or not step:
            raise UsageError(f"--override {word}: a value is given as STEP=JSON")
        try:
            values[step] = json.loads(text)
        except ValueError as error:
            raise UsageError(
                f"--override {word}: {text!r} is no JSON ({error})",
                f"text is written in quotes: --override '{step}={json.dumps(text)}'",
            ) from None
    return values
