"""Whether Ray is installed, without importing it: that takes seconds."""

from __future__ import annotations

import importlib.util

from perdure.errors import DefinitionError


def require_executor(name: str) -> None:
    """Refuse an executor that is not installed here.

    Raises:
        DefinitionError: it says what to type.
    """
    if name == "ray":
        require_ray()


def require_ray() -> None:
    """Refuse where Ray is missing.

    Raises:
        DefinitionError: it says what to type.
    """
    if importlib.util.find_spec("ray") is None:
        raise DefinitionError(
            "executor='ray' needs Ray, which is not installed here: pip install 'perdure[ray]'"
        )
