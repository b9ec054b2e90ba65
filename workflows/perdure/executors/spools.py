"""The spools of runs. An executor removes them: nothing in them is to outlive the run's owner."""

from __future__ import annotations

import logging

from perdure.calls import CallContext
from perdure_storage.blobs import open_blobs, sweep_spool
from perdure_storage.errors import PerdureError

_log = logging.getLogger(__name__)


def drop_spool(context: CallContext) -> None:
    """Remove a run's spool, which this executor's workers have used.

    Raises:
        StoreError: the blob root is not this store's.
        ValueUnavailable: it does not answer.
    """
    open_blobs(context.blobs_url, context.store_id).drop_spool(context.run_id)


def drop_leftovers(context: CallContext) -> None:
    """Remove what an owner that died has left in a run's spool; it costs space, nothing else."""
    try:
        sweep_spool(context.blobs_url, context.store_id, context.run_id)
    except PerdureError as error:
        _log.warning("the spool that %s had before is left: %s", context.run_id, error)
