"""The verbs, and what happens around each of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from perdure.cli import (
    activity,
    asking,
    comparing,
    configuring,
    demo,
    deriving,
    doctor,
    keeping,
    looking,
    moving,
    queueing,
    reading,
    reporting,
    running,
    scheduling,
    triggering,
)
from perdure.cli.endings import ExitCode, report
from perdure.cli.examples import epilog
from perdure.cli.flags import Verb, Verbs
from perdure.cli.session import Session
from perdure.cli.usage import report_usage

app = typer.Typer(
    name="perdure",
    cls=Verbs,
    help="Run Python DAGs that survive. Exit codes: 0 ok, 1 a run failed, 2 usage, 3 suspended, "
    "130 cancelled or Ctrl-C.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
RUN, LOOK, ASK, KEEP, HELP = "Run", "Look", "Ask", "Keep", "Help"


def _add(verb: Callable[..., int], panel: str, alias: str = "", **settings: Any) -> None:
    """Make a function a verb: its name, its docstring, its examples."""
    name = alias or verb.__name__
    app.command(
        name,
        cls=Verb,
        help=_paragraphs(verb),
        rich_help_panel=panel,
        epilog=epilog(name),
        context_settings=settings,
    )(verb)


def _paragraphs(verb: Callable[..., int]) -> str:
    """Return a docstring with each paragraph as one line: a terminal breaks it where it ends."""
    blocks = (verb.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks).strip()


# Whatever follows the target belongs to the workflow, `--help` and dashes included.
_add(running.run, RUN, allow_interspersed_args=False)
_add(running.resume, RUN)
_add(deriving.rerun, RUN)
_add(deriving.fork, RUN)
_add(deriving.spin, RUN)
_add(running.up, RUN)
_add(demo.demo, RUN)
app.add_typer(scheduling.schedule, name="schedule", rich_help_panel=RUN)
app.add_typer(triggering.trigger, name="trigger", rich_help_panel=RUN)
app.add_typer(queueing.queue, name="queue", rich_help_panel=RUN)
_add(looking.ls, LOOK)
_add(activity.top, LOOK)
_add(looking.show, LOOK)
_add(looking.logs, LOOK)
_add(looking.why, LOOK)
# Here the options of perdure's may stand after the target too: what is unknown is the workflow's.
_add(comparing.explain, LOOK, ignore_unknown_options=True)
_add(comparing.explain, LOOK, alias="plan", ignore_unknown_options=True)
_add(comparing.diff, LOOK)
_add(reporting.report, LOOK)
_add(reading.cat, LOOK)
_add(reading.get, LOOK)
_add(asking.cancel, ASK)
_add(asking.pause, ASK)
_add(asking.signal, ASK)
_add(asking.emit, ASK)
_add(asking.delete, KEEP)
_add(moving.export, KEEP)
_add(moving.import_, KEEP, alias="import")
_add(keeping.gc, KEEP)
app.add_typer(keeping.db, name="db", rich_help_panel=KEEP)
_add(doctor.doctor, HELP)
app.add_typer(configuring.config, name="config", rich_help_panel=HELP)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"perdure {version('perdure')}")
        raise typer.Exit


@app.callback()
def perdure(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before the verb; without a verb say where to begin."""
    if context.invoked_subcommand is None:
        from perdure.cli.start import start

        raise typer.Exit(start())


def invoke(argv: list[str]) -> int:
    """Run one command and return its exit code; nothing of ours is raised."""
    session = Session()
    _print_anything()
    try:
        code = int(app(argv, standalone_mode=False, prog_name="perdure", obj=session) or 0)
        sys.stdout.flush()  # here, where a reader that has gone can still be met quietly
    except typer.TyperException as error:  # the command line itself, as Typer reads it
        return report_usage(error, argv, verbs())
    except typer.Abort:  # Ctrl-C or Ctrl-D where something was asked
        return ExitCode.CANCELLED
    except BrokenPipeError:
        return _without_a_reader()
    except SystemExit as ended:  # completion ends so, and Typer where a pipe is closed
        if isinstance(ended.__context__, BrokenPipeError):
            return _without_a_reader()
        return int(ended.code or 0)
    except Exception as error:  # noqa: BLE001 - the outermost boundary: said, not thrown at people
        return report(
            error,
            run_id=session.run_id,
            store=session.store,
            show_traceback=session.show_traceback,
        )
    return code


def verbs() -> list[str]:
    """Return the whole names of all verbs: ``"run"``, ``"db check"``."""
    names: list[str] = []
    for name, command in typer.main.get_group(app).commands.items():
        below = getattr(command, "commands", None)
        names += [name] if below is None else [f"{name} {each}" for each in below]
    return names


def _print_anything() -> None:
    """Let no character end a command: what an encoding lacks is written in escapes."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # a text file has it, a stand-in not
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _without_a_reader() -> int:
    """End quietly: whoever read our output, such as ``head``, has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
    return ExitCode.OK
