"""Names as people type them: a unique prefix is enough, and of runs ``-`` is the last one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from perdure.cli.endings import UsageError
from perdure.errors import RunNotFound
from perdure_storage.records import RunId, RunQuery

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.runs import Run
    from perdure_storage.protocols import RunStore

LAST = "-"
_SHOWN = 5


def find(perdure: Perdure, text: str) -> Run:
    """Return the run that ``text`` names: an id, a unique prefix of one, or ``-``.

    Raises:
        RunNotFound: there is none.
        UsageError: several ids begin with it.
    """
    return perdure.get_run(find_id(perdure.runtime.store, text))


def find_id(store: RunStore, text: str) -> RunId:
    """Return the id that ``text`` means; ``text`` itself where the store has nothing like it.

    Raises:
        RunNotFound: no run can have such an id.
        UsageError: several ids begin with it.
    """
    if text == LAST:
        newest = store.list_runs(RunQuery(limit=1))
        return newest[0].id if newest else RunId(text)
    if not _may_be_an_id(text):
        raise RunNotFound(text, store.url)
    if store.find_run(RunId(text)) is not None:
        return RunId(text)
    candidates = store.list_runs(RunQuery(id_prefix=text, limit=_SHOWN + 1))
    if len(candidates) > 1:
        names = [record.id for record in candidates[:_SHOWN]]
        more = ", ..." if len(candidates) > _SHOWN else ""
        raise UsageError(
            f"several runs begin with {text!r}: {', '.join(names)}{more}", "type more of the id"
        )
    return candidates[0].id if candidates else RunId(text)


def by_prefix(text: str, begin_so: Callable[[str, int], list[str]], nouns: str) -> str:
    """Return the name that ``text`` means; ``text`` itself where nothing begins like it.

    Args:
        text: a name, or a unique prefix of one.
        begin_so: gives the names that begin so, sorted, at most so many.
        nouns: what they name, for the message.

    Raises:
        UsageError: several begin with it.
    """
    near = begin_so(text, _SHOWN + 1) if text and text.isprintable() else []
    if len(near) > 1 and near[0] != text:
        more = ", ..." if len(near) > _SHOWN else ""
        raise UsageError(
            f"several {nouns} begin with {text!r}: {', '.join(near[:_SHOWN])}{more}",
            "type more of the name",
        )
    return near[0] if near else text


def _may_be_an_id(text: str) -> bool:
    """Say whether it could be one; what a store could not even look for is none."""
    return bool(text) and text.isprintable()  # half a surrogate pair is not printable either
