"""The verbs, and what happens around each of them."""

from __future__ import annotations

from typing import Annotated

import typer

from perdure.cli import asking, looking, running
from perdure.cli.endings import ExitCode, report, say
from perdure.cli.session import Session

app = typer.Typer(
    name="perdure",
    help="Run Python DAGs that survive. Exit codes: 0 ok, 1 a run failed, 2 usage, 3 suspended, "
    "130 cancelled or Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Whatever follows the target belongs to the workflow, `--help` and dashes included.
app.command(context_settings={"allow_interspersed_args": False})(running.run)
app.command()(running.resume)
app.command()(looking.ls)
app.command()(looking.show)
app.command()(looking.logs)
app.command()(looking.why)
app.command()(asking.cancel)
app.command()(asking.pause)
app.command()(asking.delete)
app.command()(running.up)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"perdure {version('perdure')}")
        raise typer.Exit


@app.callback()
def perdure(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before the verb."""


def invoke(argv: list[str]) -> int:
    """Run one command and return its exit code; nothing of ours is raised."""
    session = Session()
    try:
        code = app(argv, standalone_mode=False, prog_name="perdure", obj=session)
    except typer.TyperException as error:  # the command line itself, as Typer reads it
        return _report_usage(error)
    except Exception as error:  # noqa: BLE001 - the outermost boundary: said, not thrown at people
        return report(error, run_id=session.run_id, show_traceback=session.show_traceback)
    return int(code or 0)


def _report_usage(error: typer.TyperException) -> int:
    """Say what is wrong with the words; without any words Typer has shown the help already."""
    message = error.format_message()
    if message:
        say(f"error: {message}")
        say("`perdure --help` and `perdure VERB --help` list what there is")
    return ExitCode.USAGE
