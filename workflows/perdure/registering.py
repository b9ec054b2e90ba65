"""Modules as a whole: what they declare is registered, what they no longer declare is paused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from perdure import scheduling, triggering
from perdure.errors import DefinitionError
from perdure.runtime import Runtime
from perdure.schedules import Schedule
from perdure.triggers import Trigger


class Became(msgspec.Struct, frozen=True, kw_only=True):
    """What became of something that a module declares, or declared.

    Attributes:
        kind: ``"schedule"`` or ``"trigger"``.
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
        prepared: takes the runtime and values, and returns what registers each of them: it takes
            ``module`` and says what it came to.
        pause_left: takes the runtime, a module and the names that are declared now.
    """

    word: str
    type: type[Any]
    prepared: Callable[[Runtime, Sequence[Any]], Sequence[Callable[..., object]]]
    pause_left: Callable[[Runtime, str, Collection[str]], list[str]]


_KINDS = (
    _Kind(
        "schedule",
        Schedule,
        scheduling.prepared,
        lambda runtime, module, declared: scheduling.registry_of(runtime).pause_left(
            module, declared
        ),
    ),
    _Kind(
        "trigger",
        Trigger,
        triggering.prepared,
        lambda runtime, module, declared: triggering.registry_of(runtime).pause_left(
            module, declared
        ),
    ),
)


def register_all(runtime: Runtime, modules: Mapping[str, Any]) -> list[Became]:
    """Register what modules declare and pause what they do not declare any more.

    Args:
        runtime: the store.
        modules: the imported modules, by the names under which they were asked for.

    Raises:
        DefinitionError, TriggerError: two of a kind have one name, or one of them cannot be
            registered; then none is.
    """
    told: list[Became] = []
    declared = {kind: _declared_in(modules, kind) for kind in _KINDS}
    prepared = {
        kind: kind.prepared(runtime, [value for value, _ in values.values()])
        for kind, values in declared.items()
    }
    for kind, values in declared.items():
        for register, (value, module) in zip(prepared[kind], values.values(), strict=True):
            became = str(register(module=module))
            told.append(Became(kind=kind.word, name=value.name, module=module, became=became))
        for module in modules:
            left = kind.pause_left(runtime, module, values)
            told += [
                Became(kind=kind.word, name=name, module=module, became="paused") for name in left
            ]
    return told


def _declared_in(modules: Mapping[str, Any], kind: _Kind) -> dict[str, tuple[Any, str]]:
    """Return what modules hold in their globals, by name: each once, with the first that has it."""
    found: dict[str, tuple[Any, str]] = {}
    for module, namespace in modules.items():
        for value in vars(namespace).values():
            if not isinstance(value, kind.type):
                continue
            there, first = found.setdefault(value.name, (value, module))
            if there is not value:
                where = module if first == module else f"{first} and {module}"
                raise DefinitionError(f"{where}: two {kind.word}s are called {value.name!r}")
    return dict(sorted(found.items()))
