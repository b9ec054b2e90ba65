"""What ``perdure`` alone says: where to begin, and what is here already."""

from __future__ import annotations

import shlex

from perdure.cli.endings import ExitCode

_BEGIN = """perdure runs Python DAGs that survive: kill them, and they go on from the last result.

  perdure demo          see it: run, kill, resume, explained, in seconds
  perdure run FILE.py   run a workflow of yours
  perdure ls            list the runs

`perdure --help` lists the verbs, `perdure VERB --help` shows each with examples.
"""


def start() -> int:
    """Print where to begin, which store is used here, and its last run."""
    print(_BEGIN)
    for line in _here():
        print(line)
    return ExitCode.OK


def _here() -> list[str]:
    from perdure.cli.opening import NoStoreYet, open_existing
    from perdure.errors import PerdureError

    try:
        perdure = open_existing(None)
    except NoStoreYet as nothing:
        return [f"store     {nothing.store} (the first run makes it)"]
    except PerdureError as error:
        return [f"settings  {error}"]
    try:
        with perdure:
            store = perdure.runtime.store.url
            last = perdure.list_runs(limit=1)
            runs = [f"{run.id} is {run.status}: perdure show {shlex.quote(run.id)}" for run in last]
    except (PerdureError, OSError) as error:
        return [
            f"store     {perdure.settings.store} cannot be used: {error}",
            "next: perdure doctor",
        ]
    return [f"store     {store}", f"last run  {runs[0] if runs else 'none yet'}"]
