"""Check what a broker is and does: one finding for each check, a way out for each failure.

Rules:
* Everything is tried for real, on destinations of its own below `deploykit.doctor.`.
* Nothing is left behind: topics only, and a durable subscription that is deleted again.
* Where the broker's user may not use those names, the checks that need them fail, and the finding says so.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Final

import attrs

from deploykit.bus.client import Bus
from deploykit.bus.delivery import Delivery
from deploykit.bus.inspection import connection_of
from deploykit.bus.stomp.connection import Connection
from deploykit.bus.stomp.dialect import GENERIC
from deploykit.bus.verdicts import Retry
from deploykit.bus.verdicts import Verdict as Settlement
from deploykit.errors import BusError, ConnectError, DialectError, SettingsError
from deploykit.operations.findings import Finding, Verdict
from deploykit.settings.address import Broker, parse_address
from deploykit.settings.bus import BusSettings
from deploykit.wire.frame import Frame

_PATIENCE: Final = 5.0
_RECEIPTS: Final = 20
_SLOW: Final = 0.5
_EXPIRES_SOON: Final = 14  # days
_PERMISSIONS: Final = "let this user use destinations that begin with deploykit.doctor., or read the broker's log"


class _Failed(Exception):
    """A check failed; further checks that need the same connection are not tried."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.text = text
        self.remedy = remedy


def examine(settings: BusSettings, on_finding: Callable[[Finding], object] = lambda _: None) -> tuple[Finding, ...]:
    """Check each broker of the address, one after the other, and return all findings.

    Args:
        settings: as for `Bus`.
        on_finding: called with each finding as it is made.

    Raises:
        AddressError, SettingsError: nothing can be tried with these settings.
    """
    address = parse_address(settings.address)
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        on_finding(finding)

    for warning in address.warnings:
        add(Finding(broker="settings", check="address", verdict="warning", text=warning, remedy="remove the option"))
    for broker in address.brokers:
        _BrokerCheck(broker, settings, add).run()
    return tuple(findings)


