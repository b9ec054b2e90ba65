"""A ``perdure`` command as a child that can be killed at any moment, with all below it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from perdure.executors.process_tree import kill_processes, process_id
from perdure.worker.kinship import descendant_pids


class Killable:
    """``perdure WORDS...`` in a folder; what it prints goes where ours goes.

    It has a process group of its own: Ctrl-C reaches whoever started it, who then kills it.
    """

    def __init__(self, words: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
        """Start the command, with ``variables`` on top of our environment."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perdure", *words],
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        return self._process.wait()

    def ends_within(self, seconds: float) -> bool:
        """Wait for so long at most; say whether it has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> int:
        """SIGKILL it and all below it; return how many processes that were.

        It goes first: it shall not see its workers die, and note that.
        """
        if self._process.poll() is not None:
            return 0
        below = [process_id(pid) for pid in descendant_pids(self._process.pid)]
        self._process.kill()
        self._process.wait()
        kill_processes([each for each in below if each is not None])
        return 1 + len(below)
