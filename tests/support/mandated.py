"""A node whose site asks for mandates: real keys, a real repository and site; no bus, and nothing is fetched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import attrs

from deploykit.audit import open_audit
from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.builds.store import builds_of
from deploykit.bus import Ack, Delivery
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.deploys import DeployHandler
from deploykit.daemons.agent.gate import BuildGate
from deploykit.daemons.agent.mandates import mandates_of
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.rollouts import rollouts_of
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.errors import OutboxError
from deploykit.ids import IdStore
from deploykit.messages import (
    ApprovalWanted,
    DeployPhase,
    DeployReported,
    DeployRequested,
    Message,
    RolloutAbort,
    RolloutApproved,
)
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings import GrantSettings, NodeSiteSettings, RepositorySettings, Settings, TrustSettings
from deploykit.testing.fakes import FakeBus
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import HEADER, BodySigner, add_signature, sign
from deploykit.wire import CONTENT_TYPE, Frame, decode, encode
from tests.support.keys import fixed_key
from tests.support.openmirrors import FakeMirrors
from tests.support.releasing import Shop, script
from tests.support.resultaudit import result_audit
from tests.support.securitykeys import SoftwareSecurityKey

WEB1, WEB2 = NodeName("web1"), NodeName("web2")
SHOP, BLOG = SiteName("shop"), SiteName("blog")
#: The coordinator runs rollouts. ann (two keys), bob and cid approve those of both sites, dan those of the blog; ops
#: deploys. eve is trusted and may nothing, nobody is a stranger. tess has a security key.
KEYS: dict[str, BodySigner] = {
    **{
        name: fixed_key(at)
        for at, name in enumerate(("coordinator", "ann", "ann2", "bob", "cid", "dan", "ops", "eve", "nobody"), 1)
    },
    "tess": SoftwareSecurityKey.ecdsa(seed=3),
}
APPROVE = ("rollout.approved",)
GRANTS = (
    GrantSettings(principal="coordinator", types=("rollout.run",)),
    *(GrantSettings(principal=who, types=APPROVE) for who in ("ann", "bob", "cid", "tess")),
    GrantSettings(principal="dan", types=APPROVE, sites=("blog",)),
    GrantSettings(principal="ops", types=("deploy.requested",)),
)


class FakeReporter(Reporter):
    """Keeps what is said; its outbox may be full."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.full = False

    def report(self, *messages: Message, announced: bool = True) -> tuple[Frame, ...]:
        if self.full:
            raise OutboxError("no space", "free the disk")
        self.said += messages
        return tuple(encode(message) for message in messages)

    def report_again(self, body: bytes) -> None:
        message = decode({"content-type": CONTENT_TYPE}, body)
        assert message is not None
        self.said.append(message)


