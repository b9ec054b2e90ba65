"""Where modules are, found without importing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.sources import find_module_file


def test_a_module_is_found_in_folders_that_are_no_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "outer_space" / "inner_space" / "prep.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert find_module_file("outer_space.inner_space.prep") == str(file)
    assert find_module_file("outer_space.inner_space") is None
    assert find_module_file("outer_space.other_space.prep") is None
