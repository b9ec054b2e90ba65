"""How errors are shown where somebody types Python: what their code said, then what to type.

IPython would show every frame on the way through perdure to where the run's error was raised, and
of the step's own, which were in another process, none.
"""

from __future__ import annotations

from collections.abc import Iterator
from traceback import StackSummary, walk_tb

from perdure.errors import RunFailed
from perdure.interactive import with_cells
from perdure.sources import is_local_file, is_perdures_own


def lines_of(error: BaseException) -> list[str]:
    """Return the lines that are shown of an error."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ").splitlines()
    return [*_of_the_step(error), *_of_the_callers(error), *said, *getattr(error, "__notes__", ())]


def _of_the_step(error: BaseException) -> Iterator[str]:
    """Yield the traceback that the step's own code had in its worker."""
    if isinstance(error, RunFailed) and error.traceback:
        yield f"In step {error.step_id}:" if error.step_id else "In its own process:"
        yield from with_cells(error.traceback.rstrip()).splitlines()
        yield ""


def _of_the_callers(error: BaseException) -> list[str]:
    """Return the frames of the user's own on the way to the error."""
    theirs = (
        (frame, number)
        for frame, number in walk_tb(error.__traceback__)
        if is_local_file(frame.f_code.co_filename)
        and not is_perdures_own(frame.f_globals.get("__name__", ""))
    )
    text = "".join(StackSummary.extract(theirs).format())
    return [*with_cells(text.rstrip()).splitlines(), ""] if text else []
