"""What a trigger waits for: files, webhooks, events, ends of runs, sources; all or any of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Literal

import msgspec

from perdure_scheduler.durations import text_of
from perdure_scheduler.errors import TriggerError
from perdure_scheduler.facts import Scalar
from perdure_scheduler.file_pattern import IGNORED
from perdure_storage.lifecycle import RUN_TERMINAL, RunStatus

SCHEMES = ("standard", "github")
EXISTING = ("run", "skip")
_SHORTEST = timedelta(seconds=1)
_NOTHING = timedelta(0)
_LONGEST = timedelta(days=3650)
"""Of any duration: a time and it are added, and times end in the year 9999."""
_Names = tuple[str, ...] | None


class Files(msgspec.Struct, frozen=True, kw_only=True, tag="files"):
    """Files that land under a URL.

    Attributes:
        url: any that fsspec reads, or a path, with ``*``, ``?``, ``[abc]`` and ``**``.
        stable_for: a file has landed when it has not changed for so long.
        change: whether a file that changes arrives again.
        every: how often everything is listed, whatever was watched meanwhile.
        existing: what becomes of files that were there before: ``"run"`` or ``"skip"``.
        ignore: patterns of file names that are left out.
    """

    url: str
    stable_for: timedelta = _NOTHING
    change: bool = False
    every: timedelta = timedelta(seconds=30)
    existing: Literal["run", "skip"] = "run"
    ignore: tuple[str, ...] = IGNORED

    facts: ClassVar[_Names] = ("path", "name", "size", "modified", "etag", "url")

    def __post_init__(self) -> None:
        if not self.url:
            raise TriggerError("Files(''): write a path or a URL, 's3://bucket/in/*.csv'")
        _check_length("every", self.every, such_as="30s")
        _check_length("stable_for", self.stable_for, least=_NOTHING, such_as="5s")
        if self.existing not in EXISTING:
            raise TriggerError(f"existing={self.existing!r}: write {' or '.join(EXISTING)}")

    def __str__(self) -> str:
        return f"files {self.url}"


class Webhook(msgspec.Struct, frozen=True, kw_only=True, tag="webhook"):
    """Signed requests to ``/v1/hooks/NAME``.

    Attributes:
        keys: names of environment variables; any of the keys in them signs, so that one can be
            replaced while both are taken.
        scheme: who signs how: ``"standard"`` (standardwebhooks.com) or ``"github"``.
        window: how far the time of a request may be from ours.
        headers: those that are among the facts, in small letters.
    """

    keys: tuple[str, ...]
    scheme: Literal["standard", "github"] = "standard"
    window: timedelta = timedelta(minutes=5)
    headers: tuple[str, ...] = ()

    facts: ClassVar[_Names] = ("body", "headers", "delivery", "received_at")

    def __post_init__(self) -> None:
        if not self.keys or not all(self.keys):
            raise TriggerError(
                "Webhook(keys=[]): write the names of environment variables that hold its keys, "
                "keys=['HOOK_KEY']"
            )
        if self.scheme not in SCHEMES:
            raise TriggerError(f"scheme={self.scheme!r}: write {' or '.join(SCHEMES)}")
        _check_length("window", self.window, such_as="5m")
        headers = tuple(each.lower() for each in self.headers)
        msgspec.structs.force_setattr(self, "headers", headers)

    def __str__(self) -> str:
        return "webhook" if self.scheme == "standard" else f"webhook of {self.scheme}"


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """Events that ``perdure.emit`` sends.

    Attributes:
        name: of the events.
        match: what they have to say about themselves.
    """

    name: str
    match: dict[str, Scalar] = {}

    facts: ClassVar[_Names] = ("name", "payload", "match", "number", "at")

    def __post_init__(self) -> None:
        if not self.name:
            raise TriggerError("Event(''): write the name of the events")

    def __str__(self) -> str:
        return f"event {self.name}{_asked(self.match)}"

    def is_met_by(self, said: Mapping[str, object]) -> bool:
        """Say whether an event that says this about itself is meant."""
        return all(name in said and said[name] == value for name, value in self.match.items())


class RunFinished(msgspec.Struct, frozen=True, kw_only=True, tag="run_finished"):
    """Runs of a workflow that end.

    Attributes:
        workflow: its name.
        states: how they end.
        tags: which the runs have, with these values.
    """

    workflow: str
    states: tuple[RunStatus, ...] = (RunStatus.SUCCEEDED,)
    tags: dict[str, str] = {}

    facts: ClassVar[_Names] = (
        "run_id",
        "workflow",
        "status",
        "tags",
        "at",
        "trigger",
        "schedule",
        "chain",
    )

    def __post_init__(self) -> None:
        if not self.workflow:
            raise TriggerError("RunFinished(''): write the workflow whose runs are meant")
        if not self.states or not set(self.states) <= RUN_TERMINAL:
            known = ", ".join(sorted(RUN_TERMINAL))
            raise TriggerError(f"states={', '.join(self.states)!r}: write some of {known}")

    def __str__(self) -> str:
        return f"run of {self.workflow} {'|'.join(self.states)}{_asked(self.tags)}"

    def is_met_by(self, workflow: str, status: RunStatus, tags: Mapping[str, str]) -> bool:
        """Say whether the end of such a run is meant."""
        return (
            workflow == self.workflow
            and status in self.states
            and self.tags.items() <= tags.items()
        )


class Listen(msgspec.Struct, frozen=True, kw_only=True, tag="listen"):
    """What a source of the user's yields.

    Attributes:
        source: entry point of it, ``"package.module:NAME"`` or ``"/path/file.py:NAME"``.
    """

    source: str

    facts: ClassVar[_Names] = None  # whatever the source says

    def __post_init__(self) -> None:
        if ":" not in self.source:
            raise TriggerError(f"Listen({self.source!r}): write 'package.module:NAME'")

    def __str__(self) -> str:
        return f"source {self.source}"


Single = Files | Webhook | Event | RunFinished | Listen


class AllOf(msgspec.Struct, frozen=True, kw_only=True, tag="all_of"):
    """One arrival of each condition, all within a window; each has a part in one run at most.

    Attributes:
        of: the conditions, by the name under which their facts are found.
        within: how far the first and the last of them may be apart.
    """

    of: dict[str, Single]
    within: timedelta

    def __post_init__(self) -> None:
        _check_parts(self.of, "all_of")
        _check_differ(self.of)
        _check_length("within", self.within, such_as="1h")

    def __str__(self) -> str:
        listed = ", ".join(f"{name}: {each}" for name, each in self.of.items())
        return f"all of {listed} within {text_of(self.within)}"


class AnyOf(msgspec.Struct, frozen=True, kw_only=True, tag="any_of"):
    """An arrival of any of several conditions.

    Attributes:
        of: the conditions by name; ``event.condition`` is the name of the one that was met.
    """

    of: dict[str, Single]

    def __post_init__(self) -> None:
        _check_parts(self.of, "any_of")

    def __str__(self) -> str:
        return "any of " + ", ".join(f"{name}: {each}" for name, each in self.of.items())


Condition = Single | AllOf | AnyOf


def parts(condition: Condition) -> dict[str, Single]:
    """Return what is waited for, by name; one condition alone has the name ``""``."""
    return condition.of if isinstance(condition, AllOf | AnyOf) else {"": condition}


def event_names(condition: Condition) -> tuple[str, ...]:
    """Return the names of the events that may meet a condition, sorted."""
    return tuple(sorted({p.name for p in parts(condition).values() if isinstance(p, Event)}))


def watched(condition: Condition) -> tuple[RunFinished, ...]:
    """Return the ends of runs that may meet a condition."""
    return tuple(part for part in parts(condition).values() if isinstance(part, RunFinished))


def listens(condition: Condition) -> bool:
    """Say whether somebody has to listen so that a condition can be met."""
    return any(isinstance(part, Files | Listen) for part in parts(condition).values())


def facts_known(condition: Condition) -> tuple[str, ...] | None:
    """Return with which names the facts of an arrival begin; None: with whatever it says."""
    if isinstance(condition, AllOf):
        return tuple(condition.of)
    if isinstance(condition, AnyOf):
        known = [part.facts for part in condition.of.values()]
        if any(each is None for each in known):
            return None
        return ("condition", *dict.fromkeys(name for each in known for name in each or ()))
    return condition.facts


def _asked(said: Mapping[str, Scalar]) -> str:
    """Return what something has to say about itself, as the end of its name for people."""
    return " with " + ", ".join(f"{name}={each}" for name, each in said.items()) if said else ""


def _check_length(
    what: str, length: timedelta, *, least: timedelta = _SHORTEST, such_as: str
) -> None:
    if not least <= length <= _LONGEST:
        short = "-" if length < _NOTHING else ""
        raise TriggerError(
            f"{what}='{short}{text_of(abs(length))}': write a duration from {text_of(least)} to "
            f"{text_of(_LONGEST)}, such as {such_as!r}"
        )


def _check_differ(of: Mapping[str, Single]) -> None:
    """Refuse conditions that one arrival would meet all at once. Webhooks have a route each."""
    same = [
        (first, name)
        for index, (name, part) in enumerate(of.items())
        for first, other in list(of.items())[:index]
        if part == other and not isinstance(part, Webhook | Listen)
    ]
    if same:
        first, name = same[0]
        raise TriggerError(
            f"all_of(...): {first!r} and {name!r} are the same, so one arrival would be both: it "
            "takes one of each, and there is none that waits for two of one"
        )


def _check_parts(of: Mapping[str, Single], what: str) -> None:
    if len(of) < 2:
        raise TriggerError(f"{what}(...) of {len(of)}: write at least two conditions")
    wrong = [name for name in of if not name.isidentifier() and not name.isdigit()]
    if wrong:
        raise TriggerError(f"{what}(...): {wrong[0]!r} is no name for a condition")
