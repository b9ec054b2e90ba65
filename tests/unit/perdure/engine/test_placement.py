"""What fits, what never can, and that taking and giving balance."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perdure.engine.placement import Pool, shape_of, shortage
from perdure.executors.protocol import Capacity
from perdure.plan import StepOptions

CAPACITY = Capacity(cpus=4, gpus=1, memory_bytes=1000, resources={"fpga": 2}, slots=8)


def test_shortage_names_what_is_missing() -> None:
    assert shortage(StepOptions(cpus=5), CAPACITY) == "cpus=5 asked, 4 here"
    assert shortage(StepOptions(memory_bytes=2000), CAPACITY) is not None
    assert shortage(StepOptions(resources={"tpu": 1}), CAPACITY) == "tpu=1 asked, 0 here"
    assert shortage(StepOptions(cpus=4, gpus=1, resources={"fpga": 2}), CAPACITY) is None


def test_shortage_of_a_misspelt_resource_names_the_nearest() -> None:
    missing = shortage(StepOptions(resources={"fpag": 1}), CAPACITY)

    assert missing == "fpag=1 asked, 0 here; did you mean 'fpga'?"


def test_fractions_of_a_gpu_are_shared() -> None:
    pool = Pool(CAPACITY)
    shape = shape_of(StepOptions(cpus=0, gpus=0.1), is_async=False)

    taken = 0
    while pool.fits(shape) and taken < 20:
        pool.take(shape)
        taken += 1

    assert taken == 8  # the slots, not the rounding of ten tenths


def test_async_attempts_have_slots_of_their_own() -> None:
    pool = Pool(Capacity(cpus=1, slots=1, async_slots=2))
    waiting = shape_of(StepOptions(cpus=0), is_async=True)

    pool.take(shape_of(StepOptions(), is_async=False))

    assert pool.fits(waiting)


def test_serial_place_fits_whatever_is_queued() -> None:
    pool = Pool(Capacity(cpus=1, slots=3, is_serial=True))
    shape = shape_of(StepOptions(cpus=1), is_async=False)

    for _ in range(3):
        assert pool.fits(shape)
        pool.take(shape)

    assert not pool.fits(shape)


@given(
    st.lists(
        st.builds(
            StepOptions,
            cpus=st.floats(0, 4),
            gpus=st.sampled_from([0, 0.25, 0.5, 1]),
            memory_bytes=st.integers(1, 1000),
            resources=st.sampled_from([{}, {"fpga": 1.0}]),
        ),
        max_size=20,
    )
)
def test_pool_never_goes_below_nothing_and_comes_back_to_itself(asked: list[StepOptions]) -> None:
    pool = Pool(CAPACITY)
    held = []
    for options in asked:
        shape = shape_of(options, is_async=False)
        if pool.fits(shape):
            pool.take(shape)
            held.append(shape)
        assert pool.cpus > -1e-6
        assert pool.gpus > -1e-6
        assert pool.memory_bytes >= 0

    for shape in held:
        pool.give(shape)

    assert abs(pool.cpus - 4) < 1e-6
    assert pool.slots == 8


def test_sent_ahead_holds_nothing_until_one_of_its_like_ends() -> None:
    pool = Pool(Capacity(cpus=2, slots=8))
    shape, other = (shape_of(StepOptions(cpus=cpus), is_async=False) for cpus in (1, 2))
    pool.take(shape)
    pool.take(shape)

    assert pool.may_wait(shape, 2)
    assert not pool.may_wait(other, 2)  # none of its like runs
    for _ in range(4):
        assert pool.may_wait(shape, 2)
        pool.send_ahead(shape)
    assert not pool.may_wait(shape, 2)

    for _ in range(4):  # those that were sent ahead take the places of those that end
        pool.give(shape)
        assert not pool.fits(shape)
    pool.give(shape)
    pool.give(shape)
    assert pool.fits(other)


def test_nothing_is_sent_ahead_where_calls_wait_in_line_anyway() -> None:
    shape = shape_of(StepOptions(), is_async=False)
    pool = Pool(Capacity(cpus=1, slots=1, is_serial=True))
    pool.take(shape)

    assert not pool.may_wait(shape, 100)
