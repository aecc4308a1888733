"""A small fleet as the bus tells it: real messages, for the tests of projection, pages and API, and for screenshots.

Two sites (`shop` on three nodes, `docs` on two), pushes by git, webhook and Subversion, builds, a failed canary with
its log, a finished rollout, a single rollback, locks, notices. `hostile=True` puts `CANARY` into every free text.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from deploykit.messages import (
    BuildFinished,
    BuildRequested,
    BuildStarted,
    Commit,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    HeldRef,
    Message,
    MirrorOutcome,
    MirrorUpdated,
    NodeDescribed,
    NodeDetail,
    NodeQueried,
    Notice,
    ProgressState,
    RefUpdated,
    RevisionCommitted,
    RolloutApproved,
    RolloutReported,
    RolloutState,
    SignedStatement,
    SiteLocked,
    SiteOperation,
    SiteRelease,
    SiteState,
    SiteUnlocked,
    StepReport,
)
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings.web import WebSettings
from deploykit.trust.signature import HEADER
from deploykit.trust.statements import statement_of
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.store import Store
from deploykit.web.projection.views import ProjectionHealth
from deploykit.wire import Frame, encode

#: When the world's last message was received.
NOW: Final = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
SHOP, DOCS = SiteName("shop"), SiteName("docs")
REPO, DOCS_REPO, SVN_REPO = RepoName("team/shop"), RepoName("docs"), RepoName("legacy")
NODES: Final = (NodeName("web1"), NodeName("web2"), NodeName("web3"))
WEB1, WEB2, WEB3 = NODES
MAIN, DOCS_MAIN = RefName("refs/heads/main"), RefName("refs/heads/main")
V1, V2, V3 = (RefName(f"refs/tags/v1.{minor}") for minor in (1, 2, 3))
C1, C2, C3, C4 = (ObjectId(digit * 40) for digit in "1234")
#: A rollout that ended well, one whose canary failed, and a command by itself.
DONE, FAILED, SINGLE = "rollout-done", "rollout-failed", "command-single"
#: Where a page must show it as text. A script in it would set `window.canary`.
CANARY: Final = "<script>window.canary=1</script><img src=x onerror=window.canary=1>'\"&amp;\x1b[31m\u202e{{7*7}}"


class WebWorld:
    """Makes the messages. Each has an id of its own, and a time before `NOW`."""

    def __init__(self, *, hostile: bool = False, log_lines: int = 40) -> None:
        self._hostile = hostile
        self._log_lines = log_lines
        self._count = 0

    def text(self, text: str) -> str:
        """Return a free text, with the canary where the world is hostile."""
        return f"{text}{CANARY}" if self._hostile else text

    def base(self, minutes: float, source: str, **fields: Any) -> dict[str, Any]:
        """Return the envelope of a message that was sent so many minutes before `NOW`."""
        self._count += 1
        return {"id": f"m{self._count}", "source": source, "time": NOW - timedelta(minutes=minutes), **fields}

    def messages(self) -> list[Message]:
        """Return all messages in the order in which they were received."""
        found = [
            *self.pushes(),
            *self.builds(),
            *self.mirrors(),
            *self.finished_rollout(),
            *self.failed_rollout(),
            *self.single_rollback(),
            *self.locks(),
            *self.descriptions(),
            *self.notices(),
        ]
        return sorted(found, key=lambda message: message.time)

    def commit(self, id: ObjectId, message: str, minutes: float) -> Commit:
        """Return a commit as a push names it."""
        time = (NOW - timedelta(minutes=minutes)).isoformat()
        return Commit(id=id, author=self.text("Ann Example <ann@example.org>"), time=time, message=self.text(message))

    def pushes(self) -> Iterator[Message]:
        """Pushes by a hook, a forge and Subversion."""
        made = self.commit(C3, "Basket: keep it for a week\n\nSeen by Ben.", 95)
        yield RefUpdated(
            **self.base(180, "git/git.example.org"),
            repo=REPO,
            ref=MAIN,
            old=C1,
            new=C2,
            pusher=self.text("ann"),
            commits=(self.commit(C2, "Prices with two decimals", 185),),
            commit_count=1,
        )
        yield RefUpdated(
            **self.base(90, "webhook/forge"),
            repo=REPO,
            ref=MAIN,
            old=C2,
            new=C3,
            pusher=self.text("ben"),
            commits=(made, self.commit(C4, "Basket: a test", 100)),
            commit_count=7,
        )
        tag = RefName("refs/tags/<script>alert(1)</script>") if self._hostile else V3
        for ref in dict.fromkeys((V3, tag)):
            yield RefUpdated(
                **self.base(88, "webhook/forge"),
                repo=REPO,
                ref=ref,
                old=ZERO_ID,
                new=C3,
                pusher=self.text("ben"),
                commits=(made,),
                commit_count=1,
            )
        yield RefUpdated(
            **self.base(70, "git/git.example.org"),
            repo=DOCS_REPO,
            ref=DOCS_MAIN,
            old=C1,
            new=C4,
            forced=True,
            pusher=self.text("cleo"),
            commits=(self.commit(C4, "Chapter 3", 71),),
            commit_count=1,
        )
        yield RefUpdated(
            **self.base(69, "git/git.example.org"),
            repo=DOCS_REPO,
            ref=RefName("refs/heads/topic"),
            old=C2,
            new=ZERO_ID,
            pusher=self.text("cleo"),
        )
        yield RevisionCommitted(
            **self.base(60, "svn/svn.example.org"),
            repo=SVN_REPO,
            revision=4711,
            author=self.text("dora"),
            committed=NOW - timedelta(minutes=60),
            log=self.text("Fix the import"),
            dirs=("billing/trunk/src/",),
            dir_count=1,
            projects=("billing",),
        )

    def builds(self) -> Iterator[Message]:
        """One build that succeeded, one that failed, one that runs, one that waits."""
        for at, number, ref, commit in ((175, 41, MAIN, C2), (86, 42, V3, C3)):
            build: dict[str, Any] = {"job": "shop/test", "repo": REPO, "ref": ref, "commit": commit}
            url = f"https://ci.example.org/job/shop/job/test/{number}/"
            correlation: dict[str, Any] = {"correlation_id": f"push-{number}"}
            yield BuildRequested(**self.base(at, "jenkins/ci1", **correlation), **build, server="ci", queue_item=7)
            yield BuildStarted(**self.base(at - 1, "jenkins/ci1", **correlation), **build, number=number, url=url)
            yield BuildFinished(
                **self.base(at - 3, "jenkins/ci1", **correlation),
                **build,
                number=number,
                url=url,
                outcome="success",
                seconds=120.5,
            )
        docs: dict[str, Any] = {"job": self.text("docs/html"), "repo": DOCS_REPO, "ref": DOCS_MAIN, "commit": C4}
        yield BuildFinished(**self.base(66, "jenkins/ci1"), **docs, number=9, outcome="failure", seconds=12.0)
        yield BuildStarted(**self.base(3, "jenkins/ci1"), **(docs | {"job": "docs/pdf"}), number=10)
        yield BuildRequested(
            **self.base(2, "jenkins/ci1", correlation_id="push-99"),
            **(docs | {"job": "docs/epub"}),
            server="ci",
            detail=self.text(""),
        )

    def mirrors(self) -> Iterator[Message]:
        """Fetches of all nodes; one that failed."""
        for node in NODES:
            yield MirrorUpdated(
                **self.base(179, f"agent/{node}"),
                node=node,
                repo=REPO,
                ref=MAIN,
                old=C1,
                new=C2,
                outcome="updated",
                seconds=0.42,
            )
        outcomes: dict[NodeName, MirrorOutcome] = {WEB1: "updated", WEB2: "updated", WEB3: "failed"}
        for node, outcome in outcomes.items():
            yield MirrorUpdated(
                **self.base(87, f"agent/{node}"),
                node=node,
                repo=REPO,
                ref=V3,
                old=ZERO_ID,
                new=C3,
                outcome=outcome,
                seconds=1.5,
                detail=self.text("the origin does not answer") if outcome == "failed" else "",
            )

    def _command(self, minutes: float, node: NodeName, rollout: str | None, **fields: Any) -> DeployRequested:
        base = self.base(minutes, "operator/desk")
        base["id"] = fields.pop("id", f"{rollout}/{node}/{fields.get('phase', 'deploy')}")
        wanted: dict[str, Any] = {
            "site": SHOP,
            "ref": V2,
            "commit": C2,
            "expires": base["time"] + timedelta(minutes=10),
        } | fields
        return DeployRequested(**base, audience=(node,), requested_by=self.text("ann@desk"), rollout=rollout, **wanted)

    def _report(self, minutes: float, command: DeployRequested, **fields: Any) -> DeployReported:
        release = f"{(command.ref or '').rpartition('/')[2]}-{command.commit[:8]}"
        made = SiteRelease(release=release, ref=command.ref, commit=command.commit)
        live: dict[str, Any] = {"ref": command.ref, "commit": command.commit, "release": release, "live_known": True}
        node = command.audience[0]
        values = live | {"target": made, "outcome": "success", "phase": command.phase} | fields
        return DeployReported(
            **self.base(minutes, f"agent/{node}"), node=node, site=command.site, request=command.id, **values
        )

    def _progress(
        self, minutes: float, command: DeployRequested, number: int, step: str, state: ProgressState, **fields: Any
    ) -> DeployProgressed:
        node = command.audience[0]
        return DeployProgressed(
            **self.base(minutes, f"agent/{node}"),
            node=node,
            site=command.site,
            request=command.id,
            rollout=command.rollout,
            phase=command.phase,
            number=number,
            step=step,
            state=state,
            **fields,
        )

    def _announced(
        self, minutes: float, rollout: str, state: RolloutState, counts: dict[str, int], **fields: Any
    ) -> Message:
        values: dict[str, Any] = {"ref": V2, "commit": C2, "kind": "deploy"} | fields
        return RolloutReported(
            **self.base(minutes, "operator/desk"),
            site=SHOP,
            rollout=rollout,
            state=state,
            nodes=counts,
            requested_by=self.text("ann@desk"),
            host=self.text("desk"),
            **values,
        )

    def finished_rollout(self) -> Iterator[Message]:
        """`DONE`: v1.2 on all three nodes, approved before."""
        began = NOW - timedelta(minutes=170)
        yield RolloutApproved(
            **self.base(171, "operator/desk"),
            site=SHOP,
            rollout=DONE,
            ref=V2,
            commit=C2,
            nodes=NODES,
            phases=("deploy",),
            not_before=began,
            not_after=began + timedelta(hours=1),
            requested_by=self.text("ben"),
            reason=self.text("the release of the week"),
        )
        yield self._announced(170, DONE, "canary", {"asked": 1, "pending": 2})
        for at, node in enumerate(NODES):
            minutes = 169 - at
            command = self._command(minutes, node, DONE)
            yield command
            yield self._progress(minutes - 0.1, command, 0, "export", "began")
            yield self._progress(minutes - 0.2, command, 1, "export", "done", seconds=1.25)
            yield self._progress(minutes - 0.3, command, 2, "post-deploy", "began")
            yield self._progress(
                minutes - 0.4, command, 3, "post-deploy", "output", output=self.text("cache cleared\nall good") + "\n"
            )
            yield self._progress(minutes - 0.5, command, 4, "post-deploy", "done", seconds=0.5, exit_code=0)
            steps = (
                StepReport(name="export", outcome="done", seconds=1.25),
                StepReport(
                    name="post-deploy",
                    outcome="done",
                    seconds=0.5,
                    exit_code=0,
                    output=self.text("cache cleared\nall good") + "\n",
                ),
            )
            yield self._report(minutes - 0.6, command, steps=steps, previous=self.release(V1, C1))
        yield self._announced(160, DONE, "succeeded", {"active": 3})

    @staticmethod
    def release(ref: RefName, commit: ObjectId) -> SiteRelease:
        """Return a release as nodes name it."""
        return SiteRelease(release=f"{ref.rpartition('/')[2]}-{commit[:8]}", ref=ref, commit=commit)

    def failed_rollout(self) -> Iterator[Message]:
        """`FAILED`: the canary web1 gets v1.3, its script fails, it puts v1.2 back; the others are skipped."""
        target: dict[str, Any] = {"ref": V3, "commit": C3}
        yield self._announced(50, FAILED, "canary", {"asked": 1, "pending": 2}, **target)
        command = self._command(49, WEB1, FAILED, **target)
        yield command
        yield self._progress(48.9, command, 0, "fetch", "began")
        yield self._progress(48.8, command, 1, "fetch", "done", seconds=0.8)
        yield self._progress(48.7, command, 2, "export", "began")
        yield self._progress(48.6, command, 3, "export", "done", seconds=2.0)
        yield self._progress(48.5, command, 4, "migrate", "began")
        number = 5
        for first in range(0, self._log_lines, 50):
            lines = [self.text(f"migrating table {line}") for line in range(first, min(first + 50, self._log_lines))]
            yield self._progress(48.4, command, number, "migrate", "output", output="\n".join(lines) + "\n")
            number += 1
        yield self._progress(
            48.2, command, number, "migrate", "output", output=self.text("\x1b[31mERROR\x1b[0m no space") + "\n"
        )
        yield self._progress(48.1, command, number + 1, "migrate", "failed", seconds=12.5, exit_code=3)
        steps = (
            StepReport(name="fetch", outcome="done", seconds=0.8),
            StepReport(name="export", outcome="done", seconds=2.0),
            StepReport(name="migrate", outcome="failed", seconds=12.5, exit_code=3, output="ERROR no space\n"),
            StepReport(name="switch", outcome="skipped"),
        )
        yield self._report(
            48,
            command,
            outcome="rolled-back",
            detail=self.text("migrate ended with exit code 3"),
            steps=steps,
            target=self.release(V3, C3),
            ref=V2,
            commit=C2,
            release=self.release(V2, C2).release,
            previous=self.release(V1, C1),
        )
        detail = self.text("web1 failed: migrate ended with exit code 3")
        yield self._announced(
            47, FAILED, "failed", {"failed": 1, "skipped": 2}, failed=(WEB1,), detail=detail, **target
        )

    def single_rollback(self) -> Iterator[Message]:
        """`SINGLE`: somebody takes web3 back to v1.1 by hand."""
        command = self._command(40, WEB3, None, id=SINGLE, phase="rollback", ref=V1, commit=C1)
        yield command
        yield self._report(39.5, command, previous=None)

    def lock(self, minutes: float = 30) -> SiteLocked:
        """Return the lock of `docs`."""
        return SiteLocked(
            **self.base(minutes, "operator/desk"),
            site=DOCS,
            serial=100,
            holder=self.text("cleo@desk"),
            reason=self.text("the fair, until Friday"),
            until=NOW + timedelta(days=2),
        )

    def locks(self) -> Iterator[Message]:
        """`docs` is locked; `shop` was, for a while."""
        yield SiteLocked(
            **self.base(120, "operator/desk"),
            site=SHOP,
            serial=10,
            holder=self.text("ben@desk"),
            reason=self.text("stocktaking"),
            until=NOW + timedelta(days=1),
        )
        yield SiteUnlocked(**self.base(100, "operator/desk"), site=SHOP, serial=11, holder=self.text("ben@desk"))
        self._lock = self.lock()
        yield self._lock

    def signed(self, message: Message) -> SignedStatement:
        """Return a statement as nodes carry it, with a signature that nobody can verify."""
        frame = encode(message)
        return statement_of(Frame({**frame.headers, HEADER: "bm9uZQ=="}, frame.body))

    def descriptions(self) -> Iterator[Message]:
        """All nodes were asked, and answered."""
        details: tuple[NodeDetail, ...] = ("facts", "sites", "drift", "refs", "history")
        question = NodeQueried(**self.base(10, "web/console"), details=details)
        yield question
        lock = self.signed(self._lock)
        for at, node in enumerate(NODES):
            v2, v1 = self.release(V2, C2), self.release(V1, C1)
            live, previous = (v1, None) if node == WEB3 else (v2, v1)
            history = self._history(node)
            shop = SiteState(
                site=SHOP,
                repo=REPO,
                release=live.release,
                ref=live.ref,
                commit=live.commit,
                since=NOW - timedelta(minutes=39.5 if node == WEB3 else 168 - at),
                previous=previous,
                last=history[0],
                modified=2 if node == WEB2 else 0,
                history=history,
            )
            docs = SiteState(
                site=DOCS,
                repo=DOCS_REPO,
                release="main-1111",
                ref=DOCS_MAIN,
                commit=C4 if node == WEB1 else C1,
                since=NOW - timedelta(days=3 - at),
                lock=lock,
            )
            refs = [
                HeldRef(repo=REPO, ref=MAIN, commit=C3 if node != WEB3 else C2, time=NOW - timedelta(minutes=95)),
                HeldRef(repo=REPO, ref=V2, commit=C2, time=NOW - timedelta(minutes=185)),
                HeldRef(repo=REPO, ref=V1, commit=C1, time=NOW - timedelta(days=9)),
                HeldRef(repo=DOCS_REPO, ref=DOCS_MAIN, commit=C4, time=NOW - timedelta(minutes=71)),
            ]
            if node != WEB3:
                refs.append(HeldRef(repo=REPO, ref=V3, commit=C3, time=NOW - timedelta(minutes=95)))
            yield NodeDescribed(
                **self.base(9.9 - at / 100, f"agent/{node}"),
                node=node,
                request=question.id,
                instance=f"instance-{node}",
                host=f"{node}.example.org",
                version="0.1.0",
                facts={"os": "debian", "release": 12, "cores": 2, "note": self.text("rack 7")},
                classes=("web", self.text("shop")) if node != WEB3 else ("web",),
                sites=(shop, docs) if node != WEB3 else (shop,),
                refs=tuple(refs),
                refs_count=len(refs),
            )

    def _history(self, node: NodeName) -> tuple[SiteOperation, ...]:
        def operation(number: int, minutes: float, ref: RefName, commit: ObjectId, **fields: Any) -> SiteOperation:
            values: dict[str, Any] = {
                "phase": "deploy",
                "outcome": "success",
                "release": self.release(ref, commit).release,
            } | fields
            return SiteOperation(
                number=number,
                ref=ref,
                commit=commit,
                requested_by=self.text("ann@desk"),
                started=NOW - timedelta(minutes=minutes + 1),
                finished=NOW - timedelta(minutes=minutes),
                **values,
            )

        found = [
            operation(1, 14_000, V1, C1),
            operation(2, 168, V2, C2, request=f"{DONE}/{node}/deploy", rollout=DONE),
        ]
        if node == WEB1:
            failed: dict[str, Any] = {"outcome": "rolled-back", "detail": self.text("migrate ended with exit code 3")}
            found.append(operation(3, 48, V3, C3, request=f"{FAILED}/{node}/deploy", rollout=FAILED, **failed))
        if node == WEB3:
            found.append(operation(3, 39.5, V1, C1, phase="rollback", request=SINGLE))
        return tuple(reversed(found))

    def notices(self) -> Iterator[Message]:
        """Lines for people."""
        yield Notice(**self.base(85, "webhook/forge"), text=self.text("merge request 12 was merged by ben"))
        yield Notice(**self.base(45, "git/git.example.org"), text=self.text("the branch topic of docs was deleted"))


def heard_messages(*, hostile: bool = False, log_lines: int = 40) -> list[Heard]:
    """Return the whole world as the projection takes it, signed where it must be."""
    world = WebWorld(hostile=hostile, log_lines=log_lines)
    unsigned = (RefUpdated, RevisionCommitted, BuildRequested, BuildStarted, MirrorUpdated, Notice)
    return [
        Heard(
            message=message,
            received=message.time + timedelta(milliseconds=20),
            signer="" if isinstance(message, unsigned) else world.text("ann SHA256:abcdef"),
        )
        for message in world.messages()
    ]


def world_store(
    state: Path, *, hostile: bool = False, log_lines: int = 40, settings: WebSettings | None = None
) -> Store:
    """Return a store in `state` that holds the whole world, at the instant `NOW`. Close it."""
    store = Store.open(settings or WebSettings(), state, now=lambda: NOW)
    store.apply(heard_messages(hostile=hostile, log_lines=log_lines))
    return store


def healthy() -> ProjectionHealth:
    """Return the health of a console to which nothing has happened."""
    return ProjectionHealth(connected=True, asked=NOW - timedelta(minutes=10), answered=3)


def world_queries(store: Store) -> Queries:
    """Return the queries of a store whose console is connected."""
    return store.queries(healthy)
