"""The command line. ``main`` is its entry point; nothing else is imported until a verb runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 ok, 1 a run failed, 2 usage, 3 suspended, 130 cancelled or Ctrl-C.

    Args:
        argv: the words after ``perdure``; None takes those of this process.
    """
    from perdure.cli.app import invoke

    return invoke(list(sys.argv[1:] if argv is None else argv))
