"""Folders for the time of a step: they go with their process, however that ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perdure_storage.temporary_folders import (
    TemporaryFolder,
    left_folders,
    sweep_left_folders,
)

DIES = """
import os, signal
from perdure_storage.temporary_folders import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "state.bin").write_bytes(b"x" * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_folder_goes_when_it_is_closed(temporary_files: Path) -> None:
    folder = TemporaryFolder()
    (folder.path / "a").mkdir()
    (folder.path / "a" / "b").write_text("b")

    folder.close()

    assert list(temporary_files.iterdir()) == []


def test_folder_that_is_in_use_is_left_alone() -> None:
    folder = TemporaryFolder()

    assert left_folders() == []
    assert sweep_left_folders() == 0
    assert folder.path.is_dir()
    folder.close()


def test_folder_of_a_killed_process_is_found_and_swept(temporary_files: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES], check=False)

    (left,) = left_folders()

    assert (left / "state.bin").stat().st_size == 1000
    assert sweep_left_folders() == 1
    assert list(temporary_files.iterdir()) == []


def test_next_process_that_needs_one_removes_what_the_killed_left(temporary_files: Path) -> None:
    for _ in range(3):
        subprocess.run([sys.executable, "-c", DIES], check=False)

    assert len(left_folders()) == 1
