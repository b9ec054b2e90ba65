from __future__ import annotations

from collections.abc import Iterator

import pytest

from perdure.worker.tickets import LOTS, Tickets, TicketTaker


@pytest.fixture
def tickets() -> Iterator[Tickets]:
    tickets = Tickets()
    yield tickets
    tickets.close()


def test_every_ticket_is_taken_once(tickets: Tickets) -> None:
    taker = TicketTaker(tickets.fd)
    lot = tickets.give(3)

    taken = [taker.take(lot) for _ in range(4)]

    assert taken == [True, True, True, False]
    assert tickets.take_back() == 0


def test_what_is_taken_back_cannot_be_taken(tickets: Tickets) -> None:
    taker = TicketTaker(tickets.fd)
    lot = tickets.give(5)
    taker.take(lot)

    assert tickets.take_back() == 4
    assert not taker.take(lot)


def test_ticket_of_a_later_lot_is_kept_for_it(tickets: Tickets) -> None:
    taker = TicketTaker(tickets.fd)
    first = tickets.give(2)
    taker.take(first)
    tickets.take_back()
    second = tickets.give(1)

    assert not taker.take(first)  # it finds the other lot's, and does not use it up
    assert not taker.take(first)
    assert taker.take(second)
    assert not taker.take(second)


def test_numbers_of_lots_come_round(tickets: Tickets) -> None:
    taker = TicketTaker(tickets.fd)

    for _ in range(LOTS + 2):
        assert taker.take(tickets.give(1))
