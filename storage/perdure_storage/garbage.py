"""When Python is not to look for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def all_stays() -> Iterator[None]:
    """Let Python look for garbage after this: all that is made here stays.

    It would walk through all of it again and again while it is made: a twentieth of the import of
    what drives runs, a fifth of the load of a large run. Cycles of others are found by the next
    look.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
