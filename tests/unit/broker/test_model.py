"""The broker's books, kept the hard way: whatever clients do and whenever it is killed, no message is lost or doubled.

The core runs without sockets; a dictionary that applies the journal stands for the disk.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deploykit.broker.core import BrokerCore
from deploykit.broker.fault_state import FaultState
from deploykit.broker.frames import VERSIONS, StompFrame
from deploykit.broker.routing import Router, durable_key
from deploykit.broker.state import Add, Bind, BrokerLimits, Count, JournalEntry, QueueEntry, Remove, Session, Unbind

_LIMITS = BrokerLimits(max_queue_messages=6)
_PLACES = ("/queue/a", "/topic/t")
_DURABLE = {"durable": "true", "x-queue-name": "node"}


class _Disk:
    """What a data directory would hold."""

    def __init__(self) -> None:
        self.entries: dict[int, tuple[str, QueueEntry]] = {}
        self.bindings: dict[tuple[str, str], None] = {}
        self.boots = 0

    def apply(self, journal: list[JournalEntry]) -> None:
        for change in journal:
            match change:
                case Add(queue=queue, entry=entry):
                    self.entries[entry.seq] = (queue, QueueEntry(seq=entry.seq, message=entry.message))
                case Remove(seq=seq):
                    self.entries.pop(seq, None)
                case Count(seq=seq, deliveries=deliveries):
                    self.entries[seq][1].deliveries = deliveries
                case Bind(name=name, destination=destination):
                    self.bindings[name, destination] = None
                case Unbind(name=name, destination=destination):
                    self.bindings.pop((name, destination))
                    key = durable_key(name, destination)
                    self.entries = {seq: kept for seq, kept in self.entries.items() if kept[0] != key}

    def boot(self) -> Router:
        self.boots += 1
        router = Router(limits=_LIMITS, faults=FaultState(), keep=True, epoch="e", first_seq=self.boots << 40, record=0)
        copies = [
            (queue, QueueEntry(seq=one.seq, message=one.message, deliveries=one.deliveries))
            for queue, one in self.entries.values()
        ]
        router.restore(list(self.bindings), copies)
        return router


class _Client:
    """A session and the messages it has seen and not answered, per subscription."""

    def __init__(self, core: BrokerCore, version: str) -> None:
        self.core = core
        self.session: Session = core.open_session()
        self.version = version
        self.held: list[StompFrame] = []
        self.parked: StompFrame | None = None
        assert self.send("CONNECT", {"accept-version": version})
        self.read()

    def send(self, command: str, headers: dict[str, str], body: bytes = b"") -> bool:
        return self.core.handle(self.session, StompFrame(command=command, headers=headers, body=body), 0.0)

    def read(self) -> list[StompFrame]:
        frames, self.session.output = self.session.output, []
        self.session.unflushed = 0
        self.core.router.output_drained(self.session, 0.0)
        messages = [frame for frame in frames if frame.command == "MESSAGE"]
        assert not [frame for frame in frames if frame.command == "ERROR"], frames
        self.held += messages
        return messages

    def settle(self, message: StompFrame, command: str, **more: str) -> None:
        names = {name: message.headers[name] for name in ("message-id", "subscription")}
        if self.version == "1.2":
            names["id"] = message.headers["ack"]
        assert self.send(command, {**names, **more})
        self.held.remove(message)


class Books(RuleBasedStateMachine):
    """Sent = acknowledged + dead letters + held, each exactly once, at every moment and after every kill."""

    @initialize()
    def boot(self) -> None:
        self.disk = _Disk()
        self.expected: dict[str, set[bytes]] = {place: set() for place in _PLACES}
        self.dead: dict[str, set[bytes]] = {place: set() for place in _PLACES}
        self.number = 0
        self._start()
        binder = self._open("1.2")
        assert binder.send("SUBSCRIBE", {"id": "t", "destination": "/topic/t", "ack": "client-individual", **_DURABLE})
        self.write()

    def _start(self) -> None:
        self.router = self.disk.boot()
        self.core = BrokerCore(router=self.router, users=None, limits=_LIMITS, faults=FaultState(), server="test")
        self.clients: list[_Client] = []

    def _open(self, version: str) -> _Client:
        client = _Client(self.core, version)
        self.clients.append(client)
        return client

    def write(self) -> None:
        self.disk.apply(self.router.take_journal())

    @rule(version=st.sampled_from(VERSIONS))
    def connect(self, version: str) -> None:
        if len(self.clients) < 4:
            self._open(version)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), place=st.sampled_from(_PLACES), prefetch=st.integers(0, 2))
    def subscribe(self, data: st.DataObject, place: str, prefetch: int) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if place not in client.session.subscriptions and len(client.session.subscriptions) < 3:
            headers = {"id": place, "destination": place, "ack": "client-individual", "prefetch-count": str(prefetch)}
            assert client.send("SUBSCRIBE", {**headers, **_DURABLE})

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), place=st.sampled_from(_PLACES), transaction=st.sampled_from(["", "COMMIT", "ABORT"]))
    def publish(self, data: st.DataObject, place: str, transaction: str) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self.number += 1
        body = str(self.number).encode()
        headers = {"destination": place, "persistent": "true"}
        if transaction:
            client.send("BEGIN", {"transaction": "t"})
            headers["transaction"] = "t"
        taken = client.send("SEND", headers, body)
        if transaction:
            taken = client.send(transaction, {"transaction": "t"}) and transaction == "COMMIT"
            if "t" in client.session.transactions:  # the commit found no room
                client.send("ABORT", {"transaction": "t"})
        if taken:
            self.expected[place].add(body)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), how=st.sampled_from(["ACK", "NACK", "requeue"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        client = data.draw(st.sampled_from(self.clients))
        client.read()
        if not client.held:
            return
        message = data.draw(st.sampled_from(client.held))
        place = message.headers["destination"]
        client.settle(message, how.replace("requeue", "NACK"), **({"requeue": "true"} if how == "requeue" else {}))
        if how != "requeue":
            self.expected[place].remove(message.body)
        if how == "NACK":
            self.dead[place].add(message.body)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), kind=st.sampled_from(["lost", "DISCONNECT", "UNSUBSCRIBE"]))
    def leave(self, data: st.DataObject, kind: str) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if kind == "UNSUBSCRIBE":
            client.read()
            for place in list(client.session.subscriptions):
                client.send("UNSUBSCRIBE", {"id": place})
            client.read()  # what was on its way belongs to a subscription that is gone
            client.held.clear()
            return
        if kind == "DISCONNECT":
            client.send("DISCONNECT", {})
        self.core.lost(client.session, 0.0)
        self.clients.remove(client)

    @rule()
    def kill(self) -> None:
        self.write()  # what was confirmed had been written
        self._start()

    @invariant()
    def every_message_is_somewhere_once(self) -> None:
        self.write()
        keys = {"/queue/a": "/queue/a", "/topic/t": durable_key("node", "/topic/t")}
        for place, key in keys.items():
            queue = self.router.queues.get(key)
            waiting = [] if queue is None else [entry.message.body for entry in queue.waiting()]
            under_way = (
                []
                if queue is None
                else [entry.message.body for one in queue.consumers for entry in one.unacked.values()]
            )
            assert sorted(waiting + under_way) == sorted(self.expected[place])
            assert (0 if queue is None else queue.count) == len(self.expected[place])
            stored = [entry.message.body for where, entry in self.disk.entries.values() if where == key]
            assert sorted(stored) == sorted(self.expected[place])
            dead_key = "/queue/DLQ." + place.rpartition("/")[2]
            dead = [entry.message.body for where, entry in self.disk.entries.values() if where == dead_key]
            assert len(dead) == len(set(dead)) == min(len(self.dead[place]), _LIMITS.max_queue_messages)
            assert set(dead) <= self.dead[place]

    @invariant()
    def nothing_waits_while_somebody_could_take_it(self) -> None:
        for queue in self.router.queues.values():
            if any(True for _ in queue.waiting()):
                assert not any(consumer.ready for consumer in queue.consumers)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
