"""Exceptions become data here: readable without the user's code, raisable again with it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from perdure.worker.secrets import Redactor
from perdure_storage.records import Cause, ErrorRecord
from perdure_storage.shapes import readable, shown_name

_LONGEST_MESSAGE = 10_000
_LONGEST_TRACEBACK = 100_000


class StepInterrupted(BaseException):
    """Raised inside a running step when it is to end now, so that its ``finally`` blocks run.

    Derives from BaseException so that ``except Exception`` in user code does not swallow it.
    """


class StepStopped(BaseException):
    """Raised by ``current().stop()``: the attempt hands over to a later one."""


class Refusal(Exception):
    """An attempt that cannot begin, or whose value cannot be kept, for a reason not the user's.

    Attributes:
        cause: what the engine is to make of it.
        error: the exception behind it.
        culprit: the key of the input that is lost or out of reach; "" if it is none.
        retryable: whether another attempt could end differently.
    """

    def __init__(
        self, cause: Cause, error: BaseException, *, culprit: str = "", retryable: bool = True
    ) -> None:
        self.cause = cause
        self.error = error
        self.culprit = culprit
        self.retryable = retryable
        super().__init__(str(error))


def error_record(
    error: BaseException,
    *,
    cause: Cause = Cause.USER_ERROR,
    step_id: str | None = None,
    pickle: Callable[[Any], bytes] | None = None,
    redactor: Redactor | None = None,
    note: str = "",
    skip: int = 1,
) -> ErrorRecord:
    """Write ``error`` down, with its traceback from the user's first frame on.

    Args:
        error: what was raised.
        cause: how the attempt ended.
        step_id: where.
        pickle: makes bytes of the exception, so that it can be raised again elsewhere.
        redactor: masks secrets; an exception that holds one is not pickled.
        note: a line to add after the traceback.
        skip: frames of perdure's own at the head of the traceback.
    """
    mask = redactor or Redactor()
    said = readable(_message(error)), readable(_traceback(error, skip))
    # Masked before they are cut: half a secret would not be found.
    message, text = map(mask.text, said)
    pickled = _pickled(error, pickle)
    if (message, text) != said or (pickled is not None and mask.data(pickled) != pickled):
        pickled = None
    return ErrorRecord(
        type=unicode_text(shown_name(type(error))),
        message=unicode_text(_clip(message, _LONGEST_MESSAGE)),
        traceback=unicode_text(
            _clip(text, _LONGEST_TRACEBACK) + (f"note: {mask.text(note)}\n" if note else "")
        ),
        cause=cause,
        step_id=step_id,
        pickled=pickled,
    )


def unicode_text(text: str) -> str:
    """Return ``text`` as every store and line can take it.

    Half of a surrogate pair, as in a file name that is not UTF-8, is no Unicode: it is escaped.
    """
    return text.encode(errors="backslashreplace").decode()


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - a user's __str__ may do anything
        return f"<its __str__ raised {type(second).__name__}>"


def _traceback(error: BaseException, skip: int) -> str:
    from perdure.worker.tracebacks import traceback_text

    try:
        frames = error.__traceback__
        for _ in range(skip):
            frames = frames.tb_next if frames is not None else None
        return traceback_text(error, _from_the_users_on(frames))
    except Exception as second:  # noqa: BLE001 - formatting calls the user's __str__ and __repr__
        return f"<the traceback could not be written: {type(second).__name__}>\n"


def _from_the_users_on(frames: TracebackType | None) -> TracebackType | None:
    """Leave out perdure's frames at the head: between the call of a map and the user's ``key=``.

    If there are no others they stay.
    """
    from perdure.sources import is_perdures_own

    first = frames
    while first is not None and is_perdures_own(first.tb_frame.f_globals.get("__name__", "")):
        first = first.tb_next
    return first or frames


def _pickled(error: BaseException, pickle: Callable[[Any], bytes] | None) -> bytes | None:
    """Return the exception's pickle, or None: not every exception can travel, and none must."""
    if pickle is None:
        return None
    try:
        return pickle(error)
    except Exception:  # noqa: BLE001 - a user's __reduce__ may do anything; the text remains
        return None


def _clip(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
