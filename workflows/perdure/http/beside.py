"""Verbs that need the user's modules, in a child process of who serves.

The child does what the command line does: it imports the workflow, converts JSON to what its
parameters take, and calls the verb. What has been done is in the store before it answers; if either
of the two dies before that, whoever asks again finds it there.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec

from perdure.client import Perdure
from perdure.conversion import from_text_or_json
from perdure.errors import DefinitionError, DuplicateRun, RunConflict
from perdure.http.problems import Problem, Refused, problem_of
from perdure.remedies import shell_of
from perdure.settings import Settings
from perdure_storage.records import RunId, StoredValue

MODULE = "perdure.http.beside"


# --- what is asked, and what is said ------------------------------------------------------------
class FindWorkflows(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """For the entry points of the workflows that modules hold, by name."""

    modules: tuple[str, ...]


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """For a run of the workflow at an entry point, with JSON as its inputs: ``Submitted``.

    ``once``: a run of that id which is there is left as it is, also if it failed. ``options`` are
    those of ``perdure.submit`` about queues.
    """

    origin: str
    inputs: dict[str, Any]
    run_id: str | None = None
    once: bool = False
    options: dict[str, Any] = {}
    if_duplicate: str = "raise"
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    reuse: str | None = None


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """For a run to go on: a line that says what it was."""

    run_id: str
    code: str
    on_change: str
    on_divergence: str


class Signal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """For a signal, with JSON as its value: ``Signalled``."""

    run_id: str
    name: str
    value: Any
    dedup_key: str | None = None


class Check(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """For nothing, if the workflow at an entry point takes these inputs: ``None``.

    ``constants`` are values of the workflow's types, ``facts`` are JSON.
    """

    origin: str
    constants: dict[str, StoredValue]
    facts: dict[str, Any]


Question = FindWorkflows | Submit | Resume | Signal | Check


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A run, whether it was not there before, and a line about one that was."""

    run_id: str
    is_new: bool
    note: str


class Signalled(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a signal was sent now, and whether a step of the run waits for its name."""

    sent: bool
    is_awaited: bool


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """JSON of what was asked for; or the problem that there is with it."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    problem: Problem | None = None


# --- within the child ---------------------------------------------------------------------------
def prepare_answers(settings: Settings) -> Callable[[bytes], Answered]:
    """Return what answers questions in a child."""
    notes: list[str] = []
    client = Perdure(settings, notes.append)
    store = shell_of(settings).store

    def answer(line: bytes) -> Answered:
        notes.clear()
        try:
            value = _do(client, msgspec.json.decode(line, type=Question), notes)
        except Exception as error:  # noqa: BLE001 - the user's modules: they may raise anything
            return Answered(problem=problem_of(error, store=store))
        return Answered(value=msgspec.Raw(msgspec.json.encode(value)))

    return answer


def _do(client: Perdure, question: Question, notes: list[str]) -> Any:
    match question:
        case FindWorkflows(modules=modules):
            return _workflows_of(modules)
        case Submit():
            return _submit(client, question, notes)
        case Resume(run_id=run_id, code=code, on_change=on_change, on_divergence=on_divergence):
            client.reopen(run_id, code=code, on_change=on_change, on_divergence=on_divergence)
            return "; ".join(notes)
        case Signal():
            return _signal(client, question)
        case Check():
            return _check(client, question)


def _workflows_of(modules: tuple[str, ...]) -> dict[str, list[str]]:
    """Return entry points by the globals that hold workflows, as in ``FILE.py:NAME``.

    A workflow that is called otherwise is found by that too, where no global has the name.
    """
    from perdure.target import load_module, name_of_place
    from perdure.workflow import Workflow

    by_global: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for place in modules:
        for name, value in vars(_loaded(load_module, place)).items():
            if isinstance(value, Workflow) and not name.startswith("_"):
                target = f"{name_of_place(place)}:{name}"
                by_global.setdefault(name, []).append(target)
                by_name.setdefault(value.name, []).append(target)
    return {**by_name, **by_global}


def _submit(client: Perdure, wish: Submit, notes: list[str]) -> Submitted:
    from perdure.schema import convert
    from perdure.target import load_target

    workflow = _loaded(load_target, wish.origin)
    options: dict[str, Any] = {**wish.options, "inputs": convert(workflow.schema, wish.inputs)}
    if wish.run_id is not None:
        options["run_id"] = wish.run_id
    if wish.tags:
        options["tags"] = wish.tags
    if wish.reuse is not None:
        options["reuse"] = wish.reuse
    if wish.metadata:
        options["metadata"] = {**workflow.run_options.get("metadata", {}), **wish.metadata}
    if wish.if_duplicate == "return" and "dedup_key" not in {**workflow.run_options, **options}:
        raise DefinitionError("if_duplicate is about a dedup_key, and none is given: give one too")
    try:
        run = client.submit(workflow, if_exists="fail", **options)
    except DuplicateRun as duplicate:
        if wish.if_duplicate == "raise":
            raise
        note = f"it has that dedup_key and is {client.get_run(duplicate.run_id).status}"
        return Submitted(run_id=duplicate.run_id, is_new=False, note=note)
    except RunConflict:
        run_id = wish.run_id
        if run_id is None or client.runtime.store.find_run(RunId(run_id)) is None:
            raise
        if not wish.once:
            client.submit(workflow, **options)
        return Submitted(run_id=run_id, is_new=False, note="; ".join(notes))
    return Submitted(run_id=run.id, is_new=True, note="; ".join(notes))


def _check(client: Perdure, asked: Check) -> None:
    from perdure.compile import prepare
    from perdure.schema import convert
    from perdure.target import load_target

    workflow = _loaded(load_target, asked.origin)  # first: values may be of classes that it defines
    values = client.runtime.values
    known = {name: values.load(value) for name, value in asked.constants.items()}
    prepare(workflow, {**known, **convert(workflow.schema, asked.facts)})


def _loaded(load: Callable[[str], Any], place: str) -> Any:
    """Return what ``load`` imports. A module that cannot be is no mistake of who asks."""
    try:
        return load(place)
    except DefinitionError as error:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "DefinitionError", str(error)) from error


def _signal(client: Perdure, signal: Signal) -> Signalled:
    from perdure.signalling import is_waited_for, send_signal

    run = client.get_run(signal.run_id)
    sent = send_signal(
        client.runtime,
        run.id,
        signal.name,
        signal.value,
        dedup_key=signal.dedup_key,
        fit=from_text_or_json,
    )
    is_awaited = is_waited_for(client.runtime, run.record.id, signal.name)
    return Signalled(sent=sent is not None, is_awaited=is_awaited)


if __name__ == "__main__":
    from perdure.child import answer_by

    answer_by(prepare_answers)
