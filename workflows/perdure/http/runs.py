"""Operations on runs: start, look, cancel, resume."""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from perdure.http.beside import Resume, Submit, Submitted
from perdure.http.operations import (
    IDEMPOTENCY_KEY,
    Asked,
    Nothing,
    Operation,
    Room,
    Said,
    idempotency_key,
    unfit,
)
from perdure.http.problems import Refused
from perdure.http.service import Service
from perdure.http.startable import origin_of_workflow
from perdure.story import Siblings
from perdure.view.model import GroupView, RunView
from perdure.view.runs import group_steps, view_run, view_runs
from perdure_storage.hashing import integrity_digest
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId

_METADATA = "idempotency"
_OF_QUEUES = ("queue", "priority", "delay", "limit_key", "dedup_key")
_MAX_PAGE = 500


class StartRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which workflow runs, with which inputs.

    Attributes:
        workflow: its name.
        inputs: by parameter name, as JSON says them; those with a default may be left out.
        id: the run's id; made if there is none. The same id again: resumes, or finds what is
            there, as `perdure run --id` does.
        tags: in place of the workflow's own.
        reuse: the id of a run of which what has not changed is taken over, or "last".
        queue: the queue in which it waits until its limits let it begin.
        priority: higher ones leave it first.
        delay: it begins no earlier: seconds, or 10m.
        limit_key: what its queue counts it under, too.
        dedup_key: one live run of its queue has it.
        if_duplicate: for a dedup_key that is there: raise (409), or return that run.
    """

    workflow: str
    inputs: dict[str, Any] = {}
    id: str | None = None
    tags: dict[str, str] = {}
    reuse: str | None = None
    queue: str | None = None
    priority: int | None = None
    delay: float | str | None = None
    limit_key: str | None = None
    dedup_key: str | None = None
    if_duplicate: Literal["raise", "return"] = "raise"


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is in the store.

    Attributes:
        run_id: its id.
        status: how it stands.
        is_new: whether it was not there before this request.
        note: a line about one that was.
    """

    run_id: str
    status: str
    is_new: bool
    note: str = ""


class ListRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which runs, newest first.

    Attributes:
        status: only those of these statuses; may be repeated.
        workflow: only those of this workflow.
        tag: only those with this tag, NAME=VALUE; may be repeated.
        since: made after this time, with its zone, or within this duration, such as 2d.
        limit: at most so many.
        after: the id of the last run of the page before.
    """

    status: list[str] = []
    workflow: str | None = None
    tag: list[str] = []
    since: str | None = None
    limit: int = 100
    after: str | None = None


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, newest first; ``next`` is the ``after`` of the page that follows, if one does."""

    runs: list[RunView]
    next: str | None = None


class LookAtRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is told.

    Attributes:
        steps: each step, beside the counts.
    """

    steps: bool = False


class RunDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A run with its steps counted; ``groups`` counts them by the name of what they call."""

    run: RunView
    groups: list[GroupView]


class ResumeRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run goes on.

    Attributes:
        code: recorded, or current to take today's code for what has not finished.
        on_change: what becomes of committed steps that changed: recompute, reuse or fail.
        on_divergence: what becomes of rebuilt values that differ: fail, recompute or keep.
    """

    code: str = "recorded"
    on_change: str = "recompute"
    on_divergence: str = "fail"


# --- start --------------------------------------------------------------------------------------
def start_run(service: Service, asked: Asked[StartRun, Nothing]) -> Said:
    """Make a run, or find the one that this request made before."""
    wish, key = asked.body, idempotency_key(asked)
    if key is not None and wish.id is not None:
        raise unfit(
            "id and Idempotency-Key are both given: an id names the run, and counts once by "
            "itself; write one of them"
        )
    if key is None:
        return _accepted(service, _submit(service, wish, wish.id))
    run_id, request = run_id_of_key(key), _digest(wish)
    if service.client.runtime.store.find_run(run_id) is not None:
        return _known(service, run_id, key, request)
    noted = {_METADATA: {"key": key, "request": request}}
    submitted = _submit(service, wish, run_id, once=True, metadata=noted)
    if not submitted.is_new:  # the same request, a moment earlier
        return _known(service, run_id, key, request)
    return _accepted(service, submitted)


def _submit(service: Service, wish: StartRun, run_id: str | None, **more: Any) -> Submitted:
    question = Submit(
        origin=origin_of_workflow(service, wish.workflow),
        inputs=wish.inputs,
        run_id=run_id,
        tags=wish.tags,
        reuse=wish.reuse,
        options={n: v for n in _OF_QUEUES if (v := getattr(wish, n)) is not None},
        if_duplicate=wish.if_duplicate,
        **more,
    )
    return service.beside(question, Submitted)


def run_id_of_key(key: str) -> RunId:
    """Return the id of the run that an idempotency key makes: the same on every server.

    What can be read of the key comes first; the digest is of all of it.
    """
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", key)[:60].strip("-")
    digest = integrity_digest([key.encode()]).rpartition(":")[2][:16]
    return RunId("-".join(filter(None, ("http", readable, digest))))


def _digest(wish: StartRun) -> str:
    """Return a digest that tells another request apart, however its JSON was written."""
    return integrity_digest([msgspec.json.encode(wish, order="deterministic")])


def _known(service: Service, run_id: RunId, key: str, request: str) -> Said:
    record = service.client.get_run(run_id).record
    noted = record.metadata.get(_METADATA)
    if not isinstance(noted, dict) or noted.get("request") != request:
        raise Refused(
            HTTPStatus.CONFLICT,
            "RunConflict",
            f"Idempotency-Key {key!r} was used before for something else, of which run "
            f"{run_id!r} was made: give a new key",
        )
    return _accepted(service, Submitted(run_id=run_id, is_new=False, note="made by this key"))


def _accepted(service: Service, made: Submitted) -> Said:
    run = service.client.get_run(made.run_id)
    value = Accepted(run_id=run.id, status=str(run.status), is_new=made.is_new, note=made.note)
    return Said(
        value=value,
        status=HTTPStatus.ACCEPTED,
        headers={"Location": f"/v1/runs/{quote(run.id, safe='')}"},
    )


# --- look ---------------------------------------------------------------------------------------
def list_runs(service: Service, asked: Asked[Nothing, ListRuns]) -> Said:
    """List runs, newest first, page by page."""
    query = asked.query
    if not 1 <= query.limit <= _MAX_PAGE:
        raise unfit(f"limit={query.limit} is not from 1 to {_MAX_PAGE}")
    found = service.client.list_runs(
        status=[_status(each) for each in query.status],
        workflow=query.workflow,
        tags=_tags(query.tag),
        since=_since(query.since),
        limit=query.limit,
        after=query.after,
    )
    full = len(found) == query.limit
    page = RunPage(runs=view_runs(found), next=found[-1].id if full and found else None)
    return Said(value=page)


def look_at_run(service: Service, asked: Asked[Nothing, LookAtRun]) -> Said:
    """Show a run: how it stands, its steps counted, and what to do if it stopped."""
    run = service.client.get_run(asked.path["id"])
    view = view_run(run, Siblings(run))
    groups = group_steps(view.steps)
    if not asked.query.steps:
        view = msgspec.structs.replace(view, steps=[])
    return Said(value=RunDetail(run=view, groups=groups))


# --- ask ----------------------------------------------------------------------------------------
def cancel_run(service: Service, asked: Asked[Nothing, Nothing]) -> Said:
    """Cancel a run: nothing new starts, its processes end, then it is CANCELLED."""
    run = service.client.request_cancel(asked.path["id"])
    return Said(value=view_run(run), status=HTTPStatus.ACCEPTED)


def resume_run(service: Service, asked: Asked[ResumeRun, Nothing]) -> Said:
    """Go on with a run that was interrupted, cancelled, paused or that failed."""
    how = asked.body
    question = Resume(
        run_id=asked.path["id"],
        code=how.code,
        on_change=how.on_change,
        on_divergence=how.on_divergence,
    )
    note = service.beside(question, str)
    return _accepted(service, Submitted(run_id=question.run_id, is_new=False, note=note))


def _tags(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    for name, equals, _ in split:
        if not (name and equals):
            raise unfit(f"tag={name} says nothing: write tag=NAME=VALUE")
    return {name: value for name, _, value in split}


def _status(text: str) -> str:
    return text.upper() if text.upper() in RunStatus.__members__ else text


def _since(text: str | None) -> datetime | str | None:
    if text is None:
        return None
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        return text  # a duration
    if since.tzinfo is None:
        raise unfit(f"since={text} has no time zone: write {since.isoformat()}Z, for UTC, or 2d")
    return since


_ID_OR_KEY = {
    IDEMPOTENCY_KEY: "Names the request: the same key again finds the run that it made, with "
    "another body it is refused (409)."
}
OPERATIONS = (
    Operation(
        name="startRun",
        method="POST",
        path="/v1/runs",
        summary="Start a run; it exists when this is answered, and some `perdure up` drives it.",
        act=start_run,
        body=StartRun,
        says=Accepted,
        status=HTTPStatus.ACCEPTED,
        headers=_ID_OR_KEY,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
        room=Room.CHILD,
    ),
    Operation(
        name="listRuns",
        method="GET",
        path="/v1/runs",
        summary="List runs, newest first, page by page.",
        act=list_runs,
        query=ListRuns,
        says=RunPage,
        errors=(HTTPStatus.NOT_FOUND,),  # of the run that `after` names
    ),
    Operation(
        name="getRun",
        method="GET",
        path="/v1/runs/{id}",
        summary="Show a run: how it stands, its steps counted, what to do if it stopped.",
        act=look_at_run,
        query=LookAtRun,
        says=RunDetail,
        errors=(HTTPStatus.NOT_FOUND,),
    ),
    Operation(
        name="cancelRun",
        method="POST",
        path="/v1/runs/{id}/cancel",
        summary="Cancel a run: nothing new starts, its processes end.",
        act=cancel_run,
        says=RunView,
        status=HTTPStatus.ACCEPTED,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ),
    Operation(
        name="resumeRun",
        method="POST",
        path="/v1/runs/{id}/resume",
        summary="Go on with a run that was interrupted, cancelled, paused or that failed.",
        act=resume_run,
        body=ResumeRun,
        says=Accepted,
        status=HTTPStatus.ACCEPTED,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
        room=Room.CHILD,
    ),
)
