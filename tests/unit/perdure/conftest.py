"""Values in memory, and code that is defined from text as a notebook defines its cells."""

from __future__ import annotations

import itertools
import linecache
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from perdure.fingerprint import plain_digest
from perdure_storage.blobs import open_blobs
from perdure_storage.codecs import Codecs
from perdure_storage.values import Values

_cells = itertools.count(1)


@pytest.fixture
def values() -> Values:
    return Values(
        Codecs(code_digest=plain_digest),
        open_blobs("memory://definition", "store", bind=True),
    )


@pytest.fixture
def cell() -> Callable[..., dict[str, Any]]:
    """Run text as a notebook cell; given a namespace, in that one."""

    def run(source: str, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
        text = textwrap.dedent(source)
        filename = f"<ipython-input-{next(_cells)}>"
        linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
        names = namespace if namespace is not None else {"__name__": "__main__"}
        exec(compile(text, filename, "exec", dont_inherit=True), names)
        return names

    return run
