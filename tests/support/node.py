"""A node under test: a real origin, real keys, an agent over the embedded broker, and a bus to talk to it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import attrs

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery
from deploykit.bus.events import Connected, Event
from deploykit.daemons.agent.agent import Agent
from deploykit.messages import DeployReported, DeployRequested, Message
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.outbox import Outbox
from deploykit.settings import (
    BusSettings,
    GrantSettings,
    NodeSiteSettings,
    OutboxSettings,
    RepositorySettings,
    Settings,
    SiteSettings,
    TrustSettings,
)
from deploykit.trust.keyfiles import generate_key, load_allowed_signers, trust
from deploykit.trust.signature import SigningKey, sign, verify
from deploykit.wire import Frame, decode, encode
from tests.brokers.server import BrokerServer
from tests.support.wait import wait_until

M = TypeVar("M", bound=Message)

NODE = NodeName("web1")
SHOP = RepoName("shop")
GIT_ENV = {
    "PATH": "/usr/bin:/bin",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def git(*words: str, cwd: Path) -> str:
    """Run git, which has to succeed."""
    done = subprocess.run(["git", *words], cwd=cwd, env=GIT_ENV, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Origin:
    """A bare repository, and a clone to push from."""

    def __init__(self, root: Path) -> None:
        self.path, self.work = root / "origin.git", root / "work"
        root.mkdir(parents=True, exist_ok=True)
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self.path), cwd=root)
        git("clone", "--quiet", str(self.path), str(self.work), cwd=root)
        git("checkout", "--quiet", "-B", "main", cwd=self.work)

    def branch(self, name: str, files: dict[str, str]) -> ObjectId:
        """Commit files on a branch of that name, push it, go back to main, and return the commit."""
        git("checkout", "--quiet", "-B", name, cwd=self.work)
        for path, text in files.items():
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            (self.work / path).write_text(text)
        git("add", "--all", cwd=self.work)
        git("commit", "--quiet", "--allow-empty", "--message", f"work for {name}", cwd=self.work)
        git("push", "--quiet", "--force", "origin", name, cwd=self.work)
        commit = ObjectId(git("rev-parse", "HEAD", cwd=self.work))
        git("checkout", "--quiet", "main", cwd=self.work)
        return commit

    def delete(self, branch: str) -> None:
        """Delete a branch at the origin."""
        git("push", "--quiet", "origin", f":{branch}", cwd=self.work)

    def push(self, *, tag: str = "", files: dict[str, str] | None = None) -> ObjectId:
        """Commit files, tag, push, and return the commit."""
        for name, text in (files or {"index.html": f"{tag}\n"}).items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if text.startswith("#!"):
                path.chmod(0o755)
        git("add", "--all", cwd=self.work)
        git("commit", "--quiet", "--allow-empty", "--message", f"work for {tag or 'main'}", cwd=self.work)
        if tag:
            git("tag", "--force", tag, cwd=self.work)
        git("push", "--quiet", "--force", "--tags", "origin", "main", cwd=self.work)
        return ObjectId(git("rev-parse", "HEAD", cwd=self.work))


class NodeAgent(Agent):
    """An agent that lets a test see when it has begun what it does of itself."""

    def __init__(self, settings: Settings) -> None:
        self._was_connected = threading.Event()
        super().__init__(settings)

    def _on_event(self, event: Event) -> None:
        super()._on_event(event)
        if isinstance(event, Connected):
            self._was_connected.set()

    def ready(self, *repos: RepoName) -> None:
        """Wait until it hears its topics, and until the comparisons that it makes at its start are over.

        It makes one at once and one when it is connected, of which a thread of its own tells: a test that pushes before
        both are over does not know whether its message or a comparison moves a ref.
        """
        assert self.wait_connected(60)
        assert self._was_connected.wait(60)
        pool = self._mirrors._pool

        def over() -> bool:
            with pool._wake:
                schedule = pool._schedule
                names = [str(repo) for repo in repos or self.settings.repositories]
                return not any(n in schedule._running or schedule._when(n) <= time.monotonic() for n in names)

        wait_until(over, "the end of the first comparisons", 60)


class Node:
    """Everything one agent needs, in one directory, and what a test asks of it."""

    def __init__(
        self, root: Path, broker: EmbeddedBroker | BrokerServer, *, release: SiteSettings | None = None
    ) -> None:
        self.root = root
        self.origin = Origin(root / "git")
        self.site = root / "site"
        signers = root / "allowed_signers"
        self.keys: dict[str, SigningKey] = {}
        for who in ("operator", "node", "stranger"):
            self.keys[who] = generate_key(root / f"{who}.key")
        trust(signers, "ops@example.org", self.keys["operator"].public_blob)
        trust(signers, str(NODE), self.keys["node"].public_blob)
        self.signers = signers
        self.settings = Settings(
            node=NODE,
            state=root / "state",
            broker=BusSettings(address=broker.address, backoff_max=0.2),
            outbox=OutboxSettings(path=root / "spool"),
            trust=TrustSettings(
                allowed_signers=signers,
                grants=(GrantSettings(principal="ops@example.org", types=("deploy.requested",), sites=("shop",)),),
            ),
            signing_key=root / "node.key",
            repositories={SHOP: RepositorySettings(url=str(self.origin.path))},
            sites={
                SiteName("shop"): NodeSiteSettings(path=self.site, repo=SHOP, release=release or SiteSettings()),
            },
            reconcile_every=3600.0,
            fetch_spread=0.0,
        )
        self.heard: list[tuple[Message, Delivery]] = []
        self._changed = threading.Condition()
        self.bus = Bus(self.settings.broker, client_id="test")

    def __enter__(self) -> Node:
        self.listen()
        return self

    def listen(self) -> None:
        """Start a bus that hears the node's topics, also what is said while a broker restarts."""
        self.bus.start()
        topics = self.settings.topics
        for topic in (topics.report, topics.mirror):
            assert self.bus.subscribe(topic, self._hear, durable=f"test-{topic.rpartition('.')[2]}").wait_active(60)

    def listen_afresh(self) -> None:
        """Forget what was heard: a bus drops copies of what it has handed out, a new one does not."""
        self.bus.stop()
        self.heard.clear()
        self.bus = Bus(self.settings.broker, client_id="test")
        self.listen()

    def __exit__(self, *_: object) -> None:
        self.bus.stop()

    def agent(self, **changes: Any) -> NodeAgent:
        """An agent over these settings, to be entered."""
        return NodeAgent(attrs.evolve(self.settings, **changes))

    def _hear(self, delivery: Delivery) -> None:
        message = decode(delivery.headers, delivery.body, delivery.destination)
        assert message is not None
        with self._changed:
            self.heard.append((message, delivery))
            self._changed.notify_all()

    def wait(self, kind: type[M], check: Callable[[M], bool] = lambda _: True, *, timeout: float = 60) -> M:
        """Wait for a message of a kind that `check` accepts."""

        def found() -> M | None:
            return next((m for m, _ in self.heard if isinstance(m, kind) and check(m)), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, timeout), [m.summary for m, _ in self.heard]
            message = found()
        assert message is not None
        return message

    def count(self, kind: type[Message]) -> int:
        """How many messages of a kind were heard so far."""
        with self._changed:
            return sum(isinstance(m, kind) for m, _ in self.heard)

    def waits(self, kind: type[Message]) -> bool:
        """Whether a message of a kind is in the spool of the node."""
        records = Outbox(self.settings.outbox.path, create=False).pending(everyone=True)
        return any(isinstance(decode(r.frame.headers, r.frame.body, r.destination), kind) for r in records)

    def delivery_of(self, message: Message) -> Delivery:
        """The delivery a message came in."""
        return next(d for m, d in self.heard if m is message)

    def request(self, tag: str, commit: ObjectId, **changes: Any) -> DeployRequested:
        """A deploy command as an operator would send it."""
        now = datetime.now(UTC)
        asked = DeployRequested(
            source="operator/test",
            time=now,
            site=SiteName("shop"),
            ref=RefName(f"refs/tags/{tag}"),
            commit=commit,
            audience=(NODE,),
            expires=now + timedelta(minutes=5),
            requested_by="ada",
        )
        return attrs.evolve(asked, **changes)

    def send(self, request: Message, *, key: str | None = "operator", frame: Frame | None = None) -> Frame:
        """Sign (unless `key` is None) and send a command."""
        frame = frame or encode(request)
        if key is not None:
            frame = sign(frame, self.keys[key])
        self.bus.publish(self.settings.topics.deploy, frame)
        return frame

    def report_on(self, request: DeployRequested, *, timeout: float = 60) -> DeployReported:
        """Wait for the node's report on a request, and check that the node signed it."""
        report = self.wait(DeployReported, lambda m: m.request == request.id, timeout=timeout)
        delivery = self.delivery_of(report)
        signer = verify(Frame(delivery.headers, delivery.body), load_allowed_signers(self.signers), datetime.now(UTC))
        assert signer.is_principal(str(NODE))
        return report


