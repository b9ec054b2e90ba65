"""Run ids as people type them: a unique prefix is enough, and ``-`` is the last run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.cli.endings import UsageError
from perdure_storage.records import RunId, RunQuery

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.runs import Run

LAST = "-"
_SHOWN = 5


def find(perdure: Perdure, text: str) -> Run:
    """Return the run that ``text`` names: an id, a unique prefix of one, or ``-``.

    Raises:
        RunNotFound: there is none.
        UsageError: several ids begin with it.
    """
    store = perdure.runtime.store
    if text == LAST:
        newest = store.list_runs(RunQuery(limit=1))
        return perdure.get_run(newest[0].id if newest else text)
    if not text or store.find_run(RunId(text)) is not None:
        return perdure.get_run(text)
    candidates = store.list_runs(RunQuery(id_prefix=text, limit=_SHOWN + 1))
    if len(candidates) > 1:
        names = [record.id for record in candidates[:_SHOWN]]
        more = ", ..." if len(candidates) > _SHOWN else ""
        raise UsageError(f"several runs begin with {text!r}: {', '.join(names)}{more}")
    return perdure.get_run(candidates[0].id if candidates else text)
