"""Where in the user's code an exception arose."""

from __future__ import annotations

import os
import sys
import traceback


def place_of(error: BaseException) -> str:
    """Return the last of the user's lines, ``/home/ann/flow.py:12: if k > 3:``, or ``""``."""
    theirs = [frame for frame in _frames(error) if not _is_ours(frame)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}: {theirs[-1].line}" if theirs else ""


def is_users(error: BaseException) -> bool:
    """Say whether it was raised in the user's code, or in a library that this code called."""
    frames = _frames(error)
    return bool(frames) and not _is_ours(frames[-1])


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith("<frozen")]


_NOT_USERS = ("perdure", "perdure_storage", "perdure_scheduler", "typer", "contextlib")
"""Modules whose folders are between a command and the user's code."""


def _is_ours(frame: traceback.FrameSummary) -> bool:
    files = (getattr(sys.modules.get(name), "__file__", None) for name in _NOT_USERS)
    folders = tuple(os.path.dirname(file) + os.sep for file in files if file)
    return frame.filename.startswith(folders)
