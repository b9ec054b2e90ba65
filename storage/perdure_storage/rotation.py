"""Another key takes the place of the one that signs a store's rows, while runs go on.

    new key at hand -> it signs, both are believed -> old rows are signed anew, page by page
    -> the old one is not believed any more -> it goes out of the file

The store says which keys count, and each transaction that writes asks: a process that was there
before goes over to the new key at its next one. A death anywhere leaves a store that works, and
whoever asks again goes on from there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from perdure_storage.connect import Key, key_names, keys_at_hand
from perdure_storage.database import Database, Row, Transaction
from perdure_storage.errors import StoreError
from perdure_storage.faults import crash_point
from perdure_storage.rows import (
    AttemptRows,
    ExpansionRows,
    MessageRows,
    PlanRows,
    RunRows,
    SaveRows,
    StepRows,
    WaitRows,
)
from perdure_storage.schedule_rows import ScheduleRows, TickRows
from perdure_storage.signing import KEY_BYTES, KeyFile, KeyNames, Seal, Signer, key_id_of
from perdure_storage.sql_runs import SqlRunStore
from perdure_storage.statement import Statement
from perdure_storage.tables import metadata, setting
from perdure_storage.trigger_rows import ArrivalRows, TriggerRows


class _Sealed(Protocol):
    """What knows the rows of a table."""

    def seals(self, row: Row) -> Iterator[Seal]: ...


_PAGE = 200
"""Rows that are signed anew in one transaction: it holds up whoever commits for milliseconds."""

SIGNED: Mapping[str, Callable[[None], _Sealed]] = {
    "run": RunRows,
    "plan": PlanRows,
    "step": StepRows,
    "attempt": AttemptRows,
    "expansion": ExpansionRows,
    "wait": WaitRows,
    "save": SaveRows,
    "message": MessageRows,
    "schedule": ScheduleRows,
    "tick": TickRows,
    "trigger": TriggerRows,
    "arrival": ArrivalRows,
}
"""Tables whose rows are signed, with what knows how; a test finds one that is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What came of it.

    Attributes:
        key_id: name of the key that signs now.
        before: name of the one that did before.
        rows: how many rows were looked at.
        renewed: how many signatures were made anew, in this call.
        problems: rows whose signature fitted neither key, left as they are: they are refused.
        is_in_file: the key is in the store's file, which holds no other any more; otherwise it is
            whoever keeps the keys who takes the old one out.
    """

    key_id: str
    before: str
    rows: int = 0
    renewed: int = 0
    problems: tuple[str, ...] = ()
    is_in_file: bool


def rotate_key(store: SqlRunStore, key: Key) -> Rotation:
    """Have another key sign a store's rows, and all that is there already. Idempotent.

    Args:
        store: the store, opened with its key; other processes may use it meanwhile.
        key: where the keys are: a file gets a new one; of given ones the last one is taken.

    Raises:
        StoreError: the rows are not signed, no other key is given, one is given twice, or another
            process is at it.
        StoreUnavailable: the database does not answer.
    """
    with key.held() if isinstance(key, KeyFile) else nullcontext():
        names = _required(store)
        if names.before is None and isinstance(key, KeyFile) and (old := _left_over(key, names)):
            key.replace([_named(key, names.current)])  # a death has left this to be done
            return Rotation(key_id=names.current, before=old, is_in_file=True)
        if names.before is None:
            names = _begin(store, key, names)
        signer = Signer(
            _named(key, names.current), store.store_id, before=_named(key, names.before)
        )
        # Whoever has read before that the old key signs may still be about to commit.
        store.database.outlive()
        work = _Renewal(store.database, signer)
        for table in SIGNED:
            work.renew(table)
        crash_point("rotation.before-end")
        _write(store.database, _DELETE, of_name="key_id_before")
        crash_point("rotation.after-end")
        if isinstance(key, KeyFile):
            key.replace([_named(key, names.current)])
    return Rotation(
        key_id=names.current,
        before=names.before or "",
        rows=work.rows,
        renewed=work.renewed,
        problems=tuple(work.problems),
        is_in_file=isinstance(key, KeyFile),
    )


# --- which keys -----------------------------------------------------------------------------
def _required(store: SqlRunStore) -> KeyNames:
    names = key_names(store.database)
    if names is None:
        raise StoreError(f"the rows of {store.url} are not signed: there is no key to change")
    return names


def _left_over(key: KeyFile, names: KeyNames) -> str:
    """Return the name of the key that counted before, if all but taking it out is done."""
    held = [key_id_of(each) for each in key.load_all()]
    return held[-2] if len(held) > 1 and held[-1] == names.current else ""


def _begin(store: SqlRunStore, key: Key, names: KeyNames) -> KeyNames:
    """Have the new key sign from now on; the one of before still counts."""
    current = names.current
    following = _after(_each_once(key), current) or _made(key, current)
    new = key_id_of(following[-1])
    crash_point("rotation.key-kept")

    def switch(transaction: Transaction) -> None:
        compiled = store.database.statements.compile
        transaction.run(compiled(_UPDATE), of_name="key_id", new_value=new)
        transaction.run(compiled(_INSERT), name="key_id_before", value=current)

    store.database.write(switch)
    crash_point("rotation.begun")
    return KeyNames(new, current)


def _each_once(key: Key) -> Sequence[bytes]:
    """Return the keys at hand. Raises StoreError if one is there twice: none is the new one."""
    keys = keys_at_hand(key)
    for at, each in enumerate(keys):
        if each in keys[:at]:
            where = key.path if isinstance(key, KeyFile) else "PERDURE_KEY"
            raise StoreError(
                f"{where} has key {key_id_of(each)} twice: name each one once, the new one last"
            )
    return keys


def _after(keys: Sequence[bytes], name: str) -> Sequence[bytes]:
    """Return the keys that come after one."""
    names = [key_id_of(key) for key in keys]
    return keys[names.index(name) + 1 :]


def _made(key: Key, current: str) -> Sequence[bytes]:
    if not isinstance(key, KeyFile):
        if len(keys_at_hand(key)) > 1:
            raise StoreError("the last key given signs already: take the others out of PERDURE_KEY")
        raise StoreError(
            "there is no other key: give both wherever this store is used, the new one last,"
            " PERDURE_KEY=OLD,NEW, and begin the processes there again; then ask once more. A new"
            ' one: `python -c "import secrets; print(secrets.token_hex(32))"`'
        )
    made = secrets.token_bytes(KEY_BYTES)
    # What a death has left before the current one counts no more.
    key.replace([_named(key, current), made])
    return (made,)


def _named(key: Key, name: str | None) -> bytes:
    for each in keys_at_hand(key):
        if key_id_of(each) == name:
            return each
    raise StoreError(f"key {name} is needed to sign the rows anew, and is not at hand")


# --- rows -----------------------------------------------------------------------------------
_NAME = sa.bindparam("of_name", type_=sa.Text)
_UPDATE = (
    sa.update(setting)
    .where(setting.c.name == _NAME)
    .values(value=sa.bindparam("new_value", type_=sa.Text))
)
_INSERT = sa.insert(setting)
_DELETE = sa.delete(setting).where(setting.c.name == _NAME)


def _write(database: Database, clause: Any, **given: object) -> None:
    database.write(lambda t: t.run(database.statements.compile(clause), **given))


class _Renewal:
    """One pass over all rows. Mutable, used once."""

    def __init__(self, database: Database, signer: Signer) -> None:
        self._database = database
        self._signer = signer
        self.rows = 0
        self.renewed = 0
        self.problems: list[str] = []

    def renew(self, name: str) -> None:
        """Sign the rows of a table anew, in the order of their keys."""
        table = metadata.tables[name]
        seals: Callable[[Row], Iterator[Seal]] = SIGNED[name](None).seals
        keys = [list(table.c).index(column) for column in table.primary_key]
        first, rest = _pages(self._database, table)
        page = self._page(first, {}, table, seals, keys)
        while page:
            after = {f"after_{at}": page[-1][index] for at, index in enumerate(keys)}
            page = self._page(rest, after, table, seals, keys)

    def _page(
        self,
        statement: Statement,
        after: dict[str, Any],
        table: sa.Table,
        seals: Callable[[Row], Iterator[Seal]],
        keys: list[int],
    ) -> list[Row]:
        problems: list[str] = []

        def work(transaction: Transaction) -> tuple[list[Row], int]:
            problems.clear()  # it may be called again
            rows, renewed = transaction.rows(statement, **after), 0
            for row in rows:
                place = {f"of_{at}": row[index] for at, index in enumerate(keys)}
                for seal in seals(row):
                    renewed += self._seal_anew(transaction, table, place, seal, problems)
            return rows, renewed

        page, renewed = self._database.write(work)
        self.rows += len(page)
        self.renewed += renewed
        self.problems += problems
        if page:
            crash_point("rotation.mid")
        return page

    def _seal_anew(
        self,
        transaction: Transaction,
        table: sa.Table,
        place: dict[str, Any],
        seal: Seal,
        problems: list[str],
    ) -> int:
        try:
            mac = self._signer.renewed(seal)
        except StoreError as error:
            problems.append(str(error))
            return 0
        if mac is None:
            return 0
        update = _resealing(self._database, table, seal.column)
        # As it was read: who has written the row since has signed it with the new key.
        transaction.run(update, **place, was=seal.mac, now=mac)
        return 1


_compiled: dict[tuple[str, str, str], Any] = {}


def _pages(database: Database, table: sa.Table) -> tuple[Statement, Statement]:
    key = list(table.primary_key)
    after = sa.tuple_(*(sa.bindparam(f"after_{at}", type_=c.type) for at, c in enumerate(key)))
    first = sa.select(table).order_by(*key).limit(sa.literal_column(str(_PAGE)))
    compiled = database.statements.compile
    return compiled(first), compiled(first.where(sa.tuple_(*key) > after))


def _resealing(database: Database, table: sa.Table, column: str) -> Statement:
    known = (database.url, table.name, column)
    if known not in _compiled:
        place = [
            c == sa.bindparam(f"of_{at}", type_=c.type) for at, c in enumerate(table.primary_key)
        ]
        mac = table.c[column]
        changed = sa.update(table).where(*place, mac == sa.bindparam("was", type_=mac.type))
        _compiled[known] = database.statements.compile(
            changed.values({column: sa.bindparam("now", type_=mac.type)})
        )
    found: Statement = _compiled[known]
    return found
