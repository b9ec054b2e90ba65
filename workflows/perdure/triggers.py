"""A trigger as its user writes it: a value, without effect until it is registered."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast

from perdure.conversion import from_text_or_json
from perdure.errors import DefinitionError, known_names
from perdure.target import file_being_imported, place_of
from perdure.workflow import Workflow
from perdure_scheduler import conditions
from perdure_scheduler.conditions import Condition, Single
from perdure_scheduler.durations import Duration, duration
from perdure_scheduler.errors import ScheduleError, TriggerError
from perdure_scheduler.facts import AnyFilter, Fact, Filter, event, path_of, path_text
from perdure_scheduler.file_pattern import IGNORED
from perdure_scheduler.sources import Source
from perdure_scheduler.template import RunTemplate
from perdure_scheduler.trigger import Trigger as Definition
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus

__all__ = [
    "Event",
    "Files",
    "Listen",
    "RunFinished",
    "Trigger",
    "Webhook",
    "all_of",
    "any_of",
    "event",
]

_CODES = ("latest", "pinned")
_CONTAINERS = (list, tuple, set, frozenset)


class Trigger:
    """What starts runs of a workflow when something happens: a value, without effect by itself.

    ``perdure up MODULE`` registers what modules hold; ``perdure.trigger(...)`` does at once.
    Options of its runs are the workflow's: ``iris.options(tags={"team": "a"})``.

    Args:
        name: names it and its runs.
        workflow: what runs.
        on: what it waits for: ``Files``, ``Webhook``, ``Event``, ``RunFinished``, ``Listen``, or
            several of them in ``all_of`` or ``any_of``.
        where: what has to hold besides: ``event.size > 0``, joined by ``&``, ``|`` and ``~``.
            What does not pass makes no run, and is noted with the reason.
        inputs: arguments by name: ``event.path`` and the like stand for facts of what arrived,
            which become what the parameter's type says; all else is the same for all runs.
        code: ``"latest"``: each run is of the code as it is then; ``"pinned"``: as it is now.

    Raises:
        TriggerError: something that it waits for or asks is no such thing; says what to write.
        DefinitionError: an input does not fit the workflow.
    """

    def __init__(
        self,
        name: str,
        workflow: Workflow[..., Any],
        *,
        on: Condition,
        where: Filter | None = None,
        inputs: Mapping[str, Any] | None = None,
        code: str = "latest",
    ) -> None:
        what = f"trigger {name!r}"
        if not isinstance(workflow, Workflow):
            raise DefinitionError(
                f"{what}: {workflow!r:.80} is no workflow: write @workflow above it"
            )
        if not isinstance(on, Condition):
            raise TriggerError(
                f"{what}: on={on!r:.80} is nothing to wait for: write Files('in/*.csv'), "
                "Webhook(keys=[...]), Event('name'), RunFinished(workflow), Listen(source), "
                "all_of(...) or any_of(...)"
            )
        if where is not None and not isinstance(where, Filter):
            raise TriggerError(
                f"{what}: where={where!r:.80} is no filter: write a comparison, "
                "where=event.size > 0"
            )
        if code not in _CODES:
            raise DefinitionError(f"{what}: code={code!r}{known_names(code, _CODES)}")
        given = dict(inputs or {})
        self.workflow = workflow
        self.code = code
        self.made_in = file_being_imported()
        self.constants = {n: value for n, value in given.items() if not isinstance(value, Fact)}
        facts = {n: path_of(value) for n, value in given.items() if isinstance(value, Fact)}
        # What runs is known in full when it is stored: constants go there too.
        run = RunTemplate(workflow=workflow.name, origin=None)
        asked = cast(AnyFilter | None, where)
        self.definition = Definition(name=name, on=on, where=asked, inputs=facts, run=run)
        self._check_inputs(what, given)

    @property
    def name(self) -> str:
        """Return its name."""
        return self.definition.name

    def __repr__(self) -> str:
        return f"<Trigger {self.name} of {self.workflow.name}: {self.definition.on}>"

    def _check_inputs(self, what: str, given: Mapping[str, Any]) -> None:
        schema = self.workflow.schema
        schema.complete(given)
        for name, value in self.constants.items():
            _refuse_facts_within(value, f"{what}: inputs={{{name!r}: ...}}")
            schema.check(name, value)
        for name, path in self.definition.inputs.items():
            self._check_fact(what, name, path)
        if self.code == "latest":
            return
        for name in self.definition.inputs:
            field = schema.field(name)
            if field.static:
                raise DefinitionError(
                    f"{what}: {name!r} is Static, part of the graph, so a pinned graph has one "
                    "value of it: give that, or code='latest'"
                )
            if not schema.takes_anything(name):
                raise DefinitionError(
                    f"{what}: {name!r} takes {field.text}, and with code='pinned' nobody makes "
                    "one of a fact: write code='latest', or leave the annotation out and take "
                    "JSON there"
                )

    def _check_fact(self, what: str, name: str, path: tuple[str | int, ...]) -> None:
        """Refuse a fact of which no value is one that the parameter takes."""
        part = self._part_of(path)
        fact = path[1:] if isinstance(self.definition.on, conditions.AllOf) else path
        if part is None or part.facts is None or len(fact) != 1 or fact[0] not in _SAMPLES:
            return
        field, (sample, types) = self.workflow.schema.field(name), _SAMPLES[fact[0]]
        try:
            from_text_or_json(sample, field.annotation, name)
        except DefinitionError:
            raise DefinitionError(
                f"{what}: {name!r} takes {field.text}, and {path_text(path)} is such as "
                f"{sample!r}: write {types} there, or give another fact"
            ) from None

    def _part_of(self, path: tuple[str | int, ...]) -> Single | None:
        """Return the condition whose fact a path leads to; None: not one alone."""
        parts = self.definition.parts
        if isinstance(self.definition.on, conditions.AllOf):
            return parts.get(str(path[0])) if path else None
        return next(iter(parts.values())) if len(parts) == 1 else None


_INSTANT = "2026-03-01T09:30:00+00:00"
_SAMPLES: dict[str | int, tuple[Any, str]] = {
    "path": ("/in/a.csv", "Path or str"),
    "url": ("file:///in/a.csv", "str"),
    "size": (1, "int"),
    "number": (1, "int"),
    **dict.fromkeys(("modified", "at", "received_at"), (_INSTANT, "datetime or str")),
}
"""Facts of which all values are of one kind: one of them, and what takes it."""


def _refuse_facts_within(value: Any, where: str) -> None:
    """Raise if a fact is hidden in a container: an input is a fact, or it is none."""
    inside: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, _CONTAINERS):
        inside = value
    for each in inside:
        if isinstance(each, Fact):
            raise TriggerError(
                f"{where}: {each!r} is within a {type(value).__name__}: give it as an input of its "
                "own, and put both together in a step"
            )
        _refuse_facts_within(each, where)


# --- what is waited for ---------------------------------------------------------------------------
def Files(
    url: str | Path,
    *,
    stable_for: Duration = 0,
    change: bool = False,
    every: Duration = "30s",
    existing: Literal["run", "skip"] = "run",
    ignore: Iterable[str] = IGNORED,
) -> conditions.Files:
    """Wait for files that land.

    Facts: ``path``, ``name``, ``size``, ``modified``, ``etag``, ``url``. Nothing is missed while
    nobody listens: everything is listed again and again, and local folders are watched besides.

    Args:
        url: a path or a URL that fsspec reads, with ``*``, ``?``, ``[abc]``, and ``**`` for any
            folders between: ``"s3://bucket/in/*.csv"``. A path is one from here.
        stable_for: a file has landed when it has not changed for so long.
        change: whether a file that changes arrives again.
        every: how often everything is listed.
        existing: what becomes of files that are there when the trigger is new: ``"run"`` or
            ``"skip"``.
        ignore: patterns of names that are left out: hidden ones, and those that are still written.
    """
    return conditions.Files(
        url=_absolute(url),
        stable_for=_duration(stable_for, "stable_for"),
        change=change,
        every=_duration(every, "every"),
        existing=existing,
        ignore=_texts(ignore, "ignore", "['*.tmp']"),
    )


def Webhook(
    *,
    keys: Iterable[str],
    scheme: Literal["standard", "github"] = "standard",
    window: Duration = "5m",
    headers: Iterable[str] = (),
) -> conditions.Webhook:
    """Wait for signed requests to ``POST /v1/hooks/NAME`` of ``perdure up``.

    Facts: ``body`` (the JSON that was sent), ``headers``, ``delivery``, ``received_at``. A
    delivery that is sent again is answered with the run that it made.

    Args:
        keys: names of environment variables that hold keys; a request signed with any of them is
            taken, so that one is replaced while both are.
        scheme: ``"standard"``, as standardwebhooks.com has it, or ``"github"``.
        window: how far the time of a request may be from now.
        headers: names of headers that shall be among the facts.
    """
    return conditions.Webhook(
        keys=_texts(keys, "keys", "['HOOK_KEY']"),
        scheme=scheme,
        window=_duration(window, "window"),
        headers=_texts(headers, "headers", "['x-github-event']"),
    )


def Event(name: str, *, match: Mapping[str, Any] | None = None) -> conditions.Event:
    """Wait for events that ``perdure.emit`` sends.

    Facts: ``payload``, ``name``, ``match``, ``at``.

    Args:
        name: the events' name.
        match: what an event has to say about itself, of all that it says.
    """
    return conditions.Event(name=name, match=dict(match or {}))


def RunFinished(
    workflow: Workflow[..., Any] | str,
    *,
    states: str | Iterable[str] = "SUCCEEDED",
    tags: Mapping[str, str] | None = None,
) -> conditions.RunFinished:
    """Wait for runs of a workflow to end, whoever made them.

    Facts: ``run_id``, ``workflow``, ``status``, ``tags``, ``at``.

    Args:
        workflow: the workflow, or its name.
        states: how they end: ``"SUCCEEDED"``, ``"FAILED"``, ``"CANCELLED"``, or several.
        tags: which the runs have.
    """
    names = [states] if isinstance(states, str) else list(states)
    for name in names:
        if name not in RUN_TERMINAL:
            known = sorted(str(each) for each in RUN_TERMINAL)
            raise TriggerError(f"states={name!r}{known_names(str(name).upper(), known)}")
    return conditions.RunFinished(
        workflow=workflow.name if isinstance(workflow, Workflow) else workflow,
        states=tuple(RunStatus(name) for name in names),
        tags=dict(tags or {}),
    )


def Listen(source: Source | str) -> conditions.Listen:
    """Wait for what a source of one's own yields: a queue, a table, an API.

    Facts are those that the source gives.

    Args:
        source: an object at the top level of a module with the method ``listen``, or its entry
            point: ``"package.module:NAME"``, ``"FILE.py:NAME"``.
    """
    if isinstance(source, str):
        return conditions.Listen(source=source)
    if not callable(getattr(source, "listen", None)):
        raise TriggerError(
            f"Listen({source!r:.80}): it has no method listen: write `async def listen(self, "
            "cursor)` with a `yield` of each arrival"
        )
    frame = inspect.currentframe()
    return conditions.Listen(source=_entry_point(source, frame.f_back if frame else None))


def all_of(*, within: Duration, **of: Single) -> conditions.AllOf:
    """Wait for one arrival of each condition; each of them has a part in one run at most.

    Facts are found under the names: ``all_of(orders=..., rates=..., within="1h")`` gives
    ``event.orders.path`` and ``event.rates.path``.

    Args:
        within: how far the first and the last may be apart.
        **of: the conditions.
    """
    return conditions.AllOf(of=_single(of, "all_of"), within=_duration(within, "within"))


def any_of(*of: Single, **named: Single) -> conditions.AnyOf:
    """Wait for an arrival of any condition; ``event.condition`` is the name of the one it met.

    Args:
        *of: conditions; they are called ``"0"``, ``"1"``, ... by position.
        **named: conditions by name.
    """
    numbered = {str(index): each for index, each in enumerate(of)}
    return conditions.AnyOf(of=_single({**numbered, **named}, "any_of"))


def _single(of: Mapping[str, Any], what: str) -> dict[str, Single]:
    for name, each in of.items():
        if not isinstance(each, Single):
            raise TriggerError(
                f"{what}(...): {name}={each!r:.80} is no single condition: write Files, Webhook, "
                "Event, RunFinished or Listen there"
            )
    return dict(of)


def _duration(value: Duration, what: str) -> Any:
    try:
        return duration(value, what=what)
    except ScheduleError as error:
        raise TriggerError(str(error)) from None


def _texts(values: Iterable[str], what: str, example: str) -> tuple[str, ...]:
    listed = [values] if isinstance(values, str) else list(values)
    if isinstance(values, str) or not all(isinstance(each, str) for each in listed):
        raise TriggerError(f"{what}={values!r:.80}: write a list of texts, {what}={example}")
    return tuple(listed)


def _absolute(url: str | Path) -> str:
    """Return a URL as it is, and a path in full: who listens may stand elsewhere."""
    text = str(url)
    if "://" in text or "::" in text or not text:
        return text
    whole = str(Path(text).expanduser().absolute())
    return whole + "/" if text.endswith("/") and whole != "/" else whole


def _entry_point(source: object, frame: FrameType | None) -> str:
    """Return where a source is found again, by the module that calls or that of its class."""
    names = [frame.f_globals.get("__name__") if frame else None, type(source).__module__]
    for module in (sys.modules.get(name) for name in names if name):
        place = place_of(module) if module is not None else None
        for name, value in vars(module).items() if place else ():
            if value is source:
                return f"{place}:{name}"
    raise TriggerError(
        f"Listen({source!r:.80}): it is at the top level of no module, so the listener cannot find "
        "it: write NAME = ... there, and Listen(NAME)"
    )
