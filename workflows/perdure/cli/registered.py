"""What the verbs on schedules and those on triggers have in common: options, and a question."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from perdure.cli.endings import UsageError
from perdure.cli.session import MOST

ModulesArgument = Annotated[
    list[str],
    typer.Argument(metavar="MODULE...", help="FILE.py or package.module, one or several."),
]
PausedOption = Annotated[
    bool | None, typer.Option("--paused/--not-paused", help="Only those that are, or are not.")
]
LimitOption = Annotated[int, typer.Option(metavar="N", min=1, max=MOST, help="At most so many.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def may_remove(what: str, name: str, along: str, *, yes: bool) -> bool:
    """Say whether something may be removed, after asking for it.

    Args:
        what: a schedule, or a trigger.
        name: its name.
        along: what goes with it.
        yes: nobody is to be asked.

    Raises:
        UsageError: somebody is to be asked, and nobody is there.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"nobody can be asked here: say --yes to remove the {what}")
    return typer.confirm(f"Remove {what} {name} and its {along}?", err=True)
