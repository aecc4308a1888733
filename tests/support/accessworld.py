"""A node whose access daemon keeps password files, over the embedded broker; and people with keys who ask it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.bus import Bus, Delivery
from deploykit.daemons.access.daemon import AccessDaemon
from deploykit.daemons.agent.agent import Agent
from deploykit.messages import AccessGrantRequested, AccessReported, AccessRevokeRequested, Message
from deploykit.names import NodeName, SiteName
from deploykit.settings import (
    AccessSettings,
    AccessSiteSettings,
    BusSettings,
    GrantSettings,
    OutboxSettings,
    Settings,
    TrustSettings,
)
from deploykit.system.passwordmaking import hash_sha512
from deploykit.trust.keyfiles import generate_key, load_allowed_signers, trust
from deploykit.trust.signature import SigningKey, sign, verify
from deploykit.wire import Frame, decode, encode
from tests.support.wait import wait_until

NODE = NodeName("web1")
SHOP = SiteName("shop")
#: A password and its hash: hashing takes time.
PASSWORD = "correct horse"
HASH = hash_sha512(PASSWORD)


class MovableClock:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        """Return the time that it shows."""
        return datetime.now(UTC) + self.ahead


class AccessWorld:
    """Settings and keys of one node and a desk; `daemon()` and `agent()` are to be entered.

    Args:
        root: for everything.
        address: of a broker.
        sites: of the node; by default one htpasswd file, `shop`.
        more: further fields of `[access]`.
    """

    def __init__(
        self, root: Path, address: str, sites: Mapping[SiteName, AccessSiteSettings] | None = None, **more: Any
    ) -> None:
        self.root = root
        self.file = root / "users"
        if sites is None:
            self.file.touch(0o640)
            sites = {SHOP: AccessSiteSettings(file=self.file)}
        self.keys: dict[str, SigningKey] = {
            who: generate_key(root / f"{who}.key") for who in ("operator", "looker", "node", "stranger")
        }
        signers = root / "allowed_signers"
        trust(signers, "ops@example.org", self.keys["operator"].public_blob)
        trust(signers, "looker@example.org", self.keys["looker"].public_blob)
        trust(signers, str(NODE), self.keys["node"].public_blob)
        grants = (
            GrantSettings(
                principal="ops@example.org",
                types=("access.grant-requested", "access.revoke-requested", "node.queried"),
                sites=("shop", "stage"),
            ),
            GrantSettings(principal="looker@example.org", types=("node.queried",)),
        )
        self.settings = Settings(
            node=NODE,
            state=root / "state",
            broker=BusSettings(address=address, backoff_max=0.2),
            outbox=OutboxSettings(path=root / "spool"),
            trust=TrustSettings(allowed_signers=signers, grants=grants),
            signing_key=root / "node.key",
            access=AccessSettings(sites=sites, gather=more.pop("gather", 0.05), **more),
            fetch_spread=0.0,
        )
        self.desk = attrs.evolve(
            self.settings,
            node=NodeName("desk"),
            state=root / "desk",
            outbox=OutboxSettings(path=root / "desk-spool"),
            signing_key=root / "operator.key",
            access=AccessSettings(),
        )
        self.clock = MovableClock()
        self.heard: list[tuple[Message, Delivery]] = []
        self._changed = threading.Condition()
        self.bus = Bus(self.settings.broker, client_id="test")

    def __enter__(self) -> AccessWorld:
        self.bus.start()
        for topic in (self.settings.topics.report, self.settings.topics.notice):
            assert self.bus.subscribe(topic, self._hear).wait_active(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.bus.stop()

    @contextlib.contextmanager
    def daemon(self, settings: Settings | None = None) -> Iterator[AccessDaemon]:
        """Run the access daemon."""
        with AccessDaemon(settings or self.settings, now=self.clock) as made:
            assert made.wait_connected(60)
            yield made

    @contextlib.contextmanager
    def agent(self) -> Iterator[Agent]:
        """Run the node's agent, which describes the node."""
        with Agent(self.settings) as made:
            assert made.wait_connected(60)
            yield made

    def _hear(self, delivery: Delivery) -> None:
        message = decode(delivery.headers, delivery.body, delivery.destination)
        assert message is not None
        with self._changed:
            self.heard.append((message, delivery))
            self._changed.notify_all()

    # -- commands ------------------------------------------------------------------------------------------------------

    def grant(self, user: str = "alice", **changes: Any) -> AccessGrantRequested:
        """A grant as an operator would send it."""
        asked = AccessGrantRequested(
            source="operator/test", site=SHOP, user=user, password_hash=HASH, requested_by="ann", **self._times()
        )
        return attrs.evolve(asked, **changes)

    def revoke(self, user: str = "alice", **changes: Any) -> AccessRevokeRequested:
        """A revocation as an operator would send it."""
        asked = AccessRevokeRequested(source="operator/test", site=SHOP, user=user, requested_by="ann", **self._times())
        return attrs.evolve(asked, **changes)

    def _times(self) -> dict[str, Any]:
        now = self.clock()
        return {"time": now, "expires": now + timedelta(minutes=5)}

    def send(self, message: Message, *, key: str | None = "operator", frame: Frame | None = None) -> Frame:
        """Sign (unless `key` is None) and send a command."""
        frame = frame or encode(message)
        if key is not None:
            frame = sign(frame, self.keys[key])
        self.bus.publish(self.settings.topics.access, frame)
        return frame

    def do(self, message: AccessGrantRequested | AccessRevokeRequested, **how: Any) -> AccessReported:
        """Send a command, and return the report on it."""
        self.send(message, **how)
        return self.report_on(message)

    # -- what is heard -------------------------------------------------------------------------------------------------

    def wait(self, check: Callable[[Message], bool], timeout: float = 60) -> Message:
        """Wait for a message."""

        def found() -> Message | None:
            return next((m for m, _ in self.heard if check(m)), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, timeout), [m.summary for m, _ in self.heard]
            message = found()
        assert message is not None
        return message

    def report_on(self, command: Message) -> AccessReported:
        """Wait for the report on a command; the node must have signed it."""
        return self.reported(lambda report: report.request == command.id)

    def reported(self, check: Callable[[AccessReported], bool]) -> AccessReported:
        """Wait for a report; the node must have signed it."""
        report = self.wait(lambda m: isinstance(m, AccessReported) and check(m))
        assert isinstance(report, AccessReported)
        delivery = next(d for m, d in self.heard if m is report)
        signers = load_allowed_signers(self.root / "allowed_signers")
        signer = verify(Frame(delivery.headers, delivery.body), signers, datetime.now(UTC))
        assert signer.is_principal(str(NODE))
        return report

    def reports(self) -> list[AccessReported]:
        """The reports that were heard so far."""
        with self._changed:
            return [m for m, _ in self.heard if isinstance(m, AccessReported)]

    def users(self) -> list[str]:
        """The users in the file, in its order."""
        return [line.partition(":")[0] for line in self.file.read_text().splitlines() if not line.startswith("#")]

    def records(self, count: int = 0) -> list[AuditRecord]:
        """The audit, once it has so many records."""
        path = self.settings.audit.path_in(self.settings.state)

        def found() -> list[AuditRecord]:
            return [each for each in read_records(path) if isinstance(each, AuditRecord)] if path.exists() else []

        wait_until(lambda: len(found()) >= count, f"{count} records")
        return found()


__all__ = ["HASH", "NODE", "PASSWORD", "SHOP", "AccessWorld", "MovableClock"]
