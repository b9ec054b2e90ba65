"""Verbs that say what would run and what differs: ``explain`` (also ``plan``) and ``diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.completion import choices
from perdure.cli.deriving import (
    ForceOption,
    FromOption,
    InputOption,
    OnChangeOption,
    OverrideOption,
    input_words,
    options_of,
    read_overrides,
)
from perdure.cli.endings import ExitCode, UsageError
from perdure.cli.session import IdArgument, JsonOption, StoreOption, TracebackOption

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.explaining import Explanation


def explain(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="TARGET|ID",
            help="FILE.py[:workflow] or package.module:workflow, or a run's id.",
        ),
    ],
    verb: Annotated[
        str | None,
        typer.Option(
            metavar="VERB",
            help="Of an ID: resume, rerun or fork; by default fork if options of it are given, "
            "else resume.",
            autocompletion=choices("verb"),
        ),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Of a TARGET: as in `perdure run`.")
    ] = None,
    reuse: Annotated[
        str | None, typer.Option(metavar="ID", help="Of a TARGET: as in `perdure run`.")
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="Of a resume: recorded (default) or current.",
            autocompletion=choices("code"),
        ),
    ] = None,
    from_step: FromOption = None,
    force: ForceOption = None,
    override: OverrideOption = None,
    inputs: InputOption = None,
    on_change: OnChangeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Say of each step whether it would run or be reused, and why. Nothing runs.

    Of a TARGET it says what `perdure run` would do, of an ID what `perdure resume`, `perdure rerun`
    or `perdure fork` would.
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    of_target = {"run_id": run_id, "reuse": reuse, "on_change": on_change}
    of_run = {
        "verb": verb,
        "code": code,
        "from_step": from_step,
        "force": force,
        "overrides": read_overrides(override),
        "on_change": on_change,
    }
    with open_existing(store) as perdure:
        if _is_target(perdure, subject):
            _refuse(of_run, of_target, "a TARGET")
            explanation = _explain_target(perdure, subject, inputs, of_target)
        else:
            _refuse(of_target, of_run, "an ID")
            explanation = _explain_run(perdure, subject, inputs, of_run)
    print(to_json(explanation) if as_json else explanation)
    return ExitCode.OK


def diff(
    a: IdArgument,
    b: IdArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show what differs between two runs: parameters, code, steps and their values.

    An ID and itself: the values of its steps before and after they were computed again.
    """
    from perdure.cli.naming import find
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        difference = perdure.diff(find(perdure, a).id, find(perdure, b).id)
    print(to_json(difference) if as_json else difference)
    return ExitCode.OK


def _is_target(perdure: Perdure, text: str) -> bool:
    """Say whether ``text`` names a definition; a run whose id looks like one is meant first."""
    from perdure_storage.records import RunId

    looks_so = text.partition(":")[0].endswith(".py") or ":" in text
    return looks_so and perdure.runtime.store.find_run(RunId(text)) is None


def _refuse(foreign: dict[str, Any], own: dict[str, Any], subject: str) -> None:
    for name, value in foreign.items():
        if value is not None and name not in own:
            option = _SPELLED.get(name, f"--{name}")
            raise UsageError(f"{option} says nothing about {subject}", "see perdure explain --help")


_SPELLED = {"run_id": "--id", "from_step": "--from", "overrides": "--override"}


def _explain_target(
    perdure: Perdure, target: str, inputs: list[str] | None, options: dict[str, Any]
) -> Explanation:
    from perdure.cli.naming import find_id
    from perdure.cli.targets import read_inputs
    from perdure.target import load_target

    workflow = load_target(target)
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("reuse", "last") != "last":
        given["reuse"] = find_id(perdure.runtime.store, given["reuse"])
    given["inputs"] = read_inputs(workflow, input_words(inputs or []))
    return perdure.explain(workflow, **given)


def _explain_run(
    perdure: Perdure, run_id: str, inputs: list[str] | None, options: dict[str, Any]
) -> Explanation:
    from perdure.cli.naming import find

    run = find(perdure, run_id)
    given = options_of(run, options["verb"] or "fork", inputs=inputs, **options)
    return perdure.explain(run.id, **given)
