"""Runs that wait for somebody: interrupted ones, and queued ones that nobody takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure.doctor.finding import Finding, ok, warning
from perdure.engine.ownership import is_seen_dead
from perdure.remedies import Shell, shell_of
from perdure.runs import status_of
from perdure.settings import Settings
from perdure.words import count_of
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunQuery, RunRecord

_LOOKED_AT = 1000
_NAMED = 3


def check_runs(settings: Settings, store: RunStore) -> Iterator[Finding]:
    """Yield what is to be said of runs that are not over."""
    shell, serves = shell_of(settings), _is_served(store)
    yield judge_interrupted(_interrupted(store), shell)
    yield judge_queued(_listed(store, RunStatus.QUEUED), shell, is_served=serves)


def _interrupted(store: RunStore) -> list[RunRecord]:
    running = _listed(store, RunStatus.RUNNING)
    return [run for run in running if status_of(run) is RunStatus.INTERRUPTED]


def _listed(store: RunStore, status: RunStatus) -> list[RunRecord]:
    return store.list_runs(RunQuery(status=(status,), limit=_LOOKED_AT))


def _is_served(store: RunStore) -> bool:
    return any(
        alive and owner.serves and not is_seen_dead(owner) for owner, alive in store.coordinators()
    )


def judge_interrupted(runs: Sequence[RunRecord], shell: Shell) -> Finding:
    """Say which runs were left by processes that are gone."""
    if not runs:
        return ok("interrupted runs", "none")
    said = f"{count_of(len(runs), 'run')} whose process is gone: {_names(runs)}"
    one, all_of_them = shell.resume(runs[0].id), shell.command("up")
    remedy = f"`{one}`" if len(runs) == 1 else f"`{one}` and so on, or all: `{all_of_them}`"
    return warning("interrupted runs", said, remedy)


def judge_queued(runs: Sequence[RunRecord], shell: Shell, *, is_served: bool) -> Finding:
    """Say whether queued runs wait for nobody."""
    if runs and not is_served:
        said = f"{count_of(len(runs), 'run')} that nobody takes: {_names(runs)}"
        return warning("queued runs", said, f"start `{shell.command('up')}`")
    served = "`perdure up` takes them" if is_served else "no `perdure up` is alive"
    return ok("queued runs", f"{len(runs)}; {served}")


def _names(runs: Sequence[RunRecord]) -> str:
    return ", ".join(run.id for run in runs[:_NAMED]) + (", ..." if len(runs) > _NAMED else "")
