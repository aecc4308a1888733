"""Addresses of a name: by turns of family, by turns of failure, and none is left without one."""

from __future__ import annotations

import socket
import time

import pytest

from deploykit.system import hosts
from deploykit.system.hosts import MOST_ADDRESSES, AddressOrder, ConnectionRace, HostAddress


def four(n: int) -> HostAddress:
    return HostAddress(socket.AF_INET, (f"127.0.0.{n}", 1))


def six(n: int) -> HostAddress:
    return HostAddress(socket.AF_INET6, (f"::{n}", 1))


def test_each_address_is_tried_once_and_the_families_by_turns() -> None:
    found = [six(1), six(2), six(1), four(1), six(3), four(1), four(2)]
    assert hosts.alternate(found) == [six(1), four(1), six(2), four(2), six(3)]


def test_those_that_failed_come_last_and_a_new_one_first() -> None:
    turns = AddressOrder()
    turns.failed(four(1))
    assert turns.order([four(1), four(2)]) == [four(2), four(1)]
    turns.failed(four(2))
    assert turns.order([four(1), four(2), four(3)]) == [four(3), four(1), four(2)]
    turns.worked(four(1))
    assert turns.order([four(1), four(2)]) == [four(1), four(2)]


def test_an_address_that_takes_us_and_drops_us_gives_way_to_one_that_failed_only_the_second_time() -> None:
    turns = AddressOrder()
    turns.failed(four(1))
    turns.dropped(four(2))
    assert turns.order([four(1), four(2), four(3)]) == [four(3), four(2), four(1)]
    assert turns.order([four(1), four(2)]) == [four(2), four(1)]
    turns.dropped(four(2))
    assert turns.order([four(1), four(2)]) == [four(1), four(2)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_while_all_of_them_fail_each_one_is_the_first_in_turn(count: int) -> None:
    """The first one has the most time: one that is slow to log in is to have it, too."""
    turns, addresses = AddressOrder(), [four(n) for n in range(count)]
    led = []
    for _ in range(2 * count):
        order = turns.order(addresses)
        led.append(order[0])
        turns.all_failed(order)
    assert led == addresses * 2


def test_more_addresses_than_one_attempt_tries_are_all_tried_by_the_next_ones() -> None:
    turns, addresses = AddressOrder(), [four(n) for n in range(20)]
    tried: list[HostAddress] = []
    for _ in range(3):
        some = turns.order(addresses)[:MOST_ADDRESSES]
        tried += some
        turns.all_failed(some)
    assert set(tried) == set(addresses)


def test_an_address_without_a_route_costs_no_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = HostAddress(socket.AF_INET, server.getsockname())
        refused = HostAddress(socket.AF_INET6, ("ff02::1", 1, 0, 0))
        with ConnectionRace([refused, address], 3600.0) as race:
            end = time.monotonic() + 30
            while (found := race.advance(time.monotonic())) is None:
                assert time.monotonic() < end
                race.wait(0.1)
        assert found[0] == address
        found[1].close()
        assert list(race.problems) == [refused]
