"""Names of schedules and triggers: they are in ids of runs, URLs and command lines."""

from __future__ import annotations

import re

NAME_RULE = (
    "a name is made of letters, digits, '.', '_' and '-', begins with a letter or digit and has at "
    "most 100 characters"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def is_name(text: str) -> bool:
    """Say whether a schedule or a trigger may have this name."""
    return _NAME.fullmatch(text) is not None