class MandatedNode:
    """A node with two sites of one repository; versions 1 to 3 are tagged, the shop has version 1 live.

    Args:
        root: its directory.
        site: what the shop asks for; two signatures by default. The blog asks for nothing.
    """

    def __init__(self, root: Path, **site: Any) -> None:
        self.shop = Shop(root)
        noted = script('while [ -e "$DEPLOYKIT_SHARED/hold" ]; do : > "$DEPLOYKIT_SHARED/held"; sleep 0.01; done')
        self.commits = {f"v{n}": self.shop.commit({"a": b"%d" % n, "deploy/pre-deploy": noted}) for n in range(1, 4)}
        assert self.shop.deploy("v1").outcome == "success"
        repo = RepoName("repo")
        self.settings = Settings(
            node=WEB1,
            state=root / "state",
            trust=TrustSettings(grants=GRANTS),
            repositories={repo: RepositorySettings(url=str(self.shop.repo.path))},
            sites={
                SHOP: NodeSiteSettings(path=self.shop.path, repo=repo, **(site or {"signatures": 2})),
                BLOG: NodeSiteSettings(path=root / "blog", repo=repo),
            },
        )
        self.reporter = FakeReporter()
        self.now = datetime.now(UTC)
        self.trusted = {name: key for name, key in KEYS.items() if name != "nobody"}
        self.wait = 0.0
        self.start()

    def start(self) -> None:
        """Start the node's handler, as after a restart: what it knows is on the disk."""
        settings, now = self.settings, lambda: self.now
        trust = Trust.from_settings(settings.trust, WEB1, trusted=self.signers, repos=settings.site_repos)
        settings.state.mkdir(exist_ok=True)
        builds, self.audit = builds_of(settings.state), open_audit(settings)
        gate = BuildGate(settings, trust, builds, result_audit(self.audit, builds, WEB1), now=now)
        progress = ProgressSender(WEB1, FakeBus(), TopicMap(), None)
        deployer = SiteDeployer(settings, FakeMirrors(self.shop.repo.path), gate, progress)
        self.ids = IdStore(settings.state / "ids.sqlite")
        self.rollouts = rollouts_of(settings.state)
        writer = AuditWriter(self.audit, "agent/web1", now)
        self.mandates = mandates_of(settings, trust, self.reporter, writer, self.rollouts, now=now, wait=self.wait)
        self.handler = DeployHandler(
            *(WEB1, deployer, self.reporter, self.ids, trust, self.audit),
            rollouts=self.rollouts,
            sites=settings.sites,
            mandates=self.mandates,
            now=now,
        )

    def signers(self) -> AllowedSigners:
        lines = (f"{name.rstrip('0123456789')} {_public(key)}\n" for name, key in self.trusted.items())
        return AllowedSigners.parse("".join(lines))

    # -- what is sent --------------------------------------------------------------------------------------------------

    def mandate(self, *by: str, **more: Any) -> Frame:
        """A mandate for version 2 on web1, signed by these."""
        approved = RolloutApproved(
            time=self.now,
            site=SHOP,
            rollout="r1",
            ref=RefName("refs/tags/v2"),
            commit=ObjectId(self.commits["v2"]),
            nodes=(WEB1, WEB2),
            phases=("deploy", "prepare", "activate"),
            allow_rollback=True,
            not_before=self.now,
            not_after=self.now + timedelta(hours=1),
            requested_by="ann",
        )
        return signed(encode(attrs.evolve(approved, **more)), *by)

    def command(self, mandate: Frame | None, phase: DeployPhase = "deploy", tag: str = "v2", **more: Any) -> Any:
        """A command under a mandate."""
        command = DeployRequested(
            time=self.now,
            site=SHOP,
            ref=RefName(f"refs/tags/{tag}"),
            commit=ObjectId(self.commits[tag]),
            audience=(WEB1,),
            expires=self.now + timedelta(minutes=5),
            phase=phase,
            rollout="r1",
            mandate=digest(mandate) if mandate is not None else None,
        )
        return attrs.evolve(command, **more)

    def send(self, frame: Frame) -> None:
        """Hand a frame over as a bus would."""
        verdict = self.handler.handle(
            Delivery(
                destination="/topic/x",
                headers=frame.headers,
                body=frame.body,
                message_id="1",
                id="1",
                attempt=1,
                redelivered=False,
                epoch=1,
            )
        )
        assert isinstance(verdict, Ack)

    def ask(self, command: DeployRequested, *by: str) -> str:
        """Send a command and return its outcome, with the detail unless it is success; empty without an answer."""
        before = len(self.reports)
        self.send(signed(encode(command), *(by or ("coordinator",))))
        found = self.reports[before:]
        if not found:
            return ""
        (report,) = found
        assert report.request == command.id
        return report.outcome if report.outcome == "success" else f"{report.outcome}: {report.detail}"

    def abort(self, who: str) -> None:
        """Abort the rollout."""
        abort = RolloutAbort(time=self.now, site=SHOP, rollout="r1", expires=self.now + timedelta(minutes=5))
        self.send(signed(encode(abort), who))

    # -- what came of it -----------------------------------------------------------------------------------------------

    @property
    def reports(self) -> list[DeployReported]:
        return [each for each in self.reporter.said if isinstance(each, DeployReported)]

    @property
    def wanted(self) -> list[str]:
        """The mandates that the node asked for."""
        return [each.mandate for each in self.reporter.said if isinstance(each, ApprovalWanted)]

    def recorded(self, action: str) -> list[AuditRecord]:
        records = (r for r in read_records(self.audit.path) if isinstance(r, AuditRecord))
        return [record for record in records if record.action == action]

    def live(self) -> str:
        return self.shop.read("a")


def digest(frame: Frame) -> str:
    """The name of a mandate."""
    return sha256(frame.body).hexdigest()


def signed(frame: Frame, *by: str) -> Frame:
    """A frame with the signatures of these, in this order."""
    if not by:
        return frame
    frame = sign(frame, KEYS[by[0]])
    for name in by[1:]:
        frame = add_signature(frame, KEYS[name])
    return frame


def parts(frame: Frame) -> list[str]:
    """The signatures in a frame's header."""
    return frame.headers[HEADER].split(",")


def with_parts(frame: Frame, *texts: str) -> Frame:
    """The frame with these signatures in its header."""
    return Frame({**frame.headers, HEADER: ",".join(texts)}, frame.body)


def _public(key: BodySigner) -> str:
    return cast(Any, key).public_openssh  # type: ignore[no-any-return]
