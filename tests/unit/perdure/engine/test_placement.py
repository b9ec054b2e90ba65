"""What fits, what never can, which GPUs it gets, and that taking and giving balance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.calls import Instance
from perdure.engine.placement import (
    Line,
    Pool,
    Seat,
    shape_of,
    shortage,
)
from perdure.executors.protocol import Capacity
from perdure.plan import Plan, StepOptions, largest_request, request_of

CAPACITY = Capacity(cpus=4, gpu_ids=("0",), memory_bytes=1000, resources={"fpga": 2}, slots=8)
FOUR_GPUS = Capacity(cpus=16, gpu_ids=("0", "1", "2", "3"), slots=64)


def missing(options: StepOptions) -> str | None:
    return shortage(request_of(options), CAPACITY.offer)


def test_shortage_names_what_is_missing() -> None:
    assert missing(StepOptions(cpus=5)) == "cpus=5 asked, 4 here"
    assert missing(StepOptions(gpus=2)) == "gpus=2 asked, 1 here"
    assert missing(StepOptions(memory_bytes=2 << 20)) == "memory=2.0 MiB asked, 1000 B here"
    assert missing(StepOptions(resources={"tpu": 1})) == "tpu=1 asked, 0 here"
    assert missing(StepOptions(cpus=4, gpus=1, resources={"fpga": 2})) is None


def test_shortage_names_what_no_node_has_though_all_together_do() -> None:
    places = ({"cpus": 2.0}, {"cpus": 1.0, "gpus": 1.0})
    offer = {"cpus": 3.0, "gpus": 1.0}

    assert shortage({"cpus": 3.0}, offer, places) == "cpus=3 asked, and one node has 2"
    assert shortage({"cpus": 2.0, "gpus": 1.0}, offer, places) == (
        "cpus=2 gpus=1 asked, and no node has all of that"
    )
    assert shortage({"cpus": 1.0, "gpus": 1.0}, offer, places) is None


def test_request_that_fits_no_node_does_not_start_once_the_one_is_gone_that_it_fitted() -> None:
    alone = Capacity(cpus=4, places=({"cpus": 4.0},))
    pool, shape = Pool(alone), shape_of(StepOptions(cpus=4), is_async=False)
    assert pool.fits(shape)

    pool.resize(Capacity(cpus=4, places=({"cpus": 2.0}, {"cpus": 2.0})))

    assert not pool.fits(shape)
    assert pool.fits(shape_of(StepOptions(cpus=2), is_async=False))


def test_shortage_of_a_misspelt_resource_names_the_nearest() -> None:
    assert missing(StepOptions(resources={"fpag": 1})) == (
        "fpag=1 asked, 0 here; did you mean 'fpga'?"
    )


def test_largest_request_of_a_plan_is_the_most_of_each_thing() -> None:
    plan = Plan(
        workflow="w",
        steps=(),
        functions={},
        constants=(),
        options=(StepOptions(cpus=4), StepOptions(gpus=0.5, resources={"fpga": 1})),
        output=None,
    )

    assert largest_request(plan) == {"cpus": 4, "gpus": 0.5, "fpga": 1}


def test_fractions_of_a_gpu_are_shared() -> None:
    pool = Pool(CAPACITY)
    shape = shape_of(StepOptions(cpus=0, gpus=0.1), is_async=False)

    taken = 0
    while pool.fits(shape) and taken < 20:
        assert pool.take(Line(shape), taken) == ("0",)
        taken += 1

    assert taken == 8  # the slots, not the rounding of ten tenths


def test_pool_has_more_and_less_as_nodes_come_and_go() -> None:
    one = Capacity(cpus=2, gpu_ids=("0",), resources={"zone=a": 1e9})
    two = Capacity(cpus=4, gpu_ids=("0", "1"), resources={"zone=a": 1e9, "zone=b": 1e9})
    pool = Pool(one)
    line = Line(shape_of(StepOptions(cpus=1, gpus=1), is_async=False))
    in_b = shape_of(StepOptions(resources={"zone=b": 1}), is_async=False)

    pool.take(line, "first")
    assert not pool.fits(line.shape)
    assert not pool.fits(in_b)
    pool.resize(two)
    assert pool.fits(in_b)
    assert pool.take(line, "second") == ("1",)
    pool.resize(one)  # and what was held there is owed
    pool.give(line.shape, "second")
    assert not pool.fits(line.shape)
    pool.give(line.shape, "first")
    assert pool.take(line, "third") == ("0",)
    assert not pool.fits(line.shape)
    assert not pool.fits(in_b)
    pool.resize(two)
    assert pool.take(line, "fourth") == ("1",)


def test_whole_gpus_are_held_by_one_at_a_time() -> None:
    pool = Pool(FOUR_GPUS)
    two = shape_of(StepOptions(gpus=2), is_async=False)

    held = [pool.take(Line(two), "a"), pool.take(Line(two), "b")]
    fits = pool.fits(two)
    pool.give(two, "a")

    assert held == [("0", "1"), ("2", "3")]
    assert not fits
    assert pool.take(Line(two), "c") == ("0", "1")


def test_fractions_share_a_gpu_rather_than_break_another() -> None:
    pool = Pool(FOUR_GPUS)
    half = shape_of(StepOptions(cpus=0, gpus=0.5), is_async=False)
    whole = shape_of(StepOptions(cpus=0, gpus=3), is_async=False)

    fractions = [pool.take(Line(half), "a"), pool.take(Line(half), "b")]

    assert fractions == [("0",), ("0",)]
    assert pool.take(Line(whole), "c") == ("1", "2", "3")


def test_fractions_of_two_gpus_are_no_whole_one() -> None:
    pool = Pool(Capacity(cpus=4, gpu_ids=("0", "1"), slots=8))
    part = shape_of(StepOptions(cpus=0, gpus=0.6), is_async=False)
    whole = shape_of(StepOptions(cpus=0, gpus=1), is_async=False)

    pool.take(Line(part), "a")
    pool.take(Line(part), "b")

    assert not pool.fits(part)
    assert not pool.fits(whole)


@pytest.mark.parametrize(
    "options",
    [
        StepOptions(gpus=4),
        StepOptions(cpus=2),
        StepOptions(memory_bytes=1 << 20),
        StepOptions(resources={"license": 1}),
    ],
    ids=["gpus", "cpus", "memory", "resource"],
)
def test_nothing_is_sent_ahead_that_asks_for_more_than_a_cpu(options: StepOptions) -> None:
    offer = Capacity(
        cpus=8, gpu_ids=tuple("0123"), memory_bytes=1 << 30, resources={"license": 1}, slots=8
    )
    pool = Pool(offer)
    shape = shape_of(options, is_async=False)
    pool.take(Line(shape), "a")

    assert not pool.may_wait(Line(shape), 100)


def test_async_attempts_have_slots_of_their_own() -> None:
    pool = Pool(Capacity(cpus=1, slots=1, async_slots=2))
    waiting = shape_of(StepOptions(cpus=0), is_async=True)

    pool.take(Line(shape_of(StepOptions(), is_async=False)), "a")

    assert pool.fits(waiting)


def test_serial_place_fits_whatever_is_queued() -> None:
    pool = Pool(Capacity(cpus=1, gpu_ids=("0",), slots=3, is_serial=True))
    shape = shape_of(StepOptions(cpus=1, gpus=1), is_async=False)

    for number in range(3):
        assert pool.fits(shape)
        assert pool.take(Line(shape), number) == ()

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
    for number, options in enumerate(asked):
        shape = shape_of(options, is_async=False)
        if pool.fits(shape):
            pool.take(Line(shape), number)
            held.append((number, shape))
        assert pool.free.cpus > -1e-6
        assert min(pool.free.gpus) > -1e-6
        assert pool.free.memory_bytes >= 0

    for number, shape in held:
        pool.give(shape, number)

    assert abs(pool.free.cpus - 4) < 1e-6
    assert abs(pool.free.gpus[0] - 1) < 1e-6
    assert pool.free.slots == 8


def test_sent_ahead_holds_nothing_until_one_of_its_like_ends() -> None:
    pool = Pool(Capacity(cpus=2, slots=8))
    shape, other = (shape_of(StepOptions(cpus=cpus), is_async=False) for cpus in (1, 2))
    pool.take(Line(shape), "a")
    pool.take(Line(shape), "b")

    assert pool.may_wait(Line(shape), 2)
    assert not pool.may_wait(Line(other), 2)  # none of its like runs
    for _ in range(4):
        assert pool.may_wait(Line(shape), 2)
        pool.send_ahead(shape)
    assert not pool.may_wait(Line(shape), 2)

    for call in range(4):  # those that were sent ahead take the places of those that end
        pool.give(shape, call)
        assert not pool.fits(shape)
    pool.give(shape, "a")
    pool.give(shape, "b")
    assert pool.fits(other)


def test_nothing_is_sent_ahead_where_calls_wait_in_line_anyway() -> None:
    shape = shape_of(StepOptions(), is_async=False)
    pool = Pool(Capacity(cpus=1, slots=1, is_serial=True))
    pool.take(Line(shape), "a")

    assert not pool.may_wait(Line(shape), 100)


def line(actor: str, options: StepOptions, most: int = 1) -> Line:
    return Line(shape_of(options, is_async=False), Seat("r", actor, most))


def hold(pool: Pool, asked: Line, holder: str) -> int:
    """Take what a call asks for; return in which process of its actor it is made."""
    request = pool.request(asked)
    assert request is not None
    assert pool.fits(request)
    pool.take(asked, holder)
    return pool.home(holder)


def test_calls_of_a_pool_are_made_in_as_many_processes_as_it_has() -> None:
    pool = Pool(FOUR_GPUS)
    embed = line("model", StepOptions(gpus=1), most=2)

    homes = [hold(pool, embed, "a"), hold(pool, embed, "b")]
    is_full = pool.request(embed) is None
    pool.give(embed.shape, "a")

    assert homes == [0, 1]
    assert is_full  # though two GPUs are free
    assert hold(pool, embed, "c") == 0


def test_process_of_an_actor_keeps_its_gpu_between_calls_and_its_cpus_not() -> None:
    pool = Pool(FOUR_GPUS)
    embed = line("model", StepOptions(cpus=16, gpus=4))
    assert pool.take(embed, "a") == ("0", "1", "2", "3")
    pool.give(embed.shape, "a")

    assert pool.fits(shape_of(StepOptions(cpus=16), is_async=False))
    assert not pool.fits(shape_of(StepOptions(gpus=0.1), is_async=False))
    assert pool.take(embed, "b") == ("0", "1", "2", "3")


def test_idle_residents_are_ended_the_longest_idle_first_and_no_more_than_need_be() -> None:
    pool = Pool(Capacity(cpus=4, memory_bytes=100, slots=8))
    for name, memory_bytes in (("small", 10), ("large", 60), ("busy", 20)):
        hold(pool, line(name, StepOptions(memory_bytes=memory_bytes)), name)
    pool.give(shape_of(StepOptions(), is_async=False), "small")
    pool.give(shape_of(StepOptions(), is_async=False), "large")
    asked = shape_of(StepOptions(memory_bytes=70), is_async=False)

    assert pool.make_room(asked) == (Instance("r", "large", 0),)  # with it gone the small may stay
    assert pool.fits(asked)
    assert pool.make_room(asked) == ()


def test_busy_residents_are_never_ended() -> None:
    pool = Pool(Capacity(cpus=2, memory_bytes=100, slots=2))
    hold(pool, line("busy", StepOptions(memory_bytes=60)), "busy")

    assert pool.make_room(shape_of(StepOptions(memory_bytes=60), is_async=False)) == ()


def test_idle_resident_is_left_alone_where_calls_that_run_hold_what_is_asked_for() -> None:
    pool = Pool(Capacity(cpus=4, memory_bytes=100, slots=8))
    model = line("model", StepOptions(memory_bytes=40))
    hold(pool, model, "call")
    pool.give(model.shape, "call")
    asked = shape_of(StepOptions(memory_bytes=60), is_async=False)
    pool.take(Line(asked), "task")

    assert pool.make_room(asked, at_once=False) == ()
    assert pool.make_room(asked) == ()  # it would not even fit
    assert pool.make_room(shape_of(StepOptions(memory_bytes=40), is_async=False))


def test_residents_give_back_what_they_held_when_their_run_is_over() -> None:
    pool = Pool(CAPACITY)
    model = line("model", StepOptions(gpus=1, memory_bytes=400, resources={"fpga": 1}))
    busy = line("busy", StepOptions(memory_bytes=600))
    hold(pool, model, "a")
    hold(pool, busy, "b")
    pool.give(model.shape, "a")

    pool.end_run("r")
    left, ended = pool.free.memory_bytes, pool.take_left()
    pool.give(busy.shape, "b")

    assert left == 400
    assert ended == (Instance("r", "model", 0),)
    assert pool.take_left() == (Instance("r", "busy", 0),)
    assert pool.free.memory_bytes == 1000
    assert pool.fits(model.shape)
    assert pool.request(model) == model.shape  # no process of it is left


def test_serial_place_makes_calls_of_actors_as_others() -> None:
    pool = Pool(Capacity(cpus=1, gpu_ids=("0",), slots=3, is_serial=True))
    model = line("model", StepOptions(gpus=1))

    for number in range(3):
        assert hold(pool, model, str(number)) == 0

    pool.give(model.shape, "0")
    assert pool.free.slots == 1
