"""``workflow.options``: what a workflow's task has beyond the options of its function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perdure.compat.ray_workflow.pairs import CatchingTask
from perdure.errors import DefinitionError
from perdure.foreign import undecorated
from perdure.options import check_metadata, check_name
from perdure.ray_dag import ON_FUNCTION
from perdure.task import Task, understand

CARRIER = "_labels"
"""The option of Ray's functions that takes any dict: what ``_metadata`` was in Ray 2.47."""

KEY = "workflow.io/options"
"""Under which name the options travel there."""

NOTE = "perdure.ray_workflow"
"""Under which name the metadata of a step tells what was asked."""

_KNOWN = ("task_id", "metadata", "catch_exceptions", "checkpoint")


class options(Mapping[str, Any]):
    """Options of a workflow's task: a decorator, or ``f.options(**workflow.options(...))``.

    Args:
        **given: ``task_id``, ``metadata`` (JSON), ``catch_exceptions``, ``checkpoint``.

    Raises:
        ValueError: an option is unknown, or its value makes no sense.
    """

    def __init__(self, **given: Any) -> None:
        if unknown := given.keys() - set(_KNOWN):
            raise ValueError(
                f"Invalid option keywords {sorted(unknown)} for workflow tasks. "
                f"Valid ones are {list(_KNOWN)}."
            )
        for name in ("catch_exceptions", "checkpoint"):
            if not isinstance(given.get(name, False), bool | type(None)):
                raise ValueError(f"{name}={given[name]!r:.80}: must be True or False")
        if given.get("metadata") is not None:
            given["metadata"] = checked_metadata(given["metadata"])
        self._given = {name: value for name, value in given.items() if value is not None}

    def __getitem__(self, name: str) -> Any:
        return {CARRIER: {KEY: self._given}}[name]

    def __iter__(self) -> Iterator[str]:
        return iter((CARRIER,))

    def __len__(self) -> int:
        return 1

    def __call__(self, function: Any) -> Any:
        """Give a task, or a function of Ray's, these options in place of any such before.

        Raises:
            ValueError: it is neither.
        """
        if isinstance(function, Task):
            return with_options(function, self._given)
        plain = undecorated(function)
        if plain is function:
            raise ValueError(
                "Only apply 'workflow.options' to tasks of perdure or to Ray's remote functions, "
                f"not to {function!r:.80}"
            )
        setattr(plain, ON_FUNCTION, self[CARRIER])
        return function


def checked_metadata(metadata: Any) -> dict[str, Any]:
    """Return user metadata.

    Raises:
        ValueError: it is no dict that JSON can hold.
    """
    try:
        return check_metadata(metadata)
    except DefinitionError as error:
        raise ValueError(str(error)) from None


def with_options(task: Task[Any, Any], given: Mapping[str, Any]) -> Task[Any, Any]:
    """Return a task with options of a workflow's task; what is not named stays.

    Raises:
        ValueError: its id cannot be the name of a step.
    """
    noted = task.spec.options.metadata
    asked = {**noted.get(NOTE, {}), **given}
    user = asked.pop("metadata", None)
    ours = {name: value for name, value in noted.items() if name.startswith("perdure.")}
    if user is None:
        user = {name: value for name, value in noted.items() if name not in ours}
    changes: dict[str, Any] = {"metadata": {**user, **ours, NOTE: asked}}
    if "task_id" in asked:
        try:
            changes["name"] = check_name(asked["task_id"], what="task_id")
        except DefinitionError as error:
            raise ValueError(str(error)) from None
    if "checkpoint" in asked:
        changes["checkpoint"] = asked["checkpoint"]
    if "catch_exceptions" in asked:
        changes["catch"] = asked["catch_exceptions"]
    try:
        changed = task.options(**changes)
    except DefinitionError as error:
        raise ValueError(str(error)) from None
    kind = CatchingTask if asked.get("catch_exceptions") else Task
    return kind(changed.function, changed.spec, changed._after)


def _understood(task: Task[Any, Any], labels: Mapping[str, Any]) -> Task[Any, Any]:
    return with_options(task, labels[KEY])


understand(CARRIER, _understood)
