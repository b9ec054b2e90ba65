"""Which files are new and finished."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from perdure_scheduler.file_sieve import FileSieve
from perdure_scheduler.files import FoundFile

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
FIVE_S = timedelta(seconds=5)


def a_file(
    path: str = "/in/a.csv", size: int = 1, age_s: float = 0.0, etag: str | None = None
) -> FoundFile:
    modified = NOW - timedelta(seconds=age_s)
    return FoundFile(path=path, size=size, modified=modified, etag=etag)


def a_sieve(
    stable_for: timedelta = timedelta(0), *, change: bool = False, trusts_times: bool = False
) -> FileSieve:
    return FileSieve(stable_for, change=change, trusts_times=trusts_times)


def test_file_passes_until_it_is_said_to_have_passed() -> None:
    sieve, file = a_sieve(), a_file()

    assert sieve.sift([file], NOW, 0.0) == [file]
    assert sieve.sift([file], NOW, 1.0) == [file]
    sieve.passed([file])
    assert sieve.sift([file], NOW, 2.0) == []


def test_file_waits_until_it_has_looked_the_same_for_long_enough() -> None:
    sieve, file = a_sieve(FIVE_S), a_file()

    assert sieve.sift([file], NOW, 0.0) == []
    assert sieve.look_again_at() == 5.0
    assert sieve.sift([file], NOW, 4.9) == []
    assert sieve.sift([file], NOW, 5.0) == [file]


def test_file_that_grows_begins_to_wait_anew() -> None:
    sieve = a_sieve(FIVE_S)
    sieve.sift([a_file(size=1)], NOW, 0.0)

    assert sieve.sift([a_file(size=2)], NOW, 5.0) == []
    assert sieve.look_again_at() == 10.0


def test_file_written_again_with_the_same_size_begins_to_wait_anew() -> None:
    sieve = a_sieve(FIVE_S)
    sieve.sift([a_file(age_s=1.0)], NOW, 0.0)

    assert sieve.sift([a_file(age_s=0.5)], NOW, 5.0) == []


def test_local_file_that_is_old_enough_is_finished_at_once() -> None:
    old, young = a_file("/in/old", age_s=5.0), a_file("/in/young", age_s=4.0)

    assert a_sieve(FIVE_S, trusts_times=True).sift([old, young], NOW, 0.0) == [old]


def test_time_of_another_machine_is_not_compared_with_ours() -> None:
    assert a_sieve(FIVE_S).sift([a_file(age_s=3600)], NOW, 0.0) == []


def test_file_from_the_future_waits_like_any_other() -> None:
    sieve, file = a_sieve(FIVE_S, trusts_times=True), a_file(age_s=-3600)

    assert sieve.sift([file], NOW, 0.0) == []
    assert sieve.sift([file], NOW, 5.0) == [file]


def test_file_that_changes_passes_again_only_if_changes_count() -> None:
    for change, passes in ((False, False), (True, True)):
        sieve = a_sieve(change=change)
        sieve.passed([a_file(size=1)])

        assert bool(sieve.sift([a_file(size=2)], NOW, 0.0)) is passes


def test_etag_says_whether_a_file_is_another_one() -> None:
    sieve = a_sieve(change=True)
    sieve.passed([a_file(etag="x")])

    assert sieve.sift([a_file(etag="x", size=2)], NOW, 0.0) == []
    assert sieve.sift([a_file(etag="y")], NOW, 0.0) != []


def test_what_is_gone_is_not_waited_for() -> None:
    sieve = a_sieve(FIVE_S)
    sieve.sift([a_file("/in/a"), a_file("/in/b")], NOW, 0.0)

    sieve.forget(["/in/a"])
    assert sieve.waiting == {"/in/b"}
    sieve.forget_all_but([])
    assert sieve.look_again_at() is None


def test_file_without_a_time_or_an_etag_is_told_by_its_size() -> None:
    sieve = a_sieve(FIVE_S, trusts_times=True)
    file = FoundFile(path="/in/a", size=1)

    assert sieve.sift([file], NOW, 0.0) == []
    assert sieve.sift([file], NOW, 5.0) == [file]
