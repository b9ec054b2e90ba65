"""Where the steps of a coordinator in this process run, and where they note what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.counting import MortalExecutor, MortalRayExecutor
from tests.crash.ledger import Ledger

HESITATED = "hesitated-"
"""How the files are called by which it is known what was hesitated at."""


@dataclass(frozen=True)
class Here:
    """An executor, and the folder of what its steps read and write.

    Attributes:
        executor: its name.
        notes: workers on Ray outlive a test, so that there it is one for all of them.
    """

    executor: str
    notes: Path

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.notes / "ledger.jsonl")

    @property
    def gate(self) -> Path:
        return self.notes / "gate"

    @property
    def make_executor(self) -> Callable[[], Any]:
        """Return what makes one that can be dropped as a death drops it."""
        return MortalRayExecutor if self.executor == "ray" else MortalExecutor

    def clear(self) -> None:
        """Forget what was noted, and close the gate."""
        self.ledger.path.unlink(missing_ok=True)
        self.gate.unlink(missing_ok=True)
        for file in self.notes.glob(f"{HESITATED}*"):
            file.unlink()
