"""What the kernel's control groups say about this process: limits and kills. Linux only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def read_limits(controller: str, new: str, old: str) -> Iterator[str]:
    """Yield a file of this process's groups, from its own up to the root.

    Args:
        controller: name of the controller, for version 1 of control groups.
        new: file name in version 2.
        old: file name in version 1.
    """
    for folder in _folders(""):
        yield from _read(folder / new)
    for folder in _folders(controller):
        yield from _read(folder / old)


def count_oom_kills() -> int | None:
    """Return how many processes the kernel has killed for memory here; None if it does not say.

    The group's own counter if there is one, else the machine's.
    """
    for text in read_limits("memory", "memory.events", "memory.oom_control"):
        if (count := _field(text, "oom_kill")) is not None:
            return count
    for text in _read(Path("/proc/vmstat")):
        return _field(text, "oom_kill")
    return None


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group in a hierarchy; "" is version 2."""
    for text in _read(Path("/proc/self/cgroup")):
        for line in text.splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") or (not controller and not controllers):
                top = _ROOT / controller
                group = top / path.lstrip("/")
                while group != top:
                    yield group
                    group = group.parent
                yield top


def _read(path: Path) -> Iterator[str]:
    """Yield the file's text, or nothing if it cannot be read."""
    try:
        yield path.read_text().strip()
    except OSError:
        return
