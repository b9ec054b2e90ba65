"""``doctor``: finds what is wrong here and says how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from perdure.cli.endings import ExitCode
from perdure.cli.session import JsonOption, StoreOption, TracebackOption

if TYPE_CHECKING:
    from perdure.doctor.finding import Finding


def doctor(
    store: StoreOption = None, as_json: JsonOption = False, traceback: TracebackOption = False
) -> int:
    """Look for what is wrong: machine, settings, store, blobs, key, disks, runs, clock.

    Nothing is changed but for probe files that are removed again; safe beside live runs. Exit
    code 1 if there is a problem; warnings do not count.
    """
    from perdure.doctor.examination import examine
    from perdure.doctor.finding import Verdict
    from perdure.settings import load_settings

    findings = list(examine(lambda: load_settings(store=store)))
    if as_json:
        from perdure.cli.views import to_json

        print(to_json(findings))
    else:
        _print(findings)
    has_problem = any(each.verdict is Verdict.PROBLEM for each in findings)
    return ExitCode.FAILED if has_problem else ExitCode.OK


def _print(findings: Iterable[Finding]) -> None:
    from rich.text import Text

    from perdure.cli.tables import console

    out = console()
    for finding in findings:
        line = Text(f"{finding.verdict:<8} ", style=_COLOURS[finding.verdict])
        line.append(f"{finding.check}: {finding.said}", style="default")
        out.print(line, soft_wrap=True)
        if finding.remedy:
            out.print(Text(f"         {finding.remedy}"), soft_wrap=True)


_COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}