class _BrokerCheck:
    """The checks of one broker."""

    def __init__(self, broker: Broker, settings: BusSettings, add: Callable[[Finding], None]) -> None:
        self._broker = broker
        self._add_finding = add
        self._name = f"deploykit.doctor.{secrets.token_hex(6)}"
        own = bool(broker.login or broker.passcode)  # credentials in the address
        self._settings = attrs.evolve(
            settings,
            address=str(broker),
            login=broker.login or settings.login,
            passcode=broker.passcode if own else settings.passcode,
            passcode_file=None if own else settings.passcode_file,
            client_id=self._name,  # the daemon's own may be in use
            # Short, so that a beat can be waited for; some brokers count in whole seconds.
            heartbeat=min(settings.heartbeat, 2.0) if settings.heartbeat else 0.0,
            connect_timeout=min(settings.connect_timeout, _PATIENCE),
            keepalive=(),
        )

    def run(self) -> None:
        """Make all findings of this broker."""
        try:
            with self._bus() as bus:
                connection = self._connected(bus)
                server = connection.server or "a broker without a name"
                self._add("answers", "ok", f"{server}, {self._dialect(connection)}")
                if connection.passed_over:
                    self._add("addresses", "warning", connection.passed_over, "its other addresses are used instead")
                self._add("version", "ok", f"STOMP {connection.version}")
                self._tls(connection)
                self._add("login", "ok", "accepted" if self._settings.login else "accepted, without a login")
                self._check("receipts", self._receipts, bus)
                self._check("heart-beat", self._heart_beat, bus)
                self._check("NACK", self._nack, bus)
            self._check("durable subscription", self._durable, None)
        except _Failed as failed:
            self._add("answers", "error", failed.text, failed.remedy)

    def _add(self, check: str, verdict: Verdict, text: str, remedy: str = "") -> None:
        self._add_finding(Finding(broker=str(self._broker), check=check, verdict=verdict, text=text, remedy=remedy))

    def _check(self, name: str, check: Callable[[Bus | None], str], bus: Bus | None) -> None:
        try:
            self._add(name, "ok", check(bus))
        except _Failed as failed:
            self._add(name, "error", failed.text, failed.remedy)
        except DialectError as error:  # this broker cannot do it, and so it is not used there
            self._add(name, "note", error.problem, error.remedy)
        except BusError as error:
            self._add(name, "error", error.problem, error.remedy or _PERMISSIONS)

    @contextmanager
    def _bus(self) -> Iterator[Bus]:
        with contextlib.ExitStack() as stack:
            try:
                bus = stack.enter_context(Bus(self._settings))
            except SettingsError as error:
                raise _Failed(error.problem, error.remedy) from None
            yield bus

    def _connected(self, bus: Bus) -> Connection:
        end = monotonic() + self._settings.connect_timeout + 1
        try:
            while not bus.wait_connected(0.05):
                problem = bus.problem
                if problem is not None or monotonic() > end:
                    problem = problem or ConnectError(f"{self._broker}: no answer", "check host, port and firewall")
                    raise _Failed(problem.problem.removeprefix(f"{self._broker}: "), problem.remedy)
        except BusError as error:
            raise _Failed(error.problem.removeprefix(f"{self._broker}: "), error.remedy) from None
        connection = connection_of(bus)
        if connection is None:
            raise _Failed("the broker closed the connection at once", "look at the broker's log")
        return connection

    def _dialect(self, connection: Connection) -> str:
        if connection.dialect is GENERIC:
            return "a broker that deploykit does not know: only what the STOMP specification promises is used"
        verified = connection.dialect.verified
        return f"known as {connection.dialect.title}, {f'verified on {verified}' if verified else 'not verified'}"

    def _tls(self, connection: Connection) -> None:
        session = connection.tls_info()
        if session is None:
            remote = self._broker.host not in ("localhost", "::1") and not self._broker.host.startswith("127.")
            if remote:
                self._add("TLS", "error", "plain", "passcode and messages can be read on the way; use stomp+ssl://")
            else:
                self._add("TLS", "note", "plain")
            return
        protocol, days = session
        if not self._settings.tls_verify:
            text = f"{protocol}, the certificate is not verified"
            self._add("TLS", "error", text, "set tls_verify, and tls_ca if need be")
        elif days is not None and days < _EXPIRES_SOON:
            text = f"{protocol}, verified; the certificate expires in {days:.0f} days"
            self._add("TLS", "warning", text, "renew it in time")
        else:
            self._add("TLS", "ok", f"{protocol}, verified" + (f", {days:.0f} days left" if days is not None else ""))

    # -- checks ------------------------------------------------------------------------------------------------

    def _receipts(self, bus: Bus | None) -> str:
        assert bus is not None  # noqa: S101 - `run` gives it
        times = []
        for _ in range(_RECEIPTS):
            began = monotonic()
            bus.publish(f"/topic/{self._name}", Frame({}, b"doctor"), timeout=_PATIENCE, persistent=False)
            times.append(monotonic() - began)
        median = statistics.median(times)
        text = f"{median * 1000:.1f} ms, the slowest {max(times) * 1000:.1f} ms"
        if median > _SLOW:
            raise _Failed(text, "the broker or the way to it is overloaded")
        return text

    def _heart_beat(self, bus: Bus | None) -> str:
        assert bus is not None  # noqa: S101 - `run` gives it
        connection = connection_of(bus)
        if connection is None:
            raise _Failed("the connection was lost", "look at the broker's log")
        beats = connection.beats
        if not beats.expect:
            raise _Failed("off", "set heartbeat, or a connection that a firewall dropped goes unnoticed")
        if not beats.native_expect:
            return f"{beats}: the broker grants none, so receipts are requested instead"
        sleep(0.1)
        before, began = bus.counters.bytes_received, monotonic()
        while bus.counters.bytes_received == before:
            if monotonic() - began > beats.limit or connection_of(bus) is not connection:
                raise _Failed(
                    f"promised ({beats}), none came in {beats.limit:.1f} s", "look for a proxy that drops them"
                )
            sleep(0.02)
        return f"{beats}; one came after {monotonic() - began:.1f} s"

    def _nack(self, bus: Bus | None) -> str:
        assert bus is not None  # noqa: S101 - `run` gives it
        connection = connection_of(bus)
        if connection is None:
            raise _Failed("the connection was lost", "look at the broker's log")
        expected = connection.dialect.nack
        if expected in ("unknown", "loses"):
            return f"not tried: {expected} on this broker, so it is never sent; dead letters are copies"
        came: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

        def hold(delivery: Delivery) -> Settlement:
            came.put(delivery)
            return Retry(_PATIENCE * 4)

        subscription = bus.subscribe(f"/topic/{self._name}", hold, max_attempts=100)
        try:
            subscription.wait_active(_PATIENCE)
            bus.publish(f"/topic/{self._name}", Frame({}, b"doctor"), timeout=_PATIENCE, persistent=False)
            first = came.get(timeout=_PATIENCE)
            subscription.forget_unsettled()
            connection.nack(first.headers, connection.dialect.nack_headers)
            came.get(timeout=1.0 if expected != "gives back" else _PATIENCE)
        except queue.Empty:
            if expected == "gives back":
                raise _Failed("the message did not come back", "report this broker and its version") from None
            return "the message does not come back: dead letters are copies, and NACK is not used to requeue"
        finally:
            subscription.unsubscribe()
        if expected != "gives back":
            raise _Failed("the message came back, which is not expected here", "report this broker and its version")
        return "the message comes back"

    def _durable(self, _: Bus | None) -> str:
        topic, name = f"/topic/{self._name}.durable", self._name
        with self._bus() as bus:
            self._connected(bus)
            bus.subscribe(topic, lambda _: None, durable=name).wait_active(_PATIENCE)
        with self._bus() as bus:
            bus.publish(topic, Frame({}, b"kept"), timeout=_PATIENCE)
        came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        with self._bus() as bus:
            began = monotonic()
            subscription = bus.subscribe(topic, lambda delivery: came.put(delivery.body), durable=name)
            try:
                came.get(timeout=_PATIENCE)
            except queue.Empty:
                raise _Failed("what was sent while disconnected did not arrive", "look at the broker's log") from None
            finally:
                with contextlib.suppress(DialectError):
                    subscription.unsubscribe(forget=True)
        milliseconds = (monotonic() - began) * 1000
        return f"kept what was sent while disconnected; delivered {milliseconds:.0f} ms after reconnecting"
