"""Who carries out ``run``, ``start``, ``submit``, ``execute``: looked up, not imported upwards.

``perdure.open(...)`` puts its driver in place for its ``with`` block; outside of one, the default
driver is made once, when it is first needed, by a factory that ``perdure`` itself registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from perdure.errors import InternalError


class Driver(Protocol):
    """What can carry out a DAG: the client against a store.

    ``dag`` is a ``Workflow``, a node, or a list, tuple or dict of nodes. Arguments that are not
    options are inputs; ``inputs`` gives those whose names are options.
    """

    def run(self, dag: Any, **options: Any) -> Any:
        """Run durably and return the result."""
        ...

    def start(self, dag: Any, **options: Any) -> Any:
        """Run durably in the background of this process and return the run."""
        ...

    def submit(self, dag: Any, **options: Any) -> Any:
        """Record the run for whoever drives the store and return it."""
        ...

    def execute(self, dag: Any, **options: Any) -> Any:
        """Run eagerly in this process, store nothing, and return the result."""
        ...


_active: ContextVar[Driver | None] = ContextVar("perdure_driver", default=None)
_factory: Callable[[], Driver] | None = None
_eager: Callable[[Any, Mapping[str, Any]], Any] | None = None
_default: Driver | None = None


def set_default_driver(factory: Callable[[], Driver]) -> None:
    """Name the function that makes the default driver; it is called at most once."""
    global _factory, _default
    _factory, _default = factory, None


def current_driver() -> Driver:
    """Return the driver of the enclosing ``with perdure.open(...)``, else the default one."""
    global _default
    active = _active.get()
    if active is not None:
        return active
    if _default is None:
        if _factory is None:
            raise InternalError("no driver is registered; `import perdure` registers the client")
        _default = _factory()
    return _default


@contextmanager
def use_driver(driver: Driver) -> Iterator[None]:
    """Make ``driver`` the one that module functions and workflow verbs use within the block."""
    token = _active.set(driver)
    try:
        yield
    finally:
        _active.reset(token)


def set_eager(execute: Callable[[Any, Mapping[str, Any]], Any]) -> None:
    """Name the function that executes a DAG eagerly; it needs no driver and no store."""
    global _eager
    _eager = execute


def execute_eagerly(dag: Any, inputs: Mapping[str, Any]) -> Any:
    """Execute a workflow or nodes in this process, store nothing, and return the result."""
    if _eager is None:
        raise InternalError("no eager executor is registered; `import perdure` registers it")
    return _eager(dag, inputs)
