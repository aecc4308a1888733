"""A stub Jenkins with one job for each row of the table, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.daemons.jenkins.ports import BuildOrder
from tests.support.stubjenkins import StubJenkins, StubJob

COMMIT = "1f" * 20


def secret(path: Path, text: str) -> Path:
    """Return a file with a secret in it."""
    path.touch(0o600)
    path.write_text(f"{text}\n")
    return path


def order(job: str = "shop-tests", correlation_id: str = "c1", *, token_file: Path | None = None) -> BuildOrder:
    """An order with the four default parameters, and one that no job defines."""
    parameters = {
        "DEPLOYKIT_CORRELATION_ID": correlation_id,
        "DEPLOYKIT_REPO": "shop",
        "DEPLOYKIT_REF": "refs/heads/main",
        "DEPLOYKIT_COMMIT": COMMIT,
        "UNDEFINED": "x",
    }
    return BuildOrder(server="ci", job=job, parameters=parameters, correlation_id=correlation_id, token_file=token_file)


def jobs() -> list[StubJob]:
    """One job for each thing that can be wrong."""
    return [
        StubJob(name="shop-tests"),
        StubJob(name="no-parameters", parameters=None),
        StubJob(name="team", kind="folder"),
        StubJob(name="team/my tests"),
        StubJob(name="shop", kind="multibranch"),
        StubJob(name="shop/feature%2Flogin"),
        StubJob(name="disabled", disabled=True),
        StubJob(name="hidden", readers=frozenset()),
        StubJob(name="discovered", readers=frozenset(), discoverers=frozenset({"deploykit"})),
        StubJob(name="not-ours", builders=frozenset()),
        StubJob(name="with-token", token="canary-job-token", builders=frozenset()),
    ]


@pytest.fixture
def jenkins() -> Iterator[StubJenkins]:
    """A Jenkins whose queue is held: what was queued can be seen there."""
    with StubJenkins(jobs()) as stub:
        stub.queue.hold()
        yield stub
