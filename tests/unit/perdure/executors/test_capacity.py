from __future__ import annotations

from perdure.executors.capacity import detect_capacity, usable_cpus, usable_memory_bytes


def test_capacity_is_what_was_asked_for() -> None:
    capacity = detect_capacity(3, cpus=1.5, memory=1000, resources={"licence": 2})

    assert (capacity.slots, capacity.cpus, capacity.memory_bytes) == (3, 1.5, 1000)
    assert capacity.resources == {"licence": 2}


def test_capacity_gives_each_of_the_workers_asked_for_a_cpu() -> None:
    assert detect_capacity(7).cpus == 7


def test_capacity_leaves_a_tenth_of_the_memory() -> None:
    assert detect_capacity().memory_bytes == int(usable_memory_bytes() * 0.9)


def test_capacity_has_at_least_some_of_a_cpu() -> None:
    assert 0 < usable_cpus() <= 4096
