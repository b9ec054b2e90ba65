"""Tracing: which workflow body is running now, and what was bound in it.

A ``Trace`` is mutable, owned by the thread that runs the body, and ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from perdure.errors import DefinitionError
from perdure.graph.node import Alias, Call, Inputs, Node, Scope, describe, source_of


class Trace:
    """What was bound while one workflow body ran.

    Attributes:
        workflow: the name of the workflow whose body runs.
        token: identity of the trace; None while a sub-workflow is inlined into a free graph.
        calls: all calls, in the order of binding.
        scope: the sub-workflow that is being inlined.
        after: what every call of that sub-workflow waits for.
    """

    __slots__ = ("after", "calls", "scope", "token", "workflow")

    def __init__(self, workflow: str, token: object | None) -> None:
        self.workflow = workflow
        self.token = token
        self.calls: list[Call] = []
        self.scope: Scope | None = None
        self.after: tuple[Node, ...] = ()

    @contextmanager
    def within(self, scope: Scope, after: tuple[Node, ...]) -> Iterator[None]:
        """Bind into ``scope`` for the time of the block."""
        before = self.scope, self.after
        self.scope, self.after = scope, (*self.after, *after)
        try:
            yield
        finally:
            self.scope, self.after = before


_current: ContextVar[Trace | None] = ContextVar("perdure_trace", default=None)


def current_trace() -> Trace | None:
    """Return the trace of the workflow body that runs now, or None outside of one."""
    return _current.get()


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Make ``trace`` the current one for the time of the block."""
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def check_origin(node: Node, token: object | None, workflow: str) -> None:
    """Refuse a node that belongs to another trace.

    Raises:
        DefinitionError: it was made while another workflow was traced, or it is an input of
            another graph.
    """
    source = source_of(node)
    if isinstance(source, Alias):
        return  # its parts are checked when it is resolved
    origin = source.token if isinstance(source, Call | Inputs) else None
    if origin is token or (origin is None and isinstance(source, Call)):
        return
    here = f"workflow {workflow!r}" if workflow else "this graph"
    if origin is None:
        remedy = "make it a parameter of the workflow"
    else:
        remedy = "nodes live as long as the body in which they were bound: bind it again here"
    raise DefinitionError(f"{describe(node)} does not belong to {here}: {remedy}")
