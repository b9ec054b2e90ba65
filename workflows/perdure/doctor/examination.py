"""All checks in their order: the machine, the settings, the store, its blobs, its runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perdure.doctor.blob_root import check_blobs
from perdure.doctor.clocks import check_clock
from perdure.doctor.finding import Finding, ok, problem, warning
from perdure.doctor.machine import check_machine
from perdure.doctor.stores import check_rows, check_store
from perdure.doctor.waiting import check_runs
from perdure.errors import PerdureError
from perdure.settings import Settings, unknown_variables
from perdure_storage.clock import Clock, SystemClock
from perdure_storage.roots import public_url
from perdure_storage.sql_runs import SqlRunStore


def examine(load: Callable[[], Settings], clock: Clock | None = None) -> Iterator[Finding]:
    """Yield what each check found. Safe beside live runs; nothing but probe files is written.

    Args:
        load: gathers the settings.
        clock: this machine's, unless given.
    """
    clock = clock or SystemClock()
    yield from check_machine()
    try:
        settings = load()
    except PerdureError as error:
        yield problem("settings", str(error))
        return
    yield from _check_settings(settings)
    store = yield from check_store(settings, clock)
    if store is not None:
        try:
            yield from _check_contents(settings, store, clock)
        finally:
            store.close()


def _check_settings(settings: Settings) -> Iterator[Finding]:
    for said in unknown_variables():
        yield warning("settings", said, "`perdure config show --origin` shows those there are")
    told = {name: source for name, source in settings.origin.items() if source != "default"}
    origins = ", ".join(f"{name} from {source}" for name, source in told.items())
    yield ok(
        "settings", f"{origins or 'all by default'}; the store is {public_url(settings.store)}"
    )


def _check_contents(settings: Settings, store: SqlRunStore, clock: Clock) -> Iterator[Finding]:
    try:
        yield check_rows(settings, store)
        yield from check_blobs(settings, store, clock)
        yield from check_runs(settings, store)
        yield from check_clock(settings, store, clock)
    except PerdureError as error:  # a row that was tampered with, a store that went away
        yield problem("store", str(error))
