"""What steps save while they run, in a SQL database."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure_storage import guards
from perdure_storage.database import Database, Transaction
from perdure_storage.faults import crash_point
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Refusal, RunCommit, RunId, SaveRecord
from perdure_storage.rows import SaveRows
from perdure_storage.signing import Signer
from perdure_storage.sql_commits import find_condemned


class Saves:
    """Saves of one database.

    Args:
        database: SQLite or PostgreSQL.
        signer: signs and checks rows, or None.
    """

    def __init__(self, database: Database, signer: Signer | None) -> None:
        self._database = database
        self._statements = database.statements
        self._rows = SaveRows(signer)

    def save(self, save: SaveRecord, *, owner: str, epoch: int, keep_last: int) -> Refusal | None:
        """Keep a save, as ``RunStore.save`` says."""
        _require_storable(save)
        holder = RunCommit(run_id=save.run_id, owner=owner, epoch=epoch)
        crash_point("save.before")
        refusal = self._database.write(lambda t: self._save(t, save, holder, keep_last))
        crash_point("save.after")
        return refusal

    def _save(
        self, transaction: Transaction, save: SaveRecord, holder: RunCommit, keep_last: int
    ) -> Refusal | None:
        statements = self._statements
        ids = statements.id_list([save.run_id])
        state = transaction.row(statements.lock_run_states, ids=ids)
        if state is None:
            return guards.gone(save.run_id)
        refusal = guards.refusal_of(holder, RunStatus(state[1]), state[2], state[3])
        if refusal is not None:
            return refusal
        blobs = guards.blobs_of_value(save.value)
        if taken := find_condemned(self._database, transaction, blobs):
            return guards.condemned(save.run_id, taken)
        if transaction.row(statements.find_later_attempt, **_attempt_of(save)) is not None:
            return guards.outrun(save)
        before = transaction.rows(statements.numbers_of_saves, **_step_of(save))
        number = before[0][0] + 1 if before else 1
        numbered = msgspec.structs.replace(save, number=number)
        transaction.insert(statements.insert_save, [self._rows.pack(numbered)])
        refs = [("save", save.run_id, save.step_id, number, digest) for digest in set(blobs)]
        transaction.insert(statements.insert_blob_ref, refs)
        mine = [each[0] for each in before if each[1] == save.item]
        for old in mine[max(0, keep_last - 1) :]:
            for statement in statements.delete_save:
                transaction.run(statement, **_step_of(save), of_number=old)
        transaction.insert(statements.update_run("takeovers"), [(0, save.run_id)])
        self._database.announce(transaction)
        crash_point("save.in-transaction")
        return None

    def list_saves(self, run_id: RunId) -> list[SaveRecord]:
        """Return the saves of a run, as ``RunStore.list_saves`` says."""
        rows = self._database.read(lambda t: t.rows(self._statements.list_saves, run_id=run_id))
        return [self._rows.unpack(row) for row in rows]


def _step_of(save: SaveRecord) -> dict[str, Any]:
    return {"of_run": save.run_id, "of_step": save.step_id}


def _attempt_of(save: SaveRecord) -> dict[str, Any]:
    mine = {"of_generation": save.generation, "of_attempt": save.attempt}
    return {**_step_of(save), **mine}


def _require_storable(save: SaveRecord) -> None:
    texts = (save.run_id, save.step_id, save.item, save.source)
    guards.require_storable(f"what step {save.step_id!r} saved", texts, (save.at,))
