"""An agent's presence: it announces itself on its node's own topic, and finds other agents that use the same name.

A machine that was cloned has the same key, node name and state.

* On RabbitMQ both agents share the node's queues: each command reaches one of them, in turn. So the node's own topic,
  which only agents of that name use, is subscribed without a durable name.
* ActiveMQ refuses the second agent's connection for its client_id. That agent uses the topic over a second connection
  without a client_id.

`twins` has the rules.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import socket
import threading
import time
from typing import Final

import attrs

from deploykit._version import __version__
from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.bus.events import BusState, Connected, Event
from deploykit.bus.inspection import connection_of
from deploykit.daemons.agent.twinfile import remove_twins, write_twins
from deploykit.daemons.agent.twins import Twins
from deploykit.daemons.service.link import BusLink
from deploykit.errors import BusError, ClientIdInUse, DeploykitError
from deploykit.messages import AgentInstance, DeployReported, Message, NodeDescribed, utc_now
from deploykit.settings.node import Settings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.keyformat import public_line
from deploykit.trust.signature import BodySigner, sign
from deploykit.wire import Frame, encode

_log = logging.getLogger(__name__)

#: Seconds between two announcements, and the same while another agent uses our name.
EVERY: Final = 120.0
EVERY_WITH_TWIN: Final = 30.0
#: Least seconds between two announcements that unknown instances make us send.
_AT_LEAST: Final = 1.0


class Presence:
    """Announces one agent, and knows the others of its name. Use it from any thread.

    Args:
        settings: node, topics, broker and state directory.
        key: the node's own; without one nothing is announced: no agent would believe it.
        trust: judges the messages that our own key did not sign.
    """

    def __init__(self, settings: Settings, key: BodySigner | None, trust: Trust) -> None:
        self._settings = settings
        self._key = key
        own = AllowedSigners.parse(f"{settings.node} {public_line(key.public_blob)}") if key else AllowedSigners()
        self._trusts = (Trust(lambda: own, trust.policy, settings.node), trust)
        self._topic = settings.topics.of_node(settings.node)
        self._instance = secrets.token_hex(8)  # never stored: what is stored is cloned
        self._twins = Twins(self._instance)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._soon = False
        self._refused = ""
        self._bus: Bus | None = None
        self._second_bus: Bus | None = None

    @property
    def me(self) -> AgentInstance:
        """This agent, as others see it."""
        bus = self._connected_bus()
        connection = connection_of(bus) if bus is not None else None
        address = connection.local_address if connection is not None else ""
        host = " ".join(filter(None, (socket.gethostname(), address, f"pid {os.getpid()}")))
        return AgentInstance(instance=self._instance, host=host)

    @property
    def twins(self) -> tuple[AgentInstance, ...]:
        """The other agents of this name."""
        with self._lock:
            return tuple(twin.agent for twin in self._twins.known)

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person must know: other agents of this name, or a connection that holds our client_id."""
        found = [f"another agent answers under the name {self._settings.node}: {twin}" for twin in self.twins]
        return tuple(found) or ((self._refused,) if self._refused else ())

    def stamp(self, report: DeployReported) -> DeployReported:
        """Return the report with this agent's instance and the other agents of its name."""
        me = self.me
        return attrs.evolve(report, instance=me.instance, host=me.host, twins=self.twins)

    def listen(self, link: BusLink) -> None:
        """Subscribe to the node's own topic on the agent's bus."""
        self._bus = link.bus
        self._subscribe(link)

    def on_connected(self) -> None:
        """Announce ourselves: the bus has a new connection."""
        self._refused = ""
        self._announce_soon()

    def on_refused(self, problem: BusError | None) -> None:
        """Log which connection may be in the way, where the broker refused ours for its client_id."""
        if not isinstance(problem, ClientIdInUse) or self._refused:
            return
        self._refused = (
            f"not connected: the broker has another connection of node {self._settings.node}: of a second agent with "
            f"this name (a cloned machine?), or of this one before a crash: {problem.problem}"
        )
        _log.warning("%s", self._refused)
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Announce this agent now and then, until `stop` is set and `wake` was called."""
        last, pause = float("-inf"), 0.0
        while self._key is not None and not stop.is_set():
            self._update_second_bus()
            if time.monotonic() >= last + (_AT_LEAST if self._soon else pause):
                self._soon = False
                last = time.monotonic()
                # Without a connection nothing is announced; a new one wakes us.
                pause = self._pause() if self._announce() else float("inf")
            pause = min(pause, EVERY_WITH_TWIN) if self.twins else pause
            at = last + (_AT_LEAST if self._soon else pause)
            self._wake.wait(min(EVERY, max(0.0, at - time.monotonic())))
            self._wake.clear()
        self._close_second_bus()
        remove_twins(self._settings.state)

    def _pause(self) -> float:
        every = EVERY_WITH_TWIN if self.twins else EVERY
        return every * random.uniform(0.9, 1.1)  # noqa: S311 - no secret: it spreads the announcements of many agents

    def wake(self) -> None:
        """Have `run` look at `stop`."""
        self._wake.set()

    # -- sending ------------------------------------------------------------------------------------------------------

    def _connected_bus(self) -> Bus | None:
        """Return the bus that is connected: the agent's, or the second one without client_id."""
        return next(
            (bus for bus in (self._bus, self._second_bus) if bus is not None and bus.state is BusState.CONNECTED), None
        )

    def _announce_soon(self) -> None:
        self._soon = True
        self._wake.set()

    def _announce(self) -> bool:
        """Announce ourselves; return whether there was a connection."""
        message = self._described(None)
        with self._lock:
            if self._connected_bus() is None:
                return False
            gone = self._twins.announced(message.id)
        for twin in gone:
            _log.warning("the other agent of node %s is gone: %s", self._settings.node, twin.agent)
        if gone:
            self._write()
        self._send(message)
        return True

    def _described(self, request: str | None) -> NodeDescribed:
        me, node = self.me, self._settings.node
        return NodeDescribed(
            source=f"agent/{node}", node=node, request=request, instance=me.instance, host=me.host, version=__version__
        )

    def _send(self, message: NodeDescribed) -> None:
        bus = self._connected_bus()
        if bus is None or self._key is None:
            return
        with contextlib.suppress(BusError):  # the next one comes soon
            bus.publish_nowait(self._topic, sign(encode(message), self._key), timeout=10, persistent=False)

    # -- receiving -----------------------------------------------------------------------------------------------------

    def _subscribe(self, bus: Bus | BusLink) -> None:
        if self._key is not None:
            bus.subscribe(self._topic, self._receive, prefetch=16, on_failure="drop")

    def _receive(self, delivery: Delivery) -> Verdict:
        frame = Frame(delivery.headers, delivery.body)
        message = self._ours(frame, delivery.destination)
        if isinstance(message, NodeDescribed) and message.node == self._settings.node:
            self._note(message)
        return Ack()

    def _ours(self, frame: Frame, destination: str) -> Message | None:
        """Return the message if our own key signed it, or another one that may sign as this node."""
        now = utc_now()
        for trust in self._trusts:
            with contextlib.suppress(DeploykitError):
                verified = trust.check(frame, now, destination=destination)
                if verified.signer.is_principal(self._settings.node):
                    return verified.message
        return None

    def _note(self, message: NodeDescribed) -> None:
        with self._lock:
            heard = self._twins.heard(message, time.monotonic(), utc_now())
        if heard in ("answer", "stranger"):
            self._send(self._described(message.id))
        if heard == "stranger":
            self._announce_soon()
        if heard in ("twin", "again"):
            self._write()
        if heard == "twin":
            for problem in self.problems:
                _log.error("%s; this one is %s. Stop one, or give it a name and a key of its own", problem, self.me)

    def _write(self) -> None:
        """Write the twins to the state directory, for `deploykit status`."""
        with self._lock:
            write_twins(self._settings.state, self._twins.known)

    # -- a second connection, without client_id ------------------------------------------------------------------------

    def _update_second_bus(self) -> None:
        if not self._refused:
            self._close_second_bus()
        elif self._second_bus is None:
            settings = attrs.evolve(self._settings.broker, client_id="", keepalive=())
            self._second_bus = Bus(settings, on_event=self._on_second_bus_event)
            self._second_bus.start()
            self._subscribe(self._second_bus)

    def _close_second_bus(self) -> None:
        bus, self._second_bus = self._second_bus, None
        if bus is not None:
            bus.stop(1.0)

    def _on_second_bus_event(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._announce_soon()
