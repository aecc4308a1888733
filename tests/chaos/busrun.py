"""The bus under fire: three writers, an observer with a connection of its own, and a worker that is shot at.

* The writers and the worker reach the broker through a fault proxy each; the observer does not, so it sees the order of
  what the broker has. It has a queue, and a durable subscription to the topic where the broker knows such.
* The worker has a durable subscription (or a queue), four threads, a store of ids, and a handler that now and then asks
  for another attempt, and answers some messages on its own bus. The answers are in the books, too.
* Two drivers break things side by side: one the network, one the broker, the buses and the certificates.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Self

import attrs

from deploykit.bus import Bus, Delivery, Retry, Verdict
from deploykit.errors import BusError
from deploykit.ids import IdStore
from deploykit.settings import BusSettings
from tests.chaos import certificates
from tests.chaos.accounts import Accounts
from tests.chaos.driver import Driver
from tests.chaos.network import FAULTS, Network, several_addresses
from tests.chaos.options import Options, Outcome, Use, come_to_rest, grown
from tests.chaos.run import ChaosRun, new_name
from tests.chaos.schedule import Step, steps
from tests.chaos.targets import Target
from tests.chaos.writers import Writers, frame_of
from tests.support.books import Diary
from tests.support.wait import wait_until

#: Quick to notice and patient with the message: a fault shows within seconds, and costs no message its time.
_SETTINGS = BusSettings(
    heartbeat=2.0,
    backoff_initial=0.05,
    backoff_max=0.5,
    connect_timeout=4.0,
    publish_timeout=20.0,
    stall_timeout=8.0,
)
#: So many wait when the worker comes up for the first time.
_FIRST = 1500
_CONNECTED = 30.0


class _Ids(Diary):
    """A store of ids that enters what is done into the books."""

    def __init__(self, store: IdStore, accounts: Accounts) -> None:
        super().__init__(store)
        self._accounts = accounts

    def note(self, identity: str, what: object) -> None:
        """Keep nothing but the history."""
        self._accounts.note("ids", identity, what)

    def done(self, key: str, id: str, reply: bytes, now: datetime) -> None:
        """Mark an id done, then enter that."""
        super().done(key, id, reply, now)
        self._accounts.done(id)


class BusRun(ChaosRun):
    """One run, as a context manager; `run` does it all."""

    def __init__(self, target: Target, options: Options, accounts: Accounts, directory: Path) -> None:
        name = new_name()
        victim = "topic-observer" if target.durable else "observer"
        super().__init__(target, options, accounts, directory, name=name, victim=victim)
        self._queue = f"/queue/{name}"
        self._shared = f"/topic/{name}" if target.durable else f"/queue/{name}-work"
        self._answers = f"/queue/{name}-answers"

    def __enter__(self) -> Self:
        several = "addresses" in self._options.features
        if several:
            self._stack.enter_context(several_addresses())
        self._files = certificates.Files(self._target, self._directory) if self._target.tls else None
        self._way_out = self._stack.enter_context(Network(self._target, several=several))
        self._way_in = self._stack.enter_context(Network(self._target, several=several))
        self._ids = self._stack.enter_context(IdStore(self._directory / "ids.sqlite"))
        return self

    def run(self, scenario: str) -> Outcome:
        """Send and break for the time of the options, heal, wait, and compare the books."""
        options, accounts = self._options, self._accounts
        self._subscribe_observer()
        self._publisher = self._bus("publisher", self._way_out.address)
        destinations = [self._queue, self._shared]
        writers = Writers(accounts, lambda: self._publisher, destinations, rate=options.rate, seed=options.seed)
        if self._target.durable:  # a topic's messages are kept from the first confirmation of the subscription on
            self._start_worker()
            _wait(self._worker)
            self._target.declared()
            self._worker.stop(1)
        self._fill()
        self._start_worker()
        _wait(self._worker)
        before = Use.now()
        drivers = self._drivers()
        writers.start()
        self._shoot(drivers)
        self._heal()
        writers.stop()
        problems = [*writers.problems, *(line for driver in drivers for line in driver.problems)]
        with suppress(AssertionError):
            wait_until(lambda: accounts.under_way == 0, timeout=60)
        if accounts.under_way:
            problems.append(f"{accounts.under_way} publishes came to no end in a minute")
        if not come_to_rest(accounts.backlog, options.settle):
            problems.append(f"{accounts.backlog()} deliveries did not come; {self._state()}")
        else:
            for network in (self._way_in, self._way_out):
                network.proxy.drop()  # what is half open
            problems += grown(before, len(accounts.sent))
        figures = sum((driver.done for driver in drivers), start=Counter[str]())
        self._close()
        verdict = accounts.judge()
        counters = self._worker.counters
        if counters.dead_lettered:
            problems.append(f"{counters.dead_lettered} messages became dead letters")
        return Outcome(scenario=scenario, verdict=verdict, violations=problems, figures=dict(figures))

    # -- the three buses ---------------------------------------------------------------------------------------

    def _bus(self, name: str, address: str, *, ids: _Ids | None = None, settings: BusSettings = _SETTINGS) -> Bus:
        settings = attrs.evolve(settings, address=address, client_id=f"{self._name}-{name}")
        if self._files is not None:
            settings = attrs.evolve(
                settings, tls_ca=self._files.ca, tls_cert=self._files.certificate, tls_key=self._files.key
            )
        return Bus(settings, ids=ids, on_event=lambda event: self._accounts.note(name, event)).start()

    def _subscribe_observer(self) -> None:
        # Patient: it is to see what the broker has, and in which order, not what two of its connections make of it.
        beat = 30.0 if self._target.server is not None else 5.0  # the embedded one leaves it half open at times
        self._observer = self._bus(
            "observer", self._target.address(), settings=attrs.evolve(_SETTINGS, heartbeat=beat, stall_timeout=60.0)
        )
        self._observe("observer", self._queue, ordered=True)
        self._observe("answers", self._answers, ordered=False)
        if self._target.durable:
            self._observe("topic-observer", self._shared, ordered=True, durable=f"{self._name}-observer")
        _wait(self._observer)
        self._accounts.expect("worker", self._shared, ordered=False)

    def _observe(self, name: str, destination: str, *, ordered: bool, durable: str | None = None) -> None:
        self._accounts.expect(name, destination, ordered=ordered)

        def handle(delivery: Delivery) -> None:
            self._recorder.enter(name, delivery)

        self._observer.subscribe(destination, handle, durable=durable)

    def _start_worker(self) -> None:
        ids = _Ids(self._ids, self._accounts)
        self._worker = self._bus("worker", self._way_in.address, ids=ids)
        bus, dice = self._worker, random.Random(self._options.seed)
        answers = "handlers" in self._options.features

        def handle(delivery: Delivery) -> Verdict | None:
            self._accounts.handle(delivery.id)
            if dice.random() < 0.02:
                return Retry(0.05)
            if answers and zlib.crc32(delivery.id.encode()) % 4 == 0:
                self._answer(bus, f"answer-{delivery.id}")
            self._recorder.enter("worker", delivery)
            return None

        bus.subscribe(
            self._shared,
            handle,
            durable=f"{self._name}-worker" if self._target.durable else None,
            workers=4,
            max_attempts=1_000_000,
        )

    def _answer(self, bus: Bus, identity: str) -> None:
        """Publish in a handler, on the handler's own bus; the message is handled again where that fails."""
        if identity not in self._accounts.sent:
            self._accounts.begin(identity, "worker", 0, self._answers)
        try:
            bus.publish(self._answers, frame_of(identity), timeout=15)
        except BusError:
            self._accounts.end(identity, "unknown")
            raise
        self._accounts.end(identity, "confirmed")

    def _fill(self) -> None:
        """Let messages wait before the worker is there."""
        identities = [f"first-{number}" for number in range(_FIRST)]
        for number, identity in enumerate(identities):
            self._accounts.begin(identity, "first", number, self._shared)
        self._publisher.publish_many([(self._shared, frame_of(one)) for one in identities], timeout=60)
        for identity in identities:
            self._accounts.end(identity, "confirmed")

    # -- breaking ----------------------------------------------------------------------------------------------

    def _drivers(self) -> list[Driver]:
        seed = self._options.seed
        deeds: dict[str, Callable[[Step], object]] = {
            "kill-broker": self._kill_broker,
            "freeze-broker": self._freeze,
            "restart-worker": self._restart_worker,
            "restart-publisher": self._restart_publisher,
        }
        if self._target.faults is not None:
            deeds["broker-faults"] = self._broker_faults
        if self._files is not None and "certificates" in self._options.features:
            deeds["renew-certificates"] = self._renew
        return [
            Driver("network", steps(f"{seed}-network", FAULTS), self._break_network, self._accounts),
            Driver("life", steps(f"{seed}-life", list(deeds)), lambda step: deeds[step.kind](step), self._accounts),
        ]

    def _break_network(self, step: Step) -> None:
        # By a digit of the same number, so that the choice is of the schedule too.
        network = self._way_in if int(step.chance * 1000) % 2 else self._way_out
        network.apply(step, self._over)

    def _freeze(self, step: Step) -> None:
        self._target.freeze(True)
        self._over.wait(step.seconds)
        self._target.freeze(False)

    def _restart_worker(self, step: Step) -> None:
        self._worker.stop(step.seconds)
        self._start_worker()

    def _restart_publisher(self, step: Step) -> None:
        self._publisher.stop(step.seconds)
        self._publisher = self._bus("publisher", self._way_out.address)

    def _renew(self, step: Step) -> None:
        """Give the broker and the clients certificates of another authority, in either order."""
        assert self._files is not None
        self._note_kill()
        self._files.renew_broker()
        if step.chance < 0.5:
            self._files.renew_clients()
        self._target.start()
        self._over.wait(step.seconds)
        self._files.renew_clients()

    def _broker_faults(self, step: Step) -> None:
        faults = self._target.faults
        assert faults is not None
        count = 1 + int(step.chance * 20)
        match count % 5:
            case 0:
                faults.lose_acks(count)
            case 1:
                faults.duplicate_sends(count)
            case 2:
                faults.withhold_receipts()
            case 3:
                faults.half_open()
            case _:
                faults.error_next("SEND" if count < 10 else "SUBSCRIBE")
        self._over.wait(step.seconds)
        faults.clear()

    def _heal(self) -> None:
        for network in (self._way_in, self._way_out):
            network.proxy.clear()
        if not self._target.running():
            self._target.start()
        self._target.freeze(False)

    def _state(self) -> str:
        buses = {"observer": self._observer, "worker": self._worker, "publisher": self._publisher}
        return "; ".join(f"{name} {bus.state.value}, {bus.problem}" for name, bus in buses.items())

    def _close(self) -> None:
        for bus in (self._publisher, self._worker, self._observer):
            bus.stop(5)


def _wait(bus: Bus) -> None:
    """Wait until a bus is connected; nothing is broken yet."""
    if not bus.wait_connected(_CONNECTED):
        raise RuntimeError(f"{bus} did not connect in {_CONNECTED:g} s: {bus.problem}")
