from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import perdure
from perdure import Perdure


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], Perdure]]:
    """Open the test's store as another process would, after the death of the one before."""
    stack = ExitStack()

    def opened() -> Perdure:
        stack.close()
        url = f"sqlite:///{tmp_path / 'perdure.db'}"
        return stack.enter_context(perdure.open(url, executor="inline"))

    yield opened
    stack.close()


@pytest.fixture
def store(reopen: Callable[[], Perdure]) -> Perdure:
    return reopen()
