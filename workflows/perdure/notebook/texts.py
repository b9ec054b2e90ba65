"""What runs and steps are where only text is shown: what the command line prints of them."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.cli.details import print_detail
from perdure.cli.tables import print_run, print_runs, text_of
from perdure.runs import Run, Step
from perdure.story import Siblings
from perdure.view.details import view_detail
from perdure.view.runs import view_run, view_runs


def tell_run(run: Run) -> str:
    """Return a run, its steps, and what to type."""
    view, now = view_run(run, Siblings(run)), run.runtime.clock.now()
    told = text_of(lambda out: print_run(view, now, out=out))
    return f"{told}\n\n{view.next}" if view.next else told


def tell_runs(runs: Sequence[Run]) -> str:
    """Return a line for each run."""
    if not runs:
        return "no runs"
    views, now = view_runs(runs), runs[0].runtime.clock.now()
    return text_of(lambda out: print_runs(views, now, out))


def tell_step(step: Step) -> str:
    """Return what is known of a step."""
    detail = view_detail(step, Siblings(step.run))
    return text_of(lambda out: print_detail(detail, out))
