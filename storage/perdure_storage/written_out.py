"""What SQLAlchemy says in SQLite's words, written out: who opens such a store need not import it.

To import it takes as long as all the rest of a short program. The text is made by ``python -m
perdure_storage.writing_out``; that it is what would be compiled is a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from perdure_storage.statement import Statement

PLACE = Path(__file__).with_name("sqlite.json")

Words = Statement | tuple[Statement, ...] | None
"""What has a name: a statement, several that are run in turn, or none in this dialect."""


class WrittenOut(msgspec.Struct, frozen=True, kw_only=True):
    """What is written out.

    Attributes:
        ddl: what makes the tables of a fresh store, in this order.
        columns: of the tables whose rows are handled by name, in their order: of every dialect.
        statements: by room, then by name; those of several shapes by what ``spelled`` says.
    """

    ddl: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    statements: dict[str, dict[str, Words]]


def spelled(name: str, positional: tuple[object, ...], named: Mapping[str, object]) -> str:
    """Return the name of one shape of a statement: as its call is written."""
    words = [_word(each) for each in positional]
    words += [f"{key}={_word(named[key])}" for key in sorted(named)]
    return f"{name}({', '.join(words)})"


def _word(value: object) -> str:
    return str(sorted(value) if isinstance(value, frozenset) else value)


WRITTEN = msgspec.json.decode(PLACE.read_bytes(), type=WrittenOut)
