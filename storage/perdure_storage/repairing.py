"""Mending what a check has found and what can be mended: references, and blobs that are no good.

A value that is gone cannot be made here, but where this host has a copy: that is for whoever
resumes its run. A blob that is not what its name says stands in the way of that, for the rebuilt
one has the same name.
"""

from __future__ import annotations

from collections.abc import Iterable

from perdure_storage.blobs import BlobRoot
from perdure_storage.checking import Problem
from perdure_storage.database import Transaction
from perdure_storage.hashing import is_digest
from perdure_storage.sql_runs import SqlRunStore


def repair(store: SqlRunStore, blobs: BlobRoot, problems: Iterable[Problem]) -> list[Problem]:
    """Mend what can be; return what was. Idempotent; runs may go on meanwhile.

    - a blob that a row names and no reference of it keeps from gc is referred to again;
    - plans that runs name, and that are not kept for them, are;
    - references of what is not there are removed, so that gc may have their blobs;
    - a blob that is missing, or whose bytes are others, is put back from the copy that this host
      keeps of it, if there is one;
    - else one whose bytes are others is moved aside: the next resume of its run makes it again.

    Args:
        store: whose check it was.
        blobs: where its blobs are.
        problems: what was found.

    Raises:
        StoreUnavailable: the database does not answer.
        ValueUnavailable: the blobs cannot be reached.
    """
    # What keeps a blob comes before what kept it is removed.
    in_order = sorted(problems, key=lambda problem: problem.digest is None)
    return [problem for problem in in_order if _mended(store, blobs, problem)]


def _mended(store: SqlRunStore, blobs: BlobRoot, problem: Problem) -> bool:
    statements, database = store.database.statements, store.database
    if problem.kind == "blob" and is_digest(problem.digest or ""):
        assert problem.digest is not None
        if blobs.restore(problem.digest):
            return True
        there = blobs.size_of(problem.digest) is not None
        if there:
            blobs.quarantine(problem.digest)
        return there
    if problem.kind != "reference":
        return False
    if problem.holder is None:
        database.write(lambda transaction: transaction.run(statements.keep_plans))
        return True
    if problem.digest is None:
        database.write(lambda transaction: transaction.rows(statements.delete_dangling))
        return True
    row = (*problem.holder, problem.digest)
    # Young first: a gc that is under way leaves it alone, and the next one finds the reference.
    if not blobs.renew(problem.digest):
        return False

    def refer(transaction: Transaction) -> None:
        transaction.insert(statements.insert_blob_ref, [row])

    database.write(refer)
    store.absolve(store.list_condemned([problem.digest]))
    return True
