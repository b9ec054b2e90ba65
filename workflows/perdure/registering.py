"""Modules as a whole: what they declare is registered, what they no longer declare is paused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from perdure import queueing, scheduling, triggering
from perdure.errors import DefinitionError
from perdure.queues import Queue
from perdure.runtime import Runtime
from perdure.schedules import Schedule
from perdure.target import file_of
from perdure.triggers import Trigger
from perdure_scheduler.registered import Registered


class Became(msgspec.Struct, frozen=True, kw_only=True):
    """What became of something that a module declares, or declared.

    Attributes:
        kind: ``"queue"``, ``"schedule"`` or ``"trigger"``.
        became: ``"new"``, ``"changed"``, ``"unchanged"``, ``"resumed"`` or ``"paused"``.
    """

    kind: str
    name: str
    module: str
    became: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """What modules may declare.

    Attributes:
        word: what people call it.
        type: of the values.
        find: takes the runtime and a name, and returns the row or None.
        prepared: takes the runtime and values, and returns what registers each of them: it takes
            ``module`` and says what it came to.
        pause_left: takes the runtime, a module and the names that are declared now.
    """

    word: str
    type: type[Any]
    find: Callable[[Runtime, str], Any]
    prepared: Callable[[Runtime, Sequence[Any]], Sequence[Callable[..., object]]]
    pause_left: Callable[[Runtime, str, Collection[str]], list[str]]


_QUEUES = (
    _Kind(
        "queue",
        Queue,
        lambda runtime, name: None,
        lambda runtime, queues: queueing.prepared(runtime.store, queues, runtime.clock.now()),
        lambda runtime, module, declared: [],  # runs may be in it: its limits stand
    ),
)
_KINDS = (
    _Kind(
        "schedule",
        Schedule,
        lambda runtime, name: runtime.store.schedules.find_schedule(name),
        scheduling.prepared,
        lambda runtime, module, declared: scheduling.registry_of(runtime).pause_left(
            module, declared
        ),
    ),
    _Kind(
        "trigger",
        Trigger,
        lambda runtime, name: runtime.store.triggers.find_trigger(name),
        triggering.prepared,
        lambda runtime, module, declared: triggering.registry_of(runtime).pause_left(
            module, declared
        ),
    ),
)


def register_all(runtime: Runtime, modules: Mapping[str, Any]) -> list[Became]:
    """Register what modules declare and pause what they do not declare any more.

    Queues come first: what makes runs in one is refused while it is not there.

    Args:
        runtime: the store.
        modules: the imported modules, by the names under which they were asked for.

    Raises:
        DefinitionError, TriggerError: two of a kind have one name, or one of them cannot be
            registered; then no schedule and no trigger is.
    """
    return [*_register(runtime, modules, _QUEUES), *_register(runtime, modules, _KINDS)]


def _register(runtime: Runtime, modules: Mapping[str, Any], kinds: Sequence[_Kind]) -> list[Became]:
    told: list[Became] = []
    declared = {kind: _declared_in(modules, kind) for kind in kinds}
    prepared = {
        kind: kind.prepared(runtime, [value for value, _ in values.values()])
        for kind, values in declared.items()
    }
    for kind, values in declared.items():
        for register, (value, module) in zip(prepared[kind], values.values(), strict=True):
            is_others = _is_of_another(runtime, kind, value, module)
            became = Registered.UNCHANGED if is_others else register(module=module)
            told.append(Became(kind=kind.word, name=value.name, module=module, became=str(became)))
        for module in modules:
            left = kind.pause_left(runtime, module, values)
            told += [
                Became(kind=kind.word, name=name, module=module, became="paused") for name in left
            ]
    return told


def _is_of_another(runtime: Runtime, kind: _Kind, value: Any, module: str) -> bool:
    """Say whether the module that made a value has declared it: one that imports it leaves it."""
    if value.made_in in (None, file_of(module)):
        return False
    row = kind.find(runtime, value.name)
    owner = None if row is None else row.module
    return owner not in (None, module) and file_of(owner) == value.made_in


def _declared_in(modules: Mapping[str, Any], kind: _Kind) -> dict[str, tuple[Any, str]]:
    """Return what modules hold in their globals, by name: each once, with the first that has it.

    What one of them imports from another one is that one's: a file that is imported is not the
    module that was loaded as a file, and has other values.
    """
    held = {
        module: [each for each in vars(namespace).values() if isinstance(each, kind.type)]
        for module, namespace in modules.items()
    }
    makers = {file_of(module): {each.name for each in values} for module, values in held.items()}
    found: dict[str, tuple[Any, str]] = {}
    for module, values in held.items():
        for value in values:
            is_imported = value.made_in not in (None, file_of(module))
            if is_imported and value.name in makers.get(value.made_in, ()):
                continue
            there, first = found.setdefault(value.name, (value, module))
            if there is not value:
                where = module if first == module else f"{first} and {module}"
                raise DefinitionError(f"{where}: two {kind.word}s are called {value.name!r}")
    return dict(sorted(found.items()))
