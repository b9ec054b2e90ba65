"""Python looks for garbage again afterwards, if it did before."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from perdure_storage.garbage import all_stays


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    was_enabled = gc.isenabled()
    yield
    (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize("wanted", [True, False])
def test_garbage_is_looked_for_again_if_it_was_before(wanted: bool) -> None:
    (gc.enable if wanted else gc.disable)()

    with all_stays():
        inside = gc.isenabled()

    assert not inside
    assert gc.isenabled() == wanted
