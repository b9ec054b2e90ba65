"""Owners are told apart from any other process that ever had their number."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from perdure.engine.ownership import is_neighbour, is_seen_dead, retire, this_owner


def test_this_process_is_a_living_neighbour() -> None:
    owner = this_owner()

    assert is_neighbour(owner)
    assert not is_seen_dead(owner)


def test_two_owners_of_one_process_have_different_tokens() -> None:
    assert this_owner().token != this_owner().token


def test_process_that_ended_is_seen_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert is_seen_dead(msgspec.structs.replace(this_owner(), pid=process.pid))


def test_later_process_of_the_same_number_is_not_the_owner() -> None:
    owner = this_owner()

    assert is_seen_dead(msgspec.structs.replace(owner, started=owner.started - 1000))


def test_owner_that_was_retired_is_dead_though_its_process_lives() -> None:
    owner = this_owner()

    retire(owner)

    assert is_seen_dead(owner)


def test_owner_elsewhere_is_never_seen_dead() -> None:
    owner = this_owner()

    for field in ("host", "boot_id", "pid_ns"):
        assert not is_seen_dead(msgspec.structs.replace(owner, pid=2**22 - 1, **{field: "other"}))
