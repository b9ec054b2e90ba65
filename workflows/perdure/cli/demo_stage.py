"""Where the demo plays: a folder with a store of its own, and the one run in it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from perdure.cli.killable import Killable
from perdure.client import Perdure
from perdure.errors import DefinitionError
from perdure.runs import Run
from perdure.settings import FOLDER, load_settings
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import RunId

RUN_ID = "demo"
LEDGER = "ran.txt"
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What ran when, by step id.

    Attributes:
        total: how many steps the run has.
        committed: those whose results the store had after the kill.
        begun: those that had begun when it came, by the file that the steps write themselves.
        after: those that began after it, by the same file.
    """

    total: int
    committed: tuple[str, ...]
    begun: tuple[str, ...]
    after: tuple[str, ...] = ()

    @property
    def in_flight(self) -> tuple[str, ...]:
        """Return what had begun and was not committed."""
        return tuple(step for step in self.begun if step not in self.committed)

    @property
    def twice(self) -> tuple[str, ...]:
        """Return what was committed and ran again all the same: nothing, or a promise is broken."""
        return tuple(step for step in self.after if step in self.committed)


class Stage:
    """The folder, its store, and the command that runs there now. Used by one thread.

    The store is the folder's own, whatever the user's settings say: no run of a demo shall turn
    up in a team's store.
    """

    def __init__(self, folder: Path) -> None:
        """Take an existing folder; its store is made when the stage is entered."""
        self.folder = folder
        home = folder.absolute() / FOLDER
        self._store, self._blobs = f"sqlite:///{home / 'perdure.db'}", str(home / "blobs")
        self._perdure = Perdure(load_settings(store=self._store, blobs=self._blobs))
        self._run = Run(RUN_ID, self._perdure)
        self._command: Killable | None = None

    def __enter__(self) -> Stage:
        # Made before a command looks for the nearest store, which is this one then.
        self._perdure.runtime  # noqa: B018
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._perdure.close()

    def start(self, words: Sequence[str]) -> None:
        """Start ``perdure WORDS...`` in the folder."""
        variables = {**self._places(), "PERDURE_EXECUTOR": "processes"}
        self._command = Killable(words, self.folder, variables)

    def wait(self) -> int:
        """Wait for the end of the command; return its exit code."""
        assert self._command is not None
        return self._command.wait()

    def wait_until_half(self) -> bool:
        """Wait until half of the steps are committed; say no if the command ended before that."""
        assert self._command is not None
        while not self._command.ends_within(_LOOK_EVERY_S):
            if self._is_half_done():
                return True
        return False

    def kill(self) -> int:
        """Kill the command with all below it; return how many processes that were."""
        return self._command.kill() if self._command is not None else 0

    def tally(self) -> Tally:
        """Return what has run so far."""
        steps = self._run.steps()
        committed = tuple(step.id for step in steps if step.status is StepStatus.SUCCEEDED)
        return Tally(total=len(steps), committed=committed, begun=self._begun())

    def tally_since(self, kill: Tally) -> Tally:
        """Return the tally of a kill with what has run since."""
        after = self._begun()[len(kill.begun) :]
        return Tally(total=kill.total, committed=kill.committed, begun=kill.begun, after=after)

    def why(self, step_id: str) -> str:
        """Return why a step ran."""
        return self._run[step_id].why()

    def settings_to_export(self) -> list[str]:
        """Return the commands without which the user's settings would lead to another store."""
        if self._is_found_here():
            return []
        return [f"export {name}={shlex.quote(place)}" for name, place in self._places().items()]

    def _places(self) -> dict[str, str]:
        return {"PERDURE_STORE": self._store, "PERDURE_BLOBS": self._blobs}

    def _is_found_here(self) -> bool:
        """Say whether a command in the folder finds its store without being told."""
        try:
            found = load_settings(start=self.folder.absolute())
        except DefinitionError:
            return False
        return (found.store, found.blobs) == (self._store, self._blobs)

    def _is_half_done(self) -> bool:
        if self._perdure.runtime.store.find_run(RunId(RUN_ID)) is None:
            return False
        progress = self._run.progress
        return 2 * progress.done >= progress.total

    def _begun(self) -> tuple[str, ...]:
        """Return the steps that have begun, one for each line that they wrote."""
        ledger = self.folder / LEDGER
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return tuple(line.split()[0] for line in lines)
