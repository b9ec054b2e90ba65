"""What operations work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from perdure.child import Child, ChildLost
from perdure.client import Perdure
from perdure.http.beside import MODULE, Answered, Question
from perdure.http.problems import Problem
from perdure.remedies import shell_of
from perdure_scheduler.intake import Intake
from perdure_storage.errors import StoreUnavailable

T = TypeVar("T")


class Failed(Exception):
    """A verb raised in the child; ``problem`` is how that looks."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Answers(Protocol):
    """Who answers what needs the user's modules."""

    def ask(self, question: Question, answer: type[T], /) -> T:
        """Return the answer. Raises ChildLost if there will be none."""
        ...

    def close(self) -> None:
        """Answer nothing more. Idempotent."""
        ...


class Service:
    """A store, and a child for what needs the user's modules. Used by many threads.

    Args:
        client: the verbs.
        modules: whose workflows may be started, ``FILE.py`` or ``package.module``.
        child: answers what needs the user's modules; a process of its own by default.
        metrics: returns what Prometheus is to be told; None: nothing is counted here.
    """

    def __init__(
        self,
        client: Perdure,
        modules: Sequence[str] = (),
        child: Answers | None = None,
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        self.client = client
        self.metrics = metrics
        self.modules = tuple(modules)
        runtime = client.runtime
        self.intake = Intake(runtime.store.triggers, runtime.values, runtime.clock)
        self._child: Answers = child or Child(client.settings, MODULE)

    @property
    def store_option(self) -> str:
        """Return what ``--store`` has to say in commands that lead here; "" for nothing."""
        return shell_of(self.client.settings).store

    def beside(self, question: Question, answer: type[T]) -> T:
        """Return what the child has to say to a question.

        Raises:
            Failed: the verb raised there.
            StoreUnavailable: the child is gone; the same question may be answered later.
        """
        try:
            answered = self._child.ask(question, Answered)
        except ChildLost as lost:
            raise StoreUnavailable(str(lost)) from None
        if answered.problem is not None:
            raise Failed(answered.problem)
        return msgspec.json.decode(answered.value, type=answer)

    def close(self) -> None:
        """End the child. Idempotent."""
        self._child.close()
