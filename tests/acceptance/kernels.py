"""A notebook's kernel in a folder: runs cells, is interrupted, restarted and shut down."""

from __future__ import annotations

import os
import queue
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

TIMEOUT_S = 60
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Ended:
    """What a cell has put out: streams, its value, displays by id, and its error."""

    streams: str = ""
    value: dict[str, Any] = field(default_factory=dict)
    displays: list[dict[str, Any]] = field(default_factory=list)
    by_id: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str = ""

    @property
    def text(self) -> str:
        """Return the value as text."""
        return str(self.value.get("text/plain", ""))

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """Take in one message of the kernel's."""
        if kind == "stream":
            self.streams += content["text"]
        elif kind == "execute_result":
            self.value = content["data"]
        elif kind == "error":
            self.error = _COLOURS.sub("", "\n".join(content["traceback"]))
        elif kind in ("display_data", "update_display_data"):
            display_id = content.get("transient", {}).get("display_id")
            if display_id in self.by_id:
                self.by_id[display_id].clear()
                self.by_id[display_id].update(content["data"])
            else:
                self.displays.append(content["data"])
                if display_id:
                    self.by_id[display_id] = content["data"]


class Kernel:
    """A kernel of this Python; ``shut_down`` ends it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        (folder / ".perdure").mkdir(exist_ok=True)
        self.manager = KernelManager(kernel_name="python3")
        own = {"IPYTHONDIR": str(folder / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, **own, **environment})
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)

    def __call__(self, code: str, *, interrupt_when: Callable[[], bool] | None = None) -> Ended:
        """Run a cell to its end, whatever that is; interrupt it once the condition holds."""
        asked = self.client.execute(code)
        ended = Ended()
        for _ in range(TIMEOUT_S * 20):
            if interrupt_when is not None and interrupt_when():
                self.manager.interrupt_kernel()
                interrupt_when = None
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                continue
            kind, content = message["msg_type"], message["content"]
            is_ours = message["parent_header"].get("msg_id") == asked
            if is_ours and kind == "status" and content["execution_state"] == "idle":
                return ended
            ended.take(kind, content)
        raise TimeoutError(f"the cell has not ended: {code}")

    def restart(self) -> None:
        """Restart it as a notebook does: asked first, killed if it does not come to its end."""
        self.client.stop_channels()
        self.manager.restart_kernel()
        self._connect()

    def shut_down(self) -> None:
        """End it. Idempotent."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel()
