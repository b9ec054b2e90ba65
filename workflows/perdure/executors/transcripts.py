"""What workers' processes print, given to the attempts that printed it."""

from __future__ import annotations

from perdure.calls import CallContext, CallId, StepCall
from perdure.worker.output import AttemptLog
from perdure.worker.scope import LateLogs
from perdure.worker.secrets import Redactor, secret_names


class Transcripts:
    """Appends output to the logs of attempts, secrets masked. Owned by the coordinator's thread."""

    def __init__(self) -> None:
        self._stores: dict[str, LateLogs] = {}
        self._open: dict[CallId, AttemptLog] = {}

    def append(self, call: StepCall, context: CallContext, data: bytes, *, last: bool) -> None:
        """Add what ``call`` printed; ``last`` says that nothing more of it comes."""
        log = self._open.pop(call.id, None)
        if log is None:
            if not data:
                return
            log = AttemptLog(call.id, self._store(context), _redactor(call))
        log.append(data, last=last)
        if not last:
            self._open[call.id] = log

    def forget(self, run_id: str) -> None:
        """Let go of a run."""
        self._stores.pop(run_id, None)

    def _store(self, context: CallContext) -> LateLogs:
        found = self._stores.get(context.run_id)
        if found is None:
            found = self._stores[context.run_id] = LateLogs(context.blobs_url, context.store_id)
        return found


def _redactor(call: StepCall) -> Redactor:
    """Return what masks the secrets that this call was given."""
    redactor = Redactor()
    redactor.add_named(secret_names(call))  # of those that are missing the worker had none to print
    return redactor
