"""The store of ids under SIGKILL at every call, a disk that is full, and one that is broken."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploykit.ids import Claim, IdStore
from tests.support.killsweep import NEEDS_DISK, NEEDS_SPACE, Run, error_sweep, kill_sweep, record

CODE = """
import sys
from datetime import datetime, timedelta, UTC
from deploykit.errors import IdStoreError
from deploykit.ids import Claim, IdStore
now = datetime.now(UTC)
try:
    store = IdStore(sys.argv[1])
    print("claim", store.claim("k", "old", b"d", now).name, flush=True)
    print("claim", store.claim("k", "new", b"d", now).name, flush=True)
    store.done("k", "new", b"reply", now)
    print("done", flush=True)
    store.prune(now + timedelta(days=99))
except IdStoreError as error:
    print("refused:", error, flush=True)
"""


class Place:
    """A store that holds one done id before each run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "ids.sqlite"
        self.argv = [sys.executable, "-c", CODE, str(self.path)]

    def prepare(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        with IdStore(self.path) as store:
            store.claim("k", "old", b"d", datetime.now(UTC))
            store.done("k", "old", b"reply", datetime.now(UTC))

    def check(self, run: Run) -> None:
        """Whatever was answered is still known; whatever happened, the store works on."""
        said = run.stdout.split("\n")
        assert "Traceback" not in run.stderr, run.stderr
        with IdStore(self.path) as store:
            known = store.claim("k", "new", b"d", datetime.now(UTC))
            if "done" in said:
                assert known in (Claim.DONE, Claim.FRESH), known  # pruned, or not yet
                assert known is Claim.DONE or run.returncode == 0 or "prune" in run.stderr or run.killed
            elif "claim FRESH" in said:
                assert known is not Claim.FRESH, "a replay would be acted on"
            old = store.claim("k", "old", b"d", datetime.now(UTC))
            assert old is Claim.DONE or "done" in said, old


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state")


def test_threat_2_killed_at_any_call_a_claim_that_was_answered_is_known(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    report = kill_sweep(place.argv, roots=[place.root], prepare=place.prepare, check=place.check)
    with capsys.disabled():
        print(f"\n{report}")


def test_a_full_disk_at_any_call_is_refused_or_harmless(place: Place) -> None:
    error_sweep(place.argv, roots=[place.root], prepare=place.prepare, check=place.check, calls=NEEDS_SPACE)


def test_a_disk_that_will_not_sync_gives_no_claim(place: Place) -> None:
    def check(run: Run) -> None:
        place.check(run)
        if run.injected:
            assert "refused:" in run.stdout or "done" in run.stdout.split("\n"), run.stdout

    error_sweep(
        place.argv, roots=[place.root], prepare=place.prepare, check=check, calls=NEEDS_DISK, error="EIO", lasting=True
    )


def test_threat_2_each_claim_and_each_done_is_synced(place: Place) -> None:
    place.prepare()
    code = (
        "import sys\nfrom datetime import datetime, UTC\nfrom deploykit.ids import IdStore\n"
        "store = IdStore(sys.argv[1]); now = datetime.now(UTC)\n"
        "for n in range(int(sys.argv[2])): store.claim('k', str(n), b'd', now); store.done('k', str(n), b'', now)"
    )

    def syncs(number: int) -> int:
        argv = [sys.executable, "-c", code, str(place.path), str(number)]
        return len(record(argv, roots=[place.root], calls=NEEDS_DISK))

    assert syncs(12) - syncs(2) == 20
