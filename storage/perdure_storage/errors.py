"""The root of every error that perdure raises, and the branch that belongs to stores.

PerdureError
|- StoreError            the store cannot be used as it is (URL, schema, key, disk, marker)
|  |- SchemaMismatch     its tables are of another version of perdure
|  |- StoreUnavailable   it does not answer now; the same call may go through later
|  |- KeyMissing         rows are signed and the key is not there
|  `- RunFileRefused     the file is no exported run, or cannot be imported
|- RunNotFound
|- ScheduleNotFound
|- TriggerNotFound
|- RunConflict           the run is in a state in which the request makes no sense
|  `- DuplicateRun       another live run of its queue has its deduplication key
|- ValueDamaged          stored bytes are missing or are not the bytes that were committed
|- ValueUnavailable      stored bytes cannot be reached now; never treated as lost
|- NotSerializable       a value has no encoding; carries the path inside the object
`- InternalError         perdure is wrong: please report
"""

from __future__ import annotations


class PerdureError(Exception):
    """Root of all errors raised by perdure. Facts are attributes; every class pickles."""

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(
    cls: type[PerdureError], args: tuple[object, ...], state: dict[str, object]
) -> PerdureError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class StoreError(PerdureError):
    """The store cannot be used as it is; the message says what to type.

    Likely:
        The URL is misspelt, the file is damaged or another program's, or its key or its blobs are
        another store's.

    Type:
        ``perdure doctor`` finds which, and says how to mend it.
    """


class SchemaMismatch(StoreError):
    """The store's tables are of another version of perdure.

    Likely:
        Two versions of perdure use one store.

    Type:
        ``perdure db upgrade`` if the store is the older one, ``pip install -U perdure`` if it is
        the newer one.
    """


class StoreUnavailable(StoreError):
    """The store does not answer now: locked past the time-out, connection lost, disk full.

    Likely:
        The disk is full or read-only, another process holds the file, or the server is not
        reachable. What was committed is safe.

    Type:
        ``perdure doctor`` finds which; then ``perdure resume ID``.

    Attributes:
        is_gone: True if there is no store any more where it was: no run of it can go on until
            somebody puts it back.
    """

    def __init__(self, message: str, *, is_gone: bool = False) -> None:
        self.is_gone = is_gone
        super().__init__(message)


class BlobsCondemned(StoreUnavailable):
    """Blobs that were named are being collected: put them again, then call again.

    Attributes:
        digests: the integrity digests of those blobs.
    """

    def __init__(self, message: str, *, digests: tuple[str, ...] = ()) -> None:
        self.digests = digests
        super().__init__(message)


class KeyMissing(StoreError):
    """The store's rows are signed and the key that signed them is not at hand.

    Likely:
        The store was copied without the file ``key`` beside it.

    Type:
        Copy ``key`` from where the store was made, or set ``PERDURE_KEY``; ``perdure doctor`` says
        where it is looked for.
    """


class RunFileRefused(StoreError):
    """The file is no exported run, or is one that cannot be imported as it is.

    Likely:
        It is another file, was cut on its way, was written by a newer perdure, or holds pickled
        values and nobody has said that its maker is trusted.

    Type:
        ``perdure export RUN -o FILE`` where the run is, and import that file.
    """


class RunNotFound(PerdureError):
    """No run of that id in the store that was asked (named in the message).

    Likely:
        It is in another store: you are in another folder, or ``--store`` is missing. Or it is
        misspelt, or was deleted.

    Type:
        ``perdure ls`` lists the runs of the store that was asked.
    """

    def __init__(self, run_id: str, store: str, hint: str = "") -> None:
        self.run_id = run_id
        self.store = store
        super().__init__(f"no run {run_id!r} in {store}{hint and '. ' + hint}")


class ScheduleNotFound(PerdureError):
    """No schedule of that name in the store that was asked (named in the message).

    Likely:
        It is in another store: you are in another folder, or ``--store`` is missing. Or it is
        misspelt, or was removed.

    Type:
        ``perdure schedule ls`` lists the schedules of the store that was asked.
    """

    def __init__(self, name: str, store: str, hint: str = "") -> None:
        self.name = name
        self.store = store
        super().__init__(f"no schedule {name!r} in {store}{hint}")


class TriggerNotFound(PerdureError):
    """No trigger of that name in the store that was asked (named in the message).

    Likely:
        It is in another store: you are in another folder, or ``--store`` is missing. Or it is
        misspelt, or was removed.

    Type:
        ``perdure trigger ls`` lists the triggers of the store that was asked.
    """

    def __init__(self, name: str, store: str, hint: str = "") -> None:
        self.name = name
        self.store = store
        super().__init__(f"no trigger {name!r} in {store}{hint}")


class RunConflict(PerdureError):
    """The run's state or definition does not allow the request; the message names the remedy.

    Likely:
        The id was used before for other code or inputs, or the run is in a state in which the
        request makes no sense.

    Type:
        What the message says: ``perdure run --reuse ID TARGET`` for a new run that takes over what
        has not changed, ``perdure resume ID``, or a new ``--id``.
    """


class DuplicateRun(RunConflict):
    """Another run of that queue has the same ``dedup_key``, and is not over.

    Likely:
        The same thing was asked for twice; it is under way.

    Type:
        ``if_duplicate="return"`` (``--if-duplicate return``) to get the run that is there, or
        ``perdure cancel ID`` to end it first.

    Attributes:
        run_id: the run that is there.
    """

    def __init__(self, message: str, *, run_id: str = "") -> None:
        self.run_id = run_id
        super().__init__(message)


class ValueDamaged(PerdureError):
    """Stored bytes are missing, or are not the bytes that were committed.

    Likely:
        A file under ``blobs/`` was deleted or changed, or a disk fails.

    Type:
        ``perdure resume ID`` rebuilds it from what it was computed from; ``perdure doctor`` looks
        at the disk.

    Attributes:
        digest: the integrity digest of the bytes that were asked for.
        missing: True if nothing is there; False if something else is.
    """

    def __init__(self, message: str, *, digest: str = "", missing: bool = False) -> None:
        self.digest = digest
        self.missing = missing
        super().__init__(message)


class ValueUnavailable(PerdureError):
    """Stored bytes cannot be reached now (time-out, EIO, permission): wait, do not rebuild.

    Likely:
        The disk or bucket of the blobs is not mounted, not reachable, or its credentials are not
        there.

    Type:
        ``perdure doctor`` finds which; then ``perdure resume ID``.
    """


class NotSerializable(PerdureError):
    """A value has no encoding; ``path`` leads to the culprit in it: ``result["model"].lock``.

    Likely:
        A lock, an open file, a connection or a generator is in it.

    Type:
        Return or pass what it is made of (a path, a URL, numbers) and make it in the task that uses
        it, or give its class ``__getstate__`` and ``__setstate__``. Then ``perdure resume ID --code
        current``.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class InternalError(PerdureError):
    """perdure is wrong, not you: please report it with the traceback.

    Likely:
        A mistake in perdure.

    Type:
        The command again with ``--traceback``, and report what it prints.
    """
