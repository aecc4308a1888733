"""What a node says of its mirror while objects are missing, and when they have come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.daemons.agent.mirrors import MirrorHandler, mirror_path
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.service.metrics import Metrics
from deploykit.messages import Message, MirrorUpdated
from deploykit.names import NodeName, RepoName
from deploykit.settings import MirrorSettings, RepositorySettings, Settings
from tests.support.lfsorigins import in_store, pointer_to, seeded
from tests.support.lfsstub import LfsStub, commit_pointers, lfs_stub
from tests.support.origins import GitRepo
from tests.support.wait import wait_until

SITE = RepoName("site")
HERE, LATE = seeded(1000, 1), seeded(2000, 2)


class Reports(Reporter):
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.said: list[MirrorUpdated] = []

    def report(self, *messages: Message, announced: bool = True) -> tuple[Any, ...]:
        self.said += [message for message in messages if isinstance(message, MirrorUpdated)]
        return ()


@pytest.fixture
def stub() -> Iterator[LfsStub]:
    with lfs_stub() as made:
        made.hold(HERE)
        yield made


def test_a_missing_object_is_reported_once_and_again_when_it_came(tmp_path: Path, stub: LfsStub) -> None:
    repo = GitRepo.make(tmp_path / "origin.git")
    commit = commit_pointers(repo, {"here.bin": HERE, "late.bin": LATE})
    repo.git("branch", "other", repo.commit({"plain": b""}, branch=None, parents=()))
    mirror = MirrorSettings(lfs=True, lfs_url=stub.url, allow_http=True)
    settings = Settings(
        node=NodeName("web1"),
        state=tmp_path / "state",
        repositories={SITE: RepositorySettings(url=str(repo.path), mirror=mirror)},
        fetch_spread=0.0,
    )
    reports, metrics = Reports(), Metrics()
    metrics.expect("agent", repositories=[SITE])
    handler = MirrorHandler(settings, reports, metrics=metrics)
    try:
        handler.start()
        failed = handler.sync_all(time.monotonic() + 120)
        assert failed == {SITE: failed[SITE]}
        assert "late.bin: the server does not have it" in failed[SITE]
        wait_until(lambda: len(reports.said) == 2)
        assert {(said.ref, said.outcome) for said in reports.said} == {
            ("refs/heads/main", "failed"),
            ("refs/heads/other", "updated"),
        }
        path = mirror_path(settings, SITE)
        assert set(in_store(path)) == {pointer_to(HERE).oid}
        handler.sync(SITE)
        assert len(reports.said) == 2, "said once"
        stub.hold(LATE)
        handler.sync(SITE)
        (last,) = reports.said[2:]
        assert (last.ref, last.new, last.outcome) == ("refs/heads/main", commit, "unchanged")
        assert set(in_store(path)) == {pointer_to(HERE).oid, pointer_to(LATE).oid}
        counts = metrics.series("mirror_fetches_total")
        assert {(SITE, "failed"), (SITE, "unchanged")} <= counts.keys()
        assert (SITE, "updated") not in counts
    finally:
        handler.stop()
