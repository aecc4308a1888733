"""A fake build server with faults at chosen points, and settings and events for the build daemon's tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import attrs

from deploykit.daemons.jenkins.ports import BuildAnswer, BuildOrder, QueueState
from deploykit.messages import RefUpdated
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName
from deploykit.settings import BuildServerSettings, BusSettings, JenkinsSettings, JobSettings, OutboxSettings, Settings

SHOP = RepoName("shop")
MAIN = RefName("refs/heads/main")
OLD, NEW = ObjectId("1" * 40), ObjectId("2" * 40)


def push(ref: str = MAIN, new: str = NEW, **changes: object) -> RefUpdated:
    """A push to the shop."""
    made = RefUpdated(repo=SHOP, ref=RefName(ref), old=ZERO_ID, new=ObjectId(new), pusher="ada", source="git/host")
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]


def job(name: str = "shop-tests", **changes: object) -> JobSettings:
    """A job of the shop."""
    return attrs.evolve(JobSettings(repo=SHOP, job=name), **changes)  # type: ignore[arg-type]


def jenkins(*jobs: JobSettings, servers: tuple[str, ...] = ("ci",), **changes: object) -> JenkinsSettings:
    """`[jenkins]` with some jobs, and pauses that a test can wait for."""
    made = JenkinsSettings(
        servers={name: BuildServerSettings(url=f"https://{name}.example.org/") for name in servers},
        jobs=jobs or (job(),),
        pause_max=0.05,
        ask_again_after=0.2,
    )
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]


def node_settings(root: Path, address: str, found: JenkinsSettings) -> Settings:
    """A node's settings in a directory of the test."""
    return Settings(
        node=NodeName("web1"),
        state=root / "state",
        broker=BusSettings(address=address, backoff_max=0.2),
        outbox=OutboxSettings(path=root / "spool"),
        jenkins=found,
    )


class Cut(BaseException):
    """The process is killed here."""


class FakeJenkins:
    """A `BuildServer` that keeps books: `asked` are the requests that arrived, `started` the builds they started.

    Args:
        answers: called for each request; an answer, or None for the usual one; may raise.
    """

    def __init__(self, answers: Callable[[BuildOrder], BuildAnswer | None] = lambda _: None) -> None:
        self.answers = answers
        self.asked: list[BuildOrder] = []
        self.started: dict[int, BuildOrder] = {}
        self.looks = 0
        #: What `find` raises, if anything.
        self.blind: Exception | None = None
        #: What `follow` returns; by default the item has started.
        self.state: Callable[[int], QueueState] = lambda item: QueueState(
            kind="started", number=100 + item, url=f"https://ci.example.org/{100 + item}/"
        )
        self.changed = threading.Condition()

    def start(self, order: BuildOrder, *, deadline: float) -> BuildAnswer:
        with self.changed:
            self.asked.append(order)
            self.changed.notify_all()
        return self.answers(order) or self.accept(order)

    def accept(self, order: BuildOrder) -> BuildAnswer:
        """Queue a build, as Jenkins does."""
        with self.changed:
            item = len(self.started) + 1
            self.started[item] = order
            self.changed.notify_all()
        return BuildAnswer(kind="queued", queue_item=item, url=f"https://ci.example.org/q/{item}", detail="queued")

    def find(self, order: BuildOrder, *, deadline: float) -> BuildAnswer | None:
        self.looks += 1
        if self.blind is not None:
            raise self.blind
        for item, known in self.started.items():
            if (known.job, known.parameters) == (order.job, order.parameters):
                return BuildAnswer(kind="queued", queue_item=item, detail=f"found as item {item}")
        return None

    def follow(self, queue_item: int, *, order: BuildOrder, deadline: float) -> QueueState:
        return self.state(queue_item)

    def wait_asked(self, number: int, timeout: float = 30.0) -> list[BuildOrder]:
        """Wait for so many requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= number, timeout), self.asked
        return self.asked


def unanswered(order: BuildOrder) -> BuildAnswer:
    """No answer came."""
    return BuildAnswer(kind="unanswered", detail=f"{order.job}: no answer in 30 seconds", retry=True)


def unreachable(order: BuildOrder) -> BuildAnswer:
    """The server is down."""
    return BuildAnswer(kind="unreachable", detail=f"{order.server}: connection refused", retry=True)


def busy(order: BuildOrder) -> BuildAnswer:
    """The server takes nothing now."""
    return BuildAnswer(kind="busy", detail=f"{order.job}: 503", retry=True)


def refused(order: BuildOrder) -> BuildAnswer:
    """The server refuses the login."""
    return BuildAnswer(
        kind="refused", detail=f"{order.job}: 403", remedy="give the user Item.Build", url="https://ci.example.org/"
    )
