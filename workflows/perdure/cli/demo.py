"""``perdure demo``: an example that is written, run, killed, resumed and explained."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.session import TracebackOption

if TYPE_CHECKING:
    from perdure.cli.demo_stage import Stage, Tally

_RUN = ["run", "--id", "demo", "--workers", "2", "demo.py"]
_RESUME = ["resume", "demo"]
_SHOW_CURSOR = "\x1b[?25h"


def demo(
    folder: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Where the example goes: a new folder, or an empty one."
        ),
    ] = Path("perdure-demo"),
    traceback: TracebackOption = False,
) -> int:
    """See a run killed and resumed, in ten seconds.

    Writes an example of 40 lines into a folder of its own, runs it, kills it
    half-way with SIGKILL, all its processes too, resumes it by its id in a new
    process, and says what ran when. The folder stays: change the example, and
    run it again.
    """
    from perdure.cli.demo_stage import Stage

    # Whoever ends the demo ends its child too, which has a process group of its own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        with Stage(_write_example(folder)) as stage:
            return _play(stage)
    except KeyboardInterrupt:
        _leave_terminal_clean()
        say(f"stopped. The example stays: cd {_quote(folder)}, then {_line(_RESUME)}")
        return ExitCode.CANCELLED


def _write_example(folder: Path) -> Path:
    """Write the example that comes with perdure; return its folder.

    Raises:
        UsageError: something is there already.
    """
    from importlib.resources import files

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is there already, and a demo overwrites nothing", _hint(folder))
    folder.mkdir(parents=True, exist_ok=True)
    text = files("perdure.cli").joinpath("demo_example", "demo.py").read_text()
    with (folder / "demo.py").open("x") as file:
        file.write(text)
    return folder


def _hint(folder: Path) -> str:
    other = f"perdure demo --folder {_quote(folder.with_name(folder.name + '-2'))}"
    if not (folder / "demo.py").exists():
        return f"{other} takes another folder"
    return f"look at it: cd {_quote(folder)}, then perdure show demo; or: {other}"


def _play(stage: Stage) -> ExitCode:
    """Play the acts. A command that does not do as it should says itself why."""
    _tell("[bold]A run is killed with kill -9, and goes on.[/bold] It takes about ten seconds.")
    _tell_act(1, f"An example is written: {stage.folder / 'demo.py'}")
    _tell("   It draws a picture, and each row of it is a step.")
    _tell_act(2, "It is run", _RUN)
    stage.start(_RUN)
    if not stage.wait_until_half():
        say("error: the run ended before it could be killed")
        return ExitCode.FAILED
    victims = stage.kill()
    _leave_terminal_clean()
    kill = stage.tally()
    _tell_act(3, f"It is killed half-way: SIGKILL for it and the {victims - 1} processes below it")
    _tell_act(4, "It is resumed by its id, in a new process", _RESUME)
    stage.start(_RESUME)
    if stage.wait() != ExitCode.OK:
        say("error: the run could not be resumed")
        return ExitCode.FAILED
    tally = stage.tally_since(kill)
    _explain(stage, tally)
    _tell_next(stage)
    return ExitCode.FAILED if tally.twice else ExitCode.OK


def _explain(stage: Stage, tally: Tally) -> None:
    _tell_act(5, f"What has happened to its {tally.total} steps")
    for steps, what in (
        (tally.committed, "were committed before the kill"),
        (tally.in_flight, "were running when it came: nothing of them was kept"),
        (tally.after, "ran after it: the rest, and those anew"),
        (tally.twice, "ran twice though they were committed"),
    ):
        _tell(f"   {len(steps):>3}  {what}")
    _tell(
        f"   Each step adds a line to {stage.folder / 'ran.txt'} when it begins: the count is "
        "theirs, not perdure's."
    )
    for step_id in [*tally.committed[:1], *tally.in_flight[:1]]:
        _tell_command(["why", "demo", step_id])
        _tell(indent(_escape(stage.why(step_id)), "   "))


def _tell_next(stage: Stage) -> None:
    _tell("\n[bold]Now you[/bold]")
    exports = [
        (command, "your settings name another store") for command in stage.settings_to_export()
    ]
    commands = [
        ("perdure show demo", "its steps and their values"),
        (
            'perdure run --reuse demo demo.py --title "Hello"',
            "a new run, which takes all rows over",
        ),
        ("perdure run --reuse last demo.py", "after you have changed demo.py: what changed runs"),
        ("perdure ls", "the runs of this folder"),
    ]
    _tell(f"   [bold]cd {_escape(_quote(stage.folder))}[/bold]")
    for command, why in [*exports, *commands]:
        _tell(f"   [bold]{_escape(command)}[/bold]\n      {why}")


def _tell_act(number: int, text: str, command: list[str] | None = None) -> None:
    _tell(f"\n[bold]{number}. {_escape(text)}[/bold]")
    if command is not None:
        _tell_command(command)


def _tell_command(words: list[str]) -> None:
    _tell(f"   [cyan]$ {_escape(_line(words))}[/cyan]")


def _tell(text: str) -> None:
    from perdure.cli.tables import console

    console().print(text)


def _leave_terminal_clean() -> None:
    """End the line, and show the cursor, that a killed command has left as they were."""
    if sys.stderr is not None and sys.stderr.isatty():
        say(_SHOW_CURSOR)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _line(words: list[str]) -> str:
    return shlex.join(["perdure", *words])


def _quote(word: object) -> str:
    return shlex.quote(str(word))
