"""The audit log under SIGKILL at every call, and on a disk that is full or broken: the chain stays whole."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from deploykit.audit import AuditLog
from deploykit.audit.files import read_records, verify_files
from deploykit.audit.record import AuditRecord
from tests.support.killsweep import NEEDS_DISK, NEEDS_SPACE, Run, error_sweep, kill_sweep, record

#: Three records: one that fits, one that rotates, and one behind it. A torn line stands at the end before.
CODE = """
import sys
from deploykit.audit import AuditLog
from deploykit.errors import AuditError
for n in range(3):
    try:
        log = AuditLog(sys.argv[1], max_bytes=2200, keep=1)
        log.record(actor="a", action="b", target="c", decision="denied", reason=f"new {n}")
        print("recorded", n, flush=True)
    except AuditError as error:
        print("refused:", error, flush=True)
"""


class Place:
    """A log with an old file, a current one and a line that a crash cut off, before each run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "audit.log"
        self.argv = [sys.executable, "-c", CODE, str(self.path)]

    def prepare(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        log = AuditLog(self.path, max_bytes=2200, keep=1)
        for _ in range(7):
            log.record(actor="a", action="b", target="c", decision="denied", reason="old")
        with self.path.open("ab") as file:
            file.write(b'{"v":1,"seq"')

    def check(self, run: Run) -> None:
        """What was confirmed is there once, the chain is whole, and goes on."""
        assert "Traceback" not in run.stderr, run.stderr
        self.whole()
        AuditLog(self.path).record(actor="a", action="b", target="c", decision="denied", reason="after")
        self.whole()
        found = [r.reason for r in read_records(self.path) if isinstance(r, AuditRecord) and r.action == "b"]
        assert found[-1] == "after"
        for n in range(3):
            confirmed = f"recorded {n}" in run.stdout
            assert found.count(f"new {n}") in ((1,) if confirmed else (0, 1)), (n, found, run.stdout)

    def whole(self) -> None:
        report = verify_files(self.path)
        assert report.fault is None, report


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state")


def test_threat_40_killed_at_any_call_the_chain_stays_whole(place: Place) -> None:
    kill_sweep(place.argv, roots=[place.root], prepare=place.prepare, check=place.check)


def test_a_full_disk_at_any_call_is_refused_or_harmless(place: Place) -> None:
    error_sweep(place.argv, roots=[place.root], prepare=place.prepare, check=place.check, calls=NEEDS_SPACE)


def test_a_disk_that_will_not_sync_confirms_nothing(place: Place) -> None:
    def check(run: Run) -> None:
        place.check(run)
        if run.injected:
            assert "refused:" in run.stdout, run.stdout

    error_sweep(
        place.argv, roots=[place.root], prepare=place.prepare, check=check, calls=NEEDS_DISK, error="EIO", lasting=True
    )


def test_each_record_is_one_sync(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit.log"
    AuditLog(path).record(actor="a", action="b", target="c", decision="denied")
    code = (
        "import sys\nfrom deploykit.audit import AuditLog\nlog = AuditLog(sys.argv[1])\n"
        "for n in range(int(sys.argv[2])): log.record(actor='a', action='b', target='c', decision='denied')"
    )

    def syncs(number: int) -> int:
        argv = [sys.executable, "-c", code, str(path), str(number)]
        return len(record(argv, roots=[path.parent], calls=NEEDS_DISK))

    assert syncs(12) - syncs(2) == 10
