"""All statements of a store in its dialect, by room: compiled, or as they were written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from perdure_storage.leases import LeaseTerms
from perdure_storage.statement import Statement
from perdure_storage.written_out import WRITTEN, Words, spelled

if TYPE_CHECKING:
    from perdure_storage.queue_statements import QueueStatements
    from perdure_storage.schedule_statements import ScheduleStatements
    from perdure_storage.statements import Statements
    from perdure_storage.trigger_statements import TriggerStatements


class StatementBook(Protocol):
    """The rooms of statements."""

    @property
    def runs(self) -> Statements:
        """Return those about runs, and what all rooms have in common."""
        ...

    @property
    def queues(self) -> QueueStatements:
        """Return those about queues."""
        ...

    @property
    def schedules(self) -> ScheduleStatements:
        """Return those about schedules."""
        ...

    @property
    def triggers(self) -> TriggerStatements:
        """Return those about triggers."""
        ...


class SqliteBook:
    """The statements for SQLite. SQLAlchemy is imported for what is not written out only.

    Args:
        terms: how leases are judged.
    """

    def __init__(self, terms: LeaseTerms) -> None:
        assert terms.ends_with_boot, "what is written out judges leases so"
        assert terms.clock is not None
        self._terms = terms
        rooms = {
            name: _Room(WRITTEN.statements[name], partial(self._compiled_room, name))
            for name in ROOMS
        }
        self.runs = cast("Statements", rooms["runs"])
        self.queues = cast("QueueStatements", rooms["queues"])
        self.schedules = cast("ScheduleStatements", rooms["schedules"])
        self.triggers = cast("TriggerStatements", rooms["triggers"])

    @cached_property
    def _compiled(self) -> StatementBook:
        from perdure_storage.compiled_book import sqlite_book

        return sqlite_book(self._terms)

    def _compiled_room(self, name: str) -> object:
        return getattr(self._compiled, name)


ROOMS = ("runs", "queues", "schedules", "triggers")


class _Room:
    """Stands for the statements of one room: has the names that they have."""

    is_postgres = False

    def __init__(self, words: Mapping[str, Words], compiled: Callable[[], object]) -> None:
        self._words = words
        self._compiled = compiled
        self._shaped = {name.partition("(")[0] for name in words if "(" in name}
        self._shapes: dict[object, Statement] = {}

    def id_list(self, ids: Sequence[str]) -> object:
        """Return ids as the one parameter that ``among`` takes."""
        return msgspec.json.encode(list(ids)).decode()

    def __getattr__(self, name: str) -> Any:
        if name in self._words:
            found: Any = self._words[name]
        elif name in self._shaped:
            found = partial(self._shape, name)
        else:
            found = getattr(self._compiled(), name)
        self.__dict__[name] = found  # asked for the next time it is found without this
        return found

    def _shape(self, name: str, /, *positional: object, **named: object) -> Statement:
        key = (name, positional, *named.items())
        if key not in self._shapes:
            words: Any = self._words.get(spelled(name, positional, named))
            compiled: Any = words or getattr(self._compiled(), name)(*positional, **named)
            self._shapes[key] = compiled
        return self._shapes[key]
