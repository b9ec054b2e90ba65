"""What a schedule does when things do not go as planned, as values with a text form.

    overlap      skip | queue(max=1) | queue_all(max=N) | cancel_running | allow(max=N)
    catchup      none | latest | all(max=N, window=7d)
    on_failure   continue | pause_after(runs=N)

The text is what people type and read; ``overlap_of("queue(max=2)") == Queue(max=2)``, and
``str(Queue(max=2)) == "queue(max=2)"``. One number needs no name: ``queue(2)``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from perdure_scheduler.durations import duration, text_of
from perdure_scheduler.errors import ScheduleError
from perdure_scheduler.zones import Dst

_CALL = re.compile(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", re.ASCII | re.DOTALL)
_ARGUMENT = re.compile(r"\s*(?:([a-z_]+)\s*=)?\s*([^,=\s]+)\s*", re.ASCII)


class _Policy(msgspec.Struct, frozen=True, kw_only=True, tag_field="policy"):
    """A policy; its tag is its name in texts."""

    def __str__(self) -> str:
        name = str(self.__struct_config__.tag)
        given = [
            f"{field}={text_of(value) if isinstance(value, timedelta) else value}"
            for field in self.__struct_fields__
            if (value := getattr(self, field)) is not None
        ]
        return f"{name}({', '.join(given)})" if given else name


class Skip(_Policy, frozen=True, kw_only=True, tag="skip"):
    """While a run of the schedule goes on, its ticks are skipped."""


class Queue(_Policy, frozen=True, kw_only=True, tag="queue"):
    """While a run goes on, at most ``max`` ticks wait for its end; further ones are skipped."""

    max: int = 1

    def __post_init__(self) -> None:
        _check_positive(self.max, "queue(max", instead="overlap='skip'")


class QueueAll(_Policy, frozen=True, kw_only=True, tag="queue_all"):
    """While a run goes on, ticks wait, and none is skipped.

    When ``max`` are waiting the schedule itself stands still, and goes on where it stood.
    """

    max: int

    def __post_init__(self) -> None:
        _check_positive(self.max, "queue_all(max", instead="overlap='skip'")


class CancelRunning(_Policy, frozen=True, kw_only=True, tag="cancel_running"):
    """A tick asks the run that goes on to be cancelled, and starts when it is gone.

    A newer tick takes the place of one that still waits. Two runs are never there at once.
    """


class Allow(_Policy, frozen=True, kw_only=True, tag="allow"):
    """At most ``max`` runs go on side by side; further ticks are skipped."""

    max: int

    def __post_init__(self) -> None:
        _check_positive(self.max, "allow(max", instead="overlap='skip'")


class CatchupNone(_Policy, frozen=True, kw_only=True, tag="none"):
    """Ticks that are later than the grace are missed."""


class CatchupLatest(_Policy, frozen=True, kw_only=True, tag="latest"):
    """Of ticks later than the grace the latest fires, unless a newer one is on time."""


class CatchupAll(_Policy, frozen=True, kw_only=True, tag="all"):
    """Of ticks later than the grace the newest ``max`` fire, the oldest of them first.

    Attributes:
        window: how old they may be; as old as they are if ``None``.
    """

    max: int
    window: timedelta | None = None

    def __post_init__(self) -> None:
        _check_positive(self.max, "all(max", instead="catchup='none'")
        if self.window is not None and self.window <= timedelta(0):
            raise ScheduleError(
                "catchup all(window=0s) catches nothing up: write catchup='none', or a window "
                "such as 7d"
            )


class Continue(_Policy, frozen=True, kw_only=True, tag="continue"):
    """Failed runs change nothing."""


class PauseAfter(_Policy, frozen=True, kw_only=True, tag="pause_after"):
    """After this many failed runs in a row the schedule pauses."""

    runs: int

    def __post_init__(self) -> None:
        _check_positive(self.runs, "pause_after(runs", instead="on_failure='continue'")


Overlap = Skip | Queue | QueueAll | CancelRunning | Allow
Catchup = CatchupNone | CatchupLatest | CatchupAll
OnFailure = Continue | PauseAfter

_Value = TypeVar("_Value")


def overlap_of(value: Overlap | str) -> Overlap:
    """Return an overlap policy from its text; a value is returned as it is.

    Raises:
        ScheduleError: the text is none; it says which there are.
    """
    found: Overlap = _policy_of(value, Overlap, "overlap", Queue(), QueueAll(max=100), Allow(max=4))
    return found


def catchup_of(value: Catchup | str) -> Catchup:
    """Return a catch-up policy from its text, ``"all(max=10, window=7d)"``; see ``overlap_of``."""
    example = CatchupAll(max=10, window=timedelta(days=7))
    found: Catchup = _policy_of(value, Catchup, "catchup", example)
    return found


def on_failure_of(value: OnFailure | str) -> OnFailure:
    """Return a policy for failed runs from its text, ``"pause_after(3)"``; see ``overlap_of``."""
    found: OnFailure = _policy_of(value, OnFailure, "on_failure", PauseAfter(runs=3))
    return found


def dst_of(value: Dst | str) -> Dst:
    """Return what wall times mean when clocks change, from ``"gap=skip, fold=both"``.

    Raises:
        ScheduleError: the text is none.
    """
    if isinstance(value, Dst):
        return value
    if isinstance(value, str):
        try:
            return msgspec.convert(_arguments(value, Dst.__struct_fields__), Dst)
        except (msgspec.ValidationError, ScheduleError):
            pass
    raise ScheduleError(
        f"dst={value!r}: write 'gap=shift' or 'gap=skip', and 'fold=first', 'fold=last' or "
        "'fold=both', joined by a comma; or a Dst"
    )


def _policy_of(value: Any, kinds: Any, what: str, *examples: _Policy) -> Any:
    members: tuple[type[_Policy], ...] = kinds.__args__
    if isinstance(value, members):
        return value
    by_name = {str(kind.__struct_config__.tag): kind for kind in members}
    match = _CALL.fullmatch(value) if isinstance(value, str) else None
    kind = by_name.get(match[1]) if match else None
    if match is None or kind is None:
        shown = {str(each.__struct_config__.tag): str(each) for each in examples}
        forms = " | ".join(shown.get(name, name) for name in by_name)
        raise ScheduleError(f"{what}={value!r}: write {forms}")
    try:
        arguments = _arguments(match[2] or "", kind.__struct_fields__)
        return msgspec.convert(arguments, kind, strict=False)
    except (msgspec.ValidationError, ScheduleError) as error:
        example = next((each for each in examples if type(each) is kind), match[1])
        raise ScheduleError(f"{what}={value!r}: {error}; for example {example}") from None


def _arguments(text: str, fields: tuple[str, ...]) -> Mapping[str, object]:
    """Read ``max=10, window=7d``; one without a name is the first field's."""
    found: dict[str, object] = {}
    for position, item in enumerate(text.split(",") if text.strip() else ()):
        match = _ARGUMENT.fullmatch(item)
        name = (match[1] or "".join(fields[:1] if position == 0 else ())) if match else ""
        if match is None or name not in fields or name in found:
            known = ", ".join(f"{field}=..." for field in fields) or "nothing in brackets"
            raise ScheduleError(f"{item.strip()!r} is not understood: it takes {known}")
        found[name] = duration(match[2], what=name) if name == "window" else match[2]
    return found


def _check_positive(number: int, what: str, *, instead: str) -> None:
    if number < 1:
        raise ScheduleError(f"{what}={number}): write at least 1, or {instead}")
