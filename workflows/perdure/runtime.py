"""The composition root: the whole wiring on one page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from perdure.engine.ownership import this_owner
from perdure.errors import DefinitionError, known_names
from perdure.fingerprint import plain_digest
from perdure.settings import EXECUTORS, FOLDER, Settings
from perdure_storage.blobs import BlobRoot, open_blobs
from perdure_storage.clock import Clock, SystemClock
from perdure_storage.codecs import Codecs
from perdure_storage.connect import no_place, open_run_store
from perdure_storage.logs import open_logs
from perdure_storage.protocols import LogStore, RunStore
from perdure_storage.reclaiming import reclaiming
from perdure_storage.records import RunCommit, RunId
from perdure_storage.signing import KeyFile
from perdure_storage.values import Values

if TYPE_CHECKING:
    from perdure.engine.coordinator import Coordinator
    from perdure.engine.loading import PlanFor
    from perdure.executors.protocol import Executor
    from perdure.observing import Observer


class Runtime:
    """Opened stores, and coordinators over them, for one ``Settings``."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        _make_folder(settings)
        self.rows = open_run_store(settings.store, key=key_of(settings), clock=self.clock)
        fresh = self.rows.check_blobs(settings.blobs_name)
        self.blobs: BlobRoot = open_blobs(
            settings.blobs, self.rows.store_id, bind=fresh, cache=settings.cache
        )
        # After the root has answered: a bucket that was misspelt is not to be the store's for ever.
        self.rows.bind_blobs(settings.blobs_name)
        self.store: RunStore = reclaiming(self.rows, self.blobs)
        self.logs: LogStore = open_logs(settings.blobs, self.store.store_id)
        codecs = Codecs(code_digest=plain_digest, allow_pickle=settings.allow_pickle)
        self.values = Values(codecs, self.blobs)
        self.metrics: Observer | None = None
        """Counts what is driven here: ``perdure up`` has it."""

    def coordinator(
        self,
        *,
        serves: bool = False,
        plan_for: PlanFor = lambda record: None,
        on_change: Callable[[str], None] = lambda run_id: None,
        on_commit: Callable[[RunCommit], None] = lambda commit: None,
        on_news: Callable[[], None] = lambda: None,
    ) -> Coordinator:
        """Return a new coordinator of this process; it holds nothing until it drives a run."""
        # What drives runs is imported by who drives them: most commands only look.
        from perdure.engine.coordinator import Coordinator

        return Coordinator(
            store=self.store,
            blobs=self.blobs,
            values=self.values,
            executors=self.executor,
            owner=this_owner(offer=self._offer() if serves else None),
            clock=self.clock,
            default_executor=self.settings.executor,
            plan_for=plan_for,
            on_change=on_change,
            on_commit=on_commit,
            on_news=on_news,
            observer=self._observer(),
        )

    def _offer(self) -> dict[str, float]:
        """Return how much steps may have that run where the settings say, in all."""
        if self.settings.executor == "ray":
            from perdure.executors.ray_cluster import capacity_of_cluster, connect, terms_of

            terms = terms_of(self.settings)
            return capacity_of_cluster(connect(terms), terms).offer
        from perdure.executors.capacity import capacity_of

        return capacity_of(self.settings).offer

    def _observer(self) -> Observer | None:
        """Return who counts and traces what is driven here; None if nobody does."""
        from perdure.observing import Observers
        from perdure.tracing import find_traces

        found = [each for each in (self.metrics, find_traces(self.clock)) if each is not None]
        return Observers(found) if found else None

    def executor(self, name: str) -> Executor:
        """Return a new executor of that name."""
        from perdure.executors.capacity import capacity_of
        from perdure.executors.inline import InlineExecutor
        from perdure.executors.processes import ProcessExecutor

        capacity = capacity_of(self.settings)
        if name == "inline":
            return InlineExecutor(capacity)
        if name == "processes":
            return ProcessExecutor(capacity)
        if name == "ray":
            from perdure.executors.ray_cluster import terms_of
            from perdure.executors.ray_executor import RayExecutor

            return RayExecutor(terms_of(self.settings))
        raise DefinitionError(f"no executor is called {name!r}{known_names(name, EXECUTORS)}")

    def sweep_deleted(self, run_id: RunId) -> None:
        """Remove what a deleted run left outside of the store; then its id is free again."""
        self.logs.delete(run_id)
        self.blobs.drop_spool(run_id)
        self.store.free_id(run_id)

    def close(self) -> None:
        """Close the stores. Idempotent."""
        self.store.close()


def _make_folder(settings: Settings) -> None:
    folder = settings.folder
    if folder is None or (folder.exists() and folder.name != FOLDER):
        return  # a folder of the user's own, in which other things may be
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_place(folder, error) from error
    ignore = folder / ".gitignore"
    if not ignore.exists():
        # The store is data, not source: it keeps itself out of the user's repository.
        with contextlib.suppress(OSError):  # a folder that cannot be written: opening says so
            ignore.write_text("*\n")


def key_of(settings: Settings) -> tuple[bytes, ...] | KeyFile | None:
    """Return the keys that sign the store's rows, older ones first, or where they are."""
    if settings.key is not None:
        return _from_hex(settings.key)
    folder = settings.folder
    return KeyFile(folder / "key") if folder is not None else None


def _from_hex(text: str) -> tuple[bytes, ...]:
    try:
        return tuple(bytes.fromhex(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise DefinitionError(
            "PERDURE_KEY is not hexadecimal: put in what the file `key` beside the store holds"
        ) from None
