"""What other libraries have made of the user's functions and classes, and the way back."""

from __future__ import annotations

import sys
from typing import Any


def undecorated(found: Any) -> Any:
    """Return the function or class that ``@ray.remote`` has decorated; else what was given."""
    # Not imported for the question's sake: where nobody has, nothing is Ray's.
    functions = sys.modules.get("ray.remote_function")
    if functions is not None and isinstance(found, functions.RemoteFunction):
        return found._function
    actors = sys.modules.get("ray.actor")
    if actors is not None and isinstance(found, actors.ActorClass):
        return user_class(found.__ray_metadata__.modified_class)
    return found


def user_class(body: type) -> type:
    """Return the user's class of one that Ray has derived from it."""
    found: type = getattr(body, "__ray_actor_class__", body)
    return found
