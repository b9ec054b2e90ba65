"""The command line. ``main`` is its entry point; nothing else is imported until a verb runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

_LOOK_FOR_GARBAGE_AFTER = 200_000
"""Objects more than at the last look; some tens of megabytes if all of them were garbage."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 ok, 1 a run failed, 2 usage, 3 suspended, 130 cancelled or Ctrl-C.

    Args:
        argv: the words after ``perdure``; None takes those of this process.
    """
    # What imports make stays: to look for garbage in it after every 700 objects, as Python does by
    # itself, is a tenth of a short command. Cycles of a long one are still found, by the next look.
    gc.set_threshold(_LOOK_FOR_GARBAGE_AFTER)

    from perdure.cli.app import invoke

    return invoke(list(sys.argv[1:] if argv is None else argv))
