"""The bus beside other STOMP clients, on a real RabbitMQ that this script starts and ends.

`python tests/benchmarks/bench_bus.py [--rounds N] [--messages N] [--only publish|queue|consume|return]`

Competitors take turns within each round, in an order that moves on by one; each connects before its clock starts and
hangs up after it stops, so that nobody else's threads are alive meanwhile. Messages are 1 KB and persistent, headers
the same for all. Ratios are taken per round, then the median. Competitors get the benefit of the doubt:

* *unconfirmed* is over when the last `send` returned: nobody knows then what has arrived, and some ten megabytes may
  still lie in the kernel's socket buffers, so the shorter the run the better it looks; *unconfirmed, arrived* waits
  until the broker has read everything;
* everything confirmed is over when the broker's last receipt came;
* consuming is over when the broker has answered the DISCONNECT that follows the last acknowledgement;
* the bare socket has no logic at all: no client that keeps the order, one connection and every receipt can do better;
* the bus runs as `Bus(BusSettings(address=…))` makes it: ids, deadlines, heart-beats, resending and all.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import attrs

from deploykit.bus import Bus
from deploykit.settings import BusSettings
from deploykit.wire.frame import Frame
from tests.benchmarks.bus_clients import BODY, HEADERS, VHOST, BareSocket, Ours, StompMan, StompPy
from tests.brokers.rabbitmq import RabbitMQ

Run = Callable[[str, int], float]


@attrs.frozen
class Wanted:
    """A ratio of rates: `ours` to `theirs`, wanted at least `least` (None: shown for comparison)."""

    ours: str
    theirs: str
    least: float | None = None


@attrs.frozen
class Round:
    """What one competitor did in one round: messages per second, and CPU seconds per message on both sides.

    CPU includes connecting and hanging up. On a busy machine it says more than the clock.
    """

    rate: float
    client: float
    broker: float


def interleaved(
    broker: RabbitMQ,
    runs: Mapping[str, tuple[Run, int]],
    rounds: int,
    destination: Callable[[], str],
    after: Callable[[str], object],
) -> dict[str, list[Round]]:
    """Let each competitor run once a round."""
    done: dict[str, list[Round]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            run, count = runs[name]
            where = destination()
            client, server = time.process_time(), _cpu(broker)
            spent = run(where, count)
            client, server = time.process_time() - client, _cpu(broker) - server
            done[name].append(Round(rate=count / spent, client=client / count, broker=server / count))
            after(where)
    return done


def _cpu(broker: RabbitMQ) -> float:
    """CPU seconds the broker has used, user and system."""
    fields = Path(f"/proc/{broker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(title: str, rounds: Mapping[str, list[Round]], wanted: list[Wanted]) -> None:
    """Print medians and ratios, and which of those that are wanted were missed."""
    print(f"\n{title:<44} {'messages/s':>10} {'from':>8} {'to':>8} {'CPU us: client':>15} {'broker':>7}")
    for name, values in sorted(rounds.items(), key=lambda item: -statistics.median(one.rate for one in item[1])):
        rates = [one.rate for one in values]
        client = statistics.median(one.client for one in values) * 1e6
        server = statistics.median(one.broker for one in values) * 1e6
        print(
            f"  {name:<42} {statistics.median(rates):10,.0f} {min(rates):8,.0f} {max(rates):8,.0f} "
            f"{client:15.1f} {server:7.1f}"
        )
    for one in wanted:
        ratio = statistics.median(a.rate / b.rate for a, b in zip(rounds[one.ours], rounds[one.theirs], strict=True))
        print(f"  {one.ours} / {one.theirs}: {ratio:.2f} x{_verdict(ratio, one.least)}")


def _verdict(ratio: float, least: float | None) -> str:
    return "" if least is None else f", wanted {least:g}{'' if ratio >= least else ' MISSED'}"


def publish(broker: RabbitMQ, rounds: int, count: int) -> None:
    """To a topic that nobody reads: the clients' own cost."""
    theirs, man, ours = StompPy(broker), StompMan(broker), Ours(broker)
    rates = interleaved(
        broker,
        {
            "bare socket, 256 receipts in flight": (BareSocket(broker).in_flight, count),
            "bus, publish_many": (ours.many, count),
            "bus, publish_nowait": (ours.soon, count),
            "bus, publish": (ours.each, count // 10),
            "bus, relay of an outbox": (ours.relay, count // 4),
            "stomp.py, unconfirmed": (theirs.unconfirmed, count),
            "stomp.py, unconfirmed, arrived": (theirs.arrived, count),
            "stomp.py, all receipts in flight": (theirs.in_flight, count),
            "stomp.py, each receipt awaited": (theirs.each, count // 10),
            "stompman, unconfirmed": (man.unconfirmed, count),
            "stompman, 256 receipts in flight": (man.in_flight, count // 4),
            "stompman, each receipt awaited": (man.each, count // 10),
        },
        rounds,
        lambda: "/topic/bench",
        lambda _: None,
    )
    report(
        f"publishing to a topic, {count} messages",
        rates,
        [
            Wanted("bus, publish_many", "stomp.py, each receipt awaited", 6),
            Wanted("bus, publish_many", "stomp.py, unconfirmed", 0.5),
            Wanted("bus, publish_many", "stomp.py, unconfirmed, arrived", 0.5),
            Wanted("bus, publish_many", "stomp.py, all receipts in flight"),
            Wanted("bus, publish_many", "bare socket, 256 receipts in flight"),
            Wanted("bare socket, 256 receipts in flight", "stomp.py, each receipt awaited"),
            Wanted("bare socket, 256 receipts in flight", "stomp.py, unconfirmed"),
            Wanted("bus, publish_nowait", "stomp.py, each receipt awaited", 6),
            Wanted("bus, publish_nowait", "stomp.py, unconfirmed", 0.5),
            Wanted("bus, publish", "stomp.py, each receipt awaited"),
        ],
    )


def _queue(destination: str) -> str:
    """The queue, in Erlang."""
    name = destination.removeprefix("/queue/")
    return f'element(2, rabbit_amqqueue:lookup(rabbit_misc:r(<<"{VHOST}">>, queue, <<"{name}">>)))'


def _purge(broker: RabbitMQ, destination: str) -> None:
    broker.evaluate(f'rabbit_amqqueue:delete({_queue(destination)}, false, false, <<"bench">>)')


def _names(prefix: str) -> Callable[[], str]:
    numbers = iter(range(1_000_000))
    return lambda: f"/queue/{prefix}-{next(numbers)}"


def queue(broker: RabbitMQ, rounds: int, count: int) -> None:
    """To a durable queue: every receipt waits for the broker's disk."""
    theirs, man, ours = StompPy(broker), StompMan(broker), Ours(broker)
    rates = interleaved(
        broker,
        {
            "bus, publish_many": (ours.many, count),
            "bus, publish_nowait": (ours.soon, count),
            "bus, relay of an outbox": (ours.relay, count // 4),
            "stomp.py, unconfirmed": (theirs.unconfirmed, count),
            "stomp.py, all receipts in flight": (theirs.in_flight, count),
            "stomp.py, each receipt awaited": (theirs.each, count // 50),
            "stompman, each receipt awaited": (man.each, count // 50),
        },
        rounds,
        _names("publish"),
        lambda where: _purge(broker, where),
    )
    report(
        f"publishing to a durable queue, {count} messages",
        rates,
        [Wanted("bus, publish_many", "stomp.py, each receipt awaited", 6)],
    )


def consume(broker: RabbitMQ, rounds: int, count: int) -> None:
    """From a queue that holds all of it already."""
    theirs, man, ours = StompPy(broker), StompMan(broker), Ours(broker)
    name = _names("consume")

    def filled() -> str:
        where = name()
        ours.many(where, count)
        return where

    rates = interleaved(
        broker,
        {
            "bus": (ours.consume, count),
            "stomp.py, bare listener": (theirs.consume, count),
            "stompman": (man.consume, count),
        },
        rounds,
        filled,
        lambda where: _empty(broker, where),
    )
    report(f"consuming {count} messages, each acknowledged", rates, [Wanted("bus", "stomp.py, bare listener", 0.8)])


def _empty(broker: RabbitMQ, destination: str) -> None:
    """Nothing may be left: an acknowledgement that is not sent costs nothing."""
    left = broker.evaluate(f"rabbit_amqqueue:info({_queue(destination)}, [messages])")
    assert left == "[{messages, 0}]", left
    _purge(broker, destination)


def back_in_service(broker: RabbitMQ, rounds: int) -> None:
    """From the broker's port opening to the first confirmed message; the back-off's ceiling is 0.5 s."""
    settings = BusSettings(address=broker.address, backoff_max=0.5)
    seconds: list[float] = []
    for _ in range(rounds):
        with Bus(settings) as bus:
            assert bus.wait_connected(10)
            broker.stop()
            while bus.counters.connect_failures < 8:  # the back-off has reached its ceiling
                time.sleep(0.01)
            starting = threading.Thread(target=broker.start)
            starting.start()
            receipt = bus.publish_nowait("/topic/bench", Frame(HEADERS, BODY), timeout=60)
            while not _open(broker.port):
                time.sleep(0.002)
            began = time.perf_counter()
            receipt.result(60)
            seconds.append(time.perf_counter() - began)
            starting.join()
    print("\nback in service after the port opened, back-off at most 0.5 s")
    worst, middle = max(seconds), statistics.median(seconds)
    print(f"  median {middle:.2f} s, worst of {rounds} {worst:.2f} s, wanted 1{'' if worst <= 1 else ' MISSED'}")


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=24_000)
    parser.add_argument("--only", choices=["publish", "queue", "consume", "return"])
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("stomp.py", "stompman"))
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {versions}, {options.rounds} rounds")
    rounds, count = options.rounds, options.messages
    parts: dict[str, Callable[[RabbitMQ], None]] = {
        "publish": lambda broker: publish(broker, rounds, count),
        "queue": lambda broker: queue(broker, rounds, count // 3),
        "consume": lambda broker: consume(broker, rounds, count // 3),
        "return": lambda broker: back_in_service(broker, rounds),
    }
    with RabbitMQ() as broker:
        broker.evaluate(f'rabbit_vhost:add(<<"{VHOST}">>, <<"bench">>)')
        broker.evaluate(
            f'rabbit_auth_backend_internal:set_permissions(<<"{broker.login}">>, <<"{VHOST}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"bench">>)'
        )
        for name, part in parts.items():
            if options.only in (None, name):
                part(broker)


if __name__ == "__main__":
    main()
