"""Verbs that say what would run and what differs: ``explain`` (also ``plan``) and ``diff``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
from perdure.errors import did_you_mean
from perdure.settings import REUSES

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.explaining import Explanation


def explain(
    context: typer.Context,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="TARGET|ID",
            help="FILE.py[:workflow] or package.module:workflow, or a run's id.",
        ),
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="--PARAMETER VALUE",
            help="Of a TARGET: the workflow's parameters, as in `perdure run`. Of an ID, and where "
            "an option here has the same name: --input.",
        ),
    ] = None,
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
    show_all: Annotated[
        bool, typer.Option("--all", help="A row for each step, however many there are.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Say of each step whether it would run or be reused, and why. Nothing runs.

    Of a TARGET it says what `perdure run` would do, of an ID what `perdure resume`, `perdure rerun`
    or `perdure fork` would. Of many steps those of which the same is said have one row.
    """
    from perdure.cli.opening import open_existing, open_or_empty
    from perdure.cli.views import to_json

    own = {name for parameter in context.command.params for name in parameter.opts}
    _refuse_misspelt(subject, own)
    of_target = {"run_id": run_id, "reuse": reuse, "on_change": on_change}
    of_run = {
        "verb": verb,
        "code": code,
        "from_step": from_step,
        "force": force,
        "overrides": read_overrides(override),
        "on_change": on_change,
    }
    needs_a_past = not _looks_like_a_target(subject) or reuse not in (None, *REUSES)
    with open_existing(store) if needs_a_past else open_or_empty(store) as perdure:
        if _is_target(perdure, subject):
            _refuse(of_run, of_target, "a TARGET")
            words = [*(parameters or []), *input_words(inputs or [])]
            explanation = _explain_target(perdure, subject, words, of_target)
        else:
            _refuse(of_target, of_run, "an ID")
            _refuse_words(parameters or [], own)
            explanation = _explain_run(perdure, subject, inputs, of_run)
    if as_json:
        print(to_json(explanation))
    else:
        print(explanation.full if show_all else explanation)
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

    return _looks_like_a_target(text) and perdure.runtime.store.find_run(RunId(text)) is None


def _looks_like_a_target(text: str) -> bool:
    return text.endswith(".py") or ":" in text


def _refuse_misspelt(subject: str, own: Collection[str]) -> None:
    """Refuse an option that is not there, where whose words those are cannot be known yet."""
    if subject.startswith("-") and subject != "-":
        raise UsageError(
            f"there is no option {subject}{did_you_mean(subject, own)}",
            "parameters of a workflow stand after its name: perdure explain TARGET --name value",
        )


def _refuse_words(words: Sequence[str], own: Collection[str]) -> None:
    """Refuse what stands after an ID: its parameters are known, others are given by --input."""
    if not words:
        return
    word = words[0].partition("=")[0]
    if not word.startswith("--"):
        raise UsageError(f"unexpected word {word!r} after an ID", "see perdure explain --help")
    raise UsageError(
        f"there is no option {word}{did_you_mean(word, own)}",
        "another value for a parameter of an ID is given so: "
        f"--input {word.removeprefix('--').replace('-', '_')}=VALUE",
    )


def _refuse(foreign: dict[str, Any], own: dict[str, Any], subject: str) -> None:
    for name, value in foreign.items():
        if value is not None and name not in own:
            option = _SPELLED.get(name, f"--{name}")
            raise UsageError(f"{option} says nothing about {subject}", "see perdure explain --help")


_SPELLED = {"run_id": "--id", "from_step": "--from", "overrides": "--override"}


def _explain_target(
    perdure: Perdure, target: str, words: Sequence[str], options: dict[str, Any]
) -> Explanation:
    from perdure.cli.naming import find_id
    from perdure.cli.targets import read_inputs, refuse_missing
    from perdure.target import load_target

    workflow = load_target(target)
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("reuse", "last") not in REUSES:
        given["reuse"] = find_id(perdure.runtime.store, given["reuse"])
    given["inputs"] = read_inputs(workflow, words)
    refuse_missing(workflow, given["inputs"], target)
    return perdure.explain(workflow, **given)


def _explain_run(
    perdure: Perdure, run_id: str, inputs: list[str] | None, options: dict[str, Any]
) -> Explanation:
    from perdure.cli.naming import find

    run = find(perdure, run_id)
    given = options_of(run, options["verb"] or "fork", inputs=inputs, **options)
    return perdure.explain(run.id, **given)
