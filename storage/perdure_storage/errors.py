"""The root of every error that perdure raises, and the branch that belongs to stores.

PerdureError
|- StoreError            the store cannot be used as it is (URL, schema, key, disk, marker)
|  |- SchemaMismatch     its tables are of another version of perdure
|  |- StoreUnavailable   it does not answer now; the same call may go through later
|  `- KeyMissing         rows are signed and the key is not there
|- RunNotFound
|- RunConflict           the run is in a state in which the request makes no sense
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
    """The store cannot be used as it is; the message says what to type."""


class SchemaMismatch(StoreError):
    """The store's tables are of another version of perdure."""


class StoreUnavailable(StoreError):
    """The store does not answer now: locked past the time-out, connection lost, disk full."""


class BlobsCondemned(StoreUnavailable):
    """Blobs that were named are being collected: put them again, then call again.

    Attributes:
        digests: the integrity digests of those blobs.
    """

    def __init__(self, message: str, *, digests: tuple[str, ...] = ()) -> None:
        self.digests = digests
        super().__init__(message)


class KeyMissing(StoreError):
    """The store's rows are signed and the key that signed them is not at hand."""


class RunNotFound(PerdureError):
    """No run of that id in the store that was asked (named in the message)."""

    def __init__(self, run_id: str, store: str, hint: str = "") -> None:
        self.run_id = run_id
        self.store = store
        super().__init__(f"no run {run_id!r} in {store}{hint and '. ' + hint}")


class RunConflict(PerdureError):
    """The run's state or definition does not allow the request; the message names the remedy."""


class ValueDamaged(PerdureError):
    """Stored bytes are missing, or are not the bytes that were committed.

    Attributes:
        digest: the integrity digest of the bytes that were asked for.
        missing: True if nothing is there; False if something else is.
    """

    def __init__(self, message: str, *, digest: str = "", missing: bool = False) -> None:
        self.digest = digest
        self.missing = missing
        super().__init__(message)


class ValueUnavailable(PerdureError):
    """Stored bytes cannot be reached now (time-out, EIO, permission): wait, do not rebuild."""


class NotSerializable(PerdureError):
    """A value has no encoding; ``path`` leads to the culprit in it: ``result["model"].lock``."""

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class InternalError(PerdureError):
    """perdure is wrong, not you: please report it with the traceback."""
