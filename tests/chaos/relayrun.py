"""The relay under fire: writers of several users put records into a spool, and `deploykit relay` is killed as it sends.

* The relay reaches the broker through a fault proxy. The observer does not, so it sees the order of what the broker
  has.
* The spool lies on a small disk of its own (where we may mount one), and is made as docs/outbox.md says, without
  `dead/` and `bad/`.
* One driver breaks the network; the other kills the relay, the broker and writers, fills the disk, puts records that no
  broker takes, and lets a member of the group leave rubbish. On a full disk the network is left alone: what can be sent
  has to be sent.
* At the end the spool is empty, what could not be sent is a dead letter, and the relay ends by TERM.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

from deploykit.bus import Bus, Delivery
from deploykit.errors import OutboxError
from deploykit.outbox import Outbox
from deploykit.settings import BusSettings
from deploykit.wire.codec import ID_HEADER
from tests.chaos.accounts import Accounts
from tests.chaos.accounts import Outcome as Result
from tests.chaos.driver import Driver
from tests.chaos.member import Member
from tests.chaos.network import FAULTS, Network
from tests.chaos.options import Options, Outcome, come_to_rest
from tests.chaos.relayprocess import RelayProcess
from tests.chaos.run import ChaosRun, new_name
from tests.chaos.schedule import Step, steps
from tests.chaos.targets import Target
from tests.support.disks import full, small_disk
from tests.support.relaybooks import NOWHERE
from tests.support.wait import wait_until

#: Numbers are enough for the kernel; nobody has these.
_OWNER, _WRITERS, _STRANGER, _GROUP = 64111, (64112, 64113), 64114, 64210
_DISK = "size=32m,nr_inodes=8000,mode=755"
#: Seconds that a relay and its interpreter may take to come up.
_READY = 60.0
#: On a full disk: seconds within which what waits must be sent, and complaints allowed, and more of them a second.
_SENT_WITHIN = 20.0
_COMPLAINTS, _COMPLAINTS_A_SECOND = 5, 0.5


class RelayRun(ChaosRun):
    """One run, as a context manager; `run` does it all."""

    def __init__(self, target: Target, options: Options, accounts: Accounts, directory: Path) -> None:
        name = new_name()
        super().__init__(target, options, accounts, directory, name=name, victim="observer-0")
        self._queues = [f"/queue/{name}-a", f"/queue/{name}-b"]
        self._calm = threading.Lock()
        self._writing = threading.Event()
        self._writing.set()
        self._poison: set[str] = set()
        self._problems: list[str] = []

    def __enter__(self) -> Self:
        root = os.geteuid() == 0
        self._network = self._stack.enter_context(Network(self._target, several=False))
        self._disk = self._directory / "disk"
        if root:
            self._stack.enter_context(small_disk(self._disk, _DISK))
        else:
            self._disk.mkdir()
        self._spool = self._disk / "spool"
        self._spool.mkdir()
        owner = _OWNER if root else -1
        if root:
            os.chown(self._spool, owner, _GROUP)
        self._spool.chmod(0o3770)
        address = self._network.address
        self._relay = self._stack.enter_context(
            RelayProcess(self._directory, address=address, spool=self._spool, uid=owner, group=_GROUP)
        )
        uids = _WRITERS if root else (-1, -1)
        self._members = [self._stack.enter_context(Member(uid, _GROUP, self._spool)) for uid in uids]
        self._stranger = self._stack.enter_context(Member(_STRANGER if root else -1, _GROUP, self._spool))
        self._observer = self._stack.enter_context(
            Bus(BusSettings(address=self._target.address(), heartbeat=30.0, backoff_max=0.5, connect_timeout=5.0))
        )
        return self

    def run(self, scenario: str) -> Outcome:
        """Put and break for the time of the options, heal, wait, and compare the books."""
        options, accounts = self._options, self._accounts
        for number, queue in enumerate(self._queues):
            self._observe(f"observer-{number}", queue)
        assert self._observer.wait_connected(60), self._observer.problem
        if "stranger" in options.features:
            self._stranger.ask({"rubbish": options.seed})  # before there is a `dead/`
        self._relay.start()
        for member in (*self._members, self._stranger):
            member.ask({"put": []})  # returns when it has begun
        self._relay.wait_ready(_READY)
        writers = [
            threading.Thread(target=self._write, args=(f"writer-{n}", member), name=f"chaos-writer-{n}")
            for n, member in enumerate(self._members)
        ]
        drivers = self._drivers()
        for thread in writers:
            thread.start()
        if options.sabotage == "steal":
            self._steal()
        self._shoot(drivers)
        for thread in writers:
            thread.join()
        self._heal()
        if not come_to_rest(accounts.backlog, options.settle):
            self._problems.append(f"{accounts.backlog()} messages did not come; {self._relay.last_lines()}")
        self._check_spool()
        if not self._relay.wait_ready(_READY):
            self._problems.append(f"the relay is not ready after {_READY:g} s; {self._relay.last_lines()}")
        if code := self._relay.end():
            self._problems.append(f"TERM: the relay ended with {code}: {self._relay.last_lines()}")
        self._observer.stop(5)
        self._problems += self._relay.deaths
        self._problems += (line for driver in drivers for line in driver.problems)
        figures = sum((driver.done for driver in drivers), start=Counter[str]())
        verdict = accounts.judge(confirmed_at_arrival=True)
        return Outcome(scenario=scenario, verdict=verdict, violations=self._problems, figures=dict(figures))

    # -- putting and getting -----------------------------------------------------------------------------------

    def _observe(self, name: str, queue: str) -> None:
        self._accounts.expect(name, queue, ordered=True)

        def handle(delivery: Delivery) -> None:
            self._recorder.enter(name, delivery)

        self._observer.subscribe(queue, handle)

    def _write(self, writer: str, member: Member) -> None:
        dice = random.Random(f"{self._options.seed}-{writer}")
        number = 0
        while not self._over.is_set():
            if not self._writing.wait(0.1):
                continue
            count = 1 if dice.random() < 0.7 else dice.randrange(2, 9)
            records = []
            for _ in range(count):
                number += 1
                identity, queue = f"{writer}-{number}", dice.choice(self._queues)
                self._accounts.begin(identity, writer, number, queue)
                records.append((queue, identity, {"subject": f"message {number}"}))
            answer = member.ask({"put": records})
            outcome = _outcome(answer)
            for _, identity, _ in records:
                self._accounts.end(identity, outcome)
            self._over.wait(count / self._options.rate)

    def _put_poison(self, member: Member, destination: str, headers: dict[str, str]) -> None:
        """Put a record that can never be sent: it is to become a dead letter."""
        identity = f"poison-{secrets.token_hex(4)}"
        if _outcome(member.ask({"put": [(destination, identity, headers)]})) == "confirmed":
            self._poison.add(identity)

    # -- breaking ----------------------------------------------------------------------------------------------

    def _drivers(self) -> list[Driver]:
        seed, features = self._options.seed, self._options.features
        deeds: dict[str, Callable[[Step], object]] = {
            "kill-relay": self._kill_relay,
            "kill-relay-again": self._kill_relay,
            "kill-broker": self._kill_broker,
            "kill-writer": lambda step: self._members[int(step.chance * len(self._members))].kill(),
            "poison": lambda _: self._put_poison(self._stranger, NOWHERE, {}),
        }
        if "stranger" in features:
            deeds["stranger"] = self._strange
        if "full-disk" in features and os.geteuid() == 0:
            deeds["full-of-bytes"] = lambda step: self._fill("bytes", step)
            deeds["full-of-inodes"] = lambda step: self._fill("inodes", step)
        return [
            Driver("network", steps(f"{seed}-network", FAULTS, pause=2.0), self._break_network, self._accounts),
            Driver("life", steps(f"{seed}-life", list(deeds)), lambda step: deeds[step.kind](step), self._accounts),
        ]

    def _break_network(self, step: Step) -> None:
        with self._calm:
            self._network.apply(step, self._over)

    def _kill_relay(self, step: Step) -> None:
        self._relay.kill()
        self._over.wait(step.seconds * 0.3)
        self._relay.start()
        self._over.wait(step.seconds)

    def _strange(self, step: Step) -> None:
        self._stranger.ask({"rubbish": int(step.chance * 10**9)})
        self._put_poison(self._stranger, self._queues[0], {"destination": "/queue/elsewhere"})
        self._put_poison(self._stranger, self._queues[1], {"long": "x" * 100_000})

    def _fill(self, what: str, step: Step) -> None:
        """Let records wait, use the disk up, and see that what waits is sent all the same."""
        with self._calm:
            self._relay.kill()
            self._over.wait(1.0)
            self._writing.clear()
            time.sleep(0.3)  # for what is being put
            with full(self._disk, what) as fill:
                before, begin = self._relay.complaints(), time.monotonic()
                self._relay.start()
                while (left := self._waiting()) and time.monotonic() - begin < _SENT_WITHIN:
                    fill()
                    time.sleep(0.05)
                seconds = time.monotonic() - begin
                time.sleep(min(1.0, step.seconds))
            said = self._relay.complaints() - before
            if left:
                self._problems.append(f"full of {what}: {left} record files still wait after {seconds:.0f} s")
            if said > _COMPLAINTS + _COMPLAINTS_A_SECOND * seconds:
                self._problems.append(f"full of {what}: {said} complaints in the log in {seconds:.0f} s")
            self._writing.set()

    def _steal(self) -> None:
        """Take away a record that was put while no relay ran: one that was killed may have sent what is there."""
        self._relay.kill()
        lay = set(self._spool.glob("*.rec"))
        (path, *_) = wait_until(lambda: sorted(set(self._spool.glob("*.rec")) - lay))
        self._accounts.note("steal", path.name)
        path.unlink()
        self._relay.start()

    # -- the end -----------------------------------------------------------------------------------------------

    def _waiting(self) -> int:
        """Return how many record files there are; without an `Outbox`, which would set rubbish aside for the relay."""
        return sum(1 for _ in self._spool.glob("*.rec"))

    def _heal(self) -> None:
        self._network.proxy.clear()
        self._network.proxy.drop()
        if not self._target.running():
            self._target.start()
        self._relay.start()

    def _check_spool(self) -> None:
        """See that nothing waits, and that the dead letters are what they should be."""
        try:
            wait_until(lambda: self._waiting() == 0, timeout=self._options.settle)
        except AssertionError:
            self._problems.append(f"{self._waiting()} record files still wait; {self._relay.last_lines()}")
        dead: dict[str, str] = {}
        try:
            for record in Outbox(self._spool, create=False).dead():
                dead[record.frame.headers.get(ID_HEADER, "")] = record.reason
        except OutboxError as error:
            self._problems.append(str(error))
        for identity, reason in dead.items():
            if identity in self._accounts.sent:
                self._problems.append(f"{identity} became a dead letter: {reason}")
        if missing := self._poison - set(dead):
            self._problems.append(f"{len(missing)} records that no broker takes are no dead letters: {sorted(missing)}")


def _outcome(answer: str | None) -> Result:
    return "unknown" if answer is None else "confirmed" if answer == "done" else "refused"
