"""What the daemons of a soak work with: an origin, keys, settings, spools; and the load: pushes, commands, records."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploykit.bus import Bus, Delivery
from deploykit.messages import DeployReported, DeployRequested, Message, MirrorUpdated, Notice, RefUpdated
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.outbox import Outbox
from deploykit.settings import BusSettings
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.signature import sign
from deploykit.wire import decode, encode
from tests.support.node import Origin, git
from tests.support.stubjenkins import StubJenkins
from tests.support.stubjobs import StubJob

SHOP = RepoName("shop")
#: Nodes whose daemons start builds; each has a job of its own, so that no two daemons ask for one build.
BUILDERS = ("web1", "web2")
#: Tags that stay at the origin: mirrors and releases must not grow because their origin does.
_KEPT_TAGS = 10

_SETTINGS = """node = "{node}"
state = "{root}/{node}/state"
signing_key = "{root}/{node}.key"
reconcile_every = 20.0
fetch_spread = 0.0
[log]
level = "warning"
[broker]
address = "{address}"
[outbox]
path = "{root}/{node}/spool"
[service]
listen_of = {{ {pages} }}
[trust]
allowed_signers = "{root}/allowed_signers"
grants = [{{ principal = "ops@example.org", types = ["deploy.requested"], sites = ["shop"] }}]
[repositories.shop]
url = "{root}/git/origin.git"
[sites.shop]
path = "{root}/{node}/site"
repo = "shop"
release = {{ keep = 3 }}
"""
_JENKINS = """[jenkins.servers.ci]
url = "{url}"
user = "deploykit"
token_file = "{token_file}"
[[jenkins.jobs]]
repo = "shop"
job = "{job}"
refs = ["refs/heads/*"]
"""


class SoakWorld:
    """Everything around the daemons, in one directory. A context manager.

    Args:
        root: the directory.
        address: of the broker.
    """

    def __init__(self, root: Path, address: str) -> None:
        self.root = root
        self._address = address
        self._origin = Origin(root / "git")
        self._operator = generate_key(root / "operator.key")
        self._signers = root / "allowed_signers"
        trust(self._signers, "ops@example.org", self._operator.public_blob)
        self._bus = Bus(BusSettings(address=address), client_id="soak")
        self._jenkins = StubJenkins([StubJob(name=f"tests-{node}") for node in BUILDERS])
        self._changed = threading.Condition()
        self._answered: dict[tuple[str, str], str] = {}
        self._number = 0
        self._tags: list[tuple[str, ObjectId]] = []
        self._commit = ObjectId(ZERO_ID)
        #: How much was done: a soak without load shows nothing.
        self.counts = {"pushes": 0, "mirror reports": 0, "deploys": 0, "deploys done": 0, "records": 0, "builds": 0}

    def __enter__(self) -> SoakWorld:
        self._jenkins.start()
        self._bus.start()
        for topic in ("report", "mirror"):
            assert self._bus.subscribe(f"/topic/deploykit.{topic}", self._hear).wait_active(60)
        self.push()
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.stop()
        self._jenkins.__exit__()

    def settings(self, node: str, daemons: tuple[str, ...]) -> Path:
        """Write the settings of a node; return their file. Each daemon has its pages at `pages(daemon, node)`."""
        key = generate_key(self.root / f"{node}.key")
        trust(self._signers, node, key.public_blob)
        pages = ", ".join(f'{name} = "unix:{self.pages(name, node)}"' for name in daemons)
        file = self.root / f"{node}.toml"
        text = _SETTINGS.format(node=node, root=self.root, address=self._address, pages=pages)
        if node in BUILDERS:
            login = self._jenkins.settings(self.root)
            text += _JENKINS.format(url=login.url, token_file=login.token_file, job=f"tests-{node}")
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
        return file

    def pages(self, daemon: str, node: str) -> Path:
        """Return the socket of a daemon's pages."""
        return self.root / f"{node}-{daemon}.sock"

    # -- load ----------------------------------------------------------------------------------------------------------

    def push(self) -> None:
        """Commit, tag and push; delete the oldest tag; announce all of it as a hook would."""
        self._number += 1
        tag = f"v{self._number}"
        new = self._origin.push(tag=tag, files={"index.html": f"{tag}\n", f"page-{self._number % 50}": "x" * 2000})
        changes = [("refs/heads/main", self._commit, new), (f"refs/tags/{tag}", ObjectId(ZERO_ID), new)]
        self._commit = new
        self._tags.append((tag, new))
        if len(self._tags) > _KEPT_TAGS:
            gone, was = self._tags.pop(0)
            git("push", "--quiet", "origin", f":refs/tags/{gone}", cwd=self._origin.work)
            git("tag", "--delete", gone, cwd=self._origin.work)
            changes.append((f"refs/tags/{gone}", was, ObjectId(ZERO_ID)))
        for ref, old, now in changes:
            self._send("source", RefUpdated(source="git", repo=SHOP, ref=RefName(ref), old=old, new=now))
        self.counts["pushes"] += 1

    def deploy(self, node: str) -> None:
        """Ask a node to put the newest tag live, and wait for its report."""
        tag, commit = self._tags[-1]
        now = datetime.now(UTC)
        request = DeployRequested(
            source="operator/soak",
            time=now,
            site=SiteName("shop"),
            ref=RefName(f"refs/tags/{tag}"),
            commit=commit,
            audience=(NodeName(node),),
            expires=now + timedelta(minutes=5),
        )
        self._bus.publish("/topic/deploykit.deploy", sign(encode(request), self._operator), timeout=60)
        self.counts["deploys"] += 1
        key = (node, request.id)
        with self._changed:
            assert self._changed.wait_for(lambda: key in self._answered, 120), f"{node} did not answer"
            assert (outcome := self._answered.pop(key)) == "success", f"{node}: {outcome}"
        self.counts["deploys done"] += 1

    def put(self, node: str) -> None:
        """Put some records into a node's spool, as hooks do."""
        outbox = Outbox(self.root / node / "spool")
        for number in range(5):
            outbox.put("/topic/deploykit.notice", encode(Notice(source="soak", text=f"{number} {'x' * 500}")))
        self.counts["records"] += 5

    def count_builds(self) -> int:
        """Count the builds that were started so far, and return by how many pushes the least built job is behind."""
        builds = [len(job.builds) for job in self._jenkins.queue.jobs.values()]
        self.counts["builds"] = sum(builds)
        del self._jenkins.seen[:]
        return self.counts["pushes"] - min((count for count in builds if count), default=0)

    def waiting(self, node: str) -> int:
        """Return how many records wait in a node's spool."""
        spool = self.root / node / "spool"
        return len(list(spool.glob("*.rec"))) if spool.is_dir() else 0

    def _send(self, topic: str, message: Message) -> None:
        self._bus.publish(f"/topic/deploykit.{topic}", encode(message), timeout=60)

    def _hear(self, delivery: Delivery) -> None:
        message = decode(delivery.headers, delivery.body, delivery.destination)
        with self._changed:
            if isinstance(message, DeployReported):
                self._answered[message.node, message.request] = f"{message.outcome} {message.detail}".strip()
                self._changed.notify_all()
            elif isinstance(message, MirrorUpdated):
                self.counts["mirror reports"] += 1
