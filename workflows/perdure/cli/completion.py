"""What a shell may complete: runs, steps, workflows, statuses, the words that options know.

Read from the store that is there; where there is none, or it does not answer, there is nothing to
complete and nothing is said: a shell prints whatever goes wrong into the line that somebody types.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from perdure_storage.protocols import RunStore

Words = list[tuple[str, str]]
"""What may stand there, each with a line about it."""

_LIMIT, _LATELY = 100, 1000

CHOICES = {
    "executor": ("processes", "inline", "ray"),
    "durability": ("step", "group"),
    "on_change": ("recompute", "reuse", "fail"),
    "on_failure": ("stop", "finish"),
    "on_divergence": ("fail", "recompute", "keep"),
    "if_duplicate": ("raise", "return"),
    "if_exists": ("resume", "fail"),
    "code": ("recorded", "current"),
    "decision": (
        "fired",
        "used",
        "held",
        "expired",
        "filtered",
        "refused",
        "deferred",
        "skipped",
        "baseline",
    ),
    "reprocess": ("none", "failed", "all"),
    "verb": ("resume", "rerun", "fork"),
}
"""The words that an option knows. The verbs themselves refuse others; here they are offered."""


def choices(option: str) -> Callable[[str], list[str]]:
    """Return what completes the words of an option."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in CHOICES[option] if word.startswith(incomplete)]

    return complete


def statuses(incomplete: str) -> list[str]:
    """Complete the status of a run, in the case in which somebody types it."""
    from perdure_storage.lifecycle import RunStatus

    names = [status.value for status in RunStatus]
    return names if incomplete.isupper() else [name.lower() for name in names]


def step_statuses(incomplete: str) -> list[str]:
    """Complete the status of a step, in the case in which somebody types it."""
    from perdure_storage.lifecycle import StepStatus

    names = [status.value for status in StepStatus]
    return names if incomplete.isupper() else [name.lower() for name in names]


def run_ids(context: typer.Context, incomplete: str) -> Words:
    """Complete a run's id: the newest ones that begin so."""

    def read(store: RunStore) -> Words:
        from perdure_storage.records import RunQuery

        runs = store.list_runs(RunQuery(id_prefix=incomplete, limit=_LIMIT))
        return [(run.id, f"{run.workflow}, {run.status}") for run in runs if " " not in run.id]

    return _ask_store(context, read)


def step_ids(context: typer.Context, incomplete: str) -> Words:
    """Complete the id of a step of the run that stands before it."""

    def read(store: RunStore) -> Words:
        from perdure.cli.naming import find_id
        from perdure.grown import newest_graphs
        from perdure.plan import recorded_plan

        run = store.get_run(find_id(store, str(context.params["run_id"])))
        plan = recorded_plan(store, run)
        graphs = newest_graphs(store.list_expansions(run.id)).values()
        plans = [plan, *(link for links in graphs for link in links)]
        found = [step.id for each in plans for step in each.steps]
        found = [step_id for step_id in found if step_id.startswith(incomplete)]
        return [(step_id, f"step of {run.id}") for step_id in found[:_LIMIT]]

    return _ask_store(context, read)


def workflows(context: typer.Context, incomplete: str) -> Words:
    """Complete the name of a workflow that has run lately."""

    def read(store: RunStore) -> Words:
        from perdure_storage.records import RunQuery

        names = {run.workflow for run in store.list_runs(RunQuery(limit=_LATELY))}
        return [(name, "workflow") for name in sorted(names) if name.startswith(incomplete)]

    return _ask_store(context, read)


def schedule_names(context: typer.Context, incomplete: str) -> Words:
    """Complete the name of a schedule."""

    def read(store: RunStore) -> Words:
        from perdure_storage.schedule_records import ScheduleQuery

        found = store.schedules.list_schedules(ScheduleQuery(name_prefix=incomplete, limit=_LIMIT))
        return [(each.name, "paused" if each.paused else "schedule") for each in found]

    return _ask_store(context, read)


def queue_names(context: typer.Context, incomplete: str) -> Words:
    """Complete the name of a queue."""

    def read(store: RunStore) -> Words:
        found = [each.name for each in store.queues.list_queues()]
        return [(name, "queue") for name in found if name.startswith(incomplete)][:_LIMIT]

    return _ask_store(context, read)


def trigger_names(context: typer.Context, incomplete: str) -> Words:
    """Complete the name of a trigger."""

    def read(store: RunStore) -> Words:
        from perdure_storage.trigger_records import TriggerQuery

        found = store.triggers.list_triggers(TriggerQuery(name_prefix=incomplete, limit=_LIMIT))
        return [(each.name, "paused" if each.paused else "trigger") for each in found]

    return _ask_store(context, read)


def _ask_store(context: typer.Context, read: Callable[[RunStore], Words]) -> Words:
    """Return what ``read`` finds in the store that the words so far mean, or nothing."""
    logging.disable()
    store: RunStore | None = None
    try:
        store = _open(context.params.get("store"))
        found = read(store) if store is not None else []
        return [(word, about) for word, about in found if _is_harmless(word + about)]
    except Exception:  # noqa: BLE001 - a damaged or a busy store is no reason to disturb a prompt
        return []
    finally:
        if store is not None:
            store.close()


_HARMLESS = re.compile(r"[\w @%+=:,./\[\]{}^-]*")


def _is_harmless(text: str) -> bool:
    """Say whether a shell takes it for plain words: zsh evaluates what a completion prints."""
    return _HARMLESS.fullmatch(text) is not None


def _open(url: str | None) -> RunStore | None:
    from perdure.settings import load_settings, sqlite_path

    settings = load_settings(store=url)
    path = sqlite_path(settings.store)
    if path is not None and not path.exists():
        return None
    from perdure_storage.connect import open_run_store  # it takes longer than all the rest
    from perdure_storage.signing import KeyFile, parse_keys

    key = parse_keys(settings.key, "PERDURE_KEY") if settings.key is not None else None
    if key is None and path is not None:
        return open_run_store(settings.store, key=KeyFile(path.parent / "key"), create=False)
    return open_run_store(settings.store, key=key, create=False)
