"""What `perdure schedule register`, `perdure trigger register` and `perdure up MODULE` do first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure.cli.endings import ExitCode, say
from perdure.queueing import said_limits

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.registering import Became


class BecameView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of something that a module declares, and how it stands now."""

    kind: str
    name: str
    became: str
    module: str
    standing: str


def register_modules(places: Sequence[str], store: str | None, *, as_json: bool) -> int:
    """Register what modules declare, pause what they no longer declare, and say so.

    Args:
        places: ``FILE.py`` or ``package.module``.
        store: where to.
        as_json: print it for programs.
    """
    from perdure.cli.opening import open_store
    from perdure.cli.views import to_json
    from perdure.target import load_module, name_of_place

    imported = {name_of_place(place): load_module(place) for place in places}
    with open_store(store) as perdure:
        views = [_view(perdure, each) for each in perdure.register(imported)]
    if as_json:
        print(to_json(views))
        return ExitCode.OK
    for view in views:
        say(f"{view.became:<9} {view.name}: {view.standing}")
    for module in sorted(imported.keys() - {view.module for view in views}):
        say(
            f"{module} declares nothing: write NAME = perdure.Schedule(...), perdure.Trigger(...) "
            "or perdure.Queue(...) in it"
        )
    return ExitCode.OK


def _view(perdure: Perdure, became: Became) -> BecameView:
    return BecameView(
        kind=became.kind,
        name=became.name,
        became=became.became,
        module=became.module,
        standing=_standing(perdure, became),
    )


def _standing(perdure: Perdure, became: Became) -> str:
    if became.kind == "queue":
        queue = perdure.runtime.store.queues.find_queue(became.name)
        return "" if queue is None else said_limits(queue)
    get = perdure.get_schedule if became.kind == "schedule" else perdure.get_trigger
    return get(became.name).standing
