"""Which paths a pattern means."""

from __future__ import annotations

import pytest

from perdure_scheduler.file_pattern import FilePattern


def means(pattern: str, path: str) -> bool:
    made = FilePattern(pattern)
    return made.is_met(made.reached(path))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/in/*.csv", "/in/a.csv"),
        ("/in/a-?.csv", "/in/a-1.csv"),
        ("/in/[ab].csv", "/in/b.csv"),
        ("/in/*/x.csv", "/in/2026/x.csv"),
        ("/in/**/*.csv", "/in/a.csv"),
        ("/in/**/*.csv", "/in/2026/07/a.csv"),
        ("/in/**", "/in/a.csv"),
        ("/in/**", "/in/2026/07/a.csv"),
        ("/in/**/07/*.csv", "/in/2026/07/a.csv"),
        ("/in/**/**/a.csv", "/in/a.csv"),
        ("/in/", "/in/a.csv"),
        ("/in/rates.csv", "/in/rates.csv"),
        ("bucket/in/*.csv", "bucket/in/a.csv"),
        ("/*.csv", "/a.csv"),
        ("*.csv", "a.csv"),
        ("/in/*", "/in/a b\n.csv"),
    ],
)
def test_path_is_meant(pattern: str, path: str) -> None:
    assert means(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/in/*.csv", "/in/a.csv.gz"),
        ("/in/*.csv", "/in/deep/a.csv"),
        ("/in/*.csv", "/other/a.csv"),
        ("/in/*.csv", "/in"),
        ("/in/*.csv", "/inner/a.csv"),
        ("/in/*.CSV", "/in/a.csv"),
        ("/in/*/x.csv", "/in/x.csv"),
        ("/in/", "/in/deep/a.csv"),
        ("/in/**/07/*.csv", "/in/07/08/a.csv"),
        ("/in/rates.csv", "/in/rates.csv2"),
    ],
)
def test_path_is_not_meant(pattern: str, path: str) -> None:
    assert not means(pattern, path)


@pytest.mark.parametrize(
    "name", [".a.csv", "a.csv~", "~$a.csv", "a.csv.part", "a.csv.tmp", "a.csv.crdownload"]
)
def test_name_of_what_is_not_finished_is_ignored(name: str) -> None:
    assert not means("/in/*", f"/in/{name}")
    assert not means("/in/**", f"/in/{name}")


def test_hidden_folder_is_ignored_with_all_that_is_in_it() -> None:
    assert not means("/in/**/*.csv", "/in/.cache/a.csv")


def test_hidden_folder_above_the_first_wildcard_is_meant_as_it_is_written() -> None:
    assert means("/home/me/.inbox/*.csv", "/home/me/.inbox/a.csv")


@pytest.mark.parametrize(
    ("pattern", "path"), [("/in/*.part", "/in/a.part"), ("/in/.*", "/in/.a"), ("/in/.a", "/in/.a")]
)
def test_ignored_name_that_is_asked_for_is_meant(pattern: str, path: str) -> None:
    assert means(pattern, path)


def test_only_folders_that_may_hold_something_lead_on() -> None:
    pattern = FilePattern("/in/2026-*/*.csv")

    assert pattern.folder == "/in"
    assert pattern.after(pattern.begin, "2026-07")
    assert not pattern.after(pattern.begin, "2025-07")
    assert not pattern.after(pattern.after(pattern.begin, "2026-07"), "deeper.d")


@pytest.mark.parametrize(
    ("pattern", "is_deep"),
    [("/in/*.csv", False), ("/in/", False), ("/in/*/a", True), ("/in/**", True)],
)
def test_it_knows_whether_folders_below_matter(pattern: str, is_deep: bool) -> None:
    assert FilePattern(pattern).is_deep is is_deep