__all__ = ["NODE", "SHOP", "Node", "NodeAgent", "Origin", "git"]


def write_settings(node: Node, **changes: str) -> Path:
    """Write the node's settings to a file; return its path."""
    file = node.root / "deploykit.toml"
    broker = node.settings.broker.address
    file.write_text(
        f'node = "{NODE}"\nstate = "{node.root}/state"\nsigning_key = "{node.root}/node.key"\n'
        f'[broker]\naddress = "{broker}"\n[outbox]\npath = "{node.root}/spool"\n'
        f'[trust]\nallowed_signers = "{node.signers}"\n'
        'grants = [{ principal = "ops@example.org", types = ["deploy.requested"] }]\n'
        f'[repositories.{SHOP}]\nurl = "{node.origin.path}"\n'
        f'[sites.shop]\npath = "{node.site}"\nrepo = "{SHOP}"\n' + "".join(changes.values())
    )
    file.chmod(0o600)
    return file


def at_real_broker(node: Node, server: BrokerServer, **changes: object) -> Node:
    """Return the node, moved to a real broker."""
    node.bus.stop()
    broker = attrs.evolve(node.settings.broker, address=server.address, backoff_max=0.5)
    node.settings = attrs.evolve(node.settings, broker=broker, **changes)  # type: ignore[arg-type]
    node.bus = Bus(broker, client_id="test-twins")
    return node
