"""The runs that a worker process knows."""

from __future__ import annotations

from perdure.calls import StepCall
from perdure.worker.frames import Define
from perdure.worker.scope import RunScope


class Scopes:
    """One ``RunScope`` for each run that this process has calls of."""

    def __init__(self) -> None:
        self._scopes: dict[str, RunScope] = {}

    def define(self, message: Define) -> None:
        """Take in a run, or more of one."""
        if message.context is not None:
            self._scopes[message.run_id] = RunScope(message.context)
        self._scopes[message.run_id].learn(message.functions, message.constants)

    def of(self, call: StepCall) -> RunScope:
        """Return the scope of the call's run."""
        return self._scopes[call.id.run_id]

    def forget(self, run_id: str) -> None:
        """Let go of a run. Its spool is the coordinator's to drop."""
        self._scopes.pop(run_id, None)
