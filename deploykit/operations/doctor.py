"""What a broker really is and does: one finding a line, a way out for each failure.

Everything is tried for real, on destinations of its own below `deploykit.doctor.`, and nothing is left behind: topics
only, a durable subscription that is deleted again. A broker whose user may not use those names fails the checks that
need them, and the finding says so.
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
from deploykit.bus.verdicts import Retry, Verdict
from deploykit.errors import BusError, ConnectError, DialectError, SettingsError
from deploykit.settings.address import Broker, parse_address
from deploykit.settings.bus import BusSettings
from deploykit.wire.frame import Frame

_PATIENCE: Final = 5.0
_RECEIPTS: Final = 20
_SLOW: Final = 0.5
_PERMISSIONS: Final = "let this user use destinations that begin with deploykit.doctor., or read the broker's log"


@attrs.frozen(kw_only=True, slots=True)
class BrokerFinding:
    """One line: what was looked at, whether it is well (None: not tried), what was seen, and the way out."""

    broker: str
    check: str
    ok: bool | None
    seen: str
    fix: str = ""

    def __str__(self) -> str:
        mark = {True: "ok", False: "FAIL", None: "--"}[self.ok]
        return f"{mark:<4} {self.broker}  {self.check}: {self.seen}{f'. {self.fix}' if self.fix else ''}"


class _Failed(Exception):
    """A check failed; the rest of this broker's checks that need it are not tried."""

    def __init__(self, seen: str, fix: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.fix = fix


def examine(
    settings: BusSettings, tell: Callable[[BrokerFinding], object] = lambda _: None
) -> tuple[BrokerFinding, ...]:
    """Examine each broker of the address, one after the other.

    Args:
        settings: as for `Bus`.
        tell: called with each finding as it is made.

    Raises:
        AddressError, SettingsError: nothing can be tried with these settings.
    """
    address = parse_address(settings.address)
    findings: list[BrokerFinding] = []

    def found(finding: BrokerFinding) -> None:
        findings.append(finding)
        tell(finding)

    for warning in address.warnings:
        found(BrokerFinding(broker="settings", check="address", ok=None, seen=warning, fix="remove the option"))
    for broker in address.brokers:
        _Examination(broker, settings, found).run()
    return tuple(findings)


class _Examination:
    """The checks of one broker."""

    def __init__(self, broker: Broker, settings: BusSettings, found: Callable[[BrokerFinding], None]) -> None:
        self._broker = broker
        self._found = found
        self._name = f"deploykit.doctor.{secrets.token_hex(6)}"
        self._settings = attrs.evolve(
            settings,
            address=str(broker),
            login=broker.login or settings.login,
            passcode=broker.passcode if broker.login else broker.passcode or settings.passcode,
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
                self._say(
                    "answers", True, f"{connection.server or 'a broker without a name'}, {self._dialect(connection)}"
                )
                if connection.passed_over:
                    self._say("addresses", None, connection.passed_over, "its other addresses are used instead")
                self._say("version", True, f"STOMP {connection.version}")
                self._tls(connection)
                login = self._settings.login
                self._say("login", True, "accepted" if login else "accepted, without a login")
                self._check("receipts", self._receipts, bus)
                self._check("heart-beat", self._heart_beat, bus)
                self._check("NACK", self._nack, bus)
            self._check("durable subscription", self._durable, None)
        except _Failed as failed:
            self._say("answers", False, failed.seen, failed.fix)

    def _say(self, check: str, ok: bool | None, seen: str, fix: str = "") -> None:
        self._found(BrokerFinding(broker=str(self._broker), check=check, ok=ok, seen=seen, fix=fix))

    def _check(self, name: str, check: Callable[[Bus | None], str], bus: Bus | None) -> None:
        try:
            self._say(name, True, check(bus))
        except _Failed as failed:
            self._say(name, False, failed.seen, failed.fix)
        except DialectError as error:
            self._say(name, None, error.problem, error.remedy)
        except BusError as error:
            self._say(name, False, error.problem, error.remedy or _PERMISSIONS)

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
            raise _Failed("it took us and dropped us at once", "look at the broker's log")
        return connection

    def _dialect(self, connection: Connection) -> str:
        if connection.dialect is GENERIC:
            return "which deploykit does not know: only what STOMP promises is used"
        verified = connection.dialect.verified
        return f"known as {connection.dialect.title}, {f'verified on {verified}' if verified else 'not verified'}"

    def _tls(self, connection: Connection) -> None:
        seen = connection.tls_info()
        if seen is None:
            remote = self._broker.host not in ("localhost", "::1") and not self._broker.host.startswith("127.")
            fix = "passcode and messages can be read on the way; use stomp+ssl://" if remote else ""
            self._say("TLS", False if remote else None, "plain", fix)
            return
        protocol, days = seen
        if not self._settings.tls_verify:
            self._say(
                "TLS", False, f"{protocol}, the certificate is not verified", "set tls_verify, and tls_ca if need be"
            )
        elif days is not None and days < 14:
            self._say("TLS", None, f"{protocol}, verified; the certificate ends in {days:.0f} days", "renew it in time")
        else:
            self._say("TLS", True, f"{protocol}, verified" + (f", {days:.0f} days left" if days is not None else ""))

    # -- checks ------------------------------------------------------------------------------------------------

    def _receipts(self, bus: Bus | None) -> str:
        assert bus is not None  # noqa: S101 - `run` gives it
        times = []
        for _ in range(_RECEIPTS):
            began = monotonic()
            bus.publish(f"/topic/{self._name}", Frame({}, b"doctor"), timeout=_PATIENCE, persistent=False)
            times.append(monotonic() - began)
        median = statistics.median(times)
        seen = f"{median * 1000:.1f} ms, the slowest {max(times) * 1000:.1f} ms"
        if median > _SLOW:
            raise _Failed(seen, "the broker or the way to it is overloaded")
        return seen

    def _heart_beat(self, bus: Bus | None) -> str:
        assert bus is not None  # noqa: S101 - `run` gives it
        connection = connection_of(bus)
        if connection is None:
            raise _Failed("the connection was lost", "look at the broker's log")
        beats = connection.beats
        if not beats.expect:
            raise _Failed("off", "set heartbeat, or a firewall's silence goes unnoticed")
        if not beats.native_expect:
            return f"{beats}: the broker grants none, so it is asked for receipts instead"
        sleep(0.1)
        before, began = bus.counters.bytes_received, monotonic()
        while bus.counters.bytes_received == before:
            if monotonic() - began > beats.limit or connection_of(bus) is not connection:
                raise _Failed(
                    f"promised ({beats}), none came in {beats.limit:.1f} s", "is there a proxy that swallows them?"
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
            return f"not tried: {expected} there, so it is never sent; dead letters are copies"
        came: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

        def hold(delivery: Delivery) -> Verdict:
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
            return "the message does not come back; so dead letters are copies, and it is not used to requeue"
        finally:
            subscription.unsubscribe()
        if expected != "gives back":
            raise _Failed("the message came back, which is not expected of it", "report this broker and its version")
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
                raise _Failed("what was sent while we were away did not come", "look at the broker's log") from None
            finally:
                with contextlib.suppress(DialectError):
                    subscription.unsubscribe(forget=True)
        return f"kept what came while we were away, {(monotonic() - began) * 1000:.0f} ms after coming back"
