"""Which workflows may be started from outside: what is served, and what the store names."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from perdure.errors import did_you_mean
from perdure.http.beside import FindWorkflows
from perdure.http.operations import unfit
from perdure.http.problems import Refused
from perdure.http.service import Service
from perdure_scheduler.definition import Definition
from perdure_scheduler.template import RunTemplate
from perdure_storage.schedule_records import ScheduleQuery
from perdure_storage.trigger_records import TriggerQuery

_PAGE = 500


def origin_of_workflow(service: Service, name: str) -> str:
    """Return the entry point of a workflow that may be started.

    Those of the served modules come first; else those of which schedules and triggers make runs.
    Nobody can have anything else imported.

    Args:
        service: says what is served.
        name: the workflow's name; or its entry point, where several have one name.

    Raises:
        Refused: there is none, or several.
    """
    known = service.beside(FindWorkflows(modules=service.modules), dict[str, list[str]])
    found = _chosen(known, name)
    if not found:
        for template in _templates(service):
            named = known.setdefault(template.workflow, [])
            if template.origin is not None and template.origin not in named:
                named.append(template.origin)
        found = _chosen(known, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise unfit(
            f"several workflows are called {name!r}: write which, {' or '.join(map(repr, found))}"
        )
    listed = f" Served: {', '.join(sorted(known))}." if known else " None is."
    raise Refused(
        HTTPStatus.NOT_FOUND,
        "WorkflowNotFound",
        f"no workflow {name!r} is served here{did_you_mean(name, known) or '.'}{listed} "
        "`perdure up MODULE` serves those of a module, FILE.py or package.module",
    )


def _chosen(known: dict[str, list[str]], name: str) -> list[str]:
    if name in known:
        return known[name]
    return [origin for origins in known.values() for origin in origins if origin == name][:1]


def _templates(service: Service) -> Iterator[RunTemplate]:
    """Yield what schedules and triggers make runs of; who had a hand on the store put it there."""
    store, definition = service.client.runtime.store, service.intake.definition
    after = None
    while page := store.schedules.list_schedules(ScheduleQuery(limit=_PAGE, after=after)):
        yield from (Definition.from_json(record.definition).run for record in page)
        after = page[-1].name
    after = None
    while found := store.triggers.list_triggers(TriggerQuery(limit=_PAGE, after=after)):
        yield from (definition(record).run for record in found)
        after = found[-1].name
